// What is inside a checkpoint: the tree of its tensors, and for one of them its values as a
// picture and as a histogram. Python has read the file; here nothing is computed but places.

import { levels, measured } from "./lib/chart.js";
import {
  announcer,
  classes,
  define,
  guard,
  html,
  live,
  nothing,
  onTheme,
  repeat,
  svg,
  uniqueName,
} from "./lib/kit.js";
import { formatBytes, formatCount, formatPower, formatShare, plural, sum } from "./lib/numbers.js";
import { moved, withModifier } from "./lib/rove.js";

/** @import { Widget } from "./lib/kit.js" */
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
 *   ours: string, pattern: string, transposed: boolean, kind: string, words: string, odd: boolean,
 * }} Entry
 * @typedef {{
 *   key: string, label: string, level: number, position: number, siblings: number,
 *   expanded: boolean | null, kind: string, bytes: number, entries: Entry[],
 * }} Line  of the tree: a tensor, or a block, which holds several
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
const NUMBER = /(?<=\.)[0-9]+(?=\.)/; // of the block, in a tensor's name

/** The kinds of parts, by what our names have in them. @type {[string, string][]} */
const KINDS = [
  ["embedding", "embedding"],
  ["norm", "norm"],
  ["attention", "attention"],
  ["feed_forward", "feed-forward"],
  ["output_head", "head"],
];

/** @param {string} text @returns {number[]} */
const decode = (text) => Array.from(text, (digit) => DIGITS.indexOf(digit));

/** @param {string} name @returns {string} the block that a tensor is in, as "h.0", or nothing */
export function groupOf(name) {
  return /^((?:.*?\.)?[0-9]+)\../s.exec(name)?.[1] ?? "";
}

/** All tensors, in the order in which they are shown.
 * @param {Checkpoint} checkpoint @returns {Entry[]} */
export function entriesOf({ names, sizes, tensors }) {
  const table = new Map(names.map((line) => {
    const [theirs, ours, turned] = line.split("\t");
    return [theirs, { ours, transposed: turned === "T" }];
  }));
  return tensors.map((line) => {
    const [lengths, dtype, numbers, bins, cells, ...rest] = line.split("\t");
    const name = rest.join("\t");
    const pattern = name.replace(NUMBER, "{}");
    const { ours: known, transposed } = table.get(pattern) ?? { ours: "", transposed: false };
    const ours = known.replace("{}", NUMBER.exec(name)?.[0] ?? "");
    const kind = KINDS.find(([part]) => ours.includes(part))?.[1] ?? "plain";
    const group = groupOf(name);
    const shape = lengths.split(" ").filter(Boolean).map(Number);
    const count = shape.reduce((product, size) => product * size, 1);
    const values = numbers.split(" ").map((text) => (text === "" ? NaN : Number(text)));
    const found =
      /** @type {any} */ (Object.fromEntries(NUMBERS.map((key, i) => [key, values[i]])));
    const odd = found.nan + found.infinite > 0;
    const words = [name, ours, kind, dtype, transposed && "transposed", odd && "nan"];
    return {
      ...found,
      ...{ name, group, label: name.slice(group ? group.length + 1 : 0), shape, dtype, count, odd },
      ...{ ours, pattern, transposed, kind, words: words.filter(Boolean).join(" ").toLowerCase() },
      bytes: Math.round(count * (sizes[dtype] ?? 1)),
      bins: (bins.match(/../g) ?? []).map(decode).map(([high, low]) => 64 * high + low),
      cells: decode(cells),
    };
  });
}

// ---------------------------------------------------------------------------------------------
// The tree

/** @param {Entry} entry @param {string} search @returns {boolean} whether it has all the words */
export function matches(entry, search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return words.every((word) => entry.words.includes(word));
}

/** The lines of the tree that can be seen. What is searched for is unfolded.
 * @param {Entry[]} entries @param {string[]} opened names of blocks @param {string} search */
export function linesOf(entries, opened, search) {
  const found = entries.filter((entry) => matches(entry, search));
  // A tensor outside of the blocks has a key that is no block's name.
  const blocks = Map.groupBy(found, ({ group, name }) => group || `\t${name}`);
  return [...blocks].flatMap(([key, members], at) => {
    if (!members[0].group) return [lineOf(members[0], 1, at, blocks.size)];
    const expanded = search.trim() !== "" || opened.includes(key);
    const bytes = sum(members.map((entry) => entry.bytes));
    const place = { level: 1, position: at + 1, siblings: blocks.size };
    const block = { key, label: key, ...place, expanded, kind: "plain", bytes, entries: members };
    const inside = members.map((entry, i) => lineOf(entry, 2, i, members.length));
    return expanded ? [block, ...inside] : [block];
  });
}

