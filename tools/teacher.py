"""Lessons after a training: the exact answers, above all where a model gets them wrong.

The stories come from a grammar, and so the probability of every next token is known. A model that
learns from stories sees of it one token, drawn by chance. Its lessons ask for the probabilities
themselves: training on what another predictor expects is called distillation (Hinton, Vinyals and
Dean, 2015). And they ask where it matters. Most tokens are learned soon. A rule that decides one
token in thousands, such as from a child's name to what this child does, drowns among them; where
it is asked in every row, it is learned within a few hundred steps.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context

import torch
from torch import Tensor, nn
from torch.nn import functional

from gptlib import tokenizer
from gptlib.data import IGNORED, StoryBatches
from gptlib.stories.surprise import Follower
from gptlib.training.loop import TrainingRun, autocast

Answer = tuple[tuple[int, float], ...]  # each token that may come, and its probability


@dataclass(frozen=True)
class Answers:
    """What may come at every token of a stream, each different answer stored once.

    ``numbers``, ``(S,)``, say for each of the stream's ``S`` tokens which answer is the one there.
    ``tokens`` and ``shares``, both ``(N, K)``, are the ``N`` answers: up to ``K`` tokens that may
    come, and their probabilities, padded with zeros.
    """

    numbers: Tensor
    tokens: Tensor
    shares: Tensor

    def cross_entropy(self, logits: Tensor, places: Tensor) -> Tensor:
        """Return the losses that ``logits``, ``(A, V)``, must expect at places of the stream."""
        numbers = self.numbers[places]  # (A,)
        log_probs = logits.float().log_softmax(dim=-1).gather(1, self.tokens[numbers])  # (A, K)
        return -(self.shares[numbers] * log_probs).sum(dim=-1)  # (A,)

    def wasted(self, logits: Tensor, places: Tensor) -> Tensor:
        """Return the probability, ``(A,)``, that ``logits`` give to what cannot come."""
        numbers = self.numbers[places]  # (A,)
        given = logits.float().softmax(dim=-1).gather(1, self.tokens[numbers])  # (A, K)
        return 1 - (given * (self.shares[numbers] > 0)).sum(dim=-1)


def joined(first: Answers, second: Answers) -> Answers:
    """Return the answers for the stream of the first's texts and then the second's."""
    width = max(first.tokens.shape[1], second.tokens.shape[1])

    def table(name: str) -> Tensor:
        parts = (getattr(answers, name) for answers in (first, second))
        return torch.cat([functional.pad(part, (0, width - part.shape[1])) for part in parts])

    numbers = torch.cat([first.numbers, second.numbers[1:] + len(first.tokens)])
    return Answers(numbers, table("tokens"), table("shares"))


def answers_to(texts: Sequence[str]) -> Answers:
    """Ask the grammar at every token of the stream that ``gptlib.data.stream_of`` makes of stories.

    It takes all cores. The stream's first token, an end-of-text, has no answer of its own.
    """
    known: dict[Answer, int] = {((tokenizer.stories().eot_token, 1.0),): 0}
    numbers = [torch.zeros(1, dtype=torch.int64)]
    parts = [texts[start : start + 500] for start in range(0, len(texts), 500)]
    # A forked process would wait forever for the threads that PyTorch has in this one.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for local, answers in pool.map(_ask, parts):
            number = torch.tensor([known.setdefault(answer, len(known)) for answer in answers])
            numbers.append(number[local])
    tokens, shares = torch.zeros(2, len(known), max(map(len, known))).unbind()
    for row, answer in enumerate(known):
        tokens[row, : len(answer)] = torch.tensor([token for token, _ in answer])
        shares[row, : len(answer)] = torch.tensor([share for _, share in answer])
    return Answers(torch.cat(numbers), tokens.long(), shares)


def _ask(texts: Sequence[str]) -> tuple[Tensor, list[Answer]]:
    """Return the number of the answer at each token of some stories, and the answers."""
    encoding = tokenizer.stories()
    known: dict[Answer, int] = {}
    numbers = []
    for text in texts:
        follower = Follower(encoding)
        for token in (*encoding.encode_ordinary(text), encoding.eot_token):
            answer = tuple((i, round(p, 9)) for i, p in sorted(follower.next.items()))
            numbers.append(known.setdefault(answer, len(known)))
            follower.read(token)
    return torch.tensor(numbers), list(known)


def with_places(rows: StoryBatches) -> StoryBatches:
    """Return the same batches, with the places in the stream instead of the tokens there."""
    places = copy.copy(rows)
    places.stream = torch.arange(len(rows.stream))
    return places


@torch.no_grad()
def wasted(model: nn.Module, rows: StoryBatches, answers: Answers) -> Tensor:
    """Return what a model gives, at each token of the stream, to what cannot come: ``(S,)``."""
    found, all_places = torch.zeros(len(rows.stream)), with_places(rows)
    for numbers in rows.lengths.argsort().split(64):  # of similar length, which saves padding
        places = all_places.rows(numbers)[1]  # (B, T)
        asked = places != IGNORED
        with autocast(places.device, "auto"):
            logits = model(rows.rows(numbers)[0])  # (B, T, V)
        found[places[asked]] = answers.wasted(logits[asked], places[asked])
    return found


def hard_pairs(stream: Tensor, hard: Tensor) -> Counter[tuple[int, int]]:
    """Count the hard tokens of a stream, each with the token after it.

    ``hard`` says it of each token, ``(S,)``. What is hard once or twice may be chance: left out.
    """
    first = hard[:-1].nonzero().flatten()
    pairs = Counter(zip(stream[first].tolist(), stream[first + 1].tolist(), strict=True))
    return Counter({pair: count for pair, count in pairs.items() if count > 2})


def more_of(pairs: Counter[tuple[int, int]], texts: Sequence[str], at_least: int) -> list[str]:
    """Return texts that have one of the pairs, until each of these has come ``at_least`` times."""
    encoding, found, counts = tokenizer.stories(), [], pairs.copy()
    for text in texts:
        ids = encoding.encode_ordinary(text)
        wanted = {p for p in pairwise(ids) if 0 < counts[p] < at_least}
        if wanted:
            found.append(text)
            counts.update(wanted)
    return found


class Places:
    """The batches of ``rows``, with places in the stream as targets."""

    def __init__(self, rows: StoryBatches) -> None:
        self.rows, self.places = rows, with_places(rows)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs of a step, and the places of its targets, both ``(B, T)``."""
        return self.rows.batch(step)[0], self.places.batch(step)[1]

    def describe(self) -> dict[str, object]:
        """Say what the batches are made of, in JSON's types."""
        return {**self.rows.describe(), "kind": type(self).__name__}


