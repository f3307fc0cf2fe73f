// Where the heads of a model look. Python stores the scaled scores of every head, packed; the other
// steps, from score to weight, are computed here. In a page without a kernel, the mini model, which
// runs there when the reader asks for it, reads other texts.

import { fromBase64 } from "./lib/bytes.js";
import { put, rgbOf } from "./lib/canvas.js";
import {
  classes,
  define,
  guard,
  html,
  inline,
  live,
  nothing,
  onFrame,
  onTheme,
  select,
  uniqueName,
} from "./lib/kit.js";
import { clamp, formatPower, plural, range, signed, sum } from "./lib/numbers.js";
import { Reader } from "./lib/reader.js";
import { moved, movedInGrid, withModifier } from "./lib/rove.js";
import { heaviestOf, label, spoken } from "./lib/tokens.js";

/** @import { Widget } from "./lib/kit.js" */
/**
 * @typedef {{ text: string, tokens: string[], layers: number, heads: number, channels: number }} Of
 * @typedef {{ bits: number, ranges: string, peaks: string, below: string, above: string }} Packed
 * @typedef {Of & (Packed | { scores: Float32Array })} Maps  packed by Python, or with the scaled
 *   scores (L, H, T, T) as the page's model has them
 * @typedef {{ scaled: Float64Array, errors: Float64Array }} Scores  T x T each: scaled scores (NaN
 *   where none is stored), and how far off they may be
 * @typedef {{
 *   size: number, low: Float32Array, high: Float32Array, above: boolean,
 *   read(index: number): Scores,
 * }} Codes  each head's lowest and highest score, whether those of later tokens are stored, and
 *   what reads a head, counted over all layers
 * @typedef {Scores & { weights: Float64Array, low: number, high: number }} Head
 * @typedef {{ row: number, column: number }} Cell
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

const BEND = 0.5; // as in Python

/**
 * Integers of some bits each, the highest bit first.
 * @param {Uint8Array} bytes @param {number} bits at most 16 @param {number} count
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
 * @param {Maps} before of the same model @param {any} answer @param {string} text @returns {Maps}
 */
export function fromEngine({ layers, heads, channels }, { tokens, scores }, text) {
  return { text, tokens, layers, heads, channels, scores };
}

/** @param {Maps} maps @returns {Codes} */
export function decode(maps) {
  const size = maps.tokens.length;
  const count = maps.layers * maps.heads;
  return "scores" in maps ? codesOf(maps.scores, size, count) : unpacked(maps, size, count);
}

/**
 * Scores that are not packed: nothing has to be decoded.
 * @param {Float32Array} scores (L, H, T, T), scaled @param {number} size
 * @param {number} count of the heads @returns {Codes}
 */
function codesOf(scores, size, count) {
  const cells = size * size;
  const read = (/** @type {number} */ index) => ({
    scaled: new Float64Array(scores.subarray(index * cells, (index + 1) * cells)),
    errors: new Float64Array(cells),
  });
  const heads = Array.from({ length: count }, (_, index) => read(index).scaled);
  const low = Float32Array.from(heads, (head) => head.reduce((a, b) => Math.min(a, b)));
  const high = Float32Array.from(heads, (head) => head.reduce((a, b) => Math.max(a, b)));
  return { size, low, high, above: true, read };
}

/**
 * Scores as Python packs them, which says in words what each text holds.
 * @param {Packed} packed @param {number} size @param {number} count of the heads @returns {Codes}
 */
function unpacked(packed, size, count) {
  const cells = (size * (size + 1)) / 2;
  const ends = new Float32Array(fromBase64(packed.ranges).buffer);
  const [low, high] = [0, 1].map((end) => ends.filter((_, i) => i % 2 === end));
  const codes = (/** @type {string} */ text, /** @type {number} */ bits, /** @type {number} */ n) =>
    unpack(fromBase64(text), bits, count * n);
  const peaks = codes(packed.peaks, 16, size);
  const below = codes(packed.below, packed.bits, cells);
  const above = packed.above ? codes(packed.above, packed.bits, cells - size) : null;
  const largest = 2 ** packed.bits - 1;
  const read = (/** @type {number} */ index) => {
    const scaled = new Float64Array(size * size).fill(NaN);
    const errors = new Float64Array(size * size);
    const width = Math.max(high[index] - low[index], 1e-6);
    const bend = Math.log1p(width / BEND) / largest;
    const depth = (/** @type {number} */ code) => BEND * Math.expm1(bend * code);
    let nextBelow = index * cells;
    let nextAbove = index * (cells - size);
    for (let i = 0; i < size; i++) {
      const peak = low[index] + (peaks[index * size + i] / 65535) * width;
      for (let j = 0; j <= i; j++) {
        const code = below[nextBelow++];
        scaled[i * size + j] = peak - depth(code);
        errors[i * size + j] = depth(code + 0.5) - depth(code) + width / 131070;
      }
      for (let j = i + 1; above && j < size; j++) {
        scaled[i * size + j] = low[index] + (above[nextAbove++] / largest) * width;
        errors[i * size + j] = width / largest / 2;
      }
    }
    return { scaled, errors };
  };
  return { size, low, high, above: above !== null, read };
}

