// Text in, tokens out, encodings side by side. With a kernel, Python makes the tokens; in a page
// without one, this file does, with the vocabularies that the page offers.

import { mergePiece, pieces, ranksOf, utf8, wellFormed } from "./lib/bpe.js";
import { characters } from "./lib/bytes.js";
import { classes, define, guard, html, inline } from "./lib/kit.js";
import { formatCount, plural } from "./lib/numbers.js";
import { moved } from "./lib/rove.js";
import { codePoint, hex, label, MARKS, NO_INK, spoken } from "./lib/tokens.js";

/** @import { Widget } from "./lib/kit.js" */
/**
 * @typedef {{ ids: number[], lengths: number[] }} Tokens  each token's id and number of bytes
 * @typedef {{ kind: "text" | "mark" | "bytes", text: string }} Segment
 * @typedef {{
 *   name: string, tokens: Tokens, bytes: Uint8Array, offsets: number[],
 *   stale?: boolean, offer?: boolean,
 * }} Panel  one encoding's tokens of the text: of an older one while Python is at work, or none,
 *   where the vocabulary could be loaded
 */

// ---------------------------------------------------------------------------------------------
// Tokenizing

export const LIMIT = 5000; // characters; more would make a paste slow. The same in Python.
const DRAWN = 1500; // tokens of one encoding that are drawn
const FEW = 50; // of them that are drawn again together

const SPECIAL = "<|endoftext|>";

/** @param {string} text @returns {string} its first LIMIT characters, as Python counts them */
export function cut(text) {
  const start = text.slice(0, 2 * LIMIT); // a character is one or two units
  return wellFormed(Array.from(start).slice(0, LIMIT).join(""));
}

/** @param {string} text @returns {number} characters as Python counts them */
export const countCharacters = (text) => Array.from(text).length;

/** Encode a text; special tokens in it are ordinary text.
 * @param {string} text @param {Map<string, number>} ranks @returns {Tokens} */
export function encode(text, ranks) {
  const tokens = pieces(wellFormed(text)).flatMap((piece) => mergePiece(utf8(piece), ranks));
  return {
    ids: tokens.map((token) => /** @type {number} */ (ranks.get(token))),
    lengths: tokens.map((token) => token.length),
  };
}

// ---------------------------------------------------------------------------------------------
// Making tokens visible

/** What to show for a token's bytes: text as it is, marks for white space and for characters that
 * leave no ink, hexadecimal digits for bytes that are no whole character.
 * @param {Uint8Array} bytes @returns {Segment[]} */
export function segments(bytes) {
  /** @type {Segment[]} */
  const found = [];
  for (const one of characters(bytes)) {
    const next = segmentOf(one);
    const last = found.at(-1);
    if (last?.kind === next.kind) last.text += (next.kind === "bytes" ? " " : "") + next.text;
    else if (next.kind === "text" && /^\p{M}/u.test(next.text)) {
      found.push({ ...next, text: `◌${next.text}` }); // a mark needs something to stand on
    } else found.push(next);
  }
  return found;
}

/** @param {string | number} one a character, or a byte that belongs to none @returns {Segment} */
function segmentOf(one) {
  if (typeof one === "number") return { kind: "bytes", text: hex(one) };
  if (one in MARKS) return { kind: "mark", text: MARKS[one] };
  return NO_INK.test(one) ? { kind: "bytes", text: codePoint(one) } : { kind: "text", text: one };
}

/** @param {number[]} lengths @returns {number[]} where tokens begin, and where the last ends */
export function offsets(lengths) {
  let end = 0;
  return [0, ...lengths.map((length) => end += length)];
}

/** The tokens of another encoding that share bytes with a span: the first and one past the last.
 * @param {number} start @param {number} end
 * @param {number[]} others offsets of the other encoding's tokens @returns {[number, number]} */
export function overlap(start, end, others) {
  let first = 0;
  while (first + 1 < others.length && others[first + 1] <= start) first++;
  let last = first;
  while (last + 1 < others.length && others[last] < end) last++;
  return [first, last];
}

/** @param {number[] | string} list a list, or the string in which a file keeps it */
export function unpack(list) {
  return typeof list === "string" ? (list.match(/\d+/g) ?? []).map(Number) : list;
}

