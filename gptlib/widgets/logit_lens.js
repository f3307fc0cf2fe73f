// The logit lens: what a model would say next if it ended after each of its layers. Python stores
// the likeliest tokens of every place; in a page without a kernel, the mini model, which runs there
// when the reader asks for it, reads other texts.

/**
 * @typedef {{ text: string, tokens: string[], layers: number, count: number }} Head
 * @typedef {Head & { words: string[], cells: string }} Stored  as Python packs it
 * @typedef {Head & { words: string[], own: Float32Array, chosen: Float32Array, next: Float32Array
 *   }} Lens  E places (one more than layers), T tokens, K = count: words and their probabilities
 *   (E, T, K), those of the last place's choice and of the token that came next (E, T)
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: unknown): void,
 *   on(event: string, callback: Function): void,
 *   off(event: string, callback: Function): void,
 *   save_changes(): void,
 *   send(content: unknown): void,
 * }} Model
 */

// ---------------------------------------------------------------------------------------------
// Arithmetic

const LIMIT = 128; // tokens, as in Python
const WINDOW = 48; // columns drawn at once
const STEP = 24; // columns that the window moves by

/** @param {string} text @returns {Uint8Array} */
export function fromBase64(text) {
  const native = /** @type {any} */ (Uint8Array).fromBase64; // in new browsers, and faster
  if (native) return native.call(Uint8Array, text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/** @param {Stored | Lens} lens @returns {Lens} */
export function decode(lens) {
  if (!("cells" in lens)) return lens;
  const { tokens, layers, count, words, cells } = lens;
  const bytes = fromBase64(cells);
  const places = (layers + 1) * tokens.length;
  const width = 2 * count + 2;
  if (bytes.length !== 2 * places * width) {
    throw new Error(`${places} places are not in ${bytes.length} bytes`);
  }
  const value = (/** @type {number} */ place, /** @type {number} */ i) => {
    const at = 2 * (place * width + i);
    return bytes[at] | (bytes[at + 1] << 8);
  };
  const said = [];
  const own = new Float32Array(places * count);
  const [chosen, next] = [new Float32Array(places), new Float32Array(places)];
  for (let place = 0; place < places; place++) {
    for (let k = 0; k < count; k++) {
      said.push(words[value(place, k)]);
      own[place * count + k] = value(place, count + k) / 65535;
    }
    chosen[place] = value(place, 2 * count) / 65535;
    next[place] = value(place, 2 * count + 1) / 65535;
  }
  return { text: lens.text, tokens, layers, count, words: said, own, chosen, next };
}

/** @param {any} answer of the engine, to `lens` @param {string} text @returns {Lens} */
export function fromEngine({ tokens, ends, words, own, chosen, next }, text) {
  const count = words.length / (ends * tokens.length);
  return { text, tokens, layers: ends - 1, count, words, own, chosen, next };
}

/** @param {Lens} lens @param {number} end @param {number} token @returns {string} said there */
export function choice({ words, tokens, count }, end, token) {
  return words[(end * tokens.length + token) * count];
}

/** @param {Lens} lens @param {number} end @returns {number} tokens whose choice is the last one */
export function agreeing(lens, end) {
  const same = lens.tokens.filter((_, t) => choice(lens, end, t) === choice(lens, lens.layers, t));
  return same.length;
}

/** @param {number} end @param {number} layers @returns {string} a place in the model */
export function place(end, layers) {
  if (end === 0) return "before block 0";
  return end === layers ? `after block ${end - 1}, the last` : `after block ${end - 1}`;
}

/** @param {number} share from 0 to 1 @returns {string} in percent, never a false 0 or 100 */
export function percent(share) {
  if (share < 0.00005) return "<0.01%";
  if (share < 0.01) return `${(100 * share).toFixed(2)}%`;
  if (share < 0.1) return `${(100 * share).toFixed(1)}%`;
  return share < 1 && share >= 0.995 ? ">99%" : `${Math.round(100 * share)}%`;
}

/**
 * The columns that are drawn so that a token is among them.
 * @param {number} from the first one now
 * @param {number} token
 * @param {number} size of the text
 */
export function windowFor(from, token, size) {
  const last = Math.max(size - WINDOW, 0);
  if (token < from || token >= from + WINDOW) from = token - STEP;
  return Math.min(Math.max(from, 0), last);
}

// ---------------------------------------------------------------------------------------------
// Making tokens visible: as the attention map does, to the letter

/** @type {Record<string, string>} */
const MARKS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };

/** @param {number} lead @returns {number} the length of the UTF-8 sequence that a byte opens */
function sequenceLength(lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xc2) return 0;
  if (lead < 0xe0) return 2;
  if (lead < 0xf0) return 3;
  return lead < 0xf5 ? 4 : 0;
}

