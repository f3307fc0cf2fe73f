// The mini model writes in the reader's own browser. It runs in a worker (gpt_worker.js), token by
// token; this module shows the text, what was weighed at each place, how surprising each token was
// and where a head of attention looks.
//
// Each token is drawn with a seed of its own, made from the reader's seed and the token's place. So
// a text depends only on its beginning, the settings and the seed, however often it was stopped.

import { openModel } from "./lib/engine.js";

/**
 * @typedef {{ id: number, text: string, own: number, drawn?: number }} Alternative  two
 *   probabilities: the model's own, and with the sampling
 * @typedef {{ id: number, text: string, loss: number | null, alternatives: Alternative[] | null
 *   }} Token  `text` is what it completes; `loss` is in nats
 * @typedef {{ text: string, first: number, last: number, open: boolean }} Group  tokens that end
 *   with a character, or are `open` for the rest of one
 * @typedef {{ start: number, tokens: number, weights: Float32Array, layer: number, head: number
 *   }} Looks  of one head, (tokens, tokens); `start` is the first token in view
 * @typedef {{ temperature: number, top_k: number | null, top_p: number | null }} Settings
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: unknown): void,
 *   on(event: string, callback: Function): void,
 *   off(event: string, callback: Function): void,
 *   save_changes(): void,
 *   send(content: unknown): void,
 * }} Model
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

const MOST = 200; // tokens at a time
const PACE = 50; // milliseconds a token
const SHOWN = 600; // so much of a text is drawn, its end
const ROWS = 10; // alternatives, as many as the worker sends
const HOT = 6; // nats; what surprises more has the same color
const SHARES = 10_000; // as in Python

/**
 * The seed that the token at a place is drawn with.
 * @param {number} seed
 * @param {number} index
 */
