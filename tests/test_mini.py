"""The mini model keeps what is said of it: on new stories, and in what it writes."""

from __future__ import annotations

import math
from importlib.resources import files

import pytest
import torch

from gptlib import accounting, stories, tokenizer
from gptlib.config import FAMILY
from gptlib.data import StoryBatches, stream_of
from gptlib.generation import generate
from gptlib.pretrained import load, mini_record
from gptlib.training import evaluate
from tools import train_mini

ENCODING = tokenizer.stories()


@pytest.fixture(scope="module")
def mini():
    return load("mini")


@pytest.fixture(scope="module")
def written(mini):
    """500 stories from nothing, drawn as they come: temperature 1, nothing cut off."""
    generator = torch.Generator().manual_seed(0)
    start = torch.full((250, 1), ENCODING.eot_token)
    texts = []
    for _ in range(2):
        drawn = generate(mini, start, 255, stop=ENCODING.eot_token, generator=generator)
        for ids in torch.stack(list(drawn), dim=1).tolist():
            end = ids.index(ENCODING.eot_token) if ENCODING.eot_token in ids else len(ids)
            texts.append(ENCODING.decode(ids[:end]))
    return texts


def test_is_small_and_of_gpt2s_architecture(mini):
    folder = files("gptlib") / "assets" / "mini"
    assert sum(len(file.read_bytes()) for file in folder.iterdir()) <= 8_000_000
    assert accounting.total(FAMILY["mini"]) <= 4_000_000
    assert mini.config.qkv_bias
    assert mini.config.tie_head
    assert mini.config.vocab_size == ENCODING.n_vocab
    assert not mini.training


def test_its_loss_on_new_stories_is_within_5_percent_of_the_floor(mini):
    held_out = stream_of(stories.sample(2_000, stories.VALIDATION_SEED), ENCODING)
    batches = StoryBatches(held_out, ENCODING.eot_token, 50, mini.config.context_length)
    loss = evaluate(mini, batches.in_order())
    floor = stories.entropy_per_token(ENCODING, 2_000).nats_per_token
    print(f"{loss:.4f} nats per token, the floor {floor:.4f}: {loss / floor - 1:.2%} above")
    assert floor * 0.99 < loss < floor * 1.05


@pytest.fixture(scope="module")
def shares(written):
    """Of the 500 stories, the shares that parse, and that keep names, pronouns and object."""
    verdicts = [stories.judge(text) for text in written]
    kinds = ("parses", "names", "pronouns", "object")
    shares = {kind: sum(getattr(v, kind) for v in verdicts) / len(verdicts) for kind in kinds}
    shares["consistent"] = sum(verdict.consistent for verdict in verdicts) / len(verdicts)
    print({kind: f"{share:.1%}" for kind, share in shares.items()})
    return shares


def test_what_it_writes_mostly_follows_the_grammar(shares):
    assert shares["parses"] >= 0.72
    assert shares["names"] >= 0.86
    assert shares["pronouns"] >= 0.97
    assert shares["object"] >= 0.97


@pytest.mark.xfail(
    reason="one rule is not learned: which of the two children was named first (see make mini)",
    strict=True,
)
def test_what_it_writes_follows_the_grammar(shares):
    assert shares["parses"] >= 0.85
    assert shares["consistent"] >= 0.95


def test_it_does_not_recite_what_it_was_trained_on(written):
    assert len(set(written)) == len(written)
    read = set(stories.sample(train_mini.N_STORIES, stories.TRAIN_SEED))
    assert not read & set(written)


def test_the_record_is_that_of_the_script():
    record = mini_record()
    assert record["seed"] == train_mini.SEED
    assert record["steps"] == train_mini.STEPS
    assert record["stories"] == train_mini.N_STORIES
    assert record["seconds"] < 2 * 3600
    assert record["evaluations"][-1][0] == train_mini.STEPS
    assert record["losses"][0] > math.log(ENCODING.n_vocab) - 0.3  # it began with knowing nothing
    assert record["evaluations"][-1][1] < record["evaluations"][0][1]
