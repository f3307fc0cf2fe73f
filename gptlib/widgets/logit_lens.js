// The logit lens: what a model would say next if it ended after each of its layers. Python stores
// the likeliest tokens of every place; in a page without a kernel, the mini model, which runs there
// when the reader asks for it, reads other texts.

import { fromBase64 } from "./lib/bytes.js";
import { button, classes, define, guard, html, inline, nothing } from "./lib/kit.js";
import { clamp, plural } from "./lib/numbers.js";
import { Reader } from "./lib/reader.js";
import { movedInGrid, withModifier } from "./lib/rove.js";
import { label, spoken } from "./lib/tokens.js";

/** @import { Widget } from "./lib/kit.js" */
/**
 * @typedef {{ text: string, tokens: string[], layers: number, count: number }} Head
 * @typedef {Head & { words: string[], cells: string }} Stored  as Python packs it
 * @typedef {Head & { words: string[], own: Float32Array, chosen: Float32Array, next: Float32Array
 *   }} Lens  E places (one more than layers), T tokens, K = count: words and their probabilities
 *   (E, T, K), those of the last place's choice and of the token that came next (E, T)
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

const LIMIT = 128; // tokens, as in Python
const WINDOW = 48; // columns drawn at once
const STEP = 24; // columns that the window moves by

/** @param {Stored | Lens} lens @returns {Lens} */
export function decode(lens) {
  if (!("cells" in lens)) return lens;
  const { text, tokens, layers, count, words, cells } = lens;
  const bytes = fromBase64(cells);
  const places = (layers + 1) * tokens.length;
  const width = 2 * count + 2;
  if (bytes.length !== 2 * places * width) {
    throw new Error(`${places} places are not in ${bytes.length} bytes`);
  }
  const values = new Uint16Array(bytes.buffer);
  /** Of each place, the values from one to another. */
  const part = (/** @type {number} */ from, /** @type {number} */ to) =>
    values.filter((_, i) => i % width >= from && i % width < to);
  const shares = (/** @type {number} */ from, /** @type {number} */ to) =>
    Float32Array.from(part(from, to), (value) => value / 65535);
  const said = Array.from(part(0, count), (i) => words[i]);
  const own = shares(count, 2 * count);
  const [chosen, next] = [2 * count, 2 * count + 1].map((i) => shares(i, i + 1));
  return { text, tokens, layers, count, words: said, own, chosen, next };
}

/** @param {any} answer of the engine, to `lens` @param {string} text @returns {Lens} */
export function fromEngine({ tokens, ends, words, own, chosen, next }, text) {
  const count = words.length / (ends * tokens.length);
  return { text, tokens, layers: ends - 1, count, words, own, chosen, next };
}

/** @param {Lens} lens @param {number} end @param {number} token @returns {string} said there */
export function choice({ words, tokens, count }, end, token) {
  return words[(end * tokens.length + token) * count];
}

/** @param {Lens} lens @param {number} end @returns {number} tokens whose choice is the last one */
export const agreeing = (lens, end) =>
  lens.tokens.filter((_, t) => choice(lens, end, t) === choice(lens, lens.layers, t)).length;

/** @param {number} end @param {number} layers @returns {string} a place in the model */
export function place(end, layers) {
  if (end === 0) return "before block 0";
  return end === layers ? `after block ${end - 1}, the last` : `after block ${end - 1}`;
}

/** @param {number} share from 0 to 1 @returns {string} in percent, never a false 0 or 100 */
export function percent(share) {
  if (share < 0.00005) return "<0.01%";
  if (share < 0.01) return `${(100 * share).toFixed(2)}%`;
  if (share < 0.1) return `${(100 * share).toFixed(1)}%`;
  return share < 1 && share >= 0.995 ? ">99%" : `${Math.round(100 * share)}%`;
}

/**
 * The columns that are drawn so that a token is among them.
 * @param {number} from the first one now @param {number} token @param {number} size of the text
 */
export function windowFor(from, token, size) {
  if (token < from || token >= from + WINDOW) from = token - STEP;
  return clamp(from, 0, Math.max(size - WINDOW, 0));
}

