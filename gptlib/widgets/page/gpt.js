// The whole GPT in JavaScript, from text to the next token: gptlib/model.py, generation.py and the
// tokenizer once more, for a page without a kernel. Blocks, fields and functions have the names
// that they have there. gpt_worker.js runs it in the background; nothing here touches the page.
//
// One text at a time: T tokens, C channels, H heads, D channels of one head, V vocabulary. A
// tensor is a Float32Array, row after row: (T, C) has the C channels of the first token, then
// those of the second. JavaScript computes in float64; numbers are float32 where they are stored.

import { mergePiece, pieces, ranksOf, utf8, wellFormed } from "../lib/bpe.js";

export { pieces };

/**
 * @typedef {{ name: string, tokens: (string | null)[] }} Vocabulary  by id, a byte a character
 * @typedef {{ vocabSize: number, contextLength: number, embDim: number, nHeads: number,
 *   nLayers: number, tieHead: boolean }} Config
 * @typedef {{ shape: number[], data: Float32Array }} Tensor
 * @typedef {{ weight: Float32Array, bias: Float32Array, nIn: number, nOut: number }} Linear
 * @typedef {{ scale: Float32Array, shift: Float32Array }} LayerNorm
 * @typedef {{ queryKeyValue: Linear, projection: Linear }} Attention
 * @typedef {{ expand: Linear, projection: Linear }} FeedForward
 * @typedef {{ norm1: LayerNorm, attention: Attention, norm2: LayerNorm, feedForward: FeedForward
 *   }} Block
 * @typedef {{ config: Config, tokenEmbedding: Float32Array, positionEmbedding: Float32Array,
 *   blocks: Block[], finalNorm: LayerNorm, outputHead: Linear }} Model
 * @typedef {{ temperature?: number, topK?: number | null, topP?: number | null }} Sampling
 */

// ---------------------------------------------------------------------------------------------
// Tokenizer: chapter 2

/** Encode a text; special tokens in it are ordinary text. */
export class Tokenizer {
  /** @param {Vocabulary} vocabulary */
  constructor(vocabulary) {
    this.tokens = vocabulary.tokens;
    this.ranks = ranksOf(vocabulary);
    this.endOfText = vocabulary.tokens.indexOf(null); // <|endoftext|>, which no text contains
  }

  /** @param {string} text @returns {number[]} ids */
  encode(text) {
    const tokens = pieces(wellFormed(text)).flatMap((piece) => mergePiece(utf8(piece), this.ranks));
    return tokens.map((token) => /** @type {number} */ (this.ranks.get(token)));
  }

  /**
   * A function from each id to the text that it completes. A token can end within a character; its
   * bytes wait in the decoder for the rest, and the token's own text is then shorter, or empty.
   */
  decoder() {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return (/** @type {number} */ id) => decoder.decode(this.bytesOf(id), { stream: true });
  }

  /** @param {number} id @returns {Uint8Array} */
  bytesOf(id) {
    return Uint8Array.from(this.tokens[id] ?? "", (byte) => byte.charCodeAt(0));
  }
}

// ---------------------------------------------------------------------------------------------
// Weights: chapter 6. A .safetensors file is the length of a header, the header (JSON: each
// tensor's type, shape and place), and the numbers.

/** What a float16 stands for: 1 bit is the sign, 5 are the exponent, 10 the fraction.
 * @param {number} bits */
export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14);
}

/** @param {Uint8Array} file @returns {Map<string, Tensor>} by GPT-2's names */
export function readTensors(file) {
  const start = 8 + Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(file.slice(8, start)));
  delete header.__metadata__;
  const halves = new Float32Array(0x10000); // each float16 there is, worked out once
  for (let bits = 0; bits < halves.length; bits++) halves[bits] = fromHalf(bits);
  const tensors = new Map();
  for (const [name, { dtype, shape, data_offsets: place }] of Object.entries(header)) {
    if (dtype !== "F16" && dtype !== "F32") throw new Error(`${name} has the type ${dtype}`);
    const bytes = file.slice(start + place[0], start + place[1]).buffer; // a copy: it is aligned
    const data = dtype === "F32"
      ? new Float32Array(bytes)
      : Float32Array.from(new Uint16Array(bytes), (half) => halves[half]);
    let sum = 0; // of numbers that are not all finite, it is not either
    for (let i = 0; i < data.length; i++) sum += data[i];
    const size = shape.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1);
    if (data.length !== size || !Number.isFinite(sum)) throw new Error(`${name} is damaged`);
    tensors.set(name.replace(/^transformer\./, ""), { shape, data });
  }
  return tensors;
}

