// @ts-check
// Both ends of the wire to a GPT that runs in the background: `serve` answers in a Web Worker,
// `connect` asks in a page. The model itself is gpt.js. This file is a module of either side.
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
//   stop      ends the load, the writing or the losses under way, as does each of these anew
//   alternatives  index, sampling, count    done {index, alternatives}: what the token there, or
//             the next, may be, likeliest first: {id, text, logit, own, drawn}: two
//             probabilities, of the model itself and with the sampling
//   attention index | layer, head           done {start, tokens, weights}: of one token in every
//             head (L, H, T), or of one head the whole map (T, T), in a Float32Array
//   losses    text | ids                    losses {from, values}, in parts · done {ids, texts,
//             stopped}; values are nats, the first is of the token at index 1
//
// Codes: "network" weights that do not arrive, "truncated" or "corrupt" ones, "stopped" a load
// that was, "input" a request that makes no sense, "worker" where none can run.

/** @typedef {Record<string, any>} Message */
/** @typedef {(message: Message, transfer?: Transferable[]) => void} Post */

export const BEST = 10; // alternatives that are sent with each token

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

/**
 * The bytes of the weights, whole and checked.
 * @param {Message} request
 * @param {AbortSignal} signal
 * @param {(loaded: number) => void} progress
 * @returns {Promise<Uint8Array>}
 */
