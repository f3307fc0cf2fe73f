// What is inside a checkpoint: the tree of its tensors, and for one of them its values as a
// picture and as a histogram. Python has read the file; here nothing is computed but places.

/**
 * @typedef {{
 *   title: string, bytes: number, files: number, prefix: string, masks: number,
 *   mask_bytes: number, sizes: Record<string, number>, names: string[], tensors: string[],
 * }} Checkpoint
 * @typedef {{
 *   name: string, group: string, label: string, shape: number[], dtype: string, count: number,
 *   bytes: number, mean: number, std: number, min: number, max: number, low: number, high: number,
 *   near: number, any: number, reach: number, peak: number, below: number, above: number,
 *   nan: number, infinite: number, rows: number, bins: number[], cells: number[],
 *   ours: string, pattern: string, transposed: boolean, kind: string, words: string,
 * }} Entry
 * @typedef {{
 *   key: string, label: string, level: number, position: number, siblings: number,
 *   expanded: boolean | null, kind: string, bytes: number, entries: Entry[],
 * }} Line  of the tree: a tensor, or a block, which holds several
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: unknown): void,
 *   on(event: string, callback: () => void): void,
 *   off(event: string, callback: () => void): void,
 *   save_changes(): void,
 * }} Model
 */

// ---------------------------------------------------------------------------------------------
// What Python packed

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const NUMBERS = [
  ...["mean", "std", "min", "max", "low", "high", "near", "any", "reach"],
  ...["peak", "below", "above", "nan", "infinite", "rows"],
];
const ZERO = 31; // a cell whose average is 0
const ODD = 63; // a cell with a value that is not a finite number
const FULL = 4095; // the fullest bin

/** @param {string} text @returns {number[]} */
const decode = (text) => Array.from(text, (digit) => DIGITS.indexOf(digit));

/** @param {string} name @returns {string} the block that a tensor is in, as "h.0", or nothing */
export function groupOf(name) {
  return /^((?:.*?\.)?[0-9]+)\../s.exec(name)?.[1] ?? "";
}

/** @param {string} ours a name in gptlib.model @returns {string} */
function kindOf(ours) {
  /** @type {[string, string][]} */
  const kinds = [
    ["embedding", "embedding"],
    ["norm", "norm"],
    ["attention", "attention"],
    ["feed_forward", "feed-forward"],
    ["output_head", "head"],
  ];
  return kinds.find(([part]) => ours.includes(part))?.[1] ?? "plain";
}

/**
 * All tensors, in the order in which they are shown.
 * @param {Checkpoint} checkpoint
 * @returns {Entry[]}
 */
export function entriesOf(checkpoint) {
  const table = new Map(
    checkpoint.names.map((line) => {
      const [theirs, ours, turned] = line.split("\t");
      return [theirs, { ours, transposed: turned === "T" }];
    }),
  );
  return checkpoint.tensors.map((line) => {
    const [sizes, dtype, numbers, bins, cells, ...rest] = line.split("\t");
    const name = rest.join("\t");
    const group = groupOf(name);
    const number = /(?<=\.)[0-9]+(?=\.)/.exec(name)?.[0] ?? "";
    const pattern = name.replace(/(?<=\.)[0-9]+(?=\.)/, "{}");
    const row = table.get(pattern) ?? { ours: "", transposed: false };
    const shape = sizes.split(" ").filter(Boolean).map(Number);
    const count = shape.reduce((product, size) => product * size, 1);
    const values = numbers.split(" ").map((text) => (text === "" ? NaN : Number(text)));
    const codes = decode(bins);
    const entry = {
      ...{ name, group, label: group ? name.slice(group.length + 1) : name, shape, dtype, count },
      ...Object.fromEntries(NUMBERS.map((key, i) => [key, values[i]])),
      bytes: Math.round(count * (checkpoint.sizes[dtype] ?? 1)),
      bins: codes.filter((_, i) => i % 2 === 0).map((high, i) => 64 * high + codes[2 * i + 1]),
      ...{ cells: decode(cells), pattern, ...row, ours: row.ours.replace("{}", number) },
      ...{ kind: kindOf(row.ours), words: "" },
    };
    const turned = row.transposed ? "transposed" : "";
    const odd = values[NUMBERS.indexOf("nan")] + values[NUMBERS.indexOf("infinite")];
    const shown = odd ? "nan" : "";
    const facts = [name, entry.ours, entry.kind, dtype, turned, shown];
    entry.words = facts.join(" ").toLowerCase();
    return /** @type {Entry} */ (/** @type {unknown} */ (entry));
  });
}

// ---------------------------------------------------------------------------------------------
// The tree

/** @param {Entry} entry @param {string} search @returns {boolean} whether it has all the words */
export function matches(entry, search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return words.every((word) => entry.words.includes(word));
}

/**
 * The lines of the tree that can be seen. What is searched for is unfolded.
 * @param {Entry[]} entries
 * @param {string[]} opened names of blocks
 * @param {string} search
 * @returns {Line[]}
 */
