// A training run to scrub through: its loss above the floor, what it wrote at each moment, and
// where one of its heads looked. Everything was measured in Python; here it is only shown.

import { bytesOf, fromBase64 } from "./lib/bytes.js";
import { put, rgbOf } from "./lib/canvas.js";
import { at, columns, levels, measured } from "./lib/chart.js";
import {
  announcer,
  classes,
  define,
  guard,
  html,
  inline,
  live,
  onTheme,
  radios,
  svg,
  uniqueName,
} from "./lib/kit.js";
import { clamp, formatCount, formatShort, plural, signed } from "./lib/numbers.js";
import { moved, withModifier } from "./lib/rove.js";
import { heaviestOf, inked, MARKS, orList } from "./lib/tokens.js";

/** @import { Widget } from "./lib/kit.js" */
/**
 * @typedef {{
 *   text: string, parses: boolean, fails_at: number | null, expected: string[],
 *   names: boolean, pronouns: boolean, object: boolean,
 * }} Sample
 * @typedef {{
 *   step: number, stories: number, tokens: number, held_out: number, training: number,
 *   samples: Sample[], score: number, others: number, map: string,
 * }} Moment
 * @typedef {{
 *   version: number, steps: number, floor: number,
 *   curve: { steps: number[], losses: number[] }, prompts: string[],
 *   fragment: { text: string, tokens: string[], query: number, name: string, targets: number[] },
 *   head: { layer: number, head: number }, moments: Moment[],
 * }} Replay  as gptlib.replay documents it
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

const SHOWN = 520; // characters of a text that is no story: where it left the grammar is enough
const KNEE = 10; // below so many steps the axis is about even, so that it can start at step 0

/**
 * Where a step stands on the axis: logarithmic, but for the first few steps.
 * @param {number} step @param {number} steps of the whole axis @returns {number} from 0 to 1
 */
export function placeOf(step, steps) {
  return Math.log1p(step / KNEE) / Math.log1p(Math.max(steps, 1) / KNEE);
}

/**
 * The step that stands nearest to a place on the axis.
 * @param {number} place from 0 to 1 @param {number[]} steps that there are, in order
 * @param {number} last step of the axis @returns {number} its index
 */
export function nearest(place, steps, last) {
  const far = steps.map((step) => Math.abs(placeOf(step, last) - place));
  return far.indexOf(Math.min(...far));
}

/** @param {number} steps @returns {number[]} powers of ten, and the last step if it has room */
export function ticks(steps) {
  const found = [0];
  for (let step = 10; step <= steps; step *= 10) found.push(step);
  const last = found[found.length - 1];
  if (steps > last && placeOf(steps, steps) - placeOf(last, steps) > 0.12) found.push(steps);
  return found;
}

/**
 * Where a loss stands: logarithmic, since the last steps to the floor are small ones.
 * @param {number} loss @param {{ low: number, high: number }} range
 * @returns {number} from 0, the top, to 1
 */
export function heightOf(loss, { low, high }) {
  return Math.log(high / Math.max(loss, low)) / Math.log(high / low);
}

/** @param {Replay} replay @returns {{ low: number, high: number }} of the losses that are drawn */
export function rangeOf({ floor, curve, moments }) {
  const losses = [...curve.losses, ...moments.map((moment) => moment.held_out)];
  return { low: Math.min(floor, ...losses) * 0.7, high: Math.max(floor, ...losses) * 1.12 };
}

/**
 * The attention of a head, from what is stored: its lower triangle by rows.
 * @param {string} map base64 of bytes, 255 is a weight of 1 @param {number} size how many tokens
 * @returns {Float64Array} size x size, 0 above the diagonal
 */
export function weightsOf(map, size) {
  const codes = fromBase64(map);
  if (codes.length !== (size * (size + 1)) / 2) {
    throw new Error(`a map of ${size} tokens is not in ${codes.length} bytes`);
  }
  const weights = new Float64Array(size * size);
  for (let i = 0, next = 0; i < size; i++) {
    for (let j = 0; j <= i; j++) weights[i * size + j] = codes[next++] / 255;
  }
  return weights;
}

