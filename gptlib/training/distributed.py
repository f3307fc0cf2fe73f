"""Training on several processes at once, with PyTorch's own engines: DDP and FSDP2.

Each process, called a rank, reads its own rows of every batch, and all of them take the step that
one process would take with the whole batch. Start the processes with torchrun, which says to each
who it is. Shapes: ``B`` rows in a batch, ``T`` tokens in a row.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from gptlib.data import IGNORED, Batches
from gptlib.history import History
from gptlib.model import in_mode
from gptlib.training import checkpoints, loop, sharded
from gptlib.training.loop import TrainingConfig, TrainingRun, cross_entropy


class DisagreementError(ValueError):
    """The processes were started to train differently; the message says who differs in what."""


def part(inputs: Tensor, targets: Tensor, rank: int, world: int) -> tuple[Tensor, Tensor]:
    """Return the rows of a whole batch that are those of rank ``rank`` of ``world``.

    A batch is cut into ``world`` consecutive parts, as equal as they can be. A rank for which no
    row is left gets the first row, with every target IGNORED: it adds nothing, and takes part in
    every exchange.
    """
    if rank >= len(inputs):
        return inputs[:1], torch.full_like(targets[:1], IGNORED)
    return inputs.tensor_split(world)[rank], targets.tensor_split(world)[rank]


@contextmanager
def joined() -> Iterator[torch.device]:
    """Join the processes that torchrun started, and leave them at the end; yield the device.

    With CUDA each process has the GPU of its number on its machine, and they exchange through
    NCCL. Where there are fewer GPUs than processes, or none, all compute on the CPU, and exchange
    through Gloo: NCCL refuses two processes on one GPU.

    Raises ``ValueError`` in a process that torchrun did not start, and where it could not start the
    processes again.
    """
    if not os.environ.get("RANK") or not os.environ.get("LOCAL_RANK"):
        raise ValueError("start it with torchrun, as in: torchrun --nproc-per-node 2 script.py")
    number = int(os.environ["LOCAL_RANK"])
    n_here = max(int(os.environ.get("LOCAL_WORLD_SIZE") or 1), number + 1)
    has_cuda = dist.is_nccl_available() and torch.cuda.is_available()
    has_cuda = has_cuda and torch.cuda.device_count() >= n_here
    if has_cuda:
        torch.cuda.set_device(number)
    store, rank, world = _meeting_place()
    backend = "nccl" if has_cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    yield _device()
    # After an error nobody waits for the others: this process ends, and torchrun ends the rest.
    dist.destroy_process_group()


def _meeting_place() -> tuple[Store, int, int]:
    """Return the store where the processes leave their addresses, this one's rank, their number.

    torchrun's own store outlives the processes, and keeps the addresses of those that are gone. On
    one machine the number of the start tells them apart; on several, it is not the same for all.
    """
    started = os.environ.get
    store, rank, world = next(rendezvous("env://"))
    if started("TORCHELASTIC_USE_AGENT_STORE") != "True":  # a new one for each start
        return store, rank, world
    restarts = int(started("TORCHELASTIC_MAX_RESTARTS", "0"))
    if int(started("GROUP_WORLD_SIZE", "1")) > 1 and restarts > 0:
        raise ValueError(
            "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun: without it, processes that "
            "are started again on several machines may call those that are gone"
        )
    start = started("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"start {start}", store), rank, world


def train_distributed(
    model: nn.Module,
    batches: Batches,
    config: TrainingConfig,
    *,
    sharding: str = "ddp",
    held_out: Iterable[tuple[Tensor, Tensor]] = (),
    folder: str | Path | None = None,
    progress: bool = True,
    on_evaluate: Callable[[History], None] | None = None,
) -> History:
    """Train a model in place on all processes, as :func:`gptlib.training.train` does on one.

    Every process calls it with the same arguments; ``batches`` are the whole ones, and rank 0's
    weights are the start. The result is that of one process, up to rounding, but for dropout,
    whose masks depend on the number of ranks. With ``sharding`` "ddp" each rank holds the whole
    model, and the gradients are averaged while they are computed (Li et al., 2020). With "fsdp"
    each holds its share of weights, gradients and moments, and a block's weights are put together
    while it computes (Rajbhandari et al., 2020; Zhao et al., 2023). ``accumulate`` then saves
    activations as always, but gradients are exchanged for every piece, so that none is kept whole.

    In a ``folder``, which all machines must see, checkpoints are saved and gone on from, by any
    number of ranks. Only rank 0 shows a bar and calls ``on_evaluate``.

    Raises :class:`DisagreementError` if the processes were given different things; otherwise as
    ``train`` does, each error on all ranks.
    """
    if sharding not in ("ddp", "fsdp"):
        raise ValueError(f'sharding must be "ddp" or "fsdp", not {sharding!r}')
    optimizer, rank = loop.adamw(model, config), dist.get_rank()
    run = DistributedRun(model, optimizer, config, batches, list(held_out), folder, rank)
    _require_agreement(run, sharding)
    run.distribute(sharding)
    with sharded.locked(folder), _views_allowed():
        history = History() if folder is None else sharded.resume(run, folder)
        loop.take_steps(run, history, progress and rank == 0, on_evaluate if rank == 0 else None)
    return history


@contextmanager
def _views_allowed() -> Iterator[None]:
    """Keep FSDP from warning that a GPT returns a view: nothing here changes logits in place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
        yield


