// A training run to scrub through: its loss above the floor, what it wrote at each moment, and
// where one of its heads looked. Everything was measured in Python; here it is only shown.

/**
 * @typedef {{
 *   text: string, parses: boolean, fails_at: number | null, expected: string[],
 *   names: boolean, pronouns: boolean, object: boolean,
 * }} Sample
 * @typedef {{
 *   step: number, stories: number, tokens: number, held_out: number, training: number,
 *   samples: Sample[], score: number, others: number, map: string,
 * }} Moment
 * @typedef {{
 *   version: number, steps: number, floor: number,
 *   curve: { steps: number[], losses: number[] }, prompts: string[],
 *   fragment: { text: string, tokens: string[], query: number, name: string, targets: number[] },
 *   head: { layer: number, head: number }, moments: Moment[],
 * }} Replay  as gptlib.replay documents it
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: unknown): void,
 *   on(event: string, callback: () => void): void,
 *   off(event: string, callback: () => void): void,
 *   save_changes(): void,
 * }} Model
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

const SHOWN = 520; // characters of a text that is no story: where it left the grammar is enough
const KNEE = 10; // below so many steps the axis is about even, so that it can start at step 0

/**
 * Where a step stands on the axis: logarithmic, but for the first few steps.
 * @param {number} step
 * @param {number} steps of the whole axis
 * @returns {number} from 0 to 1
 */
export function placeOf(step, steps) {
  return Math.log1p(step / KNEE) / Math.log1p(Math.max(steps, 1) / KNEE);
}

/**
 * The step that stands nearest to a place on the axis.
 * @param {number} place from 0 to 1
 * @param {number[]} steps that there are, in order
 * @param {number} last step of the axis
 * @returns {number} its index
 */
export function nearest(place, steps, last) {
  let best = 0;
  for (let i = 1; i < steps.length; i++) {
    const off = Math.abs(placeOf(steps[i], last) - place);
    if (off < Math.abs(placeOf(steps[best], last) - place)) best = i;
  }
  return best;
}

/** @param {number} steps @returns {number[]} powers of ten, and the last step if it has room */
export function ticks(steps) {
  const found = [0];
  for (let step = 10; step <= steps; step *= 10) found.push(step);
  const last = found[found.length - 1];
  if (steps > last && placeOf(steps, steps) - placeOf(last, steps) > 0.12) found.push(steps);
  return found;
}

/**
 * Where a loss stands: logarithmic, since the last steps to the floor are small ones.
 * @param {number} loss
 * @param {{ low: number, high: number }} range
 * @returns {number} from 0, the top, to 1
 */
export function heightOf(loss, { low, high }) {
  return Math.log(high / Math.max(loss, low)) / Math.log(high / low);
}

/** @param {Replay} replay @returns {{ low: number, high: number }} of the losses that are drawn */
export function rangeOf({ floor, curve, moments }) {
  const losses = [...curve.losses, ...moments.map((moment) => moment.held_out)];
  return { low: Math.min(floor, ...losses) * 0.7, high: Math.max(floor, ...losses) * 1.12 };
}

/**
 * The attention of a head, from what is stored: its lower triangle by rows.
 * @param {string} map base64 of bytes, 255 is a weight of 1
 * @param {number} size how many tokens
 * @returns {Float64Array} size x size, 0 above the diagonal
 */
export function weightsOf(map, size) {
  const codes = atob(map);
  if (codes.length !== (size * (size + 1)) / 2) {
    throw new Error(`a map of ${size} tokens is not in ${codes.length} bytes`);
  }
  const weights = new Float64Array(size * size);
  for (let i = 0, next = 0; i < size; i++) {
    for (let j = 0; j <= i; j++) weights[i * size + j] = codes.charCodeAt(next++) / 255;
  }
  return weights;
}

/**
 * A sample in its parts: the prompt, what follows the grammar, the word in which it leaves it, the
 * rest. Python counts characters in code points.
 * @param {Sample} sample
 * @param {string} prompt
 * @returns {{ prompt: string, good: string, leaves: string, rest: string }}
 */
