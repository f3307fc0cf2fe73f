// The map of a GPT: every block, what it does, what passes through it and what it costs.

import { blockParameters, modelName, parameters, total } from "./lib/accounting.js";
import { classes, define, html, nothing, repeat } from "./lib/kit.js";
import { formatCount, formatShare, formatShort, sum } from "./lib/numbers.js";
import { moved } from "./lib/rove.js";
import { familyOptions, modelChoice } from "./lib/settings.js";

/** @import { Member as Config } from "./lib/accounting.js" */
/** @import { Widget } from "./lib/kit.js" */
/** @typedef {typeof BLOCKS[number]} Block */

// ---------------------------------------------------------------------------------------------
// What the map says

/**
 * A shape in numbers: one text, as long as the context allows.
 * @param {string[]} symbols @param {Config} config @returns {string}
 */
export function numbers(symbols, { context_length: T, emb_dim: C, vocab_size: V }) {
  const sizes = /** @type {Record<string, number>} */ ({ B: 1, T, C, V });
  return tuple(symbols.map((symbol) => String(sizes[symbol] ?? symbol)));
}

/** @param {string[]} items @returns {string} as Python writes a tuple */
const tuple = (items) => items.length === 1 ? `(${items[0]},)` : `(${items.join(", ")})`;

/** @param {Config} config */
const width = (config) => formatCount(config.emb_dim);

/**
 * The blocks on the data's way: name in the library, title, kind, drawing, and number of a chapter.
 * @type {[string, string, string, string, number][]}
 */
const ROWS = [
  ["tokenizer", "Tokenizer", "text", "tokenizer", 2],
  ["token_embedding", "Token embedding", "embedding", "table", 2],
  ["position_embedding", "Position embedding", "embedding", "ruler", 2],
  ["dropout", "Dropout", "plain", "dropout", 4],
  ["norm_1", "Norm 1", "norm", "bell", 4],
  ["attention", "Masked multi-head attention", "attention", "mask", 3],
  ["shortcut_1", "Shortcut 1", "plain", "plus", 4],
  ["norm_2", "Norm 2", "norm", "bell", 4],
  ["feed_forward", "Feed-forward", "feed-forward", "widen", 4],
  ["shortcut_2", "Shortcut 2", "plain", "plus", 4],
  ["final_norm", "Final norm", "norm", "bell", 4],
  ["output_head", "Output head", "head", "scores", 4],
  ["sampling", "Sampling", "text", "die", 5],
];

/** What each does. @type {Record<string, (config: Config) => string>} */
const WHAT = {
  tokenizer: (c) =>
    "Cuts the text into tokens, common pieces of words, and looks up the number of each in a " +
    `vocabulary of ${formatCount(c.vocab_size)} entries. The network only ever sees these ` +
    "numbers. The vocabulary is learned once, before the network exists.",
  token_embedding: (c) =>
    `A table with a row of ${width(c)} numbers for every entry of the vocabulary. Each token ` +
    "id picks its row. What the numbers say about a token is learned in training.",
  position_embedding: (c) =>
    `A second table, with a row of ${width(c)} numbers for each of the ` +
    `${formatCount(c.context_length)} positions. It is added to the tokens' rows, so that the ` +
    "blocks can tell where a token stands.",
  dropout: () =>
    "In training, sets a random share of the values to zero and scales up the rest, so that " +
    "the network learns to rely on no single value. When the model generates text, it does " +
    "nothing.",
  norm_1: (c) =>
    `Brings the ${width(c)} values of each position to mean 0 and variance 1, then gives each ` +
    "channel a learned scale and shift. Without it, the values drift from block to block and a " +
    "deep network is hard to train.",
  attention: (c) =>
    "Each position looks at itself and at those before it, never ahead, and gathers what it " +
    `needs. ${c.n_heads} heads of ${c.emb_dim / c.n_heads} channels do so side by side; a ` +
    "linear layer joins what they find. This is the only place where positions exchange " +
    "information.",
  shortcut_1: () =>
    "Adds what entered norm 1 to what attention found. Attention then only has to learn a " +
    "change, and the training signal reaches the first blocks without fading on the way.",
  norm_2: () =>
    "The same as norm 1, with a scale and a shift of its own, in front of the feed-forward " +
    "network.",
  feed_forward: (c) =>
    `Works on each position alone. A linear layer widens its ${width(c)} values to ` +
    `${formatCount(4 * c.emb_dim)}, the GELU function bends them, and a second linear layer ` +
    `brings them back to ${width(c)}. Two thirds of a block's parameters are here.`,
  shortcut_2: () =>
    "Adds what entered norm 2 to what the feed-forward network found. The sum is what the next " +
    "block reads; after the last block, it goes to the final norm.",
  final_norm: () =>
    "One more norm after the last block. Whatever the blocks have added up, the output head " +
    "reads values of a known scale.",
  output_head: (c) =>
    `Gives each of the ${formatCount(c.vocab_size)} entries of the vocabulary a score, its ` +
    "logit: how well would it continue the text? " +
    (c.tie_head
      ? "The matrix is the token embedding's, used a second time, so it adds no parameters."
      : "Its matrix is its own, as large as the token embedding's."),
  sampling: () =>
    "Turns the logits of the last position into probabilities and draws the next token from " +
    "them. The token joins the end of the text, and the whole way begins again.",
};

