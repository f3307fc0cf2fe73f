// Where the parameters of a GPT are: areas that open, from the whole model to a single matrix, and
// controls that turn one model into another. All numbers are computed here.

import {
  BYTES,
  memberOf,
  modelName,
  parameters,
  problem,
  total,
  trainingBytes,
} from "./lib/accounting.js";
import {
  classes,
  define,
  html,
  nothing,
  repeat,
  swatch,
  table,
  tableRow,
  tick,
} from "./lib/kit.js";
import { formatBytes, formatCount, formatShare, formatShort, range, sum } from "./lib/numbers.js";
import { moved } from "./lib/rove.js";
import {
  familyChoice,
  fieldView,
  heldView,
  Settings,
  sizeBox,
  SIZES,
  typeChoice,
} from "./lib/settings.js";

/** @import { Config } from "./lib/accounting.js" */
/** @import { Widget } from "./lib/kit.js" */
/**
 * @typedef {{
 *   path: string, title: string, kind: string, each: number, times: number, count: number,
 *   formula: string, shape: number[], children: Part[],
 * }} Part  `each` parameters, `times` times in the model; a single matrix or vector has a shape
 * @typedef {{ title: string, kind: string, shape: string[], parts: Record<string, Plan> }} Plan
 * @typedef {{ x: number, y: number, width: number, height: number }} Area  in shares of the whole
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

/** @type {(title: string, kind: string, ...shape: string[]) => Plan} */
const single = (title, kind, ...shape) => ({ title, kind, shape, parts: {} });

/** @type {(title: string, kind: string, parts: Record<string, Plan>) => Plan} */
const group = (title, kind, parts) => ({ title, kind, shape: [], parts });

/** @param {string} title @returns {Plan} */
const norm = (title) =>
  group(title, "norm", {
    scale: single("Scale", "norm", "C"),
    shift: single("Shift", "norm", "C"),
  });

/** @type {(title: string, kind: string, rows: string, columns: string) => Plan} */
const linear = (title, kind, rows, columns) =>
  group(title, kind, {
    weight: single("Weight", kind, rows, columns),
    bias: single("Bias", kind, rows),
  });

/** The parts under the names of gptlib.model, in its order. */
const PLAN = group("Whole model", "plain", {
  token_embedding: single("Token embedding", "embedding", "V", "C"),
  position_embedding: single("Position embedding", "embedding", "T", "C"),
  blocks: group("Transformer blocks", "plain", {
    norm_1: norm("Norm 1"),
    attention: group("Attention", "attention", {
      query_key_value: linear("Query, key, value", "attention", "3C", "C"),
      projection: linear("Projection", "attention", "C", "C"),
    }),
    norm_2: norm("Norm 2"),
    feed_forward: group("Feed-forward", "feed-forward", {
      expand: linear("Expand", "feed-forward", "4C", "C"),
      projection: linear("Projection", "feed-forward", "C", "4C"),
    }),
  }),
  final_norm: norm("Final norm"),
  output_head: single("Output head", "head", "V", "C"),
});

/** @param {string} path @param {string} name @returns {string} the path of a part */
const below = (path, name) => (path ? `${path}/${name}` : name);

/** @param {string} path @returns {string} */
const nameOf = (path) => path.split("/").at(-1) ?? "";

/** @param {string} path @returns {string} */
const parentOf = (path) => path.split("/").slice(0, -1).join("/");

/** @param {string} symbol such as V, or 3C @param {Config} config @returns {number} */
function size(symbol, config) {
  const { vocab_size: V, context_length: T, emb_dim: C } = config;
  const value = /** @type {Record<string, number>} */ ({ V, T, C })[symbol.slice(-1)];
  return Number(symbol.slice(0, -1) || 1) * value;
}

/** @param {string} path @param {Config} config @returns {boolean} whether it is left out */
function absent(path, config) {
  if (path === "output_head") return config.tie_head;
  return path === "blocks/attention/query_key_value/bias" && !config.qkv_bias;
}

/** @param {Config} config @returns {Part} the parts of a model, with what each one counts */
export const tree = (config) => grow("", PLAN, config, 1);

/** @param {string} path @param {Plan} plan @param {Config} config @param {number} times
 * @returns {Part} */
