// What comes next: the likeliest tokens after a prompt, moved by temperature, top-k and top-p.
// Python stores the logits of a few prompts; every probability is computed here.

import { fromBase64 } from "./lib/bytes.js";
import { announcer, button, classes, define, html, inline, nothing, select } from "./lib/kit.js";
import { formatChance, formatCount, plural, sum } from "./lib/numbers.js";
import { moved } from "./lib/rove.js";
import { Reader } from "./lib/reader.js";
import { dials, samplingOf, seedBox, STOPS } from "./lib/sampling.js";
import { label, spoken } from "./lib/tokens.js";

/** @import { Widget } from "./lib/kit.js" */
/** @import { Settings } from "./lib/sampling.js" */
/**
 * @typedef {{
 *   text: string, added: number[], size: number, width: number, codes: string, ids: string,
 *   texts: string[], rest: [number, number][],
 * }} Stored  what Python knows of one prompt
 * @typedef {{
 *   size: number, ids: Uint32Array, depths: Float64Array, counts: Float64Array,
 *   means: Float64Array, own: Float64Array, ownRest: Float64Array,
 * }} Ranked  tokens from the likeliest on: how far below it their logits are; bins of the others
 * @typedef {{
 *   probabilities: Float64Array, rest: Float64Array, possible: number, share: number,
 *   entropy: number,
 * }} Drawn  what is drawn from: `possible` tokens, `share` of the model's own probability
 */

// --- Arithmetic ----------------------------------------------------------------------------------

const NEAR = 0.05; // as in Python
const LEVELS = 2 ** 24 - 1 - 4096;
export const MOST_DRAWS = 10_000;
const ROWS = 12;
const LATEST = 12; // tokens drawn last, which are listed
/** @type {Settings} */
const OFF = { temperature: 1, top_k: null, top_p: null };

/** @param {string} text @returns {Uint32Array} integers of three bytes, the lowest first */
export function integers(text) {
  const bytes = fromBase64(text);
  return Uint32Array.from({ length: bytes.length / 3 }, (_, i) => {
    return bytes[3 * i] | (bytes[3 * i + 1] << 8) | (bytes[3 * i + 2] << 16);
  });
}

/** @param {Stored} stored @returns {Ranked} */
export function decode(stored) {
  const codes = integers(stored.codes);
  const named = stored.ids ? integers(stored.ids) : null;
  const order = Array.from(codes, (_, i) => i);
  // Equal codes stay in the order of their ids, as in gptlib.generation.next_probabilities.
  order.sort((a, b) => codes[a] - codes[b] || a - b);
  const bend = Math.log1p(stored.width / NEAR) / LEVELS;
  const depths = Float64Array.from(order, (i) => NEAR * Math.expm1(bend * codes[i]));
  const ranked = {
    size: stored.size,
    ids: Uint32Array.from(order, (i) => (named ? named[i] : i)),
    depths,
    counts: Float64Array.from(stored.rest, ([n]) => n),
    means: Float64Array.from(stored.rest, ([, mean]) => mean),
  };
  const own = soften(ranked, 1);
  return { ...ranked, own: own.subarray(0, order.length), ownRest: own.subarray(order.length) };
}

/** The softmax, of the tokens kept and of each bin, of logits divided by a temperature above 0.
 * @param {Pick<Ranked, "depths" | "counts" | "means">} ranked @param {number} temperature
 * @returns {Float64Array} the bins last */
function soften({ depths, counts, means }, temperature) {
  const weights = Float64Array.of(...depths, ...means)
    .map((depth, i) => (counts[i - depths.length] ?? 1) * Math.exp(-depth / temperature));
  const all = sum(weights);
  return weights.map((weight) => weight / all);
}

/** What the next token is drawn from, as gptlib.generation.next_probabilities computes it.
 * @param {Ranked} ranked @param {Settings} settings @returns {Drawn} */
