// What it costs to train a GPT: FLOPs, time, price and memory, each with what it assumes. All
// numbers are computed here, with the formulas of gptlib.accounting.

import { BYTES, forwardFlops, memberOf, sizesOf, total, trainingBytes } from "./lib/accounting.js";
import { classes, define, entry, html, nothing, select, table, tableRow, tick } from "./lib/kit.js";
import {
  formatBytes,
  formatCount,
  formatFigure,
  formatPower,
  formatShare,
  formatShort,
  sum,
  tidy,
} from "./lib/numbers.js";
import {
  familyChoice,
  fieldView,
  heldView,
  partRow,
  Settings,
  sizeBox,
  SIZES,
  stack,
  typeChoice,
} from "./lib/settings.js";

export { BYTES };

/** @import { Config } from "./lib/accounting.js" */
/** @import { Widget } from "./lib/kit.js" */
/**
 * @typedef {{
 *   n_tokens: number, counting: string, device: string, flops_per_second: number,
 *   n_devices: number, utilization: number, price_per_device_hour: number, dtype: string,
 *   sharded: boolean,
 * }} Run
 * @typedef {{
 *   key: string, name: string, flops_per_second: number, memory_bytes: number, source: string,
 * }} Device
 * @typedef {{
 *   flops: number, rule_flops: number, counted_flops: number, device_years: number, days: number,
 *   price: number, held_bytes: Record<string, number>,
 * }} Costs
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

/** @param {Config} config @param {number} tokens @returns {number} as accounting.run_flops */
export const runFlops = (config, tokens) => 3 * sum(Object.values(forwardFlops(config))) * tokens;

/** @param {number} parameters @param {number} tokens @returns {number} as accounting.six_nd_flops */
export const sixNdFlops = (parameters, tokens) => 6 * parameters * tokens;

/** A year of 365.25 days, as accounting has it. */
export const SECONDS_PER_YEAR = 31_557_600;

/** @param {Record<string, number>} held @param {number} n @returns {Record<string, number>} */
export const shardedBytes = (held, n) =>
  Object.fromEntries(Object.entries(held).map(([name, size]) => [name, Math.ceil(size / n)]));

/** Every figure, as gptlib.widgets.training_cost.costs has it.
 * @param {Config} config @param {Run} run @returns {Costs} */
export function costs(config, run) {
  const rule = sixNdFlops(total(config), run.n_tokens);
  const counted = runFlops(config, run.n_tokens);
  const flops = run.counting === "six_nd" ? rule : counted;
  const deviceSeconds = flops / (run.flops_per_second * run.utilization);
  const held = trainingBytes(config, run.dtype);
  return {
    flops,
    rule_flops: rule,
    counted_flops: counted,
    device_years: deviceSeconds / SECONDS_PER_YEAR,
    days: deviceSeconds / run.n_devices / 86_400,
    price: (deviceSeconds / 3_600) * run.price_per_device_hour,
    held_bytes: run.sharded ? shardedBytes(held, run.n_devices) : held,
  };
}

/** The largest values of a run, the same in Python. @type {Record<string, number>} */
export const LIMITS = {
  n_tokens: 1e15,
  n_devices: 1_000_000,
  flops_per_second: 1e18,
  utilization: 1,
  price_per_device_hour: 1e6,
};

/** What the reader sets, and from where to where its slider goes.
 * @type {Record<string, { title: string, unit: string, least: number, most: number }>} */
const FIELDS = {
  n_tokens: { title: "Tokens", unit: "D", least: 1e6, most: 2e13 },
  n_devices: { title: "Devices", unit: "", least: 1, most: 65_536 },
  flops_per_second: { title: "Speed", unit: "TFLOP/s", least: 1e10, most: 2e15 },
  utilization: { title: "Utilization", unit: "%", least: 0.05, most: 1 },
  price_per_device_hour: { title: "Price", unit: "an hour", least: 0.1, most: 100 },
};

/** What is wrong with the settings of a run; nothing if they are valid.
 * @param {Record<string, any>} run @returns {string} */
