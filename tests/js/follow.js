// Lets Python call the follower of stories: a line of JSON in, a line of JSON out. The first line is
// {grammar, vocabulary}; then each line has the token ids of a text, and the answer the surprisals
// and entropies, and where the text left the grammar: {index, character, expected, others}.

import { createInterface } from "node:readline";

import { pieces, Tokenizer } from "../../gptlib/widgets/page/gpt.js";
import { Follower, LostError } from "../../gptlib/widgets/page/story_follower.js";

let grammar;
let words;

function follow(ids) {
  const follower = new Follower(grammar, words);
  const [surprisals, entropies] = [[], []];
  try {
    for (const id of ids) {
      const { surprisal, entropy } = follower.read(id);
      surprisals.push(surprisal);
      entropies.push(entropy);
    }
  } catch (error) {
    if (!(error instanceof LostError)) throw error;
    const { index, character, expected, others } = error;
    return { surprisals, entropies, lost: { index, character, expected, others } };
  }
  return { surprisals, entropies };
}

for await (const line of createInterface({ input: process.stdin })) {
  const given = JSON.parse(line);
  if (!grammar) {
    const tokenizer = new Tokenizer(given.vocabulary);
    const textOf = (id) => new TextDecoder().decode(tokenizer.bytesOf(id));
    words = {
      pieces,
      textOf,
      encode: (text) => tokenizer.encode(text),
      endOfText: tokenizer.endOfText,
    };
    grammar = given.grammar;
    continue;
  }
  process.stdout.write(`${JSON.stringify(follow(given))}\n`);
}
