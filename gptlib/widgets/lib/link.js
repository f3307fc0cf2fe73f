// A notebook has no files to import from: a widget's module, and the kit that all of them share,
// come from the kernel as text. Here each text becomes a module of its own, which the others find.
// This file is what anywidget loads, so it imports nothing itself.

/** @import { Context, Model } from "./types.d.ts" */
/** @typedef {[string, string][]} Sources  names and texts, each after what it imports */

/** The modules of this page by their text: made once, whoever asks. @type {Map<string, string>} */
const made = (/** @type {any} */ (globalThis)[Symbol.for("gptlib.modules")] ??= new Map());

/**
 * Turn texts into modules, in which an import of a name leads to the module of that name.
 * @param {Sources} sources
 * @returns {Record<string, string>} the modules' addresses by name
 */
export function link(sources) {
  /** @type {Record<string, string>} */
  const urls = {};
  for (const [name, text] of sources) {
    const code = text.replace(/"gptlib:([\w./-]+)"/g, (_, other) => JSON.stringify(urls[other]));
    if (!made.has(code)) {
      made.set(code, URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    }
    urls[name] = /** @type {string} */ (made.get(code));
  }
  return urls;
}

/**
 * The model that holds the kit for all widgets of a kernel, so that it is sent once.
 * @param {Model} model of a widget
 * @returns {Promise<Model>}
 */
function kitOf(model) {
  const { widget_manager: manager } = /** @type {any} */ (model);
  return manager.get_model(model.get("_kit").replace("IPY_MODEL_", ""));
}

/**
 * @param {DataView<ArrayBuffer>} bytes what `packed` of linker.py makes
 * @returns {Promise<any>}
 */
async function unpacked(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return await new Response(stream).json();
}

/** @param {string} css what all widgets look like; it comes before what one adds */
function style(css) {
  const known = [...document.querySelectorAll("style[data-gptlib]")];
  if (known.some(({ textContent }) => textContent === css)) return;
  const element = Object.assign(document.createElement("style"), { textContent: css });
  element.dataset.gptlib = "";
  document.head.prepend(element);
}

/** @param {Context} context */
async function render({ model, el }) {
  try {
    const { modules, css } = await unpacked((await kitOf(model)).get("packed"));
    style(css);
    const urls = link([...modules, ["widget", await unpacked(model.get("_program"))]]);
    const { default: widget } = await import(urls.widget);
    return widget.render({ model, el });
  } catch (error) {
    el.textContent = `This widget cannot be drawn here (${error}). Run its cell again.`;
    throw error;
  }
}

export default { render };
