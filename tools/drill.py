"""Find where a model gives probability to what cannot come, and train on these places alone.

Most tokens of a story are learned soon, and then each of them still moves the weights a little at
random. A rule that decides one token in 300, and that takes two steps to apply, such as from a
child's name to which of the two children this is, does not emerge from under that noise. Where
almost nothing else is asked, it is learned within a few hundred steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tiktoken import Encoding
from torch import Tensor, nn

from gptlib.data import IGNORED, StoryBatches
from gptlib.story_surprise import Follower


@torch.no_grad()
def impossible(
    model: nn.Module, texts: Sequence[str], encoding: Encoding, rows: StoryBatches
) -> Tensor:
    """Return how much probability a model gives to tokens that cannot come, from 0 to 1.

    ``rows`` holds the same ``N`` texts. The result has a row for each and a column for each token,
    ``(N, T)``. Where a text has ended stands 0.
    """
    wasted = torch.zeros(len(texts), int(rows.lengths.max()))
    for numbers in rows.lengths.argsort().split(100):  # of similar length, which saves padding
        predicted = model(rows.rows(numbers)[0]).softmax(dim=-1).numpy()  # (B, T, V)
        for p, number in zip(predicted, numbers.tolist(), strict=True):
            follower = Follower(encoding)
            for t, token in enumerate(encoding.encode_ordinary(texts[number])):
                wasted[number, t] = 1 - float(sum(p[t, i] for i in follower.next))
                follower.read(token)
    return wasted


class DrillBatches:
    """Batches of stories' beginnings, in which only the ``hard`` tokens, ``(N, T)``, are asked.

    A beginning ends with its last hard token. Beginnings of similar length share a batch.
    """

    def __init__(self, rows: StoryBatches, hard: Tensor, batch_size: int, seed: int = 0) -> None:
        self.rows, self.hard, self.batch_size, self.seed = rows, hard, batch_size, seed
        lengths = (hard * torch.arange(1, hard.shape[1] + 1)).amax(dim=1)  # (N,), 0 without any
        self.order = lengths.argsort(stable=True)[int((lengths == 0).sum()) :]
        self.lengths = lengths[self.order]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs and the targets of a step, both ``(B, T)`` and int64."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        last = len(self.order) - self.batch_size
        start = int(torch.randint(last + 1, (), generator=generator))
        some = slice(start, start + self.batch_size)
        inputs, targets = self.rows.rows(self.order[some])
        width = int(self.lengths[some].max())
        asked = self.hard[self.order[some], :width]
        return inputs[:, :width], targets[:, :width].masked_fill(~asked, IGNORED)

    def describe(self) -> dict[str, object]:
        """Say what the batches are made of, in JSON's types."""
        kind = {"kind": type(self).__name__, "batch_size": self.batch_size, "seed": self.seed}
        return {**self.rows.describe(), **kind, "hard": int(self.hard.sum())}
