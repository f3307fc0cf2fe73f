"""Sampling against its definition and transformers'; cached decoding against the model itself."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib import characters, tokenizer
from gptlib.config import GPTConfig
from gptlib.generation import (
    check_logits,
    check_sampling,
    generate,
    in_view,
    next_logits,
    next_probabilities,
    sample_next,
    write,
)
from gptlib.kv_cache import KVCache
from gptlib.model import GPT
from tests.test_model import enliven, random_ids, transformers_twin


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices gain nothing from a second thread, and wait for it where tests share cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(context_length=12, n_layers=2, drop_rate=0.0, vocab_size=50, seed=0, **shape):
    shape = {"emb_dim": 16, "n_heads": 2} | shape
    config = GPTConfig(vocab_size, context_length, n_layers=n_layers, drop_rate=drop_rate, **shape)
    return enliven(GPT(config), seed).eval()


def written(model, ids, n, **options):
    """Return all new tokens as ``(B, T)``."""
    tokens = list(generate(model, ids, n, **options))
    return torch.stack(tokens, dim=1) if tokens else ids[:, :0]


# ---------------------------------------------------------------------------------------------
# From logits to probabilities

LOGITS = st.integers(0, 2**31).map(lambda seed: 3 * torch.randn(2, 20, generator=seeded(seed)))
TEMPERATURES = st.floats(0.05, 20)
TOP_K = st.none() | st.integers(1, 30)
TOP_P = st.none() | st.floats(0.01, 1)


@given(LOGITS, st.just(0.0) | TEMPERATURES, TOP_K, TOP_P)
def test_probabilities_sum_to_one_and_keep_the_order_of_the_logits(logits, temperature, k, p):
    before = logits.clone()
    probabilities = next_probabilities(logits, temperature, k, p)
    assert torch.equal(logits, before)
    assert probabilities.shape == logits.shape
    assert torch.allclose(probabilities.sum(dim=-1), torch.ones(2))
    assert (probabilities >= 0).all()
    sorted_by_logit = probabilities.gather(-1, logits.argsort(dim=-1))
    assert (sorted_by_logit.diff(dim=-1) >= 0).all()
    if k is not None:
        assert (probabilities > 0).sum(dim=-1).max() <= k


@given(LOGITS, TEMPERATURES, TOP_P)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(logits, temperature, p):
    plain = next_probabilities(logits, temperature)
    kept = next_probabilities(logits, temperature, top_p=p)
    for row, plain_row in zip(kept, plain, strict=True):
        chosen = plain_row[row > 0]
        if p is None or p == 1:
            assert torch.allclose(row, plain_row)
            assert torch.equal(row > 0, plain_row > 0)
            continue
        assert chosen.sum() >= p - 1e-6
        assert chosen.sum() - chosen.min() < p + 1e-6
        assert torch.allclose(row[row > 0], chosen / chosen.sum())


@given(LOGITS, TEMPERATURES, st.integers(1, 20), st.floats(0.05, 0.99))
@settings(max_examples=40)
def test_probabilities_are_those_of_transformers(logits, temperature, k, p):
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warped = TemperatureLogitsWarper(temperature)(None, logits)
    warped = TopPLogitsWarper(p)(None, TopKLogitsWarper(k)(None, warped))
    theirs = warped.softmax(dim=-1)
    ours = next_probabilities(logits, temperature, k, p)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_an_example_by_hand():
    logits = torch.tensor([1.0, 4.0, 2.0, 8.0]).log()  # probabilities 1, 4, 2 and 8 of 15
    fifteenths = torch.tensor([1.0, 4.0, 2.0, 8.0]) / 15
    assert torch.allclose(next_probabilities(logits), fifteenths)
    squares = torch.tensor([1.0, 16.0, 4.0, 64.0]) / 85
    assert torch.allclose(next_probabilities(logits, 0.5), squares)
    top_2 = torch.tensor([0, 4, 0, 8]) / 12
    assert torch.allclose(next_probabilities(logits, top_k=2), top_2)
    assert torch.allclose(next_probabilities(logits, top_p=0.75), top_2)
    # Of what top_k leaves, 8 of 12 are two thirds: top_p counts what is left, not all.
    assert torch.allclose(next_probabilities(logits, top_k=2, top_p=0.6), torch.eye(4)[3])
    assert torch.allclose(next_probabilities(logits, top_k=99), next_probabilities(logits))


def test_of_equal_logits_the_smaller_id_is_the_likelier():
    logits = torch.tensor([[0.0, 2.0, 2.0, 2.0, 1.0], [7.0, 7.0, 7.0, 7.0, 7.0]])
    first = torch.eye(5)[[1, 0]]
    assert torch.equal(next_probabilities(logits, 0), first)
    assert torch.equal(next_probabilities(logits, top_k=1), first)
    assert torch.equal(next_probabilities(logits, top_p=0.01), first)
    assert sample_next(logits, 0).tolist() == [1, 0]
    assert next_probabilities(logits, top_k=2)[0].tolist() == [0, 0.5, 0.5, 0, 0]
    many = next_probabilities(torch.zeros(5_000), top_k=3)  # few could stay in order by chance
    assert many.nonzero().flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_logits(dtype):
    logits = torch.randn(2, 300, generator=seeded()).to(dtype)
    probabilities = next_probabilities(logits, 0.7, 40, 0.9)
    assert probabilities.dtype == torch.float32
    assert torch.allclose(probabilities, next_probabilities(logits.float(), 0.7, 40, 0.9))
    assert sample_next(logits, 0.7, 40, 0.9, seeded()).dtype == torch.int64


def test_a_token_with_logit_minus_infinity_never_comes():
    logits = torch.tensor([[-math.inf, 1.0, -math.inf, 0.0]])
    for k, p in [(None, None), (4, None), (None, 1.0), (3, 0.999)]:
        probabilities = next_probabilities(logits, 1.0, k, p)
        assert (probabilities[0, [0, 2]] == 0).all()
        assert torch.allclose(probabilities.sum(), torch.tensor(1.0))
    assert sample_next(logits.repeat(99, 1), 5.0, generator=seeded()).unique().tolist() == [1, 3]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_not_finite_are_refused(wrong, temperature):
    logits = torch.zeros(2, 5)
    logits[1, 3] = wrong
    with pytest.raises(ValueError, match=f"the largest logit is {wrong}"):
        sample_next(logits, temperature)
    with pytest.raises(ValueError, match="the largest logit is -inf"):
        check_logits(torch.full((5,), -math.inf))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((-0.1, None, None), "temperature must be 0 or at least 0.000001, not -0.1"),
        ((1e-300, None, None), "temperature must be .* not 1e-300"),
        ((math.inf, None, None), "temperature must be .* not inf"),
        ((math.nan, None, None), "temperature must be .* not nan"),
        ((1, 0, None), "top_k must be at least 1, or None for all tokens, not 0"),
        ((0, 0, None), "top_k must be at least 1"),
        ((1, None, 0.0), "top_p must be above 0 and at most 1, or None, not 0.0"),
        ((1, None, 1.01), "top_p must be above 0 and at most 1, or None, not 1.01"),
        ((1, None, math.nan), "top_p must be"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers, message):
    for function in (check_sampling, lambda *n: sample_next(torch.zeros(1, 4), *n)):
        with pytest.raises(ValueError, match=message):
            function(*numbers)


def test_the_lowest_and_highest_temperatures():
    logits = torch.tensor([[90.0, 100.0, -100.0, 99.99]])
    assert torch.equal(next_probabilities(logits, 1e-6), next_probabilities(logits, 0))
    assert torch.allclose(next_probabilities(logits, 1e30), torch.full((1, 4), 0.25))


# ---------------------------------------------------------------------------------------------
# Drawing


def p_value(counts, probabilities):
    """Return how likely counts at least so far from the expected ones are: Pearson's chi-square.

    Every expected count must be 5 or more. Infinitely far are counts of what has probability 0.
    """
    if counts[probabilities == 0].any():
        return 0.0
    counts, expected = counts[probabilities > 0], counts.sum() * probabilities[probabilities > 0]
    assert expected.min() >= 5, f"too few draws: {expected.min()}"
    distance = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor((len(counts) - 1) / 2, dtype=torch.float64)
    return torch.special.gammaincc(freedom, distance / 2).item()


CHI_SQUARE_LOGITS = torch.tensor([0.3, 2.0, -1.0, 1.5, 0.0, -0.5, 1.9, 0.8], dtype=torch.float64)


def by_definition(temperature, top_k, top_p):
    """Compute the probabilities of the eight tokens in plain Python, one after the other."""
    weights = [math.exp(logit / temperature) for logit in CHI_SQUARE_LOGITS.tolist()]
    order = sorted(range(8), key=lambda token: -weights[token])[:top_k]
    total = sum(weights[token] for token in order)
    kept, reached = [], 0.0
    for token in order:
        if top_p is None or reached < top_p:
            kept.append(token)
        reached += weights[token] / total
    total = sum(weights[token] for token in kept)
    chances = [weights[token] / total if token in kept else 0.0 for token in range(8)]
    return torch.tensor(chances, dtype=torch.float64)


def counted(temperature, top_k, top_p, draws=20_000):
    logits = CHI_SQUARE_LOGITS.float().expand(draws, -1)
    tokens = sample_next(logits, temperature, top_k, top_p, generator=seeded(1))
    return torch.bincount(tokens, minlength=8).double()


SETTINGS = [
    (1.0, None, None),
    (0.7, None, None),
    (2.0, None, None),
    (1.0, 3, None),
    (1.0, None, 0.8),
    (0.8, 5, 0.9),
    (1.5, 6, 0.75),
]


@pytest.mark.parametrize(
    ("logits", "numbers"),
    [
        (torch.tensor([1.0, 3.0, 2.0]), {"top_p": 1e-50}),
        (torch.tensor([1e33, 3e33, 2e33]), {"temperature": 1e-6}),
        (torch.tensor([-3e38, 3e38, 2e38]), {"temperature": 1e-6, "top_k": 2, "top_p": 1e-300}),
        (torch.tensor([1e40, 3e40, 2e40], dtype=torch.float64), {}),
    ],
)
def test_numbers_beyond_float32_leave_the_likeliest_token(logits, numbers):
    assert next_probabilities(logits, **numbers).tolist() == [0, 1, 0]
    assert sample_next(logits[None], **numbers).tolist() == [1]


@pytest.mark.parametrize("numbers", SETTINGS)
def test_what_is_drawn_has_the_stated_distribution(numbers):
    assert p_value(counted(*numbers), by_definition(*numbers)) > 1e-3


def test_the_test_of_the_distribution_sees_what_is_wrong():
    for drawn, stated in itertools.permutations(SETTINGS, 2):
        assert p_value(counted(*drawn), by_definition(*stated)) < 1e-6, (drawn, stated)
    slightly = [((1.05, None, None), SETTINGS[0]), ((1.0, 7, None), SETTINGS[0])]
    for drawn, stated in slightly:
        assert p_value(counted(*drawn), by_definition(*stated)) < 1e-3, (drawn, stated)


def test_drawing_depends_on_the_generator_alone():
    logits = torch.randn(3, 50, generator=seeded())
    draws = [sample_next(logits, generator=seeded(seed)).tolist() for seed in (1, 1, *range(9))]
    assert draws[0] == draws[1]
    assert len(set(map(tuple, draws))) > 2
    generator = seeded(1)
    state = generator.get_state()
    sample_next(logits, 0, generator=generator)
    assert torch.equal(generator.get_state(), state), "temperature 0 draws nothing"


# ---------------------------------------------------------------------------------------------
# The cache

SHAPES = st.fixed_dictionaries(
    {
        "context_length": st.sampled_from([1, 2, 3, 4, 7, 12]),
        "n_layers": st.integers(1, 3),
        "n_heads": st.sampled_from([1, 2, 4]),
        "vocab_size": st.sampled_from([2, 50]),
        "qkv_bias": st.booleans(),
        "tie_head": st.booleans(),
        "seed": st.integers(0, 99),
    }
)


@given(SHAPES, st.integers(1, 3), st.data())
@settings(max_examples=40)
def test_next_logits_are_the_models_last_however_the_text_is_cut(shape, batch, data):
    model = tiny(**shape)
    ids = random_ids(model.config, batch, data.draw(st.integers(1, shape["context_length"])))
    cache = KVCache(model.config, model.token_embedding.weight, batch)
    with torch.no_grad():
        while cache.length < ids.shape[1]:
            end = data.draw(st.integers(cache.length + 1, ids.shape[1]))
            logits = next_logits(model, ids[:, cache.length : end], cache)
            assert cache.length == end
            assert logits.shape == (batch, model.config.vocab_size)
            expected = model(ids[:, :end])[:, -1]
            assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


def test_hooks_see_what_a_cache_saves_and_what_it_does_not():
    """Every part of the model is called, with the new tokens alone."""
    model = tiny(n_layers=2)
    seen = []
    for name, part in model.named_modules():
        if name and name != "blocks":
            part.register_forward_hook(lambda _, x, y, name=name: seen.append((name, y.shape)))
    list(generate(model, random_ids(model.config, 1, 3), 2, temperature=0))
    parts = {name for name, _ in model.named_modules()} - {"", "blocks"}
    assert {name for name, _ in seen} == parts
    read = [shape[1] for name, shape in seen if name == "blocks.1"]
    assert read == [3, 1]
    assert [shape[1] for name, shape in seen if name == "final_norm"] == [1, 1]


def test_a_model_called_with_a_cache_gives_the_logits_of_all_new_tokens():
    model = tiny(n_layers=2)
    ids = random_ids(model.config, 2, 6)
    cache = KVCache(model.config, model.token_embedding.weight, 2)
    with torch.no_grad():
        logits = torch.cat([model(ids[:, :4], cache), model(ids[:, 4:], cache)], dim=1)
        assert torch.allclose(logits, model(ids), atol=1e-5)
    assert cache.length == 6


def test_a_forward_that_breaks_off_adds_nothing_to_the_cache():
    model = tiny(n_layers=2)
    ids = random_ids(model.config, 1, 6)
    cache = KVCache(model.config, model.token_embedding.weight, 1)
    with torch.no_grad():
        next_logits(model, ids[:, :3], cache)
        hook = model.blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next_logits(model, ids[:, 3:], cache)
        hook.remove()
        assert cache.length == 3
        again = next_logits(model, ids[:, 3:], cache)
        assert torch.allclose(again, model(ids)[:, -1], atol=1e-5)


@given(SHAPES, st.integers(1, 3), st.integers(1, 30), st.sampled_from([0, 0.7, 1.5]))
@settings(max_examples=60)
def test_cached_and_uncached_agree_on_every_token(shape, batch, length, temperature):
    model = tiny(**shape)
    ids, new = random_ids(model.config, batch, length), 2 * shape["context_length"] + 3
    options = {"temperature": temperature, "top_k": 20, "top_p": 0.95}
    cached, uncached = (
        written(model, ids, new, generator=seeded(3), cached=cached, **options)
        for cached in (True, False)
    )
    assert cached.shape == (batch, new)
    assert torch.equal(cached, uncached)


@given(SHAPES, st.integers(1, 20))
@settings(max_examples=30)
def test_past_the_context_the_newest_half_stays(shape, length):
    model, window = tiny(**shape), shape["context_length"]
    ids, rule = random_ids(model.config, 2, length), []
    view = ids
    for _ in range(2 * window + 3):
        if view.shape[1] > window:
            view = view[:, view.shape[1] - max(1, window // 2) :]
        with torch.no_grad():
            rule.append(model(view)[:, -1].argmax(dim=-1))
        view = torch.cat([view, rule[-1][:, None]], dim=1)
    assert torch.equal(written(model, ids, len(rule), temperature=0), torch.stack(rule, dim=1))


@pytest.mark.parametrize(
    ("length", "window", "left"), [(7, 7, 7), (8, 7, 3), (99, 8, 4), (2, 1, 1)]
)
def test_what_is_in_view(length, window, left):
    ids = torch.arange(length)[None]
    assert in_view(ids, window).tolist() == [list(range(length - left, length))]


def test_the_cache_does_its_work():
    """Each token after the prompt is read alone, until the context is full."""
    model, read = tiny(context_length=8), []

    def reader(model, ids, cache):
        read.append((cache.length, ids.shape[1]))
        return next_logits(model, ids, cache)

    written(model, random_ids(model.config, 1, 6), 9, temperature=0, reader=reader)
    assert read == [(0, 6), (6, 1), (7, 1), (0, 4), (4, 1), (5, 1), (6, 1), (7, 1), (0, 4)]


# ---------------------------------------------------------------------------------------------
# Generating


@pytest.mark.parametrize("batch", [1, 3])
def test_greedily_the_tokens_are_those_of_transformers(batch):
    model = tiny(context_length=32)
    theirs, ids = transformers_twin(model).eval(), random_ids(model.config, batch, 5)
    theirs.generation_config.eos_token_id = None
    expected = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=27
    )
    assert torch.equal(written(model, ids, 27, temperature=0), expected[:, 5:])


@pytest.mark.parametrize("cached", [True, False])
def test_the_texts_of_a_batch_do_not_touch_each_other(cached):
    model = tiny()
    ids = random_ids(model.config, 4, 6)
    together = written(model, ids, 20, temperature=0, cached=cached)
    alone = [written(model, row[None], 20, temperature=0, cached=cached)[0] for row in ids]
    assert torch.equal(together, torch.stack(alone))
    changed = torch.cat([ids[:1], ids[1:].flip(1)])
    drawn = [written(model, rows, 20, generator=seeded(), cached=cached) for rows in (ids, changed)]
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert not torch.equal(drawn[0], drawn[1])


def test_a_text_that_has_stopped_repeats_the_stop_and_the_last_ends_all():
    model, stop = tiny(vocab_size=8), 3
    ids = random_ids(model.config, 5, 4)
    free = written(model, ids, 60, generator=seeded())
    stopped = written(model, ids, 60, generator=seeded(), stop=stop)
    firsts = [row.tolist().index(stop) for row in free]
    assert len(set(firsts)) > 1
    assert stopped.shape[1] == max(firsts) + 1 < 60
    for row, free_row, first in zip(stopped, free, firsts, strict=True):
        assert row[: first + 1].tolist() == free_row[: first + 1].tolist()
        assert (row[first:] == stop).all()


def test_a_token_comes_as_soon_as_it_is_drawn():
    model, read = tiny(), []

    def reader(*arguments):
        read.append(arguments)
        return next_logits(*arguments)

    tokens = generate(model, random_ids(model.config, 1, 2), 10**9, reader=reader)
    assert read == []
    for number in range(1, 4):
        assert next(tokens).shape == (1,)
        assert len(read) == number
    tokens.close()
    assert list(generate(model, random_ids(model.config, 1, 2), 0, reader=reader)) == []


def test_between_two_tokens_the_model_is_the_callers():
    """It is in its own mode, gradients flow, and what was yielded can be trained on."""
    model = tiny(drop_rate=0.5).train()
    ids = random_ids(model.config, 2, 3)
    expected = written(model.eval(), ids, 5, temperature=0)
    tokens, got = generate(model.train(), ids, 5, temperature=0), []
    for token in tokens:
        got.append(token)
        assert model.training
        assert all(part.training for part in model.modules())
        assert torch.is_grad_enabled()
        assert not token.is_inference()
        model(torch.stack(got, dim=1)).sum().backward()
    assert torch.equal(torch.stack(got, dim=1), expected), "dropout was on"
    first = generate(model.eval(), ids, 5)
    next(first)
    first.close()
    assert not model.training


def test_after_an_error_the_model_is_in_its_own_mode():
    model = tiny().train()

    def broken(*arguments):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(generate(model, torch.zeros(1, 1, dtype=torch.int64), 3, reader=broken))
    assert model.training


def test_ids_may_be_int32_and_are_left_alone():
    model = tiny()
    ids = random_ids(model.config, 2, 12)
    short, before = ids.int(), ids.clone()
    expected = written(model, ids, 9, temperature=0)
    assert torch.equal(written(model, short, 9, temperature=0), expected)
    assert torch.equal(ids, before)
    assert torch.equal(short, before.int())


def test_a_model_in_half_precision_writes_too():
    model = tiny().bfloat16()
    ids = random_ids(model.config, 2, 12)
    assert written(model, ids, 9, generator=seeded()).shape == (2, 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": [[1, 2]]}, "ids must be a tensor of whole numbers"),
        ({"ids": torch.zeros(3, dtype=torch.int64)}, "ids must have the shape"),
        ({"ids": torch.zeros(1, 0, dtype=torch.int64)}, "ids must have the shape"),
        ({"ids": torch.tensor([[50]])}, "ids must be from 0 to vocab_size - 1 = 49, not 50"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, not -1"),
        ({"temperature": -1}, "temperature must be"),
        ({"stop": 50}, "stop must be a token, from 0 to 49, not 50"),
    ],
)
def test_mistakes_are_named_before_the_first_token_is_asked_for(changes, message):
    arguments = {"ids": torch.tensor([[1, 2]]), "max_new_tokens": 3} | changes
    with pytest.raises(ValueError, match=message):
        generate(tiny(), **arguments)


def test_a_model_whose_weights_are_not_numbers_is_named():
    model = tiny()
    with torch.no_grad():
        model.final_norm.scale.fill_(math.nan)
    with pytest.raises(ValueError, match="did the weights that made it become NaN"):
        next(generate(model, torch.tensor([[1]]), 3, temperature=0))


# ---------------------------------------------------------------------------------------------
# Writing text


@pytest.fixture(scope="module")
def stories_model():
    return tiny(context_length=16, vocab_size=tokenizer.stories().n_vocab)


def reader_of(tokens, vocab_size):
    """Return a reader after which the given tokens are drawn, and what it was given to read."""
    read, coming = [], iter(tokens)

    def reader(model, ids, cache):
        read.append(ids.tolist())
        return 99 * torch.eye(vocab_size)[next(coming)][None]

    return reader, read


def pieces(model, encoding, prompt, tokens):
    reader, read = reader_of(tokens, encoding.n_vocab)
    got = list(write(model, encoding, prompt, len(tokens), reader=reader, temperature=0))
    return got, read[0]


def test_a_prompt_is_read_after_end_of_text_and_the_text_ends_before_it(stories_model):
    encoding = tokenizer.stories()
    end = encoding.eot_token
    tokens = encoding.encode_ordinary(" Once upon a time")
    got, read = pieces(stories_model, encoding, "Hello", [*tokens, end, *tokens])
    assert "".join(got) == " Once upon a time"
    assert len(got) == len(tokens)
    assert read == [[end, *encoding.encode_ordinary("Hello")]]
    got, read = pieces(stories_model, encoding, "", [end])
    assert (got, read) == ([], [[end]])


def test_end_of_text_in_a_prompt_is_text_like_any_other(stories_model):
    encoding = tokenizer.stories()
    _, read = pieces(stories_model, encoding, tokenizer.END_OF_TEXT, [0])
    assert read[0].count(encoding.eot_token) == 1


@given(st.text(min_size=1, max_size=8))
@settings(max_examples=30)
def test_a_piece_is_never_half_a_character(stories_model, text):
    encoding = tokenizer.stories()
    tokens = [encoding.encode_single_token(bytes([byte])) for byte in text.encode()]
    got, _ = pieces(stories_model, encoding, "", tokens)
    assert got == list(text)


def test_bytes_that_are_no_character_are_shown_as_such_and_the_rest_goes_on(stories_model):
    encoding = tokenizer.stories()
    tokens = [encoding.encode_single_token(bytes([byte])) for byte in b"a\xffb\xe2\x82c\xe2\x82"]
    got, _ = pieces(stories_model, encoding, "", tokens)
    assert "".join(got) == "a\ufffdb\ufffdc", "what is cut off at the end is not shown"


def test_sampling_reaches_generate_and_long_prompts_are_cut_by_the_rule(stories_model):
    encoding, prompt = tokenizer.stories(), "Once upon a time there was a girl. " * 9
    ids = torch.tensor([[encoding.eot_token, *encoding.encode_ordinary(prompt)]])
    assert ids.shape[1] > stories_model.config.context_length
    options = {"temperature": 0.5, "top_k": 9, "top_p": 0.9}
    tokens = written(stories_model, ids, 20, stop=encoding.eot_token, generator=seeded(), **options)
    new = [token for token in tokens[0].tolist() if token != encoding.eot_token]
    text = "".join(write(stories_model, encoding, prompt, 20, generator=seeded(), **options))
    assert text == encoding.decode(new).rstrip("\ufffd")


def test_writing_names_mistakes_before_the_first_piece_is_asked_for(stories_model):
    with pytest.raises(ValueError, match="the encoding has 50,257 tokens, but"):
        write(stories_model, tokenizer.gpt2(), "a", 1)
    with pytest.raises(ValueError, match="temperature must be"):
        write(stories_model, tokenizer.stories(), "a", 1, temperature=-1)


def test_entries_that_the_encoding_lacks_are_never_written():
    """A GPT-2 may have been padded, or have room for new tokens."""
    encoding = tokenizer.stories()
    for more in (1, 47, 1_023):
        model = tiny(context_length=16, vocab_size=encoding.n_vocab + more)
        read = []

        def reader(model, ids, cache, read=read):
            read.append(ids)
            return torch.arange(model.config.vocab_size)[None].float()  # the last is the likeliest

        assert list(write(model, encoding, "a", 3, reader=reader, temperature=0)) == []
        ids = torch.tensor([[1]])
        options = {"reader": reader, "n_tokens": 5, "temperature": 3.0, "generator": seeded()}
        assert max(map(int, generate(model, ids, 200, **options))) == 4
        for cached in (True, False):
            text = "".join(write(model, encoding, "a", 40, generator=seeded(), cached=cached))
            assert text
    with pytest.raises(
        ValueError, match="the encoding has 2,048 tokens, but the model's vocab_siz"
    ):
        write(tiny(vocab_size=2_048 + 1_024), encoding, "a", 1)
    with pytest.raises(
        ValueError, match="the encoding has 2,048 tokens, but the model's vocab_siz"
    ):
        write(tiny(vocab_size=2_047), encoding, "a", 1)


def test_an_encoding_without_end_of_text_is_named():
    encoding = tokenizer.train_bpe("aaaa", 258, ["<|other|>"])
    message = (
        r"^the encoding 'bpe-258' has no special token <\|endoftext\|>, which .*<\|other\|>\)$"
    )
    with pytest.raises(ValueError, match=message):
        write(tiny(vocab_size=258), encoding, "a", 1)


def test_a_prompt_that_the_encoding_has_no_tokens_for_is_named():
    encoding = characters.vocabulary("abc é\n")
    model = tiny(vocab_size=encoding.n_vocab)
    assert set("".join(write(model, encoding, "a é\n", 20, generator=seeded()))) <= set("abc é\n")
    for prompt, wrong in (("abd", "'d'"), ("\u00e9\u00e8", "'è'"), ("\ud83d", "'\ufffd'")):
        with pytest.raises(
            ValueError, match=f"^the encoding 'characters-7' has no token for {wrong}"
        ):
            write(model, encoding, prompt, 1)
