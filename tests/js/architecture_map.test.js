import assert from "node:assert/strict";
import { test } from "node:test";

import * as map from "../../gptlib/widgets/architecture_map.js";
import * as accounting from "../../gptlib/widgets/lib/accounting.js";
import { formatCount, formatShare, formatShort } from "../../gptlib/widgets/lib/numbers.js";

const GPT2 = {
  name: "gpt2",
  vocab_size: 50257,
  context_length: 1024,
  emb_dim: 768,
  n_heads: 12,
  n_layers: 12,
  qkv_bias: true,
  tie_head: true,
};

test("GPT-2 small has 124,439,808 parameters, and more without the tie", () => {
  assert.equal(accounting.total(GPT2), 124_439_808);
  assert.equal(accounting.total({ ...GPT2, tie_head: false }), 163_037_184);
  assert.equal(accounting.total({ ...GPT2, tie_head: false, qkv_bias: false }), 163_009_536);
});

test("the blocks' parameters add up to the model's", () => {
  const all = accounting.parameters(GPT2);
  for (const [name, count] of Object.entries(accounting.blockParameters(GPT2))) {
    assert.equal(all[name], 12 * count);
  }
});

test("a formula stands beside every count, and says the same", () => {
  const [V, T, C] = [50257, 1024, 768];
  for (const config of [GPT2, { ...GPT2, tie_head: false, qkv_bias: false }]) {
    const counts = { ...accounting.parameters(config), ...accounting.blockParameters(config) };
    for (const block of map.BLOCKS) {
      const formula = block.formula?.(config) ?? "";
      const js = formula.replaceAll("·", "*").replaceAll("²", "**2").replaceAll(" ", "");
      const value = js ? new Function("V", "T", "C", `return ${js}`)(V, T, C) : 0;
      assert.equal(value, counts[block.name] ?? 0, block.name);
    }
  }
});

test("what one block gives, the next one takes", () => {
  const inner = ["dropout", "norm_1", "attention", "shortcut_1", "norm_2", "feed_forward"];
  for (const block of map.BLOCKS.filter(({ name }) => inner.includes(name))) {
    assert.deepEqual(block.input, ["B", "T", "C"]);
    assert.deepEqual(block.output, ["B", "T", "C"]);
  }
  const of = Object.fromEntries(map.BLOCKS.map((block) => [block.name, block]));
  assert.deepEqual(of.tokenizer.output, of.token_embedding.input);
  assert.deepEqual(of.output_head.output, of.sampling.input);
});

test("numbers for people", () => {
  assert.equal(formatCount(0), "0");
  assert.equal(formatCount(999), "999");
  assert.equal(formatCount(174_563_733_504), "174,563,733,504");
  assert.equal(formatShort(768), "768");
  assert.equal(formatShort(1536), "1.54k");
  assert.equal(formatShort(999_999), "1M");
  assert.equal(formatShort(124_439_808), "124M");
  assert.equal(formatShort(1_557_611_200), "1.56B");
  assert.equal(formatShare(0), "0%");
  assert.equal(formatShare(0.00000001), "< 0.01%");
  assert.equal(formatShare(0.00031), "0.03%");
  assert.equal(formatShare(0.3102), "31.0%");
});

test("shapes in numbers, written as Python writes them", () => {
  assert.equal(map.numbers(["B", "T", "C"], GPT2), "(1, 1024, 768)");
  assert.equal(map.numbers(["B", "T", "V"], GPT2), "(1, 1024, 50257)");
  assert.equal(map.numbers(["B", "1"], GPT2), "(1, 1)");
  assert.equal(map.numbers(["T"], GPT2), "(1024,)");
});

test("names that a reader knows", () => {
  const names = ["mini", "gpt2", "gpt2-medium", "gpt2-xl", "gpt3-2.7b", "gpt3", "other"];
  assert.deepEqual(names.map(accounting.modelName), [
    "Mini",
    "GPT-2 small",
    "GPT-2 medium",
    "GPT-2 XL",
    "GPT-3 2.7B",
    "GPT-3 175B",
    "other",
  ]);
});
