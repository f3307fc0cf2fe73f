import assert from "node:assert/strict";
import { test } from "node:test";

import { modelName, trainingBytes } from "../../gptlib/widgets/lib/accounting.js";
import { formatBytes, formatFigure, formatPower } from "../../gptlib/widgets/lib/numbers.js";
import * as widget from "../../gptlib/widgets/training_cost.js";

const GPT3 = {
  vocab_size: 50257,
  context_length: 2048,
  emb_dim: 12288,
  n_heads: 96,
  n_layers: 96,
  qkv_bias: true,
  tie_head: true,
};
const MINI = {
  ...GPT3,
  ...{ vocab_size: 2048, context_length: 256, emb_dim: 192, n_heads: 6, n_layers: 4 },
};
const V100 = {
  ...{ key: "v100-lambda", name: "V100", flops_per_second: 28e12, memory_bytes: 32 * 2 ** 30 },
  source: "an estimate",
};
const RUN = {
  ...{ n_tokens: 300e9, counting: "six_nd", device: "v100-lambda", flops_per_second: 28e12 },
  ...{ n_devices: 1, utilization: 1, price_per_device_hour: 1, dtype: "float32", sharded: false },
};

test("the numbers of the course", () => {
  const found = widget.costs(GPT3, RUN);
  assert.ok(Math.abs(found.device_years / 355 - 1) < 0.01);
  const rtx = widget.costs(GPT3, { ...RUN, flops_per_second: 15e12 });
  assert.ok(Math.abs(rtx.device_years / 665 - 1) < 0.01);
  assert.equal(formatPower(found.flops), "3.14 × 10²³");
});

test("devices share the work, not the price; the price takes their time", () => {
  const one = widget.costs(GPT3, RUN);
  const many = widget.costs(GPT3, { ...RUN, n_devices: 1024 });
  assert.equal(many.days * 1024, one.days);
  assert.equal(many.price, one.price);
  assert.equal(many.device_years, one.device_years);
  const half = widget.costs(GPT3, { ...RUN, utilization: 0.5, price_per_device_hour: 3 });
  assert.equal(half.days, 2 * one.days);
  assert.equal(half.price, 6 * one.price);
});

test("sharding cuts what each device holds, and loses nothing", () => {
  const whole = trainingBytes(GPT3, "bfloat16");
  for (const n of [1, 7, 1024]) {
    for (const [name, size] of Object.entries(widget.shardedBytes(whole, n))) {
      assert.ok(size * n >= whole[name] && size * n < whole[name] + n);
    }
  }
});

test("counts are read as people type them, and written so that they can be read", () => {
  for (
    const [text, value] of [
      ["300B", 300e9],
      ["300 billion", 300e9],
      ["300,000", 300_000],
      ["3e11", 3e11],
      ["0.7B", 7e8],
      ["23.6 m", 23_600_000],
      ["1.5T", 1.5e12],
      [" 12 ", 12],
    ]
  ) {
    assert.equal(widget.parseCount(text), value, text);
  }
  for (const text of ["", "B", "3x", "1 2", "-3", "NaN", "Infinity", "1..2"]) {
    assert.ok(Number.isNaN(widget.parseCount(text)), text);
  }
  for (const value of [1, 999, 1000, 23_641_363, 25e6, 300e9, 1e15, 123_456_789_012]) {
    assert.equal(widget.parseCount(widget.formatExact(value)), value);
  }
  assert.equal(widget.formatExact(300e9), "300B");
  assert.equal(widget.formatExact(23_641_363), "23,641,363");
});

test("each box shows what it reads", () => {
  for (
    const [name, value, text] of [
      ["n_tokens", 300e9, "300B"],
      ["utilization", 0.45, "45"],
      ["utilization", 0.07, "7"],
      ["flops_per_second", 989.5e12, "989.5"],
      ["flops_per_second", 0.1e12, "0.1"],
      ["price_per_device_hour", 1.25, "1.25"],
      ["n_devices", 1024, "1,024"],
    ]
  ) {
    assert.equal(widget.shownAs(name, value), text);
    assert.equal(widget.readAs(name, text), value);
  }
});

