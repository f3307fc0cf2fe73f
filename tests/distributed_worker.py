"""What the tests of distributed training run in other processes: batches, models, and a pool.

Run by torchrun, it trains in the folder of its first argument, and its last rank kills itself at
the steps of the second.
"""

from __future__ import annotations

import copyreg
import errno
import io
import json
import math
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.run
from torch.distributed.elastic.multiprocessing.errors import record
from torch.distributed.fsdp import FSDPModule

from gptlib.cli.main import main as main_of_gptlib
from gptlib.config import GPTConfig
from gptlib.data import IGNORED
from gptlib.model import GPT
from gptlib.training import NotFiniteError, TrainingConfig, checkpoints, distributed, sharded
from gptlib.training.distributed import DisagreementError

SHAPE = GPTConfig(vocab_size=13, context_length=6, emb_dim=8, n_heads=2, n_layers=2, drop_rate=0.0)
ON_THIS_MACHINE = {
    "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    "OMP_NUM_THREADS": "1",
}


def _again(message, attributes):
    """Make a NotFiniteError from what it says: its arguments are not what it was made from."""
    error = NotFiniteError.__new__(NotFiniteError, message)
    vars(error).update(attributes)
    return error


copyreg.pickle(NotFiniteError, lambda error: (_again, (str(error), vars(error))))


class HaltError(ValueError):
    """Raised by batches on all ranks, to stop a training at a step."""


@dataclass(frozen=True)
class Random:
    """Batches of random ids; the first rows have no target, the others unequal numbers of them."""

    rows: int = 5
    empty_rows: int = 2
    halt_at: int = -1
    die_at: tuple[int, ...] = ()  # the step of the first start, of the second, and so on

    def batch(self, step):
        if step == self.halt_at:
            raise HaltError(f"step {step}")
        start = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        if start < len(self.die_at) and step == self.die_at[start]:
            die()
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(13, (self.rows, 7), generator=generator)
        left_out = torch.rand(self.rows, 6, generator=generator) < 0.4
        left_out[: self.empty_rows] = True
        return ids[:, :-1], ids[:, 1:].masked_fill(left_out, IGNORED)

    def describe(self):
        return {"kind": "Random", "rows": self.rows}


