"""What is recorded is what flowed, what is changed is just that, and the model stays as it was."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from torch import nn

from gptlib import activations
from gptlib.activations import attention_maps, changed, head_scores, logit_lens, record
from gptlib.config import GPTConfig
from gptlib.generation import generate, next_logits
from gptlib.kv_cache import KVCache
from gptlib.model import GPT
from gptlib.pretrained import load
from tests.test_attention_maps import assert_same_state, state_of
from tests.test_model import enliven, one_thread, random_ids

__all__ = ["one_thread"]  # the fixture serves this module too

CONFIG = GPTConfig(
    vocab_size=30, context_length=16, emb_dim=24, n_heads=3, n_layers=2, drop_rate=0.5
)
B, T, C, H, D, L, V = 2, 9, 24, 3, 8, 2, 30
CHANGEABLE = [
    "embeddings",
    "blocks.0",
    "blocks.1",
    "blocks.0.attention",
    "blocks.1.feed_forward",
    "blocks.0.attention.head.2",
    "blocks.1.attention.head.0",
]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def model():
    return enliven(GPT(CONFIG)).eval()


@pytest.fixture
def ids():
    return random_ids(CONFIG, B, T)


def recorded(model, ids):
    with record(model) as r:
        logits = model(ids)
    return r, logits


def close(ours, theirs, atol=1e-6):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-5)


# ---------------------------------------------------------------------------------------------
# Recording


def test_every_activation_is_there_in_its_size(model, ids):
    r, _ = recorded(model, ids)
    sizes = {"embeddings": (B, T, C), "final_norm": (B, T, C)}
    for i in range(L):
        block = f"blocks.{i}"
        names = ("after_attention", "attention", "feed_forward", "norm_1", "norm_2")
        sizes |= {f"{block}.{name}": (B, T, C) for name in names} | {block: (B, T, C)}
        sizes |= {f"{block}.attention.head.{h}": (B, T, D) for h in range(H)}
        sizes |= {
            f"{block}.attention.{name}": (B, H, T, D) for name in ("queries", "keys", "values")
        }
        sizes[f"{block}.attention.query_key_value"] = (B, T, 3 * C)
        sizes[f"{block}.attention.weights"] = (B, H, T, T)
    assert {name: (*value.shape,) for name, value in r.items()} == sizes
    assert r.weights.shape == (L, B, H, T, T)
    assert r.residual.shape == (L + 1, B, T, C)


def test_the_residual_stream_is_what_the_blocks_pass_on(model, ids):
    r, logits = recorded(model, ids)
    x = model.token_embedding(ids) + model.position_embedding.weight[:T]
    assert torch.equal(r["embeddings"], x)
    for i, block in enumerate(model.blocks):
        assert torch.equal(r[f"blocks.{i}.norm_1"], block.norm_1(x))
        assert torch.equal(r[f"blocks.{i}.attention"], block.attention(block.norm_1(x)))
        middle = x + r[f"blocks.{i}.attention"]
        assert torch.equal(r[f"blocks.{i}.after_attention"], middle)
        assert torch.equal(r[f"blocks.{i}.norm_2"], block.norm_2(middle))
        assert torch.equal(r[f"blocks.{i}.feed_forward"], block.feed_forward(block.norm_2(middle)))
        x = block(x)
        assert torch.equal(r[f"blocks.{i}"], x)
        assert torch.equal(r.residual[i + 1], x)
    assert torch.equal(r["final_norm"], model.final_norm(x))
    assert torch.equal(logits, model(ids))


def test_heads_are_weights_times_values_and_add_up_to_the_attention(model, ids):
    r, _ = recorded(model, ids)
    close(r.weights, attention_maps(model, ids).weights)
    for i, block in enumerate(model.blocks):
        name = f"blocks.{i}.attention"
        heads = [r[f"{name}.head.{h}"] for h in range(H)]
        found = r[f"{name}.weights"] @ r[f"{name}.values"]  # (B, H, T, D)
        close(torch.stack(heads, dim=1), found)
        close(block.attention.projection(torch.cat(heads, dim=-1)), r[name])


def test_with_dropout_it_is_what_really_flowed(model, ids):
    model.train()
    torch.manual_seed(0)
    logits = model(ids)
    torch.manual_seed(0)
    r, logits_then = recorded(model, ids)
    assert model.training
    assert torch.equal(logits_then, logits)  # and no random number was drawn
    assert torch.equal(model.output_head(model.final_norm(r["blocks.1"])), logits)
    close(r["blocks.0.after_attention"] + r["blocks.0.feed_forward"], r["blocks.0"])
    assert (r["embeddings"] == 0).float().mean() > 0.3
    close(r.weights[0].sum(-1), torch.ones(B, H, T))


def test_writing_with_a_cache_records_rows_of_the_same_tables(model, ids):
    """The prompt at once, then token by token: each row is the plain forward's."""
    whole, _ = recorded(model, ids)
    cache, start = KVCache(CONFIG, ids.new_zeros(0, dtype=torch.float32), B), 0
    with record(model) as r:
        for end in (4, 5, 6, T):
            next_logits(model, ids[:, start:end], cache)
            rows = slice(start, end)
            assert set(r) == set(whole)
            for name, value in r.items():
                if name.endswith("weights"):
                    close(value, whole[name][:, :, rows, :end], 1e-5)
                elif name.endswith(("queries", "keys", "values")):
                    close(value, whole[name][:, :, :end], 1e-5)
                elif name.endswith("query_key_value"):
                    close(value, whole[name][:, :end], 1e-5)
                elif name == "final_norm":
                    close(value, whole[name][:, end - 1 : end], 1e-5)
                else:
                    close(value, whole[name][:, rows], 1e-5)
            start = end


