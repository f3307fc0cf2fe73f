"""How fast the tokenizer loads, learns and encodes: python benchmarks/tokenizer.py."""

import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Callable

from gptlib import stories
from gptlib.tokenizer import END_OF_TEXT, gpt2, train_bpe
from gptlib.tokenizer import stories as stories_encoding

VOCAB_SIZE = 2_048
RUNS = 5


def best(work: Callable[[], object], runs: int = RUNS) -> float:
    """Return the shortest of several times, in seconds: what is above it is the machine's noise."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def seconds_in_new_process(before: str, timed: str) -> float:
    """Return how long `timed` takes in a fresh interpreter in which `before` has run."""
    script = f"import time\n{before}\nstart = time.perf_counter()\n{timed}\n"
    command = [sys.executable, "-c", script + "print(time.perf_counter() - start)"]
    return min(float(subprocess.check_output(command)) for _ in range(RUNS))


def megabyte_of_words() -> str:
    """Return 1 MB of 30,000 made-up words, frequent and rare ones, as in natural text."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 9))) for _ in range(30_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    return " ".join(rng.choices(words, weights, k=200_000))[:1_000_000]


def megabyte_without_blanks() -> str:
    """Return 1 MB of four letters in one piece: the hardest text to learn from."""
    return "".join("abcd"[byte % 4] for byte in hashlib.shake_256(b"").digest(1_000_000))


def main() -> None:
    tokenizer_import = "from gptlib import tokenizer"
    for name in ("gpt2", "stories"):
        load = f"tokenizer.{name}()"
        alone = seconds_in_new_process(tokenizer_import, load)
        whole = seconds_in_new_process("", f"{tokenizer_import}\n{load}")
        print(f"load {name}(): {alone:.3f} s, with the imports {whole:.3f} s")

    text = "\n".join(stories.sample(4_000))[:1_000_000]
    texts = {"stories": text, "words": megabyte_of_words(), "one piece": megabyte_without_blanks()}
    for name, sample in texts.items():
        seconds = best(lambda sample=sample: train_bpe(sample, VOCAB_SIZE, [END_OF_TEXT]), runs=3)
        print(f"train_bpe, {len(sample):,} bytes of {name} to {VOCAB_SIZE:,}: {seconds:.2f} s")

    for encoding in (gpt2(), stories_encoding()):
        seconds = best(lambda encoding=encoding: encoding.encode_ordinary(text))
        n_tokens = len(encoding.encode_ordinary(text))
        megabytes = len(text.encode()) / 1e6
        print(
            f"encode with {encoding.name}: {megabytes / seconds:.1f} MB/s, "
            f"{n_tokens / seconds / 1e6:.2f} million tokens/s, "
            f"{len(text.encode()) / n_tokens:.2f} bytes a token"
        )


if __name__ == "__main__":
    main()
