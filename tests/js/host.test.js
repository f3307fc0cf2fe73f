import assert from "node:assert/strict";
import { test } from "node:test";

import { createModel, resolveAssets } from "../../gptlib/widgets/page/host.js";

test("a model tells its listeners what changed, once for a change", () => {
  const model = createModel({ text: "a", other: 1 });
  const heard = [];
  const listener = (_, value) => heard.push(value);
  model.on("change:text", listener);
  model.on("change", () => heard.push("any"));
  model.set("text", "b");
  model.set("text", "b");
  model.set("other", 2);
  assert.equal(model.get("text"), "b");
  assert.deepEqual(heard, ["b", "any", "any"]);
  model.off("change:text", listener);
  model.set("text", "c");
  assert.deepEqual(heard, ["b", "any", "any", "any"]);
  model.off();
  model.set("text", "d");
  assert.equal(heard.length, 4);
  assert.equal(model.get("absent"), undefined);
  assert.doesNotThrow(() => (model.save_changes(), model.send({})));
});

test("a listener may leave while it is called", () => {
  const model = createModel({ n: 0 });
  let heard = 0;
  const once = () => {
    heard++;
    model.off("change:n", once);
  };
  model.on("change:n", once);
  model.on("change:n", () => heard++);
  model.set("n", 1);
  assert.equal(heard, 2);
});

test("assets are fetched, lazy ones when they are asked for", async () => {
  const asked = [];
  const fetchAsset = async (name) => (asked.push(name), { from: name });
  const state = await resolveAssets(
    {
      a: { $asset: "a.json" },
      b: [{ deep: { $asset: "b.json", lazy: true } }],
      n: null,
      t: "$asset",
    },
    fetchAsset,
  );
  assert.deepEqual(asked, ["a.json"]);
  assert.deepEqual(state.a, { from: "a.json" });
  assert.equal(state.n, null);
  assert.equal(state.t, "$asset");
  assert.deepEqual(await state.b[0].deep.load(), { from: "b.json" });
});

test("an asset that cannot be had is an error", async () => {
  const fetchAsset = async () => {
    throw new Error("404");
  };
  await assert.rejects(resolveAssets({ a: { $asset: "a.json" } }, fetchAsset), /404/);
});

test("a message is answered by what the page has for its type", async () => {
  const model = createModel({}, {
    engine: async () => ({ urls: "here" }),
    lost: async () => {
      throw new Error("404");
    },
  });
  const heard = [];
  model.on("msg:custom", (content, buffers) => heard.push([content, buffers]));
  for (const type of ["engine", "lost", "toString", undefined]) model.send({ type });
  model.send(null);
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(heard, [
    [{ type: "engine", urls: "here" }, []],
    [{ type: "lost", error: "404" }, []],
  ]);
});
