"""A replay of a training run: what is measured, what is refused, and the widget that stores it."""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from IPython.core.formatters import DisplayFormatter

from gptlib import replay, stories, tokenizer
from gptlib.activations import attention_maps
from gptlib.config import GPTConfig
from gptlib.data import WindowBatches, stream_of
from gptlib.history import History
from gptlib.model import GPT
from gptlib.replay import Replay
from gptlib.training import evaluate
from gptlib.widgets import TrainingReplay, page
from gptlib.widgets.base import MIME_TYPE

CONFIG = GPTConfig(2_048, 64, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.0)
FLOOR = 0.335


def weights(seed: int) -> dict[str, torch.Tensor]:
    model = GPT(CONFIG, torch.Generator().manual_seed(seed))
    return {name: p.detach() for name, p in model.named_parameters()}


def held_out() -> list[tuple[torch.Tensor, torch.Tensor]]:
    stream = stream_of(stories.sample(8, stories.VALIDATION_SEED), tokenizer.stories())
    return [WindowBatches(stream, 2, 16).batch(0)]


def history(steps: int = 30) -> History:
    run = History()
    for step in range(steps):
        run.add_step(8.0 - step / 10, 1.0, 100, 0.1)
    run.evaluations = [(20, 5.5)]
    return run


def build(moments: Any = None, **changes: Any) -> Replay:
    moments = [(20, weights(1)), (0, weights(0))] if moments is None else moments
    values: dict[str, Any] = {"held_out": held_out(), "batch_size": 4, "floor": FLOOR}
    values |= {"history": history(), "config": CONFIG} | changes
    config, run = values.pop("config"), values.pop("history")
    return replay.build(config, moments, run, tokenizer.stories(), **values)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute in one thread: on matrices this small, several only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def built(one_thread: None) -> Replay:
    return build()


# --- what is measured -------------------------------------------------------------------------


def test_building_twice_gives_the_same_bytes_and_is_read_back(built: Replay) -> None:
    text = replay.to_json(built)
    assert replay.to_json(build()) == text
    assert text.isprintable() or text.endswith("\n")
    assert text.count("\n") == 1
    assert replay.check(json.loads(text)) == built


def test_a_moment_says_what_was_read_and_lost_until_then(built: Replay) -> None:
    first, second = built["moments"]
    assert (first["step"], first["stories"], first["tokens"]) == (0, 0, 0)
    assert (second["step"], second["stories"], second["tokens"]) == (20, 80, 2_000)
    model = GPT(CONFIG)
    replay.put_weights(model, 0, weights(0))
    assert first["held_out"] == pytest.approx(evaluate(model, held_out()), abs=1e-5)
    assert second["held_out"] == 5.5  # the history has it
    assert first["training"] == 8.0
    assert second["training"] == pytest.approx(sum(history().losses[:20]) / 20)
    assert (built["floor"], built["steps"]) == (FLOOR, 30)


def test_samples_begin_with_their_prompt_and_carry_the_grammars_verdict(built: Replay) -> None:
    assert built["prompts"] == list(replay.PROMPTS)
    for moment in built["moments"]:
        for sample, prompt in zip(moment["samples"], replay.PROMPTS, strict=True):
            assert sample["text"].startswith(prompt)
            verdict = stories.judge(sample["text"])
            assert (sample["parses"], sample["fails_at"]) == (verdict.parses, verdict.fails_at)
            assert sample["expected"] == list(verdict.expected[: replay.EXAMPLES])
            flags = (verdict.names, verdict.pronouns, verdict.object)
            assert (sample["names"], sample["pronouns"], sample["object"]) == flags


def test_the_same_seed_draws_the_same_text_and_another_one_another(built: Replay) -> None:
    other = build([(0, weights(0)), (20, weights(0))], seed=1, prompts=("",))
    texts = [moment["samples"][0]["text"] for moment in other["moments"]]
    assert texts[0] == texts[1]
    assert texts[0] != built["moments"][0]["samples"][0]["text"]


def test_the_prompts_and_the_fragment_begin_a_story_that_needs_a_name() -> None:
    for prompt in (*replay.PROMPTS, replay.FRAGMENT):
        assert stories.judge(prompt).fails_at == len(prompt), prompt
    assert stories.judge(replay.PROMPTS[-1]).expected[0].split()[-1].startswith("told")
    assert stories.judge(replay.PROMPTS[-1] + " ").expected == ("Ada",)