/** @param {Record<string, any>} settings what config.json holds @returns {Config} */
export function configOf(settings) {
  return {
    vocabSize: settings.vocab_size,
    contextLength: settings.n_positions,
    embDim: settings.n_embd,
    nHeads: settings.n_head,
    nLayers: settings.n_layer,
    tieHead: settings.tie_word_embeddings ?? true,
  };
}

/** @param {Map<string, Tensor>} tensors @param {Config} config @returns {Model} */
export function buildModel(tensors, config) {
  const { vocabSize: V, contextLength, embDim: C, nLayers } = config;
  /** @param {string} name @param {number[]} shape */
  const take = (name, ...shape) => {
    const tensor = tensors.get(name);
    if (tensor && tensor.shape.join() === shape.join()) return tensor.data;
    throw new Error(`${name} is ${tensor ? `(${tensor.shape})` : "missing"}, not (${shape})`);
  };
  /** @param {string} name @returns {LayerNorm} */
  const norm = (name) => ({ scale: take(`${name}.weight`, C), shift: take(`${name}.bias`, C) });
  /** @param {string} name @param {number} nIn @param {number} nOut @returns {Linear} */
  const linear = (name, nIn, nOut) => {
    const weight = transpose(take(`${name}.weight`, nIn, nOut), nIn); // OpenAI has (in, out)
    return { weight, bias: take(`${name}.bias`, nOut), nIn, nOut };
  };
  const tokenEmbedding = take("wte.weight", V, C);
  const head = config.tieHead ? tokenEmbedding : take("lm_head.weight", V, C);
  return {
    config,
    tokenEmbedding,
    positionEmbedding: take("wpe.weight", contextLength, C),
    blocks: Array.from({ length: nLayers }, (_, n) => ({
      norm1: norm(`h.${n}.ln_1`),
      attention: {
        queryKeyValue: linear(`h.${n}.attn.c_attn`, C, 3 * C),
        projection: linear(`h.${n}.attn.c_proj`, C, C),
      },
      norm2: norm(`h.${n}.ln_2`),
      feedForward: {
        expand: linear(`h.${n}.mlp.c_fc`, C, 4 * C),
        projection: linear(`h.${n}.mlp.c_proj`, 4 * C, C),
      },
    })),
    finalNorm: norm("ln_f"),
    outputHead: { weight: head, bias: new Float32Array(V), nIn: C, nOut: V }, // it has no bias
  };
}

/** @param {Float32Array} matrix @param {number} nRows @returns {Float32Array} rows as columns */
function transpose(matrix, nRows) {
  const turned = new Float32Array(matrix.length);
  for (let row = 0, from = 0; row < nRows; row++) {
    for (let to = row; to < turned.length; to += nRows) turned[to] = matrix[from++];
  }
  return turned;
}

// ---------------------------------------------------------------------------------------------
// The blocks: chapters 3 and 4. Each maps (T, …) to (T, …), and returns a new array.

/**
 * W x + b for each vector x: (T, in) to (T, out). Nearly all of the model's time is spent here.
 *
 * A sum of products is a chain: each addition waits for the one before. So a few sums grow side by
 * side, and of several vectors each number of W that is fetched is used for four. Every sum still
 * runs from its first term to its last: a token has the same numbers whether it is read alone or
 * among others.
 * @param {Linear} layer
 * @param {Float32Array} x
 */
