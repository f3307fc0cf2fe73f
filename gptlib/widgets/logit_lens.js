// The logit lens: what a model would say next if it ended after each of its layers. Python stores
// the likeliest tokens of every place; in a page without a kernel, the mini model, which runs there
// when the reader asks for it, reads other texts.

import { fromBase64 } from "./lib/bytes.js";
import { classes, define, guard, html, nothing } from "./lib/kit.js";
import { plural } from "./lib/numbers.js";
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
  const { tokens, layers, count, words, cells } = lens;
  const bytes = fromBase64(cells);
  const places = (layers + 1) * tokens.length;
  const width = 2 * count + 2;
  if (bytes.length !== 2 * places * width) {
    throw new Error(`${places} places are not in ${bytes.length} bytes`);
  }
  const value = (/** @type {number} */ place, /** @type {number} */ i) => {
    const at = 2 * (place * width + i);
    return bytes[at] | (bytes[at + 1] << 8);
  };
  const said = [];
  const own = new Float32Array(places * count);
  const [chosen, next] = [new Float32Array(places), new Float32Array(places)];
  for (let place = 0; place < places; place++) {
    for (let k = 0; k < count; k++) {
      said.push(words[value(place, k)]);
      own[place * count + k] = value(place, count + k) / 65535;
    }
    chosen[place] = value(place, 2 * count) / 65535;
    next[place] = value(place, 2 * count + 1) / 65535;
  }
  return { text: lens.text, tokens, layers, count, words: said, own, chosen, next };
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
export function agreeing(lens, end) {
  const same = lens.tokens.filter((_, t) => choice(lens, end, t) === choice(lens, lens.layers, t));
  return same.length;
}

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
 * @param {number} from the first one now
 * @param {number} token
 * @param {number} size of the text
 */