// ---------------------------------------------------------------------------------------------
// Drawing

/** @type {Record<string, { title: string, size: string }>} */
const ENCODINGS = {
  gpt2: { title: "GPT-2", size: "50,257 entries" },
  stories: { title: "Stories", size: "2,048 entries" },
};

const TRAITS = ["text", "tokens", "encodings"];

/** @type {Omit<Panel, "name">} */
const EMPTY = { tokens: { ids: [], lengths: [] }, bytes: new Uint8Array(), offsets: [0] };

/** What the widget is drawn from, and what it remembers besides. */
class State {
  text = ""; // as far as it is shown
  box = ""; // what stands in the box of the text
  late = false; // whether Python has not answered for a while
  typing = 0; // timers
  waiting = 0;
  /** @type {Panel[]} */
  panels = [];
  /** @type {Map<string, Map<string, number>>} the vocabularies that are here */
  ranks = new Map();
  /** @type {Record<string, number>} the token of each encoding that the Tab key reaches */
  current = {};
  /** @type {Record<string, "loading" | "failed">} the vocabularies that the reader asked for */
  asked = {};
  /** @type {{ panel: Panel, i: number } | null} the token of which the facts are shown */
  shown = null;

  /** @param {Widget} widget */
  constructor(widget) {
    this.widget = widget;
    this.model = widget.model;
    this.first = this.model.get("text");
    this.offered = this.model.get("vocabularies"); // only a page without a kernel has them
    for (const [name, asset] of Object.entries(this.offered ?? {})) {
      if (asset.tokens) this.ranks.set(name, ranksOf(asset));
    }
    const fill = () => {
      this.box = this.model.get("text");
      this.refresh();
    };
    this.on = { text: fill, tokens: this.refresh, encodings: this.refresh };
    fill();
  }

  close() {
    clearTimeout(this.typing);
    clearTimeout(this.waiting);
  }

  /** Make the tokens of the text, as far as this can be done here. */
  refresh = () => {
    this.text = cut(this.model.get("text"));
    this.shown = null;
    const bytes = new TextEncoder().encode(this.text);
    this.panels = this.model.get("encodings").map((/** @type {string} */ name) => {
      const tokens = this.tokensOf(name);
      if (tokens) return { name, tokens, bytes, offsets: offsets(tokens.lengths) };
      if (this.offered) return { ...EMPTY, name, offer: true };
      const before = this.panels.find((panel) => panel.name === name);
      return { ...EMPTY, ...before, name, stale: true }; // Python is at work
    });
    for (const { name, stale } of this.panels) if (!stale) this.current[name] = 0;
    clearTimeout(this.waiting);
    this.late = false;
    if (this.offered || this.model.get("tokens").text === this.text) return;
    this.waiting = window.setTimeout(() => {
      this.late = true;
      this.widget.update();
    }, 2000);
  };

  /** @param {string} name @returns {Tokens | null} */
  tokensOf(name) {
    const stored = this.model.get("tokens");
    if (stored.text === this.text && stored[name]) {
      return { ids: unpack(stored[name].ids), lengths: unpack(stored[name].lengths) };
    }
    const known = this.ranks.get(name);
    return known ? encode(this.text, known) : null;
  }

  /** @param {string} name of an encoding whose vocabulary the page offers */
  async load(name) {
    this.asked[name] = "loading";
    this.widget.update();
    try {
      this.ranks.set(name, ranksOf(await this.offered[name].load()));
      this.refresh();
    } catch {
      this.asked[name] = "failed";
    }
    this.widget.update();
  }

  /** @param {Event} event */
  type = ({ target }) => {
    const { value } = /** @type {HTMLTextAreaElement} */ (target);
    clearTimeout(this.typing);
    this.typing = window.setTimeout(() => {
      this.widget.save({ text: wellFormed(value.slice(0, 3 * LIMIT)) }); // one sees that it is cut
      this.box = value; // what the reader types is left as it is
    }, 150);
    this.box = value;
  };

  reset = () => {
    this.widget.save({ text: this.first });
    this.widget.root.querySelector("textarea")?.focus(); // the button is gone
  };

