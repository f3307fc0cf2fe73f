import assert from "node:assert/strict";
import { test } from "node:test";

import * as accounting from "../../gptlib/widgets/lib/accounting.js";
import * as numbers from "../../gptlib/widgets/lib/numbers.js";
import * as widget from "../../gptlib/widgets/parameter_breakdown.js";

const GPT2 = {
  vocab_size: 50257,
  context_length: 1024,
  emb_dim: 768,
  n_heads: 12,
  n_layers: 12,
  qkv_bias: true,
  tie_head: true,
};
const GPT3 = { ...GPT2, context_length: 2048, emb_dim: 12288, n_heads: 96, n_layers: 96 };
const OPEN = { ...GPT2, qkv_bias: false, tie_head: false };
const TINY = {
  vocab_size: 1,
  context_length: 1,
  emb_dim: 1,
  n_heads: 1,
  n_layers: 1,
  qkv_bias: true,
  tie_head: true,
};
const LARGEST = {
  ...accounting.LIMITS,
  n_heads: 1,
  qkv_bias: true,
  tie_head: false,
};
const CONFIGS = [GPT2, GPT3, OPEN, TINY, LARGEST];

/** Every part of a model, the whole model first. */
function all(part) {
  return [part, ...part.children.flatMap(all)];
}

test("the numbers of the course", () => {
  assert.equal(accounting.total(GPT2), 124_439_808);
  assert.equal(accounting.total({ ...GPT2, tie_head: false }), 163_037_184);
  assert.equal(accounting.total(OPEN), 163_009_536);
  assert.equal(
    accounting.total({ ...GPT2, emb_dim: 1600, n_heads: 25, n_layers: 48 }),
    1_557_611_200,
  );
  assert.equal(numbers.formatBytes(accounting.weightBytes(OPEN, "float32")), "621.8 MiB");
});

test("parts add up to their whole, and the tree to the closed form", () => {
  for (const config of CONFIGS) {
    const root = widget.tree(config);
    for (const part of all(root)) {
      assert.equal(part.count, part.path ? part.each * part.times : part.each, part.path);
      if (!part.children.length) continue;
      const sum = part.children.reduce((n, child) => n + child.count, 0);
      assert.equal(part.count, sum, part.path);
    }
    assert.equal(root.count, accounting.total(config));
    for (const [name, count] of Object.entries(accounting.parameters(config))) {
      const part = all(root).find(({ path }) => path === name || path === `blocks/${name}`);
      assert.equal(part.count, count, name);
    }
  }
});

test("every number stays exact, also the largest", () => {
  for (const dtype of Object.keys(accounting.BYTES)) {
    const held = Object.values(accounting.trainingBytes(LARGEST, dtype));
    assert.ok(held.reduce((sum, n) => sum + n, 0) < Number.MAX_SAFE_INTEGER);
  }
  assert.equal(accounting.problem(LARGEST), "");
});

test("a formula stands beside every count, and says the same", () => {
  for (const config of CONFIGS) {
    const { vocab_size: V, context_length: T, emb_dim: C, n_layers: L } = config;
    for (const { path, formula, each } of all(widget.tree(config))) {
      const js = formula.replaceAll("·", "*").replaceAll("²", "**2");
      assert.equal(new Function("V", "T", "C", "L", `return ${js}`)(V, T, C, L), each, path);
    }
  }
  const of = (path) => widget.find(widget.tree(GPT2), path).formula;
  assert.equal(of("blocks"), "12 · C² + 13 · C");
  assert.equal(of("blocks/attention"), "4 · C² + 4 · C");
  assert.equal(of("token_embedding"), "V · C");
  assert.equal(of(""), "V · C + T · C + L · (12 · C² + 13 · C) + 2 · C");
});

test("each matrix has its shape, and the shapes make the count", () => {
  for (const config of [GPT2, OPEN, TINY]) {
    const shapes = widget.shapes(config);
    const product = (shape) => shape.reduce((n, size) => n * size, 1);
    const sum = Object.values(shapes).reduce((n, shape) => n + product(shape), 0);
    assert.equal(sum, accounting.total(config));
  }
  assert.deepEqual(widget.shapes(GPT2)["blocks.11.feed_forward.expand.weight"], [3072, 768]);
  assert.ok(!("output_head.weight" in widget.shapes(GPT2)));
  assert.ok(!("blocks.0.attention.query_key_value.bias" in widget.shapes(OPEN)));
});

test("training holds 16 bytes a parameter, in 32 bits and in 16", () => {
  const n = 124_439_808;
  const held = (dtype) => Object.values(accounting.trainingBytes(GPT2, dtype)).map((b) => b / n);
  assert.deepEqual(held("float32"), [4, 4, 0, 8]);
  assert.deepEqual(held("bfloat16"), [2, 2, 4, 8]);
  assert.deepEqual(held("float16"), [2, 2, 4, 8]);
});