export function linesOf(entries, opened, search) {
  const found = entries.filter((entry) => matches(entry, search));
  /** @type {Map<string, Entry[]>} */
  const blocks = new Map();
  for (const entry of found) {
    const key = entry.group || `\t${entry.name}`; // which is no block's name
    blocks.set(key, [...(blocks.get(key) ?? []), entry]);
  }
  /** @type {Line[]} */
  const lines = [];
  let position = 0;
  for (const [key, members] of blocks) {
    const first = members[0];
    const place = { position: position += 1, siblings: blocks.size };
    if (!first.group) {
      lines.push({ ...lineOf(first, 1), ...place });
      continue;
    }
    const expanded = search.trim() !== "" || opened.includes(key);
    const bytes = members.reduce((sum, entry) => sum + entry.bytes, 0);
    const line = { key, label: key, level: 1, expanded, kind: "plain", bytes, entries: members };
    lines.push({ ...line, ...place });
    if (!expanded) continue;
    members.forEach((entry, i) => {
      lines.push({ ...lineOf(entry, 2), position: i + 1, siblings: members.length });
    });
  }
  return lines;
}

/** @param {Entry} entry @param {number} level @returns {Line} */
function lineOf(entry, level) {
  const { name: key, label, kind, bytes } = entry;
  const alone = { position: 1, siblings: 1, expanded: null };
  return { key, label, level, kind, bytes, entries: [entry], ...alone };
}

/**
 * Where a key of the keyboard leads in the tree.
 * @param {Line[]} lines
 * @param {number} at the line that has the focus
 * @param {string} key
 * @returns {{ to: number, fold?: boolean } | null} a line, and whether it opens or closes
 */
export function step(lines, at, key) {
  const line = lines[at];
  const last = lines.length - 1;
  const block = line.expanded !== null;
  /** @type {Record<string, { to: number, fold?: boolean } | null>} */
  const steps = {
    ArrowDown: { to: Math.min(at + 1, last) },
    ArrowUp: { to: Math.max(at - 1, 0) },
    Home: { to: 0 },
    End: { to: last },
    ArrowRight: block ? (line.expanded ? { to: at + 1 } : { to: at, fold: true }) : { to: at },
    ArrowLeft: line.expanded ? { to: at, fold: false } : { to: parent(lines, at) },
    Enter: block ? { to: at, fold: !line.expanded } : { to: at },
    " ": block ? { to: at, fold: !line.expanded } : { to: at },
  };
  return steps[key] ?? null;
}

/** @param {Line[]} lines @param {number} at @returns {number} */
function parent(lines, at) {
  if (lines[at].level === 1) return at;
  let above = at;
  while (lines[above].level > 1) above--;
  return above;
}

// ---------------------------------------------------------------------------------------------
// Numbers for people

/** @param {number} count @returns {string} the count with commas between the thousands */
export function formatCount(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** @param {number} count @param {string} noun @returns {string} */
export function plural(count, noun) {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;
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

/** @param {number[]} shape @returns {string} */
export function formatShape(shape) {
  return shape.map(formatCount).join(" × ") || "1 value";
}

/** @param {number} value @returns {string} three digits, a true minus, a power of ten if need be */
export function formatValue(value) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size === 0) return "0";
  const sign = value < 0 ? "−" : "";
  if (size >= 999.5 && size < 1e6) return sign + formatCount(Math.round(size));
  if (size >= 0.001 && size < 1e6) return sign + size.toPrecision(3);
  const [digits, power] = size.toExponential(2).split("e");
  const raised = [...power.replace("+", "")].map((digit) =>
    digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)]
  );
  return `${sign}${digits}·10${raised.join("")}`;
}

/**
 * Round numbers along an axis, about as many as there is room for.
 * @param {number} low
 * @param {number} high
 * @param {number} most
 * @returns {{ value: number, text: string }[]}
 */
export function ticks(low, high, most = 5) {
  if (!(low < high) || !Number.isFinite(high - low)) return [];
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) ?? 10 * power;
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
    const value = i * step;
    const plain = decimals <= 4 && Math.abs(value) < 1e5;
    const text = plain ? Math.abs(value).toFixed(decimals) : formatValue(Math.abs(value));
    found.push({ value, text: (value < 0 ? "−" : "") + text });
  }
  return found;
}

// ---------------------------------------------------------------------------------------------
// Histogram and picture

/** @param {Entry} entry @returns {number} how many of its values are finite numbers */
export function finite(entry) {
  return entry.count - entry.nan - entry.infinite;
}

/**
 * The bars of a histogram as shares of all finite values, and beside them the share that a normal
 * distribution of the same mean and standard deviation would have at each bar's center.
 * @param {Entry} entry
 * @returns {{ from: number, to: number, share: number, normal: number }[]}
 */
export function barsOf(entry) {
  const { low, high, bins, mean, std } = entry;
  const width = (high - low) / bins.length;
  return bins.map((code, i) => {
    const from = low + i * width;
    const z = (from + width / 2 - mean) / std;
    const normal = (width / std) * (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI));
    return { from, to: from + width, share: ((code / FULL) * entry.peak) / finite(entry), normal };
  });
}