function grow(path, plan, config, times) {
  const inner = path === "blocks" ? config.n_layers : times;
  const children = Object.entries(plan.parts).map(([name, part]) =>
    grow(below(path, name), part, config, inner)
  );
  const shape = plan.shape.map((symbol) => size(symbol, config));
  const own = absent(path, config) ? 0 : shape.reduce((product, n) => product * n, 1);
  // The model counts all of its blocks, so what it holds is not the sum of its parts' `each`.
  const each = children.length ? sum(children.map((part) => path ? part.each : part.count)) : own;
  const formula = formulaOf(path, plan, config);
  const { title, kind } = plan;
  return { path, title, kind, shape, children, formula, times: inner, each, count: each * inner };
}

/** The count of a part in symbols, for one block where the part is in the blocks.
 * @param {string} path @param {Plan} plan @param {Config} config @returns {string} */
function formulaOf(path, plan, config) {
  if (path === "") {
    const { blocks, ...others } = plan.parts;
    const terms = Object.entries(others).map(([name, part]) => formulaOf(name, part, config));
    terms.splice(2, 0, `L · (${formulaOf("blocks", blocks, config)})`);
    return terms.filter((term) => term !== "0").join(" + ");
  }
  const terms = Object.entries(counted(path, plan, config));
  const sorted = terms.sort(([a], [b]) => b.length - a.length); // C² before C
  return sorted.map(([term, n]) => (n === 1 ? term : `${n} · ${term}`)).join(" + ") || "0";
}

/** How often each product of symbols is in a part: {"C²": 4, "C": 4}.
 * @param {string} path @param {Plan} plan @param {Config} config
 * @returns {Record<string, number>} */
function counted(path, plan, config) {
  /** @type {Record<string, number>} */
  const terms = {};
  if (plan.shape.length && !absent(path, config)) {
    const factor = plan.shape.reduce((product, s) => product * Number(s.slice(0, -1) || 1), 1);
    const letters = plan.shape.map((symbol) => symbol.slice(-1));
    terms[letters.join(" · ").replace("C · C", "C²")] = factor;
  }
  for (const [name, part] of Object.entries(plan.parts)) {
    for (const [term, n] of Object.entries(counted(`${path}/${name}`, part, config))) {
      terms[term] = (terms[term] ?? 0) + n;
    }
  }
  return terms;
}

/** @param {Part} root @param {string} path @returns {Part} */
export function find(root, path) {
  const into = (/** @type {Part} */ part, /** @type {string} */ name) =>
    part.children.find((one) => nameOf(one.path) === name) ?? part;
  return path.split("/").reduce(into, root);
}

/** @returns {string[]} the paths of all parts, in the model's order */
export function paths(path = "", plan = PLAN) {
  const parts = Object.entries(plan.parts);
  return [path, ...parts.flatMap(([name, part]) => paths(below(path, name), part))];
}

/** Every parameter's name and shape, as gptlib.accounting.shapes lists them.
 * @param {Config} config @returns {Record<string, number[]>} */
export function shapes(config) {
  /** @type {Record<string, number[]>} */
  const named = {};
  /** @param {Part} part @param {string} name */
  const add = (part, name) => {
    if (part.shape.length && part.count) {
      named[name.includes(".") ? name : `${name}.weight`] = part.shape;
    }
    for (const child of part.children) add(child, `${name}.${nameOf(child.path)}`);
  };
  for (const part of tree(config).children) {
    if (part.path !== "blocks") add(part, part.path);
    else for (let i = 0; i < config.n_layers; i++) add(part, `blocks.${i}`);
  }
  return named;
}

/** How a configuration grows: its counts over those of another one.
 * @param {Config} now @param {Config} before
 * @returns {{ embeddings: number, blocks: number, all: number }} */
export function growth(now, before) {
  const [a, b] = [now, before].map((config) => {
    const counts = parameters(config);
    const embeddings = counts.token_embedding + counts.position_embedding + counts.output_head;
    const all = total(config);
    return { embeddings, blocks: all - embeddings - counts.final_norm, all };
  });
  return {
    embeddings: a.embeddings / b.embeddings,
    blocks: a.blocks / b.blocks,
    all: a.all / b.all,
  };
}