export function linear(layer, x) {
  const count = x.length / layer.nIn;
  const y = new Float32Array(count * layer.nOut);
  let t = 0;
  for (; t + 4 <= count; t += 4) fourVectors(layer, x, y, t);
  for (; t < count; t++) oneVector(layer, x, y, t);
  return y;
}

/** @param {Linear} layer @param {Float32Array} x @param {Float32Array} y @param {number} t which */
function oneVector({ weight, bias, nIn, nOut }, x, y, t) {
  for (let r = 0; r < nOut; r += 4) {
    const row = Math.min(r, nOut - 4); // the last four rows may overlap those before
    let [s0, s1, s2, s3] = [bias[row], bias[row + 1], bias[row + 2], bias[row + 3]];
    for (let i = t * nIn, w = row * nIn; i < (t + 1) * nIn; i++, w++) {
      const value = x[i];
      s0 += weight[w] * value;
      s1 += weight[w + nIn] * value;
      s2 += weight[w + 2 * nIn] * value;
      s3 += weight[w + 3 * nIn] * value;
    }
    const at = t * nOut + row;
    [y[at], y[at + 1], y[at + 2], y[at + 3]] = [s0, s1, s2, s3];
  }
}

/** @param {Linear} layer @param {Float32Array} x @param {Float32Array} y @param {number} t first */
function fourVectors({ weight, bias, nIn, nOut }, x, y, t) {
  const columns = new Float64Array(4 * nIn); // (in, 4): the vectors side by side
  for (let i = 0; i < nIn; i++) {
    for (let n = 0; n < 4; n++) columns[4 * i + n] = x[(t + n) * nIn + i];
  }
  for (let r = 0; r < nOut; r += 2) {
    const row = Math.min(r, nOut - 2);
    let [a0, b0] = [bias[row], bias[row + 1]]; // the sums of two rows, and of each vector
    let [a1, a2, a3, b1, b2, b3] = [a0, a0, a0, b0, b0, b0];
    for (let i = 0, w = row * nIn; i < columns.length; i += 4, w++) {
      const a = weight[w];
      const b = weight[w + nIn];
      const x0 = columns[i];
      const x1 = columns[i + 1];
      const x2 = columns[i + 2];
      const x3 = columns[i + 3];
      a0 += a * x0;
      a1 += a * x1;
      a2 += a * x2;
      a3 += a * x3;
      b0 += b * x0;
      b1 += b * x1;
      b2 += b * x2;
      b3 += b * x3;
    }
    const at = t * nOut + row;
    [y[at], y[at + 1]] = [a0, b0];
    [y[at + nOut], y[at + nOut + 1]] = [a1, b1];
    [y[at + 2 * nOut], y[at + 2 * nOut + 1]] = [a2, b2];
    [y[at + 3 * nOut], y[at + 3 * nOut + 1]] = [a3, b3];
  }
}

/** @param {LayerNorm} norm @param {Float32Array} x  each vector to mean 0, variance 1 */
export function layerNorm({ scale, shift }, x) {
  const C = scale.length;
  const y = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += C) {
    let mean = 0;
    let variance = 0;
    for (let c = 0; c < C; c++) mean += x[start + c] / C;
    for (let c = 0; c < C; c++) variance += (x[start + c] - mean) ** 2 / C;
    const inverse = 1 / Math.sqrt(variance + 1e-5);
    for (let c = 0; c < C; c++) {
      y[start + c] = (x[start + c] - mean) * inverse * scale[c] + shift[c];
    }
  }
  return y;
}

/** @param {Float32Array} x  in its tanh form, in place */
export function gelu(x) {
  const k = Math.sqrt(2 / Math.PI);
  for (let i = 0; i < x.length; i++) {
    const value = x[i];
    x[i] = 0.5 * value * (1 + Math.tanh(k * (value + 0.044715 * value * value * value)));
  }
  return x;
}

/**
 * What the model has read: in every layer the keys and values of each token, with room for the
 * context. The queries are kept too, only so that any attention map can be drawn afterwards.
 */
