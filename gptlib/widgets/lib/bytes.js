// Numbers and tokens that travel as bytes.

/** @param {string} text @returns {Uint8Array} */
export function fromBase64(text) {
  const native = /** @type {any} */ (Uint8Array).fromBase64; // in new browsers, and faster
  if (native) return native.call(Uint8Array, text);
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** @param {string} token a character a byte @returns {Uint8Array} */
export const bytesOf = (token) => Uint8Array.from(token, (character) => character.charCodeAt(0));

/** @param {number} lead @returns {number} the length of the UTF-8 sequence that a byte opens */
function sequenceLength(lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xc2) return 0;
  if (lead < 0xe0) return 2;
  if (lead < 0xf0) return 3;
  return lead < 0xf5 ? 4 : 0;
}

/**
 * The characters of some bytes; a byte that belongs to no whole character comes as its number.
 * @param {Uint8Array} bytes
 * @returns {(string | number)[]}
 */
export function characters(bytes) {
  /** @type {(string | number)[]} */
  const found = [];
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  for (let i = 0; i < bytes.length;) {
    const length = sequenceLength(bytes[i]);
    let character = "";
    try {
      const whole = length > 0 && i + length <= bytes.length;
      if (whole) character = decoder.decode(bytes.subarray(i, i + length));
    } catch {
      // no character begins here
    }
    found.push(character || bytes[i]);
    i += character ? length : 1;
  }
  return found;
}
