import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, test } from "node:test";

import * as gpt from "../../gptlib/widgets/page/gpt.js";
import { BEST, connect, likeliest, serve } from "../../gptlib/widgets/page/gpt_worker.js";

const sum = (values) => values.reduce((all, value) => all + value, 0);
const near = (found, expected, error = 1e-6) =>
  assert.ok(Math.abs(found - expected) <= error, `${found} is not ${expected} ± ${error}`);

// ---------------------------------------------------------------------------------------------
// A model small enough to be made here: bytes, two merges and the end of the text

const SETTINGS = { vocab_size: 259, n_positions: 8, n_embd: 12, n_head: 3, n_layer: 2 };
const CONFIG = gpt.configOf(SETTINGS);
const BYTES = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte));
const VOCABULARY = { name: "small", tokens: [...BYTES, "th", "the", null] };
const END = 258;

/** The shapes of GPT-2's tensors. */
function shapes({ vocab_size: V, n_positions, n_embd: C, n_layer }) {
  const found = { "wte.weight": [V, C], "wpe.weight": [n_positions, C] };
  for (let n = 0; n < n_layer; n++) {
    const parts = { ln_1: [C], "attn.c_attn": [C, 3 * C], "attn.c_proj": [C, C], ln_2: [C] };
    Object.assign(parts, { "mlp.c_fc": [C, 4 * C], "mlp.c_proj": [4 * C, C] });
    for (const [name, shape] of Object.entries(parts)) {
      found[`h.${n}.${name}.weight`] = shape;
      found[`h.${n}.${name}.bias`] = shape.slice(-1);
    }
  }
  return { ...found, "ln_f.weight": [C], "ln_f.bias": [C] };
}

/** A .safetensors file of tensors {shape, data}, each number two or four bytes. */
function safetensors(tensors, dtype = "F32") {
  const header = { __metadata__: { format: "pt" } };
  const chunks = [];
  let place = 0;
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    const bytes = Buffer.from((dtype === "F16" ? Uint16Array : Float32Array).from(data).buffer);
    header[name] = { dtype, shape, data_offsets: [place, place += bytes.length] };
    chunks.push(bytes);
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return new Uint8Array(Buffer.concat([length, text, ...chunks]));
}

/** Random weights, large enough that every part of the model matters. */
function randomFile(settings = SETTINGS) {
  const random = gpt.generator(1);
  const tensors = {};
  for (const [name, shape] of Object.entries(shapes(settings))) {
    const size = shape.reduce((a, b) => a * b);
    const data = Float32Array.from({ length: size }, () => 1.4 * (random() - 0.5));
    tensors[`transformer.${name}`] = { shape, data };
  }
  return safetensors(tensors);
}

const FILE = randomFile();
const MODEL = gpt.buildModel(gpt.readTensors(FILE), CONFIG);
const fresh = (ids) => gpt.nextLogits(MODEL, ids, new gpt.KVCache(CONFIG));
const some = (count) => Array.from({ length: count }, (_, i) => (i * 37) % 259);

// ---------------------------------------------------------------------------------------------
// Tokenizer

test("texts become ids and come back, whatever is in them", () => {
  const tokenizer = new gpt.Tokenizer(VOCABULARY);
  assert.equal(tokenizer.endOfText, END);
  assert.deepEqual(tokenizer.encode("the th"), [257, 32, 256]);
  const mixed = "👩\u200d👩\u200d👧 🙂 שלום עולם\u202e \ufeffa\u0000\n";
  for (const text of ["", "<|endoftext|>", "<script>", mixed, "🙂 ".repeat(2000)]) {
    const ids = tokenizer.encode(text);
    assert.ok(!ids.includes(END));
    assert.equal(ids.map(tokenizer.decoder()).join(""), text);
  }
  assert.equal(tokenizer.encode("\ud800").map(tokenizer.decoder()).join(""), "\ufffd");
  assert.deepEqual(tokenizer.encode("é").map(tokenizer.decoder()), ["", "é"]);
});

// ---------------------------------------------------------------------------------------------
// Weights

test("float16 numbers are read bit by bit", () => {
  const known = { 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 1: 2 ** -24, 0x3555: 0.333251953125 };
  for (const [bits, value] of Object.entries(known)) assert.equal(gpt.fromHalf(+bits), value);
  assert.ok(Object.is(gpt.fromHalf(0x8000), -0));
  assert.equal(gpt.fromHalf(0xfc00), -Infinity);
  assert.ok(Number.isNaN(gpt.fromHalf(0x7e00)));
});

