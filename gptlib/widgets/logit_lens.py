"""What a model would say next if it ended after any of its layers."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import traitlets

from gptlib.widgets import engine, foreign
from gptlib.widgets.attention_map import Encoding, encode_text
from gptlib.widgets.base import Widget, well_formed

if TYPE_CHECKING:
    from torch import Tensor

    from gptlib.model import GPT

LIMIT = 128
"""The widget shows at most this many tokens of a text,"""
COUNT = 5
"""and of each place so many of the likeliest tokens."""


class LogitLens(Widget):
    """Shows, for each token of ``text``, what ``model`` would say next after each of its layers.

    The text is read after the end-of-text token, where the encoding has one. ``layer`` counts from
    0, before the first block, to the number of blocks; ``token`` counts the tokens that are read.
    In a notebook the reader may change the text; the trait ``lens`` follows, or ``error`` says in
    one line why it cannot, and the table stays as it was. A page without a kernel reads other texts
    only with the mini model.

    Raises ``ValueError`` for a model that hooks do not reach, and for a text that is empty, too
    long, or that the encoding or the model does not take.
    """

    _module = "logit_lens"

    text = traitlets.Unicode().tag(sync=True)
    lens: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)
    error = traitlets.Unicode("").tag(sync=True)
    live = traitlets.Bool(True, read_only=True).tag(sync=True)  # a page's state lacks it

    def __init__(self, model: GPT, text: str, encoding: Encoding) -> None:
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {type(text).__name__}")
        self._model, self._encoding = model, encoding
        text = well_formed(text)
        lens = lens_state(model, text, encoding)
        token = min(4, len(lens["tokens"]) - 1)
        super().__init__(text=text, lens=lens, layer=lens["layers"], token=token)

    @traitlets.validate("layer", "token")
    def _check_index(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        last = self.lens["layers"] if name == "layer" else len(self.lens["tokens"]) - 1
        if not 0 <= value <= last:
            raise ValueError(f"{name} must be from 0 to {last}, not {value}")
        return int(value)

    @traitlets.validate("text")
    def _check_text(self, proposal: dict[str, Any]) -> str:
        return well_formed(proposal["value"])

    @traitlets.observe("text")
    def _update(self, change: dict[str, Any]) -> None:
        if self.text == self.lens["text"]:
            self.error = ""
            return
        try:
            lens = lens_state(self._model, self.text, self._encoding)
        except ValueError as error:
            self.error = str(error)
            return
        with self.hold_sync():
            self.token = min(self.token, len(lens["tokens"]) - 1)
            self.lens, self.error = lens, ""

    def state(self) -> dict[str, Any]:
        """Return the table and what is chosen of it; of the mini model also how large it is."""
        chosen = {name: getattr(self, name) for name in ("lens", "layer", "token")}
        return {**chosen, **engine.offered(self._model, self._encoding)}

    def describe(self) -> str:
        """Say in words what the table shows."""
        layers, tokens, text = self.lens["layers"], self.lens["tokens"], self.lens["text"]
        start = text if len(text) <= 60 else text[:59] + "…"
        shares = ", ".join(f"{share:.0%}" for share in agreement(self.lens)[:-1])
        return (
            f"Logit lens of the text {start!r}: for each of {len(tokens)} tokens that are read, "
            f"the likeliest next token if the model ended before its first block, or after any of "
            f"its {layers}. Before the last, this is already the model's own choice at: {shares}."
        )


def lens_state(model: GPT, text: str, encoding: Encoding) -> dict[str, Any]:
    """Return what ``model`` says after each of its layers on a text, packed for the front end.

    ``words`` has the bytes of all tokens that are said somewhere, a character a byte; those of the
    end-of-text token are left out. ``cells`` is base64 of 16-bit integers (E, T, 2 ``count`` + 2),
    the lower byte first, with E one more than there are layers: which words are the likeliest,
    their probabilities (65,535 is 1), and the probabilities of the last layer's choice and of the
    token that came next. Raises ``ValueError`` for a text that cannot be shown.
    """
    ids = encode_text(encoding, text)
    end = end_of_text(encoding)
    most = min(LIMIT, getattr(getattr(model, "config", None), "context_length", LIMIT + 1) - 1)
    if len(ids) > most:
        raise ValueError(f"the text has {len(ids):,} tokens, but at most {most:,} can be shown")
    ids = ids if end is None else [end, *ids]
    best, shares = _read(model, ids)  # (E, T, K), (E, T, K + 2)

    def bytes_of(token: int) -> str:
        return "" if token == end else encoding.decode_single_token_bytes(token).decode("latin-1")

    said = sorted(set(best.flatten().tolist()))
    return {
        "text": text,
        "tokens": [bytes_of(i) for i in ids],
        "layers": len(best) - 1,
        "count": best.shape[-1],
        "words": [bytes_of(i) for i in said],
        "cells": _pack(said, best, shares),
    }


def end_of_text(encoding: Any) -> int | None:
    """Return the id of an encoding's end-of-text token, or None if it has none."""
    try:
        return int(encoding.eot_token)
    except (AttributeError, KeyError):
        return None


def _read(model: GPT, ids: list[int]) -> tuple[Tensor, Tensor]:
    """Return the likeliest ids (E, T, K), and the probabilities (E, T, K + 2)."""
    import torch

    from gptlib.activations import logit_lens, record

    with record(model) as r, foreign.reading(model, ids, "these tokens") as read:
        model(read)
    stream = r.residual  # (E, 1, T, C)
    choice = logit_lens(model, stream[-1:])[0, 0].argmax(-1)  # (T,)
    asked = torch.stack([choice, read[0].roll(-1)], -1)  # (T, 2)
    best, shares = [], []
    for x in stream:  # one by one: the logits of a large model are large
        probabilities = logit_lens(model, x[None])[0, 0].float().softmax(-1)  # (T, V)
        if not probabilities.isfinite().all():
            raise ValueError("the model's logits are not all finite numbers")
        top = probabilities.topk(min(COUNT, probabilities.shape[-1]))
        best.append(top.indices.cpu())
        shares.append(torch.cat([top.values, probabilities.gather(-1, asked)], -1).cpu())
    return torch.stack(best), torch.stack(shares)


def _pack(said: list[int], best: Tensor, shares: Tensor) -> str:
    import torch

    places = torch.searchsorted(torch.tensor(said), best)  # (E, T, K)
    cells = torch.cat([places, (shares.double() * 65_535).round().long()], -1)  # (E, T, 2K + 2)
    return base64.b64encode(cells.numpy().astype("<u2").tobytes()).decode("ascii")


def agreement(lens: dict[str, Any]) -> list[float]:
    """Return, for each place in the model, how often its choice is the last layer's."""
    import numpy as np

    cells = np.frombuffer(base64.b64decode(lens["cells"]), "<u2")
    first = cells.reshape(lens["layers"] + 1, len(lens["tokens"]), -1)[:, :, 0]  # (E, T)
    return [float(share) for share in (first == first[-1]).mean(-1)]
