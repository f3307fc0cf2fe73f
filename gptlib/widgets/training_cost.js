// What it costs to train a GPT: FLOPs, time, price and memory, each with what it assumes. All
// numbers are computed here, with the formulas of gptlib.accounting.

/**
 * @typedef {{
 *   vocab_size: number, context_length: number, emb_dim: number, n_heads: number,
 *   n_layers: number, qkv_bias: boolean, tie_head: boolean,
 * }} Config
 * @typedef {Config & { name: string }} Member  of the family
 * @typedef {{
 *   n_tokens: number, counting: string, device: string, flops_per_second: number,
 *   n_devices: number, utilization: number, price_per_device_hour: number, dtype: string,
 *   sharded: boolean,
 * }} Run
 * @typedef {{
 *   key: string, name: string, flops_per_second: number, memory_bytes: number, source: string,
 * }} Device
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: unknown): void,
 *   on(event: string, callback: () => void): void,
 *   off(event: string, callback: () => void): void,
 *   save_changes(): void,
 * }} Model
 * @typedef {{
 *   flops: number, rule_flops: number, counted_flops: number, device_years: number, days: number,
 *   price: number, held_bytes: Record<string, number>,
 * }} Costs
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

/** @param {Config} config @returns {number} the parameters, as gptlib.accounting.total */
export function total(config) {
  const { vocab_size: v, context_length: t, emb_dim: c, n_layers: n } = config;
  const block = 12 * c * c + 10 * c + (config.qkv_bias ? 3 * c : 0);
  return (config.tie_head ? v : 2 * v) * c + t * c + n * block + 2 * c;
}

/**
 * The FLOPs of the forward pass for each token, by part, in rows as long as the context.
 * @param {Config} config
 * @returns {Record<string, number>}
 */
export function forwardFlops(config) {
  const { vocab_size: v, context_length: t, emb_dim: c, n_layers: n } = config;
  return {
    matrices: n * 8 * c * c,
    pairs: n * 4 * t * c,
    feed_forward: n * 16 * c * c,
    output_head: 2 * v * c,
  };
}

/** @param {Record<string, number>} values @returns {number} */
const sum = (values) => Object.values(values).reduce((all, one) => all + one, 0);

/** @param {Config} config @param {number} tokens @returns {number} as accounting.run_flops */
export function runFlops(config, tokens) {
  return 3 * sum(forwardFlops(config)) * tokens;
}

/** @param {number} parameters @param {number} tokens @returns {number} as accounting.six_nd_flops */
export function sixNdFlops(parameters, tokens) {
  return 6 * parameters * tokens;
}

/** A year of 365.25 days, as accounting has it. */
export const SECONDS_PER_YEAR = 31_557_600;

/** Bytes of one value. @type {Record<string, number>} */
export const BYTES = { float32: 4, bfloat16: 2, float16: 2 };

/**
 * What training with AdamW holds for the parameters, as accounting.training_bytes counts it.
 * @param {Config} config
 * @param {string} dtype
 * @returns {Record<string, number>}
 */
export function trainingBytes(config, dtype) {
  const count = total(config);
  return {
    weights: BYTES[dtype] * count,
    gradients: BYTES[dtype] * count,
    master_weights: dtype === "float32" ? 0 : BYTES.float32 * count,
    moments: 2 * BYTES.float32 * count,
  };
}

/** @param {Record<string, number>} held @param {number} n @returns {Record<string, number>} */
export function shardedBytes(held, n) {
  return Object.fromEntries(
    Object.entries(held).map(([name, size]) => [name, Math.ceil(size / n)]),
  );
}

/**
 * Every figure, as gptlib.widgets.training_cost.costs has it.
 * @param {Config} config
 * @param {Run} run
 * @returns {Costs}
 */
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

/** The largest values of a model, the same as the parameter breakdown's. */
const SIZE_LIMITS = {
  vocab_size: 1_000_000,
  context_length: 1_000_000,
  emb_dim: 65_536,
  n_layers: 1_000,
};
/** The largest values of a run, the same in Python. @type {Record<string, number>} */
export const LIMITS = {
  n_tokens: 1e15,
  n_devices: 1_000_000,
  flops_per_second: 1e18,
  utilization: 1,
  price_per_device_hour: 1e6,
};

/**
 * What is wrong with a configuration, in Python's own words; nothing if it is valid.
 * @param {Record<string, any>} config
 * @returns {string}
 */