/**
 * A factor to three digits, below 1 to two; without decimals if it is exact: 2, but 2.00 for 1.996.
 * @param {number} factor
 * @returns {string}
 */
export function formatFactor(factor) {
  if (factor >= 100) return formatCount(Math.round(factor));
  return Number.isInteger(factor) ? String(factor) : factor.toPrecision(factor < 1 ? 2 : 3);
}

// ---------------------------------------------------------------------------------------------
// Areas and sliders

/** The areas of a part's children. Their order never changes, so the eye can follow them as the
 * sizes do: strips side by side, or on top of one another. In the whole model, the data flows
 * from left to right; embeddings share one strip, and so do final norm and head.
 * @param {Part} part @param {boolean} upright whether the strips lie on top of one another
 * @returns {Area[]} */
export function areas(part, upright = false) {
  const { children } = part;
  const groups = part.path
    ? children.map((child) => [child])
    : [children.slice(0, 2), children.slice(2, 3), children.slice(3)];
  const counts = (/** @type {Part[]} */ parts) => sum(parts.map((child) => child.count));
  const whole = counts(children);
  let start = 0;
  return groups.flatMap((group) => {
    const inGroup = counts(group);
    const extent = whole ? inGroup / whole : 0;
    let offset = 0;
    const strips = group.map((child) => {
      const length = inGroup ? child.count / inGroup : 0;
      const area = { x: start, y: offset, width: extent, height: length };
      offset += length;
      return upright ? { x: area.y, y: area.x, width: area.height, height: area.width } : area;
    });
    start += extent;
    return strips;
  });
}

/** @type {Record<string, { symbol: string, least: number, most: number }>} */
const SLIDERS = {
  n_layers: { symbol: "L", least: 1, most: 128 },
  emb_dim: { symbol: "C", least: 32, most: 16_384 },
  n_heads: { symbol: "H", least: 1, most: 128 },
  vocab_size: { symbol: "V", least: 256, most: 262_144 },
  context_length: { symbol: "T", least: 32, most: 131_072 },
};

/** The values at which a slider stops; each of them gives a valid configuration.
 * @param {string} name @param {Config} config
 * @param {number[]} known values that must be among them @returns {number[]} */
export function stops(name, config, known = []) {
  const { least, most } = SLIDERS[name];
  const now = /** @type {any} */ (config)[name];
  let values = [now];
  if (name === "n_layers") values = range(least, most, 1);
  else if (name === "n_heads") {
    values = range(least, most, 1).filter((n) => config.emb_dim % n === 0);
  } else {
    // 16 steps from each power of two to the next: 64, 68, 72 … 128, 136, 144 …
    for (let power = least; power < most; power *= 2) {
      for (let step = 16; step < 32; step++) values.push(Math.round((power * step) / 16));
    }
    values.push(most, ...known);
    if (name === "emb_dim") {
      const { n_heads: heads } = config;
      values = values.map((value) => Math.max(1, Math.round(value / heads)) * heads);
    }
  }
  return [...new Set([...values, now])].sort((a, b) => a - b);
}

// ---------------------------------------------------------------------------------------------
// What a matrix is for

/** @param {number} channels @returns {string} the shape of what passes */
const vectors = (channels) => `(B, T, ${channels})`;

/** @param {number} from @param {number} to @returns {string} */
const flow = (from, to) => `${vectors(from)} → ${vectors(to)}`;

/** What a matrix or a vector does, and what goes in and out; by the end of its path.
 * @type {Record<string, (config: Config) => [string, string?]>} */
