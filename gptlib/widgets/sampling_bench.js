// What comes next: the likeliest tokens after a prompt, moved by temperature, top-k and top-p.
// Python stores the logits of a few prompts; every probability is computed here.

/**
 * @typedef {{
 *   text: string, added: number[], size: number, width: number, codes: string, ids: string,
 *   texts: string[], rest: [number, number][],
 * }} Stored  what Python knows of one prompt
 * @typedef {{
 *   size: number, ids: Uint32Array, depths: Float64Array, counts: Float64Array,
 *   means: Float64Array, own: Float64Array, ownRest: Float64Array,
 * }} Ranked  tokens from the likeliest on: how far below it their logits are; bins of the others
 * @typedef {{ temperature: number, top_k: number | null, top_p: number | null }} Settings
 * @typedef {{
 *   probabilities: Float64Array, rest: Float64Array, restCounts: Float64Array, possible: number,
 *   share: number, entropy: number,
 * }} Drawn  what is drawn from: `possible` tokens, `share` of the model's own probability
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: unknown): void,
 *   on(event: string, callback: () => void): void,
 *   off(event: string, callback: () => void): void,
 *   save_changes(): void,
 * }} Model
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

const NEAR = 0.05; // as in Python
const LEVELS = 2 ** 24 - 1 - 4096;
export const MOST_DRAWS = 10_000;

/** @param {string} text @returns {Uint8Array} */
export function fromBase64(text) {
  const native = /** @type {any} */ (Uint8Array).fromBase64; // in new browsers, and faster
  if (native) return native.call(Uint8Array, text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/** @param {string} text @returns {Uint32Array} integers of three bytes, the lowest first */
export function integers(text) {
  const bytes = fromBase64(text);
  return Uint32Array.from({ length: bytes.length / 3 }, (_, i) => {
    return bytes[3 * i] | (bytes[3 * i + 1] << 8) | (bytes[3 * i + 2] << 16);
  });
}

/** @param {Stored} stored @returns {Ranked} */
export function decode(stored) {
  const codes = integers(stored.codes);
  const named = stored.ids ? integers(stored.ids) : null;
  const order = Array.from(codes, (_, i) => i);
  // Equal codes stay in the order of their ids, as in gptlib.generation.next_probabilities.
  order.sort((a, b) => codes[a] - codes[b] || a - b);
  const bend = Math.log1p(stored.width / NEAR) / LEVELS;
  const depths = Float64Array.from(order, (i) => NEAR * Math.expm1(bend * codes[i]));
  const ranked = {
    size: stored.size,
    ids: Uint32Array.from(order, (i) => (named ? named[i] : i)),
    depths,
    counts: Float64Array.from(stored.rest, ([n]) => n),
    means: Float64Array.from(stored.rest, ([, mean]) => mean),
    own: depths,
    ownRest: depths,
  };
  const { kept, rest } = soften(ranked, 1);
  return { ...ranked, own: kept, ownRest: rest };
}

/**
 * The softmax of logits divided by a temperature above 0.
 * @param {Ranked} ranked
 * @param {number} temperature
 * @returns {{ kept: Float64Array, rest: Float64Array }} of the tokens kept, and of each bin
 */
function soften({ depths, counts, means }, temperature) {
  const kept = depths.map((depth) => Math.exp(-depth / temperature));
  const rest = counts.map((count, i) => count * Math.exp(-means[i] / temperature));
  const sum = total(kept) + total(rest);
  for (let i = 0; i < kept.length; i++) kept[i] /= sum;
  for (let i = 0; i < rest.length; i++) rest[i] /= sum;
  return { kept, rest };
}

/** @param {Float64Array} values @returns {number} */
function total(values) {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}

/**
 * What the next token is drawn from, as gptlib.generation.next_probabilities computes it.
 * @param {Ranked} ranked
 * @param {Settings} settings
 * @returns {Drawn}
 */
export function settle(ranked, { temperature, top_k, top_p }) {
  const most = temperature === 0 ? 1 : (top_k ?? Infinity);
  const { kept: probabilities, rest } = soften(ranked, temperature || 1);
  const restCounts = ranked.counts.slice();
  if (most < ranked.size) {
    probabilities.fill(0, most);
    rest.fill(0);
    restCounts.fill(0);
  }
  if (top_p !== null && top_p < 1) cut(probabilities, rest, restCounts, top_p);
  const sum = total(probabilities) + total(rest);
  let [possible, share, entropy] = [0, 0, 0];
  for (let i = 0; i < probabilities.length && probabilities[i] > 0; i++) {
    const p = (probabilities[i] /= sum);
    possible += 1;
    share += ranked.own[i];
    entropy -= p * Math.log(p);
  }
  for (let i = 0; i < rest.length && rest[i] > 0; i++) {
    const p = (rest[i] /= sum);
    possible += restCounts[i];
    share += (ranked.ownRest[i] * restCounts[i]) / ranked.counts[i];
    entropy -= p * Math.log(p / restCounts[i]);
  }
  share = possible === ranked.size ? 1 : Math.min(share, 1);
  return { probabilities, rest, restCounts, possible, share, entropy: Math.max(entropy, 0) };
}

/**
 * Drop what lies beyond the likeliest tokens whose probabilities add up to `top_p`.
 * @param {Float64Array} probabilities
 * @param {Float64Array} rest
 * @param {Float64Array} restCounts
 * @param {number} top_p
 */
function cut(probabilities, rest, restCounts, top_p) {
  const goal = top_p * (total(probabilities) + total(rest));
  let before = 0;
  for (let i = 0; i < probabilities.length; i++) {
    const p = probabilities[i];
    if (before >= goal) probabilities[i] = 0;
    before += p;
  }
  for (let i = 0; i < rest.length; i++) {
    const each = rest[i] / (restCounts[i] || 1);
    const kept = each > 0
      ? Math.min(Math.max(Math.ceil((goal - before) / each), 0), restCounts[i])
      : 0;
    before += rest[i];
    restCounts[i] = kept;
    rest[i] = kept * each;
  }
}

/**
 * Numbers from 0 to 1, always the same for a seed (the generator is called mulberry32).
 * @param {number} seed
 * @returns {() => number}
 */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Draw tokens. The same seed draws the same tokens, and more draws begin with the same ones.
 * @param {Drawn} drawn
 * @param {number} count
 * @param {number} seed
 * @returns {Uint32Array} their ranks; one more than the last rank stands for all others
 */
export function draw({ probabilities }, count, seed) {
  const next = random(seed);
  const ends = new Float64Array(probabilities.length);
  let sum = 0;
  let last = 0;
  for (let i = 0; i < ends.length && probabilities[i] > 0; i++) {
    ends[i] = sum += probabilities[i];
    last = i;
  }
  // Rounding leaves a gap below 1, which belongs to no token, where no others can be drawn.
  const beyond = 1 - sum > 1e-9 ? ends.length : last;
  return Uint32Array.from({ length: count }, () => {
    const at = next();
    if (at >= sum) return beyond;
    let [low, high] = [0, last];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ends[middle] > at) high = middle;
      else low = middle + 1;
    }
    return low;
  });
}

