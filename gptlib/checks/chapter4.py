"""Checks of chapter 4, “The GPT-2 architecture”."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gptlib import accounting
from gptlib.checks import (
    WrongAnswerError,
    call,
    compare,
    describe,
    exercise,
    function,
    number,
    trials,
)
from gptlib.config import FAMILY, GPTConfig
from gptlib.model import LayerNorm


@exercise(
    "4.1",
    shows="A norm puts every vector on one sphere; what is left to tell them apart is direction.",
)
def _length_after_norm(answer: object) -> str | None:
    got = number(answer, 0)
    slips = {
        768.0: "that is the sum of the squares. The length is its square root.",
        1.0: "that is the variance, a mean over the channels. The length has their sum.",
        math.sqrt(767): "that is the length if the variance divides by C - 1.",
    }
    for slip, why in slips.items():
        if abs(got - slip) < 0.005:
            return f"Your answer is {describe(answer)}, but {why}"
    if 0.01 < abs(got - math.sqrt(768)) < 0.05:
        return f"Your answer is {describe(answer)}, which is close. Give two decimals."
    if abs(got - math.sqrt(768)) > 0.01:
        return f"Your answer is {describe(answer)}; measure it: normalize any vector of 768."
    return None


@exercise(
    "4.2",
    shows="Left of its lowest point GELU's slope is negative: a smaller input gives more.",
)
def _lowest_of_gelu(answer: object) -> str | None:
    got = number(answer)
    x = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    y = functional.gelu(x, approximate="tanh")
    lowest = x[y.argmin()].item()
    if abs(got - y.min().item()) < 0.005:
        return f"Your answer is {describe(answer)}, the lowest value. Asked for is the x it is at."
    if abs(got + lowest) < 0.01:
        return f"Your answer is {describe(answer)}: the right distance from 0, on the wrong side."
    if got >= 0:
        return f"Your answer is {describe(answer)}, but from 0 on GELU only rises."
    if abs(got - lowest) > 0.01:
        return (
            f"GELU at your x = {describe(answer)} is {_gelu(got):.4f}; "
            f"it gets as low as {y.min():.4f}."
        )
    return None


def _gelu(x: float) -> float:
    return functional.gelu(torch.tensor(x, dtype=torch.float64), approximate="tanh").item()


# Configurations by name, and budgets in units of 2**30 bytes.
_BUDGETS = (("gpt2", 2.0), ("gpt2", 0.5), ("gpt2-xl", 24.0), ("gpt3", 80.0), ("mini", 0.05))


@exercise(
    "4.3",
    shows="A layer costs 12 C² parameters of 16 bytes each, so width is dear and depth is cheap.",
)
def _layers_that_fit(answer: object) -> str | None:
    reader = function(answer)
    untied = dataclasses.replace(FAMILY["gpt2"], tie_head=False, qkv_bias=False)
    cases = [(name, FAMILY[name], int(gib * 2**30)) for name, gib in _BUDGETS]
    cases.append(("gpt2, untied and without biases for q, k and v", untied, 3 * 2**30))
    exact = dataclasses.replace(FAMILY["mini"], n_layers=5)
    cases.append(("mini, with just enough for 5 layers", exact, 16 * accounting.total(exact)))
    for name, config, budget in cases:
        expected = _deepest(config, budget, 16)
        got = call(reader, config, budget)
        if compare(got, expected, 0) is None:
            continue
        what = f"layers_that_fit({name}, {accounting.format_bytes(budget)})"
        said = f"{what} gave {describe(got)}, expected {expected}."
        return said + _layers_slip(got, config, budget)
    return None


def _deepest(config: GPTConfig, budget: int, per_parameter: int, apart: bool = True) -> int:
    """Return how many layers fit; ``apart=False`` forgets what is there without any layer."""
    layer = sum(accounting.block_parameters(config).values())
    rest = accounting.total(config) - config.n_layers * layer if apart else 0
    return max(0, (budget // per_parameter - rest) // layer)


def _layers_slip(got: object, config: GPTConfig, budget: int) -> str:
    if isinstance(got, float) and not got.is_integer():
        return " Layers are counted whole."
    if isinstance(got, (int, float)) and got < 0:
        return " A model cannot have fewer than no layers."
    slips = {
        _deepest(config, budget, 16) + 1: " The last of your layers does not fit: round down.",
        _deepest(config, budget, 16, apart=False): " The embeddings and the final norm cost too.",
        _deepest(config, budget, 4): " Training holds more than the weights.",
        _deepest(config, budget, 8): " Weights and gradients are not all: Adam has its moments.",
        _deepest(config, budget, 12): " A weight, a gradient and two moments are 16 bytes.",
    }
    return next((why for slip, why in slips.items() if compare(got, slip, 0) is None), "")


@exercise(
    "4.4",
    shows="Heads leave no trace in any shape: the same file is a model of 12 heads or of 24.",
)
def _config_of(answer: object) -> str | None:
    reader = function(answer)
    mini = FAMILY["mini"]
    cases = {
        "mini": mini,
        "gpt2": FAMILY["gpt2"],
        "gpt2-xl": FAMILY["gpt2-xl"],
        "mini with a head of its own": dataclasses.replace(mini, tie_head=False),
        "mini without biases for q, k and v": dataclasses.replace(mini, qkv_bias=False),
        "mini with one layer": dataclasses.replace(mini, n_layers=1),
        "gpt3-small": FAMILY["gpt3-small"],
    }
    for name, expected in cases.items():
        got = call(reader, accounting.shapes(expected), expected.n_heads)
        what = f"For the shapes of {name} your function gave"
        if not isinstance(got, GPTConfig):
            return f"{what} {describe(got)}, expected a GPTConfig."
        for field in dataclasses.fields(GPTConfig):
            ours, right = getattr(got, field.name), getattr(expected, field.name)
            if ours != right:
                return f"{what} {field.name} = {ours!r}, expected {right!r}."
    return None


@exercise(
    "4.5",
    shows="A norm's scale and shift belong to whatever reads from it.",
)
@torch.no_grad()
def _fold(answer: object) -> str | None:
    reader = function(answer)
    generator = torch.Generator().manual_seed(5)
    for channels, out, bias in ((3, 2, True), (16, 64, True), (16, 64, False)):
        norm, linear = LayerNorm(channels), nn.Linear(channels, out, bias=bias)
        for parameter in (*norm.parameters(), *linear.parameters()):
            parameter.normal_(generator=generator)
        name = f"fold(LayerNorm({channels}), Linear({channels}, {out}, bias={bias}))"
        weight, offset = _two_tensors(call(reader, norm, linear), name)
        if weight.shape != (out, channels) or offset.shape != (out,):
            return (
                f"{name} gave shapes {tuple(weight.shape)} and {tuple(offset.shape)}, "
                f"expected {(out, channels)} and {(out,)}."
            )
        x = 3 * torch.randn(5, channels, generator=generator) + 1
        plain = functional.layer_norm(x, (channels,), eps=norm.eps)
        ours, wanted = functional.linear(plain, weight, offset), linear(norm(x))
        difference = compare(ours, wanted, 1e-4)
        if difference is not None:
            return f"{name}: the folded layer {difference}{_fold_slip(weight, norm, linear)}"
    return None


def _two_tensors(value: object, what: str) -> tuple[Tensor, Tensor]:
    if isinstance(value, (tuple, list)) and len(value) == 2:
        first, second = value
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            return first, second
    raise WrongAnswerError(f"{what} gave {describe(value)}, expected two tensors: weight, bias.")


def _fold_slip(weight: Tensor, norm: LayerNorm, linear: nn.Linear) -> str:
    if torch.allclose(weight, linear.weight * norm.scale, atol=1e-5):
        return " Your weight is right, so look at the bias: the shift goes through the layer too."
    return " Each scale belongs to one input channel, a column of the weight."


@exercise(
    "4.6",
    shows="What is the same for all channels comes back as 0: the norm would remove it anyway.",
)
def _norm_gradient(answer: object) -> str | None:
    reader = function(answer)
    generator = torch.Generator().manual_seed(6)
    cases = [(torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([[1.0, 0.0, 0.0]]))]
    for shape, spread in (((2, 5), 1.0), ((4, 64), 3.0), ((2, 8), 0.01)):
        x = spread * torch.randn(shape, generator=generator) + 0.5
        cases.append((x, torch.randn(shape, generator=generator)))
    problem = trials(answer, [(case, _norm_back(*case)) for case in cases], 1e-4)
    if problem is None:
        return None
    for case in cases:
        got = call(reader, *case)
        if compare(got, _norm_back(*case), 1e-4) is None:
            continue
        slips = (why for why, wrong in _NORM_SLIPS.items() if _equal(got, wrong(*case)))
        return problem + next(slips, "")
    return problem


def _norm_back(x: Tensor, grad_out: Tensor, eps: float = 1e-5) -> Tensor:
    points = x.clone().requires_grad_()
    normed = functional.layer_norm(points, x.shape[-1:], eps=eps)
    return torch.autograd.grad(normed, points, grad_out)[0]


def _spread(x: Tensor, correction: int = 0) -> Tensor:
    return torch.sqrt(x.var(-1, correction=correction, keepdim=True) + 1e-5)


def _centered(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def _unbiased(x: Tensor, grad_out: Tensor) -> Tensor:
    spread = _spread(x, correction=1)
    normed = _centered(x) / spread
    return (_centered(grad_out) - normed * (grad_out * normed).mean(-1, keepdim=True)) / spread


def _mean_of_all(x: Tensor, grad_out: Tensor) -> Tensor:
    normed = _centered(x) / _spread(x)
    return (grad_out - grad_out.mean() - normed * (grad_out * normed).mean()) / _spread(x)


_NORM_SLIPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    " The mean and the standard deviation depend on x as well.": lambda x, g: g / _spread(x),
    " The mean is there; the standard deviation depends on x too.": lambda x, g: (
        _centered(g) / _spread(x)
    ),
    " Divide by the standard deviation at the end.": lambda x, g: _norm_back(x, g) * _spread(x),
    " Under the root stands the variance plus ε.": lambda x, g: _norm_back(x, g, eps=0.0),
    " The variance divides by C, not by C - 1: correction=0.": _unbiased,
    " Each token has its own mean: take it over dim=-1.": _mean_of_all,
}


def _equal(got: Any, other: Tensor) -> bool:
    return compare(got, other, 1e-3) is None
