import assert from "node:assert/strict";
import { test } from "node:test";

import * as explorer from "../../gptlib/widgets/checkpoint_explorer.js";
import { formatBytes, formatShare } from "../../gptlib/widgets/lib/numbers.js";

const near = (found, expected, error = 1e-9) =>
  assert.ok(Math.abs(found - expected) <= error, `${found} is not ${expected}`);

// mean std min max low high near any reach peak below above nan infinite rows
const NUMBERS = "0.5 2 -9 8 -7.5 8 0.25 -0.001 0.31 30 1 0 0 0 2";
const line = (
  name,
  { shape = "4 6", dtype = "F16", numbers = NUMBERS, bins = "//AAgA", cells = "AfA+/e" } = {},
) => [shape, dtype, numbers, bins, cells, name].join("\t");
const NAMES = [
  "wte.weight\ttoken_embedding.weight\t",
  "h.{}.ln_1.weight\tblocks.{}.norm_1.scale\t",
  "h.{}.attn.c_attn.weight\tblocks.{}.attention.query_key_value.weight\tT",
  "h.{}.attn.c_attn.bias\tblocks.{}.attention.query_key_value.bias\t",
];
const checkpoint = (tensors) => ({ names: NAMES, sizes: { F16: 2, F32: 4 }, tensors });
const entries = explorer.entriesOf(
  checkpoint([
    line("wte.weight"),
    line("h.0.ln_1.weight", { shape: "6", dtype: "F32" }),
    line("h.0.attn.c_attn.weight"),
    line("h.10.attn.c_attn.weight"),
    line("what\tis.this", { shape: "", numbers: "       0 0 0 0 1 0 0", bins: "", cells: "" }),
  ]),
);
const [wte, norm, attention, tenth, unknown] = entries;

test("a packed line is a tensor again", () => {
  assert.deepEqual(wte.shape, [4, 6]);
  assert.deepEqual([wte.count, wte.bytes, wte.group, wte.label], [24, 48, "", "wte.weight"]);
  assert.deepEqual([wte.mean, wte.any, wte.peak, wte.rows], [0.5, -0.001, 30, 2]);
  assert.deepEqual(wte.bins, [4095, 0, 2048]);
  assert.deepEqual(wte.cells, [0, 31, 0, 62, 63, 30]);
  assert.deepEqual([norm.bytes, norm.group, norm.label], [24, "h.0", "ln_1.weight"]);
});

test("every tensor has our name beside its own, and what is unknown has none", () => {
  assert.deepEqual(
    entries.map(({ ours, transposed, kind }) => [ours, transposed, kind]),
    [
      ["token_embedding.weight", false, "embedding"],
      ["blocks.0.norm_1.scale", false, "norm"],
      ["blocks.0.attention.query_key_value.weight", true, "attention"],
      ["blocks.10.attention.query_key_value.weight", true, "attention"],
      ["", false, "plain"],
    ],
  );
  assert.equal(unknown.name, "what\tis.this");
  assert.deepEqual([unknown.count, unknown.shape], [1, []]);
  assert.ok(Number.isNaN(unknown.mean));
});

test("blocks fold and unfold", () => {
  const keys = (opened, search = "") =>
    explorer.linesOf(entries, opened, search).map((one) => `${one.level} ${one.label}`);
  assert.deepEqual(keys([]), ["1 wte.weight", "1 h.0", "1 h.10", "1 what\tis.this"]);
  assert.deepEqual(keys(["h.0"]).slice(1, 4), ["1 h.0", "2 ln_1.weight", "2 attn.c_attn.weight"]);
  const [, block, first, second] = explorer.linesOf(entries, ["h.0"], "");
  assert.deepEqual([block.expanded, block.bytes, block.position, block.siblings], [true, 72, 2, 4]);
  assert.deepEqual([first.position, second.position, second.siblings], [1, 2, 2]);
  assert.equal(first.expanded, null);
});

test("what is searched for is unfolded: all words, in any name", () => {
  const found = (search) => explorer.linesOf(entries, [], search).map((one) => one.label);
  assert.deepEqual(found("Scale"), ["h.0", "ln_1.weight"]);
  assert.deepEqual(found("transposed"), [
    ..."h.0,attn.c_attn.weight,h.10,attn.c_attn.weight".split(","),
  ]);
  assert.deepEqual(found("attn h.10"), ["h.10", "attn.c_attn.weight"]);
  assert.deepEqual(found("f32"), ["h.0", "ln_1.weight"]);
  assert.deepEqual(found("nothing of it"), []);
  assert.equal(found("  ").length, 4);
});

test("keys lead through the tree as the pattern for trees says", () => {
  const lines = explorer.linesOf(entries, ["h.0"], ""); // wte, h.0, two in it, h.10, unknown
  const go = (at, key) => explorer.step(lines, at, key);
  assert.deepEqual(go(0, "ArrowUp"), { to: 0 });
  assert.deepEqual(go(5, "ArrowDown"), { to: 5 });
  assert.deepEqual([go(3, "Home"), go(3, "End")], [{ to: 0 }, { to: 5 }]);
  assert.deepEqual(go(1, "ArrowRight"), { to: 2 });
  assert.deepEqual(go(1, "ArrowLeft"), { to: 1, fold: false });
  assert.deepEqual(go(3, "ArrowLeft"), { to: 1 });
  assert.deepEqual(go(4, "ArrowRight"), { to: 4, fold: true });
  assert.deepEqual(go(4, "ArrowLeft"), { to: 4 });
  assert.deepEqual([go(4, "Enter"), go(1, " ")], [{ to: 4, fold: true }, { to: 1, fold: false }]);
  assert.deepEqual(go(3, "Enter"), { to: 3 });
  assert.equal(go(0, "x"), null);
});