def test_the_map_is_the_heads_own(built: Replay) -> None:
    ids = [tokenizer.stories().eot_token, *tokenizer.stories().encode_ordinary(replay.FRAGMENT)]
    size = len(built["fragment"]["tokens"])
    assert size == len(ids) <= replay.MAP_TOKENS
    model = GPT(CONFIG)
    replay.put_weights(model, 20, weights(1))
    head = built["head"]
    maps = attention_maps(model, torch.tensor([ids])).weights[head["layer"], 0, head["head"]]
    codes = list(base64.b64decode(built["moments"][1]["map"]))
    rows, columns = torch.tril_indices(size, size)
    for code, row, column in zip(codes, rows, columns, strict=True):
        assert code / 255 == pytest.approx(float(maps[row, column]), abs=0.5 / 255 + 1e-6)


def test_names_that_come_again_are_found_whole_with_the_token_after_them() -> None:
    encoding = tokenizer.stories()
    text = "Ada and Tom ran. Tom told Ada about Adam and Ada."
    tokens = ["", *(encoding.decode([i]) for i in encoding.encode_ordinary(text))]
    found = [
        (
            tokens[place.query],
            place.name,
            "".join(tokens[i] for i in place.targets),
            "".join(tokens[i] for i in place.others),
        )
        for place in replay.repeated_names(text, encoding)
    ]
    assert found == [
        (".", "Tom", " Tom ran", "Ada and"),
        (" told", "Ada", "Ada and", " Tom ran Tom told"),
        (" and", "Ada", "Ada and Ada about", " Tom ran Tom told"),
    ]


def test_names_are_weighed_where_the_next_one_is_written() -> None:
    model = GPT(CONFIG)
    encoding = tokenizer.stories()
    ids = torch.tensor([[encoding.eot_token, *encoding.encode_ordinary(replay.FRAGMENT)]])
    place = replay.repeated_names(replay.FRAGMENT, encoding)[-1]
    right, wrong = replay.name_attention(model, [replay._Probe(ids, [place])])
    maps = attention_maps(model, ids).weights[:, 0]
    assert place.targets == [1, 2, 3]
    for found, places in ((right, place.targets), (wrong, place.others)):
        paid = sum(maps[:, :, place.query, i] for i in places)
        torch.testing.assert_close(found, paid)


def test_the_head_is_chosen_at_the_last_moment(built: Replay) -> None:
    model = GPT(CONFIG)
    replay.put_weights(model, 20, weights(1))
    probes = replay._probes(tokenizer.stories(), CONFIG.context_length)
    right, wrong = replay.name_attention(model, probes)
    layer, head = built["head"]["layer"], built["head"]["head"]
    assert float((right - wrong)[layer, head]) == float((right - wrong).max())
    assert built["moments"][1]["score"] == pytest.approx(float(right[layer, head]), abs=1e-4)
    assert built["moments"][1]["others"] == pytest.approx(float(wrong[layer, head]), abs=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5, 399, 15_000])
def test_the_curve_is_thinned_into_means(steps: int) -> None:
    losses = [8 / (1 + step) for step in range(steps)]
    curve = replay.thin(losses)
    assert len(curve["steps"]) == len(curve["losses"]) <= replay.CURVE_POINTS
    assert curve["steps"] == sorted(set(curve["steps"]))
    assert (curve["steps"][0], curve["steps"][-1]) == (1, steps)
    widths = [end - start for start, end in zip([0, *curve["steps"]], curve["steps"], strict=False)]
    whole = sum(loss * width for loss, width in zip(curve["losses"], widths, strict=True))
    assert whole == pytest.approx(sum(losses), abs=1e-4 * steps)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: build([]), "at least one moment"),
        (lambda: build([(0, weights(0)), (0, weights(1))]), "two moments at step 0"),
        (lambda: build([(31, weights(0))]), "from 0 to the 30 of the history, not 31 to 31"),
        (lambda: build([(0, weights(0))], history=History()), "the 0 of the history"),
        (lambda: build([(0, {})]), r"moment 0 has nothing for token_embedding"),
        (
            lambda: build([(3, weights(0))], config=GPTConfig(2_048, 64, 32, 2, 2, 0.0)),
            r"moment 3 has \(2048, 16\) for token_embedding.*\(2048, 32\)",
        ),
        (lambda: build(fragment=replay.FRAGMENT * 2), "the fragment has .* 40 fit"),
        (lambda: build(fragment="It was a sunny day."), "no name comes again"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_line(wrong: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        wrong()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(version=2), "version 2; this gptlib reads 1"),
        (lambda r: r.pop("floor"), "must have version, .*floor"),
        (lambda r: r.update(floor="low"), "floor cannot be 'low'"),
        (lambda r: r.update(floor=math.nan), "floor must be finite"),
        (lambda r: r.update(moments={}), "moments must be a list, not dict"),
        (lambda r: r.update(moments=[]), "order of their steps"),
        (lambda r: r["moments"].reverse(), "order of their steps"),
        (lambda r: r["curve"]["losses"].pop(), "as many losses as steps"),
        (lambda r: r["moments"][0].update(step=True), r"moments\[0\]'s step cannot be True"),
        (lambda r: r["moments"][0].update(map="AA"), "step 0 has a map that is not base64"),
        (lambda r: r["moments"][1].update(map="AAAA"), "step 20 has a map of 3 weights, where 630"),
        (lambda r: r["moments"][0]["samples"].pop(), "step 0 has 2 samples for 3 prompts"),
        (lambda r: r["moments"][0]["samples"][0].update(parses=True), "both that it parses"),
        (lambda r: r["moments"][0].update(held_out=-1.0), "held-out loss of -1.0"),
        (lambda r: r["fragment"].update(query=99), "has 35 tokens, but points at 99"),
    ],
)
def test_what_is_no_replay_is_refused_in_a_line(built: Replay, change: Any, words: str) -> None:
    data = copy.deepcopy(built)
    change(data)
    for reader in (replay.check, TrainingReplay):
        with pytest.raises(ValueError, match=words) as caught:
            reader(data)
        assert "\n" not in str(caught.value)


