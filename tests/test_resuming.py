"""Going on from a checkpoint: by name, with more steps, from several processes, while one runs."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gptlib import runs
from gptlib.config import GPTConfig
from gptlib.model import GPT
from gptlib.training import checkpoints, sharded, train
from gptlib.training.checkpoints import CheckpointError
from tests.test_checkpoints import (
    CONFIG,
    REST,
    Random,
    gpt,
    quietly,
    replace_file,
    rewrite,
    weights,
)
from tests.test_checkpoints import stopped as stopped  # a fixture

HALF = dataclasses.replace(CONFIG, steps=4)


def freeze(model: GPT, *names: str) -> GPT:
    """Let only the parameters whose names begin so be trained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(names))
    return model


def test_a_run_that_trains_other_parts_is_another_run(tmp_path: Path) -> None:
    two = GPTConfig(13, context_length=6, emb_dim=8, n_heads=2, n_layers=2, drop_rate=0.0)
    with pytest.raises(RuntimeError, match="the batches failed"):
        quietly(freeze(gpt(config=two), "blocks.1"), tmp_path, batches=Random(fails_at=5))
    with pytest.raises(CheckpointError, match=r"its model has frozen = .*'blocks.0.norm_1.scale'"):
        quietly(freeze(gpt(config=two), "blocks.0"), tmp_path)
    whole = freeze(gpt(config=two), "blocks.1")
    quietly(whole)
    resumed = freeze(gpt(config=two), "blocks.1")
    quietly(resumed, tmp_path)
    assert all(torch.equal(p, weights(whole)[n]) for n, p in resumed.named_parameters())
    assert runs.trained(tmp_path).config == two


