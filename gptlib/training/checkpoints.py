"""Checkpoints of a training run: saved whole or not at all, and read only if they are whole.

A run's folder holds one checkpoint, a folder named for its step, with three files: the weights and
the optimizer's state (safetensors), and everything else (``training.json``), which also has the
size and the SHA-256 of the other two. Nothing is ever unpickled. The file ``.lock`` beside it is
empty: while a training runs, it holds a lock on it, which ends with the process, however it ends.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor, nn

from gptlib import accounting
from gptlib.config import GPTConfig
from gptlib.history import History

FORMAT = "gptlib checkpoint"
VERSION = 2  #: what is written; version 1 knew the optimizer's state by numbers, and is read too
_READABLE = (1, VERSION)

_T = TypeVar("_T")

_WEIGHTS, _OPTIMIZER, _REST = "weights.safetensors", "optimizer.safetensors", "training.json"
_PREFIX, _UNFINISHED = "step-", ".saving-"


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file, and says why."""


class Run(Protocol):
    """What a checkpoint is of: a model, its optimizer, and what decides how they go on."""

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for a run to go on from a checkpoint, in JSON's types."""


def save(run: Run, history: History, folder: str | Path) -> Path:
    """Save a checkpoint into the folder, then remove the older ones; return where it lies.

    The files are written beside their place and moved there once they are on the disk, so that a
    crash or a full disk leaves the older checkpoint. Raises ``OSError`` if it cannot be written,
    and :class:`CheckpointError` if the folder holds a checkpoint of a later step.
    """
    folder = named(folder)
    folder.mkdir(parents=True, exist_ok=True)
    place = final_place(folder, history)
    for earlier in finished(folder):
        if earlier.name.rstrip("+") > place.name:
            raise CheckpointError(f"{earlier} is of a later step than {history.steps:,}")
        if earlier.name == place.name:  # the same step again: a name that comes after it
            place = place.with_name(f"{place.name}+")
    unfinished = new_place(folder)
    try:
        unfinished.mkdir()
        _write(run, history, unfinished)
        return publish(unfinished, place)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def named(folder: str | Path) -> Path:
    """Return a folder as a path; raise ``ValueError`` for "", as of a name not set."""
    if folder == "":
        raise ValueError("folder must be the path of a folder, not ''")
    return Path(folder)


def new_place(folder: Path) -> Path:
    """Return a folder of a new name, to write a checkpoint into."""
    return folder / f"{_UNFINISHED}{secrets.token_hex(4)}"


def final_place(folder: Path, history: History) -> Path:
    """Return the folder for the checkpoint of the last step done."""
    return folder / f"{_PREFIX}{history.steps:08d}"


def publish(unfinished: Path, place: Path) -> Path:
    """Move a checkpoint that is on the disk to its place, remove the older ones; return it."""
    unfinished.rename(place)
    _sync_folder(place.parent)
    for old in (*finished(place.parent), *place.parent.glob(f"{_UNFINISHED}*")):
        if old != place:
            shutil.rmtree(old, ignore_errors=True)
    return place


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep a run's folder, made if there is none, to this process while the context lasts.

    Raises :class:`CheckpointError` if another training has it, ``OSError`` if it is not writable.
    """
    folder = named(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CheckpointError(
            f"{folder} is in use by another training; wait for it, or give another folder"
        ) from None
    except NotImplementedError:  # some network drives have no locks: there, nothing is refused
        yield
        return
    try:
        yield
    finally:
        lock.release()


def latest(folder: str | Path | None) -> Path | None:
    """Return the newest checkpoint in a run's folder, or None."""
    whole = [] if folder is None else finished(named(folder))
    return whole[-1] if whole else None


def finished(folder: Path) -> list[Path]:
    """Return the whole checkpoints in a run's folder, the newest last."""
    return sorted(place for place in folder.glob(f"{_PREFIX}*") if is_checkpoint(place))


def is_checkpoint(place: Path) -> bool:
    """Say whether this is the folder of a checkpoint, and not that of a run."""
    return re.fullmatch(rf"{_PREFIX}\d{{8,}}\+*", place.name) is not None and place.is_dir()


def is_sharded(place: Path) -> bool:
    """Say whether several processes wrote a checkpoint: see :mod:`gptlib.training.sharded`."""
    return (place / ".metadata").exists()


def reading(place: str | Path, read: Callable[[Path], _T]) -> _T:
    """Return what ``read`` makes of a checkpoint: of ``place``, or the newest in a run's folder.

    A training that goes on meanwhile removes it once a newer one is saved: then that is read.
    """
    while True:
        whole = latest(place) or Path(place)
        try:
            return read(whole)
        except (CheckpointError, OSError):
            if latest(place) in (None, whole):
                raise


