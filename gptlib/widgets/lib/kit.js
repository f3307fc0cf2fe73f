// What every widget is built with. A widget's module describes what there is to see, as a function
// of its traits and of what it remembers; the kit draws it, and draws it again after each change.

import {
  Directive,
  directive,
  html,
  live,
  noChange,
  nothing,
  ref,
  render,
  repeat,
  svg,
} from "./lit-html.js";

export { html, live, noChange, nothing, ref, repeat, svg };
/** For markup in which each space counts: the formatter, which knows `html`, adds none. */
export const inline = html;

/** @import { Context, Model } from "./types.d.ts" */
/** @import { Part } from "./lit-html.d.ts" */
/**
 * @typedef {{
 *   model: Model,
 *   root: HTMLElement,
 *   update(): void,
 *   save(values: Record<string, unknown>): void,
 * }} Widget  `update` asks for a drawing, `save` sets traits and tells the kernel
 * @typedef {{
 *   view(): unknown, drawn?(): void, close?(): void, on?: Record<string, () => void>,
 * }} Parts  `drawn` is called after each drawing, `close` when the widget goes, and what is `on` a
 *   trait when that changes
 */

/**
 * Make the default export of a widget's module.
 * @param {string} name of its class, after `gptlib-`; or several, with spaces between
 * @param {string[]} traits that it is drawn from
 * @param {(widget: Widget) => Parts} setUp is called once for each widget in a page
 */
export function define(name, traits, setUp) {
  return {
    render: (/** @type {Context} */ { model, el }) => mount(name, traits, setUp, model, el),
  };
}

/**
 * Draw a widget, and again whenever a trait changes: at the end of whatever changed it, and once.
 * @param {string} name
 * @param {string[]} traits
 * @param {(widget: Widget) => Parts} setUp
 * @param {Model} model
 * @param {HTMLElement} el
 */
function mount(name, traits, setUp, model, el) {
  const root = document.createElement("div");
  const classes = name.split(" ").map((one) => `gptlib-${one}`);
  root.classList.add("gptlib-root", ...classes);
  root.setAttribute(...KEYS);
  let waiting = false;
  let closed = false;
  const draw = () => {
    waiting = false;
    if (closed) return;
    render(parts.view(), root);
    parts.drawn?.();
  };
  const update = () => {
    if (!waiting) queueMicrotask(draw);
    waiting = true;
  };
  /** @param {Record<string, unknown>} values */
  const save = (values) => {
    for (const [trait, value] of Object.entries(values)) model.set(trait, value);
    model.save_changes();
  };
  const keys = keepKeys(root);
  const parts = setUp({ model, root, update, save });
  const listeners = Object.entries(parts.on ?? {});
  for (const trait of traits) listeners.push([trait, update]);
  for (const [trait, hear] of listeners) model.on(`change:${trait}`, hear);
  el.append(root);
  draw();
  return () => {
    closed = true;
    keys.disconnect();
    for (const [trait, hear] of listeners) model.off(`change:${trait}`, hear);
    parts.close?.();
  };
}

/** JupyterLab takes keys as its own, unless what has the focus carries this attribute.
 * @type {[string, string]} */
const KEYS = ["data-lm-suppress-shortcuts", "true"];
const FOCUSABLE = "button, input, select, textarea, summary, a, [tabindex]";

/**
 * Mark all that can have the focus, as it is drawn.
 * @param {HTMLElement} root
 */
function keepKeys(root) {
  const observer = new MutationObserver((changes) => {
    for (const added of changes.flatMap(({ addedNodes }) => [...addedNodes])) {
      if (!(added instanceof Element)) continue;
      if (added.matches(FOCUSABLE)) added.setAttribute(...KEYS);
      for (const control of added.querySelectorAll(FOCUSABLE)) control.setAttribute(...KEYS);
    }
  });
  observer.observe(root, { childList: true, subtree: true });
  return observer;
}

let names = 0;