test("tensors are read in both sizes, wherever the file lies in memory", () => {
  const file = safetensors({ "transformer.a": { shape: [1, 2], data: [0x3c00, 0xc000] } }, "F16");
  const moved = new Uint8Array(file.length + 3);
  moved.set(file, 3);
  const { shape, data } = gpt.readTensors(moved.subarray(3)).get("a");
  assert.deepEqual([shape, [...data]], [[1, 2], [1, -2]]);
  const wide = gpt.readTensors(safetensors({ b: { shape: [], data: [0.5] } }));
  assert.deepEqual([...wide.get("b").data], [0.5]);
});

test("files that are damaged, or another model's, are refused", () => {
  const one = (value) => safetensors({ a: { shape: [2], data: [1, value] } });
  for (const value of [NaN, Infinity]) assert.throws(() => gpt.readTensors(one(value)), /a is dam/);
  assert.throws(() => gpt.readTensors(one(1).subarray(0, -4)), /a is damaged/);
  assert.throws(() => gpt.readTensors(FILE.subarray(0, 100)));
  assert.throws(() => gpt.readTensors(new Uint8Array(3)));
  assert.throws(() => gpt.readTensors(safetensors({ a: { shape: [1], data: [1] } }, "I32")), /I32/);
  const tensors = gpt.readTensors(FILE);
  const wider = { ...CONFIG, embDim: 16 };
  assert.throws(() => gpt.buildModel(tensors, wider), /\(259,12\), not \(259,16/);
  tensors.delete("h.1.ln_2.bias");
  assert.throws(() => gpt.buildModel(tensors, CONFIG), /h\.1\.ln_2\.bias is missing/);
});

// ---------------------------------------------------------------------------------------------
// Blocks

test("a linear layer multiplies any number of vectors, each as if it were alone", () => {
  const random = gpt.generator(3);
  const numbers = (count) => Float32Array.from({ length: count }, random);
  for (const [nIn, nOut, T] of [[5, 6, 3], [8, 4, 1], [3, 9, 4], [7, 13, 9]]) {
    const layer = { weight: numbers(nIn * nOut), bias: numbers(nOut), nIn, nOut };
    const x = numbers(T * nIn);
    const y = gpt.linear(layer, x);
    assert.equal(y.length, T * nOut);
    for (let t = 0; t < T; t++) {
      const vector = x.subarray(t * nIn, (t + 1) * nIn);
      assert.deepEqual(gpt.linear(layer, vector), y.slice(t * nOut, (t + 1) * nOut));
      for (let row = 0; row < nOut; row++) {
        const products = vector.map((value, i) => value * layer.weight[row * nIn + i]);
        near(y[t * nOut + row], layer.bias[row] + sum(products), 1e-5);
      }
    }
  }
});

test("a norm brings each vector to mean 0 and variance 1, then scales and shifts", () => {
  const norm = { scale: Float32Array.of(1, 2, 3, 4), shift: Float32Array.of(0, 1, 0, 1) };
  const y = gpt.layerNorm(norm, Float32Array.of(1, 2, 3, 4, 0, 0, 0, 0));
  const unit = 1 / Math.sqrt(1.25 + 1e-5);
  const expected = [-1.5 * unit, -unit + 1, 1.5 * unit, 6 * unit + 1, 0, 1, 0, 1];
  expected.forEach((value, i) => near(y[i], value));
});

test("GELU is the tanh form", () => {
  const found = gpt.gelu(Float32Array.of(-3, -1, 0, 0.5, 2));
  const expected = [-0.00363739, -0.15880801, 0, 0.34571401, 1.95459769];
  expected.forEach((value, i) => near(found[i], value));
});

test("tokens read one by one, in parts or at once give the same logits, bit by bit", () => {
  const ids = some(7);
  const whole = fresh(ids);
  const cache = new gpt.KVCache(CONFIG);
  gpt.read(MODEL, ids.slice(0, 3), cache);
  assert.deepEqual(gpt.nextLogits(MODEL, ids.slice(3), cache), whole);
  const single = new gpt.KVCache(CONFIG);
  const steps = ids.map((id) => gpt.nextLogits(MODEL, [id], single));
  assert.deepEqual(steps[6], whole);
  assert.deepEqual(steps[3], fresh(ids.slice(0, 4))); // no token sees a later one
  assert.throws(() => gpt.read(MODEL, some(2), cache), /context is full/);
  for (const id of [-1, 259, undefined]) assert.throws(() => fresh([id]), /no token/);
});

test("only the vectors that are asked for come from the last block", () => {
  const heard = [];
  const listen = (x, end) => heard.push([end, x.length / 12]);
  const whole = gpt.read(MODEL, some(7), new gpt.KVCache(CONFIG), { listen });
  assert.deepEqual(heard, [[0, 7], [1, 7], [2, 7]]);
  for (const first of [1, 6, 7]) {
    const cache = new gpt.KVCache(CONFIG);
    assert.deepEqual(gpt.read(MODEL, some(7), cache, { first }), whole.slice(12 * first));
    assert.deepEqual(gpt.nextLogits(MODEL, some(8).slice(7), cache), fresh(some(8)));
  }
});

test("a token's score with each other is had, and its weights are their softmax", () => {
  const cache = new gpt.KVCache(CONFIG);
  gpt.read(MODEL, some(5), cache);
  const [scores, weights] = [new Float32Array(5), new Float32Array(4)];
  gpt.attentionScores(cache, 1, 2, 3, 5, scores);
  const { queries, keys } = cache.layers[1];
  const head = (values, token) => values.slice(12 * token + 8, 12 * token + 12);
  scores.forEach((score, other) => {
    const products = head(queries, 3).map((value, d) => value * head(keys, other)[d]);
    near(score, sum(products) / 2);
  });
  gpt.attentionWeights(cache, 1, 2, 3, weights);
  all(gpt.softmax(scores.slice(0, 4)), [...weights]);
});

test("attention is shared out among the tokens so far", () => {
  const cache = new gpt.KVCache(CONFIG);
  gpt.read(MODEL, some(5), cache);
  const weights = new Float32Array(5).fill(7);
  gpt.attentionWeights(cache, 1, 2, 3, weights);
  near(sum(weights.subarray(0, 4)), 1);
  assert.equal(weights[4], 7);
  assert.ok(new Set(weights).size === 5);
});

test("scores of any size become weights", () => {
  // exp(200) is beyond float32, and so is exp(-200): only their differences may be exponents.
  for (const scores of [[200, 199, -200], [-200, -201, -200], [200, 200, 200]]) {
    const cache = new gpt.KVCache(CONFIG);
    const { queries, keys } = cache.layers[1];
    queries[12 * 2 + 8] = 2; // of token 2, in head 2; a score is half of the product
    scores.forEach((score, token) => keys[12 * token + 8] = score);
    const weights = new Float32Array(3);
    gpt.attentionWeights(cache, 1, 2, 2, weights);
    const highest = Math.max(...scores);
    const shares = scores.map((score) => Math.exp(score - highest));
    weights.forEach((weight, token) => near(weight, shares[token] / sum(shares)));
  }
});

test("a head of its own replaces the token embedding", () => {
  const tensors = gpt.readTensors(FILE);
  const head = { shape: [259, 12], data: new Float32Array(259 * 12).fill(1) };
  const untied = { ...CONFIG, tieHead: false };
  assert.throws(() => gpt.buildModel(tensors, untied), /lm_head\.weight is missing/);
  const model = gpt.buildModel(tensors.set("lm_head.weight", head), untied);
  const logits = gpt.nextLogits(model, [1], new gpt.KVCache(untied));
  assert.equal(new Set(logits).size, 1);
});

// ---------------------------------------------------------------------------------------------
// Sampling

const logits = (...probabilities) => Float32Array.from(probabilities, Math.log);
const all = (found, expected) => expected.forEach((value, i) => near(found[i], value));

test("temperature, top-k and top-p, one after the other", () => {
  const four = logits(0.2, 0.4, 0.1, 0.3);
  all(gpt.nextProbabilities(four), [0.2, 0.4, 0.1, 0.3]);
  all(gpt.nextProbabilities(four, { temperature: 0, topK: 2 }), [0, 1, 0, 0]);
  all(gpt.nextProbabilities(logits(0.8, 0.2), { temperature: 0.5 }), [0.64 / 0.68, 0.04 / 0.68]);
  all(gpt.nextProbabilities(four, { topK: 2 }), [0, 4 / 7, 0, 3 / 7]);
  all(gpt.nextProbabilities(four, { topK: 9 }), [0.2, 0.4, 0.1, 0.3]);
  all(gpt.nextProbabilities(four, { topP: 0.65 }), [0, 4 / 7, 0, 3 / 7]);
  all(gpt.nextProbabilities(four, { topP: 0.75 }), [2 / 9, 4 / 9, 0, 3 / 9]);
  all(gpt.nextProbabilities(four, { topP: 1 }), [0.2, 0.4, 0.1, 0.3]);
  all(gpt.nextProbabilities(four, { topK: 3, topP: 0.7 }), [0, 4 / 7, 0, 3 / 7]); // of 4/9 and 3/9
  all(gpt.nextProbabilities(four, { topP: 1e-9 }), [0, 1, 0, 0]);
  all(gpt.nextProbabilities(Float32Array.of(0, 0), { topP: 0.5 }), [1, 0]); // enough is enough
  const faint = gpt.nextProbabilities(Float32Array.of(0, -50, -60), { topP: 1 });
  assert.ok(faint[2] > 0); // however little is missing
});

test("of equal logits the smaller id is the likelier; large ones do not overflow", () => {
  const equal = Float32Array.of(1, 3, 3, 3);
  assert.deepEqual([...gpt.likeliestFirst(equal)], [1, 2, 3, 0]);
  all(gpt.nextProbabilities(equal, { topK: 2 }), [0, 0.5, 0.5, 0]);
  all(gpt.nextProbabilities(equal, { temperature: 0 }), [0, 1, 0, 0]);
  all(gpt.nextProbabilities(Float32Array.of(3e38, -3e38), { temperature: 1e-6 }), [1, 0]);
  all(gpt.nextProbabilities(Float32Array.of(-Infinity, 0), {}), [0, 1]);
});

test("the likeliest few are those that sorting all would find", () => {
  for (const values of [[0.1, 0.4, 0.4, 0.1, 0], [0, 0, 0], [3, 2, 1], [1, 2, 3]]) {
    const order = [...gpt.likeliestFirst(Float32Array.from(values))];
    for (const count of [1, 2, 9]) {
      assert.deepEqual(likeliest(Float64Array.from(values), count), order.slice(0, count));
    }
  }
});

test("numbers that make no sense are refused", () => {
  const wrong = [
    ...[-1, 1e-7, Infinity, NaN].map((temperature) => ({ temperature })),
    ...[0, -1, NaN].map((topK) => ({ topK })),
    ...[0, 1.1, NaN].map((topP) => ({ topP })),
  ];
  for (const sampling of wrong) {
    const [value] = Object.values(sampling);
    assert.throws(() => gpt.nextProbabilities(logits(1), sampling), new RegExp(`not ${value}`));
  }
  for (const value of [NaN, Infinity]) {
    assert.throws(() => gpt.nextProbabilities(Float32Array.of(0, value)), /largest logit/);
  }
  assert.throws(() => gpt.nextProbabilities(Float32Array.of(-Infinity)), /largest logit/);
});

test("draws follow the probabilities, and the seed", () => {
  const random = gpt.generator(5);
  const counts = [0, 0, 0];
  for (let n = 0; n < 20000; n++) counts[gpt.draw(Float64Array.of(0.5, 0, 0.5), random)]++;
  assert.equal(counts[1], 0);
  near(counts[0] / 20000, 0.5, 0.02);
  assert.equal(gpt.draw(Float64Array.of(0.3, 0.3, 0), () => 0.999), 1); // rounding left a rest
  const numbers = (seed) => Array.from({ length: 5 }, gpt.generator(seed));
  assert.deepEqual(numbers(8), numbers(8));
  assert.notDeepEqual(numbers(8), numbers(9));
  assert.ok(numbers(8).every((value) => value >= 0 && value < 1));
});

// ---------------------------------------------------------------------------------------------
// Writing

test("past the context, the newest half is read again as the first tokens", () => {
  assert.deepEqual(gpt.inView([1, 2, 3], 3), [1, 2, 3]);
  assert.deepEqual(gpt.inView([1, 2, 3, 4], 3), [4]);
  assert.deepEqual(gpt.inView([1, 2], 1), [2]);
  const writer = new gpt.Writer(MODEL);
  const ids = some(30);
  writer.feed(ids.slice(0, 2));
  let view = ids.slice(0, 2);
  for (const id of ids.slice(2)) {
    writer.append(id);
    view = gpt.inView([...view, id], 8);
    assert.deepEqual([writer.view, writer.logits], [view, fresh(view)]);
    assert.deepEqual(writer.view, ids.slice(writer.start, writer.start + view.length));
  }
  assert.ok(writer.start > 16);
  writer.feed(ids);
  assert.deepEqual([writer.start, writer.logits], [26, fresh(ids.slice(-4))]);
});

test("a changed text is read again from where it changed", () => {
  const writer = new gpt.Writer(MODEL);
  writer.feed([1, 2, 3, 4, 5]);
  for (const ids of [[1, 2, 9], [1, 2], [1, 8, 9], [4, 8, 9], [7], [7]]) {
    writer.feed(ids);
    assert.deepEqual([writer.logits, writer.cache.length], [fresh(ids), ids.length]);
  }
});

test("the logits behind any token in view can be had again", () => {
  const writer = new gpt.Writer(MODEL);
  writer.feed(some(6));
  for (const place of [6, 1, 4]) {
    assert.deepEqual(writer.logitsBefore(place), fresh(some(place)));
    assert.equal(writer.cache.length, 6);
  }
  writer.append(some(7)[6]);
  assert.deepEqual(writer.logits, fresh(some(7)));
});

test("losses are those of the tokens as the writer would have drawn them", () => {
  for (const length of [0, 1, 2, 8, 9, 10, 13, 14, 30]) {
    const ids = some(length);
    const writer = new gpt.Writer(MODEL);
    const expected = ids.slice(1).map((id, i) => {
      if (i === 0) writer.feed(ids.slice(0, 1));
      else writer.append(ids[i]);
      return -Math.log(gpt.softmax(writer.logits)[id]);
    });
    assert.deepEqual([...gpt.losses(MODEL, ids)], expected);
  }
});

// ---------------------------------------------------------------------------------------------
// Worker

const PROGRAM = new URL("../../gptlib/widgets/page/gpt.js", import.meta.url).href;
const SHA256 = createHash("sha256").update(FILE).digest("hex");
const ANNOUNCED = {
  gpt: PROGRAM,
  bytes: FILE.length,
  sha256: SHA256,
  config: SETTINGS,
  vocabulary: VOCABULARY,
};
const browserFetch = globalThis.fetch;
after(() => (globalThis.fetch = browserFetch));

/** A worker without a browser: `ask` returns all messages of a request, the answer last. */
function wire() {
  const heard = [];
  let listener = () => {};
  const handle = serve((message) => {
    const copy = structuredClone(message);
    heard.push(copy);
    listener(copy);
  });
  let last = 0;
  return {
    handle,
    listen: (callback) => (listener = callback),
    async ask(type, details = {}) {
      const id = ++last;
      await handle({ id, type, ...details });
      return heard.filter((message) => message.id === id);
    },
  };
}

async function loaded() {
  const worker = wire();
  const [answer] = await worker.ask("load", { ...ANNOUNCED, weights: FILE.slice().buffer });
  assert.equal(answer.type, "done", answer.message);
  return worker;
}

/** A server that sends these parts, and is silent for ever where one is null, or all of them. */
function serving(...replies) {
  const asked = [];
  globalThis.fetch = async (_url, { cache, signal }) => {
    asked.push(cache);
    const reply = replies[Math.min(asked.length, replies.length) - 1];
    if (reply instanceof Error) throw reply;
    if (typeof reply === "number") return { ok: false, status: reply };
    const silence = () =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(new Error("aborted")));
      });
    if (reply === null) return silence();
    let n = 0;
    const read = () => {
      if (n === reply.length) return Promise.resolve({ done: true });
      if (reply[n] === null) return silence();
      return Promise.resolve({ done: false, value: reply[n++] });
    };
    return { ok: true, body: { getReader: () => ({ read }) } };
  };
  return asked;
}