/** @param {string} token bytes @returns {string} */
const shown = (token) => (token ? label(token) : "⟨end⟩"); // <|endoftext|>

/** @param {string} token bytes @returns {string} for who listens */
const said = (token) => (token ? spoken(label(token)) : "end of text");

// ---------------------------------------------------------------------------------------------
// What is shown, and what the reader does

class State {
  from = 0; // the first column drawn
  announced = ""; // for who listens
  moved = ""; // the choice, and perhaps the focus with it: the frame follows

  /** @param {Widget} widget */
  constructor(widget) {
    this.widget = widget;
    this.model = widget.model;
    this.packed = this.model.get("lens");
    this.lens = decode(this.packed);
    this.reader = new Reader(widget, {
      name: "ll",
      noun: "table",
      question: "lens",
      text: () => this.lens.text,
      take: (answer, text) => this.take(answer, text),
    });
    this.resized = new ResizeObserver(() => this.reveal());
    this.resized.observe(widget.root);
  }

  close() {
    this.reader.close();
    this.resized.disconnect();
  }

  /** Take the lens that is asked for, and the columns around the chosen one. */
  follow() {
    if (this.model.get("lens") !== this.packed) {
      this.packed = this.model.get("lens");
      this.lens = decode(this.packed);
      this.from = 0;
    }
    this.from = windowFor(this.from, this.chosen.token, this.size);
  }

  /** @param {any} answer of the model in this page @param {string} text */
  take(answer, text) {
    const count = answer.tokens.length + answer.start - 1; // without <|endoftext|>
    if (count > LIMIT) {
      return `The text has ${plural(count, "token")}, but at most ${LIMIT} can be shown.`;
    }
    this.widget.save({ lens: fromEngine(answer, text) });
    return "";
  }

  get size() {
    return this.lens.tokens.length;
  }

  get chosen() {
    const [end, token] = ["layer", "token"].map((name) => this.model.get(name) ?? 0);
    return { end: clamp(end, 0, this.lens.layers), token: clamp(token, 0, this.size - 1) };
  }

  /** The columns that are drawn. */
  get columns() {
    return this.lens.tokens.map((_, t) => t).slice(this.from, this.from + WINDOW);
  }

  /** @param {number} end @param {number} token @param {string} [how] */
  choose(end, token, how = "chosen") {
    this.widget.save({ layer: end, token });
    this.moved = how;
    const { lens } = this;
    const share = percent(lens.own[(end * this.size + token) * lens.count]);
    this.announced = `${place(end, lens.layers)}, having read ${said(lens.tokens[token])}: ` +
      `${said(choice(lens, end, token))}, ${share}.`;
    this.widget.update();
  }

  onKey = (/** @type {KeyboardEvent} */ event) => {
    const { end, token } = this.chosen;
    const to = movedInGrid(event.key, [end, token], [this.lens.layers + 1, this.size]);
    if (!to || withModifier(event)) return;
    event.preventDefault();
    this.choose(...to, "focused");
  };

  /** @param {number} by columns */
  turn(by) {
    this.from = clamp(this.from + by, 0, Math.max(this.size - WINDOW, 0));
    const { token } = this.chosen;
    const inside = clamp(token, this.from, this.from + WINDOW - 1);
    if (inside !== token) this.widget.save({ token: inside });
    this.moved = "turned";
    this.widget.update();
  }

  view() {
    this.follow();
    const { lens, size, reader, chosen: { end, token } } = this;
    const layers = plural(lens.layers, "layer");
    const detail = guard([lens, end, token], () => detailView(this));
    return html`<div class=${classes("layout ll-layout", reader.stale && "ll-stale")}>
      <div class="gptlib-head gptlib-on-line">
        <strong class="gptlib-title">Logit lens</strong>
        <span class="gptlib-soft">${layers}, ${plural(size, "token")} read</span>
      </div>
      ${reader.view(reader.open ? nothing : ELSEWHERE)} ${ABOUT}
      <div class="gptlib-ll-view">
        <div class="gptlib-ll-frame" @keydown=${this.onKey}>${tableView(this)}</div>
        ${turnsView(this)}
      </div>
      <div class="gptlib-ll-detail">${detail}</div>
      <div class="gptlib-spoken" aria-live="polite">${this.announced}</div>
    </div>`;
  }

