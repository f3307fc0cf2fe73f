"""What a training leaves in its folder, and the model that a name, a folder or a file means."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from tiktoken import Encoding

from gptlib import pretrained, tokenizer
from gptlib.config import GPTConfig
from gptlib.downloads import hub
from gptlib.model import GPT
from gptlib.training import checkpoints

#: The file with a model's vocabulary, beside its weights or checkpoints.
VOCABULARY = "vocabulary.tiktoken"


def load(name: str, dtype: torch.dtype) -> tuple[GPT, Encoding]:
    """Return the model that is meant, ready to write, and its vocabulary."""
    place, has_vocabulary = checkpoints.latest(name), Path(name, VOCABULARY).exists()
    if place and has_vocabulary:
        model, folder = trained(place).to(dtype), Path(name)
    elif name in ("mini", *hub.RELEASED):
        model, folder = _pretrained(name, dtype), None
    elif place:
        raise ValueError(f"there is no {VOCABULARY} in {name}: 'python -m gptlib train' saves it")
    elif has_vocabulary and not any(Path(name).glob("*.safetensors")):
        raise ValueError(f"there is no checkpoint in {name} yet: its training was broken off")
    else:
        model = _pretrained(name, dtype)
        folder = Path(name).parent if Path(name).is_file() else Path(name)
    return model.eval(), _vocabulary(name, folder, model.config.vocab_size)


def trained(place: Path) -> GPT:
    """Return the model of a training, as it was at this checkpoint."""
    if (place / ".metadata").exists():  # several processes wrote it
        from gptlib.training import sharded  # takes long to import

        return sharded.load(place)
    model = GPT(GPTConfig(**checkpoints.read_record(place)["identity"]["model"]))
    checkpoints.load_weights(model, place)
    return model


def _pretrained(name: str, dtype: torch.dtype) -> GPT:
    """Return the model of this name, folder or file; what is on the hub is downloaded."""
    try:
        return pretrained.load(name, dtype)
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