test("weights are fetched once, with progress", async () => {
  const asked = serving([FILE.subarray(0, 1000), FILE.subarray(1000)]);
  const messages = await wire().ask("load", { ...ANNOUNCED, url: "mini" });
  assert.deepEqual(asked, ["force-cache"]);
  const progress = messages.slice(0, -1).map(({ type, loaded, total }) => [type, loaded, total]);
  const total = FILE.length;
  assert.deepEqual(progress, [["progress", 1000, total], ["progress", total, total]]);
  const { type, fetched, prepared } = messages.at(-1);
  assert.equal(type, "done");
  assert.ok(fetched >= 0 && prepared > 0);
});

test("weights that do not arrive, or not whole, are one clear message", async () => {
  const damaged = FILE.slice();
  damaged[damaged.length - 1] ^= 1;
  const load = { ...ANNOUNCED, url: "mini", patience: 0.05 };
  for (
    const [reply, code, words] of [
      [404, "network", /do not arrive: the server answers 404\.$/],
      [new Error("Failed to fetch"), "network", /do not arrive: Failed to fetch\.$/],
      [null, "network", /nothing came for 0\.05 s\.$/],
      [[FILE.subarray(0, 9), null], "network", /nothing came for 0\.05 s\.$/],
      [[FILE.subarray(0, 9)], "truncated", new RegExp(`: 9 of ${FILE.length} bytes arrived\\.$`)],
      [[FILE, FILE], "corrupt", /longer than \d+ bytes\.$/],
      [[damaged], "corrupt", /SHA-256/],
    ]
  ) {
    serving(reply);
    const worker = wire();
    const answer = (await worker.ask("load", load)).at(-1);
    assert.deepEqual([answer.type, answer.code], ["error", code]);
    assert.match(answer.message, words);
    assert.equal((await worker.ask("feed", { text: "a" }))[0].message, "The model is not loaded.");
  }
});

