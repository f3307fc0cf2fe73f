// Tokens for people: what to show where there is no ink, and what to say of it.

import { bytesOf, characters } from "./bytes.js";

/** What stands for white space. @type {Record<string, string>} */
export const MARKS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };

/** Characters that leave no ink. */
export const NO_INK = /[\p{C}\p{Z}\p{White_Space}\p{Default_Ignorable_Code_Point}]/u;

/** @param {number} value @param {number} [digits] @returns {string} */
export const hex = (value, digits = 2) => value.toString(16).toUpperCase().padStart(digits, "0");

/** @param {string} character @returns {string} `U+00AD` */
export const codePoint = (character) => `U+${hex(Number(character.codePointAt(0)), 4)}`;

/** @param {string} character @returns {string} itself, its mark, or its code point in brackets */
export function visible(character) {
  if (character in MARKS) return MARKS[character];
  return NO_INK.test(character) ? `⟨${codePoint(character)}⟩` : character;
}

/** @param {string} shown @returns {string} a combining mark needs something to stand on */
const standing = (shown) => (/^\p{M}/u.test(shown) ? "◌" : "") + shown;

/**
 * What to show for a token: text as it is, marks for white space, code points for characters that
 * leave no ink, and in brackets the hexadecimal digits of bytes that are no whole character.
 * @param {string} token a character a byte
 * @returns {string}
 */
export function label(token) {
  const shown = characters(bytesOf(token))
    .map((one) => (typeof one === "number" ? `⟨${hex(one)}⟩` : visible(one)))
    .join("");
  return standing(shown).replaceAll("⟩⟨", " ") || "⟨⟩";
}

/** @param {string} text that a token completes @returns {string} what to show for it */
export function labelOfText(text) {
  return standing(Array.from(text, visible).join("") || "⟨part of a character⟩");
}

/** @param {string} shown what a label says @returns {string} in words, for who listens */
export function spoken(shown) {
  /** @type {Record<string, string>} */
  const words = { "␣": "space ", "⏎": "line break ", "⇥": "tab ", "␍": "return " };
  return shown
    .replace(/[␣⏎⇥␍]/g, (mark) => words[mark])
    .replace(/⟨(?![Up])/g, "bytes ") // not "part of a character"
    .replace(/[⟨⟩◌]/g, "")
    .trim();
}

/** @param {string} character @returns {string} itself, or a sign in place of one without ink */
export const inked = (character) =>
  /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u.test(character) ? "\ufffd" : character;

const OR = new Intl.ListFormat("en-GB", { type: "disjunction" });

/** @param {string[]} words @returns {string} "a, b or c" */
export const orList = (words) => OR.format(words);

/**
 * The heaviest three of some tokens, in words.
 * @param {string[]} labels
 * @param {ArrayLike<number>} weights one for each label
 * @param {number} least that is worth naming
 * @returns {string}
 */
export const heaviestOf = (labels, weights, least) =>
  Array.from(weights, (weight, i) => ({ weight, label: labels[i] }))
    .sort((a, b) => b.weight - a.weight)
    .slice(0, 3)
    .filter(({ weight }) => weight >= least)
    .map(({ weight, label }) => `${label} ${weight.toFixed(2)}`)
    .join(", ");
