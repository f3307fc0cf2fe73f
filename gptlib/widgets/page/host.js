// Brings the widgets of a static page to life: it reads the state that is stored in the page and
// offers each widget's module the front-end interface of anywidget. There is no kernel behind it.

/** @import { Listener, Model } from "../lib/types.d.ts" */
/** @typedef {(() => void) | void} CleanUp */

/**
 * A model without a kernel: it holds the state and tells who listens that it has changed. A message
 * is answered as the kernel would answer it, by what `answers` has for its type.
 * @param {Record<string, unknown>} state
 * @param {Record<string, () => Promise<unknown>>} answers
 * @returns {Model}
 */
export function createModel(state, answers = {}) {
  const values = new Map(Object.entries(state));
  /** @type {Map<string, Set<Listener>>} */
  const listeners = new Map();
  /** @param {string} event @param {unknown[]} details */
  const emit = (event, ...details) => {
    for (const callback of [...(listeners.get(event) ?? [])]) callback(...details);
  };
  /** @type {Model} */
  const model = {
    get: (name) => values.get(name),
    set(name, value) {
      if (values.get(name) === value) return;
      values.set(name, value);
      emit(`change:${name}`, model, value);
      emit("change", model);
    },
    on(event, callback) {
      if (!listeners.has(event)) listeners.set(event, new Set());
      listeners.get(event)?.add(callback);
    },
    off(event, callback) {
      if (!event) listeners.clear();
      else if (!callback) listeners.delete(event);
      else listeners.get(event)?.delete(callback);
    },
    save_changes() {},
    send(content) {
      const type = /** @type {any} */ (content)?.type;
      if (!Object.hasOwn(answers, type)) return;
      answers[type]().then(
        (answer) => emit("msg:custom", { type, .../** @type {object} */ (answer) }, []),
        (error) => emit("msg:custom", { type, error: String(error.message) }, []),
      );
    },
  };
  return model;
}

/** Replace every `{"$asset": name}` in a state by what that file holds, and every lazy one by an
 * object whose `load` fetches it when it is called.
 * @param {any} value @param {(name: string) => Promise<unknown>} fetchAsset
 * @returns {Promise<any>} */
export async function resolveAssets(value, fetchAsset) {
  if (Array.isArray(value)) {
    return Promise.all(value.map((item) => resolveAssets(item, fetchAsset)));
  }
  if (value === null || typeof value !== "object") return value;
  if (typeof value.$asset === "string") {
    const load = () => fetchAsset(value.$asset);
    return value.lazy ? { load } : load();
  }
  const names = Object.keys(value);
  const parts = await Promise.all(names.map((name) => resolveAssets(value[name], fetchAsset)));
  return Object.fromEntries(names.map((name, i) => [name, parts[i]]));
}

/** @param {string} name of a file @returns {string} its address; this one is in the folder page */
const addressOf = (name) => new URL(`../${name}`, import.meta.url).href;

/** @type {Map<string, Promise<unknown>>} */
const assets = new Map();

/** @param {string} name @returns {Promise<unknown>} */
function fetchAsset(name) {
  const known = assets.get(name);
  if (known) return known;
  const asset = fetch(addressOf(name)).then((response) => {
    if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
    return response.json();
  });
  assets.set(name, asset);
  asset.catch(() => assets.delete(name)); // so that the next try asks again
  return asset;
}

/** What a page has for a widget that runs the mini model: where its files are. */
async function engine() {
  const [about, vocabulary] = await Promise.all(
    ["mini.json", "stories_vocabulary.json"].map(fetchAsset),
  );
  const { file, ...load } = /** @type {any} */ (about);
  const [worker, gpt, url] = ["page/gpt_worker.js", "page/gpt.js", file].map(addressOf);
  return { urls: { worker, gpt }, load: { ...load, url, vocabulary } };
}

/** @type {WeakMap<Element, CleanUp[]>} */
const mounted = new WeakMap();

/** Draw the widget of one placeholder. If that fails, its words stay. @param {HTMLElement} place */
export async function mount(place) {
  if (mounted.has(place)) return;
  /** @type {CleanUp[]} */
  const cleanUps = [];
  mounted.set(place, cleanUps);
  const name = place.dataset.gptlibWidget ?? "";
  const el = document.createElement("div");
  try {
    if (!/^[a-z0-9_]+$/.test(name)) throw new Error(`no widget has the name '${name}'`);
    const json = place.querySelector('script[type="application/json"]')?.textContent ?? "{}";
    const [module, state] = await Promise.all([
      import(addressOf(`${name}.js`)),
      resolveAssets(JSON.parse(json), fetchAsset),
    ]);
    const widget = typeof module.default === "function" ? await module.default() : module.default;
    const model = createModel(state, { engine });
    const experimental = { invoke: () => Promise.reject(new Error("this page has no kernel")) };
    cleanUps.push(await widget.initialize?.({ model, experimental }));
    cleanUps.push(await widget.render({ model, el, experimental }));
  } catch (error) {
    unmount(place);
    place.classList.add("gptlib-failed");
    console.error(`gptlib: the widget '${name}' cannot be drawn here`, error);
    return;
  }
  place.append(el);
  place.classList.add("gptlib-mounted");
}

/** Take a widget off the page again. @param {HTMLElement} place */
export function unmount(place) {
  for (const cleanUp of mounted.get(place) ?? []) cleanUp?.();
  mounted.delete(place);
  for (const el of place.querySelectorAll(":scope > div")) el.remove();
  place.classList.remove("gptlib-mounted");
}

function start() {
  /** @type {NodeListOf<HTMLElement>} */
  const places = document.querySelectorAll("[data-gptlib-widget]");
  const observer = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      mount(/** @type {HTMLElement} */ (target));
    }
  }, { rootMargin: "600px 0px" });
  for (const place of places) observer.observe(place);
  document.documentElement.dataset.gptlib = "started"; // the page looks whether it is
}

if (typeof document !== "undefined") start();
