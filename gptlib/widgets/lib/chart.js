// What the widgets' charts share: how wide they are, and the lines of their grids.

import { ref, svg } from "./kit.js";

/** @typedef {{ left: number, right: number, top: number, bottom: number }} Box  in pixels */
/** @typedef {(value: number) => number} Scale  where a value stands */

/**
 * How wide an element is, and a drawing whenever that changes.
 * @param {() => void} update
 */
export function measured(update) {
  let width = 0;
  const observer = new ResizeObserver(([{ target }]) => {
    if (target.clientWidth === width) return;
    width = target.clientWidth;
    update();
  });
  return {
    here: ref((element) => element && observer.observe(element)), // in the element's tag
    width: () => width, // 0 while it is not in view
    close: () => observer.disconnect(),
  };
}

/** @param {...number} numbers @returns {string} for a path, to a tenth of a pixel */
export const at = (...numbers) => numbers.map((number) => number.toFixed(1)).join(" ");

/**
 * Lines from side to side, with their names on the left.
 * @param {Box} box
 * @param {Scale} y
 * @param {number[]} values
 * @param {(value: number) => string} [name]
 */
export const levels = ({ left, right }, y, values, name = String) =>
  values.map((value) =>
    svg`
      <line class="gptlib-chart-line" x1=${left} x2=${right} y1=${y(value)} y2=${y(value)}></line>
      <text x=${left - 5} y=${y(value) + 4} text-anchor="end">${name(value)}</text>
    `
  );

/**
 * Lines from top to bottom, with their names below.
 * @param {Box} box
 * @param {Scale} x
 * @param {number[]} values
 * @param {(value: number) => string} name
 */
export const columns = ({ right, top, bottom }, x, values, name) =>
  values.map((value) => {
    const last = x(value) > right - 1; // its name ends near the edge
    return svg`
      <line class="gptlib-chart-line" x1=${x(value)} x2=${x(value)} y1=${top} y2=${bottom}></line>
      <text x=${last ? right + 12 : x(value)} y=${bottom + 16}
        text-anchor=${last ? "end" : "middle"}>${name(value)}</text>
    `;
  });