def die():
    """Be killed as by the system: nothing is cleaned up, and nobody is told."""
    print(f"killed at {time.time()}", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def gpt(shape=SHAPE, seed=0):
    return GPT(shape, torch.Generator().manual_seed(seed))


def config(**changes):
    defaults = {"steps": 4, "warmup_steps": 2, "learning_rate": 0.005, "precision": "float32"}
    return TrainingConfig(
        **{**defaults, "evaluate_every": 2, "save_every": 2, "clip_norm": 0.5, **changes}
    )


def train(changes, seed=0, *, shape=SHAPE, batches=None, **options):
    """Train a small model on this rank; return the history and the whole weights."""
    model = gpt(shape, seed).eval()
    model(Random().batch(9)[0]).sum().backward()  # gradients left over from elsewhere do not count
    history = distributed.train_distributed(
        model, batches or Random(), config(**changes), progress=False, **options
    )
    assert not model.training  # as it was before
    assert isinstance(model, FSDPModule) == (options.get("sharding") == "fsdp")
    return history, distributed.weights(model)


def train_each(trials):
    """Train with each of this rank's own options in turn; return what was raised."""
    errors = []
    for options in trials:
        try:
            train(**{"changes": {}, **options})
        except DisagreementError as error:
            errors.append(error)
    return errors


def train_without_numbers(changes, **options):
    """Train a model whose logits on rank 1 are no numbers from the third batch on."""
    model, calls = gpt(), iter(range(100))
    if dist.get_rank() == 1:
        model.register_forward_hook(
            lambda _, __, logits: logits * math.nan if next(calls) >= 2 else logits
        )
    history = distributed.train_distributed(
        model, Random(empty_rows=0), config(**changes), progress=False, **options
    )
    return history, None


def train_on_a_full_disk(changes, full_rank, *, folder, **options):
    """Train where every save but the first finds no space on one rank."""
    before = os.fsync

    def sync(descriptor):
        saving = any(folder.glob(".saving-*")) and checkpoints.latest(folder)
        if saving and dist.get_rank() == full_rank:
            raise OSError(errno.ENOSPC, "No space left on device")
        before(descriptor)

    os.fsync = sync
    try:
        return train(changes, folder=folder, **options)
    finally:
        os.fsync = before


def shares():
    """Return how many numbers this rank holds of a model under FSDP, and how many there are."""
    model = gpt()
    run = distributed.DistributedRun(model, torch.optim.SGD(model.parameters()), config(), Random())
    n_all = sum(p.numel() for p in model.parameters())
    run.distribute("fsdp")
    with distributed._views_allowed():
        distributed.compute_gradients(run, *Random().batch(0))
    run.optimizer.step()
    tensors = [t for p in model.parameters() for t in (p, p.grad, *run.optimizer.state[p].values())]
    return sum(distributed._local(t).numel() for t in tensors if t.ndim), n_all


def command_line(argv, folder, port, rank):
    """Give a command as torchrun does to two; return its exit code, its output and its errors."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    own = {"MASTER_ADDR": "127.0.0.1", **{name: str(place) for name, place in places.items()}}
    out, errors = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    os.environ |= own
    try:
        with redirect_stdout(out), redirect_stderr(errors):
            code = main_of_gptlib(argv)
    finally:
        os.chdir(before)
        for name in own:
            del os.environ[name]
    return code, out.getvalue(), errors.getvalue()


# ---- A pool of processes, which join in groups of any size ---------------------------------------


class Ranks:
    """Processes that run a function together, as a process group of their own each time."""

    def __init__(self, n: int) -> None:
        self.context = context = multiprocessing.get_context("forkserver")
        # The last two are what training and saving import at their first time, in each process.
        context.set_forkserver_preload(["tests.distributed_worker", "torch._dynamo", "fsspec"])
        self.folder = tempfile.TemporaryDirectory()
        self.pipes, self.processes, self.runs = [], [], 0
        for rank in range(n):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Return what each rank's call returned; an exception is returned, not raised.

        An argument that is a list of ``world`` things has one for each rank.
        """
        self.runs += 1
        store = str(Path(self.folder.name, f"store-{self.runs}"))
        for rank, pipe in enumerate(self.pipes[:world]):
            own = [a[rank] if isinstance(a, list) and len(a) == world else a for a in args]
            pipe.send_bytes(pickle.dumps((world, store, function, own)))
        results = []
        for pipe in self.pipes[:world]:
            assert pipe.poll(300), "a rank gave no answer within five minutes"
            results.append(pickle.loads(pipe.recv_bytes()))
        return results

    def beside(self, seconds: float, function: Callable[..., Any], *args: Any) -> int | None:
        """Run a function in another process that may have its own; return its exit code."""
        process = self.context.Process(target=function, args=args)
        process.start()
        process.join(seconds)
        process.terminate()
        process.join()
        return process.exitcode

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()  # which ends them
        for process in self.processes:
            process.join(10)
            process.kill()
        self.folder.cleanup()


def _serve(rank: int, pipe: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(ON_THIS_MACHINE)
    warnings.simplefilter("error")  # as in the tests' own process
    while True:
        try:
            world, store, function, args = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        if function is not command_line:  # which joins by itself
            dist.init_process_group(
                "gloo",
                init_method=f"file://{store}",
                rank=rank,
                world_size=world,
                timeout=timedelta(seconds=240),
            )
        try:
            result = function(*args)
        except Exception as error:
            result = error
        pipe.send_bytes(pickle.dumps(result))
        if dist.is_initialized():
            dist.destroy_process_group()


# ---- A program for torchrun ----------------------------------------------------------------------


def torchrun(arguments, log):
    """Do what the command does, in this process; its ranks are forked, and start at once."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(ON_THIS_MACHINE)
    torch.set_num_threads(1)
    torch.distributed.run.main(["--run-path", "--start-method=fork", *arguments])


@record
def main() -> None:
    folder, die_at = sys.argv[1], tuple(json.loads(sys.argv[2]))
    start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    with distributed.joined() as device:
        last = dist.get_rank() == dist.get_world_size() - 1
        if start == 1 and dist.get_rank() == 0 and "GPTLIB_DIE_IN_SAVE" not in os.environ:
            sharded._finish = lambda *_: die()  # everything is written but its name
        train({}, batches=Random(die_at=die_at if last else ()), folder=folder)
        print(f"done on {device.type}", flush=True)


if __name__ == "__main__":
    main()