def resume(run: Run, folder: str | Path) -> History:
    """Put the newest checkpoint's weights and state into the run; return its history.

    In a folder without a checkpoint, nothing is changed and the history is empty. Raises
    :class:`CheckpointError` if the checkpoint is damaged, of another version or of another run;
    the run is left as it was.
    """
    place = latest(folder)
    if place is None:
        return History()
    record = read_record(place)
    history = continued(run, record, place)
    weights, state = contents(run, record, place)
    groups = run.optimizer.state_dict()["param_groups"]
    numbered = dict(enumerate(map(state.get, _names(run))))
    known = {number: tensors for number, tensors in numbered.items() if tensors}
    run.optimizer.load_state_dict({"state": known, "param_groups": groups})
    put_weights(run.model, weights, place / _WEIGHTS)
    return history


def continued(run: Run, record: Mapping[str, Any], place: Path) -> History:
    """Return the history of a checkpoint; raise :class:`CheckpointError` if it is another run's.

    A training that is finished goes on if more steps are asked for. Then only the model must be the
    same: on what it goes on, and at which rates, is decided anew.
    """
    ours, theirs = run.identity(), record["identity"]
    history = read_history(record, place)
    if isinstance(theirs.get("training"), dict):
        done, wanted = theirs["training"].get("steps"), ours.get("training", {}).get("steps", 0)
        if done == history.steps < wanted:
            ours = {"model": ours["model"]}
    require_same(ours, theirs, place)
    return history


def contents(
    run: Run, record: Mapping[str, Any], place: Path
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Return a checkpoint's weights and its optimizer's state by parameters, all of which fit."""
    weights = read_tensors(place, _WEIGHTS, record)
    _require_fit(run.model, weights, place / _WEIGHTS)
    state: dict[str, dict[str, Tensor]] = {}
    names, shapes = _names(run), {name: tensor.shape for name, tensor in weights.items()}
    numbers = {str(number): name for number, name in enumerate(names)}
    for key, tensor in read_tensors(place, _OPTIMIZER, record).items():
        name, _, kind = key.rpartition(".")
        name = numbers.get(name, "") if record["version"] == 1 else name
        if name not in names or (tensor.ndim and tensor.shape != shapes[name]):
            raise CheckpointError(
                f"{place / _OPTIMIZER} does not fit the model: it has {key!r}, of shape "
                f"{tuple(tensor.shape)}"
            )
        state.setdefault(name, {})[kind] = tensor
    return weights, state


def load_weights(model: nn.Module, place: str | Path) -> History:
    """Put a checkpoint's weights into a model, and return the history of its training.

    ``place`` is the checkpoint's own folder, or the run's: then it is the newest one in there.
    """
    return reading(place, lambda whole: _load_weights(model, whole))


def _load_weights(model: nn.Module, place: Path) -> History:
    record = read_record(place)
    history = read_history(record, place)
    put_weights(model, read_tensors(place, _WEIGHTS, record), place / _WEIGHTS)
    return history


def model_config(record: Mapping[str, Any], place: Path) -> GPTConfig:
    """Return the shape of a checkpoint's model; :class:`CheckpointError` if it gives none."""
    path = place / _REST
    shape = record["identity"].get("model")
    found = {**shape} if isinstance(shape, dict) else {}
    found.pop("frozen", None)  # it says what was trained of the model, and not what it is
    wanted = [field.name for field in fields(GPTConfig)]
    for name in (*wanted, *found):
        if name not in found or name not in wanted:
            what = "is unknown here" if name in found else "is missing"
            raise CheckpointError(f'{path} does not describe a GPT: {name} {what} in its "model"')
    try:
        config = GPTConfig(**found)
    except ValueError as error:
        raise CheckpointError(f"{path} does not describe a GPT: {error}") from None
    n_bytes = sum(file.stat().st_size for file in place.iterdir())
    if 2 * accounting.total(config) > n_bytes:  # to build it could take for ever
        raise CheckpointError(
            f"{path} describes a GPT of {accounting.total(config):,} parameters, for which its "
            f"files, of {n_bytes:,} bytes, are too small"
        )
    return config


def read_record(place: Path, kind: str = FORMAT) -> dict[str, Any]:
    """Return what ``training.json`` says of a checkpoint of this kind.

    Raises :class:`CheckpointError` if it is missing, damaged, or of another kind or version.
    """
    path = place / _REST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: this is not a whole checkpoint") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: it is not JSON ({error})") from None
    record: dict[str, Any] = found if isinstance(found, dict) else {}
    if record.get("format") != kind:
        raise CheckpointError(
            f'{path} is not a checkpoint of gptlib that can be read here: its "format" is '
            f"{record.get('format')!r}, not {kind!r}"
        )
    if record.get("version") not in _READABLE:
        raise CheckpointError(
            f"{path} has version {record.get('version')!r} of the format, and this gptlib reads "
            f"version {VERSION}"
        )
    for part in ("identity", "history", "files"):
        if not isinstance(record.get(part), dict):
            raise CheckpointError(f'{path} is damaged: it has no "{part}"')
    return record