async function weightsOf(request, signal, progress) {
  const { weights, bytes, sha256 } = request;
  if (ArrayBuffer.isView(weights)) {
    const { buffer, byteOffset, byteLength } = weights;
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

/** @param {Uint8Array} file @param {number} bytes @param {string} sha256 */
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

/**
 * @param {Message} request
 * @param {RequestCache} cache
 * @param {AbortSignal} signal
 * @param {(loaded: number) => void} progress
 */
async function download({ url, bytes, patience = 30 }, cache, signal, progress) {
  const silence = new AbortController();
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
    const response = await fetch(url, { cache, signal: silence.signal });
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
      progress((loaded += value.length));
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

/**
 * Answer requests; see the top of this file.
 * @param {Post} post sends a message to the page
 * @returns {(request: Message) => Promise<void>}
 */
export function serve(post) {
  /** @type {any} */ let gpt; // the module gpt.js
  /** @type {any} */ let tokenizer;
  /** @type {any} */ let writer;
  /** @type {(id: number) => string} */ let decode; // the text so far is in it
  /** @type {() => number} */ let random;
  let running = new AbortController();

  /** @param {Message} request @returns {number[]} */
  function idsOf({ text, ids }) {
    if (typeof text === "string") return [tokenizer.endOfText, ...tokenizer.encode(text)];
    const size = tokenizer.tokens.length;
    if (Array.isArray(ids) && ids.length && ids.every((id) => isIndex(id, size))) return ids;
    throw new Failure("input", `There must be a text, or ids from 0 to ${size - 1}.`);
  }

  /**
   * The likeliest tokens.
   * @param {Float32Array} logits
   * @param {Float64Array} drawn the probabilities after sampling's temperature, top-k and top-p
   */
  function best(logits, drawn, count = BEST) {
    const own = gpt.softmax(logits);
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return Array.from(gpt.likeliestFirst(logits).subarray(0, count), (id) => {
      const text = decoder.decode(tokenizer.bytesOf(id));
      return { id, text, logit: logits[id], own: own[id], drawn: drawn[id] };
    });
  }

  /** @param {number | undefined} index of a token @param {number} first place that will do */
  function placeOf(index, first) {
    const { start, view } = writer;
    const low = start + first;
    const place = (index ?? low + view.length - 1) - start; // the newest, or the next
    if (isIndex(place - first, view.length)) return place;
    throw new Failure("input", `In view are ${low} to ${low + view.length - 1}, not ${index}.`);
  }

  /** What one token looks at in every head, (L, H, T). @param {number} place in the view */
  function looks(place) {
    const { nLayers, nHeads } = writer.model.config;
    const weights = new Float32Array(nLayers * nHeads * (place + 1));
    for (let head = 0; head < nLayers * nHeads; head++) {
      const row = weights.subarray(head * (place + 1));
      gpt.attentionWeights(writer.cache, Math.floor(head / nHeads), head % nHeads, place, row);
    }
    return weights;
  }

  /** @type {Record<string, (request: Message, tell: Post, signal: AbortSignal) => any>} */
  const answers = {
    async load(request, tell, signal) {
      const begun = performance.now();
      const { bytes: total, config, vocabulary } = request;
      const program = await import(request.gpt).catch((error) => {
        throw new Failure("network", `The model's program does not arrive: ${messageOf(error)}`);
      });
      const file = await weightsOf(request, signal, (loaded) => {
        tell({ type: "progress", loaded, total });
      });
      if (signal.aborted) throw new Failure("stopped", "The loading was stopped.");
      const arrived = performance.now();
      const words = new program.Tokenizer(vocabulary);
      if (words.tokens.length !== config.vocab_size) {
        const sizes = `${words.tokens.length} tokens, and the model ${config.vocab_size}`;
        throw new Failure("input", `The vocabulary has ${sizes}.`);
      }
      try {
        const model = program.buildModel(program.readTensors(file), program.configOf(config));
        writer = new program.Writer(model);
      } catch (error) {
        throw new Failure("corrupt", `The model's weights are damaged: ${messageOf(error)}.`);
      }
      [gpt, tokenizer, random] = [program, words, program.generator(Date.now())];
      answers.feed({ text: "" }, tell, signal);
      return { fetched: arrived - begun, prepared: performance.now() - arrived };
    },

    feed(request) {
      gpt.checkSampling(request.sampling ?? {});
      const ids = idsOf(request);
      writer.feed(ids);
      decode = tokenizer.decoder();
      const drawn = gpt.nextProbabilities(writer.logits, request.sampling);
      const alternatives = best(writer.logits, drawn);
      return { ids, texts: ids.map(decode), start: writer.start, alternatives };
    },

    async continue({ count = Infinity, seed, sampling = {}, attention = false }, tell, signal) {
      gpt.checkSampling(sampling);
      if (seed !== undefined) random = gpt.generator(seed);
      for (let n = 0; n < count; n++) {
        await breath();
        if (signal.aborted) return { reason: "stopped" };
        const drawn = gpt.nextProbabilities(writer.logits, sampling);
        const alternatives = best(writer.logits, drawn);
        const token = gpt.draw(drawn, random);
        const index = writer.start + writer.view.length;
        writer.append(token);
        const written = { index, token, text: decode(token), start: writer.start, alternatives };
        if (attention) {
          const weights = looks(writer.view.length - 1);
          tell({ type: "token", ...written, attention: weights }, [weights.buffer]);
        } else tell({ type: "token", ...written });
        if (token === tokenizer.endOfText) return { reason: "end" };
      }
      return { reason: "count" };
    },

    stop() {},

    alternatives({ index, sampling, count }) {
      const place = placeOf(index, 1);
      const logits = writer.logitsBefore(place);
      const drawn = gpt.nextProbabilities(logits, sampling);
      return { index: writer.start + place, alternatives: best(logits, drawn, count) };
    },

    attention({ index, layer, head }) {
      const { start, view, cache, model } = writer;
      if (layer === undefined) {
        const place = placeOf(index, 0);
        const weights = looks(place);
        return { start, tokens: place + 1, weights, transfer: [weights.buffer] };
      }
      if (!isIndex(layer, model.config.nLayers) || !isIndex(head, model.config.nHeads)) {
        throw new Failure("input", `There is no head ${head} of layer ${layer}.`);
      }
      const weights = new Float32Array(view.length ** 2); // (T, T)
      for (let place = 0; place < view.length; place++) {
        gpt.attentionWeights(cache, layer, head, place, weights.subarray(place * view.length));
      }
      return { start, tokens: view.length, weights, transfer: [weights.buffer] };
    },

    async losses(request, tell, signal) {
      const ids = idsOf(request);
      let from = 1;
      /** @type {number[]} */
      let values = [];
      const send = () => {
        if (values.length) tell({ type: "losses", from, values });
        from += values.length;
        values = [];
      };
      for (const loss of gpt.losses(writer.model, ids)) {
        values.push(loss);
        if (values.length < 32) continue;
        send();
        await breath();
        if (signal.aborted) break;
      }
      send();
      return { ids, texts: ids.map(tokenizer.decoder()), stopped: from < ids.length };
    },
  };

  return async (request) => {
    const { id, type } = request;
    if (!["alternatives", "attention"].includes(type)) {
      running.abort();
      running = new AbortController();
    }
    /** @type {Post} */
    const tell = (message, transfer) => post({ id, ...message }, transfer);
    try {
      if (!Object.hasOwn(answers, type)) throw new Failure("input", `There is no request ${type}.`);
      if (!writer && !["load", "stop"].includes(type)) {
        throw new Failure("input", "The model is not loaded.");
      }
      const answer = (await answers[type](request, tell, running.signal)) ?? {};
      const { transfer, ...details } = answer;
      tell({ type: "done", ...details }, transfer);
    } catch (error) {
      const code = error instanceof Failure ? error.code : "input";
      tell({ type: "error", code, message: messageOf(error) });
    }
  };
}

// ---------------------------------------------------------------------------------------------
// In the page

/**
 * Start a worker. `ask` sends a request, hands each message before the answer to `onPart`, and
 * resolves to the answer, or rejects with an error that has its `code`. In a page both files are
 * found beside this one; in Jupyter they come from blob URLs, which must be named.
 * @param {{ worker?: string, gpt?: string }} [urls]
 */
export function connect({ worker: url = import.meta.url, gpt } = {}) {
  /** @type {Map<number, { resolve: Function, reject: Function, onPart?: Function }>} */
  const waiting = new Map();
  /** @type {Worker | null} */
  let worker = null;
  let broken = "";
  let last = 0;
  /** @param {string} why */
  const fail = (why) => {
    broken = `This browser cannot run the model in the background: ${why}.`;
    for (const { reject } of waiting.values()) reject(new Failure("worker", broken));
    waiting.clear();
  };
  try {
    worker = new Worker(url, { type: "module" });
    worker.onerror = (event) => fail(event.message || "its worker does not start");
    worker.onmessage = ({ data }) => {
      const { id, ...message } = data;
      const { resolve, reject, onPart } = waiting.get(id) ?? {};
      if (message.type !== "done" && message.type !== "error") return void onPart?.(message);
      waiting.delete(id);
      if (message.type === "done") resolve?.(message);
      else reject?.(new Failure(message.code, message.message));
    };
  } catch (error) {
    fail(messageOf(error));
  }
  return {
    /**
     * @param {string} type
     * @param {Message} [details]
     * @param {(message: Message) => void} [onPart]
     * @param {Transferable[]} [transfer]
     * @returns {Promise<Message>}
     */
    ask(type, details = {}, onPart, transfer = []) {
      return new Promise((resolve, reject) => {
        if (broken || !worker) return reject(new Failure("worker", broken));
        const id = ++last;
        waiting.set(id, { resolve, reject, onPart });
        const found = type === "load" && { gpt: gpt ?? new URL("gpt.js", url).href };
        worker.postMessage({ ...found, ...details, id, type }, transfer);
      });
    },
    close() {
      worker?.terminate();
      fail("it was closed");
    },
  };
}

const scope = /** @type {any} */ (globalThis);
if (scope.WorkerGlobalScope && scope instanceof scope.WorkerGlobalScope) {
  const answer = serve((message, transfer = []) => scope.postMessage(message, transfer));
  scope.onmessage = (/** @type {MessageEvent} */ { data }) => answer(data);
}