test("a slider stops where it stands, in order, within what is valid", () => {
  for (const name of Object.keys(widget.LIMITS)) {
    const now = { n_devices: 100, utilization: 0.33 }[name] ?? RUN[name];
    const values = widget.stops(name, now, name === "flops_per_second" ? [312e12] : []);
    assert.ok(values.includes(now), name);
    assert.deepEqual(values, [...new Set(values)].sort((a, b) => a - b));
    for (const value of values) assert.equal(widget.runProblem({ ...RUN, [name]: value }), "");
  }
  assert.ok(widget.stops("n_tokens", 1).includes(300e9));
});

test("what is wrong with a run is said in a line", () => {
  const say = (changes) => widget.runProblem({ ...RUN, ...changes });
  assert.equal(say({}), "");
  assert.equal(say({ n_tokens: NaN }), "Tokens must be a whole number of at least 1");
  assert.equal(say({ n_devices: 1.5 }), "Devices must be a whole number of at least 1");
  assert.equal(say({ utilization: 1.2 }), "Utilization must be at most 100 here");
  assert.equal(say({ utilization: 0 }), "Utilization must be a number above 0");
  assert.equal(say({ price_per_device_hour: -1 }), "Price must be a number at least 0");
  assert.equal(say({ price_per_device_hour: 0 }), "");
  assert.equal(say({ n_tokens: 2e15 }), "Tokens must be at most 1000T here");
});

test("every figure says what it rests on", () => {
  for (
    const changes of [
      {},
      { counting: "products" },
      { n_devices: 1024, utilization: 0.45, sharded: true },
      { flops_per_second: 1e12 },
    ]
  ) {
    const run = { ...RUN, ...changes };
    const why = widget.assumptions(GPT3, run, V100);
    assert.deepEqual(Object.keys(why), ["flops", "device_years", "days", "price", "memory"]);
    for (const words of Object.values(why)) assert.ok(!/undefined|NaN/.test(words), words);
  }
  const why = widget.assumptions(GPT3, RUN, V100);
  assert.match(why.flops, /6 · 175B · 300B.*3\.23 × 10²³: 2\.7% more/);
  assert.match(why.device_years, /28 TFLOP\/s: an estimate\. All of it used/);
  const own = widget.assumptions(GPT3, { ...RUN, flops_per_second: 1e12 }, V100);
  assert.match(own.device_years, /1 TFLOP\/s: your own figure/);
  const mini = widget.assumptions(MINI, { ...RUN, counting: "products" }, V100);
  assert.match(mini.flops, /6 · N · D says .*fewer/);
});

test("what does not fit into a device is said, with how often it would", () => {
  assert.deepEqual(widget.fit(2 ** 30, V100), {
    fits: true,
    words: "Fits: V100 has 32 GiB, so 31.0 GiB are left.",
  });
  assert.match(widget.fit(2 ** 40, V100).words, /Does not fit: 32 times the 32 GiB/);
});

test("the scale of time runs from a second to 100,000 years", () => {
  assert.equal(widget.placeOf(0), 0);
  assert.equal(widget.placeOf(1), 0);
  assert.equal(widget.placeOf(1e30), 1);
  const places = widget.MARKS.map(([seconds]) => widget.placeOf(seconds));
  assert.deepEqual(places, [...places].sort((a, b) => a - b));
});

test("numbers for people", () => {
  assert.equal(formatFigure(129_907.4), "129,900");
  assert.equal(formatFigure(355.68), "355.7");
  assert.equal(formatFigure(0.00012), "1.20 × 10⁻⁴");
  assert.equal(formatFigure(0), "0");
  assert.equal(formatFigure(3e20), "3.00 × 10²⁰");
  assert.equal(formatPower(0), "0");
  assert.equal(widget.formatDuration(0.5), "0.5 seconds");
  assert.equal(widget.formatDuration(90), "1.5 minutes");
  assert.equal(widget.formatDuration(86_400), "1 day");
  assert.equal(widget.formatDuration(355.68 * widget.SECONDS_PER_YEAR), "356 years");
  assert.equal(formatBytes(1024 ** 2 - 1), "1.0 MiB");
  assert.equal(modelName("gpt2-xl"), "GPT-2 XL");
});