const MEANINGS = {
  token_embedding: ({ vocab_size: v, emb_dim: c, tie_head }) => [
    `A row of ${formatCount(c)} numbers for each of the ${formatCount(v)} tokens. A token's id ` +
    `picks its row.${tie_head ? " The output head uses the same matrix a second time." : ""}`,
    `ids (B, T) → ${vectors(c)}`,
  ],
  position_embedding: ({ context_length: t, emb_dim: c }) => [
    `A row of ${formatCount(c)} numbers for each of the ${formatCount(t)} positions, added to ` +
    "the row of the token that stands there.",
    `positions (T,) → (T, ${c})`,
  ],
  "query_key_value/weight": ({ emb_dim: c, n_heads: heads }) => [
    "Multiplies the vector of each position. Its rows make the query, then the key, then the " +
    `value, each of them cut into ${heads === 1 ? "1 head" : `${heads} heads`} of ${c / heads}.`,
    flow(c, 3 * c),
  ],
  "query_key_value/bias": ({ qkv_bias }) => [
    qkv_bias
      ? "Added to the query, the key and the value of each position."
      : "This model has none: qkv_bias is off.",
  ],
  "attention/projection/weight": ({ emb_dim: c }) => [
    "Mixes what the heads have gathered, and brings it back to the channels that all blocks share.",
    flow(c, c),
  ],
  "feed_forward/expand/weight": ({ emb_dim: c }) => [
    `Widens the vector of each position from ${formatCount(c)} numbers to ` +
    `${formatCount(4 * c)}, before the GELU bends them.`,
    flow(c, 4 * c),
  ],
  "feed_forward/projection/weight": ({ emb_dim: c }) => [
    `Brings the ${formatCount(4 * c)} numbers of each position back to ${formatCount(c)}.`,
    flow(4 * c, c),
  ],
  bias: () => ["Added to what the weight has made of each position."],
  scale: () => ["Multiplies each channel, once it has mean 0 and variance 1."],
  shift: () => ["Added to each channel, after the scale."],
  output_head: ({ vocab_size: v, emb_dim: c, tie_head }) => [
    tie_head
      ? "Tied: it multiplies with the token embedding's matrix, and has no parameters of its own."
      : `Multiplies the vector of each position with ${formatCount(v)} rows, one for each token. ` +
        "Each product is the score of that token.",
    flow(c, v),
  ],
};

/** What a single matrix or vector does, in words, and what goes in and out.
 * @param {Part} part @param {Config} config @returns {{ words: string, flow: string }} */
export function explain(part, config) {
  const end = Object.keys(MEANINGS).find((one) => part.path.endsWith(one)) ?? "";
  const [words, way = flow(part.shape[0], part.shape[0])] = MEANINGS[end](config);
  return { words, flow: way };
}

// ---------------------------------------------------------------------------------------------
// Drawing

/** Why a part has no parameters. @type {Record<string, string>} */
const ABSENT = {
  output_head: "tied to the token embedding",
  "blocks/attention/query_key_value/bias": "qkv_bias is off",
};

/** What the widget is drawn from, and what it remembers besides. */
class State extends Settings {
  lit = ""; // the part under the pointer or with the focus
  current = ""; // the part whose row the Tab key reaches
  /** @type {string | null} the part whose row gets the focus once it is drawn */
  focus = null;
  /** @type {Keyframe | null} how what opens starts */
  opening = null;

  /** @param {Widget} widget */
  constructor(widget) {
    super(widget, ["config"]);
  }

  /** @returns {string} */
  path() {
    return this.model.get("path");
  }

  /** @returns {string} */
  dtype() {
    return this.model.get("dtype");
  }

  /** @returns {Config} */
  start() {
    return this.model.get("start") ?? this.config();
  }

  grown() {
    return JSON.stringify(this.start()) !== JSON.stringify(this.config());
  }

  back() {
    this.configure({ ...this.start() });
    this.widget.root.querySelector("select")?.focus(); // the button is gone
  }

  /** @param {string} path @param {string} [focus] the part whose row gets the focus */
  open(path, focus) {
    const picture = /** @type {Element} */ (this.widget.root.querySelector(".gptlib-pb-picture"));
    const area = picture.querySelector(`[data-path="${path}"]`);
    this.opening = area && opening(area, picture);
    this.focus = focus ?? null;
    this.current = focus ?? this.current;
    this.widget.save({ path });
    this.widget.update();
  }

  /** @param {Event} event that puts light on a part, or takes it away */
  light = ({ type, target }) => {
    const over = /** @type {HTMLElement | null} */ (
      /** @type {HTMLElement} */ (target).closest("[data-path]")
    );
    const ends = type === "pointerleave" || type === "focusout";
    this.lit = !ends && over?.dataset.path || "";
    if (type === "focusin" && this.lit) this.current = this.lit;
    this.widget.update();
  };

