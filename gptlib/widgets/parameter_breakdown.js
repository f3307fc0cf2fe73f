// Where the parameters of a GPT are: areas that open, from the whole model to a single matrix, and
// controls that turn one model into another. All numbers are computed here.

/**
 * @typedef {{
 *   vocab_size: number, context_length: number, emb_dim: number, n_heads: number,
 *   n_layers: number, qkv_bias: boolean, tie_head: boolean,
 * }} Config
 * @typedef {Config & { name: string }} Member  of the family
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: unknown): void,
 *   on(event: string, callback: () => void): void,
 *   off(event: string, callback: () => void): void,
 *   save_changes(): void,
 * }} Model
 * @typedef {{
 *   path: string, title: string, kind: string, each: number, times: number, count: number,
 *   formula: string, shape: number[], children: Part[],
 * }} Part  `each` parameters, `times` times in the model; a single matrix or vector has a shape
 * @typedef {{ title: string, kind: string, shape?: string[], parts?: Record<string, Plan> }} Plan
 * @typedef {{ x: number, y: number, width: number, height: number }} Area  in shares of the whole
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

/** @returns {Record<string, Plan>} */
const norm = () => ({
  scale: { title: "Scale", kind: "norm", shape: ["C"] },
  shift: { title: "Shift", kind: "norm", shape: ["C"] },
});

/** @param {string} kind @param {string} rows @param {string} columns @returns {Record<string, Plan>} */
const linear = (kind, rows, columns) => ({
  weight: { title: "Weight", kind, shape: [rows, columns] },
  bias: { title: "Bias", kind, shape: [rows] },
});

/** The parts under the names of gptlib.model, in its order. @type {Plan} */
const PLAN = {
  title: "Whole model",
  kind: "plain",
  parts: {
    token_embedding: { title: "Token embedding", kind: "embedding", shape: ["V", "C"] },
    position_embedding: { title: "Position embedding", kind: "embedding", shape: ["T", "C"] },
    blocks: {
      title: "Transformer blocks",
      kind: "plain",
      parts: {
        norm_1: { title: "Norm 1", kind: "norm", parts: norm() },
        attention: {
          title: "Attention",
          kind: "attention",
          parts: {
            query_key_value: {
              title: "Query, key, value",
              kind: "attention",
              parts: linear("attention", "3C", "C"),
            },
            projection: {
              title: "Projection",
              kind: "attention",
              parts: linear("attention", "C", "C"),
            },
          },
        },
        norm_2: { title: "Norm 2", kind: "norm", parts: norm() },
        feed_forward: {
          title: "Feed-forward",
          kind: "feed-forward",
          parts: {
            expand: {
              title: "Expand",
              kind: "feed-forward",
              parts: linear("feed-forward", "4C", "C"),
            },
            projection: {
              title: "Projection",
              kind: "feed-forward",
              parts: linear("feed-forward", "C", "4C"),
            },
          },
        },
      },
    },
    final_norm: { title: "Final norm", kind: "norm", parts: norm() },
    output_head: { title: "Output head", kind: "head", shape: ["V", "C"] },
  },
};

/** @param {string} symbol such as V, or 3C @param {Config} config @returns {number} */
function size(symbol, config) {
  const { vocab_size: V, context_length: T, emb_dim: C } = config;
  const value = /** @type {Record<string, number>} */ ({ V, T, C })[symbol.slice(-1)];
  return Number(symbol.slice(0, -1) || 1) * value;
}

/** @param {string} path @param {Config} config @returns {boolean} whether the model leaves it out */
function absent(path, config) {
  if (path === "output_head") return config.tie_head;
  return path === "blocks/attention/query_key_value/bias" && !config.qkv_bias;
}

/**
 * The parts of a model, with what each one counts.
 * @param {Config} config
 * @returns {Part}
 */
export function tree(config) {
  return grow("", PLAN, config, 1);
}

/**
 * @param {string} path
 * @param {Plan} plan
 * @param {Config} config
 * @param {number} times
 * @returns {Part}
 */
function grow(path, plan, config, times) {
  const inner = path === "blocks" ? config.n_layers : times;
  const children = Object.entries(plan.parts ?? {}).map(([name, part]) =>
    grow(path ? `${path}/${name}` : name, part, config, inner)
  );
  const shape = (plan.shape ?? []).map((symbol) => size(symbol, config));
  const own = absent(path, config) ? 0 : shape.reduce((product, n) => product * n, 1);
  const each = children.length ? children.reduce((sum, part) => sum + part.each, 0) : own;
  // The model counts all of its blocks, so what it holds is not the sum of its parts' `each`.
  const count = path ? each * inner : children.reduce((sum, part) => sum + part.count, 0);
  const { title, kind } = plan;
  const formula = formulaOf(path, plan, config);
  const part = { path, title, kind, shape, children, formula, times: inner, each, count };
  return path ? part : { ...part, each: count };
}

/**
 * The count of a part in symbols, for one block where the part is in the blocks.
 * @param {string} path
 * @param {Plan} plan
 * @param {Config} config
 * @returns {string}
 */
function formulaOf(path, plan, config) {
  if (path === "") {
    const { blocks, ...others } = /** @type {Record<string, Plan>} */ (plan.parts);
    const sum = Object.entries(others).map(([name, part]) => formulaOf(name, part, config));
    const block = formulaOf("blocks", blocks, config);
    sum.splice(2, 0, `L · (${block})`);
    return sum.filter((term) => term !== "0").join(" + ");
  }
  const terms = Object.entries(counted(path, plan, config));
  const sorted = terms.sort(([a], [b]) => b.length - a.length); // C² before C
  return sorted.map(([term, n]) => (n === 1 ? term : `${n} · ${term}`)).join(" + ") || "0";
}

/**
 * How often each product of symbols is in a part: {"C²": 4, "C": 4}.
 * @param {string} path
 * @param {Plan} plan
 * @param {Config} config
 * @returns {Record<string, number>}
 */
