// Text in, tokens out, encodings side by side. With a kernel, Python makes the tokens; in a page
// without one, this file does, with the vocabularies that the page offers.

/**
 * @typedef {{ ids: number[], lengths: number[] }} Tokens  each token's id and number of bytes
 * @typedef {{ kind: "text" | "mark" | "bytes", text: string }} Segment
 * @typedef {{ name: string, tokens: (string | null)[] }} Asset
 * @typedef {{
 *   get(name: string): any,
 *   set(name: string, value: unknown): void,
 *   on(event: string, callback: () => void): void,
 *   off(event: string, callback: () => void): void,
 *   save_changes(): void,
 * }} Model
 */

// ---------------------------------------------------------------------------------------------
// Tokenizing

export const LIMIT = 5000; // characters; more would make a paste slow. The same in Python.
const DRAWN = 1500; // tokens of one encoding that are drawn

const SPECIAL = "<|endoftext|>";

// GPT-2's splitting pattern. JavaScript's \s is not Unicode's white space: it has U+FEFF and lacks
// U+0085. tiktoken means Unicode's.
const PIECE =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** @param {string} text @returns {string[]} the pieces that tokens never cross */
export function pieces(text) {
  return text.match(PIECE) ?? [];
}

/** @param {string} text @returns {string} with U+FFFD for lone surrogates, as tiktoken reads it */
export function wellFormed(text) {
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}

/**
 * The first characters of a text, at most LIMIT of them, as Python counts characters.
 * @param {string} text
 * @returns {string}
 */
export function cut(text) {
  if (text.length <= LIMIT) return wellFormed(text);
  let end = 0;
  for (let n = 0; n < LIMIT && end < text.length; n++) {
    end += /** @type {number} */ (text.codePointAt(end)) > 0xffff ? 2 : 1;
  }
  return wellFormed(text.slice(0, end));
}

/** @param {string} text @returns {number} characters as Python counts them */
export function countCharacters(text) {
  let n = 0;
  for (const _ of text) n++;
  return n;
}

/** @param {string} text @returns {string} its UTF-8, one character a byte */
export function utf8(text) {
  let bytes = "";
  for (const byte of new TextEncoder().encode(text)) bytes += String.fromCharCode(byte);
  return bytes;
}

/** @param {Asset} asset @returns {Map<string, number>} a token's bytes to its id */
export function ranksOf(asset) {
  const ranks = new Map();
  asset.tokens.forEach((token, id) => {
    if (token !== null) ranks.set(token, id);
  });
  return ranks;
}

/**
 * Byte-pair encoding of one piece: again and again, merge the neighbors whose union has the
 * lowest id, the leftmost first. Equal to tiktoken's, and fast on long pieces too, because one
 * sweep merges all pairs of the lowest id.
 * @param {string} piece a character a byte
 * @param {Map<string, number>} ranks
 * @returns {string[]}
 */
export function mergePiece(piece, ranks) {
  if (ranks.has(piece)) return [piece];
  const parts = [...piece];
  /** @param {string} left @param {string | undefined} right */
  const rank = (left, right) => (right && ranks.get(left + right)) || Infinity;
  const found = parts.map((part, i) => rank(part, parts[i + 1]));
  for (;;) {
    const lowest = found.reduce((low, r) => Math.min(low, r), Infinity);
    if (lowest === Infinity) return parts;
    let sweeping = true;
    let end = 0; // the parts before it are done
    for (let i = 0; i < parts.length; i++, end++) {
      parts[end] = parts[i];
      found[end] = found[i];
      if (!sweeping || found[end] !== lowest) continue;
      parts[end] += parts[++i];
      found[end] = rank(parts[end], parts[i + 1]);
      if (end > 0) found[end - 1] = rank(parts[end - 1], parts[end]);
      // A union can open a pair of a lower id still, which then comes first.
      sweeping = found[end] > lowest && (end === 0 || found[end - 1] > lowest);
    }
    parts.length = found.length = end;
  }
}

/**
 * Encode a text; special tokens in it are ordinary text.
 * @param {string} text
 * @param {Map<string, number>} ranks
 * @returns {Tokens}
 */
