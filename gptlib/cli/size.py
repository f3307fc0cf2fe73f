"""The options that change a configuration, the same for every command that takes one."""

from __future__ import annotations

import argparse
from dataclasses import replace

from gptlib.config import FAMILY, GPTConfig


def add_size(command: argparse.ArgumentParser) -> None:
    """Add the options that change a configuration; those not given change nothing."""
    for name in ("emb_dim", "n_heads", "n_layers", "context_length"):
        option = f"--{name.replace('_', '-')}"
        command.add_argument(option, type=int, metavar="N", help="instead of the size's own")
    command.add_argument("--drop-rate", type=float, metavar="P", help="instead of the size's own")


def sized(name: str, args: argparse.Namespace, vocab_size: int | None = None) -> GPTConfig:
    """Return the configuration of this name, with what the options change of it."""
    names = ("emb_dim", "n_heads", "n_layers", "context_length", "drop_rate")
    changes = {name: getattr(args, name) for name in names} | {"vocab_size": vocab_size}
    return replace(FAMILY[name], **{k: v for k, v in changes.items() if v is not None})
