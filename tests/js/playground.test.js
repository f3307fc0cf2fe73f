import assert from "node:assert/strict";
import { test } from "node:test";

import { formatChance, formatCount, megabytes } from "../../gptlib/widgets/lib/numbers.js";
import { nearest, STOPS } from "../../gptlib/widgets/lib/sampling.js";
import * as session from "../../gptlib/widgets/lib/session.js";
import { labelOfText } from "../../gptlib/widgets/lib/tokens.js";
import * as playground from "../../gptlib/widgets/playground.js";

const near = (found, expected, error = 1e-9) =>
  assert.ok(Math.abs(found - expected) <= error, `${found} is not ${expected} ± ${error}`);

const token = (loss, text = "x") => ({ id: 1, text, loss, alternatives: null });

/** @param {string[]} texts what each token completes */
function grouped(...texts) {
  const groups = [];
  texts.forEach((text, i) => session.addToGroups(groups, text, i, text === "END"));
  return groups;
}

test("each place has a seed of its own, always the same", () => {
  const seeds = new Set();
  for (let seed = 0; seed < 50; seed++) {
    for (let index = 1; index < 300; index++) seeds.add(session.seedAt(seed, index));
  }
  assert.equal(seeds.size, 50 * 299);
  for (const seed of seeds) assert.ok(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32);
  assert.equal(session.seedAt(7, 11), session.seedAt(7, 11));
  assert.ok(session.seedAt(2 ** 32 - 1, 1) >= 0);
});

test("what surprises more has the stronger color, up to an end", () => {
  assert.deepEqual([null, 0, 3, 6, 50, Infinity].map(playground.heat), [0, 0, 0.5, 1, 1, 1]);
});

test("tokens that end within a character wait for the one that completes it", () => {
  assert.deepEqual(grouped("a", "", "", "🙂", "b"), [
    { text: "a", first: 0, last: 0, open: false },
    { text: "🙂", first: 1, last: 3, open: false },
    { text: "b", first: 4, last: 4, open: false },
  ]);
  const [half, end, after] = grouped("", "END", "c");
  assert.deepEqual(half, { text: "", first: 0, last: 0, open: true });
  assert.deepEqual([end.first, after.first], [1, 2]);
  const groups = [];
  session.addToGroups(groups, "", 0, true); // the end-of-text token has no text
  session.addToGroups(groups, "Once", 1);
  assert.equal(groups.length, 2);
});

test("the loss of a character is that of all its tokens", () => {
  const tokens = [token(null), token(1), token(2.5), token(null)];
  assert.equal(session.lossOf(tokens, { first: 1, last: 2 }), 3.5);
  assert.equal(session.lossOf(tokens, { first: 1, last: 3 }), null);
  assert.deepEqual(playground.summarize(tokens), { count: 2, sum: 3.5, mean: 1.75 });
  assert.deepEqual(playground.summarize([]), { count: 0, sum: 0, mean: 0 });
});

test("Python's example becomes tokens, and what may follow them", () => {
  const stored = {
    ids: [2047, 5],
    texts: ["", " a"],
    losses: [0.5],
    alternatives: [
      [5, 6000, 2047, 100],
      [9, 10_000],
    ],
    names: { 5: " a", 9: "b" },
  };
  const { tokens, next } = playground.unpack(stored);
  assert.deepEqual(tokens[0], { id: 2047, text: "", loss: null, alternatives: null });
  assert.deepEqual(tokens[1].alternatives, [
    { id: 5, text: " a", own: 0.6 },
    { id: 2047, text: "", own: 0.01 },
  ]);
  assert.equal(tokens[1].loss, 0.5);
  assert.deepEqual([next[0].id, next[0].text], [9, "b"]);
  assert.equal(formatChance(next[0].own), ">99.9%"); // it was rounded to 1
});

test("a head's looks, the most first, and only at what is in view", () => {
  const weights = Float32Array.of(1, 0, 0, 0.25, 0.75, 0, 0.5, 0.125, 0.375);
  const looks = { start: 10, tokens: 3, weights, layer: 0, head: 0 };
  assert.deepEqual(playground.looksFrom(looks, 12, 2), [
    { index: 10, weight: 0.5 },
    { index: 12, weight: 0.375 },
  ]);
  assert.deepEqual(playground.looksFrom(looks, 11).length, 2);
  assert.deepEqual(playground.looksFrom(looks, 9), []);
  assert.deepEqual(playground.looksFrom(looks, 13), []);
  const found = playground.pixels(Float32Array.of(0, 0.25, 1), [1, 2, 3]);
  assert.deepEqual([...found], [0, 0, 0, 0, 1, 2, 3, 128, 1, 2, 3, 255]);
});

test("the bars of losses stand on the ground, and end at the scale's end", () => {
  assert.equal(playground.bars([2, null, 99]), "M0.5 6V4.00M2.5 6V0.00");
});

test("a slider stands at the stop that is nearest", () => {
  assert.equal(STOPS.temperature[nearest("temperature", 0.71)], 0.7);
  assert.equal(STOPS.top_k[nearest("top_k", 44)], 40);
  assert.equal(STOPS.top_p[nearest("top_p", null)], null);
  assert.equal(STOPS.top_k[nearest("top_k", 100)], 100);
});

test("shares never lie about 0 and 1", () => {
  const shares = [0, 1e-9, 0.0042, 0.123, 0.99999, 1].map(formatChance);
  assert.deepEqual(shares, ["0%", "<0.01%", "0.42%", "12.3%", ">99.9%", "100%"]);
  assert.equal(formatCount(12_345), "12,345");
  assert.equal(megabytes(4_449_456), "4.4");
});

test("a token's label shows what leaves no ink, and can be spoken", () => {
  const labels = [" the", "\n", "\u202e", "<b>", "\u0301", ""].map(labelOfText);
  assert.deepEqual(labels, ["␣the", "⏎", "⟨U+202E⟩", "<b>", "◌\u0301", "⟨part of a character⟩"]);
  assert.deepEqual(["␣the", "␣", "⏎"].map(playground.inWords), ["the", "space", "line break"]);
});

test("text flows: the spaces before a word belong to no button", () => {
  assert.deepEqual(playground.flow(" the"), { lead: " ", body: "the", inky: true, tail: "" });
  assert.deepEqual(playground.flow("  "), { lead: "", body: "  ", inky: true, tail: "" });
  assert.deepEqual(playground.flow("\n"), { lead: "", body: "⏎", inky: false, tail: "\n" });
  near(playground.flow(" \u200d").body.length, "⟨U+200D⟩".length);
});
