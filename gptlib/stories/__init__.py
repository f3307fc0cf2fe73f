"""Very short stories whose probabilities are known: text to train on, and a judge of text.

The stories come from the grammar in ``assets/stories.grammar``. Every story has exactly one
derivation, so its probability is exact, the entropy of a story is a number and not an
estimate, and a text can be read back choice by choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING

from gptlib.stories import engine as engine
from gptlib.stories.notation import Grammar, parse
from gptlib.stories.verdict import Verdict, judge_text

if TYPE_CHECKING:
    from tiktoken import Encoding

__all__ = [
    "TRAIN_SEED",
    "VALIDATION_SEED",
    "Floor",
    "Verdict",
    "count",
    "entropy",
    "entropy_per_token",
    "judge",
    "log_prob",
    "sample",
    "words",
]

TRAIN_SEED = 0
VALIDATION_SEED = 1


@cache
def grammar() -> Grammar:
    """Return the grammar of the stories, read and checked once."""
    asset = files("gptlib") / "assets" / "stories.grammar"
    return parse(asset.read_text(encoding="utf-8"))


def sample(n: int, seed: int = TRAIN_SEED) -> list[str]:
    """Draw n stories, the same ones for the same seed on every machine.

    The first stories of a longer sample are the shorter sample: ``sample(10, s)[:5]`` equals
    ``sample(5, s)``. Only ``random.Random(seed).random()`` is drawn from.

    Raises:
        TypeError: n or seed is not an int.
        ValueError: n or seed is negative.
    """
    _require_count("n", n, least=0)
    _require_count("seed", seed, least=0)
    random = Random(seed).random
    return [engine.tell(grammar(), random) for _ in range(n)]


def log_prob(story: str) -> float:
    """Return the natural log of a story's exact probability; -inf for what is not a story.

    Raises:
        TypeError: ``story`` is not a str.
    """
    _require_text("story", story)
    return engine.log_prob(grammar(), story)


@cache
def entropy() -> float:
    """Return the entropy of a story in nats: the mean of -log_prob over all stories.

    It is summed over the grammar, not estimated from a sample.
    """
    return engine.entropy(grammar())


@cache
def count() -> int:
    """Count the different stories, exactly."""
    return engine.count(grammar())


def words() -> list[str]:
    """All different words the stories can use, sorted.

    A word is a run of letters, hyphens inside it included; a possessive 's is not part of it.
    It is listed with a capital only if it is always written so: names, days, "I".
    """
    return sorted(engine.vocabulary(grammar()))


def judge(text: str) -> Verdict:
    """Say how far a text follows the grammar; ``Verdict`` defines each part of the answer.

    Raises:
        TypeError: ``text`` is not a str.
    """
    _require_text("text", text)
    return judge_text(grammar(), text)


@dataclass(frozen=True)
class Floor:
    """The lowest mean loss that any model of the stories can reach with some vocabulary.

    Attributes:
        nats_per_token: entropy of a story / expected tokens in it, its end-of-text included.
        standard_error: of that ratio; it comes from the token count, the entropy is exact.
    """

    nats_per_token: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.nats_per_token:.4f} ± {self.standard_error:.4f} nats per token"


def entropy_per_token(encoding: Encoding, n: int = 2_000, seed: int = VALIDATION_SEED) -> Floor:
    """Return the floor of the loss, in nats per token, for stories in this vocabulary.

    Each story is followed by one end-of-text token. It adds a token and no entropy: no story
    is the beginning of another one, so the end never comes as a surprise. The mean number of
    tokens m is taken from ``sample(n, seed)``; with H the entropy and s the standard deviation
    of that number, the floor is H / m, and its standard error H s / (m² √n), to first order.

    Raises:
        TypeError: ``encoding`` is not a tiktoken.Encoding, or n or seed is not an int.
        ValueError: n is less than 2, or seed is negative.
    """
    import tiktoken  # here, so that telling stories needs no tokenizer

    if not isinstance(encoding, tiktoken.Encoding):
        raise TypeError(
            f"encoding is a tiktoken.Encoding, not {type(encoding).__name__}: {encoding!r}"
        )
    _require_count("n", n, least=2)
    lengths = [len(encoding.encode_ordinary(story)) + 1 for story in sample(n, seed)]
    mean = sum(lengths) / n
    deviation = math.sqrt(sum((length - mean) ** 2 for length in lengths) / (n - 1))
    return Floor(entropy() / mean, entropy() * deviation / (mean**2 * math.sqrt(n)))


def _require_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is an int, not {type(value).__name__}: {value!r}")
    if value < least:
        raise ValueError(f"{name} is {least} or more, not {value}")


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {type(value).__name__}: {value!r}")