export function encode(text, ranks) {
  /** @type {Tokens} */
  const tokens = { ids: [], lengths: [] };
  for (const piece of pieces(wellFormed(text))) {
    for (const token of mergePiece(utf8(piece), ranks)) {
      tokens.ids.push(/** @type {number} */ (ranks.get(token)));
      tokens.lengths.push(token.length);
    }
  }
  return tokens;
}

// ---------------------------------------------------------------------------------------------
// Making tokens visible

/** @type {Record<string, string>} */
const MARKS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };

/** @param {Uint8Array} bytes @returns {string} */
export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");
}

/** @param {number} lead @returns {number} the length of the UTF-8 sequence that a byte opens */
function sequenceLength(lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xc2) return 0;
  if (lead < 0xe0) return 2;
  if (lead < 0xf0) return 3;
  return lead < 0xf5 ? 4 : 0;
}

/**
 * What to show for a token's bytes: text as it is, marks for white space and for characters that
 * leave no ink, hexadecimal digits for bytes that are no whole character.
 * @param {Uint8Array} bytes
 * @returns {Segment[]}
 */
export function segments(bytes) {
  /** @type {Segment[]} */
  const found = [];
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
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
    add(found, character === null ? byteSegment(bytes[i]) : characterSegment(character));
    i += character === null ? 1 : length;
  }
  return found;
}

/** @param {number} byte @returns {Segment} */
function byteSegment(byte) {
  return { kind: "bytes", text: hex(Uint8Array.of(byte)) };
}

/** @param {string} character @returns {Segment} */
function characterSegment(character) {
  if (character in MARKS) return { kind: "mark", text: MARKS[character] };
  if (/[\p{C}\p{Z}\p{White_Space}\p{Default_Ignorable_Code_Point}]/u.test(character)) {
    const code = /** @type {number} */ (character.codePointAt(0)).toString(16).toUpperCase();
    return { kind: "bytes", text: `U+${code.padStart(4, "0")}` };
  }
  return { kind: "text", text: character };
}

/** @param {Segment[]} found @param {Segment} next */
function add(found, next) {
  const last = found[found.length - 1];
  if (last && last.kind === next.kind) last.text += (next.kind === "bytes" ? " " : "") + next.text;
  else if (next.kind === "text" && /^\p{M}/u.test(next.text)) {
    found.push({ kind: "text", text: `◌${next.text}` }); // a mark needs something to stand on
  } else found.push(next);
}

/** @param {number[]} lengths @returns {number[]} where each token begins, and where the last ends */
export function offsets(lengths) {
  const found = [0];
  for (const length of lengths) found.push(found[found.length - 1] + length);
  return found;
}

/**
 * The tokens of another encoding that share bytes with a span: the first and one past the last.
 * @param {number} start
 * @param {number} end
 * @param {number[]} others offsets of the other encoding's tokens
 * @returns {[number, number]}
 */
export function overlap(start, end, others) {
  let first = 0;
  while (first + 1 < others.length && others[first + 1] <= start) first++;
  let last = first;
  while (last + 1 < others.length && others[last] < end) last++;
  return [first, last];
}

/** @param {number[] | string} list a list, or the string in which a file keeps it */
export function unpack(list) {
  return typeof list === "string" ? (list.match(/\d+/g) ?? []).map(Number) : list;
}

/** @param {number} count @param {string} one @returns {string} */
export function plural(count, one) {
  return `${String(count).replace(/\B(?=(\d{3})+$)/g, ",")} ${one}${count === 1 ? "" : "s"}`;
}

// ---------------------------------------------------------------------------------------------
// Drawing

/** @type {Record<string, { title: string, size: string }>} */
const ENCODINGS = {
  gpt2: { title: "GPT-2", size: "50,257 entries" },
  stories: { title: "Stories", size: "2,048 entries" },
};

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

/** @param {Uint8Array} bytes @returns {HTMLElement} */
function tokenText(bytes) {
  return h(
    "span",
    { class: "gptlib-te-text", dir: "auto" },
    ...segments(bytes).map(({ kind, text }) =>
      kind === "text" ? text : h("span", { class: `gptlib-te-${kind}` }, text)
    ),
  );
}

