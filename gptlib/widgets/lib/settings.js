// What the widgets have in common in which the reader configures a model: boxes and sliders, what
// is said of a value that does not hold, and what training holds for a parameter.

import { BYTES, HELD, memberOf, modelName, problem, sizesOf, total } from "./accounting.js";
import {
  announcer,
  entry,
  html,
  noChange,
  nothing,
  select,
  slider,
  swatch,
  table,
  tableRow,
} from "./kit.js";
import { formatBytes, formatShort, sum } from "./numbers.js";

/** @import { Config, Member } from "./accounting.js" */
/** @import { Widget } from "./kit.js" */

/** A model's sizes, as a reader calls them. @type {Record<string, string>} */
export const SIZES = {
  n_layers: "Layers",
  emb_dim: "Width",
  n_heads: "Heads",
  vocab_size: "Vocabulary",
  context_length: "Context",
};

/** What a widget remembers whose trait `config` the reader changes. */
export class Settings {
  error = "";
  wrong = ""; // the fields that do not hold, by their names
  dragged = ""; // the slider that moves: its stops must not move with it
  /** @type {Record<string, number[]>} */ stops = {};
  status = announcer();
  told = ""; // the first picture is not news

  /**
   * @param {Widget} widget
   * @param {string[]} traits that the reader sets here; once they change, nothing is wrong any more
   */
  constructor(widget, traits) {
    this.widget = widget;
    this.model = widget.model;
    this.on = Object.fromEntries(traits.map((trait) => [trait, this.forget]));
  }

  forget = () => this.error = this.wrong = "";

  close() {
    this.status.close();
  }

  /** @returns {Config} */
  config() {
    return this.model.get("config");
  }

  /** @returns {Member[]} */
  family() {
    return this.model.get("family") ?? [];
  }

  /** Take values that hold, or say what is wrong; the last good ones stay.
   * @param {string} message @param {string} fields @param {Record<string, unknown>} values
   * @param {boolean} [keep] whether to tell Python */
  take(message, fields, values, keep = true) {
    [this.error, this.wrong] = [message, message && fields];
    this.widget.update();
    if (message) return;
    for (const [name, value] of Object.entries(values)) this.model.set(name, value);
    if (keep) this.widget.save({});
  }

  /** @param {string} words of what is drawn: when they change, who listens hears them */
  tell(words) {
    if (this.told !== "" && this.told !== words) this.status.say(words);
    this.told = words;
  }

  /** @param {Record<string, unknown>} changes @param {boolean} [keep] */
  configure = (changes, keep) => {
    const config = { ...this.config(), ...changes };
    const message = problem(config);
    this.take(message, message.split(", but")[0], { config }, keep);
  };

  /** All sizes as they stand in their boxes: two that are wrong can be mended together. */
  configureAsTyped = () => {
    const typed = (/** @type {string} */ name) => {
      const box = this.widget.root.querySelector(`[data-field="${name}"] input`);
      const value = /** @type {HTMLInputElement} */ (box).value.trim();
      return [name, value === "" ? "" : Number(value)];
    };
    this.configure(Object.fromEntries(Object.keys(SIZES).map(typed)));
  };

  /** @param {string} shown @returns {string | symbol} a box keeps what is wrong in it */
  shown(shown) {
    return this.error ? noChange : shown;
  }

  /** @param {string} name @returns {string | symbol} */
  invalid(name) {
    return this.wrong.includes(name) ? "true" : nothing;
  }
}

/**
 * A list of models.
 * @param {string} chosen @param {[string, string][]} options @param {(name: string) => void} choose
 */
export const modelChoice = (chosen, options, choose) =>
  html`<label class="gptlib-choose"><span>Model</span>${
    select("", chosen, options, choose)
  }</label>`;

/** @param {Member[]} family @returns {[string, string][]} */
export const familyOptions = (family) =>
  family.map((one) => [one.name, `${modelName(one.name)} (${formatShort(total(one))})`]);

/** The list of the family's models, and of the reader's own. @param {Settings} settings */
export function familyChoice(settings) {
  const [config, family] = [settings.config(), settings.family()];
  const member = memberOf(config, family);
  const options = familyOptions(family);
  if (!member) options.unshift(["", `Your own (${formatShort(total(config))})`]);
  return modelChoice(member?.name ?? "", options, (name) => {
    const one = family.find((each) => each.name === name);
    if (one) settings.configure(sizesOf(one));
  });
}

/** A list of the types of a value.
 * @param {string} label @param {string} dtype @param {(dtype: string) => void} choose */
export const typeChoice = (label, dtype, choose) =>
  select(label, dtype, Object.keys(BYTES).map((name) => [name, name]), choose);

/** A box for one of the model's sizes. @param {Settings} settings @param {string} name */
export function sizeBox(settings, name) {
  const config = /** @type {any} */ (settings.config());
  const least = name === "emb_dim" ? config.n_heads : 1;
  return html`
    <input type="number" class="gptlib-number" inputmode="numeric" min=${least} step=${least}
      aria-invalid=${settings.invalid(name)}
      ${entry(settings.shown(String(config[name])), settings.configureAsTyped)}>
  `;
}

/** A setting: its name, a box for its number and a slider.
 * @param {Settings} settings @param {string} name
 * @param {{ title: string, unit: string, value: number, text: string, box: unknown,
 *   stops(): number[], change(changes: Record<string, unknown>, keep?: boolean): void }} field
 *   `text` says its value, `stops` are the values at which the slider stops */
export function fieldView(settings, name, { title, unit, value, text, box, stops, change }) {
  if (settings.dragged !== name) settings.stops[name] = stops();
  const values = settings.stops[name];
  const move = (/** @type {number} */ stop) => {
    settings.dragged = name;
    change({ [name]: values[stop] }, false);
  };
  const done = () => {
    settings.dragged = "";
    change({});
  };
  return html`<div class="gptlib-field" data-field=${name}>
    <label class="gptlib-label"><span>${title} <i>${unit}</i></span>${box}</label>
    ${slider({ label: title, stop: values.indexOf(value), stops: values.length, text, move, done })}
  </div>`;
}

/** Strips side by side, in the colors of what they stand for.
 * @param {Record<string, number>} values by part */
export const stack = (values) =>
  html`<div class="gptlib-stack" aria-hidden="true">${
    Object.entries(values).map(([part, value]) =>
      html`
        <span data-part=${part} style="flex-grow: ${value / sum(Object.values(values))}"
          ?hidden=${value === 0}></span>
      `
    )
  }</div>`;

/** @param {string} part @param {string} title @param {string[]} cells */
export const partRow = (part, title, cells) => tableRow(html`${swatch()}${title}`, cells, part);

/** What training holds, as strips and as a table.
 * @param {string} label @param {Record<string, number>} copies bytes by part, of all parameters
 * @param {number} count of parameters
 * @param {Record<string, number>} [held] bytes by part, where less is held than all */
export function heldView(label, copies, count, held = copies) {
  const rows = Object.entries(HELD).map(([part, title]) =>
    partRow(part, title, [String(copies[part] / count), formatBytes(held[part])])
  );
  const [each, all] = [sum(Object.values(copies)) / count, sum(Object.values(held))];
  const last = tableRow("All", [String(each), formatBytes(all)]);
  return html`${stack(held)} ${table(label, ["Held", "Bytes each", "Together"], [...rows, last])}`;
}
