"""Instant feedback on the exercises: what went in, what came out, and what was expected.

A chapter's checkers stand in ``gptlib/checks/chapterN.py`` and register themselves::

    @exercise("1.2", shows="A word never seen costs an infinite loss.")
    def _(answer: object) -> str | None:
        return trials(answer, [((0.5,), 1.0), ((0.25,), 2.0)])

A checker returns ``None`` when the answer is right, or a sentence saying what is wrong. It may
also raise :class:`WrongAnswerError`, as :func:`call`, :func:`number` and :func:`function` do.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = [
    "WrongAnswerError",
    "call",
    "check",
    "compare",
    "describe",
    "exercise",
    "function",
    "number",
    "trials",
]

Checker = Callable[[Any], "str | None"]

_LONGEST = 90  # characters of a value that a message shows


class WrongAnswerError(Exception):
    """An answer that is not right; the message says what is wrong with it."""


class _NotTriedError(Exception):
    """The reader's code still has ``...`` where the answer belongs."""


@dataclass(frozen=True)
class _Exercise:
    checker: Checker
    shows: str


_REGISTRY: dict[str, _Exercise] = {}


def exercise(name: str, shows: str = "") -> Callable[[Checker], Checker]:
    """Register the checker of the exercise ``name``; ``shows`` is what a right answer has shown."""

    def register(checker: Checker) -> Checker:
        if name in _REGISTRY:
            raise ValueError(f"exercise {name} has two checkers; it can have one")
        _REGISTRY[name] = _Exercise(checker, shows)
        return checker

    return register


def check(exercise: str, answer: object) -> None:
    """Print whether ``answer`` solves the exercise, and what is wrong if it does not.

    The line begins with ``○`` as long as the answer is ``...`` (not tried yet), with ``✗`` when
    it is not right and with ``✓`` when it is. Raises ``ValueError`` if there is no such exercise.
    """
    entry = _find(exercise)
    try:
        if _is_blank(answer):
            raise _NotTriedError
        problem = entry.checker(answer)
    except _NotTriedError:
        print(f"○ {exercise} not tried yet: put your answer in place of the three dots.")
        return
    except WrongAnswerError as error:
        problem = str(error)
    except Exception as error:  # the reader's code, called by a checker without `call`
        problem = f"Running your answer raised {_error(error)}."
    if problem is None:
        print(f"✓ {exercise} {entry.shows or 'Right.'}")
    else:
        print(f"✗ {exercise} {problem}")


