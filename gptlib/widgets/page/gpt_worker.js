// Both ends of the wire to a GPT that runs in the background: `serve` answers in a Web Worker,
// `connect` asks in a page, `open` does when it has loaded a model. The model itself is gpt.js. This
// file is a module of either side.
//
// A request is {id, type, ...details}, with an id of the page's choice. Each gets one answer with
// its id: {id, type: "done", ...} or {id, type: "error", code, message}. Before it come any number
// of {id, type: "progress" | "token" | "losses", ...}. Indices count the tokens of the text from 0,
// the first being <|endoftext|>, which stands before it.
//
//   load      gpt, url | weights, bytes, sha256, config, vocabulary, patience
//             progress {loaded, total} · done {fetched, prepared}, milliseconds each
//   feed      text | ids, sampling          done {ids, texts, start, alternatives}
//   continue  count, seed, sampling, attention
//             token {index, token, text, start, alternatives, attention} · done {reason}:
//             "count", "end" (of the text) or "stopped"
//   stop      ends what is under way: a load, the writing, losses, lens or scores; as does each
//             of these anew
//   alternatives  index, sampling, count    done {index, alternatives}: what the token there, or
//             the next, may be, likeliest first: {id, text, logit, own, drawn}: two
//             probabilities, of the model itself and with the sampling
//   attention index | layer, head           done {start, tokens, weights}: of one token in every
//             head (L, H, T), or of one head the whole map (T, T), in a Float32Array
//   losses    text | ids                    losses {from, values}, in parts · done {ids, texts,
//             stopped}; values are nats, the first is of the token at index 1
//   lens      text | ids, count, bare       done {ids, tokens, start, ends, best, words, own,
//             chosen, next}: what the model would say before the first block and after each, at
//             `ends` places (E) for each token in view (T): the likeliest `count` (K, 5) tokens'
//             ids, bytes and probabilities (E, T, K), and the probabilities of its choice in the
//             end and of the token that came next (E, T), after the last NaN
//   scores    text | ids, bare              done {ids, tokens, scores}: of every head (L, H, T, T),
//             scaled, those of later tokens too, which the mask hides; at most 128 tokens
//
// `tokens` are bytes, a character each; "" is <|endoftext|>. `bare` leaves it out before a text.
// Losses, lens and scores do not touch the text that is written.
//
// Codes: "network" weights that do not arrive, "truncated" or "corrupt" ones, "stopped" a load,
// lens or scores that were, "input" a request that makes no sense, "worker" where none can run.

/** @typedef {Record<string, any>} Message */
/** @typedef {(message: Message, transfer?: Transferable[]) => void} Post */

export const BEST = 10; // alternatives that are sent with each token
export const MOST_SCORES = 128; // tokens whose scores are sent: of the mini model 1.6 MB
const PART = 32; // tokens read at once, where messages are let in between

class Failure extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

// ---------------------------------------------------------------------------------------------
// In the worker

/** Let messages in: they wait while something is computed. */
const breath = () =>
  new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel(); // a timer would wait 4 ms each time
    port1.onmessage = () => (port1.close(), resolve(null));
    port2.postMessage(null);
  });

/** Where the largest values are, the largest first; of equal ones the first. It is what sorting all
 * would find, and faster.
 * @param {Float32Array | Float64Array} values @param {number} count @returns {number[]} */
export function likeliest(values, count) {
  /** @type {number[]} */
  const best = [];
  for (let id = 0; id < values.length; id++) {
    if (best.length === count && !(values[id] > values[best[count - 1]])) continue;
    let place = Math.min(best.length, count - 1);
    for (; place > 0 && values[id] > values[best[place - 1]]; place--) {
      best[place] = best[place - 1];
    }
    best[place] = id;
  }
  return best;
}

/** Multiply zeros while the weights are on their way: a browser compiles code to fast code only
 * when it has run for a while, and this spares the first text the wait.
 * @param {any} program the module gpt.js @param {Message} config */
function warmUp({ linear }, { n_embd: C }) {
  const zeros = (/** @type {number} */ size) => new Float32Array(size);
  const layer = { weight: zeros(4 * C * C), bias: zeros(4 * C), nIn: C, nOut: 4 * C };
  for (let n = 0; n < 8; n++) linear(layer, zeros(5 * C)); // four vectors, and one
}

/** The bytes of the weights, whole and checked.
 * @param {Message} request @param {AbortSignal} signal
 * @param {(loaded: number) => void} progress @returns {Promise<Uint8Array<ArrayBuffer>>} */