/** @param {number} length @param {number} parts @param {number} i @returns {[number, number]} */
export function section(length, parts, i) {
  const [small, more] = [Math.floor(length / parts), length % parts]; // as torch.tensor_split
  const start = i * small + Math.min(i, more);
  return [start, start + small + (i < more ? 1 : 0) - 1];
}

/** @param {Entry} entry @returns {{ rows: number, columns: number, high: number, wide: number }} */
export function gridOf(entry) {
  const { shape, rows, cells } = entry;
  const wide = shape.at(-1) ?? 1;
  return { rows, columns: rows ? cells.length / rows : 0, high: entry.count / wide, wide };
}

/** @param {Entry} entry @param {number} code @returns {number} the average of a cell */
export function averageOf(entry, code) {
  return code === ODD ? NaN : ((code - ZERO) / ZERO) * entry.reach;
}

/** @param {number} share from -1 to 1 @param {number[][]} stops @returns {number[]} a color */
export function shade(share, stops) {
  const place = ((share + 1) / 2) * (stops.length - 1);
  const left = Math.min(Math.floor(place), stops.length - 2);
  return [0, 1, 2].map((part) => {
    const [from, to] = [stops[left][part], stops[left + 1][part]];
    return Math.round(from + (to - from) * (place - left));
  });
}

// ---------------------------------------------------------------------------------------------
// What to know of each tensor

/** What it is for, and what its rows and columns are. @type {Record<string, string[]>} */
const ABOUT = {
  "wte.weight": ["A row for each token of the vocabulary: its vector.", "tokens", "channels"],
  "wpe.weight": ["A row for each position in the text: its vector.", "positions", "channels"],
  "lm_head.weight": ["The output head, with a matrix of its own.", "tokens", "channels"],
  "h.{}.attn.c_attn.weight": ["Makes queries, keys and values in one product.", "in", "out"],
  "h.{}.attn.c_proj.weight": ["Takes what the heads found back to the channels.", "in", "out"],
  "h.{}.mlp.c_fc.weight": ["Widens the channels to four times as many.", "in", "out"],
  "h.{}.mlp.c_proj.weight": ["Brings them back to as many as before.", "in", "out"],
};

/** @param {Entry} entry @returns {{ text: string, rows: string, columns: string }} */
export function aboutOf(entry) {
  const [known, rows, columns] = ABOUT[entry.pattern] ?? ["", "rows", "columns"];
  let text = known;
  if (entry.ours.endsWith("scale")) {
    text = "Multiplies each channel after it is normalized. Training starts with every scale at 1.";
  } else if (entry.ours.endsWith("shift")) {
    text = "Is added to each channel after it is scaled. Training starts with every shift at 0.";
  } else if (entry.ours.endsWith("bias")) {
    text = "Is added to the outputs of a linear layer. Training starts with every bias at 0.";
  } else if (!entry.ours) {
    text = "GPT-2 has no tensor of this name.";
  }
  return { text, rows, columns };
}

/** @param {Entry} entry @returns {string} how it lies in the file, compared with our model */
export function orderOf(entry) {
  if (!entry.ours) return "";
  if (!entry.transposed) {
    return entry.shape.length > 1 ? "It lies in the file as in our model." : "";
  }
  const ours = [...entry.shape].reverse();
  return (
    `Stored transposed: ${formatShape(entry.shape)} in the file, ` +
    `${formatShape(ours)} in our model.`
  );
}

/** @param {Entry} entry @returns {string} what is wrong with its values, if anything */
export function oddOf(entry) {
  const parts = [];
  if (entry.nan) parts.push(`${formatCount(entry.nan)} not a number (NaN)`);
  if (entry.infinite) parts.push(`${formatCount(entry.infinite)} infinite`);
  if (!parts.length) return "";
  return `Of ${plural(entry.count, "value")}, ${parts.join(" and ")}. They are left out below.`;
}

// ---------------------------------------------------------------------------------------------
// Drawing

const CONTROLS = ["button", "input"];
const STOPS = 5;

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

/**
 * @param {string} tag
 * @param {string} name of its class
 * @param {(Node | string)[]} children
 * @returns {HTMLElement}
 */
const part = (tag, name, ...children) => h(tag, { class: `gptlib-ce-${name}` }, ...children);

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {(Node | string)[]} children
 * @returns {SVGElement}
 */
function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** @param {Node} node @param {string} text */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

let count = 0; // widgets drawn, for names that must differ