  view() {
    const scene = sceneOf(this);
    this.tell(inWords(scene));
    return html`<div class="gptlib-layout">
      <div class="gptlib-head">
        <strong class="gptlib-title">Where the parameters are</strong>
        ${familyChoice(this)}
      </div>
      ${totalView(this, scene)} ${controlsView(this)} ${placeView(this, scene)}
      <div class="gptlib-cards">${growthCard(this)} ${memoryCard(this)}</div>
      ${this.status.element}
    </div>`;
  }

  drawn() {
    const { root } = this.widget;
    if (this.opening) animate(root, this.opening);
    if (this.focus !== null) focusRow(root, this.focus);
    this.opening = this.focus = null;
  }
}

/** How a part that opens starts: over the area that stood for it.
 * @param {Element} from @param {Element} picture @returns {Keyframe} */
function opening(from, picture) {
  const [a, b] = [from.getBoundingClientRect(), picture.getBoundingClientRect()];
  const scale = `scale(${a.width / b.width}, ${a.height / b.height})`;
  return {
    transformOrigin: "0 0",
    transform: `translate(${a.left - b.left}px, ${a.top - b.top}px) ${scale}`,
    opacity: 0.3,
  };
}

/** @param {Element} root @param {Keyframe} first */
function animate(root, first) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const last = { transform: "none", opacity: 1 };
  for (const element of root.querySelectorAll(".gptlib-pb-picture > *")) {
    element.animate([first, last], { duration: 220, easing: "cubic-bezier(.2,.7,.2,1)" });
  }
}

/** The part that is open, and the one whose parts the table lists: a matrix has none itself.
 * @param {State} state */
function sceneOf(state) {
  const whole = tree(state.config());
  const part = find(whole, state.path());
  const holder = part.children.length ? part : find(whole, parentOf(part.path));
  return { whole, part, holder, inside: holder.path.startsWith("blocks") };
}

/** @typedef {ReturnType<typeof sceneOf>} Scene */

/** @param {State} state @param {Scene} scene */
function totalView(state, { whole: { count } }) {
  const start = state.start();
  const before = total(start);
  const name = memberOf(start, state.family())?.name;
  const label = name ? modelName(name) : "the start";
  // What shows no change keeps its place, so that a slider stays under the finger that moves it.
  const unseen = !state.grown() && "pb-unseen";
  const width = (/** @type {number} */ n) => `width: ${(100 * n) / Math.max(before, count)}%`;
  return html`
    <div class="gptlib-head gptlib-pb-sum">
      <div class="gptlib-pb-total"><b>${formatCount(count)}</b> parameters<span
          class="gptlib-pb-short">${count < 1000 ? "" : ` ≈ ${formatShort(count)}`}</span></div>
      <div class="gptlib-bar gptlib-pb-since">
        <span class="gptlib-pb-ratio">${formatFactor(count / before)} × ${label}</span>
        <button type="button" class=${classes("button", unseen)} aria-label="Back to ${label}"
          @click=${() => state.back()}>Back</button>
      </div>
      <div class=${classes("pb-scale", unseen)} aria-hidden="true">
        <span style=${width(count)}></span><span style=${width(before)}></span>
      </div>
    </div>
  `;
}

/** @param {State} state @param {string} name */
function sizeField(state, name) {
  const config = /** @type {any} */ (state.config());
  const known = [...state.family(), state.start()].map((one) => /** @type {any} */ (one)[name]);
  return fieldView(state, name, {
    title: SIZES[name],
    unit: SLIDERS[name].symbol,
    value: config[name],
    text: formatCount(config[name]),
    box: sizeBox(state, name),
    stops: () => stops(name, config, known),
    change: state.configure,
  });
}

/** @param {State} state */
function controlsView(state) {
  const config = /** @type {any} */ (state.config());
  const flags = { qkv_bias: "Biases of query, key, value", tie_head: "Tied output head" };
  const switches = Object.entries(flags).map(([name, title]) =>
    tick(title, config[name], (on) => state.configure({ [name]: on }), { field: name })
  );
  return html`
    <div role="group" aria-label="Configuration">
      <div class="gptlib-controls">
          ${Object.keys(SIZES).map((name) => sizeField(state, name))}
          <div class="gptlib-pb-switches">${switches}</div>
        </div>
      <p class="gptlib-error" role="alert">${state.error}</p>
    </div>
  `;
}