/**
 * Scaled scores and weights of one head; a weight beyond the diagonal is 0.
 * @param {Codes} codes @param {number} index of the head, counted over all layers @returns {Head}
 */
export function headOf({ size, low, high, read }, index) {
  const { scaled, errors } = read(index);
  const weights = new Float64Array(size * size);
  for (let i = 0; i < size; i++) {
    const row = scaled.subarray(i * size, i * size + i + 1);
    const peak = Math.max(...row);
    const powers = row.map((score) => Math.exp(score - peak));
    const all = sum(powers);
    weights.set(powers.map((power) => power / all), i * size);
  }
  return { scaled, errors, weights, low: low[index], high: high[index] };
}

/**
 * @param {Pick<Head, "weights">} head @param {number} row @param {number} size
 * @returns {number} most looked at
 */
export function strongest({ weights }, row, size) {
  const seen = weights.subarray(row * size, row * size + row + 1);
  return seen.indexOf(Math.max(...seen));
}

/**
 * The decimals that a stored number deserves: none that its error could change by more than one.
 * @param {number} error at most, of the number
 * @param {number} largest magnitude of the numbers shown with it @returns {number}
 */
export function decimals(error, largest) {
  const sure = Math.floor(-Math.log10(2 * Math.max(error, 1e-9)));
  const wanted = 3 - Math.ceil(Math.log10(Math.max(largest, 1e-9)));
  return Math.min(Math.max(sure, 0), clamp(wanted, 2, 5));
}

/** @param {number} value @param {number} digits @returns {string} with a true minus sign */
export function formatNumber(value, digits) {
  if (value === -Infinity) return "−∞";
  if (Number.isNaN(value)) return "…";
  return signed(value.toFixed(digits));
}

/** @param {number} value positive @returns {string} three digits, with a power of ten if need be */
export function formatLarge(value) {
  const power = Math.floor(Math.log10(value));
  if (power >= -2 && power < 4) return value.toFixed(Math.max(2 - power, 0));
  return formatPower(value).replace(" × ", "·");
}

/** @param {string[]} labels @param {number[]} weights @returns {string} the heaviest, in words */
export const heaviest = (labels, weights) => heaviestOf(labels, weights, 0.005);

/** @param {number} n @returns {string} the cells above the diagonal, as a shape for CSS */
export function stairs(n) {
  const at = (/** @type {number} */ i) => `${(100 * i) / n}%`;
  const steps = range(1, n, 1).map((i) => `${at(i)} ${at(i - 1)},${at(i)} ${at(i)}`);
  return `polygon(100% 0,${steps.join(",")})`;
}

// ---------------------------------------------------------------------------------------------
// Colors

const SHADES = 256;
const SCALE = ["--at-0", "--at-1", "--at-2", "--at-3", "--at-4"]; // from little to much
/** Of a text: where a token looks, and who looks at it. */
const TINTS = ["--gptlib-blue-edge", "--gptlib-orange-edge"];

/** @param {number} weight @returns {number} its place on the scale of colors, from 0 to 1 */
export const shadeOf = (weight) => Math.sqrt(weight); // so that small weights differ from none

/**
 * The colors of the scale and the tints of a text, from the style sheet.
 * @param {Element} probe its children have them
 */
function colorsOf(probe) {
  const colors = Array.from(probe.children, (child) => rgbOf(getComputedStyle(child).color));
  const tints = colors.splice(SCALE.length).map((parts) => parts.join(" "));
  return { palette: shades(colors), tints };
}