export class KVCache {
  /** @param {Config} config */
  constructor(config) {
    this.config = config;
    this.length = 0; // tokens
    const room = () => new Float32Array(config.contextLength * config.embDim); // (context, C)
    const layer = () => ({ queries: room(), keys: room(), values: room() });
    this.layers = Array.from({ length: config.nLayers }, layer);
  }
}

/** How well a token's query matches the keys of the first tokens: scores, scaled as softmax gets
 * them. Those of tokens that come later can be had too; the model never asks.
 * @param {KVCache} cache @param {number} layer @param {number} head
 * @param {number} position of the token that looks, in the cache
 * @param {number} count of the tokens looked at @param {Float32Array} scores takes them */
export function attentionScores(cache, layer, head, position, count, scores) {
  const { embDim: C, nHeads } = cache.config;
  const { queries, keys } = cache.layers[layer];
  const D = C / nHeads;
  const query = position * C + head * D; // where it begins
  const scale = Math.sqrt(D);
  for (let other = 0; other < count; other++) {
    const key = other * C + head * D;
    let score = 0;
    for (let d = 0; d < D; d++) score += queries[query + d] * keys[key + d];
    scores[other] = score / scale;
  }
}

/** How much a token's head looks at each token up to itself: the softmax of its scores.
 * @param {KVCache} cache @param {number} layer @param {number} head
 * @param {number} position of the token that looks, in the cache
 * @param {Float32Array} weights takes them; those beyond the position stay as they are */
export function attentionWeights(cache, layer, head, position, weights) {
  attentionScores(cache, layer, head, position, position + 1, weights);
  let highest = -Infinity;
  let sum = 0;
  for (let other = 0; other <= position; other++) highest = Math.max(highest, weights[other]);
  for (let other = 0; other <= position; other++) {
    weights[other] = Math.exp(weights[other] - highest);
    sum += weights[other];
  }
  for (let other = 0; other <= position; other++) weights[other] /= sum;
}

/** Each token gathers from itself and those before it, which is all that the cache has of them.
 * @param {Attention} part
 * @param {Float32Array} x (T, C), of the tokens that follow those in the cache
 * @param {KVCache} cache @param {number} layer
 * @param {number} first of these tokens that gathers; those before it are only looked at */
function attention({ queryKeyValue, projection }, x, cache, layer, first) {
  const { embDim: C, nHeads } = cache.config;
  const { queries, keys, values } = cache.layers[layer];
  const fused = linear(queryKeyValue, x); // (T, 3C)
  for (let at = 0, place = cache.length * C; at < fused.length; at += 3 * C, place += C) {
    queries.set(fused.subarray(at, at + C), place);
    keys.set(fused.subarray(at + C, at + 2 * C), place);
    values.set(fused.subarray(at + 2 * C, at + 3 * C), place);
  }
  const D = C / nHeads;
  const context = new Float32Array(x.length - first * C); // (T, C): the heads side by side
  const weights = new Float32Array(cache.config.contextLength);
  const sums = new Float64Array(D);
  for (let start = 0; start < context.length; start += C) {
    const position = cache.length + first + start / C;
    for (let head = 0; head < nHeads; head++) {
      attentionWeights(cache, layer, head, position, weights);
      sums.fill(0);
      for (let other = 0, value = head * D; other <= position; other++, value += C) {
        const weight = weights[other];
        for (let d = 0; d < D; d++) sums[d] += weight * values[value + d];
      }
      context.set(sums, start + head * D);
    }
  }
  return linear(projection, context);
}

/** @param {FeedForward} part @param {Float32Array} x  each token by itself, through 4C channels */
function feedForward({ expand, projection }, x) {
  return linear(projection, gelu(linear(expand, x)));
}

/** @param {Float32Array} x @param {Float32Array} change  the shortcut around a part */
function add(x, change) {
  const y = x.slice();
  for (let i = 0; i < y.length; i++) y[i] += change[i];
  return y;
}

/** @param {Block} block @param {Float32Array} x (T, C) @param {KVCache} cache
 * @param {number} layer @param {number} first token whose vector is asked for */