test("a kept file that is no longer the right one is fetched anew", async () => {
  const asked = serving([FILE.subarray(0, 50)], [FILE]);
  const messages = await wire().ask("load", { ...ANNOUNCED, url: "mini" });
  assert.deepEqual(asked, ["force-cache", "reload"]);
  assert.equal(messages.at(-1).type, "done");
});

test("files that are announced wrongly, and programs that are not there, are errors", async () => {
  const nan = safetensors({ "wte.weight": { shape: [1], data: [NaN] } });
  const sha256 = createHash("sha256").update(nan).digest("hex");
  for (
    const [wrong, code, words] of [
      [{ weights: nan.buffer, bytes: nan.length, sha256 }, "corrupt", /wte\.weight is damaged/],
      [{ config: { ...SETTINGS, n_embd: 24 } }, "corrupt", /wte\.weight is \(259,12\)/],
      [{ config: { ...SETTINGS, vocab_size: 99 } }, "input", /259 tokens, and the model 99/],
      [{ gpt: PROGRAM.replace("gpt.js", "none.js") }, "network", /program does not arrive/],
    ]
  ) {
    const answer = (await wire().ask("load", { ...ANNOUNCED, weights: FILE, ...wrong })).at(-1);
    assert.deepEqual([answer.type, answer.code], ["error", code]);
    assert.match(answer.message, words);
  }
});