/**
 * What to show for a token: text as it is, marks for white space, code points for characters that
 * leave no ink, and in brackets the hexadecimal digits of bytes that are no whole character.
 * @param {string} token a character a byte
 * @returns {string}
 */
export function label(token) {
  const bytes = Uint8Array.from(token, (character) => character.charCodeAt(0));
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let shown = "";
  for (let i = 0; i < bytes.length;) {
    const length = sequenceLength(bytes[i]);
    let character = null;
    try {
      if (length > 0 && i + length <= bytes.length) {
        character = decoder.decode(bytes.subarray(i, i + length));
      }
    } catch {
      // not a character: its first byte is shown as a number
    }
    shown += character === null ? `⟨${hex(bytes[i], 2)}⟩` : visible(character);
    i += character === null ? 1 : length;
  }
  return (/^\p{M}/u.test(shown) ? "◌" : "") + shown.replaceAll("⟩⟨", " ") || "⟨⟩";
}

/** @param {number} value @param {number} length @returns {string} */
function hex(value, length) {
  return value.toString(16).toUpperCase().padStart(length, "0");
}

/** @param {string} character @returns {string} */
function visible(character) {
  if (character in MARKS) return MARKS[character];
  if (/[\p{C}\p{Z}\p{White_Space}\p{Default_Ignorable_Code_Point}]/u.test(character)) {
    return `⟨U+${hex(/** @type {number} */ (character.codePointAt(0)), 4)}⟩`;
  }
  return character;
}

/** @param {string} shown what label made @returns {string} in words, for who listens */
export function spoken(shown) {
  /** @type {Record<string, string>} */
  const words = { "␣": "space ", "⏎": "line break ", "⇥": "tab ", "␍": "return " };
  const text = shown.replace(/[␣⏎⇥␍]/g, (mark) => words[mark]);
  return text
    .replace(/⟨(?!U)/g, "bytes ")
    .replace(/[⟨⟩◌]/g, "")
    .trim();
}

/** @param {string} token bytes @returns {string} */
const shown = (token) => (token ? label(token) : "⟨end⟩"); // <|endoftext|>

/** @param {string} token bytes @returns {string} for who listens */
const said = (token) => (token ? spoken(label(token)) : "end of text");

/** @param {number} count @param {string} noun @returns {string} */
export function plural(count, noun) {
  return `${String(count).replace(/\B(?=(\d{3})+$)/g, ",")} ${noun}${count === 1 ? "" : "s"}`;
}

// ---------------------------------------------------------------------------------------------
// The picture

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

/**
 * Set a text only where it is another one: what does not change costs nothing.
 * @param {Node} node
 * @param {string} text
 */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * The elements of the widget, before it knows any text.
 * @param {boolean} typing whether another text can be read here
 */