/** @param {Uint8Array} bytes @returns {string} in words, for who listens */
function spoken(bytes) {
  return segments(bytes)
    .map(({ kind, text }) =>
      kind === "bytes"
        ? `bytes ${text}`
        : text.replaceAll("␣", "space ").replaceAll("⏎", "line break ").replaceAll("⇥", "tab ")
    )
    .join(" ")
    .trim();
}

/** One encoding's tokens of the text. */
class Panel {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
    this.title = ENCODINGS[name].title;
    /** @type {HTMLElement[]} */
    this.buttons = [];
    /** @type {Tokens} */
    this.tokens = { ids: [], lengths: [] };
    /** @type {number[]} */
    this.offsets = [0];
    /** @type {Uint8Array} */
    this.bytes = new Uint8Array();
    this.current = 0;
    this.count = h("span", { class: "gptlib-te-count" });
    this.rate = h("span", { class: "gptlib-te-rate" });
    this.list = h("div", {
      class: "gptlib-te-tokens",
      role: "group",
      "aria-label": `${this.title}: tokens`,
    });
    this.message = h("div", { class: "gptlib-te-message" });
    this.detail = h("div", { class: "gptlib-te-detail" });
    this.root = h(
      "section",
      { class: "gptlib-te-panel", "aria-label": this.title },
      h(
        "div",
        { class: "gptlib-te-panel-head" },
        h("strong", { class: "gptlib-title" }, this.title),
        h("span", { class: "gptlib-te-size" }, ENCODINGS[name].size),
        this.count,
        this.rate,
      ),
      this.list,
      this.message,
      this.detail,
    );
  }

  /** @param {Uint8Array} bytes of the whole text @param {Tokens} tokens */
  draw(bytes, tokens) {
    this.bytes = bytes;
    this.tokens = tokens;
    this.offsets = offsets(tokens.lengths);
    this.current = 0;
    const n = tokens.ids.length;
    const number = h("b", {}, plural(n, "token").split(" ")[0]);
    this.count.replaceChildren(number, n === 1 ? " token" : " tokens");
    this.rate.textContent = n ? `${(bytes.length / n).toFixed(2)} bytes per token` : "";
    this.buttons = tokens.ids.slice(0, DRAWN).map((id, i) => this.button(id, i));
    if (this.buttons.length) this.buttons[0].tabIndex = 0;
    this.list.replaceChildren(
      ...this.buttons.flatMap((button, i) =>
        this.endsLine(i) ? [button, h("span", { class: "gptlib-te-break" })] : [button]
      ),
    );
    const more = n - this.buttons.length;
    this.message.replaceChildren(...(more > 0 ? [`… and ${plural(more, "more token")}.`] : []));
    this.root.classList.remove("gptlib-te-stale");
    this.hint();
  }

  /** @param {number} i @returns {Uint8Array} */
  bytesOf(i) {
    return this.bytes.subarray(this.offsets[i], this.offsets[i + 1]);
  }

  /** @param {number} i */
  endsLine(i) {
    return this.bytes[this.offsets[i + 1] - 1] === 0x0a;
  }

  /** @param {number} id @param {number} i */
  button(id, i) {
    const bytes = this.bytesOf(i);
    return h(
      "button",
      {
        type: "button",
        class: "gptlib-te-token",
        tabindex: "-1",
        "data-lm-suppress-shortcuts": "true", // JupyterLab asks the focused element itself
        "data-index": String(i),
        "data-color": String(i % 4),
        "aria-label": `${spoken(bytes)}, id ${id}`,
      },
      tokenText(bytes),
      h("span", { class: "gptlib-te-id" }, String(id)),
    );
  }

  hint() {
    this.mark(0, 0);
    const words = this.tokens.ids.length
      ? "Choose a token to see its bytes."
      : "No text, no tokens.";
    this.detail.replaceChildren(h("span", { class: "gptlib-te-soft" }, words));
  }

  /** Show one token's facts. @param {number} i */
  show(i) {
    const bytes = this.bytesOf(i);
    this.mark(i, i + 1);
    const chip = h(
      "span",
      { class: "gptlib-te-chip", "data-color": String(i % 4) },
      tokenText(bytes),
    );
    this.detail.replaceChildren(
      h("div", {}, chip, " id ", h("b", {}, String(this.tokens.ids[i]))),
      h("div", {}, `${plural(bytes.length, "byte")} `, h("code", {}, hex(bytes))),
    );
  }

  /** Show what this encoding makes of another's token. @param {number} start @param {number} end */
  showOverlap(start, end) {
    if (this.tokens.ids.length === 0) return;
    const [first, last] = overlap(start, end, this.offsets);
    this.mark(first, last);
    const ids = this.tokens.ids.slice(first, last);
    this.detail.replaceChildren(
      h(
        "div",
        {},
        h(
          "span",
          { class: "gptlib-te-soft" },
          `The same bytes, ${plural(ids.length, "token")} here:`,
        ),
      ),
      h("div", {}, h("code", {}, ids.join(" "))),
    );
  }

  /** @param {number} first @param {number} last */
  mark(first, last) {
    for (const element of this.list.querySelectorAll(".gptlib-te-on")) {
      element.classList.remove("gptlib-te-on");
    }
    for (const element of this.buttons.slice(first, last)) element.classList.add("gptlib-te-on");
  }

  /** Make one token the one that the Tab key reaches. @param {number} i */
  makeCurrent(i) {
    this.buttons[this.current].tabIndex = -1;
    this.buttons[i].tabIndex = 0;
    this.current = i;
  }

  /** @param {string} key @returns {HTMLElement | undefined} where an arrow key leads */
  target(key) {
    const last = this.buttons.length - 1;
    /** @type {Record<string, number>} */
    const targets = {
      ArrowRight: Math.min(this.current + 1, last),
      ArrowLeft: Math.max(this.current - 1, 0),
      Home: 0,
      End: last,
    };
    return this.buttons[targets[key]];
  }
}