  /** @param {Event} event on a token: the pointer or the focus comes, or a click */
  point = ({ type, target }) => {
    const token = /** @type {HTMLElement} */ (target).closest(".gptlib-te-token");
    const list = token?.closest(".gptlib-te-panel");
    const panel = this.panels.find(({ name }) => name === list?.getAttribute("data-encoding"));
    if (!panel) return;
    const i = Number(token?.getAttribute("data-index"));
    if (type !== "pointerover") this.current[panel.name] = i;
    else if (this.shown?.panel === panel && this.shown.i === i) return; // over its parts
    this.shown = { panel, i };
    this.widget.update();
  };

  /** @param {KeyboardEvent} event @param {Panel} panel */
  move(event, { name, tokens }) {
    const count = Math.min(tokens.ids.length, DRAWN);
    const keys = { back: ["ArrowLeft"], on: ["ArrowRight"], page: 0 };
    const to = moved(event.key, this.current[name], count, keys);
    if (to === null) return;
    const list = /** @type {HTMLElement} */ (event.currentTarget);
    /** @type {HTMLElement} */ (list.querySelector(`[data-index="${to}"]`)).focus();
    event.preventDefault();
  }

  /** @param {Panel} panel @returns {[number, number]} its tokens with the bytes of the one shown */
  marked({ name, tokens, offsets }) {
    if (!this.shown || !tokens.ids.length) return [0, 0];
    const { panel, i } = this.shown;
    if (panel.name === name) return [i, i + 1];
    return overlap(panel.offsets[i], panel.offsets[i + 1], offsets);
  }

  view() {
    return html`<div class="gptlib-layout gptlib-te-layout">
      ${boxView(this)}
      <div class="gptlib-te-notes" role="status">${
      notes(this).map((note) => html`<p class="gptlib-callout">${note}</p>`)
    }</div>
      <div class="gptlib-te-panels" @pointerover=${this.point} @focusin=${this.point}
        @click=${this.point}>${this.panels.map((panel) => panelView(this, panel))}</div>
    </div>`;
  }
}

/** @param {Panel} panel @param {number} i @returns {Uint8Array} */
const bytesOf = ({ bytes, offsets }, i) => bytes.subarray(offsets[i], offsets[i + 1]);

/** @param {Uint8Array} bytes */
const tokenText = (bytes) =>
  inline`<span class="gptlib-te-text" dir="auto">${
    segments(bytes).map(({ kind, text }) =>
      kind === "text" ? text : inline`<span class="gptlib-te-${kind}">${text}</span>`
    )
  }</span>`;

/** @param {Panel} panel @param {number} i @param {boolean} on @param {boolean} current */
function tokenView(panel, i, on, current) {
  const bytes = bytesOf(panel, i);
  const id = panel.tokens.ids[i];
  const words = spoken(label(String.fromCharCode(...bytes)));
  return html`
    <button type="button" class=${classes("te-token", on && "te-on")} data-index=${i}
      data-color=${i % 4} tabindex=${current ? 0 : -1} aria-label="${words}, id ${id}">
      ${tokenText(bytes)}<span class="gptlib-te-id">${id}</span>
    </button>
    ${bytes[bytes.length - 1] === 0x0a ? html`<span class="gptlib-te-break"></span>` : ""}
  `;
}

/** The tokens, a few at a time: those among which nothing is marked now or was are not drawn again.
 * @param {State} state @param {Panel} panel */
function tokensView(state, panel) {
  const { name, tokens: { ids }, bytes } = panel;
  const [first, last] = state.marked(panel);
  const current = state.current[name];
  const shown = ids.slice(0, DRAWN).map((_, i) => i);
  const few = Array.from({ length: Math.ceil(shown.length / FEW) }, (_, i) => i * FEW);
  return few.map((from) => {
    const within = (/** @type {number} */ i) => Math.min(Math.max(i, from), from + FEW);
    const now = [first, last, current, current + 1].map(within);
    const draw = (/** @type {number} */ i) =>
      tokenView(panel, i, i >= first && i < last, i === current);
    return guard([bytes, ids, ...now], () => shown.slice(from, from + FEW).map(draw));
  });
}

