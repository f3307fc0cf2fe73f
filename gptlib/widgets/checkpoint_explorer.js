// What is inside a checkpoint: the tree of its tensors, and for one of them its values as a
// picture and as a histogram. Python has read the file; here nothing is computed but places.

import { measured } from "./lib/chart.js";
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
import { formatBytes, formatCount, formatShare, plural, sum } from "./lib/numbers.js";
import { withModifier } from "./lib/rove.js";

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
 *   ours: string, pattern: string, transposed: boolean, kind: string, words: string,
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
    const odd = values[NUMBERS.indexOf("nan")] +
      values[NUMBERS.indexOf("infinite")];
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
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) ??
    10 * power;
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (
    let i = Math.ceil(low / step - 1e-9);
    i * step <= high + 1e-9 * step;
    i++
  ) {
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

/** @param {Entry} entry @returns {{ text: string, rows: string, columns: string }} */
export function aboutOf(entry) {
  const [known, rows, columns] = ABOUT[entry.pattern] ??
    ["", "rows", "columns"];
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

// ---------------------------------------------------------------------------------------------
// State

/**
 * What the widget is drawn from, and what it remembers besides.
 * @param {Widget} widget
 */
function stateOf({ model, save, update }) {
  const state = {
    /** @type {Entry[]} */ entries: [],
    /** @type {Line[]} */ lines: [],
    focused: "", // the line that the Tab key reaches
    focusing: false, // it gets the focus once it is drawn
    showing: false, // the chosen line comes into sight once it is drawn
    own: false, // whether the reader has chosen, and not Python
    theme: 0, // how often the page may have taken other colors
    cell: "", // what is said of the cell and of the bar under the pointer
    bar: "",
    status: announcer(400),
    update,
    /** @returns {Checkpoint} */
    checkpoint: () => model.get("checkpoint"),
    /** @returns {string} */
    search: () => model.get("search") ?? "",
    /** @returns {string[]} */
    opened: () => model.get("opened") ?? [],
    chosen: () =>
      state.entries.find(({ name }) => name === model.get("tensor")) ?? state.entries[0],
    /** @param {Record<string, unknown>} values */
    set(values) {
      state.own = true;
      save(values);
      state.own = false;
    },
  };
  return state;
}

/** @typedef {ReturnType<typeof stateOf>} State */

/** @param {State} state */
function readFile(state) {
  state.entries = entriesOf(state.checkpoint());
  state.focused = state.chosen()?.name ?? "";
}

/**
 * List the lines that there are now; if the one with the focus is gone, another takes its place.
 * @param {State} state
 */
function listLines(state) {
  state.lines = linesOf(state.entries, state.opened(), state.search());
  if (state.lines.some(({ key }) => key === state.focused)) return;
  const name = state.chosen()?.name ?? "";
  const near = state.lines.find(({ key }) => key === name) ??
    state.lines.find(({ key }) => key === groupOf(name));
  state.focused = (near ?? state.lines[0])?.key ?? "";
}

/**
 * What the pointer does over a drawing: words say what is under it.
 * @param {State} state
 * @param {"cell" | "bar"} words
 * @param {(place: { x: number, across: number, down: number }) => string} wordsAt  `x` in pixels,
 *   the others as shares of the drawing
 */
function pointer(state, words, wordsAt) {
  const say = (/** @type {string} */ sentence) => {
    state[words] = sentence;
    state.update();
  };
  return {
    leave: () => say(""),
    move(/** @type {any} */ { currentTarget, clientX, clientY }) {
      const { left, top, width, height } = currentTarget.getBoundingClientRect();
      const x = clientX - left;
      say(wordsAt({ x, across: x / width, down: (clientY - top) / height }));
    },
  };
}

/** Choose a tensor. @param {State} state @param {string} name */
function choose(state, name) {
  state.focused = name;
  state.set({ tensor: name });
  const entry = state.chosen();
  const spread = `mean ${formatValue(entry.mean)}, standard deviation ${formatValue(entry.std)}`;
  state.status.say(`${entry.name}: ${spread}. ${orderOf(entry)} ${oddOf(entry)}`.trim());
}

/**
 * Move to a line of the tree: open or close it, or choose what it stands for.
 * @param {State} state
 * @param {number} at
 * @param {boolean} [fold]
 */
function go(state, at, fold) {
  const { key, expanded } = state.lines[at];
  [state.focused, state.focusing] = [key, true];
  if (fold !== undefined && !state.search().trim()) {
    const others = state.opened().filter((other) => other !== key);
    state.set({ opened: fold ? [...others, key] : others });
  } else if (expanded === null && key !== state.chosen()?.name) {
    choose(state, key);
  }
  state.update();
}

/** What follows when another tensor is chosen, by the reader or by Python. @param {State} state */
function onTensor(state) {
  const name = state.chosen()?.name ?? "";
  const group = groupOf(name);
  [state.cell, state.bar] = ["", ""];
  if (!state.own) [state.focused, state.showing] = [name, true];
  if (group && !state.opened().includes(group)) {
    state.set({ opened: [...state.opened(), group] }); // so that it can be seen
  }
}

// ---------------------------------------------------------------------------------------------
// The tree

/** @param {string} name  may break after a dot */
const dotted = (name) => name.split(/(?<=\.)/).map((text) => html`${text}<wbr>`);

/** @param {Line} line @param {number} all bytes of the file @returns {string} for who listens */
function lineWords({ label, expanded, entries, bytes }, all) {
  const [entry] = entries;
  const words = [label];
  if (expanded !== null) words.push(plural(entries.length, "tensor"));
  else {
    words.push(formatShape(entry.shape).replaceAll("×", "by"), entry.dtype);
    if (entry.transposed) words.push("stored transposed");
    if (entry.nan + entry.infinite) words.push("with values that are not finite");
  }
  return [...words, formatBytes(bytes), `${formatShare(bytes / all)} of the file`].join(", ");
}

/** @param {State} state @param {Line} line @param {string} name the chosen tensor's */
function lineView(state, line, name) {
  const all = state.checkpoint().bytes;
  const { key, level, expanded, entries, bytes } = line;
  const [entry] = entries;
  const single = expanded === null;
  const odd = single && entry.nan + entry.infinite > 0;
  const holds = expanded === false && groupOf(name) === key;
  return html`
    <div class=${classes("ce-line", holds && "ce-holds")} role="treeitem"
      tabindex=${key === state.focused ? 0 : -1} data-kind=${line
        .kind} aria-level=${level}
      aria-posinset=${line.position} aria-setsize=${line
        .siblings} aria-label=${lineWords(line, all)}
      aria-selected=${single && key === name} aria-expanded=${expanded ??
        nothing}>
      <span class="gptlib-ce-name"><span class="gptlib-ce-fold"></span><code
          class="gptlib-ce-code">${dotted(line.label)}</code>${odd
            ? html`<span class="gptlib-ce-wrong">NaN</span>`
            : nothing}${single
            ? nothing
            : html`<span class="gptlib-soft">${plural(entries.length, "tensor")}</span>`}</span>
      <span class="gptlib-ce-shape">${single
        ? formatShape(entry.shape)
        : ""}${single && entry.transposed
        ? html`<span class="gptlib-ce-turned" title="stored transposed">T</span>`
        : nothing}</span>
      <span class="gptlib-ce-dtype">${single ? entry.dtype : ""}</span>
      <span class="gptlib-ce-bytes">${formatBytes(bytes)}</span>
      <span class="gptlib-ce-share"
        style="--share: ${100 * bytes / all}%"><span>${formatShare(bytes / all)}</span></span>
    </div>
  `;
}

/** @param {State} state @param {KeyboardEvent} event */
function onKey(state, event) {
  const item = /** @type {HTMLElement} */ (event.target).closest('[role="treeitem"]');
  const at = [...item?.parentElement?.children ?? []].indexOf(
    /** @type {Element} */ (item),
  );
  if (at < 0 || withModifier(event)) return;
  const next = step(state.lines, at, event.key);
  if (!next) return;
  event.preventDefault();
  event.stopPropagation(); // a notebook has shortcuts of its own for these keys
  go(state, next.to, next.fold);
}

/** @param {State} state @param {Event} event */
function onClick(state, event) {
  const item = /** @type {HTMLElement} */ (event.target).closest('[role="treeitem"]');
  const at = [...item?.parentElement?.children ?? []].indexOf(
    /** @type {Element} */ (item),
  );
  if (at < 0) return;
  const { expanded } = state.lines[at];
  go(state, at, expanded === null ? undefined : !expanded);
}

/** @param {State} state */
function browseView(state) {
  const { prefix, masks, mask_bytes: taken, bytes } = state.checkpoint();
  const { lines, entries } = state;
  const name = state.chosen()?.name ?? "";
  const none = entries.length
    ? `No tensor has “${state.search().trim()}”.`
    : "The file has no tensor.";
  const share = `${formatBytes(taken)}, ${formatShare(taken / bytes)} of the file`;
  const notes = [
    prefix && `In the file, names begin with “${prefix}”.`,
    masks &&
    `Left out: ${plural(masks, "mask")} (${share}), which are no parameters.`,
    entries.some((entry) => entry.transposed) && "T: stored transposed.",
  ];
  const titles = { name: "Tensor", shape: "Shape", dtype: "Type", bytes: "Bytes", share: "Share" };
  return html`
    <section class="gptlib-ce-browse" aria-label="Tensors of the file">
      <div class="gptlib-ce-list">
        <div class="gptlib-ce-line gptlib-ce-headings"
          aria-hidden="true">${Object.entries(titles).map(([key, title]) =>
            html`<span class=${`gptlib-ce-${key}`}>${title}</span>`
          )}</div>
        <div class="gptlib-ce-scroller">
          <div class="gptlib-ce-tree" role="tree" aria-label="Tensors"
            ?hidden=${!lines.length}
            @keydown=${(/** @type {KeyboardEvent} */ event) => onKey(state, event)}
            @click=${(/** @type {Event} */ event) => onClick(state, event)}>${repeat(
              lines,
              ({ key }) => key,
              (line) => lineView(state, line, name),
            )}</div>
          <p class="gptlib-ce-none">${lines.length ? "" : none}</p>
        </div>
      </div>
      <p class="gptlib-ce-notes">${notes.filter(Boolean).join(" ")}</p>
    </section>
  `;
}

/** @param {State} state @param {string} id of the box */
function finderView(state, id) {
  const looking = state.search().trim();
  const found = state.lines.filter(({ expanded }) => expanded === null).length;
  const words = `${formatCount(found)} of ${plural(state.entries.length, "tensor")}`;
  const onSearchKey = (/** @type {any} */ event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      event.target.closest(".gptlib-root").querySelector(
        '[role="treeitem"][tabindex="0"]',
      )?.focus();
    }
    event.stopPropagation();
  };
  return html`
    <div class="gptlib-ce-finder">
      <label for=${id}>Find tensors</label>
      <input type="search" class="gptlib-text gptlib-ce-search" id=${id}
        spellcheck="false" autocomplete="off"
        placeholder="ln_1, bias, 0.attn …" .value=${live(state.search())} @keydown=${onSearchKey}
        @input=${(/** @type {any} */ event) => state.set({ search: event.target.value })}>
      <span class="gptlib-soft" role="status">${looking ? words : ""}</span>
    </div>
  `;
}

// ---------------------------------------------------------------------------------------------
// The chosen tensor

/** @param {string[]} titles @param {string[]} values */
const factsView = (titles, values) =>
  html`<dl class="gptlib-ce-facts">${
    titles.map((title, i) =>
      html`
        <div>
          <dt>${title}</dt>
          <dd>${values[i]}</dd>
        </div>
      `
    )
  }</dl>`;

/** @param {State} state @param {Entry} entry @param {ReturnType<typeof measured>} size */
function panelView(state, entry, size) {
  const bytes = `${formatBytes(entry.bytes)} (${
    formatShare(entry.bytes / state.checkpoint().bytes)
  })`;
  const shape = entry.shape.length ? formatShape(entry.shape) : "a single value";
  const spread = [entry.mean, entry.std, entry.min, entry.max].map(formatValue);
  const ours = html`ours: <code class="gptlib-ce-code">${dotted(entry.ours)}</code>`;
  return html`
    <section class="gptlib-ce-panel" aria-label="The chosen tensor"
      data-kind=${entry.kind}>
        <div class="gptlib-ce-top">
          <strong class="gptlib-ce-tensor">${dotted(entry.name)}</strong>
          <p class="gptlib-ce-ours">${entry.ours ? ours : ""}</p>
          <p class="gptlib-ce-about">${aboutOf(entry).text}</p>
          <p class=${classes("ce-order", entry.transposed && "ce-turn")}>${orderOf(entry)}</p>
          <p class="gptlib-ce-odd">${oddOf(entry)}</p>
        </div>
        ${factsView(["Shape", "Type", "Values", "Bytes"], [
          shape,
          entry.dtype,
          formatCount(entry.count),
          bytes,
        ])}
        <p class="gptlib-ce-caption">Values</p>
        ${guard([entry, size.width()], () => histogramView(state, entry, size))}
        <p class="gptlib-ce-cell">${state.bar || barWords(entry)}</p>
        ${factsView(["Mean", "Std. deviation", "Smallest", "Largest"], spread)}
      </section>
  `;
}

/**
 * Where the histogram's bars stand in a drawing of some width; a lone value gets a bar of its own.
 * @param {Entry} entry
 * @param {number} width
 */
function histogramOf(entry, width) {
  const found = barsOf(entry);
  const alone = !found.length; // all values are the same
  const [low, high] = alone ? [entry.low - 1, entry.low + 1] : [entry.low, entry.high];
  const one = { from: entry.low - 0.02, to: entry.low + 0.02, share: 1, normal: 0 };
  const top = Math.max(...found.flatMap(({ share, normal }) => [share, normal]), alone ? 1 : 0);
  const x = (/** @type {number} */ value) => 2 + ((value - low) / (high - low)) * (width - 4);
  const y = (/** @type {number} */ share) => 118 - (share / top) * 100;
  const bars = (alone ? [one] : found).map((bar) => ({
    ...bar,
    left: x(bar.from),
    right: x(bar.to),
  }));
  const curve = found.map((bar) => `${x((bar.from + bar.to) / 2)},${y(bar.normal)}`).join(" ");
  return { bars, curve, low, high, top, x, y };
}

/** @param {State} state @param {Entry} entry @param {ReturnType<typeof measured>} size */
function histogramView(state, entry, size) {
  const width = size.width();
  const blank = !width || !finite(entry);
  const words = finite(entry)
    ? `Histogram of ${entry.name}: mean ${formatValue(entry.mean)}, ` +
      `standard deviation ${formatValue(entry.std)}`
    : "No value is a finite number";
  const drawn = blank ? null : histogramOf(entry, width);
  const { move, leave } = pointer(state, "bar", ({ x }) => {
    const bar = drawn?.bars.find(({ left, right }) => x >= left && x < right);
    if (!bar) return "";
    return `${formatValue(bar.from)} to ${formatValue(bar.to)}: ${
      formatShare(bar.share)
    } of the values`;
  });
  return html`
    <svg class="gptlib-ce-chart" role="img" viewBox="0 0 ${width || 1} 140"
      aria-label=${words} ${size.here} @pointermove=${move}
      @pointerdown=${move}
      @pointerleave=${leave}>${drawn ? barsView(drawn, width) : nothing}</svg>
  `;
}

/** @param {ReturnType<typeof histogramOf>} drawn @param {number} width */
function barsView({ bars, curve, low, high, top, x, y }, width) {
  const zero = low <= 0 && high >= 0;
  return svg`
    ${zero
      ? svg`
        <line class="gptlib-ce-zero" x1=${x(0)} x2=${x(0)} y1="12" y2="118" />
      `
      : nothing}
    ${bars.map(({ left, right, share }) =>
      svg`
        <rect class="gptlib-ce-bar" x=${left + 0.5} y=${y(share)}
          width=${Math.max(right - left - 1, 0.5)} height=${118 - y(share)}/>
      `
    )}
    <polyline class="gptlib-ce-normal" points=${curve}/>
    <line class="gptlib-ce-axis" x1="0" x2=${width} y1="118" y2="118"/>
    ${ticks(low, high, Math.max(2, Math.floor(width / 60))).map(
      ({ value, text }) => {
        const half = text.length * 3.4;
        const place = Math.min(Math.max(x(value), half), width - half);
        return svg`<text x=${place} y="133" text-anchor="middle">${text}</text>`;
      },
    )}
    <text x="0" y="10">share of the values, up to ${formatShare(top)}</text>
  `;
}

// ---------------------------------------------------------------------------------------------
// The picture

/** @param {HTMLElement} probe @returns {number[][]} the colors of its children: red, green, blue */
const colorsOf = (probe) =>
  Array.from(
    probe.children,
    (child) => (getComputedStyle(child).color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number),
  );

/** @param {HTMLCanvasElement} canvas @param {Entry} entry */
function paint(canvas, entry) {
  const probe = canvas.closest(".gptlib-root")?.querySelector(".gptlib-ce-probe");
  if (!probe || !canvas.isConnected) return;
  const stops = colorsOf(/** @type {HTMLElement} */ (probe));
  const wrong = stops.pop() ?? [];
  const image = new ImageData(canvas.width, canvas.height);
  entry.cells.forEach((code, i) => {
    const color = code === ODD ? wrong : shade((code - ZERO) / ZERO, stops);
    image.data.set([...color, 255], 4 * i);
  });
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/**
 * What a place in the picture stands for.
 * @param {Entry} entry
 * @param {{ across: number, down: number }} place as shares of it
 */
function placeWords(entry, { across, down }) {
  const { rows, columns, high, wide } = gridOf(entry);
  const at = (/** @type {number} */ share, /** @type {number} */ parts) =>
    Math.min(Math.max(Math.floor(share * parts), 0), parts - 1);
  const [i, j] = [at(down, rows), at(across, columns)];
  const value = averageOf(entry, entry.cells[i * columns + j]);
  const span = (/** @type {[number, number]} */ [from, to]) =>
    from === to ? formatCount(from) : `${formatCount(from)}–${formatCount(to)}`;
  const [row, column] = [span(section(high, rows, i)), span(section(wide, columns, j))];
  const where = entry.shape.length < 2 ? `values ${column}` : `rows ${row}, columns ${column}`;
  return `${where}: ${Number.isNaN(value) ? "not all finite" : formatValue(value)}`;
}

/** @param {State} state @param {Entry} entry @param {boolean} seen whether it stands in its page */
function lookView(state, entry, seen) {
  const { rows, columns, high, wide } = gridOf(entry);
  const about = aboutOf(entry);
  const strip = entry.shape.length < 2;
  const { move, leave } = pointer(state, "cell", (place) => placeWords(entry, place));
  const title = `${entry.name} as a picture of ${rows} by ${columns} averages, none farther ` +
    `from 0 than ${formatValue(entry.reach)}`;
  const words = rows ? state.cell || cellWords(entry) : "There is no value to draw.";
  return html`
    <section class="gptlib-ce-look" aria-label="Picture of the chosen tensor">
      <p class="gptlib-ce-caption">Picture</p>
      <div class="gptlib-ce-pair">
          <div class=${classes("ce-picture", strip && "ce-strip")} ?hidden=${!rows}
            style="--ratio: ${rows ? columns / rows : 1}">
            <span class="gptlib-ce-across">${strip
              ? plural(entry.count, "value")
              : `${formatCount(wide)} ${about.columns} →`}</span>
            <span class="gptlib-ce-down">${strip
              ? ""
              : `${formatCount(high)} ${about.rows} →`}</span>
            <canvas role="img" aria-label=${title} width=${columns} height=${rows}
              @pointermove=${move} @pointerdown=${move} @pointerleave=${leave}
              ${guard(
                [entry, state.theme, seen],
                (canvas) => rows && seen && paint(canvas, entry),
              )}>
            </canvas>
          </div>
          ${besideView(entry, words, about.rows)}
        </div>
    </section>
  `;
}

/** @param {Entry} entry @param {string} words @param {string} rows what its rows are */
const besideView = (entry, words, rows) =>
  html`
    <div class="gptlib-ce-beside">
      <div class="gptlib-ce-scale" ?hidden=${!entry.rows}>
          <span>${formatValue(-entry.reach)}</span><span class="gptlib-ce-ramp"></span>
          <span>${formatValue(entry.reach)}</span>
        </div>
      <p class="gptlib-ce-cell">${words}</p>
      <p class="gptlib-ce-alike">${alikeOf(entry, rows)}</p>
    </div>
  `;

// ---------------------------------------------------------------------------------------------
// The same tensor in every block

/**
 * @param {State} state
 * @param {Entry} entry the chosen one; its namesakes in the other blocks are drawn beside it
 * @param {ReturnType<typeof measured>} size
 */
function blocksView(state, entry, size) {
  const alike = state.entries.filter((other) =>
    entry.group && other.label === entry.label &&
    other.pattern === entry.pattern
  );
  const words = alike.map((one) =>
    `${one.group} ${formatValue(one.mean)} ± ${formatValue(one.std)}`
  );
  const width = size.width();
  const draw = () => width && alike.length > 1 ? spreadsView(state, entry, alike, width) : nothing;
  return html`
    <section class="gptlib-ce-blocks" aria-label="The same tensor in every block"
      ?hidden=${alike.length < 2}>
      <p class="gptlib-ce-caption">${entry.label} in every block</p>
      <svg class="gptlib-ce-chart" role="img" viewBox="0 0 ${width || 1} 116"
        ${size.here}
        aria-label="Mean and standard deviation: ${words.join(", ")}">${guard([
          entry,
          width,
        ], draw)}</svg>
      <p
        class="gptlib-ce-cell">Dot: mean. Line: one standard deviation up and down.</p>
    </section>
  `;
}

/** @param {State} state @param {Entry} entry @param {Entry[]} alike @param {number} width */
function spreadsView(state, entry, alike, width) {
  const low = Math.min(...alike.map(({ mean, std }) => mean - std).filter(Number.isFinite));
  const high = Math.max(...alike.map(({ mean, std }) => mean + std).filter(Number.isFinite));
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  const axis = ticks(low - room, high + room, 4);
  const left = 10 + 6.2 * Math.max(0, ...axis.map(({ text }) => text.length));
  const y = (/** @type {number} */ value) =>
    96 - ((value - low + room) / (high - low + 2 * room)) * 90;
  const pitch = (width - left) / alike.length;
  const x = (/** @type {number} */ i) => left + (i + 0.5) * pitch;
  const every = Math.ceil(18 / pitch);
  return svg`
    ${axis.map(({ value, text }) =>
      svg`
        <line class="gptlib-ce-grid" x1=${left} x2=${width} y1=${y(value)}
          y2=${y(value)}/>
          <text x=${left - 5} y=${y(value) + 4} text-anchor="end">${text}</text>
      `
    )}
    ${alike.map((one, i) => spreadView(state, one, one === entry, x(i), y, pitch))}
    ${alike.map((one, i) =>
      i % every && one !== entry ? nothing : svg`
        <text x=${x(i)} y="112" text-anchor="middle"
          class=${one === entry ? "gptlib-ce-here" : nothing}>${one.group.split(".").at(-1)}</text>
      `
    )}
  `;
}

/**
 * @param {State} state
 * @param {Entry} one
 * @param {boolean} here
 * @param {number} x
 * @param {(value: number) => number} y
 * @param {number} pitch
 */
function spreadView(state, one, here, x, y, pitch) {
  const kind = here ? "gptlib-ce-here" : "gptlib-ce-there";
  const drawn = Number.isFinite(one.mean) && svg`
    <line class=${kind} x1=${x} x2=${x} y1=${y(one.mean + one.std)}
      y2=${y(one.mean - one.std)}/>
      <circle class=${kind} cx=${x} cy=${y(one.mean)} r=${here ? 5 : 3.5}/>
  `;
  return svg`
    ${drawn || nothing}<rect class="gptlib-ce-place" x=${x - pitch / 2} y="0"
      width=${pitch} height="116" @click=${() => choose(state, one.name)}/>
  `;
}

// ---------------------------------------------------------------------------------------------
// All together

/** @param {State} state */
function headView({ checkpoint, entries }) {
  const { title, bytes, files } = checkpoint();
  const types = new Set(entries.map(({ dtype }) => dtype));
  const sums = [
    plural(entries.length, "tensor"),
    plural(sum(entries.map(({ count }) => count)), "value"),
    formatBytes(bytes),
    files > 1 && plural(files, "file"),
    types.size === 1 && `all ${entries[0].dtype}`,
  ];
  return html`
    <div class="gptlib-ce-head">
      <strong class="gptlib-title">Inside a checkpoint: ${title}</strong>
      <p class="gptlib-soft">${sums.filter(Boolean).join(" · ")}</p>
    </div>
  `;
}

/** The colors of the picture, as the style sheet has them. */
const PROBE = html`<div class="gptlib-ce-probe">${
  [0, 1, 2, 3, 4, 5].map((stop) => html`<span style="color: var(--ce-${stop})"></span>`)
}</div>`;

/**
 * Give the focus to the line that has to have it, and bring the chosen one into sight.
 * @param {State} state
 * @param {HTMLElement} root
 */
function settle(state, root) {
  const types = new Set(state.entries.map(({ dtype }) => dtype));
  root.classList.toggle("gptlib-ce-mixed", types.size > 1);
  /** @type {HTMLElement | null} */
  const line = root.querySelector('[role="treeitem"][tabindex="0"]');
  if (state.focusing) line?.focus({ preventScroll: true });
  if (state.focusing) line?.scrollIntoView({ block: "nearest" });
  const selected = root.querySelector('[aria-selected="true"]');
  if (state.showing) selected?.scrollIntoView({ block: "nearest" });
  state.focusing = state.showing = false;
}

/** @param {Widget} widget */
function setUp(widget) {
  const { model, root, update } = widget;
  const state = stateOf(widget);
  const id = uniqueName();
  const [size, blocksSize] = [measured(update), measured(update)];
  const endTheme = onTheme(() => {
    state.theme++;
    update();
  });
  const listeners = { checkpoint: () => readFile(state), tensor: () => onTensor(state) };
  for (const [name, hear] of Object.entries(listeners)) model.on(`change:${name}`, hear);
  state.status.element.classList.add("gptlib-ce-hidden");
  readFile(state);
  return {
    view() {
      const inTree = root.querySelector('[role="tree"]')?.contains(document.activeElement);
      listLines(state);
      state.focusing ||= Boolean(inTree);
      const entry = state.chosen();
      const chosen = entry && html`
        ${panelView(state, entry, size)} ${lookView(state, entry, size.width() > 0)}
        ${blocksView(state, entry, blocksSize)}
      `;
      return html`<div class="gptlib-layout gptlib-ce-layout">
        ${headView(state)} ${finderView(state, `${id}-search`)}
        <div class="gptlib-ce-views">${browseView(state)} ${chosen ?? nothing}</div>
        ${state.status.element} ${PROBE}
      </div>`;
    },
    drawn: () => settle(state, root),
    close() {
      for (const [name, hear] of Object.entries(listeners)) model.off(`change:${name}`, hear);
      for (const part of [size, blocksSize, state.status]) part.close();
      endTheme();
    },
  };
}

export default define("ce", ["checkpoint", "tensor", "opened", "search"], setUp);
