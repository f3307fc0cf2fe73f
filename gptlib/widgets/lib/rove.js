// The keys that move the focus among things of which only one is in the order of tabs.

/**
 * Where a key leads in a list, or nowhere.
 * @param {string} key
 * @param {number} at
 * @param {number} count
 * @param {{ back?: string[], on?: string[], page?: number }} [keys] that lead back and on: by
 *   default the arrows of both directions; with a page of 0, those that turn pages lead nowhere
 * @returns {number | null}
 */
export function moved(key, at, count, keys = {}) {
  const { back = ["ArrowLeft", "ArrowUp"], on = ["ArrowRight", "ArrowDown"], page = 10 } = keys;
  const places = { Home: 0, End: count - 1, ...page && { PageUp: at - page, PageDown: at + page } };
  const steps = Number(on.includes(key)) - Number(back.includes(key));
  const to = steps ? at + steps : /** @type {Record<string, number>} */ (places)[key];
  return to === undefined ? null : Math.min(Math.max(to, 0), count - 1);
}

/**
 * Where a key leads in a grid, or nowhere.
 * @param {string} key
 * @param {[number, number]} at row and column
 * @param {[number, number]} counts of rows and of columns
 * @returns {[number, number] | null}
 */
export function movedInGrid(key, [row, column], [rows, columns]) {
  const to = /** @type {Record<string, [number, number]>} */ ({
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    Home: [row, 0],
    End: [row, columns - 1],
    PageUp: [0, column],
    PageDown: [rows - 1, column],
  })[key];
  const within = (/** @type {number} */ i, /** @type {number} */ n) =>
    Math.min(Math.max(i, 0), n - 1);
  return to ? [within(to[0], rows), within(to[1], columns)] : null;
}

/** @param {KeyboardEvent} event @returns {boolean} whether it is the browser's, not the widget's */
export const withModifier = ({ altKey, ctrlKey, metaKey }) => altKey || ctrlKey || metaKey;
