"""Where a prompt comes from: the command itself, a file, or standard input."""

from __future__ import annotations

import argparse
import os
import stat
import sys

_MOST_BYTES = 2**24  # a pipe may never end


def add_prompt(command: argparse.ArgumentParser) -> None:
    """Add the options that give a prompt."""
    command.add_argument(
        "prompt", nargs="?", help="how the text begins; - reads it (default: the model begins)"
    )
    command.add_argument("--file", metavar="FILE", help="read the prompt from a text file; - too")


def prompt(args: argparse.Namespace) -> str:
    """Return the prompt; one that is read loses the line end that closes it, if it has one.

    Without any prompt, what is piped into the command is one. Raises ``ValueError`` if there are
    two, and for what is not UTF-8.
    """
    if args.prompt is not None and args.file is not None:
        raise ValueError("give a prompt, or --file to read it, and not both")
    if args.file not in (None, "-"):
        from gptlib.data import read_text

        return read_text(args.file, _MOST_BYTES).removesuffix("\n")
    if "-" in (args.prompt, args.file):
        return _standard_input()
    if args.prompt is None and _is_piped():
        print("reading the prompt from standard input", file=sys.stderr)
        return _standard_input()
    return args.prompt or ""


def _is_piped() -> bool:
    """Say whether standard input is a pipe or a file: nobody is asked, and nothing is lost."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # it is closed, or not the system's
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _standard_input() -> str:
    """Return what standard input says, every line end as a line feed."""
    if sys.stdin is None:
        raise ValueError("there is no standard input to read the prompt from: it is closed")
    data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"standard input is longer than {_MOST_BYTES:,} bytes, and no prompt")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"standard input is not UTF-8: {error.reason} at byte {error.start:,}"
        ) from None
    return text.replace("\r\n", "\n").removesuffix("\n")
