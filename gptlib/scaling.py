"""How the loss falls with size and with text: measured on the stories, and laws fitted to it.

What is fitted is the reducible loss, the loss less the floor that no model can get below. The
stories' floor is known, so there is nothing to guess. ``N`` is a number of parameters, ``D`` a
number of tokens trained on; losses are in nats per token. The runs were made by
``tools/train_scaling.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptlib import accounting
from gptlib.config import GPTConfig


@dataclass(frozen=True)
class Run:
    """One model, trained once, and measured after several numbers of tokens.

    Attributes:
        tokens: how many were trained on, the rate's decay at the end included.
        losses: on held-out stories, after so many tokens.
        learning_rate: the highest one, which was kept until the decay.
        seconds: the time of all of it on one core, evaluations included.
    """

    name: str
    config: GPTConfig
    tokens: tuple[int, ...]
    losses: tuple[float, ...]
    learning_rate: float
    seconds: float

    @property
    def n_parameters(self) -> int:
        """The number of trainable parameters."""
        return accounting.total(self.config)


@dataclass(frozen=True)
class Point:
    """One measurement: a model of ``parameters`` after ``tokens``, and its reducible loss."""

    name: str
    parameters: int
    tokens: int
    reducible: float

    @property
    def flops(self) -> float:
        """What training took, by the rule of thumb ``6 * N * D``."""
        return accounting.six_nd_flops(self.parameters, self.tokens)


@dataclass(frozen=True)
class Trial:
    """A training that a learning rate was chosen by: its loss after so many tokens."""

    name: str
    n_heads: int
    learning_rate: float
    tokens: int
    loss: float


@dataclass(frozen=True)
class Results:
    """All runs, the smallest model first.

    Attributes:
        floor: the loss of the grammar itself on the very stories that the models are measured on.
        trials: every learning rate that was tried, the chosen ones included.
    """

    floor: float
    runs: tuple[Run, ...]
    trials: tuple[Trial, ...] = ()

    def points(self, without: str = "") -> tuple[Point, ...]:
        """Return every measurement, run after run, leaving out the run of that name.

        Raises ``ValueError`` if there is no such run.
        """
        names = [run.name for run in self.runs]
        if without and without not in names:
            raise ValueError(f"there is no run {without!r}, only {', '.join(names)}")
        return tuple(
            Point(run.name, run.n_parameters, tokens, loss - self.floor)
            for run in self.runs
            if run.name != without
            for tokens, loss in zip(run.tokens, run.losses, strict=True)
        )


@cache
def results() -> Results:
    """Return the runs that are stored with the library."""
    record = json.loads((files("gptlib") / "assets" / "scaling.json").read_text("utf-8"))
    runs = [
        Run(
            name=run["name"],
            config=GPTConfig(**run["config"]),
            tokens=tuple(run["tokens"]),
            losses=tuple(run["losses"]),
            learning_rate=run["learning_rate"],
            seconds=run["seconds"],
        )
        for run in record["runs"]
    ]
    runs.sort(key=lambda run: run.n_parameters)
    return Results(record["floor"], tuple(runs), tuple(Trial(**one) for one in record["tried"]))


@dataclass(frozen=True)
class PowerLaw:
    """The law ``y = coefficient * x ** -exponent``, a straight line on log-log axes.

    ``exponent_error`` is the exponent's standard error.
    """

    coefficient: float
    exponent: float
    exponent_error: float

    def predict(self, x: float) -> float:
        """Return the law's y at ``x``."""
        return float(self.coefficient * x**-self.exponent)


def fit_power_law(x: ArrayLike, y: ArrayLike) -> PowerLaw:
    """Fit a power law to points: the line with the least squares through their logarithms.

    Raises ``ValueError`` unless there are a y for every x, 3 points or more, all above 0, and
    more than one x. Built in chapter 7.
    """
    points = np.stack([x, y]).astype(float)  # (2, points)
    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f"a law needs x and y of 3 points, not {points.shape}")
    if not (np.isfinite(points) & (points > 0)).all():
        raise ValueError(f"only numbers above 0 have logarithms, not all of {points}")
    log_x, log_y = np.log(points)
    away = log_x - log_x.mean()
    if log_x.min() == log_x.max():
        raise ValueError(f"a line needs points at different x, not all at {points[0, 0]}")
    slope = away @ log_y / (away @ away)
    residuals = log_y - log_y.mean() - slope * away
    variance = residuals @ residuals / (len(away) - 2)  # two numbers were fitted
    return PowerLaw(
        coefficient=math.exp(log_y.mean() - slope * log_x.mean()),
        exponent=-float(slope),
        exponent_error=math.sqrt(variance / (away @ away)),
    )


