"""Compares what two figures draw, as gptlib.drawn describes it, with an eye's tolerance."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from gptlib.drawn import UNKNOWN

#: Thousandths of the axes, or of the colors' range, that nobody sees.
NEAR = 5
#: How far limits may move, as a share of their distance; what is drawn between them is placed anew.
LIMITS_NEAR = 0.01
NUMBER = re.compile(r"(-?\d[\d,]*(?:\.\d+)?)")

Drawn = dict[str, str]


def figures_of(outputs: list[Any]) -> list[dict[str, Any]]:
    """Return the metadata of every picture among a cell's outputs."""
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    return [output.get("metadata", {}).get("image/png", {}) for output in shown]


def compared(stored: list[Any], now: list[Any], words_only: bool = False) -> list[str]:
    """Say in lines how the figures of a cell differ from those among its stored outputs."""
    before, after = figures_of(stored), figures_of(now)
    if len(before) != len(after):
        return [f"{len(before)} figures are stored, and {len(after)} were drawn"]
    found = []
    for number, (old, new) in enumerate(zip(before, after, strict=True), start=1):
        lines = differences(old.get("drawn", {}), new.get("drawn", {}), words_only)
        found += [f"figure {number}, {new.get('alt', '')[:60]!r}", *lines] if lines else []
    return found


def differences(stored: Drawn, now: Drawn, words_only: bool = False) -> list[str]:
    """Say in a line each what two drawings of one figure do not share."""
    found = []
    for name in sorted({*stored, *now}, key=_in_order):
        old, new = stored.get(name, "nothing"), now.get(name, "nothing")
        if words_only and _is_number(name):
            continue
        if new == UNKNOWN:
            found.append(f"{name}: {UNKNOWN}")
        elif "nothing" in (old, new) or not _is_number(name):
            found += [] if _same_words(old, new) else [f"{name}: was {old!r}, is {new!r}"]
        else:
            found += [f"{name}: {what}" for what in _moved(name, old, new, stored)]
    return found


def _in_order(name: str) -> list[str | int]:
    return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", name)]


def _is_number(name: str) -> bool:
    return name.endswith((" x", " y", " color", " limits"))


def _same_words(old: str, new: str) -> bool:
    """Say if two texts are the same but for the last digit of a number, which rounding decides."""
    before, after = NUMBER.split(old), NUMBER.split(new)
    if len(before) != len(after) or before[::2] != after[::2]:
        return False
    return all(map(_same_number, before[1::2], after[1::2]))


def _same_number(old: str, new: str) -> bool:
    decimals = len(old.partition(".")[2])
    if not decimals:  # it counts something
        return old == new
    step = 10.0**-decimals
    return abs(float(old.replace(",", "")) - float(new.replace(",", ""))) < 1.5 * step


def _moved(name: str, old: str, new: str, stored: Drawn) -> Iterator[str]:
    before, after = old.split(), new.split()
    if name.endswith("limits"):
        if not _same_limits(before, after, stored.get(f"{name[:-6]}scale") == "log"):
            yield f"were {old}, are {new}"
        return
    if len(before) != len(after):
        yield f"had {len(before)} numbers, {old}; has {len(after)}, {new}"
        return
    pairs = enumerate(zip(before, after, strict=True), start=1)
    moved = [n for n, (a, b) in pairs if a != b and ("-" in (a, b) or _far(a, b))]
    if moved:
        n = moved[0]
        yield (
            f"number {n} of {len(before)} was {before[n - 1]} and is {after[n - 1]} thousandths"
            f"{f', {len(moved) - 1} more differ' if moved[1:] else ''}\n"
            f"      was {old}\n      is  {new}"
        )


def _far(old: str, new: str) -> bool:
    return abs(int(old) - int(new)) > NEAR


def _same_limits(before: list[str], after: list[str], log: bool) -> bool:
    def place(text: str) -> float:
        return math.log(float(text)) if log else float(text)

    start, end = map(place, before)
    near = LIMITS_NEAR * abs(end - start)
    return all(abs(place(a) - place(b)) <= near for a, b in zip(before, after, strict=True))
