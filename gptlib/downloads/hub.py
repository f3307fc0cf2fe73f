"""Checkpoints on the Hugging Face hub: fetched once, from pinned revisions, and checked.

huggingface-hub downloads them into its own cache, shows its progress, and when the connection is
cut goes on from there. Its environment variables are obeyed: ``HF_HOME`` (where the cache is),
``HF_ENDPOINT`` (a mirror), ``HF_HUB_OFFLINE``, ``HF_TOKEN``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gptlib.downloads import files


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

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
#: The forms that a vocabulary has on the hub, each of one file or more.
_VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))


def fetch(repository: Repository) -> Path:
    """Return the folder of a model's files; what is not in the cache yet is downloaded into it.

    All files are of one commit. Weights are checked against their SHA-256: the one that is pinned,
    or the one that the hub announced. Two processes may fetch the same model at once: one downloads
    it, the other waits.

    Raises :class:`DownloadError` if the files cannot be had or are not what they should be, and
    ``ValueError`` for a name that the hub does not allow.
    """
    with _one_message(repository):
        folder = _file(repository, _CONFIG).parent
        commit = replace(repository, revision=folder.name)  # the hub's cache names it so
        for path in _weights(commit, folder):
            _check(repository, path)
    return folder


def fetch_vocabulary(repository: Repository) -> Path | None:
    """Return the folder of a model's vocabulary, or None where it has none.

    Raises as :func:`fetch` does.
    """
    with _one_message(repository):
        for names in _VOCABULARIES:
            places = [_file_if_any(repository, name) for name in names]
            if places[0] and all(places):
                return places[0].parent
    return None


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


def _weights(repository: Repository, folder: Path) -> list[Path]:
    """Return the files of a model's weights: one, or several that an index lists."""
    has_index = (folder / _INDEX).exists()  # which was fetched only if there is no single file
    if not has_index and (single := _file_if_any(repository, _WEIGHTS)):
        return [single]
    if index := _file_if_any(repository, _INDEX):
        return [_file(repository, name) for name in parts(index)]
    raise ValueError(f"it has no {_WEIGHTS}, and nothing but .safetensors files is read")


def _file_if_any(repository: Repository, name: str) -> Path | None:
    """Return a file of a model, or None if the hub says that it has none of this name."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return _file(repository, name)
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):  # the hub did not say anything
            raise
    return None


def _file(repository: Repository, name: str) -> Path:
    """Return a file of a model, from the hub's cache or from the hub."""
    import huggingface_hub as client  # here: it takes long to import

    model, revision = repository.name, repository.revision
    if not isinstance(client.try_to_load_from_cache(model, name, revision=revision), str):
        # Ask once before: where there is no network, the download itself would try for minutes.
        client.get_hf_file_metadata(client.hf_hub_url(model, name, revision=revision))
    return Path(client.hf_hub_download(model, name, revision=revision))


def _check(repository: Repository, path: Path) -> None:
    """Raise :class:`DownloadError`, and delete the file, unless its SHA-256 is the right one.

    A file that was found right is not read again until it changes: an empty file in the course's
    cache remembers it.
    """
    # In the hub's cache a file is a link to one that is named for what the hub announced. That may
    # be a link as well, into a store whose names are other hashes: so this one step, no further.
    link = path.readlink().name if path.is_symlink() else ""
    announced = link if re.fullmatch(r"[0-9a-f]{64}", link) else None
    wanted = (repository.sha256 if path.name == _WEIGHTS else None) or announced
    if wanted is None:  # nobody said what it should be
        return
    state = path.stat()
    name = f"{wanted[:16]}-{state.st_ino}-{state.st_size}-{state.st_mtime_ns}"
    seen = files.folder() / "checked" / name
    with contextlib.suppress(OSError):
        if seen.exists():
            return
    digest = _sha256(path)
    if digest != wanted:
        raise DownloadError(
            f"{path.name} of {repository.name} at {repository.revision} is not what it should be: "
            f"its SHA-256 is {digest} instead of {wanted}; {_delete(path)}"
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


def _delete(path: Path) -> str:
    """Delete a file of the hub's cache and all that leads to it, and say so."""
    places = [path]
    while places[-1].is_symlink():
        places.append(places[-1].parent / places[-1].readlink())
    try:
        for place in reversed(places):
            place.unlink(missing_ok=True)
    except OSError as error:
        return f"it cannot be deleted ({error.strerror}): delete {path.resolve()} yourself"
    return "it is deleted, and the next attempt downloads it again"


@contextlib.contextmanager
def _one_message(repository: Repository) -> Iterator[None]:
    """Turn whatever the hub's client raises into one :class:`DownloadError`."""
    try:
        yield
    except DownloadError:
        raise
    except Exception as error:  # the errors of its HTTP clients have no other base in common
        if _refuses_the_name(error):
            raise ValueError(
                f"{repository.name!r} cannot be the name of a model on the hub: that is "
                "'owner/name', of letters, digits, '-', '_' and '.'"
            ) from None
        raise DownloadError(
            f"{repository.name} at {repository.revision} cannot be had: {_reason(error)}"
        ) from None


def _refuses_the_name(error: Exception) -> bool:
    """Say whether the hub's client takes a name for none that a model can have."""
    if isinstance(error, ImportError):  # there may be no client
        return False
    from huggingface_hub.errors import HFValidationError

    return isinstance(error, HFValidationError)


def _cut_connections() -> tuple[type[BaseException], ...]:
    """Return the errors of a connection that ended early, of the client that the hub's uses."""
    kinds: list[type[BaseException]] = []
    for name in ("httpx2", "httpx"):  # huggingface-hub from version 1 on
        if client := sys.modules.get(name):
            kinds += [client.RemoteProtocolError, client.ReadError]
    if requests := sys.modules.get("requests"):  # and before
        kinds.append(requests.exceptions.ChunkedEncodingError)
    return tuple(kinds)


def _reason(error: BaseException) -> str:
    """Say in a clause what went wrong, and what can be done."""
    if isinstance(error, ImportError):
        return f"huggingface-hub is needed ({error}): pip install huggingface-hub"
    from huggingface_hub import errors

    first = (str(error).strip().splitlines() or [""])[0]
    response = getattr(error, "response", None)
    if response is not None:
        return _answer(error, response)
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
        return _reason(error.__cause__)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "it is not in the cache, and HF_HUB_OFFLINE says that nothing is downloaded"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "there is no room left for it: make room, or set HF_HOME to a folder that has it"
    if isinstance(error, OSError) and error.filename:
        return f"the hub's cache cannot be written ({error}): set HF_HOME to a folder that can"
    if "Consistency check failed" in first:
        return f"what arrived is not whole ({first}): try again"
    if type(error) is ValueError:  # of this file
        return first
    what = f"({type(error).__name__}: {first})"
    if isinstance(error, _cut_connections()):
        return f"the connection was cut {what}: try again"
    return f"the hub cannot be reached: is there a network? {what}"


def _answer(error: BaseException, response: Any) -> str:
    """Say what an answer of the hub that is an error means, and what can be done."""
    from huggingface_hub import errors

    status = f"the hub answers {response.status_code}"
    if isinstance(error, errors.GatedRepoError):
        return f"{status}: agree to its terms on the hub, and set HF_TOKEN to your token"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{status}: there is no such revision"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{status}: it has no {str(response.url).rsplit('/', 1)[-1]}"
    if response.status_code in (401, 403, 404):
        return f"{status}: there is no such model, or only its owner's HF_TOKEN opens it"
    return f"{status}: try again later"
