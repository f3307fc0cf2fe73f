// What lets a reader give a widget another text: a box for it, and what is wrong with what he wrote.
// In a notebook the kernel reads it; in a page without one, the mini model, once he has loaded it.

import { openModel } from "./engine.js";
import { button, html, live, nothing } from "./kit.js";
import { megabytes } from "./numbers.js";

/** @import { Widget } from "./kit.js" */
/**
 * @typedef {{
 *   name: string, text(): string | null, noun?: string, last?: string, label?: string,
 *   trait?: string, reset?: Record<string, unknown>,
 *   question?: string, more?: Record<string, unknown>, take?(answer: any, text: string): string,
 * }} Reading  `name` begins its classes, `text` is the one that is drawn (null: of none that is asked
 *   for), `noun` or `last` says what is drawn of it; `trait` holds the reader's, and a new one sets
 *   others to `reset`; what the model in a page answers to the question is taken, or it is said why
 *   it cannot be
 */

const PAUSE = 400; // after the last key, in milliseconds: then the text is read
const PATIENCE = 3000; // with a kernel that does not answer
const STRONG = { class: "gptlib-button gptlib-strong" };

/** A part of a widget: its view, what follows a drawing, and its end. */
export class Reader {
  problem = ""; // of reading in the page
  failed = false; // the last time that the model was loaded
  loaded = 0; // bytes of it
  late = false; // the kernel
  focus = ""; // what gets it, once it is drawn
  typing = 0;
  waiting = 0;
  /** @type {any} */ engine = null;
  /** The load under way. @type {AbortController | null} */ load = null;

  /** @param {Widget} widget @param {Reading} reading */
  constructor(widget, reading) {
    this.widget = widget;
    this.reading = reading;
    this.trait = reading.trait ?? "text";
    this.kernel = Boolean(widget.model.get("live")); // only a kernel has this trait
    this.bytes = Number(widget.model.get("mini") ?? 0); // of the weights, where a page can load them
    this.text = ""; // the last that came from the box or went into it
    this.box = "";
  }

  /** Whether other texts can be read here. */
  get open() {
    return this.kernel || this.bytes > 0;
  }

  /** The text that is asked for. @returns {string} */
  get wanted() {
    return this.widget.model.get(this.trait) ?? this.reading.text();
  }

  /** Whether another text is drawn than the one asked for. */
  get other() {
    return this.wanted !== this.reading.text();
  }

  get sentence() {
    const error = this.widget.model.get("error") ?? "";
    return error ? `${error[0].toUpperCase()}${error.slice(1)}.` : this.problem;
  }

  /** Whether the kernel has not read the text yet. */
  get stale() {
    return this.kernel && this.other && !this.sentence;
  }

  // --- what the reader does -------------------------------------------------------------------

  /** @param {string} value of the box */
  type(value) {
    this.box = value;
    clearTimeout(this.typing);
    this.typing = window.setTimeout(() => {
      this.text = value.replace(/\p{Surrogate}/gu, "\ufffd");
      this.problem = "";
      this.patient();
      this.widget.save({ [this.trait]: this.text, ...this.reading.reset });
      this.widget.update();
      if (this.engine) this.read().catch((error) => this.fail(error));
    }, PAUSE);
  }

  /** Read the text with the model of this page. */
  async read() {
    const text = this.wanted;
    if (!this.other) return;
    this.problem = text ? "" : "The text is empty: at least one token is needed.";
    if (text) {
      const answer = await this.engine.ask(this.reading.question, { ...this.reading.more, text });
      if (text === this.wanted) this.problem = this.reading.take?.(answer, text) ?? "";
    }
    this.widget.update();
  }

  /** Load the model, then read. */
  async start() {
    const { signal } = (this.load = new AbortController());
    [this.problem, this.loaded, this.focus] = ["", 0, ".gptlib-loader button"];
    this.widget.update();
    const progress = (/** @type {{ loaded: number }} */ { loaded }) => {
      this.loaded = loaded;
      this.widget.update();
    };
    try {
      const engine = await openModel(this.widget.model, progress, signal);
      if (signal.aborted) return;
      this.engine = engine;
      await this.read();
    } catch (error) {
      if (!signal.aborted) this.fail(error);
    }
    if (signal.aborted) return;
    const held = this.widget.root.querySelector(".gptlib-loader :focus");
    if (held) this.focus = this.engine ? "textarea" : ".gptlib-loader button";
    this.load = null;
    this.widget.update();
  }

  cancel() {
    this.load?.abort();
    [this.load, this.focus] = [null, ".gptlib-loader button"];
    this.widget.update();
  }

  /** @param {any} error */
  fail(error) {
    if (error.code === "stopped") return; // another request took its place
    this.problem = error.message;
    if (error.code !== "input") {
      this.engine?.close();
      [this.engine, this.failed] = [null, true];
    }
    this.widget.update();
  }

  /** Wait for the kernel from now on. */
  patient() {
    clearTimeout(this.waiting);
    [this.waiting, this.late] = [0, false];
  }

  // --- what he sees ---------------------------------------------------------------------------

  /** @param {unknown} [below] the box @param {unknown} [above] */
  view(below = nothing, above = nothing) {
    const { name, noun, label = "Your text" } = this.reading;
    const last = this.reading.last ?? `The ${noun} below is of the last text.`;
    if (this.wanted !== this.text) {
      this.text = this.wanted;
      this.box = this.text.replace(/\r\n?/g, "\n"); // as the box itself writes it
    }
    const wrong = this.sentence && `${this.sentence} ${last}`;
    const type = (/** @type {any} */ event) => this.type(event.target.value);
    const box = html`<label class="gptlib-text-label">${label}
      <textarea class="gptlib-text" rows="2" spellcheck="false" autocomplete="off"
        aria-invalid=${String(Boolean(wrong))} .value=${live(this.box)} @input=${type}></textarea>
    </label>`;
    return html`<div class="gptlib-reader gptlib-${name}-input">
      ${above}${this.open ? box : nothing}${this.loader()}
      <div class="gptlib-error gptlib-${name}-error" role="status">${
      this.late && this.stale ? "Waiting for Python. Is the kernel running?" : wrong
    }</div>${below}
    </div>`;
  }

  /** What loads the model: a button, then a bar and a way out. */
  loader() {
    const needed = this.bytes > 0 && !this.kernel && this.other && !this.engine;
    if (!needed && !this.load) return nothing;
    const size = `${megabytes(this.bytes)} MB`;
    const act = this.failed ? "Try again" : "Read this text";
    return html`<div class="gptlib-bar gptlib-loader gptlib-${this.reading.name}-loader">${
      this.load
        ? html`<progress max=${this.bytes} .value=${this.loaded} aria-label="Loading the model">
          </progress><span class="gptlib-soft">${megabytes(this.loaded)} of ${size}</span>
          ${button("Cancel", () => this.cancel(), STRONG)}`
        : button(`${act}: load the model, ${size}`, () => this.start(), STRONG)
    }</div>`;
  }

  drawn() {
    if (this.focus) /** @type {any} */ (this.widget.root.querySelector(this.focus))?.focus();
    this.focus = "";
    if (!this.stale) return this.patient();
    this.waiting ||= window.setTimeout(() => {
      this.late = true;
      this.widget.update();
    }, PATIENCE);
  }

  close() {
    clearTimeout(this.typing);
    clearTimeout(this.waiting);
    this.load?.abort();
    this.engine?.close();
  }
}