/**
 * A sample in its parts: the prompt, what follows the grammar, the word in which it leaves it, the
 * rest. Python counts characters in code points.
 * @param {Sample} sample @param {string} prompt
 * @returns {{ prompt: string, good: string, leaves: string, rest: string }}
 */
export function parts(sample, prompt) {
  const points = Array.from(sample.text);
  const start = Array.from(prompt).length;
  let at = Math.max(sample.fails_at ?? points.length, start);
  let end = at;
  const space = (/** @type {number} */ i) => /\s/.test(points[i]);
  if (sample.fails_at !== null) {
    while (end < points.length && space(end)) end++;
    while (end < points.length && !space(end)) end++;
    while (at > start && at < points.length && !space(at) && !space(at - 1)) at--;
  }
  const cut = (/** @type {number} */ from, /** @type {number} */ to) =>
    points.slice(from, to).map(readable).join("");
  const shown = sample.parses ? points.length : Math.max(SHOWN, end + 80);
  const more = Math.max(points.length - shown, 0);
  return {
    prompt: cut(0, start),
    good: cut(start, at),
    leaves: cut(at, end),
    rest: cut(end, shown) + (more ? ` … and ${plural(more, "character")} more` : ""),
  };
}

/** @param {string} character @returns {string} one that leaves ink, or a space */
const readable = (character) => character === "\n" ? character : inked(character);

/** @param {Sample} sample @returns {number} the share of the text that follows the grammar */
export function followed({ text, fails_at }) {
  const length = Array.from(text).length;
  return fails_at === null || !length ? Number(fails_at === null) : fails_at / length;
}

/** @param {Sample} sample @param {string} prompt @returns {string} what the grammar says of it */
export function verdict(sample, prompt) {
  if (sample.parses) return "A whole story: the grammar can tell every word of it.";
  const length = Array.from(sample.text).length;
  const at = sample.fails_at ?? length;
  const expected = sample.expected.map((word) => word.startsWith("the end") ? word : `“${word}”`);
  const could = expected.length ? ` It could go on with ${orList(expected)}.` : "";
  if (!length) return "It ends before its first word.";
  if (at >= length) return "It breaks off before its end, and follows the grammar so far.";
  if (at <= Array.from(prompt).length + 1) return `It leaves the grammar at once.${could}`;
  const good = Array.from(sample.text).slice(0, at).join("").slice(prompt.length);
  const words = good.split(/\s+/).filter(Boolean).length;
  return `It follows the grammar for ${plural(words, "word")}, then leaves it.${could}`;
}

/** @param {number} value @returns {string} three digits or more, with a true minus sign */
export function digits(value) {
  const size = Math.abs(value);
  if (size >= 1000) return formatCount(Math.round(value));
  return signed(value.toFixed(size < 10 ? 3 : size < 100 ? 1 : 0));
}

/** @param {string} token a character a byte @returns {string} what to show for it */
export function wordOf(token) {
  if (token === "") return "start";
  const text = new TextDecoder().decode(bytesOf(token)).replaceAll("\n", MARKS["\n"]);
  return Array.from(text.trim() || MARKS[" "], readable).join("");
}

/** @param {string[]} labels @param {Float64Array} weights @returns {string} the heaviest of them */
export const heaviest = (labels, weights) =>
  heaviestOf(labels.map((label) => `“${label}”`), weights, 0.01);

/** @param {string} prompt @returns {string} short enough for a tab */
export function promptName(prompt) {
  if (!prompt) return "No prompt";
  const words = prompt.split(" ");
  return words.length <= 2 ? prompt : `${words.slice(0, 2).join(" ")} …`;
}

// ---------------------------------------------------------------------------------------------
// What is shown, and what the reader does

const PAUSE = 1200; // milliseconds from one moment to the next