export function runProblem(run) {
  for (const [name, { title }] of Object.entries(FIELDS)) {
    const value = run[name];
    const whole = name === "n_tokens" || name === "n_devices";
    if (whole && !(Number.isSafeInteger(value) && value >= 1)) {
      return `${title} must be a whole number of at least 1`;
    }
    const free = name === "price_per_device_hour"; // it may be 0
    if (!(Number.isFinite(value) && (value > 0 || free && value === 0))) {
      return `${title} must be a number ${free ? "at least 0" : "above 0"}`;
    }
  }
  const most = Object.entries(LIMITS).find(([name, limit]) => run[name] > limit);
  return most ? `${FIELDS[most[0]].title} must be at most ${shownAs(...most)} here` : "";
}

// ---------------------------------------------------------------------------------------------
// Examples

const GPT3_TOKENS = "as GPT-3's authors report";

/** The runs of the buttons. Their tokens are given, except where `tokens` says otherwise. */
export const PRESETS = [
  {
    key: "v100",
    title: "GPT-3 on one V100",
    model: "gpt3",
    run: { n_tokens: 300e9, device: "v100-lambda", n_devices: 1, utilization: 1 },
    tokens: GPT3_TOKENS,
    says: "Lambda's estimate: 355 years.",
  },
  {
    key: "rtx8000",
    title: "GPT-3 on one RTX 8000",
    model: "gpt3",
    run: { n_tokens: 300e9, device: "rtx8000-lambda", n_devices: 1, utilization: 1 },
    tokens: GPT3_TOKENS,
    says: "Lambda's estimate: 665 years.",
  },
  {
    key: "gpt3",
    title: "GPT-3 on 1,024 A100",
    model: "gpt3",
    run: { n_tokens: 300e9, device: "a100", n_devices: 1024, utilization: 0.45, sharded: true },
    tokens: GPT3_TOKENS,
    says:
      "45% of the peak is what Narayanan et al. (2021) reach. They estimate 34 days, because they " +
      "compute each block forward twice, to save memory: 8 · N · D.",
  },
  {
    key: "gpt2",
    title: "GPT-2 small on 8 A100",
    model: "gpt2",
    run: { n_tokens: 10e9, device: "a100", n_devices: 8, utilization: 0.4 },
    tokens: "an example: GPT-2's report gives no number",
    says: "The number of devices and the utilization are examples.",
  },
  {
    key: "mini",
    title: "Mini on a laptop",
    model: "mini",
    run: { n_tokens: 50e6, device: "laptop", n_devices: 1, utilization: 1, counting: "products" },
    tokens: "about as many as the course trains it on",
    says: "A small model spends much on attention's pairs, so each product is counted.",
  },
];

/** The run of a preset: what it does not say is as in the course's first example; the price stays.
 * @param {typeof PRESETS[number]} preset @param {Run} run @param {Device[]} devices
 * @returns {Run} */
export function presetRun(preset, run, devices) {
  const device = devices.find((one) => one.key === preset.run.device);
  return {
    ...run,
    counting: "six_nd",
    dtype: "float32",
    sharded: false,
    ...preset.run,
    flops_per_second: device?.flops_per_second ?? run.flops_per_second,
  };
}

// ---------------------------------------------------------------------------------------------
// Numbers for people

/** The shortest way to write a count that says all of it: 300B, 23.5M, 23,641,363.
 * @param {number} count @returns {string} */
export function formatExact(count) {
  const short = formatShort(count);
  return parseCount(short) === count ? short : formatCount(count);
}

/** A count as people type it: "300B", "300 billion", "3e11", "300,000".
 * @param {string} text @returns {number} not a number if it is none */
export function parseCount(text) {
  const clean = text.trim().replaceAll(",", "").toLowerCase();
  const match = /^(\d+\.?\d*(?:e\+?\d+)?|\.\d+)\s*([a-z]*)$/.exec(clean);
  if (!match) return NaN;
  /** @type {Record<string, number>} */
  const units = {
    ...{ "": 1, k: 1e3, thousand: 1e3, m: 1e6, million: 1e6, b: 1e9, bn: 1e9, g: 1e9 },
    ...{ billion: 1e9, t: 1e12, trillion: 1e12 },
  };
  const value = Number(match[1]) * (units[match[2]] ?? NaN);
  const whole = Math.round(value);
  return Math.abs(value - whole) < 1e-9 * value ? whole : value; // 0.7B is a whole number
}

