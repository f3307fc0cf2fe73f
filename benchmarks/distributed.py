"""How much faster two processes train the mini model than one, each with one thread.

Run: python benchmarks/distributed.py [--pairs 5] [--steps 20] [--batch-size 32] [--sharding ddp]

Both train on the same batches with gptlib.training.distributed under torchrun, through Gloo: one
process takes all rows, each of two half of them. They take turns, and each turn gives one ratio, so
that what slows the machine for a while slows both. A run's speed is the median over its steps,
without the first few. Printed are the speeds, their ratio in each turn, and the median ratio.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace

import torch
import torch.distributed as dist

from gptlib.config import FAMILY
from gptlib.data import WindowBatches
from gptlib.model import GPT
from gptlib.training import TrainingConfig
from gptlib.training.distributed import joined, train_distributed

MINI = replace(FAMILY["mini"], drop_rate=0.0)
WARM_UP = 3


def work(options: argparse.Namespace) -> None:
    """Train as one of the processes that torchrun started; print the tokens in a second."""
    torch.set_num_threads(1)
    with joined():
        ids = torch.randint(MINI.vocab_size, (50_000,), generator=torch.Generator().manual_seed(0))
        batches = WindowBatches(ids, options.batch_size, MINI.context_length)
        config = TrainingConfig(steps=options.steps + WARM_UP, evaluate_every=10**6)
        model = GPT(MINI, torch.Generator().manual_seed(0))
        history = train_distributed(
            model, batches, config, sharding=options.sharding, progress=False
        )
        if dist.get_rank() == 0:
            steps = list(zip(history.tokens, history.seconds, strict=True))[WARM_UP:]
            print(json.dumps(statistics.median(n / seconds for n, seconds in steps)))


def speed(n_processes: int, arguments: list[str]) -> float:
    """Return the tokens in a second of so many processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={n_processes}", __file__, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    return float(json.loads(output))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32, help="rows in all processes together")
    parser.add_argument("--sharding", choices=("ddp", "fsdp"), default="ddp")
    options = parser.parse_args()
    if "RANK" in os.environ:
        return work(options)
    ratios = []
    for pair in range(options.pairs):
        order = (1, 2) if pair % 2 == 0 else (2, 1)
        speeds = {n: speed(n, sys.argv[1:]) for n in order}
        ratios.append(speeds[2] / speeds[1])
        print(
            f"one process {speeds[1]:8,.0f} tokens/s   two {speeds[2]:8,.0f}   "
            f"ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"{options.sharding}: median ratio {statistics.median(ratios):.2f}")
    return None


if __name__ == "__main__":
    main()