/** What is the same at all moments of a replay. @param {Replay} replay */
function sceneOf(replay) {
  const { fragment, prompts, moments, steps } = replay;
  const labels = fragment.tokens.map(wordOf);
  const maps = moments.map(({ map }) => weightsOf(map, labels.length));
  const texts = moments.flatMap(({ samples }) =>
    samples.map((sample, i) => Object.values(parts(sample, prompts[i])).join(""))
  );
  const longest = texts.reduce((a, b) => (b.length > a.length ? b : a), "");
  const end = Math.max(steps, moments[moments.length - 1].step);
  return { replay, labels, maps, longest, end, range: rangeOf(replay) };
}

/** @typedef {ReturnType<typeof sceneOf>} Scene */

/** The moment that is looked at, and what else is chosen. */
class Player {
  hovered = -1; // a token under the pointer
  dragging = false;
  playing = 0;
  color = ""; // of the map
  id = uniqueName();
  said = announcer();
  /** @type {Scene | null} */
  known = null;

  /** @param {Widget} widget */
  constructor(widget) {
    this.widget = widget;
    this.model = widget.model;
    this.chart = measured(widget.update);
    this.endTheme = onTheme(this.drawn);
  }

  close() {
    this.endTheme();
    clearInterval(this.playing);
    this.chart.close();
    this.said.close();
  }

  /** Of the replay that the widget has now. @returns {Scene} */
  scene() {
    const replay = this.model.get("replay");
    if (this.known && this.known.replay === replay) return this.known;
    this.hovered = -1;
    return this.known = sceneOf(replay);
  }

  /** @returns {Replay} */
  replay = () => this.scene().replay;
  /** @param {string} name @param {number} count @returns {number} */
  chosen = (name, count) => clamp(this.model.get(name) ?? 0, 0, count - 1);
  index = () => this.chosen("moment", this.replay().moments.length);
  prompt = () => this.chosen("prompt", this.replay().prompts.length);
  token = () => this.chosen("token", this.scene().labels.length);
  /** The token that is hovered, else the chosen one. */
  row = () => this.hovered < 0 ? this.token() : this.hovered;
  last = () => this.index() === this.replay().moments.length - 1;
  moment = () => this.replay().moments[this.index()];
  weights = () => this.scene().maps[this.index()];
  verdict = () =>
    verdict(this.moment().samples[this.prompt()], this.replay().prompts[this.prompt()]);
  /** @param {number} step */
  place = (step) => placeOf(step, this.scene().end);

  /** @param {number} number @param {boolean} [keep] whether to tell Python */
  go(number, keep = true) {
    this.widget.update(); // the slider snaps to the moments
    const moment = clamp(number, 0, this.replay().moments.length - 1);
    if (moment === this.index()) return;
    this.model.set("moment", moment);
    if (keep) this.widget.save({});
    if (!this.playing) this.announce();
  }

  /** @param {number} place on the axis, from 0 to 1 */
  goNear(place) {
    const steps = this.replay().moments.map(({ step }) => step);
    this.go(nearest(place, steps, this.scene().end), false);
  }

  /** What the reader does ends the play. @param {number} number */
  take(number) {
    this.pause();
    this.go(number);
  }

  announce() {
    const { step, held_out: loss } = this.moment();
    const above = digits(loss - this.replay().floor);
    const numbers = `Step ${formatCount(step)}: loss ${digits(loss)}, ${above} above the floor.`;
    this.said.say(`${numbers} ${this.verdict()}`);
  }

  pause() {
    clearInterval(this.playing);
    this.playing = 0;
    this.widget.update();
  }

  play() {
    if (this.playing) {
      this.pause();
      return this.announce();
    }
    if (this.last()) this.go(0);
    this.playing = window.setInterval(() => {
      if (!this.widget.root.isConnected) return this.pause();
      this.go(this.index() + 1);
      if (!this.last()) return;
      this.pause();
      this.announce();
    }, PAUSE);
    this.widget.update();
  }

  onSliderKey = (/** @type {KeyboardEvent} */ event) => {
    const keys = { back: ["ArrowLeft", "ArrowDown"], on: ["ArrowRight", "ArrowUp"], page: -4 };
    const to = moved(event.key, this.index(), this.replay().moments.length, keys);
    if (to === null || withModifier(event)) return;
    event.preventDefault();
    this.take(to);
  };

