"""The folder for what can be made or fetched again, and files that appear in it whole or not."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import platformdirs


def folder() -> Path:
    """Return the course's cache folder, which need not exist yet.

    It is what the environment variable ``GPTLIB_CACHE`` names; otherwise ``gptlib`` in the
    system's folder for caches: on Linux, ``XDG_CACHE_HOME`` or ``~/.cache``. Raises ``OSError`` if
    that is in a home folder, and there is none.
    """
    chosen = os.environ.get("GPTLIB_CACHE")
    try:
        path = Path(chosen or platformdirs.user_cache_path("gptlib", appauthor=False))
        return path.expanduser()
    except RuntimeError as error:
        raise unwritable(Path(chosen or "~"), OSError(str(error))) from None


def prepare(place: str | Path | None = None) -> Path:
    """Return a folder to write into, the course's own if none is named, and make sure it exists.

    Raises ``OSError`` with what to do about it if it cannot be written, ``ValueError`` for "".
    """
    if place == "":
        raise ValueError("the cache must be a folder, or None for the course's own, not ''")
    chosen = folder() if place is None else Path(place)
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        if not os.access(chosen, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise unwritable(chosen, error) from None
    return chosen


def unwritable(place: Path, error: OSError) -> OSError:
    """Return an error that says which folder cannot be written, why, and what to do."""
    why = error.strerror or str(error)
    return OSError(
        f"the cache folder {place} cannot be written ({why}): set the environment variable "
        "GPTLIB_CACHE to a folder that can"
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its place at ``path`` when the block ends, or leaves nothing there.

    Several processes may write the same file at once: the last to end is the one that stays.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
