// How surprising each token of a story is: what a model loses at it, against what the best possible
// predictor loses, which knows the grammar. Python stores this of a few stories. Any other text is
// judged here, by the mini model (gpt.js, in a worker) and the exact grammar (story_follower.js).

import { openModel, request } from "./lib/engine.js";
import { link } from "./lib/link.js";

/**
 * @typedef {{ kind: "whole" | "breaks" | "leaves", expected?: string[], others?: number }} End
 * @typedef {{
 *   tokens: string[], loss: number[], surprisal: number[], entropy: number[], possible: number[],
 *   shares: (number | null)[][], names: Record<string, string>, end: End | null,
 * }} Judged  what is known of a text, as Python's `judge` says; of one that is judged here and now,
 *   the end of the arrays may be missing yet, and `shares` is filled as it is asked for
 * @typedef {{ name: string, p: number | null, q: number | null, came?: boolean, rest?: boolean }} Row
 *   a token that could come, or all others, with the shares that the grammar and the model give it
 *   (null: not known)
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: unknown): void,
 *   on(event: string, callback: Function): void,
 *   off(event: string, callback: Function): void,
 *   save_changes(): void,
 *   send(content: unknown, callbacks?: unknown, buffers?: unknown): void,
 * }} Model
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

const LIKELIEST = 4; // of the grammar, and of the model, that are listed for a text judged here
export const MOST = 400; // tokens that are judged here
const LONGEST = 255; // tokens of a story that the model writes

/** @type {Record<string, { title: string, steps: number[] }>} */
export const COLORS = {
  loss: { title: "model’s loss", steps: [0.1, 0.5, 1, 2, 4] },
  surprisal: { title: "exact surprisal", steps: [0.1, 0.5, 1, 2, 4] },
  excess: { title: "excess", steps: [0.05, 0.2, 0.5, 1, 2] },
};

/** @param {Judged} judged @returns {number} how many tokens are a story's */
export const known = (judged) => judged.surprisal.length;

/**
 * What a token is colored by, in nats: NaN where it is not known.
 * @param {Judged} judged
 * @param {number} i
 * @param {string} color one of COLORS
 */
export function valueOf(judged, i, color) {
  const [loss, surprisal] = [judged.loss[i] ?? NaN, judged.surprisal[i] ?? NaN];
  if (color === "loss") return loss;
  if (color === "surprisal") return i === known(judged) && isLost(judged) ? Infinity : surprisal;
  return loss - surprisal;
}

/** @param {Judged} judged @returns {boolean} whether the token after the known ones is no story's */
const isLost = (judged) => judged.end?.kind === "leaves";

/** @param {number} value in nats @param {string} color @returns {number} -5 to 5; 0 is faint */
export function levelOf(value, color) {
  const size = Math.abs(value);
  const level = COLORS[color].steps.filter((step) => size >= step).length;
  return value < 0 ? -level : level;
}

/**
 * Sums over the first tokens, as far as they are a story's; of the loss also where they are not.
 * @param {Judged} judged
 * @param {number} count of tokens
 */
export function sums(judged, count = judged.tokens.length) {
  const upTo = Math.min(count, known(judged), judged.loss.length);
  const add = (/** @type {number[]} */ values) => values.slice(0, upTo).reduce((a, b) => a + b, 0);
  const [loss, surprisal, entropy] = [judged.loss, judged.surprisal, judged.entropy].map(add);
  return { loss, surprisal, excess: loss - surprisal, entropy };
}

/**
 * The tokens that could come at a place, the likeliest by the grammar first, and what is left.
 * @param {Judged} judged
 * @param {number} i
 * @returns {{ rows: Row[], others: Row | null }}
 */
export function rowsOf(judged, i) {
  const flat = judged.shares[i] ?? [];
  const exact = i < known(judged) ? Math.exp(-judged.surprisal[i]) : isThere(judged, i) ? 0 : null;
  const own = Math.exp(-(judged.loss[i] ?? NaN));
  /** @type {Row[]} */
  const rows = [];
  for (let at = 0; at < flat.length; at += 3) {
    const name = judged.names[String(flat[at])];
    rows.push({ name, p: flat[at + 1], q: flat[at + 2], came: at === 0 });
  }
  if (!rows.length) rows.push({ name: tokenAt(judged, i), p: null, q: null, came: true });
  Object.assign(rows[0], { p: exact, q: own }); // they are known better than they are stored
  rows.sort((a, b) => (b.p ?? 0) - (a.p ?? 0) || (b.q ?? 0) - (a.q ?? 0));
  return { rows, others: othersOf(judged, i, rows) };
}

/** @param {Judged} judged @param {number} i @returns {boolean} whether the text leaves right here */
const isThere = (judged, i) => i === known(judged) && isLost(judged);

/** @param {Judged} judged @param {number} i @param {Row[]} rows @returns {Row | null} */
function othersOf(judged, i, rows) {
  const rest = (/** @type {"p" | "q"} */ name) => {
    const values = rows.map((row) => row[name]);
    if (values.some((value) => value === null)) return null;
    return Math.max(1 - values.reduce((/** @type {number} */ a, b) => a + Number(b), 0), 0);
  };
  const [p, q] = [rest("p"), rest("q")];
  const possible = judged.possible[i];
  const listed = rows.filter((row) => row.p).length;
  const more = possible === undefined ? 0 : possible - listed;
  if (!more && !(q && q >= 0.0005)) return null;
  const name = more ? plural(more, "other") : "all others";
  return { name, p: more ? p : p && 0, q, rest: true };
}

/** @param {Judged} judged @returns {number} the token to look at first: what cost most in vain */
export function telling(judged) {
  const costs = judged.loss.map((loss, i) => loss - (judged.surprisal[i] ?? 0));
  return Math.max(costs.indexOf(Math.max(...costs)), 0);
}

