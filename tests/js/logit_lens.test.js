import assert from "node:assert/strict";
import { test } from "node:test";

import * as lens from "../../gptlib/widgets/logit_lens.js";

const base64 = (values) => Buffer.from(Uint16Array.from(values).buffer).toString("base64");
const near = (found, expected) => assert.ok(Math.abs(found - expected) < 1e-4, `${found}`);

/** Two tokens, one layer, two of the likeliest: the first place says "b", the last "a" and "b". */
const stored = {
  text: "a",
  tokens: ["", "a"],
  layers: 1,
  count: 2,
  words: ["a", "b", " c"],
  cells: base64([
    ...[1, 0, 65535 * 0.6, 65535 * 0.2, 65535 * 0.2, 65535 * 0.2],
    ...[1, 2, 65535 * 0.5, 65535 * 0.25, 65535 * 0.5, 0],
    ...[0, 2, 65535, 0, 65535, 65535],
    ...[1, 0, 65535 * 0.9, 65535 * 0.1, 65535 * 0.9, 0],
  ]),
};

test("places come out of what is stored", () => {
  const found = lens.decode(stored);
  assert.deepEqual(found.words, ["b", "a", "b", " c", "a", " c", "b", "a"]);
  [0.6, 0.2, 0.5, 0.25, 1, 0, 0.9, 0.1].forEach((share, i) => near(found.own[i], share));
  [0.2, 0.5, 1, 0.9].forEach((share, i) => near(found.chosen[i], share));
  near(found.next[0], 0.2);
  near(found.next[2], 1);
  assert.equal(lens.choice(found, 1, 0), "a");
  assert.deepEqual([lens.agreeing(found, 0), lens.agreeing(found, 1)], [1, 2]);
  assert.equal(lens.decode(found), found);
  assert.throws(() => lens.decode({ ...stored, layers: 2 }), /6 places are not in/);
});

test("what the engine answers is as what is stored", () => {
  const { own, chosen, next, words } = lens.decode(stored);
  const answer = { tokens: stored.tokens, ends: 2, words, own, chosen, next, ids: [9, 0] };
  assert.deepEqual(lens.fromEngine(answer, "a"), lens.decode(stored));
});

test("places and shares have names", () => {
  const names = [0, 1, 2].map((end) => lens.place(end, 2));
  assert.deepEqual(names, ["before block 0", "after block 0", "after block 1, the last"]);
  const shares = [0, 0.00004, 0.0012, 0.034, 0.5, 0.994, 0.9951, 1];
  const texts = ["<0.01%", "<0.01%", "0.12%", "3.4%", "50%", "99%", ">99%", "100%"];
  assert.deepEqual(shares.map(lens.percent), texts);
});

test("the columns that are drawn follow the token", () => {
  assert.equal(lens.windowFor(0, 47, 100), 0);
  assert.equal(lens.windowFor(0, 48, 100), 24);
  assert.equal(lens.windowFor(24, 23, 100), 0);
  assert.equal(lens.windowFor(24, 99, 100), 52);
  assert.equal(lens.windowFor(24, 3, 10), 0);
});
