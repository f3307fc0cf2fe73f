// How surprising each token of a story is: what a model loses at it, against what the best possible
// predictor loses, which knows the grammar. Python stores this of a few stories. Any other text is
// judged here, by the mini model (gpt.js, in a worker) and the exact grammar (story_follower.js).

import { at, levels, measured } from "./lib/chart.js";
import { openModel, request } from "./lib/engine.js";
import {
  announcer,
  button,
  classes,
  define,
  guard,
  html,
  inline,
  live,
  nothing,
  onFrame,
  radios,
  select,
  svg,
  uniqueName,
} from "./lib/kit.js";
import { link } from "./lib/link.js";
import { megabytes, plural, sum } from "./lib/numbers.js";
import { moved, withModifier } from "./lib/rove.js";
import { inked, MARKS, orList } from "./lib/tokens.js";

/** @import { Widget } from "./lib/kit.js" */
/** @import { Model } from "./lib/types.d.ts" */
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
 */

// --- Arithmetic ----------------------------------------------------------------------------------

const LIKELIEST = 4; // of the grammar, and of the model, that are listed for a text judged here
export const MOST = 400; // tokens that are judged here
const LONGEST = 255; // tokens of a story that the model writes

/** @type {Record<string, { title: string, steps: number[] }>} */
export const COLORS = {
  loss: { title: "Model’s loss", steps: [0.1, 0.5, 1, 2, 4] },
  surprisal: { title: "Exact surprisal", steps: [0.1, 0.5, 1, 2, 4] },
  excess: { title: "Excess", steps: [0.05, 0.2, 0.5, 1, 2] },
};

/** @param {Judged} judged @returns {number} how many tokens are a story's */
export const known = (judged) => judged.surprisal.length;

/** What a token is colored by, in nats: NaN where it is not known.
 * @param {Judged} judged @param {number} i @param {string} color one of COLORS */
export function valueOf(judged, i, color) {
  const [loss, surprisal] = [judged.loss[i] ?? NaN, judged.surprisal[i] ?? NaN];
  if (color === "loss") return loss;
  if (color === "surprisal") return isThere(judged, i) ? Infinity : surprisal;
  return loss - surprisal;
}

/** @param {Judged} judged @returns {boolean} whether the token after the known is no story's */
const isLost = (judged) => judged.end?.kind === "leaves";

/** @param {Judged} judged @param {number} i @returns {boolean} whether the text leaves here */
const isThere = (judged, i) => i === known(judged) && isLost(judged);

/** @param {number} value in nats @param {string} color @returns {number} -5 to 5; 0 is faint */
export function levelOf(value, color) {
  const size = Math.abs(value);
  const level = COLORS[color].steps.filter((step) => size >= step).length;
  return value < 0 ? -level : level;
}

/** Sums over the first tokens, as far as they are a story's; of the loss also where they are not.
 * @param {Judged} judged @param {number} count of tokens */
export function sums(judged, count = judged.tokens.length) {
  const upTo = Math.min(count, known(judged), judged.loss.length);
  const [loss, surprisal, entropy] = [judged.loss, judged.surprisal, judged.entropy]
    .map((values) => sum(values.slice(0, upTo)));
  return { loss, surprisal, excess: loss - surprisal, entropy };
}

/** The tokens that could come at a place, the likeliest by the grammar first, and what is left.
 * @param {Judged} judged @param {number} i @returns {{ rows: Row[], others: Row | null }} */
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

