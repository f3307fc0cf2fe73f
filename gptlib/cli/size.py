"""The options that change a configuration, the same for every command that takes one."""

from __future__ import annotations

import argparse
from dataclasses import replace

from gptlib.config import FAMILY, GPTConfig

SIZES = ("emb_dim", "n_heads", "n_layers", "context_length")


def add_size(command: argparse.ArgumentParser) -> None:
    """Add the options that change a configuration; those not given change nothing."""
    for name in SIZES:
        option = f"--{name.replace('_', '-')}"
        command.add_argument(option, type=int, metavar="N", help="instead of the size's own")


def sized(name: str, args: argparse.Namespace, vocab_size: int | None = None) -> GPTConfig:
    """Return the configuration of this name, with what the options change of it."""
    names = (*SIZES, "drop_rate")
    changes = {name: getattr(args, name, None) for name in names} | {"vocab_size": vocab_size}
    return replace(FAMILY[name], **{k: v for k, v in changes.items() if v is not None})


def seed(text: str) -> int:
    """Return a seed that was typed, of those that PyTorch takes."""
    if text.isdecimal() and text.isascii() and (number := int(text[:40])) < 2**64:
        return number
    raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2**64 - 1, not {text:.60}")
