"""The training-cost calculator: what it stores and refuses, and that JavaScript agrees with it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import traitlets
from IPython.core.formatters import DisplayFormatter

from gptlib import accounting
from gptlib.config import FAMILY, GPTConfig
from gptlib.widgets import TrainingCost, page
from gptlib.widgets.base import MIME_TYPE
from gptlib.widgets.training_cost import COUNTINGS, LIMITS, costs, devices
from tests.javascript import call_each

ROOT = Path(__file__).resolve().parent.parent
VIEW = "application/vnd.jupyter.widget-view+json"


def random_settings(count: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return models and runs of all sizes, the same at every call."""
    draw = random.Random(6)
    found = []
    for _ in range(count):
        heads = draw.randint(1, 128)
        config = GPTConfig(
            vocab_size=int(2 ** draw.uniform(0, 19)),
            context_length=int(2 ** draw.uniform(0, 19)),
            emb_dim=heads * draw.randint(1, 512),
            n_heads=heads,
            n_layers=draw.randint(1, 200),
            qkv_bias=draw.random() < 0.5,
            tie_head=draw.random() < 0.5,
        )
        widget = TrainingCost(
            config,
            n_tokens=int(10 ** draw.uniform(0, 14)),
            device=draw.choice(list(accounting.DEVICES)),
            counting=draw.choice(COUNTINGS),
            flops_per_second=10 ** draw.uniform(9, 18),
            n_devices=int(10 ** draw.uniform(0, 6)),
            utilization=draw.uniform(0.01, 1),
            price_per_device_hour=draw.uniform(0, 100),
            dtype=draw.choice(list(accounting.BYTES)),
            sharded=draw.random() < 0.5,
        )
        found.append((widget.config, widget.run))
    return found


# --- what it stores and says ------------------------------------------------------------------


def test_output_has_three_forms_and_is_the_same_each_time() -> None:
    bundles = []
    for _ in range(2):
        widget = TrainingCost()
        data, metadata = DisplayFormatter().format(widget)
        assert data.pop(VIEW)["model_id"] == widget.model_id
        assert set(data) == {MIME_TYPE, "text/plain"}
        assert metadata[MIME_TYPE] == {"alt": data["text/plain"]}
        bundles.append(json.dumps([data, metadata]))
    assert bundles[0] == bundles[1]
    assert len(json.dumps(TrainingCost().state())) < 600
    assert len(bundles[0]) < 2_500


def test_a_page_adds_the_family_and_the_devices() -> None:
    widget = TrainingCost("gpt2", device="a100")
    html = page.widget_html(widget._module, widget.state(), "")
    state = json.loads(html.split(">")[2].split("<")[0])
    assert [member["name"] for member in state["family"]] == list(FAMILY)
    assert [device["key"] for device in state["devices"]] == list(accounting.DEVICES)
    assert state["config"]["emb_dim"] == 768
    assert state["run"]["flops_per_second"] == 312e12


def test_description_says_the_figures_and_what_they_rest_on() -> None:
    words = TrainingCost().describe()
    for expected in (
        "What training gpt3 costs: 174,604,259,328 parameters, 300,000,000,000 tokens.",
        "3.14e+23 FLOPs (6 · N · D)",
        "At 28 TFLOP/s, of which 100% are used",
        "Lambda's estimate, 2020",
        "355.7 device-years: 129,900 days on 1 device.",
        "At 1 for a device-hour, an example, that is a price of 3,118,000.",
        "2.5 TiB of weights, gradients and AdamW's state as float32, a copy of it all.",
    ):
        assert expected in words
    words = TrainingCost(
        "gpt2", device="h100", n_devices=8, sharded=True, counting="products"
    ).describe()
    assert "counted product by product" in words
    assert "on 8 devices" in words
    assert "237.4 MiB" in words
    assert "a share of it all" in words


