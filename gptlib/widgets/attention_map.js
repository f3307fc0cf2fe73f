// Where the heads of a model look. Python stores the scaled scores of every head, packed; the other
// steps, from score to weight, are computed here. In a page without a kernel, the mini model, which
// runs there when the reader asks for it, reads other texts.

/**
 * @typedef {{
 *   text: string, tokens: string[], layers: number, heads: number, channels: number, bits: number,
 *   ranges: string, peaks: string, below: string, above: string, scores?: Float32Array,
 * }} Maps  packed by Python, or with the scaled scores (L, H, T, T) as the page's model has them
 * @typedef {{
 *   size: number, low: Float32Array, high: Float32Array, peaks: Uint16Array, below: Uint16Array,
 *   above: Uint16Array | null, largest: number, scores?: Float32Array,
 * }} Codes
 * @typedef {{
 *   scaled: Float64Array, errors: Float64Array, weights: Float64Array, low: number, high: number,
 * }} Head  T x T each: scaled scores (NaN where none is stored), how far off they may be, weights
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: unknown): void,
 *   on(event: string, callback: Function): void,
 *   off(event: string, callback: Function): void,
 *   save_changes(): void,
 *   send(content: unknown): void,
 * }} Model
 * @typedef {{ row: number, column: number }} Cell
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

const BEND = 0.5; // as in Python

/** @param {string} text @returns {Uint8Array} */
export function fromBase64(text) {
  const native = /** @type {any} */ (Uint8Array).fromBase64; // in new browsers, and faster
  if (native) return native.call(Uint8Array, text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/**
 * Integers of some bits each, the highest bit first.
 * @param {Uint8Array} bytes
 * @param {number} bits at most 16
 * @param {number} count
 * @returns {Uint16Array}
 */
export function unpack(bytes, bits, count) {
  if (bytes.length !== Math.ceil((count * bits) / 8)) {
    throw new Error(`${count} integers of ${bits} bits are not in ${bytes.length} bytes`);
  }
  const found = new Uint16Array(count);
  const mask = 2 ** bits - 1;
  let held = 0; // bits read and not yet used, at most 23 of them
  let have = 0;
  for (let i = 0, next = 0; i < count; i++) {
    for (; have < bits; have += 8) held = ((held << 8) | bytes[next++]) & 0xffffff;
    have -= bits;
    found[i] = (held >>> have) & mask;
  }
  return found;
}

/**
 * Maps as the engine answers to `scores`, of a text that is read in the page.
 * @param {Maps} before of the same model
 * @param {any} answer
 * @param {string} text
 * @returns {Maps}
 */
export function fromEngine({ layers, heads, channels }, { tokens, scores }, text) {
  const packed = { bits: 16, ranges: "", peaks: "", below: "", above: "" };
  return { text, tokens, layers, heads, channels, ...packed, scores };
}

/** @param {Maps} maps @returns {Codes} */
export function decode(maps) {
  const size = maps.tokens.length;
  const count = maps.layers * maps.heads;
  if (maps.scores) return codesOf(maps.scores, size, count);
  const ranges = new DataView(fromBase64(maps.ranges).buffer);
  const low = new Float32Array(count);
  const high = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    low[i] = ranges.getFloat32(8 * i, true);
    high[i] = ranges.getFloat32(8 * i + 4, true);
  }
  const cells = (size * (size + 1)) / 2;
  const ahead = size * size - cells;
  return {
    size,
    low,
    high,
    peaks: unpack(fromBase64(maps.peaks), 16, count * size),
    below: unpack(fromBase64(maps.below), maps.bits, count * cells),
    above: maps.above ? unpack(fromBase64(maps.above), maps.bits, count * ahead) : null,
    largest: 2 ** maps.bits - 1,
  };
}

/**
 * Scores that are not packed: nothing has to be decoded.
 * @param {Float32Array} scores (L, H, T, T), scaled
 * @param {number} size
 * @param {number} count of the heads
 * @returns {Codes}
 */
function codesOf(scores, size, count) {
  const [low, high] = [new Float32Array(count), new Float32Array(count)];
  for (let i = 0; i < count; i++) {
    const head = scores.subarray(i * size * size, (i + 1) * size * size);
    low[i] = head.reduce((a, b) => Math.min(a, b));
    high[i] = head.reduce((a, b) => Math.max(a, b));
  }
  const none = new Uint16Array(0);
  return { size, low, high, scores, peaks: none, below: none, above: none, largest: 65535 };
}

/**
 * How far under a row's peak a score is, for every code of one head.
 * @param {Codes} codes
 * @param {number} index of the head
 * @returns {(code: number) => number}
 */
function depthOf(codes, index) {
  const width = Math.max(codes.high[index] - codes.low[index], 1e-6);
  const bend = Math.log1p(width / BEND) / codes.largest;
  return (code) => BEND * Math.expm1(bend * code);
}

/**
 * The weights of one head, written row by row into the lower triangle of `weights`.
 * @param {Codes} codes
 * @param {number} index of the head, counted over all layers
 * @param {Float64Array} weights T x T, zero above the diagonal
 */
export function fillWeights(codes, index, weights) {
  const { size, below, scores } = codes;
  const depth = depthOf(codes, index);
  let next = (index * size * (size + 1)) / 2;
  for (let i = 0; i < size; i++) {
    const row = scores?.subarray((index * size + i) * size, (index * size + i) * size + i + 1);
    const peak = row ? row.reduce((a, b) => Math.max(a, b)) : 0;
    let sum = 0;
    for (let j = 0; j <= i; j++) {
      const e = Math.exp(row ? row[j] - peak : -depth(below[next++]));
      weights[i * size + j] = e;
      sum += e;
    }
    for (let j = 0; j <= i; j++) weights[i * size + j] /= sum;
  }
}

/**
 * Scaled scores and weights of one head.
 * @param {Codes} codes
 * @param {number} index of the head, counted over all layers
 * @returns {Head}
 */
export function headOf(codes, index) {
  const { size, low, high, peaks, below, above, largest, scores } = codes;
  const weights = new Float64Array(size * size);
  fillWeights(codes, index, weights);
  const errors = new Float64Array(size * size);
  if (scores) {
    const start = index * size * size;
    const scaled = new Float64Array(scores.subarray(start, start + size * size));
    return { scaled, errors, weights, low: low[index], high: high[index] };
  }
  const scaled = new Float64Array(size * size).fill(NaN);
  const width = Math.max(high[index] - low[index], 1e-6);
  const depth = depthOf(codes, index);
  let nextBelow = (index * size * (size + 1)) / 2;
  let nextAbove = (index * size * (size - 1)) / 2;
  for (let i = 0; i < size; i++) {
    const peak = low[index] + (peaks[index * size + i] / 65535) * width;
    for (let j = 0; j <= i; j++, nextBelow++) {
      const under = depth(below[nextBelow]);
      scaled[i * size + j] = peak - under;
      errors[i * size + j] = depth(below[nextBelow] + 0.5) - under + width / 131070;
    }
    for (let j = i + 1; above && j < size; j++) {
      scaled[i * size + j] = low[index] + (above[nextAbove++] / largest) * width;
      errors[i * size + j] = width / largest / 2;
    }
  }
  return { scaled, errors, weights, low: low[index], high: high[index] };
}

/** @param {Head} head @param {number} row @param {number} size @returns {number} most looked at */
export function strongest(head, row, size) {
  let best = 0;
  for (let j = 1; j <= row; j++) {
    if (head.weights[row * size + j] > head.weights[row * size + best]) best = j;
  }
  return best;
}

/**
 * The decimals that a stored number deserves: none that its error could change by more than one.
 * @param {number} error at most, of the number
 * @param {number} largest magnitude of the numbers shown with it
 * @returns {number}
 */
export function decimals(error, largest) {
  const sure = Math.floor(-Math.log10(2 * Math.max(error, 1e-9)));
  const wanted = 3 - Math.ceil(Math.log10(Math.max(largest, 1e-9)));
  return Math.min(Math.max(sure, 0), Math.min(Math.max(wanted, 2), 5));
}

/** @param {number} value @param {number} digits @returns {string} with a true minus sign */
export function formatNumber(value, digits) {
  if (value === -Infinity) return "−∞";
  if (Number.isNaN(value)) return "…";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** @param {number} value positive @returns {string} three digits, with a power of ten if need be */
export function formatLarge(value) {
  const power = Math.floor(Math.log10(value));
  if (power >= -2 && power < 4) return value.toFixed(Math.max(2 - power, 0));
  const digits = [...String(Math.abs(power))].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)]);
  return `${(value / 10 ** power).toFixed(2)}·10${power < 0 ? "⁻" : ""}${digits.join("")}`;
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
  return `${String(count).replace(/\B(?=(\d{3})+$)/g, ",")} ${noun}${count === 1 ? "" : "s"}`;
}

