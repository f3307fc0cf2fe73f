"""The mini model keeps what is said of it: on new stories, and in what it writes."""

from __future__ import annotations

import math
from collections import Counter
from importlib.resources import files

import pytest
import torch

from gptlib import accounting, stories, tokenizer
from gptlib.config import FAMILY
from gptlib.data import IGNORED, StoryBatches, stream_of
from gptlib.pretrained import load, mini_record
from gptlib.stories.surprise import next_token
from gptlib.training import evaluate
from tools import teacher, train_mini

ENCODING = tokenizer.stories()


@pytest.fixture(scope="module")
def mini():
    return load("mini")


@pytest.fixture(scope="module")
def written(mini):
    return train_mini.told(mini, 500, seed=0)


def test_is_small_and_of_gpt2s_architecture(mini):
    folder = files("gptlib") / "assets" / "mini"
    assert sum(len(file.read_bytes()) for file in folder.iterdir()) <= 8_000_000
    assert accounting.total(FAMILY["mini"]) <= 4_000_000
    assert mini.config.qkv_bias
    assert mini.config.tie_head
    assert mini.config.vocab_size == ENCODING.n_vocab
    assert not mini.training


@pytest.mark.judges("mini")
@pytest.mark.parametrize("n", [500, pytest.param(2_000, marks=pytest.mark.slow)])
def test_its_loss_on_new_stories_is_within_5_percent_of_the_floor(mini, n):
    held_out = stream_of(stories.sample(n, stories.VALIDATION_SEED), ENCODING)
    batches = StoryBatches(held_out, ENCODING.eot_token, 50, mini.config.context_length)
    loss = evaluate(mini, batches.in_order())
    floor = stories.entropy_per_token(ENCODING, 2_000).nats_per_token
    print(f"{loss:.4f} nats per token, the floor {floor:.4f}: {loss / floor - 1:.2%} above")
    assert floor * 0.99 < loss < floor * 1.05


@pytest.mark.judges("mini")
def test_what_it_writes_follows_the_grammar(written):
    """Of a model that keeps 95 %, 500 stories may well show 94: two standard errors are allowed."""
    shares = train_mini.judged(written)
    assert shares["parses"] >= 0.85
    assert shares["consistent"] >= 0.95 - 2 * math.sqrt(0.95 * 0.05 / len(written))
    assert shares["names"] >= 0.92
    assert shares["pronouns"] >= 0.99
    assert shares["object"] >= 0.96


@pytest.mark.slow
def test_what_it_writes_follows_the_grammar_in_many_stories(mini):
    shares = train_mini.judged(train_mini.told(mini, 2_500, seed=1))
    assert shares["parses"] >= 0.90
    assert shares["consistent"] >= 0.95


@pytest.mark.judges("mini")
def test_lessons_taught_the_rule_that_the_run_left_to_chance(mini):
    before, now = mini_record()["decided"], train_mini.decided(mini)
    assert before["places"] == now["places"] >= 20
    assert before["least"] < 0.5 < before["mean"] < 0.6
    assert now["least"] > 0.99


@pytest.mark.judges("mini")
def test_it_does_not_recite_what_it_was_trained_on(written):
    assert len(set(written)) == len(written)
    read = set(stories.sample(train_mini.N_ALL_STORIES, stories.TRAIN_SEED))
    assert not read & set(written)


TEXTS = stories.sample(8, seed=5)
PARTS = ("drill", "settling", "lessons", "rest")


@pytest.fixture(scope="module")
def answers():
    return teacher.joined(teacher.answers_to(TEXTS[:3]), teacher.answers_to(TEXTS[3:]))


