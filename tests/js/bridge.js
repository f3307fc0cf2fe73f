// Lets Python call a widget's pure functions: a line of JSON in, a line of JSON out. Each line
// names a module and a function, and lists the arguments; {"$vocabulary": path} stands for the
// ranks in that file.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { ranksOf } from "../../gptlib/widgets/lib/bpe.js";

const vocabularies = new Map();

function argument(value) {
  const path = value?.$vocabulary;
  if (!path) return value;
  if (!vocabularies.has(path)) {
    vocabularies.set(path, ranksOf(JSON.parse(readFileSync(path, "utf8"))));
  }
  return vocabularies.get(path);
}

for await (const line of createInterface({ input: process.stdin })) {
  const [module, name, ...values] = JSON.parse(line);
  const found = (await import(`../../gptlib/widgets/${module}.js`))[name];
  const answer = typeof found === "function" ? found(...values.map(argument)) : found;
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