  onTokenKey = (/** @type {any} */ event) => {
    const here = Number(event.target.dataset.index);
    const keys = { back: ["ArrowLeft"], on: ["ArrowRight"], page: 0 };
    const to = event.key === "Escape"
      ? this.replay().fragment.query
      : moved(event.key, here, this.scene().labels.length, keys);
    if (to === null || Number.isNaN(here)) return;
    event.preventDefault();
    event.stopPropagation();
    this.choose(to);
    const chip = this.widget.root.querySelector(`[data-index="${to}"]`);
    /** @type {HTMLElement} */ (chip).focus();
  };

  /** @param {number} token */
  choose(token) {
    this.hover(-1);
    if (token !== this.token()) this.widget.save({ token });
  }

  /** @param {number} token */
  hover(token) {
    if (token === this.hovered) return;
    this.hovered = token;
    this.widget.update();
  }

  /** The map takes the color that the page has now. */
  drawn = () => {
    const canvas = this.widget.root.querySelector("canvas");
    const color = canvas ? getComputedStyle(canvas).color : "";
    if (color === this.color) return;
    this.color = color;
    this.widget.update();
  };

  view() {
    const replay = this.replay();
    const [moments, steps] = [replay.moments.length, replay.steps];
    return html`
      <div class="gptlib-layout gptlib-tr-layout">
        <div class="gptlib-head gptlib-tr-head">
          <strong class="gptlib-title">A training run, replayed</strong>
          <p class="gptlib-soft">${plural(moments, "moment")} of ${plural(steps, "step")}</p>
        </div>
        ${plotView(this)} ${steerView(this)}
        <div class="gptlib-cards">${writesView(this)} ${headView(this)}</div>
        <details class="gptlib-tr-details">
          <summary>All moments as a table</summary>
          <div class="gptlib-tr-scroller" tabindex="0" role="region" aria-label="All moments">
            ${guard([replay], () => tableView(replay))}
          </div>
        </details>
        ${this.said.element}
      </div>
    `;
  }
}

// ---------------------------------------------------------------------------------------------
// Drawing

/** Where things stand in the chart. @param {Player} player */
function placesOf(player) {
  const width = player.chart.width();
  const height = width < 480 ? 210 : 236;
  const box = { left: 34, right: width - 14, top: 22, bottom: height - 40 };
  const { range } = player.scene();
  const x = (/** @type {number} */ step) => box.left + player.place(step) * (box.right - box.left);
  const y = (/** @type {number} */ loss) =>
    box.top + heightOf(loss, range) * (box.bottom - box.top);
  return { width, height, box, x, y };
}

/** What no moment changes: the grid, the curve and the floor, named. @param {Player} player */
function curveView(player) {
  const { replay: { curve, floor }, range, end } = player.scene();
  const { width, box, x, y } = placesOf(player);
  const { left, right, bottom } = box;
  const wide = width >= 480;
  const losses = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16]
    .filter((loss) => loss > range.low && loss < range.high);
  const points = curve.steps.map((step, i) => at(x(step), y(curve.losses[i])));
  const legend = right - (wide ? 208 : 178);
  return svg`
    ${columns(box, x, ticks(end), formatCount)} ${levels(box, y, losses)}
    <text x="0" y="11">${wide ? "loss, nats per token (log scale)" : "loss (log scale)"}</text>
    <text x=${right} y=${bottom + 33} text-anchor="end">training steps (log scale)</text>
    <rect class="gptlib-tr-under" x=${left} y=${y(floor)} width=${right - left}
      height=${bottom - y(floor)}></rect>
    <polyline class="gptlib-tr-curve" points=${points.join(" ")}></polyline>
    <line class="gptlib-tr-floor" x1=${left} x2=${right} y1=${y(floor)} y2=${y(floor)}></line>
    <text class="gptlib-tr-floor-word" x=${left + 6} y=${y(floor) + 15}>
      ${wide ? "the floor: the entropy of the stories" : "floor"}, ${floor.toFixed(3)}
    </text>
    <line class="gptlib-tr-curve" x1=${legend} x2=${legend + 18} y1="7" y2="7"></line>
    <text x=${legend + 24} y="11">training</text>
    <circle class="gptlib-tr-dot" cx=${legend + 92} cy="7" r="3.5"></circle>
    <text x=${legend + 101} y="11">${wide ? "held-out stories" : "held-out"}</text>
  `;
}