export function problem(config) {
  for (const name of ["vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"]) {
    const value = config[name];
    if (!Number.isSafeInteger(value) || value < 1) {
      return `${name} must be a whole number of at least 1, not ${value === "" ? "''" : value}`;
    }
  }
  const { emb_dim: width, n_heads: heads } = config;
  if (width % heads) {
    return `emb_dim must be divisible by n_heads, but ${width} % ${heads} = ${width % heads}`;
  }
  for (const [name, limit] of Object.entries(SIZE_LIMITS)) {
    if (config[name] > limit) {
      return `${name} must be at most ${formatCount(limit)} here, not ${config[name]}`;
    }
  }
  return "";
}

/** @type {Record<string, string>} what a reader calls a setting */
const TITLES = {
  n_tokens: "Tokens",
  n_devices: "Devices",
  flops_per_second: "Speed",
  utilization: "Utilization",
  price_per_device_hour: "Price",
};

/**
 * What is wrong with the settings of a run; nothing if they are valid.
 * @param {Record<string, any>} run
 * @returns {string}
 */
export function runProblem(run) {
  for (const name of ["n_tokens", "n_devices"]) {
    if (!Number.isSafeInteger(run[name]) || run[name] < 1) {
      return `${TITLES[name]} must be a whole number of at least 1`;
    }
  }
  for (const name of ["flops_per_second", "utilization", "price_per_device_hour"]) {
    const least = name === "price_per_device_hour" ? "at least 0" : "above 0";
    const value = run[name];
    if (!Number.isFinite(value) || value < 0 || (value === 0 && least === "above 0")) {
      return `${TITLES[name]} must be a number ${least}`;
    }
  }
  for (const [name, limit] of Object.entries(LIMITS)) {
    if (run[name] > limit) {
      return `${TITLES[name]} must be at most ${shownAs(name, limit)} here`;
    }
  }
  return "";
}

// ---------------------------------------------------------------------------------------------
// Examples

