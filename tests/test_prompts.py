"""Prompts of unequal length in one batch: each is continued as it would be alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib import generation, prompts, tokenizer
from tests.test_generation import one_thread as one_thread  # a fixture
from tests.test_generation import seeded, tiny

MODEL = tiny(context_length=12)
PROMPTS = st.lists(st.lists(st.integers(0, 49), min_size=1, max_size=30), min_size=1, max_size=5)


def alone(ids: list[int], n: int, **options: object) -> list[int]:
    tokens = generation.generate(MODEL, torch.tensor([ids]), n, temperature=0, **options)
    return [int(token) for token in tokens]


@settings(max_examples=60)
@given(PROMPTS, st.integers(0, 30))
def test_each_prompt_is_continued_as_alone(texts: list[list[int]], n: int) -> None:
    """Also where one is longer than the context, or grows past it while others do not."""
    columns = list(prompts.generate(MODEL, texts, n, temperature=0))
    assert len(columns) == n
    for row, ids in enumerate(texts):
        assert [int(column[row]) for column in columns] == alone(ids, n)


@given(PROMPTS)
def test_the_logits_are_those_of_each_prompt_alone(texts: list[list[int]]) -> None:
    texts = [ids[:12] for ids in texts]
    with torch.no_grad():
        logits = prompts.next_logits(
            MODEL, *prompts.padded(MODEL, [torch.tensor(i) for i in texts])
        )
        for row, ids in enumerate(texts):
            assert torch.allclose(logits[row], MODEL(torch.tensor([ids]))[0, -1], atol=1e-5)


def test_padding_changes_nothing() -> None:
    texts = [torch.tensor([1, 2, 3]), torch.tensor([4])]
    ids, cache = prompts.padded(MODEL, texts)
    with torch.no_grad():
        before = prompts.next_logits(MODEL, ids, cache)
        other, cache = prompts.padded(MODEL, texts)
        other[1, :2] = 7
        assert torch.equal(prompts.next_logits(MODEL, other, cache), before)


def test_a_text_that_stopped_repeats_the_stop() -> None:
    texts = [[1, 2, 3], [4], [9, 9]]
    stop = alone(texts[1], 3)[1]
    columns = torch.stack(list(prompts.generate(MODEL, texts, 20, temperature=0, stop=stop)))
    for row, ids in enumerate(texts):
        mine = columns[:, row].tolist()
        expected = alone(ids, 20, stop=stop)
        assert mine[: len(expected)] == expected
        assert set(mine[len(expected) :]) <= {stop}
    assert columns[1:, 1].eq(stop).all()


def test_the_generator_decides_and_the_mode_stays() -> None:
    model = tiny(drop_rate=0.5).train()
    texts = [[1], [2, 3]]
    first, second = (
        torch.stack(list(prompts.generate(model, texts, 5, generator=seeded(3)))) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert model.training


def test_several_texts_are_written_as_one_by_one() -> None:
    encoding = tokenizer.stories()
    model = tiny(context_length=24, vocab_size=encoding.n_vocab)
    texts = ["", "One day", "Eva was there, and so was Tim. Then"]
    written = prompts.write(model, encoding, texts, 40, temperature=0)
    for text, new in zip(texts, written, strict=True):
        assert new == "".join(generation.write(model, encoding, text, 40, temperature=0))
    assert prompts.write(model, encoding, texts, 0) == ["", "", ""]


@pytest.mark.parametrize(
    ("texts", "options", "said"),
    [
        ([], {}, "prompts must be at least one"),
        ([[1], []], {}, "ids must be"),
        ([[1], [50]], {}, "ids must be from 0 to vocab_size - 1 = 49, not 50"),
        ([[1.5]], {}, "ids must be a tensor of whole numbers"),
        ([[1]], {"temperature": -1}, "temperature must be 0 or at least"),
    ],
)
def test_what_cannot_be_continued_is_refused_at_once(
    texts: list[list[int]], options: dict[str, float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        prompts.generate(MODEL, texts, 3, **options)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 0, not -1"):
        prompts.generate(MODEL, [[1]], -1)
    with pytest.raises(ValueError, match="stop must be a token, from 0 to 49, not 50"):
        prompts.generate(MODEL, [[1]], 1, stop=50)
    with pytest.raises(ValueError, match="the encoding has 2,048 tokens, but the model's"):
        prompts.write(MODEL, tokenizer.stories(), ["a"], 3)
    with pytest.raises(TypeError, match="prompts must be a list of texts, not one string: 'a'"):
        prompts.write(MODEL, tokenizer.stories(), "a", 3)
