// The map of a GPT: every block, what it does, what passes through it and what it costs.

/**
 * @typedef {{
 *   name: string, vocab_size: number, context_length: number, emb_dim: number, n_heads: number,
 *   n_layers: number, qkv_bias: boolean, tie_head: boolean,
 * }} Config
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: unknown): void,
 *   on(event: string, callback: () => void): void,
 *   off(event: string, callback: () => void): void,
 *   save_changes(): void,
 * }} Model
 * @typedef {{
 *   name: string, title: string, kind: string, icon: string, chapter: number,
 *   what: (config: Config) => string, input: string[], output: string[],
 *   formula?: (config: Config) => string,
 * }} Block
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

/**
 * The parameters of one transformer block, by component, as gptlib.accounting counts them.
 * @param {Config} config
 * @returns {Record<string, number>}
 */
export function blockParameters(config) {
  const c = config.emb_dim;
  return {
    norm_1: 2 * c,
    attention: 4 * c * c + c + (config.qkv_bias ? 3 * c : 0),
    norm_2: 2 * c,
    feed_forward: 8 * c * c + 5 * c,
  };
}

/**
 * The parameters of a whole GPT, by component; blocks are added up over all layers.
 * @param {Config} config
 * @returns {Record<string, number>}
 */
export function parameters(config) {
  const { vocab_size: v, context_length: t, emb_dim: c, n_layers: n } = config;
  /** @type {Record<string, number>} */
  const counts = { token_embedding: v * c, position_embedding: t * c };
  for (const [name, count] of Object.entries(blockParameters(config))) counts[name] = n * count;
  counts.final_norm = 2 * c;
  counts.output_head = config.tie_head ? 0 : v * c;
  return counts;
}

/** @param {Config} config @returns {number} */
export function total(config) {
  return Object.values(parameters(config)).reduce((sum, count) => sum + count, 0);
}

