"""How fast a training step of the mini model is beside transformers' GPT-2 of the same shape.

Run: python benchmarks/training.py [--pairs 15] [--threads 2] [--batches 16 32]

Theirs is the plain loop: transformers' GPT-2 with its own loss (`labels=`), AdamW as it comes,
float32. Ours is what gptlib.training.train computes in a step, clipping included: bfloat16 where
the processor computes in it, and the fused AdamW; then the same in float32; and, where there is a
C++ compiler, compiled. No dropout in either; all windows are full. They take turns, and each turn
gives one ratio, so that what slows the machine for a while slows both. Printed are the median of
the ratios of the throughputs, above 1 where ours is faster, and their quartiles: by the clock, and
by the processor time of all threads, which other programs disturb less.
"""

import argparse
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, __version__

from gptlib.config import FAMILY
from gptlib.model import GPT
from gptlib.training import TrainingConfig, compute_gradients, parameter_groups
from gptlib.training.loop import computes_bfloat16

Step = Callable[[Tensor, Tensor], object]

MINI = replace(FAMILY["mini"], drop_rate=0.0)
RATE = 1e-6  # so small a rate leaves the models what they are


def our_step(precision: str, compiled: bool = False) -> Step:
    """Return a step as gptlib.training.train takes it."""
    model, config = GPT(MINI), TrainingConfig(precision=precision)
    if compiled:
        model.compile()
    groups = parameter_groups(model, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99), fused=True)

    def step(inputs: Tensor, targets: Tensor) -> None:
        compute_gradients(model, inputs, targets, config)
        optimizer.step()
        optimizer.zero_grad()

    return step


def their_step() -> Step:
    """Return a step of the plain loop with transformers."""
    shape = GPT2Config(
        vocab_size=MINI.vocab_size,
        n_positions=MINI.context_length,
        n_embd=MINI.emb_dim,
        n_head=MINI.n_heads,
        n_layer=MINI.n_layers,
        bos_token_id=0,
        eos_token_id=0,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    )
    model = GPT2LMHeadModel(shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)

    def step(inputs: Tensor, targets: Tensor) -> None:
        # transformers shifts the targets itself, so that it has one fewer in each row.
        model(inputs, labels=inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(step: Step, batch: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Return the time on the clock and the processor time of a step."""
    clock, processor = time.perf_counter(), time.process_time()
    step(*batch)
    return time.perf_counter() - clock, time.process_time() - processor


def summary(values: list[float]) -> str:
    """Return the median and, in brackets, the quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:.2f} [{low:.2f} to {high:.2f}]"


def compare(steps: dict[str, Step], batch: tuple[Tensor, Tensor], pairs: int) -> None:
    """Time the steps in turns, and print the ratios of the first's time to each other's."""
    for step in steps.values():  # the first runs compile, and ask the system for memory
        step(*batch)
        step(*batch)
    names, turns = list(steps), []
    for pair in range(pairs):
        order = names if pair % 2 == 0 else names[::-1]
        times = {name: seconds(steps[name], batch) for name in order}
        turns.append(times)
    n_tokens = batch[0].numel()
    for name in names:
        speed = n_tokens / statistics.median(times[name][0] for times in turns)
        clock, processor = (
            summary([times[names[0]][kind] / times[name][kind] for times in turns])
            for kind in (0, 1)
        )
        print(f"  {name:26} clock {clock}   processor {processor}   {speed:8,.0f} tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15, help="at least 2")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 32])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    has_bfloat16 = computes_bfloat16(torch.device("cpu"))
    print(
        f"torch {torch.__version__}, transformers {__version__}, {options.threads} threads, "
        f"bfloat16 in the processor: {'yes' if has_bfloat16 else 'no'}"
    )
    for batch_size in options.batches:
        ids = torch.randint(MINI.vocab_size, (batch_size, MINI.context_length + 1))
        batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        steps = {"theirs, plain float32": their_step(), "ours": our_step("auto")}
        steps["ours in float32"] = our_step("float32")
        if shutil.which("g++") or shutil.which("clang++"):
            steps["ours, compiled"] = our_step("auto", compiled=True)
        print(f"{batch_size} windows of {MINI.context_length}:", flush=True)
        compare(steps, batch, options.pairs)


if __name__ == "__main__":
    main()