/** @type {(entry: Entry, level: number, at: number, siblings: number) => Line} */
function lineOf(entry, level, at, siblings) {
  const { name: key, label, kind, bytes } = entry;
  const place = { level, position: at + 1, siblings };
  return { key, label, ...place, expanded: null, kind, bytes, entries: [entry] };
}

/** Where a key of the keyboard leads in the tree.
 * @param {Line[]} lines @param {number} at the line that has the focus @param {string} key
 * @returns {{ to: number, fold?: boolean } | null} a line, and whether it opens or closes */
export function step(lines, at, key) {
  const to = moved(key, at, lines.length, { back: ["ArrowUp"], on: ["ArrowDown"], page: 0 });
  if (to !== null) return { to };
  const { expanded } = lines[at];
  const here = expanded === null ? { to: at } : { to: at, fold: !expanded };
  const above = lines.findLastIndex(({ level }, i) => level === 1 && i <= at);
  return /** @type {Record<string, { to: number, fold?: boolean }>} */ ({
    ArrowRight: expanded ? { to: at + 1 } : here,
    ArrowLeft: expanded ? here : { to: above },
    Enter: here,
    " ": here,
  })[key] ?? null;
}

// ---------------------------------------------------------------------------------------------
// Numbers for people

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
  if (size >= 999.5 && size < 1e6) return sign + formatCount(size);
  if (size >= 0.001 && size < 1e6) return sign + size.toPrecision(3);
  return sign + formatPower(size).replace(" × ", "·");
}

/** Round numbers along an axis, about as many as there is room for.
 * @param {number} low @param {number} high @param {number} most
 * @returns {{ value: number, text: string }[]} */
export function ticks(low, high, most = 5) {
  if (!(low < high) || !Number.isFinite(high - low)) return [];
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) ?? 10 * power;
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const [first, last] = [Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)];
  return Array.from({ length: last - first + 1 }, (_, i) => {
    const value = (first + i) * step;
    const plain = decimals <= 4 && Math.abs(value) < 1e5;
    const text = plain ? Math.abs(value).toFixed(decimals) : formatValue(Math.abs(value));
    return { value, text: (value < 0 ? "−" : "") + text };
  });
}

// ---------------------------------------------------------------------------------------------
// Histogram and picture

/** @param {Entry} entry @returns {number} how many of its values are finite numbers */
export function finite(entry) {
  return entry.count - entry.nan - entry.infinite;
}

/** The bars of a histogram as shares of all finite values, and beside them the share that a normal
 * distribution of the same mean and standard deviation would have at each bar's center.
 * @param {Entry} entry @returns {{ from: number, to: number, share: number, normal: number }[]} */