/** @param {Area} area @returns {string} what is thinner than a line is a line, in the picture */
const placed = ({ x, y, width, height }) =>
  `left: min(${100 * x}%, 100% - 2px); top: min(${100 * y}%, 100% - 2px); ` +
  `width: ${100 * width}%; height: ${100 * height}%`;

/** @param {Part} part @returns {string} */
const titleOf = ({ path, title, times }) => (path === "blocks" ? `${title} × ${times}` : title);

/** One area of the picture, with the areas of its own parts inside.
 * @param {State} state @param {Scene} scene @param {Part} part @param {Area} area */
function areaView(state, { whole }, part, area) {
  const { path, kind, children, count, each, times } = part;
  const stacked = path === "blocks"; // the one area that shows many blocks
  const inner = areas(part, !stacked).map((one, i) =>
    html`
      <span class="gptlib-pb-inner" data-kind=${children[i].kind} style=${placed(one)}
        ?hidden=${one.width * one.height === 0}><span>${children[i].title}</span></span>
    `
  );
  return html`
    <div class=${classes("pb-area", state.lit === path && "pb-lit")} data-kind=${kind}
      data-path=${path} style="${placed(area)}; --layers: ${times}"
      ?hidden=${area.width * area.height === 0} @click=${() => state.open(path)}>
      <div class="gptlib-pb-inside">${inner}</div>
      <div class="gptlib-pb-area-text">
        <span class="gptlib-pb-area-title">${titleOf(part)}</span>
        <span class="gptlib-pb-area-size">
          <span>${formatShort(stacked ? count : each)}</span>
          <span>${formatShare(count / whole.count)}</span>
        </span>
      </div>
    </div>
  `;
}

/** @param {Part} part @returns {string} as named_parameters() has it, in the first block */
function parameterName(part) {
  const name = part.path.replace("blocks/", "blocks.0/").replaceAll("/", ".");
  return part.path.includes("/") ? name : `${name}.weight`;
}

/** @param {Part} part @param {Config} config the matrix itself, drawn to scale */
function sheetView({ path, shape, count }, config) {
  const [rows, columns = 1] = shape;
  const rem = Math.min(15 / rows, 15 / columns);
  const thirds = path.includes("query_key_value") ? ["queries", "keys", "values"] : [];
  const look = classes("pb-sheet", thirds.length > 0 && "pb-thirds", !count && "pb-none");
  return html`
    <div class="gptlib-pb-drawn" aria-hidden="true">
      <span class="gptlib-pb-columns">${shape.length === 1 ? "" : formatCount(columns)}</span>
      <span>${formatCount(rows)}</span>
      <div class=${look} style="width: max(3px, ${rem * columns}rem);
          height: max(3px, ${rem * rows}rem); --heads: ${config.n_heads}">${thirds.map((name) =>
            html`<span>${name}</span>`
          )}</div>
    </div>
  `;
}

/** @param {Part} part @param {Config} config a matrix, and what it is for */
function leafView(part, config) {
  const [rows, columns] = part.shape;
  const { words, flow } = explain(part, config);
  const product = columns ? `${formatCount(rows)} × ${formatCount(columns)} = ` : "";
  const facts = [
    ["Parameter", parameterName(part)],
    ["Shape", columns ? `(${rows}, ${columns})` : `(${rows},)`],
    ["What passes", flow],
  ];
  return html`<div class="gptlib-pb-leaf" data-kind=${part.kind}>
    ${sheetView(part, config)}
    <div class="gptlib-pb-about">
      <div class="gptlib-pb-product">${part.count ? product + formatCount(part.each) : "0"}</div>
      <div class="gptlib-soft">
        ${columns ? "rows × columns, drawn to scale" : "a vector, drawn to scale"}
      </div>
      <p>${words}</p>
      ${
    facts.map(([term, value]) =>
      html`
        <div
          class="gptlib-pb-fact"><span class="gptlib-soft">${term}</span><code>${value.split(
            /(?<=[.])/,
          ).map((word) => html`${word}<wbr>`)}</code></div>
      `
    )
  }
    </div>
  </div>`;
}

