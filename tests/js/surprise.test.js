import assert from "node:assert/strict";
import { test } from "node:test";

import { dress, Follower, LostError } from "../../gptlib/widgets/page/story_follower.js";
import * as surprise from "../../gptlib/widgets/surprise.js";

const near = (found, expected, error = 1e-12) =>
  assert.ok(Math.abs(found - expected) <= error, `${found} is not ${expected}`);

// A grammar of few words, and tokens that are letters and signs: a piece has several tokens.
const GRAMMAR = {
  story: [
    {
      line: [{ draw: "child", as: "hero", capital: true }, " ran. ", {
        draw: "end.",
        by: ["hero", "he"],
      }],
    },
    { line: ["It was ", { draw: "thing", article: true }, "."], weight: 3 },
  ],
  child: [
    { word: "ada", forms: { he: "she" } },
    { word: "ben", forms: { he: "he" }, weight: 3 },
  ],
  "end.she": [{ line: ["Then ", { say: "hero", capital: true }, " sat."] }],
  "end.he": [{ line: ["Then ", { draw: "child", not: "hero", capital: true }, " sat."] }],
  thing: [{ word: "owl" }, { word: "kite" }],
};
const WORDS = {
  pieces: (text) => text.match(/ ?[A-Za-z]+|[^A-Za-z ]+| +/g) ?? [],
  encode: (text) => [...text].map((character) => character.codePointAt(0)),
  textOf: (id) => String.fromCodePoint(id),
  endOfText: 0,
};
const read = (text) => {
  const follower = new Follower(GRAMMAR, WORDS);
  const found = WORDS.encode(text).map((id) => follower.read(id));
  return { follower, found };
};

test("a word is dressed as Python dresses it", () => {
  assert.equal(dress("owl", { article: true }), "an owl");
  assert.equal(dress("kite", { article: true, capital: true }), "A kite");
  assert.equal(dress("Ada", {}), "Ada");
});

test("the best predictor loses −log of the share of the stories that go on so", () => {
  const { follower, found } = read("It was an owl.");
  near(found[0].surprisal, -Math.log(3 / 4)); // "I", or a child's letter
  near(
    found[0].entropy,
    -(3 / 4) * Math.log(3 / 4) - (1 / 16) * Math.log(1 / 16) - (3 / 16) * Math.log(3 / 16),
  );
  near(found[8].surprisal, Math.log(2)); // "an", not "a ": it is decided in the piece " an"
  near(found.reduce((sum, one) => sum + one.surprisal, 0), -Math.log((3 / 4) * (1 / 2)));
  assert.deepEqual([...follower.next], [[0, 1]]);
  near(follower.read(0).surprisal, 0);
  assert.equal(follower.next.size, 0);
});

test("what is remembered is said again, or never drawn again, or decides what comes", () => {
  const cost = (text) => read(text).found.reduce((sum, one) => sum + one.surprisal, 0);
  near(cost("Ada ran. Then Ada sat."), -Math.log(1 / 16));
  near(cost("Ben ran. Then Ada sat."), -Math.log(3 / 16));
  assert.throws(() => read("Ben ran. Then Ben sat."), LostError);
});

test("where a text leaves the grammar is named, with what could have stood there", () => {
  const { follower } = read("It was a");
  assert.deepEqual(follower.likeliest(), [["n".codePointAt(0), 0.5], [" ".codePointAt(0), 0.5]]);
  assert.throws(() => follower.read("x".codePointAt(0)), {
    ...{ index: 8, character: 8, found: "x", expected: ["n", " "], others: 0 },
  });
});

test("a text is followed to its end, or to where it leaves the grammar", async () => {
  const follow = (text) => surprise.follow(new Follower(GRAMMAR, WORDS), WORDS.encode(text), WORDS);
  const whole = await follow("It was an owl.");
  assert.deepEqual(whole.end, { kind: "whole" });
  assert.equal(whole.surprisal.length, 15); // the end of the text too
  assert.deepEqual((await follow("It was an owl.\0")).surprisal, whole.surprisal);
  const breaks = await follow("It was a");
  assert.deepEqual(breaks.end, { kind: "breaks", expected: ["n", " "], others: 0 });
  assert.deepEqual([breaks.surprisal.length, breaks.entropy.length], [8, 8]);
  const leaves = await follow("It was ax");
  assert.deepEqual(leaves.end, { kind: "leaves", expected: ["n", " "], others: 0 });
  assert.deepEqual([leaves.surprisal.length, leaves.entropy.length], [8, 9]);
  const early = await follow("It\0"); // the model ends where no story does
  assert.equal(early.end.kind, "leaves");
});

const whole = {
  ...{ tokens: [" One", " fox", ""], loss: [0.5, 2, 0.01], surprisal: [0.4, 2.5, 0] },
  ...{
    entropy: [0.6, 1.5, 0],
    possible: [3, 9, 1],
    shares: [[7, 0.67, 0.61, 9, 0.2, 0.3], [], []],
  },
  ...{ names: { 7: " One", 9: " Two" }, end: { kind: "whole" } },
};
const leaves = {
  ...whole,
  ...{ tokens: [" One", " dog", "."], surprisal: [0.4], entropy: [0.6, 1.5], possible: [3, 9] },
  shares: [[], [5, 0, 0.1, 9, 0.5, 0.4], [6, null, 0.9, 9, null, 0.05]],
  ...{ names: { 5: " dog", 6: ".", 9: " Two" } },
  end: { kind: "leaves", expected: [" fox", " cat"], others: 7 },
};

