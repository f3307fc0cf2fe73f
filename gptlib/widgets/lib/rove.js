// The keys that move the focus among things of which only one is in the order of tabs.

/**
 * Where a key leads in a list, or nowhere.
 * @param {string} key
 * @param {number} at
 * @param {number} count
 * @param {{ back?: string[], on?: string[], page?: number }} [keys] that lead back and on: by
 *   default the arrows of both directions
 * @returns {number | null}
 */
export function moved(key, at, count, keys = {}) {
  const { back = ["ArrowLeft", "ArrowUp"], on = ["ArrowRight", "ArrowDown"], page = 10 } = keys;
  const places = { Home: 0, End: count - 1, PageUp: at - page, PageDown: at + page };
  const steps = Number(on.includes(key)) - Number(back.includes(key));
  const to = steps ? at + steps : /** @type {Record<string, number>} */ (places)[key];
  return to === undefined ? null : Math.min(Math.max(to, 0), count - 1);
}

/** @param {KeyboardEvent} event @returns {boolean} whether it is the browser's, not the widget's */
export const withModifier = ({ altKey, ctrlKey, metaKey }) => altKey || ctrlKey || metaKey;