def test_state_follows_what_the_reader_does() -> None:
    widget = TrainingCost("gpt2")
    widget.run = widget.run | {"n_devices": 64.0, "n_tokens": 1e10}  # JavaScript has no integers
    assert widget.state()["run"]["n_devices"] == 64
    assert isinstance(widget.run["n_tokens"], int)
    assert "10,000,000,000 tokens" in widget.describe()
    assert json.loads(json.dumps(widget.state())) == widget.state()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: TrainingCost("gpt4"), "(?=.*gpt4).*gpt2-xl"),
        (lambda: TrainingCost(device="abacus"), "(?=.*abacus).*h100"),
        (lambda: TrainingCost(GPTConfig(n_layers=1001)), "n_layers .* at most 1,000 .*1001"),
        (lambda: TrainingCost(n_tokens=0), "n_tokens must be a whole .* not 0"),
        (lambda: TrainingCost(n_tokens=1.5), "n_tokens must be a whole .* not 1.5"),
        (lambda: TrainingCost(n_tokens=10**16), "n_tokens must be at most 1,000,000,000,000,000"),
        (lambda: TrainingCost(n_devices=True), "n_devices must be a whole .* not True"),
        (lambda: TrainingCost(utilization=1.5), "utilization must be at most 1 here, not 1.5"),
        (lambda: TrainingCost(utilization=0), "utilization must be a number above 0, not 0"),
        (lambda: TrainingCost(flops_per_second="1"), "flops_per_second .* above 0, not '1'"),
        (lambda: TrainingCost(price_per_device_hour=-1), "price_.* at least 0, not -1"),
        (lambda: TrainingCost(counting="guess"), "(?=.*guess).*six_nd"),
        (lambda: TrainingCost(dtype="int4"), "(?=.*int4).*bfloat16"),
        (lambda: TrainingCost(sharded=1), "sharded must be True or False, not 1"),
        (lambda: TrainingCost(color="red"), "run must have the settings"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(wrong: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wrong()


def test_a_refused_setting_changes_nothing() -> None:
    widget = TrainingCost()
    before = dict(widget.run)
    with pytest.raises(ValueError, match="n_devices"):
        widget.run = before | {"n_devices": 0}
    with pytest.raises(traitlets.TraitError):
        widget.run = 3
    assert widget.run == before


# --- JavaScript and Python agree --------------------------------------------------------------


def test_javascript_has_the_same_limits_types_and_year() -> None:
    limits, types, year = call_each("training_cost", [["LIMITS"], ["BYTES"], ["SECONDS_PER_YEAR"]])
    assert limits == LIMITS
    assert types == accounting.BYTES
    assert year == accounting.SECONDS_PER_YEAR


def test_javascript_counts_300_runs_as_python_does() -> None:
    settings = random_settings(300)
    answers = call_each("training_cost", [["costs", config, run] for config, run in settings])
    for (config, run), answer in zip(settings, answers, strict=True):
        expected = costs(config, run)
        assert list(answer) == list(expected)
        # Sizes are exact; what passes 2**53 is not, in JavaScript.
        assert answer.pop("held_bytes") == expected.pop("held_bytes"), run
        assert answer == pytest.approx(expected, rel=1e-12), run


def test_javascript_spends_the_flops_where_python_does() -> None:
    configs = [config for config, _ in random_settings(50)] + [
        TrainingCost(name).config for name in FAMILY
    ]
    calls: list[list[Any]] = [["forwardFlops", config] for config in configs]
    for given, spent in zip(configs, call_each("lib/accounting", calls), strict=True):
        config = GPTConfig(**given)
        found = accounting.forward_flops(config)
        length = config.context_length
        assert (spent["matrices"] + spent["pairs"]) * length == found["attention"]
        assert spent["pairs"] == 4 * length * config.n_layers * config.emb_dim
        for name in ("feed_forward", "output_head"):
            assert spent[name] * length == found[name]


def test_javascript_refuses_the_runs_that_python_refuses() -> None:
    good = TrainingCost().run
    tried = [good | {name: value} for name in LIMITS for value in (-1, 0, 0.5, 1, 2, 1e15, 1e19)]
    refused = []
    for run in tried:
        try:
            TrainingCost().run = run
            refused.append(False)
        except ValueError:
            refused.append(True)
    answers = call_each("training_cost", [["runProblem", run] for run in tried])
    assert [answer != "" for answer in answers] == refused
    assert 10 < sum(refused) < len(tried) - 10


def test_presets_give_the_years_of_lambda_s_estimate_and_are_valid() -> None:
    (presets,) = call_each("training_cost", [["PRESETS"]])
    run = TrainingCost().run
    runs = call_each("training_cost", [["presetRun", preset, run, devices()] for preset in presets])
    found = {}
    for preset, given in zip(presets, runs, strict=True):
        widget = TrainingCost(preset["model"])
        widget.run = given
        found[preset["key"]] = costs(widget.config, widget.run)
    assert found["v100"]["device_years"] == pytest.approx(355, rel=0.01)
    assert found["rtx8000"]["device_years"] == pytest.approx(665, rel=0.01)
    # The mini model's own record, which a longer training may change.
    record = json.loads((ROOT / "gptlib" / "assets" / "mini" / "training.json").read_text())
    (mini,) = [preset["run"] for preset in presets if preset["key"] == "mini"]
    assert 0.4 < mini["n_tokens"] / record["tokens"] < 2.5
    # Narayanan et al. (2021): 34 days with 8 * N * D, where this has 6 * N * D.
    assert found["gpt3"]["days"] * 8 / 6 == pytest.approx(34, rel=0.02)
