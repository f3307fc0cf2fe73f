"""How long a folder with GPT-2 124M takes to load beside transformers, and in how much memory.

Run: python benchmarks/pretrained.py [--pairs 15] [--threads 2] [--folder FOLDER]

Ours is gptlib.pretrained.load, theirs GPT2LMHeadModel.from_pretrained, both in float32 from the
same folder: random numbers in float32, made here, or the one that is given. Both libraries are
imported, and have loaded it once, before the clock starts; what they read lies in the system's
file cache. Ours and theirs take turns, and each pair of neighbors gives one ratio, so that what
slows the machine for a while slows both. Printed are the median of the ratios, above 1 where ours
takes longer, and their quartiles: by the clock, and by the processor time of all threads, which
other programs disturb less.

Memory is that of a process of its own, for each library and type. Printed is the most that it ever
had (Linux's VmHWM) less what it had after its imports, just before it loads (VmRSS), over the size
of the file. The pages of the mapped file that are in memory count.
"""

import argparse
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from gptlib.config import FAMILY
from gptlib.model import GPT
from gptlib.pretrained import load, save

PEAK = """
import sys, torch
from pathlib import Path
if sys.argv[1] == "ours":
    from gptlib.pretrained import load
else:
    from transformers import GPT2LMHeadModel

    def load(folder, dtype):
        return GPT2LMHeadModel.from_pretrained(folder, dtype=dtype)

def memory(which):
    (line,) = [line for line in Path("/proc/self/status").open() if line.startswith(which)]
    return 1024 * int(line.split()[1])

before = memory("VmRSS:")
model = load(sys.argv[2], dtype=getattr(torch, sys.argv[3]))
print(memory("VmHWM:") - before)
"""


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the time on the clock and the processor time that some work takes."""
    gc.collect()  # the model before goes first
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def compare_times(folder: Path, pairs: int) -> None:
    """Load a folder in turns, and print the ratios of the times."""
    from transformers import GPT2LMHeadModel, __version__
    from transformers.utils import logging

    logging.disable_progress_bar()
    works = [lambda: load(folder), lambda: GPT2LMHeadModel.from_pretrained(folder)]
    for work in works:
        work()
    runs = []
    for pair in range(pairs):
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        times = {side: seconds(works[side]) for side in order}
        runs.append((times[0], times[1]))
    print(f"time to load, over that of transformers {__version__}:")
    for kind, name in enumerate(("clock", "processor")):
        ratios = [ours[kind] / theirs[kind] for ours, theirs in runs]
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        ours, theirs = (statistics.median(run[side][kind] for run in runs) for side in (0, 1))
        print(
            f"  {name:10} {median:.2f} [{low:.2f} to {high:.2f}]   medians {ours:.2f} s, "
            f"theirs {theirs:.2f} s"
        )


def compare_memory(folder: Path) -> None:
    """Print what loading adds to the memory of a process, over the size of the file."""
    size = (folder / "model.safetensors").stat().st_size
    print(f"peak memory to load, over the file's size ({size / 1e6:.1f} MB):")
    for dtype in ("float32", "bfloat16"):
        peaks = {}
        for library in ("ours", "theirs"):
            command = [sys.executable, "-c", PEAK, library, str(folder), dtype]
            process = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[library] = int(process.stdout)
        shares = ", ".join(f"{name} {peak / size:.3f}" for name, peak in peaks.items())
        print(f"  {dtype:10} {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="a checkpoint; random numbers if none is given")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, {args.pairs} pairs")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or save(GPT(FAMILY["gpt2"]), temporary)
        compare_times(folder, args.pairs)
        if sys.platform == "linux":
            compare_memory(folder)


if __name__ == "__main__":
    main()