function build(typing) {
  /** @type {(tag: string, name: string, ...children: (Node | string)[]) => HTMLElement} */
  const part = (tag, name, ...children) => h(tag, { class: `gptlib-ll-${name}` }, ...children);
  const facts = part("span", "soft");
  const area = /** @type {HTMLTextAreaElement} */ (
    h("textarea", { class: "gptlib-ll-area", rows: "2", spellcheck: "false", autocomplete: "off" })
  );
  const error = h("div", { class: "gptlib-ll-error", role: "status" });
  const input = part("div", "input", error);
  if (typing) input.prepend(h("label", { class: "gptlib-ll-label" }, "Your text", area));
  const body = h("tbody");
  const [read, came] = [h("thead"), h("tfoot")];
  const caption = h(
    "caption",
    { class: "gptlib-ll-hidden" },
    "What the model would say next, after each token and at each place in the model",
  );
  const table = h("table", { class: "gptlib-ll-table" }, caption, read, body, came);
  const frame = part("div", "frame", table);
  const turn = (/** @type {string} */ text) => /** @type {HTMLButtonElement} */ (
    h("button", { type: "button", class: "gptlib-ll-button" }, text)
  );
  const [earlier, later] = [turn("← Earlier"), turn("Later →")];
  const range = part("span", "soft");
  const turns = part("div", "turns", earlier, range, later);
  const where = part("p", "where");
  const top = part("ol", "list");
  const course = part("table", "course");
  const announcer = h("div", { class: "gptlib-ll-hidden", "aria-live": "polite" });
  const root = h(
    "div",
    { class: "gptlib-root gptlib-ll", "data-lm-suppress-shortcuts": "true" },
    part(
      "div",
      "layout",
      part("div", "head", h("strong", { class: "gptlib-title" }, "Logit lens"), facts),
      input,
      part(
        "p",
        "soft",
        "A column for each token read, a row for each place in the model, in the order in which " +
          "the stream flows: down. A cell has the likeliest next token if the model ended there; " +
          "the stronger its color, the more probable. ",
        part("b", "mark", "●"),
        " says the same as the last row.",
      ),
      part("div", "view", frame, turns),
      part(
        "div",
        "detail",
        where,
        h("div", {}, part("p", "heading", "Likeliest here"), top),
        h("div", { class: "gptlib-ll-scroll" }, course),
      ),
      announcer,
    ),
  );
  const parts = { root, facts, area, error, input, frame, table, read, body, came, earlier, later };
  return { ...parts, range, turns, where, top, course, announcer };
}

/**
 * @param {{ model: Model, el: HTMLElement }} context
 * @returns {() => void}
 */