/** Draw the frame once; later calls fill it. */
function frame() {
  const id = `gptlib-ce-${(count += 1)}`;
  const [title, sum, found] = [part("span", "title"), part("p", "soft"), part("span", "soft")];
  found.setAttribute("role", "status");
  const search = /** @type {HTMLInputElement} */ (
    h("input", {
      ...{ type: "search", class: "gptlib-ce-search", id: `${id}-search`, spellcheck: "false" },
      ...{ autocomplete: "off", placeholder: "ln_1, bias, 0.attn …" },
    })
  );
  const label = h("label", { class: "gptlib-ce-label", for: `${id}-search` }, "Find tensors");
  const tree = h("div", { class: "gptlib-ce-tree", role: "tree", "aria-label": "Tensors" });
  const none = part("p", "none");
  const headings = h("div", { class: "gptlib-ce-line gptlib-ce-headings", "aria-hidden": "true" });
  const titles = { name: "Tensor", shape: "Shape", dtype: "Type", bytes: "Bytes", share: "Share" };
  for (const [name, text] of Object.entries(titles)) headings.append(part("span", name, text));
  const notes = part("p", "notes");
  const list = part("div", "list", headings, part("div", "scroller", tree, none));
  const browse = part("section", "browse", list, notes);
  browse.setAttribute("aria-label", "Tensors of the file");

  const [name, ours, about, order, odd] = [
    part("strong", "tensor"),
    part("p", "ours"),
    part("p", "about"),
    part("p", "order"),
    part("p", "odd"),
  ];
  const facts = fields(["Shape", "Type", "Values", "Bytes"]);
  const canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { role: "img" }));
  const [down, across] = [part("span", "down"), part("span", "across")];
  const picture = part("div", "picture", across, down, canvas);
  const probe = part("div", "probe");
  for (let i = 0; i <= STOPS; i++) probe.append(h("span", { "data-stop": String(i) }));
  const [least, most] = [h("span"), h("span")];
  const scale = part("div", "scale", least, part("span", "ramp"), most);
  const cell = part("p", "cell");
  const chart = s("svg", { class: "gptlib-ce-chart", role: "img" });
  const bar = part("p", "cell");
  const spread = fields(["Mean", "Std. deviation", "Smallest", "Largest"]);
  const alike = part("p", "alike");
  const panel = part(
    "section",
    "panel",
    part("div", "top", name, ours, about, order, odd),
    facts.root,
    part("p", "caption", "Values"),
    ...[chart, bar, spread.root],
  );
  panel.setAttribute("aria-label", "The chosen tensor");
  const caption = part("p", "caption", "Picture");
  const beside = part("div", "beside", scale, cell, alike);
  const look = part("section", "look", caption, part("div", "pair", picture, beside));
  look.setAttribute("aria-label", "Picture of the chosen tensor");
  const blocks = part("section", "blocks");
  const blocksTitle = part("p", "caption");
  const blocksChart = s("svg", { class: "gptlib-ce-chart", role: "img" });
  const key = "Dot: mean. Line: one standard deviation up and down.";
  blocks.append(blocksTitle, blocksChart, part("p", "cell", key));
  blocks.setAttribute("aria-label", "The same tensor in every block");
  const said = h("div", { class: "gptlib-ce-hidden", role: "status" });
  const heading = part("div", "head", h("strong", { class: "gptlib-title" }, title), sum);
  const finder = part("div", "finder", label, search, found);
  const views = part("div", "views", browse, panel, look, blocks);
  const root = h(
    "div",
    { class: "gptlib-root gptlib-ce", "data-lm-suppress-shortcuts": "true" },
    part("div", "layout", heading, finder, views, said, probe),
  );
  return {
    ...{ id, root, title, sum, found, search, tree, none, notes, name, ours, about, order, odd },
    ...{ facts, picture, canvas, down, across, probe, scale, least, most, cell, chart, bar },
    ...{ spread, alike, panel, look, blocks, blocksTitle, blocksChart, said },
  };
}

/** @param {string} name @returns {Node[]} that may break after a dot */
function dotted(name) {
  return name.split(/(?<=\.)/).flatMap((text) => [document.createTextNode(text), h("wbr")]);
}

/** @param {string[]} titles */
function fields(titles) {
  const values = titles.map(() => h("dd"));
  const pairs = titles.map((title, i) => h("div", {}, h("dt", {}, title), values[i]));
  return { values, root: part("dl", "facts", ...pairs) };
}

/** @param {Line} line @param {number} all bytes of the file @returns {HTMLElement} */
function drawLine(line, all) {
  const { level, expanded, entries, bytes } = line;
  const [entry] = entries;
  const share = bytes / all;
  const block = expanded !== null;
  const name = part(
    "span",
    "name",
    part("span", "fold"),
    part("code", "code", ...dotted(line.label)),
  );
  if (!block && entry.nan + entry.infinite) name.append(part("span", "wrong", "NaN"));
  if (block) name.append(part("span", "soft", plural(entries.length, "tensor")));
  const bar = part("span", "share", h("span", {}, formatShare(share)));
  bar.style.setProperty("--share", `${100 * share}%`);
  const shape = part("span", "shape", block ? "" : formatShape(entry.shape));
  if (!block && entry.transposed) {
    shape.append(h("span", { class: "gptlib-ce-turned", title: "stored transposed" }, "T"));
  }
  const words = block
    ? [`${line.label}, ${plural(entries.length, "tensor")}`]
    : [line.label, formatShape(entry.shape).replaceAll("×", "by"), entry.dtype];
  if (!block && entry.transposed) words.push("stored transposed");
  if (!block && entry.nan + entry.infinite) words.push("with values that are not finite");
  words.push(formatBytes(bytes), `${formatShare(share)} of the file`);
  const element = h(
    "div",
    {
      ...{ class: "gptlib-ce-line", role: "treeitem", tabindex: "-1", "data-kind": line.kind },
      ...{ "aria-level": String(level), "aria-posinset": String(line.position) },
      ...{ "aria-setsize": String(line.siblings), "aria-label": words.join(", ") },
      "data-lm-suppress-shortcuts": "true", // JupyterLab asks the focused element itself
    },
    name,
    shape,
    part("span", "dtype", block ? "" : entry.dtype),
    part("span", "bytes", formatBytes(bytes)),
    bar,
  );
  if (block) element.setAttribute("aria-expanded", String(expanded));
  return element;
}

