import assert from "node:assert/strict";
import { test } from "node:test";

import { formatChance, formatCount } from "../../gptlib/widgets/lib/numbers.js";
import { nearest, STOPS } from "../../gptlib/widgets/lib/sampling.js";
import { label, spoken } from "../../gptlib/widgets/lib/tokens.js";
import * as bench from "../../gptlib/widgets/sampling_bench.js";

const OFF = { temperature: 1, top_k: null, top_p: null };
const sum = (values) => values.reduce((all, value) => all + value, 0);
const near = (found, expected, error = 1e-9) =>
  assert.ok(Math.abs(found - expected) <= error, `${found} is not ${expected} ± ${error}`);

/** What decode makes of logits that fall: the first has the highest. */
function ranked(logits, rest = []) {
  const depths = Float64Array.from(logits, (logit) => logits[0] - logit);
  const counts = Float64Array.from(rest, ([count]) => count);
  const means = Float64Array.from(rest, ([, mean]) => mean);
  const size = logits.length + sum([...counts]);
  const tokens = { size, ids: Uint32Array.from(depths.keys()), depths, counts, means };
  const e = [...depths].map((depth) => Math.exp(-depth));
  const others = rest.map(([count, mean]) => count * Math.exp(-mean));
  const all = sum(e) + sum(others);
  return {
    ...tokens,
    own: Float64Array.from(e, (value) => value / all),
    ownRest: Float64Array.from(others, (value) => value / all),
  };
}

/** Logits whose probabilities are these. */
const likely = (...probabilities) => ranked(probabilities.map(Math.log));

/** Python's packing of codes, three bytes each. */
const pack = (...codes) =>
  Buffer.from(codes.flatMap((code) => [code & 255, (code >> 8) & 255, code >> 16])).toString(
    "base64",
  );

test("codes are sorted, equal ones by id, and become depths", () => {
  const levels = 2 ** 24 - 1 - 4096;
  const stored = { text: "", added: [], size: 4, width: 3, texts: [], ids: "", rest: [] };
  const found = bench.decode({ ...stored, codes: pack(levels, 0, 5000, 0) });
  assert.deepEqual([...found.ids], [1, 3, 2, 0]);
  near(found.depths[0], 0);
  near(found.depths[3], 3);
  near(sum([...found.own]), 1);
  const some = bench.decode({
    ...stored,
    codes: pack(9, 0),
    ids: pack(7, 70_000),
    rest: [[2, 5]],
  });
  assert.deepEqual([...some.ids], [70_000, 7]);
  near(sum([...some.own]) + sum([...some.ownRest]), 1);
});

test("a temperature of 1 changes nothing, 0 takes the likeliest, more makes tokens alike", () => {
  const three = likely(0.6, 0.3, 0.1);
  const found = bench.settle(three, OFF);
  [0.6, 0.3, 0.1].forEach((p, i) => near(found.probabilities[i], p));
  assert.equal(found.share, 1);
  near(found.entropy, -0.6 * Math.log(0.6) - 0.3 * Math.log(0.3) - 0.1 * Math.log(0.1));
  const greedy = bench.settle(three, { ...OFF, temperature: 0 });
  assert.deepEqual([...greedy.probabilities], [1, 0, 0]);
  assert.equal(greedy.possible, 1);
  assert.equal(greedy.entropy, 0);
  near(greedy.share, 0.6);
  const entropies = [0.3, 0.7, 1, 1.5, 2].map(
    (temperature) => bench.settle(three, { ...OFF, temperature }).entropy,
  );
  assert.deepEqual([...entropies].sort(), entropies);
  const cold = bench.settle(likely(0.8, 0.2), { ...OFF, temperature: 0.5 }); // squares
  near(cold.probabilities[0], 0.64 / 0.68);
});

test("top-k keeps so many, top-p the fewest that add up to it, of what top-k left", () => {
  const four = likely(0.4, 0.3, 0.2, 0.1);
  const possible = (top_k, top_p) => bench.settle(four, { temperature: 1, top_k, top_p }).possible;
  assert.deepEqual([1, 2, 4, 99].map((k) => possible(k, null)), [1, 2, 4, 4]);
  assert.deepEqual([0.05, 0.399, 0.401, 0.699, 0.701, 1].map((p) => possible(null, p)), [
    1,
    1,
    2,
    2,
    3,
    4,
  ]);
  assert.equal(possible(2, 0.55), 1); // 0.4 of 0.7 is more than 0.55
  assert.equal(possible(2, 0.6), 2);
  const cut = bench.settle(four, { temperature: 1, top_k: 2, top_p: null });
  near(cut.probabilities[0], 0.4 / 0.7);
  near(cut.share, 0.7);
});