export function settle(ranked, { temperature, top_k, top_p }) {
  const named = ranked.depths.length;
  const most = temperature === 0 ? 1 : (top_k ?? Infinity);
  const shares = soften(ranked, temperature || 1);
  const sizes = Float64Array.from(shares, (_, i) => ranked.counts[i - named] ?? 1); // in tokens
  if (most < ranked.size) {
    shares.fill(0, most);
    sizes.fill(0, most);
  }
  if (top_p !== null && top_p < 1) cut(shares, sizes, top_p);
  const all = sum(shares);
  let [possible, share, entropy] = [0, 0, 0];
  for (const [i, size] of sizes.entries()) {
    const p = (shares[i] /= all);
    if (p === 0) continue;
    const own = ranked.own[i] ?? ranked.ownRest[i - named] / ranked.counts[i - named];
    possible += size;
    share += own * size;
    entropy -= p * Math.log(p / size);
  }
  share = possible === ranked.size ? 1 : Math.min(share, 1);
  const [probabilities, rest] = [shares.subarray(0, named), shares.subarray(named)];
  return { probabilities, rest, possible, share, entropy: Math.max(entropy, 0) };
}

/** Drop what lies beyond the likeliest tokens whose probabilities add up to `top_p`; the tokens of
 * a bin are alike, and some of them may stay.
 * @param {Float64Array} shares @param {Float64Array} sizes @param {number} top_p */
function cut(shares, sizes, top_p) {
  const goal = top_p * sum(shares);
  let before = 0;
  for (const [i, share] of shares.entries()) {
    const each = share / (sizes[i] || 1);
    const wanted = each > 0 ? Math.max(Math.ceil((goal - before) / each), 0) : 0;
    before += share;
    sizes[i] = Math.min(wanted, sizes[i]);
    shares[i] = sizes[i] * each;
  }
}

/** Numbers from 0 to 1, always the same for a seed: mulberry32. @param {number} seed */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Draw tokens. The same seed draws the same tokens, and more draws begin with the same ones.
 * @param {Drawn} drawn @param {number} count @param {number} seed
 * @returns {Uint32Array} their ranks; one more than the last rank stands for all others */
export function draw({ probabilities }, count, seed) {
  const next = random(seed);
  const ends = new Float64Array(probabilities.length);
  let sum = 0;
  let last = 0;
  for (let i = 0; i < ends.length && probabilities[i] > 0; i++) {
    ends[i] = sum += probabilities[i];
    last = i;
  }
  // Rounding leaves a gap below 1, which belongs to no token, where no others can be drawn.
  const beyond = 1 - sum > 1e-9 ? ends.length : last;
  return Uint32Array.from({ length: count }, () => {
    const at = next();
    if (at >= sum) return beyond;
    let [low, high] = [0, last];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ends[middle] > at) high = middle;
      else low = middle + 1;
    }
    return low;
  });
}

// --- Settings and numbers for people -------------------------------------------------------------

export const PRESETS = [
  { name: "Greedy", temperature: 0, top_k: null, top_p: null },
  { name: "Cautious", temperature: 0.7, top_k: 40, top_p: 0.9 },
  { name: "As trained", temperature: 1, top_k: null, top_p: null },
  { name: "Wild", temperature: 1.6, top_k: null, top_p: null },
];

/** @param {string} name @param {number | null} value @returns {string} */
export function formatSetting(name, value) {
  if (value === null) return "off";
  if (name === "top_k") return String(value);
  return Number(value.toFixed(2)) === value ? value.toFixed(2) : String(value);
}

/** @param {number} perplexity @returns {string} */
export function formatPerplexity(perplexity) {
  return perplexity < 100 ? perplexity.toFixed(2) : formatCount(perplexity);
}

