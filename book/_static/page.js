// Lets the keyboard reach what scrolls sideways: code, output, formulas and tables wider than the
// page. What is wide depends on the fonts and the formulas, so it waits for both.
const mayScroll = document.querySelectorAll("article pre, article .table-wrapper, article .math");

function markWhatScrolls() {
  for (const element of mayScroll) {
    if (element.scrollWidth > element.clientWidth) element.setAttribute("tabindex", "0");
    else element.removeAttribute("tabindex");
  }
}

window.addEventListener("load", async () => {
  await document.fonts.ready;
  // Each of them too: a rule for wide screens may change their letters after the page's width.
  const observer = new ResizeObserver(markWhatScrolls);
  for (const element of [document.documentElement, ...mayScroll]) observer.observe(element);
});

// Modules do not load everywhere: not from a page that was opened as a file, nor past a blocker. The
// words that describe a widget then take its place, and the first of them says why.
function sayThatWidgetsAreMissing() {
  const first = document.querySelector(".gptlib-widget");
  if (!first || document.documentElement.dataset.gptlib === "started") return;
  document.documentElement.dataset.gptlib = "missing";
  const why = location.protocol === "file:"
    ? "It needs a web server: run make serve, and open the address that it prints."
    : "Its program could not be loaded: reload the page, or look for what blocks it.";
  const note = document.createElement("p");
  note.className = "gptlib-missing";
  note.textContent = `Here is a picture that one can change. ${why} Until then, in words:`;
  first.prepend(note);
}

window.addEventListener("load", sayThatWidgetsAreMissing);

// Paper has nothing to unfold: all is open while a page is printed, and then as it was.
/** @type {HTMLDetailsElement[]} */
let unfolded = [];
window.addEventListener("beforeprint", () => {
  const closed = document.querySelectorAll("article details:not([open])");
  unfolded = [.../** @type {NodeListOf<HTMLDetailsElement>} */ (closed)];
  for (const details of unfolded) details.open = true;
});
window.addEventListener("afterprint", () => {
  for (const details of unfolded) details.open = false;
});
