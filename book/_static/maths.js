// @ts-check
// Draws the formulas of a page with KaTeX. Each element holds the LaTeX of one formula as its text.
for (const element of document.querySelectorAll(".math")) {
  // @ts-ignore katex is a global of katex.min.js
  katex.render(element.textContent, element, {
    displayMode: element.tagName === "DIV",
    throwOnError: false,
  });
}