def test_a_cache_that_was_filled_before_is_refused(model, ids):
    cache = KVCache(CONFIG, ids.new_zeros(0, dtype=torch.float32), B)
    next_logits(model, ids[:, :4], cache)
    with pytest.raises(ValueError, match="record from the first token on, not after 4"):  # noqa: SIM117
        with record(model):
            next_logits(model, ids[:, 4:5], cache)


def test_the_latest_forward_is_kept(model, ids):
    alone, _ = recorded(model, ids[:1, :5])
    with record(model) as r:
        model(ids)
        model(ids[:1, :5])
    assert set(r) == set(alone)
    assert all(torch.equal(r[name], alone[name]) for name in r)


def test_a_forward_that_breaks_off_leaves_only_what_it_reached(model, ids):
    wrong = changed(model, "blocks.1.feed_forward", torch.ones(7))
    with record(model) as r:
        model(ids)
        with pytest.raises(ValueError, match="does not fit"), wrong:
            model(ids)
    assert "blocks.0" in r
    assert "blocks.1" not in r


def test_what_is_recorded_stays_and_has_no_gradients(model, ids):
    with torch.enable_grad(), record(model) as r:
        logits = model(ids)
        logits.sum().backward()
    assert not any(value.requires_grad for value in r.values())
    kept = {name: value.clone() for name, value in r.items()}
    model(ids.flip(1))
    assert all(torch.equal(r[name], kept[name]) for name in r)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("opening", [record, lambda m: changed(m, "blocks.0", 0.0)])
@pytest.mark.parametrize("reason", ["nothing", "the reader", "a layer"])
def test_the_model_stays_as_it_was(model, ids, training, opening, reason):
    model.train(training)
    model.blocks[0].eval()
    model.blocks[0].norm_1.scale.requires_grad_(False)
    model.final_norm.register_forward_hook(lambda *_: None)  # one of the reader's own
    if reason == "a layer":
        model.blocks[1].feed_forward.expand = nn.Linear(7, 7)
    before = state_of(model)
    errors = {"the reader": ZeroDivisionError, "a layer": RuntimeError}
    with ExitStack() as stack:
        if reason in errors:
            stack.enter_context(pytest.raises(errors[reason]))
        with opening(model):
            model(ids)
            assert reason != "the reader" or 1 / 0
    assert_same_state(before, state_of(model))


def test_the_model_stays_as_it_was_when_it_cannot_be_listened_to(model):
    del model.blocks[1].feed_forward
    before = state_of(model)
    with pytest.raises(AttributeError), record(model):
        pass
    assert_same_state(before, state_of(model))


@pytest.mark.parametrize("opening", [record, lambda m: changed(m, "blocks.0", 0.0)])
def test_what_hooks_cannot_reach_is_refused(model, opening):
    with (
        pytest.raises(ValueError, match=r"^a GPT is needed, not Sequential: "),
        opening(nn.Sequential(model)),
    ):
        pass
    model.blocks[1]._compiled_call_impl = model.blocks[1]._call_impl  # as Module.compile leaves it
    with pytest.raises(ValueError, match="do not reach into a compiled model"), opening(model):
        pass


