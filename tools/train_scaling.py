"""Train models of eight sizes; their losses go into gptlib/assets/scaling.json: `make scaling`.

It takes about an hour on two cores, with a training on each. Stopped at any moment, it goes on
where it was: the trainings lie in _build/scaling. `python -m tools.train_scaling tune` tries the
learning rates that RATE was chosen from.

A training's rate climbs, then stays. At each of POINTS the training branches: a copy goes on for a
fifth of the steps with a falling rate, and is measured. So one training makes as many well ended
ones as there are points (Hägele et al., 2024).
"""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from gptlib import accounting, stories, tokenizer
from gptlib.config import FAMILY, GPTConfig
from gptlib.data import IGNORED, Batches, StoryBatches, stream_of
from gptlib.model import GPT
from gptlib.training import TrainingConfig, compute_gradients, evaluate, parameter_groups
from tools.train_mini import TOKEN_SCALE, plain_attention

ROOT = Path(__file__).resolve().parent.parent
ASSET = ROOT / "gptlib" / "assets" / "scaling.json"
WORK = ROOT / "_build" / "scaling"


SEED = 0
BATCH_SIZE = 8
#: The models are measured after so many steps: 236 thousand to 7.6 million tokens.
POINTS = (200, 400, 800, 1_600, 3_200, 6_400)
#: The share of those steps in which the rate falls.
DECAY = 0.2
WARMUP_STEPS = 50
#: Every story is read once.
N_STORIES = BATCH_SIZE * POINTS[-1]
N_HELD_OUT = 400
#: The models' widths, the longest training first, and how many heads each has: of 32 channels, as
#: in the mini model, where there are so many. All else is the mini model's, which is the second.
HEADS = {256: 8, 192: 6, 128: 4, 64: 2, 32: 1, 16: 1, 8: 1, 4: 1}
#: The highest learning rate is this, divided by the width, and times a share for some widths.
RATE = 0.64
#: At the full rate the wider of these two never learned to copy names: "tried" has its loss.
SHARES = {128: 1 / 2, 64: 1 / 2}
#: What is tried with "tune", up to the third point: these widths, and these shares of their rates.
TRIED = ((128, 64, 16, 4), (1 / 4, 1 / 2, 1, 2))


class Size(NamedTuple):
    """A model to train: its shape, as far as it differs from the mini model's, and its rate."""

    emb_dim: int
    n_heads: int
    learning_rate: float

    @property
    def name(self) -> str:
        """What the model is called."""
        return f"width-{self.emb_dim}"

    @property
    def config(self) -> GPTConfig:
        """The model's configuration. No story comes twice, so there is nothing to drop out for."""
        return replace(FAMILY["mini"], emb_dim=self.emb_dim, n_heads=self.n_heads, drop_rate=0.0)

    @property
    def path(self) -> Path:
        """Where its training lies."""
        return WORK / f"{self.name}-{self.learning_rate:g}.pt"


def size(width: int, share: float | None = None) -> Size:
    """Return the model of that width, with its learning rate, or a share of the rule's.

    The best rates for the first 0.9 million tokens fell as one over the width, about, as theory
    has it for Adam (Yang et al., 2022). They are not the best ones for all the rest.
    """
    share = SHARES.get(width, 1.0) if share is None else share
    return Size(width, HEADS[width], round(share * RATE / width, 5))