@pytest.mark.judges("mini")
def test_a_teacher_knows_every_answer(answers):
    assert len(answers.numbers) == len(stream_of(TEXTS, ENCODING))
    place = 0
    for text in TEXTS:
        ids = [*ENCODING.encode(text), ENCODING.eot_token]
        for t in (0, 1, 17, len(ids) - 1):
            number = answers.numbers[place + 1 + t]
            exact = next_token(ids[:t], ENCODING)
            row = zip(answers.tokens[number].tolist(), answers.shares[number].tolist(), strict=True)
            assert {i: p for i, p in row if p > 0} == pytest.approx(exact, abs=1e-6)
        place += len(ids)


@pytest.mark.judges("mini")
def test_lessons_lose_what_the_grammar_expects_and_see_what_is_wasted(mini, answers):
    rows = train_mini.rows(TEXTS, 4)
    places = torch.tensor([1, 30, 60])
    logits = torch.randn(3, ENCODING.n_vocab, generator=torch.Generator().manual_seed(0))
    losses, found = answers.cross_entropy(logits, places), answers.wasted(logits, places)
    for row, place in enumerate(places.tolist()):
        exact = next_token(rows.stream[1:place].tolist(), ENCODING)
        p = logits[row].softmax(-1)
        expected = sum(-q * p[i].log().item() for i, q in exact.items())
        assert losses[row].item() == pytest.approx(expected, abs=1e-4)
        assert found[row].item() == pytest.approx(1 - p[list(exact)].sum().item(), abs=1e-5)

    everywhere = teacher.wasted(mini, rows, answers)
    assert everywhere.shape == rows.stream.shape
    assert everywhere[0] == 0
    logits = mini(rows.stream[None, :40].long())[0]
    expected = answers.wasted(logits, torch.arange(1, 41))[39]
    assert everywhere[40].item() == pytest.approx(expected.item(), abs=0.01)  # in bfloat16


def test_lessons_end_with_what_is_hard():
    rows = train_mini.rows(TEXTS, 4)
    hard = torch.zeros(len(rows.stream), dtype=torch.bool)
    hard[rows.starts[2] + 9] = hard[rows.starts[2] + 5] = hard[rows.starts[6] + 4] = True

    lessons = teacher.Lessons(rows, hard, n_beginnings=2, n_stories=1, n_whole=2)
    inputs, places = lessons.batch(0)
    asked = places != IGNORED
    assert asked.sum(dim=1).tolist()[:2] == [4, 9]  # by length
    assert places[0, 3] == rows.starts[6] + 4
    assert places[1, 8] == rows.starts[2] + 9
    assert set(places[2].tolist()) - {IGNORED} < set(range(1, int(rows.starts[2]) + 1))
    assert torch.equal(inputs[asked], rows.stream[places[asked] - 1].long())

    pairs = teacher.hard_pairs(
        torch.tensor([1, 2, 1, 2, 1, 2, 3]), torch.tensor([1, 0] * 3 + [1]) > 0
    )
    assert pairs == {(1, 2): 3}


def test_what_is_hard_is_looked_for_until_it_came_often_enough():
    ids = ENCODING.encode(TEXTS[0])[:2]
    texts = [TEXTS[0], TEXTS[1], *[TEXTS[0]] * 5]
    assert teacher.more_of(Counter({tuple(ids): 4}), texts, at_least=7) == [TEXTS[0]] * 3


def test_the_record_is_that_of_the_script():
    record = mini_record()
    assert record["seed"] == train_mini.SEED
    assert record["steps"] == train_mini.STEPS
    assert record["stories"] == train_mini.N_STORIES
    plans = {name: getattr(train_mini, name.upper()) for name in PARTS}
    assert {name: record[name]["steps"] for name in PARTS} == {
        name: plan.steps for name, plan in plans.items()
    }
    assert sum(part["seconds"] for part in (record, *map(record.get, PARTS))) < 2 * 3600
    assert record["rest"]["judged"]["consistent"] >= 0.95 > record["judged"]["consistent"]
    assert record["evaluations"][-1][0] == train_mini.STEPS
    assert record["losses"][0] > math.log(ENCODING.n_vocab) - 0.3  # it began with knowing nothing
    assert record["evaluations"][-1][1] < record["evaluations"][0][1]
