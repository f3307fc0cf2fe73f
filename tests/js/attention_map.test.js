import assert from "node:assert/strict";
import { test } from "node:test";

import * as map from "../../gptlib/widgets/attention_map.js";
import { plural } from "../../gptlib/widgets/lib/numbers.js";
import { label, spoken } from "../../gptlib/widgets/lib/tokens.js";

const base64 = (bytes) => Buffer.from(bytes).toString("base64");
const floats = (...values) => base64(new Uint8Array(new Float32Array(values).buffer));
const latin1 = (text) => String.fromCharCode(...new TextEncoder().encode(text));

/** Two tokens, one head, scores from 1 to 3: [[2, 3], [1, 2]], in 8 bits. */
const tiny = {
  text: "ab",
  tokens: ["a", "b"],
  layers: 1,
  heads: 1,
  channels: 4,
  bits: 8,
  ranges: floats(1, 3),
  peaks: base64([0x80, 0x00, 0x80, 0x00]), // both rows' highest: the middle of the range
  below: base64([0, Math.round((255 * Math.log1p(1 / 0.5)) / Math.log1p(2 / 0.5)), 0]),
  above: base64([255]),
};

const near = (found, expected, error) =>
  assert.ok(Math.abs(found - expected) <= error, `${found} is not ${expected} ± ${error}`);

test("integers of any number of bits are unpacked", () => {
  assert.deepEqual([...map.unpack(Uint8Array.of(0x12, 0x34, 0x56), 12, 2)], [0x123, 0x456]);
  assert.deepEqual([...map.unpack(Uint8Array.of(0x12, 0x34), 12, 1)], [0x123]);
  assert.deepEqual([...map.unpack(Uint8Array.of(0xff, 0xfe, 0x00, 0x01), 16, 2)], [0xfffe, 1]);
  assert.deepEqual([...map.unpack(Uint8Array.of(0b10110100), 3, 2)], [0b101, 0b101]);
  assert.equal(map.unpack(new Uint8Array(0), 12, 0).length, 0);
  assert.throws(() => map.unpack(new Uint8Array(3), 12, 3), /3 integers of 12 bits/);
});

test("scores and weights come out of what is stored", () => {
  const codes = map.decode(tiny);
  const { scaled, weights, errors } = map.headOf(codes, 0);
  [2, 3, 1, 2].forEach((score, i) => near(scaled[i], score, Math.max(errors[i], 1e-4)));
  const e = Math.exp(-1);
  [1, 0, e / (1 + e), 1 / (1 + e)].forEach((weight, i) => near(weights[i], weight, 2e-3));
  assert.equal(map.strongest({ scaled, weights }, 1, 2), 1);
});

test("scores of a text that is read in the page need no decoding", () => {
  const scores = Float32Array.of(2, 3, 1, 2, 0, 0, -1, 4);
  const answer = { tokens: ["a", "b"], scores };
  const codes = map.decode(map.fromEngine({ ...tiny, heads: 2 }, answer, "ab"));
  assert.deepEqual([[...codes.low], [...codes.high], Boolean(codes.above)], [
    [1, -1],
    [3, 4],
    true,
  ]);
  const { scaled, errors, weights } = map.headOf(codes, 0);
  assert.deepEqual([[...scaled], [...errors]], [[2, 3, 1, 2], [0, 0, 0, 0]]);
  const e = Math.exp(-1);
  [1, 0, e / (1 + e), 1 / (1 + e)].forEach((weight, i) => near(weights[i], weight, 1e-12));
  near(map.headOf(codes, 1).weights[3], 1 / (1 + Math.exp(-5)), 1e-12);
});

test("what is not stored is no number", () => {
  const { scaled, weights } = map.headOf(map.decode({ ...tiny, above: "" }), 0);
  assert.ok(Number.isNaN(scaled[1]));
  assert.equal(map.formatNumber(scaled[1], 2), "…");
  assert.equal(weights[1], 0);
});

test("no more decimals are shown than are known", () => {
  assert.equal(map.decimals(0.004, 8), 2);
  assert.equal(map.decimals(0.006, 8), 1);
  assert.equal(map.decimals(0.4, 300), 0);
  assert.equal(map.decimals(3, 300), 0);
  assert.equal(map.decimals(0, 30), 2);
  assert.equal(map.decimals(0, 0.05), 4);
  assert.equal(map.decimals(0, 0), 5);
});

test("numbers are written with a true minus sign and no negative zero", () => {
  assert.equal(map.formatNumber(-1.25, 1), "−1.3");
  assert.equal(map.formatNumber(-0.001, 2), "0.00");
  assert.equal(map.formatNumber(-Infinity, 2), "−∞");
  assert.equal(map.formatLarge(0.0123), "0.0123");
  assert.equal(map.formatLarge(8.625), "8.63");
  assert.equal(map.formatLarge(1234.5), "1235");
  assert.equal(map.formatLarge(74_512), "7.45·10⁴");
  assert.equal(map.formatLarge(1.2e-13), "1.20·10⁻¹³");
});

test("any token can be seen and said", () => {
  const show = (text) => label(latin1(text));
  assert.equal(show(" fox"), "␣fox");
  assert.equal(show("\n\n\t"), "⏎⏎⇥");
  assert.equal(show("<script>"), "<script>");
  assert.equal(show("🙂é"), "🙂é");
  assert.equal(show("\u0301"), "◌\u0301");
  assert.equal(show("\u202e"), "⟨U+202E⟩");
  assert.equal(label(" \xe2\x80"), "␣⟨E2 80⟩");
  assert.equal(label("\xed\xa0\x80"), "⟨ED A0 80⟩"); // a surrogate
  assert.equal(label(""), "⟨⟩");
  assert.equal(spoken("␣fox"), "space fox");
  assert.equal(spoken("␣⟨E2 80⟩"), "space bytes E2 80");
  assert.equal(spoken("⏎"), "line break");
});

test("the heaviest tokens are named, no token of weight zero", () => {
  assert.equal(map.heaviest(["a", "b", "c", "d"], [0.1, 0.6, 0.1, 0.2]), "b 0.60, d 0.20, a 0.10");
  assert.equal(map.heaviest(["a", "b"], [0.999, 0.001]), "a 1.00");
  assert.equal(map.heaviest([], []), "");
});

test("the stairs go around the cells above the diagonal", () => {
  assert.equal(map.stairs(2), "polygon(100% 0,50% 0%,50% 50%,100% 50%,100% 100%)");
});

test("words for counts", () => {
  assert.equal(plural(1, "head"), "1 head");
  assert.equal(plural(1200, "token"), "1,200 tokens");
});