test("sums end where the text is no story any more", () => {
  const { loss, surprisal, excess, entropy } = surprise.sums(whole);
  [loss, surprisal, excess, entropy].forEach((sum, i) => near(sum, [2.51, 2.9, -0.39, 2.1][i]));
  near(surprise.sums(whole, 1).excess, 0.1);
  assert.deepEqual(surprise.sums(leaves), surprise.sums(whole, 1));
});

test("a token is colored by what it cost, in steps", () => {
  assert.deepEqual([0, 0.09, 0.1, 1, 9].map((n) => surprise.levelOf(n, "loss")), [0, 0, 1, 3, 5]);
  assert.deepEqual([-0.04, -0.3, 0.3].map((n) => surprise.levelOf(n, "excess")), [-0, -2, 2]);
  assert.equal(surprise.levelOf(Infinity, "surprisal"), 5);
  near(surprise.valueOf(whole, 1, "excess"), -0.5);
  assert.equal(surprise.valueOf(leaves, 1, "surprisal"), Infinity);
  assert.ok(Number.isNaN(surprise.valueOf(leaves, 2, "surprisal")));
  assert.equal(surprise.telling(whole), 0);
  assert.equal(surprise.telling(leaves), 1);
});

test("what could come is listed with both shares, and what is left", () => {
  const { rows, others } = surprise.rowsOf(whole, 0);
  assert.deepEqual(rows.map((row) => [row.name, row.came]), [[" One", true], [" Two", false]]);
  near(rows[0].p, Math.exp(-0.4)); // as it is known best
  near(rows[0].q, Math.exp(-0.5));
  assert.equal(others.name, "1 other");
  near(others.p, 1 - Math.exp(-0.4) - 0.2);
  near(others.q, 1 - Math.exp(-0.5) - 0.3);
  const end = surprise.rowsOf(whole, 2);
  assert.equal(end.rows[0].name, "<|endoftext|>");
  assert.equal(end.others.p, 0);
  const there = surprise.rowsOf(leaves, 1).rows;
  assert.deepEqual(there.map((row) => [row.name, row.p]), [[" Two", 0.5], [" dog", 0]]);
  assert.deepEqual(surprise.rowsOf(leaves, 2).rows.map((row) => row.p), [null, null]);
});

test("numbers keep two digits and are never falsely certain", () => {
  assert.deepEqual([0.694, -0.5, -0.001, Infinity, NaN].map(surprise.nats), [
    "0.69",
    "−0.50",
    "0.00",
    "∞",
    "–",
  ]);
  assert.deepEqual([0.2, -0.2, 0.001].map(surprise.signed), ["+0.20", "−0.20", "0.00"]);
  const shares = [0, 1, 0.0001, 0.99999, 0.5, null];
  assert.deepEqual(shares.map(surprise.percent), ["0%", "100%", "<0.1%", ">99.9%", "50.0%", "–"]);
});

test("tokens are visible, whatever they are", () => {
  assert.equal(surprise.nameOf(" a\n"), "␣a⏎");
  assert.equal(surprise.nameOf("<|endoftext|>"), "end of the text");
  assert.equal(surprise.nameOf(""), "part of a character");
  assert.equal(surprise.nameOf("\u202e"), "\ufffd");
  assert.equal(surprise.quote(" Ada"), "“Ada”");
  assert.equal(surprise.quote(" "), "a space");
  assert.equal(surprise.either([" a", "b"], 2), "“a”, “b” or 2 others");
  assert.equal(surprise.either(["a"], 0), "“a”");
});

test("a token and an end are told in words", () => {
  assert.match(
    surprise.explain(whole, 0),
    /lost 0\.50 .* loses 0\.40 .* expects 0\.60 .* 3 tokens/,
  );
  assert.match(surprise.explain(whole, 2), /lost 0\.01 nats here\. Only this token could come/);
  assert.match(surprise.explain(leaves, 1), /probability 0, an infinite surprisal/);
  assert.match(surprise.explain(leaves, 2), /left the grammar before/);
  assert.match(surprise.explain({ ...whole, loss: [] }, 0), /not read/);
  assert.match(surprise.verdict(whole), /^A whole story/);
  assert.equal(
    surprise.verdict(leaves),
    "Token 2, “dog”, leaves the grammar: there could have stood “fox”, “cat” or 7 others. " +
      "From it on, only the model’s loss is known.",
  );
  const breaks = { ...whole, end: { kind: "breaks", expected: [" fox"], others: 0 } };
  assert.equal(surprise.verdict(breaks), "A story so far. It breaks off: next could come “fox”.");
  assert.match(surprise.colorWords("loss", leaves), /Together 2\.51 nats/);
  assert.match(surprise.colorWords("excess", whole), /Together −0\.39 nats/);
});

test("the chart holds every value", () => {
  const { top, ticks } = surprise.scaleOf(4.9);
  assert.ok(top > 4.9 && ticks.at(-1) <= top && ticks.length <= 7);
  assert.deepEqual(surprise.scaleOf(0).ticks, [0, 0.5, 1]);
  const chart = surprise.chartOf(whole, 334);
  assert.equal(chart.x(3), chart.box.right);
  assert.ok(chart.y(2.5) > chart.box.top);
  assert.equal(chart.bars.match(/M/g).length, 3);
  assert.equal(chart.marks.match(/M/g).length, 2); // none where nothing had to be lost
  assert.equal(surprise.chartOf({ ...whole, tokens: [], loss: [] }, 100).bars, "");
});
