// The mini model writes in the reader's own browser, token by token. The playground shows the text,
// what was weighed at each place, how surprising each token was and where a head of attention looks.

import {
  button,
  classes,
  define,
  guard,
  html,
  inline,
  live,
  noChange,
  nothing,
  radios,
  repeat,
  tick,
  uniqueName,
} from "./lib/kit.js";
import { formatChance, formatCount, megabytes, plural, sum } from "./lib/numbers.js";
import { moved, withModifier } from "./lib/rove.js";
import { dials, samplingOf, seedBox, STOPS } from "./lib/sampling.js";
import { lossOf, Session, Story } from "./lib/session.js";
import { labelOfText, NO_INK, spoken } from "./lib/tokens.js";

/** @import { Widget } from "./lib/kit.js" */
/** @import { Alternative, Group, Looks, Token } from "./lib/session.js" */

// --- Arithmetic ----------------------------------------------------------------------------------

const SHOWN = 600; // so much of a text is drawn, its end
const ROWS = 10; // alternatives, as many as the worker sends
const HOT = 6; // nats; what surprises more has the same color
const SHARES = 10_000; // as in Python

/** @param {number | null} loss in nats @returns {number} how strong its color is, from 0 to 1 */
export function heat(loss) {
  return loss === null ? 0 : Math.round(100 * Math.min(Math.max(loss / HOT, 0), 1)) / 100;
}

/** @param {Token[]} tokens  what they lose in all, and each on average */
export function summarize(tokens) {
  const losses = tokens.map(({ loss }) => loss).filter((loss) => loss !== null);
  const all = sum(losses);
  return { count: losses.length, sum: all, mean: losses.length ? all / losses.length : 0 };
}

/** Python's example as tokens, and what may follow them.
 * @param {any} stored @returns {{ tokens: Token[], next: Alternative[] }} */
export function unpack({ ids, texts, losses, alternatives, names }) {
  /** @param {number} share  rounded to none or all, it is neither */
  const own = (share) => Math.min(Math.max(share, 0.4), SHARES - 0.4) / SHARES;
  const places = alternatives.map((/** @type {number[]} */ row) =>
    Array.from({ length: row.length / 2 }, (_, i) => {
      return { id: row[2 * i], text: names[row[2 * i]] ?? "", own: own(row[2 * i + 1]) };
    })
  );
  const tokens = ids.map((/** @type {number} */ id, /** @type {number} */ i) => {
    return { id, text: texts[i], loss: losses[i - 1] ?? null, alternatives: places[i - 1] ?? null };
  });
  return { tokens, next: places.at(-1) };
}

/** How much a token looks at each that is in view, up to itself; none where it is not in view.
 * @param {Looks} looks @param {number} index */
function rowOf({ start, tokens, weights }, index) {
  const row = index - start;
  const seen = row >= 0 && row < tokens ? row + 1 : 0; // so many
  return weights.subarray(row * tokens, row * tokens + seen);
}

/** What a head looks at from one token, the most first.
 * @param {Looks} looks @param {number} index @param {number} [count] */
export function looksFrom(looks, index, count = 5) {
  return Array.from(rowOf(looks, index), (weight, i) => ({ index: looks.start + i, weight }))
    .sort((a, b) => b.weight - a.weight)
    .slice(0, count);
}

/** The pixels of a map: one color, the stronger the more weight.
 * @param {Float32Array} weights (tokens, tokens) @param {number[]} color red, green, blue */
export function pixels(weights, color) {
  const found = new Uint8ClampedArray(4 * weights.length);
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] !== 0) found.set([...color, 255 * Math.sqrt(weights[i])], 4 * i);
  }
  return found;
}

/** @param {(number | null)[]} losses @returns {string} a path: a line of its height for each */
export function bars(losses) {
  const top = (/** @type {number} */ loss) => HOT - Math.min(Math.max(loss, 0.04), HOT);
  return losses
    .map((loss, i) => (loss === null ? "" : `M${i + 0.5} ${HOT}V${top(loss).toFixed(2)}`))
    .join("");
}

// --- Tokens for people ---------------------------------------------------------------------------

/** @param {string} shown of a token @returns {string} in words; that a space leads it is not said */
export const inWords = (shown) => shown === "␣" ? "space" : spoken(shown.replaceAll("␣", ""));

/** A piece of text as it flows: spaces that lead it, and what is shown of the rest.
 * @param {string} text */