  drawn() {
    this.reader.drawn();
    const { moved } = this;
    this.moved = "";
    if (moved === "turned") this.find("frame").scrollLeft = 0;
    if (moved === "focused") this.find("cell[tabindex='0']").focus({ preventScroll: true });
    if (moved && moved !== "turned") this.reveal();
  }

  /** @param {string} name @returns {HTMLElement} */
  find(name) {
    return /** @type {any} */ (this.widget.root.querySelector(`.gptlib-ll-${name}`));
  }

  /** Scroll the frame, not the page, until the chosen cell is in it, beside the row's name. */
  reveal() {
    const frame = this.find("frame");
    if (!frame?.clientWidth) return;
    const { left, right } = frame.getBoundingClientRect();
    const cell = this.find("cell[tabindex='0']").getBoundingClientRect();
    const start = left + (frame.querySelector("th")?.offsetWidth ?? 0);
    if (cell.left < start) frame.scrollLeft -= start - cell.left;
    if (cell.right > right) frame.scrollLeft += cell.right - right;
  }
}

// ---------------------------------------------------------------------------------------------
// The view

/** @param {number} end @returns {string} the name of its row */
const rowName = (end) => end === 0 ? "embeddings" : `block ${end - 1}`;

/** @param {string} token */
const tokenView = (token) => html`<span dir="auto" class="gptlib-ll-token">${shown(token)}</span>`;

/** @param {string} word */
const named = (word) =>
  inline`<span class="gptlib-ll-name"><span class="gptlib-spoken">${said(word)}</span><span
    aria-hidden="true" dir="auto">${shown(word)}</span></span>`;

/** @param {number} share */
const barView = (share) =>
  inline`<span class="gptlib-ll-bar" aria-hidden="true"
    style="--p: ${share.toFixed(4)}"></span><span class="gptlib-ll-number">${
    percent(share)
  }</span>`;

const SAME = inline`<span class="gptlib-ll-mark" aria-hidden="true">●</span><span
  class="gptlib-spoken">, as in the end</span>`;

/** @param {State} state @param {number} end @param {number} t @param {boolean} here */
function cellView(state, end, t, here) {
  const { lens, size } = state;
  const share = lens.own[(end * size + t) * lens.count];
  const word = choice(lens, end, t);
  const same = end < lens.layers && word === choice(lens, lens.layers, t);
  const likely = percent(share);
  return inline`<button type="button" class=${classes("ll-cell", same && "ll-same")}
    tabindex=${here ? 0 : -1} aria-pressed=${here} data-end=${end} data-token=${t}
    style="--p: ${share.toFixed(3)}" @click=${() => state.choose(end, t)}><span
    class="gptlib-spoken">${said(word)}, ${likely}</span><span class="gptlib-ll-token" dir="auto"
    aria-hidden="true">${shown(word)}</span><span class="gptlib-ll-share"
    aria-hidden="true">${likely}</span>${same ? SAME : nothing}</button>`;
}

/** What came after a token. @param {Lens} lens @param {number} t */
function cameNext(lens, t) {
  const size = lens.tokens.length;
  if (t + 1 === size) return html`<td>…</td>`;
  const came = lens.tokens[t + 1];
  const right = choice(lens, lens.layers, t) === came;
  const note = right ? "✓ expected" : percent(lens.next[lens.layers * size + t]);
  return html`<td>${tokenView(came)}<span class="gptlib-ll-share">${note}</span></td>`;
}

/** A row for each place in the model. @param {State} state @param {number} end */
function rowView(state, end) {
  const { lens, chosen, columns } = state;
  const last = end === lens.layers;
  const note = last ? "the model" : `● ${Math.round((100 * agreeing(lens, end)) / state.size)}%`;
  const cells = columns.map((t) => {
    const here = end === chosen.end && t === chosen.token;
    return html`<td>${guard([lens, t, here], () => cellView(state, end, t, here))}</td>`;
  });
  return html`<tr class=${last ? "gptlib-ll-last" : nothing}>
    <th scope="row">${rowName(end)}<span class="gptlib-soft gptlib-ll-soft">${note}</span></th>
    ${cells}
  </tr>`;
}

