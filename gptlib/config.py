"""The configuration of a GPT, and the named members of the GPT-2 and GPT-3 family."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GPTConfig:
    """The numbers that decide the shape of a GPT; the defaults are GPT-2's smallest model.

    ``drop_rate`` is the probability with which dropout zeroes a value in training, in [0, 1).
    ``tie_head`` makes the output head share the token embedding's matrix, as GPT-2 does.

    Raises ``ValueError`` when a value is out of its range, naming the value and the rule.
    """

    vocab_size: int = 50_257
    context_length: int = 1_024
    emb_dim: int = 768
    n_heads: int = 12
    n_layers: int = 12
    drop_rate: float = 0.1
    qkv_bias: bool = True
    tie_head: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.emb_dim % self.n_heads:
            raise ValueError(
                f"emb_dim must be divisible by n_heads, but {self.emb_dim} % {self.n_heads} "
                f"= {self.emb_dim % self.n_heads}"
            )
        if isinstance(self.drop_rate, bool) or not isinstance(self.drop_rate, (int, float)):
            raise ValueError(f"drop_rate must be a number in [0, 1), not {self.drop_rate!r}")
        if not 0 <= self.drop_rate < 1:
            raise ValueError(f"drop_rate must be in [0, 1), not {self.drop_rate!r}")
        for name in ("qkv_bias", "tie_head"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")

    @property
    def head_dim(self) -> int:
        """The width of one attention head."""
        return self.emb_dim // self.n_heads


def _gpt2(emb_dim: int, n_heads: int, n_layers: int) -> GPTConfig:
    return GPTConfig(emb_dim=emb_dim, n_heads=n_heads, n_layers=n_layers)


def _gpt3(emb_dim: int, n_heads: int, n_layers: int) -> GPTConfig:
    return GPTConfig(context_length=2_048, emb_dim=emb_dim, n_heads=n_heads, n_layers=n_layers)


# GPT-2: Radford et al. (2019), table 2, with the released models' heads. GPT-3: Brown et al.
# (2020), table 2.1. The table prints a width of 5,140 for the 13B model, which its 40 heads of
# 128 do not add up to: 40 * 128 = 5,120 does. It prints 24 heads of 128 for the XL model, whose
# width is 2,048; 16 heads of 128 give that width, and the count of parameters is the same.
#: The configurations by name, from the course's mini model to GPT-2's four and GPT-3's eight sizes.
FAMILY: dict[str, GPTConfig] = {
    "mini": GPTConfig(vocab_size=2_048, context_length=256, emb_dim=192, n_heads=6, n_layers=4),
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1_024, 16, 24),
    "gpt2-large": _gpt2(1_280, 20, 36),
    "gpt2-xl": _gpt2(1_600, 25, 48),
    "gpt3-small": _gpt3(768, 12, 12),
    "gpt3-medium": _gpt3(1_024, 16, 24),
    "gpt3-large": _gpt3(1_536, 16, 24),
    "gpt3-xl": _gpt3(2_048, 16, 24),
    "gpt3-2.7b": _gpt3(2_560, 32, 32),
    "gpt3-6.7b": _gpt3(4_096, 32, 32),
    "gpt3-13b": _gpt3(5_120, 40, 40),
    "gpt3": _gpt3(12_288, 96, 96),
}