/** @param {number} most nats @returns {{ top: number, ticks: number[] }} of the chart's axis */
export function scaleOf(most) {
  const top = Math.max(1, most) * 1.06;
  const step = [0.5, 1, 2, 5, 10, 20].find((step) => top / step <= 6) ?? 50;
  const ticks = Array.from({ length: Math.floor(top / step) + 1 }, (_, i) => i * step);
  return { top, ticks };
}

// ---------------------------------------------------------------------------------------------
// Words

/** @param {number} value @returns {string} nats with two digits and a true minus sign */
export function nats(value) {
  if (value === Infinity) return "∞";
  if (Number.isNaN(value)) return "–";
  const text = value.toFixed(2);
  return Number(text) === 0 ? "0.00" : text.replace("-", "−");
}

/** @param {number} value @returns {string} with its sign */
export const signed = (value) => (Number(value.toFixed(2)) > 0 ? `+${nats(value)}` : nats(value));

/** @param {number | null} share from 0 to 1 @returns {string} in percent, never a false 0 or 100 */
export function percent(share) {
  if (share === null || Number.isNaN(share)) return "–";
  if (share === 0 || share === 1) return `${100 * share}%`;
  if (share < 0.0005) return "<0.1%";
  return share >= 0.9995 ? ">99.9%" : `${(100 * share).toFixed(1)}%`;
}

/** @type {Record<string, string>} */
const MARKS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };

/** @param {string} character @returns {string} one that leaves ink, or a space */
function visible(character) {
  if (character === " ") return character;
  if (character in MARKS) return MARKS[character];
  if (/[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u.test(character)) return "\ufffd";
  return character;
}

/** @param {string} token @returns {string} what to show for it, spaces marked */
export function label(token) {
  if (token === "<|endoftext|>") return "end of the text";
  return Array.from(token, (one) => MARKS[one] ?? visible(one)).join("") || "part of a character";
}

/** @param {string} token @returns {string} in quotes, for a sentence */
export function quote(token) {
  if (token === "<|endoftext|>") return "the end of the text";
  const shown = Array.from(token.trim(), visible).join("");
  return shown ? `“${shown}”` : label(token) === "␣" ? "a space" : label(token);
}

/** @param {string[]} words @param {number} others @returns {string} a, b or 3 others */
export function either(words, others) {
  const all = [...words.map(quote), ...(others ? [`${others} other${others > 1 ? "s" : ""}`] : [])];
  const last = all.pop() ?? "nothing";
  return all.length ? `${all.join(", ")} or ${last}` : last;
}

/** @param {number} count @param {string} noun @returns {string} */
export function plural(count, noun) {
  return `${String(count).replace(/\B(?=(\d{3})+$)/g, ",")} ${noun}${count === 1 ? "" : "s"}`;
}

/** @param {Judged} judged @param {number} i @returns {string} the token's text, its end named */
export const tokenAt = (judged, i) =>
  i === judged.tokens.length - 1 && judged.tokens[i] === "" ? "<|endoftext|>" : judged.tokens[i];

/**
 * How a text ends, for the grammar.
 * @param {Judged} judged
 * @returns {string}
 */
export function verdict(judged) {
  const { end } = judged;
  if (!end) return "";
  if (end.kind === "whole") return "A whole story: the grammar can tell every word of it.";
  const could = either(end.expected ?? [], end.others ?? 0);
  if (end.kind === "breaks") return `A story so far. It breaks off: next could come ${could}.`;
  const at = known(judged);
  return (
    `Token ${at + 1}, ${quote(tokenAt(judged, at))}, leaves the grammar: there could have stood ` +
    `${could}. From it on, only the model’s loss is known.`
  );
}

/**
 * A token in words: what the model lost, what the best predictor loses, and what it expected.
 * @param {Judged} judged
 * @param {number} i
 * @returns {string}
 */
export function explain(judged, i) {
  const [loss, surprisal] = [judged.loss[i], judged.surprisal[i]];
  if (loss === undefined) return "The model has not read this token yet.";
  const lost = `The model lost ${nats(loss)} nats here.`;
  if (isThere(judged, i)) {
    return (
      `${lost} No story goes on with this token: the grammar gives it probability 0, an infinite ` +
      `surprisal. It expected to lose ${nats(judged.entropy[i])} on average.`
    );
  }
  if (surprisal === undefined) {
    return `${lost} The text left the grammar before, so there is no exact surprisal any more.`;
  }
  if (judged.possible[i] === 1) {
    return `${lost} Only this token could come: the best possible predictor loses nothing.`;
  }
  return (
    `${lost} The best possible predictor loses ${nats(surprisal)} at this token, and expects ` +
    `${nats(judged.entropy[i])} on average: ${plural(judged.possible[i], "token")} could come.`
  );
}

/** @param {string} color @param {Judged} judged @returns {string} what the colors say */
export function colorWords(color, judged) {
  const { surprisal, excess } = sums(judged);
  if (color === "loss") {
    const loss = judged.loss.reduce((a, b) => a + b, 0);
    return `−log of the model’s probability of the token. Together ${nats(loss)} nats.`;
  }
  if (color === "surprisal") {
    const words = "−log of the grammar’s own probability: what the token had to cost.";
    return `${words} Together ${nats(surprisal)} nats.`;
  }
  return (
    "Loss minus exact surprisal. Below 0 (blue) the model gave this very token more than the " +
    "grammar does, so others too little: it was lucky. Only on average can nothing beat the " +
    `grammar. Together ${signed(excess)} nats.`
  );
}

// ---------------------------------------------------------------------------------------------
// The model and the grammar in the page

/**
 * Ask for the grammar and for what follows a text with it: from the page's files, or the kernel.
 * @param {Model} model the widget's
 */
async function openGrammar(model) {
  const { urls, grammar, vocabulary } = model.get("grammar")
    ? await grammarOfPage(model)
    : await grammarOfKernel(model);
  const [{ Follower }, { Tokenizer, pieces }] = await Promise.all([
    import(urls.story_follower),
    import(urls.gpt),
  ]);
  const tokenizer = new Tokenizer(vocabulary);
  const { endOfText } = tokenizer;
  const words = {
    pieces,
    endOfText,
    encode: (/** @type {string} */ text) => tokenizer.encode(text),
    textOf: (/** @type {number} */ id) =>
      id === endOfText
        ? "<|endoftext|>"
        : new TextDecoder("utf-8", { ignoreBOM: true }).decode(tokenizer.bytesOf(id)),
  };
  return { words, begin: () => new Follower(grammar, words) };
}

/** @param {Model} model */
async function grammarOfPage(model) {
  const url = (/** @type {string} */ name) => new URL(`./page/${name}.js`, import.meta.url).href;
  const load = (/** @type {string} */ name) =>
    model.get(name).load().catch((/** @type {Error} */ error) => {
      throw new Error(`The grammar's files do not arrive: ${error.message}.`);
    });
  const [grammar, vocabulary] = await Promise.all([load("grammar"), load("vocabulary")]);
  const urls = { story_follower: url("story_follower"), gpt: url("gpt") };
  return { urls, grammar, vocabulary };
}

/** @param {Model} model */
async function grammarOfKernel(model) {
  const { answer } = await request(model, "grammar");
  const { modules, grammar, vocabulary } = answer;
  const urls = link(modules);
  const [story_follower, gpt] = [urls["page/story_follower.js"], urls["page/gpt.js"]];
  return { urls: { story_follower, gpt }, grammar, vocabulary };
}

/** Let the page draw and answer. */
const breath = () => new Promise((resolve) => setTimeout(resolve));

const SLICE = 12; // milliseconds of work between two breaths

/**
 * What the grammar knows of a text: as in Python's `judge`, with all next tokens by place.
 * @param {any} follower new
 * @param {number[]} ids without the end of the text, unless the model wrote it
 * @param {{ endOfText: number, textOf(id: number): string }} words
 * @param {() => boolean} outdated whether nobody waits for this any more
 */
export async function follow(follower, ids, words, outdated = () => false) {
  /** @type {{ surprisal: number[], entropy: number[], possible: number[] }} */
  const found = { surprisal: [], entropy: [], possible: [] };
  /** @type {[number, number][][]} */
  const likeliest = [];
  const look = () => {
    found.entropy.push(follower.entropy);
    found.possible.push(follower.next.size);
    likeliest.push(follower.likeliest());
  };
  /** @type {End["kind"]} */
  let kind = "breaks";
  let begun = performance.now();
  for (const id of ids) {
    if (performance.now() - begun > SLICE) {
      await breath();
      if (outdated()) break;
      begun = performance.now();
    }
    look();
    if (!follower.next.has(id)) {
      kind = "leaves";
      break;
    }
    found.surprisal.push(follower.read(id).surprisal);
  }
  if (kind !== "leaves" && ids.at(-1) === words.endOfText) kind = "whole";
  if (kind === "breaks" && follower.next.has(words.endOfText)) {
    look();
    found.surprisal.push(follower.read(words.endOfText).surprisal);
    kind = "whole";
  }
  const best = follower.likeliest(5).map((/** @type {[number, number]} */ [id]) =>
    words.textOf(id)
  );
  const others = Math.max(follower.next.size - best.length, 0);
  return {
    ...found,
    likeliest,
    end: kind === "whole" ? { kind } : { kind, expected: best, others },
  };
}

// ---------------------------------------------------------------------------------------------
// Drawing

const HEIGHT = 190; // of the chart
const CONTROLS = ["button", "input", "select", "textarea"];

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElement}
 */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  // JupyterLab takes keys from whatever has the focus, unless that itself says otherwise.
  if (CONTROLS.includes(tag)) element.setAttribute("data-lm-suppress-shortcuts", "true");
  element.append(...children);
  return element;
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {(Node | string)[]} children
 * @returns {SVGElement}
 */