/** @param {number} largest share that is drawn @returns {number} where the scale ends */
export function scaleEnd(largest) {
  return [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((end) => largest <= end) ?? 1;
}

/** @param {string} text @returns {string} */
const shorten = (text) => (text.length <= 48 ? text : `${text.slice(0, 47)}…`);

/** @param {string} text @returns {string} a prompt, or words where it is empty */
const quote = (text) => (text ? `“${text}”` : "nothing: a text begins");

// --- What the reader does ------------------------------------------------------------------------

/** What follows from what Python knows of a prompt. @param {Stored} stored */
function read(stored) {
  const ranked = decode(stored);
  const sorted = ranked.ids.slice().sort();
  const names = new Map(stored.texts.map((text, i) => [sorted[i], label(text)]));
  return { stored, ranked, names, plain: settle(ranked, OFF) };
}

/** A sampling bench: what it knows of the prompt, and what its reader does with it. */
class Bench {
  status = announcer(0);
  current = 0; // the rank of the one token that the Tab key reaches
  #focus = () => {}; // what moves the focus once it is drawn

  /** @param {Widget} widget */
  constructor(widget) {
    this.widget = widget;
    this.model = widget.model;
    this.seen = read(this.model.get("stored")[0]); // what is shown
    this.reader = new Reader(widget, {
      name: "sb",
      label: "Your prompt",
      last: "The bars below are of the last prompt.",
      trait: "prompt",
      reset: { added: [] },
      text: () => this.known() === this.seen.stored ? this.seen.stored.text : null,
    });
  }

  close() {
    this.reader.close();
    this.status.close();
  }

  /** @returns {Stored | undefined} what is known of the prompt, if Python has sent it */
  known() {
    const { model } = this;
    const [text, added] = [model.get("prompt"), String(model.get("added") ?? [])];
    const typed = model.get("typed");
    return [...model.get("stored"), ...(typed?.codes ? [typed] : [])].find(
      (one) => one.text === text && String(one.added) === added,
    );
  }

  /** @param {number} id @returns {string} */
  nameOf(id) {
    if (!this.seen.names.has(id)) {
      const text = this.model.get("tokens")[id];
      this.seen.names.set(id, text === undefined ? `⟨${id}⟩` : label(text));
    }
    return /** @type {string} */ (this.seen.names.get(id));
  }

  /** @param {number} rank @returns {string} */
  nameAt(rank) {
    const id = this.seen.ranked.ids[rank];
    return id === undefined ? "⟨another⟩" : this.nameOf(id);
  }

  draws() {
    return Math.min(this.model.get("draws") ?? 0, MOST_DRAWS);
  }

  /** Show what is known of the prompt; what is shown stays until then. */
  adopt() {
    const found = this.known();
    if (found && found !== this.seen.stored) this.seen = read(found);
  }

  view() {
    this.adopt();
    return benchView(this);
  }

  drawn() {
    const { root } = this.widget;
    root.classList.toggle("gptlib-sb-drawn", this.draws() > 0);
    root.classList.toggle("gptlib-sb-stale", this.reader.stale);
    this.reader.drawn();
    this.#focus();
    this.#focus = () => {};
  }

  /** @param {string} selector */
  find(selector) {
    return /** @type {HTMLElement | null} */ (this.widget.root.querySelector(selector));
  }

  /** @param {Record<string, unknown>} change of the settings, or another prompt */
  change = (change) => {
    this.widget.save(change);
    this.adopt();
    const { possible, entropy, probabilities } = settle(this.seen.ranked, samplingOf(this.model));
    const best = `${spoken(this.nameAt(0))} ${formatChance(probabilities[0])}`;
    const words = `${formatCount(possible)} tokens possible, entropy ${entropy.toFixed(2)} nats`;
    this.status.say(`${words}; ${best}.`, 600); // when the slider rests
  };

  /** @param {{ prompt: string, added: number[] }} prompt that Python may not have sent */
  ask(prompt) {
    this.reader.patient();
    this.widget.save(prompt);
    this.widget.update();
  }

  /** @param {number} rank */
  append(rank) {
    const { ranked, stored } = this.seen;
    const id = ranked.ids[rank];
    this.current = rank;
    this.ask({ prompt: stored.text, added: [...stored.added, id] });
    this.status.say(`${spoken(this.nameOf(id))} added to the prompt.`);
  }

  takeBack() {
    const { text, added } = this.seen.stored;
    this.ask({ prompt: text, added: added.slice(0, -1) });
    this.#focus = () => {
      if (!this.find(".gptlib-sb-back")) this.find("textarea")?.focus(); // the button is gone
    };
  }

  /** @param {number} more */
  draw(more) {
    const count = Math.min(this.draws() + more, MOST_DRAWS);
    this.widget.save({ draws: count });
    const ranks = draw(
      settle(this.seen.ranked, samplingOf(this.model)),
      count,
      this.model.get("seed"),
    );
    const name = spoken(this.nameAt(ranks[count - 1]));
    this.status.say(`${more === 1 ? `Drawn: ${name}. ` : ""}${plural(count, "draw")}.`);
  }

  reset() {
    this.widget.save({ draws: 0 });
    this.status.say("No draws.");
    this.#focus = () => this.find(".gptlib-sb-main")?.focus(); // the button is disabled now
  }

  /** @param {KeyboardEvent} event */
  onRowKey(event) {
    const found = this.widget.root.querySelectorAll(".gptlib-sb-row button");
    const buttons = /** @type {HTMLElement[]} */ ([...found]);
    const here = buttons.indexOf(/** @type {HTMLElement} */ (event.target));
    const to = moved(event.key, here, buttons.length, { back: ["ArrowUp"], on: ["ArrowDown"] });
    if (to === null || here < 0) return;
    event.preventDefault();
    this.current = to;
    buttons[to].focus();
    this.widget.update();
  }
}