/** @param {State} state @param {Panel} panel what is said below its tokens */
function detailView(state, panel) {
  const { name, tokens: { ids }, offer } = panel;
  const [first, last] = state.marked(panel);
  if (!last) {
    const words = ids.length ? "Choose a token to see its bytes." : "No text, no tokens.";
    return offer ? "" : html`<span class="gptlib-soft">${words}</span>`;
  }
  if (state.shown?.panel.name !== name) {
    return html`
      <div class="gptlib-soft">The same bytes, ${plural(last - first, "token")} here:</div>
      <div><code>${ids.slice(first, last).join(" ")}</code></div>
    `;
  }
  const bytes = bytesOf(panel, first);
  const digits = Array.from(bytes, (byte) => hex(byte)).join(" ");
  const [text, color, id] = [tokenText(bytes), first % 4, ids[first]];
  return html`
    <div><span class="gptlib-te-chip" data-color=${color}>${text}</span> id <b>${id}</b></div>
    <div>${plural(bytes.length, "byte")} <code>${digits}</code></div>
  `;
}

/** @param {State} state @param {Panel} panel what the page can do for its tokens */
function messageView(state, { name, tokens, offer }) {
  const { title, size } = ENCODINGS[name];
  const more = tokens.ids.length - DRAWN;
  if (!offer) return more > 0 ? `… and ${plural(more, "more token")}.` : "";
  const asked = state.asked[name];
  return html`
    <p>
      ${title}'s tokens of a new text need its vocabulary of ${size}. The notebook has it; this page
      can load it.
    </p>
    <button type="button" class="gptlib-button gptlib-primary gptlib-te-load"
      ?disabled=${asked === "loading"} @click=${() => state.load(name)}>${asked === "failed"
        ? "That did not work. Try again"
        : "Load it (0.5 MB)"}</button>
  `;
}

/** @param {State} state @param {Panel} panel */
function panelView(state, panel) {
  const { name, tokens: { ids }, bytes, stale, offer } = panel;
  const { title, size } = ENCODINGS[name];
  const n = ids.length;
  const keys = (/** @type {KeyboardEvent} */ event) => state.move(event, panel);
  const count = html`<b>${formatCount(n)}</b>${n === 1 ? " token" : " tokens"}`;
  return html`
    <section class=${classes("card te-panel", stale && "te-stale")} aria-label=${title}
      data-encoding=${name}>
      <div class="gptlib-te-panel-head">
        <strong class="gptlib-title">${title}</strong>
        <span class="gptlib-soft">${size}</span>
        <span class="gptlib-te-count">${offer ? "" : count}</span>
        <span class="gptlib-soft">${n
          ? `${(bytes.length / n).toFixed(2)} bytes per token`
          : ""}</span>
      </div>
      <div class="gptlib-te-tokens" role="group" aria-label="${title}: tokens"
        @keydown=${keys}>${tokensView(state, panel)}</div>
      <div class="gptlib-te-message">${messageView(state, panel)}</div>
      <div class="gptlib-te-detail">${detailView(state, panel)}</div>
    </section>
  `;
}

/** @param {State} state @returns {string[]} what is to be known of the text */
function notes({ text, late, model }) {
  return [
    model.get("text").length > text.length &&
    `The text is cut here: only its first ${plural(LIMIT, "character")} are shown.`,
    text.includes(SPECIAL) &&
    `${SPECIAL} is ordinary text here and is cut into pieces like the rest. Only a program can ` +
      "insert the special token of that name.",
    late && "Waiting for Python. Is the kernel running?",
  ].filter((note) => typeof note === "string");
}

/** @param {State} state */
function boxView(state) {
  const characters = plural(countCharacters(state.text), "character");
  const bytes = plural(utf8(state.text).length, "byte");
  return html`
    <label class="gptlib-te-label">
      <strong class="gptlib-title">Your text</strong>
      <textarea class="gptlib-text gptlib-te-area" rows="3" spellcheck="false" autocomplete="off"
        autocapitalize="off" .value=${state.box} @input=${state.type}></textarea>
    </label>
    <div class="gptlib-head gptlib-soft gptlib-te-counts">
      <span>${characters} · ${bytes} in UTF-8</span>
      <button type="button" class="gptlib-button gptlib-te-reset" @click=${state.reset}
        ?hidden=${state.model.get("text") === state.first}>Back to the first text</button>
    </div>
  `;
}

export default define("te", TRAITS, (widget) => new State(widget));