/** @param {number} seconds @returns {string} in the unit that suits it: 52.6 minutes */
export function formatDuration(seconds) {
  /** @type {[number, string][]} */
  const units = [[SECONDS_PER_YEAR, "year"], [86_400, "day"], [3_600, "hour"], [60, "minute"]];
  const [unit, name] = units.find(([size]) => seconds >= size) ?? [1, "second"];
  const figure = Number((seconds / unit).toPrecision(3));
  return `${formatFigure(figure)} ${name}${figure === 1 ? "" : "s"}`;
}

/** @param {string} name @param {number} value @returns {string} as its box shows it */
export function shownAs(name, value) {
  if (name === "n_tokens") return formatExact(value);
  if (name === "utilization") return String(tidy(100 * value));
  if (name === "flops_per_second") return String(tidy(value / 1e12));
  return name === "n_devices" ? formatCount(value) : String(value);
}

/** @param {string} name @param {string} text what stands in its box @returns {number} */
export function readAs(name, text) {
  const value = parseCount(text);
  if (name === "utilization") return tidy(value / 100);
  return name === "flops_per_second" ? tidy(value * 1e12) : value;
}

// ---------------------------------------------------------------------------------------------
// Sliders and the scale of time

/** The values at which a slider stops: 1, 2, 5, 10 … ; powers of two for devices; every 5 percent.
 * @param {string} name @param {number} now
 * @param {number[]} known values that must be among them @returns {number[]} */
export function stops(name, now, known = []) {
  const { least, most } = FIELDS[name];
  const values = [...known, now];
  if (name === "n_devices") { for (let n = least; n <= most; n *= 2) values.push(n); }
  else if (name === "utilization") { for (let n = 1; n <= 20; n++) values.push(tidy(n / 20)); }
  else {
    for (let power = Math.floor(Math.log10(least)); 10 ** power <= most; power++) {
      for (const digit of [1, 1.5, 2, 3, 5, 7]) values.push(tidy(digit * 10 ** power));
    }
  }
  const inside = values.filter((value) => value === now || (value >= least && value <= most));
  return [...new Set(inside)].sort((a, b) => a - b);
}

/** Marks on the scale of time, in seconds. @type {[number, string][]} */
export const MARKS = [
  [60, "minute"],
  [3_600, "hour"],
  [86_400, "day"],
  [SECONDS_PER_YEAR / 12, "month"],
  [SECONDS_PER_YEAR, "year"],
  [100 * SECONDS_PER_YEAR, "century"],
  [10_000 * SECONDS_PER_YEAR, "10,000 years"],
];

/** @param {number} seconds @returns {number} from 0, a second, to 1, 100,000 years; logarithmic */
export function placeOf(seconds) {
  const place = Math.log10(Math.max(seconds, 1)) / Math.log10(1e5 * SECONDS_PER_YEAR);
  return Math.min(place, 1);
}

// ---------------------------------------------------------------------------------------------
// What each figure rests on

/** @param {Device} device @param {Run} run @returns {string} where the speed comes from */
export function speedSource(device, { flops_per_second: speed }) {
  const source = speed === device.flops_per_second ? device.source : "your own figure";
  return `${shownAs("flops_per_second", speed)} TFLOP/s: ${source}.`;
}

/** @param {number} count @param {number} other @returns {string} how much more it is */
function more(count, other) {
  const share = count / other - 1;
  return `${formatShare(Math.abs(share))} ${share < 0 ? "fewer" : "more"}`;
}

/** What each figure assumes, in words.
 * @param {Config} config @param {Run} run @param {Device} device
 * @returns {Record<string, string>} */
