"""The command line, ``python -m gptlib``: train a GPT, let it write, count what it is made of."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Sequence

from gptlib import __version__
from gptlib.cli import count, generate, train

FAILED = 1

DESCRIPTION = """\
Train a GPT, let it write, count what it is made of: the course "GPT, block by block" at the
command line."""

EXAMPLES = """\
examples:
  python -m gptlib generate "Once upon a time"   the mini model, which comes with the course
  python -m gptlib train --folder my-run         a mini GPT on stories, in minutes
  python -m gptlib generate --model my-run       what you have just trained
  python -m gptlib count gpt2                    where GPT-2's 124 million parameters are

'python -m gptlib COMMAND --help' says more about a command. With GPTLIB_DEBUG=1 in the environment,
an error shows where in the code it arose."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    args = parser.parse_args(argv)
    args.again = shlex.join([*_started_with(), "-m", "gptlib", *argv])
    if hasattr(sys.stdout, "reconfigure"):  # a terminal may lack a character that a text has
        sys.stdout.reconfigure(errors="replace")
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return train.INTERRUPTED
    except BrokenPipeError:  # who read the output has seen enough: see Python's note on SIGPIPE
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        if os.environ.get("GPTLIB_DEBUG"):
            traceback.print_exc()
        message = " ".join(str(error).split()) or type(error).__name__
        who = f" (rank {train.rank()})" if train.rank() else ""
        print(f"gptlib {args.command}{who}: {message}", file=sys.stderr)
        return FAILED
    return code


def _started_with() -> list[str]:
    """Return what stands before ``-m gptlib`` in the command that was given."""
    if train.rank() is None:
        return ["python"]
    return ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1")]


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show the default of every option that has one, and the examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_none = action.default is None or action.default is False
        return action.help if has_none else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gptlib", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=_Help
    )
    parser.add_argument("--version", action="version", version=f"gptlib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in (("generate", generate), ("train", train), ("count", count)):
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY[0].upper() + module.SUMMARY[1:] + ".",
            epilog=module.EXAMPLES,
            formatter_class=_Help,
        )
        module.add(command)
        command.set_defaults(run=module.run)
    return parser
