// Rules of the house for `deno lint`, which deno has none of its own for.

const LIMITS = { setUp: 80, mount: 80 }; // lines of a function that draws; others have 40
const MOST = 40;

/** @param {any} node @returns {string} the name that a function is known by */
function nameOf({ id, parent }) {
  return id?.name ?? parent?.id?.name ?? parent?.key?.name ?? "a function";
}

export default {
  name: "house",
  rules: {
    "short-functions": {
      create(/** @type {any} */ context) {
        if (context.filename.endsWith(".test.js")) return {}; // a test is as long as its story
        const check = (/** @type {any} */ node) => {
          const [start, end] = node.range;
          const lines = context.sourceCode.text.slice(start, end).split("\n").length;
          const name = nameOf(node);
          const limit = Object.hasOwn(LIMITS, name)
            ? LIMITS[/** @type {keyof typeof LIMITS} */ (name)]
            : MOST;
          if (lines > limit) {
            context.report({
              node,
              message: `${name} has ${lines} lines, at most ${limit} are read`,
            });
          }
        };
        return {
          FunctionDeclaration: check,
          FunctionExpression: check,
          ArrowFunctionExpression: check,
        };
      },
    },
  },
};
