"""The attention maps against the fast path, the formula and transformers; the model stays as is."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from gptlib.activations import AttentionSteps, attention_maps, attention_steps
from gptlib.config import GPTConfig
from gptlib.model import GPT, CausalSelfAttention
from tests.test_model import enliven, models, one_thread, random_ids, transformers_twin

__all__ = ["one_thread"]  # the fixture serves this module too

CONFIG = GPTConfig(
    vocab_size=30, context_length=12, emb_dim=24, n_heads=3, n_layers=2, drop_rate=0.5
)


@pytest.fixture
def model():
    return enliven(GPT(CONFIG))


@pytest.fixture
def ids():
    return random_ids(CONFIG, 2, 9)


def attention_seen(model, ids):
    """Return what enters and what leaves each attention layer when the model runs."""
    seen = []
    layers = [part for part in model.modules() if isinstance(part, CausalSelfAttention)]
    hooks = [
        layer.register_forward_hook(lambda layer, x, y: seen.append((layer, x[0], y)))
        for layer in layers
    ]
    model(ids)
    for hook in hooks:
        hook.remove()
    return seen


def state_of(model):
    """Return everything about a model that listening to it could change."""
    hooks = [
        (len(part._forward_pre_hooks), len(part._forward_hooks), part.training)
        for part in model.modules()
    ]
    weights = [(p.detach().clone(), p.requires_grad, p.grad) for p in model.parameters()]
    return hooks, weights


def assert_same_state(before, after):
    assert before[0] == after[0]
    for (weight, *rest), (weight_after, *rest_after) in zip(before[1], after[1], strict=True):
        assert torch.equal(weight, weight_after)
        assert rest == rest_after


# ---------------------------------------------------------------------------------------------
# The steps


@given(
    lead=st.lists(st.integers(1, 3), max_size=2),
    tokens=st.integers(1, 12),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_steps_times_values_are_the_fast_path(lead, tokens, width, seed):
    generator = torch.Generator().manual_seed(seed)
    queries, keys, values = torch.randn(3, *lead, tokens, width, generator=generator) * 2
    steps = attention_steps(queries, keys)
    fast = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    torch.testing.assert_close(steps.weights @ values, fast, atol=1e-5, rtol=1e-5)


@given(tokens=st.integers(1, 12), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_each_step_is_what_it_says(tokens, width, seed):
    generator = torch.Generator().manual_seed(seed)
    queries, keys = torch.randn(2, 4, tokens, width, generator=generator)
    scores, scaled, masked, weights = attention_steps(queries, keys)
    ahead = torch.arange(tokens)[None, :] > torch.arange(tokens)[:, None]
    torch.testing.assert_close(scores, torch.einsum("hid,hjd->hij", queries, keys))
    torch.testing.assert_close(scaled, scores * width**-0.5)
    assert torch.equal(masked[:, ~ahead], scaled[:, ~ahead])
    assert (masked[:, ahead] == -torch.inf).all()
    assert (weights[:, ahead] == 0).all()
    exponentials = scaled.exp().masked_fill(ahead, 0)
    torch.testing.assert_close(weights, exponentials / exponentials.sum(-1, keepdim=True))


def test_huge_scores_do_not_overflow():
    queries = torch.full((2, 3, 4), 1e4)
    weights = attention_steps(queries, queries).weights
    torch.testing.assert_close(
        weights, torch.ones(3, 3).tril() / torch.arange(1, 4)[:, None] + torch.zeros(2, 3, 3)
    )


# ---------------------------------------------------------------------------------------------
# The maps of a model


@torch.no_grad()
@given(st.data())
def test_rows_sum_to_one_and_are_zero_ahead(data):
    model = data.draw(models())
    length = data.draw(st.integers(1, model.config.context_length))
    maps = attention_maps(model, random_ids(model.config, 2, length))
    for step in maps:
        assert step.shape == (model.config.n_layers, 2, model.config.n_heads, length, length)
    assert (maps.weights >= 0).all()
    assert (maps.weights.triu(1) == 0).all()
    torch.testing.assert_close(maps.weights.sum(-1), torch.ones(maps.weights.shape[:-1]))


@torch.no_grad()
@given(st.data())
def test_the_weights_are_those_of_the_fast_path(data):
    """Weights times values, joined and projected, is what each layer gave the model."""
    model = data.draw(models())
    ids = random_ids(model.config, 2, data.draw(st.integers(1, model.config.context_length)))
    weights = attention_maps(model, ids).weights
    seen = attention_seen(model, ids)
    assert len(seen) == len(weights) == model.config.n_layers
    for (layer, x, y), layer_weights in zip(seen, weights, strict=True):
        values = layer.split_heads(x)[2]  # (B, H, T, D)
        joined = (layer_weights @ values).transpose(1, 2).flatten(2)  # (B, T, C)
        torch.testing.assert_close(layer.projection(joined), y, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_weights_are_those_of_transformers():
    config = GPTConfig(101, 64, 48, 3, 3, drop_rate=0.1)
    model = enliven(GPT(config)).eval()
    twin = transformers_twin(model, attention="eager")
    ids = random_ids(config, 2, 64)
    theirs = twin(ids, use_cache=False, output_attentions=True).attentions
    torch.testing.assert_close(
        attention_maps(model, ids).weights, torch.stack(theirs), atol=1e-5, rtol=0
    )


def test_dropout_does_not_touch_the_maps(model, ids):
    in_eval = attention_maps(model.eval(), ids)
    in_training = attention_maps(model.train(), ids)
    assert all(map(torch.equal, in_eval, in_training))


def test_layers_come_in_order(model, ids):
    maps = attention_maps(model, ids)
    with torch.no_grad():
        _, x, _ = attention_seen(model.eval(), ids)[1]
        queries, keys, _ = model.blocks[1].attention.split_heads(x)
    assert all(
        torch.equal(step[1], expected)
        for step, expected in zip(maps, attention_steps(queries, keys), strict=True)
    )
    assert not torch.equal(maps.weights[0], maps.weights[1])


def test_any_module_with_attention_inside_will_do():
    """A bare layer, one inside plain PyTorch, and one that is used twice."""
    layer = enliven(CausalSelfAttention(CONFIG))
    embedding = nn.Embedding(30, 24)
    ids = random_ids(CONFIG, 1, 5)
    for parts, layers in (
        ([layer], 1),
        ([nn.LayerNorm(24), layer, nn.Linear(24, 3)], 1),
        ([layer] * 2, 2),
    ):
        maps = attention_maps(nn.Sequential(embedding, *parts), ids)
        assert isinstance(maps, AttentionSteps)
        assert maps.weights.shape == (layers, 1, 3, 5, 5)


def test_the_maps_carry_no_gradients(model, ids):
    assert not any(step.requires_grad for step in attention_maps(model, ids))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(model, ids, training):
    model.train(training)
    before, random_state = state_of(model), torch.get_rng_state()
    attention_maps(model, ids)
    assert_same_state(before, state_of(model))
    assert torch.equal(random_state, torch.get_rng_state())


def test_parts_in_another_mode_stay_in_it(model, ids):
    """A frozen part of a model in training is in eval mode, and must not wake up."""
    model.train()
    model.blocks[0].eval()
    before = state_of(model)
    attention_maps(model, ids)
    assert_same_state(before, state_of(model))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("reason", ["bad ids", "a layer that raises"])
def test_the_model_stays_as_it_was_when_it_raises(model, ids, training, reason):
    model.train(training)
    if reason == "bad ids":
        ids, error = ids - 30, ValueError
    else:  # after the first layer has been listened to
        model.blocks[1].attention.projection = nn.Linear(7, 7).train(training)
        error = RuntimeError
    before = state_of(model)
    with pytest.raises(error):
        attention_maps(model, ids)
    assert_same_state(before, state_of(model))


def test_a_hook_of_the_reader_stays(model, ids):
    calls = []
    layer = model.blocks[0].attention
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    attention_maps(model, ids)
    assert len(calls) == len(layer._forward_pre_hooks) == 1


def test_a_model_without_attention_is_named():
    with pytest.raises(ValueError, match=r"^Linear has no CausalSelfAttention to listen to$"):
        attention_maps(nn.Linear(2, 2), torch.zeros(1, 2))


def test_uniform_attention_is_one_over_the_tokens_so_far():
    model = GPT(CONFIG)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.query_key_value.weight.zero_()
    weights = attention_maps(model, random_ids(CONFIG, 1, 6)).weights
    expected = torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None]
    torch.testing.assert_close(weights, expected.expand_as(weights))
    assert math.isclose(weights[0, 0, 0, 3, 0], 0.25)
