// Numbers for people.

const COUNT = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const FIGURE = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4 });

/** @param {number} count @returns {string} with commas between the thousands */
export const formatCount = (count) => COUNT.format(count);

/** @param {number} count @param {string} noun @returns {string} "1 token", "2,048 tokens" */
export const plural = (count, noun) => `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;

/** @type {[number, string][]} */
const UNITS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];

/** @param {number} count @returns {string} three digits and a unit: 124439808 as "124M" */
export function formatShort(count) {
  for (const [unit, name] of UNITS) {
    const rounded = Number((count / unit).toPrecision(3));
    if (rounded >= 1) return rounded + name; // rounded first: 999,600 is 1M, not 1000k
  }
  return String(count);
}

/** @param {number} value @returns {string} four digits, with commas: 129,900 */
export function formatFigure(value) {
  if (value !== 0 && (value < 0.001 || value >= 1e15)) return formatPower(value);
  return FIGURE.format(value);
}

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** @param {number} value @param {number} digits @returns {string} such as 3.14 × 10²³ */
export function formatPower(value, digits = 3) {
  if (value === 0) return "0";
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const raised = [...exponent.replace("+", "")].map((c) => (c === "-" ? "⁻" : SUPERSCRIPTS[+c]));
  return `${mantissa} × 10${raised.join("")}`;
}

/** @param {number} n @returns {string} in binary units, to one decimal, as gptlib.accounting */
export function formatBytes(n) {
  if (n < 1024) return `${n} B`;
  let power = 1;
  while (Number((n / 1024 ** power).toFixed(1)) >= 1024) power++;
  return `${(n / 1024 ** power).toFixed(1)} ${"KMGTPEZY"[power - 1]}iB`;
}

/** @param {number} bytes @returns {string} without the unit: 4.4 */
export const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

/** @param {number} share from 0 to 1 @returns {string} in percent, never a false 0 */
export function formatShare(share) {
  const percent = 100 * share;
  if (percent === 0) return "0%";
  if (percent < 0.01) return "< 0.01%";
  return `${percent.toFixed(percent < 1 ? 2 : 1)}%`;
}

/** @param {number} chance from 0 to 1 @returns {string} in percent, never a false 0 or 100 */
export function formatChance(chance) {
  const percent = 100 * chance;
  if (percent === 0) return "0%";
  if (percent < 0.01) return "<0.01%";
  if (percent < 100 && percent >= 99.95) return ">99.9%";
  return chance === 1 ? "100%" : `${percent.toFixed(percent < 0.995 ? 2 : 1)}%`;
}

/** @param {string} number @returns {string} with a true minus sign, and none before a zero */
export const signed = (number) => number.replace("-", Number(number) === 0 ? "" : "−");

/** @param {number} value @param {number} low @param {number} high @returns {number} */
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** @param {number} value @returns {number} without what binary fractions add: 45, not 45.00000001 */
export const tidy = (value) => Number(value.toPrecision(12));

/** @param {number} from @param {number} to @param {number} step @returns {number[]} both ends in */
export const range = (from, to, step) =>
  Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => tidy(from + i * step));

/** @param {Iterable<number>} values @returns {number} */
export function sum(values) {
  let all = 0;
  for (const value of values) all += value;
  return all;
}
