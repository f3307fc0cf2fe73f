import assert from "node:assert/strict";
import { test } from "node:test";

import * as bpe from "../../gptlib/widgets/lib/bpe.js";
import { plural } from "../../gptlib/widgets/lib/numbers.js";
import * as explorer from "../../gptlib/widgets/token_explorer.js";

const bytes = (text) => new TextEncoder().encode(text);
const byteTokens = Array.from({ length: 256 }, (_, i) => String.fromCharCode(i));
const vocabulary = (...merged) =>
  bpe.ranksOf({ name: "test", tokens: [...byteTokens, ...merged, null] });

test("pieces are GPT-2's", () => {
  assert.deepEqual(bpe.pieces("I'll say: don't 12 34!"), [
    "I",
    "'ll",
    " say",
    ":",
    " don",
    "'t",
    " 12",
    " 34",
    "!",
  ]);
  assert.deepEqual(bpe.pieces("a  b \n"), ["a", " ", " b", " \n"]);
  assert.deepEqual(bpe.pieces(""), []);
});

test("white space is Unicode's, not JavaScript's", () => {
  assert.deepEqual(bpe.pieces("a\u0085b"), ["a", "\u0085", "b"]); // white space only there
  assert.deepEqual(bpe.pieces("\ufeff!"), ["\ufeff!"]); // white space only in JavaScript
  assert.deepEqual(bpe.pieces("\u180e!"), ["\u180e!"]); // once was, is no longer
});

test("no piece is lost", () => {
  const text = "a\u00a0\u3000b\t\t'S ''ll ²٣ 👩‍👩‍👧 e\u0301 漢字\r\n \n";
  assert.equal(bpe.pieces(text).join(""), text);
});

test("merges take the lowest rank first, then the leftmost pair", () => {
  assert.deepEqual(bpe.mergePiece("aaaa", vocabulary("aa")), ["aa", "aa"]);
  assert.deepEqual(bpe.mergePiece("aaa", vocabulary("aa")), ["aa", "a"]);
  assert.deepEqual(bpe.mergePiece("abc", vocabulary("bc", "ab")), ["a", "bc"]);
  assert.deepEqual(bpe.mergePiece("abc", vocabulary("ab", "abc")), ["abc"]);
  assert.deepEqual(bpe.mergePiece("x", vocabulary()), ["x"]);
  // The first merge opens a pair of a lower rank, which comes before the second merge of its kind.
  assert.deepEqual(bpe.mergePiece("abab", vocabulary("aba", "ab")), ["aba", "b"]);
});

test("tokens cover the bytes of the text", () => {
  const ranks = vocabulary("\xc3\xa9", "he");
  assert.deepEqual(explorer.encode("hé he", ranks), {
    ids: [104, 256, 32, 257],
    lengths: [1, 2, 1, 2],
  });
  assert.deepEqual(explorer.encode("\ud800", ranks), explorer.encode("\ufffd", ranks));
});

test("a special token in a text is text", () => {
  const tokens = explorer.encode("<|endoftext|>", vocabulary());
  assert.equal(tokens.ids.length, 13);
});

test("long texts are cut between characters", () => {
  assert.equal(explorer.cut("a".repeat(6000)).length, explorer.LIMIT);
  assert.equal(explorer.cut("🙂".repeat(6000)), "🙂".repeat(explorer.LIMIT));
  assert.equal(explorer.cut("🙂".repeat(4000)), "🙂".repeat(4000));
  assert.equal(explorer.cut("a\ud800b"), "a\ufffdb");
  assert.equal(explorer.countCharacters("a🙂é"), 3);
});

test("a long piece takes no long time", () => {
  const begin = performance.now();
  explorer.encode(
    "🙂".repeat(explorer.LIMIT),
    vocabulary("\xf0\x9f", "\x99\x82", "\xf0\x9f\x99\x82"),
  );
  assert.ok(performance.now() - begin < 1000, `${performance.now() - begin} ms`);
});

test("white space and bytes are made visible", () => {
  const show = (data) => explorer.segments(data).map(({ kind, text }) => `${kind}:${text}`);
  assert.deepEqual(show(bytes(" day")), ["mark:␣", "text:day"]);
  assert.deepEqual(show(bytes("\n\n\t")), ["mark:⏎⏎⇥"]);
  assert.deepEqual(show(Uint8Array.of(0x20, 0xe2, 0x80)), ["mark:␣", "bytes:E2 80"]);
  assert.deepEqual(show(Uint8Array.of(0xa9)), ["bytes:A9"]);
  assert.deepEqual(show(Uint8Array.of(0xed, 0xa0, 0x80)), ["bytes:ED A0 80"]); // a surrogate
  assert.deepEqual(show(bytes("\u00a0\u200d\ufeff")), ["bytes:U+00A0 U+200D U+FEFF"]);
  assert.deepEqual(show(bytes("\u0301")), ["text:◌\u0301"]);
  assert.deepEqual(show(bytes("e\u0301")), ["text:e\u0301"]);
  assert.deepEqual(show(bytes("<img src=x>")), ["text:<img", "mark:␣", "text:src=x>"]);
  assert.deepEqual(show(bytes("")), []);
});

test("tokens that share bytes are found", () => {
  const offsets = explorer.offsets([2, 3, 1]);
  assert.deepEqual(offsets, [0, 2, 5, 6]);
  assert.deepEqual(explorer.overlap(0, 2, offsets), [0, 1]);
  assert.deepEqual(explorer.overlap(1, 3, offsets), [0, 2]);
  assert.deepEqual(explorer.overlap(2, 6, offsets), [1, 3]);
  assert.deepEqual(explorer.overlap(5, 6, offsets), [2, 3]);
});

test("stored lists are unpacked", () => {
  assert.deepEqual(explorer.unpack("12 0 7"), [12, 0, 7]);
  assert.deepEqual(explorer.unpack(""), []);
  assert.deepEqual(explorer.unpack([1, 2]), [1, 2]);
});

test("words for counts", () => {
  assert.equal(plural(0, "token"), "0 tokens");
  assert.equal(plural(1, "token"), "1 token");
  assert.equal(plural(12345, "byte"), "12,345 bytes");
});