def read_tensors(place: Path, name: str, record: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of one of a checkpoint's files, or raise :class:`CheckpointError`."""
    path = place / name
    try:
        expected = record["files"][name]
        n_bytes, digest = int(expected["bytes"]), str(expected["sha256"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{place / _REST} is damaged: it does not describe {name}") from None
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: this is not a whole checkpoint") from None
    if len(data) != n_bytes:
        raise CheckpointError(
            f"{path} is damaged: it has {len(data):,} bytes, and {n_bytes:,} were written"
        )
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not that of what was written")
    try:
        return tensors_of(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error})") from None


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a model's parameters; all names and shapes must agree.

    Raises :class:`CheckpointError`, naming ``path``, if they do not; the model is left as it was.
    """
    _require_fit(model, weights, path)
    with torch.no_grad():
        for name, parameter in named_parameters(model).items():
            parameter.copy_(weights[name])


def _write(run: Run, history: History, place: Path) -> None:
    """Write a checkpoint's three files into a new folder, and wait until they are on the disk."""
    weights = {n: p.detach().contiguous() for n, p in named_parameters(run.model).items()}
    contents = {
        _WEIGHTS: bytes_of(weights),
        _OPTIMIZER: bytes_of(_state(run)),
    }
    for name, data in contents.items():
        _write_file(place / name, data)
    files = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in contents.items()
    }
    write_record(run, history, place, files)


def write_record(
    run: Run, history: History, place: Path, files: Mapping[str, object], kind: str = FORMAT
) -> None:
    """Write ``training.json`` beside the other files, and wait until all is on the disk."""
    record = {
        "format": kind,
        "version": VERSION,
        "identity": run.identity(),
        "files": files,
        "history": history.to_json(),
    }
    _write_file(place / _REST, json.dumps(record).encode())
    _sync_folder(place)


def _write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_history(record: Mapping[str, Any], place: Path) -> History:
    """Return the history in a checkpoint's record, or raise :class:`CheckpointError`."""
    try:
        return History.from_json(record["history"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{place / _REST} is damaged: its history ({error!r})") from None


def require_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], place: Path) -> None:
    """Raise :class:`CheckpointError`, naming what differs, unless two identities are equal."""
    for part, values in ours.items():
        saved = theirs.get(part)
        if not isinstance(saved, dict):
            raise CheckpointError(f'{place / _REST} is damaged: its identity has no "{part}"')
        for name in (*values, *(name for name in saved if name not in values)):
            here, there = values.get(name), saved.get(name)
            if here != there:
                raise CheckpointError(
                    f"{place} is of another run: its {part} has {name} = {there!r}, and this run "
                    f"has {here!r}. Give the same values, or another folder."
                )


def _require_fit(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    parameters = named_parameters(model)
    for name in (*parameters, *(name for name in weights if name not in parameters)):
        ours = tuple(parameters[name].shape) if name in parameters else "nothing"
        theirs = tuple(weights[name].shape) if name in weights else "nothing"
        if ours != theirs:
            raise CheckpointError(f"{path} has {theirs} for {name}, where the model has {ours}")


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by name; what ``torch.compile(model)`` returns puts a prefix there."""
    return {n.removeprefix("_orig_mod."): p for n, p in model.named_parameters()}


def _names(run: Run) -> list[str]:
    """Return the names of the parameters that the optimizer changes, in its order."""
    names = {parameter: name for name, parameter in named_parameters(run.model).items()}
    return [
        names[parameter] for group in run.optimizer.param_groups for parameter in group["params"]
    ]


def _state(run: Run) -> dict[str, Tensor]:
    """Return the optimizer's state by the names of the parameters, which no order can mix up."""
    numbered = run.optimizer.state_dict()["state"]
    return {
        f"{name}.{kind}": tensor.contiguous()
        for number, name in enumerate(_names(run))
        for kind, tensor in numbered.get(number, {}).items()
    }


def _sync_folder(folder: Path) -> None:
    """Wait until a folder's list of files is on the disk."""
    if sys.platform == "win32":  # there is no such call
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # nor have some network drives
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