export function assumptions(config, run, device) {
  const { counted_flops: counted, rule_flops: rule } = costs(config, run);
  const [n, d] = [formatShort(total(config)), formatShort(run.n_tokens)];
  const share = formatShare(run.utilization).replace(".0%", "%");
  const used = run.utilization === 1 ? "All of it used, without a pause" : `${share} of it used`;
  const many = formatCount(run.n_devices);
  return {
    flops: run.counting === "six_nd"
      ? `6 · N · D = 6 · ${n} · ${d}, a rule of thumb. Product by product, it is ` +
        `${formatPower(counted)}: ${more(counted, rule)}.`
      : `Each matrix product, three times: once forward, twice backward. All pairs of tokens ` +
        `count. 6 · N · D says ${formatPower(rule)}: ${more(rule, counted)}.`,
    device_years: `${speedSource(device, run)} ${used}.`,
    days: run.n_devices === 1
      ? "One device does all the work."
      : `${many} devices are ${many} times as fast: waiting for each other is not counted, ` +
        "unless the utilization has it.",
    price: "The price of a device-hour is yours to set: 1 is an example, not a market price.",
    memory: run.sharded
      ? `AdamW; weights, gradients and moments are cut into ${many} equal shares. Activations ` +
        "come on top, and the layer at work is gathered whole."
      : "AdamW; each device holds a copy of everything. Activations come on top.",
  };
}

/** Whether what a device must hold fits into it, in words.
 * @param {number} bytes @param {Device} device @returns {{ fits: boolean, words: string }} */
export function fit(bytes, device) {
  const whole = formatBytes(device.memory_bytes).replace(".0", "");
  if (bytes <= device.memory_bytes) {
    const left = formatBytes(device.memory_bytes - bytes);
    return { fits: true, words: `Fits: ${device.name} has ${whole}, so ${left} are left.` };
  }
  const times = formatFigure(Number((bytes / device.memory_bytes).toPrecision(3)));
  return { fits: false, words: `Does not fit: ${times} times the ${whole} of ${device.name}.` };
}

// ---------------------------------------------------------------------------------------------
// Drawing

/** The parts of the FLOPs. @type {Record<string, string>} */
const SPENT = {
  matrices: "Attention's matrices",
  pairs: "Attention's pairs",
  feed_forward: "Feed-forward",
  output_head: "Output head",
};
/** @type {[string, string][]} */
const COUNTINGS = [["six_nd", "6 · N · D"], ["products", "product by product"]];

/** What the widget is drawn from, and what it remembers besides. */
class State extends Settings {
  /** @param {Widget} widget */
  constructor(widget) {
    super(widget, ["config", "run"]);
  }

  /** @returns {any} a Run */
  get run() {
    return this.model.get("run");
  }

  /** @returns {Device[]} */
  get devices() {
    return this.model.get("devices") ?? [];
  }

  /** @param {string} key */
  device(key = this.run.device) {
    return this.devices.find((one) => one.key === key);
  }

  /** @param {Record<string, unknown>} changes @param {boolean} [keep] */
  change = (changes, keep) => {
    const run = { ...this.run, ...changes };
    this.take(runProblem(run), Object.keys(changes).join(), { run }, keep);
  };

  /** @param {typeof PRESETS[number]} preset */
  apply(preset) {
    const one = this.family().find(({ name }) => name === preset.model);
    const run = presetRun(preset, this.run, this.devices);
    if (one) this.take("", "", { config: sizesOf(one), run });
  }

  view() {
    const device = this.device();
    if (!device) return nothing; // the page has not said yet which there are
    const found = costs(this.config(), this.run);
    const why = assumptions(this.config(), this.run, device);
    this.tell(inWords(found));
    return html`<div class="gptlib-layout">
      <div class="gptlib-head">
        <strong class="gptlib-title">What training costs</strong>
        ${familyChoice(this)}
      </div>
      ${presetsView(this)} ${settingsView(this)}
      <div class="gptlib-cards gptlib-tc-tiles">${tilesOf(this, found, why).map(tileView)}</div>
      ${timeView(found)}
      <div class="gptlib-cards">
        ${flopsCard(this)} ${memoryCard(this, device, found.held_bytes, why.memory)}
      </div>
      ${this.status.element}
    </div>`;
  }
}