async function weightsOf(request, signal, progress) {
  const { weights, bytes, sha256 } = request;
  if (ArrayBuffer.isView(weights)) {
    const { byteOffset, byteLength } = weights;
    const buffer = /** @type {ArrayBuffer} */ (weights.buffer); // no memory that workers share
    return checked(new Uint8Array(buffer, byteOffset, byteLength), bytes, sha256);
  }
  if (weights) return checked(new Uint8Array(weights), bytes, sha256);
  try {
    return await checked(await download(request, "force-cache", signal, progress), bytes, sha256);
  } catch (error) {
    // What the browser kept may be an older file, or half of one.
    if (!(error instanceof Failure) || !["truncated", "corrupt"].includes(error.code)) throw error;
    return checked(await download(request, "reload", signal, progress), bytes, sha256);
  }
}

/** @param {Uint8Array<ArrayBuffer>} file @param {number} bytes @param {string} sha256 */
async function checked(file, bytes, sha256) {
  if (file.length !== bytes) {
    const arrived = `${file.length} of ${bytes} bytes arrived`;
    throw new Failure("truncated", `The model's weights are not whole: ${arrived}.`);
  }
  if (!globalThis.crypto?.subtle) return file; // a page without https; the shapes are checked still
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", file));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found === sha256) return file;
  throw new Failure("corrupt", "The model's weights are damaged: their SHA-256 is another one.");
}

/** @param {Message} request @param {RequestCache} cache @param {AbortSignal} signal
 * @param {(loaded: number) => void} progress */
async function download({ url, bytes, patience = 30 }, cache, signal, progress) {
  const silence = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), 1000 * patience);
  };
  const stop = () => silence.abort();
  signal.addEventListener("abort", stop);
  const file = new Uint8Array(bytes);
  let loaded = 0;
  try {
    wait();
    let response = await fetch(url, { cache, signal: silence.signal });
    // The browser may have kept an earlier answer, that there is none.
    if (!response.ok) response = await fetch(url, { cache: "reload", signal: silence.signal });
    if (!response.ok || !response.body) throw new Error(`the server answers ${response.status}`);
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return file.subarray(0, loaded);
      wait();
      if (loaded + value.length > bytes) {
        throw new Failure("corrupt", `The model's weights are longer than ${bytes} bytes.`);
      }
      file.set(value, loaded);
      progress(loaded += value.length);
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    if (signal.aborted) throw new Failure("stopped", "The loading was stopped.");
    const why = silence.signal.aborted ? `nothing came for ${patience} s` : messageOf(error);
    throw new Failure("network", `The model's weights do not arrive: ${why}.`);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}

/** @param {unknown} n @param {number} size */
const isIndex = (n, size) => Number.isInteger(n) && Number(n) >= 0 && Number(n) < size;

/** @param {unknown} error */
const messageOf = (error) => (error instanceof Error ? error.message : String(error));

/** A model and the text that it writes, as requests ask for them. */
class Session {
  /** @type {any} */ gpt; // the module gpt.js
  /** @type {any} */ tokenizer;
  /** @type {any} */ writer;
  /** @type {(id: number) => string} */ decode = String; // the text so far is in it
  /** @type {() => number} */ random = Math.random;

  /** @param {Message} request @returns {number[]} */
  idsOf({ text, ids, bare }) {
    const size = this.tokenizer.tokens.length;
    if (typeof text === "string") {
      ids = [...(bare ? [] : [this.tokenizer.endOfText]), ...this.tokenizer.encode(text)];
    }
    if (Array.isArray(ids) && ids.length && ids.every((id) => isIndex(id, size))) return ids;
    throw new Failure("input", `There must be a text, or ids from 0 to ${size - 1}.`);
  }

  /** The likeliest tokens.
   * @param {Float32Array} logits
   * @param {Float64Array} drawn the probabilities after sampling's temperature, top-k and top-p */
  best(logits, drawn, count = BEST) {
    const own = this.gpt.softmax(logits);
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return likeliest(logits, count).map((id) => {
      const text = decoder.decode(this.tokenizer.bytesOf(id));
      return { id, text, logit: logits[id], own: own[id], drawn: drawn[id] };
    });
  }

  /** @param {number | undefined} index of a token @param {number} first place that will do */
  placeOf(index, first) {
    const { start, view } = this.writer;
    const low = start + first;
    const place = (index ?? low + view.length - 1) - start; // the newest, or the next
    if (isIndex(place - first, view.length)) return place;
    throw new Failure("input", `In view are ${low} to ${low + view.length - 1}, not ${index}.`);
  }