function counted(path, plan, config) {
  /** @type {Record<string, number>} */
  const terms = {};
  if (plan.shape && !absent(path, config)) {
    const factor = plan.shape.reduce((product, s) => product * Number(s.slice(0, -1) || 1), 1);
    const letters = plan.shape.map((symbol) => symbol.slice(-1));
    terms[letters.join(" · ").replace("C · C", "C²")] = factor;
  }
  for (const [name, part] of Object.entries(plan.parts ?? {})) {
    for (const [term, n] of Object.entries(counted(`${path}/${name}`, part, config))) {
      terms[term] = (terms[term] ?? 0) + n;
    }
  }
  return terms;
}

/** @param {Part} root @param {string} path @returns {Part} */
export function find(root, path) {
  const names = path ? path.split("/") : [];
  return names.reduce((part, name) => {
    const child = part.children.find((one) => one.path.split("/").pop() === name);
    return child ?? part;
  }, root);
}

/** @returns {string[]} the paths of all parts, in the model's order */
export function paths() {
  /** @param {string} path @param {Plan} plan @returns {string[]} */
  const of = (path, plan) => [
    path,
    ...Object.entries(plan.parts ?? {}).flatMap(([name, part]) =>
      of(path ? `${path}/${name}` : name, part)
    ),
  ];
  return of("", PLAN);
}

/**
 * Every parameter's name and shape, as gptlib.accounting.shapes lists them.
 * @param {Config} config
 * @returns {Record<string, number[]>}
 */
export function shapes(config) {
  /** @type {Record<string, number[]>} */
  const named = {};
  /** @param {Part} part @param {string} name */
  const add = (part, name) => {
    if (part.shape.length && part.count) {
      named[name.includes(".") ? name : `${name}.weight`] = part.shape;
    }
    for (const child of part.children) add(child, `${name}.${child.path.split("/").pop()}`);
  };
  for (const part of tree(config).children) {
    if (part.path !== "blocks") {
      add(part, part.path);
      continue;
    }
    for (let layer = 0; layer < config.n_layers; layer++) {
      for (const child of part.children) {
        add(child, `blocks.${layer}.${child.path.split("/").pop()}`);
      }
    }
  }
  return named;
}

/**
 * The parameters by component in closed form, as gptlib.accounting.parameters counts them.
 * @param {Config} config
 * @returns {Record<string, number>}
 */
export function parameters(config) {
  const { vocab_size: v, context_length: t, emb_dim: c, n_layers: n, qkv_bias, tie_head } = config;
  return {
    token_embedding: v * c,
    position_embedding: t * c,
    norm_1: n * 2 * c,
    attention: n * (4 * c * c + c + (qkv_bias ? 3 * c : 0)),
    norm_2: n * 2 * c,
    feed_forward: n * (8 * c * c + 5 * c),
    final_norm: 2 * c,
    output_head: tie_head ? 0 : v * c,
  };
}

/** @param {Config} config @returns {number} */
export function total(config) {
  return Object.values(parameters(config)).reduce((sum, count) => sum + count, 0);
}

/** Bytes of one value. @type {Record<string, number>} */
export const BYTES = { float32: 4, bfloat16: 2, float16: 2 };

/** @param {Config} config @param {string} dtype @returns {number} */
export function weightBytes(config, dtype) {
  return BYTES[dtype] * total(config);
}

/**
 * What training with AdamW holds for the parameters, as gptlib.accounting.training_bytes counts it.
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

/** The largest values: every number here stays below 2**53, and so exact. The same in Python. */
export const LIMITS = {
  vocab_size: 1_000_000,
  context_length: 1_000_000,
  emb_dim: 65_536,
  n_layers: 1_000,
};

/**
 * What is wrong with a configuration, in GPTConfig's own words; nothing if it is valid.
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
  for (const [name, limit] of Object.entries(LIMITS)) {
    if (config[name] > limit) {
      return `${name} must be at most ${formatCount(limit)} here, not ${config[name]}`;
    }
  }
  return "";
}

/**
 * How a configuration grows: its counts over those of another one.
 * @param {Config} now
 * @param {Config} before
 * @returns {{ embeddings: number, blocks: number, all: number }}
 */