class Twins(nn.Module):
    """Two matrices of one shape, which are defined in one order or in the other."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        made = {name: torch.randn(13, 13, generator=generator) for name in ("first", "second")}
        for name in names:
            setattr(self, name, nn.Parameter(made[name].clone()))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return (self.first[ids] + 3 * self.second[ids]) @ self.second


def test_the_optimizers_state_goes_to_its_parameter_by_name(tmp_path: Path) -> None:
    whole = Twins("first", "second")
    train(whole, Random(), CONFIG, progress=False)
    with pytest.raises(RuntimeError, match="the batches failed"):
        train(Twins("first", "second"), Random(fails_at=5), CONFIG, folder=tmp_path, progress=False)
    other = Twins("second", "first")
    train(other, Random(), CONFIG, folder=tmp_path, progress=False)
    assert torch.equal(other.first, whole.first)
    assert torch.equal(other.second, whole.second)


def test_a_checkpoint_of_version_1_goes_on(stopped: Path) -> None:
    place = checkpoints.latest(stopped)
    state, model = load_file(place / "optimizer.safetensors"), gpt()
    optimizer = torch.optim.AdamW([p for g in (2, 1) for p in model.parameters() if p.ndim == g])
    run = type("Run", (), {"model": model, "optimizer": optimizer})
    numbers = {name: number for number, name in enumerate(checkpoints._names(run))}
    old = {f"{numbers[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": t for k, t in state.items()}
    save_file(old, place / "optimizer.safetensors")
    replace_file(place, "optimizer.safetensors", (place / "optimizer.safetensors").read_bytes())
    rewrite(place, version=1)
    whole, resumed = gpt(), gpt(seed=9)
    quietly(whole)
    quietly(resumed, stopped)
    assert all(torch.equal(p, weights(whole)[n]) for n, p in resumed.named_parameters())


def test_a_finished_run_goes_on_when_more_steps_are_asked_for(tmp_path: Path) -> None:
    quietly(gpt(), tmp_path, config=HALF)
    model = gpt(seed=9)
    assert quietly(model, tmp_path, config=CONFIG, batches=Random(seed=2)).steps == 6
    assert checkpoints.latest(tmp_path).name == "step-00000006"
    with pytest.raises(CheckpointError, match="of another run: its training has steps = 6"):
        quietly(gpt(), tmp_path, config=HALF)
    with pytest.raises(CheckpointError, match="of another run: its batches has seed = 2"):
        quietly(gpt(), tmp_path, config=CONFIG)
    wider = GPTConfig(13, context_length=6, emb_dim=16, n_heads=2, n_layers=1)
    with pytest.raises(CheckpointError, match="of another run: its model has emb_dim = 8"):
        quietly(gpt(config=wider), tmp_path, config=dataclasses.replace(CONFIG, steps=9))


def test_one_that_is_not_finished_keeps_its_steps(stopped: Path) -> None:
    with pytest.raises(CheckpointError, match="of another run: its training has steps = 6"):
        quietly(gpt(), stopped, config=dataclasses.replace(CONFIG, steps=8))


def test_a_reader_looks_again_when_a_checkpoint_was_replaced(tmp_path: Path) -> None:
    """Loads while the run saves after each step: some of them meet a folder that goes away."""
    config = dataclasses.replace(CONFIG, steps=60, save_every=1)
    quietly(gpt(), tmp_path, config=dataclasses.replace(config, steps=1))
    writer = threading.Thread(target=quietly, args=(gpt(), tmp_path, config))
    writer.start()
    n_loads = 0
    while writer.is_alive():
        checkpoints.load_weights(gpt(seed=9), tmp_path)
        n_loads += 1
    writer.join()
    assert n_loads > 1
    assert checkpoints.load_weights(gpt(seed=9), tmp_path).steps == 60


def test_a_checkpoint_that_goes_away_while_it_is_read_is_looked_for_again(tmp_path: Path) -> None:
    quietly(gpt(), tmp_path, config=HALF)
    first = checkpoints.latest(tmp_path)
    seen = []

    def read(place: Path) -> Path:
        seen.append(place)
        if place == first:
            place.rename(tmp_path / "step-00000006")
            raise CheckpointError("it is missing")
        return place

    assert checkpoints.reading(tmp_path, read).name == "step-00000006"
    assert seen[0] == first
    with pytest.raises(CheckpointError, match="no"):
        checkpoints.reading(tmp_path, lambda place: raising(CheckpointError("no")))


def raising(error: Exception) -> None:
    raise error


def change(place: Path, **values: object) -> None:
    """Change fields of the model in a checkpoint's record; None removes one."""
    record = json.loads((place / REST).read_text())
    model = record["identity"]["model"] | values
    record["identity"]["model"] = {k: v for k, v in model.items() if v is not None}
    rewrite(place, **record)


FOREIGN = {
    "a field is missing": ({"n_layers": None}, "n_layers is missing in its"),
    "a field is unknown": ({"n_experts": 8}, "n_experts is unknown here in its"),
    "a field is no number": ({"emb_dim": "wide"}, "emb_dim must be a whole number of at least 1"),
    "a model too large": ({"n_layers": 10**12}, "describes a GPT of .* parameters, for which its"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_record_is_named_with_its_field(stopped: Path, kind: str) -> None:
    values, said = FOREIGN[kind]
    place = checkpoints.latest(stopped)
    change(place, **values)
    with pytest.raises(CheckpointError, match=rf"training.json .*{said}"):
        runs.trained(stopped)
    rewrite(place, format=sharded.FORMAT)
    (place / ".metadata").write_bytes(b"")
    with pytest.raises(CheckpointError):
        runs.trained(place)


@pytest.mark.parametrize(
    ("part", "value"),
    [("losses", ["low"]), ("tokens", [None]), ("norms", []), ("seconds", 3), ("losses", [10**400])],
)
def test_a_history_that_is_none_is_named(stopped: Path, part: str, value: object) -> None:
    place = checkpoints.latest(stopped)
    record = json.loads((place / REST).read_text())
    record["history"][part] = value
    rewrite(place, **record)
    with pytest.raises(CheckpointError, match=r"training.json is damaged: its history"):
        checkpoints.load_weights(gpt(), stopped)