# ---------------------------------------------------------------------------------------------
# Changing


@pytest.mark.parametrize("name", CHANGEABLE)
def test_what_was_there_in_place_of_itself_changes_nothing(model, ids, name):
    r, logits = recorded(model, ids)
    with changed(model, name, r[name]):
        assert torch.equal(model(ids), logits)
    with changed(model, name, r[name], positions=[2, 5]):
        assert torch.equal(model(ids), logits)


@pytest.mark.parametrize("name", CHANGEABLE)
def test_only_the_positions_named_are_changed(model, ids, name):
    """What is recorded has what came from elsewhere at these, and what was there at all others."""
    r, logits = recorded(model, ids)
    other, _ = recorded(model, ids.flip(0))
    # The record begins first or last: it has what is changed either way.
    with changed(model, name, other[name], positions={2, 5}), record(model) as inner:
        changed_logits = model(ids)
    with record(model) as outer, changed(model, name, other[name], positions={2, 5}):
        model(ids)
    for now in (inner, outer):
        assert torch.equal(now[name][:, [2, 5]], other[name][:, [2, 5]])
        rest = [0, 1, 3, 4, 6, 7, 8]
        assert torch.equal(now[name][:, rest], r[name][:, rest])
    assert torch.equal(changed_logits[:, :2], logits[:, :2])  # the past cannot know
    assert not torch.allclose(changed_logits[:, 2], logits[:, 2], atol=1e-3)
    assert torch.equal(model(ids), logits)


@pytest.mark.parametrize(("name", "layers"), [("embeddings", 0), ("blocks.0", 1), ("blocks.1", 2)])
def test_the_whole_stream_of_another_text_gives_its_logits(model, ids, name, layers):
    other, logits = recorded(model, ids.flip(0))
    assert name == ["embeddings", "blocks.0", "blocks.1"][layers]
    with changed(model, name, other[name]):
        assert torch.equal(model(ids), logits)


@pytest.mark.parametrize(("block", "head"), [(0, 0), (0, 2), (1, 1)])
def test_a_head_switched_off_is_its_columns_at_zero(model, ids, block, head):
    with changed(model, f"blocks.{block}.attention.head.{head}", 0.0):
        without = model(ids)
    assert not torch.allclose(without, model(ids), atol=1e-2)
    weight = model.blocks[block].attention.projection.weight  # (C, C)
    weight[:, head * D : (head + 1) * D] = 0
    close(without, model(ids))


@pytest.mark.parametrize("name", [*CHANGEABLE, "blocks.1.attention"])
def test_writing_with_a_cache_is_changed_as_without(model, ids, name):
    mean = torch.linspace(-1, 1, D if "head" in name else C)
    for replacement, positions in ((0.0, None), (mean, None), (mean, {1, 4, 6})):
        with changed(model, name, replacement, positions):
            fast, slow = (
                torch.stack(list(generate(model, ids[:, :4], 9, temperature=0, cached=cached)))
                for cached in (True, False)
            )
            cache = KVCache(CONFIG, mean, B)
            next_logits(model, ids[:, :4], cache)
            close(next_logits(model, ids[:, 4:], cache), model(ids)[:, -1], 1e-4)
        assert torch.equal(fast, slow)


def test_a_recorded_activation_takes_its_place_in_what_a_cache_adds(model, ids):
    """A row for each position of the text, also where they are read one by one."""
    name = "blocks.0.attention.head.1"
    other, _ = recorded(model, ids.flip(0))
    cache = KVCache(CONFIG, ids.new_zeros(0, dtype=torch.float32), B)
    with changed(model, name, other[name]):
        logits = model(ids)
        next_logits(model, ids[:, :-1], cache)
        close(next_logits(model, ids[:, -1:], cache), logits[:, -1], 1e-4)


def test_what_is_handed_to_the_model_stays(model):
    x = torch.ones(B, T, C)
    with changed(model, "embeddings", 0.0):
        model.blocks[0](x)
    assert (x == 1).all()


def test_several_changes_add_up_and_the_outer_one_holds(model, ids):
    with changed(model, "blocks.0.attention.head.0", 0.0):
        with changed(model, "blocks.0.attention.head.1", 0.0):
            both = model(ids)
        one = model(ids)
        with changed(model, "blocks.0.attention.head.0", 7.0):
            assert torch.equal(model(ids), one)
    weight = model.blocks[0].attention.projection.weight
    weight[:, :D] = 0
    close(one, model(ids))
    weight[:, D : 2 * D] = 0
    close(both, model(ids))


