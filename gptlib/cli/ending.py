"""How a command ends: with an exit code, and after any failure with one line that says why."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback

from gptlib.cli import processes

FAILED = 1  #: something was wrong with what was given, or with the machine
BROKEN = 70  #: something is wrong with gptlib; the number is EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  #: Ctrl-C; the number is what a shell expects

EXIT_CODES = """\
exit codes:
  0 done   1 failed, and one line says why   2 wrong usage   70 a fault of gptlib   130 interrupted
With GPTLIB_DEBUG=1 in the environment, an error shows where in the code it arose."""

#: What the library raises, and PyTorch and the system through it, for what was given to it.
_EXPECTED = (ValueError, OSError, ArithmeticError, RuntimeError, MemoryError, ImportError)


def provide_streams() -> None:
    """Let a closed output (``>&-``) swallow what is printed, as ``/dev/null`` does.

    Python has None for it, which nothing can write to, and print sends elsewhere. Its number would
    go to the next file that is opened.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may lack a character that a text has
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")


def code_of(error: BaseException, command: str) -> int:
    """Say in one line why a command failed, and return its exit code."""
    give_up_output()
    if isinstance(error, KeyboardInterrupt):
        print(file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # who read the output has seen enough
        return FAILED
    if os.environ.get("GPTLIB_DEBUG", "0") != "0":
        traceback.print_exception(error)
    print(f"gptlib {command}{_who()}: {message_of(error)}", file=sys.stderr)
    return FAILED if isinstance(error, _EXPECTED) else BROKEN


def message_of(error: BaseException) -> str:
    """Return what an error says, in one line."""
    words = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"there is not enough memory{f' ({words})' if words else ''}: try a smaller model"
    if isinstance(error, _EXPECTED):
        return words or type(error).__name__
    return (
        f"a fault of gptlib, which was not foreseen ({type(error).__name__}: {words:.200}): please "
        "report it, with what the same command prints after GPTLIB_DEBUG=1"
    )


def give_up_output() -> None:
    """Drop what cannot be printed: Python would try again when it ends, and fail aloud.

    See the note on SIGPIPE in the documentation of Python's ``signal``.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _who() -> str:
    """Return which of several processes this is, unless it is the first, or alone."""
    try:
        rank = processes.rank()
    except ValueError:
        return ""
    return f" (rank {rank})" if rank else ""