/**
 * @param {{ model: Model, el: HTMLElement }} context
 * @returns {() => void}
 */
function render({ model, el }) {
  const area = /** @type {HTMLTextAreaElement} */ (
    h("textarea", {
      class: "gptlib-te-area",
      rows: "3",
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
    })
  );
  const counts = h("span");
  const reset = h(
    "button",
    { type: "button", class: "gptlib-te-reset", hidden: "" },
    "Back to the first text",
  );
  const notes = h("div", { class: "gptlib-te-notes", role: "status" });
  const panels = h("div", { class: "gptlib-te-panels" });
  const root = h(
    "div",
    { class: "gptlib-root gptlib-te", "data-lm-suppress-shortcuts": "true" },
    h(
      "div",
      { class: "gptlib-te-layout" },
      h(
        "label",
        { class: "gptlib-te-label" },
        h("strong", { class: "gptlib-title" }, "Your text"),
        area,
      ),
      h("div", { class: "gptlib-te-counts" }, counts, reset),
      notes,
      panels,
    ),
  );
  /** @type {Panel[]} */
  let shown = [];
  /** @type {Map<string, Map<string, number>>} */
  const ranks = new Map();
  const first = model.get("text");
  let own = false; // whether the text changes because the reader types
  let typing = 0; // timers
  let waiting = 0;

  const offered = model.get("vocabularies"); // only a page without a kernel has them
  for (const [name, asset] of Object.entries(offered ?? {})) {
    if (asset.tokens) ranks.set(name, ranksOf(asset));
  }

  /** @param {string} name @param {string} text @returns {Tokens | null} */
  function tokensOf(name, text) {
    const stored = model.get("tokens");
    if (stored.text === text && stored[name]) {
      return { ids: unpack(stored[name].ids), lengths: unpack(stored[name].lengths) };
    }
    const known = ranks.get(name);
    return known ? encode(text, known) : null;
  }

  /** @param {Panel} panel */
  function offer(panel) {
    panel.draw(new Uint8Array(), { ids: [], lengths: [] });
    panel.count.textContent = "";
    panel.detail.replaceChildren();
    const button = h("button", { type: "button", class: "gptlib-te-load" }, "Load it (0.5 MB)");
    button.addEventListener("click", async () => {
      button.setAttribute("disabled", "");
      try {
        ranks.set(panel.name, ranksOf(await offered[panel.name].load()));
        draw();
      } catch {
        button.removeAttribute("disabled");
        button.textContent = "That did not work. Try again";
      }
    });
    panel.message.replaceChildren(
      h(
        "p",
        {},
        `${panel.title}'s tokens of a new text need its vocabulary of ${
          ENCODINGS[panel.name].size
        }. The notebook has it; this page can load it.`,
      ),
      button,
    );
  }

  function draw() {
    const text = cut(model.get("text"));
    const bytes = new TextEncoder().encode(text);
    window.clearTimeout(waiting);
    counts.textContent = `${plural(countCharacters(text), "character")} · ${
      plural(bytes.length, "byte")
    } in UTF-8`;
    for (const panel of shown) {
      const tokens = tokensOf(panel.name, text);
      if (tokens) panel.draw(bytes, tokens);
      else if (offered) offer(panel);
      else panel.root.classList.add("gptlib-te-stale"); // Python is at work
    }
    reset.toggleAttribute("hidden", model.get("text") === first);
    drawNotes(text);
    if (!offered && model.get("tokens").text !== text) {
      waiting = window.setTimeout(() => {
        notes.append(h("p", {}, "Waiting for Python. Is the kernel running?"));
      }, 2000);
    }
  }

  /** @param {string} text */
  function drawNotes(text) {
    const found = [];
    if (model.get("text").length > text.length) {
      found.push(`The text is cut here: only its first ${plural(LIMIT, "character")} are shown.`);
    }
    if (text.includes(SPECIAL)) {
      found.push(
        `${SPECIAL} is ordinary text here and is cut into pieces like the rest. Only a program can ` +
          "insert the special token of that name.",
      );
    }
    notes.replaceChildren(...found.map((note) => h("p", {}, note)));
  }

  function drawText() {
    // A text area turns every line break into \n; do not take that for a new text.
    if (!own && model.get("text").replace(/\r\n?/g, "\n") !== area.value) {
      area.value = model.get("text");
    }
    draw();
  }

  function drawPanels() {
    shown = model.get("encodings").map((/** @type {string} */ name) => new Panel(name));
    panels.replaceChildren(...shown.map((panel) => panel.root));
    drawText();
  }

  function onInput() {
    window.clearTimeout(typing);
    typing = window.setTimeout(() => {
      own = true;
      model.set("text", wellFormed(area.value.slice(0, 3 * LIMIT))); // enough to see that it is cut
      own = false;
      model.save_changes();
    }, 150);
  }

  /** @param {Event} event */
  function onPoint(event) {
    const button = /** @type {HTMLElement} */ (event.target).closest(".gptlib-te-token");
    const panel = shown.find((candidate) => candidate.list.contains(button));
    if (!button || !panel) return;
    const i = panel.buttons.indexOf(/** @type {HTMLElement} */ (button));
    panel.show(i);
    if (event.type !== "pointerover") panel.makeCurrent(i);
    for (const other of shown) {
      if (other !== panel) other.showOverlap(panel.offsets[i], panel.offsets[i + 1]);
    }
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    const panel = shown.find((candidate) =>
      candidate.list.contains(/** @type {Node} */ (event.target))
    );
    const target = panel?.target(event.key);
    if (!target) return;
    target.focus();
    event.preventDefault();
  }

  area.addEventListener("input", onInput);
  reset.addEventListener("click", () => {
    model.set("text", first);
    model.save_changes();
    area.focus(); // the button is gone
  });
  for (const type of ["pointerover", "focusin", "click"]) panels.addEventListener(type, onPoint);
  panels.addEventListener("keydown", onKey);
  drawPanels();
  el.append(root);

  /** @type {[string, () => void][]} */
  const listeners = [
    ["change:text", drawText],
    ["change:tokens", draw],
    ["change:encodings", drawPanels],
  ];
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    window.clearTimeout(typing);
    window.clearTimeout(waiting);
    for (const [event, listener] of listeners) model.off(event, listener);
  };
}

export default { render };