export function flow(text) {
  const lead = /^ *(?=[^ ])/u.exec(text)?.[0] ?? "";
  const body = text.slice(lead.length);
  const inky = /^ +$/.test(body) || Array.from(body).some((one) => !NO_INK.test(one));
  const shown = inky ? body : labelOfText(body);
  return { lead, body: shown, inky, tail: body.includes("\n") ? "\n" : "" };
}

/** @typedef {{ lead: string, body: string, tail: string, kind: string, name: string }} Face */
/** What is shown of each group: found out once. @type {WeakMap<Group, Face & { of: string }>} */
const faces = new WeakMap();

/** @param {Story} story @param {Group} group @returns {Face} */
function faceOf(story, group) {
  const { text, last } = group;
  const known = faces.get(group);
  if (known?.of === text) return known;
  const { inky, ...flowing } = flow(text);
  let face = { ...flowing, kind: inky ? "" : "pg-mark", name: inWords(labelOfText(text)) };
  if (story.isEnd(last)) {
    const [body, tail, kind] = last
      ? ["end of the story", "\n", "pg-end"]
      : ["start", "", "pg-begin"];
    face = { lead: "", body, tail, kind, name: story.nameOf(last) };
  }
  faces.set(group, { ...face, of: text });
  return face;
}

/** @param {Story} story @param {number} at @returns {string} what stands before a place */
function contextOf(story, at) {
  if (at < 2) return "nothing: how does a story begin?";
  if (story.isEnd(at - 1)) return "the end of the story: how does another one begin?";
  const from = Math.max(1, at - 5);
  const text = story.tokens.slice(from, at).map((token) => token.text).join("").trim();
  return `“${from > 1 ? "…" : ""}${text}”`;
}

/** @param {Story} story @param {Looks} looks @param {number} index of the token that looks */
function lookWords(story, looks, index) {
  const list = looksFrom(looks, index)
    .filter(({ weight }) => weight >= 0.01)
    .map(({ index: at, weight }) => {
      return `${at === index ? "itself" : story.nameOf(at)} ${(100 * weight).toFixed(0)}%`;
    });
  return `From ${story.nameOf(index)} this head looks at: ${list.join(", ")}.`;
}

/** The place whose alternatives are shown: that of a chosen token, the newest, or the next.
 * @param {Story} story */
function placeOf({ tokens, groups, next, chosen }) {
  const at = chosen >= 0 ? groups[chosen].first : next ? tokens.length : tokens.length - 1;
  const token = /** @type {Token | undefined} */ (tokens[at]);
  return { at, token, weighed: (token ? token.alternatives : next) ?? [] };
}

// --- What the reader does ------------------------------------------------------------------------

const EXAMPLES = ["Once upon a time", "It was a chilly Sunday.", "To be, or not to be", ""];
/** @type {Record<string, string>} */
const PANELS = { next: "What comes next", surprise: "Surprise", attention: "Attention" };
const NEEDED = "A map shows where a head looks from each token. It takes the model.";
const BLUE = [59, 143, 199]; // seen on a light and on a dark ground
const ICONS = {
  write: "M5 3l11 7-11 7z",
  stop: "M5 5h10v10H5z",
  dice: "M6 2h8a4 4 0 0 1 4 4v8a4 4 0 0 1-4 4H6a4 4 0 0 1-4-4V6a4 4 0 0 1 4-4z" +
    "M5 5v2h2V5zM13 5v2h2V5zM9 9v2h2V9zM5 13v2h2v-2zM13 13v2h2v-2z",
};

/** @param {Event} event @returns {number} the group of a token, or -1 */
function groupOf({ target }) {
  const element = /** @type {HTMLElement} */ (target).closest?.("[data-group]");
  return element ? Number(/** @type {HTMLElement} */ (element).dataset.group) : -1;
}

/** @param {PointerEvent} event @param {boolean} [down] the way that the tokens run */
function shareOf({ currentTarget, clientX, clientY }, down = false) {
  const box = /** @type {HTMLElement} */ (currentTarget).getBoundingClientRect();
  return down ? (clientY - box.top) / box.height : (clientX - box.left) / box.width;
}

/** A playground, and what its reader does with it. */
class Playground {
  typed = ""; // what stands in the box
  id = uniqueName();
  /** @type {ReturnType<typeof looking>} */ look = NOWHERE;
  #follows = false; // whether the end of the text is in view, and stays there
  #focus = ""; // what gets the focus once it is drawn
  #typing = 0; // a timer

