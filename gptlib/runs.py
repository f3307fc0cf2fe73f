"""What a training leaves in its folder, and the model that a name, a folder or a file means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tiktoken import Encoding

from gptlib import devices, origins, pretrained, vocabulary_files
from gptlib.downloads import hub
from gptlib.model import GPT
from gptlib.training import checkpoints


def load(
    name: str, dtype: torch.dtype, device: str = "cpu", encoding: str | None = None
) -> tuple[GPT, Encoding]:
    """Return the model that is meant, ready to write, and its vocabulary.

    ``name`` is that of :func:`gptlib.pretrained.load`, the folder of a training, or one of its
    checkpoints. A folder that :func:`is_here` finds comes before a model of the same name.

    The vocabulary is what lies beside the weights, or the one that ``encoding`` names: "stories",
    "gpt2", or a folder or file with one. Raises ``ValueError`` where there is none: two
    vocabularies may well have the same number of entries.
    """
    if not name:
        raise ValueError("a model has a name, or is in a folder or a file, and is not ''")
    place = folder = Path(name)
    if checkpoints.is_checkpoint(place):
        folder = place.parent
    is_run = folder != place or checkpoints.latest(folder) is not None
    found = vocabulary_files.contents(folder)
    has_vocabulary = vocabulary_files.is_there(found)
    if is_run and (has_vocabulary or encoding):
        model = trained(place).to(devices.require(device), dtype)
        origins.remember(model, origins.Origin(folder, vocabulary=found))
    elif is_run:
        what = vocabulary_files.what_else(folder)
        raise ValueError(
            f"there is no vocabulary in {folder}, {what}: 'python -m gptlib train' saves one; "
            "--encoding gives another"
        )
    elif has_vocabulary and place.is_dir() and not any(folder.glob("*.safetensors")):
        raise ValueError(f"there is no checkpoint in {folder} yet: its training was broken off")
    else:
        model = _pretrained(name, dtype, device)
    return model.eval(), _named(encoding) if encoding else _vocabulary(name, model)


_KNOWN = ("mini", *hub.RELEASED)


def is_here(name: str) -> bool:
    """Say whether there is a folder here, of a model or a training, with a known model's name."""
    files = (*vocabulary_files.NAMES, "config.json", "*.safetensors*", "step-*", ".lock")
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
        model = pretrained.load(Path(name) if is_here(name) else name, dtype, device)
    except hub.DownloadError as error:
        if name in hub.RELEASED:
            raise
        raise hub.DownloadError(f"there is no folder {name} here, and {error}") from None
    origin = origins.of(model)
    if not (Path(name).exists() or origin.files()) and origin.place:
        commit = origin.place.name  # the hub's cache names the folder so
        folder = hub.fetch_vocabulary(hub.Repository(name, commit))
        found = vocabulary_files.contents(folder) if folder else {}
        origins.remember(model, replace(origin, vocabulary=found))
    return model


def _named(encoding: str) -> Encoding:
    """Return the vocabulary of the course, or of a folder or file, that is named."""
    if encoding in vocabulary_files.KNOWN:
        return vocabulary_files.KNOWN[encoding]()
    if Path(encoding).exists():
        return vocabulary_files.load(encoding)
    known = ", ".join(vocabulary_files.KNOWN)
    raise ValueError(f"there is no vocabulary {encoding!r}; there is {known}, or a folder with one")


def _vocabulary(name: str, model: GPT) -> Encoding:
    """Return the vocabulary that came with a model's weights."""
    origin = origins.of(model)
    if encoding := origin.encoding():
        return encoding
    what = vocabulary_files.what_else(origin.place or Path())
    raise ValueError(
        f"{name} has {model.config.vocab_size:,} tokens and no vocabulary beside its weights, "
        f"{what}: give the one that it was trained with, as --encoding gpt2, or stories, or a "
        "folder that has it"
    )


def keep_vocabulary(encoding: Encoding, folder: Path) -> None:
    """Save the vocabulary beside the checkpoints; refuse a folder that has another one."""
    if not vocabulary_files.is_there(vocabulary_files.contents(folder)):
        vocabulary_files.save(encoding, folder)
    elif not vocabulary_files.are_equal(vocabulary_files.load(folder), encoding):
        raise ValueError(
            f"{folder} has another vocabulary, of another training: give the same options as "
            "before, or another --folder"
        )