function transformerBlock(block, x, cache, layer, first) {
  const change = attention(block.attention, layerNorm(block.norm1, x), cache, layer, first);
  x = add(x.subarray(first * cache.config.embDim), change);
  return add(x, feedForward(block.feedForward, layerNorm(block.norm2, x)));
}

/**
 * Read ids that follow those in the cache; return what the last block makes of them, (T, C). From
 * the last block the vectors of the first tokens need not be asked for: they end there.
 * @param {Model} model
 * @param {number[]} ids
 * @param {KVCache} cache
 * @param {{ first?: number, listen?: (x: Float32Array, layer: number) => void }} [options] the
 *   first token whose vector is returned; who hears x before the first block and after each
 */
export function read(model, ids, cache, { first = 0, listen = () => {} } = {}) {
  const { embDim: C, contextLength, nLayers, vocabSize } = model.config;
  if (cache.length + ids.length > contextLength) throw new RangeError("the context is full");
  let x = new Float32Array(ids.length * C);
  ids.forEach((id, t) => {
    if (!(id >= 0 && id < vocabSize)) throw new RangeError(`there is no token ${id}`);
    const token = model.tokenEmbedding.subarray(id * C, (id + 1) * C);
    const position = model.positionEmbedding.subarray((cache.length + t) * C);
    x.set(add(token, position), t * C);
  });
  listen(x, 0);
  model.blocks.forEach((block, layer) => {
    x = transformerBlock(block, x, cache, layer, layer === nLayers - 1 ? first : 0);
    listen(x, layer + 1);
  });
  cache.length += ids.length;
  return x;
}

/** @param {Model} model @param {Float32Array} x (T, C) @returns {Float32Array} (T, V) */
export function logitsOf(model, x) {
  return linear(model.outputHead, layerNorm(model.finalNorm, x));
}

/** @param {Model} model @param {number[]} ids @param {KVCache} cache  the logits (V) after them */
export function nextLogits(model, ids, cache) {
  return logitsOf(model, read(model, ids, cache, { first: ids.length - 1 }));
}

// ---------------------------------------------------------------------------------------------
// Sampling: chapter 4. A seed gives the same draws in every browser, but not those of PyTorch.

/** @param {Float32Array} logits @returns {Uint32Array} ids; of equal ones the smaller first */
export function likeliestFirst(logits) {
  const ids = new Uint32Array(logits.length).map((_, id) => id);
  return ids.sort((a, b) => logits[b] - logits[a] || a - b);
}

/** @param {Float32Array} logits @returns {Float64Array} their softmax */
export function softmax(logits, temperature = 1) {
  const highest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!Number.isFinite(highest)) throw new RangeError(`the largest logit is ${highest}`);
  const wide = new Float64Array(logits);
  const powers = wide.map((logit) => Math.exp((logit - highest) / temperature));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** @param {Sampling} sampling  raise an error for what gptlib.generation.check_sampling refuses */
export function checkSampling({ temperature = 1, topK = null, topP = null }) {
  if (!(temperature === 0 || (temperature >= 1e-6 && temperature < Infinity))) {
    throw new RangeError(`the temperature must be 0 or at least 0.000001, not ${temperature}`);
  }
  if (topK !== null && !(topK >= 1)) throw new RangeError(`top-k must be at least 1, not ${topK}`);
  if (topP !== null && !(topP > 0 && topP <= 1)) {
    throw new RangeError(`top-p must be above 0 and at most 1, not ${topP}`);
  }
}

/** The probabilities that the next token is drawn with. The logits are divided by the temperature;
 * at 0 the likeliest token is certain. Then all but the top-k likeliest are dropped, then all
 * beyond the likeliest few that, of what is left, add up to top-p.
 * @param {Float32Array} logits (V) @param {Sampling} sampling @returns {Float64Array} (V) */
