"""The tensors of a checkpoint, read one by one from the ``.safetensors`` files that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from gptlib.downloads import hub

WEIGHTS = "model.safetensors"
_PICKLE, _INDEX = "pytorch_model.bin", f"{WEIGHTS}.index.json"
#: What is in a file and is not a weight: the masks that older versions of transformers stored.
_BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")


class PretrainedError(ValueError):
    """A checkpoint cannot be loaded; the message names the file, and says why."""


class Tensors:
    """The tensors of a checkpoint by their names, without the prefix that some files have.

    ``place`` is a ``.safetensors`` file, or a folder that has one, or several and an index.
    ``shapes`` has every tensor but the masks, ``paths`` the file that each is in. Raises
    :class:`PretrainedError` if a file is damaged.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.files = _files(place)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.paths: dict[str, Path] = {}
        self._stored: dict[str, str] = {}
        self._maps: dict[Path, Any] = {}
        for path in self.files:
            with self._open(path) as file:
                for stored in file.keys():  # noqa: SIM118
                    name = stored.removeprefix("transformer.")
                    if _BUFFERS.fullmatch(name):
                        continue
                    if name in self.paths:
                        raise PretrainedError(f"{path} has {name} for the second time")
                    self.shapes[name] = tuple(file.get_slice(stored).get_shape())
                    self.paths[name], self._stored[name] = path, stored

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor, in a memory map of its own, which ends when the tensor does."""
        with self._open(self.paths[name]) as file:
            tensor: Tensor = file.get_tensor(self._stored[name])
        return tensor

    def shared(self, name: str) -> Tensor:
        """Return a tensor in the one memory map of its file, which ends with the last of them."""
        path = self.paths[name]
        if path not in self._maps:
            self._maps[path] = safe_open(path, framework="pt")
        tensor: Tensor = self._maps[path].get_tensor(self._stored[name])
        return tensor

    @staticmethod
    @contextmanager
    def _open(path: Path) -> Iterator[Any]:
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise PretrainedError(f"{path} is not a whole .safetensors file: {error}") from None


def _files(place: Path) -> list[Path]:
    """Return the files that hold the tensors of a checkpoint."""
    if place.is_file():
        return [place]
    if (place / WEIGHTS).is_file():
        return [place / WEIGHTS]
    if not (place / _INDEX).is_file():
        why = "only .safetensors files are read"
        if (place / _PICKLE).exists():
            why = f"{_PICKLE} is a pickle, which can run any program: {why}"
        raise PretrainedError(f"{place} has no {WEIGHTS}; {why}")
    try:
        paths = [place / name for name in hub.parts(place / _INDEX)]
    except ValueError as error:
        raise PretrainedError(str(error)) from None
    for path in paths:
        if not path.is_file():
            raise PretrainedError(f"{place / _INDEX} lists {path.name}, which is not there")
    return paths