/** How its parameters are counted, where it has any. @type {Record<string, typeof WHAT[string]>} */
const FORMULAS = {
  token_embedding: () => "V · C",
  position_embedding: () => "T · C",
  norm_1: () => "2 · C",
  attention: (c) => (c.qkv_bias ? "4 · C² + 4 · C" : "4 · C² + C"),
  norm_2: () => "2 · C",
  feed_forward: () => "8 · C² + 5 · C",
  final_norm: () => "2 · C",
  output_head: (c) => (c.tie_head ? "" : "V · C"),
};

const WITHIN = ["B", "T", "C"]; // inside of the model, each position has its channels
/** Elsewhere, what enters a block and leaves it. @type {Record<string, [string[], string[]]>} */
const SHAPES = {
  tokenizer: [["text"], ["B", "T"]],
  token_embedding: [["B", "T"], WITHIN],
  position_embedding: [["T"], ["T", "C"]],
  output_head: [WITHIN, ["B", "T", "V"]],
  sampling: [["B", "T", "V"], ["B", "1"]],
};

export const BLOCKS = ROWS.map(([name, title, kind, icon, chapter]) => {
  const [input, output] = SHAPES[name] ?? [WITHIN, WITHIN];
  return { name, title, kind, icon, chapter, input, output, formula: FORMULAS[name] };
});

/** What a transformer block is made of. */
const IN_BLOCK = ["norm_1", "attention", "shortcut_1", "norm_2", "feed_forward", "shortcut_2"];

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

/** What the widget is drawn from, and what it remembers besides. */
class State {
  current = BLOCKS[0].name; // the one block that the Tab key reaches
  scroll = ""; // the block that must stay in sight once its card is drawn

  /** @param {Widget} widget */
  constructor(widget) {
    this.widget = widget;
    this.model = widget.model;
    this.model.on("change:chosen", this.follow);
    this.follow();
  }

  follow = () => this.current = this.chosen() || this.current;
  close = () => this.model.off("change:chosen", this.follow);

  /** @returns {string} */
  chosen = () => this.model.get("chosen");
  /** @returns {string[]} */
  lit = () => this.model.get("lit");
  /** @returns {Config[]} */
  family = () => this.model.get("family");

  config() {
    const named = this.family().find(({ name }) => name === this.model.get("model"));
    return /** @type {Config} */ (named);
  }

  /** @param {string} name @returns {HTMLElement} */
  blockOf(name) {
    return /** @type {any} */ (this.widget.root.querySelector(`[data-block="${name}"]`));
  }

  /** @param {string} name */
  choose(name) {
    this.widget.root.classList.toggle("gptlib-am-picked", name !== "");
    this.scroll = name;
    this.widget.save({ chosen: name });
  }

  dismiss = () => {
    this.blockOf(this.current).focus();
    this.choose("");
  };

  /** @param {Event} event */
  onFocus = ({ target }) => {
    this.current = /** @type {HTMLElement} */ (target).dataset.block ?? this.current;
    this.widget.update();
  };

  /** @param {KeyboardEvent} event */
  onKey = (event) => {
    const at = BLOCKS.findIndex(({ name }) => name === this.current);
    const to = moved(event.key, at, BLOCKS.length, { page: 0 });
    if (event.key === "Escape" && this.chosen()) this.choose("");
    else if (to !== null) this.blockOf(BLOCKS[to].name).focus();
    else return;
    event.preventDefault();
    event.stopPropagation(); // a notebook has shortcuts of its own for these keys
  };

