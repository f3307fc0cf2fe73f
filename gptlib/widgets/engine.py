"""The mini model for the widgets that run it themselves, in the reader's browser.

The front end asks for it with a message, ``{"type": "engine"}``. In a page ``host.js`` answers with
the addresses of its files, in a notebook the kernel with the files themselves.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from gptlib.widgets.base import Widget
from gptlib.widgets.linker import linked

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "mini.safetensors"
"""The name of the weights among a site's files,"""
ABOUT = "mini.json"
"""and of what :func:`about` says of them."""


@cache
def weights() -> bytes:
    """Return the file of the mini model's weights."""
    return (files("gptlib") / "assets" / "mini" / "model.safetensors").read_bytes()


@cache
def about() -> dict[str, Any]:
    """Return what the engine must know of the weights: ``bytes``, ``sha256`` and ``config``."""
    config = (files("gptlib") / "assets" / "mini" / "config.json").read_text(encoding="utf-8")
    digest = hashlib.sha256(weights()).hexdigest()
    return {"bytes": len(weights()), "sha256": digest, "config": json.loads(config)}


@cache
def vocabulary_json(name: str) -> str:
    """Return an encoding as the page's tokenizer reads it: tokens by id, a byte a character."""
    from gptlib import tokenizer

    encoding = {"gpt2": tokenizer.gpt2, "stories": tokenizer.stories}[name]()
    special = {encoding.encode_single_token(token) for token in encoding.special_tokens_set}
    tokens = [
        None if token_id in special else token.decode("latin-1")
        for token_id, token in enumerate(tokenizer.token_bytes(encoding))
    ]
    return json.dumps({"name": name, "tokens": tokens}, separators=(",", ":"), ensure_ascii=False)


class EngineWidget(Widget):
    """A widget whose front end can run the mini model, which the kernel hands over when asked."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_msg(self._hand_over)

    def _hand_over(self, _: Any, content: Any, buffers: Any) -> None:
        if not isinstance(content, dict) or content.get("type") != "engine":
            return
        modules = linked("page/gpt_worker.js", "page/gpt.js")
        load = {**about(), "vocabulary": json.loads(vocabulary_json("stories"))}
        self.send({"type": "engine", "modules": modules, "load": load}, buffers=[weights()])


def is_mini(model: nn.Module) -> bool:
    """Say whether a model is the mini model: the same shapes and the same weights."""
    import torch

    from gptlib import pretrained

    mini = pretrained.load("mini").state_dict()
    state = model.state_dict()
    return state.keys() == mini.keys() and all(
        state[name].shape == tensor.shape and torch.equal(state[name].cpu().to(tensor), tensor)
        for name, tensor in mini.items()
    )


def offered(model: nn.Module, encoding: Any) -> dict[str, int]:
    """Return what a widget's state adds where the page can read other texts as ``model`` does.

    Of the mini model with the stories' encoding it is ``mini``, how many bytes there are to load.
    """
    from gptlib import tokenizer

    if getattr(encoding, "name", None) != tokenizer.stories().name or not is_mini(model):
        return {}
    return {"mini": len(weights())}
