"""The compiled reader against the ordinary one, and what happens where nothing can be compiled.

To compile takes 10 to 20 seconds of processor time, most of it PyTorch's and the C++ compiler's own
start: what needs it is marked slow.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch._dynamo.utils import counters

import benchmarks.fast_generation
from benchmarks.fast_generation import FastReader, by_columns, with_row_products
from gptlib.generation import generate, next_logits
from gptlib.kv_cache import KVCache
from tests.test_generation import one_thread, random_ids, seeded, tiny, written  # noqa: F401

# Threads and shape are parts of what is compiled: all tests share one compilation.
CONTEXT = 24


@pytest.fixture(scope="module")
def model():
    return tiny(CONTEXT, n_layers=1)


@pytest.fixture(scope="module")
def compiled(one_thread, model):  # noqa: F811
    """Return a reader in float32, and how many graphs making it has compiled."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        pytest.skip(f"needs a C++ compiler: {error}")
    counters.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of PyTorch, about itself
        reader = FastReader(model, torch.float32)
    assert reader.compiled
    return reader, counters["stats"]["unique_graphs"]


def test_another_order_in_memory_changes_no_number(model):
    columns = by_columns(model)
    for name, parameter in columns.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))
        assert parameter.ndim < 2 or parameter.stride() == (1, len(parameter))
    assert columns.output_head.weight is columns.token_embedding.weight
    ids = random_ids(model.config, 1, 5)
    torch.testing.assert_close(columns(ids), model(ids))


@pytest.mark.slow
def test_the_tokens_are_the_same_and_nothing_is_compiled_again(compiled, model):
    """From a prompt of one token, past the context twice, and from a batch."""
    reader, graphs = compiled
    for batch, length, temperature in [(1, 1, 0), (1, 5, 0), (1, 30, 0), (1, 3, 0.9), (3, 5, 0)]:
        ids = random_ids(model.config, batch, length)
        fast, plain = (
            written(model, ids, 2 * CONTEXT, temperature=temperature, generator=seeded(), **options)
            for options in ({"reader": reader}, {})
        )
        assert torch.equal(fast, plain), (batch, length, temperature)
    assert graphs == counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_the_compiled_step_is_what_runs(compiled, model, monkeypatch):
    """One text's later tokens do not go the ordinary way."""
    read = []

    def watched(model, ids, cache):
        read.append((cache.length, tuple(ids.shape)))
        return next_logits(model, ids, cache)

    monkeypatch.setattr(benchmarks.fast_generation, "next_logits", watched)
    written(model, random_ids(model.config, 1, 1), CONTEXT + 3, reader=compiled[0])
    half = CONTEXT // 2
    assert read == [(0, (1, 1)), (1, (1, 1)), (CONTEXT - 1, (1, 1)), (0, (1, half))]
    read.clear()
    written(model, random_ids(model.config, 2, 4), 2, reader=compiled[0])
    assert read == [(0, (2, 4)), (4, (2, 1))]


@pytest.mark.slow
def test_another_model_is_refused(compiled):
    with pytest.raises(ValueError, match="made for another model"):
        next(generate(tiny(CONTEXT), torch.zeros(1, 1, dtype=torch.int64), 1, reader=compiled[0]))


@pytest.mark.parametrize("shape", [{}, {"tie_head": False, "qkv_bias": False}])
def test_the_copy_with_rows_is_the_same_model_and_leaves_its_own_alone(shape):
    model = tiny(**shape)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = random_ids(model.config, 2, 9)
    for dtype, tolerance in [(torch.float32, 1e-5), (torch.bfloat16, 0.05)]:
        rows = with_row_products(model, dtype)
        assert not rows.training
        caches = [KVCache(model.config, model.token_embedding.weight, 2) for _ in range(2)]
        with torch.no_grad():
            ours, theirs = map(next_logits, (rows, model), (ids, ids), caches)
        assert ours.dtype == torch.float32
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()
        matrices = [weight for name, weight in rows.named_parameters() if weight.ndim == 2]
        halved = [weight for weight in matrices if weight is not rows.position_embedding.weight]
        assert all(weight.dtype == dtype for weight in halved)
        assert len(halved) == 4 * model.config.n_layers + (1 if model.config.tie_head else 2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert isinstance(model.blocks[0].attention.projection, torch.nn.Linear)


def test_where_nothing_can_be_compiled_it_says_so_once_and_writes_the_same(model, monkeypatch):
    def no_compiler(*arguments, **options):
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda *arguments, **options: no_compiler)
    with pytest.warns(UserWarning, match="without compiled code.*no C\\+\\+ compiler found"):
        reader = FastReader(model)
    assert not reader.compiled
    ids = random_ids(model.config, 1, 5)
    fast = written(model, ids, 9, temperature=0, reader=reader)  # warnings are errors here
    assert torch.equal(fast, written(model, ids, 9, temperature=0))


@pytest.mark.parametrize("context_length", [1, 2, 3])
def test_a_context_too_short_to_compile_for(context_length):
    model = tiny(context_length)
    reader = FastReader(model)
    assert not reader.compiled
    ids = random_ids(model.config, 1, context_length)
    fast = written(model, ids, 9, temperature=0, reader=reader)
    assert torch.equal(fast, written(model, ids, 9, temperature=0))