// --- Drawing -------------------------------------------------------------------------------------

/** @param {Bench} one */
function choiceView(one) {
  const { model, reader, seen } = one;
  /** @type {Stored[]} */
  const stored = model.get("stored");
  if (stored.length < 2) return nothing;
  const at = stored.indexOf(seen.stored);
  const titles = stored.map(({ text, added }) => text + (added.length ? " …" : ""));
  /** @type {[string, string][]} */
  const options = titles.map((text, i) => [String(i), shorten(quote(text))]);
  if (at < 0) options.push([String(stored.length), "Your own"]);
  const choose = (/** @type {string} */ value) => {
    const chosen = stored[Number(value)];
    if (chosen) one.change({ prompt: chosen.text, added: chosen.added });
  };
  return html`
    <label class="gptlib-text-label">
      ${reader.kernel ? "Examples" : "Prompt"}
      ${select("", String(at < 0 ? stored.length : at), options, choose)}
    </label>
  `;
}

/** @param {Bench} one */
function controlsView(one) {
  const settings = samplingOf(one.model);
  const presets = PRESETS.map(({ name, ...preset }) => {
    const pressed = Object.entries(settings).every(([key, value]) =>
      /** @type {any} */ (preset)[key] === value
    );
    return button(name, () => one.change(preset), { pressed });
  });
  return html`
    <div class="gptlib-controls gptlib-sb-controls" role="group" aria-label="Sampling">
      <div class="gptlib-sb-presets" role="group" aria-label="Presets">${presets}</div>
      ${dials(settings, { least: "greedy", format: formatSetting, move: one.change })}
    </div>
  `;
}

/** @typedef {{ now: number, own: number, count: number, all: number, end: number }} Shares  of a
 *   row: two probabilities, how often it was drawn of all draws; and where the scale ends */

/** @param {unknown} token @param {Shares} shares @param {string} [kind] @param {unknown} [click] */
function rowView(token, { now, own, count, all, end }, kind = "", click = nothing) {
  const width = (/** @type {number} */ share) => `${(100 * Math.min(share / end, 1)).toFixed(2)}%`;
  const kinds = classes(
    "sb-row",
    kind,
    all > 0 && count === 0 && "sb-none",
    Math.max(now, own) > end && "sb-over",
    now === 0 && "sb-dropped",
  );
  return html`
    <div class=${kinds} role="row" @click=${click}>
      <div class="gptlib-sb-head" role="rowheader"
        dir="auto">${token}<span class="gptlib-spoken">${now === 0 ? " (dropped)" : ""}</span></div>
      <div class="gptlib-sb-now" role="cell">${formatChance(now)}</div>
      <div class="gptlib-sb-own" role="cell">${formatChance(own)}</div>
      <div class="gptlib-sb-count" role="cell">${formatCount(count)}</div>
      <div class="gptlib-sb-track" aria-hidden="true">
        <div class="gptlib-sb-ghost" style="width: ${width(own)}"></div>
        <div class="gptlib-sb-fill" style="width: ${width(now)}"></div>
        <div class="gptlib-sb-dot" style="left: ${width(all ? count / all : 0)}"></div>
      </div>
    </div>
  `;
}