  view() {
    const config = this.config();
    const block = BLOCKS.find(({ name }) => name === this.chosen());
    // The card is made anew for what it shows, so that all of it is read aloud.
    const card = () => block ? cardView(this, block) : overview();
    const choose = (/** @type {string} */ model) => this.widget.save({ model });
    return html`<div class="gptlib-layout gptlib-am-layout">
      <div class="gptlib-head">
        <strong class="gptlib-title">Map of a GPT</strong>
        ${modelChoice(config.name, familyOptions(this.family()), choose)}
      </div>
      ${mapView(this)}
      <div class="gptlib-am-side">
        <div class="gptlib-am-card" aria-live="polite" data-kind=${block?.kind ?? nothing}>
          ${repeat([`${block?.name} of ${config.name}`], (key) => key, card)}
        </div>
        ${modelView(config)}
      </div>
    </div>`;
  }

  drawn() {
    if (this.scroll) this.blockOf(this.scroll).scrollIntoView({ block: "nearest" });
    this.scroll = ""; // on a phone, the card might hide it
  }
}

/** @param {string} name */
const iconView = (name) =>
  html`
    <svg viewBox="0 0 20 20" class="gptlib-am-icon" aria-hidden="true">
      <path d=${ICONS[name]}></path>
    </svg>
  `;

const wire = () => html`<span class="gptlib-am-wire" aria-hidden="true"></span>`;

/** @param {string} title @param {string} content @param {string} [shape] */
const dataView = (title, content, shape = "") =>
  html`<div class="gptlib-soft gptlib-am-data">
    <span class="gptlib-am-data-title">${title}</span>
    ${content && html`<span class="gptlib-am-data-content">${content}</span>`}
    ${shape && html`<span class="gptlib-am-shape">${shape}</span>`}
  </div>`;

/** @param {State} state @param {string} name */
function blockView(state, name) {
  const at = BLOCKS.findIndex((block) => block.name === name);
  const { kind, icon, title } = BLOCKS[at];
  const lit = state.lit().includes(name);
  const first = lit && !state.lit().includes(BLOCKS[at - 1]?.name);
  const count = { ...parameters(state.config()), ...blockParameters(state.config()) }[name];
  const chosen = state.chosen() === name;
  return html`
    <button type="button" class=${classes("tap am-block", lit && "am-lit", first && "am-first")}
      data-block=${name} data-kind=${kind} tabindex=${name === state.current ? 0 : -1}
      aria-pressed=${chosen} aria-current=${lit ? "location" : nothing}
      @click=${() => state.choose(chosen ? "" : name)}>
      ${iconView(icon)}
      <span class="gptlib-am-name">${title}</span>
      <span class="gptlib-am-count">${count ? formatShort(count) : ""}</span>
    </button>
  `;
}

/** @param {State} state the transformer block, opened */
function transformerView(state) {
  const layers = state.config().n_layers;
  return html`
    <div class="gptlib-am-transformer" role="group"
      aria-label="Transformer block, ${layers} times">
      <div class="gptlib-soft gptlib-am-transformer-title">
        <span>Transformer block</span><span class="gptlib-am-times">× ${layers}</span>
      </div>
      ${IN_BLOCK.map((name) => [wire(), blockView(state, name)])}
      <span class="gptlib-am-arc" aria-hidden="true"></span>
      <span class="gptlib-am-arc" aria-hidden="true"></span>
    </div>
  `;
}

/** @param {State} state */
function mapView(state) {
  const { vocab_size: entries, tie_head: tied } = state.config();
  const ids = entries === 50257 ? "7454 2402 257" : ""; // GPT-2's, of the text above
  return html`
    <div class="gptlib-am-map" role="group" @keydown=${state.onKey} @focusin=${state.onFocus}
      aria-label="Blocks of the model, from text to next token. Arrow keys move, Enter chooses.">
      ${dataView("Text", "Once upon a")} ${wire()} ${blockView(state, "tokenizer")} ${wire()}
      ${dataView("Token ids", ids, "(B, T)")}
      <span class="gptlib-am-fork" aria-hidden="true"></span>
      <div class="gptlib-am-pair">
        ${blockView(state, "token_embedding")} ${blockView(state, "position_embedding")}
      </div>
      <span class="gptlib-am-join" aria-hidden="true"><span>+</span></span>
      ${wire()} ${blockView(state, "dropout")} ${wire()} ${transformerView(state)} ${wire()}
      ${blockView(state, "final_norm")} ${wire()} ${blockView(state, "output_head")} ${wire()}
      ${dataView("Logits", "", "(B, T, V)")} ${wire()} ${blockView(state, "sampling")} ${wire()}
      ${dataView("Next token", "␣time")}
      <span class="gptlib-am-tie" aria-hidden="true" ?hidden=${!tied}>
        <span>same matrix</span>
      </span>
    </div>
  `;
}