/** @param {number} count @returns {string} the count with commas between the thousands */
export function formatCount(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** @param {number} count @returns {string} three digits and a unit: 124439808 as "124M" */
export function formatShort(count) {
  for (
    const [size, unit] of /** @type {[number, string][]} */ ([
      [1e9, "B"],
      [1e6, "M"],
      [1e3, "k"],
    ])
  ) {
    // 999,600 is 1.00M, not 1000k: round first, then choose the unit.
    if (Number((count / size).toPrecision(3)) >= 1) {
      return Number((count / size).toPrecision(3)) + unit;
    }
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
 * A shape in numbers: one text, as long as the context allows.
 * @param {string[]} symbols
 * @param {Config} config
 * @returns {string}
 */
export function numbers(symbols, config) {
  /** @type {Record<string, number>} */
  const sizes = {
    B: 1,
    T: config.context_length,
    C: config.emb_dim,
    V: config.vocab_size,
  };
  return tuple(symbols.map((symbol) => String(sizes[symbol] ?? symbol)));
}

/** @param {string[]} items @returns {string} as Python writes a tuple */
export function tuple(items) {
  return items.length === 1 ? `(${items[0]},)` : `(${items.join(", ")})`;
}

/** @param {string} key a name in gptlib.config.FAMILY @returns {string} what a reader calls it */
export function modelName(key) {
  if (key === "mini") return "Mini";
  const [, version, size] = /^gpt(\d+)-?(.*)$/.exec(key) ?? [];
  if (!version) return key;
  const name = size || (version === "2" ? "small" : "175B");
  return `GPT-${version} ${/^(xl|\d)/.test(name) ? name.toUpperCase() : name}`;
}

// ---------------------------------------------------------------------------------------------
// What the map says

/** @param {Config} config */
const width = (config) => formatCount(config.emb_dim);

/** @type {Block[]} */
export const BLOCKS = [
  {
    name: "tokenizer",
    title: "Tokenizer",
    kind: "text",
    icon: "tokenizer",
    chapter: 2,
    what: (c) =>
      "Cuts the text into tokens, common pieces of words, and looks up the number of each in a " +
      `vocabulary of ${formatCount(c.vocab_size)} entries. The network only ever sees these ` +
      "numbers. The vocabulary is learned once, before the network exists.",
    input: ["text"],
    output: ["B", "T"],
  },
  {
    name: "token_embedding",
    title: "Token embedding",
    kind: "embedding",
    icon: "table",
    chapter: 2,
    what: (c) =>
      `A table with a row of ${
        width(c)
      } numbers for every entry of the vocabulary. Each token id ` +
      "picks its row. What the numbers say about a token is learned in training.",
    input: ["B", "T"],
    output: ["B", "T", "C"],
    formula: () => "V · C",
  },
  {
    name: "position_embedding",
    title: "Position embedding",
    kind: "embedding",
    icon: "ruler",
    chapter: 2,
    what: (c) =>
      `A second table, with a row of ${width(c)} numbers for each of the ` +
      `${formatCount(c.context_length)} positions. It is added to the tokens' rows, so that the ` +
      "blocks can tell where a token stands.",
    input: ["T"],
    output: ["T", "C"],
    formula: () => "T · C",
  },
  {
    name: "dropout",
    title: "Dropout",
    kind: "plain",
    icon: "dropout",
    chapter: 4,
    what: () =>
      "In training, sets a random share of the values to zero and scales up the rest, so that " +
      "the network learns to rely on no single value. When the model generates text, it does " +
      "nothing.",
    input: ["B", "T", "C"],
    output: ["B", "T", "C"],
  },
  {
    name: "norm_1",
    title: "Norm 1",
    kind: "norm",
    icon: "bell",
    chapter: 4,
    what: (c) =>
      `Brings the ${width(c)} values of each position to mean 0 and variance 1, then gives each ` +
      "channel a learned scale and shift. Without it, the values drift from block to block and a " +
      "deep network is hard to train.",
    input: ["B", "T", "C"],
    output: ["B", "T", "C"],
    formula: () => "2 · C",
  },
  {
    name: "attention",
    title: "Masked multi-head attention",
    kind: "attention",
    icon: "mask",
    chapter: 3,
    what: (c) =>
      "Each position looks at itself and at those before it, never ahead, and gathers what it " +
      `needs. ${c.n_heads} heads of ${
        c.emb_dim / c.n_heads
      } channels do so side by side; a linear ` +
      "layer joins what they find. This is the only place where positions exchange information.",
    input: ["B", "T", "C"],
    output: ["B", "T", "C"],
    formula: (c) => (c.qkv_bias ? "4 · C² + 4 · C" : "4 · C² + C"),
  },
  {
    name: "shortcut_1",
    title: "Shortcut",
    kind: "plain",
    icon: "plus",
    chapter: 4,
    what: () =>
      "Adds what entered norm 1 to what attention found. Attention then only has to learn a " +
      "change, and the training signal reaches the first blocks without fading on the way.",
    input: ["B", "T", "C"],
    output: ["B", "T", "C"],
  },
  {
    name: "norm_2",
    title: "Norm 2",
    kind: "norm",
    icon: "bell",
    chapter: 4,
    what: () =>
      "The same as norm 1, with a scale and a shift of its own, in front of the feed-forward " +
      "network.",
    input: ["B", "T", "C"],
    output: ["B", "T", "C"],
    formula: () => "2 · C",
  },
  {
    name: "feed_forward",
    title: "Feed-forward",
    kind: "feed-forward",
    icon: "widen",
    chapter: 4,
    what: (c) =>
      `Works on each position alone. A linear layer widens its ${width(c)} values to ` +
      `${formatCount(4 * c.emb_dim)}, the GELU function bends them, and a second linear layer ` +
      `brings them back to ${width(c)}. Two thirds of a block's parameters are here.`,
    input: ["B", "T", "C"],
    output: ["B", "T", "C"],
    formula: () => "8 · C² + 5 · C",
  },
  {
    name: "shortcut_2",
    title: "Shortcut",
    kind: "plain",
    icon: "plus",
    chapter: 4,
    what: () =>
      "Adds what entered norm 2 to what the feed-forward network found. The sum is what the next " +
      "block reads; after the last block, it goes to the final norm.",
    input: ["B", "T", "C"],
    output: ["B", "T", "C"],
  },
  {
    name: "final_norm",
    title: "Final norm",
    kind: "norm",
    icon: "bell",
    chapter: 4,
    what: () =>
      "One more norm after the last block. Whatever the blocks have added up, the output head " +
      "reads values of a known scale.",
    input: ["B", "T", "C"],
    output: ["B", "T", "C"],
    formula: () => "2 · C",
  },
  {
    name: "output_head",
    title: "Output head",
    kind: "head",
    icon: "scores",
    chapter: 4,
    what: (c) =>
      `Gives each of the ${formatCount(c.vocab_size)} entries of the vocabulary a score, its ` +
      "logit: how well would it continue the text? " +
      (c.tie_head
        ? "The matrix is the token embedding's, used a second time, so it adds no parameters."
        : "Its matrix is its own, as large as the token embedding's."),
    input: ["B", "T", "C"],
    output: ["B", "T", "V"],
    formula: (c) => (c.tie_head ? "" : "V · C"),
  },
  {
    name: "sampling",
    title: "Sampling",
    kind: "text",
    icon: "die",
    chapter: 5,
    what: () =>
      "Turns the logits of the last position into probabilities and draws the next token from " +
      "them. The token joins the end of the text, and the whole way begins again.",
    input: ["B", "T", "V"],
    output: ["B", "1"],
  },
];

const IN_BLOCK = new Set([
  "norm_1",
  "attention",
  "shortcut_1",
  "norm_2",
  "feed_forward",
  "shortcut_2",
]);

const CHAPTERS = [
  "",
  "What a GPT is",
  "From text to vectors",
  "Attention",
  "The GPT-2 architecture",
  "Training",
  "Pretrained weights",
  "Scaling up",
  "Looking inside",
];

/** The parts of the bar that shows where a model's parameters are. */
const PARTS = [
  { kind: "embedding", title: "Embeddings", of: ["token_embedding", "position_embedding"] },
  { kind: "attention", title: "Attention", of: ["attention"] },
  { kind: "feed-forward", title: "Feed-forward", of: ["feed_forward"] },
  { kind: "norm", title: "Norms", of: ["norm_1", "norm_2", "final_norm"] },
  { kind: "head", title: "Output head", of: ["output_head"] },
];

// Line drawings on a 20 × 20 grid.
/** @type {Record<string, string>} */
const ICONS = {
  tokenizer: "M2 6.5h5v7H2zM9 6.5h3v7H9zM14 6.5h4v7h-4z",
  table: "M3 3h14v14H3zM3 7.7h14M3 12.3h14M7.7 3v14M12.3 3v14M3 10h14",
  ruler: "M2 7h16v6H2zM5 7v2.5M8 7v3.5M11 7v2.5M14 7v3.5M17 7v1",
  dropout:
    "M4.5 4.5h.01M10 4.5h.01M15.5 10h.01M4.5 10h.01M10 15.5h.01M15.5 15.5h.01M14 4.5a1.5 1.5 0 1 0 3 0 1.5 1.5 0 1 0-3 0M8.5 10a1.5 1.5 0 1 0 3 0 1.5 1.5 0 1 0-3 0M3 15.5a1.5 1.5 0 1 0 3 0 1.5 1.5 0 1 0-3 0",
  bell: "M2 15.5c4.5 0 4.800-11 8-11s3.500 11 8 11M2 17.500h16",
  mask: "M3 3v14h14L3 3M3 7.700h4.700V17M3 12.300h9.300V17",
  plus: "M10 5v10M5 10h10",
  widen: "M2 8v4l5 4.500h6l5-4.500V8l-5-4.500H7zM7 3.500v13M13 3.500v13",
  scores: "M3 4h8M3 8h14M3 12h5M3 16h10",
  die:
    "M4 4h12v12H4zM7.500 7.500h.01M12.500 12.500h.01M10 10h.01M12.500 7.500h.01M7.500 12.500h.01",
};

// ---------------------------------------------------------------------------------------------
// Drawing

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElement}
 */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** @param {string} name @returns {SVGElement} */
function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("class", "gptlib-am-icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** @param {string} title @param {string} content @param {string} [shape] */
function data(title, content, shape = "") {
  return h(
    "div",
    { class: "gptlib-am-data" },
    h("span", { class: "gptlib-am-data-title" }, title),
    h("span", { class: "gptlib-am-data-content" }, content),
    ...(shape ? [h("span", { class: "gptlib-am-shape" }, shape)] : []),
  );
}

/** @param {HTMLElement} grid */
function inRows(grid) {
  [...grid.children].forEach((child, i) => {
    /** @type {HTMLElement} */ (child).style.gridRow = String(i + 1);
  });
}

/** @param {HTMLElement} element @returns {string} the row of the grid in which it stands */
function row(element) {
  return element.style.gridRow || /** @type {HTMLElement} */ (element.parentElement).style.gridRow;
}

const wire = () => h("span", { class: "gptlib-am-wire", "aria-hidden": "true" });

/**
 * Draw the frame once: the map, and the cards beside it that later calls fill.
 * @param {(block: Block) => HTMLElement} button
 */
function frame(button) {
  const of = Object.fromEntries(BLOCKS.map((block) => [block.name, button(block)]));
  const select = /** @type {HTMLSelectElement} */ (h("select", { class: "gptlib-am-select" }));
  const ids = data("Token ids", "7454 2402 257", "(B, T)"); // GPT-2's, of the text above
  const times = h("span", { class: "gptlib-am-times" });
  const transformer = h(
    "div",
    { class: "gptlib-am-transformer", role: "group" },
    h("div", { class: "gptlib-am-transformer-title" }, h("span", {}, "Transformer block"), times),
    wire(),
    of.norm_1,
    wire(),
    of.attention,
    wire(),
    of.shortcut_1,
    wire(),
    of.norm_2,
    wire(),
    of.feed_forward,
    wire(),
    of.shortcut_2,
  );
  const map = h(
    "div",
    {
      class: "gptlib-am-map",
      role: "group",
      "aria-label": "Blocks of the model, from text to next token. Arrow keys move, Enter chooses.",
    },
    data("Text", "Once upon a"),
    wire(),
    of.tokenizer,
    wire(),
    ids,
    h("span", { class: "gptlib-am-fork", "aria-hidden": "true" }),
    h("div", { class: "gptlib-am-pair" }, of.token_embedding, of.position_embedding),
    h("span", { class: "gptlib-am-join", "aria-hidden": "true" }, h("span", {}, "+")),
    wire(),
    of.dropout,
    wire(),
    transformer,
    wire(),
    of.final_norm,
    wire(),
    of.output_head,
    wire(),
    data("Logits", "", "(B, T, V)"),
    wire(),
    of.sampling,
    wire(),
    data("Next token", "␣time"),
  );
  // The lines beside the blocks span rows, so every row is named: the n-th child, the n-th row.
  const tie = h(
    "span",
    { class: "gptlib-am-tie", "aria-hidden": "true" },
    h("span", {}, "same matrix"),
  );
  inRows(map);
  inRows(transformer);
  tie.style.gridRow = `${row(of.token_embedding)} / ${Number(row(of.output_head)) + 1}`;
  map.append(tie);
  for (
    const [from, to] of [
      ["norm_1", "shortcut_1"],
      ["norm_2", "shortcut_2"],
    ]
  ) {
    const arc = h("span", { class: "gptlib-am-arc", "aria-hidden": "true" });
    arc.style.gridRow = `${Number(row(of[from])) - 1} / ${Number(row(of[to])) + 1}`;
    transformer.append(arc);
  }
  const card = h("div", { class: "gptlib-am-card", "aria-live": "polite" });
  const sizes = h("div", { class: "gptlib-am-model" });
  const root = h(
    "div",
    { class: "gptlib-root gptlib-am", "data-lm-suppress-shortcuts": "true" },
    h(
      "div",
      { class: "gptlib-am-layout" },
      h(
        "div",
        { class: "gptlib-am-head" },
        h("strong", { class: "gptlib-title" }, "Map of a GPT"),
        h("label", { class: "gptlib-am-choose" }, h("span", {}, "Model"), select),
      ),
      map,
      h("div", { class: "gptlib-am-side" }, card, sizes),
    ),
  );
  return { root, map, of, ids, select, times, transformer, card, sizes };
}

/**
 * Fill the card of the chosen block.
 * @param {HTMLElement} card
 * @param {Block} block
 * @param {Config} config
 * @param {() => void} close
 */
function fillCard(card, block, config, close) {
  const button = h(
    "button",
    { type: "button", class: "gptlib-am-close", "aria-label": "Close" },
    "×",
  );
  button.addEventListener("click", close);
  card.dataset.kind = block.kind;
  card.replaceChildren(
    h(
      "div",
      { class: "gptlib-am-kicker" },
      `Chapter ${block.chapter} · ${CHAPTERS[block.chapter]}`,
    ),
    h(
      "div",
      { class: "gptlib-am-card-title" },
      icon(block.icon),
      h("strong", {}, fullTitle(block)),
    ),
    h("p", {}, block.what(config)),
    h(
      "div", // not a dl, whose parts the themes of pages and notebooks arrange in ways of their own
      { class: "gptlib-am-facts" },
      ...fact("Shape", ...shapes(block, config)),
      ...cost(block, config),
    ),
    button,
  );
}

/** @param {Block} block @returns {string} */
function fullTitle(block) {
  return block.icon === "plus" ? `${block.title} ${block.name.slice(-1)}` : block.title;
}

/** @param {string} term @param {...(Node | string)} description */
function fact(term, ...description) {
  return [
    h("div", { class: "gptlib-am-term" }, term),
    h("div", { class: "gptlib-am-value" }, ...description),
  ];
}

/** @param {Block} block @param {Config} config @returns {Node[]} */
function shapes(block, config) {
  const enters = block.input[0] === "text" ? "text" : tuple(block.input);
  const small = block.input[0] === "text" ? "text" : numbers(block.input, config);
  const sizes = `${small} → ${numbers(block.output, config)}`;
  return [
    h("code", {}, `${enters} → ${tuple(block.output)}`),
    h("div", { class: "gptlib-am-numbers" }, sizes),
  ];
}

/** @param {Block} block @param {Config} config @returns {Node[]} */
function cost(block, config) {
  const count = parameters(config)[block.name] ?? 0;
  if (count === 0) {
    return fact("Parameters", block.name === "output_head" ? "none of its own" : "none");
  }
  const share = h(
    "span",
    { class: "gptlib-am-share" },
    `${formatShare(count / total(config))} of all`,
  );
  const formula = h("span", { class: "gptlib-am-formula" }, block.formula?.(config) ?? "");
  if (!IN_BLOCK.has(block.name)) {
    return [
      ...fact("Parameters", h("b", {}, formatCount(count)), " ", formula),
      ...fact("", share),
    ];
  }
  const one = blockParameters(config)[block.name];
  return [
    ...fact("Parameters", h("b", {}, formatCount(one)), " ", formula),
    ...fact(`in ${config.n_layers} blocks`, h("b", {}, formatCount(count)), " ", share),
  ];
}

/** @param {HTMLElement} card */
function fillOverview(card) {
  delete card.dataset.kind;
  card.replaceChildren(
    h("div", { class: "gptlib-am-kicker" }, "Chapter 1 · What a GPT is"),
    h("div", { class: "gptlib-am-card-title" }, h("strong", {}, "From a text to its next token")),
    h(
      "p",
      {},
      "A text enters at the top. A score for every possible next token comes out at the bottom. " +
        "In between, the same transformer block stands many times over. Choose a block to see " +
        "what it does, what passes through it and what it costs.",
    ),
  );
}

/** @param {HTMLElement} place @param {Config} config @param {string} kind of the chosen block */
function fillModel(place, config, kind) {
  const counts = parameters(config);
  const all = total(config);
  const parts = PARTS.map((part) => ({
    ...part,
    share: part.of.reduce((sum, name) => sum + counts[name], 0) / all,
  })).filter((part) => part.share > 0);
  place.replaceChildren(
    h("div", { class: "gptlib-am-total" }, h("b", {}, formatCount(all)), " parameters"),
    h(
      "div",
      { class: "gptlib-am-bar", "aria-hidden": "true" },
      ...parts.map((part) => {
        const segment = h("span", { "data-kind": part.kind });
        segment.style.flexGrow = String(part.share);
        if (part.kind === kind) segment.classList.add("gptlib-am-on");
        return segment;
      }),
    ),
    h(
      "ul",
      { class: "gptlib-am-legend" },
      ...parts.map((part) =>
        h(
          "li",
          { "data-kind": part.kind },
          h("span", {}, part.title),
          h("b", {}, formatShare(part.share)),
        )
      ),
    ),
    h(
      "p",
      { class: "gptlib-am-sizes" },
      `${modelName(config.name)}: ${config.n_layers} layers, C = ${width(config)} channels, ` +
        `${config.n_heads} heads, context T = ${formatCount(config.context_length)}, ` +
        `vocabulary V = ${formatCount(config.vocab_size)}.`,
    ),
  );
}

/**
 * @param {{ model: Model, el: HTMLElement }} context
 * @returns {() => void}
 */
function render({ model, el }) {
  /** @param {Block} block */
  const button = (block) => {
    const element = h(
      "button",
      {
        type: "button",
        class: "gptlib-am-block",
        "data-block": block.name,
        "data-kind": block.kind,
        tabindex: "-1",
        "data-lm-suppress-shortcuts": "true", // JupyterLab asks the focused element itself
      },
      icon(block.icon),
      h("span", { class: "gptlib-am-name" }, fullTitle(block)),
      h("span", { class: "gptlib-am-count" }),
    );
    element.addEventListener(
      "click",
      () => choose(model.get("chosen") === block.name ? "" : block.name),
    );
    return element;
  };
  const view = frame(button);
  const buttons = BLOCKS.map((block) => view.of[block.name]);
  let current = 0; // the one block that the Tab key reaches

  /** @param {string} name */
  function choose(name) {
    view.root.classList.toggle("gptlib-am-picked", name !== "");
    model.set("chosen", name);
    model.save_changes();
    view.of[name]?.scrollIntoView({ block: "nearest" }); // on a phone, the card might hide it
  }

  /** @param {number} index */
  function makeCurrent(index) {
    buttons[current].tabIndex = -1;
    buttons[index].tabIndex = 0;
    current = index;
  }

  function close() {
    buttons[current].focus();
    choose("");
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    const last = buttons.length - 1;
    /** @type {Record<string, number>} */
    const targets = {
      ArrowDown: Math.min(current + 1, last),
      ArrowRight: Math.min(current + 1, last),
      ArrowUp: Math.max(current - 1, 0),
      ArrowLeft: Math.max(current - 1, 0),
      Home: 0,
      End: last,
    };
    if (event.key === "Escape" && model.get("chosen")) choose("");
    else if (event.key in targets) buttons[targets[event.key]].focus();
    else return;
    event.preventDefault();
    event.stopPropagation(); // a notebook has shortcuts of its own for these keys
  }

  /** @returns {Config} */
  function configured() {
    return model
      .get("family")
      .find((/** @type {Config} */ member) => member.name === model.get("model"));
  }

  function drawChosen() {
    const name = model.get("chosen");
    const config = configured();
    const index = BLOCKS.findIndex((block) => block.name === name);
    buttons.forEach((element, i) => element.setAttribute("aria-pressed", String(i === index)));
    if (index >= 0) {
      makeCurrent(index);
      fillCard(view.card, BLOCKS[index], config, close);
    } else {
      fillOverview(view.card);
    }
    fillModel(view.sizes, config, BLOCKS[index]?.kind ?? "");
  }

  function drawModel() {
    const config = configured();
    view.select.value = model.get("model");
    view.times.textContent = `× ${config.n_layers}`;
    view.transformer.setAttribute("aria-label", `Transformer block, ${config.n_layers} times`);
    view.ids.classList.toggle("gptlib-am-other", config.vocab_size !== 50257);
    view.map.classList.toggle("gptlib-am-tied", config.tie_head);
    const counts = { ...parameters(config), ...blockParameters(config) };
    for (const block of BLOCKS) {
      const place = view.of[block.name].querySelector(".gptlib-am-count");
      const count = counts[block.name];
      if (place) place.textContent = count ? formatShort(count) : "";
    }
    drawChosen();
  }

  function drawFamily() {
    view.select.replaceChildren(
      ...model.get("family").map((/** @type {Config} */ member) => {
        const size = formatShort(total(member));
        return h("option", { value: member.name }, `${modelName(member.name)} (${size})`);
      }),
    );
    drawModel();
  }

  function drawLit() {
    const lit = model.get("lit");
    let before = false;
    BLOCKS.forEach((block, i) => {
      const here = lit.includes(block.name);
      buttons[i].classList.toggle("gptlib-am-lit", here);
      buttons[i].classList.toggle("gptlib-am-first", here && !before);
      if (here) buttons[i].setAttribute("aria-current", "location");
      else buttons[i].removeAttribute("aria-current");
      before = here;
    });
  }

  view.map.addEventListener("keydown", onKey);
  view.map.addEventListener("focusin", (event) => {
    const index = buttons.indexOf(/** @type {HTMLElement} */ (event.target));
    if (index >= 0) makeCurrent(index);
  });
  view.select.addEventListener("change", () => {
    model.set("model", view.select.value);
    model.save_changes();
  });
  makeCurrent(0);
  drawLit();
  drawFamily();
  el.append(view.root);

  /** @type {[string, () => void][]} */
  const listeners = [
    ["change:chosen", drawChosen],
    ["change:model", drawModel],
    ["change:family", drawFamily],
    ["change:lit", drawLit],
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}

export default { render };
