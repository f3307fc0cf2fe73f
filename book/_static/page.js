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
  new ResizeObserver(markWhatScrolls).observe(document.documentElement);
});