export function barsOf(entry) {
  const { low, high, bins, mean, std } = entry;
  const width = (high - low) / bins.length;
  return bins.map((code, i) => {
    const from = low + i * width;
    const z = (from + width / 2 - mean) / std;
    const normal = (width / std) *
      (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI));
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

/** What others are for, by the end of our name. @type {Record<string, string>} */
const ABOUT_OURS = {
  scale: "Multiplies each channel after it is normalized. Training starts with every scale at 1.",
  shift: "Is added to each channel after it is scaled. Training starts with every shift at 0.",
  bias: "Is added to the outputs of a linear layer. Training starts with every bias at 0.",
  "": "GPT-2 has no tensor of this name.",
};

/** @param {Entry} entry @returns {{ text: string, rows: string, columns: string }} */
export function aboutOf({ pattern, ours }) {
  const [text = "", rows = "rows", columns = "columns"] = ABOUT[pattern] ?? [];
  return { text: ABOUT_OURS[ours.split(".").at(-1) ?? ""] ?? text, rows, columns };
}

/** @param {Entry} entry @returns {string} how it lies in the file, compared with our model */
export function orderOf({ ours, transposed, shape }) {
  if (ours && transposed) {
    const [theirs, turned] = [shape, shape.toReversed()].map(formatShape);
    return `Stored transposed: ${theirs} in the file, ${turned} in our model.`;
  }
  return ours && shape.length > 1 ? "It lies in the file as in our model." : "";
}

/** @param {Entry} entry @returns {string} what is wrong with its values, if anything */
export function oddOf(entry) {
  const parts = [];
  if (entry.nan) parts.push(`${formatCount(entry.nan)} not a number (NaN)`);
  if (entry.infinite) parts.push(`${formatCount(entry.infinite)} infinite`);
  if (!parts.length) return "";
  return `Of ${plural(entry.count, "value")}, ${parts.join(" and ")}. They are left out below.`;
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
  const about = [[high, rows], [wide, columns]].map(([all, parts]) => Math.round(all / parts));
  const size = about.slice(entry.shape.length < 2 ? 1 : 0).join(" × ");
  return `Each cell is the average of about ${size} values.`;
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

// ---------------------------------------------------------------------------------------------
// State

/** What the widget is drawn from, and what it remembers besides. */
class State {
  /** @type {Entry[]} */ entries = [];
  /** @type {Line[]} */ lines = [];
  focused = ""; // the line that the Tab key reaches
  focusing = false; // it gets the focus once it is drawn
  showing = false; // the chosen line comes into sight once it is drawn
  own = false; // whether the reader has chosen, and not Python
  theme = 0; // how often the page may have taken other colors
  cell = ""; // what is said of the cell and of the bar under the pointer
  bar = "";
  status = announcer(400);
  id = uniqueName(); // of the box

  /** @param {Widget} widget */
  constructor(widget) {
    this.widget = widget;
    this.model = widget.model;
    this.size = measured(widget.update); // of the histogram
    this.blocksSize = measured(widget.update);
    this.endTheme = onTheme(() => {
      this.theme++;
      widget.update();
    });
    this.status.element.classList.add("gptlib-ce-hidden");
    this.on = { checkpoint: this.readFile, tensor: this.follow };
    this.readFile();
  }

  close() {
    for (const part of [this.size, this.blocksSize, this.status]) part.close();
    this.endTheme();
  }

  /** @returns {Checkpoint} */
  get checkpoint() {
    return this.model.get("checkpoint");
  }

  /** @returns {string} */
  get search() {
    return this.model.get("search") ?? "";
  }

  /** @returns {string[]} */
  get opened() {
    return this.model.get("opened") ?? [];
  }

  get chosen() {
    return this.entries.find(({ name }) => name === this.model.get("tensor")) ?? this.entries[0];
  }

  /** @param {Record<string, unknown>} values */
  set(values) {
    this.own = true;
    this.widget.save(values);
    this.own = false;
  }

  readFile = () => {
    this.entries = entriesOf(this.checkpoint);
    this.focused = this.chosen?.name ?? "";
  };

  /** What follows when another tensor is chosen, by the reader or by Python. */
  follow = () => {
    const name = this.chosen?.name ?? "";
    const group = groupOf(name);
    [this.cell, this.bar] = ["", ""];
    if (!this.own) [this.focused, this.showing] = [name, true];
    if (group && !this.opened.includes(group)) {
      this.set({ opened: [...this.opened, group] }); // so that it can be seen
    }
  };

  /** List the lines that there are; if the one with the focus is gone, another takes its place. */
  listLines() {
    this.lines = linesOf(this.entries, this.opened, this.search);
    const name = this.chosen?.name ?? "";
    const near = [this.focused, name, groupOf(name)].find((one) =>
      this.lines.some(({ key }) => key === one)
    );
    this.focused = near ?? this.lines[0]?.key ?? "";
  }

  /** @param {string} name of a tensor */
  choose(name) {
    this.focused = name;
    this.set({ tensor: name });
    const { chosen } = this;
    const spread = `mean ${formatValue(chosen.mean)}, standard deviation ${
      formatValue(chosen.std)
    }`;
    this.status.say(`${name}: ${spread}. ${orderOf(chosen)} ${oddOf(chosen)}`.trim());
  }

  /** Move to a line of the tree: open or close it, or choose what it stands for.
   * @param {number} at @param {boolean} [fold] */
  go(at, fold) {
    const { key, expanded } = this.lines[at];
    [this.focused, this.focusing] = [key, true];
    if (fold !== undefined && !this.search.trim()) {
      const others = this.opened.filter((other) => other !== key);
      this.set({ opened: fold ? [...others, key] : others });
    } else if (expanded === null && key !== this.chosen?.name) this.choose(key);
    this.widget.update();
  }

  /** @param {KeyboardEvent} event in the tree */
  press = (event) => {
    const at = lineAt(event);
    const next = at < 0 || withModifier(event) ? null : step(this.lines, at, event.key);
    if (!next) return;
    event.preventDefault();
    event.stopPropagation(); // a notebook has shortcuts of its own for these keys
    this.go(next.to, next.fold);
  };

  /** @param {Event} event in the tree */
  click = (event) => {
    const at = lineAt(event);
    if (at >= 0) this.go(at, step(this.lines, at, "Enter")?.fold);
  };

  /** @param {any} event in the box */
  pressInSearch = (event) => {
    event.stopPropagation();
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    this.tabbed()?.focus();
  };

  /** @returns {HTMLElement | null} the line that the Tab key reaches */
  tabbed() {
    return this.widget.root.querySelector('[role="treeitem"][tabindex="0"]');
  }

  view() {
    const { root } = this.widget;
    const inTree = root.querySelector('[role="tree"]')?.contains(document.activeElement);
    this.listLines();
    this.focusing ||= Boolean(inTree);
    const entry = this.chosen;
    return html`<div class="gptlib-layout gptlib-ce-layout">
      ${headView(this)} ${finderView(this)}
      <div class="gptlib-ce-views">
        ${browseView(this)}${entry && [panelView, lookView, blocksView].map((v) => v(this, entry))}
      </div>
      ${this.status.element} ${PROBE}
    </div>`;
  }

  /** Give the focus to the line that has to have it, and bring the chosen one into sight. */
  drawn() {
    const { root } = this.widget;
    root.classList.toggle("gptlib-ce-mixed", typesOf(this).size > 1);
    const line = this.focusing ? this.tabbed() : null;
    line?.focus({ preventScroll: true });
    line?.scrollIntoView({ block: "nearest" });
    const selected = this.showing ? root.querySelector('[aria-selected="true"]') : null;
    selected?.scrollIntoView({ block: "nearest" });
    this.focusing = this.showing = false;
  }
}

/** @param {Event} event in the tree @returns {number} the line that it is on, or -1 */
function lineAt({ target }) {
  const item = /** @type {HTMLElement} */ (target).closest('[role="treeitem"]');
  return item ? [.../** @type {HTMLElement} */ (item.parentElement).children].indexOf(item) : -1;
}

/** @param {State} state @returns {Set<string>} of the tensors */
const typesOf = ({ entries }) => new Set(entries.map(({ dtype }) => dtype));

/** What the pointer does over a drawing: words say what is under it.
 * @param {State} state @param {"cell" | "bar"} words
 * @param {(across: number, down: number) => string} wordsAt a place, given as shares of it */
function pointer(state, words, wordsAt) {
  const say = (/** @type {string} */ sentence) => {
    state[words] = sentence;
    state.widget.update();
  };
  return {
    leave: () => say(""),
    move(/** @type {any} */ { currentTarget, clientX, clientY }) {
      const { left, top, width, height } = currentTarget.getBoundingClientRect();
      say(wordsAt((clientX - left) / width, (clientY - top) / height));
    },
  };
}

// ---------------------------------------------------------------------------------------------
// The tree

/** @param {string} name  may break after a dot */
const dotted = (name) => name.split(/(?<=\.)/).map((text) => html`${text}<wbr>`);

/** @param {Line} line @param {number} all bytes of the file @returns {string} for who listens */
function lineWords({ label, expanded, entries, bytes }, all) {
  const [entry] = entries;
  const about = expanded === null
    ? [
      formatShape(entry.shape).replaceAll("×", "by"),
      entry.dtype,
      entry.transposed && "stored transposed",
      entry.odd && "with values that are not finite",
    ]
    : [plural(entries.length, "tensor")];
  const words = [label, ...about, formatBytes(bytes), `${formatShare(bytes / all)} of the file`];
  return words.filter(Boolean).join(", ");
}

/** @param {State} state @param {Line} line @param {string} chosen tensor */
function lineView(state, line, chosen) {
  const all = state.checkpoint.bytes;
  const { key, expanded, entries, bytes } = line;
  const single = expanded === null ? entries[0] : null;
  const holds = expanded === false && groupOf(chosen) === key;
  const wrong = html`<span class="gptlib-ce-wrong">NaN</span>`;
  const many = html`<span class="gptlib-soft">${plural(entries.length, "tensor")}</span>`;
  const turned = html`<span class="gptlib-ce-turned" title="stored transposed">T</span>`;
  return html`
    <div class=${classes("ce-line", holds && "ce-holds")} role="treeitem"
      tabindex=${key === state.focused ? 0 : -1} data-kind=${line.kind} aria-level=${line.level}
      aria-posinset=${line.position} aria-setsize=${line.siblings}
      aria-label=${lineWords(line, all)} aria-selected=${single !== null && key === chosen}
      aria-expanded=${expanded ?? nothing}>
      <span class="gptlib-ce-name"><span class="gptlib-ce-fold"></span><code
          class="gptlib-ce-code">${dotted(line.label)}</code>${single
            ? single.odd ? wrong : ""
            : many}</span>
      <span class="gptlib-ce-shape">${single && formatShape(single.shape)}${single?.transposed
        ? turned
        : ""}</span>
      <span class="gptlib-ce-dtype">${single?.dtype}</span>
      <span class="gptlib-ce-bytes">${formatBytes(bytes)}</span>
      <span class="gptlib-ce-share"
        style="--share: ${100 * bytes / all}%"><span>${formatShare(bytes / all)}</span></span>
    </div>
  `;
}

/** @param {State} state */
function browseView(state) {
  const { prefix, masks, mask_bytes: taken, bytes } = state.checkpoint;
  const { lines, entries } = state;
  const name = state.chosen?.name ?? "";
  const found = entries.length > 0;
  const none = found ? `No tensor has “${state.search.trim()}”.` : "The file has no tensor.";
  const share = `${formatBytes(taken)}, ${formatShare(taken / bytes)} of the file`;
  const notes = [
    prefix && `In the file, names begin with “${prefix}”.`,
    masks && `Left out: ${plural(masks, "mask")} (${share}), which are no parameters.`,
    entries.some((entry) => entry.transposed) && "T: stored transposed.",
  ];
  const titles = { name: "Tensor", shape: "Shape", dtype: "Type", bytes: "Bytes", share: "Share" };
  const heads = Object.entries(titles).map(([key, title]) =>
    html`<span class="gptlib-ce-${key}">${title}</span>`
  );
  const drawn = repeat(lines, ({ key }) => key, (line) => lineView(state, line, name));
  return html`
    <section class="gptlib-ce-browse" aria-label="Tensors of the file">
      <div class="gptlib-ce-list">
        <div class="gptlib-ce-line gptlib-ce-headings" aria-hidden="true">${heads}</div>
        <div class="gptlib-ce-scroller">
          <div class="gptlib-ce-tree" role="tree" aria-label="Tensors" ?hidden=${!lines.length}
            @keydown=${state.press} @click=${state.click}>${drawn}</div>
          <p class="gptlib-ce-none">${lines.length ? "" : none}</p>
        </div>
      </div>
      <p class="gptlib-soft gptlib-ce-notes">${notes.filter(Boolean).join(" ")}</p>
    </section>
  `;
}

/** @param {State} state */
function finderView(state) {
  const found = state.lines.filter(({ expanded }) => expanded === null).length;
  const words = `${formatCount(found)} of ${plural(state.entries.length, "tensor")}`;
  const look = (/** @type {any} */ { target }) => state.set({ search: target.value });
  return html`
    <div class="gptlib-bar gptlib-ce-finder">
      <label for=${state.id}>Find tensors</label>
      <input type="search" class="gptlib-text gptlib-ce-search" id=${state.id} spellcheck="false"
        autocomplete="off" placeholder="ln_1, bias, 0.attn …" .value=${live(state.search)}
        @keydown=${state.pressInSearch} @input=${look}>
      <span class="gptlib-soft" role="status">${state.search.trim() && words}</span>
    </div>
  `;
}

// ---------------------------------------------------------------------------------------------
// The chosen tensor

/** @param {Record<string, string>} facts by their titles */
const factsView = (facts) =>
  html`<dl class="gptlib-ce-facts">${
    Object.entries(facts).map(([title, value]) =>
      html`
        <div>
          <dt>${title}</dt>
          <dd>${value}</dd>
        </div>
      `
    )
  }</dl>`;

/** @param {State} state @param {Entry} entry */
function panelView(state, entry) {
  const share = formatShare(entry.bytes / state.checkpoint.bytes);
  const facts = {
    Shape: entry.shape.length ? formatShape(entry.shape) : "a single value",
    Type: entry.dtype,
    Values: formatCount(entry.count),
    Bytes: `${formatBytes(entry.bytes)} (${share})`,
  };
  const [mean, std, min, max] = [entry.mean, entry.std, entry.min, entry.max].map(formatValue);
  const spread = { Mean: mean, "Std. deviation": std, Smallest: min, Largest: max };
  const ours = html`ours: <code class="gptlib-ce-code">${dotted(entry.ours)}</code>`;
  return html`
    <section class="gptlib-ce-panel" aria-label="The chosen tensor" data-kind=${entry.kind}>
      <div class="gptlib-ce-top">
        <strong class="gptlib-ce-tensor">${dotted(entry.name)}</strong>
        <p class="gptlib-soft gptlib-ce-ours">${entry.ours && ours}</p>
        <p class="gptlib-ce-about">${aboutOf(entry).text}</p>
        <p class=${classes("ce-order", entry.transposed && "ce-turn")}>${orderOf(entry)}</p>
        <p class="gptlib-ce-odd">${oddOf(entry)}</p>
      </div>
      ${factsView(facts)}
      <p class="gptlib-ce-caption">Values</p>
      ${guard([entry, state.size.width()], () => histogramView(state, entry))}
      <p class="gptlib-soft gptlib-ce-cell">${state.bar || barWords(entry)}</p>
      ${factsView(spread)}
    </section>
  `;
}

/** Where the histogram's bars stand; a lone value gets a bar of its own.
 * @param {Entry} entry @param {number} width of the drawing */
function histogramOf(entry, width) {
  const found = barsOf(entry);
  const alone = !found.length; // all values are the same
  const [low, high] = alone ? [entry.low - 1, entry.low + 1] : [entry.low, entry.high];
  const one = { from: entry.low - 0.02, to: entry.low + 0.02, share: 1, normal: 0 };
  const top = Math.max(...found.flatMap(({ share, normal }) => [share, normal]), alone ? 1 : 0);
  const x = (/** @type {number} */ value) => 2 + ((value - low) / (high - low)) * (width - 4);
  const y = (/** @type {number} */ share) => 118 - (share / top) * 100;
  const all = alone ? [one] : found;
  const bars = all.map((bar) => ({ ...bar, left: x(bar.from), right: x(bar.to) }));
  const curve = found.map((bar) => `${x((bar.from + bar.to) / 2)},${y(bar.normal)}`).join(" ");
  return { bars, curve, low, high, top, x, y };
}

/** @param {State} state @param {Entry} entry */
function histogramView(state, entry) {
  const width = state.size.width();
  const words = finite(entry)
    ? `Histogram of ${entry.name}: mean ${formatValue(entry.mean)}, ` +
      `standard deviation ${formatValue(entry.std)}`
    : "No value is a finite number";
  const drawn = width && finite(entry) ? histogramOf(entry, width) : null;
  const { move, leave } = pointer(state, "bar", (across) => {
    const x = across * width;
    const bar = drawn?.bars.find(({ left, right }) => x >= left && x < right);
    if (!bar) return "";
    const [from, to] = [bar.from, bar.to].map(formatValue);
    return `${from} to ${to}: ${formatShare(bar.share)} of the values`;
  });
  return html`
    <svg class="gptlib-ce-chart" role="img" viewBox="0 0 ${width || 1} 140" height="140"
      aria-label=${words}
      ${state.size.here} @pointermove=${move} @pointerdown=${move}
      @pointerleave=${leave}>${drawn && barsView(drawn, width)}</svg>
  `;
}

/** @param {ReturnType<typeof histogramOf>} drawn @param {number} width */
function barsView({ bars, curve, low, high, top, x, y }, width) {
  const zero = svg`<line class="gptlib-ce-zero" x1=${x(0)} x2=${x(0)} y1="12" y2="118" />`;
  return svg`
    ${low <= 0 && high >= 0 ? zero : ""}
    ${bars.map(({ left, right, share }) =>
      svg`
        <rect class="gptlib-ce-bar" x=${left + 0.5} y=${y(share)}
          width=${Math.max(right - left - 1, 0.5)} height=${118 - y(share)}/>
      `
    )}
    <polyline class="gptlib-ce-normal" points=${curve}/>
    <line class="gptlib-ce-axis" x1="0" x2=${width} y1="118" y2="118"/>
    ${ticks(low, high, Math.max(2, Math.floor(width / 60))).map(({ value, text }) => {
      const half = text.length * 3.4;
      const place = Math.min(Math.max(x(value), half), width - half);
      return svg`<text x=${place} y="133" text-anchor="middle">${text}</text>`;
    })}
    <text x="0" y="10">share of the values, up to ${formatShare(top)}</text>
  `;
}

// ---------------------------------------------------------------------------------------------
// The picture

/** @param {Element} element @returns {number[]} its color: red, green, blue */
const colorOf = (element) =>
  (getComputedStyle(element).color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);

/** @param {HTMLCanvasElement} canvas @param {Entry} entry */
function paint(canvas, entry) {
  const probe = canvas.closest(".gptlib-root")?.querySelector(".gptlib-ce-probe");
  if (!probe || !canvas.isConnected) return;
  const stops = Array.from(probe.children, colorOf);
  const wrong = stops.pop() ?? [];
  const image = new ImageData(canvas.width, canvas.height);
  entry.cells.forEach((code, i) => {
    const color = code === ODD ? wrong : shade((code - ZERO) / ZERO, stops);
    image.data.set([...color, 255], 4 * i);
  });
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/** What a place in the picture stands for, given as shares of it.
 * @param {Entry} entry @param {number} across @param {number} down */
function placeWords(entry, across, down) {
  const { rows, columns, high, wide } = gridOf(entry);
  const at = (/** @type {number} */ share, /** @type {number} */ parts) =>
    Math.min(Math.max(Math.floor(share * parts), 0), parts - 1);
  const [i, j] = [at(down, rows), at(across, columns)];
  const value = averageOf(entry, entry.cells[i * columns + j]);
  const [row, column] = [section(high, rows, i), section(wide, columns, j)].map(([from, to]) =>
    from === to ? formatCount(from) : `${formatCount(from)}–${formatCount(to)}`
  );
  const where = entry.shape.length < 2 ? `values ${column}` : `rows ${row}, columns ${column}`;
  return `${where}: ${Number.isNaN(value) ? "not all finite" : formatValue(value)}`;
}

/** @param {State} state @param {Entry} entry */
function lookView(state, entry) {
  const { rows, columns, high, wide } = gridOf(entry);
  const about = aboutOf(entry);
  const seen = state.size.width() > 0; // it stands in its page
  const strip = entry.shape.length < 2;
  const [across, down] = strip
    ? [plural(entry.count, "value"), ""]
    : [`${formatCount(wide)} ${about.columns} →`, `${formatCount(high)} ${about.rows} →`];
  const { move, leave } = pointer(state, "cell", (...place) => placeWords(entry, ...place));
  const title = `${entry.name} as a picture of ${rows} by ${columns} averages, none farther ` +
    `from 0 than ${formatValue(entry.reach)}`;
  const words = rows ? state.cell || cellWords(entry) : "There is no value to draw.";
  const draw = (/** @type {HTMLCanvasElement} */ canvas) => rows && seen && paint(canvas, entry);
  return html`
    <section class="gptlib-ce-look" aria-label="Picture of the chosen tensor">
      <p class="gptlib-ce-caption">Picture</p>
      <div class="gptlib-ce-pair">
        <div class=${classes("ce-picture", strip && "ce-strip")} ?hidden=${!rows}
          style="--ratio: ${rows ? columns / rows : 1}">
          <span class="gptlib-ce-across">${across}</span>
          <span class="gptlib-ce-down">${down}</span>
          <canvas role="img" aria-label=${title} width=${columns} height=${rows}
            @pointermove=${move} @pointerdown=${move} @pointerleave=${leave}
            ${guard([entry, state.theme, seen], draw)}></canvas>
        </div>
        <div class="gptlib-ce-beside">
          <div class="gptlib-ce-scale" ?hidden=${!rows}>
            <span>${formatValue(-entry.reach)}</span><span class="gptlib-ce-ramp"></span>
            <span>${formatValue(entry.reach)}</span>
          </div>
          <p class="gptlib-soft gptlib-ce-cell">${words}</p>
          <p class="gptlib-ce-alike">${alikeOf(entry, about.rows)}</p>
        </div>
      </div>
    </section>
  `;
}

// ---------------------------------------------------------------------------------------------
// The same tensor in every block

/** @param {State} state @param {Entry} entry the chosen one, beside its namesakes of other blocks */
function blocksView(state, entry) {
  const alike = state.entries.filter(({ label, pattern }) =>
    entry.group && label === entry.label && pattern === entry.pattern
  );
  const words = alike.map(({ group, mean, std }) =>
    `${group} ${formatValue(mean)} ± ${formatValue(std)}`
  );
  const width = state.blocksSize.width();
  const draw = () => width && alike.length > 1 ? spreadsView(state, entry, alike, width) : nothing;
  return html`
    <section class="gptlib-ce-blocks" aria-label="The same tensor in every block"
      ?hidden=${alike.length < 2}>
      <p class="gptlib-ce-caption">${entry.label} in every block</p>
      <svg class="gptlib-ce-chart" role="img" viewBox="0 0 ${width || 1} 116" height="116" ${state
        .blocksSize
        .here}
        aria-label="Mean and standard deviation: ${words.join(", ")}">${guard(
          [entry, width],
          draw,
        )}</svg>
      <p class="gptlib-soft gptlib-ce-cell">Dot: mean. Line: one standard deviation up and down.</p>
    </section>
  `;
}

/** @param {State} state @param {Entry} entry @param {Entry[]} alike @param {number} width */
function spreadsView(state, entry, alike, width) {
  const low = Math.min(...alike.map(({ mean, std }) => mean - std).filter(Number.isFinite));
  const high = Math.max(...alike.map(({ mean, std }) => mean + std).filter(Number.isFinite));
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  const axis = new Map(ticks(low - room, high + room, 4).map(({ value, text }) => [value, text]));
  const left = 10 + 6.2 * Math.max(0, ...Array.from(axis.values(), (text) => text.length));
  const y = (/** @type {number} */ value) =>
    96 - ((value - low + room) / (high - low + 2 * room)) * 90;
  const pitch = (width - left) / alike.length;
  const x = (/** @type {number} */ i) => left + (i + 0.5) * pitch;
  const every = Math.ceil(18 / pitch);
  const box = { left, right: width, top: 0, bottom: 116 };
  return svg`
    ${levels(box, y, [...axis.keys()], (value) => axis.get(value) ?? "")}
    ${alike.map((one, i) => spreadView(state, one, one === entry, x(i), y, pitch))}
    ${alike.map((one, i) =>
      i % every && one !== entry ? nothing : svg`
        <text x=${x(i)} y="112" text-anchor="middle"
          class=${one === entry ? "gptlib-ce-here" : nothing}>${one.group.split(".").at(-1)}</text>
      `
    )}
  `;
}

/** @param {State} state @param {Entry} one @param {boolean} here @param {number} x
 * @param {(value: number) => number} y @param {number} pitch */
function spreadView(state, one, here, x, y, pitch) {
  const kind = here ? "gptlib-ce-here" : "gptlib-ce-there";
  const drawn = Number.isFinite(one.mean) && svg`
    <line class=${kind} x1=${x} x2=${x} y1=${y(one.mean + one.std)} y2=${y(one.mean - one.std)}/>
      <circle class=${kind} cx=${x} cy=${y(one.mean)} r=${here ? 5 : 3.5}/>
  `;
  return svg`
    ${drawn || nothing}<rect class="gptlib-ce-place" x=${x - pitch / 2} y="0" width=${pitch}
      height="116" @click=${() => state.choose(one.name)}/>
  `;
}

// ---------------------------------------------------------------------------------------------
// All together

/** @param {State} state */
function headView(state) {
  const { title, bytes, files } = state.checkpoint;
  const { entries } = state;
  const sums = [
    plural(entries.length, "tensor"),
    plural(sum(entries.map(({ count }) => count)), "value"),
    formatBytes(bytes),
    files > 1 && plural(files, "file"),
    typesOf(state).size === 1 && `all ${entries[0].dtype}`,
  ];
  return html`
    <div class="gptlib-head gptlib-ce-head">
      <strong class="gptlib-title">Inside a checkpoint: ${title}</strong>
      <p class="gptlib-soft">${sums.filter(Boolean).join(" · ")}</p>
    </div>
  `;
}

/** The colors of the picture, as the style sheet has them. */
const PROBE = html`<div class="gptlib-ce-probe">${
  [0, 1, 2, 3, 4, 5].map((stop) => html`<span style="color: var(--ce-${stop})"></span>`)
}</div>`;

const TRAITS = ["checkpoint", "tensor", "opened", "search"];

export default define("ce", TRAITS, (widget) => new State(widget));
