"""The accounting against the models themselves, built on the meta device, and against FACTS."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from gptlib import accounting
from gptlib.accounting import BYTES, DEVICES, format_bytes, shapes, training_bytes, weight_bytes
from gptlib.config import FAMILY, GPTConfig
from gptlib.kv_cache import KVCache
from gptlib.model import GPT, TransformerBlock
from gptlib.training import cross_entropy

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


@pytest.mark.parametrize("name", ["mini", pytest.param("gpt2", marks=pytest.mark.full_size)])
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


# --- FLOPs ------------------------------------------------------------------------------------


def counted_flops(run):
    """Count as PyTorch does. Its counter knows plain attention, not the CPU's fused kernel."""
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        run()
    return counter.get_total_flops()


def small(**changes):
    return GPTConfig(**{**SMALL, **changes})


SMALL = {
    "vocab_size": 97,
    "context_length": 40,
    "emb_dim": 24,
    "n_heads": 3,
    "n_layers": 2,
    "drop_rate": 0.0,
}


@pytest.mark.parametrize("bias", [True, False], ids=["qkv bias", "no qkv bias"])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 17), (2, 40)])
def test_flops_of_every_part_are_those_that_pytorch_counts(batch, length, bias):
    for tied in (True, False):
        config = small(qkv_bias=bias, tie_head=tied)
        model = GPT(config)
        x = torch.randn(batch, length, config.emb_dim, requires_grad=True)
        ids = torch.zeros(batch, length, dtype=torch.int64)
        parts = {name: (getattr(model, name), ids) for name in COMPONENTS[:2]}
        parts |= {name: (part, x) for name, part in model.blocks[0].named_children()}
        parts |= {name: (getattr(model, name), x) for name in COMPONENTS[-2:]}
        assert list(parts) == COMPONENTS
        once = dataclasses.replace(config, n_layers=1)
        forward = accounting.forward_flops(once, batch, length)
        training = accounting.training_flops(once, batch, length)
        for name, (part, given_) in parts.items():
            assert forward[name] == counted_flops(lambda m=part, g=given_: m(g)), name
            step = counted_flops(lambda m=part, g=given_: m(g).sum().backward())
            assert training[name] == step, name
        block = sum(accounting.block_flops(config, batch, length).values())
        assert block == counted_flops(lambda m=model.blocks[0], g=x: m(g))


DEEP = [  # a layer takes some milliseconds to count
    pytest.param(name, tied, marks=pytest.mark.slow)
    for name in ("gpt2-medium", "gpt2-large", "gpt2-xl", "gpt3")
    for tied in (True, False)
]


@pytest.mark.parametrize(("name", "tied"), [("mini", True), ("mini", False), ("gpt2", True), *DEEP])
def test_flops_of_whole_models_are_those_that_pytorch_counts(name, tied):
    config = dataclasses.replace(FAMILY[name], tie_head=tied)
    model = on_meta(config)
    batch, length = 3, config.context_length
    ids = torch.zeros(batch, length, dtype=torch.int64, device="meta")
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        loss = cross_entropy(model(ids), ids)
        forward = counter.get_total_flops()
        loss.backward()
    assert forward == sum(accounting.forward_flops(config, batch, length).values())
    assert counter.get_total_flops() == sum(accounting.training_flops(config, batch).values())


@pytest.mark.parametrize("drop_rate", [0.0, 0.1])
def test_flops_of_checkpointing_are_those_that_pytorch_counts(drop_rate):
    config = small(drop_rate=drop_rate)
    model = GPT(config)
    checkpoint_blocks(model)
    ids = torch.zeros(2, 16, dtype=torch.int64)
    step = counted_flops(lambda: model(ids).sum().backward())
    again = accounting.recomputed_flops(config, 2, 16)["checkpointing"]
    assert step == sum(accounting.training_flops(config, 2, 16).values()) + again


def checkpoint_blocks(model):
    for block in model.blocks:
        block.forward = lambda x, forward=block.forward: checkpoint(forward, x, use_reentrant=False)