/** @param {Bench} one @param {number} rank */
function tokenView(one, rank) {
  const name = one.nameAt(rank);
  if (!one.reader.kernel) return html`<span class="gptlib-sb-token" title=${name}>${name}</span>`;
  const said = `Add ${spoken(name)} to the prompt`;
  return html`
    <button type="button" class="gptlib-sb-token" title=${name} aria-label=${said}
      tabindex=${rank === one.current ? 0 : -1}>${name}</button>
  `;
}

/** @param {Bench} one @param {Drawn} drawn @param {Uint32Array} ranks that were drawn */
function tableView(one, drawn, ranks) {
  const { ranked, stored } = one.seen;
  const [all, end] = [ranks.length, scaleEnd(Math.max(ranked.own[0], drawn.probabilities[0]))];
  const counts = new Uint32Array(ROWS);
  for (const rank of ranks) if (rank < ROWS) counts[rank] += 1;
  const shares = Array.from(ranked.ids.slice(0, ROWS), (_, i) => ({
    ...{ all, end, now: drawn.probabilities[i], own: ranked.own[i], count: counts[i] },
  }));
  const add = (/** @type {number} */ rank) => one.reader.kernel ? () => one.append(rank) : nothing;
  const rest = { all, end, now: 1, own: 1, count: all };
  for (const { now, own, count } of shares) {
    [rest.now, rest.own, rest.count] = [rest.now - now, rest.own - own, rest.count - count];
  }
  const ticks = [0, end / 2, end].map((share) =>
    `${Number((100 * share).toFixed(1))}${share ? "%" : ""}`
  );
  return html`
    <div class="gptlib-sb-table" role="table" @keydown=${(/** @type {any} */ e) => one.onRowKey(e)}>
      <div class="gptlib-sb-row gptlib-sb-headings" role="row">
        <div class="gptlib-sb-head" role="columnheader">Token</div>
        <div class="gptlib-sb-now" role="columnheader">Now</div>
        <div class="gptlib-sb-own" role="columnheader">Own</div>
        <div class="gptlib-sb-count" role="columnheader">Draws</div>
        <div class="gptlib-sb-ticks" aria-hidden="true">
          ${ticks.map((tick) => html`<span>${tick}</span>`)}
        </div>
      </div>
      ${shares.map((each, rank) => rowView(tokenView(one, rank), each, "", add(rank)))}
      ${stored.size > ROWS ? othersView(stored.size - ROWS, drawn.possible - ROWS, rest) : nothing}
    </div>
  `;
}

/** @param {number} others @param {number} possible @param {Shares} rest */
function othersView(others, possible, rest) {
  const left = Math.max(possible, 0);
  const some = left > 0 && left < others ? `${formatCount(left)} of ` : "";
  const now = left ? Math.max(rest.now, Number.MIN_VALUE) : 0;
  const token = html`<span class="gptlib-sb-token">${some}${plural(others, "other")}</span>`;
  return rowView(token, { ...rest, now, own: Math.max(rest.own, 0) }, "sb-others");
}