  /** What one token looks at in every head, (L, H, T). @param {number} place in the view */
  looks(place) {
    const { nLayers, nHeads } = this.writer.model.config;
    const weights = new Float32Array(nLayers * nHeads * (place + 1));
    for (let head = 0; head < nLayers * nHeads; head++) {
      const row = weights.subarray(head * (place + 1));
      const [layer, own] = [Math.floor(head / nHeads), head % nHeads];
      this.gpt.attentionWeights(this.writer.cache, layer, own, place, row);
    }
    return weights;
  }

  /**
   * Read ids in parts, beside the text that is written; messages are let in between.
   * @param {number[]} ids
   * @param {AbortSignal} signal
   * @param {(x: Float32Array, end: number, from: number) => void} [listen] hears what each block
   *   makes of a part
   */
  async readBeside(ids, signal, listen = () => {}) {
    const cache = new this.gpt.KVCache(this.writer.model.config);
    for (let from = 0; from < ids.length; from += PART) {
      await breath();
      if (signal.aborted) throw new Failure("stopped", "The reading was stopped.");
      const part = ids.slice(from, from + PART);
      this.gpt.read(this.writer.model, part, cache, {
        listen: (/** @type {Float32Array} */ x, /** @type {number} */ end) => listen(x, end, from),
      });
    }
    return cache;
  }

  /** @param {number[]} ids */
  bytesOf(ids) {
    return ids.map((id) => this.tokenizer.tokens[id] ?? "");
  }

  /** @param {Message} request @param {Post} tell @param {AbortSignal} signal */
  async load(request, tell, signal) {
    const begun = performance.now();
    const { bytes: total, config, vocabulary } = request;
    const program = await import(request.gpt).catch((error) => {
      throw new Failure("network", `The model's program does not arrive: ${messageOf(error)}`);
    });
    const progress = (/** @type {number} */ loaded) => tell({ type: "progress", loaded, total });
    const fetching = weightsOf(request, signal, progress);
    warmUp(program, config);
    const file = await fetching;
    if (signal.aborted) throw new Failure("stopped", "The loading was stopped.");
    const arrived = performance.now();
    const words = new program.Tokenizer(vocabulary);
    if (words.tokens.length !== config.vocab_size) {
      const sizes = `${words.tokens.length} tokens, and the model ${config.vocab_size}`;
      throw new Failure("input", `The vocabulary has ${sizes}.`);
    }
    try {
      const model = program.buildModel(program.readTensors(file), program.configOf(config));
      this.writer = new program.Writer(model);
    } catch (error) {
      throw new Failure("corrupt", `The model's weights are damaged: ${messageOf(error)}.`);
    }
    [this.gpt, this.tokenizer, this.random] = [program, words, program.generator(Date.now())];
    this.feed({ text: "" });
    return { fetched: arrived - begun, prepared: performance.now() - arrived };
  }

  /** @param {Message} request */
  feed(request) {
    this.gpt.checkSampling(request.sampling ?? {});
    const ids = this.idsOf(request);
    this.writer.feed(ids);
    this.decode = this.tokenizer.decoder();
    const drawn = this.gpt.nextProbabilities(this.writer.logits, request.sampling);
    const alternatives = this.best(this.writer.logits, drawn);
    return { ids, texts: ids.map(this.decode), start: this.writer.start, alternatives };
  }

  /** @param {Message} request @param {Post} tell @param {AbortSignal} signal */
  async continue({ count = Infinity, seed, sampling = {}, attention = false }, tell, signal) {
    this.gpt.checkSampling(sampling);
    if (seed !== undefined) this.random = this.gpt.generator(seed);
    for (let n = 0; n < count; n++) {
      await breath();
      if (signal.aborted) return { reason: "stopped" };
      const drawn = this.gpt.nextProbabilities(this.writer.logits, sampling);
      const alternatives = this.best(this.writer.logits, drawn);
      const token = this.gpt.draw(drawn, this.random);
      const index = this.writer.start + this.writer.view.length;
      this.writer.append(token);
      const { start } = this.writer;
      const written = { index, token, text: this.decode(token), start, alternatives };
      if (attention) {
        const weights = this.looks(this.writer.view.length - 1);
        tell({ type: "token", ...written, attention: weights }, [weights.buffer]);
      } else tell({ type: "token", ...written });
      if (token === this.tokenizer.endOfText) return { reason: "end" };
    }
    return { reason: "count" };
  }

  stop() {} // the request before it is stopped by any that comes

  /** @param {Message} request */
  alternatives({ index, sampling, count }) {
    const place = this.placeOf(index, 1);
    const logits = this.writer.logitsBefore(place);
    const drawn = this.gpt.nextProbabilities(logits, sampling);
    return { index: this.writer.start + place, alternatives: this.best(logits, drawn, count) };
  }

