"""The tensors of a checkpoint, read one by one from the ``.safetensors`` files that hold them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tiktoken import Encoding
from torch import Tensor

from gptlib import tokenizer, vocabulary_files
from gptlib.downloads import hub

WEIGHTS = "model.safetensors"
_PICKLE, _INDEX = "pytorch_model.bin", f"{WEIGHTS}.index.json"
#: What is in a file and is not a weight: the masks that older versions of transformers stored.
_BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")

#: What stands before every name, by what a model was in when it was saved: torch.compile, DDP.
_PREFIX = re.compile(r"(?:(?:_orig_mod|module|_fsdp_wrapped_module)\.)*(?:transformer\.)?")


class PretrainedError(ValueError):
    """A checkpoint cannot be loaded; the message names the file, and says why."""


@contextmanager
def located(name_or_path: str | Path) -> Iterator[Path]:
    """Yield the folder or file that is meant, downloaded if it is not here."""
    path = Path(name_or_path)
    name = name_or_path if isinstance(name_or_path, str) else ""
    if name == "mini":
        with as_file(files("gptlib") / "assets" / "mini") as folder:
            yield folder
    elif name in hub.RELEASED:
        yield hub.fetch(hub.RELEASED[name])
    elif path.exists():
        yield path
    elif re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(?<!\.safetensors)", name):
        yield hub.fetch(hub.Repository(name))
    elif not name or re.search(r"[/\\]|\.safetensors$", name):
        raise FileNotFoundError(f"there is no folder or file {path}")
    else:
        known = ", ".join(("mini", *hub.RELEASED))
        raise ValueError(
            f"there is no model {name!r}; there is {known}, a folder, a .safetensors file, "
            'or a model on the Hugging Face hub as "owner/name"'
        )


def vocabulary_of(
    name_or_path: str | Path, folder: Path
) -> Mapping[str, bytes] | Callable[[], Encoding]:
    """Return the vocabulary of a model: that of its name, or the files of one in its folder."""
    if name_or_path == "mini":
        return tokenizer.stories
    return tokenizer.gpt2 if name_or_path in hub.RELEASED else vocabulary_files.contents(folder)


class Tensors:
    """The tensors of a checkpoint by their names, without the prefixes that some files have.

    ``place`` is a ``.safetensors`` file, or a folder that has one, or several and an index.
    ``shapes`` has every tensor but the masks, ``paths`` the file that each is in. Raises
    :class:`PretrainedError` if a file is damaged.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folder = place.parent if place.is_file() else place
        self.files = _files(place)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.paths: dict[str, Path] = {}
        self._stored: dict[str, str] = {}
        self._maps: dict[Path, Any] = {}
        for path in self.files:
            with self._open(path) as file:
                for stored in file.keys():  # noqa: SIM118
                    name = _PREFIX.sub("", stored, count=1)
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