test("without https there is no SHA-256, and the shapes are checked still", async () => {
  const subtle = Object.getOwnPropertyDescriptor(globalThis, "crypto");
  Object.defineProperty(globalThis, "crypto", { value: {}, configurable: true });
  try {
    const request = { ...ANNOUNCED, weights: FILE, sha256: "unknown" };
    assert.equal((await wire().ask("load", request))[0].type, "done");
  } finally {
    Object.defineProperty(globalThis, "crypto", subtle);
  }
});

test("a load can be stopped, and begun again", async () => {
  serving([FILE.subarray(0, 9), null]);
  const worker = wire();
  const first = worker.ask("load", { ...ANNOUNCED, url: "mini", patience: 1000 });
  await new Promise((resolve) => worker.listen(resolve)); // the first progress
  assert.deepEqual((await worker.ask("stop")).map(({ type }) => type), ["done"]);
  const { code, message } = (await first).at(-1);
  assert.deepEqual([code, message], ["stopped", "The loading was stopped."]);
  serving([FILE]);
  assert.equal((await worker.ask("load", { ...ANNOUNCED, url: "mini" })).at(-1).type, "done");
});

test("a text is fed and continued, the same with the same seed", async () => {
  const worker = await loaded();
  const [fed] = await worker.ask("feed", { text: "the é" });
  assert.deepEqual(fed.ids, [END, 257, 32, 0xc3, 0xa9]);
  assert.deepEqual(fed.texts, ["", "the", " ", "", "é"]);
  assert.equal(fed.start, 0);
  assert.equal(fed.alternatives.length, BEST);
  const { id, text, own, drawn, logit } = fed.alternatives[0];
  const expected = fresh(fed.ids);
  assert.equal(id, gpt.likeliestFirst(expected)[0]);
  assert.equal(text, new gpt.Tokenizer(VOCABULARY).decoder()(id) || "\ufffd");
  assert.deepEqual([logit, own, own], [expected[id], drawn, gpt.softmax(expected)[id]]);

  const write = async (seed) => {
    await worker.ask("feed", { text: "the é" });
    const messages = await worker.ask("continue", { count: 12, seed, sampling: { topK: 5 } });
    return messages.slice(0, -1).map(({ id: _, ...message }) => message);
  };
  const tokens = await write(4);
  assert.deepEqual(await write(4), tokens);
  assert.deepEqual(tokens.map(({ index }) => index), tokens.map((_, i) => 5 + i));
  for (const { token, alternatives } of tokens) {
    assert.ok(alternatives.slice(0, 5).some((other) => other.id === token));
    near(sum(alternatives.map((other) => other.drawn)), 1);
  }
});

