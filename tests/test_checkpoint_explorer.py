"""The checkpoint explorer: what it stores of a file, against PyTorch, and what it can open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptlib import pretrained, tensor_files
from gptlib.config import GPTConfig
from gptlib.model import GPT
from gptlib.widgets import CheckpointExplorer, checkpoint_explorer, page
from gptlib.widgets.base import MIME_TYPE
from gptlib.widgets.checkpoint_explorer import BINS, CELLS, DIGITS, ODD, STRIP, ZERO, summarize
from tests.javascript import run_code

TINY = GPTConfig(64, 16, 8, 2, 12, 0.0, tie_head=False)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Count on one thread: these tensors are small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untied model of twelve blocks, saved."""
    model = GPT(TINY, torch.Generator().manual_seed(0))
    return pretrained.save(model, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def mini() -> CheckpointExplorer:
    return CheckpointExplorer("mini")


def file(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """Save tensors that need not be those of any model."""
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


def shown(state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every tensor by its name, as JavaScript reads it."""
    code = """
        for (const entry of widget.entriesOf(given)) {
          const averages = entry.cells.map((code) => widget.averageOf(entry, code));
          log({ ...entry, bars: widget.barsOf(entry), averages });
        }
    """
    entries = run_code("checkpoint_explorer", code, state["checkpoint"])
    return {entry["name"]: entry for entry in entries}


# --- the numbers ------------------------------------------------------------------------------


def test_what_javascript_shows_is_what_is_in_the_file(mini: CheckpointExplorer) -> None:
    found = shown(mini.state())
    with tensor_files.located("mini") as place:
        stored = load_file(place / "model.safetensors")
        size = (place / "model.safetensors").stat().st_size
    assert mini.checkpoint["bytes"] == size
    assert {f"transformer.{name}" for name in found} == set(stored)
    model = dict(pretrained.load("mini").named_parameters())
    for name, entry in found.items():
        tensor = stored[f"transformer.{name}"]
        assert entry["shape"] == list(tensor.shape)
        assert (entry["dtype"], entry["bytes"]) == ("F16", tensor.nbytes)
        ours = model[entry["ours"]]
        assert torch.equal(ours, (tensor.T if entry["transposed"] else tensor).float())
        check_spread(entry, tensor.double())
        if tensor.dim() == 2:
            check_picture(entry, tensor.double())


def check_spread(entry: dict[str, Any], values: Tensor) -> None:
    assert entry["mean"] == pytest.approx(float(values.mean()), rel=1e-4, abs=1e-7)
    assert entry["std"] == pytest.approx(float(values.std(correction=0)), rel=1e-4, abs=1e-9)
    assert entry["min"] == pytest.approx(float(values.min()), rel=1e-4)
    assert entry["max"] == pytest.approx(float(values.max()), rel=1e-4)
    assert len(entry["bars"]) <= BINS
    inside = 1 - (entry["below"] + entry["above"]) / values.numel()
    assert sum(bar["share"] for bar in entry["bars"]) == pytest.approx(inside, abs=0.01)
    low, high = entry["bars"][0]["from"], entry["bars"][9]["to"]
    share = float(((values >= low) & (values < high)).double().mean())
    drawn = sum(bar["share"] for bar in entry["bars"][:10])
    assert drawn == pytest.approx(share, abs=0.02)


def check_picture(entry: dict[str, Any], values: Tensor) -> None:
    rows = entry["rows"]
    columns = len(entry["cells"]) // rows
    assert rows * columns <= CELLS
    averages = [
        float(part.mean())
        for band in values.tensor_split(rows)
        for part in band.tensor_split(columns, 1)
    ]
    assert entry["reach"] == pytest.approx(max(map(abs, averages)), rel=1e-4)
    half = entry["reach"] / ZERO / 2 * 1.001
    assert entry["averages"] == pytest.approx(averages, abs=half)
    units = values / values.norm(dim=1, keepdim=True)
    assert entry["near"] == pytest.approx(float((units[1:] * units[:-1]).sum(1).mean()), abs=1e-3)
    alike = units @ units.T
    count = len(values) * (len(values) - 1)
    assert entry["any"] == pytest.approx(float(alike.sum() - alike.trace()) / count, abs=1e-3)


def test_neighboring_rows_of_smooth_matrices_are_alike() -> None:
    angles = torch.linspace(0, 20, 400)[:, None] * torch.linspace(0.1, 1, 48)
    smooth, mixed = angles.sin(), angles.sin()[torch.randperm(400)]
    assert summarize(smooth).near > 0.99
    assert summarize(mixed).near < 0.7
    assert summarize(mixed).any == pytest.approx(summarize(smooth).any, abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((192, 192), (32, 32)),
        ((192, 576), (18, 55)),
        ((768, 192), (64, 16)),
        ((50_257, 768), (64, 16)),
        ((3, 5), (3, 5)),
        ((1, 5), (1, 5)),
        ((1, 768), (1, STRIP)),
        ((768, 1), (64, 1)),
    ],
)
def test_cells_are_square_and_not_too_many(shape: tuple[int, int], grid: tuple[int, int]) -> None:
    assert checkpoint_explorer.grid(*shape, CELLS) == grid


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.ones(5), {"mean": 1.0, "std": 0.0, "peak": 5, "bins": "", "reach": 1.0}),
        (torch.zeros(4, 4), {"mean": 0.0, "std": 0.0, "reach": 0.0, "cells": DIGITS[ZERO] * 16}),
        (torch.tensor(3.0), {"mean": 3.0, "min": 3.0, "max": 3.0, "rows": 1}),
        (torch.zeros(0, 7), {"rows": 0, "cells": "", "bins": ""}),
        (torch.zeros(7, 0), {"rows": 0, "cells": "", "bins": ""}),
        (torch.arange(24).reshape(2, 3, 4), {"mean": 11.5, "max": 23.0, "rows": 6}),
        (torch.tensor([True, False, True, True]), {"mean": 0.75, "peak": 3}),
        (torch.tensor([-3e38, 3e38]), {"min": float(torch.tensor(-3e38)), "mean": 0.0}),
        (torch.tensor([[torch.nan, torch.inf]] * 3), {"nan": 3, "infinite": 3, "bins": ""}),
    ],
)
def test_any_tensor_has_a_summary(tensor: Tensor, expected: dict[str, Any]) -> None:
    found = summarize(tensor)._asdict()
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_not_finite_is_counted_and_the_rest_is_not_disturbed(dtype: torch.dtype) -> None:
    values = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    odd = values.clone()
    odd[0, 0], odd[0, 1], odd[40, 9], odd[63, 63] = torch.nan, torch.nan, torch.inf, -torch.inf
    found, clean = summarize(odd), summarize(values)
    assert (found.nan, found.infinite) == (2, 2)
    rest = odd[odd.isfinite()].double()
    assert found.mean == pytest.approx(float(rest.mean()), abs=1e-6)
    assert (found.min, found.max) == (float(rest.min()), float(rest.max()))
    assert found.peak + found.below + found.above <= len(rest)
    different = [i for i in range(32 * 32) if found.cells[i] == DIGITS[ODD]]
    assert different == [0, 20 * 32 + 4, 32 * 32 - 1]
    assert clean.nan == clean.infinite == 0
    assert DIGITS[ODD] not in clean.cells


# --- what is stored ---------------------------------------------------------------------------


def test_output_has_three_forms_and_is_the_same_each_time(mini: CheckpointExplorer) -> None:
    bundles = []
    for widget in (mini, CheckpointExplorer("mini")):
        data, metadata = DisplayFormatter().format(widget)
        assert data.pop("application/vnd.jupyter.widget-view+json")
        assert set(data) == {MIME_TYPE, "text/plain"}
        assert metadata[MIME_TYPE] == {"alt": data["text/plain"]}
        bundles.append(json.dumps([data, metadata]))
    assert bundles[0] == bundles[1]
    assert len(json.dumps(data[MIME_TYPE], indent=1)) < 40_000  # as a notebook stores it
    assert json.loads(json.dumps(mini.state())) == mini.state()


def test_the_words_name_no_number_that_training_changes(mini: CheckpointExplorer) -> None:
    assert mini.describe() == (
        "Checkpoint explorer: mini has 52 tensors with 2,222,208 values (F16) in 4.2 MiB. "
        "Stored transposed are 16: h.0.attn.c_attn.weight, h.0.attn.c_proj.weight, "
        "h.0.mlp.c_fc.weight and 13 more. Shown is wte.weight."
    )


@pytest.mark.parametrize(
    ("name", "blocks", "most"), [("gpt2", 12, 200_000), ("gpt2-xl", 48, 400_000)]
)
def test_state_of_the_released_sizes_stays_small(name: str, blocks: int, most: int) -> None:
    """The shape of a file decides how much is stored of it, so a few blocks stand for all."""
    width, layers = {"gpt2": (96, 2), "gpt2-xl": (100, 2)}[name]
    sizes = []
    for count in (layers, layers + 1):
        model = GPT(GPTConfig(2_000, 128, width, 4, count), torch.Generator().manual_seed(0))
        entries = []
        for theirs, tensor in pretrained.to_gpt2(model).items():
            tensor = tensor + 1e-5 * torch.randn(tensor.shape)  # no constants: the longest numbers
            entry = (theirs.removeprefix("transformer."), tuple(tensor.shape), "F32")
            entries.append(checkpoint_explorer.Entry(*entry, summarize(tensor)))
        sizes.append(len(json.dumps(checkpoint_explorer._packed(entries), indent=1)))
    assert sizes[0] + (blocks - layers) * (sizes[1] - sizes[0] + 300) < most


def test_many_matrices_have_smaller_pictures(tmp_path: Path) -> None:
    tensors = {f"m.{i}.w": torch.ones(40, 40) for i in range(checkpoint_explorer.MATRICES + 1)}
    state = CheckpointExplorer(file(tmp_path, tensors)).state()
    cells = state["checkpoint"]["tensors"][0].split("\t")[4]
    assert len(cells) == checkpoint_explorer.FEW_CELLS


def test_tensors_come_in_the_order_of_the_data(folder: Path) -> None:
    widget = CheckpointExplorer(folder)
    names = [entry.name for entry in widget._entries]
    assert names[:4] == ["wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.0.ln_1.bias"]
    assert names[2 + 12 * 2] == "h.2.ln_1.weight"
    assert names[2 + 12 * 10] == "h.10.ln_1.weight"
    assert names[-3:] == ["ln_f.weight", "ln_f.bias", "lm_head.weight"]
    assert widget.checkpoint["title"] == folder.name
    assert (widget.tensor, widget.opened) == ("wte.weight", ["h.0"])
    assert CheckpointExplorer(folder, "h.3.mlp.c_fc.bias").opened == ["h.3"]


def test_a_released_model_goes_by_its_name(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(tensor_files.hub, "fetch", lambda repository: folder)
    assert CheckpointExplorer("gpt2").checkpoint["title"] == "gpt2"


# --- what can be opened -----------------------------------------------------------------------


def test_files_that_load_refuses_can_be_looked_at(tmp_path: Path) -> None:
    tensors = {
        "transformer.wte.weight": torch.ones(5, 7).bfloat16(),
        "transformer.h.0.attn.c_attn.weight": torch.full((3, 2), torch.nan),
        "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4),
        "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
        "transformer.h.0.attn.extra": torch.arange(3),
        "model.layers.10.w": torch.ones(2, dtype=torch.bool),
        "model.layers.2.w": torch.ones(2, dtype=torch.uint8),
        "tab\tand <b>": torch.ones(2, 2, 2, dtype=torch.float64),
    }
    path = file(tmp_path, tensors)
    with pytest.raises(tensor_files.PretrainedError):
        pretrained.load(path)
    widget = CheckpointExplorer(path)
    found = shown(widget.state())
    assert [(name, entry["dtype"], entry["bytes"]) for name, entry in found.items()] == [
        ("wte.weight", "BF16", 70),
        ("h.0.attn.c_attn.weight", "F32", 24),
        ("h.0.attn.extra", "I64", 24),
        ("model.layers.2.w", "U8", 2),
        ("model.layers.10.w", "BOOL", 2),
        ("tab\tand <b>", "F64", 64),
    ]
    assert found["h.0.attn.c_attn.weight"]["nan"] == 6
    assert found["h.0.attn.extra"]["ours"] == ""
    assert (widget.checkpoint["masks"], widget.checkpoint["mask_bytes"]) == (2, 68)
    assert "2 masks, which are no parameters" in widget.describe()
    assert "Not all values are finite numbers in h.0.attn.c_attn.weight." in widget.describe()
    assert "<b>" not in page.widget_html("checkpoint_explorer", widget.state(), widget.describe())


def test_a_folder_of_several_files_is_one_checkpoint(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, some in parts.items():
        save_file({name: tensors[name] for name in some}, tmp_path / part)
    index = {"weight_map": {name: part for part, some in parts.items() for name in some}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    widget, whole = CheckpointExplorer(tmp_path), CheckpointExplorer(folder)
    assert widget.checkpoint["files"] == 2
    assert widget.checkpoint["tensors"] == whole.checkpoint["tensors"]


def test_an_empty_file_has_no_tensor(tmp_path: Path) -> None:
    widget = CheckpointExplorer(file(tmp_path, {}))
    assert widget.state()["tensor"] == ""
    assert "has 0 tensors with 0 values (none)" in widget.describe()


# --- what is refused --------------------------------------------------------------------------


def test_what_is_no_checkpoint_is_refused_as_load_refuses_it(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    for place in ("nowhere", tmp_path / "nowhere", tmp_path, tmp_path / "bad.safetensors"):
        with pytest.raises((ValueError, OSError)) as loading:
            pretrained.load(place)
        with pytest.raises(type(loading.value)) as looking:
            CheckpointExplorer(place)
        assert str(looking.value) == str(loading.value)


def test_a_tensor_that_is_not_there_is_refused(mini: CheckpointExplorer) -> None:
    words = r"one of the file's 52 \(wte.weight, wpe.weight, h.0.ln_1.weight, …\), not 'wte'"
    with pytest.raises(ValueError, match=words):
        CheckpointExplorer("mini", "wte")
    with pytest.raises(ValueError, match=words):
        mini.tensor = "wte"
    assert mini.tensor == "wte.weight"


def test_too_many_tensors_are_refused(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(checkpoint_explorer, "LIMIT", 100)
    with pytest.raises(ValueError, match="has 149 tensors, but at most 100 can be shown"):
        CheckpointExplorer(folder)
