// How a next token is drawn: where the sliders of its settings stop, and seeds.

import { entry, html, slider } from "./kit.js";
import { range } from "./numbers.js";

/** @import { Widget } from "./kit.js" */
/** @import { Model } from "./types.d.ts" */
/** @typedef {{ temperature: number, top_k: number | null, top_p: number | null }} Settings */

/** @param {Model} model @returns {Settings} as its traits say */
export const samplingOf = (model) => ({
  temperature: model.get("temperature"),
  top_k: model.get("top_k") ?? null,
  top_p: model.get("top_p") ?? null,
});

/** Where the sliders stop; null is off. @type {Record<string, (number | null)[]>} */
export const STOPS = {
  temperature: range(0, 2, 0.05),
  top_k: [...range(1, 10, 1), 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, null],
  top_p: [...range(0.05, 0.95, 0.05), 0.97, 0.99, null],
};

/**
 * The stop that is nearest to a value, which need not stand there itself.
 * @param {string} name
 * @param {number | null} value
 * @returns {number}
 */
export function nearest(name, value) {
  const stops = STOPS[name];
  if (value === null) return stops.length - 1;
  const far = stops.map((stop) => stop === null ? Infinity : Math.abs(stop - value));
  return far.indexOf(Math.min(...far));
}

/** @type {Record<string, [string, string, string]>} titles, and what stands at the ends */
const DIALS = {
  temperature: ["Temperature", "0", "2"],
  top_k: ["Top-k", "1", "off"],
  top_p: ["Top-p", "0.05", "off"],
};

/**
 * A slider for each setting.
 * @param {Settings} settings
 * @param {{ least: string, format(name: string, value: number | null): string,
 *   move(change: Record<string, unknown>): void, done?(): void }} how  `least` says what a
 *   temperature of 0 does; `done` is called when the reader lets go
 */
export const dials = (settings, { least, format, move, done }) =>
  Object.entries(DIALS).map(([name, [title, few, many]]) => {
    const value = /** @type {any} */ (settings)[name];
    const text = format(name, value);
    const [stop, stops] = [nearest(name, value), STOPS[name].length];
    const moved = (/** @type {number} */ to) => move({ [name]: STOPS[name][to] });
    return html`
      <label class="gptlib-dial" data-field=${name}>
        <span class="gptlib-dial-name">${title}</span>
        <span class="gptlib-dial-value" aria-hidden="true">${text}</span>
        ${slider({ stop, stops, text, move: moved, done })}
        <span class="gptlib-dial-ends" aria-hidden="true">
          <span>${name === "temperature" ? `${few}, ${least}` : few}</span><span>${many}</span>
        </span>
      </label>
    `;
  });

/** @param {string} text @returns {number | null} a whole number that a seed can be, or none */
export function readSeed(text) {
  const value = Number(text);
  return text !== "" && Number.isInteger(value) && value >= 0 && value < 2 ** 32 ? value : null;
}

/** A box for the seed: the old one stands in it again where none was entered. @param {Widget} widget */
export function seedBox({ model, save, update }) {
  const seed = model.get("seed");
  const take = (/** @type {string} */ text) => {
    save({ seed: readSeed(text) ?? seed });
    update();
  };
  return html`
    <input type="number" class="gptlib-number gptlib-seed" min="0" max=${2 ** 32 - 1} step="1"
      inputmode="numeric" ${entry(String(seed), take)}>
  `;
}