/**
 * The heaviest of some tokens, in words.
 * @param {string[]} labels
 * @param {number[]} weights one for each label
 * @param {number} most how many to name
 * @returns {string}
 */
export function heaviest(labels, weights, most = 3) {
  return weights
    .map((weight, i) => ({ weight, i }))
    .sort((a, b) => b.weight - a.weight || a.i - b.i)
    .slice(0, most)
    .filter(({ weight }) => weight >= 0.005)
    .map(({ weight, i }) => `${labels[i]} ${weight.toFixed(2)}`)
    .join(", ");
}

// ---------------------------------------------------------------------------------------------
// The picture

const STEPS = [
  { name: "scores", title: "Score" },
  { name: "scaled", title: "Scaled" },
  { name: "masked", title: "Masked" },
  { name: "weights", title: "Softmax" },
];

/** @param {string} name @param {number} channels @returns {string} what a step does */
function explain(name, channels) {
  /** @type {Record<string, string>} */
  const words = {
    scores:
      "The score of a cell is the dot product q · k: the query of the row's token, the key of the " +
      "column's. The better the two match, the higher it is.",
    scaled:
      `Each score is divided by √${channels}, the square root of a head's number of channels, so ` +
      "that it does not grow with the size of the head.",
    masked:
      "Whatever comes later than the row's token gets −∞ in place of its score: no token looks " +
      "ahead.",
    weights:
      "The softmax raises e to each score and divides by the row's sum. −∞ turns into 0, and each " +
      "row adds up to 1: these are the weights.",
  };
  return words[name];
}

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

/** @type {WeakMap<HTMLElement, string>} */
const painted = new WeakMap();

/**
 * Set a background only where it is another one.
 * @param {HTMLElement} element
 * @param {string} color
 */
function paint(element, color) {
  if (painted.get(element) === color) return;
  painted.set(element, color);
  element.style.backgroundColor = color;
}

const STOPS = 5;
const TINTS = 2; // of a text: where a token looks, and who looks at it
const SHADES = 256;

