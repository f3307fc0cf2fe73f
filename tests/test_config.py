"""GPTConfig and the family: the exact numbers of FACTS, and errors that name value and rule."""

from __future__ import annotations

import dataclasses

import pytest

from gptlib import accounting
from gptlib.config import FAMILY, GPTConfig


@pytest.mark.parametrize(
    ("name", "count", "shape"),
    [
        ("gpt2", 124_439_808, (12, 768, 12)),
        ("gpt2-medium", 354_823_168, (24, 1024, 16)),
        ("gpt2-large", 774_030_080, (36, 1280, 20)),
        ("gpt2-xl", 1_557_611_200, (48, 1600, 25)),
    ],
)
def test_gpt2_has_its_exact_size(name, count, shape):
    config = FAMILY[name]
    assert accounting.total(config) == count
    assert (config.n_layers, config.emb_dim, config.n_heads) == shape
    assert (config.vocab_size, config.context_length) == (50_257, 1_024)


def test_untied_head_and_missing_biases():
    assert accounting.total(GPTConfig(tie_head=False)) == 163_037_184
    assert accounting.total(GPTConfig(tie_head=False, qkv_bias=False)) == 163_009_536


def test_gpt3_is_the_same_architecture_at_175_billion():
    config = FAMILY["gpt3"]
    assert (config.n_layers, config.emb_dim, config.n_heads) == (96, 12_288, 96)
    assert config.context_length == 2_048
    assert round(accounting.total(config) / 1e9) == 175


# Brown et al. (2020), table 2.1: parameters in billions, as printed there.
@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("gpt3-small", 0.125),
        ("gpt3-medium", 0.350),
        ("gpt3-large", 0.760),
        ("gpt3-xl", 1.3),
        ("gpt3-2.7b", 2.7),
        ("gpt3-6.7b", 6.7),
        ("gpt3-13b", 13.0),
        ("gpt3", 175.0),
    ],
)
def test_gpt3_family_agrees_with_its_table(name, billions):
    assert accounting.total(FAMILY[name]) / 1e9 == pytest.approx(billions, rel=0.02)


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FAMILY["gpt2"].emb_dim = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number of at least 1, not 0"),
        ({"n_layers": -1}, "n_layers must be a whole number of at least 1, not -1"),
        ({"emb_dim": 7.5}, "emb_dim must be a whole number of at least 1, not 7.5"),
        ({"n_heads": True}, "n_heads must be a whole number of at least 1, not True"),
        ({"emb_dim": 10, "n_heads": 3}, r"emb_dim must be divisible by n_heads, but 10 % 3 = 1"),
        ({"drop_rate": -0.1}, r"drop_rate must be in \[0, 1\), not -0.1"),
        ({"drop_rate": 1.0}, r"drop_rate must be in \[0, 1\), not 1.0"),
        ({"drop_rate": float("nan")}, r"drop_rate must be in \[0, 1\), not nan"),
        ({"drop_rate": "no"}, r"drop_rate must be a number in \[0, 1\), not 'no'"),
        ({"tie_head": 1}, "tie_head must be True or False, not 1"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**change)