// ---------------------------------------------------------------------------------------------
// Settings

export const PRESETS = [
  { name: "Greedy", temperature: 0, top_k: null, top_p: null },
  { name: "Cautious", temperature: 0.7, top_k: 40, top_p: 0.9 },
  { name: "As trained", temperature: 1, top_k: null, top_p: null },
  { name: "Wild", temperature: 1.6, top_k: null, top_p: null },
];

const range = (/** @type {number} */ from, /** @type {number} */ to, /** @type {number} */ step) =>
  Array.from(
    { length: Math.round((to - from) / step) + 1 },
    (_, i) => Number((from + i * step).toFixed(2)),
  );

/** Where the sliders stop; null is off. @type {Record<string, (number | null)[]>} */
export const STOPS = {
  temperature: range(0, 2, 0.05),
  top_k: [...range(1, 10, 1), 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, null],
  top_p: [...range(0.05, 0.95, 0.05), 0.97, 0.99, null],
};

/**
 * The stop that is nearest to a value, which need not stand there itself.
 * @param {string} name
 * @param {number | null} value
 * @returns {number}
 */
export function nearest(name, value) {
  const stops = STOPS[name];
  if (value === null) return stops.length - 1;
  let best = 0;
  stops.forEach((stop, i) => {
    const closest = Math.abs(/** @type {number} */ (stops[best]) - value);
    if (stop !== null && Math.abs(stop - value) < closest) best = i;
  });
  return best;
}

