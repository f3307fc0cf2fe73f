"""What came with a model's weights and is none of them, so that it goes with them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiktoken import Encoding
from torch import nn

from gptlib import vocabulary_files

_ATTRIBUTE = "gptlib_origin"


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: what its ``config.json`` said, and the vocabulary beside it.

    The vocabulary is the files that hold it, which nobody need have understood, or the function
    that makes one of the course's own.
    """

    place: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Mapping[str, bytes] | Callable[[], Encoding] = field(default_factory=dict)

    def encoding(self) -> Encoding | None:
        """Return the vocabulary, or None if there is none; raises if it cannot be read."""
        if callable(self.vocabulary):
            return self.vocabulary()
        if not vocabulary_files.is_there(self.vocabulary):
            return None
        return vocabulary_files.parse(self.vocabulary, self.place or Path())

    def files(self) -> Mapping[str, bytes]:
        """Return the files of the vocabulary by their names, none where there is none."""
        if callable(self.vocabulary):
            return vocabulary_files.contents_of(self.vocabulary())
        return self.vocabulary


def remember(model: nn.Module, origin: Origin) -> None:
    """Keep this with the model, through :func:`copy.deepcopy` too."""
    vars(model)[_ATTRIBUTE] = origin


def of(model: nn.Module) -> Origin:
    """Return what is kept with a model; nothing, for one that was made here."""
    origin: Origin = vars(model).get(_ATTRIBUTE, Origin())
    return origin