test("a histogram stands for many tokens, whole or in part", () => {
  const alike = ranked([0, 0], [[6, 0]]); // eight tokens of the same probability
  const found = bench.settle(alike, OFF);
  assert.equal(found.possible, 8);
  near(found.rest[0], 6 / 8);
  near(found.entropy, Math.log(8));
  const half = bench.settle(alike, { ...OFF, top_p: 0.6 }); // 0.6 of 8 is 4.8: five tokens
  assert.equal(half.possible, 5);
  near(half.share, 5 / 8);
  near(half.entropy, Math.log(5));
  near(half.probabilities[0], 1 / 5);
  const few = bench.settle(alike, { ...OFF, top_k: 2 });
  assert.deepEqual([few.possible, few.rest[0]], [2, 0]);
});

test("the same seed draws the same tokens, and never one that was dropped", () => {
  const found = bench.settle(likely(0.5, 0.25, 0.15, 0.1), { ...OFF, top_k: 3 });
  const ranks = [...bench.draw(found, 5000, 7)];
  assert.deepEqual([...bench.draw(found, 9, 7)], ranks.slice(0, 9));
  assert.notDeepEqual([...bench.draw(found, 9, 8)], ranks.slice(0, 9));
  assert.equal(Math.max(...ranks), 2);
  [0.5, 0.25, 0.15].forEach((p, rank) => {
    near(ranks.filter((one) => one === rank).length / 5000, p / 0.9, 0.03);
  });
  const greedy = bench.settle(likely(0.4, 0.6 - 1e-9, 1e-9), { ...OFF, temperature: 0 });
  assert.deepEqual([...new Set(bench.draw(greedy, 100, 1))], [0]);
  assert.equal(bench.draw(found, 0, 1).length, 0);
});

test("draws of unnamed tokens are counted as others", () => {
  const alike = ranked([0, 0], [[6, 0]]);
  const ranks = [...bench.draw(bench.settle(alike, OFF), 4000, 3)];
  near(ranks.filter((rank) => rank === 2).length / 4000, 6 / 8, 0.03);
});

test("random numbers are even and known", () => {
  const next = bench.random(1);
  const numbers = Array.from({ length: 10_000 }, next);
  assert.deepEqual(
    numbers.slice(0, 2).map((number) => Math.round(number * 2 ** 32)),
    [2693262067, 11749833], // of mulberry32 with the seed 1
  );
  assert.ok(numbers.every((number) => number >= 0 && number < 1));
  near(sum(numbers) / 10_000, 0.5, 0.01);
});

test("sliders stand at the nearest stop, and say the value itself", () => {
  assert.equal(nearest("temperature", 0), 0);
  assert.equal(STOPS.temperature[nearest("temperature", 0.72)], 0.7);
  assert.equal(STOPS.top_k[nearest("top_k", 47)], 50);
  assert.equal(nearest("top_p", null), STOPS.top_p.length - 1);
  for (const [name, stops] of Object.entries(STOPS)) {
    stops.forEach((value, i) => assert.equal(nearest(name, value), i, `${name} ${value}`));
  }
  assert.equal(bench.formatSetting("temperature", 1), "1.00");
  assert.equal(bench.formatSetting("temperature", 0.123), "0.123");
  assert.equal(bench.formatSetting("top_k", 40), "40");
  assert.equal(bench.formatSetting("top_p", null), "off");
});

test("numbers for people", () => {
  assert.equal(formatChance(0), "0%");
  assert.equal(formatChance(1e-9), "<0.01%");
  assert.equal(formatChance(0.00512), "0.51%");
  assert.equal(formatChance(0.0996), "10.0%");
  assert.equal(formatChance(0.99996), ">99.9%");
  assert.equal(formatChance(1), "100%");
  assert.equal(bench.formatPerplexity(7.6), "7.60");
  assert.equal(bench.formatPerplexity(1234.5), "1,235");
  assert.equal(formatCount(48_257), "48,257");
  assert.equal(bench.scaleEnd(0.2), 0.2);
  assert.equal(bench.scaleEnd(0.21), 0.5);
  assert.equal(bench.scaleEnd(0.97), 1);
});

test("any token can be seen and said", () => {
  assert.equal(label(" fox"), "␣fox");
  assert.equal(label("\n"), "⏎");
  assert.equal(label("<|endoftext|>"), "<|endoftext|>");
  assert.equal(label(" \xe2\x80"), "␣⟨E2 80⟩");
  assert.equal(label("\xf0\x9f\x99\x82"), "🙂");
  assert.equal(spoken("␣fox"), "space fox");
});