/** @param {HTMLElement} probe @returns {number[][]} the colors of its children: red, green, blue */
function colors(probe) {
  return Array.from(
    probe.children,
    (child) =>
      (getComputedStyle(child).color.match(/[\d.]+/g) ?? ["0", "0", "0"]).slice(0, 3).map(Number),
  );
}

/** @param {HTMLElement} probe @returns {string[]} the tints, as CSS writes them in rgb() */
function tintsOf(probe) {
  return colors(probe)
    .slice(STOPS)
    .map((parts) => parts.join(" "));
}

/**
 * The colors of the scale, from the style sheet, as pixels: one for each of SHADES shades.
 * @param {HTMLElement} probe its children have the colors of the scale's stops, then the tints
 * @returns {Uint32Array}
 */
function shades(probe) {
  const stops = colors(probe).slice(0, STOPS);
  const pixels = new Uint8ClampedArray(4 * SHADES);
  for (let i = 0; i < SHADES; i++) {
    const place = (i / (SHADES - 1)) * (stops.length - 1);
    const left = Math.min(Math.floor(place), stops.length - 2);
    for (let part = 0; part < 3; part++) {
      const [from, to] = [stops[left][part], stops[left + 1][part]];
      pixels[4 * i + part] = from + (to - from) * (place - left);
    }
    pixels[4 * i + 3] = 255;
  }
  return new Uint32Array(pixels.buffer);
}

/** @param {number} weight @returns {number} its place on the scale of colors, from 0 to 1 */
export function shadeOf(weight) {
  return Math.sqrt(weight); // so that small weights can be told from none
}

let count = 0; // widgets drawn, for names that must differ

/**
 * The elements of the widget, before it knows any map.
 * @param {boolean} typing whether another text can be read here
 */
function build(typing) {
  const id = `gptlib-at-${(count += 1)}`;
  const div = (/** @type {string} */ name, /** @type {Record<string, string>} */ more = {}) =>
    h("div", { class: `gptlib-at-${name}`, ...more });
  const facts = h("span", { class: "gptlib-at-facts" });
  const area = /** @type {HTMLTextAreaElement} */ (
    h("textarea", { class: "gptlib-at-area", rows: "2", spellcheck: "false", autocomplete: "off" })
  );
  const error = div("error", { role: "status" });
  const pair = div("pair");
  const steps = STEPS.map(({ name, title }, i) => {
    const input = /** @type {HTMLInputElement} */ (
      h("input", { type: "radio", name: id, value: name, class: "gptlib-at-radio" })
    );
    const value = h("span", { class: "gptlib-at-step-value" });
    const how = h("span", { class: "gptlib-at-step-how" });
    const head = h("span", { class: "gptlib-at-step-title" }, `${i + 1} ${title}`);
    return {
      input,
      value,
      how,
      root: h("label", { class: "gptlib-at-step" }, input, head, value, how),
    };
  });
  const canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "gptlib-at-canvas" }));
  const [ahead, grid] = [div("ahead"), div("grid")];
  const [row, column, cell] = [div("row"), div("column"), div("cell")];
  const plot = h(
    "div",
    {
      class: "gptlib-at-plot",
      tabindex: "0",
      role: "application",
      "aria-roledescription": "attention map",
      "aria-describedby": `${id}-help`,
    },
    canvas,
    grid,
    ahead,
    h("div", { class: "gptlib-at-marks" }, column, row, cell),
  );
  const pill = () => h("span", { class: "gptlib-at-pill", dir: "auto" });
  const [rowPill, columnPill] = [pill(), pill()];
  const corner = h(
    "div",
    { class: "gptlib-at-corner", "aria-hidden": "true" },
    h("span", {}, "looked at →"),
    h("span", {}, "looks ↓"),
  );
  const [rows, columns] = [
    div("rows", { "aria-hidden": "true" }),
    div("columns", { "aria-hidden": "true" }),
  ];
  const ticks = [h("span"), h("span"), h("span")];
  const scale = h("span", { class: "gptlib-at-scale" });
  const legend = h(
    "div",
    { class: "gptlib-at-legend" },
    scale,
    h("span", { class: "gptlib-at-bar", "aria-hidden": "true" }),
    h("span", { class: "gptlib-at-ticks" }, ...ticks),
  );
  const probe = h("span", { class: "gptlib-at-probe", "aria-hidden": "true" });
  for (let i = 0; i < STOPS + TINTS; i++) probe.append(h("i", { "data-stop": String(i) }));
  const layer = /** @type {HTMLSelectElement} */ (h("select", { class: "gptlib-at-select" }));
  const head = /** @type {HTMLSelectElement} */ (h("select", { class: "gptlib-at-select" }));
  const thumbs = /** @type {HTMLCanvasElement} */ (
    h("canvas", { class: "gptlib-at-thumbs-canvas", "aria-hidden": "true" })
  );
  const buttons = div("thumbs-buttons");
  const picker = h(
    "div",
    { class: "gptlib-at-picker" },
    h(
      "div",
      { class: "gptlib-at-choose" },
      h("label", {}, "Layer ", layer),
      h("label", {}, "Head ", head),
    ),
    h("div", { class: "gptlib-at-thumbs" }, thumbs, buttons),
    h("p", { class: "gptlib-at-soft" }, "All heads: a row for each layer, the first on top."),
  );
  const tokens = div("tokens", { role: "group" });
  const looker = h("b");
  const lineWords = h(
    "p",
    { class: "gptlib-at-line-words" },
    looker,
    " looks at the tokens ",
    h("span", { class: "gptlib-at-key" }, "before it"),
    "; the tokens ",
    h("span", { class: "gptlib-at-key gptlib-at-later" }, "after it"),
    " look at it.",
  );
  const caption = h("caption", {});
  const body = h("tbody");
  const table = h(
    "table",
    { class: "gptlib-at-table" },
    caption,
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, "Token"),
        ...STEPS.map(({ name, title }) =>
          h("th", { scope: "col", "data-step": name }, name === "weights" ? "Weight" : title)
        ),
        h("th", { scope: "col", class: "gptlib-at-back" }, "Looks at it"),
      ),
    ),
    body,
  );
  const announcer = div("hidden", { "aria-live": "polite" });
  const about = h("p", { class: "gptlib-at-about" });
  const root = h(
    "div",
    { class: "gptlib-root gptlib-at", "data-lm-suppress-shortcuts": "true" },
    h(
      "div",
      { class: "gptlib-at-layout" },
      h(
        "div",
        { class: "gptlib-at-head" },
        h("strong", { class: "gptlib-title" }, "Where attention looks"),
        facts,
      ),
      h(
        "div",
        { class: "gptlib-at-input" },
        ...(typing ? [h("label", { class: "gptlib-at-label" }, "Your text", area)] : []),
        error,
      ),
      h(
        "fieldset",
        { class: "gptlib-at-steps" },
        h("legend", { class: "gptlib-at-hidden" }, "Step"),
        pair,
        ...steps.map((step) => step.root),
        about,
      ),
      h(
        "div",
        { class: "gptlib-at-figure" },
        h("div", { class: "gptlib-at-map" }, corner, columns, rows, plot),
        legend,
        h(
          "p",
          { class: "gptlib-at-hidden", id: `${id}-help` },
          "Up and down arrow keys choose the token that looks, left and right the one looked at. " +
            "The table below has the numbers.",
        ),
      ),
      picker,
      h("div", { class: "gptlib-at-line" }, lineWords, tokens),
      h(
        "div",
        {
          class: "gptlib-at-numbers",
          tabindex: "0",
          role: "region",
          "aria-label": "Numbers of the chosen row",
        },
        table,
      ),
      announcer,
      probe,
    ),
  );
  return {
    root,
    facts,
    area,
    error,
    pair,
    steps,
    about,
    canvas,
    ahead,
    row,
    column,
    cell,
    plot,
    rows,
    columns,
    rowPill,
    columnPill,
    ticks,
    scale,
    probe,
    layer,
    head,
    thumbs,
    buttons,
    picker,
    tokens,
    looker,
    caption,
    body,
    table,
    announcer,
  };
}

