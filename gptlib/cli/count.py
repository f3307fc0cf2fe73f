"""``count``: where the parameters of a model are, and what they take."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from gptlib import accounting
from gptlib.cli.size import add_size, sized
from gptlib.config import FAMILY, GPTConfig

SUMMARY = "count parameters and memory"
EXAMPLES = """\
examples:
  python -m gptlib count                           every member of the family, one a line
  python -m gptlib count gpt2 gpt3                 two of them, part by part
  python -m gptlib count mini --n-layers 12        one of them, changed

Memory is that of the parameters: their weights, and what training with AdamW keeps for each of
them. The activations come on top, and depend on the batch."""


def add(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    command.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"members of the family: {', '.join(FAMILY)} (default: a line for each)",
    )
    add_size(command)
    command.add_argument("--vocab-size", type=int, metavar="N", help="instead of the size's own")


def run(args: argparse.Namespace) -> int:
    """Print the tables; return the exit code."""
    unknown = [name for name in args.names if name not in FAMILY]
    if unknown:
        raise ValueError(f"there is no {unknown[0]!r} in the family: {', '.join(FAMILY)}")
    configs = {name: sized(name, args, args.vocab_size) for name in args.names or FAMILY}
    rows = _parts(configs) if args.names else _family(configs)
    _print_table(rows)
    return 0


def _family(configs: dict[str, GPTConfig]) -> list[list[str]]:
    """Return a table with a line for each configuration."""
    rows = [["", "layers", "width", "heads", "context", "parameters", *_MEMORY]]
    for name, config in configs.items():
        shape = (config.n_layers, config.emb_dim, config.n_heads, config.context_length)
        numbers = [*shape, accounting.total(config)]
        rows.append([name, *map(accounting.format_count, numbers), *_memory(config)])
    return rows


def _parts(configs: dict[str, GPTConfig]) -> list[list[str]]:
    """Return a table with a line for each part, and a column for each configuration."""
    counts = [accounting.parameters(config) for config in configs.values()]
    rows = [["parameters", *configs]]
    for part in counts[0]:
        rows.append([part, *(accounting.format_count(count[part]) for count in counts)])
    rows.append(["total", *(accounting.format_count(sum(count.values())) for count in counts)])
    memory = [_memory(config) for config in configs.values()]
    rows += [["memory", *("" for _ in configs)]]
    rows += [[what, *values] for what, *values in zip(_MEMORY, *memory, strict=True)]
    return rows


_MEMORY = ("float32", "bfloat16", "training")


def _memory(config: GPTConfig) -> list[str]:
    """Return what the weights take in two types, and what training in float32 takes."""
    weights = [accounting.weight_bytes(config, dtype) for dtype in ("float32", "bfloat16")]
    training = sum(accounting.training_bytes(config).values())
    return [accounting.format_bytes(n) for n in (*weights, training)]


def _print_table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows with their first column to the left and the others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