def call(answer: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``answer(*arguments)``; raise :class:`WrongAnswerError` if the reader's code fails.

    The arguments are copied first, so that code which changes them cannot spoil a later trial.
    """
    try:
        value = answer(*copy.deepcopy(arguments))
    except Exception as error:
        where = _line(answer, error)
        raise WrongAnswerError(
            f"{_call_text(answer, arguments)} raised {_error(error)}{where}."
        ) from None
    if _is_blank(value):
        raise _NotTriedError
    if value is None:
        raise WrongAnswerError(
            f"{_call_text(answer, arguments)} gave None. Does it end with a return?"
        )
    return value


def trials(
    answer: object, cases: Sequence[tuple[tuple[Any, ...], Any]], tolerance: float = 1e-5
) -> str | None:
    """Call the reader's function on each ``(arguments, expected)``; report the first difference."""
    reader = function(answer)
    for arguments, expected in cases:
        difference = compare(call(reader, *arguments), expected, tolerance)
        if difference is not None:
            return f"{_call_text(reader, arguments)} {difference}"
    return None


def compare(got: object, expected: object, tolerance: float = 1e-5) -> str | None:
    """Return ``None`` if ``got`` equals ``expected``, otherwise the words "gave …, expected …".

    Numbers and tensors may differ by ``tolerance``, relative or absolute; a tensor's shape and a
    sequence's length must agree. NaN equals nothing.
    """
    if isinstance(expected, torch.Tensor):
        return _compare_tensors(got, expected, tolerance)
    if _is_number(expected):
        scalar = _as_number(got)
        if scalar is None:
            return f"gave {describe(got)}, expected a number: {describe(expected)}."
        close = math.isclose(scalar, _number_of(expected), rel_tol=tolerance, abs_tol=tolerance)
        return None if close else f"gave {describe(scalar)}, expected {describe(expected)}."
    if _same(got, expected, tolerance):
        return None
    return f"gave {describe(got)}, expected {describe(expected)}."


def number(answer: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return the answer as a float; it is wrong if it is no number in [low, high]."""
    value = _as_number(answer)
    if value is None:
        raise WrongAnswerError(
            f"Your answer is {describe(answer)}, but a single number is asked for."
        )
    if math.isnan(value):
        raise WrongAnswerError(
            "Your answer is NaN, which means “not a number”: 0/0 gives it, for one."
        )
    if not low <= value <= high:
        bounds = f"between {describe(low)} and {describe(high)}"
        raise WrongAnswerError(f"Your answer is {describe(answer)}, but it must lie {bounds}.")
    return value


def function(answer: object) -> Callable[..., Any]:
    """Return the answer if it can be called; it is wrong if it is no function."""
    if not callable(answer):
        raise WrongAnswerError(
            f"Your answer is {describe(answer)}, but a function is asked for: pass its name, "
            "without parentheses."
        )
    return answer


def describe(value: object) -> str:
    """Return a short text for a value: a tensor by its shape, long things cut, floats rounded."""
    if isinstance(value, torch.Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        shape = f"tensor of shape {tuple(value.shape)} ({kind})"
        return f"{shape}: {_cut(str(_rounded(value.tolist())))}" if value.numel() <= 8 else shape
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping) and len(value) > 20:
        return f"a {type(value).__name__} of {len(value):,} entries"
    try:
        return _cut(repr(value))
    except Exception:  # a reader's class may have a broken __repr__
        return f"an object of type {type(value).__name__}"


def _find(name: str) -> _Exercise:
    chapter = str(name).partition(".")[0]
    module = f"gptlib.checks.chapter{chapter}"
    if chapter.isdigit() and importlib.util.find_spec(module) is not None:
        importlib.import_module(module)
    if name not in _REGISTRY:
        known = ", ".join(sorted(_REGISTRY)) or "none"
        raise ValueError(f"there is no exercise {name!r}; this chapter's exercises: {known}")
    return _REGISTRY[name]


def _is_blank(value: object) -> bool:
    if isinstance(value, (tuple, list)) and value:
        return any(item is ... for item in value)
    return value is ...


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_number(value: object) -> float | None:
    """Return a Python, NumPy or one-element-tensor number as a float, anything else as None."""
    if _is_number(value):
        return _number_of(value)
    if isinstance(value, (bool, str, bytes, Mapping, Sequence)) or not hasattr(value, "item"):
        return None
    try:
        return _number_of(value.item())
    except (TypeError, ValueError, RuntimeError):
        return None


def _number_of(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an int beyond the largest float
        return math.inf if value > 0 else -math.inf


def _compare_tensors(got: object, expected: torch.Tensor, tolerance: float) -> str | None:
    if not isinstance(got, torch.Tensor):
        return f"gave {describe(got)}, expected a {describe(expected)}."
    if got.shape != expected.shape:
        return f"gave shape {tuple(got.shape)}, expected shape {tuple(expected.shape)}."
    ours, wanted = got.detach().cpu().double(), expected.detach().cpu().double()
    wrong = ~torch.isclose(ours, wanted, rtol=tolerance, atol=tolerance)
    if not bool(wrong.any()):
        return None
    place = tuple(int(i) for i in wrong.nonzero()[0])
    at = f" at {list(place)}" if place else ""
    return f"gave {describe(ours[place].item())}{at}, expected {describe(wanted[place].item())}."


def _same(got: object, expected: object, tolerance: float) -> bool:
    if isinstance(expected, Mapping):
        return (
            isinstance(got, Mapping)
            and got.keys() == expected.keys()
            and all(_same(got[key], expected[key], tolerance) for key in expected)
        )
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(got, (list, tuple))
            and len(got) == len(expected)
            and all(_same(*pair, tolerance) for pair in zip(got, expected, strict=True))
        )
    if _is_number(expected) or isinstance(expected, torch.Tensor):
        return compare(got, expected, tolerance) is None
    return type(got) is type(expected) and bool(got == expected)


def _call_text(answer: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    name = getattr(answer, "__name__", type(answer).__name__)
    name = "your function" if name == "<lambda>" else name
    return f"{name}({', '.join(describe(argument) for argument in arguments)})"


def _error(error: Exception) -> str:
    message = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {_cut(message)}" if message else type(error).__name__


def _line(answer: Callable[..., Any], error: Exception) -> str:
    """Say which line of the reader's own code raised the error, where that can be known."""
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f", in the line “{own[-1].line}”" if own and own[-1].line else ""


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
