"""Train the stories' vocabulary again: write its asset, and its hash in gptlib/tokenizer.py.

Run it whenever gptlib/stories.py changes what it samples, or gptlib/tokenizer.py how it trains.
"""

import base64
import hashlib
import re
import sys
from pathlib import Path

from gptlib import stories, tokenizer

ROOT = Path(__file__).resolve().parent.parent
ASSET = ROOT / "gptlib" / "assets" / "stories.tiktoken"
MODULE = ROOT / "gptlib" / "tokenizer.py"
N_STORIES = 4_000
VOCAB_SIZE = 2_048


def contents() -> bytes:
    """Return the asset: a line for each token in tiktoken's format, its base64 and its id."""
    # GPT2_PATTERN splits at a line break alone, so joining with one makes no pair of its own.
    text = "\n".join(stories.sample(N_STORIES, seed=stories.TRAIN_SEED))
    encoding = tokenizer.train_bpe(text, VOCAB_SIZE, [tokenizer.END_OF_TEXT])
    tokens = tokenizer.token_bytes(encoding)[:-1]
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    return b"".join(lines)


def main() -> None:
    """Write the asset and its hash."""
    data = contents()
    digest = hashlib.sha256(data).hexdigest()
    source = MODULE.read_text(encoding="utf-8")
    source, replaced = re.subn(
        r'("stories\.tiktoken": )"[0-9a-f]{64}"', rf'\g<1>"{digest}"', source
    )
    if replaced != 1:
        sys.exit(f"{MODULE} must name the hash of stories.tiktoken once, found it {replaced} times")
    ASSET.write_bytes(data)
    MODULE.write_text(source, encoding="utf-8", newline="\n")
    print(f"{ASSET.relative_to(ROOT)}: {VOCAB_SIZE:,} entries, SHA-256 {digest}")


if __name__ == "__main__":
    main()
