"""The command line, ``python -m gptlib``: train a GPT, let it write, count what it is made of."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gptlib import __version__
from gptlib.cli import count, ending, generate, train

DESCRIPTION = """\
Train a GPT, let it write, count what it is made of: the course "GPT, block by block" at the
command line."""

EXAMPLES = f"""\
examples:
  python -m gptlib generate "Once upon a time"   the mini model, which comes with the course
  python -m gptlib train --folder my-run         a mini GPT on stories, in minutes
  python -m gptlib generate --model my-run       what you have just trained
  python -m gptlib count gpt2                    where GPT-2's 124 million parameters are

'python -m gptlib COMMAND --help' says more about a command.

{ending.EXIT_CODES}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, as :data:`gptlib.cli.ending.EXIT_CODES` lists them.

    Raises ``SystemExit``, as ``argparse`` does, after ``--help`` and for wrong usage.
    """
    ending.provide_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(argv)
    args.argv = argv
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    # All of them: a panic of tiktoken's is no Exception.
    except BaseException as error:
        return ending.code_of(error, args.command)
    return code


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