/** @param {number[][]} stops red, green and blue @returns {Uint32Array} SHADES pixels of them */
function shades(stops) {
  const pixels = new Uint8ClampedArray(4 * SHADES).fill(255);
  for (let i = 0; i < SHADES; i++) {
    const place = (i / (SHADES - 1)) * (stops.length - 1);
    const left = Math.min(Math.floor(place), stops.length - 2);
    const [from, to] = [stops[left], stops[left + 1]];
    pixels.set(from.map((part, k) => part + (to[k] - part) * (place - left)), 4 * i);
  }
  return new Uint32Array(pixels.buffer);
}

/**
 * A square of cells; what has no shade stays clear.
 * @param {number} n cells on a side @param {number} scale pixels on a cell's side
 * @param {Uint32Array} palette @param {(row: number, column: number) => number} shade from 0 to 1
 */
function square(n, scale, palette, shade) {
  const image = new ImageData(n * scale, n * scale);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = 0, next = 0; y < image.height; y++) {
    for (let x = 0; x < image.width; x++, next++) {
      const place = shade(Math.floor(y / scale), Math.floor(x / scale));
      if (Number.isFinite(place)) pixels[next] = palette[Math.round(place * (SHADES - 1))];
    }
  }
  return image;
}

/**
 * All heads, small: a row for each layer.
 * @param {HTMLCanvasElement} canvas @param {State["maps"]} maps @param {Uint32Array} palette
 */
function drawHeads(canvas, { codes, size: n, layers, heads }, palette) {
  const scale = Math.ceil((layers * heads > 200 ? 24 : 64) / n); // sharp, not huge
  const gap = Math.max(2, Math.round((n * scale) / 12));
  const step = n * scale + gap;
  [canvas.width, canvas.height] = [heads * step, layers * step];
  for (let k = 0; k < layers * heads; k++) {
    const { weights } = headOf(codes, k);
    const image = square(n, scale, palette, (i, j) => j > i ? NaN : shadeOf(weights[i * n + j]));
    const [left, top] = [k % heads, Math.floor(k / heads)].map((at) => at * step + (gap >> 1));
    canvas.getContext("2d")?.putImageData(image, left, top);
  }
}

/**
 * One head, large, in one of its steps; what no step has stays clear.
 * @param {State} state @param {Uint32Array} palette
 */
function picture(state, palette) {
  const { step, range: [low, high] } = state;
  return square(state.maps.size, 1, palette, (i, j) => {
    const value = state.valueAt(step, i, j);
    if (step !== "weights") return (value - low) / (high - low || 1);
    return j > i ? NaN : shadeOf(value);
  });
}

// ---------------------------------------------------------------------------------------------
// What is shown, and what the reader does

/** @type {Record<string, string>} */
const STEPS = { scores: "Score", scaled: "Scaled", masked: "Masked", weights: "Softmax" };

/** @param {number} channels of a head @returns {Record<string, string>} what each step does */
const about = (channels) => ({
  scores:
    "The score of a cell is the dot product q · k: the query of the row's token, the key of " +
    "the column's. The better the two match, the higher it is.",
  scaled:
    `Each score is divided by √${channels}, the square root of a head's number of channels, ` +
    "so that it does not grow with the size of the head.",
  masked:
    "Whatever comes later than the row's token gets −∞ in place of its score: no token looks " +
    "ahead.",
  weights:
    "The softmax raises e to each score and divides by the row's sum. −∞ turns into 0, and " +
    "each row adds up to 1: these are the weights.",
});

const ALONG = { back: ["ArrowLeft"], on: ["ArrowRight"], page: 0 }; // a text

/** @param {Maps} packed */
function sceneOf(packed) {
  const labels = packed.tokens.map(label);
  const [size, single] = [labels.length, packed.layers * packed.heads === 1];
  const names = labels.map(spoken);
  return { ...packed, size, single, labels, names, codes: decode(packed), ahead: stairs(size) };
}

class State {
  id = uniqueName();
  said = ""; // for who listens
  every = 1; // so many labels share the room of one
  resting = 0;
  /** @type {Cell | null} */ hovered = null;
  /** @type {{ clientX: number, clientY: number } | null} */ pointer = null;
  /** Known once the widget stands in its page. @type {ReturnType<typeof colorsOf> | null} */
  colors = null;
  /** Whose sizes the style sheet knows. @type {State["maps"] | null} */ fitted = null;