/** The curve and the moments on it. @param {Player} player */
function momentsView(player) {
  const { box, x, y } = placesOf(player);
  const { step, held_out: loss } = player.moment();
  const index = player.index();
  const dots = player.replay().moments.map((one, i) =>
    svg`
      <circle class=${classes("tr-dot", i <= index && "tr-past")} r="3" cx=${x(one.step)}
        cy=${y(one.held_out)}></circle>
    `
  );
  return svg`
    ${guard([player.scene(), player.chart.width()], () => curveView(player))}
    <line class="gptlib-tr-now" x1=${x(step)} x2=${x(step)} y1=${box.top - 4}
      y2=${box.bottom}></line>
    ${dots}
    <circle class="gptlib-tr-here" r="6.5" cx=${x(step)} cy=${y(loss)}></circle>
  `;
}

/** The chart and its slider: a moment has the same place in both. @param {Player} player */
function plotView(player) {
  const { width, height, box } = placesOf(player);
  const { step, held_out: loss } = player.moment();
  const drag = (/** @type {any} */ { currentTarget, clientX }) => {
    if (!player.dragging) return;
    const left = currentTarget.getBoundingClientRect().left + box.left;
    player.goNear((clientX - left) / (box.right - box.left));
  };
  const down = (/** @type {any} */ event) => {
    if (event.button) return;
    player.dragging = true;
    event.currentTarget.setPointerCapture(event.pointerId);
    player.pause();
    drag(event);
  };
  const done = () => {
    player.dragging = false;
    player.widget.save({});
    player.widget.update();
  };
  const slide = (/** @type {any} */ event) => {
    player.pause();
    player.goNear(Number(event.target.value));
  };
  return html`
    <div class="gptlib-tr-plot">
      <svg class="gptlib-chart gptlib-tr-chart" height=${height} aria-hidden="true"
        ${player.chart.here} @pointerdown=${down} @pointermove=${drag} @pointerup=${done}
        @pointercancel=${done}>${width ? momentsView(player) : ""}</svg>
      <input type="range" class="gptlib-tap gptlib-tr-slider" min="0" max="1" step="any"
        aria-label="Moment of the training"
        aria-valuetext="step ${formatCount(step)}, loss ${digits(loss)}"
        .value=${live(String(player.place(step)))} @input=${slide} @change=${done}
        @keydown=${player.onSliderKey}>
    </div>
  `;
}

/** @param {string} title @param {string} value @param {string} note */
const factView = (title, value, note) =>
  html`
    <div>
      <dt>${title}</dt>
      <dd class="gptlib-tr-value">${value}</dd>
      <dd class="gptlib-tr-unit">${note}</dd>
    </div>
  `;

/** The numbers of the moment, and the way to others. @param {Player} player */
function steerView(player) {
  const { floor, steps } = player.replay();
  const { step, stories, tokens, held_out: loss } = player.moment();
  const [nats, index] = ["nats per token", player.index()];
  return html`
    <div class="gptlib-tr-steer">
      <div class="gptlib-tr-controls" role="group" aria-label="Walk through the moments">
        <button type="button" class="gptlib-button gptlib-tr-button gptlib-tr-back"
          aria-label="Moment before" ?disabled=${index === 0}
          @click=${() => player.take(index - 1)}>◀</button>
        <button type="button" class="gptlib-button gptlib-primary gptlib-tr-button gptlib-tr-play"
          @click=${() => player.play()}>${player.playing ? "Pause" : "Play"}</button>
        <button type="button" class="gptlib-button gptlib-tr-button gptlib-tr-next"
          aria-label="Next moment" ?disabled=${player.last()}
          @click=${() => player.take(index + 1)}>▶</button>
      </div>
      <dl class="gptlib-tr-facts">
        ${factView("Step", formatCount(step), `of ${formatCount(steps)}`)}
        ${factView("Stories read", formatCount(stories), `${formatShort(tokens)} tokens`)}
        ${factView("Held-out loss", digits(loss), nats)}
        ${factView("Above the floor", digits(loss - floor), nats)}
        ${factView("Perplexity", digits(Math.exp(loss)), `floor: ${digits(Math.exp(floor))}`)}
      </dl>
    </div>
  `;
}

