"""What a training run measured on its way, and its picture."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate
from typing import TYPE_CHECKING, Any

# Only a picture needs matplotlib: it takes long to import, and a home folder.
if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class History:
    """The record of a training run: a number for each step, and the losses on held-out text.

    ``losses`` are in nats per token, ``norms`` the lengths of the gradients before clipping,
    ``tokens`` the targets seen and ``seconds`` the time taken, each for one step.
    ``evaluations`` are pairs: after how many steps, and the loss on held-out text.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """How many steps were done."""
        return len(self.losses)

    def add_step(self, loss: float, norm: float, tokens: int, seconds: float) -> None:
        """Add what one step measured."""
        self.losses.append(loss)
        self.norms.append(norm)
        self.tokens.append(tokens)
        self.seconds.append(seconds)

    def add_evaluation(self, loss: float) -> None:
        """Add the loss on held-out text after the steps done so far."""
        self.evaluations.append((self.steps, loss))

    def summary(self) -> str:
        """Say in a few words how it goes: the loss, the last one on held-out text, the speed."""
        recent = slice(-50, None)
        speed = sum(self.tokens[recent]) / max(sum(self.seconds[recent]), 1e-9)
        parts = [f"loss {self.losses[-1]:.3f}"] if self.losses else []
        if self.evaluations:
            parts.append(f"held out {self.evaluations[-1][1]:.3f}")
        return ", ".join([*parts, f"{speed:,.0f} tokens/s"])

    def smoothed(self, width: int = 25) -> list[float]:
        """Return the mean of the last ``width`` losses, or of fewer at the start, at each step.

        Raises ``ValueError`` if ``width`` is below 1.
        """
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width!r}")
        sums = [0.0, *accumulate(self.losses)]
        firsts = [max(0, step - width) for step in range(1, self.steps + 1)]
        return [
            (sums[step] - sums[first]) / (step - first)
            for step, first in enumerate(firsts, start=1)
        ]

    def plot(self, floor: float | None = None, title: str = "Loss in training") -> Figure:
        """Draw the losses against the steps, and the floor that they cannot cross.

        The loss starts at 0, so that its height above the floor can be judged. The first losses are
        several times the last ones: where they would press the rest flat, they run out at the top,
        and a note says where they began.
        """
        from gptlib import figures

        figure: Figure
        figure, axes = figures.new()
        blue, orange, gray, ink = (figures.PALETTE[n] for n in ("blue", "orange", "gray", "ink"))
        width = max(5, self.steps // 50)
        smoothed = self.smoothed(width)
        top = self._top(smoothed, floor)
        steps = range(1, self.steps + 1)
        axes.plot(steps, self.losses, color=_PALE, linewidth=0.7)
        axes.plot(steps, smoothed, color=blue, label=f"training, mean of {width} steps")
        if self.evaluations:
            at, losses = zip(*self.evaluations, strict=True)
            axes.plot(at, losses, "o-", color=orange, ms=4, lw=1, label="held-out text")
        if floor is not None:
            axes.axhline(floor, color=ink, linestyle="--", linewidth=1.2)
            _note(axes, f"floor {floor:.3f}", (0.01 * self.steps, floor), "bottom", ink)
        if smoothed and smoothed[0] > top:
            enters = next((step for step, loss in enumerate(smoothed, 1) if loss <= top), 1)
            where = (enters + 0.01 * self.steps, 0.99 * top)
            _note(axes, f"from {self.losses[0]:.1f} at first", where, "top", gray)
        axes.set(title=title, xlabel="steps", ylabel="loss (nats per token)")
        axes.set(xlim=(0, max(self.steps, 1)), ylim=(0, top))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend(loc="upper right")
        return figure

    def _top(self, smoothed: Sequence[float], floor: float | None) -> float:
        """Return the highest loss to show: what came after a tenth of the steps fits under it."""
        start = self.steps // 10
        later = [*smoothed[start:], *(loss for step, loss in self.evaluations if step > start)]
        highest, of_all = max(later, default=1.0), max(self.losses, default=1.0)
        return max(min(1.3 * highest, 1.05 * max(of_all, highest)), 1.5 * (floor or 0.0))

    def to_json(self) -> dict[str, Any]:
        """Return the record in JSON's types."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Sequence[Any]]) -> History:
        """Return the history that :meth:`to_json` wrote; ``KeyError`` if a part is missing."""
        history = cls(**{part.name: list(record[part.name]) for part in fields(cls)})
        history.evaluations = [(int(step), float(loss)) for step, loss in history.evaluations]
        for name in ("losses", "norms", "seconds"):
            setattr(history, name, [float(number) for number in getattr(history, name)])
        history.tokens = [int(number) for number in history.tokens]
        if not history.steps == len(history.norms) == len(history.tokens) == len(history.seconds):
            raise ValueError("its parts are of different lengths")
        return history


class LivePlot:
    """Draws a history in one place of a notebook, anew each time it is called with it.

    To be given to :func:`gptlib.training.train` as ``on_evaluate``. Outside a notebook it does
    nothing. The words for whoever cannot see the picture do not change with it; the numbers are in
    ``history.summary()``.
    """

    def __init__(self, floor: float | None = None, title: str = "Loss in training") -> None:
        self.floor, self.title = floor, title
        self._display: Any = None

    def __call__(self, history: History) -> None:
        """Draw the history, in the place of the picture before."""
        if not _in_notebook():
            return
        from IPython.display import display

        from gptlib import figures

        data, metadata = figures.bundle(history.plot(self.floor, self.title), self._alt(history))
        if self._display is None:
            self._display = display(data, raw=True, metadata=metadata, display_id=True)
        else:
            self._display.update(data, raw=True, metadata=metadata)

    def _alt(self, history: History) -> str:
        parts = ["the loss of each step, pale", "a line for their running mean"]
        parts += ["points for held-out text"] if history.evaluations else []
        parts += [f"a dashed line for the floor at {self.floor:.3f}"] if self.floor else []
        return (
            f"{self.title}, in nats per token, against the steps done so far: "
            f"{', '.join(parts[:-1])}, and {parts[-1]}."
        )


_PALE = "#CBD5DD"


def _note(axes: Any, words: str, place: tuple[float, float], side: str, color: str) -> None:
    """Write words at a place of the picture; ``side`` is which side of the words is there."""
    gap = (0, 3) if side == "bottom" else (0, 0)
    shift = {"xytext": gap, "textcoords": "offset points"}
    axes.annotate(words, place, ha="left", va=side, fontsize=9, color=color, **shift)


def _in_notebook() -> bool:
    """Say whether a kernel runs this code, and not a terminal or a script."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")
