// A story that the mini model reads and goes on with, in the reader's own browser.
//
// Each token is drawn with a seed of its own, made from the reader's seed and the token's place. So
// a text depends only on its beginning, the settings and the seed, however often it was stopped.

import { openModel } from "./engine.js";
import { announcer, onFrame } from "./kit.js";
import { plural, sum } from "./numbers.js";
import { samplingOf } from "./sampling.js";
import { labelOfText } from "./tokens.js";

/** @import { Widget } from "./kit.js" */
/**
 * @typedef {{ id: number, text: string, own: number, drawn?: number }} Alternative  two
 *   probabilities: the model's own, and with the sampling
 * @typedef {{ id: number, text: string, loss: number | null, alternatives: Alternative[] | null
 *   }} Token  `text` is what it completes; `loss` is in nats
 * @typedef {{ text: string, first: number, last: number, open: boolean }} Group  tokens that end
 *   with a character, or are `open` for the rest of one
 * @typedef {{ start: number, tokens: number, weights: Float32Array, layer: number, head: number
 *   }} Looks  of one head, (tokens, tokens); `start` is the first token in view
 */

const MOST = 200; // tokens at a time
const PACE = 50; // milliseconds a token

/** The seed that the token at a place is drawn with. @param {number} seed @param {number} index */
export function seedAt(seed, index) {
  let mixed = Math.imul((seed ^ Math.imul(index, 0x9e3779b1)) | 0, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** Put a token into the last group, if that one waits for the rest of a character, or a new one.
 * @param {Group[]} groups @param {string} text what the token completes @param {number} index
 * @param {boolean} whole whether it stands for itself, as the end-of-text token does */
export function addToGroups(groups, text, index, whole = false) {
  const group = groups.at(-1);
  if (group?.open && !whole) Object.assign(group, { text, last: index, open: !text });
  else groups.push({ text, first: index, last: index, open: !text && !whole });
}

/** @param {Token[]} tokens @param {Group} group @returns {number | null} the loss of all of it */
export function lossOf(tokens, { first, last }) {
  const losses = tokens.slice(first, last + 1).map(({ loss }) => loss ?? NaN);
  const all = sum(losses);
  return Number.isNaN(all) ? null : all;
}

/** Tokens, what is known of them, and which of them the reader has taken hold of. */
export class Story {
  /** @type {Group[]} */ groups = [];
  begun = 1; // so many tokens at its beginning are the reader's
  chosen = -1; // a group
  pointed = -1; // another, under the pointer
  /** @type {Looks | null} */ looks = null;

  /** @param {Token[]} [tokens] the first is the end-of-text token
   * @param {Alternative[] | null} [next] what may follow
   * @param {number} [start] the first token that the model still reads */
  constructor(tokens = [], next = null, start = 0) {
    this.tokens = tokens;
    this.next = next;
    this.start = start;
    tokens.forEach(({ text }, i) => addToGroups(this.groups, text, i, this.isEnd(i)));
    this.current = this.groups.length - 1; // the group that the Tab key reaches
  }

  /** @param {number} index @returns {boolean} whether the end-of-text token stands there */
  isEnd(index) {
    return this.tokens[index].id === this.tokens[0].id;
  }

  ended() {
    return this.tokens.length > 1 && this.isEnd(this.tokens.length - 1);
  }

  /** @param {number} index of a token */
  groupAt(index) {
    const found = this.groups.findIndex(({ last }) => last >= index);
    return found < 0 ? this.groups.length - 1 : found;
  }

  /** @param {number} index of a token */
  nameOf(index) {
    if (this.isEnd(index)) return index ? "the end of the story" : "the start";
    return labelOfText(this.groups[this.groupAt(index)].text);
  }

  /** The tokens of a place on. @param {number} [from] @param {number} [to] */
  ids(from, to) {
    return this.tokens.slice(from, to).map(({ id }) => id);
  }

  text() {
    return this.tokens.map(({ text }, i) => this.isEnd(i) ? "\n\n" : text).join("").trim();
  }

  /** @param {any} part what the worker has written */
  add({ index, token: id, text, start, alternatives }) {
    const own = alternatives.find((/** @type {Alternative} */ one) => one.id === id)?.own;
    const loss = own === undefined ? null : -Math.log(own);
    this.tokens[index] = { id, text, loss, alternatives };
    [this.start, this.next] = [start, null];
    const last = this.current === this.groups.length - 1;
    addToGroups(this.groups, text, index, this.isEnd(index));
    if (last) this.current = this.groups.length - 1; // it stays at the end
  }

  /** What the worker has read; what is known of the tokens that stood there before stays.
   * @param {any} fed @returns {Story} this one, if it is the same text */
  reread({ ids, texts, start, alternatives }) {
    const { tokens } = this;
    let known = 0;
    while (known < tokens.length && tokens[known].id === ids[known]) known++;
    if (known === tokens.length && known === ids.length) {
      return Object.assign(this, { start, next: alternatives });
    }
    const read = Array.from(ids, (id, i) => {
      const weighed = i <= known ? tokens[i]?.alternatives : null; // before `known` stood there
      const loss = i < known ? tokens[i].loss : null;
      return { id, text: texts[i], loss, alternatives: weighed ?? null };
    });
    return Object.assign(new Story(read, alternatives, start), { begun: this.begun });
  }
}

/** Wait, but no longer than until the signal comes, and not at all in a page that nobody sees.
 * @param {number} ms @param {AbortSignal} signal */
async function pause(ms, signal) {
  if (ms <= 0 || signal.aborted || document.hidden) return;
  const over = AbortSignal.any([signal, AbortSignal.timeout(ms)]);
  await new Promise((resolve) => {
    over.addEventListener("abort", resolve);
    // Timers are slow where nobody looks.
    document.addEventListener("visibilitychange", resolve, { signal: over });
  });
}

/** Runs a function one at a time: what is asked for meanwhile runs once, later.
 * @param {() => Promise<void>} run */
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

/** What the model does with a story, one thing at a time. */
export class Session {
  story = new Story();
  stored = false; // whether the story is Python's example
  beginning = ""; // what the story was written from,
  seed = 1; // and the seed
  /** @type {any} */ engine = null;
  doing = ""; // in a word: loading, reading, writing
  arrived = 0; // bytes of the model
  error = "";
  told = ""; // what there is to say, until something else is done
  /** @type {(() => void) | null} */ retry = null;
  status = announcer(0);
  #calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  /** @type {Promise<any> | null} */ #opening = null;
  #load = new AbortController(); // of what is opening
  /** @type {AbortController | null} */ #job = null; // what is under way
  #slow = 0; // a timer
  #gone = false;

  /** @param {Widget} widget */
  constructor(widget) {
    this.widget = widget;
    this.model = widget.model;
    this.frame = onFrame(widget.update);
  }

  /** Draw in the next frame; three times a second while it writes, for who wants no flicker. */
  changed() {
    if (this.doing !== "writing" || !this.#calm.matches) return this.frame.ask();
    this.#slow ||= window.setTimeout(() => {
      this.#slow = 0;
      this.widget.update();
    }, 300);
  }

  sampling() {
    const { temperature, top_k: topK, top_p: topP } = samplingOf(this.model);
    return { temperature, topK, topP };
  }

  /** @param {string} words */
  tell(words) {
    this.told = words;
    this.status.say(words);
    this.changed();
  }

  /** @param {string} name of what is done now */
  #turn(name) {
    if (name === "loading" || name === "reading") this.told = "";
    this.doing = name;
    this.changed();
  }

  /** Wait for the model, which is loaded once, or until the signal comes.
   * @param {AbortSignal} signal */
  async #open(signal) {
    const words = "It takes more than 10 seconds. Still waiting.";
    const slow = window.setTimeout(() => this.tell(words), 10_000);
    const progress = (/** @type {{ loaded: number }} */ { loaded }) => {
      this.arrived = loaded;
      this.changed();
    };
    this.#opening ??= openModel(this.model, progress, this.#load.signal)
      .then((found) => this.engine = found);
    const aborted = new Promise((resolve) => signal.addEventListener("abort", resolve));
    try {
      await Promise.race([this.#opening, aborted]);
    } finally {
      clearTimeout(slow);
    }
  }

  /** Let the model read a text and then do something with it, in place of what is under way.
   * @param {() => { text?: string, ids?: number[] }} read
   * @param {(signal: AbortSignal) => unknown} work */
  async #act(read, work) {
    this.#job?.abort();
    const own = (this.#job = new AbortController());
    const { signal } = own;
    [this.retry, this.error] = [null, ""];
    try {
      this.#turn(this.engine ? "reading" : "loading");
      if (!this.engine) await this.#open(signal);
      if (!signal.aborted) await this.#feed(read(), signal);
      if (!signal.aborted) await work(signal);
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
      if (!signal.aborted) this.retry = () => this.#act(read, work);
    }
    if (this.#job === own) this.#finish();
  }

  /** @param {{ text?: string, ids?: number[] }} read @param {AbortSignal} signal */
  async #feed(read, signal) {
    const fed = await this.engine.ask("feed", { ...read, sampling: this.sampling() });
    if (!signal.aborted) this.story = this.story.reread(fed);
    this.changed();
  }

  #finish() {
    this.#job = null;
    this.#turn("");
    if (this.#gone) return;
    if (!this.stored && this.story.tokens.length) this.widget.save({ text: this.story.text() });
    if (this.engine) this.refresh();
  }

  /** @param {any} error */
  #fail(error) {
    const message = String(error?.message ?? error).replace(/[.\s]*$/, ".");
    const clear = error?.code || message.startsWith("The model");
    this.error = clear ? message : `The model does not start: ${message}`;
    if (!this.engine || !error?.code || error.code === "worker") this.#unload();
  }

  #unload() {
    this.#load.abort();
    this.#load = new AbortController();
    this.engine = this.#opening = null;
    this.arrived = 0;
  }

  /** Stop what is under way. */
  stop() {
    if (!this.#job) return;
    const loading = this.doing === "loading";
    this.#job.abort();
    if (this.engine) this.engine.ask("stop").catch(() => {});
    else this.#unload();
    this.#finish();
    const written = plural(this.story.tokens.length - this.story.begun, "token");
    this.tell(loading ? "Stopped." : `Stopped after ${written}.`);
  }

  clear() {
    this.stop();
    [this.story, this.stored, this.beginning] = [new Story(), false, ""];
    [this.retry, this.error] = [null, ""];
    this.widget.save({ text: "" });
    this.tell("Empty again.");
  }

  close() {
    this.#gone = true;
    this.#job?.abort();
    this.#unload();
    this.frame.cancel();
    clearTimeout(this.#slow);
    this.status.close();
  }

  /** Write from a beginning, which is asked for when the model is there. @param {() => string} ask */
  begin(ask) {
    let text = "";
    return this.#act(() => ({ text: text = ask() }), async (signal) => {
      [this.stored, this.beginning, this.seed] = [false, text, this.model.get("seed")];
      this.story.begun = this.story.tokens.length;
      await this.#measure(signal);
      await this.#write(signal);
    });
  }

  /** Go on from the end. */
  proceed() {
    return this.#act(() => ({ ids: this.story.ids() }), (signal) => this.#write(signal));
  }

  /** Go on from another token in place of one. @param {number} index @param {Alternative} other */
  replace(index, other) {
    return this.#act(() => ({ ids: [...this.story.ids(0, index), other.id] }), (signal) => {
      this.story.tokens[index].loss = -Math.log(other.own);
      this.story.begun = Math.min(this.story.begun, index);
      if (this.stored) this.seed = this.model.get("seed");
      this.stored = false;
      return this.#write(signal);
    });
  }

  /** Load the model, and let it read what is shown. */
  wake() {
    return this.#act(
      () => this.story.tokens.length ? { ids: this.story.ids() } : { text: "" },
      () => {
        this.stored = false;
        this.attend();
      },
    );
  }

  /** The losses from a place on, as the model finds them.
   * @param {number} from @param {(index: number, loss: number) => void} take */
  async #losses(from, take) {
    const ids = this.story.ids(from);
    await this.engine.ask("losses", { ids }, (/** @type {any} */ part) => {
      for (const [i, loss] of part.values?.entries() ?? []) take(from + part.from + i, loss);
      this.changed();
    });
  }

  /** The losses of the beginning, as far as it is in view. @param {AbortSignal} signal */
  async #measure(signal) {
    const { tokens, start } = this.story;
    if (tokens.length - start < 2) return;
    await this.#losses(start, (index, loss) => {
      if (!signal.aborted) tokens[index].loss = loss;
    });
  }

  /** Write, token by token. @param {AbortSignal} signal */
  async #write(signal) {
    this.#turn("writing");
    for (let n = 0; n < MOST && !signal.aborted; n++) {
      const since = performance.now();
      const { story } = this;
      const [index, before] = [story.tokens.length, story.start];
      const how = { count: 1, seed: seedAt(this.seed, index), sampling: this.sampling() };
      await this.engine.ask("continue", how, (/** @type {any} */ part) => {
        if (signal.aborted || part.type !== "token") return;
        story.add(part);
        this.attend();
        this.changed();
      });
      if (signal.aborted || story.tokens.length === index) return;
      if (story.tokens[index].loss === null) await this.#settleLoss(index, before);
      if (story.ended()) break;
      const slowly = !this.model.get("fast") && !this.#calm.matches;
      await pause(slowly ? PACE - (performance.now() - since) : 0, signal);
    }
    if (signal.aborted) return;
    this.tell(this.story.ended() ? "The story has ended." : `${plural(MOST, "token")} written.`);
  }

  /** The loss of a token that was not among the likeliest ones.
   * @param {number} index @param {number} before where the view began when it was written */
  async #settleLoss(index, before) {
    const { story, engine } = this;
    const token = story.tokens[index];
    if (before === story.start) {
      const all = await engine.ask("alternatives", { index, count: Infinity });
      const own = all.alternatives.find((/** @type {Alternative} */ { id }) => id === token.id).own;
      token.loss = -Math.log(own);
      this.changed();
    } else {
      await this.#losses(before, (at, loss) => {
        if (at === index) token.loss = loss;
      });
    }
  }

  /** Ask again what is weighed at the place that is shown, with the settings of now. */
  refresh = coalesced(async () => {
    const { story, engine } = this;
    const { tokens, groups, chosen } = story;
    if (!engine || this.#gone || this.stored || (chosen < 0 && this.doing)) return;
    const index = chosen < 0 ? tokens.length : groups[chosen].first;
    try {
      const how = { index, sampling: this.sampling() };
      const { alternatives } = await engine.ask("alternatives", how);
      if (index < tokens.length) tokens[index].alternatives = alternatives;
      else story.next = alternatives;
    } catch {
      // It is out of view: what was known of it stays.
    }
    this.changed();
  });

  /** Ask for the map of the head that is shown. */
  attend = coalesced(async () => {
    const { story, engine, model } = this;
    const which = { layer: model.get("layer"), head: model.get("head") };
    const shown = model.get("parts").includes("attention");
    if (!engine || this.#gone || this.stored || !shown) return;
    try {
      story.looks = { ...(await engine.ask("attention", which)), ...which };
    } catch {
      // The model is closed.
    }
    this.changed();
  });
}