  /** @param {Widget} widget */
  constructor(widget) {
    this.widget = widget;
    this.model = widget.model;
    this.root = widget.root;
    this.first = { row: this.model.get("token"), column: this.model.get("column") };
    this.packed = /** @type {Maps} */ (this.model.get("maps"));
    this.maps = sceneOf(this.packed);
    this.index = this.place;
    this.shown = headOf(this.maps.codes, this.index);
    this.settled = this.chosen;
    this.frame = onFrame(() => this.hover(this.pointer && this.cellAt(this.pointer)));
    this.reader = new Reader(widget, {
      name: "at",
      noun: "map",
      question: "scores",
      more: { bare: true },
      text: () => this.maps.text,
      take: (answer, text) => this.take(answer, text),
    });
    this.resized = new ResizeObserver(() => {
      this.fit();
      this.recolor();
    });
    this.resized.observe(this.root);
    this.unthemed = onTheme(this.recolor);
  }

  close() {
    clearTimeout(this.resting);
    this.frame.cancel();
    this.reader.close();
    this.resized.disconnect();
    this.unthemed();
  }

  /** Take the maps and the head that are asked for, where they are others. */
  follow() {
    if (this.model.get("maps") !== this.packed) {
      this.packed = this.model.get("maps");
      this.maps = sceneOf(this.packed);
      [this.index, this.hovered] = [-1, null];
    }
    if (this.index === this.place) return;
    this.index = this.place;
    this.shown = headOf(this.maps.codes, this.index);
  }

  /** @param {any} answer of the model in this page @param {string} text */
  take(answer, text) {
    const token = Math.min(this.chosen.row, answer.tokens.length - 1);
    this.widget.save({ column: -1, token, maps: fromEngine(this.packed, answer, text) });
    return "";
  }

  // --- numbers --------------------------------------------------------------------------------

  /** @param {string} trait @param {number} count */
  at(trait, count) {
    return clamp(this.model.get(trait) ?? 0, 0, count - 1);
  }

  get layer() {
    return this.at("layer", this.packed.layers);
  }

  get head() {
    return this.at("head", this.packed.heads);
  }

  /** The head's, counted over all layers. */
  get place() {
    return this.layer * this.packed.heads + this.head;
  }

  /** @returns {string} */
  get step() {
    return this.model.get("step") ?? "weights";
  }

  /** Whether the step comes before the mask. */
  get early() {
    return this.step === "scores" || this.step === "scaled";
  }

  /** What the reader has chosen. @returns {Cell} */
  get chosen() {
    const { size } = this.maps;
    const [row, column] = [this.at("token", size), this.model.get("column")];
    const given = column >= 0 && column < size;
    return { row, column: given ? column : strongest(this.shown, row, size) };
  }

  /** The cell that is shown. */
  get cell() {
    return this.hovered ?? this.chosen;
  }

  /** The cell whose row's numbers are shown: nobody reads them while the pointer moves. */
  get numbered() {
    return this.hovered ? this.settled : this.chosen;
  }

  /** The ends of the scale. */
  get range() {
    return [this.shown.low, this.shown.high].map((value) => value * this.factor(this.step));
  }

  /** @param {string} step @returns {number} what a scaled score is multiplied by */
  factor(step) {
    return step === "scores" ? Math.sqrt(this.maps.channels) : 1;
  }

  /** @param {string} step @param {number} i @param {number} j */
  valueAt(step, i, j) {
    const place = i * this.maps.size + j;
    if (step === "weights") return this.shown.weights[place];
    if (step === "masked" && j > i) return -Infinity;
    return this.shown.scaled[place] * this.factor(step);
  }

  /** @param {string} step @param {number} i @param {number} j @returns {string} */
  numberAt(step, i, j) {
    const value = this.valueAt(step, i, j);
    if (step === "weights") return formatNumber(value, 3);
    const { low, high, errors } = this.shown;
    const largest = Math.max(Math.abs(low), Math.abs(high)) * this.factor(step);
    const error = errors[i * this.maps.size + j] * this.factor(step);
    return formatNumber(value, decimals(error, largest));
  }

  /** @param {number} row @param {number} i @returns {number} how `row` looks at i, or i at it */
  between(row, i) {
    return this.valueAt("weights", Math.max(row, i), Math.min(row, i));
  }