export function nextProbabilities(logits, sampling = {}) {
  checkSampling(sampling);
  const { temperature = 1, topK = null, topP = null } = sampling;
  if (temperature !== 0 && topK === null && topP === null) return softmax(logits, temperature);
  const ids = likeliestFirst(logits);
  const probabilities = new Float64Array(logits.length);
  if (temperature === 0) return probabilities.fill(1, ids[0], ids[0] + 1);
  const all = softmax(logits, temperature);
  const inTopK = ids.subarray(0, topK ?? ids.length);
  const sum = inTopK.reduce((a, id) => a + all[id], 0);
  const wanted = topP === null || topP === 1 ? Infinity : topP;
  let before = 0; // the probability of all likelier tokens
  for (let n = 0; n < inTopK.length && before < wanted; n++) {
    probabilities[inTopK[n]] = all[inTopK[n]] / sum;
    before += probabilities[inTopK[n]];
  }
  return probabilities.map((probability) => probability / before);
}

/** @param {Float64Array} probabilities @param {() => number} random in [0, 1) @returns {number} */
export function draw(probabilities, random) {
  let left = random();
  let id = -1;
  let last = 0; // where rounding leaves a rest, the last token that can be drawn
  while (++id < probabilities.length) {
    if (probabilities[id] > 0) last = id;
    left -= probabilities[id];
    if (left < 0) return id;
  }
  return last;
}

/** @param {number} seed @returns {() => number} numbers in [0, 1): the generator "mulberry32" */
export function generator(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// ---------------------------------------------------------------------------------------------
// Writing, and how surprised the model is by a text

/** @param {number[]} ids @param {number} contextLength  all, or of too many the newest half */
export function inView(ids, contextLength) {
  return ids.length <= contextLength ? ids : ids.slice(-Math.max(1, contextLength >> 1));
}

/** A text that the model reads and continues: the tokens in view, and the logits after them. */
export class Writer {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    this.cache = new KVCache(model.config);
    /** @type {number[]} */
    this.view = [];
    this.start = 0; // how many tokens of the text have left the view
    /** @type {Float32Array} */
    this.logits = new Float32Array(); // (V)
  }

  /** Read a text in place of the one so far. @param {number[]} ids */
  feed(ids) {
    const view = inView(ids, this.model.config.contextLength);
    const known = Math.min(this.cache.length, view.length - 1); // the last one's logits are needed
    let same = 0; // tokens that are read already
    while (same < known && view[same] === this.view[same]) same++;
    this.cache.length = same;
    this.logits = nextLogits(this.model, view.slice(same), this.cache);
    this.view = view;
    this.start = ids.length - view.length;
  }

  /** Read one token more. When the view is full, only its newest half stays, and is read again: its
   * tokens are the first positions now.
   * @param {number} id */
  append(id) {
    const length = this.start + this.view.length + 1;
    this.feed([...this.view, id]);
    this.start = length - this.view.length;
  }

  /** The logits that a token in view came from. @param {number} place in the view, from 1 */
  logitsBefore(place) {
    if (place === this.view.length) return this.logits;
    this.cache.length = place - 1;
    const logits = nextLogits(this.model, this.view.slice(place - 1, place), this.cache);
    this.cache.length = this.view.length;
    return logits;
  }
}

/** Yield the loss of each token after the first, −log of its probability, in nats. What is in view
 * of a token is what {@link Writer} has there when it wrote all those before, one by one.
 * @param {Model} model @param {number[]} ids @returns {Generator<number>} */
export function* losses(model, ids) {
  const { contextLength, vocabSize: V } = model.config;
  const cache = new KVCache(model.config);
  let start = 0; // of the view
  for (let next = 1; next < ids.length;) {
    const end = Math.min(start + contextLength, ids.length - 1);
    cache.length = 0;
    for (let from = start; from < end; from += 32) {
      const to = Math.min(from + 32, end);
      const known = Math.max(0, next - 1 - from); // tokens that were predicted in the view before
      const first = Math.min(known, to - from);
      const logits = logitsOf(model, read(model, ids.slice(from, to), cache, { first })); // (…, V)
      for (let row = 0; row < logits.length; row += V, next++) {
        yield -Math.log(softmax(logits.subarray(row, row + V))[ids[next]]);
      }
    }
    start = next - Math.max(1, contextLength >> 1);
  }
}