# --- the widget -------------------------------------------------------------------------------


def test_the_mini_models_replay_lies_in_the_package_and_is_small() -> None:
    mini = replay.mini()
    assert len(replay.to_json(mini).encode()) <= 120_000
    assert len(mini["curve"]["steps"]) <= replay.CURVE_POINTS
    assert mini["moments"][0]["held_out"] > mini["moments"][-1]["held_out"] > mini["floor"]


@pytest.mark.asset
def test_a_notebook_stores_the_name_of_the_mini_replay_and_a_page_has_it(tmp_path: Any) -> None:
    bundles = []
    for _ in range(2):
        data, metadata = DisplayFormatter().format(TrainingReplay())
        data.pop("application/vnd.jupyter.widget-view+json")
        assert set(data) == {MIME_TYPE, "text/plain"}
        assert metadata[MIME_TYPE] == {"alt": data["text/plain"]}
        bundles.append(json.dumps([data, metadata]))
    assert bundles[0] == bundles[1]
    assert len(bundles[0]) < 2_500
    name = data[MIME_TYPE]["state"]["replay"]["$asset"]
    page.write_files(tmp_path)
    assert json.loads((tmp_path / name).read_text(encoding="utf-8")) == replay.mini()


def test_a_replay_of_ones_own_is_stored_whole(built: Replay) -> None:
    widget = TrainingReplay(built)
    assert widget.state() == {"replay": built, "moment": 0, "prompt": 0, "token": 29}
    assert TrainingReplay(built, prompt=2).state() == widget.state() | {"prompt": 2}
    widget.moment, widget.prompt, widget.token = 1, 2, 0
    assert widget.state() == {"replay": built, "moment": 1, "prompt": 2, "token": 0}
    assert json.loads(json.dumps(widget.state())) == widget.state()


def test_another_replay_starts_at_its_beginning(built: Replay) -> None:
    widget = TrainingReplay()
    widget.moment = 3
    widget.replay = built
    assert widget.state() == {"replay": built, "moment": 0, "prompt": 0, "token": 29}


def test_the_description_goes_from_the_first_moment_to_the_last(built: Replay) -> None:
    words = TrainingReplay(built).describe()
    for expected in (
        "at 2 moments, from step 0 to step 20",
        f"from {built['moments'][0]['held_out']:.2f} to 5.500 nats per token",
        "a floor of 0.335",
        f"to {math.exp(5.5):.2f}",
        "Of 3 samples, 0 follow",
    ):
        assert expected in words


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("moment", 2, "moment must be from 0 to 1, not 2"),
        ("prompt", -1, "prompt must be from 0 to 2, not -1"),
        ("token", 35, "token must be from 0 to 34, not 35"),
    ],
)
def test_what_a_replay_does_not_have_is_refused(
    built: Replay, name: str, value: int, words: str
) -> None:
    widget = TrainingReplay(built)
    before = widget.state()
    with pytest.raises(ValueError, match=words):
        setattr(widget, name, value)
    assert widget.state() == before