  /** @param {number} i @returns {string} */
  quote(i) {
    return `“${this.maps.labels[i]}”`;
  }

  // --- what the reader does -------------------------------------------------------------------

  /** @param {Cell} cell */
  choose({ row, column }) {
    clearTimeout(this.resting);
    this.hovered = null;
    this.widget.save({ token: row, column });
    this.announce();
  }

  /** Say where the chosen token looks. */
  announce = () => {
    const { maps: { names }, chosen: { row } } = this;
    const weights = names.map((_, i) => this.between(row, i));
    const back = heaviest(names.slice(row + 1), weights.slice(row + 1));
    const ahead = heaviest(names.slice(0, row + 1), weights.slice(0, row + 1));
    this.said = `${names[row]} looks at ${ahead}${back && `; looked at by ${back}`}.`;
    this.widget.update();
  };

  /** @param {Cell | null} cell under the pointer */
  hover(cell) {
    const before = this.cell;
    if (!this.hovered) this.settled = before;
    this.hovered = cell;
    const { row, column } = this.cell;
    if (row === before.row && column === before.column) return;
    clearTimeout(this.resting);
    const settle = () => {
      this.settled = this.cell;
      this.widget.update();
    };
    if (cell) this.resting = window.setTimeout(settle, 150);
    this.widget.update();
  }

  /** @param {{ clientX: number, clientY: number }} event @returns {Cell} */
  cellAt({ clientX, clientY }) {
    const box = this.find("plot").getBoundingClientRect();
    const { size } = this.maps;
    const place = (/** @type {number} */ share) => clamp(Math.floor(share * size), 0, size - 1);
    return {
      row: place((clientY - box.top) / box.height),
      column: place((clientX - box.left) / box.width),
    };
  }

  onMove = (/** @type {PointerEvent} */ event) => {
    if (event.pointerType !== "touch") this.point(event);
  };

  /** @param {State["pointer"]} pointer */
  point(pointer) {
    this.pointer = pointer;
    this.frame.ask();
  }

  onClick = (/** @type {PointerEvent} */ event) => this.choose(this.cellAt(event));

  onLeave = () => this.point(null);

  onPlotKey = (/** @type {KeyboardEvent} */ event) => {
    const { first, chosen, maps: { size } } = this;
    const [row, column] = event.key === "Escape"
      ? [first.row, first.column].map((i) => Math.min(i, size - 1))
      : movedInGrid(event.key, [chosen.row, chosen.column], [size, size]) ?? [];
    if (row === undefined || withModifier(event)) return;
    event.preventDefault();
    this.choose({ row, column });
  };

  /** Pointed at, a token shows where it looks; in focus or clicked, it is chosen. */
  onToken = (/** @type {any} */ event) => {
    const button = event.target.closest(".gptlib-at-token");
    if (!button) return;
    const row = Number(button.dataset.index);
    if (event.type === "pointerover") {
      this.hover({ row, column: strongest(this.shown, row, this.maps.size) });
    } else if (row !== this.model.get("token") || this.hovered) this.choose({ row, column: -1 });
  };

  onTokenKey = (/** @type {any} */ event) => {
    const here = Number(event.target.dataset.index);
    const { size } = this.maps;
    const to = event.key === "Escape"
      ? Math.min(this.first.row, size - 1)
      : moved(event.key, here, size, ALONG);
    if (to === null || withModifier(event)) return;
    event.preventDefault();
    this.find("token", to).focus();
  };

  onThumbKey = (/** @type {KeyboardEvent} */ event) => {
    const { layer, head, maps: { layers, heads } } = this;
    const to = movedInGrid(event.key, [layer, head], [layers, heads]);
    if (!to || withModifier(event) || event.key.startsWith("Page")) return;
    event.preventDefault();
    this.widget.save({ layer: to[0], head: to[1] });
    this.find("thumb", to[0] * heads + to[1]).focus();
  };

  // --- what there is to see -------------------------------------------------------------------