export function growth(now, before) {
  /** @param {Config} config */
  const sums = (config) => {
    const counts = parameters(config);
    const embeddings = counts.token_embedding + counts.position_embedding + counts.output_head;
    const all = total(config);
    return { embeddings, blocks: all - embeddings - counts.final_norm, all };
  };
  const [a, b] = [sums(now), sums(before)];
  return {
    embeddings: a.embeddings / b.embeddings,
    blocks: a.blocks / b.blocks,
    all: a.all / b.all,
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
  for (
    const [unit, name] of /** @type {[number, string][]} */ ([
      [1e12, "T"],
      [1e9, "B"],
      [1e6, "M"],
      [1e3, "k"],
    ])
  ) {
    const rounded = Number((count / unit).toPrecision(3));
    if (rounded >= 1) return rounded + name; // rounded first: 999,600 is 1M, not 1000k
  }
  return String(count);
}

/** @param {number} share from 0 to 1 @returns {string} in percent, never a false 0 */
export function formatShare(share) {
  const percent = 100 * share;
  if (percent === 0) return "0%";
  if (percent < 0.01) return "< 0.01%";
  return `${percent.toFixed(percent < 1 ? 2 : 1)}%`;
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

/** @param {number} n @returns {string} in binary units, to one decimal, as gptlib.accounting */
export function formatBytes(n) {
  if (n < 1024) return `${n} B`;
  let power = 1;
  while (Number((n / 1024 ** power).toFixed(1)) >= 1024) power++;
  return `${(n / 1024 ** power).toFixed(1)} ${"KMGTPEZY"[power - 1]}iB`;
}

/** @param {string} key a name in gptlib.config.FAMILY @returns {string} what a reader calls it */
export function modelName(key) {
  if (key === "mini") return "Mini";
  const [, version, variant] = /^gpt(\d+)-?(.*)$/.exec(key) ?? [];
  if (!version) return key;
  const name = variant || (version === "2" ? "small" : "175B");
  return `GPT-${version} ${/^(xl|\d)/.test(name) ? name.toUpperCase() : name}`;
}

// ---------------------------------------------------------------------------------------------
// Areas and sliders

/**
 * The areas of a part's children. Their order never changes, so the eye can follow them as the
 * sizes do: strips side by side, or on top of one another. In the whole model, the data flows
 * from left to right; embeddings share one strip, and so do final norm and head.
 * @param {Part} part
 * @param {boolean} upright whether the strips lie on top of one another
 * @returns {Area[]}
 */
export function areas(part, upright = false) {
  const { children } = part;
  const groups = part.path
    ? children.map((child) => [child])
    : [children.slice(0, 2), children.slice(2, 3), children.slice(3)];
  /** @param {Part[]} parts */
  const sum = (parts) => parts.reduce((all, child) => all + child.count, 0);
  const whole = sum(children);
  let start = 0;
  return groups.flatMap((group) => {
    const inGroup = sum(group);
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

/** @type {Record<string, { symbol: string, title: string, least: number, most: number }>} */
const SLIDERS = {
  n_layers: { symbol: "L", title: "Layers", least: 1, most: 128 },
  emb_dim: { symbol: "C", title: "Width", least: 32, most: 16_384 },
  n_heads: { symbol: "H", title: "Heads", least: 1, most: 128 },
  vocab_size: { symbol: "V", title: "Vocabulary", least: 256, most: 262_144 },
  context_length: { symbol: "T", title: "Context", least: 32, most: 131_072 },
};

/**
 * The values at which a slider stops; each of them gives a valid configuration.
 * @param {string} name
 * @param {Config} config
 * @param {number[]} known values that must be among them
 * @returns {number[]}
 */
export function stops(name, config, known = []) {
  const { least, most } = SLIDERS[name];
  const now = /** @type {any} */ (config)[name];
  /** @type {number[]} */
  let values = [];
  if (name === "n_layers") {
    for (let n = least; n <= most; n++) values.push(n);
  } else if (name === "n_heads") {
    for (let n = least; n <= most; n++) if (config.emb_dim % n === 0) values.push(n);
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

/** @param {number} n */
const number = (n) => formatCount(n);

/**
 * What a single matrix or vector does, in words, and what goes in and out.
 * @param {Part} part
 * @param {Config} config
 * @returns {{ words: string, flow: string }}
 */
export function explain(part, config) {
  const { vocab_size: v, context_length: t, emb_dim: c, n_heads: heads } = config;
  /** @param {string} from @param {number} to */
  const flow = (from, to) => `${from} → (B, T, ${to})`;
  const vector = `(B, T, ${c})`;
  /** @type {Record<string, [string, string]>} by the end of the path */
  const all = {
    token_embedding: [
      `A row of ${number(c)} numbers for each of the ${number(v)} tokens. A token's id picks its ` +
      `row.${config.tie_head ? " The output head uses the same matrix a second time." : ""}`,
      flow("ids (B, T)", c),
    ],
    position_embedding: [
      `A row of ${number(c)} numbers for each of the ${number(t)} positions, added to the row of ` +
      "the token that stands there.",
      `positions (T,) → (T, ${c})`,
    ],
    "query_key_value/weight": [
      "Multiplies the vector of each position. Its rows make the query, then the key, then the " +
      `value, each of them cut into ${heads === 1 ? "1 head" : `${heads} heads`} of ${c / heads}.`,
      flow(vector, 3 * c),
    ],
    "query_key_value/bias": [
      config.qkv_bias
        ? "Added to the query, the key and the value of each position."
        : "This model has none: qkv_bias is off.",
      flow(`(B, T, ${3 * c})`, 3 * c),
    ],
    "attention/projection/weight": [
      "Mixes what the heads have gathered, and brings it back to the channels that all blocks share.",
      flow(vector, c),
    ],
    "feed_forward/expand/weight": [
      `Widens the vector of each position from ${number(c)} numbers to ${number(4 * c)}, before ` +
      "the GELU bends them.",
      flow(vector, 4 * c),
    ],
    "feed_forward/projection/weight": [
      `Brings the ${number(4 * c)} numbers of each position back to ${number(c)}.`,
      flow(`(B, T, ${4 * c})`, c),
    ],
    bias: ["Added to what the weight has made of each position.", ""],
    scale: ["Multiplies each channel, once it has mean 0 and variance 1.", flow(vector, c)],
    shift: ["Added to each channel, after the scale.", flow(vector, c)],
    output_head: [
      config.tie_head
        ? "Tied: it multiplies with the token embedding's matrix, and has no parameters of its own."
        : `Multiplies the vector of each position with ${number(v)} rows, one for each token. ` +
          "Each product is the score of that token.",
      flow(vector, v),
    ],
  };
  const key = Object.keys(all).find((end) => part.path.endsWith(end)) ?? "";
  const [words, way] = all[key];
  return { words, flow: way || flow(`(B, T, ${part.shape[0]})`, part.shape[0]) };
}

/** @param {Part} part @returns {string} as named_parameters() has it, in the first block */
function parameterName(part) {
  const name = part.path.replace("blocks/", "blocks.0/").replaceAll("/", ".");
  return part.path.includes("/") ? name : `${name}.weight`;
}

// ---------------------------------------------------------------------------------------------
// Drawing

const CONTROLS = ["button", "input", "select"];

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

/** @param {HTMLElement} element @param {Area} area */
function put(element, { x, y, width, height }) {
  // What is thinner than a line is drawn as a line, and stays inside of the picture.
  element.style.left = `min(${100 * x}%, 100% - 2px)`;
  element.style.top = `min(${100 * y}%, 100% - 2px)`;
  element.style.width = `${100 * width}%`;
  element.style.height = `${100 * height}%`;
  element.hidden = width * height === 0;
}

/** @param {Part} part @returns {string} */
const times = (part) => (part.path === "blocks" ? ` × ${part.times}` : "");

/**
 * One area of the picture, with the areas of its own parts inside.
 * @param {Part} part
 */
function makeArea(part) {
  const title = h("span", { class: "gptlib-pb-area-title" });
  const [count, share] = [h("span"), h("span")];
  const size = h("span", { class: "gptlib-pb-area-size" }, count, share);
  const inner = part.children.map((child) =>
    h("span", { class: "gptlib-pb-inner", "data-kind": child.kind }, h("span", {}, child.title))
  );
  const element = h(
    "div",
    { class: "gptlib-pb-area", "data-kind": part.kind, "data-path": part.path },
    h("div", { class: "gptlib-pb-inside" }, ...inner),
    h("div", { class: "gptlib-pb-area-text" }, title, size),
  );
  return { path: part.path, element, title, count, share, inner };
}

/** @param {ReturnType<typeof makeArea>} shown @param {Part} part @param {Area} area @param {number} all */
function drawArea(shown, part, area, all) {
  put(shown.element, area);
  write(shown.title, part.title + times(part));
  const stacked = part.path === "blocks"; // the one area that shows many blocks
  if (stacked) shown.element.style.setProperty("--layers", String(part.times));
  write(shown.count, formatShort(stacked ? part.count : part.each));
  write(shown.share, formatShare(part.count / all));
  areas(part, !stacked).forEach((one, i) => put(shown.inner[i], one));
}

/** @param {Part} part @param {() => void} choose */
function makeRow(part, choose) {
  const name = h("span", {});
  const button = h(
    "button",
    { type: "button", class: "gptlib-pb-open", tabindex: "-1", "data-path": part.path },
    h("span", { class: "gptlib-pb-swatch", "aria-hidden": "true" }),
    name,
  );
  button.addEventListener("click", choose);
  return { ...makeCells(button, part.kind), path: part.path, button, name };
}

/** @param {Node} head @param {string} kind */
function makeCells(head, kind) {
  /** @param {string} name */
  const cell = (name) => h("div", { class: `gptlib-pb-${name}`, role: "cell" });
  const formula = cell("formula");
  const [each, all, share, bytes] = ["each", "all", "share", "bytes"].map(cell);
  const element = h(
    "div",
    { class: "gptlib-pb-row", role: "row", "data-kind": kind },
    h("div", { class: "gptlib-pb-name", role: "rowheader" }, head),
    formula,
    each,
    all,
    share,
    bytes,
  );
  return { element, formula, each, all, share, bytes };
}

/** Why a part has no parameters. @type {Record<string, string>} */
const ABSENT = {
  output_head: "tied to the token embedding",
  "blocks/attention/query_key_value/bias": "qkv_bias is off",
};

/** @param {ReturnType<typeof makeCells>} row @param {Part} part @param {number} all @param {string} dtype */
function drawCells(row, part, all, dtype) {
  write(row.formula, part.count ? part.formula : ABSENT[part.path]);
  write(row.each, formatCount(part.each));
  write(row.all, formatCount(part.count));
  write(row.share, formatShare(part.count / all));
  write(row.bytes, formatBytes(BYTES[dtype] * part.count));
}

/**
 * The matrix itself, drawn to scale, and what it is for.
 * @param {Part} part
 * @param {Config} config
 */
function matrix(part, config) {
  const [rows, columns = 1] = part.shape;
  const scale = Math.min(15 / rows, 15 / columns);
  const sheet = h("div", { class: "gptlib-pb-sheet" });
  sheet.style.width = `max(3px, ${scale * columns}rem)`;
  sheet.style.height = `max(3px, ${scale * rows}rem)`;
  if (part.path.includes("query_key_value")) {
    sheet.classList.add("gptlib-pb-thirds");
    sheet.style.setProperty("--heads", String(config.n_heads));
    for (const name of ["queries", "keys", "values"]) sheet.append(h("span", {}, name));
  }
  if (!part.count) sheet.classList.add("gptlib-pb-none");
  const vector = part.shape.length === 1;
  const { words, flow } = explain(part, config);
  const shape = vector ? `(${rows},)` : `(${rows}, ${columns})`;
  const product = vector ? "" : `${formatCount(rows)} × ${formatCount(columns)} = `;
  const counted = part.count ? product + formatCount(part.each) : "0";
  const facts = [
    ["Parameter", parameterName(part)],
    ["Shape", shape],
    ["What passes", flow],
  ];
  return h(
    "div",
    { class: "gptlib-pb-leaf", "data-kind": part.kind },
    h(
      "div",
      { class: "gptlib-pb-drawn", "aria-hidden": "true" },
      h("span", { class: "gptlib-pb-columns" }, vector ? "" : formatCount(columns)),
      h("span", { class: "gptlib-pb-rows" }, formatCount(rows)),
      sheet,
    ),
    h(
      "div",
      { class: "gptlib-pb-about" },
      h("div", { class: "gptlib-pb-product" }, counted),
      h(
        "div",
        { class: "gptlib-pb-soft" },
        vector ? "a vector, drawn to scale" : "rows × columns, drawn to scale",
      ),
      h("p", {}, words),
      ...facts.map(([term, value]) =>
        h(
          "div",
          { class: "gptlib-pb-fact" },
          h("span", { class: "gptlib-pb-soft" }, term),
          h("code", {}, ...value.split(/(?<=[.])/).flatMap((word) => [word, h("wbr")])),
        )
      ),
    ),
  );
}

/** @param {string} name */
function makeField(name) {
  const { symbol, title } = SLIDERS[name];
  const input = /** @type {HTMLInputElement} */ (
    h("input", { type: "number", class: "gptlib-pb-number", min: "1", inputmode: "numeric" })
  );
  const slider = /** @type {HTMLInputElement} */ (
    h("input", { type: "range", class: "gptlib-pb-slider", min: "0", "aria-label": title })
  );
  const label = h(
    "label",
    { class: "gptlib-pb-label" },
    h("span", {}, title, " ", h("i", {}, symbol)),
    input,
  );
  const element = h("div", { class: "gptlib-pb-field", "data-field": name }, label, slider);
  return { name, element, input, slider, values: /** @type {number[]} */ ([]) };
}

/** @param {string} name @param {string} title */
function makeSwitch(name, title) {
  const input = /** @type {HTMLInputElement} */ (h("input", { type: "checkbox" }));
  const element = h(
    "label",
    { class: "gptlib-pb-switch", "data-field": name },
    input,
    h("span", {}, title),
  );
  return { name, element, input };
}

/** The columns of a small table. @param {string} label @param {string[]} heads @param {HTMLElement[]} rows */
function table(label, heads, rows) {
  return h(
    "div",
    { class: "gptlib-pb-grid", role: "table", "aria-label": label },
    h(
      "div",
      { class: "gptlib-pb-line gptlib-pb-line-heads", role: "row" },
      ...heads.map((text) => h("div", { role: "columnheader" }, text)),
    ),
    ...rows,
  );
}

/** @param {Node | string} head @param {HTMLElement[]} cells */
function line(head, cells) {
  return h(
    "div",
    { class: "gptlib-pb-line", role: "row" },
    h("div", { role: "rowheader" }, head),
    ...cells,
  );
}

/** @param {string} [kind] */
const cell = (kind) => h("div", { role: "cell", ...(kind ? { class: kind } : {}) });

/** @type {Record<string, string>} */
const HELD = {
  weights: "Weights",
  gradients: "Gradients",
  master_weights: "Master weights",
  moments: "AdamW's moments",
};
/** @type {Record<string, string>} */
const DOUBLED = {
  n_layers: "layers",
  emb_dim: "width",
  n_heads: "heads",
  vocab_size: "vocabulary",
  context_length: "context",
};

/** Draw the frame once; later calls fill it. */
function frame() {
  const select = /** @type {HTMLSelectElement} */ (h("select", { class: "gptlib-pb-select" }));
  const dtype = /** @type {HTMLSelectElement} */ (
    h(
      "select",
      { class: "gptlib-pb-select", "aria-label": "Type of a value" },
      ...Object.keys(BYTES).map((name) => h("option", { value: name }, name)),
    )
  );
  const fields = Object.keys(SLIDERS).map(makeField);
  const switches = [
    makeSwitch("qkv_bias", "Biases of query, key, value"),
    makeSwitch("tie_head", "Tied output head"),
  ];
  const count = h("b", {});
  const short = h("span", { class: "gptlib-pb-short" });
  const ratio = h("span", { class: "gptlib-pb-ratio" });
  const reset = h("button", { type: "button", class: "gptlib-pb-button" }, "Back");
  const scale = h("div", { class: "gptlib-pb-scale", "aria-hidden": "true" }, h("span"), h("span"));
  const error = h("p", { class: "gptlib-pb-error", role: "alert" });
  const crumbs = h("ol", { class: "gptlib-pb-crumbs" });
  const caption = h("p", { class: "gptlib-pb-caption" });
  const picture = h("div", { class: "gptlib-pb-picture", "aria-hidden": "true" });
  const heads = ["Part", "Formula", "", "", "Share", ""].map((text) =>
    h("div", { role: "columnheader" }, text)
  );
  const top = h("div", { class: "gptlib-pb-row gptlib-pb-heads", role: "row" }, ...heads);
  const sum = makeCells(h("span", {}), "plain");
  sum.element.classList.add("gptlib-pb-together");
  const rows = h("div", { class: "gptlib-pb-rows-of", role: "rowgroup" });
  const parts = h(
    "div",
    { class: "gptlib-pb-table", role: "table" },
    h("div", { role: "rowgroup" }, top),
    rows,
    h("div", { role: "rowgroup" }, sum.element),
  );
  const since = [cell(), cell(), cell()];
  const sinceLine = line("", since);
  const doubled = Object.entries(DOUBLED).map(([name, title]) => {
    const button = /** @type {HTMLButtonElement} */ (
      h("button", { type: "button", class: "gptlib-pb-button" }, title)
    );
    button.setAttribute("aria-label", `Double ${title}`);
    const cells = [cell(), cell(), cell()];
    return { name, button, cells, line: line(button, cells) };
  });
  const held = Object.entries(HELD).map(([name, title]) => {
    const value = cell();
    const swatch = h("span", { class: "gptlib-pb-swatch", "aria-hidden": "true" });
    return { name, value, line: line(h("span", {}, swatch, title), [cell(), value]) };
  });
  const kept = cell();
  const stack = h("div", { class: "gptlib-pb-stack", "aria-hidden": "true" });
  const inference = h("b", {});
  const said = h("div", { class: "gptlib-pb-said", role: "status" });
  held.forEach((one, i) => {
    one.line.dataset.held = one.name;
    stack.append(h("span", { "data-held": Object.keys(HELD)[i] }));
  });
  const root = h(
    "div",
    { class: "gptlib-root gptlib-pb", "data-lm-suppress-shortcuts": "true" },
    h(
      "div",
      { class: "gptlib-pb-layout" },
      h(
        "div",
        { class: "gptlib-pb-head" },
        h("strong", { class: "gptlib-title" }, "Where the parameters are"),
        h("label", { class: "gptlib-pb-choose" }, h("span", {}, "Model"), select),
      ),
      h(
        "div",
        { class: "gptlib-pb-sum" },
        h("div", { class: "gptlib-pb-total" }, count, " parameters", short),
        h("div", { class: "gptlib-pb-since" }, ratio, reset),
        scale,
      ),
      h(
        "div",
        { role: "group", "aria-label": "Configuration" },
        h(
          "div",
          { class: "gptlib-pb-controls" },
          ...fields.map((field) => field.element),
          h("div", { class: "gptlib-pb-switches" }, ...switches.map((one) => one.element)),
        ),
        error,
      ),
      h(
        "div",
        { class: "gptlib-pb-place" },
        h("nav", { "aria-label": "The part that is open" }, crumbs),
        caption,
        picture,
        parts,
      ),
      h(
        "div",
        { class: "gptlib-pb-cards" },
        h(
          "section",
          { class: "gptlib-pb-card", "aria-label": "What grows" },
          h("strong", {}, "What grows"),
          table("What grows", ["Double", "Embeddings", "Blocks", "All"], [
            ...doubled.map((one) => one.line),
            sinceLine,
          ]),
          h(
            "p",
            { class: "gptlib-pb-soft" },
            "Heads cut the same matrices into more pieces, so they cost nothing.",
          ),
        ),
        h(
          "section",
          { class: "gptlib-pb-card", "aria-label": "Memory" },
          h(
            "div",
            { class: "gptlib-pb-card-head" },
            h("strong", {}, "Memory"),
            dtype,
          ),
          h("div", { class: "gptlib-pb-soft" }, "The weights alone: ", inference),
          h("div", { class: "gptlib-pb-soft" }, "What training holds for them:"),
          stack,
          table("What training holds", ["Held", "Bytes each", "Together"], [
            ...held.map((one) => one.line),
            line("All", [cell(), kept]),
          ]),
          h(
            "p",
            { class: "gptlib-pb-soft" },
            "Activations come on top. They depend on the batch.",
          ),
        ),
      ),
      said,
    ),
  );
  return {
    ...{ root, select, dtype, fields, switches, count, short, ratio, reset, scale, error, crumbs },
    ...{ caption, picture, heads, parts, rows, sum, since, sinceLine, doubled, held, kept, stack },
    ...{ inference, said },
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
  /** @type {ReturnType<typeof makeRow>[]} */
  let rows = [];
  /** @type {ReturnType<typeof makeArea>[]} */
  let shown = [];
  let list = "?"; // the path of the part whose children the table lists
  let drawn = "?"; // the path of the part that the picture shows
  let dragged = ""; // the slider in the reader's hand, whose stops must not change
  let said = false; // the first picture is not news
  let timer = 0;

  /** @returns {Config} */
  const configured = () => model.get("config");
  /** @returns {Member[]} */
  const family = () => model.get("family") ?? [];
  /** @param {string} path */
  const parentOf = (path) => path.split("/").slice(0, -1).join("/");

  // --- what the reader does

  /** @param {string} path @param {string} [focus] the path of the row that gets the focus */
  function open(path, focus) {
    const from = view.picture.querySelector(`[data-path="${path}"]`);
    const opened = from ? opening(from, view.picture) : null;
    model.set("path", path);
    model.save_changes();
    if (opened) animate(opened);
    if (focus === undefined) return;
    const row = rows.find((one) => one.path === focus) ?? rows[0];
    makeCurrent(row);
    row.button.focus();
  }

  /** @param {boolean} focus */
  function up(focus) {
    const path = model.get("path");
    if (path) open(parentOf(path), focus ? path : undefined);
  }

  /** @param {Keyframe} first */
  function animate(first) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const last = { transform: "none", opacity: 1 };
    for (const element of view.picture.children) {
      element.animate([first, last], { duration: 220, easing: "cubic-bezier(.2,.7,.2,1)" });
    }
  }

  /** @param {Record<string, unknown>} changes @param {boolean} [keep] whether to tell Python */
  function configure(changes, keep = true) {
    const config = { ...configured(), ...changes };
    const wrong = problem(config);
    view.error.textContent = wrong;
    if (wrong) return;
    model.set("config", config);
    if (keep) model.save_changes();
    drawControls(); // what was typed may stand there still
  }

  function typed() {
    const draft = Object.fromEntries(
      view.fields.map(({ name, input }) => [
        name,
        input.value.trim() === "" ? "" : Number(input.value),
      ]),
    );
    configure(draft);
    const wrong = view.error.textContent ?? "";
    for (const { name, input } of view.fields) {
      input.setAttribute("aria-invalid", String(wrong.split(", but")[0].includes(name)));
    }
  }

  // --- the picture and its table

  function draw() {
    const config = configured();
    const root = tree(config);
    const part = find(root, model.get("path"));
    const holder = part.children.length ? part : find(root, parentOf(part.path));
    if (holder.path !== list) makeRows(holder);
    if (part.path !== drawn) makePicture(part);
    drawCrumbs(root, part);
    drawNumbers(root, part, holder);
    if (!part.children.length) view.picture.replaceChildren(matrix(part, config));
    drawTotal(root);
    drawGrowth(config);
    drawMemory(config);
    const titles = `${part.title}: ${formatCount(part.count)} parameters`;
    if (said) announce(part.path ? `${titles} of ${formatCount(root.count)}` : titles);
  }

  /** @param {Part} holder */
  function makeRows(holder) {
    list = holder.path;
    rows = holder.children.map((child) =>
      makeRow(child, () => {
        const leaf = child.children.length === 0;
        open(child.path, leaf ? child.path : child.children[0].path);
      })
    );
    rows[0].button.tabIndex = 0;
    view.rows.replaceChildren(...rows.map((row) => row.element));
  }

  /** @param {Part} part */
  function makePicture(part) {
    drawn = part.path;
    shown = part.children.map(makeArea);
    view.picture.replaceChildren(...shown.map((area) => area.element));
  }

  /** @param {Part} root @param {Part} part */
  function drawCrumbs(root, part) {
    const names = part.path ? part.path.split("/") : [];
    const way = ["", ...names.map((_, i) => names.slice(0, i + 1).join("/"))];
    if (view.crumbs.dataset.path === part.path) return;
    view.crumbs.dataset.path = part.path;
    view.crumbs.replaceChildren(
      ...way.map((path) => {
        const { title } = find(root, path);
        if (path === part.path) return h("li", { "aria-current": "true" }, title);
        const button = h("button", { type: "button", class: "gptlib-pb-crumb" }, title);
        button.addEventListener("click", () => open(path, way[way.indexOf(path) + 1]));
        return h("li", {}, button);
      }),
    );
  }

  /** @param {Part} root @param {Part} part @param {Part} holder */
  function drawNumbers(root, part, holder) {
    const dtype = model.get("dtype");
    const inside = holder.path.startsWith("blocks");
    const blocks = holder.times === 1 ? "The one block" : `All ${holder.times} blocks`;
    view.parts.classList.toggle("gptlib-pb-in-block", inside);
    view.parts.setAttribute("aria-label", `Parts of: ${holder.title}`);
    write(view.heads[2], inside ? "In one block" : "Parameters");
    write(view.heads[3], blocks);
    view.heads[3].hidden = !inside;
    write(view.heads[5], `as ${dtype}`);
    areas(part).forEach((area, i) => drawArea(shown[i], part.children[i], area, root.count));
    holder.children.forEach((child, i) => {
      drawCells(rows[i], child, root.count, dtype);
      // Outside of the blocks, a part's own count is that of the whole model.
      if (!inside) write(rows[i].each, formatCount(child.count));
      write(rows[i].name, child.title + times(child));
      if (!inside && child.path === "blocks") write(rows[i].formula, `L · (${child.formula})`);
      if (child.path === part.path) rows[i].button.setAttribute("aria-current", "true");
      else rows[i].button.removeAttribute("aria-current");
    });
    drawCells(view.sum, holder, root.count, dtype);
    write(/** @type {HTMLElement} */ (view.sum.element.firstElementChild), sumTitle(holder));
    write(view.caption, captionOf(part, root.count));
  }

  /** @param {Part} row */
  const sumTitle = (row) => (row.path === "blocks" ? "One block" : row.title);

  /** @param {Part} part @param {number} all @returns {string} */
  function captionOf(part, all) {
    if (part.path === "") return "Choose a part to open it.";
    const share = `${formatShare(part.count / all)} of the model`;
    if (part.times === 1) return `${formatCount(part.count)} parameters, ${share}.`;
    const product = `${part.times} × ${formatCount(part.each)} = ${formatCount(part.count)}`;
    return `${
      part.path === "blocks" ? "One block of " + part.times + ", all alike: " : ""
    }${product} parameters, ${share}.`;
  }

  // --- the total, and what grows

  /** @param {Part} root */
  function drawTotal(root) {
    const start = model.get("start") ?? configured();
    const before = total(start);
    const name = member(start, family())?.name;
    const label = name ? modelName(name) : "the start";
    write(view.count, formatCount(root.count));
    write(view.short, root.count < 1000 ? "" : ` ≈ ${formatShort(root.count)}`);
    const same = JSON.stringify(start) === JSON.stringify(configured());
    write(view.ratio, `${formatFactor(root.count / before)} × ${label}`);
    view.reset.setAttribute("aria-label", `Back to ${label}`);
    view.sinceLine.hidden = same;
    // These keep their place, so that a slider stays under the finger that moves it.
    for (const one of [view.reset, view.scale]) one.classList.toggle("gptlib-pb-unseen", same);
    const most = Math.max(before, root.count);
    const [now, ghost] = /** @type {HTMLElement[]} */ ([...view.scale.children]);
    now.style.width = `${(100 * root.count) / most}%`;
    ghost.style.width = `${(100 * before) / most}%`;
  }

  /** @param {HTMLElement[]} cells @param {Config} now @param {Config} before */
  function fillGrowth(cells, now, before) {
    const factors = growth(now, before);
    [factors.embeddings, factors.blocks, factors.all].forEach((factor, i) => {
      write(cells[i], `× ${formatFactor(factor)}`);
      cells[i].classList.toggle("gptlib-pb-still", factor === 1);
    });
  }

  /** @param {Config} config */
  function drawGrowth(config) {
    for (const { name, button, cells } of view.doubled) {
      const doubled = { ...config, [name]: 2 * /** @type {any} */ (config)[name] };
      const wrong = problem(doubled);
      button.disabled = wrong !== "";
      button.title = wrong;
      if (wrong) { for (const one of cells) write(one, "–"); }
      else fillGrowth(cells, doubled, config);
    }
    const start = model.get("start") ?? config;
    write(/** @type {HTMLElement} */ (view.sinceLine.firstElementChild), "Since the start");
    fillGrowth(view.since, config, start);
  }

  /** @param {Config} config */
  function drawMemory(config) {
    const dtype = model.get("dtype");
    const bytes = trainingBytes(config, dtype);
    const all = Object.values(bytes).reduce((sum, n) => sum + n, 0);
    const count = total(config);
    view.dtype.value = dtype;
    write(view.inference, formatBytes(weightBytes(config, dtype)));
    view.held.forEach(({ name, value, line: row }, i) => {
      write(value, formatBytes(bytes[name]));
      write(/** @type {HTMLElement} */ (row.children[1]), String(bytes[name] / count));
      const strip = /** @type {HTMLElement} */ (view.stack.children[i]);
      strip.style.flexGrow = String(bytes[name] / all);
      strip.hidden = bytes[name] === 0;
    });
    write(view.kept, formatBytes(all));
    write(
      /** @type {HTMLElement} */ (view.kept.previousElementSibling),
      String(all / count),
    );
  }

  // --- the controls

  function drawControls() {
    const config = configured();
    const known = family();
    for (const field of view.fields) {
      const { name, input, slider } = field;
      const value = /** @type {any} */ (config)[name];
      if (dragged !== name) {
        const others = [...known, model.get("start") ?? config].map((one) => one[name]);
        field.values = stops(name, config, others);
        slider.max = String(field.values.length - 1);
        slider.value = String(field.values.indexOf(value));
      }
      slider.setAttribute("aria-valuetext", formatCount(value));
      input.value = String(value);
      input.step = input.min = String(name === "emb_dim" ? config.n_heads : 1);
      input.removeAttribute("aria-invalid");
    }
    for (const { name, input } of view.switches) input.checked = /** @type {any} */ (config)[name];
    view.error.textContent = "";
    const one = member(config, known);
    write(own, `Your own (${formatShort(total(config))})`);
    if (one) own.remove();
    else view.select.prepend(own);
    view.select.value = one?.name ?? "";
  }

  function drawFamily() {
    view.select.replaceChildren(
      ...family().map((one) => {
        const short = formatShort(total(one));
        return h("option", { value: one.name }, `${modelName(one.name)} (${short})`);
      }),
    );
    drawControls();
    draw();
  }

  /** @param {string} words */
  function announce(words) {
    clearTimeout(timer);
    timer = window.setTimeout(() => write(view.said, words), 500);
  }

  // --- keys and pointers

  /** @param {ReturnType<typeof makeRow>} row */
  function makeCurrent(row) {
    for (const one of rows) one.button.tabIndex = one === row ? 0 : -1;
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    const path = model.get("path");
    const target = /** @type {HTMLElement} */ (event.target);
    const at = rows.findIndex((row) => row.button === target);
    /** @type {Record<string, number>} */
    const targets = {
      ArrowDown: Math.min(at + 1, rows.length - 1),
      ArrowRight: Math.min(at + 1, rows.length - 1),
      ArrowUp: Math.max(at - 1, 0),
      ArrowLeft: Math.max(at - 1, 0),
      Home: 0,
      End: rows.length - 1,
    };
    if ((event.key === "Escape" || event.key === "Backspace") && path) up(true);
    else if (at >= 0 && event.key in targets) rows[targets[event.key]].button.focus();
    else return;
    event.preventDefault();
    event.stopPropagation(); // a notebook has shortcuts of its own for these keys
  }

  /** @param {string | undefined} path */
  function light(path) {
    for (const one of [...rows, ...shown]) {
      one.element.classList.toggle("gptlib-pb-lit", one.path === path);
    }
  }

  /** @param {Event} event @returns {string | undefined} the path of what it happened on */
  function pathOf(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const row = /** @type {HTMLElement | null} */ (target.closest(".gptlib-pb-row"));
    if (row) return rows.find((one) => one.element === row)?.path;
    const area = /** @type {HTMLElement | null} */ (target.closest(".gptlib-pb-area"));
    return area?.dataset.path;
  }

  const place = /** @type {HTMLElement} */ (view.picture.parentElement);
  place.addEventListener("keydown", onKey);
  place.addEventListener("pointerover", (event) => light(pathOf(event)));
  place.addEventListener("pointerleave", () => light(undefined));
  place.addEventListener("focusin", (event) => {
    const row = rows.find((one) => one.button === event.target);
    if (row) makeCurrent(row);
    light(row?.path);
  });
  place.addEventListener("focusout", () => light(undefined));
  view.picture.addEventListener("click", (event) => {
    const path = pathOf(event);
    if (path !== undefined) open(path);
  });
  for (const field of view.fields) {
    const { name, input, slider } = field;
    input.addEventListener("change", typed);
    input.addEventListener("keydown", ({ key }) => {
      if (key === "Enter") typed(); // in JupyterLab, Enter alone is no change
    });
    slider.addEventListener("input", () => {
      dragged = name;
      configure({ [name]: field.values[Number(slider.value)] }, false);
    });
    slider.addEventListener("change", () => {
      dragged = "";
      model.save_changes();
      drawControls();
    });
  }
  for (const { name, input } of view.switches) {
    input.addEventListener("change", () => configure({ [name]: input.checked }));
  }
  for (const { name, button } of view.doubled) {
    button.addEventListener("click", () => {
      configure({ [name]: 2 * /** @type {any} */ (configured())[name] });
    });
  }
  view.reset.addEventListener("click", () => {
    configure(model.get("start"));
    view.select.focus(); // the button is gone
  });
  view.select.addEventListener("change", () => {
    const chosen = family().find((one) => one.name === view.select.value);
    if (chosen) configure(sizesOf(chosen));
  });
  view.dtype.addEventListener("change", () => {
    model.set("dtype", view.dtype.value);
    model.save_changes();
  });
  el.append(view.root);

  const all = () => {
    drawControls();
    draw();
  };
  /** @type {[string, () => void][]} */
  const listeners = [
    ["change:config", all],
    ["change:start", all],
    ["change:family", drawFamily],
    ["change:path", draw],
    ["change:dtype", draw],
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  drawFamily();
  said = true;
  return () => {
    clearTimeout(timer);
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}

/**
 * How a part that opens starts: over the area that stood for it.
 * @param {Element} from
 * @param {Element} picture
 * @returns {Keyframe}
 */
function opening(from, picture) {
  const [a, b] = [from.getBoundingClientRect(), picture.getBoundingClientRect()];
  const [x, y] = [(a.left - b.left) / b.width, (a.top - b.top) / b.height];
  const [width, height] = [a.width / b.width, a.height / b.height];
  return {
    transformOrigin: "0 0",
    transform: `translate(${x * b.width}px, ${y * b.height}px) scale(${width}, ${height})`,
    opacity: 0.3,
  };
}

export default { render };