/** @param {State} state @param {Scene} scene the way from the whole model to the open part */
function crumbsView(state, { whole, part }) {
  const names = part.path ? part.path.split("/") : [];
  const way = ["", ...names.map((_, i) => names.slice(0, i + 1).join("/"))];
  return html`
    <nav aria-label="The part that is open">
      <ol class="gptlib-bar gptlib-pb-crumbs">${repeat(way, (path) => path, (path, i) => {
        const { title } = find(whole, path);
        if (path === part.path) return html`<li aria-current="true">${title}</li>`;
        const open = () => state.open(path, way[i + 1]);
        return html`
          <li>
            <button type="button" class="gptlib-pb-crumb" @click=${open}>${title}</button>
          </li>
        `;
      })}</ol>
    </nav>
  `;
}

/** @param {Scene} scene @returns {string} */
function captionOf({ whole, part: { path, count, each, times } }) {
  if (path === "") return "Choose a part to open it.";
  const share = `${formatShare(count / whole.count)} of the model`;
  if (times === 1) return `${formatCount(count)} parameters, ${share}.`;
  const alike = path === "blocks" ? `One block of ${times}, all alike: ` : "";
  return `${alike}${times} × ${formatCount(each)} = ${formatCount(count)} parameters, ${share}.`;
}

/** A row of the table. Outside of the blocks, a part's own count is that of the whole model.
 * @param {State} state @param {Scene} scene @param {Part} part @param {unknown} head */
function rowView(state, { whole, inside, holder }, part, head) {
  const { path, kind, formula, each, count } = part;
  const counted = !inside && path === "blocks" ? `L · (${formula})` : formula;
  const cells = {
    formula: count ? counted : ABSENT[path],
    each: formatCount(inside ? each : count),
    all: formatCount(count),
    share: formatShare(count / whole.count),
    bytes: formatBytes(BYTES[state.dtype()] * count),
  };
  const together = part === holder;
  const look = classes("pb-row", together ? "pb-together" : state.lit === path && "pb-lit");
  return html`
    <div class=${look} role="row" data-kind=${kind}
      data-path=${together ? nothing : path}>
        <div class="gptlib-pb-name" style="grid-area: name" role="rowheader">${head}</div>
        ${Object.entries(cells).map(([name, text]) =>
          html`
            <div class="gptlib-pb-${name}" style="grid-area: ${name}" role="cell">${text}</div>
          `
        )}
      </div>
  `;
}

/** @param {State} state @param {Scene} scene @param {Part} part */
function partView(state, scene, part) {
  const { path, children } = part;
  const rows = scene.holder.children;
  const current = rows.find((one) => one.path === state.current) ?? rows[0];
  const open = () => state.open(path, children.length ? children[0].path : path);
  const head = html`
    <button type="button" class="gptlib-pb-open" data-path=${path} @click=${open}
      tabindex=${part === current ? 0 : -1} aria-current=${path === scene.part.path || nothing}>
      ${swatch()}<span>${titleOf(part)}</span>
    </button>
  `;
  return rowView(state, scene, part, head);
}

/** @param {State} state @param {Scene} scene the table behind the picture */
function tableView(state, scene) {
  const { holder, inside } = scene;
  const blocks = holder.times === 1 ? "The one block" : `All ${holder.times} blocks`;
  const counted = inside ? ["In one block", blocks] : ["Parameters"];
  const heads = ["Part", "Formula", ...counted, "Share", `as ${state.dtype()}`];
  const sum = holder.path === "blocks" ? "One block" : holder.title;
  return html`
    <div class=${classes("grid pb-table", inside && "pb-in-block")} role="table"
      aria-label="Parts of: ${holder.title}">
      <div role="rowgroup">
        <div class="gptlib-pb-row gptlib-pb-heads" role="row">
          ${heads.map((head) => html`<div role="columnheader">${head}</div>`)}
        </div>
      </div>
      <div class="gptlib-pb-rows-of" role="rowgroup">${repeat(
        holder.children,
        (part) => part.path,
        (part) => partView(state, scene, part),
      )}</div>
      <div role="rowgroup">${rowView(state, scene, holder, sum)}</div>
    </div>
  `;
}