test("bars are shares of the finite values, beside the normal distribution", () => {
  const bars = explorer.barsOf(wte);
  assert.equal(bars.length, 3);
  near(bars[0].share, 30 / 24);
  near(bars[2].share, ((2048 / 4095) * 30) / 24);
  near(bars[0].from, -7.5);
  near(bars[2].to, 8);
  const narrow = { ...wte, mean: 0, std: 1, low: -4, high: 4, bins: Array(40).fill(1) };
  near(explorer.barsOf(narrow).reduce((sum, bar) => sum + bar.normal, 0), 1, 1e-3);
});

test("a picture's cells are the sections of torch.tensor_split", () => {
  assert.deepEqual([0, 1, 2].map((i) => explorer.section(8, 3, i)), [[0, 2], [3, 5], [6, 7]]);
  assert.deepEqual(explorer.section(5, 5, 4), [4, 4]);
  assert.deepEqual(explorer.gridOf(wte), { rows: 2, columns: 3, high: 4, wide: 6 });
  assert.deepEqual([0, 31, 62].map((code) => explorer.averageOf(wte, code)), [-0.31, 0, 0.31]);
  assert.ok(Number.isNaN(explorer.averageOf(wte, 63)));
  assert.equal(explorer.cellWords(wte), "Each cell is the average of about 2 × 2 values.");
});

test("colors part at zero", () => {
  const stops = [[0, 0, 0], [10, 20, 30], [50, 50, 50], [90, 80, 70], [100, 100, 100]];
  assert.deepEqual([-1, -0.5, 0, 0.25, 1].map((share) => explorer.shade(share, stops)), [
    ...[stops[0], stops[1], stops[2], [70, 65, 60], stops[4]],
  ]);
});

test("numbers are short, and none is a false zero", () => {
  const values = [0, -0.012345, 0.99, 1.18, 12.34, -1234.5, 1e-5, -1.71e-5, 3e38, NaN, -Infinity];
  assert.deepEqual(values.map(explorer.formatValue), [
    ...["0", "−0.0123", "0.990", "1.18", "12.3", "−1,235", "1.00·10⁻⁵", "−1.71·10⁻⁵"],
    ...["3.00·10³⁸", "–", "−∞"],
  ]);
  assert.deepEqual([0, 999, 4_449_456, 548_105_171].map(formatBytes), [
    ...["0 B", "999 B", "4.2 MiB", "522.7 MiB"],
  ]);
  assert.deepEqual([0, 0.00001, 0.0012, 0.177].map(formatShare), [
    ...["0%", "< 0.01%", "0.12%", "17.7%"],
  ]);
  assert.equal(explorer.formatShape([50_257, 768]), "50,257 × 768");
  assert.equal(explorer.formatShape([]), "1 value");
});

test("ticks are round", () => {
  const texts = (...range) => explorer.ticks(...range).map(({ text }) => text);
  assert.deepEqual(texts(-0.66, 0.65, 4), ["−0.5", "0.0", "0.5"]);
  assert.deepEqual(texts(0.96, 1.03, 4), ["0.96", "0.98", "1.00", "1.02"]);
  assert.deepEqual(texts(-3e-6, 3e-6, 3), ["−2.00·10⁻⁶", "0", "2.00·10⁻⁶"]);
  assert.deepEqual(texts(2, 2), []);
  assert.deepEqual(texts(NaN, 1), []);
});

test("words say what is stored the other way round, and what is wrong", () => {
  assert.equal(
    explorer.orderOf(tenth),
    "Stored transposed: 4 × 6 in the file, 6 × 4 in our model.",
  );
  assert.equal(explorer.orderOf(wte), "It lies in the file as in our model.");
  assert.equal(explorer.orderOf(unknown), "");
  assert.deepEqual(Object.values(explorer.aboutOf(attention)).slice(1), ["in", "out"]);
  assert.match(explorer.aboutOf(unknown).text, /^GPT-2 has no tensor/);
  assert.match(explorer.aboutOf(norm).text, /every scale at 1/);
  assert.equal(explorer.oddOf(wte), "");
  const odd = { ...wte, nan: 3, infinite: 1 };
  assert.equal(
    explorer.oddOf(odd),
    "Of 24 values, 3 not a number (NaN) and 1 infinite. They are left out below.",
  );
  assert.equal(
    explorer.alikeOf(wte, "in"),
    "Mean cosine similarity of neighboring rows: 0.25; of any two: 0.00.",
  );
  assert.match(explorer.barWords(wte), /Outside: 1 value \(4\.2%\)\.$/);
  assert.equal(explorer.barWords({ ...wte, bins: [], min: 1 }), "All values are 1.00.");
});
