// @ts-check
// Lets the keyboard reach what scrolls sideways: code, output and tables wider than the page.
const wide = document.querySelectorAll("article pre, article .table-wrapper, article div.math");
const observer = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.setAttribute("tabindex", "0");
    else target.removeAttribute("tabindex");
  }
});
for (const element of wide) observer.observe(element);