  view() {
    this.follow();
    const { maps, shown, index, colors, numbered: { row, column }, reader } = this;
    const flags = [maps.size <= 24 && "at-few", reader.stale && "at-stale"];
    const numbers = guard([maps, shown, row, column], () => tableView(this));
    const probes = [...SCALE, ...TINTS].map((color) => html`<i style="color: var(${color})"></i>`);
    return html`<div class=${classes("layout at-layout", ...flags)}>
      ${headView(this)} ${reader.view()} ${stepsView(this)} ${figureView(this)}
      ${maps.single ? nothing : guard([maps, index, colors], () => pickerView(this))}
      ${lineView(this)}
      <div class="gptlib-at-numbers" tabindex="0" role="region"
        aria-label="Numbers of the chosen row">${numbers}</div>
      <div class="gptlib-spoken" aria-live="polite">${this.said}</div>
      <span class="gptlib-at-probe" hidden>${probes}</span>
    </div>`;
  }

  // --- size and theme -------------------------------------------------------------------------

  /** @param {string} name @param {number} [i] @returns {HTMLElement} */
  find(name, i = 0) {
    return /** @type {any} */ (this.root.querySelectorAll(`.gptlib-at-${name}`)[i]);
  }

  /** Tell the style sheet of the maps. */
  drawn() {
    this.root.dataset.step = this.step;
    this.reader.drawn();
    if (this.fitted === this.maps) return;
    const { size, layers, heads } = this.maps;
    for (const [name, value] of Object.entries({ tokens: size, layers, heads })) {
      this.root.style.setProperty(`--${name}`, String(value));
    }
    if (this.fitted) this.fit(); // at first the widget's own size says it
    this.fitted = this.maps;
  }

  /** Leave out labels where there is no room for all. */
  fit() {
    const cell = (this.find("plot")?.clientWidth ?? 0) / this.maps.size;
    this.root.style.setProperty("--cell", `${cell}px`);
    const every = cell ? Math.max(1, Math.ceil(12 / cell)) : 1;
    if (every !== this.every) this.widget.update();
    this.every = every;
  }

  recolor = () => {
    const probe = this.find("probe");
    if (!probe || !this.root.isConnected) return;
    const fresh = colorsOf(probe);
    if (fresh.palette.every((pixel, i) => pixel === this.colors?.palette[i])) return;
    this.colors = fresh;
    this.widget.update();
  };
}

// ---------------------------------------------------------------------------------------------
// The view

/** @param {State} state */
function headView({ maps }) {
  const { layers, heads, size, single } = maps;
  const facts = single ? "one head" : `${plural(layers, "layer")} × ${plural(heads, "head")}`;
  return html`
    <div class="gptlib-head gptlib-on-line">
      <strong class="gptlib-title">Where attention looks</strong>
      <span class="gptlib-soft gptlib-at-facts">${facts}, ${plural(size, "token")}</span>
    </div>
  `;
}

/** @param {State} state @returns {string[]} how each step of the cell comes from the one before */
function hows(state) {
  const { row, column } = state.cell;
  const all = sum(range(0, row, 1).map((j) => Math.exp(state.valueAt("scaled", row, j))));
  const ahead = column > row;
  return [
    "q · k",
    `÷ √${state.maps.channels}`,
    ahead ? "later: masked" : "not later: kept",
    ahead ? "e to −∞ is 0" : `e^${state.numberAt("scaled", row, column)} ÷ ${formatLarge(all)}`,
  ];
}

/** The cell's steps: numbers to walk through, and the switch of the map. @param {State} state */
function stepsView(state) {
  const { maps, step, cell: { row, column } } = state;
  const looked = row === column ? "itself" : state.quote(column);
  const how = hows(state);
  const lacking = !maps.codes.above && state.early
    ? " Those of later tokens, which the mask hides, are not stored here."
    : "";
  return html`<fieldset class="gptlib-radios gptlib-at-steps">
    <legend class="gptlib-spoken">Step</legend>
    <div class="gptlib-at-pair">${state.quote(row)} looks at ${looked}</div>
    ${
    Object.entries(STEPS).map(([name, title], i) =>
      html`
        <label class="gptlib-at-step">
          <input type="radio" class="gptlib-at-radio" name=${state.id} value=${name}
            .checked=${live(name === step)} @change=${() => state.widget.save({ step: name })}>
          <span class="gptlib-at-step-title">${i + 1} ${title}</span>
          <span class="gptlib-at-step-value">${state.numberAt(name, row, column)}</span>
          <span class="gptlib-at-step-how">${how[i]}</span>
        </label>
      `
    )
  }
    <p class="gptlib-soft gptlib-at-about">${about(maps.channels)[step]}${lacking}</p>
  </fieldset>`;
}

