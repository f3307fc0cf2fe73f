"""How fast stories are told and read: MB/s of ``sample`` and ``log_prob``, best of five runs.

Run: python benchmarks/stories.py [number of stories]
"""

import sys
from collections.abc import Callable
from time import perf_counter

from gptlib import stories


def megabytes_per_second(work: Callable[[], object], megabytes: float, runs: int = 5) -> float:
    """Return the best rate of several runs; other work on the machine only slows a run down."""
    seconds = []
    for _ in range(runs):
        start = perf_counter()
        work()
        seconds.append(perf_counter() - start)
    return megabytes / min(seconds)


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    sample = stories.sample(n, seed=0)  # also reads the grammar, once
    megabytes = sum(len(story.encode()) for story in sample) / 1e6
    told = megabytes_per_second(lambda: stories.sample(n, seed=0), megabytes)
    read = megabytes_per_second(lambda: [stories.log_prob(story) for story in sample], megabytes)
    print(f"{n:,} stories, {megabytes:.2f} MB")
    print(f"sample    {told:6.2f} MB/s")
    print(f"log_prob  {read:6.2f} MB/s")


if __name__ == "__main__":
    main()