test("writing ends at the end of the text, or when it is stopped", async () => {
  const worker = await loaded();
  const tensors = gpt.readTensors(FILE);
  const wte = tensors.get("wte.weight").data;
  wte.fill(0); // every token is as likely as the others: the first of them comes
  const file = safetensors(Object.fromEntries(tensors));
  const weights = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
  const sha256 = createHash("sha256").update(file).digest("hex");
  const vocabulary = { name: "turned", tokens: [...VOCABULARY.tokens].reverse() }; // the end is 0
  const announced = { ...ANNOUNCED, vocabulary, bytes: file.length, sha256 };
  const other = wire();
  assert.equal((await other.ask("load", { ...announced, weights }))[0].type, "done");
  const messages = await other.ask("continue", { count: 9, sampling: { temperature: 0 } });
  assert.deepEqual(messages.map(({ type }) => type), ["token", "done"]);
  assert.deepEqual([messages[0].token, messages[0].text, messages[1].reason], [0, "", "end"]);

  let seen = 0;
  worker.listen(({ type }) => {
    if (type === "token" && ++seen === 3) worker.handle({ id: "s", type: "stop" });
  });
  const writing = await worker.ask("continue", { seed: 1 });
  assert.equal(writing.at(-1).reason, "stopped");
  assert.equal(writing.length, 4);
});