  /** @param {Message} request */
  attention({ index, layer, head }) {
    const { start, view, cache, model } = this.writer;
    if (layer === undefined) {
      const place = this.placeOf(index, 0);
      const weights = this.looks(place);
      return { start, tokens: place + 1, weights, transfer: [weights.buffer] };
    }
    if (!isIndex(layer, model.config.nLayers) || !isIndex(head, model.config.nHeads)) {
      throw new Failure("input", `There is no head ${head} of layer ${layer}.`);
    }
    const weights = new Float32Array(view.length ** 2); // (T, T)
    for (let place = 0; place < view.length; place++) {
      this.gpt.attentionWeights(cache, layer, head, place, weights.subarray(place * view.length));
    }
    return { start, tokens: view.length, weights, transfer: [weights.buffer] };
  }

  /** @param {Message} request @param {Post} tell @param {AbortSignal} signal */
  async losses(request, tell, signal) {
    const ids = this.idsOf(request);
    let from = 1;
    /** @type {number[]} */
    let values = [];
    const send = () => {
      if (values.length) tell({ type: "losses", from, values });
      from += values.length;
      values = [];
    };
    for (const loss of this.gpt.losses(this.writer.model, ids)) {
      values.push(loss);
      if (values.length < PART) continue;
      send();
      await breath();
      if (signal.aborted) break;
    }
    send();
    return { ids, texts: ids.map(this.tokenizer.decoder()), stopped: from < ids.length };
  }

  /** @param {Message} request @param {Post} _tell @param {AbortSignal} signal */
  async lens({ count = 5, ...request }, _tell, signal) {
    const { model } = this.writer;
    const all = this.idsOf(request);
    const ids = this.gpt.inView(all, model.config.contextLength);
    const { vocabSize: V, nLayers } = model.config;
    if (!isIndex(count - 1, V)) throw new Failure("input", `There are no ${count} likeliest.`);
    const ends = nLayers + 1;
    const places = ends * ids.length; // (E, T)
    const best = new Uint32Array(places * count);
    const own = new Float32Array(places * count);
    const [chosen, next] = [new Float32Array(places), new Float32Array(places).fill(NaN)];
    /** @type {Float64Array[][]} */ const read = []; // of this part: probabilities, [end][token]
    await this.readBeside(ids, signal, (x, end, from) => {
      const logits = this.gpt.logitsOf(model, x); // (part, V)
      const rowOf = (/** @type {number} */ t) => logits.subarray(t * V, (t + 1) * V);
      read[end] = Array.from({ length: logits.length / V }, (_, t) => this.gpt.softmax(rowOf(t)));
      if (end < nLayers) return;
      const choices = read[end].map((probabilities) => likeliest(probabilities, 1)[0]);
      read.forEach((rows, e) => {
        rows.forEach((probabilities, t) => {
          const place = e * ids.length + from + t;
          likeliest(probabilities, count).forEach((id, k) => {
            best[place * count + k] = id;
            own[place * count + k] = probabilities[id];
          });
          chosen[place] = probabilities[choices[t]];
          next[place] = probabilities[ids[from + t + 1]] ?? NaN;
        });
      });
    });
    const start = all.length - ids.length;
    const found = { ids, tokens: this.bytesOf(ids), words: this.bytesOf([...best]), start, ends };
    const transfer = [best.buffer, own.buffer, chosen.buffer, next.buffer];
    return { ...found, best, own, chosen, next, transfer };
  }

  /** @param {Message} request @param {Post} _tell @param {AbortSignal} signal */
  async scores(request, _tell, signal) {
    const ids = this.idsOf(request);
    const { nLayers, nHeads, contextLength } = this.writer.model.config;
    const most = Math.min(MOST_SCORES, contextLength);
    const T = ids.length;
    if (T > most) {
      throw new Failure("input", `The text has ${T} tokens, but at most ${most} can be shown.`);
    }
    const cache = await this.readBeside(ids, signal);
    const scores = new Float32Array(nLayers * nHeads * T * T);
    for (let row = 0; row < scores.length / T; row++) {
      const head = Math.floor(row / T);
      const [layer, own] = [Math.floor(head / nHeads), head % nHeads];
      this.gpt.attentionScores(cache, layer, own, row % T, T, scores.subarray(row * T));
    }
    return { ids, tokens: this.bytesOf(ids), scores, transfer: [scores.buffer] };
  }
}

const REQUESTS = ["feed", "continue", "alternatives", "attention", "losses", "lens", "scores"];

