"""What a training step keeps for the backward pass: the closed form beside what is measured.

Run: python benchmarks/memory.py [--models mini gpt2] [--tokens 1024]

Each line is a fresh process that runs the forward pass and the loss of one batch with random
weights, on the CPU. "formula" is gptlib.accounting; "saved" adds up what autograd saved, each
storage once, without the parameters; "resident" is by how much the process grew until then, by the
system's own count: it also has the logits and whatever the allocator keeps. Checkpointed, what one
block needs when it is computed again comes later, and is in neither.
"""

import argparse
import dataclasses
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from gptlib import accounting
from gptlib.config import FAMILY, GPTConfig
from gptlib.kv_cache import KVCache
from gptlib.model import GPT
from gptlib.training import cross_entropy

MIB = 2**20


def resident_bytes() -> int:
    """Return how much memory this process has now; 0 where the system does not say (not Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


@contextmanager
def counted(model: GPT) -> Iterator[dict[int, int]]:
    """Collect the bytes of each storage that autograd saves, but for the parameters'."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def measure(job: tuple[GPTConfig, int, str, str, bool]) -> tuple[int, int]:
    """Return what autograd saved for one batch, and by how much the process grew."""
    config, batch_size, dtype, attention, checkpointed = job
    model = GPT(config).to(getattr(torch, dtype))
    ids = torch.randint(config.vocab_size, (batch_size, config.context_length))
    plain = sdpa_kernel(SDPBackend.MATH) if attention == "plain" else nullcontext()
    with plain:
        cross_entropy(model(ids[:1, :8]), ids[:1, :8])  # asks for what is needed only once
        if checkpointed:
            for block in model.blocks:
                block.forward = lambda x, forward=block.forward: checkpoint(
                    forward, x, use_reentrant=False
                )
        before = resident_bytes()
        with counted(model) as sizes:
            loss = cross_entropy(model(ids), ids)
        grown = resident_bytes() - before
    assert loss.isfinite()
    return sum(sizes.values()), grown


def alone(job: tuple[GPTConfig, int, str, str, bool]) -> tuple[int, int]:
    """Measure in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (job,))


def formula(job: tuple[GPTConfig, int, str, str, bool]) -> int:
    """Return what gptlib.accounting says is kept at the end of the forward pass."""
    config, batch_size, dtype, attention, checkpointed = job
    arguments = (config, batch_size, None, dtype, attention)
    if not checkpointed:
        return sum(accounting.activation_bytes(*arguments).values())
    kept = accounting.checkpointed_activation_bytes(*arguments)
    return kept["block_inputs"] + kept["outside"]


def report(name: str, n_tokens: int) -> None:
    """Print the lines of one model."""
    family = FAMILY[name]
    rows = max(1, n_tokens // family.context_length)
    n_bytes = accounting.format_bytes(accounting.weight_bytes(family))
    print(f"{name}: {rows} rows of {family.context_length}, weights {n_bytes} as float32, in MiB")
    print(f"  {'':34} {'formula':>9} {'saved':>9} {'off':>7} {'resident':>9}")
    for dtype, drop_rate, attention, checkpointed in (
        ("float32", 0.0, "auto", False),
        ("float32", 0.0, "plain", False),
        ("float32", 0.1, "auto", False),
        ("bfloat16", 0.0, "auto", False),
        ("float32", 0.0, "auto", True),
    ):
        config = dataclasses.replace(family, drop_rate=drop_rate)
        job = (config, rows, dtype, attention, checkpointed)
        expected, (saved, grown) = formula(job), alone(job)
        words = f"{dtype}, dropout {drop_rate:g}, {attention}{', checkpointed' * checkpointed}"
        off = f"{expected / saved - 1:+.2%}"
        figures = f"{expected / MIB:9.1f} {saved / MIB:9.1f} {off:>7} {grown / MIB:9.1f}"
        print(f"  {words:34} {figures}", flush=True)
    cache = KVCache(family, torch.zeros(1), 1)
    size = sum(tensor.nbytes for tensor in cache.keys + cache.values)
    print(f"  KV cache of one text {accounting.kv_cache_bytes(family) / MIB:.1f}, {size / MIB:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["mini", "gpt2"], choices=list(FAMILY))
    parser.add_argument("--tokens", type=int, default=1024, help="in a batch of the model")
    options = parser.parse_args()
    print(f"torch {torch.__version__}")
    for name in options.models:
        report(name, options.tokens)


if __name__ == "__main__":
    main()
