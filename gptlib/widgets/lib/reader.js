// What lets a widget read other texts in a page without a kernel: a button, and behind it the mini
// model, in a worker. The widgets that have it import this file when they are drawn in such a page.

import { openModel } from "./engine.js";

/** @import { Model } from "./types.d.ts" */

/**
 * What reads another text in a page without a kernel: a button that loads the mini model, with a
 * bar and a way out while it comes.
 * @param {(tag: string, attributes?: any, ...children: any[]) => any} h makes elements: the widget's
 * @param {Model} model the widget's
 * @param {string} style its class names begin with it
 * @param {number} bytes of the weights
 * @param {(engine: any) => Promise<void>} read reads the text and shows what it finds
 * @param {(sentence: string) => void} say
 */
export function pageReader(h, model, style, bytes, read, say) {
  const size = `${(bytes / 1e6).toFixed(1)} MB`;
  const button = (/** @type {string} */ text) =>
    h("button", { type: "button", class: `${style}-button` }, text);
  const load = button(`Read this text: load the model, ${size}`);
  const cancel = button("Cancel");
  const bar = h("progress", { max: String(bytes), value: "0", "aria-label": "Loading the model" });
  const amount = h("span", { class: `${style}-soft` });
  const root = h("div", { class: `${style}-loader` }, load, bar, amount, cancel);
  /** @type {any} */ let engine = null;
  let stop = new AbortController(); // of the load under way
  let wanted = false; // another text than the one shown
  let loading = false; // and the reader waits for the model
  let gone = false;

  function draw() {
    root.hidden = !wanted || Boolean(engine);
    load.hidden = loading;
    bar.hidden = amount.hidden = cancel.hidden = !loading;
  }

  /** @param {any} error */
  function fail(error) {
    if (gone || error.code === "stopped") return; // another request took its place
    say(error.message);
    if (error.code === "input") return;
    engine?.close();
    engine = null;
    load.textContent = `Try again: load the model, ${size}`;
  }

  async function open() {
    const { signal } = (stop = new AbortController());
    loading = true;
    say("");
    draw();
    cancel.focus();
    const progress = (/** @type {{ loaded: number }} */ { loaded }) => {
      bar.value = loaded;
      amount.textContent = `${(loaded / 1e6).toFixed(1)} of ${size}`;
    };
    try {
      const found = await openModel(model, progress, signal);
      if (signal.aborted) return;
      engine = found;
      await read(engine);
    } catch (error) {
      if (signal.aborted) return;
      fail(error);
    }
    const focused = document.activeElement === cancel;
    loading = false;
    draw();
    if (focused) (engine ? root.parentElement?.querySelector("textarea") : load)?.focus();
  }

  load.addEventListener("click", open);
  cancel.addEventListener("click", () => {
    stop.abort();
    loading = false;
    draw();
    load.focus();
  });
  draw();
  return {
    root,
    /** @param {boolean} other whether the text is another one than that shown */
    want(other) {
      wanted = other;
      draw();
      if (other && engine) read(engine).catch(fail).finally(draw);
    },
    close() {
      gone = true;
      stop.abort();
      engine?.close();
    },
  };
}