/** @param {ReturnType<typeof parts>} parts of a sample */
const sampleView = ({ prompt, good, leaves, rest }) =>
  inline`<p class="gptlib-tr-text"><span class="gptlib-tr-prompt">${prompt}</span><span
    class="gptlib-tr-good">${good}</span><mark class="gptlib-tr-leaves"
    ?hidden=${!leaves}>${leaves}</mark><span class="gptlib-tr-rest">${rest}</span></p>`;

/** @param {Player} player */
function writesView(player) {
  const { prompts } = player.replay();
  const prompt = player.prompt();
  const sample = player.moment().samples[prompt];
  const flag = (/** @type {"names" | "pronouns" | "object"} */ name) =>
    inline`<li class=${classes("tr-flag", sample[name] && "tr-holds")}>${name} ${
      sample[name] ? "✓" : "✗"
    }</li>`;
  const choice = radios({
    legend: html`<span class="gptlib-spoken">Prompt</span>`,
    name: player.id,
    value: String(prompt),
    options: prompts.map((one, i) => [String(i), promptName(one)]),
    choose: (chosen) => player.widget.save({ prompt: Number(chosen) }),
    class: "gptlib-tr-prompts",
  });
  return html`
    <section class="gptlib-card" aria-label="What it writes">
      <div class="gptlib-head gptlib-tr-head">
        <strong>What it writes</strong>
        <ul class="gptlib-tr-flags" aria-label="What stays consistent">
          ${flag("names")} ${flag("pronouns")} ${flag("object")}
        </ul>
      </div>
      ${choice}
      <div class="gptlib-tr-meter" aria-hidden="true">
        <span style="width: ${100 * followed(sample)}%"></span>
      </div>
      <p class=${classes("tr-verdict", sample.parses && "tr-right")}>${player.verdict()}</p>
      <div class="gptlib-tr-stack">
        <p class="gptlib-tr-text gptlib-tr-room" aria-hidden="true">${player.scene().longest}</p>
        ${sampleView(parts(sample, prompts[prompt]))}
      </div>
    </section>
  `;
}

/** The fragment's tokens with their weights. @param {Player} player @param {Float64Array} seen */
function tokensView(player, seen) {
  const { labels, replay: { fragment } } = player.scene();
  const [row, chosen] = [player.row(), player.token()];
  const under = (/** @type {any} */ { target }) =>
    Number(target.closest("button")?.dataset.index ?? -1);
  const click = (/** @type {Event} */ event) => under(event) < 0 || player.choose(under(event));
  const over = (/** @type {PointerEvent} */ event) => {
    if (event.pointerType !== "touch" && under(event) >= 0) player.hover(under(event));
  };
  const chip = (/** @type {string} */ text, /** @type {number} */ i) => {
    const value = i <= row ? seen[i] : 0;
    const kinds = [i === 0 && "tr-start", fragment.targets.includes(i) && "tr-target"];
    const places = [i === row && "tr-self", i > row && "tr-later"];
    const weight = value < 0.005 ? "" : value.toFixed(2).replace(/^0/, "");
    return inline`<button type="button" class=${classes("tap tr-token", ...kinds, ...places)}
      data-index=${i} tabindex=${i === chosen ? 0 : -1} aria-pressed=${i === chosen}
      style="--weight: ${Math.round(100 * Math.sqrt(value))}%"><span
      class="gptlib-tr-token-text">${text}</span><span class="gptlib-weight gptlib-tr-weight"
      aria-hidden="true">${weight}</span></button>`;
  };
  return html`
    <div class="gptlib-tr-tokens" role="group" aria-label="Token that looks" @click=${click}
      @keydown=${player.onTokenKey} @pointerover=${over}
      @pointerleave=${() => player.hover(-1)}>${labels.map(chip)}</div>
  `;
}