/**
 * @param {{ model: Model, el: HTMLElement }} context
 * @returns {() => void}
 */
function render({ model, el }) {
  const view = frame();
  /** @type {Checkpoint} */
  let checkpoint = model.get("checkpoint");
  /** @type {Entry[]} */
  let entries = [];
  /** @type {Line[]} */
  let lines = [];
  /** @type {HTMLElement[]} */
  let elements = [];
  let focused = ""; // the line that the Tab key reaches
  let speaking = 0;
  let own = false; // whether the reader has chosen, and not Python
  /** @type {{ from: number, to: number, share: number, left: number, right: number }[]} */
  let bars = [];

  const chosen = () => entries.find((entry) => entry.name === model.get("tensor")) ?? entries[0];
  const search = () => model.get("search") ?? "";
  const opened = () => /** @type {string[]} */ (model.get("opened") ?? []);

  /** @param {Record<string, unknown>} values */
  function set(values) {
    own = true;
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
    own = false;
  }

  // --- the file -------------------------------------------------------------------------------

  function drawCheckpoint() {
    checkpoint = model.get("checkpoint");
    entries = entriesOf(checkpoint);
    const { title, bytes, files, prefix, masks, mask_bytes: taken } = checkpoint;
    write(view.title, `Inside a checkpoint: ${title}`);
    const values = entries.reduce((sum, entry) => sum + entry.count, 0);
    const sums = [plural(entries.length, "tensor"), plural(values, "value"), formatBytes(bytes)];
    const types = new Set(entries.map((entry) => entry.dtype));
    if (files > 1) sums.push(plural(files, "file"));
    if (types.size === 1) sums.push(`all ${entries[0].dtype}`);
    write(view.sum, sums.join(" · "));
    view.root.classList.toggle("gptlib-ce-mixed", types.size > 1);
    const notes = [];
    if (prefix) notes.push(`In the file, names begin with “${prefix}”.`);
    if (masks) {
      const share = `${formatBytes(taken)}, ${formatShare(taken / bytes)} of the file`;
      notes.push(`Left out: ${plural(masks, "mask")} (${share}), which are no parameters.`);
    }
    if (entries.some((entry) => entry.transposed)) notes.push("T: stored transposed.");
    write(view.notes, notes.join(" "));
    focused = chosen()?.name ?? "";
    drawTree();
    drawTensor();
  }

  // --- the tree -------------------------------------------------------------------------------

  function drawTree() {
    const hadFocus = view.tree.contains(document.activeElement);
    if (view.search.value !== search()) view.search.value = search();
    lines = linesOf(entries, opened(), search());
    elements = lines.map((line) => drawLine(line, checkpoint.bytes));
    view.tree.replaceChildren(...elements);
    view.tree.hidden = !lines.length;
    const number = lines.reduce((sum, { expanded }) => sum + (expanded === null ? 1 : 0), 0);
    const looking = search().trim();
    const words = looking ? `${formatCount(number)} of ${plural(entries.length, "tensor")}` : "";
    write(view.found, words);
    const none = entries.length ? `No tensor has “${looking}”.` : "The file has no tensor.";
    write(view.none, lines.length ? "" : none);
    if (!lines.some((line) => line.key === focused)) {
      const name = chosen()?.name ?? "";
      const near = lines.find(({ key }) => key === name) ??
        lines.find(({ key }) => key === groupOf(name));
      focused = (near ?? lines[0])?.key ?? "";
    }
    markTree();
    if (hadFocus) elements[lines.findIndex((line) => line.key === focused)]?.focus();
  }

  function markTree() {
    const name = chosen()?.name;
    lines.forEach((line, i) => {
      const selected = line.expanded === null && line.key === name;
      elements[i].setAttribute("aria-selected", String(selected));
      elements[i].tabIndex = line.key === focused ? 0 : -1;
      elements[i].classList.toggle(
        "gptlib-ce-holds",
        line.expanded === false && groupOf(name ?? "") === line.key,
      );
    });
  }

  /** @param {number} at @param {boolean} [fold] */
  function go(at, fold) {
    const line = lines[at];
    focused = line.key;
    if (fold !== undefined && !search().trim()) {
      const others = opened().filter((key) => key !== line.key);
      set({ opened: fold ? [...others, line.key] : others });
    } else if (line.expanded === null && line.key !== model.get("tensor")) {
      set({ tensor: line.key });
      announce();
    } else markTree();
    const element = elements[lines.findIndex(({ key }) => key === focused)];
    element?.focus({ preventScroll: true });
    element?.scrollIntoView({ block: "nearest" });
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    const at = elements.indexOf(/** @type {HTMLElement} */ (event.target));
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = step(lines, at, event.key);
    if (!next) return;
    event.preventDefault();
    event.stopPropagation(); // a notebook has shortcuts of its own for these keys
    go(next.to, next.fold);
  }

  /** @param {Event} event */
  function onClick(event) {
    const target = /** @type {HTMLElement} */ (event.target).closest('[role="treeitem"]');
    const at = elements.indexOf(/** @type {HTMLElement} */ (target));
    if (at < 0) return;
    const { expanded } = lines[at];
    go(at, expanded === null ? undefined : !expanded);
  }

  // --- the chosen tensor ----------------------------------------------------------------------

  function drawTensor() {
    const entry = chosen();
    view.panel.hidden = view.look.hidden = !entry;
    view.blocks.hidden = true;
    if (!entry) return;
    const about = aboutOf(entry);
    view.panel.dataset.kind = entry.kind;
    view.name.replaceChildren(...dotted(entry.name));
    const ours = part("code", "code", ...dotted(entry.ours));
    view.ours.replaceChildren(...(entry.ours ? ["ours: ", ours] : []));
    write(view.about, about.text);
    write(view.order, orderOf(entry));
    view.order.classList.toggle("gptlib-ce-turn", entry.transposed);
    write(view.odd, oddOf(entry));
    const bytes = `${formatBytes(entry.bytes)} (${formatShare(entry.bytes / checkpoint.bytes)})`;
    const shape = entry.shape.length ? formatShape(entry.shape) : "a single value";
    [shape, entry.dtype, formatCount(entry.count), bytes].forEach((text, i) => {
      write(view.facts.values[i], text);
    });
    const { mean, std, min, max } = entry;
    [mean, std, min, max].forEach((value, i) => {
      write(view.spread.values[i], formatValue(value));
    });
    write(view.alike, alikeOf(entry, about.rows));
    drawPicture(entry, about);
    drawHistogram(entry);
    drawBlocks(entry);
  }

  /** @param {Entry} entry @param {{ rows: string, columns: string }} about */
  function drawPicture(entry, about) {
    const { rows, columns, high, wide } = gridOf(entry);
    view.picture.hidden = view.scale.hidden = !rows;
    write(view.cell, rows ? cellWords(entry) : "There is no value to draw.");
    if (!rows) return;
    const strip = entry.shape.length < 2;
    view.picture.classList.toggle("gptlib-ce-strip", strip);
    view.picture.style.setProperty("--ratio", String(columns / rows));
    write(
      view.across,
      strip ? plural(entry.count, "value") : `${formatCount(wide)} ${about.columns} →`,
    );
    write(view.down, strip ? "" : `${formatCount(high)} ${about.rows} →`);
    write(view.least, formatValue(-entry.reach));
    write(view.most, formatValue(entry.reach));
    view.canvas.width = columns;
    view.canvas.height = rows;
    const words = `${entry.name} as a picture of ${rows} by ${columns} averages, `;
    view.canvas.setAttribute(
      "aria-label",
      `${words}none farther from 0 than ${formatValue(entry.reach)}`,
    );
    paint(entry);
  }

  /** @param {Entry} entry */
  function paint(entry) {
    if (!view.root.isConnected || !entry.rows) return;
    const stops = Array.from(
      view.probe.children,
      (child) => (getComputedStyle(child).color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number),
    );
    const wrong = stops.pop() ?? [];
    const image = new ImageData(view.canvas.width, view.canvas.height);
    entry.cells.forEach((code, i) => {
      const color = code === ODD ? wrong : shade((code - ZERO) / ZERO, stops);
      image.data.set([...color, 255], 4 * i);
    });
    view.canvas.getContext("2d")?.putImageData(image, 0, 0);
  }

  /** @param {Entry} entry */
  function drawHistogram(entry) {
    const width = view.chart.clientWidth;
    if (!width) return;
    const found = barsOf(entry);
    const alone = !found.length && finite(entry) > 0; // all values are the same
    const [low, high] = alone ? [entry.low - 1, entry.low + 1] : [entry.low, entry.high];
    const box = { left: 2, right: width - 2, top: 18, bottom: 118 };
    const top = Math.max(...found.flatMap((bar) => [bar.share, bar.normal]), alone ? 1 : 0);
    const x = (/** @type {number} */ value) =>
      box.left + ((value - low) / (high - low)) * (box.right - box.left);
    const y = (/** @type {number} */ share) => box.bottom - (share / top) * (box.bottom - box.top);
    view.chart.setAttribute("viewBox", `0 0 ${width} 140`);
    if (!finite(entry)) {
      bars = [];
      view.chart.replaceChildren();
      view.chart.setAttribute("aria-label", "No value is a finite number");
      write(view.bar, "No value is a finite number.");
      return;
    }
    const one = { from: entry.low - 0.02, to: entry.low + 0.02, share: 1, normal: 0 };
    bars = (alone ? [one] : found).map((bar) => ({ ...bar, left: x(bar.from), right: x(bar.to) }));
    const curve = found.map((bar) => `${x((bar.from + bar.to) / 2)},${y(bar.normal)}`).join(" ");
    const zero = low <= 0 && high >= 0;
    view.chart.replaceChildren(
      ...(zero
        ? [s("line", { class: "gptlib-ce-zero", x1: x(0), x2: x(0), y1: 12, y2: 118 })]
        : []),
      ...bars.map(({ left, right, share }) => {
        const rest = Math.max(right - left - 1, 0.5);
        const size = { x: left + 0.5, y: y(share), width: rest, height: box.bottom - y(share) };
        return s("rect", { class: "gptlib-ce-bar", ...size });
      }),
      s("polyline", { class: "gptlib-ce-normal", points: curve }),
      s("line", { class: "gptlib-ce-axis", x1: 0, x2: width, y1: box.bottom, y2: box.bottom }),
      ...ticks(low, high, Math.max(2, Math.floor(width / 60))).map(({ value, text }) => {
        const place = Math.min(Math.max(x(value), text.length * 3.4), width - text.length * 3.4);
        return s("text", { x: place, y: 133, "text-anchor": "middle" }, text);
      }),
      s("text", { x: 0, y: 10 }, `share of the values, up to ${formatShare(top)}`),
    );
    const shape = `Histogram of ${entry.name}: mean ${
      formatValue(entry.mean)
    }, standard deviation `;
    view.chart.setAttribute("aria-label", shape + formatValue(entry.std));
    write(view.bar, barWords(entry));
  }

  /** @param {Entry} entry the chosen one; its namesakes in the other blocks are drawn beside it */
  function drawBlocks(entry) {
    const alike = entry.group
      ? entries.filter((other) => other.label === entry.label && other.pattern === entry.pattern)
      : [];
    view.blocks.hidden = alike.length < 2;
    const width = view.blocksChart.clientWidth;
    if (alike.length < 2 || !width) return;
    const low = Math.min(...alike.map(({ mean, std }) => mean - std).filter(Number.isFinite));
    const high = Math.max(...alike.map(({ mean, std }) => mean + std).filter(Number.isFinite));
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    const axis = ticks(low - room, high + room, 4);
    const left = 10 + 6.2 * Math.max(0, ...axis.map(({ text }) => text.length));
    const [top, bottom] = [6, 96];
    const y = (/** @type {number} */ value) =>
      bottom - ((value - low + room) / (high - low + 2 * room)) * (bottom - top);
    const pitch = (width - left) / alike.length;
    const x = (/** @type {number} */ i) => left + (i + 0.5) * pitch;
    const every = Math.ceil(18 / pitch);
    write(view.blocksTitle, `${entry.label} in every block`);
    view.blocksChart.setAttribute("viewBox", `0 0 ${width} 116`);
    view.blocksChart.replaceChildren(
      ...axis.flatMap(({ value, text }) => [
        s("line", { class: "gptlib-ce-grid", x1: left, x2: width, y1: y(value), y2: y(value) }),
        s("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, text),
      ]),
      ...alike.flatMap((one, i) => drawBlock(one, one === entry, x(i), y, pitch)),
      ...alike.flatMap((one, i) => {
        if (i % every && one !== entry) return [];
        const place = { x: x(i), y: 112, "text-anchor": "middle" };
        const bold = { class: "gptlib-ce-here", ...place };
        return [s("text", one === entry ? bold : place, numberOf(one))];
      }),
    );
    const words = alike.map((one) =>
      `${one.group} ${formatValue(one.mean)} ± ${formatValue(one.std)}`
    );
    view.blocksChart.setAttribute("aria-label", `Mean and standard deviation: ${words.join(", ")}`);
  }

  /**
   * @param {Entry} one
   * @param {boolean} here
   * @param {number} x
   * @param {(value: number) => number} y
   * @param {number} pitch
   * @returns {SVGElement[]}
   */
  function drawBlock(one, here, x, y, pitch) {
    const place = s("rect", {
      class: "gptlib-ce-place",
      x: x - pitch / 2,
      y: 0,
      width: pitch,
      height: 116,
    });
    place.addEventListener("click", () => {
      focused = one.name;
      set({ tensor: one.name });
      announce();
    });
    if (!Number.isFinite(one.mean)) return [place];
    const kind = here ? "gptlib-ce-here" : "gptlib-ce-there";
    const [upper, lower] = [y(one.mean + one.std), y(one.mean - one.std)];
    return [
      s("line", { class: kind, x1: x, x2: x, y1: upper, y2: lower }),
      s("circle", { class: kind, cx: x, cy: y(one.mean), r: here ? 5 : 3.5 }),
      place,
    ];
  }

  function announce() {
    window.clearTimeout(speaking);
    speaking = window.setTimeout(() => {
      const { name, mean, std } = chosen();
      const spread = `mean ${formatValue(mean)}, standard deviation ${formatValue(std)}`;
      write(view.said, `${name}: ${spread}. ${orderOf(chosen())} ${oddOf(chosen())}`.trim());
    }, 400);
  }

  // --- under the pointer ----------------------------------------------------------------------

  /** @param {PointerEvent} event */
  function onPicture(event) {
    const entry = chosen();
    const { rows, columns, high, wide } = gridOf(entry);
    const box = view.canvas.getBoundingClientRect();
    const at = (/** @type {number} */ share, /** @type {number} */ parts) =>
      Math.min(Math.max(Math.floor(share * parts), 0), parts - 1);
    const i = at((event.clientY - box.top) / box.height, rows);
    const j = at((event.clientX - box.left) / box.width, columns);
    const value = averageOf(entry, entry.cells[i * columns + j]);
    const span = (/** @type {[number, number]} */ [from, to]) =>
      from === to ? formatCount(from) : `${formatCount(from)}–${formatCount(to)}`;
    const [down, across] = [span(section(high, rows, i)), span(section(wide, columns, j))];
    const where = entry.shape.length < 2 ? `values ${across}` : `rows ${down}, columns ${across}`;
    write(view.cell, `${where}: ${Number.isNaN(value) ? "not all finite" : formatValue(value)}`);
  }

  /** @param {PointerEvent} event */
  function onChart(event) {
    const x = event.clientX - view.chart.getBoundingClientRect().left;
    const bar = bars.find(({ left, right }) => x >= left && x < right);
    if (!bar) return write(view.bar, barWords(chosen()));
    const share = `${formatShare(bar.share)} of the values`;
    write(view.bar, `${formatValue(bar.from)} to ${formatValue(bar.to)}: ${share}`);
  }

  // --- what changes ---------------------------------------------------------------------------

  function onTensor() {
    const name = chosen()?.name ?? "";
    const group = groupOf(name);
    if (!own) focused = name;
    if (group && !opened().includes(group)) {
      model.set("opened", [...opened(), group]); // so that it can be seen
      if (!own) model.save_changes();
    } else markTree();
    drawTensor();
    if (!own) {
      elements[lines.findIndex(({ key }) => key === name)]?.scrollIntoView?.({ block: "nearest" });
    }
  }

  function redraw() {
    if (!view.root.isConnected || !entries.length) return;
    drawHistogram(chosen());
    drawBlocks(chosen());
    paint(chosen());
  }

  view.tree.addEventListener("keydown", onKey);
  view.tree.addEventListener("click", onClick);
  view.search.addEventListener("input", () => set({ search: view.search.value }));
  view.search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      elements.find((element) => element.tabIndex === 0)?.focus();
    }
    event.stopPropagation();
  });
  for (const type of ["pointermove", "pointerdown"]) {
    view.canvas.addEventListener(type, (event) => onPicture(/** @type {PointerEvent} */ (event)));
    view.chart.addEventListener(type, (event) => onChart(/** @type {PointerEvent} */ (event)));
  }
  view.canvas.addEventListener("pointerleave", () => write(view.cell, cellWords(chosen())));
  view.chart.addEventListener("pointerleave", () => write(view.bar, barWords(chosen())));

  el.append(view.root);
  drawCheckpoint();
  const resized = new ResizeObserver(redraw);
  resized.observe(view.root);
  const themed = new MutationObserver(redraw);
  for (const element of [document.documentElement, document.body]) {
    themed.observe(element, { attributes: true });
  }
  const media = ["(prefers-color-scheme: dark)", "print"].map((query) => window.matchMedia(query));
  for (const query of media) query.addEventListener("change", redraw);

  /** @type {[string, () => void][]} */
  const listeners = [
    ["change:checkpoint", drawCheckpoint],
    ["change:tensor", onTensor],
    ["change:opened", drawTree],
    ["change:search", drawTree],
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    window.clearTimeout(speaking);
    resized.disconnect();
    themed.disconnect();
    for (const query of media) query.removeEventListener("change", redraw);
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}