/** @param {string} name @param {number | null} value @returns {string} */
export function formatSetting(name, value) {
  if (value === null) return "off";
  if (name === "top_k") return String(value);
  return Number(value.toFixed(2)) === value ? value.toFixed(2) : String(value);
}

// ---------------------------------------------------------------------------------------------
// Numbers for people

/** @param {number} count @returns {string} the count with commas between the thousands */
export function formatCount(count) {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** @param {number} share from 0 to 1 @returns {string} in percent, never a false 0 or 100 */
export function formatShare(share) {
  const percent = 100 * share;
  if (percent === 0) return "0%";
  if (percent < 0.01) return "<0.01%";
  if (percent < 100 && percent >= 99.95) return ">99.9%";
  return share === 1 ? "100%" : `${percent.toFixed(percent < 0.995 ? 2 : 1)}%`;
}

/** @param {number} perplexity @returns {string} */
export function formatPerplexity(perplexity) {
  return perplexity < 100 ? perplexity.toFixed(2) : formatCount(perplexity);
}

/** @param {number} largest share that is drawn @returns {number} where the scale ends */
export function scaleEnd(largest) {
  return [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((end) => largest <= end) ?? 1;
}

// ---------------------------------------------------------------------------------------------
// Making tokens visible

/** @type {Record<string, string>} */
const MARKS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };

/** @param {number} lead @returns {number} the length of the UTF-8 sequence that a byte opens */
function sequenceLength(lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xc2) return 0;
  if (lead < 0xe0) return 2;
  if (lead < 0xf0) return 3;
  return lead < 0xf5 ? 4 : 0;
}

/**
 * What to show for a token: text as it is, marks for white space, code points for characters that
 * leave no ink, and in brackets the hexadecimal digits of bytes that are no whole character.
 * @param {string} token a character a byte
 * @returns {string}
 */
export function label(token) {
  const bytes = Uint8Array.from(token, (character) => character.charCodeAt(0));
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let shown = "";
  for (let i = 0; i < bytes.length;) {
    const length = sequenceLength(bytes[i]);
    let character = null;
    try {
      if (length > 0 && i + length <= bytes.length) {
        character = decoder.decode(bytes.subarray(i, i + length));
      }
    } catch {
      // not a character: its first byte is shown as a number
    }
    shown += character === null ? `⟨${hex(bytes[i], 2)}⟩` : visible(character);
    i += character === null ? 1 : length;
  }
  return (/^\p{M}/u.test(shown) ? "◌" : "") + shown.replaceAll("⟩⟨", " ") || "⟨⟩";
}

/** @param {number} value @param {number} length @returns {string} */
function hex(value, length) {
  return value.toString(16).toUpperCase().padStart(length, "0");
}

/** @param {string} character @returns {string} */
function visible(character) {
  if (character in MARKS) return MARKS[character];
  if (/[\p{C}\p{Z}\p{White_Space}\p{Default_Ignorable_Code_Point}]/u.test(character)) {
    return `⟨U+${hex(/** @type {number} */ (character.codePointAt(0)), 4)}⟩`;
  }
  return character;
}

/** @param {string} shown what label made @returns {string} in words, for who listens */
export function spoken(shown) {
  /** @type {Record<string, string>} */
  const words = { "␣": "space ", "⏎": "line break ", "⇥": "tab ", "␍": "return " };
  const text = shown.replace(/[␣⏎⇥␍]/g, (mark) => words[mark]);
  return text
    .replace(/⟨(?!U)/g, "bytes ")
    .replace(/[⟨⟩◌]/g, "")
    .trim();
}

/** @param {number} count @param {string} noun @returns {string} */
export function plural(count, noun) {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;
}

// ---------------------------------------------------------------------------------------------
// Drawing

const ROWS = 12;
const LATEST = 12; // tokens drawn last, which are listed

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElement}
 */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * Set a text only where it is another one: what does not change costs nothing.
 * @param {Node} node
 * @param {string} text
 */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {string} name @param {Record<string, string>} more @param {(Node | string)[]} children */
const div = (name, more = {}, ...children) =>
  h("div", { class: `gptlib-sb-${name}`, ...more }, ...children);

