// Byte-pair encoding, as chapter 2 builds it and tiktoken does it.

// GPT-2's splitting pattern. JavaScript's \s is not Unicode's white space: it has U+FEFF and lacks
// U+0085. tiktoken means Unicode's.
const PIECE =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** @param {string} text @returns {string[]} the pieces that tokens never cross */
export function pieces(text) {
  return text.match(PIECE) ?? [];
}

/** @param {string} text @returns {string} with U+FFFD for lone surrogates, as tiktoken reads it */
export function wellFormed(text) {
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}

/** @param {string} text @returns {string} its UTF-8, one character a byte */
export function utf8(text) {
  let bytes = "";
  for (const byte of new TextEncoder().encode(text)) bytes += String.fromCharCode(byte);
  return bytes;
}

/** @param {{ tokens: (string | null)[] }} vocabulary @returns {Map<string, number>} a token's bytes to its id */
export function ranksOf(vocabulary) {
  const ranks = new Map();
  vocabulary.tokens.forEach((token, id) => {
    if (token !== null) ranks.set(token, id);
  });
  return ranks;
}

/**
 * Byte-pair encoding of one piece: again and again, merge the neighbors whose union has the
 * lowest id, the leftmost first. Equal to tiktoken's, and fast on long pieces too, because one
 * sweep merges all pairs of the lowest id.
 * @param {string} piece a character a byte
 * @param {Map<string, number>} ranks
 * @returns {string[]}
 */
export function mergePiece(piece, ranks) {
  if (ranks.has(piece)) return [piece];
  const parts = [...piece];
  /** @param {string} left @param {string | undefined} right */
  const rank = (left, right) => (right && ranks.get(left + right)) || Infinity;
  const found = parts.map((part, i) => rank(part, parts[i + 1]));
  for (;;) {
    const lowest = found.reduce((low, r) => Math.min(low, r), Infinity);
    if (lowest === Infinity) return parts;
    let sweeping = true;
    let end = 0; // the parts before it are done
    for (let i = 0; i < parts.length; i++, end++) {
      parts[end] = parts[i];
      found[end] = found[i];
      if (!sweeping || found[end] !== lowest) continue;
      parts[end] += parts[++i];
      found[end] = rank(parts[end], parts[i + 1]);
      if (end > 0) found[end - 1] = rank(parts[end - 1], parts[end]);
      // A union can open a pair of a lower id still, which then comes first.
      sweeping = found[end] > lowest && (end === 0 || found[end - 1] > lowest);
    }
    parts.length = found.length = end;
  }
}