function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** @param {string} name @param {Record<string, string>} more @param {(Node | string)[]} children */
const div = (name, more = {}, ...children) =>
  h("div", { class: `gptlib-sp-${name}`, ...more }, ...children);

/** @param {string} text @param {string} [kind] @returns {HTMLButtonElement} */
const button = (text, kind = "plain") => /** @type {HTMLButtonElement} */ (
  h("button", { type: "button", class: `gptlib-sp-button gptlib-sp-${kind}` }, text)
);

/** @param {Node} node @param {string} text */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

let count = 0; // widgets drawn, for names that must differ

/** @param {string} id */
function makeColors(id) {
  const inputs = Object.entries(COLORS).map(([value, { title }]) => {
    const input = /** @type {HTMLInputElement} */ (
      h("input", { type: "radio", name: `${id}-color`, value })
    );
    const name = title[0].toUpperCase() + title.slice(1);
    return { input, root: h("label", { class: "gptlib-sp-color" }, input, h("span", {}, name)) };
  });
  const root = h(
    "fieldset",
    { class: "gptlib-sp-colors" },
    h("legend", {}, "Color by"),
    ...inputs.map((one) => one.root),
  );
  return { root, inputs: inputs.map((one) => one.input) };
}

/** The sums of a text: a row for each quantity, a column for each part of the text. */
function makeSums() {
  const columns = ["nats", "this token", "up to here", "all"];
  const names = { loss: "Model’s loss", surprisal: "Exact surprisal", excess: "Excess" };
  const rows = Object.entries({ ...names, entropy: "Expected (entropy)" }).map(([name, title]) => {
    const cells = columns.slice(1).map(() => h("td"));
    return { name, cells, root: h("tr", {}, h("th", { scope: "row" }, title), ...cells) };
  });
  const heads = columns.map((title) => h("th", { scope: "col" }, title));
  const head = h("thead", {}, h("tr", {}, ...heads));
  const root = h(
    "table",
    { class: "gptlib-sp-sums" },
    h("caption", {}, "What it costs"),
    head,
    h("tbody", {}, ...rows.map((row) => row.root)),
  );
  return { root, rows, all: heads[3] };
}

