import assert from "node:assert/strict";
import { test } from "node:test";

import { formatShort, plural } from "../../gptlib/widgets/lib/numbers.js";
import * as replay from "../../gptlib/widgets/training_replay.js";

const story = {
  parses: true,
  fails_at: null,
  expected: [],
  names: true,
  pronouns: true,
  object: true,
};
const wrong = (text, fails_at, expected = []) => ({
  ...story,
  parses: false,
  text,
  fails_at,
  expected,
});
const near = (found, expected, error = 1e-12) =>
  assert.ok(Math.abs(found - expected) <= error, `${found} is not ${expected}`);

test("the axis of the steps is logarithmic, and starts at step 0", () => {
  assert.equal(replay.placeOf(0, 15_000), 0);
  assert.equal(replay.placeOf(15_000, 15_000), 1);
  assert.equal(replay.placeOf(0, 0), 0); // a run of no steps has a place too
  const place = (step) => replay.placeOf(step, 1e6);
  near(place(100_000) - place(10_000), place(1_000_000) - place(100_000), 1e-4);
  assert.ok(place(100) - place(25) > 10 * (place(1_000_000) - place(980_000)));
});

test("a place on the axis finds the moment that is nearest there", () => {
  const steps = [0, 25, 50, 100, 15_000];
  steps.forEach((step, i) => {
    assert.equal(replay.nearest(replay.placeOf(step, 15_000) + 1e-3, steps, 15_000), i);
  });
  assert.equal(replay.nearest(-3, steps, 15_000), 0);
  assert.equal(replay.nearest(3, steps, 15_000), 4);
  assert.equal(replay.nearest(0.5, [7], 15_000), 0);
});

test("ticks are powers of ten, and the last step where there is room", () => {
  assert.deepEqual(replay.ticks(15_000), [0, 10, 100, 1_000, 10_000]);
  assert.deepEqual(replay.ticks(60_000), [0, 10, 100, 1_000, 10_000, 60_000]);
  assert.deepEqual(replay.ticks(1_000), [0, 10, 100, 1_000]);
  assert.deepEqual(replay.ticks(5), [0, 5]);
});

test("a loss stands higher the larger it is, and the floor lies inside of the picture", () => {
  const moments = [{ held_out: 7.6 }, { held_out: 0.4 }];
  const range = replay.rangeOf({ floor: 0.335, curve: { steps: [1], losses: [7.7] }, moments });
  assert.ok(range.low < 0.335 && range.high > 7.7);
  assert.equal(replay.heightOf(range.high, range), 0);
  near(replay.heightOf(range.low, range), 1);
  near(replay.heightOf(0, range), 1); // below the picture is at its edge
  const halves = [4, 2, 1].map((loss) => replay.heightOf(loss, range));
  near(halves[1] - halves[0], halves[2] - halves[1]);
});

test("weights come out of the lower triangle", () => {
  const map = Buffer.from([255, 51, 204, 0, 102, 153]).toString("base64");
  assert.deepEqual([...replay.weightsOf(map, 3)], [1, 0, 0, 0.2, 0.8, 0, 0, 0.4, 0.6]);
  assert.throws(() => replay.weightsOf(map, 4), /a map of 4 tokens is not in 6 bytes/);
});

test("a sample is cut where it leaves the grammar, at the start of that word", () => {
  const cut = (sample, prompt = "") => Object.values(replay.parts(sample, prompt));
  assert.deepEqual(cut(wrong("One sunny dxy, they", 11)), ["", "One sunny ", "dxy,", " they"]);
  assert.deepEqual(cut(wrong("One sunny day", 13), "One"), ["One", " sunny day", "", ""]);
  assert.deepEqual(cut({ ...story, text: "One day." }, "One"), ["One", " day.", "", ""]);
  assert.deepEqual(cut(wrong("Ada x", 0)), ["", "", "Ada", " x"]);
  assert.deepEqual(cut(wrong("Once upon plums", 4), "Once"), ["Once", "", " upon", " plums"]);
  assert.deepEqual(cut(wrong("toldAda", 4), "told"), ["told", "", "Ada", ""]); // not into the prompt
});

test("offsets are those of Python, which counts code points; nothing hides in a text", () => {
  assert.deepEqual(Object.values(replay.parts(wrong("🙂🙂 a b", 3), "")), ["", "🙂🙂 ", "a", " b"]);
  const shown = replay.parts(wrong("a \u0000\u202e<b>", 2), "");
  assert.equal(shown.leaves, "\ufffd\ufffd<b>");
});

test("a story is shown whole, of other long texts the start", () => {
  const long = "word ".repeat(400);
  assert.equal(replay.parts({ ...story, text: long }, "").good, long);
  const { rest } = replay.parts(wrong(long, 0), "");
  assert.ok(rest.length < 600);
  assert.match(rest, /… and 1,480 characters more$/);
});

test("how much follows the grammar is a share of the text", () => {
  assert.equal(replay.followed({ ...story, text: "Ada." }), 1);
  assert.equal(replay.followed(wrong("abcd", 1)), 0.25);
  assert.equal(replay.followed(wrong("abcd", 4)), 1);
  assert.equal(replay.followed(wrong("", 0)), 0);
});

test("the verdict is in plain words", () => {
  assert.match(replay.verdict({ ...story, text: "x" }, ""), /^A whole story/);
  assert.match(replay.verdict(wrong("One sunny", 9), ""), /^It breaks off before its end/);
  assert.match(replay.verdict(wrong("", 0), ""), /^It ends before its first word/);
  assert.equal(
    replay.verdict(wrong("told Tom", 5, ["Ada"]), "told"),
    "It leaves the grammar at once. It could go on with “Ada”.",
  );
  assert.equal(
    replay.verdict(wrong("Ada and Ada ran", 8, ["Tom", "Max", "the end of the story"]), ""),
    "It follows the grammar for 2 words, then leaves it. " +
      "It could go on with “Tom”, “Max” or the end of the story.",
  );
});

test("numbers have three digits, commas and a true minus sign", () => {
  assert.deepEqual([0.3353, 7.66654, 12.34, 2136.2, -0.01, -0.0001].map(replay.digits), [
    ...["0.335", "7.667", "12.3", "2,136", "−0.010", "0.000"],
  ]);
  assert.deepEqual([0, 999, 1000, 999_600, 4_734_274].map(formatShort), [
    ...["0", "999", "1k", "1M", "4.73M"],
  ]);
  assert.equal(plural(1, "step"), "1 step");
  assert.equal(plural(15_000, "step"), "15,000 steps");
});

test("tokens and prompts have names", () => {
  assert.deepEqual(["", " Ada", "\n", " ", "\xc3\xa9"].map(replay.wordOf), [
    ...["start", "Ada", "⏎", "␣", "é"],
  ]);
  assert.equal(replay.promptName(""), "No prompt");
  assert.equal(replay.promptName("Once upon a time"), "Once upon …");
  assert.equal(replay.promptName("One day"), "One day");
  const row = Float64Array.of(0.1, 0.6, 0.005, 0.295);
  assert.equal(replay.heaviest(["a", "b", "c", "d"], row), "“b” 0.60, “d” 0.29, “a” 0.10");
});
