"""What a training leaves in its folder, and the model that a name, a folder or a file means."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from tiktoken import Encoding

from gptlib import devices, pretrained, tokenizer
from gptlib.downloads import hub
from gptlib.model import GPT
from gptlib.training import checkpoints

#: The file with a model's vocabulary, beside its weights or checkpoints.
VOCABULARY = "vocabulary.tiktoken"


def load(name: str, dtype: torch.dtype, device: str = "cpu") -> tuple[GPT, Encoding]:
    """Return the model that is meant, ready to write, and its vocabulary.

    ``name`` is that of :func:`gptlib.pretrained.load`, the folder of a training, or one of its
    checkpoints. A folder that :func:`is_here` finds comes before a model of the same name.
    """
    if not name:
        raise ValueError("a model has a name, or is in a folder or a file, and is not ''")
    place = folder = Path(name)
    if checkpoints.is_checkpoint(place):
        folder = place.parent
    is_run = folder != place or checkpoints.latest(folder) is not None
    has_vocabulary = (folder / VOCABULARY).exists()
    if is_run and has_vocabulary:
        model = trained(place).to(devices.require(device), dtype)
    elif is_run:
        raise ValueError(f"there is no {VOCABULARY} in {folder}: 'python -m gptlib train' saves it")
    elif has_vocabulary and not any(folder.glob("*.safetensors")):
        raise ValueError(f"there is no checkpoint in {folder} yet: its training was broken off")
    else:
        model = _pretrained(name, dtype, device)
        folder = place.parent if place.is_file() else place
    known = None if name in _KNOWN and not is_here(name) else folder
    return model.eval(), _vocabulary(name, known, model.config.vocab_size)


_KNOWN = ("mini", *hub.RELEASED)


def is_here(name: str) -> bool:
    """Say whether there is a folder here, of a model or a training, with a known model's name."""
    files = (VOCABULARY, "config.json", "*.safetensors*", "step-*", ".lock")
    return name in _KNOWN and any(any(Path(name).glob(file)) for file in files)


def trained(place: Path) -> GPT:
    """Return the model of a training as it is now, or was at one of its checkpoints."""
    return checkpoints.reading(place, _trained)


def _trained(place: Path) -> GPT:
    if checkpoints.is_sharded(place):
        from gptlib.training import sharded  # takes long to import

        return sharded.load(place)
    model = GPT(checkpoints.model_config(checkpoints.read_record(place), place))
    checkpoints.load_weights(model, place)
    return model


def _pretrained(name: str, dtype: torch.dtype, device: str) -> GPT:
    """Return the model of this name, folder or file; what is on the hub is downloaded."""
    try:
        return pretrained.load(Path(name) if is_here(name) else name, dtype, device)
    except hub.DownloadError as error:
        if name in hub.RELEASED:
            raise
        raise hub.DownloadError(f"there is no folder {name} here, and {error}") from None


def _vocabulary(name: str, folder: Path | None, vocab_size: int) -> Encoding:
    """Return the vocabulary beside a model, or the one of the course that has its size."""
    if folder and (folder / VOCABULARY).exists():
        return tokenizer.load(folder / VOCABULARY)
    for known in (tokenizer.stories, tokenizer.gpt2):  # the second takes longer to make
        if known().n_vocab == vocab_size:
            return known()
    raise ValueError(
        f"{name} has a vocabulary of {vocab_size:,} entries, which is not GPT-2's and not the "
        f"stories': save it as {VOCABULARY} beside the weights"
    )


def _save_whole(encoding: Encoding, place: Path) -> None:
    """Save a vocabulary beside its place, and move it there: half of one would block the folder."""
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=place.parent) as unfinished:
        new = Path(unfinished, place.name)
        tokenizer.save(encoding, new)
        new.replace(place)


def keep_vocabulary(encoding: Encoding, folder: Path) -> None:
    """Save the vocabulary beside the checkpoints; refuse a folder that has another one."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / VOCABULARY
    if not place.exists():
        _save_whole(encoding, place)
    elif tokenizer.token_bytes(tokenizer.load(place)) != tokenizer.token_bytes(encoding):
        raise ValueError(
            f"{place} is another vocabulary, of another training: give the same options as "
            "before, or another --folder"
        )