/** @param {Judged} judged @param {number} i @param {Row[]} rows @returns {Row | null} */
function othersOf(judged, i, rows) {
  const rest = (/** @type {"p" | "q"} */ name) => {
    const values = rows.map((row) => row[name]);
    if (values.some((value) => value === null)) return null;
    return Math.max(1 - sum(values.map(Number)), 0);
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

// --- Words ---------------------------------------------------------------------------------------

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

/** @param {string} character @returns {string} one that leaves ink, or a space */
const readable = (character) => character === " " ? " " : MARKS[character] ?? inked(character);

/** @param {string} token @returns {string} what to show for it, spaces marked */
export function nameOf(token) {
  if (token === "<|endoftext|>") return "end of the text";
  return Array.from(token, (one) => MARKS[one] ?? inked(one)).join("") || "part of a character";
}

/** @param {string} token @returns {string} in quotes, for a sentence */
export function quote(token) {
  if (token === "<|endoftext|>") return "the end of the text";
  const words = Array.from(token.trim(), readable).join("");
  return words ? `“${words}”` : nameOf(token) === "␣" ? "a space" : nameOf(token);
}

/** @param {string[]} words @param {number} others @returns {string} a, b or 3 others */
export const either = (words, others) =>
  orList([...words.map(quote), ...(others ? [plural(others, "other")] : [])]) || "nothing";

/** @param {Judged} judged @param {number} i @returns {string} the token's text, its end named */
export const tokenAt = (judged, i) =>
  i === judged.tokens.length - 1 && judged.tokens[i] === "" ? "<|endoftext|>" : judged.tokens[i];

/** @param {Judged} judged @returns {string} how a text ends, for the grammar */
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

/** A token in words: what the model lost, what the best predictor loses, and what it expected.
 * @param {Judged} judged @param {number} i @returns {string} */
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
    const loss = nats(sum(judged.loss));
    return `−log of the model’s probability of the token. Together ${loss} nats.`;
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

// --- The model and the grammar in the page -------------------------------------------------------

/** @param {Model} model the widget's @returns what follows a text, by the exact grammar */
async function openGrammar(model) {
  const { urls, grammar, vocabulary } = await sourcesOf(model);
  const load = (/** @type {string} */ url) => import(url);
  const [{ Follower }, { Tokenizer, pieces }] = await Promise.all(urls.map(load));
  const tokenizer = new Tokenizer(vocabulary);
  const { endOfText } = tokenizer;
  const words = {
    pieces,
    endOfText,
    encode: (/** @type {string} */ text) => tokenizer.encode(text),
    textOf(/** @type {number} */ id) {
      if (id === endOfText) return "<|endoftext|>";
      return new TextDecoder("utf-8", { ignoreBOM: true }).decode(tokenizer.bytesOf(id));
    },
  };
  return { words, begin: () => new Follower(grammar, words) };
}

const MODULES = ["page/story_follower.js", "page/gpt.js"];

/** A page has them among its files; in Jupyter the kernel sends them. @param {Model} model */
async function sourcesOf(model) {
  if (!model.get("grammar")) {
    const { modules, ...data } = (await request(model, "grammar")).answer;
    const urls = link(modules);
    return { urls: MODULES.map((name) => urls[name]), ...data };
  }
  const files = ["grammar", "vocabulary"].map((name) => model.get(name).load());
  const [grammar, vocabulary] = await Promise.all(files).catch(({ message }) => {
    throw new Error(`The grammar's files do not arrive: ${message}.`);
  });
  const urls = MODULES.map((name) => new URL(name, import.meta.url).href);
  return { urls, grammar, vocabulary };
}

const SLICE = 12; // milliseconds of work, then the page may draw and answer

/** What the grammar knows of a text: as in Python's `judge`, with all next tokens by place.
 * @param {any} follower new
 * @param {number[]} ids without the end of the text, unless the model wrote it
 * @param {{ endOfText: number, textOf(id: number): string }} words
 * @param {() => boolean} outdated whether nobody waits for this any more */
export async function follow(follower, ids, words, outdated = () => false) {
  /** @type {{ surprisal: number[], entropy: number[], possible: number[] }} */
  const found = { surprisal: [], entropy: [], possible: [] };
  /** @type {[number, number][][]} */
  const likeliest = [];
  /** @type {End["kind"]} */
  let kind = "breaks";
  const look = (/** @type {number} */ id) => {
    found.entropy.push(follower.entropy);
    found.possible.push(follower.next.size);
    likeliest.push(follower.likeliest());
    kind = follower.next.has(id) ? "breaks" : "leaves";
    if (kind === "breaks") found.surprisal.push(follower.read(id).surprisal);
    return kind;
  };
  let begun = performance.now();
  for (const id of ids) {
    if (performance.now() - begun > SLICE) {
      await new Promise((resolve) => setTimeout(resolve));
      if (outdated()) break;
      begun = performance.now();
    }
    if (look(id) === "leaves") break;
  }
  if (kind === "breaks") {
    if (ids.at(-1) !== words.endOfText && follower.next.has(words.endOfText)) look(words.endOfText);
    if (!follower.next.size) kind = "whole";
  }
  const expected = follower.likeliest(5).map((/** @type {number[]} */ [id]) => words.textOf(id));
  const others = Math.max(follower.next.size - expected.length, 0);
  return { ...found, likeliest, end: kind === "whole" ? { kind } : { kind, expected, others } };
}

// --- What is shown, and what the reader does -----------------------------------------------------

/** @returns {Judged} of a text of which nothing is known yet */
const unknown = () => ({
  ...{ tokens: [], loss: [], surprisal: [], entropy: [], possible: [], shares: [] },
  ...{ names: {}, end: null },
});

/** @param {Judged} judged @returns {string} */
const textOf = (judged) => judged.tokens.join("");

/** Which text is looked at, and which of its tokens. */
class Reading {
  /** A text that is judged here. @type {Judged | null} */ own = null;
  ownToken = 0;
  hovered = -1;
  draft = ""; // what stands in the box for other texts
  id = uniqueName();
  said = announcer(0);

  /** @param {Widget} widget */
  constructor(widget) {
    this.widget = widget;
    this.model = widget.model;
    this.chart = measured(widget.update);
  }

  /** @returns {Judged[]} */
  stories = () => this.model.get("stories");
  chosen = () => this.model.get("chosen") ?? 0; // of the stories
  /** @returns {Judged} */
  shown = () => this.own ?? this.stories()[this.chosen()] ?? this.stories()[0];
  last = () => Math.max(this.shown().tokens.length - 1, 0);
  /** @param {number} i */
  within = (i) => Math.min(Math.max(i, 0), this.last());
  token = () => this.within(this.own ? this.ownToken : this.model.get("token") ?? 0);
  /** The token that is hovered, else the chosen one. */
  looked = () => this.hovered < 0 ? this.token() : this.within(this.hovered);
  /** @returns {string} */
  color = () => this.model.get("color") in COLORS ? this.model.get("color") : "loss";

  /** @param {Partial<Lab>} changes */
  show(changes) {
    Object.assign(this, changes);
    this.widget.update();
  }

  /** A stored story. @param {number} number */
  choose(number) {
    const story = this.stories()[number];
    this.show({ own: null, hovered: -1, draft: textOf(story) });
    this.widget.save({ chosen: number, token: telling(story) });
  }

  /** @param {number} i */
  chooseToken(i) {
    const found = this.within(i);
    if (!this.own && found !== this.token()) this.widget.save({ token: found });
    this.show({ hovered: -1, ownToken: this.own ? found : this.ownToken });
  }

  /** @param {number} i */
  hover(i) {
    if (i !== this.hovered) this.show({ hovered: i });
  }

  /** The token above or below another one. @param {number} from @param {number} way */
  acrossLines(from, way) {
    const tokens = [...this.widget.root.querySelectorAll("[data-index]")];
    const boxes = tokens.map((element) => element.getBoundingClientRect());
    const { top, left, height } = boxes[from];
    const lines = boxes
      .map((box, i) => ({ i, rise: (box.top - top) * way, off: Math.abs(box.left - left) }))
      .filter(({ rise }) => rise > height / 2);
    const nearest = Math.min(...lines.map(({ rise }) => rise));
    const line = lines.filter(({ rise }) => rise < nearest + height / 2);
    return line.sort((a, b) => a.off - b.off)[0]?.i ?? from;
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const [count, here] = [this.shown().tokens.length, this.token()];
    if (withModifier(event) || !count) return;
    const way = Number(event.key === "ArrowDown") - Number(event.key === "ArrowUp");
    const keys = { back: ["ArrowLeft"], on: ["ArrowRight"], page: 0 };
    const to = way ? this.acrossLines(here, way) : moved(event.key, here, count, keys);
    if (to === null) return;
    event.preventDefault();
    event.stopPropagation();
    this.chooseToken(to);
  }
}

/** Other texts: the model and the grammar judge them here, and the model writes some itself. */
class Lab extends Reading {
  phase = "asking"; // or "again", "loading", "ready"
  error = "";
  focus = false; // whether the button for other texts takes it once it is drawn
  /** How far the model has come, and in words. @type {{ share?: number, words: string }} */
  progress = { words: "" };
  writing = false;
  stopped = false; // by the reader
  typing = 0;
  /** @type {any} */ engine = null;
  /** @type {Awaited<ReturnType<typeof openGrammar>> | null} */ grammar = null;
  loading = new AbortController(); // the last time
  work = new AbortController(); // of the model, the last time
  /** The tokens of the reader's own text. @type {number[]} */ ids = [];
  /** Of the grammar, at each of them. @type {[number, number][][]} */ likeliest = [];
  asked = new Set(); // of which tokens the model's alternatives are known, or on their way
  frame = onFrame(this.widget.update);

  async load() {
    const loading = this.loading = new AbortController();
    const { signal } = loading;
    this.show({ phase: "loading", error: "", focus: true, progress: { words: "" } });
    const patience = setTimeout(() => {
      const words = "Waiting for Python. Is the kernel running?";
      if (!signal.aborted && !this.model.get("grammar")) this.show({ progress: { words } });
    }, 4000);
    const onProgress = (/** @type {{ loaded: number, total: number }} */ { loaded, total }) => {
      if (signal.aborted) return;
      clearTimeout(patience);
      const words = `${megabytes(loaded)} of ${megabytes(total)} MB`;
      this.show({ progress: { share: loaded / total, words } });
    };
    try {
      const opening = openModel(this.model, onProgress, signal);
      const [engine, grammar] = await Promise.all([opening, openGrammar(this.model)]);
      if (signal.aborted) return;
      this.show({ engine, grammar, phase: "ready", focus: true, draft: textOf(this.shown()) });
      this.said.say("The model is loaded.");
    } catch (error) {
      if (signal.aborted) return;
      loading.abort(); // if it was the grammar that did not come
      this.fail(error);
    } finally {
      clearTimeout(patience);
    }
  }

  cancel() {
    this.loading.abort();
    this.said.say("Not loaded.");
    this.show({ phase: "asking", focus: true });
  }

  /** @param {unknown} error */
  fail(error) {
    this.engine?.close();
    [this.engine, this.grammar, this.writing] = [null, null, false];
    if (this.own && !this.own.loss.length) this.choose(this.chosen()); // nothing is known of it
    const message = error instanceof Error ? error.message : String(error);
    this.show({ phase: "again", error: /[.!?]$/.test(message) ? message : `${message}.` });
  }

  /** @override @param {number} number */
  choose(number) {
    this.work.abort();
    clearTimeout(this.typing);
    this.engine?.ask("stop").catch(() => {});
    [this.writing, this.error] = [false, ""];
    super.choose(number);
  }

  /** Do something with the model; what was under way is void.
   * @param {(signal: AbortSignal) => Promise<void>} work */
  async use(work) {
    this.work.abort();
    const { signal } = this.work = new AbortController();
    this.show({ error: "" });
    try {
      await work(signal);
    } catch (error) {
      if (!signal.aborted) this.fail(error);
    }
  }

  /** @param {string} text */
  type(text) {
    this.draft = text;
    clearTimeout(this.typing);
    this.typing = window.setTimeout(() => {
      if (!this.engine) return;
      if (text) this.use((signal) => this.judge({ text }, signal));
      else this.show({ error: "Type a text: of an empty one, nothing can be said." });
    }, 400);
  }

  /** The model writes a story at temperature 1, which is then judged. */
  write = () =>
    this.use(async (signal) => {
      await this.engine.ask("feed", { text: "" });
      if (signal.aborted) return;
      const own = unknown();
      /** @type {number[]} */
      const written = [];
      this.show({ own, ownToken: 0, hovered: -1, writing: true, stopped: false });
      this.said.say("The model writes.");
      const settings = { count: LONGEST, sampling: { temperature: 1 } };
      await this.engine.ask("continue", settings, (/** @type {any} */ part) => {
        if (signal.aborted || part.type !== "token") return;
        written.push(part.token);
        own.tokens.push(part.text);
        this.frame.ask();
      });
      if (signal.aborted) return;
      if (this.stopped && !written.length) return this.choose(this.chosen());
      this.draft = textOf(own);
      await this.judge({ ids: [this.words().endOfText, ...written] }, signal);
      if (!signal.aborted) this.chooseToken(telling(this.shown()));
    });

  stop() {
    this.stopped = true;
    this.engine?.ask("stop");
  }

  words = () => /** @type {NonNullable<typeof this.grammar>} */ (this.grammar).words;

  /** Judge a text token by token.
   * @param {{ text: string } | { ids: number[] }} request @param {AbortSignal} signal */
  async judge(request, signal) {
    const [engine, { endOfText }] = [this.engine, this.words()];
    let fed = await engine.ask("feed", request);
    const length = fed.ids.length - 1;
    const error = length > MOST
      ? `The first ${MOST} of ${plural(length, "token")} are judged.`
      : "";
    if (error) fed = await engine.ask("feed", { ids: fed.ids.slice(0, MOST + 1) });
    if (signal.aborted) return;
    const [begin, ...ids] = fed.ids;
    const follower = this.grammar?.begin();
    const found = await follow(follower, ids, this.words(), () => signal.aborted);
    if (signal.aborted) return;
    const { likeliest, ...exact } = found;
    const own = { ...unknown(), tokens: fed.texts.slice(1), ...exact };
    const ownToken = Math.min(this.ownToken, own.tokens.length - 1);
    if (exact.end.kind === "whole" && ids.at(-1) !== endOfText) {
      ids.push(endOfText);
      own.tokens.push("");
    }
    const asked = new Set();
    this.show({ own, ownToken, ids, likeliest, asked, writing: false, error });
    await engine.ask("losses", { ids: [begin, ...ids] }, (/** @type {any} */ part) => {
      own.loss.push(...part.values);
      this.frame.ask();
    });
    if (signal.aborted) return;
    const { loss, surprisal } = sums(own);
    const costs = `Loss ${nats(loss)}, exact surprisal ${nats(surprisal)} nats.`;
    this.said.say([verdict(own), error, costs].filter(Boolean).join(" "));
  }

  /** What could come at the token: the grammar's at once, the model's when it has answered. */
  async fetchShares() {
    const [judged, i] = [this.own, this.looked()];
    if (!judged || judged.loss[i] === undefined || this.asked.has(i) || !this.engine) return;
    this.asked.add(i);
    const fill = (/** @type {Map<number, number>} */ given) => {
      judged.shares[i] = this.triples(judged, i, given);
      this.widget.update();
    };
    fill(new Map());
    const request = { index: i + 1, count: 2048 };
    const answer = await this.engine.ask("alternatives", request).catch(() => null);
    if (!answer || this.own !== judged) return; // out of view: only the grammar's are known
    fill(new Map(answer.alternatives.map((/** @type {any} */ one) => [one.id, one.own])));
  }

  /** @param {Judged} judged @param {number} i @param {Map<number, number>} given by the model */
  triples(judged, i, given) {
    const exact = new Map(this.likeliest[i] ?? []);
    const there = i < judged.entropy.length;
    const best = [exact, given].flatMap((known) => [...known.keys()].slice(0, LIKELIEST));
    return [...new Set([this.ids[i], ...best])].flatMap((id) => {
      const [p, q] = [exact.get(id) ?? (there ? 0 : null), given.get(id) ?? null];
      if (id !== this.ids[i] && Math.max(p ?? 0, q ?? 0) < 0.0005) return [];
      judged.names[id] = this.words().textOf(id);
      return [id, p, q];
    });
  }

  close() {
    for (const controller of [this.loading, this.work]) controller.abort();
    clearTimeout(this.typing);
    this.frame.cancel();
    this.engine?.close();
    this.chart.close();
    this.said.close();
  }
}

// --- Drawing -------------------------------------------------------------------------------------

const HEIGHT = 190; // of the chart
const PLAIN = "gptlib-button gptlib-sp-plain";
const MAIN = { class: "gptlib-button gptlib-primary" };

/** @param {Judged} judged @param {number} width */
function placesOf(judged, width) {
  const box = { left: 26, right: width - 2, top: 14, bottom: HEIGHT - 20 };
  const step = (box.right - box.left) / Math.max(judged.tokens.length, 1);
  return { box, step, x: (/** @type {number} */ i) => box.left + i * step };
}

/**
 * The chart of a text: the model's loss as bars, the exact surprisal as marks on them, the entropy
 * as a line of steps.
 * @param {Judged} judged @param {number} width
 */
export function chartOf(judged, width) {
  const { box, step, x } = placesOf(judged, width);
  const { loss, surprisal, entropy } = judged;
  const most = [loss, surprisal, entropy].flat().reduce((a, b) => Math.max(a, b), 0);
  const { top, ticks } = scaleOf(most);
  const y = (/** @type {number} */ value) => box.bottom - (value / top) * (box.bottom - box.top);
  const gap = step > 3 ? 0.5 : 0;
  const bars = loss.map((value, i) =>
    `M${at(x(i) + gap, box.bottom)}V${at(y(value))}H${at(x(i + 1) - gap)}V${at(box.bottom)}Z`
  );
  const marks = surprisal.map((value, i) =>
    value > 0.005 ? `M${at(x(i) - 0.5, y(value))}H${at(x(i + 1) + 0.5)}` : ""
  );
  const steps = entropy.map((value, i) => `${i ? "L" : "M"}${at(x(i), y(value))}H${at(x(i + 1))}`);
  const paths = { bars: bars.join(""), marks: marks.join(""), steps: steps.join("") };
  return { box, step, ticks, x, y, ...paths };
}

/** @param {Judged} judged @param {number} width */
function curves(judged, width) {
  const { box, ticks, x, y, bars, marks, steps } = chartOf(judged, width);
  const { right, top, bottom } = box;
  const from = isLost(judged) ? x(known(judged)) : right;
  const words = right - from > 150 ? "no story from here on" : "∞";
  return svg`
    <rect class="gptlib-sp-gone" x=${from} y=${top} width=${right - from}
      height=${bottom - top}></rect>
    ${levels(box, y, ticks)}
    <path class="gptlib-sp-bars" d=${bars}></path>
    <path class="gptlib-sp-steps" d=${steps}></path>
    <path class="gptlib-sp-marks" d=${marks}></path>
    <text x="0" y="9">nats</text>
    <text x=${right} y=${HEIGHT - 4} text-anchor="end">tokens</text>
    <text x=${right - 4} y=${top + 13} text-anchor="end">${from < right ? words : ""}</text>
  `;
}

/** @param {Lab} lab */
function chartView(lab) {
  const [judged, width, i] = [lab.shown(), lab.chart.width(), lab.looked()];
  const { box, step, x } = placesOf(judged, width);
  const wide = Math.max(step, 3);
  const point = (/** @type {any} */ event) => {
    const { currentTarget: chart, pointerId, pointerType, buttons } = event;
    const place = event.clientX - chart.getBoundingClientRect().left - box.left;
    const under = lab.within(Math.floor(place / step));
    if (event.type === "pointerdown" && buttons === 1) chart.setPointerCapture(pointerId);
    if (buttons === 1) lab.chooseToken(under);
    else if (pointerType !== "touch") lab.hover(under);
  };
  const mark = (/** @type {string} */ name, /** @type {string} */ text) =>
    html`<span><i class="gptlib-sp-mark gptlib-sp-mark-${name}"></i>${text}</span>`;
  const rests = [judged, judged.tokens.length, judged.loss.length, width];
  return html`
    <div>
      <div class="gptlib-bar gptlib-soft gptlib-sp-legend" aria-hidden="true">
        ${mark("loss", "model’s loss")}
        ${mark("surprisal", "exact surprisal: what this token had to cost")}
        ${mark("entropy", "entropy: the floor that nothing beats on average")}
      </div>
      <svg class="gptlib-chart gptlib-sp-chart" height=${HEIGHT} aria-hidden="true"
        ${lab.chart.here} @pointerdown=${point} @pointermove=${point}
        @pointerleave=${() => lab.hover(-1)}>
        <rect class="gptlib-sp-band" x=${at(x(i) - (wide - step) / 2)} y=${box.top}
          width=${at(wide)} height=${box.bottom - box.top}></rect>
        ${width ? guard(rests, () => curves(judged, width)) : nothing}
        <path class="gptlib-sp-pointer" d="M0 0l5 8h-10Z"
          transform="translate(${at(x(i) + step / 2, box.bottom + 2)})"></path>
      </svg>
    </div>
  `;
}

/** @param {Lab} lab */
function headView(lab) {
  const texts = lab.stories().map((one) => `${one.tokens.slice(0, 9).join("")} …`);
  const chosen = String(lab.own ? texts.length : lab.chosen());
  if (lab.own) texts.push("Your own");
  /** @type {[string, string][]} */
  const options = texts.map((text, i) => [String(i), text]);
  const choose = (/** @type {string} */ number) => {
    if (lab.stories()[Number(number)]) lab.choose(Number(number));
  };
  const list = html`<label class="gptlib-choose">Text ${
    select("", chosen, options, choose)
  }</label>`;
  return html`
    <div class="gptlib-head">
      <span class="gptlib-title">Surprise, token by token</span>
      ${options.length > 1 ? list : nothing}
    </div>
  `;
}

/** @param {number | "none"} level @returns {string} its colors, which the style sheet has */
function shadeOf(level) {
  const name = level === "none" ? level : Math.max(level, -3);
  return `--shade: var(--sp-${name}); --on: var(--sp-ink-${name})`;
}

/** What to color by, and the steps of the colors with their numbers. @param {Lab} lab */
function colorsView(lab) {
  const value = lab.color();
  /** @type {[string, string][]} */
  const options = Object.entries(COLORS).map(([name, { title }]) => [name, title]);
  const choose = (/** @type {string} */ color) => lab.widget.save({ color });
  const name = `${lab.id}-color`;
  const edges = [0, ...COLORS[value].steps].map((edge, level) => ({ edge: String(edge), level }));
  const below = edges.slice(1, 4).map(({ edge, level }) => ({ edge: `−${edge}`, level: -level }));
  const chips = value === "excess" ? [...below.reverse(), ...edges] : edges;
  return html`
    <div class="gptlib-bar">
      ${radios({ legend: "Color by", name, value, options, choose, class: "gptlib-sp-colors" })}
      <div class="gptlib-sp-scale">
        ${chips.map(({ edge, level }) =>
          html`<span class="gptlib-sp-chip"><i class="gptlib-sp-token" data-level=${level}
            style=${shadeOf(level)}></i><span>${edge}</span></span>`
        )}<span class="gptlib-sp-unit">nats</span>
      </div>
    </div>
    <p class="gptlib-soft">${colorWords(value, lab.shown())}</p>
  `;
}

/** @param {Lab} lab */
function textView(lab) {
  const [judged, color, token, looked] = [lab.shown(), lab.color(), lab.token(), lab.looked()];
  const under = (/** @type {any} */ event) =>
    Number(event.target.closest("[data-index]")?.dataset.index ?? -1);
  const click = (/** @type {Event} */ event) => under(event) < 0 || lab.chooseToken(under(event));
  const over = (/** @type {PointerEvent} */ event) =>
    event.pointerType === "touch" || lab.hover(under(event));
  const tokens = judged.tokens.map((_, i) => {
    const changes = [judged.loss[i], i === judged.tokens.length - 1, lab.writing, color];
    const rests = [judged, ...changes, i === token, i === looked];
    return guard(rests, () => tokenView(lab, judged, i));
  });
  return html`
    <div class="gptlib-sp-text" role="listbox" tabindex="0" aria-label="Tokens of the text"
      aria-orientation="horizontal"
      aria-activedescendant=${tokens.length ? `${lab.id}-${token}` : nothing}
      @keydown=${(/** @type {KeyboardEvent} */ event) => lab.onKey(event)} @click=${click}
      @pointerover=${over} @pointerleave=${() => lab.hover(-1)}>${tokens}</div>
    <p class=${classes("sp-verdict", judged.end?.kind === "whole" && "sp-right")}>
      ${verdict(judged)}
    </p>
  `;
}

/** @param {Lab} lab @param {Judged} judged @param {number} i */
function tokenView(lab, judged, i) {
  const name = tokenAt(judged, i);
  const ends = name !== judged.tokens[i];
  const space = /^ (?=.)/s.exec(name)?.[0] ?? "";
  const words = ends ? "end" : Array.from(name.slice(space.length), readable).join("");
  const value = valueOf(judged, i, lab.color());
  const level = Number.isNaN(value) ? "none" : levelOf(value, lab.color());
  const [loss, exact] = ["loss", "surprisal"].map((color) => nats(valueOf(judged, i, color)));
  const here = [ends && "sp-end", isThere(judged, i) && "sp-lost", i === lab.looked() && "sp-here"];
  return inline`${ends ? " " : space}<span class=${classes("sp-token", ...here)} role="option"
    id="${lab.id}-${i}" data-index=${i} data-level=${lab.writing ? nothing : level}
    style=${lab.writing ? nothing : shadeOf(level)}
    aria-label="${quote(name)}, loss ${loss}, exact ${exact}" aria-selected=${i === lab.token()}
    >${words === " " ? "␣" : words || "·"}</span>${name.includes("\n") ? "\n" : ""}`;
}

/** @param {string} name @param {string} caption @param {string[]} heads @param {unknown[]} rows */
const tableView = (name, caption, heads, rows) =>
  html`
    <table class="gptlib-sp-${name}">
      <caption>${caption}</caption>
      <thead>
        <tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr>
      </thead>
      <tbody>${rows}</tbody>
    </table>
  `;

/** What could come, for the grammar and for the model. @param {Judged} judged @param {number} i */
function sharesView(judged, i) {
  const share = (/** @type {number | null} */ value, /** @type {string} */ kind) =>
    html`<td><i class="gptlib-sp-fill gptlib-sp-fill-${kind}"
      style="width: ${100 * Math.min(value || 0, 1)}%"></i><span>${percent(value)}</span></td>`;
  const came = html`<span class="gptlib-sp-came">came</span>`;
  const { rows, others } = rowsOf(judged, i);
  const drawn = [...rows, ...(others ? [others] : [])].map((row) =>
    html`<tr class=${classes(row.came ? "sp-this" : row.rest ? "sp-rest" : "sp-one")}>
      <th scope="row" dir="auto">${row.rest ? row.name : nameOf(row.name)}${
      row.came ? came : ""
    }</th>
      ${share(row.p, "p")}${share(row.q, "q")}
    </tr>`
  );
  return tableView("shares", "What could come here", ["token", "grammar", "model"], drawn);
}

/** The sums of a text, a column for each part of it. @param {Judged} judged @param {number} i */
function sumsView(judged, i) {
  const here = Object.fromEntries(Object.keys(COLORS).map((by) => [by, valueOf(judged, i, by)]));
  const each = { ...here, entropy: judged.entropy[i] ?? NaN };
  const parts = /** @type {Record<string, number>[]} */ ([each, sums(judged, i + 1), sums(judged)]);
  const heads = ["nats", "this token", "up to here", isLost(judged) ? "while a story" : "all"];
  const lines = { ...COLORS, entropy: { title: "Expected (entropy)" } };
  const rows = Object.entries(lines).map(([name, { title }]) => {
    const shown = name === "excess" ? signed : nats;
    const cells = parts.map((part) => html`<td>${shown(part[name])}</td>`);
    return html`<tr><th scope="row">${title}</th>${cells}</tr>`;
  });
  return tableView("sums", "What it costs", heads, rows);
}

/** The chosen token. @param {Lab} lab */
function cardView(lab) {
  const [judged, token, last, i] = [lab.shown(), lab.token(), lab.last(), lab.looked()];
  if (!judged.tokens.length || lab.writing) return nothing;
  const step = (/** @type {-1 | 1} */ by) => {
    const [text, label] = by < 0 ? ["◀", "Token before"] : ["▶", "Next token"];
    const disabled = lab.within(token + by) === token;
    return button(text, () => lab.chooseToken(token + by), { class: PLAIN, label, disabled });
  };
  return html`
    <section class="gptlib-sp-card" aria-label="The chosen token">
      <div class="gptlib-bar">
        ${step(-1)} ${step(1)}
        <strong dir="auto">Token ${i + 1} of ${last + 1}: ${quote(tokenAt(judged, i))}</strong>
      </div>
      <p class="gptlib-sp-words">${explain(judged, i)}</p>
      <div class="gptlib-sp-tables">${sharesView(judged, i)} ${sumsView(judged, i)}</div>
    </section>
  `;
}

/** @param {Lab} lab */
function readyView(lab) {
  const doing = lab.writing
    ? button("Stop", () => lab.stop(), MAIN)
    : button("Write a story", lab.write, MAIN);
  return html`
    <div class="gptlib-sp-ready">
      <div class="gptlib-head">
        <label for="${lab.id}-own">Try your own: change the story, or type another</label>${doing}
      </div>
      <textarea id="${lab.id}-own" class="gptlib-text gptlib-sp-area" rows="4" spellcheck="false"
        ?readonly=${lab.writing} .value=${live(lab.draft)}
        @input=${(/** @type {any} */ event) => lab.type(event.target.value)}></textarea>
    </div>
  `;
}

/** What is asked before the model may run. @param {Lab} lab */
function askingView(lab) {
  const size = `${megabytes(lab.model.get("weights"))} MB`;
  const text = lab.phase === "again" ? "Try again" : `Load the model (${size})`;
  return html`
    <div class="gptlib-bar">
      ${button(text, () => lab.load(), MAIN)}
      <p class="gptlib-soft">
        It then runs here, with the exact grammar beside it: change the story, type another, or let
        the model write one.
      </p>
    </div>
  `;
}

/** @param {Lab} lab */
const loadingView = (lab) =>
  html`
    <div class="gptlib-bar gptlib-loader">
      <progress max="1" value=${lab.progress.share ?? nothing}
        aria-label="Loading the model"></progress>
      <span class="gptlib-soft">${lab.progress.words}</span>
      ${button("Cancel", () => lab.cancel(), { class: PLAIN })}
    </div>
  `;

/** Other texts. @param {Lab} lab */
function tryView(lab) {
  if (!lab.model.get("weights")) return nothing;
  const ready = lab.phase === "ready";
  return html`
    <section class="gptlib-sp-try" aria-label="Other texts">
      ${ready ? nothing : lab.phase === "loading" ? loadingView(lab) : askingView(lab)}
      <p class="gptlib-sp-error" role="alert">${lab.error}</p>
      ${ready ? readyView(lab) : nothing}
    </section>
  `;
}

/** @param {Widget} widget */
function setUp(widget) {
  const lab = new Lab(widget);
  const view = () =>
    html`
      <div class="gptlib-layout gptlib-sp-layout">
        ${headView(lab)} ${colorsView(lab)} ${textView(lab)} ${chartView(lab)} ${cardView(lab)}
        ${tryView(lab)} ${lab.said.element}
      </div>
    `;
  const drawn = () => {
    if (!lab.writing) lab.fetchShares();
    const button = lab.focus && widget.root.querySelector(".gptlib-sp-try button");
    if (button) /** @type {HTMLElement} */ (button).focus();
    lab.focus = false;
  };
  return { view, drawn, close: () => lab.close() };
}

export default define("sp", ["stories", "chosen", "token", "color"], setUp);