/** @param {Costs} found @returns {string} for who listens */
function inWords({ flops, device_years: years, days, price }) {
  const times = `${formatFigure(years)} device-years, ${formatFigure(days)} days`;
  return `${formatPower(flops)} FLOPs, ${times}, price ${formatFigure(price)}`;
}

/** @param {State} state */
function presetsView(state) {
  const member = memberOf(state.config(), state.family())?.name;
  const now = PRESETS.find((preset) =>
    // its price does not matter
    preset.model === member && same(presetRun(preset, state.run, state.devices), state.run)
  );
  const says = now && `${formatShort(now.run.n_tokens)} tokens, ${now.tokens}. ${now.says}`;
  return html`<div class="gptlib-bar" role="group" aria-label="Examples">
    ${
    PRESETS.map((preset) =>
      html`
        <button type="button" class="gptlib-button" data-preset=${preset.key}
          aria-pressed=${preset === now} @click=${() => state.apply(preset)}>${preset
            .title}</button>
      `
    )
  }
    <p class="gptlib-soft gptlib-tc-says">${says ?? "Your own settings."}</p>
  </div>`;
}

/** @param {State} state @param {string} name */
function runField(state, name) {
  const { title, unit } = FIELDS[name];
  const { change } = state;
  const value = state.run[name];
  const shown = shownAs(name, value);
  const take = (/** @type {string} */ text) => {
    if (text !== shown || state.error) change({ [name]: readAs(name, text) });
  };
  const box = html`
    <input type="text" class="gptlib-number" autocomplete="off" spellcheck="false"
      inputmode=${name === "n_tokens" ? "text" : "decimal"} aria-invalid=${state.invalid(name)}
      ${entry(state.shown(shown), take)}>
  `;
  const known = name === "flops_per_second" ? state.devices.map((one) => one[name]) : [];
  const text = `${shown} ${unit === "D" ? "tokens" : unit}`.trim();
  const found = () => stops(name, value, known);
  return fieldView(state, name, { title, unit, value, text, box, stops: found, change });
}

/** @param {State} state @param {string} name @param {string} title */
const sizeView = (state, name, title) =>
  html`<label class="gptlib-tc-size" data-field=${name}>
    <span>${title}</span>
    ${sizeBox(state, name)}
  </label>`;

/** @param {State} state */
function settingsView(state) {
  /** @type {[string, string][]} */
  const options = state.devices.map(({ key, name }) => [key, name]);
  const choose = (/** @type {string} */ key) =>
    state.change({ device: key, flops_per_second: state.device(key)?.flops_per_second });
  const device = select("", state.run.device, options, choose);
  const tie = (/** @type {boolean} */ tied) => state.configure({ tie_head: tied });
  return html`
    <div role="group" aria-label="Settings">
      <div class="gptlib-controls">
          <label class="gptlib-tc-device"><span>Device</span>${device}</label>
          ${Object.keys(FIELDS).map((name) => runField(state, name))}
        </div>
      <details class="gptlib-tc-numbers">
        <summary>The model's numbers</summary>
        <div class="gptlib-tc-sizes">
            ${Object.entries(SIZES).map(([name, title]) => sizeView(state, name, title))}
            ${tick("Tied output head", state.config().tie_head, tie)}
          </div>
      </details>
      <p class="gptlib-error" role="alert">${state.error}</p>
    </div>
  `;
}

/**
 * @typedef {{ title: string, value: string, unit?: string, also: string, why: string,
 *   extra?: unknown }} Tile
 * @param {Tile} tile
 */
const tileView = ({ title, value, unit = "", also, why, extra }) =>
  html`
    <section class="gptlib-card gptlib-tc-tile" aria-label=${title}>
      <div class="gptlib-head gptlib-soft gptlib-tc-tile-head"><span>${title}</span>${extra}</div>
      <div class="gptlib-soft gptlib-tc-figure"><b>${value}</b> <span>${unit}</span></div>
      <div class="gptlib-tc-also">${also}</div>
      <p class="gptlib-soft gptlib-tc-why">${why}</p>
    </section>
  `;