const KEYS = { "data-lm-suppress-shortcuts": "true" }; // JupyterLab asks the focused element itself

/** @param {string} text @param {string} kind @returns {HTMLButtonElement} */
const button = (text, kind = "button") => /** @type {HTMLButtonElement} */ (
  h("button", { type: "button", class: `gptlib-sb-${kind}`, ...KEYS }, text)
);

/** @type {Record<string, { title: string, few: string, many: string }>} */
const SLIDERS = {
  temperature: { title: "Temperature", few: "0, greedy", many: "2" },
  top_k: { title: "Top-k", few: "1", many: "off" },
  top_p: { title: "Top-p", few: "0.05", many: "off" },
};

/** @param {string} name */
function makeSlider(name) {
  const { title, few, many } = SLIDERS[name];
  const input = /** @type {HTMLInputElement} */ (
    h("input", {
      type: "range",
      class: "gptlib-sb-slider",
      min: "0",
      max: String(STOPS[name].length - 1),
      ...KEYS,
    })
  );
  const value = h("span", { class: "gptlib-sb-value", "aria-hidden": "true" });
  const ends = div("ends", { "aria-hidden": "true" }, h("span", {}, few), h("span", {}, many));
  const root = h(
    "label",
    { class: "gptlib-sb-field", "data-field": name },
    h("span", { class: "gptlib-sb-name" }, title),
    value,
    input,
    ends,
  );
  return { name, input, value, root };
}

/** @param {boolean} live whether its token can be added to the prompt */
function makeRow(live) {
  const token = live ? button("", "token") : h("span", { class: "gptlib-sb-token" });
  if (live) token.tabIndex = -1;
  const dropped = h("span", { class: "gptlib-sb-hidden" });
  const [ghost, fill, dot] = [div("ghost"), div("fill"), div("dot")];
  const cell = (/** @type {string} */ name) => div(name, { role: "cell" });
  const [now, own, count] = [cell("now"), cell("own"), cell("count")];
  const root = div(
    "row",
    { role: "row" },
    div("head", { role: "rowheader", dir: "auto" }, token, dropped),
    now,
    own,
    count,
    div("track", { "aria-hidden": "true" }, ghost, fill, dot),
  );
  return { root, token, dropped, ghost, fill, dot, now, own, count };
}

/** @param {string} title */
function makeFact(title) {
  const [value, more] = [h("b", {}), h("span", { class: "gptlib-sb-more" })];
  const root = div("fact", {}, h("span", { class: "gptlib-sb-soft" }, title), value, more);
  return { root, value, more };
}

/**
 * The elements of the widget, before it knows any prompt.
 * @param {boolean} live whether there is a kernel
 */
