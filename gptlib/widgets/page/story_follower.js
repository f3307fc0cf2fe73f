// What the best possible predictor of the stories expects, token by token: gptlib/stories/surprise.py
// once more, for a page without a kernel. The grammar knows the probability of every story. So it
// also knows how probable each next token is: of all stories whose tokens begin like those read so
// far, the share that goes on with it. No model can lose less on average.
//
// The grammar comes as JSON, made by gptlib/widgets/surprise.py: word lists and rules by name. What
// a text is cut into, and how its tokens are numbered, is handed in; gpt.js has it.

/**
 * @typedef {{ word: string, forms?: Record<string, string>, weight?: number }} Word
 * @typedef {{ line: Item[], label?: string, weight?: number }} Line  an alternative of a rule
 * @typedef {Word | Line} Option
 * @typedef {{ article?: boolean, capital?: boolean }} Style  how a word is dressed
 * @typedef {{ say: string, form?: string } & Style} Mention  what was remembered, said again
 * @typedef {{ draw: string, by?: [string, string], as?: string, not?: string } & Style} Draw
 *   an option of the list `draw` (with `by`, a variable and one of its forms, that value is added
 *   to its name), to be remembered `as` a variable, and never the word that `not` remembers
 * @typedef {string | Mention | Draw} Item
 * @typedef {Record<string, Option[]>} Grammar
 * @typedef {Record<string, Option>} Memory
 * @typedef {{
 *   pieces(text: string): string[], encode(text: string): number[], textOf(id: number): string,
 *   endOfText: number,
 * }} Words  a tokenizer; tokens never cross the pieces that a text is cut into
 * @typedef {{
 *   probability: number, tokens: number[], text: string, items: Item[], memory: Memory,
 * }} Telling  a story half told, in one of the ways that agree with the tokens read so far:
 *   the probability of this way; the tokens that come next, as far as they are decided; what is
 *   said after them, not yet cut; what the grammar has still to say; what it has remembered
 * @typedef {{ token: number, surprisal: number, entropy: number }} Surprisal  in nats
 */

/** @param {string} text @param {Style} style @returns {string} with its article, its capital */
export function dress(text, { article = false, capital = false }) {
  if (article) text = (/^[aeiou]/i.test(text) ? "an " : "a ") + text;
  return capital ? text[0].toUpperCase() + text.slice(1) : text;
}

/** @param {Option} option @param {string} form @returns {string} "" is the word itself, or a label */
function valueOf(option, form) {
  if (!("word" in option)) return option.label ?? "";
  return form ? (option.forms?.[form] ?? "") : option.word;
}

/** The options that a draw takes from, given what has been remembered.
 * @param {Grammar} grammar @param {Draw} draw @param {Memory} memory */
function optionsOf(grammar, draw, memory) {
  const { draw: source, by, not } = draw;
  const options = grammar[by ? source + valueOf(memory[by[0]], by[1]) : source];
  return not ? options.filter((option) => option !== memory[not]) : options;
}

/** Say the next item of a telling, in each way that is open.
 * @param {Grammar} grammar @param {Telling} telling @returns {Generator<Telling>} */
function* goOn(grammar, telling) {
  const { text, memory } = telling;
  const [item, ...rest] = telling.items;
  if (typeof item === "string") {
    yield { ...telling, text: text + item, items: rest };
    return;
  }
  if ("say" in item) {
    const said = dress(valueOf(memory[item.say], item.form ?? ""), item);
    yield { ...telling, text: text + said, items: rest };
    return;
  }
  const options = optionsOf(grammar, item, memory);
  const total = options.reduce((sum, { weight = 1 }) => sum + weight, 0);
  for (const option of options) {
    const probability = (telling.probability * (option.weight ?? 1)) / total;
    const known = item.as ? { ...memory, [item.as]: option } : memory;
    const [said, items] = "word" in option
      ? [dress(option.word, item), rest]
      : ["", [...option.line, ...rest]];
    yield { ...telling, probability, text: text + said, items, memory: known };
  }
}