/** Answer requests; see the top of this file.
 * @param {Post} post sends a message to the page @returns {(request: Message) => Promise<void>} */
export function serve(post) {
  const session = new Session();
  let running = new AbortController();
  return async (request) => {
    const { id, type } = request;
    if (!["alternatives", "attention"].includes(type)) {
      running.abort();
      running = new AbortController();
    }
    /** @type {Post} */
    const tell = (message, transfer) => post({ id, ...message }, transfer);
    try {
      if (!["load", "stop", ...REQUESTS].includes(type)) {
        throw new Failure("input", `There is no request ${type}.`);
      }
      if (!session.writer && REQUESTS.includes(type)) {
        throw new Failure("input", "The model is not loaded.");
      }
      const answer = await /** @type {any} */ (session)[type](request, tell, running.signal);
      const { transfer, ...details } = answer ?? {};
      tell({ type: "done", ...details }, transfer);
    } catch (error) {
      const code = error instanceof Failure ? error.code : "input";
      tell({ type: "error", code, message: messageOf(error) });
    }
  };
}

// ---------------------------------------------------------------------------------------------
// In the page

/** A worker, and who waits for its answers. */
class Line {
  /** @type {Map<number, { resolve: Function, reject: Function, onPart?: Function }>} */
  waiting = new Map();
  /** @type {Worker | null} */
  worker = null;
  broken = "";
  last = 0;

  /** @param {string} url of the worker @param {string} gpt of the model's program */
  constructor(url, gpt) {
    this.gpt = gpt;
    try {
      this.worker = new Worker(url, { type: "module" });
      this.worker.onerror = ({ message }) => this.fail(message || "its worker does not start");
      this.worker.onmessage = ({ data }) => this.hear(data);
    } catch (error) {
      this.fail(messageOf(error));
    }
  }

  /** @param {string} why */
  fail(why) {
    this.broken = `This browser cannot run the model in the background: ${why}.`;
    for (const { reject } of this.waiting.values()) reject(new Failure("worker", this.broken));
    this.waiting.clear();
  }

  /** @param {Message} data */
  hear({ id, ...message }) {
    const { resolve, reject, onPart } = this.waiting.get(id) ?? {};
    if (message.type !== "done" && message.type !== "error") return void onPart?.(message);
    this.waiting.delete(id);
    if (message.type === "done") resolve?.(message);
    else reject?.(new Failure(message.code, message.message));
  }

  /** Send a request; hand each message before the answer to `onPart`.
   * @param {string} type @param {Message} [details] @param {(message: Message) => void} [onPart]
   * @param {Transferable[]} [transfer]
   * @returns {Promise<Message>} the answer; or an error that has its `code` */
  ask = (type, details = {}, onPart, transfer = []) =>
    new Promise((resolve, reject) => {
      if (this.broken || !this.worker) return reject(new Failure("worker", this.broken));
      const id = ++this.last;
      this.waiting.set(id, { resolve, reject, onPart });
      const found = type === "load" && { gpt: this.gpt };
      this.worker.postMessage({ ...found, ...details, id, type }, transfer);
    });

  close = () => {
    this.worker?.terminate();
    this.fail("it was closed");
  };
}

/** Start a worker. In a page both files are found beside this one; in Jupyter they come from blob
 * URLs, which must be named.
 * @param {{ worker?: string, gpt?: string }} [urls] */
export function connect({ worker = import.meta.url, gpt = "" } = {}) {
  const beside = URL.canParse("gpt.js", worker) ? worker : import.meta.url;
  return new Line(worker, gpt || new URL("gpt.js", beside).href);
}

/** Start a worker and load a model into it; where that fails, the worker is closed.
 * @param {{ worker: string, gpt: string }} urls @param {Message} request a load
 * @param {(part: { loaded: number, total: number }) => void} onProgress
 * @param {AbortSignal} signal stops the load, and closes the worker whenever it comes */
export async function open(urls, request, onProgress, signal) {
  const engine = connect(urls);
  signal.addEventListener("abort", engine.close);
  if (signal.aborted) engine.close(); // and what is asked of it is refused
  try {
    await engine.ask("load", request, /** @type {(part: any) => void} */ (onProgress));
  } catch (error) {
    engine.close();
    throw error;
  }
  return engine;
}

const scope = /** @type {any} */ (globalThis);
if (scope.WorkerGlobalScope && scope instanceof scope.WorkerGlobalScope) {
  const answer = serve((message, transfer = []) => scope.postMessage(message, transfer));
  scope.onmessage = (/** @type {MessageEvent} */ { data }) => answer(data);
}