function build(live) {
  const size = h("span", { class: "gptlib-sb-soft" });
  const select = /** @type {HTMLSelectElement} */ (
    h("select", { class: "gptlib-sb-select", ...KEYS })
  );
  const choose = h("label", { class: "gptlib-sb-choose" }, live ? "Examples" : "Prompt", select);
  const area = /** @type {HTMLTextAreaElement} */ (
    h("textarea", {
      class: "gptlib-sb-area",
      rows: "2",
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
      ...KEYS,
    })
  );
  const error = div("error", { role: "status" });
  const context = h("span", { class: "gptlib-sb-context" });
  const back = button("Take it back");
  const after = div("after", {}, h("span", { class: "gptlib-sb-soft" }, "What comes after "));
  after.append(context, ...(live ? [back] : []));
  const hint = h("p", { class: "gptlib-sb-soft" }, "Choose a token to add it to the prompt.");

  const presets = PRESETS.map(({ name }) => button(name));
  const sliders = Object.keys(SLIDERS).map(makeSlider);
  const facts = ["Still possible", "Probability kept", "Entropy", "Perplexity"].map(makeFact);

  const rows = Array.from({ length: ROWS }, () => makeRow(live));
  const others = makeRow(false);
  others.root.classList.add("gptlib-sb-others");
  const ticks = [h("span", {}, "0"), h("span"), h("span")];
  const titles = { now: "Now", own: "Own", count: "Draws" };
  const headings = div(
    "row",
    { role: "row" },
    div("head", { role: "columnheader" }, "Token"),
    ...Object.entries(titles).map(([name, title]) => div(name, { role: "columnheader" }, title)),
    div("ticks", { "aria-hidden": "true" }, ...ticks),
  );
  headings.classList.add("gptlib-sb-headings");
  const table = div("table", { role: "table" }, headings, ...rows.map((row) => row.root));
  table.append(others.root);
  const key = (/** @type {string} */ name, /** @type {string} */ text) =>
    h("span", {}, h("i", { class: `gptlib-sb-key gptlib-sb-key-${name}` }), text);
  const legend = div(
    "legend",
    { "aria-hidden": "true" },
    key("ghost", "the model’s own"),
    key("fill", "now"),
    key("dot", "share of draws"),
  );

  const one = button("Draw a token", "main");
  const hundred = button("Draw 100");
  const reset = button("Reset");
  const seed = /** @type {HTMLInputElement} */ (
    h("input", {
      type: "number",
      class: "gptlib-sb-seed",
      min: "0",
      max: String(2 ** 32 - 1),
      step: "1",
      inputmode: "numeric",
      ...KEYS,
    })
  );
  const tally = h("span", { class: "gptlib-sb-soft" });
  const latest = div("latest");
  const announcer = div("hidden", { role: "status" });
  const root = h(
    "div",
    { class: "gptlib-root gptlib-sb", ...KEYS },
    div(
      "layout",
      {},
      div("top", {}, h("strong", { class: "gptlib-title" }, "Sampling bench"), size),
      div(
        "input",
        {},
        choose,
        ...(live ? [h("label", { class: "gptlib-sb-typing" }, "Your prompt", area)] : []),
        error,
      ),
      div(
        "controls",
        { role: "group", "aria-label": "Sampling" },
        div("presets", { role: "group", "aria-label": "Presets" }, ...presets),
        div("sliders", {}, ...sliders.map((slider) => slider.root)),
      ),
      div("figure", {}, after, ...(live ? [hint] : []), legend, table),
      div("facts", {}, ...facts.map((fact) => fact.root)),
      div(
        "draws",
        { role: "group", "aria-label": "Draws" },
        div("buttons", {}, one, hundred, reset, h("label", {}, "Seed ", seed)),
        tally,
        latest,
      ),
      announcer,
    ),
  );
  return {
    ...{ root, size, select, choose, area, error, context, back, presets, sliders, facts, rows },
    ...{ others, ticks, table, one, hundred, reset, seed, tally, latest, announcer },
  };
}

/** @param {string} text @returns {string} */
const shorten = (text) => (text.length <= 48 ? text : `${text.slice(0, 47)}…`);

/** @param {string} text @returns {string} a prompt, or words where it is empty */
const quote = (text) => (text ? `“${text}”` : "nothing: a text begins");

/**
 * @param {{ model: Model, el: HTMLElement }} context
 * @returns {() => void}
 */
