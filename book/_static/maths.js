// Draws the formulas of a page with KaTeX. Each element holds the LaTeX of one formula as its text.
const { katex } = /** @type {any} */ (globalThis); // from katex.min.js

for (const element of document.querySelectorAll(".math")) {
  katex.render(element.textContent, element, {
    displayMode: element.tagName === "DIV",
    throwOnError: false,
  });
}