/** @param {State} state @param {Scene} scene the picture, its table and the way to them */
function placeView(state, scene) {
  const { part } = scene;
  const found = areas(part);
  const picture = part.children.length
    ? repeat(part.children, ({ path }) => path, (one, i) => areaView(state, scene, one, found[i]))
    : leafView(part, state.config());
  return html`
    <div class="gptlib-pb-place" @keydown=${(/** @type {KeyboardEvent} */ e) =>
      onKey(state, scene, e)}
      @pointerover=${state.light} @pointerleave=${state.light}
      @focusin=${state.light} @focusout=${state.light}>
      ${crumbsView(state, scene)}
      <p class="gptlib-soft">${captionOf(scene)}</p>
      <div class="gptlib-pb-picture" aria-hidden="true">${picture}</div>
      ${tableView(state, scene)}
    </div>
  `;
}

/** @param {State} state @param {Scene} scene @param {KeyboardEvent} event */
function onKey(state, { holder: { children } }, event) {
  const target = /** @type {HTMLElement} */ (event.target);
  const at = children.findIndex(({ path }) => path === target.dataset.path);
  const to = at < 0 ? null : moved(event.key, at, children.length, { page: 0 });
  const path = state.path();
  if ((event.key === "Escape" || event.key === "Backspace") && path) {
    state.open(parentOf(path), path);
  } else if (to !== null) focusRow(event.currentTarget, children[to].path);
  else return;
  event.preventDefault();
  event.stopPropagation(); // a notebook has shortcuts of its own for these keys
}

/** @param {any} place @param {string} path */
function focusRow(place, path) {
  const rows = [...place.querySelectorAll(".gptlib-pb-open")];
  (rows.find(({ dataset }) => dataset.path === path) ?? rows[0]).focus();
}

/** @param {Config} now @param {Config} before @returns {unknown[]} three cells */
function factorsView(now, before) {
  const { embeddings, blocks, all } = growth(now, before);
  return [embeddings, blocks, all].map((factor) =>
    html`<span class=${factor === 1 ? "gptlib-soft" : nothing}>× ${formatFactor(factor)}</span>`
  );
}

/** @param {State} state */
function growthCard(state) {
  const [start, config] = [state.start(), /** @type {any} */ (state.config())];
  const rows = Object.entries(SIZES).map(([name, title]) => {
    const doubled = { ...config, [name]: 2 * config[name] };
    const wrong = problem(doubled);
    const word = title.toLowerCase();
    const button = html`
      <button type="button" class="gptlib-button" aria-label="Double ${word}"
        title=${wrong || nothing} ?disabled=${wrong !== ""}
        @click=${() => state.configure(doubled)}>${word}</button>
    `;
    return tableRow(button, wrong ? ["–", "–", "–"] : factorsView(doubled, config));
  });
  const grown = state.grown();
  if (grown) rows.push(tableRow("Since the start", factorsView(config, start)));
  const heads = ["Double", "Embeddings", "Blocks", "All"];
  return html`<section class="gptlib-card" aria-label="What grows">
    <strong>What grows</strong>
    ${table("What grows", heads, rows, classes("grid pb-growth", grown && "pb-grown"))}
    <p class="gptlib-soft">Heads cut the same matrices into more pieces, so they cost nothing.</p>
  </section>`;
}

/** @param {State} state */
function memoryCard(state) {
  const [config, dtype] = [state.config(), state.dtype()];
  const held = trainingBytes(config, dtype);
  return html`<section class="gptlib-card" aria-label="Memory">
    <div class="gptlib-card-head">
      <strong>Memory</strong>
      ${typeChoice("Type of a value", dtype, (type) => state.widget.save({ dtype: type }))}
    </div>
    <div class="gptlib-soft">The weights alone: <b>${formatBytes(held.weights)}</b></div>
    <div class="gptlib-soft">What training holds for them:</div>
    ${heldView("What training holds", held, total(config))}
    <p class="gptlib-soft">Activations come on top. They depend on the batch.</p>
  </section>`;
}

/** @param {Scene} scene @returns {string} what is open, for who listens */
function inWords({ whole, part }) {
  const words = `${part.title}: ${formatCount(part.count)} parameters`;
  return part.path ? `${words} of ${formatCount(whole.count)}` : words;
}

const TRAITS = ["config", "start", "family", "path", "dtype"];

export default define("pb", TRAITS, (widget) => new State(widget));