def untrained(config: GPTConfig) -> GPT:
    """Return a model as it starts: the mini model's random weights, carried over to its width.

    The numbers are larger in narrower models, by the square root: so the vectors of tokens and
    positions are as long as in the mini model, and what comes out of a matrix is as large. See
    :func:`tools.train_mini.untrained` for TOKEN_SCALE.
    """
    longer = math.sqrt(FAMILY["mini"].emb_dim / config.emb_dim)
    model = GPT(config, torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter *= longer
        model.token_embedding.weight *= TOKEN_SCALE
    return model


class Training:
    """A model on its way: it can go on, and come back to where it was."""

    def __init__(self, of: Size, batches: Batches, compiled: bool = False) -> None:
        self.config = TrainingConfig(learning_rate=of.learning_rate, weight_decay=0.01)
        self.batches = batches
        self.model = untrained(of.config)
        self.forward = torch.compile(self.model, dynamic=True) if compiled else self.model
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, self.config.weight_decay),
            betas=(self.config.beta_1, self.config.beta_2),
            fused=True,
        )
        self.steps = self.tokens = 0

    def advance(self, until: int, falling: bool = False) -> None:
        """Train up to that step, with a rate that falls to 0 there or stays."""
        start = self.steps
        while self.steps < until:
            rate = self.config.learning_rate * min(1.0, (self.steps + 1) / WARMUP_STEPS)
            if falling:  # as 1 less a square root, the best of what Hägele et al. (2024) tried
                rate *= 1 - math.sqrt((self.steps - start) / (until - start))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            inputs, targets = self.batches.batch(self.steps)
            compute_gradients(self.forward, inputs, targets, self.config)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1
            self.tokens += int((targets != IGNORED).sum())

    def state(self) -> dict[str, Any]:
        """Return a copy of all that the next step depends on."""
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return copy.deepcopy(parts | {"steps": self.steps, "tokens": self.tokens})

    def restore(self, state: dict[str, Any]) -> None:
        """Come back to where ``state`` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self.tokens = state["steps"], state["tokens"]


def train(
    of: Size,
    batches: Batches,
    held_out: list[tuple[Tensor, Tensor]],
    points: tuple[int, ...] = POINTS,
    compiled: bool = False,
    save_every: int = 400,
) -> dict[str, Any]:
    """Train a model, or go on training it, measure it at each point, and return the record."""
    run = Training(of, batches, compiled)
    record = {"name": of.name, "config": asdict(of.config)}
    record |= {"learning_rate": of.learning_rate, "tokens": [], "losses": [], "seconds": 0.0}
    if of.path.exists():
        saved = torch.load(of.path)
        record = saved.pop("record")
        run.restore(saved)
    began = time.perf_counter() - record["seconds"]
    for point in points[len(record["losses"]) :]:
        branch = round(point * (1 - DECAY))
        while run.steps < branch:
            run.advance(min(branch, run.steps + save_every))
            record["seconds"] = round(time.perf_counter() - began, 1)
            save(of.path, run.state() | {"record": record})
        trunk = run.state()
        run.advance(point, falling=True)
        record["tokens"].append(run.tokens)
        record["losses"].append(round(evaluate(run.model, held_out), 5))
        weights = {name: p.detach() for name, p in run.model.named_parameters()}
        save_file(weights, of.path.with_suffix(".safetensors"))
        run.restore(trunk)
        record["seconds"] = round(time.perf_counter() - began, 1)
        save(of.path, run.state() | {"record": record})
        report(record)
    return record


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def report(record: dict[str, Any]) -> None:
    """Add a line to the log."""
    line = {name: record[name] for name in ("name", "learning_rate", "seconds")}
    line |= {"tokens": record["tokens"][-1], "loss": record["losses"][-1]}
    with (WORK / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line | {"at": time.strftime("%H:%M:%S")}) + "\n")


@contextmanager
def fast() -> Iterator[None]:
    """Train in one thread, with the attention that is fast on a CPU."""
    torch.set_num_threads(1)
    with patch.object(functional, "scaled_dot_product_attention", plain_attention):
        yield


def train_one(texts: Tensor, held_out: Tensor, points: tuple[int, ...], of: Size) -> None:
    """Train a model in a process of its own."""
    end, length = tokenizer.stories().eot_token, of.config.context_length
    batches = StoryBatches(texts, end, BATCH_SIZE, length, SEED)
    tests = StoryBatches(held_out, end, 50, length).in_order()
    with fast():
        train(of, batches, tests, points, compiled=bool(shutil.which("g++")))


def train_all(sizes: list[Size], points: tuple[int, ...]) -> None:
    """Train models, as many at once as there are cores, those first that come first."""
    encoding = tokenizer.stories()
    texts = stream_of(stories.sample(N_STORIES, stories.TRAIN_SEED), encoding)
    held_out = stream_of(stories.sample(N_HELD_OUT, stories.VALIDATION_SEED), encoding)
    work = partial(train_one, texts, held_out, points)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    processes = multiprocessing.get_context("spawn")
    with processes.Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        for _ in pool.imap_unordered(work, sizes):
            pass


def floor() -> float:
    """Return the loss of the grammar itself on the held-out stories, in nats per token."""
    texts = stories.sample(N_HELD_OUT, stories.VALIDATION_SEED)
    n_tokens = len(stream_of(texts, tokenizer.stories())) - 1
    return -sum(map(stories.log_prob, texts)) / n_tokens


def write() -> None:
    """Write what was measured."""
    records = [torch.load(path)["record"] for path in sorted(WORK.glob("*.pt"))]
    chosen = {(some.name, some.learning_rate) for some in map(size, HEADS)}
    runs = [r for r in records if (r["name"], r["learning_rate"]) in chosen and r["losses"]]
    tried = [
        {"name": record["name"], "n_heads": record["config"]["n_heads"]}
        | {"learning_rate": record["learning_rate"]}
        | {"tokens": record["tokens"][-1], "loss": record["losses"][-1]}
        for record in records
        if len(record["losses"]) > 2
    ]
    written = {
        "seed": SEED,
        "batch_size": BATCH_SIZE,
        "held_out": N_HELD_OUT,
        "machine": f"{platform.machine()}, torch {torch.__version__}, one core for each run",
        "floor": round(floor(), 6),
        "runs": sorted(runs, key=lambda run: accounting.total(GPTConfig(**run["config"]))),
        "tried": sorted(tried, key=lambda run: (len(run["name"]), *run.values())),
    }
    ASSET.write_text(json.dumps(written) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["tune"]:
        widths, shares = TRIED
        train_all([size(width, share) for width in widths for share in shares], POINTS[:3])
    else:
        train_all([size(width) for width in HEADS], POINTS)
        write()