/**
 * Where each token looks, as a picture: the more, the darker; around the row that is shown, a frame.
 * @param {Player} player
 */
function mapView(player) {
  const [weights, n, { color }] = [player.weights(), player.scene().labels.length, player];
  const draw = (/** @type {HTMLCanvasElement} */ canvas) => {
    if (!color) return; // it is not in the page yet
    const image = new ImageData(n, n);
    const tint = rgbOf(color);
    weights.forEach((weight, i) => image.data.set([...tint, 255 * Math.sqrt(weight)], 4 * i));
    put(canvas, image);
  };
  const click = (/** @type {any} */ { currentTarget, clientY }) => {
    const { top, height } = currentTarget.getBoundingClientRect();
    player.choose(clamp(Math.floor(((clientY - top) / height) * n), 0, n - 1));
  };
  return html`
    <div class="gptlib-tr-map" aria-hidden="true" @click=${click}>
      <canvas ${guard([weights, color], draw)}></canvas>
      <div class="gptlib-tr-row"
        style="height: ${100 / n}%; transform: translateY(${100 * player.row()}%)"></div>
    </div>
  `;
}

/** @param {Player} player */
function headView(player) {
  const { labels, replay: { head, fragment } } = player.scene();
  const { score, others } = player.moment();
  const [row, n] = [player.row(), labels.length];
  const seen = player.weights().subarray(row * n, row * n + row + 1);
  const about = row === fragment.query
    ? `Next comes ${fragment.name}. In frames: where it stood, and the token after it, in which ` +
      "an earlier layer may have noted the name."
    : "A token looks at itself and at those before it. The darker the tint, the more.";
  return html`
    <section class="gptlib-card" aria-label="Where a head looks">
      <div class="gptlib-head gptlib-tr-head">
        <strong>Where head ${head.head} of layer ${head.layer} looks</strong>
      </div>
      <span class="gptlib-tr-score-bar" aria-hidden="true">
        <span style="width: ${100 * score}%"></span><span style="width: ${100 * others}%"></span>
      </span>
      <p class="gptlib-soft gptlib-tr-score">
        <b>${score.toFixed(2)}</b> of its attention goes to the name that comes next,
        <b>${others.toFixed(2)}</b> to other names.
      </p>
      ${tokensView(player, seen)}
      <div class="gptlib-tr-lower">
        ${mapView(player)}
        <div>
          <p class="gptlib-soft">${about}</p>
          <p class="gptlib-tr-looks">
            “${labels[row]}” looks at ${heaviest(labels, seen) || "nothing much"}.
          </p>
        </div>
      </div>
    </section>
  `;
}

/** @param {Replay} replay */
function tableView({ prompts, moments, floor }) {
  const heads = ["Step", "Stories read", "Held-out loss", "Above the floor", "Perplexity"];
  heads.push(...prompts.map((prompt) => `Follows: ${promptName(prompt)}`), "Head");
  const row = (/** @type {Moment} */ { step, stories, held_out: loss, samples, score }) => {
    const losses = [loss, loss - floor, Math.exp(loss)].map(digits);
    const shares = samples.map((sample) => `${Math.floor(100 * followed(sample))}%`);
    const cells = [formatCount(stories), ...losses, ...shares, score.toFixed(2)];
    return html`<tr><th scope="row">${formatCount(step)}</th>${
      cells.map((cell) => html`<td>${cell}</td>`)
    }</tr>`;
  };
  return html`
    <table>
      <caption class="gptlib-spoken">The moments of the training</caption>
      <thead>
        <tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr>
      </thead>
      <tbody>${moments.map(row)}</tbody>
    </table>
  `;
}

const TRAITS = ["replay", "moment", "prompt", "token"];

export default define("tr", TRAITS, (widget) => new Player(widget));
