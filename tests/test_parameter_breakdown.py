"""The parameter breakdown: what it stores and refuses, and that its JavaScript counts as Python."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import traitlets
from IPython.core.formatters import DisplayFormatter

from gptlib import accounting, pretrained
from gptlib.config import FAMILY, GPTConfig
from gptlib.model import GPT
from gptlib.widgets import ParameterBreakdown, page, parameter_breakdown
from gptlib.widgets.base import MIME_TYPE
from tests.javascript import call_each

ROOT = Path(__file__).resolve().parent.parent
SIZES = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers")
VIEW = "application/vnd.jupyter.widget-view+json"


def sizes(config: GPTConfig) -> dict[str, Any]:
    return ParameterBreakdown(config).config


def random_configs(count: int) -> list[GPTConfig]:
    """Return configurations of all sizes, the same at every run."""
    draw = random.Random(3)
    configs = []
    for _ in range(count):
        heads = draw.randint(1, 128)
        configs.append(
            GPTConfig(
                vocab_size=int(2 ** draw.uniform(0, 19)),
                context_length=int(2 ** draw.uniform(0, 19)),
                emb_dim=heads * draw.randint(1, 512),
                n_heads=heads,
                n_layers=draw.randint(1, 60),
                qkv_bias=draw.random() < 0.5,
                tie_head=draw.random() < 0.5,
            )
        )
    return configs


# --- what it stores and says ------------------------------------------------------------------


def test_a_model_stands_for_its_configuration() -> None:
    config = GPTConfig(64, 16, 8, 2, 3, 0.1, tie_head=False)
    assert ParameterBreakdown(GPT(config)).state() == ParameterBreakdown(config).state()
    assert ParameterBreakdown(pretrained.blank(FAMILY["gpt2"])).config == sizes(FAMILY["gpt2"])
    with pytest.raises(ValueError, match="model must be one of mini, gpt2, "):
        ParameterBreakdown(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_output_has_three_forms_and_is_the_same_each_time() -> None:
    bundles = []
    for _ in range(2):
        widget = ParameterBreakdown("gpt2")
        data, metadata = DisplayFormatter().format(widget)
        assert data.pop(VIEW)["model_id"] == widget.model_id
        assert set(data) == {MIME_TYPE, "text/plain"}
        assert metadata[MIME_TYPE] == {"alt": data["text/plain"]}
        bundles.append(json.dumps([data, metadata]))
    assert bundles[0] == bundles[1]
    assert len(bundles[0]) < 2_000


def test_a_page_adds_the_family() -> None:
    widget = ParameterBreakdown()
    state = json.loads(
        page.widget_html(widget._module, widget.state(), "").split(">")[2].split("<")[0]
    )
    assert state["config"] == state["start"] == sizes(FAMILY["gpt2"])
    assert [member["name"] for member in state["family"]] == list(FAMILY)
    assert {name: state[name] for name in ("path", "dtype")} == {"path": "", "dtype": "float32"}


def test_description_names_the_parts_and_their_exact_counts() -> None:
    words = ParameterBreakdown("gpt2").describe()
    for expected in (
        "of gpt2 are",
        "token embedding: 38,597,376",
        "12 transformer blocks of 7,087,872 each: 85,054,464",
        "output head, tied to the token embedding: 0",
        "all together: 124,439,808",
        "474.7 MiB",
    ):
        assert expected in words
    open_head = ParameterBreakdown(GPTConfig(tie_head=False, qkv_bias=False))
    assert "all together: 163,009,536" in open_head.describe()
    assert "output head: 38,597,376" in open_head.describe()
    assert "a GPT of 12 layers and 768 channels" in open_head.describe()
    open_head.dtype = "bfloat16"
    assert "As bfloat16 they take 310.9 MiB" in open_head.describe()


def test_state_follows_what_the_reader_does_and_keeps_the_start() -> None:
    widget = ParameterBreakdown("gpt2")
    widget.config = sizes(FAMILY["gpt3"])
    widget.path = "blocks/attention/query_key_value/weight"
    state = widget.state()
    assert state["config"]["n_layers"] == 96
    assert state["start"]["n_layers"] == 12
    assert "gpt3" in widget.describe()
    assert json.loads(json.dumps(state)) == state


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: ParameterBreakdown("gpt4"), "(?=.*gpt4).*gpt2-xl"),
        (lambda: ParameterBreakdown(None), "(?=.*None).*gpt2-xl"),
        (lambda: ParameterBreakdown(GPTConfig(n_layers=1001)), "n_layers .* at most 1,000 .*1001"),
        (lambda: setattr(ParameterBreakdown(), "path", "blocks/x"), "blocks/x"),
        (lambda: setattr(ParameterBreakdown(), "dtype", "float8"), "(?=.*float8).*bfloat16"),
        (lambda: setattr(ParameterBreakdown(), "config", {"emb_dim": 3}), "must have the sizes"),
        (
            lambda: setattr(
                ParameterBreakdown(), "config", sizes(FAMILY["gpt2"]) | {"emb_dim": 770}
            ),
            "emb_dim must be divisible by n_heads, but 770 % 12 = 2",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(wrong: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wrong()


def test_a_refused_configuration_changes_nothing() -> None:
    widget = ParameterBreakdown()
    before = dict(widget.config)
    with pytest.raises(ValueError, match="n_heads"):
        widget.config = before | {"n_heads": 0}
    with pytest.raises(traitlets.TraitError):
        widget.config = 3
    assert widget.config == before


# --- JavaScript and Python agree --------------------------------------------------------------


def test_javascript_has_the_same_places_limits_and_types() -> None:
    (paths,) = call_each("parameter_breakdown", [["paths"]])
    limits, types = call_each("lib/accounting", [["LIMITS"], ["BYTES"]])
    assert tuple(paths) == parameter_breakdown.PATHS
    assert limits == parameter_breakdown.LIMITS
    assert types == accounting.BYTES


def test_javascript_counts_200_random_models_as_python_does() -> None:
    configs = [*FAMILY.values(), *random_configs(200)]
    calls: list[list[Any]] = []
    expected: list[Any] = []
    for config in configs:
        given = sizes(config)
        calls += [["parameters", given], ["total", given]]
        expected += [accounting.parameters(config), accounting.total(config)]
        for dtype in accounting.BYTES:
            calls += [["weightBytes", given, dtype], ["trainingBytes", given, dtype]]
            expected.append(accounting.weight_bytes(config, dtype))
            expected.append(accounting.training_bytes(config, dtype))
    answers = call_each("lib/accounting", calls)
    calls += [["shapes", sizes(config)] for config in configs]
    expected += [
        {name: list(shape) for name, shape in accounting.shapes(config).items()}
        for config in configs
    ]
    answers += call_each("parameter_breakdown", calls[len(answers) :])
    for call, answer, value in zip(calls, answers, expected, strict=True):
        assert answer == value, call
        if isinstance(value, dict):
            assert list(answer) == list(value), call


def test_javascript_tree_is_the_built_model() -> None:
    """Every part of the tree counts what PyTorch counts in the module of that name."""
    configs = [*FAMILY.values(), GPTConfig(tie_head=False, qkv_bias=False)]
    trees = call_each("parameter_breakdown", [["tree", sizes(config)] for config in configs])
    for config, tree in zip(configs, trees, strict=True):
        with torch.device("meta"):
            model = GPT(config)
        counts = dict.fromkeys(parameter_breakdown.PATHS, 0)
        for name, parameter in model.named_parameters():
            parts = [part for part in name.split(".") if not part.isdigit()]
            for end in range(len(parts) + 1):
                path = "/".join(parts[:end])
                if path in counts:
                    counts[path] += parameter.numel()
        assert _counts(tree) == counts


def _counts(part: dict[str, Any]) -> dict[str, int]:
    found = {part["path"]: part["count"]}
    for child in part["children"]:
        found |= _counts(child)
    return found


def test_javascript_writes_numbers_as_python_does() -> None:
    draw = random.Random(4)
    numbers = [int(2 ** draw.uniform(0, 53)) for _ in range(300)]
    numbers += [1024**power + off for power in range(1, 5) for off in (-1, 0, 1)]
    numbers += [1280, 1331, 1024 * 1023 + 972, 1024 * 1023 + 973, 1024**2 * 1023 + 996_147]
    calls = [[name, n] for n in numbers for name in ("formatBytes", "formatCount")]
    expected = [
        write(n) for n in numbers for write in (accounting.format_bytes, accounting.format_count)
    ]
    assert call_each("lib/numbers", calls) == expected


def test_javascript_refuses_what_python_refuses_in_the_same_words() -> None:
    draw = random.Random(5)
    good = sizes(FAMILY["gpt2"])
    tried = [good | {name: draw.choice([-1, 0, 1.5, 1, 7, 48, 10**7])} for name in SIZES * 12]
    messages = []
    for config in tried:
        try:
            ParameterBreakdown().config = config
            messages.append("")
        except ValueError as error:
            messages.append(str(error))
    assert call_each("lib/accounting", [["problem", config] for config in tried]) == messages
    assert len(set(messages)) > 10