@dataclass(frozen=True)
class JointLaw:
    """The law ``a / N**alpha + b / D**beta`` of the reducible loss.

    The first part is missing size, the second missing text. Hoffmann et al. (2022), section 3.3;
    there the floor is a fifth number to be fitted.
    """

    a: float
    alpha: float
    b: float
    beta: float

    def predict(self, parameters: float, tokens: float) -> float:
        """Return the law's reducible loss of a model of that size after so many tokens."""
        return float(self.a * parameters**-self.alpha + self.b * tokens**-self.beta)

    def best_size(self, flops: float) -> float:
        """Return the number of parameters with the least loss for ``flops = 6 * N * D``.

        At the least, a little more size gains as much as the text that it costs takes away. Where
        that is follows from the derivative (Hoffmann et al., 2022, equation 4).
        """
        balance = (self.alpha * self.a) / (self.beta * self.b)
        root = balance ** (1 / (self.alpha + self.beta))
        return float(root * (flops / 6) ** self.size_growth)

    def best_tokens(self, flops: float) -> float:
        """Return the number of tokens that ``flops`` are enough for at the best size."""
        return flops / (6 * self.best_size(flops))

    @property
    def size_growth(self) -> float:
        """The power of the compute with which the best size grows; the tokens get the rest."""
        return self.beta / (self.alpha + self.beta)


def fit_joint_law(points: Sequence[Point]) -> JointLaw:
    """Fit the joint law: the least squares of the differences between logarithms.

    There is no formula for it. From a guess, each round asks how far a change of each of the four
    numbers would move every prediction, and takes the changes that would fit best if that went on
    in straight lines (the method of Gauss and Newton), or less of them where that goes too far.

    Raises ``ValueError`` for fewer than 5 points, for one that is not above 0, and if no law fits
    better than all others.
    """
    log_n = _logs([point.parameters for point in points], at_least=5)
    log_d = _logs([point.tokens for point in points], at_least=5)
    log_y = _logs([point.reducible for point in points], at_least=5)
    half = log_y.mean() - math.log(2)  # at first, each part is half of the loss
    guess = np.array([half + log_n.mean() / 2, 0.5, half + log_d.mean() / 2, 0.5])
    for _ in range(200):
        parts = _parts(guess, log_n, log_d)  # (2, points)
        share_n, share_d = parts / parts.sum(axis=0)
        slopes = np.stack([share_n, -share_n * log_n, share_d, -share_d * log_d], axis=1)
        change = np.linalg.lstsq(slopes, log_y - np.log(parts.sum(axis=0)), rcond=None)[0]
        if np.abs(change).max() < 1e-9:
            log_a, alpha, log_b, beta = guess.tolist()
            return JointLaw(math.exp(log_a), alpha, math.exp(log_b), beta)
        lengths = [change / 2**halvings for halvings in range(12)]
        guess += min(lengths, key=lambda some: _misfit(guess + some, log_n, log_d, log_y))
    raise ValueError(f"no joint law fits these {len(points)} points better than all others")


def leave_one_out(results: Results) -> dict[str, JointLaw]:
    """Return the joint laws that are fitted without one size each, by the name left out."""
    return {run.name: fit_joint_law(results.points(without=run.name)) for run in results.runs}


def jackknife_error(values: ArrayLike) -> float:
    """Return the standard error of a figure from its values with one group of data left out each.

    Efron and Tibshirani (1993), chapter 11.
    """
    left_out = np.asarray(values, dtype=float)
    n = len(left_out)
    if n < 2:
        raise ValueError(f"a jackknife needs at least 2 values, not {n}")
    return math.sqrt((n - 1) * left_out.var())


def frontier(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the measurements that no cheaper one equals, the cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.flops, point.reducible)):
        if not best or point.reducible < best[-1].reducible:
            best.append(point)
    return tuple(best)


def _parts(law: NDArray[np.float64], log_n: ArrayLike, log_d: ArrayLike) -> NDArray[np.float64]:
    """Return what a law says of the loss that comes from size, and from text: (2, points)."""
    log_a, alpha, log_b, beta = law
    logs = np.stack([log_a - alpha * np.asarray(log_n), log_b - beta * np.asarray(log_d)])
    parts: NDArray[np.float64] = np.exp(logs.clip(-700, 700))
    return parts


def _misfit(
    law: NDArray[np.float64],
    log_n: NDArray[np.float64],
    log_d: NDArray[np.float64],
    log_y: NDArray[np.float64],
) -> float:
    residuals = log_y - np.log(_parts(law, log_n, log_d).sum(axis=0))
    return float(residuals @ residuals)


def _logs(values: ArrayLike, at_least: int) -> NDArray[np.float64]:
    """Return the logarithms of what has some; refuse the rest."""
    checked = np.asarray(values, dtype=float)
    if checked.ndim != 1 or len(checked) < at_least:
        raise ValueError(
            f"a law needs at least {at_least} points in a row, not an array {checked.shape}"
        )
    if not (np.isfinite(checked) & (checked > 0)).all():
        bad = checked[~(np.isfinite(checked) & (checked > 0))][0]
        raise ValueError(f"only numbers above 0 have a place on log-log axes, and {bad} is not one")
    logs: NDArray[np.float64] = np.log(checked)
    return logs