/** @param {Bench} one @param {Drawn} drawn @param {Uint32Array} ranks */
function figureView(one, drawn, ranks) {
  const { text, added } = one.seen.stored;
  const back = added.length && one.reader.kernel;
  const after = [
    quote(text),
    ...added.map((id) => inline` <span class="gptlib-sb-chip">${one.nameOf(id)}</span>`),
  ];
  return html`
    <div class="gptlib-sb-figure">
      <div class="gptlib-sb-after">
        <span class="gptlib-soft">What comes after</span>
        <span class="gptlib-sb-context">${after}</span>
        ${back
          ? button("Take it back", () => one.takeBack(), { class: "gptlib-button gptlib-sb-back" })
          : nothing}
      </div>
      ${one.reader.kernel
        ? html`<p class="gptlib-soft">Choose a token to add it to the prompt.</p>`
        : nothing}
      <div class="gptlib-bar gptlib-soft gptlib-sb-legend" aria-hidden="true">
        <span><i class="gptlib-sb-key gptlib-sb-key-ghost"></i>the model’s own</span>
        <span><i class="gptlib-sb-key gptlib-sb-key-fill"></i>now</span>
        <span><i class="gptlib-sb-key gptlib-sb-key-dot"></i>share of draws</span>
      </div>
      ${tableView(one, drawn, ranks)}
    </div>
  `;
}

/** @param {Bench} one @param {Drawn} drawn */
function factsView({ seen: { plain, stored } }, { possible, share, entropy }) {
  const before = plain.entropy;
  const [now, then] = [entropy, before].map((nats) => formatPerplexity(Math.exp(nats)));
  const facts = [
    ["Still possible", formatCount(possible), `of ${plural(stored.size, "token")}`],
    ["Probability kept", formatChance(share), "of the model’s own"],
    ["Entropy", `${entropy.toFixed(2)} nats`, `model’s own: ${before.toFixed(2)}`],
    ["Perplexity", now, `model’s own: ${then}`],
  ];
  return facts.map(([title, value, more]) =>
    html`
      <div class="gptlib-card gptlib-sb-fact">
        <span class="gptlib-soft">${title}</span><b>${value}</b>
        <span class="gptlib-soft gptlib-sb-more">${more}</span>
      </div>
    `
  );
}

/** @param {Bench} one @param {Uint32Array} ranks that were drawn */
function drawsView(one, ranks) {
  const count = ranks.length;
  const full = count >= MOST_DRAWS;
  const main = classes("button sb-main", !full && "primary");
  const words = count
    ? `${plural(count, "draw")} from these bars, made anew at every setting. The latest first:`
    : "A draw picks one next token from these bars.";
  const latest = Array.from(ranks.slice(-LATEST), (rank) => one.nameAt(rank)).reverse();
  return html`
    <div class="gptlib-sb-draws" role="group" aria-label="Draws">
      <div class="gptlib-bar">
        ${button("Draw a token", () => one.draw(1), { class: main, disabled: full })}
        ${button("Draw 100", () => one.draw(100), { disabled: full })}
        ${button("Reset", () => one.reset(), { disabled: count === 0 })}
        <label>Seed ${seedBox(one.widget)}</label>
      </div>
      <span class="gptlib-soft">${words}</span>
      <div class="gptlib-sb-latest">
        ${latest.map((name) => html`<span class="gptlib-sb-chip" dir="auto">${name}</span>`)}
      </div>
    </div>
  `;
}

/** @param {Bench} one */
function benchView(one) {
  const drawn = settle(one.seen.ranked, samplingOf(one.model));
  const ranks = draw(drawn, one.draws(), one.model.get("seed"));
  return html`
    <div class="gptlib-layout">
      <div class="gptlib-head">
        <strong class="gptlib-title">Sampling bench</strong>
        <span class="gptlib-soft">${plural(one.seen.stored.size, "token")}</span>
      </div>
      ${one.reader.view(nothing, choiceView(one))} ${controlsView(one)}
      ${figureView(one, drawn, ranks)}
      <div class="gptlib-sb-facts">${factsView(one, drawn)}</div>
      ${drawsView(one, ranks)} ${one.status.element}
    </div>
  `;
}

const OWN = ["prompt", "added", "typed", "stored", "error", "draws", "seed"];
const TRAITS = [...OWN, ...Object.keys(STOPS)];

export default define("sb", TRAITS, (widget) => new Bench(widget));
