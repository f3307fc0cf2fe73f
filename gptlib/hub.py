"""Checkpoints on the Hugging Face hub: fetched once, from pinned revisions, and checked.

huggingface-hub downloads them into its own cache, shows its progress and goes on where it was cut
off. Its environment variables are obeyed: ``HF_HOME`` (where the cache is), ``HF_ENDPOINT`` (a
mirror), ``HF_HUB_OFFLINE``, ``HF_TOKEN``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptlib import cache


class DownloadError(OSError):
    """A checkpoint cannot be had; the message says which, why, and what can be done."""


@dataclass(frozen=True)
class Repository:
    """A model on the hub, at a revision, and the SHA-256 of its weights if it is known."""

    name: str
    revision: str = "main"
    sha256: str | None = None


#: The models that OpenAI released, at the revisions that the course was written with.
RELEASED: dict[str, Repository] = {
    "gpt2": Repository(
        "openai-community/gpt2",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "gpt2-medium": Repository(
        "openai-community/gpt2-medium", "6dcaa7a952f72f9298047fd5137cd6e4f05f41da"
    ),
    "gpt2-large": Repository(
        "openai-community/gpt2-large", "32b71b12589c2f8d625668d2335a01cac3249519"
    ),
    "gpt2-xl": Repository(
        "openai-community/gpt2-xl",
        "15ea56dee5df4983c59b2538573817e1667135e2",
        "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
}

_WEIGHTS = "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"


def fetch(repository: Repository) -> Path:
    """Return the folder of a model's files; what is not in the cache yet is downloaded into it.

    Weights are checked against their SHA-256: the one that is pinned, or the one that the hub
    announced. Raises :class:`DownloadError` if they cannot be had or are not what they should be.
    """
    with _one_message(repository):
        folder = _file(repository, "config.json").parent
        try:
            weights = [_file(repository, _WEIGHTS)]
        except _no_such_file():
            weights = [_file(repository, name) for name in parts(_file(repository, _INDEX))]
        for path in weights:
            _check(repository, path)
    return folder


def parts(index: Path) -> list[str]:
    """Return the names of the files that an index of a checkpoint lists.

    Raises ``ValueError`` if it is damaged, or names a file outside its own folder.
    """
    try:
        listed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index} is not the index of a checkpoint") from None
    for name in listed:
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", str(name)):
            raise ValueError(f"{index} lists {name!r}, which is not a .safetensors file beside it")
    return sorted(listed)


def _file(repository: Repository, name: str) -> Path:
    """Return a file of a model, from the hub's cache or from the hub."""
    from huggingface_hub import hf_hub_download  # here: it takes long to import

    return Path(hf_hub_download(repository.name, name, revision=repository.revision))


def _no_such_file() -> type[Exception]:
    from huggingface_hub.errors import EntryNotFoundError

    return EntryNotFoundError


def _check(repository: Repository, path: Path) -> None:
    """Raise :class:`DownloadError`, and delete the file, unless its SHA-256 is the right one.

    A file that was found right is not read again until it changes: an empty file in the course's
    cache remembers it.
    """
    blob = path.resolve()
    announced = blob.name if re.fullmatch(r"[0-9a-f]{64}", blob.name) else None
    wanted = (repository.sha256 if path.name == _WEIGHTS else None) or announced
    if wanted is None:  # nobody said what it should be
        return
    state = blob.stat()
    name = f"{wanted[:16]}-{state.st_ino}-{state.st_size}-{state.st_mtime_ns}"
    seen = cache.folder() / "checked" / name
    if seen.exists():
        return
    digest = _sha256(blob)
    if digest != wanted:
        blob.unlink()
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{path.name} of {repository.name} is not what it should be: its SHA-256 is {digest} "
            f"instead of {wanted}; it is deleted, and the next attempt downloads it again"
        )
    with contextlib.suppress(OSError):  # then it is read again the next time
        seen.parent.mkdir(parents=True, exist_ok=True)
        seen.touch()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _one_message(repository: Repository) -> Iterator[None]:
    """Turn whatever the hub's client raises into a :class:`DownloadError`."""
    try:
        yield
    except (DownloadError, ValueError):
        raise
    except Exception as error:  # the errors of its HTTP clients have no other base in common
        raise DownloadError(
            f"{repository.name} at {repository.revision} cannot be had: {_reason(error)}. "
            'load("mini") needs no network.'
        ) from error


def _reason(error: Exception) -> str:
    """Say in a sentence what went wrong, and what can be done."""
    if isinstance(error, ImportError):
        return "huggingface-hub is not installed (pip install huggingface-hub)"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the hub answers {status}: there is no such model, or only its HF_TOKEN opens it"
    if status == 404:
        return "the hub answers 404: there is no such model, revision or file"
    if status:
        return f"the hub answers {status}: try again later"
    if isinstance(error, PermissionError) or getattr(error, "errno", None) in (13, 28, 30):
        return f"its cache cannot be written ({error}): set HF_HOME to a folder that can"
    first = (str(error).splitlines() or [""])[0]
    return f"is there a network? ({type(error).__name__}: {first})"
