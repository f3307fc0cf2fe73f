"""How fast the 124M model is beside transformers' GPT-2, and how long it takes to build.

Run: python benchmarks/model.py [--pairs 7] [--threads 2] [--shapes 1x1024 4x256] [--rates 0 0.1]

Ours and theirs take turns, and each pair of neighbors gives one ratio, so that what slows the
machine for a while slows both. Printed are the median of the ratios, above 1 where ours is faster,
and their quartiles: of the time on the clock, and of the processor time of all threads, which other
programs disturb less. Both models are float32.

A training step is measured in two ways. "Same step": the same loss and the same optimizer for
both, so that only the models differ. "Usual step": ours with PyTorch's fused AdamW, theirs as a
plain loop with transformers has it, with its own loss (`labels=`) and AdamW as it comes.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, __version__

from gptlib.config import GPTConfig
from gptlib.model import GPT, OutputHead

Work = Callable[[], object]


def seconds(work: Work) -> tuple[float, float]:
    """Return the time on the clock and the processor time that some work takes."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def summary(values: list[float], form: str) -> str:
    """Return the median and, in brackets, the quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:{form}} [{low:{form}} to {high:{form}}]"


def compare(name: str, ours: Work, theirs: Work, pairs: int) -> None:
    """Time two pieces of work in turns and print the ratios of their times."""
    ours()  # the first run asks the system for memory
    theirs()
    runs = []
    for pair in range(pairs):
        first, second = (ours, theirs) if pair % 2 == 0 else (theirs, ours)
        times = {first: seconds(first), second: seconds(second)}
        runs.append((times[ours], times[theirs]))
    clock, processor = (
        [their_times[kind] / our_times[kind] for our_times, their_times in runs] for kind in (0, 1)
    )
    fastest = [min(run[side][0] for run in runs) for side in (0, 1)]
    print(
        f"{name:32} clock {summary(clock, '.2f')}   processor {summary(processor, '.2f')}   "
        f"best {fastest[0]:.2f} s, the other {fastest[1]:.2f} s",
        flush=True,
    )


def without_gradients(model: Callable[[], Tensor]) -> Work:
    """Return a forward pass that keeps nothing for a backward pass."""

    def forward() -> None:
        with torch.no_grad():
            model()

    return forward


def training_step(model: nn.Module, loss: Callable[[], Tensor], fused: bool = True) -> Work:
    """Return one step of training: the loss, backward, AdamW."""
    # So small a rate leaves the models the same from the first pair to the last.
    settings = {"lr": 1e-9, "weight_decay": 0.1} | ({"fused": True} if fused else {})
    optimizer = torch.optim.AdamW(model.parameters(), **settings)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss of each next token."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def transformers_gpt2(drop_rate: float) -> GPT2LMHeadModel:
    """Build transformers' GPT-2 of the same size, with its own defaults for everything else."""
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), drop_rate)
    return GPT2LMHeadModel(GPT2Config(**rates))


def compare_models(drop_rate: float, shapes: list[tuple[int, int]], pairs: int) -> None:
    """Compare forward passes in eval mode and training steps, at one dropout rate."""
    ours, theirs = GPT(GPTConfig(drop_rate=drop_rate)), transformers_gpt2(drop_rate)
    for batch, length in shapes:
        ids = torch.randint(50_257, (batch, length + 1))
        inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

        def our_logits(inputs: Tensor = inputs) -> Tensor:
            return ours(inputs)

        def their_logits(inputs: Tensor = inputs) -> Tensor:
            return theirs(inputs, use_cache=False).logits

        def our_loss(targets: Tensor = targets, logits: Callable[[], Tensor] = our_logits):
            return cross_entropy(logits(), targets)

        def their_loss(targets: Tensor = targets, logits: Callable[[], Tensor] = their_logits):
            return cross_entropy(logits(), targets)

        def their_own_loss(inputs: Tensor = inputs) -> Tensor:
            return theirs(inputs, labels=inputs, use_cache=False).loss

        name = f"{batch}x{length}, dropout {drop_rate:g}"
        if drop_rate == 0:  # in eval mode the rate makes no difference
            ours.eval(), theirs.eval()
            forward = without_gradients(our_logits), without_gradients(their_logits)
            compare(f"forward {batch}x{length}", *forward, pairs)
        ours.train(), theirs.train()
        our_step, their_step = training_step(ours, our_loss), training_step(theirs, their_loss)
        compare(f"same step {name}", our_step, their_step, pairs)
        del their_step  # its optimizer holds a gigabyte
        usual_step = training_step(theirs, their_own_loss, fused=False)
        compare(f"usual step {name}", our_step, usual_step, pairs)


def compare_heads(length: int, pairs: int) -> None:
    """Compare the output head's product with functional.linear's, which is the other way round."""
    head = OutputHead(GPTConfig(), nn.Embedding(50_257, 768))
    x = torch.randn(1, length, 768)
    ours = without_gradients(lambda: head(x))
    other = without_gradients(lambda: functional.linear(x, head.weight))
    compare(f"output head 1x{length}, linear", ours, other, pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7, help="at least 2")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--shapes", nargs="+", default=["1x1024", "4x256", "8x64"])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.0, 0.1])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, transformers {__version__}, {options.threads} threads")
    built = [seconds(lambda: GPT(GPTConfig())) for _ in range(3)]
    clock, processor = (min(kind) for kind in zip(*built, strict=True))
    print(f"building the 124M model: {clock:.2f} s on the clock, {processor:.2f} s of processor")
    print("times of the other over ours, median [quartiles]:")
    compare_heads(1_024, options.pairs)
    shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes]
    for rate in options.rates:
        compare_models(rate, shapes, options.pairs)


if __name__ == "__main__":
    main()