export function parts(sample, prompt) {
  const points = Array.from(sample.text);
  const start = Array.from(prompt).length;
  let at = Math.max(sample.fails_at ?? points.length, start);
  let end = at;
  const space = (/** @type {number} */ i) => /\s/.test(points[i]);
  if (sample.fails_at !== null) {
    while (end < points.length && space(end)) end++;
    while (end < points.length && !space(end)) end++;
    while (at > start && at < points.length && !space(at) && !space(at - 1)) at--;
  }
  const cut = (/** @type {number} */ from, /** @type {number} */ to) =>
    points.slice(from, to).map(visible).join("");
  const shown = sample.parses ? points.length : Math.max(SHOWN, end + 80);
  const more = Math.max(points.length - shown, 0);
  return {
    prompt: cut(0, start),
    good: cut(start, at),
    leaves: cut(at, end),
    rest: cut(end, shown) + (more ? ` … and ${plural(more, "character")} more` : ""),
  };
}

/** @param {string} character @returns {string} one that leaves ink, or a space */
function visible(character) {
  if (character === " " || character === "\n") return character;
  if (/[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u.test(character)) return "\ufffd";
  return character;
}

/** @param {Sample} sample @returns {number} the share of the text that follows the grammar */
export function followed({ text, fails_at }) {
  const length = Array.from(text).length;
  return fails_at === null || !length ? Number(fails_at === null) : fails_at / length;
}

/** @param {string[]} words @returns {string} "a", "b" or "c" */
function either(words) {
  const quoted = words.map((word) => (word.startsWith("the end") ? word : `“${word}”`));
  const last = quoted.pop() ?? "";
  return quoted.length ? `${quoted.join(", ")} or ${last}` : last;
}

/**
 * The grammar's verdict in plain words.
 * @param {Sample} sample
 * @param {string} prompt
 * @returns {string}
 */
export function verdict(sample, prompt) {
  if (sample.parses) return "A whole story: the grammar can tell every word of it.";
  const length = Array.from(sample.text).length;
  const at = sample.fails_at ?? length;
  const could = sample.expected.length ? ` It could go on with ${either(sample.expected)}.` : "";
  if (!length) return "It ends before its first word.";
  if (at >= length) return "It breaks off before its end, and follows the grammar so far.";
  if (at <= Array.from(prompt).length + 1) return `It leaves the grammar at once.${could}`;
  const words = countWords(Array.from(sample.text).slice(0, at).join("").slice(prompt.length));
  return `It follows the grammar for ${plural(words, "word")}, then leaves it.${could}`;
}

/** @param {string} text @returns {number} */
function countWords(text) {
  return text.split(/\s+/).filter(Boolean).length;
}

/** @param {number} count @param {string} noun @returns {string} */
export function plural(count, noun) {
  return `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** @param {number} count @returns {string} with commas between the thousands */
export function grouped(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** @param {number} count @returns {string} three digits and a unit: 4734274 as "4.73M" */
export function short(count) {
  for (
    const [unit, name] of /** @type {[number, string][]} */ ([
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

/** @param {number} value @returns {string} three digits or more, with a true minus sign */
export function digits(value) {
  const size = Math.abs(value);
  const text = value.toFixed(size < 10 ? 3 : size < 100 ? 1 : 0);
  if (size >= 1000) return grouped(Math.round(value));
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** @param {string} token a character a byte @returns {string} what to show for it */
export function label(token) {
  if (token === "") return "start";
  const bytes = Uint8Array.from(token, (character) => character.charCodeAt(0));
  const text = new TextDecoder().decode(bytes).replaceAll("\n", "⏎");
  return Array.from(text.trim() || "␣")
    .map(visible)
    .join("");
}

/**
 * The heaviest tokens of a row, in words.
 * @param {string[]} labels
 * @param {Float64Array} weights of the row
 * @param {number} [most]
 * @returns {string}
 */
export function heaviest(labels, weights, most = 3) {
  return Array.from(weights, (weight, i) => ({ weight, i }))
    .sort((a, b) => b.weight - a.weight || a.i - b.i)
    .slice(0, most)
    .filter(({ weight }) => weight >= 0.01)
    .map(({ weight, i }) => `“${labels[i]}” ${weight.toFixed(2)}`)
    .join(", ");
}

// ---------------------------------------------------------------------------------------------
// Drawing

const CONTROLS = ["button", "input", "summary"];
const PAUSE = 1200; // milliseconds from one moment to the next

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

/** @param {string} title @param {string} [unit] */
function makeFact(title, unit = "") {
  const value = h("dd", { class: "gptlib-tr-value" });
  const note = h("dd", { class: "gptlib-tr-unit" }, unit);
  return { value, note, root: h("div", {}, h("dt", {}, title), value, note) };
}

/** Draw the frame once; later calls fill it. */
function frame() {
  const id = `gptlib-tr-${(count += 1)}`;
  const div = (/** @type {string} */ name, /** @type {Record<string, string>} */ more = {}) =>
    h("div", { class: `gptlib-tr-${name}`, ...more });
  const button = (
    /** @type {string} */ name,
    /** @type {string} */ text,
  ) => /** @type {HTMLButtonElement} */ (
    h("button", { type: "button", class: `gptlib-tr-button gptlib-tr-${name}` }, text)
  );
  const [back, play, next] = [button("back", "◀"), button("play", "Play"), button("next", "▶")];
  back.setAttribute("aria-label", "Moment before");
  next.setAttribute("aria-label", "Next moment");
  const slider = /** @type {HTMLInputElement} */ (
    h("input", {
      type: "range",
      class: "gptlib-tr-slider",
      min: "0",
      max: "1",
      step: "any",
      "aria-label": "Moment of the training",
    })
  );
  const chart = s("svg", { class: "gptlib-tr-chart", "aria-hidden": "true" });
  const plot = div("plot");
  plot.append(chart, slider);
  const facts = {
    step: makeFact("Step"),
    stories: makeFact("Stories read"),
    loss: makeFact("Held-out loss", "nats per token"),
    excess: makeFact("Above the floor", "nats per token"),
    perplexity: makeFact("Perplexity"),
  };
  const [prompts, verdictText, meter] = [
    h("fieldset", { class: "gptlib-tr-prompts" }),
    h("p", { class: "gptlib-tr-verdict" }),
    h("div", { class: "gptlib-tr-meter", "aria-hidden": "true" }, h("span")),
  ];
  const flags = ["names", "pronouns", "object"].map((name) => ({
    name,
    root: h("li", { class: "gptlib-tr-flag" }),
  }));
  const [prompt, good, leaves, rest] = [
    h("span", { class: "gptlib-tr-prompt" }),
    h("span", { class: "gptlib-tr-good" }),
    h("mark", { class: "gptlib-tr-leaves" }),
    h("span", { class: "gptlib-tr-rest" }),
  ];
  const text = h("p", { class: "gptlib-tr-text" }, prompt, good, leaves, rest);
  const room = h("p", { class: "gptlib-tr-text gptlib-tr-room", "aria-hidden": "true" });
  const [scoreFill, othersFill] = [h("span"), h("span")];
  const [score, others] = [h("b", {}), h("b", {})];
  const headName = h("strong", {});
  const tokens = div("tokens", { role: "group", "aria-label": "Token that looks" });
  const looks = h("p", { class: "gptlib-tr-looks" });
  const canvas = /** @type {HTMLCanvasElement} */ (h("canvas", {}));
  const row = div("row");
  const map = div("map", { "aria-hidden": "true" });
  map.append(canvas, row);
  const body = h("tbody");
  const heads = ["Step", "Stories read", "Held-out loss", "Above the floor", "Perplexity"];
  const headRow = h("tr", {}, ...heads.map((title) => h("th", { scope: "col" }, title)));
  const table = h(
    "table",
    {},
    h("caption", { class: "gptlib-tr-hidden" }, "The moments of the training"),
    h("thead", {}, headRow),
    body,
  );
  const scroller = div("scroller", { tabindex: "0", role: "region", "aria-label": "All moments" });
  scroller.append(table);
  const said = h("div", { class: "gptlib-tr-hidden", role: "status" });
  const facing = h("dl", { class: "gptlib-tr-facts" });
  facing.append(...Object.values(facts).map((fact) => fact.root));
  const controls = div("controls", { role: "group", "aria-label": "Walk through the moments" });
  controls.append(back, play, next);
  const bar = h("span", { class: "gptlib-tr-score-bar", "aria-hidden": "true" });
  bar.append(scoreFill, othersFill);
  const sum = h("p", { class: "gptlib-tr-sum" });
  const stack = div("stack");
  stack.append(room, text);
  const flagList = h("ul", { class: "gptlib-tr-flags", "aria-label": "What stays consistent" });
  flagList.append(...flags.map((flag) => flag.root));
  const writes = h("section", { class: "gptlib-tr-card", "aria-label": "What it writes" });
  const head = div("card-head");
  head.append(h("strong", {}, "What it writes"), flagList);
  writes.append(head, prompts, meter, verdictText, stack);
  const lower = div("lower");
  const aside = div("aside");
  const about = h("p", { class: "gptlib-tr-soft" });
  aside.append(about, looks);
  lower.append(map, aside);
  const looking = h("section", { class: "gptlib-tr-card", "aria-label": "Where a head looks" });
  const scored = h(
    "p",
    { class: "gptlib-tr-score" },
    ...[score, " of its attention goes to the name that comes next, ", others, " to other names."],
  );
  const top = div("card-head");
  top.append(headName);
  looking.append(top, bar, scored, tokens, lower);
  const cards = div("cards");
  cards.append(writes, looking);
  const details = h(
    "details",
    { class: "gptlib-tr-details" },
    h("summary", {}, "All moments as a table"),
    scroller,
  );
  const title = div("head");
  title.append(h("strong", { class: "gptlib-title" }, "A training run, replayed"), sum);
  const layout = div("layout");
  const steer = div("steer");
  steer.append(controls, facing);
  layout.append(title, plot, steer, cards, details, said);
  const root = h(
    "div",
    { class: "gptlib-root gptlib-tr", "data-lm-suppress-shortcuts": "true" },
    layout,
  );
  return {
    ...{ id, root, sum, plot, chart, slider, back, play, next, facts, prompts, meter, flags },
    ...{
      verdict: verdictText,
      prompt,
      good,
      leaves,
      rest,
      room,
      score,
      scoreFill,
      headName,
      others,
    },
    ...{ othersFill, tokens, looks, about, map, canvas, row, headRow, body, said, looking },
  };
}

/**
 * @param {{ model: Model, el: HTMLElement }} context
 * @returns {() => void}
 */
function render({ model, el }) {
  const view = frame();
  /** @type {Replay} */
  let replay;
  let range = { low: 1, high: 1 };
  let box = { left: 0, right: 0, top: 0, bottom: 0 };
  let width = 0;
  /** @type {Map<number, Float64Array>} */
  let maps = new Map();
  /** @type {string[]} */
  let labels = [];
  /** @type {{ button: HTMLElement, weight: HTMLElement }[]} */
  let chips = [];
  /** @type {HTMLInputElement[]} */
  let radios = [];
  /** @type {{ line: SVGElement, dot: SVGElement, dots: SVGElement[] } | null} */
  let drawn = null;
  let marked = { row: -1, chosen: -1 };
  let color = ""; // of the map
  let dragging = false;
  let hovered = -1; // a token under the pointer
  let playing = 0;
  let speaking = 0;

  const last = () => replay.moments.length - 1;
  const at = (/** @type {string} */ name, /** @type {number} */ most) =>
    Math.min(Math.max(model.get(name) ?? 0, 0), most);
  const index = () => at("moment", last());
  const token = () => at("token", replay.fragment.tokens.length - 1);
  const moment = () => replay.moments[index()];
  const end = () => Math.max(replay.steps, replay.moments[last()].step);

  // --- the whole replay -------------------------------------------------------------------------

  function drawReplay() {
    replay = model.get("replay");
    range = rangeOf(replay);
    maps = new Map();
    hovered = -1;
    labels = replay.fragment.tokens.map(label);
    const moments = plural(replay.moments.length, "moment");
    write(view.sum, `${moments} of ${plural(replay.steps, "step")}`);
    write(view.headName, `Where head ${replay.head.head} of layer ${replay.head.layer} looks`);
    drawPrompts();
    drawTokens();
    drawTable();
    drawChart();
    drawMoment();
  }

  function drawPrompts() {
    const legend = h("legend", { class: "gptlib-tr-hidden" }, "Prompt");
    radios = [];
    const options = replay.prompts.map((prompt, i) => {
      const input = /** @type {HTMLInputElement} */ (
        h("input", { type: "radio", name: view.id, value: String(i) })
      );
      input.addEventListener("change", () => set({ prompt: i }));
      radios.push(input);
      return h("label", { class: "gptlib-tr-option" }, input, h("span", {}, promptName(prompt)));
    });
    view.prompts.replaceChildren(legend, ...options);
    // The longest text keeps its room, so that nothing below moves.
    const texts = replay.moments.flatMap((one) =>
      one.samples.map((sample, i) => Object.values(parts(sample, replay.prompts[i])).join(""))
    );
    write(view.room, texts.reduce((a, b) => (b.length > a.length ? b : a), ""));
  }

  function drawTokens() {
    const { targets } = replay.fragment;
    chips = labels.map((text, i) => {
      const weight = h("span", { class: "gptlib-tr-weight", "aria-hidden": "true" });
      const name = h("span", { class: "gptlib-tr-token-text" }, text);
      const button = h(
        "button",
        { type: "button", class: "gptlib-tr-token", tabindex: "-1", "data-index": String(i) },
        name,
        weight,
      );
      if (i === 0) button.classList.add("gptlib-tr-start");
      if (targets.includes(i)) button.classList.add("gptlib-tr-target");
      return { button, weight };
    });
    view.tokens.replaceChildren(...chips.map(({ button }) => button));
    marked = { row: -1, chosen: -1 };
  }

  function drawTable() {
    for (const old of [...view.headRow.children].slice(5)) old.remove();
    const titles = [...replay.prompts.map((prompt) => `Follows: ${promptName(prompt)}`), "Head"];
    view.headRow.append(...titles.map((title) => h("th", { scope: "col" }, title)));
    view.body.replaceChildren(
      ...replay.moments.map((one) => {
        const values = [
          grouped(one.stories),
          digits(one.held_out),
          digits(one.held_out - replay.floor),
          digits(Math.exp(one.held_out)),
          ...one.samples.map((sample) => `${Math.floor(100 * followed(sample))}%`),
          one.score.toFixed(2),
        ];
        const cells = values.map((value) => h("td", {}, value));
        return h("tr", {}, h("th", { scope: "row" }, grouped(one.step)), ...cells);
      }),
    );
  }

  // --- the curve --------------------------------------------------------------------------------

  const x = (/** @type {number} */ step) =>
    box.left + placeOf(step, end()) * (box.right - box.left);
  const y = (/** @type {number} */ loss) =>
    box.top + heightOf(loss, range) * (box.bottom - box.top);

  function drawChart() {
    width = view.plot.clientWidth;
    if (!width) return;
    const height = width < 480 ? 210 : 236;
    box = { left: 34, right: width - 14, top: 22, bottom: height - 40 };
    view.chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
    view.chart.setAttribute("height", String(height));
    view.plot.style.setProperty("--left", `${box.left}px`);
    view.plot.style.setProperty("--right", `${width - box.right}px`);
    const { curve, moments, floor } = replay;
    const path = curve.steps.map((step, i) =>
      `${x(step).toFixed(1)},${y(curve.losses[i]).toFixed(1)}`
    );
    const dots = moments.map((one) =>
      s("circle", { class: "gptlib-tr-dot", cx: x(one.step), cy: y(one.held_out), r: 3 })
    );
    const line = s("line", { class: "gptlib-tr-now", y1: box.top - 4, y2: box.bottom });
    const dot = s("circle", { class: "gptlib-tr-here", r: 6.5 });
    drawn = { line, dot, dots };
    view.chart.replaceChildren(
      ...axes(),
      s("rect", {
        ...{ class: "gptlib-tr-under", x: box.left, y: y(floor) },
        ...{ width: box.right - box.left, height: box.bottom - y(floor) },
      }),
      s("polyline", { class: "gptlib-tr-curve", points: path.join(" ") }),
      s("line", {
        ...{ class: "gptlib-tr-floor", x1: box.left, x2: box.right },
        ...{ y1: y(floor), y2: y(floor) },
      }),
      ...words(),
      line,
      ...dots,
      dot,
    );
    drawMarker();
  }

  /** @returns {SVGElement[]} the grid, and what stands at the axes */
  function axes() {
    const steps = ticks(end()).flatMap((step) => {
      const anchor = step === end() ? "end" : "middle";
      const edge = step === end() ? box.right + 12 : x(step);
      return [
        s("line", {
          ...{ class: "gptlib-tr-grid", x1: x(step), x2: x(step) },
          ...{ y1: box.top, y2: box.bottom },
        }),
        s("text", { x: edge, y: box.bottom + 16, "text-anchor": anchor }, grouped(step)),
      ];
    });
    const losses = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16]
      .filter((loss) => loss > range.low && loss < range.high)
      .flatMap((loss) => [
        s("line", {
          ...{ class: "gptlib-tr-grid", x1: box.left, x2: box.right },
          ...{ y1: y(loss), y2: y(loss) },
        }),
        s("text", { x: box.left - 6, y: y(loss) + 4, "text-anchor": "end" }, String(loss)),
      ]);
    const title = width >= 480 ? "loss, nats per token (log scale)" : "loss (log scale)";
    return [
      ...steps,
      ...losses,
      s("text", { class: "gptlib-tr-axis", x: 0, y: 11 }, title),
      s(
        "text",
        { class: "gptlib-tr-axis", x: box.right, y: box.bottom + 33, "text-anchor": "end" },
        "training steps (log scale)",
      ),
    ];
  }

  /** @returns {SVGElement[]} the names of what is drawn, beside it */
  function words() {
    const { floor } = replay;
    const wide = width >= 480;
    const name = wide ? "the floor: the entropy of the stories" : "floor";
    return [
      s(
        "text",
        { class: "gptlib-tr-floor-word", x: box.left + 6, y: y(floor) + 15 },
        `${name}, ${floor.toFixed(3)}`,
      ),
      ...legend(box.right - (wide ? 208 : 178), 11),
    ];
  }

  /** @param {number} left @param {number} top @returns {SVGElement[]} */
  function legend(left, top) {
    return [
      s("line", {
        ...{ class: "gptlib-tr-curve", x1: left, x2: left + 18 },
        ...{ y1: top - 4, y2: top - 4 },
      }),
      s("text", { x: left + 24, y: top }, "training"),
      s("circle", { class: "gptlib-tr-dot", cx: left + 92, cy: top - 4, r: 3.5 }),
      s("text", { x: left + 101, y: top }, width >= 480 ? "held-out stories" : "held-out"),
    ];
  }

  function drawMarker() {
    if (!drawn) return;
    const one = moment();
    const place = x(one.step).toFixed(1);
    drawn.line.setAttribute("transform", `translate(${place} 0)`);
    drawn.dot.setAttribute("transform", `translate(${place} ${y(one.held_out).toFixed(1)})`);
    drawn.dots.forEach((dot, i) => dot.classList.toggle("gptlib-tr-past", i <= index()));
  }

  // --- a moment ---------------------------------------------------------------------------------

  function drawMoment() {
    const one = moment();
    const step = grouped(one.step);
    drawMarker();
    view.slider.value = String(placeOf(one.step, end()));
    view.slider.setAttribute("aria-valuetext", `step ${step}, loss ${digits(one.held_out)}`);
    view.back.disabled = index() === 0;
    view.next.disabled = index() === last();
    const { facts } = view;
    write(facts.step.value, step);
    write(facts.step.note, `of ${grouped(replay.steps)}`);
    write(facts.stories.value, grouped(one.stories));
    write(facts.stories.note, `${short(one.tokens)} tokens`);
    write(facts.loss.value, digits(one.held_out));
    write(facts.excess.value, digits(one.held_out - replay.floor));
    write(facts.perplexity.value, digits(Math.exp(one.held_out)));
    write(facts.perplexity.note, `floor: ${digits(Math.exp(replay.floor))}`);
    drawSample();
    drawHead();
  }

  function drawSample() {
    const chosen = at("prompt", replay.prompts.length - 1);
    const sample = moment().samples[chosen];
    const prompt = replay.prompts[chosen];
    radios.forEach((radio, i) => (radio.checked = i === chosen));
    const shown = parts(sample, prompt);
    write(view.prompt, shown.prompt);
    write(view.good, shown.good);
    write(view.leaves, shown.leaves);
    write(view.rest, shown.rest);
    view.leaves.hidden = !shown.leaves;
    write(view.verdict, verdict(sample, prompt));
    view.verdict.classList.toggle("gptlib-tr-right", sample.parses);
    const fill = /** @type {HTMLElement} */ (view.meter.firstElementChild);
    fill.style.width = `${100 * followed(sample)}%`;
    for (const { name, root } of view.flags) {
      const holds = /** @type {any} */ (sample)[name];
      write(root, `${name} ${holds ? "✓" : "✗"}`);
      root.classList.toggle("gptlib-tr-holds", holds);
    }
  }

  // --- the head ---------------------------------------------------------------------------------

  /** @returns {Float64Array} of the moment that is shown */
  function weights() {
    const found = maps.get(index()) ?? weightsOf(moment().map, labels.length);
    maps.set(index(), found);
    return found;
  }

  function drawHead() {
    const { score, others } = moment();
    write(view.score, score.toFixed(2));
    write(view.others, others.toFixed(2));
    view.scoreFill.style.width = `${100 * score}%`;
    view.othersFill.style.width = `${100 * others}%`;
    drawMap();
    drawLook();
  }

  function drawLook() {
    const row = hovered >= 0 ? hovered : token();
    const n = labels.length;
    const seen = weights().subarray(row * n, row * n + row + 1);
    chips.forEach(({ button, weight }, i) => {
      const value = i <= row ? seen[i] : 0;
      button.style.setProperty("--weight", `${Math.round(100 * Math.sqrt(value))}%`);
      write(weight, value < 0.005 ? "" : value.toFixed(2).replace(/^0/, ""));
    });
    drawChosen(row);
    view.row.style.transform = `translateY(${row * 100}%)`;
    view.row.style.height = `${100 / n}%`;
    write(view.looks, `“${labels[row]}” looks at ${heaviest(labels, seen) || "nothing much"}.`);
    const { query, name } = replay.fragment;
    write(
      view.about,
      row === query
        ? `Next comes ${name}. In frames: where it stood, and the token after it, in which an ` +
          "earlier layer may have noted the name."
        : "A token looks at itself and at those before it. The darker the tint, the more.",
    );
  }

  /** @param {number} row that is shown: the chosen one, or the one under the pointer */
  function drawChosen(row) {
    const chosen = token();
    if (row === marked.row && chosen === marked.chosen) return;
    marked = { row, chosen };
    chips.forEach(({ button }, i) => {
      button.classList.toggle("gptlib-tr-self", i === row);
      button.classList.toggle("gptlib-tr-later", i > row);
      button.setAttribute("aria-pressed", String(i === chosen));
      button.tabIndex = i === chosen ? 0 : -1;
    });
  }

  function recolor() {
    const found = getComputedStyle(view.canvas).color;
    if (found === color) return;
    color = found;
    drawMap();
  }

  function drawMap() {
    if (!color) return;
    const n = labels.length;
    const image = new ImageData(n, n);
    const tint = (color.match(/[\d.]+/g) ?? []).map(Number);
    const shown = weights();
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        const at = 4 * (i * n + j);
        for (let part = 0; part < 3; part++) image.data[at + part] = tint[part];
        image.data[at + 3] = 255 * Math.sqrt(shown[i * n + j]);
      }
    }
    view.canvas.width = view.canvas.height = n;
    view.canvas.getContext("2d")?.putImageData(image, 0, 0);
  }

  // --- what the reader does ---------------------------------------------------------------------

  /** @param {Record<string, unknown>} values @param {boolean} [keep] whether to tell Python */
  function set(values, keep = true) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    if (keep) model.save_changes();
  }

  /** @param {number} number @param {boolean} [keep] */
  function go(number, keep = true) {
    const target = Math.min(Math.max(number, 0), last());
    if (target === index()) {
      view.slider.value = String(placeOf(moment().step, end())); // it snaps to the moments
      return;
    }
    set({ moment: target }, keep);
    announce();
  }

  function announce() {
    clearTimeout(speaking);
    if (playing) return;
    speaking = window.setTimeout(() => {
      const one = moment();
      const chosen = at("prompt", replay.prompts.length - 1);
      write(
        view.said,
        `Step ${grouped(one.step)}: loss ${digits(one.held_out)}, ` +
          `${digits(one.held_out - replay.floor)} above the floor. ` +
          verdict(one.samples[chosen], replay.prompts[chosen]),
      );
    }, 500);
  }

  function pause() {
    clearInterval(playing);
    playing = 0;
    write(view.play, "Play");
  }

  function play() {
    if (playing) {
      pause();
      announce();
      return;
    }
    write(view.play, "Pause");
    if (index() === last()) go(0);
    playing = window.setInterval(() => {
      if (!view.root.isConnected) return pause();
      go(index() + 1);
      if (index() === last()) {
        pause();
        announce();
      }
    }, PAUSE);
  }

  /** @param {KeyboardEvent} event */
  function onSliderKey(event) {
    const here = index();
    /** @type {Record<string, number>} */
    const targets = {
      ArrowLeft: here - 1,
      ArrowDown: here - 1,
      ArrowRight: here + 1,
      ArrowUp: here + 1,
      PageDown: here - 4,
      PageUp: here + 4,
      Home: 0,
      End: last(),
    };
    const target = targets[event.key];
    if (target === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    pause();
    go(target);
  }

  /** @param {KeyboardEvent} event */
  function onTokenKey(event) {
    const here = Number(/** @type {HTMLElement} */ (event.target).dataset.index);
    /** @type {Record<string, number>} */
    const targets = {
      ArrowLeft: here - 1,
      ArrowRight: here + 1,
      Home: 0,
      End: chips.length - 1,
      Escape: replay.fragment.query,
    };
    const target = targets[event.key];
    if (target === undefined || Number.isNaN(here)) return;
    event.preventDefault();
    event.stopPropagation();
    choose(Math.min(Math.max(target, 0), chips.length - 1));
    chips[token()].button.focus();
  }

  /** @param {number} chosen */
  function choose(chosen) {
    hovered = -1;
    if (chosen === token()) drawLook();
    else set({ token: chosen });
  }

  /** @param {PointerEvent} event */
  function drag(event) {
    const left = view.plot.getBoundingClientRect().left + box.left;
    const place = (event.clientX - left) / (box.right - box.left);
    go(nearest(place, replay.moments.map((one) => one.step), end()), false);
  }

  view.chart.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    dragging = true;
    view.chart.setPointerCapture(event.pointerId);
    pause();
    drag(event);
  });
  view.chart.addEventListener("pointermove", (event) => {
    if (dragging) drag(event);
  });
  for (const type of /** @type {const} */ (["pointerup", "pointercancel"])) {
    view.chart.addEventListener(type, () => {
      dragging = false;
      model.save_changes();
    });
  }
  view.slider.addEventListener("input", () => {
    pause();
    const steps = replay.moments.map((one) => one.step);
    go(nearest(Number(view.slider.value), steps, end()), false);
  });
  view.slider.addEventListener("change", () => {
    model.save_changes();
    view.slider.value = String(placeOf(moment().step, end()));
  });
  view.slider.addEventListener("keydown", onSliderKey);
  view.play.addEventListener("click", play);
  view.back.addEventListener("click", () => {
    pause();
    go(index() - 1);
  });
  view.next.addEventListener("click", () => {
    pause();
    go(index() + 1);
  });
  view.tokens.addEventListener("keydown", onTokenKey);
  view.tokens.addEventListener("click", (event) => {
    const button = /** @type {HTMLElement} */ (event.target).closest("button");
    if (button) choose(Number(button.dataset.index));
  });
  view.tokens.addEventListener("pointerover", (event) => {
    const button = /** @type {HTMLElement} */ (event.target).closest("button");
    if (!button || event.pointerType === "touch") return;
    hovered = Number(button.dataset.index);
    drawLook();
  });
  view.tokens.addEventListener("pointerleave", () => {
    if (hovered < 0) return;
    hovered = -1;
    drawLook();
  });
  view.map.addEventListener("click", (event) => {
    const { top, height } = view.map.getBoundingClientRect();
    const row = Math.floor(((event.clientY - top) / height) * chips.length);
    choose(Math.min(Math.max(row, 0), chips.length - 1));
  });
  el.append(view.root);
  drawReplay();

  const resized = new ResizeObserver(() => {
    if (view.plot.clientWidth !== width) drawChart();
    recolor();
  });
  resized.observe(view.plot);
  const themed = new MutationObserver(recolor);
  for (const element of [document.documentElement, document.body]) {
    themed.observe(element, { attributes: true });
  }
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", recolor);

  const onReplay = () => {
    if (model.get("replay") !== replay) drawReplay();
  };
  /** @type {[string, () => void][]} */
  const listeners = [
    ["change:replay", onReplay],
    ["change:moment", drawMoment],
    ["change:prompt", drawSample],
    ["change:token", drawLook],
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    pause();
    clearTimeout(speaking);
    resized.disconnect();
    themed.disconnect();
    media.removeEventListener("change", recolor);
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}

/** @param {string} prompt @returns {string} short enough for a tab */
export function promptName(prompt) {
  if (!prompt) return "No prompt";
  const words = prompt.split(" ");
  return words.length <= 2 ? prompt : `${words.slice(0, 2).join(" ")} …`;
}

export default { render };
