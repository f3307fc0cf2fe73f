"""Models that are trained already. The mini model, trained for this course, is in the package.

``tools/train_mini.py`` made its files in ``assets/mini``: the weights, in half precision, and the
record of the run.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import as_file, files
from typing import Any

import torch
from safetensors.torch import load_file

from gptlib.config import FAMILY
from gptlib.model import GPT


def load(name: str) -> GPT:
    """Return a trained model, in evaluation mode: "mini" is the course's own.

    Its vocabulary is that of :func:`gptlib.tokenizer.stories`, and it has no dropout. Raises
    ``ValueError`` for another name.
    """
    if name != "mini":
        raise ValueError(f'there is only "mini" so far, not {name!r}')
    with as_file(files("gptlib") / "assets" / "mini" / "weights.safetensors") as path:
        weights = load_file(path)
    model = GPT(replace(FAMILY[name], drop_rate=0.0))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(weights[parameter_name])
    return model.eval()


def mini_record() -> dict[str, Any]:
    """Return the record of the mini model's training.

    Its parts: ``seed``, ``stories`` (how many it read, each once), ``steps``, ``tokens``,
    ``seconds``, ``machine``, ``losses`` (nats per token, one of every few steps) and
    ``evaluations`` (pairs: after how many steps, and the loss on held-out stories).
    """
    asset = files("gptlib") / "assets" / "mini" / "training.json"
    record: dict[str, Any] = json.loads(asset.read_text(encoding="utf-8"))
    return record