function render({ model, el }) {
  const live = Boolean(model.get("live")); // only a kernel has this trait
  const view = build(live);
  /** @type {Stored} */
  let shown = model.get("stored")[0];
  /** @type {Ranked} */
  let ranked = decode(shown);
  /** @type {Map<number, string>} */
  let names = new Map(); // of ids, as they are shown
  /** @type {Drawn} */
  let plain = settle(ranked, { temperature: 1, top_k: null, top_p: null });
  let drawn = plain;
  let own = false; // whether the prompt changes because the reader types
  let typing = 0; // timers
  let waiting = 0;
  let telling = 0;

  // --- what is shown --------------------------------------------------------------------------

  /** @returns {Stored | undefined} what is known of the prompt, if Python has sent it */
  function known() {
    const [text, added] = [model.get("prompt"), String(model.get("added") ?? [])];
    const typed = model.get("typed");
    return [...model.get("stored"), ...(typed?.codes ? [typed] : [])].find(
      (one) => one.text === text && String(one.added) === added,
    );
  }

  /** @param {number} id @returns {string} */
  function nameOf(id) {
    let name = names.get(id);
    if (name === undefined) {
      const text = model.get("tokens")[id];
      name = text === undefined ? `⟨${id}⟩` : label(text);
      names.set(id, name);
    }
    return name;
  }

  /** @returns {Settings} */
  const settings = () => ({
    temperature: model.get("temperature"),
    top_k: model.get("top_k") ?? null,
    top_p: model.get("top_p") ?? null,
  });

  function drawPrompt() {
    const found = known();
    if (found && found !== shown) {
      shown = found;
      ranked = decode(found);
      plain = settle(ranked, { temperature: 1, top_k: null, top_p: null });
    }
    drawNames();
    drawContext();
    drawChoice();
    drawError();
    drawBars();
  }

  function drawNames() {
    names = new Map();
    if (shown.texts.length) {
      const sorted = ranked.ids.slice().sort();
      shown.texts.forEach((text, i) => names.set(sorted[i], label(text)));
    }
    write(view.size, plural(shown.size, "token"));
    view.rows.forEach(({ root, token }, rank) => {
      root.hidden = rank >= ranked.ids.length;
      if (root.hidden) return;
      const name = nameOf(ranked.ids[rank]);
      write(token, name);
      token.title = name;
      if (live) token.setAttribute("aria-label", `Add ${spoken(name)} to the prompt`);
    });
    view.others.root.hidden = shown.size <= ROWS;
  }

  function drawContext() {
    view.context.replaceChildren(
      quote(shown.text),
      ...shown.added.flatMap((id) => [" ", h("span", { class: "gptlib-sb-chip" }, nameOf(id))]),
    );
    view.back.hidden = !shown.added.length;
  }

  function drawChoice() {
    /** @type {Stored[]} */
    const stored = model.get("stored");
    const texts = stored.map((one) => one.text + (one.added.length ? " …" : ""));
    const at = stored.indexOf(shown);
    const wanted = [...texts.map((text) => shorten(quote(text))), ...(at < 0 ? ["Your own"] : [])];
    const options = Array.from(view.select.options, (option) => option.text);
    if (String(wanted) !== String(options)) {
      view.select.replaceChildren(
        ...wanted.map((text, i) => h("option", { value: String(i) }, text)),
      );
    }
    view.select.value = String(at < 0 ? stored.length : at);
    view.choose.hidden = stored.length < 2;
  }

  function drawSettings() {
    const now = settings();
    for (const { name, input, value } of view.sliders) {
      const set = /** @type {any} */ (now)[name];
      const text = formatSetting(name, set);
      input.value = String(nearest(name, set));
      input.setAttribute("aria-valuetext", text);
      write(value, text);
    }
    PRESETS.forEach((preset, i) => {
      const same = Object.entries(now).every(
        ([name, value]) => /** @type {any} */ (preset)[name] === value,
      );
      view.presets[i].setAttribute("aria-pressed", String(same));
    });
    drawBars();
  }

  function drawBars() {
    drawn = settle(ranked, settings());
    const tallied = tally();
    const end = scaleEnd(Math.max(ranked.own[0], drawn.probabilities[0]));
    const [middle, last] = [end / 2, end].map((share) => `${Number((100 * share).toFixed(1))}%`);
    write(view.ticks[1], middle);
    write(view.ticks[2], last);
    view.root.classList.toggle("gptlib-sb-drawn", tallied.count > 0);
    const shares = { now: 1, own: 1, count: tallied.count };
    view.rows.forEach((row, rank) => {
      if (rank >= ranked.ids.length) return;
      const [now, own, count] = [drawn.probabilities[rank], ranked.own[rank], tallied.counts[rank]];
      drawRow(row, end, now, own, count, tallied.count);
      shares.now -= now;
      shares.own -= own;
      shares.count -= count;
    });
    drawOthers(end, shares, tallied.count);
    drawFacts();
    drawTally(tallied);
  }

  /**
   * @param {ReturnType<typeof makeRow>} row
   * @param {number} end of the scale
   * @param {number} now probability
   * @param {number} own probability
   * @param {number} count how often it was drawn
   * @param {number} all draws
   */
  function drawRow(row, end, now, own, count, all) {
    const width = (/** @type {number} */ share) =>
      `${(100 * Math.min(share / end, 1)).toFixed(2)}%`;
    row.fill.style.width = width(now);
    row.ghost.style.width = width(own);
    row.dot.style.left = width(all ? count / all : 0);
    row.root.classList.toggle("gptlib-sb-none", all > 0 && count === 0);
    row.root.classList.toggle("gptlib-sb-over", Math.max(now, own) > end);
    row.root.classList.toggle("gptlib-sb-dropped", now === 0);
    write(row.dropped, now === 0 ? " (dropped)" : "");
    write(row.now, formatShare(now));
    write(row.own, formatShare(own));
    write(row.count, formatCount(count));
  }

  /**
   * @param {number} end of the scale
   * @param {{ now: number, own: number, count: number }} shares of all others
   * @param {number} all draws
   */
  function drawOthers(end, shares, all) {
    const others = shown.size - ROWS;
    if (others <= 0) return;
    const left = Math.max(drawn.possible - ROWS, 0);
    const some = left > 0 && left < others ? `${formatCount(left)} of ` : "";
    write(view.others.token, `${some}${plural(others, "other")}`);
    const now = left ? Math.max(shares.now, Number.MIN_VALUE) : 0;
    drawRow(view.others, end, now, Math.max(shares.own, 0), shares.count, all);
  }

  function drawFacts() {
    const { possible, share, entropy } = drawn;
    const before = plain.entropy;
    const values = [
      [formatCount(possible), `of ${plural(shown.size, "token")}`],
      [formatShare(share), "of the model’s own"],
      [`${entropy.toFixed(2)} nats`, `model’s own: ${before.toFixed(2)}`],
      [formatPerplexity(Math.exp(entropy)), `model’s own: ${formatPerplexity(Math.exp(before))}`],
    ];
    values.forEach(([value, more], i) => {
      write(view.facts[i].value, value);
      write(view.facts[i].more, more);
    });
  }

  // --- draws ----------------------------------------------------------------------------------

  function tally() {
    const count = Math.min(model.get("draws") ?? 0, MOST_DRAWS);
    const ranks = draw(drawn, count, model.get("seed") ?? 1);
    const counts = new Uint32Array(ROWS);
    for (const rank of ranks) if (rank < ROWS) counts[rank] += 1;
    return { count, counts, ranks };
  }

  /** @param {number} rank @returns {string} */
  const nameAt = (rank) => (rank < ranked.ids.length ? nameOf(ranked.ids[rank]) : "⟨another⟩");

  /** @param {ReturnType<typeof tally>} tallied */
  function drawTally({ count, ranks }) {
    const words = count
      ? `${plural(count, "draw")} from these bars, made anew at every setting. The latest first:`
      : "A draw picks one next token from these bars.";
    write(view.tally, words);
    const names = Array.from(ranks.slice(-LATEST), nameAt).reverse();
    while (view.latest.children.length > names.length) view.latest.lastChild?.remove();
    names.forEach((name, i) => {
      const chip = view.latest.children[i] ?? h("span", { class: "gptlib-sb-chip", dir: "auto" });
      if (!chip.parentNode) view.latest.append(chip);
      write(chip, name);
    });
    view.one.disabled = view.hundred.disabled = count >= MOST_DRAWS;
    view.reset.disabled = count === 0;
    if (document.activeElement !== view.seed) view.seed.value = String(model.get("seed") ?? 1);
  }

  /** @param {number} more */
  function drawMore(more) {
    const count = Math.min((model.get("draws") ?? 0) + more, MOST_DRAWS);
    set({ draws: count });
    const { ranks } = tally();
    const name = spoken(nameAt(ranks[count - 1]));
    say(more === 1 ? `Drawn: ${name}. ${plural(count, "draw")}.` : `${plural(count, "draw")}.`);
  }

  // --- words ----------------------------------------------------------------------------------

  /** @param {string} words @param {number} delay until a slider rests */
  function say(words, delay = 0) {
    window.clearTimeout(telling);
    telling = window.setTimeout(() => {
      view.announcer.textContent = words;
    }, delay);
  }

  function sayBars() {
    const best = spoken(nameOf(ranked.ids[0]));
    say(
      `${formatCount(drawn.possible)} tokens possible, entropy ${drawn.entropy.toFixed(2)} nats; ` +
        `${best} ${formatShare(drawn.probabilities[0])}.`,
      600,
    );
  }

  function drawError() {
    window.clearTimeout(waiting);
    const error = model.get("error") ?? "";
    const sentence = error && `${error[0].toUpperCase()}${error.slice(1)}.`;
    write(view.error, sentence && `${sentence} The bars below are of the last prompt.`);
    view.area.setAttribute("aria-invalid", String(Boolean(error)));
    const stale = live && !error && !known();
    view.root.classList.toggle("gptlib-sb-stale", stale);
    if (stale) {
      waiting = window.setTimeout(() => {
        write(view.error, "Waiting for Python. Is the kernel running?");
      }, 3000);
    }
  }

  function drawText() {
    const text = model.get("prompt") ?? "";
    // A text area turns every line break into \n; do not take that for a new text.
    if (live && !own && text.replace(/\r\n?/g, "\n") !== view.area.value) view.area.value = text;
    drawPrompt();
  }

  // --- what the reader does -------------------------------------------------------------------

  /** @param {Record<string, unknown>} values */
  function set(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  }

  /** @param {number} rank */
  function append(rank) {
    const name = spoken(nameOf(ranked.ids[rank]));
    set({ prompt: shown.text, added: [...shown.added, ranked.ids[rank]] });
    say(`${name} added to the prompt.`);
  }

  /** @param {KeyboardEvent} event */
  function onRowKey(event) {
    const buttons = view.rows.filter(({ root }) => !root.hidden).map(({ token }) => token);
    const here = buttons.indexOf(/** @type {HTMLElement} */ (event.target));
    const last = buttons.length - 1;
    /** @type {Record<string, number>} */
    const targets = { ArrowUp: here - 1, ArrowDown: here + 1, Home: 0, End: last };
    const target = targets[event.key];
    if (target === undefined || here < 0) return;
    event.preventDefault();
    makeCurrent(Math.min(Math.max(target, 0), last));
    buttons[Math.min(Math.max(target, 0), last)].focus();
  }

  /** @param {number} rank of the one token that the Tab key reaches */
  function makeCurrent(rank) {
    view.rows.forEach(({ token }, i) => {
      token.tabIndex = i === rank ? 0 : -1;
    });
  }

  function onSeed() {
    const value = Number(view.seed.value);
    if (view.seed.value === "" || !Number.isInteger(value) || value < 0 || value >= 2 ** 32) {
      view.seed.value = String(model.get("seed") ?? 1);
    } else set({ seed: value });
  }

  for (const { name, input } of view.sliders) {
    input.addEventListener("input", () => {
      set({ [name]: STOPS[name][Number(input.value)] });
      sayBars();
    });
  }
  PRESETS.forEach(({ name: _, ...preset }, i) => {
    view.presets[i].addEventListener("click", () => {
      set(preset);
      sayBars();
    });
  });
  view.select.addEventListener("change", () => {
    const one = model.get("stored")[Number(view.select.value)];
    if (one) set({ prompt: one.text, added: one.added });
    sayBars();
  });
  view.area.addEventListener("input", () => {
    window.clearTimeout(typing);
    typing = window.setTimeout(() => {
      own = true;
      set({ prompt: view.area.value.replace(/\p{Surrogate}/gu, "\ufffd"), added: [] });
      own = false;
    }, 400);
  });
  view.back.addEventListener("click", () => {
    set({ prompt: shown.text, added: shown.added.slice(0, -1) });
    if (view.back.hidden) view.area.focus(); // the button is gone
  });
  if (live) {
    makeCurrent(0);
    view.table.addEventListener("keydown", onRowKey);
    view.rows.forEach(({ root }, rank) => {
      root.addEventListener("click", () => {
        makeCurrent(rank);
        append(rank);
      });
    });
  }
  view.one.addEventListener("click", () => drawMore(1));
  view.hundred.addEventListener("click", () => drawMore(100));
  view.reset.addEventListener("click", () => {
    set({ draws: 0 });
    say("No draws.");
    view.one.focus(); // the button is disabled now
  });
  view.seed.addEventListener("change", onSeed);

  drawText();
  drawSettings();
  el.append(view.root);

  /** @type {[string, () => void][]} */
  const listeners = [
    ["change:prompt", drawText],
    ["change:added", drawPrompt],
    ["change:typed", drawPrompt],
    ["change:stored", drawPrompt],
    ["change:error", drawError],
    ["change:temperature", drawSettings],
    ["change:top_k", drawSettings],
    ["change:top_p", drawSettings],
    ["change:draws", drawBars],
    ["change:seed", drawBars],
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    window.clearTimeout(typing);
    window.clearTimeout(waiting);
    window.clearTimeout(telling);
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}

export default { render };
