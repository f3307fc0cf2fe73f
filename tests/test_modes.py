"""Whoever puts a model into evaluation mode for a moment leaves every part as it was."""

from __future__ import annotations

import pytest
import torch

from gptlib import tokenizer
from gptlib.activations import attention_maps
from gptlib.config import GPTConfig
from gptlib.generation import generate
from gptlib.model import GPT, in_mode
from gptlib.training import evaluate
from gptlib.widgets import AttentionMap, LogitLens, SamplingBench, Surprise

pytestmark = pytest.mark.asset  # one of the widgets compares the model with the mini model

TEXT = "Ada and Tom were best friends."


@pytest.fixture
def model():
    config = GPTConfig(tokenizer.stories().n_vocab, 64, emb_dim=8, n_heads=2, n_layers=2)
    model = GPT(config, torch.Generator().manual_seed(0)).train()
    model.blocks[0].eval()  # as whoever trains only the upper half has it
    return model


def ids():
    return torch.tensor([tokenizer.stories().encode(TEXT)])


WAYS = {
    "generate": lambda model: list(generate(model, ids(), 2)),
    "evaluate": lambda model: evaluate(model, [(ids()[:, :-1], ids()[:, 1:])]),
    "attention_maps": lambda model: attention_maps(model, ids()),
    "AttentionMap": lambda model: AttentionMap(model, TEXT, tokenizer.stories()),
    "LogitLens": lambda model: LogitLens(model, TEXT, tokenizer.stories()),
    "SamplingBench": lambda model: SamplingBench(model, TEXT, tokenizer.stories()),
    "Surprise": lambda model: Surprise(TEXT, tokenizer.stories(), model),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_part_has_its_own_mode_again(model, way):
    before = [part.training for part in model.modules()]
    assert True in before
    assert False in before
    heard = []
    hook = model.register_forward_hook(
        lambda *_: heard.append({part.training for part in model.modules()})
    )
    WAYS[way](model)
    hook.remove()
    assert [part.training for part in model.modules()] == before
    assert all(modes == {False} for modes in heard)


@pytest.mark.parametrize("training", [True, False])
def test_after_an_error_too(model, training):
    before = [part.training for part in model.modules()]

    def fail():
        with in_mode(model, training):
            assert {part.training for part in model.modules()} == {training}
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [part.training for part in model.modules()] == before