@pytest.mark.parametrize(
    ("name", "replacement", "positions", "message"),
    [
        ("blocks.2", 0.0, None, "there is no 'blocks.2' to change: .* i below 2 and h below 3"),
        ("blocks.0.attention.head.3", 0.0, None, "there is no"),
        ("blocks.0.attention.weights", 0.0, None, "there is no"),
        ("blocks.0", 0.0, [3, -1], "counted from the start, from 0 on, not -1"),
        ("blocks.0", 0.0, [T], "nothing was changed: blocks.0"),
        ("blocks.0", 0.0, [], "nothing was changed: blocks.0"),
        ("blocks.0", torch.ones(D), None, r"shape \(8,\) does not fit in place of \(2, 9, 24\)"),
        ("blocks.0", torch.ones(3, T, C), [1], r"\(3, 1, 24\) does not fit .* \(2, 1, 24\)"),
        ("blocks.0", torch.ones(1, 5, C), None, "position 8 is to be .* has 5 positions"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(model, ids, name, replacement, positions, message):
    before = state_of(model)
    with pytest.raises(ValueError, match=message), changed(model, name, replacement, positions):
        model(ids)
    assert_same_state(before, state_of(model))


# ---------------------------------------------------------------------------------------------
# Scores


def pairs(places):
    return set(map(tuple, places.nonzero().tolist()))


def test_each_kind_of_head_has_its_places():
    ids = torch.tensor([7, 3, 3, 5, 3, 7, 1])
    assert pairs(activations.previous_token(ids)) == {(i, i - 1) for i in range(1, 7)}
    assert pairs(activations.first_token(ids)) == {(i, 0) for i in range(1, 7)}
    assert pairs(activations.same_word(ids)) == {(2, 1), (4, 1), (4, 2), (5, 0)}
    assert pairs(activations.induction(ids)) == {(4, 2), (4, 3), (5, 1)}


def test_a_score_is_the_mean_attention_given():
    weights = torch.rand(2, 3, 6, 6).tril()
    weights /= weights.sum(-1, keepdim=True)
    ids = torch.tensor([4, 2, 9, 4, 2, 4])
    for kind in (
        activations.previous_token,
        activations.first_token,
        activations.same_word,
        activations.induction,
    ):
        places = kind(ids)
        scores = head_scores(weights, places)
        assert scores.shape == (2, 3)
        rows = [i for i in range(6) if places[i].any()]
        for layer in range(2):
            for head in range(3):
                given = [weights[layer, head, i][places[i]].sum().item() for i in rows]
                assert scores[layer, head].item() == pytest.approx(sum(given) / len(rows))
        perfect = places / places.sum(-1, keepdim=True).clamp(min=1)
        close(head_scores(perfect[None, None], places), torch.ones(1, 1))


def test_a_score_needs_a_place():
    with pytest.raises(ValueError, match="none of the 5 positions has such a place"):
        head_scores(torch.rand(2, 3, 5, 5), activations.same_word(torch.arange(5)))
    with pytest.raises(ValueError, match="none of the 2 positions"):
        head_scores(torch.rand(2, 3, 2, 2), activations.induction(torch.tensor([1, 1])))


# ---------------------------------------------------------------------------------------------
# The residual stream, read


def test_the_logit_lens_ends_with_the_models_logits(model, ids):
    r, logits = recorded(model, ids)
    lens = logit_lens(model, r.residual)
    assert lens.shape == (L + 1, B, T, V)
    assert torch.equal(lens[-1], logits)
    embeddings = model.token_embedding(ids) + model.position_embedding.weight[:T]
    assert torch.equal(lens[0], model.output_head(model.final_norm(embeddings)))
    assert not torch.allclose(lens[1], lens[2], atol=0.1)


@pytest.mark.asset
def test_the_mini_model_can_be_looked_into():
    mini = load("mini")
    ids = random_ids(mini.config, 2, 40)
    r, logits = recorded(mini, ids)
    assert torch.equal(logit_lens(mini, r.residual)[-1], logits)
    close(r.weights, attention_maps(mini, ids).weights)
    for name in ("blocks.3.attention.head.5", "blocks.1"):
        with changed(mini, name, r[name]):
            assert torch.equal(mini(ids), logits)