/** The runs of the buttons. Their tokens are given, except where `tokens` says otherwise. */
export const PRESETS = [
  {
    key: "v100",
    title: "GPT-3 on one V100",
    model: "gpt3",
    run: { n_tokens: 300e9, device: "v100-lambda", n_devices: 1, utilization: 1 },
    tokens: "as GPT-3's authors report",
    says: "Lambda's estimate: 355 years.",
  },
  {
    key: "rtx8000",
    title: "GPT-3 on one RTX 8000",
    model: "gpt3",
    run: { n_tokens: 300e9, device: "rtx8000-lambda", n_devices: 1, utilization: 1 },
    tokens: "as GPT-3's authors report",
    says: "Lambda's estimate: 665 years.",
  },
  {
    key: "gpt3",
    title: "GPT-3 on 1,024 A100",
    model: "gpt3",
    run: { n_tokens: 300e9, device: "a100", n_devices: 1024, utilization: 0.45, sharded: true },
    tokens: "as GPT-3's authors report",
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

/**
 * The run of a preset: what it does not say is as in the course's first example; the price stays.
 * @param {typeof PRESETS[number]} preset
 * @param {Run} run
 * @param {Device[]} devices
 * @returns {Run}
 */
export function presetRun(preset, run, devices) {
  const device = devices.find((one) => one.key === preset.run.device);
  return {
    ...run,
    counting: "six_nd",
    dtype: "float32",
    sharded: false,
    ...preset.run,
    flops_per_second: device ? device.flops_per_second : run.flops_per_second,
  };
}

// ---------------------------------------------------------------------------------------------
// Numbers for people

/** @param {number} count @returns {string} the count with commas between the thousands */
export function formatCount(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** @param {number} count @returns {string} three digits and a unit: 124439808 as "124M" */
export function formatShort(count) {
  for (const [unit, name] of UNITS) {
    const rounded = Number((count / unit).toPrecision(3));
    if (rounded >= 1) return rounded + name; // rounded first: 999,600 is 1M, not 1000k
  }
  return String(count);
}

/** @type {[number, string][]} */
const UNITS = [
  [1e12, "T"],
  [1e9, "B"],
  [1e6, "M"],
  [1e3, "k"],
];

/**
 * The shortest way to write a count that says all of it: 300B, 23.5M, 23,641,363.
 * @param {number} count
 * @returns {string}
 */
export function formatExact(count) {
  const short = formatShort(count);
  return parseCount(short) === count ? short : formatCount(count);
}

/**
 * A count as people type it: "300B", "300 billion", "3e11", "300,000".
 * @param {string} text
 * @returns {number} not a number if it is none
 */
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

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** @param {number} value @param {number} digits @returns {string} such as 3.14 × 10²³ */
export function formatPower(value, digits = 3) {
  if (value === 0) return "0";
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const raised = [...exponent.replace("+", "")].map((c) => (c === "-" ? "⁻" : SUPERSCRIPTS[+c]));
  return `${mantissa} × 10${raised.join("")}`;
}

/** @param {number} value @returns {string} four digits, with commas: 129,900 */
export function formatFigure(value) {
  if (value === 0) return "0";
  if (value < 0.001 || value >= 1e15) return formatPower(value);
  const rounded = Number(value.toPrecision(4));
  const [whole, decimals] = String(rounded).split(".");
  return formatCount(Number(whole)) + (decimals ? `.${decimals}` : "");
}

/** @param {number} seconds @returns {string} in the unit that suits it: 52.6 minutes */
export function formatDuration(seconds) {
  /** @type {[number, string][]} */
  const units = [
    [SECONDS_PER_YEAR, "year"],
    [86_400, "day"],
    [3_600, "hour"],
    [60, "minute"],
  ];
  const [unit, name] = units.find(([size]) => seconds >= size) ?? [1, "second"];
  const figure = Number((seconds / unit).toPrecision(3));
  return `${formatFigure(figure)} ${name}${figure === 1 ? "" : "s"}`;
}

/** @param {number} n @returns {string} in binary units, to one decimal, as gptlib.accounting */
export function formatBytes(n) {
  if (n < 1024) return `${n} B`;
  let power = 1;
  while (Number((n / 1024 ** power).toFixed(1)) >= 1024) power++;
  return `${(n / 1024 ** power).toFixed(1)} ${"KMGTPEZY"[power - 1]}iB`;
}

/** @param {number} share from 0 to 1 @returns {string} in percent, never a false 0 */
export function formatShare(share) {
  const percent = 100 * share;
  if (percent === 0) return "0%";
  if (percent < 0.01) return "< 0.01%";
  return `${percent.toFixed(percent < 1 ? 2 : 1)}%`;
}

/** @param {string} key a name in gptlib.config.FAMILY @returns {string} what a reader calls it */
export function modelName(key) {
  if (key === "mini") return "Mini";
  const [, version, variant] = /^gpt(\d+)-?(.*)$/.exec(key) ?? [];
  if (!version) return key;
  const name = variant || (version === "2" ? "small" : "175B");
  return `GPT-${version} ${/^(xl|\d)/.test(name) ? name.toUpperCase() : name}`;
}

/** @param {number} value @returns {number} without what binary fractions add: 45, not 45.00000001 */
const tidy = (value) => Number(value.toPrecision(12));

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

/** @type {Record<string, { title: string, unit: string, least: number, most: number }>} */
const FIELDS = {
  n_tokens: { title: "Tokens", unit: "D", least: 1e6, most: 2e13 },
  n_devices: { title: "Devices", unit: "", least: 1, most: 65_536 },
  flops_per_second: { title: "Speed", unit: "TFLOP/s", least: 1e10, most: 2e15 },
  utilization: { title: "Utilization", unit: "%", least: 0.05, most: 1 },
  price_per_device_hour: { title: "Price", unit: "an hour", least: 0.1, most: 100 },
};

/**
 * The values at which a slider stops: 1, 2, 5, 10 … ; powers of two for devices; every 5 percent.
 * @param {string} name
 * @param {number} now
 * @param {number[]} known values that must be among them
 * @returns {number[]}
 */
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
export function speedSource(device, run) {
  const speed = `${shownAs("flops_per_second", device.flops_per_second)} TFLOP/s`;
  const { source } = device;
  if (run.flops_per_second === device.flops_per_second) return `${speed}: ${source}.`;
  return `${shownAs("flops_per_second", run.flops_per_second)} TFLOP/s: your own figure.`;
}

/**
 * What each figure assumes, in words.
 * @param {Config} config
 * @param {Run} run
 * @param {Device} device
 * @returns {Record<string, string>}
 */
export function assumptions(config, run, device) {
  const found = costs(config, run);
  const [n, d] = [formatShort(total(config)), formatShort(run.n_tokens)];
  const off = found.counted_flops / found.rule_flops - 1;
  const more = `${formatShare(Math.abs(off))} ${off < 0 ? "fewer" : "more"}`;
  const less = 1 - found.rule_flops / found.counted_flops;
  const fewer = `${formatShare(Math.abs(less))} ${less < 0 ? "more" : "fewer"}`;
  const share = formatShare(run.utilization).replace(".0%", "%");
  const used = run.utilization === 1 ? "All of it used, without a pause" : `${share} of it used`;
  const many = formatCount(run.n_devices);
  return {
    flops: run.counting === "six_nd"
      ? `6 · N · D = 6 · ${n} · ${d}, a rule of thumb. Product by product, it is ` +
        `${formatPower(found.counted_flops)}: ${more}.`
      : `Each matrix product, three times: once forward, twice backward. All pairs of tokens ` +
        `count. 6 · N · D says ${formatPower(found.rule_flops)}: ${fewer}.`,
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

/**
 * Whether what a device must hold fits into it, in words.
 * @param {number} bytes
 * @param {Device} device
 * @returns {{ fits: boolean, words: string }}
 */
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

const CONTROLS = ["button", "input", "select", "summary"];

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElement}
 */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  // JupyterLab takes keys from whatever has the focus, unless that itself says otherwise.
  if (CONTROLS.includes(tag)) element.setAttribute("data-lm-suppress-shortcuts", "true");
  element.append(...children);
  return element;
}

/** @param {HTMLElement} element @param {string} text */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {string} name */
function makeField(name) {
  const { title, unit } = FIELDS[name];
  const input = /** @type {HTMLInputElement} */ (
    h("input", {
      ...{ type: "text", class: "gptlib-pb-number", autocomplete: "off", spellcheck: "false" },
      inputmode: name === "n_tokens" ? "text" : "decimal",
    })
  );
  const slider = /** @type {HTMLInputElement} */ (
    h("input", { type: "range", class: "gptlib-pb-slider", min: "0", "aria-label": title })
  );
  const words = h("span", {}, title, ...(unit ? [" ", h("i", {}, unit)] : []));
  const label = h("label", { class: "gptlib-pb-label" }, words, input);
  const element = h("div", { class: "gptlib-pb-field", "data-field": name }, label, slider);
  return { name, element, input, slider, values: /** @type {number[]} */ ([]) };
}

/** @type {Record<string, string>} */
const SIZES = {
  n_layers: "Layers",
  emb_dim: "Width",
  n_heads: "Heads",
  vocab_size: "Vocabulary",
  context_length: "Context",
};

/** @param {string} name */
function makeSize(name) {
  const input = /** @type {HTMLInputElement} */ (
    h("input", { type: "number", class: "gptlib-pb-number", min: "1", inputmode: "numeric" })
  );
  const words = h("span", {}, SIZES[name]);
  const element = h("label", { class: "gptlib-tc-size", "data-field": name }, words, input);
  return { name, element, input };
}

/** @param {string} name @param {string} title */
function makeSwitch(name, title) {
  const input = /** @type {HTMLInputElement} */ (h("input", { type: "checkbox" }));
  const attributes = { class: "gptlib-pb-switch", "data-field": name };
  const element = h("label", attributes, input, h("span", {}, title));
  return { element, input };
}

/** @param {string} name @param {string} title @param {Node[]} extra */
function makeTile(name, title, ...extra) {
  const [value, unit] = [h("b", {}), h("span", {})];
  const [also, why] = [
    h("div", { class: "gptlib-tc-also" }),
    h("p", { class: "gptlib-pb-soft gptlib-tc-why" }),
  ];
  const element = h(
    "section",
    { class: "gptlib-tc-tile", "aria-label": title, "data-tile": name },
    h("div", { class: "gptlib-tc-tile-head" }, h("span", {}, title), ...extra),
    h("div", { class: "gptlib-tc-figure" }, value, " ", unit),
    also,
    why,
  );
  return { element, value, unit, also, why };
}

/** @param {string} label @param {string[]} heads @param {HTMLElement[]} rows */
function table(label, heads, rows) {
  const titles = heads.map((text) => h("div", { role: "columnheader" }, text));
  return h(
    "div",
    { class: "gptlib-pb-grid", role: "table", "aria-label": label },
    h("div", { class: "gptlib-pb-line gptlib-pb-line-heads", role: "row" }, ...titles),
    ...rows,
  );
}

/** @param {string} name @param {string} title @param {string} attribute @param {number} cells */
function makeLine(name, title, attribute, cells) {
  const swatch = h("span", { class: "gptlib-pb-swatch", "aria-hidden": "true" });
  const head = h("div", { role: "rowheader" }, h("span", {}, swatch, title));
  const values = Array.from({ length: cells }, () => h("div", { role: "cell" }));
  const attributes = { class: "gptlib-pb-line", role: "row", [attribute]: name };
  return { name, values, element: h("div", attributes, head, ...values) };
}

/** @param {HTMLElement[]} cells */
function sumLine(...cells) {
  const head = h("div", { role: "rowheader" }, "All");
  return h("div", { class: "gptlib-pb-line", role: "row" }, head, ...cells);
}

/** The parts of the FLOPs. @type {Record<string, string>} */
const SPENT = {
  matrices: "Attention's matrices",
  pairs: "Attention's pairs",
  feed_forward: "Feed-forward",
  output_head: "Output head",
};
/** What training holds. @type {Record<string, string>} */
const HELD = {
  weights: "Weights",
  gradients: "Gradients",
  master_weights: "Master weights",
  moments: "AdamW's moments",
};

/** @param {string} label @param {[string, string][]} options */
function choice(label, options) {
  const select = h("select", { class: "gptlib-pb-select", "aria-label": label });
  select.append(...options.map(([value, text]) => h("option", { value }, text)));
  return /** @type {HTMLSelectElement} */ (select);
}

/** Draw the frame once; later calls fill it. */
function frame() {
  const select = /** @type {HTMLSelectElement} */ (h("select", { class: "gptlib-pb-select" }));
  const device = /** @type {HTMLSelectElement} */ (h("select", { class: "gptlib-pb-select" }));
  const dtype = choice(
    "Type of weights and gradients",
    Object.keys(BYTES).map((name) => [name, name]),
  );
  const counting = choice("How FLOPs are counted", [
    ["six_nd", "6 · N · D"],
    ["products", "product by product"],
  ]);
  const presets = PRESETS.map(({ key, title }) => {
    const attributes = { type: "button", class: "gptlib-pb-button", "aria-pressed": "false" };
    return { key, button: h("button", { ...attributes, "data-preset": key }, title) };
  });
  const says = h("p", { class: "gptlib-pb-soft gptlib-tc-says" });
  const fields = Object.keys(FIELDS).map(makeField);
  const sizes = Object.keys(SIZES).map(makeSize);
  const tied = makeSwitch("tie_head", "Tied output head");
  const sharded = makeSwitch("sharded", "Sharded over all devices");
  const error = h("p", { class: "gptlib-pb-error", role: "alert" });
  const tiles = {
    flops: makeTile("flops", "FLOPs", counting),
    device_years: makeTile("device_years", "On one device"),
    days: makeTile("days", "On the wall clock"),
    price: makeTile("price", "Price"),
  };
  const [alone, together] = [h("span", { class: "gptlib-tc-alone" }), h("span")];
  const scale = h(
    "div",
    { class: "gptlib-tc-scale", "aria-hidden": "true" },
    ...MARKS.map(([seconds, name]) => {
      const mark = h("span", { class: "gptlib-tc-mark" }, h("span", {}, name));
      mark.style.left = `${100 * placeOf(seconds)}%`;
      return mark;
    }),
    alone,
    together,
  );
  together.className = "gptlib-tc-together";
  const spent = Object.entries(SPENT).map(([name, title]) =>
    makeLine(name, title, "data-spent", 2)
  );
  const held = Object.entries(HELD).map(([name, title]) => makeLine(name, title, "data-held", 2));
  const strips = held.map(({ name }) => h("span", { "data-held": name }));
  const slices = spent.map(({ name }) => h("span", { "data-spent": name }));
  const [each, kept, perToken, perShare] = [1, 2, 3, 4].map(() => h("div", { role: "cell" }));
  const fits = h("p", { class: "gptlib-tc-fits" });
  const why = h("p", { class: "gptlib-pb-soft" });
  const said = h("div", { class: "gptlib-pb-said", role: "status" });
  const chooseDevice = h("label", { class: "gptlib-tc-device" }, h("span", {}, "Device"), device);
  const numbers = h(
    "details",
    { class: "gptlib-tc-numbers" },
    h("summary", {}, "The model's numbers"),
    h("div", { class: "gptlib-tc-sizes" }, ...sizes.map((one) => one.element), tied.element),
  );
  const root = h(
    "div",
    { class: "gptlib-root gptlib-pb gptlib-tc", "data-lm-suppress-shortcuts": "true" },
    h(
      "div",
      { class: "gptlib-pb-layout" },
      h(
        "div",
        { class: "gptlib-pb-head" },
        h("strong", { class: "gptlib-title" }, "What training costs"),
        h("label", { class: "gptlib-pb-choose" }, h("span", {}, "Model"), select),
      ),
      h(
        "div",
        { class: "gptlib-tc-presets", role: "group", "aria-label": "Examples" },
        ...presets.map((one) => one.button),
        says,
      ),
      h(
        "div",
        { role: "group", "aria-label": "Settings" },
        h(
          "div",
          { class: "gptlib-pb-controls" },
          chooseDevice,
          ...fields.map((field) => field.element),
        ),
        numbers,
        error,
      ),
      h(
        "div",
        { class: "gptlib-tc-tiles" },
        ...Object.values(tiles).map((tile) => tile.element),
      ),
      h(
        "div",
        { class: "gptlib-tc-time" },
        scale,
        h(
          "p",
          { class: "gptlib-pb-soft", "aria-hidden": "true" },
          h("span", { class: "gptlib-tc-key gptlib-tc-alone" }),
          "on one device ",
          h("span", { class: "gptlib-tc-key gptlib-tc-together" }),
          "on all of them",
        ),
      ),
      h(
        "div",
        { class: "gptlib-pb-cards" },
        h(
          "section",
          { class: "gptlib-pb-card", "aria-label": "Where the FLOPs go" },
          h("div", { class: "gptlib-pb-card-head" }, h("strong", {}, "Where the FLOPs go")),
          h("div", { class: "gptlib-pb-soft" }, "Product by product, for each token of training:"),
          h("div", { class: "gptlib-pb-stack", "aria-hidden": "true" }, ...slices),
          table("Where the FLOPs go", ["Part", "Share", "FLOPs"], [
            ...spent.map((one) => one.element),
            sumLine(perShare, perToken),
          ]),
          h(
            "p",
            { class: "gptlib-pb-soft" },
            "Rows as long as the context. Every pair of tokens counts, also those behind the mask.",
          ),
        ),
        h(
          "section",
          { class: "gptlib-pb-card", "aria-label": "Memory of each device" },
          h(
            "div",
            { class: "gptlib-pb-card-head" },
            h("strong", {}, "Memory of each device"),
            dtype,
          ),
          sharded.element,
          h("div", { class: "gptlib-pb-stack", "aria-hidden": "true" }, ...strips),
          table("Memory of each device", ["Held", "Bytes each", "Together"], [
            ...held.map((one) => one.element),
            sumLine(each, kept),
          ]),
          fits,
          why,
        ),
      ),
      said,
    ),
  );
  return {
    ...{ root, select, device, dtype, counting, presets, says, fields, sizes, tied, sharded },
    ...{ error, tiles, alone, together, spent, held, strips, slices, each, kept, perToken },
    ...{ perShare, fits, why, said, numbers },
  };
}

/** @param {Config} config @param {Member[]} family @returns {Member | undefined} */
function member(config, family) {
  return family.find((one) =>
    Object.entries(config).every(([name, value]) => /** @type {any} */ (one)[name] === value)
  );
}

/** @param {Member} one @returns {Config} */
function sizesOf({ name: _, ...sizes }) {
  return sizes;
}

/**
 * @param {{ model: Model, el: HTMLElement }} context
 * @returns {() => void}
 */
function render({ model, el }) {
  const view = frame();
  const own = h("option", { value: "" }); // stands for a model that is none of the family
  let dragged = "";
  let said = false;
  let timer = 0;

  /** @returns {Config} */
  const configured = () => model.get("config");
  /** @returns {Run} */
  const running = () => model.get("run");
  /** @returns {Member[]} */
  const family = () => model.get("family") ?? [];
  /** @returns {Device[]} */
  const devices = () => model.get("devices") ?? [];
  const chosen =
    () => /** @type {Device} */ (devices().find((one) => one.key === running().device) ??
      devices()[0]);

  /** The preset that the settings are, if any; its price does not matter. */
  function pressed() {
    const name = member(configured(), family())?.name;
    return PRESETS.find((preset) => {
      const run = presetRun(preset, running(), devices());
      return preset.model === name && same(run, running());
    });
  }

  // --- what the reader does

  /** @param {Record<string, unknown>} changes @param {boolean} [keep] whether to tell Python */
  function change(changes, keep = true) {
    const run = { ...running(), ...changes };
    const wrong = runProblem(run);
    write(view.error, wrong);
    if (wrong) return false;
    model.set("run", run);
    if (keep) model.save_changes();
    drawControls(); // what was typed may stand there still
    return true;
  }

  /** @param {Record<string, unknown>} changes */
  function configure(changes) {
    const config = { ...configured(), ...changes };
    const wrong = problem(config);
    write(view.error, wrong);
    for (const { name, input } of view.sizes) {
      input.setAttribute("aria-invalid", String(wrong.split(", but")[0].includes(name)));
    }
    if (wrong) return;
    model.set("config", config);
    model.save_changes();
    drawControls();
  }

  function typedSizes() {
    configure(
      Object.fromEntries(
        view.sizes.map(({ name, input }) => [
          name,
          input.value.trim() === "" ? "" : Number(input.value),
        ]),
      ),
    );
  }

  /** @param {typeof view.fields[number]} field */
  function typed({ name, input }) {
    if (input.value === shownAs(name, /** @type {any} */ (running())[name])) {
      drawControls();
      return;
    }
    const good = change({ [name]: readAs(name, input.value) });
    input.setAttribute("aria-invalid", String(!good));
  }

  /** @param {typeof PRESETS[number]} preset */
  function apply(preset) {
    const one = family().find(({ name }) => name === preset.model);
    if (!one) return;
    model.set("config", sizesOf(one));
    model.set("run", presetRun(preset, running(), devices()));
    model.save_changes();
    drawControls();
  }

  // --- the figures

  function draw() {
    const [config, run, device] = [configured(), running(), chosen()];
    if (!device) return;
    const found = costs(config, run);
    const why = assumptions(config, run, device);
    const { flops, device_years: alone, days, price } = view.tiles;
    const deviceSeconds = found.device_years * SECONDS_PER_YEAR;
    write(flops.value, formatPower(found.flops));
    write(flops.also, `${formatCount(total(config))} parameters`);
    write(alone.value, formatFigure(found.device_years));
    write(alone.unit, "device-years");
    write(alone.also, formatDuration(deviceSeconds));
    write(days.value, formatFigure(found.days));
    write(days.unit, "days");
    const many = run.n_devices === 1 ? "1 device" : `${formatCount(run.n_devices)} devices`;
    write(days.also, `${formatDuration(found.days * 86_400)} on ${many}`);
    write(price.value, formatFigure(found.price));
    const hours = formatFigure(deviceSeconds / 3_600);
    write(price.also, `${hours} device-hours at ${formatFigure(run.price_per_device_hour)}`);
    for (const [name, tile] of Object.entries(view.tiles)) write(tile.why, why[name]);
    view.alone.style.left = `${100 * placeOf(deviceSeconds)}%`;
    view.together.style.left = `${100 * placeOf(found.days * 86_400)}%`;
    drawSpent(config);
    drawHeld(found.held_bytes, config, device);
    write(view.why, why.memory);
    drawPreset();
    if (said) {
      const words = `${formatFigure(found.device_years)} device-years, ${days.value.textContent}`;
      announce(`${flops.value.textContent} FLOPs, ${words} days, price ${price.value.textContent}`);
    }
  }

  function drawPreset() {
    const now = pressed();
    for (const { key, button } of view.presets) {
      button.setAttribute("aria-pressed", String(key === now?.key));
    }
    const tokens = now && `${formatShort(now.run.n_tokens)} tokens, ${now.tokens}. `;
    write(view.says, now ? tokens + now.says : "Your own settings.");
  }

  /** @param {Config} config */
  function drawSpent(config) {
    const parts = forwardFlops(config);
    const all = sum(parts);
    view.spent.forEach(({ name, values }, i) => {
      write(values[0], formatShare(parts[name] / all));
      write(values[1], formatPower(3 * parts[name]));
      view.slices[i].style.flexGrow = String(parts[name] / all);
    });
    write(view.perShare, "100%");
    write(view.perToken, formatPower(3 * all));
  }

  /** @param {Record<string, number>} held @param {Config} config @param {Device} device */
  function drawHeld(held, config, device) {
    const [all, count] = [sum(held), total(config)];
    const copies = trainingBytes(config, running().dtype);
    view.held.forEach(({ name, values }, i) => {
      write(values[0], String(copies[name] / count));
      write(values[1], formatBytes(held[name]));
      view.strips[i].style.flexGrow = String(held[name] / all);
      view.strips[i].hidden = held[name] === 0;
    });
    write(view.each, String(sum(copies) / count));
    write(view.kept, formatBytes(all));
    const { fits, words } = fit(all, device);
    write(view.fits, words);
    view.fits.classList.toggle("gptlib-tc-over", !fits);
  }

  // --- the controls

  function drawControls() {
    const [config, run] = [configured(), running()];
    for (const field of view.fields) {
      const { name, input, slider } = field;
      const value = /** @type {any} */ (run)[name];
      if (dragged !== name) {
        const others = name === "flops_per_second" ? devices().map((one) => one[name]) : [];
        field.values = stops(name, value, others);
        slider.max = String(field.values.length - 1);
        slider.value = String(field.values.indexOf(value));
      }
      const { unit } = FIELDS[name];
      const text = unit === "D" ? "tokens" : unit;
      slider.setAttribute("aria-valuetext", `${shownAs(name, value)} ${text}`.trim());
      input.value = shownAs(name, value);
      input.removeAttribute("aria-invalid");
    }
    for (const { name, input } of view.sizes) {
      input.value = String(/** @type {any} */ (config)[name]);
      input.step = input.min = String(name === "emb_dim" ? config.n_heads : 1);
      input.removeAttribute("aria-invalid");
    }
    view.tied.input.checked = config.tie_head;
    view.sharded.input.checked = run.sharded;
    view.device.value = run.device;
    view.dtype.value = run.dtype;
    view.counting.value = run.counting;
    write(view.error, "");
    const one = member(config, family());
    write(own, `Your own (${formatShort(total(config))})`);
    if (one) own.remove();
    else view.select.prepend(own);
    view.select.value = one?.name ?? "";
  }

  function drawLists() {
    view.select.replaceChildren(
      ...family().map((one) => {
        const short = formatShort(total(one));
        return h("option", { value: one.name }, `${modelName(one.name)} (${short})`);
      }),
    );
    view.device.replaceChildren(
      ...devices().map(({ key, name }) => h("option", { value: key }, name)),
    );
    all();
  }

  /** @param {string} words */
  function announce(words) {
    clearTimeout(timer);
    timer = window.setTimeout(() => write(view.said, words), 500);
  }

  const all = () => {
    drawControls();
    draw();
  };

  for (const { key, button } of view.presets) {
    const preset = PRESETS.find((one) => one.key === key);
    button.addEventListener("click", () => preset && apply(preset));
  }
  for (const field of view.fields) {
    const { name, input, slider } = field;
    input.addEventListener("change", () => typed(field));
    input.addEventListener("keydown", ({ key }) => {
      if (key === "Enter") typed(field); // in JupyterLab, Enter alone is no change
    });
    slider.addEventListener("input", () => {
      dragged = name;
      change({ [name]: field.values[Number(slider.value)] }, false);
    });
    slider.addEventListener("change", () => {
      dragged = "";
      model.save_changes();
      drawControls();
    });
  }
  for (const { input } of view.sizes) {
    input.addEventListener("change", typedSizes);
    input.addEventListener("keydown", ({ key }) => {
      if (key === "Enter") typedSizes();
    });
  }
  view.tied.input.addEventListener("change", () => {
    configure({ tie_head: view.tied.input.checked });
  });
  view.sharded.input.addEventListener("change", () => {
    change({ sharded: view.sharded.input.checked });
  });
  view.select.addEventListener("change", () => {
    const one = family().find(({ name }) => name === view.select.value);
    if (one) configure(sizesOf(one));
  });
  view.device.addEventListener("change", () => {
    const one = devices().find(({ key }) => key === view.device.value);
    if (one) change({ device: one.key, flops_per_second: one.flops_per_second });
  });
  view.dtype.addEventListener("change", () => change({ dtype: view.dtype.value }));
  view.counting.addEventListener("change", () => change({ counting: view.counting.value }));
  el.append(view.root);

  /** @type {[string, () => void][]} */
  const listeners = [
    ["change:config", all],
    ["change:run", all],
    ["change:family", drawLists],
    ["change:devices", drawLists],
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  drawLists();
  said = true;
  return () => {
    clearTimeout(timer);
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}

/** @param {Run} a @param {Run} b @returns {boolean} */
function same(a, b) {
  return Object.entries(a).every(([name, value]) => /** @type {any} */ (b)[name] === value);
}

export default { render };
