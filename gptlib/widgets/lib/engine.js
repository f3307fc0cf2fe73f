// The mini model, which runs in a worker of the reader's own browser.

import { link } from "./link.js";

/** @import { Model } from "./types.d.ts" */

/**
 * Ask for something that a page has among its files, and that in Jupyter the kernel sends.
 * @param {Model} model the widget's
 * @param {string} type
 * @returns {Promise<{ answer: any, buffers: DataView[] }>}
 */
export function request(model, type) {
  return new Promise((resolve) => {
    const hear = (/** @type {any} */ answer, /** @type {DataView[]} */ buffers) => {
      if (answer?.type !== type) return;
      model.off("msg:custom", hear);
      resolve({ answer, buffers });
    };
    model.on("msg:custom", hear);
    model.send({ type });
  });
}

/**
 * Load the mini model into a worker of its own.
 * @param {Model} model the widget's
 * @param {(part: { loaded: number, total: number }) => void} onProgress
 * @param {AbortSignal} signal stops it, and closes the worker
 */
export async function openModel(model, onProgress, signal) {
  const { answer, buffers } = await request(model, "engine");
  if (answer.error) throw new Error(`The model's files do not arrive: ${answer.error}.`);
  const urls = answer.urls ?? linked(answer.modules);
  const { open } = await import(urls.worker);
  return open(urls, { ...answer.load, weights: buffers?.[0] }, onProgress, signal);
}

/** @param {[string, string][]} modules the engine's, as text @returns the addresses of its parts */
function linked(modules) {
  const urls = link(modules);
  return { worker: urls["page/gpt_worker.js"], gpt: urls["page/gpt.js"] };
}