  /** @param {Widget} widget */
  constructor(widget) {
    this.widget = widget;
    this.model = widget.model;
    this.session = new Session(widget);
    this.size = `${megabytes(this.model.get("size"))} MB`;
    this.readPrompt();
    this.readExample();
    const { attend, refresh, status } = this.session;
    status.element.classList.add("gptlib-pg-hidden");
    this.on = {
      prompt: () => this.readPrompt(),
      example: () => this.readExample(),
      layer: attend,
      head: attend,
      temperature: refresh,
      top_k: refresh,
      top_p: refresh,
      parts() {
        attend();
        refresh();
      },
    };
  }

  get story() {
    return this.session.story;
  }

  /** @param {string} selector @returns {HTMLElement | null} */
  find(selector) {
    return this.widget.root.querySelector(selector);
  }

  close() {
    clearTimeout(this.#typing);
    this.session.close();
  }

  // A box turns every line break into \n, which is no new text.
  readPrompt() {
    this.typed = this.model.get("prompt").replace(/\r\n?/g, "\n");
  }

  readExample() {
    const { model, session } = this;
    const example = model.get("example");
    const own = session.story.tokens.length > 0 && !session.stored;
    if (!example?.ids || own || this.typed !== model.get("prompt")) return;
    const { tokens, next } = unpack(example);
    [session.stored, session.beginning] = [true, this.typed];
    session.story = Object.assign(new Story(tokens, next), { begun: example.prompt });
  }

  /** @param {string} part @returns {boolean} */
  isOpen(part) {
    return this.model.get("parts").includes(part);
  }

  /** @param {string} part @param {boolean} open */
  toggle(part, open) {
    const kept = Object.keys(PANELS).filter((one) => one === part ? open : this.isOpen(one));
    const parts = ["write", ...kept];
    if (String(parts) !== String(this.model.get("parts"))) this.widget.save({ parts });
  }

  /** @param {number} group or -1 */
  choose(group) {
    const { story, session } = this;
    story.chosen = story.groups[group]?.first ? group : -1; // nothing else can stand at the start
    if (group >= 0) {
      story.current = group;
      this.toggle("next", true);
      const { looks, chosen } = story;
      const seen = looks && chosen >= 0 && this.isOpen("attention");
      if (seen) session.status.say(lookWords(story, looks, story.groups[group].last));
    }
    session.refresh();
    this.widget.update();
  }

  /** @param {number} group */
  focus(group) {
    const last = this.story.groups.length - 1;
    this.story.current = Math.min(Math.max(group, last + 1 - SHOWN, 0), last);
    this.find(`[data-group="${this.story.current}"]`)?.focus();
    this.widget.update();
  }

  /** @param {number} group */
  point(group) {
    if (this.story.pointed === group) return;
    this.story.pointed = group;
    this.session.changed();
  }

  /** @param {KeyboardEvent} event */
  onTextKey = (event) => {
    const here = groupOf(event);
    if (here < 0 || withModifier(event)) return;
    const keys = { back: ["ArrowLeft"], on: ["ArrowRight"], page: 0 };
    const to = moved(event.key, here, this.story.groups.length, keys);
    if (to === null && !["Enter", " ", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    if (to !== null) return this.focus(to);
    this.choose(here);
    if (event.key === "ArrowDown") this.#focus = ".gptlib-pg-row";
  };

  /** @param {KeyboardEvent} event */
  onRowKey(event) {
    const rows = [.../** @type {any} */ (this.widget.root.querySelectorAll(".gptlib-pg-row"))];
    const here = rows.indexOf(event.target);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (here < 0 || !step) return;
    event.preventDefault();
    const { chosen, current } = this.story;
    if (here + step < 0) this.focus(chosen < 0 ? current : chosen);
    else rows[here + step]?.focus();
  }

  /** @param {KeyboardEvent} event */
  onEscape({ key }) {
    if (key !== "Escape") return;
    const { chosen } = this.story;
    if (chosen < 0) return this.session.stop();
    this.choose(-1);
    this.focus(chosen);
  }

  /** @param {number} i of a row */
  take(i) {
    const { at, token, weighed } = placeOf(this.story);
    const other = weighed[i];
    const still = this.session.doing && this.story.chosen < 0;
    if (other && !still && other.id !== token?.id) this.session.replace(at, other);
  }

  /** What the one button does now. */
  mainWord() {
    const { doing, retry, stored, beginning, seed } = this.session;
    if (doing) return doing === "loading" ? "Cancel" : "Stop";
    if (retry) return "Try again";
    const other = this.typed !== beginning || this.model.get("seed") !== seed;
    return stored || !this.story.tokens.length || other ? "Write" : "Continue";
  }

  act() {
    const { session } = this;
    if (session.doing) session.stop();
    else if (session.retry) session.retry();
    else if (this.mainWord() === "Write") this.begin();
    else session.proceed();
  }

  begin() {
    this.session.begin(() => this.typed);
  }

  newSeed() {
    this.widget.save({ seed: Math.floor(10_000 * Math.random()) });
  }

  clear() {
    this.session.clear();
    this.find("textarea")?.focus();
  }

  /** @param {string} text @param {number} [wait] until it is saved */
  type(text, wait = 400) {
    this.typed = text;
    clearTimeout(this.#typing);
    this.#typing = window.setTimeout(() => {
      this.widget.save({ prompt: this.typed.replace(/\p{Surrogate}/gu, "\ufffd") });
    }, wait);
    this.widget.update();
  }

  /** @param {KeyboardEvent} event */
  onTyped(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.session.stop();
    this.begin();
  }

  /** Before it is drawn. */
  view() {
    const paper = this.find(".gptlib-pg-paper");
    const below = paper ? paper.scrollHeight - paper.scrollTop - paper.clientHeight : 0;
    this.#follows = this.session.doing === "writing" && below < 40;
    this.look = looking(this);
    return layoutView(this);
  }

  /** After it is drawn. */
  drawn() {
    const { root } = this.widget;
    root.classList.toggle("gptlib-pg-colored", Boolean(this.model.get("colored")));
    root.classList.toggle("gptlib-pg-writing", this.session.doing === "writing");
    root.classList.toggle("gptlib-pg-looking", this.look.from >= 0);
    const paper = this.find(".gptlib-pg-paper");
    if (paper && this.#follows) paper.scrollTop = paper.scrollHeight;
    if (this.#focus) this.find(this.#focus)?.focus();
    this.#focus = "";
  }
}

// --- The text ------------------------------------------------------------------------------------

/** @param {string} path */
const icon = (path) =>
  html`
    <svg class="gptlib-pg-icon" viewBox="0 0 20 20" aria-hidden="true">
      <path d=${path} fill-rule="evenodd" />
    </svg>
  `;

const NOWHERE = { from: -1, weightOf: (/** @type {Group} */ _) => 0 };

/** The group that a head looks from, and how much it looks at another. @param {Playground} one */
function looking(one) {
  const { looks, groups, pointed, chosen } = one.story;
  const from = pointed >= 0 ? pointed : chosen;
  if (!looks || !one.isOpen("attention") || !groups[from]) return NOWHERE;
  const row = rowOf(looks, groups[from].last);
  const place = (/** @type {number} */ index) => Math.max(index - looks.start, 0);
  const weightOf = (/** @type {Group} */ { first, last }) =>
    sum(row.subarray(place(first), place(last + 1)));
  return row.length ? { from, weightOf } : NOWHERE;
}

/** A group of tokens: a space that leads it belongs to no button. @param {Playground} one @param {number} i */
function pieceView({ story, look }, i) {
  const group = story.groups[i];
  const { first, last } = group;
  const face = faceOf(story, group);
  const loss = last === 0 ? null : lossOf(story.tokens, group);
  const weight = look.weightOf(group);
  const kinds = [
    last < story.start && "pg-gone",
    first < story.begun && "pg-yours",
    weight >= 0.1 && "pg-seen-well",
    i === look.from && "pg-looks",
  ];
  const is = [i === story.current, i === story.chosen, i === story.pointed];
  return guard([face, loss, weight, ...kinds, ...is], () => {
    const [current, chosen, pointed] = is;
    const said = loss === null ? face.name : `${face.name}, ${loss.toFixed(2)} nats`;
    return inline`${face.lead}<span class=${classes("pg-tok", face.kind, ...kinds)} role="button"
      data-group=${i} tabindex=${current ? 0 : -1} aria-pressed=${chosen} aria-label=${said}
      title=${pointed ? said : nothing}
      style="--heat: ${heat(loss)}; --look: ${Math.sqrt(weight).toFixed(2)}"
      >${face.body}</span>${face.tail}`;
  });
}

/** @param {Playground} one */
function textView(one) {
  const { groups } = one.story;
  const first = Math.max(0, groups.length - SHOWN);
  const open = Boolean(one.session.doing && groups.at(-1)?.open);
  const shown = groups.slice(first, groups.length - Number(open));
  const click = (/** @type {Event} */ event) => {
    const group = groupOf(event);
    if (group >= 0) one.choose(group === one.story.chosen ? -1 : group);
  };
  const enter = (/** @type {Event} */ event) => {
    one.story.current = Math.max(groupOf(event), 0);
    one.point(one.story.current);
  };
  const leave = () => one.point(-1);
  const over = (/** @type {Event} */ event) => one.point(groupOf(event));
  const pieces = repeat(shown, (_, n) => first + n, (_, n) => pieceView(one, first + n));
  return inline`<div class="gptlib-pg-text" dir="auto" role="group"
    aria-label="The text, token by token" @click=${click} @keydown=${one.onTextKey} @focusin=${enter}
    @focusout=${leave} @pointerover=${over} @pointerleave=${leave}>${pieces}</div>`;
}

/** @param {Story} story @returns {string} what of it the model does not read any more */
function earlierWords({ tokens, groups, start }) {
  if (!start) return "";
  const missing = (groups[Math.max(0, groups.length - SHOWN)]?.first ?? 0) - 1;
  const older = missing > 0 ? `${formatCount(missing)} older are not drawn` : "older ones are gray";
  return `The model reads the newest ${plural(tokens.length - start, "token")}; ${older}.`;
}

/** @param {Playground} one */
function paperView(one) {
  const example = "An example from the same model. Yours will stand here.";
  const empty = "What the model writes will stand here.";
  const caption = one.session.stored ? example : "";
  return html`<div class="gptlib-pg-paper">
    <p class="gptlib-soft gptlib-pg-caption">${one.story.tokens.length ? caption : empty}</p>
    <p class="gptlib-soft gptlib-pg-earlier">${earlierWords(one.story)}</p>
    ${textView(one)}
  </div>`;
}

/** @param {Playground} one */
function statusWords({ session, size }) {
  const { doing, told, arrived, story, stored, engine } = session;
  if (doing === "loading") return told || `${megabytes(arrived)} of ${size}`;
  if (doing === "reading") return `Reading ${story.tokens.length ? "" : "the beginning "}…`;
  if (doing) return `Writing: ${plural(story.tokens.length - story.begun, "token")}`;
  if (story.ended() && !stored) return "The story has ended. Continue begins a new one.";
  return told || (engine ? "Ready." : `Loads the model once: ${size}.`);
}

/** @param {Playground} one */
function composerView(one) {
  const { doing } = one.session;
  const main = classes("button primary pg-main", doing && "pg-busy");
  return html`
    <div class="gptlib-pg-composer">
      <label>
        <span class="gptlib-spoken">The beginning</span>
        <textarea class="gptlib-text gptlib-pg-area" rows="1" spellcheck="false" dir="auto"
          .value=${live(one.typed)}
          @input=${(/** @type {any} */ { target }) => one.type(target.value)}
          @keydown=${(/** @type {KeyboardEvent} */ event) => one.onTyped(event)}></textarea>
      </label>
      ${button([icon(doing ? ICONS.stop : ICONS.write), one.mainWord()], () => one.act(), {
        class: main,
      })}
    </div>
  `;
}

/** @param {Playground} one */
function stateView(one) {
  const { session, widget, model } = one;
  const { doing, arrived, stored, error } = session;
  const another = () => {
    one.newSeed();
    one.begin();
  };
  const buttons = [
    button([icon(ICONS.dice), "Another one"], another, SMALL),
    button("Start again", () => one.clear(), SMALL),
  ];
  const fast = (/** @type {boolean} */ on) => widget.save({ fast: on });
  return html`
    <div class="gptlib-bar gptlib-pg-line">
      <div class="gptlib-bar gptlib-pg-state">
        <progress ?hidden=${doing !== "loading"} max=${model.get("size")} .value=${arrived}
          aria-label="Loading the model, ${one.size}"></progress>
        <span class="gptlib-soft gptlib-pg-status">${statusWords(one)}</span>
      </div>
      <div class="gptlib-bar gptlib-pg-line">
        ${stored || !one.story.tokens.length ? nothing : buttons}
        ${tick("Fast", Boolean(model.get("fast")), fast, CHECKED)}
      </div>
    </div>
    <p class="gptlib-error gptlib-pg-error" role="alert">${error}</p>
  `;
}

const CHECKED = { class: "gptlib-switch gptlib-soft" };
const SMALL = { class: "gptlib-button gptlib-pg-button" };
const CHIP = { class: "gptlib-button gptlib-pg-button gptlib-pg-chip" };

/** @param {Playground} one */
function legendView({ model, widget }) {
  const color = (/** @type {boolean} */ on) => widget.save({ colored: on });
  return html`
    <div class="gptlib-bar gptlib-soft gptlib-pg-line">
      ${tick("Color by surprise", Boolean(model.get("colored")), color, CHECKED)}
      <span class="gptlib-pg-scale">0<span class="gptlib-pg-ramp" role="img"
        aria-label="The scale: pale for 0 nats, strong for ${HOT} and more"></span>${HOT}+ nats</span>
      <span class="gptlib-pg-look-key">
        In blue: where layer ${model.get("layer")}, head ${model.get("head")} looks
      </span>
    </div>
  `;
}

// --- What comes next -----------------------------------------------------------------------------

/** @param {Playground} one @param {Alternative} other @param {number} i
 * @param {Token | undefined} token that stands there
 * @param {{ still: boolean, plain: boolean }} how  whether it cannot be taken now */
function rowView(one, other, i, token, { still, plain }) {
  const { id, text, own, drawn } = other;
  const now = drawn ?? own;
  const name = id === one.story.tokens[0].id ? "the end" : labelOfText(text);
  const here = id === token?.id;
  const said = `${here ? "Stands here:" : "Take"} ${inWords(name)}, ${formatChance(now)}`;
  const width = (/** @type {number} */ share) => `width: ${(100 * share).toFixed(1)}%`;
  return html`
    <li>
      <button type="button" class=${classes("pg-row", here && "pg-here", now === 0 && "pg-dropped")}
        aria-disabled=${still || here} aria-label=${said} @click=${() => one.take(i)}>
        <span class="gptlib-pg-token">${name}</span>
        <span class="gptlib-pg-track" aria-hidden="true">
          <span class="gptlib-pg-ghost" style=${width(own)}></span>
          <span class="gptlib-pg-fill" style=${width(now)}></span>
        </span>
        <span class="gptlib-pg-now">${formatChance(now)}</span>
        <span class="gptlib-pg-own">${plain || drawn === undefined ? "" : formatChance(own)}</span>
      </button>
    </li>
  `;
}

/** @param {Playground} one @param {boolean} known @param {boolean} still */
function hintWords({ session, story, size }, known, still) {
  if (!story.tokens.length) {
    return "Ten bars will stand here: the tokens that the model finds likeliest.";
  }
  if (!known) return "The model no longer reads this place, so it cannot weigh it.";
  if (still) return "The token that is drawn is marked. Stop to take another one.";
  if (!session.engine) return `Take one, or move a slider: that loads the model (${size}).`;
  if (story.chosen < 0) return "Take one, and the model goes on from it.";
  return "Take another one: the text is cut here, and the model goes on from it.";
}

/** @param {Story} story @returns {string} */
function placeWords(story) {
  const { at, token } = placeOf(story);
  if (!token) return `After ${contextOf(story, at)}`;
  const nats = token.loss === null ? "" : `, ${token.loss.toFixed(2)} nats`;
  return `${story.chosen < 0 ? "Just drawn" : "Here stands"}: ${story.nameOf(at)}${nats}`;
}

/** @param {Playground} one */
function weighedView(one) {
  const { session, story } = one;
  const { token, weighed } = placeOf(story);
  const listed = weighed.slice(0, ROWS);
  if (token && weighed.length && !listed.some(({ id }) => id === token.id)) {
    listed.push({ id: token.id, text: token.text, own: Math.exp(-(token.loss ?? 0)) });
  }
  const { temperature, top_k, top_p } = samplingOf(one.model);
  const plain = temperature === 1 && top_k === null && (top_p ?? 1) === 1;
  const how = { plain, still: Boolean(session.doing) && story.chosen < 0 };
  const back = () => {
    one.choose(-1);
    one.focus(Infinity);
  };
  const key = !plain && !session.stored && story.tokens.length > 0;
  return html`
    <div>
      <div class="gptlib-pg-place-line">
        <p class="gptlib-pg-place">${story.tokens.length ? placeWords(story) : ""}</p>
        ${story.chosen >= 0
          ? button("Back to the end", back, { class: "gptlib-pg-link" })
          : nothing}
      </div>
      <ul class="gptlib-pg-rows" @keydown=${(/** @type {KeyboardEvent} */ e) => one.onRowKey(e)}>
        ${listed.map((other, i) => rowView(one, other, i, token, how))}
      </ul>
      <p class="gptlib-soft" ?hidden=${!key}>
        <span class="gptlib-pg-key gptlib-pg-ghost-key"></span>the model’s own
        <span class="gptlib-pg-key"></span>with your settings
      </p>
      <p class="gptlib-soft">${hintWords(one, weighed.length > 0, how.still)}</p>
    </div>
  `;
}

/** @param {Playground} one */
function settingsView(one) {
  const { widget, model, session } = one;
  const format = (/** @type {string} */ _, /** @type {number | null} */ value) =>
    value === null ? "off" : String(Number(value.toFixed(2)));
  const done = () => {
    if (!session.engine && !session.doing && session.story.tokens.length) session.wake();
  };
  const how = { least: "the likeliest", format, move: widget.save, done };
  return html`
    <div class="gptlib-pg-settings" role="group" aria-label="How the next token is drawn">
      ${dials(samplingOf(model), how)}
      <div class="gptlib-bar gptlib-pg-line">
        <label class="gptlib-bar gptlib-pg-line">
          <span class="gptlib-dial-name">Seed</span>
          ${seedBox(widget)}
        </label>
        ${button([icon(ICONS.dice), "New seed"], () => one.newSeed(), SMALL)}
      </div>
      <div class="gptlib-soft">The same beginning, settings and seed give the same text.</div>
    </div>
  `;
}

/** @param {Playground} one */
const nextView = (one) =>
  html`<div class="gptlib-pg-split">${weighedView(one)} ${settingsView(one)}</div>`;

// --- Surprise ------------------------------------------------------------------------------------

/** @param {Playground} one */
function mostView(one) {
  const { story } = one;
  const first = Math.max(1, story.groups.length - SHOWN);
  const most = story.groups
    .slice(first)
    .map((group, i) => ({ group, i: first + i, loss: lossOf(story.tokens, group) ?? 0 }))
    .sort((a, b) => b.loss - a.loss)
    .slice(0, 5)
    .filter(({ loss }) => loss > 1);
  if (!most.length) return nothing;
  return [
    "It was most surprised by",
    ...most.map(({ group, i, loss }) => {
      const words = `${story.nameOf(group.last)} ${loss.toFixed(1)}`;
      return button(words, () => one.choose(i), CHIP);
    }),
  ];
}

/** @param {Playground} one */
function surpriseView(one) {
  const { story } = one;
  const { tokens, groups, pointed, chosen } = story;
  const { count, sum: all, mean } = summarize(tokens);
  const from = Math.max(1, tokens.length - SHOWN);
  const shown = tokens.slice(from).map(({ loss }) => loss);
  const group = groups[pointed >= 0 ? pointed : chosen];
  const groupAt = (/** @type {PointerEvent} */ event) =>
    story.groupAt(from + Math.floor(shareOf(event) * (tokens.length - from)));
  const words = `These ${formatCount(count)} tokens cost the model ${all.toFixed(1)} nats in ` +
    `all, ${mean.toFixed(2)} each on average: as unsure as a choice among ` +
    `${Math.exp(mean).toFixed(1)} tokens that are equally likely.`;
  const empty = "How much each token surprises the model is drawn here.";
  return html`
    <p class="gptlib-pg-words">${count ? words : empty}</p>
    <div class="gptlib-pg-chart-box">
      <svg class="gptlib-pg-chart" preserveAspectRatio="none" aria-hidden="true"
        viewBox="0 0 ${Math.max(shown.length, 1)} ${HOT}"
        @pointermove=${(/** @type {PointerEvent} */ event) => one.point(groupAt(event))}
        @pointerleave=${() => one.point(-1)}
        @click=${(/** @type {PointerEvent} */ event) => one.choose(groupAt(event))}>
        <path class="gptlib-pg-cursor" d=${group ? `M${group.first - from + 0.5} ${HOT}V0` : ""} />
        <path class="gptlib-pg-bars" d=${bars(shown)} />
      </svg>
      <span class="gptlib-pg-chart-top">${HOT} nats</span><span class="gptlib-pg-chart-low">0</span>
    </div>
    <p class="gptlib-bar gptlib-pg-line">${mostView(one)}</p>
  `;
}

// --- Attention -----------------------------------------------------------------------------------

/** @param {Playground} one @param {"Layer" | "Head"} legend @param {number} count */
function choiceView({ model, widget, id }, legend, count) {
  const trait = legend.toLowerCase();
  return radios({
    legend,
    name: `${id}-${trait}`,
    value: String(model.get(trait)),
    options: Array.from({ length: count }, (_, i) => [String(i), String(i)]),
    choose: (number) => widget.save({ [trait]: Number(number) }),
    class: "gptlib-pg-choices",
  });
}

/** @param {HTMLCanvasElement} canvas @param {Looks} looks */
function paint(canvas, { tokens, weights }) {
  canvas.width = canvas.height = tokens;
  const image = new ImageData(pixels(weights, BLUE), tokens, tokens);
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/** @param {Playground} one @param {Looks} looks */
function mapView(one, looks) {
  const { groups } = one.story;
  const { start, tokens, layer, head } = looks;
  const { from } = one.look;
  const name = `The map of layer ${layer}, head ${head}: ${plural(tokens, "token")}`;
  const place = from < 0 ? 0 : (100 * (groups[from].last - start)) / tokens;
  const move = (/** @type {PointerEvent} */ event) =>
    one.point(one.story.groupAt(start + Math.floor(shareOf(event, true) * tokens)));
  return html`
    <canvas class="gptlib-pg-map" role="img" ${guard([looks], (map) => paint(map, looks))}
      aria-label="${name}, each looking at those before it"
      @pointermove=${move} @pointerleave=${() => one.point(-1)}></canvas>
    <span class="gptlib-pg-map-line" ?hidden=${from < 0}
      style="top: ${place}%; height: ${100 / tokens}%"></span>
  `;
}

/** @param {Playground} one */
function attentionView(one) {
  const { session, story, look } = one;
  const { looks } = story;
  let words = session.engine ? "Its map is drawn here once there is a text." : NEEDED;
  if (looks) words = "Point at a token, or choose one, to see where this head looks from it.";
  if (looks && look.from >= 0) words = lookWords(story, looks, story.groups[look.from].last);
  const wanted = !session.engine && session.doing !== "loading";
  return html`
    <div class="gptlib-bar gptlib-pg-heads">${choiceView(one, "Layer", 4)} ${choiceView(
      one,
      "Head",
      6,
    )}</div>
    <div class="gptlib-pg-split">
      <div class="gptlib-pg-seen">
        <p class="gptlib-pg-words">${words}</p>
        ${wanted ? button(`Load the model: ${one.size}`, () => session.wake(), SMALL) : nothing}
      </div>
      ${looks ? html`<div class="gptlib-pg-map-box">${mapView(one, looks)}</div>` : nothing}
    </div>
  `;
}

// --- All of it -----------------------------------------------------------------------------------

/** What can be opened. What is inside is drawn only while it is open. @param {Playground} one
 * @param {string} part @param {string} note @param {(one: Playground) => unknown} inside */
function panelView(one, part, note, inside) {
  const open = one.isOpen(part);
  return html`
    <details class="gptlib-pg-panel" data-part=${part} ?open=${open}
      @toggle=${(/** @type {any} */ { target }) => one.toggle(part, target.open)}>
      <summary class="gptlib-bar gptlib-pg-summary">
        <span class="gptlib-pg-summary-title">${PANELS[part]}</span>
        <span class="gptlib-soft gptlib-pg-note">${note}</span>
      </summary>
      <div class="gptlib-pg-inside">${open ? inside(one) : noChange}</div>
    </details>
  `;
}

/** @param {Playground} one */
function layoutView(one) {
  const { model } = one;
  const { count, sum: all } = summarize(one.story.tokens);
  const cost = count ? `${all.toFixed(1)} nats in ${plural(count, "token")}` : "";
  const head = `layer ${model.get("layer")}, head ${model.get("head")}`;
  const example = (/** @type {string} */ text) =>
    button(text || "Nothing at all", () => one.type(text, 0), CHIP);
  return html`
    <div class="gptlib-layout" @keydown=${(/** @type {KeyboardEvent} */ e) => one.onEscape(e)}>
      <div>
        <p class="gptlib-title gptlib-pg-title">A small GPT writes</p>
        <div class="gptlib-soft">
          Type a beginning, press Write. The model runs here, in your browser.
        </div>
      </div>
      ${composerView(one)}
      <div class="gptlib-bar gptlib-pg-line" role="group" aria-label="Beginnings to try">
        <span class="gptlib-soft">Try</span> ${EXAMPLES.map(example)}
      </div>
      ${stateView(one)} ${paperView(one)} ${legendView(one)}
      ${panelView(one, "next", "", nextView)}
      ${panelView(one, "surprise", cost, surpriseView)}
      ${panelView(one, "attention", head, attentionView)}
      ${one.session.status.element}
    </div>
  `;
}

const OWN = ["prompt", "example", "parts", "colored", "fast", "layer", "head", "seed"];
const TRAITS = [...OWN, ...Object.keys(STOPS)];

export default define("pg", TRAITS, (widget) => new Playground(widget));