/**
 * The labels of the rows or of the columns, and over them the one that is shown.
 * @param {State} state @param {string} name @param {number} i
 */
function axisView({ maps, every }, name, i) {
  const labels = () =>
    maps.labels.map((text, k) => {
      const names = classes("at-tick", text.length > 6 && "at-long", k % every > 0 && "at-off");
      return html`<span dir="auto" class=${names}>${text}</span>`;
    });
  return html`<div class="gptlib-at-${name}" aria-hidden="true">${guard([maps, every], labels)}<span
    class="gptlib-at-pill" dir="auto" style="--at: ${i}">${maps.labels[i]}</span></div>`;
}

/** @param {State} state */
function plotView(state) {
  const { maps: { size, codes, ahead }, layer, head, step, cell: { row, column }, colors } = state;
  // Where it looks, and below the diagonal who looks at it: together an L that lies on its side.
  const whole = codes.above && state.early;
  const [width, top] = whole ? [1, 0] : [(row + 1) / size, row / size];
  const title = STEPS[step].toLowerCase();
  const [down, along] = [`${100 * row}%`, `${100 * column}%`];
  const draw = (/** @type {any} */ canvas) => colors && put(canvas, picture(state, colors.palette));
  return html`
    <div class="gptlib-at-plot" tabindex="0" role="application"
      aria-roledescription="attention map" aria-describedby="${state.id}-help"
      aria-label="Map of layer ${layer}, head ${head}, step ${title}: rows look at columns"
      @pointermove=${state.onMove} @pointerleave=${state.onLeave} @click=${state.onClick}
      @keydown=${state.onPlotKey} @focus=${state.announce}>
      <canvas class="gptlib-at-canvas" ${guard([colors, state.shown, step], draw)}></canvas>
      <div class="gptlib-at-grid"></div>
      <div class="gptlib-at-ahead" style="clip-path: ${ahead}"
        ?hidden=${whole || step === "weights"}></div>
      <div class="gptlib-at-marks">
        <div class="gptlib-at-column"
          style="top: ${100 * top}%; transform: translateX(${down})"></div>
        <div class="gptlib-at-row"
          style="width: ${100 * width}%; transform: translateY(${down})"></div>
        <div class="gptlib-at-cell" style="transform: translate(${along}, ${down})"></div>
      </div>
    </div>
  `;
}

/** @param {State} state */
function legendView({ range: [low, high], step }) {
  const digits = decimals(0, Math.max(-low, high) * 10);
  const ends = [low, (low + high) / 2, high].map((value) => formatNumber(value, digits));
  const [name, ticks] = step === "weights" ? ["Weight", ["0", "0.25", "1"]] : ["Score", ends];
  return html`<div class="gptlib-at-legend">
    <span>${name}</span><span class="gptlib-at-bar" aria-hidden="true"></span>
    <span class="gptlib-at-ticks">${ticks.map((tick) => html`<span>${tick}</span>`)}</span>
  </div>`;
}

/** @param {State} state */
const figureView = (state) =>
  html`<div class="gptlib-at-figure">
    <div class="gptlib-at-map">
      <div class="gptlib-at-corner" aria-hidden="true">
        <span>looked at →</span><span>looks ↓</span>
      </div>
      ${axisView(state, "columns", state.cell.column)} ${axisView(state, "rows", state.cell.row)}
      ${plotView(state)}
    </div>
    ${guard([state.shown, state.step], () => legendView(state))}
    <p class="gptlib-spoken" id="${state.id}-help">
      Up and down arrow keys choose the token that looks, left and right the one looked at. The
      table below has the numbers.
    </p>
  </div>`;

/** @param {State} state */
function thumbsView({ maps, colors, index, widget, onThumbKey }) {
  const buttons = Array.from({ length: maps.layers * maps.heads }, (_, k) => {
    const [layer, head] = [Math.floor(k / maps.heads), k % maps.heads];
    const name = `layer ${layer}, head ${head}`;
    return html`
      <button type="button" class="gptlib-at-thumb" tabindex=${k === index ? 0 : -1}
        aria-label=${name} title=${name} aria-current=${k === index ? "true" : nothing}
        @click=${() => widget.save({ layer, head })}></button>
    `;
  });
  const draw = (/** @type {any} */ canvas) => colors && drawHeads(canvas, maps, colors.palette);
  return html`
    <div class="gptlib-at-thumbs">
      <canvas class="gptlib-at-thumbs-canvas" aria-hidden="true"
        ${guard([colors, maps], draw)}></canvas>
      <div class="gptlib-at-thumbs-buttons" role="group" aria-label="All heads. Arrow keys move."
        @keydown=${onThumbKey}>${buttons}</div>
    </div>
  `;
}