/** @param {State} state */
function tableView(state) {
  const { lens, from, columns } = state;
  const read = () => columns.map((t) => html`<th scope="col">${tokenView(lens.tokens[t])}</th>`);
  const came = () => columns.map((t) => cameNext(lens, t));
  return html`
    <table class="gptlib-ll-table">
      <caption class="gptlib-spoken">
        What the model would say next, after each token and at each place in the model
      </caption>
      <thead>
        <tr><th scope="row">token read</th>${guard([lens, from], read)}</tr>
      </thead>
      <tbody>${Array.from({ length: lens.layers + 1 }, (_, end) => rowView(state, end))}</tbody>
      <tfoot>
        <tr><th scope="row">came next</th>${guard([lens, from], came)}</tr>
      </tfoot>
    </table>
  `;
}

/** Of a long text, other columns. @param {State} state */
function turnsView(state) {
  const { from, size } = state;
  if (size <= WINDOW) return nothing;
  const turn = (/** @type {string} */ text, /** @type {number} */ by, disabled = false) =>
    button(text, () => state.turn(by), { class: "gptlib-button gptlib-strong", disabled });
  return html`<div class="gptlib-bar gptlib-ll-turns">
    ${turn("← Earlier", -STEP, from === 0)}
    <span class="gptlib-soft">tokens ${from + 1}–${from + WINDOW} of ${size}</span>
    ${turn("Later →", STEP, from + WINDOW === size)}
  </div>`;
}

/** Place by place, how probable are the choice in the end and what came. @param {State} state */
function courseView({ lens, size, chosen: { end: here, token: t } }) {
  const last = choice(lens, lens.layers, t);
  const came = t + 1 < size && lens.tokens[t + 1] !== last ? lens.tokens[t + 1] : null;
  const heads = ["Place", html`${named(last)} in the end`];
  if (came !== null) heads.push(html`${named(came)} came next`);
  const rows = Array.from({ length: lens.layers + 1 }, (_, end) => {
    const shares = [lens.chosen, lens.next].slice(0, heads.length - 1);
    return html`<tr class=${end === here ? "gptlib-ll-here" : nothing}>
      <th scope="row">${rowName(end)}</th>
      ${shares.map((of) => html`<td>${barView(of[end * size + t])}</td>`)}
    </tr>`;
  });
  return html`
    <table class="gptlib-ll-course">
      <caption class="gptlib-ll-heading">Probability through the layers</caption>
      <thead>
        <tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr>
      </thead>
      <tbody>${rows}</tbody>
    </table>
  `;
}

/** The chosen cell. @param {State} state */
function detailView(state) {
  const { lens, size, chosen: { end, token } } = state;
  const start = (end * size + token) * lens.count;
  const name = place(end, lens.layers);
  const words = lens.words.slice(start, start + lens.count);
  return html`
    <p class="gptlib-ll-where"><b>${name[0].toUpperCase()}${name.slice(1)}</b>, having read${" "}<b
      dir="auto">“${shown(lens.tokens[token])}”</b></p>
    <div>
      <p class="gptlib-ll-heading">Likeliest here</p>
      <ol class="gptlib-ll-list">${words.map((word, k) =>
        html`<li>${named(word)}${barView(lens.own[start + k])}</li>`
      )}</ol>
    </div>
    <div>${courseView(state)}</div>
  `;
}

const ELSEWHERE = html`<p class="gptlib-soft">This page can run the mini model only, and this is
  another one: to read other texts with it, open the notebook.</p>`;

const ABOUT = html`<p class="gptlib-soft">A column for each token read, a row for each place in the
  model, in the order in which the stream flows: down. A cell has the likeliest next token if the
  model ended there; the stronger its color, the more probable. <b class="gptlib-ll-mark">●</b>
  says the same as the last row.</p>`;

const TRAITS = ["lens", "layer", "token", "text", "error"];

export default define("ll", TRAITS, (widget) => new State(widget));
