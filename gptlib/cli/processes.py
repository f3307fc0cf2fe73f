"""What torchrun says to each process that it starts: which of how many it is."""

from __future__ import annotations

import os


def rank() -> int | None:
    """Return the number of this process if torchrun started it, as one of several, or None.

    A variable that is empty counts as none at all. Raises ``ValueError`` for one that is no number.
    """
    started = os.environ.get("RANK") and os.environ.get("LOCAL_RANK")
    return number("RANK") if started else None


def number(name: str, default: int = 1) -> int:
    """Return what an environment variable of torchrun's says; ``ValueError`` if it is no number."""
    value = os.environ.get(name) or str(default)
    try:
        return int(value)
    except ValueError:
        raise ValueError(
            f"the environment variable {name} must be a whole number, as torchrun sets it, not "
            f"{value!r}"
        ) from None


def starter() -> list[str]:
    """Return what stands before ``-m gptlib`` in the command that was given."""
    if rank() is None:
        return ["python"]
    return ["torchrun", "--nproc-per-node", str(number("LOCAL_WORLD_SIZE"))]
