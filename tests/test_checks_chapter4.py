"""Chapter 4's checkers: right answers pass, and typical wrong ones are told what is wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from gptlib import accounting
from gptlib.config import GPTConfig
from gptlib.model import LayerNorm

Say = Callable[[str, object], str]
ALL = ["4.1", "4.2", "4.3", "4.4", "4.5", "4.6"]


def blank(*_: Any) -> Any:
    return ...


@pytest.mark.parametrize("name", ALL)
def test_a_blank_is_not_tried_yet(say: Say, name: str) -> None:
    assert say(name, ...).startswith(f"○ {name} not tried yet")
    if name not in ("4.1", "4.2"):
        assert say(name, blank).startswith(f"○ {name} not tried yet")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("answer", ["words", None, lambda *_: None, lambda: 1, lambda *_: "x"])
def test_answers_of_the_wrong_kind_are_told_so(say: Say, name: str, answer: object) -> None:
    assert say(name, answer).startswith(f"✗ {name} ")


class TestLengthAfterNorm:
    @pytest.mark.parametrize("answer", [math.sqrt(768), 27.71, 27.713, torch.tensor(27.71)])
    def test_right(self, say: Say, answer: object) -> None:
        assert say("4.1", answer).startswith("✓ 4.1 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (768, "the sum of the squares"),
            (1, "that is the variance"),
            (math.sqrt(767), "divides by C - 1"),
            (27.7, "two decimals"),
            (50.0, "measure it"),
            (-27.71, "must lie between"),
        ],
    )
    def test_wrong(self, say: Say, answer: float, words: str) -> None:
        assert words in say("4.1", answer)


class TestLowestOfGelu:
    @pytest.mark.parametrize("answer", [-0.75, -0.752, -0.7517916])
    def test_right(self, say: Say, answer: float) -> None:
        assert say("4.2", answer).startswith("✓ 4.2 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (-0.17, "the lowest value"),
            (0.75, "on the wrong side"),
            (0.0, "only rises"),
            (-1.41, "GELU at your x = -1.41 is -0.11"),
            (-0.7, "it gets as low as -0.1700"),
        ],
    )
    def test_wrong(self, say: Say, answer: float, words: str) -> None:
        assert words in say("4.2", answer)


def fits(per_parameter: float, apart: bool = True, n: int = 0) -> Callable[..., Any]:
    """A solution, or a slip: other bytes, embeddings forgotten, ``n`` layers too many."""

    def layers(config: GPTConfig, budget: int) -> Any:
        layer = sum(accounting.block_parameters(config).values())
        rest = accounting.total(config) - config.n_layers * layer if apart else 0
        return max(0, int((budget // per_parameter - rest) // layer)) + n

    return layers


class TestLayersThatFit:
    def test_right(self, say: Say) -> None:
        assert say("4.3", fits(16)).startswith("✓ 4.3 ")

    def test_right_by_trying(self, say: Say) -> None:
        def tries(config: GPTConfig, budget: int) -> int:
            n = 0
            while True:
                deeper = dataclasses.replace(config, n_layers=n + 1)
                if sum(accounting.training_bytes(deeper).values()) > budget:
                    return n
                n += 1

        assert say("4.3", tries).startswith("✓ 4.3 ")

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            (fits(16, apart=False), "The embeddings and the final norm cost too"),
            (fits(4), "more than the weights"),
            (fits(8), "Adam has its moments"),
            (fits(12), "two moments are 16 bytes"),
            (fits(16, n=1), "round down"),
            (lambda config, budget: 0.5, "counted whole"),
            (lambda config, budget: -3, "fewer than no layers"),
        ],
    )
    def test_wrong(self, say: Say, wrong: object, words: str) -> None:
        said = say("4.3", wrong)
        assert said.startswith("✗ 4.3 layers_that_fit(")
        assert words in said

    def test_a_budget_below_the_embeddings_gives_no_layers(self, say: Say) -> None:
        def negative(config: GPTConfig, budget: int) -> int:
            layer = sum(accounting.block_parameters(config).values())
            return (budget // 16 - accounting.total(config)) // layer + config.n_layers

        assert "expected 0. A model cannot have fewer than no layers" in say("4.3", negative)


def read(shapes: dict[str, Any], n_heads: int, **changes: Any) -> GPTConfig:
    vocab_size, emb_dim = shapes["token_embedding.weight"]
    fields = {
        "vocab_size": vocab_size,
        "context_length": shapes["position_embedding.weight"][0],
        "emb_dim": emb_dim,
        "n_heads": n_heads,
        "n_layers": len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
        "qkv_bias": "blocks.0.attention.query_key_value.bias" in shapes,
        "tie_head": "output_head.weight" not in shapes,
    }
    return GPTConfig(**(fields | changes))


class TestConfigOf:
    def test_right(self, say: Say) -> None:
        assert say("4.4", read).startswith("✓ 4.4 ")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"tie_head": True}, "mini with a head of its own your function gave tie_head = True"),
            ({"qkv_bias": True}, "gave qkv_bias = True, expected False"),
            ({"context_length": 1_024}, "gave context_length = 1024, expected 256"),
            ({"n_layers": 5}, "gave n_layers = 5, expected 4"),
        ],
    )
    def test_wrong(self, say: Say, change: dict[str, Any], words: str) -> None:
        assert words in say("4.4", lambda shapes, heads: read(shapes, heads, **change))

    def test_layers_sorted_as_text(self, say: Say) -> None:
        def as_text(shapes: dict[str, Any], heads: int) -> GPTConfig:
            last = max(name.split(".")[1] for name in shapes if name.startswith("blocks."))
            return read(shapes, heads, n_layers=int(last) + 1)

        assert "For the shapes of gpt2 your function gave n_layers = 10" in say("4.4", as_text)

    def test_not_a_configuration(self, say: Say) -> None:
        assert "expected a GPTConfig" in say("4.4", lambda shapes, heads: {"n_layers": 6})


class TestFold:
    @staticmethod
    def right(norm: LayerNorm, linear: nn.Linear) -> Any:
        bias = linear.weight @ norm.shift
        return linear.weight * norm.scale, bias if linear.bias is None else bias + linear.bias

    def test_right(self, say: Say) -> None:
        assert say("4.5", self.right).startswith("✓ 4.5 ")

    def test_rows_instead_of_columns(self, say: Say) -> None:
        def rows(norm: LayerNorm, linear: nn.Linear) -> Any:
            return norm.scale[: len(linear.weight), None] * linear.weight, linear.bias

        said = say("4.5", rows)
        assert said.startswith("✗ 4.5 fold(LayerNorm(3), Linear(3, 2, bias=True)): the folded")
        assert "a column of the weight" in said

    def test_shift_forgotten(self, say: Say) -> None:
        def no_shift(norm: LayerNorm, linear: nn.Linear) -> Any:
            return linear.weight * norm.scale, linear.bias

        assert "look at the bias" in say("4.5", no_shift)

    def test_no_bias(self, say: Say) -> None:
        def needs_bias(norm: LayerNorm, linear: nn.Linear) -> Any:
            return linear.weight * norm.scale, linear.weight @ norm.shift + linear.bias

        assert "raised TypeError" in say("4.5", needs_bias)

    def test_wrong_shapes(self, say: Say) -> None:
        def turned(norm: LayerNorm, linear: nn.Linear) -> Any:
            weight, bias = self.right(norm, linear)
            return weight.T, bias

        assert "gave shapes (3, 2) and (2,), expected (2, 3) and (2,)" in say("4.5", turned)


class TestNormGradient:
    def test_right(self, say: Say) -> None:
        def right(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
            spread = torch.sqrt(x.var(-1, correction=0, keepdim=True) + 1e-5)
            normed = (x - x.mean(-1, keepdim=True)) / spread
            along = (grad * normed).mean(-1, keepdim=True)
            return (grad - grad.mean(-1, keepdim=True) - normed * along) / spread

        assert say("4.6", right).startswith("✓ 4.6 ")

    @staticmethod
    def back(x: torch.Tensor, grad: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
        points = x.clone().requires_grad_()
        functional.layer_norm(points, x.shape[-1:], eps=eps).backward(grad)
        assert points.grad is not None
        return points.grad

    def test_slips(self, say: Say) -> None:
        def spread(x: torch.Tensor) -> torch.Tensor:
            return torch.sqrt(x.var(-1, correction=0, keepdim=True) + 1e-5)

        def direct(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
            return grad / spread(x)

        def without_spread(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
            return (grad - grad.mean(-1, keepdim=True)) / spread(x)

        def undivided(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
            return self.back(x, grad) * spread(x)

        assert "The mean and the standard deviation depend on x" in say("4.6", direct)
        assert "the standard deviation depends on x too" in say("4.6", without_spread)
        assert "Divide by the standard deviation" in say("4.6", undivided)

    def test_eps_counts(self, say: Say) -> None:
        said = say("4.6", lambda x, grad: self.back(x, grad, 0.0))
        assert said.startswith("✗ 4.6 ")
        assert said.endswith("Under the root stands the variance plus ε.")

    def test_slips_in_the_means(self, say: Say) -> None:
        def formula(x: torch.Tensor, grad: torch.Tensor, correction: int, **axis: Any) -> Any:
            spread = torch.sqrt(x.var(-1, correction=correction, keepdim=True) + 1e-5)
            normed = (x - x.mean(-1, keepdim=True)) / spread
            return (grad - grad.mean(**axis) - normed * (grad * normed).mean(**axis)) / spread

        rows = {"dim": -1, "keepdim": True}
        assert say("4.6", lambda x, grad: formula(x, grad, 0, **rows)).startswith("✓ 4.6 ")
        assert "divides by C, not by C - 1" in say("4.6", lambda x, g: formula(x, g, 1, **rows))
        assert "over dim=-1" in say("4.6", lambda x, grad: formula(x, grad, 0))

    def test_wrong_shape(self, say: Say) -> None:
        assert "expected shape (1, 3)" in say("4.6", lambda x, grad: grad[0])