/** @param {Entry} entry @returns {string} the number of its block */
function numberOf(entry) {
  return entry.group.split(".").at(-1) ?? "";
}

/** @param {Entry} entry @param {string} rows what its rows are @returns {string} */
export function alikeOf(entry, rows) {
  if (Number.isNaN(entry.near)) return "";
  const [near, any] = [entry.near, entry.any].map((value) =>
    (Math.abs(value) < 0.005 ? 0 : value).toFixed(2).replace("-", "−")
  );
  const noun = ["tokens", "positions"].includes(rows) ? rows : "rows";
  return `Mean cosine similarity of neighboring ${noun}: ${near}; of any two: ${any}.`;
}

/** @param {Entry} entry @returns {string} what a cell of the picture stands for */
export function cellWords(entry) {
  const { rows, columns, high, wide } = gridOf(entry);
  if (rows === high && columns === wide) return "Each cell is one value.";
  const about = (/** @type {number} */ length, /** @type {number} */ parts) =>
    String(Math.round(length / parts));
  if (entry.shape.length < 2) {
    return `Each cell is the average of about ${about(wide, columns)} values.`;
  }
  return `Each cell is the average of about ${about(high, rows)} × ${about(wide, columns)} values.`;
}

/** @param {Entry} entry @returns {string} what the histogram shows, and what it leaves out */
export function barWords(entry) {
  if (!entry.bins.length) return `All values are ${formatValue(entry.min)}.`;
  const outside = entry.below + entry.above;
  const dashed = "Dashed: a normal distribution.";
  if (!outside) return dashed;
  const share = formatShare(outside / finite(entry));
  return `${dashed} Outside: ${plural(outside, "value")} (${share}).`;
}

export default { render };