/** What could come at a place, for the grammar and for the model. */
function makeShares() {
  const body = h("tbody");
  const heads = ["token", "grammar", "model"].map((title) => h("th", { scope: "col" }, title));
  const root = h(
    "table",
    { class: "gptlib-sp-shares" },
    h("caption", {}, "What could come here"),
    h("thead", {}, h("tr", {}, ...heads)),
    body,
  );
  return { root, body };
}

/** The marks of the chart, named. */
function makeLegend() {
  const mark = (/** @type {string} */ name, /** @type {string} */ text) =>
    h("span", {}, h("i", { class: `gptlib-sp-mark gptlib-sp-mark-${name}` }), text);
  return div(
    "legend",
    { "aria-hidden": "true" },
    mark("loss", "model’s loss"),
    mark("surprisal", "exact surprisal: what this token had to cost"),
    mark("entropy", "entropy: the floor that nothing beats on average"),
  );
}

/** The steps of the colors, with their numbers. */
function makeScale() {
  const swatches = [-3, -2, -1, 0, 1, 2, 3, 4, 5].map((level) => {
    const name = h("span", {});
    const chip = h("i", { class: "gptlib-sp-token", "data-level": String(level) });
    return { level, name, root: h("span", { class: "gptlib-sp-swatch" }, chip, name) };
  });
  const unit = h("span", { class: "gptlib-sp-unit" }, "nats");
  return { root: div("scale", {}, ...swatches.map((one) => one.root), unit), swatches };
}

/** @param {string} id What is asked before the model may run, and what it then does. */
function makeTry(id) {
  const area = /** @type {HTMLTextAreaElement} */ (
    h("textarea", { id: `${id}-own`, rows: "4", spellcheck: "false", class: "gptlib-sp-area" })
  );
  const [load, cancel] = [button("", "load"), button("Cancel")];
  const [compose, stop] = [button("Write a story", "load"), button("Stop")];
  const progress = /** @type {HTMLProgressElement} */ (
    h("progress", { max: "1", "aria-label": "Loading the model" })
  );
  const loaded = h("span", { class: "gptlib-sp-soft" });
  const about = h("p", { class: "gptlib-sp-soft" });
  const error = h("p", { class: "gptlib-sp-error", role: "alert" });
  const asking = div("row", {}, load, about);
  const loading = div("row", {}, progress, loaded, cancel);
  const own = h("label", { for: `${id}-own` }, "Try your own: change the story, or type another");
  const ready = div("ready", {}, div("row", {}, own, div("push"), compose, stop), area);
  const root = h("section", { class: "gptlib-sp-try", "aria-label": "Other texts" });
  root.append(asking, loading, error, ready);
  return {
    ...{ root, area, load, cancel, compose, stop, progress, loaded, about, error },
    ...{ asking, loading, ready },
  };
}

/** Draw the frame once; later calls fill it. */
function frame() {
  const id = `gptlib-sp-${(count += 1)}`;
  const select = /** @type {HTMLSelectElement} */ (h("select", { class: "gptlib-sp-select" }));
  const choose = h("label", { class: "gptlib-sp-choose" }, "Text ", select);
  const colors = makeColors(id);
  const scale = makeScale();
  const meaning = h("p", { class: "gptlib-sp-soft" });
  const text = div("text", {
    role: "listbox",
    tabindex: "0",
    "aria-label": "Tokens of the text",
    "aria-orientation": "horizontal",
    "data-lm-suppress-shortcuts": "true",
  });
  const ending = h("p", { class: "gptlib-sp-verdict" });
  const chart = s("svg", { class: "gptlib-sp-chart", height: HEIGHT, "aria-hidden": "true" });
  const [back, next] = [button("◀", "step"), button("▶", "step")];
  back.setAttribute("aria-label", "Token before");
  next.setAttribute("aria-label", "Next token");
  const [title, words] = [h("strong", { dir: "auto" }), h("p", { class: "gptlib-sp-words" })];
  const [costs, shares] = [makeSums(), makeShares()];
  const card = h("section", { class: "gptlib-sp-card", "aria-label": "The chosen token" });
  const tables = div("tables", {}, shares.root, costs.root);
  card.append(div("row", {}, back, next, title), words, tables);
  const trying = makeTry(id);
  const said = h("div", { class: "gptlib-sp-hidden", role: "status" });
  const head = div("head", {}, h("span", { class: "gptlib-title" }, "Surprise, token by token"));
  head.append(choose);
  const layout = div("layout", {}, head, div("row", {}, colors.root, scale.root), meaning, text);
  layout.append(ending, div("plot", {}, makeLegend(), chart), card, trying.root, said);
  const root = h("div", { class: "gptlib-root gptlib-sp" }, layout);
  return {
    ...{ id, root, select, choose, colors, scale, meaning, text, ending, chart, back, next },
    ...{ card, title, words, costs, shares, trying, said },
  };
}

/**
 * The chart of a text: the model's loss as bars, the exact surprisal as marks on them, the entropy
 * as a line of steps.
 * @param {Judged} judged
 * @param {number} width
 */
export function chartOf(judged, width) {
  const box = { left: 26, right: width - 2, top: 14, bottom: HEIGHT - 20 };
  const n = Math.max(judged.tokens.length, 1);
  const step = (box.right - box.left) / n;
  const values = [judged.loss, judged.surprisal, judged.entropy].flat();
  const { top, ticks } = scaleOf(values.reduce((a, b) => Math.max(a, b), 0));
  const x = (/** @type {number} */ i) => box.left + i * step;
  const y = (/** @type {number} */ value) => box.bottom - (value / top) * (box.bottom - box.top);
  const at = (/** @type {number[]} */ ...parts) => parts.map((part) => part.toFixed(1)).join(" ");
  const gap = step > 3 ? 0.5 : 0;
  const bars = judged.loss.map(
    (loss, i) =>
      `M${at(x(i) + gap, box.bottom)}V${at(y(loss))}H${at(x(i + 1) - gap)}V${at(box.bottom)}Z`,
  );
  const marks = judged.surprisal.map((value, i) =>
    value > 0.005 ? `M${at(x(i) - 0.5, y(value))}H${at(x(i + 1) + 0.5)}` : ""
  );
  const steps = judged.entropy.map((value, i) =>
    `${i ? "L" : "M"}${at(x(i), y(value))}H${at(x(i + 1))}`
  );
  return {
    box,
    step,
    ticks,
    x,
    y,
    bars: bars.join(""),
    marks: marks.join(""),
    steps: steps.join(""),
  };
}