@given(
    width=st.integers(1, 99),
    layers=st.integers(1, 9),
    vocab=st.integers(1, 999),
    context=st.integers(1, 99),
    rows=st.integers(1, 99),
)
def test_a_run_takes_what_its_steps_take(width, layers, vocab, context, rows):
    config = GPTConfig(vocab, context, width, 1, layers)
    step = sum(accounting.training_flops(config, rows).values())
    assert accounting.run_flops(config, rows * context) == step
    c, each = width, layers * (24 * width * width + 4 * context * width)
    assert step == rows * context * 3 * (each + 2 * vocab * c)


def test_six_n_d_and_how_far_it_is_off():
    gpt3 = FAMILY["gpt3"]
    # Brown et al. (2020), appendix D: 3.14e23.
    rule = accounting.six_nd_flops(accounting.total(gpt3), 300_000_000_000)
    assert rule == pytest.approx(3.14e23, rel=0.002)
    for name, config in FAMILY.items():
        error = accounting.six_nd_error(config)
        per_token = 6 * accounting.total(config)
        counted = sum(accounting.training_flops(config).values()) / config.context_length
        assert error == pytest.approx(per_token / counted - 1), name
    assert accounting.six_nd_error(gpt3) == pytest.approx(-0.027, abs=0.001)
    assert accounting.six_nd_error(FAMILY["gpt2"]) == pytest.approx(-0.126, abs=0.001)
    assert accounting.six_nd_error(gpt3, 1) == pytest.approx(0, abs=0.001)


# --- memory beyond the parameters -------------------------------------------------------------


def saved_bytes(run, parameters):
    """Add up what autograd saves while ``run`` does, each storage once, without the parameters."""
    known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()  # keeps what was saved, so that no address is used twice
    size = sum(storage.nbytes() for storage in storages.values())
    del result
    return size


def measured(config, batch, length, dtype="float32", attention="auto"):
    model = GPT(config).to(getattr(torch, dtype))
    ids = torch.zeros(batch, length, dtype=torch.int64)
    targets = torch.zeros_like(ids)
    with sdpa_kernel(SDPBackend.MATH) if attention == "plain" else nullcontext():
        return saved_bytes(lambda: cross_entropy(model(ids), targets), model.parameters())