/** @returns {string} a name that nothing else in this page has: for ids, and for groups of radios */
export const uniqueName = () => `gptlib-${(names += 1)}`;

/**
 * Names of classes, without those that do not hold.
 * @param {...(string | false | null | undefined)} names after `gptlib-`
 */
export const classes = (...names) =>
  names.filter(Boolean).join(" ").split(" ").map((name) => `gptlib-${name}`).join(" ");

/**
 * A line of words for who listens: what is said last is spoken after a pause, when all is quiet.
 * @param {number} [pause] in milliseconds
 */
export function announcer(pause = 500) {
  const element = Object.assign(document.createElement("div"), { className: "gptlib-spoken" });
  element.setAttribute("role", "status");
  let timer = 0;
  return {
    element, // to be drawn by the view
    /** @param {string} sentence @param {number} [wait] another pause */
    say(sentence, wait = pause) {
      clearTimeout(timer);
      timer = window.setTimeout(() => element.textContent = sentence, wait);
    },
    close: () => clearTimeout(timer),
  };
}

/**
 * A function that asks for a frame in which to run another one, once however often it is called.
 * @param {() => void} run
 */
export function onFrame(run) {
  let frame = 0;
  return {
    ask() {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        run();
      });
    },
    cancel: () => cancelAnimationFrame(frame),
  };
}

/**
 * Run something whenever the page may have taken other colors.
 * @param {() => void} run
 * @returns {() => void} what ends it
 */
export function onTheme(run) {
  const themed = new MutationObserver(run);
  for (const element of [document.documentElement, document.body]) {
    themed.observe(element, { attributes: true });
  }
  const media = ["(prefers-color-scheme: dark)", "print"].map((query) => window.matchMedia(query));
  for (const query of media) query.addEventListener("change", run);
  return () => {
    themed.disconnect();
    for (const query of media) query.removeEventListener("change", run);
  };
}

/** Draws again what may be much, only when it must. */
class Guard extends Directive {
  /** @type {unknown[] | null} */
  before = null;

  /** @param {Part} part @param {[unknown[], (element: any) => unknown]} values */
  update({ element }, [values, draw]) {
    if (this.before?.every((value, i) => Object.is(value, values[i]))) return noChange;
    this.before = values;
    return draw(element);
  }
}

/**
 * A part of a view that is drawn again only when one of the values that it rests on has changed. In
 * the tag of a canvas, what draws on it is given the canvas.
 * @type {(values: unknown[], draw: (element: any) => unknown) => unknown}
 */
export const guard = directive(Guard);

// ---------------------------------------------------------------------------------------------
// Controls

/**
 * A button.
 * @param {unknown} content
 * @param {() => void} act
 * @param {{ class?: string, pressed?: boolean, disabled?: boolean, label?: string }} [more]
 */
export const button = (content, act, more = {}) =>
  html`
    <button type="button" class=${more.class ?? "gptlib-button"} ?disabled=${more.disabled ?? false}
      aria-pressed=${more.pressed ?? nothing} aria-label=${more.label ?? nothing}
      @click=${act}>${content}</button>
  `;

/**
 * A list of which one is chosen.
 * @param {string} label who listens hears it
 * @param {string} value
 * @param {[string, string][]} options value and text
 * @param {(value: string) => void} choose
 * @param {string} [classes]
 */
export const select = (label, value, options, choose, classes = "gptlib-select") =>
  html`
    <select class=${classes} aria-label=${label || nothing} .value=${live(value)}
      @change=${(/** @type {any} */ event) => choose(event.target.value)}>${repeat(
        options,
        ([key]) => key,
        ([key, text]) => html`<option value=${key} ?selected=${key === value}>${text}</option>`,
      )}</select>
  `;

/**
 * A box to tick, with its words.
 * @param {string} title
 * @param {boolean} checked
 * @param {(checked: boolean) => void} change
 * @param {{ class?: string, field?: string }} [more]
 */