/** @param {ReturnType<typeof chartOf>} chart @param {Judged} judged @returns {SVGElement[]} */
function drawnChart({ box, ticks, x, y, bars, marks, steps }, judged) {
  const { left, right, top, bottom } = box;
  const line = (/** @type {number} */ x1, /** @type {number} */ y1, more = {}) =>
    s("line", { class: "gptlib-sp-grid", x1, x2: x1, y1, y2: y1, ...more });
  const text = (
    /** @type {number} */ at,
    /** @type {number} */ high,
    /** @type {string} */ words,
  ) => s("text", { x: at, y: high, "text-anchor": "end" }, words);
  const leaves = judged.end?.kind === "leaves" ? known(judged) : judged.tokens.length;
  const gone = leaves < judged.tokens.length;
  const place = { x: x(leaves), y: top, width: right - x(leaves), height: bottom - top };
  const parts = [
    ...(gone ? [s("rect", { class: "gptlib-sp-gone", ...place })] : []),
    ...ticks.flatMap((tick) => [
      line(left, y(tick), { x2: right }),
      text(left - 5, y(tick) + 4, String(tick)),
    ]),
    s("path", { class: "gptlib-sp-bars", d: bars }),
    s("path", { class: "gptlib-sp-steps", d: steps }),
    s("path", { class: "gptlib-sp-marks", d: marks }),
    s("text", { x: 0, y: 9 }, "nats"),
    text(right, HEIGHT - 4, "tokens"),
  ];
  const room = right - x(leaves) > 150;
  if (gone) parts.push(text(right - 4, top + 13, room ? "no story from here on" : "∞"));
  return parts;
}

/**
 * What stands in a text for its tokens: text as it is, and an element for each token.
 * @param {Judged} judged
 * @param {string} id
 * @param {number} [from] the first token that is wanted
 */
function drawnTokens(judged, id, from = 0) {
  /** @type {HTMLElement[]} */
  const tokens = [];
  const nodes = judged.tokens.slice(from).flatMap((token, at) => {
    const i = from + at;
    const name = tokenAt(judged, i);
    const space = /^ (?=.)/s.exec(name)?.[0] ?? "";
    const shown = name === token ? Array.from(name.slice(space.length), visible).join("") : "end";
    const option = h(
      "span",
      { class: "gptlib-sp-token", role: "option", id: `${id}-${i}`, "data-index": String(i) },
      shown === " " ? "␣" : shown || "·",
    );
    if (name !== token) option.classList.add("gptlib-sp-end");
    tokens.push(option);
    return [...(space || name !== token ? [" "] : []), option, ...(/\n/.test(name) ? ["\n"] : [])];
  });
  return { tokens, nodes };
}

/** @param {Row} row @returns {HTMLElement} */
function drawnRow({ name, p, q, came, rest }) {
  const share = (/** @type {number | null} */ value, /** @type {string} */ kind) => {
    const fill = h("i", { class: `gptlib-sp-fill gptlib-sp-fill-${kind}` });
    fill.style.width = `${100 * Math.min(value || 0, 1)}%`;
    return h("td", {}, fill, h("span", {}, percent(value)));
  };
  const head = h("th", { scope: "row", dir: "auto" }, rest ? name : label(name));
  if (came) head.append(h("span", { class: "gptlib-sp-came" }, "came"));
  const kind = came ? "this" : rest ? "rest" : "one";
  return h("tr", { class: `gptlib-sp-${kind}` }, head, share(p, "p"), share(q, "q"));
}

/** @returns {Judged} of a text of which nothing is known yet */
const unknown = () => ({
  ...{ tokens: [], loss: [], surprisal: [], entropy: [], possible: [], shares: [] },
  ...{ names: {}, end: null },
});

/**
 * @param {{ model: Model, el: HTMLElement }} context
 * @returns {() => void}
 */