/** @param {string} term @param {unknown} value */
const fact = (term, value) =>
  html`
    <div class="gptlib-soft">${term}</div>
    <div class="gptlib-am-value">${value}</div>
  `;

/** @param {Block} block @param {Config} config */
function shapesView({ input, output }, config) {
  const text = input[0] === "text";
  const small = text ? "text" : numbers(input, config);
  return html`
    <code>${text ? "text" : tuple(input)} → ${tuple(output)}</code>
    <div class="gptlib-am-numbers">${small} → ${numbers(output, config)}</div>
  `;
}

/** @param {Block} block @param {Config} config */
function costView({ name, formula }, config) {
  const count = parameters(config)[name] ?? 0;
  if (count === 0) {
    return fact("Parameters", name === "output_head" ? "none of its own" : "none");
  }
  const counted = (/** @type {number} */ number, /** @type {string} */ words) =>
    html`<b>${formatCount(number)}</b> <span class="gptlib-soft">${words}</span>`;
  const share = `${formatShare(count / total(config))} of all`;
  const own = counted(blockParameters(config)[name] ?? count, formula(config));
  const all = IN_BLOCK.includes(name)
    ? fact(`in ${config.n_layers} blocks`, counted(count, share))
    : fact("", html`<span class="gptlib-soft">${share}</span>`);
  return [fact("Parameters", own), all];
}

/** @param {number} chapter */
const kicker = (chapter) =>
  html`<div class="gptlib-am-kicker">Chapter ${chapter} · ${CHAPTERS[chapter]}</div>`;

/** @param {State} state @param {Block} block the card of the chosen block */
const cardView = (state, block) =>
  // not a dl, whose parts the themes of pages and notebooks arrange in ways of their own
  html`
    ${kicker(block.chapter)}
    <div class="gptlib-am-card-title">
      ${iconView(block.icon)}<strong>${block.title}</strong>
    </div>
    <p>${WHAT[block.name](state.config())}</p>
    <div class="gptlib-am-facts">
      ${fact("Shape", shapesView(block, state.config()))} ${costView(block, state.config())}
    </div>
    <button type="button" class="gptlib-am-close" aria-label="Close" @click=${state.dismiss}>
      ×
    </button>
  `;

const overview = () =>
  html`
    ${kicker(1)}
    <div class="gptlib-am-card-title"><strong>From a text to its next token</strong></div>
    <p>
      A text enters at the top. A score for every possible next token comes out at the bottom. In
      between, the same transformer block stands many times over. Choose a block to see what it
      does, what passes through it and what it costs.
    </p>
  `;

/** @param {Config} config where the model's parameters are */
function modelView(config) {
  const counts = parameters(config);
  const parts = PARTS
    .map((part) => ({ ...part, share: sum(part.of.map((name) => counts[name])) / total(config) }))
    .filter((part) => part.share > 0);
  const sizes = `${modelName(config.name)}: ${config.n_layers} layers, C = ${width(config)} ` +
    `channels, ${config.n_heads} heads, context T = ${formatCount(config.context_length)}, ` +
    `vocabulary V = ${formatCount(config.vocab_size)}.`;
  return html`
    <div>
      <div class="gptlib-am-total"><b>${formatCount(total(config))}</b> parameters</div>
      <div class="gptlib-stack gptlib-am-bar" aria-hidden="true">${parts.map(({ kind, share }) =>
        html`<span data-kind=${kind} style="flex-grow: ${share}"></span>`
      )}</div>
      <ul class="gptlib-am-legend">${parts.map(({ kind, title, share }) =>
        html`<li data-kind=${kind}><span>${title}</span><b>${formatShare(share)}</b></li>`
      )}</ul>
      <p class="gptlib-am-sizes">${sizes}</p>
    </div>
  `;
}

export default define("am", ["chosen", "model", "family", "lit"], (widget) => new State(widget));