@pytest.mark.parametrize("attention", ["auto", "plain"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("drop_rate", [0.0, 0.1])
def test_activations_are_what_autograd_saves(drop_rate, dtype, attention):
    for batch, length in ((1, 5), (2, 5), (3, 17)):
        config = small(drop_rate=drop_rate)
        kept = accounting.activation_bytes(config, batch, length, dtype, attention)
        found = measured(config, batch, length, dtype, attention)
        assert sum(kept.values()) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("drop_rate", [0.0, 0.1])
def test_activations_of_the_mini_model(drop_rate):
    config = dataclasses.replace(FAMILY["mini"], drop_rate=drop_rate)
    kept = accounting.activation_bytes(config, 4)
    assert sum(kept.values()) == pytest.approx(measured(config, 4, 256), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("drop_rate", [0.0, 0.1])
def test_activations_of_the_124m_model(drop_rate):
    config = GPTConfig(drop_rate=drop_rate)
    kept = accounting.activation_bytes(config, 2, 512)
    assert sum(kept.values()) == pytest.approx(measured(config, 2, 512), rel=0.01)


def test_activations_of_a_block_are_what_autograd_saves():
    config = small()
    block = TransformerBlock(config)
    x = torch.randn(3, 17, config.emb_dim, requires_grad=True)
    kept = accounting.block_activation_bytes(config, 3, 17)
    assert sum(kept.values()) == saved_bytes(lambda: block(x), block.parameters())


def test_checkpointing_keeps_the_inputs_and_the_outside():
    config = small(n_layers=5)
    model = GPT(config)
    checkpoint_blocks(model)
    inputs = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, given_: inputs.append(given_[0].nbytes))
    ids = torch.zeros(3, 17, dtype=torch.int64)
    found = saved_bytes(
        lambda: cross_entropy(model(ids), torch.zeros_like(ids)), model.parameters()
    )
    kept = accounting.checkpointed_activation_bytes(config, 3, 17)
    assert kept["outside"] + kept["block_inputs"] == found
    assert kept["block_inputs"] == sum(inputs)
    block = sum(accounting.block_activation_bytes(config, 3, 17).values())
    assert kept["one_block"] == block - inputs[0]


@pytest.mark.parametrize("dtype", BYTES)
def test_the_kv_cache_takes_what_its_tensors_take(dtype):
    config = small()
    cache = KVCache(config, torch.zeros(1, dtype=getattr(torch, dtype)), batch_size=3)
    size = sum(tensor.nbytes for tensor in cache.keys + cache.values)
    assert accounting.kv_cache_bytes(config, 3, dtype=dtype) == size
    assert accounting.kv_cache_bytes(config, 3, 10, dtype) * 4 == size  # a quarter of the context


def test_shares_of_all_devices_hold_everything():
    held = training_bytes(FAMILY["gpt3"], "bfloat16")
    for n in (1, 7, 64, 1024):
        shares = accounting.sharded_bytes(held, n)
        assert all(held[name] <= n * share < held[name] + n for name, share in shares.items())


def ring_sends(n):
    """Send pieces around a ring until all devices have the sum; return how many each one sent."""
    pieces = [[{(device, piece)} for piece in range(n)] for device in range(n)]
    sent = [0] * n
    for turn in range(2 * (n - 1)):
        moved = [(device, (device - turn) % n) for device in range(n)]
        copies = [set(pieces[device][piece]) for device, piece in moved]
        for (device, piece), copy in zip(moved, copies, strict=True):
            pieces[(device + 1) % n][piece] |= copy
            sent[device] += 1
    assert all(len(piece) == n for device in pieces for piece in device)
    return sent


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_a_ring_sends_what_the_formula_says(n):
    sent = accounting.communication_bytes(FAMILY["mini"], n)
    size = weight_bytes(FAMILY["mini"])
    assert [sent["data_parallel"]] * n == pytest.approx([size * s / n for s in ring_sends(n)])
    assert sent["sharded"] == pytest.approx(1.5 * sent["data_parallel"])


# --- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("device", "years"), [("v100-lambda", 355), ("rtx8000-lambda", 665)])
def test_the_years_of_lambda_s_estimate(device, years):
    flops = accounting.six_nd_flops(accounting.total(FAMILY["gpt3"]), 300e9)
    found = accounting.device_years(flops, DEVICES[device].flops_per_second)
    assert found == pytest.approx(years, rel=0.01)
    assert accounting.device_years(3.14e23, DEVICES[device].flops_per_second) == pytest.approx(
        years, rel=0.01
    )


def test_time_and_price_share_the_work():
    assert accounting.training_seconds(1e15, 1e12) == 1_000
    assert accounting.training_seconds(1e15, 1e12, 0.5, 4) == 500
    assert accounting.training_price(7_200, 8, 1.5) == 24
    year = accounting.SECONDS_PER_YEAR
    assert accounting.device_years(year * 1e12, 1e12, 0.25) == 4


def test_devices_are_named_once_and_say_their_source():
    assert len({device.name for device in DEVICES.values()}) == len(DEVICES)
    for device in DEVICES.values():
        assert device.source
        assert device.flops_per_second > 0
        assert device.memory_bytes > 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: accounting.forward_flops(small(), 1, 41), "length is 41, but context_length is"),
        (lambda: accounting.forward_flops(small(), 0), "batch_size must be .* at least 1, not 0"),
        (lambda: accounting.run_flops(small(), 5, 0), "length must be .* at least 1, not 0"),
        (lambda: accounting.activation_bytes(small(), True), "batch_size .* not True"),
        (lambda: accounting.activation_bytes(small(), attention="flash"), '"fused".*flash'),
        (lambda: accounting.activation_bytes(small(), dtype="int8"), "dtype .*int8"),
        (lambda: accounting.kv_cache_bytes(small(), length=99), "length is 99"),
        (lambda: accounting.sharded_bytes({}, 0), "n_devices .* not 0"),
        (lambda: accounting.communication_bytes(small(), 1.5), "n_devices .* not 1.5"),
        (lambda: accounting.training_seconds(1, 1, 1.5), "utilization .* not 1.5"),
        (lambda: accounting.training_seconds(1, 1, 0), "utilization .* not 0"),
        (lambda: accounting.training_seconds(1, 0), "flops_per_second .* not 0"),
        (lambda: accounting.training_seconds(1, 1, 1, 0), "n_devices .* not 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def test_format_count():
    assert accounting.format_count(124_439_808) == "124,439,808"
