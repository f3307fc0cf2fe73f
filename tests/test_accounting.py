"""The accounting against the models themselves, built on the meta device, and against FACTS."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptlib import accounting
from gptlib.accounting import BYTES, format_bytes, shapes, training_bytes, weight_bytes
from gptlib.config import FAMILY, GPTConfig
from gptlib.model import GPT, TransformerBlock

# The component that a parameter belongs to, by a piece of its name.
COMPONENTS = [
    "token_embedding",
    "position_embedding",
    "norm_1",
    "attention",
    "norm_2",
    "feed_forward",
    "final_norm",
    "output_head",
]


def on_meta(config):
    """Build a model that has shapes but no numbers, so that 175 billion fit."""
    with torch.device("meta"):
        return GPT(config)


def counted(model):
    """Count a model's parameters by component, a shared one once, under its first name."""
    counts = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        (component,) = [part for part in name.split(".") if part in counts]
        counts[component] += parameter.numel()
    return counts


def shapes_of(model):
    return [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]


@pytest.mark.parametrize("tie_head", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("qkv_bias", [True, False], ids=["qkv bias", "no qkv bias"])
@pytest.mark.parametrize("name", FAMILY)
def test_the_whole_family_agrees_with_its_models(name, qkv_bias, tie_head):
    config = dataclasses.replace(FAMILY[name], qkv_bias=qkv_bias, tie_head=tie_head)
    model = on_meta(config)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert accounting.parameters(config) == counted(model)
    assert accounting.total(config) == sum(p.numel() for p in model.parameters())
    assert list(shapes(config).items()) == shapes_of(model)
    block = sum(parameter.numel() for parameter in model.blocks[0].parameters())
    assert sum(accounting.block_parameters(config).values()) == block


@pytest.mark.parametrize("name", ["mini", "gpt2"])
def test_real_models_agree_too(name):
    config = FAMILY[name]
    model = GPT(config)
    assert accounting.total(config) == sum(p.numel() for p in model.parameters())
    assert list(shapes(config).items()) == shapes_of(model)
    in_memory = sum(p.untyped_storage().nbytes() for p in model.parameters())
    assert weight_bytes(config) == in_memory


@given(
    heads=st.integers(1, 4),
    width=st.integers(1, 8),
    layers=st.integers(1, 3),
    vocab=st.integers(1, 99),
    context=st.integers(1, 99),
    bias=st.booleans(),
    tied=st.booleans(),
)
def test_any_configuration_agrees_with_its_model(heads, width, layers, vocab, context, bias, tied):
    config = GPTConfig(vocab, context, heads * width, heads, layers, 0.0, bias, tied)
    model = on_meta(config)
    assert accounting.parameters(config) == counted(model)
    assert list(shapes(config).items()) == shapes_of(model)


def test_a_block_counts_as_the_block_does():
    config = GPTConfig(emb_dim=48, n_heads=3)
    parts = dict(TransformerBlock(config).named_children())
    built = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert accounting.block_parameters(config) == built


def test_bytes_of_a_value_are_those_of_pytorch():
    assert {name: getattr(torch, name).itemsize for name in BYTES} == BYTES


@pytest.mark.parametrize("dtype", BYTES)
def test_weight_bytes_are_those_of_a_model_in_that_type(dtype):
    model = GPT(FAMILY["mini"]).to(getattr(torch, dtype))
    assert weight_bytes(FAMILY["mini"], dtype) == sum(p.nbytes for p in model.parameters())


def test_float32_training_holds_what_adamw_keeps():
    config = GPTConfig(vocab_size=11, context_length=5, emb_dim=8, n_heads=2, n_layers=2)
    model = GPT(config)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.arange(5)[None]).sum().backward()
    optimizer.step()
    moments = ("exp_avg", "exp_avg_sq")
    states = optimizer.state.values()
    assert training_bytes(config) == {
        "weights": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(p.grad.nbytes for p in model.parameters()),
        "master_weights": 0,
        "moments": sum(state[moment].nbytes for state in states for moment in moments),
    }


# Bytes a parameter. 16 bits: Rajbhandari et al. (2020), section 3.1, 2 + 2 + (4 + 4 + 4) = 16.
@pytest.mark.parametrize(
    ("dtype", "per_parameter"),
    [("float32", (4, 4, 0, 8)), ("bfloat16", (2, 2, 4, 8)), ("float16", (2, 2, 4, 8))],
)
def test_training_bytes_per_parameter(dtype, per_parameter):
    held = training_bytes(FAMILY["gpt3"], dtype)
    assert list(held) == ["weights", "gradients", "master_weights", "moments"]
    count = accounting.total(FAMILY["gpt3"])
    assert tuple(held.values()) == tuple(size * count for size in per_parameter)
    assert sum(held.values()) == 16 * count


@pytest.mark.parametrize("measure", [weight_bytes, training_bytes])
def test_an_unknown_type_is_named(measure):
    rule = "dtype must be one of float32, bfloat16, float16, not 'int8'"
    with pytest.raises(ValueError, match=rule):
        measure(FAMILY["mini"], "int8")


def test_the_book_s_memory_figures():
    assert format_bytes(weight_bytes(GPTConfig())) == "474.7 MiB"
    assert format_bytes(weight_bytes(GPTConfig(), "bfloat16")) == "237.4 MiB"
    untied = GPTConfig(tie_head=False, qkv_bias=False)
    assert weight_bytes(untied) / 2**20 == pytest.approx(621.83, abs=0.005)
    assert format_bytes(weight_bytes(untied)) == "621.8 MiB"


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (1_280, "1.3 KiB"),  # 1.25, halfway: up, as toFixed has it in JavaScript
        (2**20 - 53, "1023.9 KiB"),
        (2**20 - 1, "1.0 MiB"),  # not 1024.0 KiB
        (4 * 175_000_000_000, "651.9 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (2**50, "1.0 PiB"),
    ],
)
def test_format_bytes(n, text):
    assert format_bytes(n) == text


@given(st.integers(1_024, 2**60))
def test_format_bytes_is_right_to_the_decimal(n):
    number, unit = format_bytes(n).split()
    size = 1_024 ** ("KMGTPE".index(unit[0]) + 1)
    assert 1 <= float(number) < 1_024
    assert abs(10 * n - round(10 * float(number)) * size) * 2 <= size


def test_format_count():
    assert accounting.format_count(124_439_808) == "124,439,808"
