"""Checkpoints of a training on several processes: each rank writes and reads what it holds.

PyTorch's own format (``torch.distributed.checkpoint``) in a folder named for its step, with a file
``training.json`` beside it, which lists the others. Any number of ranks can read what any number
wrote. Unlike the files of :mod:`gptlib.training.checkpoints`, PyTorch's ``.metadata`` is a pickle,
which can run any program: read only checkpoints that you trust.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from gptlib.history import History
from gptlib.model import GPT
from gptlib.training import checkpoints
from gptlib.training.checkpoints import CheckpointError, Run

FORMAT = "gptlib sharded checkpoint"

_T = TypeVar("_T")


def save(run: Run, history: History, folder: str | Path) -> Path:
    """Save a checkpoint, of which each rank writes what it holds; return where it lies.

    It takes its place once every rank has written all of it, and only then the older ones go: a
    crash leaves the older one. Raises ``OSError`` on all ranks if one of them cannot write.
    """
    folder = Path(folder)
    unfinished = _on_first(lambda: checkpoints.new_place(folder))
    try:
        state_dict_saver.save(_state(run), checkpoint_id=unfinished)
        return _on_first(lambda: _finish(run, history, unfinished))
    except (CheckpointException, OSError) as error:
        _on_first(lambda: shutil.rmtree(unfinished, ignore_errors=True))
        reason = _reasons(error) if isinstance(error, CheckpointException) else error
        raise OSError(f"no checkpoint could be saved in {folder}: {reason}") from error


def _finish(run: Run, history: History, unfinished: Path) -> Path:
    """Move what all ranks have written to its place, and remove the older checkpoints."""
    files = {path.name: path.stat().st_size for path in unfinished.iterdir()}
    checkpoints.write_record(run, history, unfinished, files, FORMAT)
    return checkpoints.publish(unfinished, checkpoints.final_place(unfinished.parent, history))


def resume(run: Run, folder: str | Path) -> History:
    """Put the newest checkpoint into the run, written by however many ranks; return its history.

    In a folder without one nothing is changed, and the history is empty. Raises
    :class:`gptlib.training.checkpoints.CheckpointError` if it is not whole, or of another run.
    """
    place = _on_first(lambda: checkpoints.latest(folder))
    if place is None:
        return History()
    if not _on_first(lambda: checkpoints.is_sharded(place)):
        return _resume_whole(run, place)
    record = _on_first(lambda: read_record(place))
    history = checkpoints.continued(run, record, place)
    _begin(run.optimizer)
    _read(_state(run), place)
    return history


def _resume_whole(run: Run, place: Path) -> History:
    """Put a checkpoint that one process wrote into the run: each rank takes what it holds."""
    record = _on_first(lambda: checkpoints.read_record(place))
    history = checkpoints.continued(run, record, place)
    _on_first(lambda: bool(checkpoints.contents(run, record, place)))  # all say what is wrong
    weights, state = checkpoints.contents(run, record, place)
    _begin(run.optimizer)
    with torch.no_grad():
        for name, parameter in checkpoints.named_parameters(run.model).items():
            _copy(weights[name], parameter)
            for kind, tensor in state.get(name, {}).items():
                _copy(tensor, run.optimizer.state[parameter][kind])
    return history


def _copy(whole: Tensor, place: Tensor) -> None:
    """Copy a tensor that all ranks have whole; where FSDP has cut the place, this rank's rows."""
    if not isinstance(place, DTensor):
        place.copy_(whole)
        return
    rank, rows = place.device_mesh.get_local_rank(), whole.chunk(place.device_mesh.size())
    if rank < len(rows):  # the last ranks may have none
        place.to_local().copy_(rows[rank])


def _begin(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer the zeros that AdamW begins with: a place for what is read."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }


def load(place: str | Path) -> GPT:
    """Return the model of a sharded checkpoint, whole, in evaluation mode, in this process alone.

    ``place`` is the checkpoint's own folder, or the run's: then it is the newest one in there.
    :func:`gptlib.pretrained.save` writes it as safetensors.
    """
    return checkpoints.reading(place, _load)


def _load(place: Path) -> GPT:
    model = GPT(checkpoints.model_config(read_record(place), place))
    named = checkpoints.named_parameters(model)
    _read({f"weights.{name}": parameter.detach() for name, parameter in named.items()}, place)
    return model.eval()


def read_record(place: Path) -> dict[str, Any]:
    """Return what ``training.json`` says.

    Raises :class:`gptlib.training.checkpoints.CheckpointError` unless all files are whole.
    """
    record = checkpoints.read_record(place, FORMAT)
    for name, n_bytes in record["files"].items():
        file = place / name
        found = file.stat().st_size if file.exists() else 0
        if found != n_bytes:
            written = f"{n_bytes:,}" if isinstance(n_bytes, int) else repr(n_bytes)
            raise CheckpointError(
                f"{file} is damaged: it has {found:,} bytes, and {written} were written"
            )
    return record


def _state(run: Run) -> dict[str, Tensor]:
    """Return what this rank holds of the weights and of the optimizer's state, by name."""
    state = {}
    for name, parameter in checkpoints.named_parameters(run.model).items():
        state[f"weights.{name}"] = parameter.detach()
        for kind, tensor in run.optimizer.state[parameter].items():
            state[f"optimizer.{name}.{kind}"] = tensor
    return state


def _read(state: dict[str, Any], place: Path) -> None:
    """Fill tensors with what a checkpoint has under their names, each rank what it holds."""
    try:
        with warnings.catch_warnings():  # one process alone is meant, and not a mistake
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            state_dict_loader.load(state, checkpoint_id=place)
    except CheckpointException as error:
        raise CheckpointError(f"{place} cannot be read: {_reasons(error)}") from error


def _reasons(error: CheckpointException) -> str:
    """Say which rank failed, and why, in a line."""
    return "; ".join(f"rank {rank}: {reason[0]}" for rank, reason in error.failures.items())


def _on_first(action: Callable[[], _T]) -> _T:
    """Do something on rank 0, and return on all ranks what it returned, or raise what it raised."""
    if not dist.is_initialized():  # one process alone goes on from what several wrote
        return action()
    outcome: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = action()
        except (OSError, ValueError) as error:
            outcome[0] = error
    dist.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    result: _T = outcome[0]
    return result


@contextmanager
def locked(folder: str | Path | None) -> Iterator[None]:
    """Keep a run's folder, if there is one, to these processes while the context lasts."""
    with ExitStack() as stack:
        if folder is not None:
            _on_first(lambda: stack.enter_context(checkpoints.locked(folder)))
        yield