export const tick = (title, checked, change, more = {}) =>
  html`
    <label class=${more.class ?? "gptlib-switch"} data-field=${more.field ?? nothing}>
      <input type="checkbox" .checked=${live(checked)}
        @change=${(/** @type {any} */ event) => change(event.target.checked)}>
      <span>${title}</span>
    </label>
  `;

/**
 * Of some things one: radio buttons, of which only the words are seen.
 * @param {{ legend: unknown, name: string, value: string, options: [string, string][],
 *   choose(value: string): void, class: string }} options  `name` is that of no other group here
 */
export const radios = ({ legend, name, value, options, choose, ...more }) =>
  html`<fieldset class="gptlib-radios ${more.class}">
    <legend>${legend}</legend>
    ${
    options.map(([key, text]) =>
      html`
        <label class="gptlib-radio">
          <input type="radio" name=${name} value=${key}
            .checked=${live(key === value)} @change=${() => choose(key)}>
          <span>${text}</span>
        </label>
      `
    )
  }
  </fieldset>`;

/**
 * A slider whose stops are numbered from 0.
 * @param {{ label?: string, stop: number, stops: number, text: string, class?: string,
 *   move(stop: number): void, done?(): void }} options  `text` says its value; `done` is called
 *   when the reader lets go
 */
export const slider = ({ label, stop, stops, text, move, done, ...more }) =>
  html`
    <input type="range" class=${more.class ?? "gptlib-slider"} min="0" max=${stops - 1}
      aria-label=${label ?? nothing} aria-valuetext=${text} .value=${live(String(stop))}
      @input=${(/** @type {any} */ event) => move(Number(event.target.value))}
      @change=${() => done?.()}>
  `;

/** What stands in a box: not touched while the reader types, nor where it is `noChange`. */
class Entry extends Directive {
  /** @type {(text: string) => void} */
  take = () => {};
  typing = false;

  /** @param {Part} part @param {HTMLInputElement} box */
  constructor(part, box = /** @type {HTMLInputElement} */ (part.element)) {
    super(part);
    if (!box) return;
    box.addEventListener("input", () => this.typing = true);
    box.addEventListener("change", () => this.done(box));
    box.addEventListener("keydown", ({ key }) => {
      if (key === "Enter") this.done(box); // in JupyterLab, Enter alone is no change
    });
  }

  /** @param {HTMLInputElement} box */
  done({ value }) {
    this.typing = false;
    this.take(value);
  }

  /** @param {any} part @param {[string | symbol, (text: string) => void]} values */
  update({ element }, [value, take]) {
    this.take = take;
    if (!this.typing && value !== noChange && element.value !== value) element.value = value;
    return noChange;
  }
}

/**
 * In the tag of a text box: what stands in it, and what takes what the reader enters.
 * @type {(value: string | symbol, take: (text: string) => void) => unknown}
 */
export const entry = directive(Entry);

/**
 * A table of words and numbers, of which the first column names the rows.
 * @param {string} label
 * @param {string[]} heads
 * @param {unknown[]} rows made by `tableRow`
 * @param {string} [classes]
 */
export const table = (label, heads, rows, classes = "gptlib-grid") =>
  html`<div class=${classes} role="table" aria-label=${label}>
    <div class="gptlib-line gptlib-line-heads" role="row">${
    heads.map((head) => html`<div role="columnheader">${head}</div>`)
  }</div>
    ${rows}
  </div>`;

/**
 * @param {unknown} head
 * @param {unknown[]} cells
 * @param {string} [part] whose color its swatch has
 */
export const tableRow = (head, cells, part) =>
  html`<div class="gptlib-line" role="row" data-part=${part ?? nothing}>
    <div role="rowheader"><span>${head}</span></div>
    ${cells.map((cell) => html`<div role="cell">${cell}</div>`)}
  </div>`;

/** A square in the color of what stands beside it. */
export const swatch = () => html`<span class="gptlib-swatch" aria-hidden="true"></span>`;