class Lessons:
    """Batches of beginnings that end with a hard token, and of some whole stories.

    ``hard``, ``(S,)``, says which tokens of the stream are. ``n_beginnings`` rows of a batch end
    with the last hard token of their text, and are of similar length. ``n_stories`` are whole, and
    from the first ``n_whole`` texts, so that the rest stays in mind. The targets are places.
    """

    def __init__(
        self,
        rows: StoryBatches,
        hard: Tensor,
        *,
        n_beginnings: int,
        n_stories: int,
        n_whole: int,
        seed: int = 0,
    ) -> None:
        self.rows, self.n_whole, self.seed = rows, n_whole, seed
        self.n_beginnings, self.n_stories = n_beginnings, n_stories
        self.places = with_places(rows)
        text = torch.arange(len(rows.starts)).repeat_interleave(rows.lengths)  # of tokens 1 to S
        where = hard[1:].nonzero().flatten()
        ends = torch.zeros(len(rows.starts), dtype=torch.int64)
        ends[text[where]] = where + 1 - rows.starts[text[where]]  # the last one stays
        self.order = ends.argsort(stable=True)[int((ends == 0).sum()) :]
        self.ends = ends[self.order]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs of a step, and the places of its targets, both ``(B, T)``."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        last = len(self.order) - self.n_beginnings
        first = int(torch.randint(last + 1, (), generator=generator))
        some = slice(first, first + self.n_beginnings)
        whole = torch.randint(self.n_whole, (self.n_stories,), generator=generator)
        texts = torch.cat([self.order[some], whole])
        ends = torch.cat([self.ends[some], self.rows.lengths[whole]])  # (B,)
        inputs, places = self.rows.rows(texts)[0], self.places.rows(texts)[1]  # (B, T)
        width = int(ends.max())
        after = torch.arange(width) >= ends[:, None]
        return inputs[:, :width], places[:, :width].masked_fill(after, IGNORED)

    def describe(self) -> dict[str, object]:
        """Say what the batches are made of, in JSON's types."""
        size = {"batch_size": self.n_beginnings + self.n_stories, "seed": self.seed}
        hard = {"beginnings": len(self.order), "tokens": int(self.ends.sum())}
        return {**self.rows.describe(), "kind": type(self).__name__, **size, **hard}


@dataclass
class LessonRun(TrainingRun):
    """A training on batches with places as targets; only the loss is not as in every training.

    ``weights``, ``(S,)``, say how much each token of the stream counts.
    """

    answers: Answers = field(kw_only=True)
    weights: Tensor = field(kw_only=True)

    def compute_gradients(self, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """Leave the gradient of a batch in the model, clipped; return its loss and its length."""
        pieces = self.config.accumulate
        total = self.weights[targets[targets != IGNORED]].sum()
        nats = 0.0
        for rows, places in zip(inputs.chunk(pieces), targets.chunk(pieces), strict=True):
            asked = places != IGNORED
            width = int(asked.any(dim=0).sum())
            with autocast(rows.device, self.config.precision):
                logits = self.model(rows[:, :width])  # (B, T, V)
            losses = self.answers.cross_entropy(logits[asked[:, :width]], places[asked])  # (A,)
            loss = (losses * self.weights[places[asked]]).sum() / total
            loss.backward()  # type: ignore[no-untyped-call]
            nats += loss.item()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        return nats, norm.item()