test("what may stand at a place in the text is told, also while it is written", async () => {
  const worker = await loaded();
  const { ids } = (await worker.ask("feed", { text: "abcd" }))[0];
  const [next] = await worker.ask("alternatives", { count: 259, sampling: { temperature: 2 } });
  assert.deepEqual([next.index, next.alternatives.length], [5, 259]);
  const expected = gpt.softmax(fresh(ids));
  all(next.alternatives.map(({ own }) => own), next.alternatives.map(({ id }) => expected[id]));
  near(sum(next.alternatives.map(({ drawn }) => drawn)), 1);
  assert.ok(next.alternatives[0].drawn < next.alternatives[0].own);
  const [second] = await worker.ask("alternatives", { index: 2 });
  assert.equal(second.alternatives[0].id, gpt.likeliestFirst(fresh(ids.slice(0, 2)))[0]);
  for (const index of [0, 6, -1, 1.5]) {
    const [answer] = await worker.ask("alternatives", { index });
    assert.equal(answer.message, `In view are 1 to 5, not ${index}.`);
  }
  const tokens = [];
  worker.listen(({ type, token }) => {
    if (type === "token") tokens.push(token);
    if (type === "token") worker.handle({ id: "a", type: "alternatives", index: 3 });
  });
  await worker.ask("continue", { count: 3, sampling: { temperature: 0 } });
  assert.equal(tokens.length, 3);
  const writer = new gpt.Writer(MODEL);
  writer.feed(ids);
  for (const token of tokens) {
    assert.equal(token, gpt.likeliestFirst(writer.logits)[0]);
    writer.append(token);
  }
});

test("attention comes for one token in all heads, or for one head over the whole text", async () => {
  const worker = await loaded();
  await worker.ask("feed", { text: "abcd" });
  const [newest] = await worker.ask("attention");
  assert.deepEqual([newest.start, newest.tokens, newest.weights.length], [0, 5, 6 * 5]);
  for (let head = 0; head < 6; head++) near(sum(newest.weights.slice(5 * head, 5 * head + 5)), 1);
  const [map] = await worker.ask("attention", { layer: 1, head: 2 });
  assert.equal(map.weights.length, 25);
  assert.deepEqual(map.weights.slice(20), newest.weights.slice(25));
  assert.equal(map.weights[1], 0); // no token looks at a later one
  const [second] = await worker.ask("attention", { index: 1 });
  assert.deepEqual(map.weights.slice(5, 7), second.weights.slice(10));
  for (const wrong of [{ layer: 2, head: 0 }, { layer: 0, head: 3 }, { layer: 0 }, { index: 5 }]) {
    assert.equal((await worker.ask("attention", wrong))[0].code, "input");
  }
  const [token] = await worker.ask("continue", { count: 1, attention: true });
  const { weights } = (await worker.ask("attention"))[0];
  assert.deepEqual(token.attention, weights);
});

test("losses come in parts, do not disturb the text, and can be stopped", async () => {
  const worker = await loaded();
  const [before] = await worker.ask("alternatives");
  const text = "abc ".repeat(20);
  const messages = await worker.ask("losses", { text });
  const { ids, texts, stopped, type } = messages.at(-1);
  assert.deepEqual([type, stopped, texts.join("")], ["done", false, text]);
  assert.deepEqual(messages.slice(0, -1).map(({ from }) => from), [1, 33, 65]);
  const values = messages.slice(0, -1).flatMap((message) => message.values);
  assert.deepEqual(values, [...gpt.losses(MODEL, ids)]);
  assert.deepEqual((await worker.ask("alternatives"))[0].alternatives, before.alternatives);
  worker.listen(({ type }) => type === "losses" && worker.handle({ id: "s", type: "stop" }));
  const cut = await worker.ask("losses", { text });
  assert.deepEqual([cut.length, cut.at(-1).stopped], [2, true]);
});

test("the lens reads every layer as the model reads the last, beside the text", async () => {
  const worker = await loaded();
  const [before] = await worker.ask("alternatives");
  const [found] = await worker.ask("lens", { text: "the é", count: 3 });
  const ids = [END, 257, 32, 0xc3, 0xa9];
  assert.deepEqual([found.ids, found.start, found.ends], [ids, 0, 3]);
  assert.deepEqual(found.tokens, ["", "the", " ", "\xc3", "\xa9"]);
  const heard = [];
  const listen = (x) => heard.push(gpt.logitsOf(MODEL, x));
  gpt.read(MODEL, ids, new gpt.KVCache(CONFIG), { listen });
  heard.forEach((logits, end) => {
    for (let t = 0; t < 5; t++) {
      const row = (rows) => rows.subarray(259 * t, 259 * (t + 1));
      const probabilities = gpt.softmax(row(logits));
      const place = 5 * end + t;
      const best = [...gpt.likeliestFirst(row(logits)).subarray(0, 3)];
      assert.deepEqual([...found.best.slice(3 * place, 3 * place + 3)], best);
      all(found.own.slice(3 * place), best.map((id) => probabilities[id]));
      near(found.chosen[place], probabilities[gpt.likeliestFirst(row(heard[2]))[0]]);
      if (t < 4) near(found.next[place], probabilities[ids[t + 1]]);
      else assert.ok(Number.isNaN(found.next[place]));
    }
  });
  assert.deepEqual(found.words, [...found.best].map((id) => VOCABULARY.tokens[id] ?? ""));
  const [long] = await worker.ask("lens", { text: "abcdefghij", bare: true });
  assert.deepEqual([long.start, long.tokens.join("")], [6, "ghij"]);
  assert.deepEqual((await worker.ask("alternatives"))[0].alternatives, before.alternatives);
  for (const wrong of [{ text: "a", count: 0 }, { text: "a", count: 260 }, { ids: [] }]) {
    assert.equal((await worker.ask("lens", wrong))[0].code, "input");
  }
  const reading = worker.ask("lens", { text: "a" });
  worker.ask("stop");
  assert.equal((await reading)[0].code, "stopped");
});

