"""The mini model keeps what is said of it: on new stories, and in what it writes."""

from __future__ import annotations

import math
from importlib.resources import files

import pytest
import torch

from gptlib import accounting, stories, story_surprise, tokenizer
from gptlib.config import FAMILY
from gptlib.data import IGNORED, StoryBatches, stream_of
from gptlib.generation import generate
from gptlib.pretrained import load, mini_record
from gptlib.training import evaluate
from tools import drill, train_mini

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


def test_what_it_writes_follows_the_grammar(shares):
    assert shares["parses"] >= 0.85
    assert shares["names"] >= 0.92
    assert shares["pronouns"] >= 0.98
    assert shares["object"] >= 0.96


@pytest.mark.xfail(
    reason="one story in twenty gives the friend the hero's own name",
    strict=True,
)
def test_what_it_writes_keeps_names_and_all_else(shares):
    assert shares["consistent"] >= 0.95


def test_it_does_not_recite_what_it_was_trained_on(written):
    assert len(set(written)) == len(written)
    read = set(stories.sample(train_mini.N_ALL_STORIES, stories.TRAIN_SEED))
    assert not read & set(written)


def test_a_drill_asks_only_where_the_model_gives_room_to_what_cannot_come(mini):
    texts = stories.sample(8, seed=5)
    rows = train_mini.rows(texts, 4)
    wasted = drill.impossible(mini, texts, ENCODING, rows)
    assert wasted.shape == (8, rows.lengths.max())
    assert wasted.min() > -1e-5
    assert wasted.max() < 1
    lost = [story_surprise.next_token(ENCODING.encode(texts[0])[:t], ENCODING) for t in (0, 40)]
    ids = torch.tensor([[ENCODING.eot_token, *ENCODING.encode(texts[0])]])
    p = mini(ids)[0].softmax(-1)
    for t, possible in zip((0, 40), lost, strict=True):
        assert abs(wasted[0, t] - (1 - p[t, list(possible)].sum())) < 1e-5

    hard = wasted >= wasted[wasted > 0].quantile(0.98)
    batches = drill.DrillBatches(rows, hard, batch_size=2)
    inputs, targets = batches.batch(0)
    asked = (targets != IGNORED).nonzero().tolist()
    assert asked
    assert max(column for _, column in asked) == inputs.shape[1] - 1  # it ends with the last
    told = [(ENCODING.eot_token, *ENCODING.encode(text), ENCODING.eot_token) for text in texts]
    for row, column in asked:
        read = (*inputs[row, : column + 1].tolist(), int(targets[row, column]))
        assert read in {ids[: len(read)] for ids in told}
    assert torch.equal(batches.batch(0)[1], targets)


def test_the_record_is_that_of_the_script():
    record = mini_record()
    assert record["seed"] == train_mini.SEED
    assert record["steps"] == train_mini.STEPS
    assert record["stories"] == train_mini.N_STORIES
    drill, settling = record["drill"], record["settling"]
    assert drill["steps"] == train_mini.DRILL.steps
    assert settling["steps"] == train_mini.SETTLING.steps
    assert sum(part["seconds"] for part in (record, drill, settling)) < 2 * 3600
    assert record["evaluations"][-1][0] == train_mini.STEPS
    assert record["losses"][0] > math.log(ENCODING.n_vocab) - 0.3  # it began with knowing nothing
    assert record["evaluations"][-1][1] < record["evaluations"][0][1]
