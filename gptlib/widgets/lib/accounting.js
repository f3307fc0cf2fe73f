// What a GPT of given sizes has and takes, with the formulas of gptlib.accounting (chapters 4, 7).

import { formatCount, sum } from "./numbers.js";

/**
 * @typedef {{
 *   vocab_size: number, context_length: number, emb_dim: number, n_heads: number,
 *   n_layers: number, qkv_bias: boolean, tie_head: boolean,
 * }} Config
 * @typedef {Config & { name: string }} Member  of the family
 */

/**
 * The parameters of one transformer block, by component.
 * @param {Config} config
 * @returns {Record<string, number>}
 */
export function blockParameters({ emb_dim: c, qkv_bias }) {
  return {
    norm_1: 2 * c,
    attention: 4 * c * c + c + (qkv_bias ? 3 * c : 0),
    norm_2: 2 * c,
    feed_forward: 8 * c * c + 5 * c,
  };
}

/**
 * The parameters of a whole GPT, by component; blocks are added up over all layers.
 * @param {Config} config
 * @returns {Record<string, number>}
 */
export function parameters(config) {
  const { vocab_size: v, context_length: t, emb_dim: c, n_layers: n } = config;
  const block = Object.entries(blockParameters(config)).map(([name, count]) => [name, n * count]);
  return {
    token_embedding: v * c,
    position_embedding: t * c,
    ...Object.fromEntries(block),
    final_norm: 2 * c,
    output_head: config.tie_head ? 0 : v * c,
  };
}

/** @param {Config} config @returns {number} all parameters */
export const total = (config) => sum(Object.values(parameters(config)));

/**
 * The FLOPs of the forward pass for each token, by part, in rows as long as the context.
 * @param {Config} config
 * @returns {Record<string, number>}
 */
export function forwardFlops(config) {
  const { vocab_size: v, context_length: t, emb_dim: c, n_layers: n } = config;
  return {
    matrices: n * 8 * c * c,
    pairs: n * 4 * t * c,
    feed_forward: n * 16 * c * c,
    output_head: 2 * v * c,
  };
}

/** Bytes of one value. @type {Record<string, number>} */
export const BYTES = { float32: 4, bfloat16: 2, float16: 2 };

/** @param {Config} config @param {string} dtype @returns {number} */
export const weightBytes = (config, dtype) => BYTES[dtype] * total(config);

/**
 * What training with AdamW holds for the parameters.
 * @param {Config} config
 * @param {string} dtype
 * @returns {Record<string, number>}
 */
export function trainingBytes(config, dtype) {
  const count = total(config);
  return {
    weights: weightBytes(config, dtype),
    gradients: weightBytes(config, dtype),
    master_weights: dtype === "float32" ? 0 : BYTES.float32 * count,
    moments: 2 * BYTES.float32 * count,
  };
}

/** What `trainingBytes` counts, for people. @type {Record<string, string>} */
export const HELD = {
  weights: "Weights",
  gradients: "Gradients",
  master_weights: "Master weights",
  moments: "AdamW's moments",
};

/** The largest values: every number here stays below 2**53, and so exact. The same in Python. */
export const LIMITS = {
  vocab_size: 1_000_000,
  context_length: 1_000_000,
  emb_dim: 65_536,
  n_layers: 1_000,
};

/**
 * What is wrong with a configuration, in GPTConfig's own words; nothing if it is valid.
 * @param {Record<string, any>} config
 * @returns {string}
 */
export function problem(config) {
  for (const name of ["vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"]) {
    const value = config[name];
    if (!Number.isSafeInteger(value) || value < 1) {
      return `${name} must be a whole number of at least 1, not ${value === "" ? "''" : value}`;
    }
  }
  const { emb_dim: width, n_heads: heads } = config;
  if (width % heads) {
    return `emb_dim must be divisible by n_heads, but ${width} % ${heads} = ${width % heads}`;
  }
  for (const [name, limit] of Object.entries(LIMITS)) {
    if (config[name] > limit) {
      return `${name} must be at most ${formatCount(limit)} here, not ${config[name]}`;
    }
  }
  return "";
}

/** @param {string} key a name in gptlib.config.FAMILY @returns {string} what a reader calls it */
export function modelName(key) {
  if (key === "mini") return "Mini";
  const [, version, variant] = /^gpt(\d+)-?(.*)$/.exec(key) ?? [];
  if (!version) return key;
  const name = variant || (version === "2" ? "small" : "175B");
  return `GPT-${version} ${/^(xl|\d)/.test(name) ? name.toUpperCase() : name}`;
}

/** @param {Config} config @param {Member[]} family @returns {Member | undefined} of these sizes */
export function memberOf(config, family) {
  return family.find((one) =>
    Object.entries(config).every(([name, value]) => /** @type {any} */ (one)[name] === value)
  );
}

/** @param {Member} member @returns {Config} */
export const sizesOf = ({ name: _, ...sizes }) => sizes;