/** @param {State} state */
function pickerView(state) {
  const choice = (/** @type {"layer" | "head"} */ trait, /** @type {number} */ length) => {
    const numbers = Array.from({ length }, (_, i) => String(i));
    const choose = (/** @type {string} */ chosen) => state.widget.save({ [trait]: Number(chosen) });
    return select("", String(state[trait]), numbers.map((one) => [one, one]), choose);
  };
  return html`<div class="gptlib-at-picker">
    <div class="gptlib-at-choose">
      <label>Layer ${choice("layer", state.maps.layers)}</label>
      <label>Head ${choice("head", state.maps.heads)}</label>
    </div>
    ${thumbsView(state)}
    <p class="gptlib-soft">All heads: a row for each layer, the first on top.</p>
  </div>`;
}

/** The text itself: where a token looks, and who looks at it. @param {State} state */
function tokensView(state) {
  const { maps, colors, cell: { row, column }, numbered, chosen } = state;
  return maps.labels.map((text, i) => {
    const shade = shadeOf(state.between(row, i)).toFixed(2);
    const tint = colors ? `rgb(${colors.tints[Number(i > row)]} / ${shade})` : "transparent";
    const weight = state.between(numbered.row, i).toFixed(2).replace(/^0/, "");
    const marks = classes("tap at-token", i === row && "at-self", i === column && "at-on");
    const ends = maps.tokens[i].endsWith("\n");
    return inline`<button type="button" data-index=${i} tabindex=${i === chosen.row ? 0 : -1}
      class=${marks} style="background-color: ${tint}"><span class="gptlib-spoken">${
      maps.names[i]
    }</span><span class="gptlib-at-text" dir="auto" aria-hidden="true">${text}</span> <span
      class="gptlib-weight gptlib-at-weight">${weight}</span></button>${
      ends ? html`<span class="gptlib-at-break"></span>` : nothing
    }`;
  });
}

/** @param {State} state */
function lineView(state) {
  const { maps, shown, colors, cell: { row, column }, numbered, chosen, onToken } = state;
  const rests = [maps, shown, colors, row, column, numbered.row, chosen.row];
  return html`
    <div class="gptlib-at-line">
      <p class="gptlib-soft gptlib-at-line-words"><b>${state.quote(row)}</b> looks at the tokens
          <span class="gptlib-at-key">before it</span>; the tokens
          <span class="gptlib-at-key gptlib-at-later">after it</span> look at it.</p>
      <div class="gptlib-at-tokens" role="group" @pointerover=${onToken} @focusin=${onToken}
        @click=${onToken} @pointerleave=${state.onLeave} @keydown=${state.onTokenKey}>${guard(
          rests,
          () => tokensView(state),
        )}</div>
    </div>
  `;
}

/** The numbers of a row. @param {State} state */
function tableView(state) {
  const { maps, numbered: { row, column } } = state;
  const steps = Object.keys(STEPS);
  const lines = maps.labels.map((text, j) =>
    html`
      <tr class=${j === column ? "gptlib-at-on" : nothing}>
        <th scope="row" dir="auto">${text}</th>
        ${steps.map((step) => html`<td data-step=${step}>${state.numberAt(step, row, j)}</td>`)}
        <td>${formatNumber(state.valueAt("weights", j, row), 3)}</td>
      </tr>
    `
  );
  const heads = Object.entries({ ...STEPS, weights: "Weight" });
  return html`
    <table class="gptlib-at-table">
      <caption>
        What ${state.quote(row)} looks at, token by token, and which tokens look at it
      </caption>
      <thead>
        <tr>
          <th scope="col">Token</th>
          ${heads.map(([step, head]) => html`<th scope="col" data-step=${step}>${head}</th>`)}
          <th scope="col">Looks at it</th>
        </tr>
      </thead>
      <tbody>${lines}</tbody>
    </table>
  `;
}

const TRAITS = ["maps", "layer", "head", "step", "token", "column", "text", "error"];

export default define("at", TRAITS, (widget) => new State(widget));
