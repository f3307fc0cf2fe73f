"""Going on in one process from the last checkpoint, whether one process wrote it or several did."""

from __future__ import annotations

from pathlib import Path

from gptlib.history import History
from gptlib.training import checkpoints
from gptlib.training.checkpoints import Run


def resume(run: Run, folder: str | Path) -> History:
    """Put the newest checkpoint into the run; return its history, as both kinds' own ``resume``."""
    place = checkpoints.latest(folder)
    if place is None or not checkpoints.is_sharded(place):
        return checkpoints.resume(run, folder)
    from gptlib.training import sharded  # takes long to import

    return sharded.resume(run, folder)