/** The tokens so far are not those of a story: which one, where, and what could have stood there. */
export class LostError extends Error {
  /** @param {number} index of the token @param {number} character at which it begins
   * @param {string} found its text @param {string[]} expected at most five, the likeliest first
   * @param {number} others how many more could have stood there */
  constructor(index, character, found, expected, others) {
    super(`no story goes on like this: token ${index} is '${found}', at character ${character}`);
    Object.assign(this, { index, character, found, expected, others });
  }
}

/**
 * Reads a story token by token, and knows before each one how probable every token is.
 *
 * It keeps all tellings that agree with the tokens so far. They are few: where the grammar
 * chooses, no option begins like another one, so the text soon leaves a single telling. And a
 * telling goes on only until its next token is decided. Tokens depend on what follows, but only
 * inside a piece; so that is to the end of a piece.
 */
export class Follower {
  /** @param {Grammar} grammar @param {Words} words */
  constructor(grammar, words) {
    this.grammar = grammar;
    this.words = words;
    /** @type {number[]} */
    this.ids = []; // the tokens read
    /** @type {Map<string, number[]>} */
    this.encoded = new Map(); // pieces
    /** @type {Telling[]} */
    this.tellings = [];
    /** @type {Map<number, number>} */
    this.next = new Map(); // the probability of each token that may come next
    const items = [{ draw: "story" }];
    this.keep([{ probability: 1, tokens: [], text: "", items, memory: {} }]);
  }

  /** What the best predictor must expect to lose at the next token, whichever it is. */
  get entropy() {
    let sum = 0;
    for (const p of this.next.values()) sum -= p * Math.log(p);
    return Math.max(sum, 0);
  }

  /** @returns {[number, number][]} ids and probabilities of the next token, the likeliest first */
  likeliest(most = Infinity) {
    return [...this.next].sort((a, b) => b[1] - a[1]).slice(0, most);
  }

  /** Go on by one token; say how surprising it was. @param {number} token @returns {Surprisal} */
  read(token) {
    const p = this.next.get(token);
    if (p === undefined) throw this.lost(token);
    const found = { token, surprisal: Math.max(-Math.log(p), 0), entropy: this.entropy };
    this.ids.push(token);
    const agree = this.tellings.filter(({ tokens }) => tokens[0] === token);
    const over = token === this.words.endOfText;
    this.keep(
      (over ? [] : agree).map((telling) => {
        const probability = telling.probability / p;
        return { ...telling, probability, tokens: telling.tokens.slice(1) };
      }),
    );
    return found;
  }

  /** @param {Telling[]} tellings */
  keep(tellings) {
    this.tellings = tellings.flatMap((telling) => [...this.decided(telling)]);
    this.next = new Map();
    for (const { tokens, probability } of this.tellings) {
      this.next.set(tokens[0], (this.next.get(tokens[0]) ?? 0) + probability);
    }
  }

  /** Go on, in every way, until the next token is decided.
   * @param {Telling} telling @returns {Generator<Telling>} */
  *decided(telling) {
    const { tokens, text, items } = telling;
    if (tokens.length) {
      yield telling;
      return;
    }
    if (!text && !items.length) {
      yield { ...telling, tokens: [this.words.endOfText] };
      return;
    }
    // A slot of a grammar is a whole word, so what is said next never changes a piece that ends
    // before the text does. The last piece may still grow while there are items to say.
    const pieces = this.words.pieces(text);
    const open = items.length ? (pieces.pop() ?? "") : "";
    if (pieces.length) {
      yield { ...telling, tokens: pieces.flatMap((piece) => this.encode(piece)), text: open };
      return;
    }
    for (const longer of goOn(this.grammar, telling)) yield* this.decided(longer);
  }

  /** @param {string} piece @returns {number[]} */
  encode(piece) {
    const ids = this.encoded.get(piece) ?? this.words.encode(piece);
    this.encoded.set(piece, ids);
    return ids;
  }

  /** @param {number} token @returns {LostError} */
  lost(token) {
    const { textOf } = this.words;
    const before = this.ids.map(textOf).join("");
    const expected = this.likeliest(5).map(([id]) => textOf(id));
    const others = Math.max(this.next.size - 5, 0);
    return new LostError(this.ids.length, [...before].length, textOf(token), expected, others);
  }
}