function render({ model, el }) {
  const live = Boolean(model.get("live")); // only a kernel has this trait
  const bytes = Number(model.get("mini") ?? 0); // of the weights, where a page can load them
  const view = build(live || bytes > 0);
  let lens = decode(model.get("lens"));
  let from = 0; // the first column drawn
  /** @type {HTMLButtonElement[][]} */ let cells = [];
  let [typing, waiting] = [0, 0];
  let own = false;
  let problem = ""; // of reading in the page
  const size = () => lens.tokens.length;
  const at = (/** @type {string} */ name, /** @type {number} */ last) =>
    Math.min(Math.max(model.get(name) ?? 0, 0), last);
  const chosen = () => ({ end: at("layer", lens.layers), token: at("token", size() - 1) });
  const same = (/** @type {number} */ end, /** @type {number} */ t) =>
    choice(lens, end, t) === choice(lens, lens.layers, t);

  // --- the table ------------------------------------------------------------------------------

  function drawLens() {
    const most = lens.layers + 1;
    write(view.facts, `${plural(lens.layers, "layer")}, ${plural(size(), "token")} read`);
    view.turns.hidden = size() <= WINDOW;
    from = windowFor(from, chosen().token, size());
    const columns = Array.from({ length: Math.min(WINDOW, size() - from) }, (_, i) => from + i);
    const text = (/** @type {string} */ token) =>
      h("span", { dir: "auto", class: "gptlib-ll-token" }, shown(token));
    const corner = (/** @type {string} */ words) => h("th", { scope: "row" }, words);
    view.read.replaceChildren(
      h(
        "tr",
        {},
        corner("token read"),
        ...columns.map((t) => h("th", { scope: "col" }, text(lens.tokens[t]))),
      ),
    );
    cells = Array.from({ length: most }, () => []);
    view.body.replaceChildren(
      ...cells.map((row, end) => {
        const share = Math.round((100 * agreeing(lens, end)) / size());
        const agreed = h("span", { class: "gptlib-ll-soft" }, `● ${share}%`);
        const last = end === lens.layers;
        const name = end === 0 ? "embeddings" : `block ${end - 1}`;
        const head = h("th", { scope: "row" }, name, agreed);
        if (last) agreed.textContent = "the model";
        row.push(...columns.map((t) => cellOf(end, t)));
        const answers = row.map((button) => h("td", {}, button));
        return h("tr", last ? { class: "gptlib-ll-last" } : {}, head, ...answers);
      }),
    );
    view.came.replaceChildren(h("tr", {}, corner("came next"), ...columns.map(cameNext)));
    write(view.range, `tokens ${from + 1}–${from + columns.length} of ${size()}`);
    view.earlier.disabled = from === 0;
    view.later.disabled = from + columns.length === size();
    drawChosen();
  }

  /** @param {number} end @param {number} t */
  function cellOf(end, t) {
    const share = lens.own[(end * size() + t) * lens.count];
    const word = choice(lens, end, t);
    const mark = same(end, t) && end < lens.layers;
    const cell = /** @type {HTMLButtonElement} */ (
      h(
        "button",
        { type: "button", class: "gptlib-ll-cell", tabindex: "-1", "aria-pressed": "false" },
        h("span", { class: "gptlib-ll-hidden" }, `${said(word)}, ${percent(share)}`),
        h("span", { class: "gptlib-ll-token", dir: "auto", "aria-hidden": "true" }, shown(word)),
        h("span", { class: "gptlib-ll-share", "aria-hidden": "true" }, percent(share)),
      )
    );
    cell.style.setProperty("--p", share.toFixed(3));
    if (mark) {
      cell.classList.add("gptlib-ll-same");
      cell.append(
        h("span", { class: "gptlib-ll-mark", "aria-hidden": "true" }, "●"),
        h("span", { class: "gptlib-ll-hidden" }, ", as in the end"),
      );
    }
    cell.dataset.end = String(end);
    cell.dataset.token = String(t);
    return cell;
  }

  /** @param {number} t */
  function cameNext(t) {
    if (t + 1 === size()) return h("td", {}, "…");
    const came = lens.tokens[t + 1];
    const right = choice(lens, lens.layers, t) === came;
    const token = h("span", { dir: "auto", class: "gptlib-ll-token" }, shown(came));
    const note = right ? "✓ expected" : percent(lens.next[lens.layers * size() + t]);
    const expected = h("span", { class: "gptlib-ll-share" }, note);
    return h("td", right ? { class: "gptlib-ll-right" } : {}, token, expected);
  }

  // --- the chosen cell ------------------------------------------------------------------------

  function drawChosen() {
    const { end, token } = chosen();
    if (windowFor(from, token, size()) !== from) return drawLens();
    for (const button of view.body.querySelectorAll("[aria-pressed=true], [tabindex='0']")) {
      button.setAttribute("aria-pressed", "false");
      button.setAttribute("tabindex", "-1");
    }
    const cell = cells[end][token - from];
    cell.setAttribute("aria-pressed", "true");
    cell.tabIndex = 0;
    const name = place(end, lens.layers);
    view.where.replaceChildren(
      h("b", {}, `${name[0].toUpperCase()}${name.slice(1)}`),
      ", having read ",
      h("b", { dir: "auto" }, `“${shown(lens.tokens[token])}”`),
    );
    const start = (end * size() + token) * lens.count;
    const items = Array.from({ length: lens.count }, (_, k) => {
      const word = lens.words[start + k];
      return h("li", {}, named(word), ...bar(lens.own[start + k]));
    });
    view.top.replaceChildren(...items);
    drawCourse(token, end);
  }

  /** @param {string} word */
  function named(word) {
    return h(
      "span",
      { class: "gptlib-ll-name" },
      h("span", { class: "gptlib-ll-hidden" }, said(word)),
      h("span", { "aria-hidden": "true", dir: "auto" }, shown(word)),
    );
  }

  /** @param {number} share @returns {HTMLElement[]} */
  function bar(share) {
    const line = h("span", { class: "gptlib-ll-bar", "aria-hidden": "true" });
    line.style.setProperty("--p", share.toFixed(4));
    return [line, h("span", { class: "gptlib-ll-number" }, percent(share))];
  }

  /**
   * The probability of the choice in the end, and of what came, place by place.
   * @param {number} t
   * @param {number} here
   */
  function drawCourse(t, here) {
    const last = choice(lens, lens.layers, t);
    const came = t + 1 < size() && lens.tokens[t + 1] !== last ? lens.tokens[t + 1] : null;
    const column = (/** @type {(Node | string)[]} */ ...words) => {
      return h("th", { scope: "col" }, ...words);
    };
    const heads = [column("Place"), column(named(last), " in the end")];
    if (came !== null) heads.push(column(named(came), " came next"));
    const rows = Array.from({ length: lens.layers + 1 }, (_, end) => {
      const spot = end * size() + t;
      const row = h(
        "tr",
        end === here ? { class: "gptlib-ll-here" } : {},
        h("th", { scope: "row" }, end === 0 ? "embeddings" : `block ${end - 1}`),
        h("td", {}, ...bar(lens.chosen[spot])),
      );
      if (came !== null) row.append(h("td", {}, ...bar(lens.next[spot])));
      return row;
    });
    view.course.replaceChildren(
      h("caption", { class: "gptlib-ll-heading" }, "Probability through the layers"),
      h("thead", {}, h("tr", {}, ...heads)),
      h("tbody", {}, ...rows),
    );
  }

  function announce() {
    const { end, token } = chosen();
    const share = percent(lens.own[(end * size() + token) * lens.count]);
    write(
      view.announcer,
      `${place(end, lens.layers)}, having read ${said(lens.tokens[token])}: ` +
        `${said(choice(lens, end, token))}, ${share}.`,
    );
  }

  // --- what the reader does -------------------------------------------------------------------

  /** @param {Record<string, unknown>} values */
  function set(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  }

  /** @param {number} end @param {number} token @param {boolean} [focus] */
  function choose(end, token, focus = false) {
    set({ layer: end, token });
    if (focus) cells[end][token - from].focus({ preventScroll: true });
    reveal();
    announce();
  }

  /** Scroll the frame, not the page, until the chosen cell is in it, beside the row's name. */
  function reveal() {
    const { end, token } = chosen();
    const cell = cells[end][token - from].getBoundingClientRect();
    const frame = view.frame.getBoundingClientRect();
    const head = view.read.querySelector("th")?.offsetWidth ?? 0;
    const [left, right] = [frame.left + head, frame.right];
    if (cell.left < left) view.frame.scrollLeft -= left - cell.left;
    if (cell.right > right) view.frame.scrollLeft += cell.right - right;
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    const { end, token } = chosen();
    /** @type {Record<string, [number, number]>} */
    const targets = {
      ArrowUp: [end - 1, token],
      ArrowDown: [end + 1, token],
      ArrowLeft: [end, token - 1],
      ArrowRight: [end, token + 1],
      Home: [end, 0],
      End: [end, size() - 1],
      PageUp: [0, token],
      PageDown: [lens.layers, token],
    };
    const target = targets[event.key];
    if (!target || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const within = (/** @type {number} */ value, /** @type {number} */ last) =>
      Math.min(Math.max(value, 0), last);
    choose(within(target[0], lens.layers), within(target[1], size() - 1), true);
  }

  /** @param {number} by columns */
  function move(by) {
    const last = size() - Math.min(WINDOW, size());
    from = Math.min(Math.max(from + by, 0), last);
    const { token } = chosen();
    const inside = Math.min(Math.max(token, from), from + WINDOW - 1);
    if (inside !== token) set({ token: inside });
    drawLens();
    view.frame.scrollLeft = 0;
  }

  view.body.addEventListener("click", (event) => {
    const cell = /** @type {HTMLElement} */ (event.target).closest("button");
    if (cell) choose(Number(cell.dataset.end), Number(cell.dataset.token));
  });
  view.body.addEventListener("keydown", onKey);
  view.earlier.addEventListener("click", () => move(-STEP));
  view.later.addEventListener("click", () => move(STEP));

  // --- another text ---------------------------------------------------------------------------

  /** @param {string} sentence */
  function say(sentence) {
    problem = sentence;
    drawError();
  }

  /** @type {any} */
  let reader = null; // in a page that has the model
  let gone = false;

  async function addReader() {
    const { pageReader } = await import(new URL("./lib/reader.js", import.meta.url).href);
    if (gone) return;
    reader = pageReader(h, model, "gptlib-ll", bytes, readHere, say);
    view.error.before(reader.root);
    reader.want((model.get("text") ?? lens.text) !== lens.text);
  }
  if (!live && bytes) addReader().catch(() => say("What reads another text did not arrive."));

  /** Read the text with the model of this page. @param {any} engine */
  async function readHere(engine) {
    const text = model.get("text") ?? lens.text;
    if (text === lens.text) return;
    problem = text ? "" : "The text is empty: at least one token is needed.";
    if (text) {
      const found = await engine.ask("lens", { text });
      const count = found.tokens.length + found.start - 1; // without <|endoftext|>
      if (text !== model.get("text")) return;
      if (count > LIMIT) {
        problem = `The text has ${plural(count, "token")}, but at most ${LIMIT} can be shown.`;
      } else set({ lens: fromEngine(found, text) });
    }
    drawError();
  }

  view.area.addEventListener("input", () => {
    window.clearTimeout(typing);
    typing = window.setTimeout(() => {
      own = true;
      problem = "";
      set({ text: view.area.value.replace(/\p{Surrogate}/gu, "\ufffd") });
      own = false;
      drawError();
      reader?.want(model.get("text") !== lens.text);
    }, 400);
  });

  function drawText() {
    const text = model.get("text") ?? lens.text;
    // A text area turns every line break into \n; do not take that for a new text.
    if (!own && text.replace(/\r\n?/g, "\n") !== view.area.value) view.area.value = text;
    drawError();
  }

  function drawError() {
    window.clearTimeout(waiting);
    const error = model.get("error") ?? "";
    const sentence = error ? `${error[0].toUpperCase()}${error.slice(1)}.` : problem;
    write(view.error, sentence && `${sentence} The table below is of the last text.`);
    view.area.setAttribute("aria-invalid", String(Boolean(sentence)));
    const stale = live && !sentence && model.get("text") !== lens.text;
    view.root.classList.toggle("gptlib-ll-stale", stale);
    if (!stale) return;
    waiting = window.setTimeout(() => {
      write(view.error, "Waiting for Python. Is the kernel running?");
    }, 3000);
  }

  function onLens() {
    lens = decode(model.get("lens"));
    from = 0;
    drawLens();
    drawError();
  }

  if (!live && !bytes) {
    view.input.append(
      h(
        "p",
        { class: "gptlib-ll-soft" },
        "This page can run the mini model only, and this is another one: to read other texts " +
          "with it, open the notebook.",
      ),
    );
  }
  drawLens();
  drawText();
  el.append(view.root);
  const resized = new ResizeObserver(() => {
    if (view.frame.clientWidth) reveal();
  });
  resized.observe(view.frame);

  /** @type {[string, () => void][]} */
  const listeners = [
    ["change:lens", onLens],
    ["change:layer", drawChosen],
    ["change:token", drawChosen],
    ["change:text", drawText],
    ["change:error", drawError],
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    window.clearTimeout(typing);
    window.clearTimeout(waiting);
    resized.disconnect();
    gone = true;
    reader?.close();
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}

export default { render };