test("areas are as large as their parts, and keep their order", () => {
  for (const config of CONFIGS) {
    for (const part of all(widget.tree(config)).filter(({ children }) => children.length)) {
      for (const upright of [false, true]) {
        const found = widget.areas(part, upright);
        found.forEach(({ x, y, width, height }, i) => {
          const share = part.children[i].count / part.count;
          assert.ok(Math.abs(width * height - share) < 1e-12, part.path);
          for (const end of [x, y, x + width, y + height]) assert.ok(end >= 0 && end < 1 + 1e-12);
          for (const other of found.slice(i + 1)) {
            const apart = other.x >= x + width - 1e-12 || other.y >= y + height - 1e-12 ||
              other.x < x - 1e-12;
            assert.ok(apart, `${part.path}: areas overlap`);
          }
        });
      }
    }
  }
});

test("a slider stops only where the model is valid, and where it stands", () => {
  for (const config of [GPT2, GPT3, OPEN, { ...GPT2, emb_dim: 1001, n_heads: 13 }]) {
    for (const name of ["n_layers", "emb_dim", "n_heads", "vocab_size", "context_length"]) {
      const values = widget.stops(name, config, [config[name]]);
      assert.ok(values.includes(config[name]), name);
      assert.deepEqual(values, [...new Set(values)].sort((a, b) => a - b));
      for (const value of values) {
        assert.equal(accounting.problem({ ...config, [name]: value }), "");
      }
    }
  }
  const widths = widget.stops("emb_dim", GPT2);
  for (const width of [192, 384, 768, 1536, 3072, 12288]) assert.ok(widths.includes(width));
});

test("what is wrong is said with its value and its rule", () => {
  const say = (changes) => accounting.problem({ ...GPT2, ...changes });
  assert.equal(say({}), "");
  assert.equal(say({ emb_dim: 770 }), "emb_dim must be divisible by n_heads, but 770 % 12 = 2");
  assert.equal(say({ n_layers: 0 }), "n_layers must be a whole number of at least 1, not 0");
  assert.equal(say({ n_heads: 1.5 }), "n_heads must be a whole number of at least 1, not 1.5");
  assert.equal(say({ n_heads: "" }), "n_heads must be a whole number of at least 1, not ''");
  assert.equal(say({ n_layers: 1001 }), "n_layers must be at most 1,000 here, not 1001");
});

test("what grows: layers linearly, width quadratically, vocabulary only the embeddings", () => {
  const twice = (name) => widget.growth({ ...GPT2, [name]: 2 * GPT2[name] }, GPT2);
  assert.equal(twice("n_layers").blocks, 2);
  assert.equal(twice("n_layers").embeddings, 1);
  assert.ok(Math.abs(twice("emb_dim").blocks - 4) < 0.01);
  assert.equal(twice("emb_dim").embeddings, 2);
  assert.equal(twice("vocab_size").blocks, 1);
  assert.deepEqual(twice("n_heads"), { embeddings: 1, blocks: 1, all: 1 });
});

test("every matrix and every vector says what it is for", () => {
  for (const config of [GPT2, OPEN, TINY]) {
    for (const part of all(widget.tree(config)).filter(({ shape }) => shape.length)) {
      const { words, flow } = widget.explain(part, config);
      assert.ok(words.length > 20, part.path);
      assert.match(flow, /→ \((B, )?T, \d+\)$/, part.path);
      assert.ok(!/undefined|NaN/.test(words + flow), part.path);
    }
  }
});

test("paths lead to their parts", () => {
  const root = widget.tree(GPT2);
  assert.deepEqual(
    widget.paths(),
    all(root).map(({ path }) => path),
  );
  for (const path of widget.paths()) assert.equal(widget.find(root, path).path, path);
});

test("numbers for people", () => {
  assert.equal(numbers.formatShort(124_439_808), "124M");
  assert.equal(numbers.formatShort(999_999), "1M");
  assert.equal(numbers.formatShort(5.2e13), "52T");
  assert.equal(widget.formatFactor(12.517), "12.5");
  assert.equal(widget.formatFactor(1403.13), "1,403");
  assert.equal(widget.formatFactor(2), "2");
  assert.equal(widget.formatFactor(1.996), "2.00");
  assert.equal(widget.formatFactor(0.025), "0.025");
  assert.equal(numbers.formatShare(0.0000001), "< 0.01%");
  assert.equal(numbers.formatBytes(512), "512 B");
  assert.equal(numbers.formatBytes(1023), "1023 B");
  assert.equal(numbers.formatBytes(1280), "1.3 KiB");
  assert.equal(numbers.formatBytes(1024 ** 2 - 1), "1.0 MiB");
  assert.equal(numbers.formatBytes(497_759_232), "474.7 MiB");
});