/**
 * @param {{ model: Model, el: HTMLElement }} context
 * @returns {() => void}
 */
function render({ model, el }) {
  const live = Boolean(model.get("live")); // only a kernel has this trait
  const bytes = Number(model.get("mini") ?? 0); // of the weights, where a page can load them
  const view = build(live || bytes > 0);
  /** @type {Maps} */
  let maps = model.get("maps");
  let codes = decode(maps);
  let labels = maps.tokens.map(label);
  let shown = headOf(codes, 0);
  /** @type {Uint32Array | null} */
  let palette = null; // known once the widget stands in its page
  /** @type {{ button: HTMLElement, weight: HTMLElement }[]} */
  let words = [];
  /** @type {Node[][]} */
  let numbers = [];
  /** @type {HTMLElement[]} */
  let rowLabels = [];
  /** @type {HTMLElement[]} */
  let columnLabels = [];
  /** @type {HTMLElement[]} */
  let thumbButtons = [];
  /** @type {Cell | null} */
  let hovered = null;
  /** @type {Cell} */
  let drawn = { row: -1, column: -1 };
  /** @type {{ x: number, y: number } | null} */
  let pointer = null;
  let frame = 0;
  let typing = 0;
  let waiting = 0;
  let resting = 0;
  let cell = 0; // of the map, in pixels
  let tints = ["0 0 0", "0 0 0"];
  let own = false;
  let problem = ""; // of reading in the page
  const first = { token: model.get("token"), column: model.get("column") };

  const size = () => maps.tokens.length;
  const at = (/** @type {string} */ name, /** @type {number} */ count) =>
    Math.min(Math.max(model.get(name) ?? 0, 0), count - 1);
  const index = () => at("layer", maps.layers) * maps.heads + at("head", maps.heads);
  const quote = (/** @type {number} */ i) => `“${labels[i]}”`;

  /** @returns {Cell} what the reader has chosen */
  function chosen() {
    const row = at("token", size());
    const column = model.get("column");
    return { row, column: column >= 0 && column < size() ? column : strongest(shown, row, size()) };
  }

  // --- what depends on the maps ---------------------------------------------------------------

  function drawMaps() {
    const n = size();
    view.facts.textContent =
      (maps.layers * maps.heads > 1
        ? `${plural(maps.layers, "layer")} × ${plural(maps.heads, "head")}, `
        : "one head, ") + plural(n, "token");
    view.root.classList.toggle("gptlib-at-single", maps.layers * maps.heads === 1);
    view.root.classList.toggle("gptlib-at-many", n > 32);
    view.root.classList.toggle("gptlib-at-few", n <= 24);
    view.root.style.setProperty("--tokens", String(n));
    view.root.style.setProperty("--layers", String(maps.layers));
    view.root.style.setProperty("--heads", String(maps.heads));
    view.ahead.style.clipPath = stairs(n);
    const axis = (/** @type {string} */ text) =>
      h("span", { dir: "auto", ...(text.length > 6 ? { class: "gptlib-at-long" } : {}) }, text);
    rowLabels = labels.map(axis);
    columnLabels = labels.map(axis);
    view.rows.replaceChildren(...rowLabels, view.rowPill);
    view.columns.replaceChildren(...columnLabels, view.columnPill);
    thin();
    drawWords();
    drawTable();
    drawPicker();
    drawThumbs();
    drawHead();
  }

  function drawWords() {
    words = labels.map((text, i) => {
      const weight = h("span", { class: "gptlib-at-weight" });
      const button = h(
        "button",
        { type: "button", class: "gptlib-at-token", tabindex: "-1", "data-index": String(i) },
        h("span", { class: "gptlib-at-hidden" }, spoken(text)),
        h("span", { class: "gptlib-at-text", dir: "auto", "aria-hidden": "true" }, text),
        " ",
        weight,
      );
      return { button, weight };
    });
    const breaks = words.flatMap(({ button }, i) =>
      maps.tokens[i].endsWith("\n") ? [button, h("span", { class: "gptlib-at-break" })] : [button]
    );
    view.tokens.replaceChildren(...breaks);
  }

  function drawTable() {
    numbers = [];
    const lines = labels.map((text) => {
      const cells = STEPS.map(({ name }) => h("td", { "data-step": name }, ""));
      const back = h("td", { class: "gptlib-at-back" }, "");
      numbers.push([...cells, back].map((cell) => cell.appendChild(new Text())));
      return h("tr", {}, h("th", { scope: "row", dir: "auto" }, text), ...cells, back);
    });
    view.body.replaceChildren(...lines);
  }

  function drawPicker() {
    const options = (/** @type {number} */ count) =>
      Array.from({ length: count }, (_, i) => h("option", { value: String(i) }, String(i)));
    view.layer.replaceChildren(...options(maps.layers));
    view.head.replaceChildren(...options(maps.heads));
    thumbButtons = [];
    if (maps.layers * maps.heads > 1) {
      for (let layer = 0; layer < maps.layers; layer++) {
        for (let head = 0; head < maps.heads; head++) {
          const name = `layer ${layer}, head ${head}`;
          thumbButtons.push(
            h("button", {
              type: "button",
              class: "gptlib-at-thumb",
              tabindex: "-1",
              "aria-label": name,
              title: name,
            }),
          );
        }
      }
    }
    view.buttons.setAttribute("role", "group");
    view.buttons.setAttribute("aria-label", "All heads. Arrow keys move.");
    view.buttons.replaceChildren(...thumbButtons);
  }

  function drawThumbs() {
    if (!palette || maps.layers * maps.heads === 1) return;
    const n = size();
    const scale = Math.ceil((maps.layers * maps.heads > 200 ? 24 : 64) / n); // sharp, not huge
    const gap = Math.max(2, Math.round((n * scale) / 12));
    const step = n * scale + gap;
    const image = new ImageData(maps.heads * step, maps.layers * step);
    const pixels = new Uint32Array(image.data.buffer);
    const weights = new Float64Array(n * n);
    for (let k = 0; k < maps.layers * maps.heads; k++) {
      fillWeights(codes, k, weights);
      const left = (k % maps.heads) * step + (gap >> 1);
      const top = Math.floor(k / maps.heads) * step + (gap >> 1);
      for (let y = 0; y < n * scale; y++) {
        const i = Math.floor(y / scale);
        const start = (top + y) * image.width + left;
        for (let x = 0; x < n * scale; x++) {
          const j = Math.floor(x / scale);
          pixels[start + x] = j <= i
            ? palette[Math.round(shadeOf(weights[i * n + j]) * (SHADES - 1))]
            : 0;
        }
      }
    }
    view.thumbs.width = image.width;
    view.thumbs.height = image.height;
    view.thumbs.getContext("2d")?.putImageData(image, 0, 0);
  }

  // --- what depends on the head and the step --------------------------------------------------

  function drawHead() {
    shown = headOf(codes, index());
    const [layer, head] = [at("layer", maps.layers), at("head", maps.heads)];
    view.layer.value = String(layer);
    view.head.value = String(head);
    thumbButtons.forEach((button, k) => {
      const here = k === index();
      button.tabIndex = here ? 0 : -1;
      if (here) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
    drawStep();
  }

  function drawStep() {
    const step = model.get("step") ?? "weights";
    view.root.dataset.step = step;
    for (const { input } of view.steps) input.checked = input.value === step;
    const [layer, head] = [at("layer", maps.layers), at("head", maps.heads)];
    const title = STEPS.find(({ name }) => name === step)?.title.toLowerCase();
    view.plot.setAttribute(
      "aria-label",
      `Map of layer ${layer}, head ${head}, step ${title}: rows look at columns`,
    );
    const lacking = !codes.above && (step === "scores" || step === "scaled");
    write(
      view.about,
      explain(step, maps.channels) +
        (lacking ? " Those of later tokens, which the mask hides, are not stored here." : ""),
    );
    drawCanvas(step);
    drawCell(true);
  }

  /** @param {string} step */
  function drawCanvas(step) {
    const n = size();
    const [low, high] = [shown.low, shown.high].map((value) => value * factor(step));
    const digits = decimals(0, Math.max(-low, high) * 10);
    const ends = [low, (low + high) / 2, high].map((value) => formatNumber(value, digits));
    view.ticks.forEach((tick, i) =>
      write(tick, step === "weights" ? ["0", "0.25", "1"][i] : ends[i])
    );
    write(view.scale, step === "weights" ? "Weight" : "Score");
    view.root.classList.toggle("gptlib-at-full", Boolean(codes.above));
    if (!palette) return;
    const image = new ImageData(n, n);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        const value = valueAt(step, i, j);
        if ((step === "weights" && j > i) || !Number.isFinite(value)) continue;
        const place = step === "weights" ? shadeOf(value) : (value - low) / (high - low || 1);
        pixels[i * n + j] = palette[Math.round(place * (SHADES - 1))];
      }
    }
    view.canvas.width = view.canvas.height = n;
    view.canvas.getContext("2d")?.putImageData(image, 0, 0);
  }

  /** @param {string} step @returns {number} what a scaled score is multiplied by */
  const factor = (step) => (step === "scores" ? Math.sqrt(maps.channels) : 1);

  /** @param {string} step @param {number} i @param {number} j @returns {string} */
  function numberAt(step, i, j) {
    const value = valueAt(step, i, j);
    if (step === "weights") return formatNumber(value, 3);
    const largest = Math.max(Math.abs(shown.low), Math.abs(shown.high));
    const error = shown.errors[i * size() + j] * factor(step);
    return formatNumber(value, decimals(error, largest * factor(step)));
  }

  /** @param {string} step @param {number} i @param {number} j @returns {number} */
  function valueAt(step, i, j) {
    const value = shown.scaled[i * size() + j];
    if (step === "weights") return shown.weights[i * size() + j];
    if (step === "masked") return j > i ? -Infinity : value;
    return value * factor(step);
  }

  // --- what depends on the cell ---------------------------------------------------------------

  /** @param {boolean} anew whether its numbers have changed */
  function drawCell(anew = false) {
    const { row, column } = hovered ?? chosen();
    if (!anew && row === drawn.row && column === drawn.column) return;
    const n = size();
    const before = drawn;
    drawn = { row, column };
    write(view.rowPill, labels[row]);
    write(view.columnPill, labels[column]);
    placePills();
    // Where it looks, and below the diagonal who looks at it: together an L that lies on its side.
    const future = codes.above && ["scores", "scaled"].includes(model.get("step"));
    view.row.style.transform = `translateY(${row * 100}%)`;
    view.row.style.width = `${future ? 100 : ((row + 1) / n) * 100}%`;
    view.column.style.transform = `translateX(${row * 100}%)`;
    view.column.style.top = `${future ? 0 : (row / n) * 100}%`;
    view.cell.style.transform = `translate(${column * 100}%, ${row * 100}%)`;
    drawSteps(row, column);
    if (anew || row !== before.row) {
      words[before.row]?.button.classList.remove("gptlib-at-self");
      drawTints(row);
    }
    window.clearTimeout(resting);
    if (hovered) {
      resting = window.setTimeout(drawNumbers, 150); // nobody reads it while moving
    } else drawNumbers();
    words[before.column]?.button.classList.remove("gptlib-at-on");
    words[column].button.classList.add("gptlib-at-on");
    if (hovered) return;
    for (const { button } of words) if (button.tabIndex === 0) button.tabIndex = -1;
    words[row].button.tabIndex = 0; // the one that the Tab key reaches
  }

  /** @param {number} row @param {number} column */
  function drawSteps(row, column) {
    const ahead = column > row;
    write(
      view.pair,
      row === column ? `${quote(row)} looks at itself` : `${quote(row)} looks at ${quote(column)}`,
    );
    let sum = 0;
    for (let j = 0; j <= row; j++) sum += Math.exp(valueAt("scaled", row, j));
    const hows = [
      "q · k",
      `÷ √${maps.channels}`,
      ahead ? "later: masked" : "not later: kept",
      ahead ? "e to −∞ is 0" : `e^${numberAt("scaled", row, column)} ÷ ${formatLarge(sum)}`,
    ];
    view.steps.forEach(({ value, how }, i) => {
      const name = STEPS[i].name;
      write(value, numberAt(name, row, column));
      write(how, hows[i]);
    });
  }

  /** @param {number} row @param {number} i @returns {number} how `row` looks at i, or i at it */
  function weightBetween(row, i) {
    return i <= row ? shown.weights[row * size() + i] : shown.weights[i * size() + row];
  }

  /** @param {number} row */
  function drawTints(row) {
    words.forEach(({ button }, i) => {
      const shade = shadeOf(weightBetween(row, i)).toFixed(2);
      paint(button, `rgb(${tints[i > row ? 1 : 0]} / ${shade})`);
    });
    words[row].button.classList.add("gptlib-at-self");
    write(view.looker, quote(row));
  }

  function drawNumbers() {
    const { row, column } = drawn;
    const n = size();
    words.forEach(({ weight }, i) => {
      write(weight, weightBetween(row, i).toFixed(2).replace(/^0/, ""));
    });
    view.body.querySelector(".gptlib-at-on")?.classList.remove("gptlib-at-on");
    view.body.children[column].classList.add("gptlib-at-on");
    write(view.caption, `What ${quote(row)} looks at, token by token, and which tokens look at it`);
    for (let j = 0; j < n; j++) {
      STEPS.forEach(({ name }, k) => {
        write(numbers[j][k], numberAt(name, row, j));
      });
      write(numbers[j][STEPS.length], formatNumber(shown.weights[j * n + row], 3));
    }
  }

  function announce() {
    const { row } = chosen();
    const n = size();
    const names = labels.map(spoken);
    const before = Array.from({ length: row + 1 }, (_, j) => shown.weights[row * n + j]);
    const after = Array.from(
      { length: n - row - 1 },
      (_, k) => shown.weights[(row + 1 + k) * n + row],
    );
    const back = heaviest(names.slice(row + 1), after);
    view.announcer.textContent = `${names[row]} looks at ${heaviest(names, before)}` +
      (back ? `; looked at by ${back}.` : ".");
  }

  // --- what the reader does -------------------------------------------------------------------

  /** @param {Record<string, unknown>} values */
  function set(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  }

  /** @param {number} x @param {number} y @returns {Cell} */
  function cellAt(x, y) {
    const box = view.plot.getBoundingClientRect();
    const place = (/** @type {number} */ share) =>
      Math.min(Math.max(Math.floor(share * size()), 0), size() - 1);
    return { row: place((y - box.top) / box.height), column: place((x - box.left) / box.width) };
  }

  function onFrame() {
    frame = 0;
    hovered = pointer && cellAt(pointer.x, pointer.y);
    drawCell();
  }

  /** @param {{ x: number, y: number } | null} place */
  function point(place) {
    pointer = place;
    if (!frame) frame = requestAnimationFrame(onFrame);
  }

  /** @param {number} row @param {number} column */
  function choose(row, column) {
    hovered = null;
    set({ token: row, column });
    announce();
  }

  /** @param {KeyboardEvent} event */
  function onPlotKey(event) {
    const { row, column } = chosen();
    const last = size() - 1;
    /** @type {Record<string, [number, number]>} */
    const targets = {
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      Home: [row, 0],
      End: [row, last],
      PageUp: [0, column],
      PageDown: [last, column],
      Escape: [first.token, first.column],
    };
    const target = targets[event.key];
    if (!target || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const [i, j] = target.map((value) => Math.min(value, last));
    choose(Math.max(i, 0), Math.max(j, event.key === "Escape" ? -1 : 0));
  }

  /** @param {KeyboardEvent} event */
  function onTokenKey(event) {
    const here = Number(/** @type {HTMLElement} */ (event.target).dataset.index);
    const last = size() - 1;
    /** @type {Record<string, number>} */
    const targets = {
      ArrowLeft: here - 1,
      ArrowRight: here + 1,
      Home: 0,
      End: last,
      Escape: first.token,
    };
    const target = targets[event.key];
    if (target === undefined || Number.isNaN(here)) return;
    event.preventDefault();
    const next = words[Math.min(Math.max(target, 0), last)].button;
    next.focus();
  }

  /** @param {KeyboardEvent} event */
  function onThumbKey(event) {
    const [layer, head] = [at("layer", maps.layers), at("head", maps.heads)];
    /** @type {Record<string, [number, number]>} */
    const targets = {
      ArrowUp: [layer - 1, head],
      ArrowDown: [layer + 1, head],
      ArrowLeft: [layer, head - 1],
      ArrowRight: [layer, head + 1],
      Home: [layer, 0],
      End: [layer, maps.heads - 1],
    };
    const target = targets[event.key];
    if (!target) return;
    event.preventDefault();
    const next = {
      layer: Math.min(Math.max(target[0], 0), maps.layers - 1),
      head: Math.min(Math.max(target[1], 0), maps.heads - 1),
    };
    set(next);
    thumbButtons[next.layer * maps.heads + next.head].focus();
  }

  /** @param {Event} event */
  function onToken(event) {
    const button = /** @type {HTMLElement} */ (event.target).closest(".gptlib-at-token");
    if (!button) return;
    const row = Number(/** @type {HTMLElement} */ (button).dataset.index);
    if (event.type === "pointerover") {
      hovered = { row, column: strongest(shown, row, size()) };
      drawCell();
    } else if (row !== model.get("token") || hovered) choose(row, -1);
  }

  // --- typing ---------------------------------------------------------------------------------

  function onInput() {
    window.clearTimeout(typing);
    typing = window.setTimeout(() => {
      own = true;
      problem = "";
      set({ text: area().replace(/\p{Surrogate}/gu, "\ufffd") });
      own = false;
      drawError();
      reader?.want(model.get("text") !== maps.text);
    }, 400);
  }

  const area = () => view.area.value;

  /** @param {string} sentence */
  function say(sentence) {
    problem = sentence;
    drawError();
  }

  /** @type {any} */
  let reader = null; // in a page that has the model
  let gone = false;

  async function addReader() {
    const { pageReader } = await import(new URL("./lib/reader.js", import.meta.url).href);
    if (gone) return;
    reader = pageReader(h, model, "gptlib-at", bytes, readHere, say);
    view.error.before(reader.root);
    reader.want((model.get("text") ?? maps.text) !== maps.text);
  }
  if (!live && bytes) addReader().catch(() => say("What reads another text did not arrive."));

  /** Read the text with the model of this page. @param {any} engine */
  async function readHere(engine) {
    const text = model.get("text") ?? maps.text;
    if (text === maps.text) return;
    problem = text ? "" : "The text is empty: at least one token is needed.";
    if (text) {
      const found = await engine.ask("scores", { text, bare: true });
      if (text !== model.get("text")) return;
      const last = found.tokens.length - 1;
      set({ column: -1, token: Math.min(at("token", size()), last) });
      set({ maps: fromEngine(maps, found, text) });
    }
    drawError();
  }

  function drawText() {
    const text = model.get("text") ?? maps.text;
    // A text area turns every line break into \n; do not take that for a new text.
    if ((live || bytes) && !own && text.replace(/\r\n?/g, "\n") !== area()) view.area.value = text;
    drawError();
  }

  function drawError() {
    window.clearTimeout(waiting);
    const error = model.get("error") ?? "";
    const sentence = error ? `${error[0].toUpperCase()}${error.slice(1)}.` : problem;
    write(view.error, sentence && `${sentence} The map below is of the last text.`);
    view.area.setAttribute("aria-invalid", String(Boolean(sentence)));
    const stale = live && !sentence && model.get("text") !== maps.text;
    view.root.classList.toggle("gptlib-at-stale", stale);
    if (stale) {
      waiting = window.setTimeout(() => {
        write(view.error, "Waiting for Python. Is the kernel running?");
      }, 3000);
    }
  }

  function onMaps() {
    if (model.get("maps") === maps) return;
    maps = model.get("maps");
    codes = decode(maps);
    labels = maps.tokens.map(label);
    hovered = null;
    drawn = { row: -1, column: -1 };
    drawMaps();
    drawError();
  }

  // --- size and theme -------------------------------------------------------------------------

  /** Leave out labels where there is no room for all. */
  function thin() {
    cell = view.plot.clientWidth / size();
    const every = cell ? Math.max(1, Math.ceil(12 / cell)) : 1;
    view.root.style.setProperty("--cell", `${cell}px`);
    for (const list of [rowLabels, columnLabels]) {
      list.forEach((element, i) => element.classList.toggle("gptlib-at-off", i % every > 0));
    }
    placePills();
  }

  /** Put the labels of the row and the column that are shown over the others, which stay. */
  function placePills() {
    const place = (/** @type {number} */ i) => Math.max(i, 0) * cell + cell / 2 - 8;
    view.rowPill.style.transform = `translateY(${place(drawn.row)}px)`;
    view.columnPill.style.transform = `translateX(${-place(drawn.column)}px)`;
  }

  function recolor() {
    if (!view.root.isConnected) return;
    const fresh = shades(view.probe);
    if (palette && fresh.every((pixel, i) => pixel === palette?.[i])) return;
    palette = fresh;
    tints = tintsOf(view.probe);
    drawThumbs();
    drawCanvas(model.get("step") ?? "weights");
    drawTints(drawn.row);
  }

  view.plot.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "touch") point({ x: event.clientX, y: event.clientY });
  });
  view.plot.addEventListener("pointerleave", () => point(null));
  view.plot.addEventListener("click", (event) => {
    const { row, column } = cellAt(event.clientX, event.clientY);
    choose(row, column);
  });
  view.plot.addEventListener("keydown", onPlotKey);
  view.plot.addEventListener("focus", announce);
  for (const type of ["pointerover", "focusin", "click"]) {
    view.tokens.addEventListener(type, onToken);
  }
  view.tokens.addEventListener("pointerleave", () => point(null));
  view.tokens.addEventListener("keydown", onTokenKey);
  view.buttons.addEventListener("keydown", onThumbKey);
  view.buttons.addEventListener("click", (event) => {
    const k = thumbButtons.indexOf(/** @type {HTMLElement} */ (event.target));
    if (k >= 0) set({ layer: Math.floor(k / maps.heads), head: k % maps.heads });
  });
  view.layer.addEventListener("change", () => set({ layer: Number(view.layer.value) }));
  view.head.addEventListener("change", () => set({ head: Number(view.head.value) }));
  for (const { input } of view.steps) {
    input.addEventListener("change", () => set({ step: input.value }));
  }
  view.area.addEventListener("input", onInput);

  drawMaps();
  drawText();
  el.append(view.root);

  const resized = new ResizeObserver(() => {
    thin();
    recolor();
  });
  resized.observe(view.plot);
  const themed = new MutationObserver(recolor);
  for (const element of [document.documentElement, document.body]) {
    themed.observe(element, { attributes: true });
  }
  const media = ["(prefers-color-scheme: dark)", "print"].map((query) => window.matchMedia(query));
  for (const query of media) query.addEventListener("change", recolor);

  /** @type {[string, () => void][]} */
  const listeners = [
    ["change:maps", onMaps],
    ["change:layer", drawHead],
    ["change:head", drawHead],
    ["change:step", drawStep],
    ["change:token", () => drawCell()],
    ["change:column", () => drawCell()],
    ["change:text", drawText],
    ["change:error", drawError],
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    window.clearTimeout(typing);
    window.clearTimeout(waiting);
    window.clearTimeout(resting);
    gone = true;
    reader?.close();
    cancelAnimationFrame(frame);
    resized.disconnect();
    themed.disconnect();
    for (const query of media) query.removeEventListener("change", recolor);
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}

/** @param {number} n @returns {string} the cells above the diagonal, as a shape for CSS */
export function stairs(n) {
  const points = ["100% 0"];
  for (let i = 0; i < n; i++) {
    const x = (100 * (i + 1)) / n;
    points.push(`${x}% ${(100 * i) / n}%`, `${x}% ${x}%`);
  }
  return `polygon(${points.join(",")})`;
}

export default { render };