/** @type {(state: State, found: Costs, why: Record<string, string>) => Tile[]} */
function tilesOf(state, found, why) {
  const { n_devices: n, price_per_device_hour: price, counting } = state.run;
  const seconds = found.device_years * SECONDS_PER_YEAR;
  const many = n === 1 ? "1 device" : `${formatCount(n)} devices`;
  const count = (/** @type {string} */ chosen) => state.change({ counting: chosen });
  return [{
    title: "FLOPs",
    value: formatPower(found.flops),
    also: `${formatCount(total(state.config()))} parameters`,
    why: why.flops,
    extra: select("How FLOPs are counted", counting, COUNTINGS, count),
  }, {
    title: "On one device",
    value: formatFigure(found.device_years),
    unit: "device-years",
    also: formatDuration(seconds),
    why: why.device_years,
  }, {
    title: "On the wall clock",
    value: formatFigure(found.days),
    unit: "days",
    also: `${formatDuration(found.days * 86_400)} on ${many}`,
    why: why.days,
  }, {
    title: "Price",
    value: formatFigure(found.price),
    also: `${formatFigure(seconds / 3_600)} device-hours at ${formatFigure(price)}`,
    why: why.price,
  }];
}

/** @param {Costs} found */
function timeView({ device_years: years, days }) {
  const at = (/** @type {number} */ seconds) => `left: ${100 * placeOf(seconds)}%`;
  return html`
    <div class="gptlib-tc-time">
      <div class="gptlib-tc-scale" aria-hidden="true">
          ${MARKS.map(([seconds, name]) =>
            html`<span class="gptlib-tc-mark" style=${at(seconds)}><span>${name}</span></span>`
          )}
          <span class="gptlib-tc-alone" style=${at(years * SECONDS_PER_YEAR)}></span>
          <span class="gptlib-tc-together" style=${at(days * 86_400)}></span>
        </div>
      <p class="gptlib-soft" aria-hidden="true">
          <span class="gptlib-tc-key gptlib-tc-alone"></span>on one device
          <span class="gptlib-tc-key gptlib-tc-together"></span>on all of them
        </p>
    </div>
  `;
}

/** @param {State} state */
function flopsCard(state) {
  const parts = forwardFlops(state.config());
  const all = sum(Object.values(parts));
  const rows = Object.entries(SPENT).map(([part, title]) =>
    partRow(part, title, [formatShare(parts[part] / all), formatPower(3 * parts[part])])
  );
  const last = tableRow("All", ["100%", formatPower(3 * all)]);
  return html`<section class="gptlib-card" aria-label="Where the FLOPs go">
    <div class="gptlib-card-head"><strong>Where the FLOPs go</strong></div>
    <div class="gptlib-soft">Product by product, for each token of training:</div>
    ${stack(parts)}
    ${table("Where the FLOPs go", ["Part", "Share", "FLOPs"], [...rows, last])}
    <p class="gptlib-soft">
      Rows as long as the context. Every pair of tokens counts, also those behind the mask.
    </p>
  </section>`;
}

/** @type {(state: State, device: Device, held: Record<string, number>, why: string) => unknown} */
function memoryCard(state, device, held, why) {
  const { dtype, sharded } = state.run;
  const copies = trainingBytes(state.config(), dtype);
  const { fits, words } = fit(sum(Object.values(held)), device);
  return html`<section class="gptlib-card" aria-label="Memory of each device">
    <div class="gptlib-card-head"><strong>Memory of each device</strong>${
    typeChoice("Type of weights and gradients", dtype, (name) => state.change({ dtype: name }))
  }</div>
    ${tick("Sharded over all devices", sharded, (on) => state.change({ sharded: on }))}
    ${heldView("Memory of each device", copies, total(state.config()), held)}
    <p class=${classes("callout tc-fits", !fits && "tc-over")}>${words}</p>
    <p class="gptlib-soft">${why}</p>
  </section>`;
}

/** @param {Run} a @param {Run} b @returns {boolean} */
const same = (a, b) =>
  Object.entries(a).every(([name, value]) => /** @type {any} */ (b)[name] === value);

export default define("tc", ["config", "run", "family", "devices"], (widget) => new State(widget));