export function windowFor(from, token, size) {
  const last = Math.max(size - WINDOW, 0);
  if (token < from || token >= from + WINDOW) from = token - STEP;
  return Math.min(Math.max(from, 0), last);
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
    const at = (/** @type {string} */ name, /** @type {number} */ last) =>
      Math.min(Math.max(this.model.get(name) ?? 0, 0), last);
    return { end: at("layer", this.lens.layers), token: at("token", this.size - 1) };
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
    const last = Math.max(this.size - WINDOW, 0);
    this.from = Math.min(Math.max(this.from + by, 0), last);
    const { token } = this.chosen;
    const inside = Math.min(Math.max(token, this.from), this.from + WINDOW - 1);
    if (inside !== token) this.widget.save({ token: inside });
    this.moved = "turned";
    this.widget.update();
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
  html`<span class="gptlib-ll-name"><span class="gptlib-spoken">${said(word)}</span><span
    aria-hidden="true" dir="auto">${shown(word)}</span></span>`;

/** @param {number} share */
const barView = (share) =>
  html`
    <span class="gptlib-ll-bar" aria-hidden="true" style="--p: ${share.toFixed(4)}"></span><span
      class="gptlib-ll-number">${percent(share)}</span>
  `;

/** @param {State} state @param {number} end @param {number} t @param {boolean} here */
function cellView(state, end, t, here) {
  const { lens, size } = state;
  const share = lens.own[(end * size + t) * lens.count];
  const word = choice(lens, end, t);
  const same = end < lens.layers && word === choice(lens, lens.layers, t);
  const mark = html`
    <span class="gptlib-ll-mark" aria-hidden="true">●</span><span
      class="gptlib-spoken">, as in the end</span>
  `;
  return html`
    <button type="button" class=${classes("ll-cell", same && "ll-same")}
      tabindex=${here ? 0 : -1} aria-pressed=${here} data-end=${end} data-token=${t}
      style="--p: ${share.toFixed(3)}"
      @click=${() => state.choose(end, t)}><span class="gptlib-spoken">${said(word)}, ${percent(
        share,
      )}</span><span class="gptlib-ll-token" dir="auto" aria-hidden="true">${shown(
        word,
      )}</span><span class="gptlib-ll-share" aria-hidden="true">${percent(share)}</span>${same
        ? mark
        : nothing}</button>
  `;
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
  const share = `● ${Math.round((100 * agreeing(lens, end)) / state.size)}%`;
  const cells = columns.map((t) => {
    const here = end === chosen.end && t === chosen.token;
    return html`<td>${guard([lens, t, here], () => cellView(state, end, t, here))}</td>`;
  });
  return html`<tr class=${last ? "gptlib-ll-last" : nothing}>
    <th scope="row">${rowName(end)}<span class="gptlib-soft gptlib-ll-soft">${
    last ? "the model" : share
  }</span></th>${cells}
  </tr>`;
}

/** @param {State} state */
function tableView(state) {
  const { lens, from, columns } = state;
  const read = () => columns.map((t) => html`<th scope="col">${tokenView(lens.tokens[t])}</th>`);
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
        <tr><th scope="row">came next</th>${guard(
          [lens, from],
          () => columns.map((t) => cameNext(lens, t)),
        )}</tr>
      </tfoot>
    </table>
  `;
}

/** Of a long text, other columns. @param {State} state */
function turnsView(state) {
  const { from, size } = state;
  if (size <= WINDOW) return nothing;
  const turn = (/** @type {string} */ text, /** @type {number} */ by, /** @type {boolean} */ end) =>
    html`
      <button type="button" class="gptlib-button gptlib-strong" ?disabled=${end}
        @click=${() => state.turn(by)}>${text}</button>
    `;
  return html`<div class="gptlib-bar gptlib-ll-turns">
    ${turn("← Earlier", -STEP, from === 0)}
    <span class="gptlib-soft">tokens ${from + 1}–${from + WINDOW} of ${size}</span>
    ${turn("Later →", STEP, from + WINDOW === size)}
  </div>`;
}

/**
 * The probability of the choice in the end, and of what came, place by place.
 * @param {State} state
 */
function courseView({ lens, size, chosen: { end: here, token: t } }) {
  const last = choice(lens, lens.layers, t);
  const came = t + 1 < size && lens.tokens[t + 1] !== last ? lens.tokens[t + 1] : null;
  const column = (/** @type {unknown} */ words) => html`<th scope="col">${words}</th>`;
  const rows = Array.from({ length: lens.layers + 1 }, (_, end) => {
    const spot = end * size + t;
    return html`<tr class=${end === here ? "gptlib-ll-here" : nothing}>
      <th scope="row">${rowName(end)}</th><td>${barView(lens.chosen[spot])}</td>${
      came === null ? nothing : html`<td>${barView(lens.next[spot])}</td>`
    }
    </tr>`;
  });
  return html`
    <table class="gptlib-ll-course">
      <caption class="gptlib-ll-heading">Probability through the layers</caption>
      <thead>
        <tr>
          ${column("Place")}${column(html`${named(last)} in the end`)}${came === null
            ? nothing
            : column(html`${named(came)} came next`)}</tr>
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

/** @param {Widget} widget */
function setUp(widget) {
  const state = new State(widget);
  const view = () => {
    state.follow();
    const { lens, size, reader, chosen: { end, token } } = state;
    return html`<div class=${classes("layout ll-layout", reader.stale && "ll-stale")}>
      <div class="gptlib-head gptlib-ll-head">
        <strong class="gptlib-title">Logit lens</strong>
        <span class="gptlib-soft">${plural(lens.layers, "layer")}, ${
      plural(size, "token")
    } read</span>
      </div>
      ${reader.view(reader.open ? nothing : ELSEWHERE)}
      <p class="gptlib-soft">A column for each token read, a row for each place in the model, in the
        order in which the stream flows: down. A cell has the likeliest next token if the model
        ended there; the stronger its color, the more probable. <b class="gptlib-ll-mark">●</b>
        says the same as the last row.</p>
      <div class="gptlib-ll-view">
        <div class="gptlib-ll-frame" @keydown=${state.onKey}>${tableView(state)}</div>
        ${turnsView(state)}
      </div>
      <div class="gptlib-ll-detail">${guard([lens, end, token], () => detailView(state))}</div>
      <div class="gptlib-spoken" aria-live="polite">${state.announced}</div>
    </div>`;
  };
  const resized = new ResizeObserver(() => state.reveal());
  resized.observe(widget.root);
  const close = () => {
    state.reader.close();
    resized.disconnect();
  };
  return { view, drawn: () => state.drawn(), close };
}

export default define("ll", ["lens", "layer", "token", "text", "error"], setUp);