class DistributedRun(TrainingRun):
    """A training on several processes; ``model`` has the parameters, ``whole`` is what computes."""

    def distribute(self, sharding: str) -> None:
        """Give the model to all ranks, and make the optimizer of what this rank holds of it."""
        device = _device()
        loop.lay_by_rows(self.model)
        self.whole: nn.Module = self.model
        self.scale = float(dist.get_world_size())
        if sharding == "ddp":
            # It copies rank 0's weights to the others.
            self.whole = DistributedDataParallel(
                self.model.to(device), gradient_as_bucket_view=True
            )
        else:
            _copy_from_first(self.model, device)
            mesh = init_device_mesh(device.type, (dist.get_world_size(),))
            for block in getattr(self.model, "blocks", ()):
                fully_shard(block, mesh=mesh)
            fully_shard(self.model, mesh=mesh)  # what is in no block
            self.scale /= _mean_of_ones(device)
        self.optimizer = loop.adamw(self.model, self.config)

    def compute_gradients(self, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """Leave the gradient of a whole batch, as :func:`compute_gradients` does."""
        return compute_gradients(self, inputs, targets)

    def evaluate(self) -> float:
        """Return the mean loss on the held-out batches."""
        return evaluate(self.whole, self.held_out)

    def is_finite(self) -> bool:
        """Say whether every weight is a finite number, on all ranks."""
        mine = [_local(parameter).isfinite().all() for parameter in self.model.parameters()]
        finite = torch.stack(mine).all().int()
        dist.all_reduce(finite, dist.ReduceOp.MIN)
        return bool(finite)

    def save(self, history: History, folder: str | Path) -> None:
        """Save a checkpoint in the folder, each rank what it holds."""
        sharded.save(self, history, folder)


def _mean_of_ones(device: torch.device) -> float:
    """Return what FSDP's way to average makes of ones.

    With Gloo, some versions of PyTorch add them up instead (its issue 162338).
    """
    if dist.get_world_size() == 1:
        return 1.0
    ones, mine = torch.ones(dist.get_world_size(), device=device), torch.zeros(1, device=device)
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    scatter(mine, ones, dist.ReduceOp.AVG)
    return mine.item()


def _copy_from_first(model: nn.Module, device: torch.device) -> None:
    """Give every rank the weights of rank 0, one after the other."""
    with torch.no_grad():
        for parameter in model.parameters():
            there = parameter.to(device)
            dist.broadcast(there, src=0)
            parameter.copy_(there)


def compute_gradients(run: DistributedRun, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Leave the gradient of a whole batch's loss in the run's model, clipped, on every rank.

    Returns the loss and the gradient's length before clipping, both of the whole batch and the same
    on all ranks. A rank's loss is the sum over its own targets, divided by the number of all: what
    the ranks have adds up to the mean, also where their numbers of targets differ. As DDP and FSDP
    average the gradients instead, each is multiplied by the number of ranks first.
    """
    device, world, config = _device(), dist.get_world_size(), run.config
    n_targets = int((targets != IGNORED).sum())
    # As many pieces on every rank, or one would wait for the others' next exchange forever.
    n_pieces = min(config.accumulate, max(1, len(inputs) // world))
    halves = (half.tensor_split(n_pieces) for half in part(inputs, targets, dist.get_rank(), world))
    total = torch.zeros((), device=device)
    for number, (rows, wanted) in enumerate(zip(*halves, strict=True), start=1):
        with _exchanging(run.whole, now=number == n_pieces):
            with loop.autocast(device, config.precision):
                logits = run.whole(rows.to(device))  # (B / world / n_pieces, T, V)
            loss = _loss(logits, wanted, n_targets)
            (loss * run.scale).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    dist.all_reduce(total)
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), config.clip_norm)
    return total.item(), _full(norm).item()


def _loss(logits: Tensor, targets: Tensor, n_all: int) -> Tensor:
    """Return the loss summed over the targets, divided by the number of all; 0 if there is none."""
    n_targets = int((targets != IGNORED).sum())
    if n_targets == 0:  # it still has a gradient, of zeros, for the exchange
        return 0 * logits.float().sum()
    return cross_entropy(logits, targets.to(logits.device)) * (n_targets / n_all)


@contextmanager
def _exchanging(model: nn.Module, now: bool) -> Iterator[None]:
    """Let DDP exchange gradients in this backward pass, or only add them up."""
    if isinstance(model, DistributedDataParallel) and not now:
        with model.no_sync():
            yield
    else:
        yield


@torch.no_grad()
def evaluate(model: nn.Module, held_out: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return what :func:`gptlib.training.evaluate` does, each rank measuring its rows.

    ``held_out`` are the whole batches, the same on all ranks, and so is what is returned.
    """
    device, rank, world = _device(), dist.get_rank(), dist.get_world_size()
    sums = torch.zeros(2, dtype=torch.float64, device=device)  # nats, targets
    with in_mode(model, training=False):
        for batch in held_out:
            inputs, targets = part(*batch, rank, world)
            sums[0] += _loss(model(inputs.to(device)), targets, 1)
            sums[1] += int((targets != IGNORED).sum())
    if isinstance(model, FSDPModule):
        model.reshard()  # only a backward pass would let go of what is in no block
    dist.all_reduce(sums)
    nats, n_tokens = sums.tolist()
    if n_tokens == 0:
        raise ValueError("held_out has no targets: there is nothing to measure the loss on")
    return float(nats / n_tokens)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a distributed model's weights by name, put together; all ranks must ask for them."""
    named = checkpoints.named_parameters(model)
    return {name: _full(parameter.detach()) for name, parameter in named.items()}


def _require_agreement(run: TrainingRun, sharding: str) -> None:
    """Raise :class:`DisagreementError` on all ranks if one of them was started differently."""
    call = {
        "sharding": sharding,
        "folder": str(run.folder),
        "held-out targets": [int((targets != IGNORED).sum()) for _, targets in run.held_out],
        "arithmetic": loop.computes_bfloat16(_device()),
    }
    ours = {**run.identity(), "call": call}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, ours)
    for rank, theirs in enumerate(everyone):
        for kind, values in everyone[0].items():
            for name in {**values, **theirs[kind]}:
                first, other = values.get(name), theirs[kind].get(name)
                if first != other:
                    raise DisagreementError(
                        f"rank {rank} and rank 0 were started differently: for {kind}, {name} is "
                        f"{other!r} on rank {rank}, and {first!r} on rank 0. Start all processes "
                        "with the same program, options and data."
                    )


def _device() -> torch.device:
    """Return where this process computes."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