function render({ model, el }) {
  const view = frame();
  const { trying } = view;
  /** @type {Judged | null} */
  let own = null; // a text that is judged here
  /** @type {number[]} */
  let ids = []; // its tokens
  /** @type {[number, number][][]} */
  let likeliest = []; // of the grammar, at each of them
  let asked = new Set(); // of which tokens the model's alternatives are known, or on their way
  let ownToken = 0;
  let hovered = -1;
  /** @type {HTMLElement[]} */
  let tokens = [];
  /** @type {ReturnType<typeof chartOf> | null} */
  let chart = null;
  let width = 0;
  const band = s("rect", { class: "gptlib-sp-band", y: 14, height: HEIGHT - 34 });
  const pointer = s("path", { class: "gptlib-sp-pointer", d: "M0 0l5 8h-10Z" });

  /** @type {any} */
  let engine = null;
  /** @type {Awaited<ReturnType<typeof openGrammar>> | null} */
  let grammar = null;
  let attempt = 0; // to load; a later one, or none, makes it void
  let stop = new AbortController(); // of the load under way
  let run = 0; // of the model; the same
  let typing = 0; // timers
  let frameAsked = 0;
  let patience = 0;

  /** @returns {Judged[]} */
  const stored = () => model.get("stories");
  /** @returns {Judged} */
  const shown = () => own ?? stored()[model.get("chosen") ?? 0] ?? stored()[0];
  const color = () => (model.get("color") in COLORS ? model.get("color") : "loss");
  /** @returns {number} the chosen token */
  const token = () => {
    const last = Math.max(shown().tokens.length - 1, 0);
    return Math.min(Math.max(own ? ownToken : (model.get("token") ?? 0), 0), last);
  };

  // --- what is shown ----------------------------------------------------------------------------

  /** Another text, or more tokens of it. */
  function drawText() {
    const judged = shown();
    const drawn = drawnTokens(judged, view.id);
    tokens = drawn.tokens;
    view.text.replaceChildren(...drawn.nodes);
    drawChoice();
    drawValues();
  }

  /** More is known of the same tokens. */
  function drawValues() {
    const judged = shown();
    tokens.forEach((element, i) => {
      const [loss, exact] = ["loss", "surprisal"].map((name) => valueOf(judged, i, name));
      const name = quote(tokenAt(judged, i));
      element.setAttribute("aria-label", `${name}, loss ${nats(loss)}, exact ${nats(exact)}`);
      element.classList.toggle(
        "gptlib-sp-lost",
        judged.end?.kind === "leaves" && i === known(judged),
      );
    });
    write(view.ending, verdict(judged));
    view.ending.classList.toggle("gptlib-sp-right", judged.end?.kind === "whole");
    drawColors();
    drawChart();
    drawToken();
  }

  function drawColors() {
    const [judged, by] = [shown(), color()];
    for (const input of view.colors.inputs) input.checked = input.value === by;
    tokens.forEach((element, i) => {
      const value = valueOf(judged, i, by);
      const level = Number.isNaN(value) ? "none" : String(levelOf(value, by));
      if (element.dataset.level !== level) element.dataset.level = level;
    });
    write(view.meaning, colorWords(by, judged));
    for (const { level, name, root } of view.scale.swatches) {
      root.hidden = level < 0 && by !== "excess";
      const edge = level ? COLORS[by].steps[Math.abs(level) - 1] : 0;
      write(name, level < 0 ? `−${edge}` : String(edge));
    }
  }

  function drawChart() {
    width = view.chart.clientWidth;
    if (!width) return;
    chart = chartOf(shown(), width);
    view.chart.replaceChildren(band, ...drawnChart(chart, shown()), pointer);
    drawBand();
  }

  function drawBand() {
    if (!chart) return;
    const i = hovered >= 0 ? hovered : token();
    const wide = Math.max(chart.step, 3);
    band.setAttribute("x", (chart.x(i) - (wide - chart.step) / 2).toFixed(1));
    band.setAttribute("width", wide.toFixed(1));
    const middle = chart.x(i) + chart.step / 2;
    pointer.setAttribute("transform", `translate(${middle.toFixed(1)} ${chart.box.bottom + 2})`);
  }

  /** The token that is hovered, else the chosen one. */
  function drawToken() {
    const judged = shown();
    const [chosen, last] = [token(), judged.tokens.length - 1];
    const i = Math.min(hovered >= 0 ? hovered : chosen, Math.max(last, 0));
    drawBand();
    tokens.forEach((element, at) => {
      element.setAttribute("aria-selected", String(at === chosen));
      element.classList.toggle("gptlib-sp-here", at === i);
    });
    if (tokens[chosen]) view.text.setAttribute("aria-activedescendant", tokens[chosen].id);
    else view.text.removeAttribute("aria-activedescendant");
    view.back.disabled = chosen <= 0;
    view.next.disabled = chosen >= last;
    view.card.hidden = last < 0;
    if (last < 0) return;
    write(view.title, `Token ${i + 1} of ${last + 1}: ${quote(tokenAt(judged, i))}`);
    write(view.words, explain(judged, i));
    drawSums(judged, i);
    drawShares(judged, i);
    if (own) fetchShares(judged, i);
  }

  /** @param {Judged} judged @param {number} i */
  function drawSums(judged, i) {
    const here = Object.fromEntries(Object.keys(COLORS).map((by) => [by, valueOf(judged, i, by)]));
    const columns = [
      { ...here, entropy: judged.entropy[i] ?? NaN },
      sums(judged, i + 1),
      sums(judged),
    ];
    write(view.costs.all, judged.end?.kind === "leaves" ? "while a story" : "all");
    for (const { name, cells } of view.costs.rows) {
      cells.forEach((cell, column) => {
        const value = /** @type {any} */ (columns[column])[name];
        write(cell, name === "excess" && Number.isFinite(value) ? signed(value) : nats(value));
      });
    }
  }

  /** @param {Judged} judged @param {number} i */
  function drawShares(judged, i) {
    const { rows, others } = rowsOf(judged, i);
    view.shares.body.replaceChildren(...[...rows, ...(others ? [others] : [])].map(drawnRow));
  }

  function drawChoice() {
    const names = stored().map((one) => `${one.tokens.slice(0, 9).join("")} …`);
    const wanted = [...names, ...(own ? ["Your own"] : [])];
    const options = Array.from(view.select.options, (option) => option.text);
    if (String(wanted) !== String(options)) {
      view.select.replaceChildren(
        ...wanted.map((text, i) => h("option", { value: String(i) }, text)),
      );
    }
    view.select.value = String(own ? names.length : (model.get("chosen") ?? 0));
    view.choose.hidden = wanted.length < 2;
  }

  // --- a text of the reader, or of the model ----------------------------------------------------

  /** What could come at a token: the grammar's at once, the model's when it has answered. */
  async function fetchShares(/** @type {Judged} */ judged, /** @type {number} */ i) {
    if (!engine || !grammar || asked.has(i) || judged.loss[i] === undefined) return;
    asked.add(i);
    judged.shares[i] = triples(judged, i, new Map());
    drawShares(judged, i);
    const answer = await engine.ask("alternatives", { index: i + 1, count: 2048 }).catch(() =>
      null
    );
    if (!answer || own !== judged) return; // out of view: only the grammar's are known
    const given = new Map(answer.alternatives.map((/** @type {any} */ one) => [one.id, one.own]));
    judged.shares[i] = triples(judged, i, given);
    if (i === (hovered >= 0 ? hovered : token())) drawShares(judged, i);
  }

  /**
   * @param {Judged} judged
   * @param {number} i
   * @param {Map<number, number>} given the model's probabilities, the likeliest first
   */
  function triples(judged, i, given) {
    const exact = new Map(likeliest[i] ?? []);
    const there = i < judged.entropy.length;
    const best = [exact, given].flatMap((known) => [...known.keys()].slice(0, LIKELIEST));
    const wanted = new Set([ids[i], ...best]);
    return [...wanted].flatMap((id) => {
      const [p, q] = [exact.get(id) ?? (there ? 0 : null), given.get(id) ?? null];
      if (id !== ids[i] && Math.max(p ?? 0, q ?? 0) < 0.0005) return [];
      judged.names[id] = /** @type {any} */ (grammar).words.textOf(id);
      return [id, p, q];
    });
  }

  /**
   * Judge a text token by token.
   * @param {{ text: string } | { ids: number[] }} request
   * @param {number} mine the run
   */
  async function judge(request, mine) {
    const { words, begin } = /** @type {NonNullable<typeof grammar>} */ (grammar);
    let fed = await engine.ask("feed", request);
    const length = fed.ids.length - 1;
    if (length > MOST) fed = await engine.ask("feed", { ids: fed.ids.slice(0, MOST + 1) });
    if (mine !== run) return;
    const cut = length > MOST ? ` The first ${MOST} of ${plural(length, "token")} are judged.` : "";
    write(trying.error, cut.trim());
    const judged = { ...unknown(), tokens: fed.texts.slice(1) };
    [own, ids, likeliest, asked] = [judged, fed.ids.slice(1), [], new Set()];
    ownToken = Math.min(ownToken, judged.tokens.length - 1);
    const { likeliest: best, ...exact } = await follow(begin(), ids, words, () => mine !== run);
    if (mine !== run) return;
    if (exact.end.kind === "whole" && ids.at(-1) !== words.endOfText) {
      ids.push(words.endOfText);
      judged.tokens.push("");
    }
    Object.assign(judged, exact);
    likeliest = best;
    drawText();
    await engine.ask("losses", { ids: [fed.ids[0], ...ids] }, (/** @type {any} */ part) => {
      if (mine !== run) return;
      judged.loss.push(...part.values);
      askFrame(drawValues);
    });
    if (mine !== run) return;
    drawValues();
    const { loss, surprisal } = sums(judged);
    write(
      view.said,
      `${verdict(judged)}${cut} Loss ${nats(loss)}, exact surprisal ${nats(surprisal)} nats.`,
    );
  }

  /** @param {() => void} draw */
  function askFrame(draw) {
    frameAsked ||= requestAnimationFrame(() => {
      frameAsked = 0;
      draw();
    });
  }

  /** The text while it is written: only what is new. */
  function drawWritten() {
    const drawn = drawnTokens(shown(), view.id, tokens.length);
    tokens.push(...drawn.tokens);
    view.text.append(...drawn.nodes);
  }

  /**
   * Do something with the model; what was under way is void.
   * @param {(mine: number) => Promise<void>} work
   */
  async function use(work) {
    const mine = ++run;
    write(trying.error, "");
    try {
      await work(mine);
    } catch (error) {
      if (mine === run) fail(error);
    }
  }

  /** The model writes a story at temperature 1, which is then judged. */
  function compose() {
    let stopped = false;
    trying.stop.onclick = () => {
      stopped = true;
      engine?.ask("stop");
    };
    return use(async (mine) => {
      /** @type {number[]} */
      const written = [];
      await engine.ask("feed", { text: "" });
      own = unknown();
      [ids, likeliest, ownToken, hovered] = [[], [], 0, -1];
      drawText();
      setWriting(true);
      write(view.said, "The model writes.");
      const settings = { count: LONGEST, sampling: { temperature: 1 } };
      await engine.ask("continue", settings, (/** @type {any} */ part) => {
        if (mine !== run || part.type !== "token") return;
        written.push(part.token);
        /** @type {Judged} */ (own).tokens.push(part.text);
        askFrame(drawWritten);
      });
      if (mine !== run) return;
      setWriting(false);
      if (stopped && !written.length) return choose(model.get("chosen") ?? 0);
      const end = /** @type {NonNullable<typeof grammar>} */ (grammar).words.endOfText;
      trying.area.value = /** @type {Judged} */ (own).tokens.join("");
      await judge({ ids: [end, ...written] }, mine);
      if (mine === run) chooseToken(telling(shown()));
    });
  }

  /** @param {boolean} writing */
  function setWriting(writing) {
    trying.compose.hidden = writing;
    trying.stop.hidden = !writing;
    trying.area.readOnly = writing;
  }

  /** @param {unknown} error */
  function fail(error) {
    engine?.close();
    [engine, grammar] = [null, null];
    attempt += 1;
    setWriting(false);
    if (own && !own.loss.length) choose(model.get("chosen") ?? 0); // nothing is known of it
    const message = error instanceof Error ? error.message : String(error);
    write(trying.error, /[.!?]$/.test(message) ? message : `${message}.`);
    drawPhase("again");
  }

  /** @param {"asking" | "again" | "loading" | "ready"} phase */
  function drawPhase(phase) {
    const bytes = model.get("weights") ?? 0;
    const size = `${(bytes / 1e6).toFixed(1)} MB`;
    trying.root.hidden = !bytes;
    trying.asking.hidden = phase !== "asking" && phase !== "again";
    trying.loading.hidden = phase !== "loading";
    trying.ready.hidden = phase !== "ready";
    write(trying.load, phase === "again" ? "Try again" : `Load the model (${size})`);
    write(
      trying.about,
      "It then runs here, with the exact grammar beside it: change the story, type another, or " +
        "let the model write one.",
    );
  }

  async function load() {
    const mine = (attempt += 1);
    write(trying.error, "");
    drawPhase("loading");
    trying.progress.removeAttribute("value");
    write(trying.loaded, "");
    trying.cancel.focus();
    clearTimeout(patience);
    patience = window.setTimeout(() => {
      if (!model.get("grammar")) write(trying.loaded, "Waiting for Python. Is the kernel running?");
    }, 4000);
    const own = (stop = new AbortController());
    const progress = (/** @type {any} */ { loaded, total }) => {
      if (mine !== attempt) return;
      clearTimeout(patience);
      trying.progress.value = loaded / total;
      write(trying.loaded, `${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`);
    };
    try {
      const opening = openModel(model, progress, own.signal);
      const [opened, found] = await Promise.all([opening, openGrammar(model)]);
      if (mine !== attempt) return;
      [engine, grammar] = [opened, found];
    } catch (error) {
      own.abort(); // if it was the grammar that did not come
      if (mine === attempt) fail(error);
      return;
    } finally {
      if (mine === attempt) clearTimeout(patience);
    }
    trying.area.value = textOf(shown());
    setWriting(false);
    drawPhase("ready");
    write(view.said, "The model is loaded.");
    trying.compose.focus();
  }

  /** @param {Judged} judged @returns {string} */
  const textOf = (judged) => judged.tokens.join("");

  // --- what the reader does -----------------------------------------------------------------------

  /** @param {Record<string, unknown>} values */
  function set(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  }

  /** A stored story. @param {number} number */
  function choose(number) {
    run += 1;
    setWriting(false);
    if (engine) engine.ask("stop").catch(() => {});
    own = null;
    hovered = -1;
    const story = stored()[number];
    trying.area.value = textOf(story);
    write(trying.error, "");
    set({ chosen: number, token: telling(story) });
    drawText();
  }

  /** @param {number} i */
  function chooseToken(i) {
    hovered = -1;
    const last = shown().tokens.length - 1;
    const found = Math.min(Math.max(i, 0), last);
    if (own) {
      ownToken = found;
      drawToken();
    } else if (found === token()) drawToken();
    else set({ token: found });
  }

  /** @param {number} i */
  function hover(i) {
    if (i === hovered || i >= shown().tokens.length) return;
    hovered = i;
    drawToken();
  }

  /** The token above or below another one. @param {number} from @param {number} way */
  function acrossLines(from, way) {
    const boxes = tokens.map((element) => element.getBoundingClientRect());
    const here = boxes[from];
    const lines = boxes
      .map((box, i) => ({
        i,
        rise: (box.top - here.top) * way,
        off: Math.abs(box.left - here.left),
      }))
      .filter(({ rise }) => rise > here.height / 2);
    const nearest = Math.min(...lines.map(({ rise }) => rise));
    const line = lines.filter(({ rise }) => rise < nearest + here.height / 2);
    return line.sort((a, b) => a.off - b.off)[0]?.i ?? from;
  }

  /** @param {KeyboardEvent} event */
  function onTextKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !tokens.length) return;
    const here = token();
    /** @type {Record<string, () => number>} */
    const targets = {
      ArrowLeft: () => here - 1,
      ArrowRight: () => here + 1,
      ArrowUp: () => acrossLines(here, -1),
      ArrowDown: () => acrossLines(here, 1),
      Home: () => 0,
      End: () => tokens.length - 1,
    };
    if (!Object.hasOwn(targets, event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    chooseToken(targets[event.key]());
  }

  /** @param {PointerEvent} event @returns {number} the token under the pointer in the text, or -1 */
  function inText(event) {
    const found = /** @type {HTMLElement} */ (event.target).closest("[data-index]");
    return Number(/** @type {HTMLElement} */ (found)?.dataset.index ?? -1);
  }

  /** @param {PointerEvent} event @returns {number} the token under the pointer in the chart */
  function inChart(event) {
    if (!chart) return 0;
    const place = event.clientX - view.chart.getBoundingClientRect().left - chart.box.left;
    const last = shown().tokens.length - 1;
    return Math.min(Math.max(Math.floor(place / chart.step), 0), last);
  }

  view.text.addEventListener("keydown", onTextKey);
  view.text.addEventListener("click", (event) => {
    const i = inText(/** @type {PointerEvent} */ (event));
    if (i >= 0) chooseToken(i);
  });
  view.text.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch") hover(inText(event));
  });
  view.text.addEventListener("pointerleave", () => hover(-1));
  view.chart.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    view.chart.setPointerCapture(event.pointerId);
    chooseToken(inChart(event));
  });
  view.chart.addEventListener("pointermove", (event) => {
    if (event.buttons) chooseToken(inChart(event));
    else if (event.pointerType !== "touch") hover(inChart(event));
  });
  view.chart.addEventListener("pointerleave", () => hover(-1));
  view.back.addEventListener("click", () => chooseToken(token() - 1));
  view.next.addEventListener("click", () => chooseToken(token() + 1));
  for (const input of view.colors.inputs) {
    input.addEventListener("change", () => set({ color: input.value }));
  }
  view.select.addEventListener("change", () => {
    const number = Number(view.select.value);
    if (stored()[number]) choose(number);
  });
  trying.load.addEventListener("click", load);
  trying.cancel.addEventListener("click", () => {
    attempt += 1;
    stop.abort();
    clearTimeout(patience);
    drawPhase("asking");
    write(view.said, "Not loaded.");
    trying.load.focus();
  });
  trying.compose.addEventListener("click", compose);
  trying.area.addEventListener("input", () => {
    clearTimeout(typing);
    typing = window.setTimeout(() => {
      const text = trying.area.value;
      if (!engine) return;
      if (text) use((mine) => judge({ text }, mine));
      else write(trying.error, "Type a text: of an empty one, nothing can be said.");
    }, 400);
  });

  setWriting(false);
  drawPhase("asking");
  el.append(view.root);
  drawText();

  const resized = new ResizeObserver(() => {
    if (view.chart.clientWidth !== width) drawChart();
  });
  resized.observe(view.chart);

  const ifStored = (/** @type {() => void} */ draw) => () => own || draw();
  /** @type {[string, () => void][]} */
  const listeners = [
    ["change:stories", ifStored(drawText)],
    ["change:chosen", ifStored(drawText)],
    ["change:token", ifStored(drawToken)],
    ["change:color", drawColors],
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    [attempt, run] = [attempt + 1, run + 1];
    stop.abort();
    clearTimeout(typing);
    clearTimeout(patience);
    cancelAnimationFrame(frameAsked);
    engine?.close();
    engine = null;
    resized.disconnect();
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}

export default { render };