export function seedAt(seed, index) {
  let mixed = Math.imul((seed ^ Math.imul(index, 0x9e3779b1)) | 0, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** @param {number | null} loss in nats @returns {number} how strong its color is, from 0 to 1 */
export function heat(loss) {
  return loss === null ? 0 : Math.round(100 * Math.min(Math.max(loss / HOT, 0), 1)) / 100;
}

/**
 * Put a token into the last group, if that one waits for the rest of a character, or a new one.
 * @param {Group[]} groups
 * @param {string} text what the token completes
 * @param {number} index
 * @param {boolean} whole whether it stands for itself, as the end-of-text token does
 */
export function addToGroups(groups, text, index, whole = false) {
  const group = groups.at(-1);
  if (group?.open && !whole) Object.assign(group, { text, last: index, open: !text });
  else groups.push({ text, first: index, last: index, open: !text && !whole });
}

/** @param {Token[]} tokens @param {Group} group @returns {number | null} the loss of all of it */
export function lossOf(tokens, { first, last }) {
  let sum = 0;
  for (let i = first; i <= last; i++) {
    const { loss } = tokens[i];
    if (loss === null) return null;
    sum += loss;
  }
  return sum;
}

/** @param {Token[]} tokens  what they lose in all, and each on average */
export function summarize(tokens) {
  const losses = tokens.map(({ loss }) => loss).filter((loss) => loss !== null);
  const sum = losses.reduce((a, b) => a + b, 0);
  return { count: losses.length, sum, mean: losses.length ? sum / losses.length : 0 };
}

/**
 * Python's example as tokens, and what may follow them.
 * @param {any} stored
 * @returns {{ tokens: Token[], next: Alternative[] }}
 */
export function unpack({ ids, texts, losses, alternatives, names }) {
  /** @param {number} share  rounded to none or all, it is neither */
  const own = (share) => Math.min(Math.max(share, 0.4), SHARES - 0.4) / SHARES;
  const places = alternatives.map((/** @type {number[]} */ row) =>
    Array.from({ length: row.length / 2 }, (_, i) => {
      return { id: row[2 * i], text: names[row[2 * i]] ?? "", own: own(row[2 * i + 1]) };
    })
  );
  const tokens = ids.map((/** @type {number} */ id, /** @type {number} */ i) => {
    return { id, text: texts[i], loss: losses[i - 1] ?? null, alternatives: places[i - 1] ?? null };
  });
  return { tokens, next: places.at(-1) };
}

/**
 * What a head looks at from one token, the most first.
 * @param {Looks} looks
 * @param {number} index
 * @param {number} [count]
 * @returns {{ index: number, weight: number }[]}
 */
export function looksFrom({ start, tokens, weights }, index, count = 5) {
  const row = index - start;
  if (row < 0 || row >= tokens) return [];
  return Array.from(weights.subarray(row * tokens, row * tokens + row + 1), (weight, i) => {
    return { index: start + i, weight };
  })
    .sort((a, b) => b.weight - a.weight)
    .slice(0, count);
}

/**
 * The pixels of a map: one color, the stronger the more weight.
 * @param {Float32Array} weights (tokens, tokens)
 * @param {number[]} color red, green, blue
 */
export function pixels(weights, [red, green, blue]) {
  const found = new Uint8ClampedArray(4 * weights.length);
  for (let i = 0, at = 0; i < weights.length; i++, at += 4) {
    if (weights[i] === 0) continue;
    found[at] = red;
    found[at + 1] = green;
    found[at + 2] = blue;
    found[at + 3] = 255 * Math.sqrt(weights[i]);
  }
  return found;
}

/** @param {(number | null)[]} losses @returns {string} a path: a line of its height for each */
export function bars(losses) {
  const top = (/** @type {number} */ loss) => HOT - Math.min(Math.max(loss, 0.04), HOT);
  return losses
    .map((loss, i) => (loss === null ? "" : `M${i + 0.5} ${HOT}V${top(loss).toFixed(2)}`))
    .join("");
}

const range = (/** @type {number} */ from, /** @type {number} */ to, /** @type {number} */ step) =>
  Array.from(
    { length: Math.round((to - from) / step) + 1 },
    (_, i) => Number((from + i * step).toFixed(2)),
  );

/** Where the sliders stop, as on the sampling bench; null is off.
 * @type {Record<string, (number | null)[]>} */
export const STOPS = {
  temperature: range(0, 2, 0.05),
  top_k: [...range(1, 10, 1), 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, null],
  top_p: [...range(0.05, 0.95, 0.05), 0.97, 0.99, null],
};

/** @param {string} name @param {number | null} value @returns {number} the nearest stop's place */
export function nearest(name, value) {
  const stops = STOPS[name];
  if (value === null) return stops.length - 1;
  const far = stops.map((stop) => (stop === null ? Infinity : Math.abs(stop - value)));
  return far.indexOf(Math.min(...far));
}

// ---------------------------------------------------------------------------------------------
// Numbers and tokens for people

/** @param {number} count @returns {string} the count with commas between the thousands */
export function formatCount(count) {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** @param {number} count @param {string} noun */
const plural = (count, noun) => `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;

/** @param {number} share from 0 to 1 @returns {string} in percent, never a false 0 or 100 */
export function formatShare(share) {
  const percent = 100 * share;
  if (percent === 0) return "0%";
  if (percent < 0.01) return "<0.01%";
  if (percent < 100 && percent >= 99.95) return ">99.9%";
  return share === 1 ? "100%" : `${percent.toFixed(percent < 0.995 ? 2 : 1)}%`;
}

/** @param {string} name @param {number | null} value */
const formatSetting = (name, value) =>
  value === null ? "off" : name === "top_k" ? String(value) : String(Number(value.toFixed(2)));

/** @param {number} bytes */
export const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

/** @type {Record<string, string>} */
const MARKS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };
const NO_INK = /[\p{C}\p{Z}\p{White_Space}\p{Default_Ignorable_Code_Point}]/u;

/**
 * What to show for a token: marks for white space, code points for characters that leave no ink.
 * @param {string} text
 */
export function label(text) {
  const shown = Array.from(text, (character) => {
    if (character in MARKS) return MARKS[character];
    if (!NO_INK.test(character)) return character;
    const code = Number(character.codePointAt(0)).toString(16).toUpperCase();
    return `⟨U+${code.padStart(4, "0")}⟩`;
  }).join("");
  return (/^\p{M}/u.test(shown) ? "◌" : "") + (shown || "⟨part of a character⟩");
}

/** @param {string} shown what label made @returns {string} in words, for who listens */
export function spoken(shown) {
  /** @type {Record<string, string>} */
  const words = { "⏎": "line break ", "⇥": "tab ", "␍": "return ", "␣": "" };
  return shown === "␣" ? "space" : shown.replace(/[␣⏎⇥␍]/g, (mark) => words[mark]).trim();
}

/**
 * A piece of text as it flows: spaces that lead it, and what is shown of the rest.
 * @param {string} text
 */
export function flow(text) {
  const lead = /^ *(?=[^ ])/u.exec(text)?.[0] ?? "";
  const body = text.slice(lead.length);
  const inky = /^ +$/.test(body) || Array.from(body).some((one) => !NO_INK.test(one));
  return { lead, body: inky ? body : label(body), inky, tail: body.includes("\n") ? "\n" : "" };
}

// ---------------------------------------------------------------------------------------------
// The model

/**
 * Wait, but no longer than until the signal comes, and not at all in a page that nobody sees.
 * @param {number} ms
 * @param {AbortSignal} signal
 */
function pause(ms, signal) {
  return new Promise((resolve) => {
    if (ms <= 0 || signal.aborted || document.hidden) return resolve(null);
    const done = () => {
      window.clearTimeout(timer);
      signal.removeEventListener("abort", done);
      document.removeEventListener("visibilitychange", done);
      resolve(null);
    };
    const timer = window.setTimeout(done, ms);
    signal.addEventListener("abort", done);
    document.addEventListener("visibilitychange", done); // timers are slow where nobody looks
  });
}

/**
 * A function that runs another one, one at a time: what is asked for meanwhile runs once, later.
 * @param {() => Promise<void>} run
 */
function coalesced(run) {
  let running = false;
  let again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      await run();
    }
    running = false;
  };
}

// ---------------------------------------------------------------------------------------------
// Drawing

const EXAMPLES = [
  ["Once upon a time", "Once upon a time"],
  ["It was a chilly Sunday.", "It was a chilly Sunday."],
  ["To be, or not to be", "To be, or not to be"],
  ["", "Nothing at all"],
];
const PANELS = { next: "What comes next", surprise: "Surprise", attention: "Attention" };
const KEYS = { "data-lm-suppress-shortcuts": "true" }; // JupyterLab asks the focused element itself
const NEEDED = "A map shows where a head looks from each token. It takes the model.";
const BLUE = [59, 143, 199]; // seen on a light and on a dark ground
const ICONS = {
  write: "M5 3l11 7-11 7z",
  stop: "M5 5h10v10H5z",
  dice: "M6 2h8a4 4 0 0 1 4 4v8a4 4 0 0 1-4 4H6a4 4 0 0 1-4-4V6a4 4 0 0 1 4-4z" +
    "M5 5v2h2V5zM13 5v2h2V5zM9 9v2h2V9zM5 13v2h2v-2zM13 13v2h2v-2z",
};

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 * @returns {any}
 */
function h(tag, attributes = {}, ...children) {
  const drawing = ["svg", "path"].includes(tag);
  const element = drawing
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    const names = value.replace(/(^| )(?=\w)/g, "$1gptlib-pg-");
    element.setAttribute(name, name === "class" ? names : value);
  }
  element.append(...children);
  return element;
}

/** @param {string} name @param {(Node | string)[]} children */
const div = (name, ...children) => h("div", { class: name }, ...children);

/** @param {string} name @param {(Node | string)[]} children */
const span = (name, ...children) => h("span", { class: name }, ...children);

/** @param {string} path */
const icon = (path) =>
  h(
    "svg",
    { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true" },
    h("path", { d: path, "fill-rule": "evenodd" }),
  );

/** @param {string} kind @param {(Node | string)[]} children @returns {HTMLButtonElement} */
const button = (kind, ...children) =>
  h("button", { type: "button", class: kind, ...KEYS }, ...children);

/** @param {string} type @param {string} name @param {Record<string, string>} more */
const field = (type, name, more = {}) => h("input", { type, class: name, ...more, ...KEYS });

/**
 * Set a text only where it is another one: what does not change costs nothing.
 * @param {Node} node
 * @param {string} text
 */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {string} title @param {string} name @param {string[]} ends */
function makeSlider(title, name, ends) {
  const input = field("range", "slider", { min: "0", max: String(STOPS[name].length - 1) });
  const value = h("span", { class: "value", "aria-hidden": "true" });
  const scale = h("span", { class: "ends", "aria-hidden": "true" });
  scale.append(...ends.map((end) => h("span", {}, end)));
  const root = h("label", { class: "field" }, span("name", title), value, input, scale);
  return { name, input, value, root };
}

function makeRow() {
  const token = span("token");
  const [ghost, fill] = [span("ghost"), span("fill")];
  const [now, own] = [span("now"), span("own")];
  const track = h("span", { class: "track", "aria-hidden": "true" }, ghost, fill);
  const take = button("row", token, track, now, own);
  return { take, token, ghost, fill, now, own, root: h("li", {}, take) };
}

/** @param {string} name @param {string} title @param {(Node | string)[]} children */
function makePanel(name, title, ...children) {
  const note = span("note");
  const heading = h("summary", { class: "summary", ...KEYS }, span("summary-title", title), note);
  const inside = div("inside", ...children);
  return { note, root: h("details", { class: "panel", "data-part": name }, heading, inside) };
}

/** @param {string} legend @param {string} name @param {number} count of choices */
function makeChoice(legend, name, count) {
  const inputs = Array.from(
    { length: count },
    (_, i) => field("radio", "radio", { name, value: String(i) }),
  );
  const labels = inputs.map((input, i) =>
    h("label", { class: "choice" }, input, span("choice-text", String(i)))
  );
  const title = h("legend", { class: "name" }, legend);
  return { inputs, root: h("fieldset", { class: "choices" }, title, ...labels) };
}

let made = 0; // widgets, so that radio buttons of two do not meet

/** The text: the box, the button, the tokens. @param {string} megas */
function buildText(megas) {
  const plain = { rows: "1", spellcheck: "false", dir: "auto" };
  const area = h("textarea", { class: "area", ...plain, ...KEYS });
  const examples = EXAMPLES.map(([text, name]) => ({ text, root: button("chip", name) }));
  const main = button("main");
  const another = button("button", icon(ICONS.dice), "Another one");
  const clear = button("button", "Start again");
  const fast = field("checkbox", "check");
  const status = span("status");
  const range = { role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" };
  const named = { class: "progress", "aria-label": `Loading the model, ${megas}` };
  const progress = h("div", { ...named, ...range }, span("progress-fill"));
  const error = h("p", { class: "error", role: "alert" });
  const caption = h("p", { class: "caption" });
  const earlier = h("p", { class: "earlier" });
  const group = { role: "group", "aria-label": "The text, token by token" };
  const text = h("div", { class: "text", dir: "auto", ...group });
  const paper = div("paper", caption, earlier, text);
  const colored = field("checkbox", "check");
  const lookKey = span("look-key");
  const scaled = `The scale: pale for 0 nats, strong for ${HOT} and more`;
  const ramp = h("span", { class: "ramp", role: "img", "aria-label": scaled });
  const check = (/** @type {Node} */ input, /** @type {string} */ words) =>
    h("label", { class: "checked" }, input, words);
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Beginnings to try" });
  chips.append(span("soft", "Try"), ...examples.map(({ root }) => root));
  const roots = [
    div(
      "head",
      h("p", { class: "title" }, "A small GPT writes"),
      div("soft", "Type a beginning, press Write. The model runs here, in your browser."),
    ),
    div("composer", h("label", { class: "prompt" }, span("hidden", "The beginning"), area), main),
    chips,
    div(
      "line",
      div("state", progress, status),
      div("buttons", another, clear, check(fast, "Fast")),
    ),
    error,
    paper,
    div(
      "legend",
      check(colored, "Color by surprise"),
      span("scale", "0", ramp, `${HOT}+ nats`),
      lookKey,
    ),
  ];
  return {
    ...{ roots, area, examples, main, another, clear, fast, status, progress, error },
    ...{ caption, earlier, text, paper, colored, lookKey },
  };
}

/** What may come next, and how it is drawn. */
function buildNext() {
  const title = h("p", { class: "place" });
  const back = button("link", "Back to the end");
  const rows = Array.from({ length: ROWS + 1 }, makeRow);
  const list = h("ul", { class: "rows" }, ...rows.map(({ root }) => root));
  const key = h("p", { class: "key" }, span("key-ghost"), "the model’s own ");
  key.append(span("key-fill"), "with your settings");
  const hint = h("p", { class: "hint" });
  const sliders = [
    makeSlider("Temperature", "temperature", ["0, the likeliest", "2"]),
    makeSlider("Top-k", "top_k", ["1", "off"]),
    makeSlider("Top-p", "top_p", ["0.05", "off"]),
  ];
  const limits = { min: "0", max: String(2 ** 32 - 1), step: "1", inputmode: "numeric" };
  const seed = field("number", "seed", limits);
  const dice = button("button", icon(ICONS.dice), "New seed");
  const settings = h(
    "div",
    { class: "settings", role: "group", "aria-label": "How the next token is drawn" },
    ...sliders.map(({ root }) => root),
    div("seeded", h("label", { class: "seed-label" }, span("name", "Seed"), seed), dice),
    div("soft", "The same beginning, settings and seed give the same text."),
  );
  const weighed = div("weighed", div("place-line", title, back), list, key, hint);
  const panel = makePanel("next", PANELS.next, div("split", weighed, settings));
  return { panel, title, back, rows, list, key, hint, sliders, seed, dice };
}

/** How surprising the tokens are. */
function buildSurprise() {
  const path = h("path", { class: "bars" });
  const cursor = h("path", { class: "cursor" });
  const plain = { preserveAspectRatio: "none", "aria-hidden": "true" };
  const chart = h("svg", { class: "chart", ...plain }, cursor, path);
  const words = h("p", { class: "words" });
  const most = h("p", { class: "most" });
  const ends = [span("chart-top", `${HOT} nats`), span("chart-low", "0")];
  const box = div("chart-box", chart, ...ends);
  const panel = makePanel("surprise", PANELS.surprise, words, box, most);
  return { panel, chart, path, cursor, words, most };
}

/** Where a head looks. @param {string} megas */
function buildAttention(megas) {
  const group = `gptlib-pg-${++made}`;
  const layer = makeChoice("Layer", `${group}-layer`, 4);
  const head = makeChoice("Head", `${group}-head`, 6);
  const map = h("canvas", { class: "map", width: "1", height: "1", role: "img" });
  const line = span("map-line");
  const seen = h("p", { class: "words" });
  const load = button("button", `Load the model: ${megas}`);
  const heads = div("heads", layer.root, head.root);
  const shown = div("split", div("seen", seen, load), div("map-box", map, line));
  const panel = makePanel("attention", PANELS.attention, heads, shown);
  return { panel, layer, head, map, line, seen, load };
}

/** @param {number} size of the weights, in bytes */
function build(size) {
  const megas = `${megabytes(size)} MB`;
  const { roots, ...text } = buildText(megas);
  const { panel: next, ...choice } = buildNext();
  const { panel: surprise, ...losses } = buildSurprise();
  const { panel: attention, ...looks } = buildAttention(megas);
  const panels = { next, surprise, attention };
  const announcer = h("p", { class: "hidden", role: "status" });
  const layout = div("layout", ...roots, next.root, surprise.root, attention.root, announcer);
  const root = h("div", {}, layout);
  return { root, megas, panels, announcer, ...text, ...choice, ...losses, ...looks };
}

/**
 * @param {{ model: Model, el: HTMLElement }} context
 * @returns {() => void}
 */
function render({ model, el }) {
  const view = build(model.get("size"));
  view.root.className = "gptlib-root gptlib-pg";
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

  // --- the text -------------------------------------------------------------------------------

  /** @type {Token[]} */
  let tokens = [];
  /** @type {Group[]} */
  let groups = [];
  /** @type {Alternative[] | null} */
  let next = null; // what may follow
  let begun = ""; // the beginning of this text,
  let begunTokens = 1; // and its tokens
  let seeded = 1; // the seed that it is written with
  let start = 0; // the first token in view
  let stored = false; // whether it is Python's example
  let chosen = -1; // a group
  let pointed = -1; // another, under the pointer
  let current = 0; // the group that the Tab key reaches
  /** @type {Looks | null} */
  let looks = null;

  /** @param {Token[]} found @param {Alternative[] | null} after */
  function setTokens(found, after) {
    [tokens, groups, next] = [found, [], after];
    tokens.forEach(({ text }, i) => addToGroups(groups, text, i, isEnd(i)));
    [chosen, pointed, current, looks] = [-1, -1, groups.length - 1, null];
    clearText();
    schedule();
  }

  /** @param {number} index @returns {boolean} whether the end-of-text token stands there */
  const isEnd = (index) => tokens[index].id === tokens[0].id;
  const hasEnded = () => tokens.length > 1 && isEnd(tokens.length - 1);

  /** @param {number} index */
  function groupAt(index) {
    const found = groups.findIndex(({ last }) => last >= index);
    return found < 0 ? groups.length - 1 : found;
  }

  /** @param {number} index of a token */
  function nameOf(index) {
    if (isEnd(index)) return index ? "the end of the story" : "the start";
    return label(groups[groupAt(index)].text);
  }

  /** @param {Alternative} one */
  const titleOf = ({ id, text }) => (id === tokens[0].id ? "the end" : label(text));

  const whole = () => tokens.map(({ text }, i) => (isEnd(i) ? "\n\n" : text)).join("").trim();

  // --- what the model is asked ----------------------------------------------------------------

  /** @type {any} */
  let engine = null;
  /** @type {Promise<any> | null} */
  let opening = null;
  let load = new AbortController(); // of what is opening
  /** @type {AbortController | null} */
  let job = null; // what is under way
  let doing = ""; // in a word: loading, reading, writing
  let arrived = 0; // bytes
  let slow = 0; // a timer
  let gone = false;
  /** @type {(() => void) | null} */
  let retry = null;

  const settings = () => {
    const [topK, topP] = [model.get("top_k") ?? null, model.get("top_p") ?? null];
    return { temperature: model.get("temperature"), topK, topP };
  };
  const plain = () => {
    const { temperature, topK, topP } = settings();
    return temperature === 1 && topK === null && (topP === null || topP === 1);
  };

  /** The model, loaded once. */
  function open() {
    if (opening) return opening;
    load = new AbortController();
    const progress = (/** @type {{ loaded: number }} */ { loaded }) => {
      arrived = loaded;
      schedule();
    };
    const own = openModel(model, progress, load.signal).then(
      (found) => (engine = found),
      (error) => {
        if (opening === own) [opening, arrived] = [null, 0];
        throw error;
      },
    );
    return (opening = own);
  }

  /**
   * Do something with the model, in place of what is under way.
   * @param {(signal: AbortSignal) => Promise<void>} work
   */
  async function act(work) {
    job?.abort();
    const own = (job = new AbortController());
    const { signal } = own;
    const aborted = new Promise((resolve) => signal.addEventListener("abort", resolve));
    retry = null;
    write(view.error, "");
    try {
      turn(engine ? "reading" : "loading");
      if (!engine) {
        const words = "It takes more than 10 seconds. Still waiting.";
        slow = window.setTimeout(() => tell(words), 10_000);
        await Promise.race([open(), aborted]);
        window.clearTimeout(slow);
      }
      if (!signal.aborted) await work(signal);
    } catch (error) {
      if (!signal.aborted) fail(error);
      if (!signal.aborted) retry = () => act(work);
    }
    if (job === own) finish();
  }

  function finish() {
    job = null;
    turn("");
    if (gone) return;
    if (!stored && tokens.length) save({ text: whole() });
    if (engine) refresh();
  }

  /** @param {any} error */
  function fail(error) {
    const message = String(error?.message ?? error).replace(/[.\s]*$/, ".");
    const clear = error?.code || message.startsWith("The model");
    write(view.error, clear ? message : `The model does not start: ${message}`);
    window.clearTimeout(slow);
    if (!error?.code || error.code === "worker") close();
  }

  function close() {
    load.abort();
    engine = opening = null;
    arrived = 0;
  }

  /** Stop what is under way. */
  function stop() {
    if (!job) return;
    const was = doing;
    job.abort();
    if (engine) engine.ask("stop").catch(() => {});
    else close();
    finish();
    if (was === "loading") tell("Stopped.");
    else tell(`Stopped after ${plural(tokens.length - begunTokens, "token")}.`);
  }

  /** Write from the beginning in the box. */
  const begin = () =>
    act(async (signal) => {
      const text = view.area.value;
      if (!(await feed({ text }, signal))) return;
      [stored, begun, begunTokens, seeded] = [false, text, tokens.length, model.get("seed")];
      await measure(signal);
      await go(signal);
    });

  /** Go on from the end. */
  const proceed = () =>
    act(async (signal) => {
      if (await feed({ ids: tokens.map(({ id }) => id) }, signal)) await go(signal);
    });

  /**
   * Put another token in place of one, and go on from there.
   * @param {number} index
   * @param {Alternative} other
   */
  const replace = (index, other) =>
    act(async (signal) => {
      const kept = tokens.slice(0, index).map(({ id }) => id);
      if (!(await feed({ ids: [...kept, other.id] }, signal))) return;
      tokens[index].loss = -Math.log(other.own);
      begunTokens = Math.min(begunTokens, index);
      if (stored) seeded = model.get("seed");
      stored = false;
      await go(signal);
    });

  /**
   * Let the model read a text; what is known of the tokens that stood there before stays.
   * @param {{ text?: string, ids?: number[] }} read
   * @param {AbortSignal} signal
   */
  async function feed(read, signal) {
    const fed = await engine.ask("feed", { ...read, sampling: settings() });
    if (signal.aborted) return false;
    const { ids } = fed;
    const same = ids.length === tokens.length && tokens.every(({ id }, i) => id === ids[i]);
    if (same) [start, next] = [fed.start, fed.alternatives];
    else take(fed);
    return true;
  }

  /** @param {any} fed what the worker has read */
  function take({ ids, texts, start: first, alternatives }) {
    let known = 0;
    while (known < tokens.length && tokens[known].id === ids[known]) known++;
    const cut = Math.min(known + 1, ids.length); // what was weighed there is known too
    const kept = tokens.slice(0, cut);
    start = first;
    setTokens(
      ids.map((/** @type {number} */ id, /** @type {number} */ i) => {
        const loss = i < known ? kept[i].loss : null;
        return { id, text: texts[i], loss, alternatives: kept[i]?.alternatives ?? null };
      }),
      alternatives,
    );
  }

  /** The losses of the beginning, as far as it is in view. @param {AbortSignal} signal */
  async function measure(signal) {
    const from = start;
    const ids = tokens.slice(from).map(({ id }) => id);
    if (ids.length < 2) return;
    await engine.ask("losses", { ids }, (/** @type {any} */ part) => {
      if (signal.aborted || part.type !== "losses") return;
      part.values.forEach((/** @type {number} */ loss, /** @type {number} */ i) => {
        tokens[from + part.from + i].loss = loss;
      });
      schedule();
    });
  }

  /** Write, token by token. @param {AbortSignal} signal */
  async function go(signal) {
    turn("writing");
    for (let n = 0; n < MOST && !signal.aborted; n++) {
      const since = performance.now();
      const [index, before] = [tokens.length, start];
      const request = { count: 1, seed: seedAt(seeded, index), sampling: settings() };
      await engine.ask("continue", request, (/** @type {any} */ part) => {
        if (!signal.aborted && part.type === "token") add(part);
      });
      if (signal.aborted || tokens.length === index) return;
      if (tokens[index].loss === null) await settleLoss(index, before);
      if (hasEnded()) break;
      const slowly = !model.get("fast") && !calm.matches;
      await pause(slowly ? PACE - (performance.now() - since) : 0, signal);
    }
    if (signal.aborted) return;
    tell(hasEnded() ? "The story has ended." : `${plural(MOST, "token")} written.`);
  }

  /** @param {any} part what the worker has written */
  function add({ index, token: id, text, start: first, alternatives }) {
    const own = alternatives.find((/** @type {Alternative} */ one) => one.id === id)?.own;
    tokens[index] = { id, text, loss: own === undefined ? null : -Math.log(own), alternatives };
    [start, next] = [first, null];
    if (current === groups.length - 1) current += 1; // it stays at the end
    addToGroups(groups, text, index, isEnd(index));
    current = Math.min(current, groups.length - 1);
    attend();
    schedule();
  }

  /**
   * The loss of a token that was not among the likeliest ones.
   * @param {number} index
   * @param {number} before where the view began when it was written
   */
  async function settleLoss(index, before) {
    const token = tokens[index];
    if (before === start) {
      const { alternatives } = await engine.ask("alternatives", { index, count: Infinity });
      const found = alternatives.find((/** @type {Alternative} */ { id }) => id === token.id);
      token.loss = -Math.log(found.own);
    } else {
      const ids = tokens.slice(before).map(({ id }) => id);
      await engine.ask("losses", { ids }, (/** @type {any} */ { from, values }) => {
        if (from + values.length === ids.length) token.loss = values.at(-1);
      });
    }
    schedule();
  }

  /** Ask again what is weighed at the place that is shown, with the settings of now. */
  const refresh = coalesced(async () => {
    const index = chosen < 0 ? tokens.length : groups[chosen].first;
    const asked = tokens;
    if (!engine || gone || stored || (chosen < 0 && doing)) return;
    try {
      const request = { index, sampling: settings() };
      const { alternatives } = await engine.ask("alternatives", request);
      if (asked !== tokens) return;
      if (index < tokens.length) tokens[index].alternatives = alternatives;
      else next = alternatives;
    } catch {
      // It is out of view: what was known of it stays.
    }
    schedule();
  });

  /** Ask for the map of the head that is shown. */
  const attend = coalesced(async () => {
    const [layer, head, asked] = [model.get("layer"), model.get("head"), tokens];
    if (!engine || gone || stored || !view.panels.attention.root.open) return;
    try {
      const found = await engine.ask("attention", { layer, head });
      if (asked === tokens) looks = { ...found, layer, head };
    } catch {
      // The model is closed.
    }
    schedule();
  });

  // --- what is shown --------------------------------------------------------------------------

  let told = ""; // what there is to say, until something else is done
  let cancel = () => {};
  let waiting = false;
  /** @type {Looks | null} */
  let mapped = null; // what the canvas shows
  /** @type {Map<number, { nodes: ChildNode[], element: HTMLElement, text: string, name: string,
   *   painted: string[] }>} */
  const pieces = new Map(); // by group
  let drawn = 0; // groups that were

  function schedule() {
    if (waiting || gone) return;
    waiting = true;
    if (doing === "writing" && calm.matches) {
      const timer = window.setTimeout(draw, 300); // no flicker
      cancel = () => window.clearTimeout(timer);
    } else {
      const frame = requestAnimationFrame(draw);
      cancel = () => cancelAnimationFrame(frame);
    }
  }

  function draw() {
    waiting = false;
    drawControls();
    drawText();
    drawChecks();
    drawPlace();
    drawSurprise();
    drawAttention();
  }

  /** @param {string} words */
  function tell(words) {
    told = words;
    write(view.announcer, words);
    schedule();
  }

  /** @param {string} name of what is done now */
  function turn(name) {
    if (name === "loading" || name === "reading") told = "";
    doing = name;
    schedule();
  }

  function mainWord() {
    if (doing) return doing === "loading" ? "Cancel" : "Stop";
    if (retry) return "Try again";
    const other = view.area.value !== begun || model.get("seed") !== seeded;
    return stored || !tokens.length || other ? "Write" : "Continue";
  }

  function statusWords() {
    const megas = view.megas;
    if (doing === "loading") return told || `${megabytes(arrived)} of ${megas}`;
    if (doing === "reading") return `Reading ${tokens.length ? "" : "the beginning "}…`;
    if (doing === "writing") return `Writing: ${plural(tokens.length - begunTokens, "token")}`;
    if (hasEnded() && !stored) return "The story has ended. Continue begins a new one.";
    if (told) return told;
    return engine ? "Ready." : `Loads the model once: ${megas}.`;
  }

  function drawControls() {
    const word = mainWord();
    if (view.main.dataset.word !== word) {
      const path = doing ? ICONS.stop : ICONS.write;
      view.main.dataset.word = word;
      view.main.replaceChildren(icon(path), word);
    }
    view.main.classList.toggle("gptlib-pg-busy", Boolean(doing));
    view.another.hidden = view.clear.hidden = stored || !tokens.length;
    write(view.status, statusWords());
    view.progress.hidden = doing !== "loading";
    const share = (100 * arrived) / model.get("size");
    view.progress.setAttribute("aria-valuenow", share.toFixed(0));
    view.progress.firstChild.style.width = `${share}%`;
    view.root.classList.toggle("gptlib-pg-writing", doing === "writing");
  }

  function clearText() {
    view.text.replaceChildren();
    pieces.clear();
    drawn = 0;
  }

  function drawText() {
    const first = Math.max(0, groups.length - SHOWN);
    const last = groups.length - 1;
    const before = pieces.get(last);
    if (before && before.text !== groups[last].text) erase(last);
    const { paper } = view;
    const writing = doing === "writing";
    const follows = writing && paper.scrollHeight - paper.scrollTop - paper.clientHeight < 40;
    const many = document.createDocumentFragment();
    const whole = groups.length - Number(doing && groups[last]?.open);
    for (let i = Math.max(drawn, first); i < whole; i++) {
      many.append(...makePiece(i));
      drawn = i + 1;
    }
    if (many.childNodes.length) view.text.append(many);
    for (const i of pieces.keys()) if (i < first) erase(i);
    const { from, weightOf } = looking();
    view.root.classList.toggle("gptlib-pg-looking", from >= 0);
    const head = `layer ${model.get("layer")}, head ${model.get("head")}`;
    if (from >= 0) write(view.lookKey, `In blue: where ${head} looks`);
    for (const [i, piece] of pieces) paint(i, piece, from, weightOf(i));
    if (follows) paper.scrollTop = paper.scrollHeight;
    const caption = stored ? "An example from the same model. Yours will stand here." : "";
    write(view.caption, tokens.length ? caption : "What the model writes will stand here.");
    const missing = groups[first]?.first > 1 ? groups[first].first - 1 : 0;
    const read = tokens.length - start;
    const older = missing ? `${formatCount(missing)} older are not drawn` : "older ones are gray";
    const words = `The model reads the newest ${plural(read, "token")}; ${older}.`;
    write(view.earlier, start ? words : "");
  }

  /** @param {number} i of a group */
  function erase(i) {
    for (const node of pieces.get(i)?.nodes ?? []) node.remove();
    pieces.delete(i);
    drawn = i === groups.length - 1 ? i : drawn;
  }

  /** @param {number} i of a group @returns {ChildNode[]} */
  function makePiece(i) {
    const { text, last } = groups[i];
    const end = isEnd(last);
    const { lead, body, inky, tail } = end
      ? { lead: "", body: last ? "end of the story" : "start", inky: false, tail: last ? "\n" : "" }
      : flow(text);
    const kind = end ? (last ? "tok end" : "tok begin") : inky ? "tok" : "tok mark";
    const element = h("span", { class: kind, role: "button", tabindex: "-1", ...KEYS }, body);
    element.dataset.group = String(i);
    const name = end ? nameOf(last) : spoken(label(text));
    const nodes = [lead, element, tail].filter(Boolean).map((node) =>
      typeof node === "string" ? document.createTextNode(node) : node
    );
    pieces.set(i, { nodes, element, text, name, painted: [] });
    return nodes;
  }

  /** The group that a head looks from, and how much it looks at another. */
  function looking() {
    const none = { from: -1, weightOf: () => 0 };
    if (!looks || !view.panels.attention.root.open) return none;
    const from = pointed >= 0 ? pointed : chosen;
    if (from < 0 || from >= groups.length) return none;
    const { start: first, tokens: size, weights } = looks;
    const row = groups[from].last - first;
    if (row < 0 || row >= size) return none;
    const weightOf = (/** @type {number} */ i) => {
      let sum = 0;
      for (let at = groups[i].first; at <= groups[i].last; at++) {
        if (at >= first && at - first <= row) sum += weights[row * size + at - first];
      }
      return sum;
    };
    return { from, weightOf };
  }

  /**
   * @param {number} i of a group
   * @param {{ element: HTMLElement, name: string, painted: string[] }} piece
   * @param {number} from the group that looks
   * @param {number} weight that it gives to this one
   */
  function paint(i, { element, name, painted }, from, weight) {
    const { first, last } = groups[i];
    const loss = last === 0 ? null : lossOf(tokens, groups[i]);
    const set = (/** @type {string} */ name) => (/** @type {string} */ value) =>
      name.startsWith("--")
        ? element.style.setProperty(name, value)
        : element.setAttribute(name, value);
    const toggle = (/** @type {string} */ name) => (/** @type {string} */ value) =>
      element.classList.toggle(`gptlib-pg-${name}`, value === "true");
    /** @type {[string, (value: string) => void][]} */
    const wanted = [
      [heat(loss).toFixed(2), set("--heat")],
      [Math.sqrt(weight).toFixed(2), set("--look")],
      [loss === null ? name : `${name}, ${loss.toFixed(2)} nats`, set("aria-label")],
      [String(i === chosen), set("aria-pressed")],
      [i === current ? "0" : "-1", set("tabindex")],
      [String(last < start), toggle("gone")],
      [String(first < begunTokens), toggle("yours")],
      [String(weight >= 0.1), toggle("seen-well")],
      [String(i === from), toggle("looks")],
    ];
    wanted.forEach(([value, put], n) => {
      if (painted[n] === value) return;
      painted[n] = value;
      put(value);
    });
  }

  function drawChecks() {
    view.root.classList.toggle("gptlib-pg-colored", Boolean(model.get("colored")));
    view.colored.checked = Boolean(model.get("colored"));
    view.fast.checked = Boolean(model.get("fast"));
  }

  /** The place whose alternatives are shown: that of a chosen token, the newest, or the next. */
  function placeNow() {
    const at = chosen >= 0 ? groups[chosen].first : next ? tokens.length : tokens.length - 1;
    const token = tokens[at];
    return { at, token, weighed: (token ? token.alternatives : next) ?? [] };
  }

  function drawPlace() {
    if (!view.panels.next.root.open || !tokens.length) return drawEmpty();
    const { at, token, weighed } = placeNow();
    const nats = token && token.loss !== null ? `, ${token.loss.toFixed(2)} nats` : "";
    const stands = chosen < 0 ? "Just drawn" : "Here stands";
    write(view.title, token ? `${stands}: ${nameOf(at)}${nats}` : `After ${contextOf(at)}`);
    view.back.hidden = chosen < 0;
    const listed = weighed.slice(0, ROWS);
    if (token && weighed.length && !listed.some(({ id }) => id === token.id)) {
      listed.push({ id: token.id, text: token.text, own: Math.exp(-(token.loss ?? 0)) });
    }
    const still = Boolean(doing) && chosen < 0;
    view.rows.forEach((row, i) => drawRow(row, listed[i], token, still));
    view.key.hidden = plain() || stored;
    write(view.hint, hintWords(weighed.length > 0, still));
  }

  /** @param {number} at */
  function contextOf(at) {
    if (at < 2) return "nothing: how does a story begin?";
    if (isEnd(at - 1)) return "the end of the story: how does another one begin?";
    const from = Math.max(1, at - 5);
    const text = tokens.slice(from, at).map((token) => token.text).join("").trim();
    return `“${from > 1 ? "…" : ""}${text}”`;
  }

  function drawEmpty() {
    if (!view.panels.next.root.open) return;
    write(view.title, "");
    view.back.hidden = view.key.hidden = true;
    for (const { root } of view.rows) root.hidden = true;
    write(view.hint, "Ten bars will stand here: the tokens that the model finds likeliest.");
  }

  /** @param {boolean} known @param {boolean} still */
  function hintWords(known, still) {
    if (!known) return "The model no longer reads this place, so it cannot weigh it.";
    if (still) return "The token that is drawn is marked. Stop to take another one.";
    if (!engine) return `Take one, or move a slider: that loads the model (${view.megas}).`;
    if (chosen < 0) return "Take one, and the model goes on from it.";
    return "Take another one: the text is cut here, and the model goes on from it.";
  }

  /**
   * @param {ReturnType<typeof makeRow>} row
   * @param {Alternative | undefined} one
   * @param {Token | undefined} token that stands there
   * @param {boolean} still whether it cannot be taken now
   */
  function drawRow(row, one, token, still) {
    row.root.hidden = !one;
    if (!one) return;
    const now = one.drawn ?? one.own;
    const name = titleOf(one);
    const here = one.id === token?.id;
    write(row.token, name);
    write(row.now, formatShare(now));
    write(row.own, plain() || one.drawn === undefined ? "" : formatShare(one.own));
    row.fill.style.width = `${(100 * now).toFixed(1)}%`;
    row.ghost.style.width = `${(100 * one.own).toFixed(1)}%`;
    row.take.classList.toggle("gptlib-pg-here", here);
    row.take.classList.toggle("gptlib-pg-dropped", now === 0);
    row.take.setAttribute("aria-disabled", String(still || here));
    const words = `${here ? "Stands here:" : "Take"} ${spoken(name)}, ${formatShare(now)}`;
    row.take.setAttribute("aria-label", words);
  }

  function drawSurprise() {
    const { note, root } = view.panels.surprise;
    const { count, sum, mean } = summarize(tokens);
    write(note, count ? `${sum.toFixed(1)} nats in ${plural(count, "token")}` : "");
    if (!root.open) return;
    write(
      view.words,
      count
        ? `These ${formatCount(count)} tokens cost the model ${sum.toFixed(1)} nats in all, ` +
          `${mean.toFixed(2)} each on average: as unsure as a choice among ` +
          `${Math.exp(mean).toFixed(1)} tokens that are equally likely.`
        : "How much each token surprises the model is drawn here.",
    );
    const from = Math.max(1, tokens.length - SHOWN);
    const shown = tokens.slice(from).map(({ loss }) => loss);
    view.chart.setAttribute("viewBox", `0 0 ${Math.max(shown.length, 1)} ${HOT}`);
    view.path.setAttribute("d", bars(shown));
    const group = groups[pointed >= 0 ? pointed : chosen];
    view.cursor.setAttribute("d", group ? `M${group.first - from + 0.5} ${HOT}V0` : "");
    drawMost();
  }

  function drawMost() {
    const first = Math.max(1, groups.length - SHOWN);
    const most = groups
      .slice(first)
      .map((group, i) => ({ i: first + i, loss: lossOf(tokens, group) ?? 0 }))
      .sort((a, b) => b.loss - a.loss)
      .slice(0, 5)
      .filter(({ loss }) => loss > 1);
    const wanted = most.map(({ i, loss }) => `${nameOf(groups[i].last)} ${loss.toFixed(1)}`);
    if (String(wanted) === view.most.dataset.shown) return;
    view.most.dataset.shown = String(wanted);
    const chips = most.map(({ i }, n) => {
      const chip = button("chip", wanted[n]);
      chip.addEventListener("click", () => choose(i));
      return chip;
    });
    view.most.replaceChildren(...(chips.length ? ["It was most surprised by", ...chips] : []));
  }

  function drawAttention() {
    const [layer, head] = [model.get("layer"), model.get("head")];
    const { note, root } = view.panels.attention;
    write(note, `layer ${layer}, head ${head}`);
    view.layer.inputs.forEach((input, i) => (input.checked = i === layer));
    view.head.inputs.forEach((input, i) => (input.checked = i === head));
    if (!root.open) return;
    view.load.hidden = Boolean(engine) || doing === "loading";
    view.map.parentNode.hidden = !looks;
    const { from } = looking();
    const how = "Point at a token, or choose one, to see where this head looks from it.";
    if (!looks) {
      write(view.seen, engine ? "Its map is drawn here once there is a text." : NEEDED);
      return;
    }
    write(view.seen, from < 0 ? how : lookWords(looks, groups[from].last));
    const { tokens: size, weights } = looks;
    const row = from < 0 ? -1 : groups[from].last - looks.start;
    view.line.hidden = row < 0;
    view.line.style.top = `${(100 * row) / size}%`;
    view.line.style.height = `${100 / size}%`;
    if (mapped === looks) return;
    mapped = looks;
    view.map.width = view.map.height = size;
    const image = new ImageData(pixels(weights, BLUE), size, size);
    view.map.getContext("2d")?.putImageData(image, 0, 0);
    const name = `The map of layer ${looks.layer}, head ${looks.head}: ${plural(size, "token")}`;
    view.map.setAttribute("aria-label", `${name}, each looking at those before it`);
  }

  /** @param {Looks} found @param {number} index of the token that looks */
  function lookWords(found, index) {
    const list = looksFrom(found, index)
      .filter(({ weight }) => weight >= 0.01)
      .map(({ index: at, weight }) => {
        return `${at === index ? "itself" : nameOf(at)} ${(100 * weight).toFixed(0)}%`;
      });
    return `From ${nameOf(index)} this head looks at: ${list.join(", ")}.`;
  }

  function drawSettings() {
    for (const { name, input, value } of view.sliders) {
      const set = model.get(name) ?? null;
      input.value = String(nearest(name, set));
      input.setAttribute("aria-valuetext", formatSetting(name, set));
      write(value, formatSetting(name, set));
    }
    if (document.activeElement !== view.seed) view.seed.value = String(model.get("seed"));
    refresh();
    schedule();
  }

  function drawParts() {
    const open = model.get("parts");
    for (const [name, { root }] of Object.entries(view.panels)) root.open = open.includes(name);
    schedule();
  }

  function drawPrompt() {
    const text = model.get("prompt");
    if (text.replace(/\r\n?/g, "\n") !== view.area.value) view.area.value = text;
    schedule();
  }

  // --- what the reader does -------------------------------------------------------------------

  /** @param {Record<string, unknown>} values */
  function save(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  }

  /** @param {number} group or -1 */
  function choose(group) {
    chosen = group;
    if (group >= 0) {
      current = group;
      view.panels.next.root.open = true;
      const { first, last } = groups[group];
      if (first === 0) chosen = -1; // nothing else can stand there
      const looking = chosen >= 0 && view.panels.attention.root.open;
      if (looking && looks) write(view.announcer, lookWords(looks, last));
    }
    refresh();
    schedule();
  }

  /** @param {number} group */
  function focus(group) {
    current = Math.min(Math.max(group, Math.max(0, groups.length - SHOWN)), groups.length - 1);
    pieces.get(current)?.element.focus();
    schedule();
  }

  /** @param {Event} event @returns {number} the group of a token, or -1 */
  function groupOf(event) {
    const element = /** @type {HTMLElement} */ (event.target).closest?.("[data-group]");
    return element ? Number(/** @type {HTMLElement} */ (element).dataset.group) : -1;
  }

  /** @param {KeyboardEvent} event */
  function onTextKey(event) {
    const here = groupOf(event);
    if (here < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => focus(here - 1),
      ArrowRight: () => focus(here + 1),
      Home: () => focus(0),
      End: () => focus(groups.length - 1),
      Enter: () => choose(here),
      " ": () => choose(here),
      ArrowDown: () => {
        choose(here);
        draw();
        view.rows[0].take.focus();
      },
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }

  /** @param {KeyboardEvent} event */
  function onRowKey(event) {
    const takes = view.rows.filter(({ root }) => !root.hidden).map(({ take }) => take);
    const here = takes.indexOf(/** @type {HTMLButtonElement} */ (event.target));
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (here < 0 || !step) return;
    event.preventDefault();
    if (here + step < 0) focus(chosen < 0 ? current : chosen);
    else takes[Math.min(here + step, takes.length - 1)].focus();
  }

  /** @param {number} i of a row */
  function onTake(i) {
    const { at, token, weighed } = placeNow();
    const other = weighed[i];
    if (!other || (doing && chosen < 0) || other.id === token?.id) return;
    replace(at, other);
  }

  /** @param {KeyboardEvent} event */
  function onEscape(event) {
    if (event.key !== "Escape") return;
    if (chosen >= 0) {
      const group = chosen;
      choose(-1);
      focus(group);
    } else stop();
  }

  function onMain() {
    if (doing) stop();
    else if (retry) retry();
    else if (mainWord() === "Write") begin();
    else proceed();
  }

  function onAnother() {
    save({ seed: Math.floor(10_000 * Math.random()) });
    begin();
  }

  function onClear() {
    stop();
    [stored, begun, retry, start] = [false, "", null, 0];
    setTokens([], null);
    write(view.error, "");
    save({ text: "" });
    view.area.focus();
    tell("Empty again.");
  }

  /** Load the model, and let it read what is shown. */
  const wake = () =>
    act(async (signal) => {
      const read = tokens.length ? { ids: tokens.map(({ id }) => id) } : { text: "" };
      if (!(await feed(read, signal))) return;
      stored = false;
      attend();
    });

  /** @param {string} text */
  function setPrompt(text) {
    view.area.value = text;
    save({ prompt: text });
    schedule();
  }

  let typing = 0;
  view.area.addEventListener("input", () => {
    window.clearTimeout(typing);
    typing = window.setTimeout(() => {
      save({ prompt: view.area.value.replace(/\p{Surrogate}/gu, "\ufffd") });
    }, 400);
    schedule();
  });
  view.area.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (doing) stop();
    begin();
  });
  for (const { text, root } of view.examples) {
    root.addEventListener("click", () => setPrompt(text));
  }
  view.main.addEventListener("click", onMain);
  view.another.addEventListener("click", onAnother);
  view.clear.addEventListener("click", onClear);
  view.load.addEventListener("click", wake);
  view.back.addEventListener("click", () => {
    choose(-1);
    focus(groups.length - 1);
  });
  view.dice.addEventListener("click", () => save({ seed: Math.floor(10_000 * Math.random()) }));
  view.fast.addEventListener("change", () => save({ fast: view.fast.checked }));
  view.colored.addEventListener("change", () => {
    save({ colored: view.colored.checked });
    schedule();
  });
  view.root.addEventListener("keydown", onEscape);
  view.text.addEventListener("keydown", onTextKey);
  view.text.addEventListener("click", (/** @type {Event} */ event) => {
    const group = groupOf(event);
    if (group >= 0) choose(group === chosen ? -1 : group);
  });
  const point = (/** @type {number} */ group) => {
    if (pointed === group) return;
    pointed = group;
    const piece = pieces.get(group);
    if (piece) piece.element.title = piece.element.getAttribute("aria-label") ?? "";
    schedule();
  };
  view.text.addEventListener("pointerover", (/** @type {Event} */ event) => point(groupOf(event)));
  view.text.addEventListener("pointerleave", () => point(-1));
  view.text.addEventListener("focusin", (/** @type {Event} */ event) => {
    current = Math.max(groupOf(event), 0);
    point(current);
  });
  view.text.addEventListener("focusout", () => point(-1));
  view.list.addEventListener("keydown", onRowKey);
  view.rows.forEach(({ take }, i) => take.addEventListener("click", () => onTake(i)));

  /** @param {PointerEvent} event @param {boolean} down the way that the tokens run */
  const placeOn = (event, down) => {
    const box = /** @type {HTMLElement} */ (event.currentTarget).getBoundingClientRect();
    return down ? (event.clientY - box.top) / box.height : (event.clientX - box.left) / box.width;
  };
  const onChart = (/** @type {PointerEvent} */ event) => {
    const from = Math.max(1, tokens.length - SHOWN);
    return groupAt(from + Math.floor(placeOn(event, false) * (tokens.length - from)));
  };
  view.chart.addEventListener("pointermove", (/** @type {any} */ event) => point(onChart(event)));
  view.chart.addEventListener("pointerleave", () => point(-1));
  view.chart.addEventListener("click", (/** @type {any} */ event) => choose(onChart(event)));
  view.map.addEventListener("pointermove", (/** @type {any} */ event) => {
    if (looks) point(groupAt(looks.start + Math.floor(placeOn(event, true) * looks.tokens)));
  });
  view.map.addEventListener("pointerleave", () => point(-1));

  for (const { name, input } of view.sliders) {
    input.addEventListener("input", () => save({ [name]: STOPS[name][Number(input.value)] }));
    input.addEventListener("change", () => {
      if (!engine && !doing && tokens.length) wake();
    });
  }
  view.seed.addEventListener("change", () => {
    const value = Number(view.seed.value);
    const good = view.seed.value !== "" && Number.isInteger(value) && value >= 0 && value < 2 ** 32;
    if (good) save({ seed: value });
    else view.seed.value = String(model.get("seed"));
  });
  for (const [name, { inputs }] of Object.entries({ layer: view.layer, head: view.head })) {
    inputs.forEach((input, i) => {
      input.addEventListener("change", () => {
        save({ [name]: i });
        attend();
      });
    });
  }
  for (const { root } of Object.values(view.panels)) {
    root.addEventListener("toggle", () => {
      const open = Object.entries(view.panels).filter(([, panel]) => panel.root.open);
      const parts = ["write", ...open.map(([name]) => name)];
      if (String(parts) !== String(model.get("parts"))) save({ parts });
      refresh();
      attend();
      schedule();
    });
  }

  function drawExample() {
    const example = model.get("example");
    if (!example?.ids || example === shownExample || (tokens.length && !stored)) return;
    if (view.area.value !== model.get("prompt")) return;
    shownExample = example;
    const found = unpack(example);
    [stored, begun, begunTokens, start] = [true, model.get("prompt"), example.prompt, 0];
    setTokens(found.tokens, found.next);
  }
  /** @type {unknown} */
  let shownExample = null;

  drawPrompt();
  drawExample();
  drawParts();
  drawSettings();
  cancel();
  draw();
  el.append(view.root);

  /** @type {[string, () => void][]} */
  const listeners = [
    ["change:prompt", drawPrompt],
    ["change:example", drawExample],
    ["change:parts", drawParts],
    ["change:colored", schedule],
    ["change:fast", schedule],
    ["change:layer", attend],
    ["change:head", attend],
    ...["temperature", "top_k", "top_p", "seed"].map(
      (name) => /** @type {[string, () => void]} */ ([`change:${name}`, drawSettings]),
    ),
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    gone = true;
    cancel();
    window.clearTimeout(typing);
    window.clearTimeout(slow);
    for (const [event, listener] of listeners) model.off(event, listener);
    job?.abort();
    close();
  };
}

export default { render };