test("scores of all heads come with those that the mask hides", async () => {
  const worker = await loaded();
  const [found] = await worker.ask("scores", { text: "thea", bare: true });
  assert.deepEqual([found.ids, found.tokens], [[257, 97], ["the", "a"]]);
  assert.equal(found.scores.length, 2 * 3 * 2 * 2);
  const cache = new gpt.KVCache(CONFIG);
  gpt.read(MODEL, found.ids, cache);
  const row = new Float32Array(2);
  for (let head = 0; head < 6; head++) {
    for (let t = 0; t < 2; t++) {
      gpt.attentionScores(cache, Math.floor(head / 3), head % 3, t, 2, row);
      assert.deepEqual(found.scores.slice(4 * head + 2 * t, 4 * head + 2 * t + 2), row);
    }
  }
  const [long] = await worker.ask("scores", { text: "abcdefgh" });
  assert.deepEqual([long.code, long.message.slice(0, 19)], ["input", "The text has 9 toke"]);
  assert.equal((await worker.ask("scores", { text: "", bare: true }))[0].code, "input");
});

test("requests that make no sense are answered", async () => {
  const worker = await loaded();
  for (
    const [type, details, words] of [
      ["nonsense", {}, /no request nonsense/],
      ["toString", {}, /no request toString/],
      ["feed", {}, /a text, or ids from 0 to 258/],
      ["feed", { ids: [] }, /a text, or ids/],
      ["feed", { ids: [259] }, /a text, or ids/],
      ["feed", { text: "a", sampling: { topP: 2 } }, /top-p/],
      ["continue", { sampling: { temperature: -1 } }, /temperature/],
      ["losses", { ids: ["1"] }, /a text, or ids/],
    ]
  ) {
    const [answer] = await worker.ask(type, details);
    assert.deepEqual([answer.type, answer.code], ["error", "input"]);
    assert.match(answer.message, words);
  }
  const [fed] = await worker.ask("feed", { ids: [END, 5] });
  assert.deepEqual(fed.ids, [END, 5]);
});

// ---------------------------------------------------------------------------------------------
// Page

test("a browser without workers says so, and one whose worker breaks", async () => {
  const { Worker } = globalThis;
  delete globalThis.Worker;
  const none = connect({ worker: "w.js", gpt: "g.js" });
  await assert.rejects(none.ask("feed"), { code: "worker", message: /cannot run.*Worker/ });
  const made = [];
  globalThis.Worker = class {
    constructor(url, options) {
      made.push({ url, options, worker: this });
    }
    postMessage(message) {
      this.last = message;
    }
    terminate() {
      this.gone = true;
    }
  };
  try {
    const model = connect({ worker: "https://example.org/a/gpt_worker.js" });
    const [{ url, options, worker }] = made;
    assert.deepEqual([url, options.type], ["https://example.org/a/gpt_worker.js", "module"]);
    const parts = [];
    const answer = model.ask("load", { bytes: 1 }, (part) => parts.push(part));
    assert.equal(worker.last.gpt, "https://example.org/a/gpt.js");
    const { id } = worker.last;
    for (const type of ["progress", "done"]) worker.onmessage({ data: { id, type } });
    assert.deepEqual(await answer, { type: "done" });
    assert.deepEqual(parts, [{ type: "progress" }]);
    const wrong = model.ask("feed");
    assert.equal(worker.last.gpt, undefined);
    worker.onmessage({ data: { id: worker.last.id, type: "error", code: "input", message: "m" } });
    await assert.rejects(wrong, { code: "input", message: "m" });
    const waiting = model.ask("feed");
    worker.onerror({ message: "" });
    await assert.rejects(waiting, { code: "worker", message: /its worker does not start/ });
    await assert.rejects(model.ask("feed"), { code: "worker" });
    model.close();
    assert.ok(worker.gone);
  } finally {
    globalThis.Worker = Worker;
  }
});
