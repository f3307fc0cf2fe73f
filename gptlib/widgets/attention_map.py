"""Where a model's heads look: one map large, all maps small, every step in numbers."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any, Protocol

import traitlets

from gptlib.widgets import engine, foreign
from gptlib.widgets.base import Widget, one_of, well_formed

if TYPE_CHECKING:
    from torch import Tensor, nn

STEPS = ("scores", "scaled", "masked", "weights")
LIMIT = 128
"""The widget draws at most this many tokens,"""
LOOKS = 1_000_000
"""and at most this many weights in all: two megabytes, which a notebook can just hold."""

SIZE = 660_000
"""A state aims at no more than this many bytes: what is finest of ``PACKINGS`` is stored."""
PACKINGS = ((16, True), (12, True), (12, False))
"""Bits of a value, and whether the scores of later tokens, which the mask hides, are stored."""
BEND = 0.5
"""Far below a row's highest score the stored steps are wide, within this distance they are even."""


class Encoding(Protocol):
    """What the widget asks of an encoding; ``tiktoken.Encoding`` has it."""

    def encode_ordinary(self, text: str) -> list[int]:
        """Return the ids of a text's tokens."""

    def decode_single_token_bytes(self, token: int) -> bytes:
        """Return the bytes that a token stands for."""


class AttentionMap(Widget):
    """Shows where each head of ``model`` looks while it reads ``text``.

    ``model`` holds ``CausalSelfAttention`` layers and takes ids ``(1, T)``. ``layer`` and ``head``
    count from 0. In a notebook the reader may change the text; the trait ``maps`` follows, or
    ``error`` says in one line why it cannot, and the maps stay as they were. A page without a
    kernel reads other texts only with the mini model.

    Raises ``ValueError`` for a text that is empty, too long or that the encoding or the model does
    not take, and for a layer or a head that does not exist, naming those that do.
    """

    _module = "attention_map"

    text = traitlets.Unicode().tag(sync=True)
    maps = traitlets.Dict().tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)  #: the token that looks
    column = traitlets.Int(-1).tag(sync=True)  #: the one looked at; -1 is the one most looked at
    step = traitlets.Unicode("weights").tag(sync=True)
    error = traitlets.Unicode("").tag(sync=True)
    live = traitlets.Bool(True, read_only=True).tag(sync=True)  # a page's state lacks it

    def __init__(
        self, model: nn.Module, text: str, encoding: Encoding, layer: int = 0, head: int = 0
    ) -> None:
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {type(text).__name__}")
        self._model, self._encoding = model, encoding
        text = well_formed(text)
        maps = attention_state(model, text, encoding)
        middle = len(maps["tokens"]) // 2
        super().__init__(text=text, maps=maps, layer=layer, head=head, token=middle)

    @traitlets.validate("layer", "head", "token", "column")
    def _check_index(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        count = {"layer": "layers", "head": "heads"}.get(name)
        last = (self.maps[count] if count else len(self.maps["tokens"])) - 1
        first = -1 if name == "column" else 0
        if not first <= value <= last:
            raise ValueError(f"{name} must be from {first} to {last}, not {value}")
        return int(value)

    @traitlets.validate("step")
    def _check_step(self, proposal: dict[str, Any]) -> str:
        return one_of("step", proposal["value"], STEPS)

    @traitlets.validate("text")
    def _check_text(self, proposal: dict[str, Any]) -> str:
        return well_formed(proposal["value"])

    @traitlets.observe("text")
    def _update(self, change: dict[str, Any]) -> None:
        if self.text == self.maps["text"]:
            self.error = ""
            return
        try:
            maps = attention_state(self._model, self.text, self._encoding)
        except ValueError as error:
            self.error = str(error)
            return
        with self.hold_sync():
            self.column, self.token = -1, min(self.token, len(maps["tokens"]) - 1)
            self.maps, self.error = maps, ""

    def state(self) -> dict[str, Any]:
        """Return the maps and what is chosen of them; of the mini model also how large it is."""
        chosen = ("maps", "layer", "head", "token", "column", "step")
        maps = {name: getattr(self, name) for name in chosen}
        return {**maps, **engine.offered(self._model, self._encoding)}

    def describe(self) -> str:
        """Say in words what the maps show."""
        layers, heads, tokens = self.maps["layers"], self.maps["heads"], self.maps["tokens"]
        text = self.maps["text"]
        start = text if len(text) <= 60 else text[:59] + "…"
        return (
            f"Attention maps of the text {start!r}: {_plural(len(tokens), 'token')}, "
            f"{_plural(layers, 'layer')} with {_plural(heads, 'head')} each, shown are layer "
            f"{self.layer} and head {self.head}. For each token a map has a row: the weights with "
            "which it looks at itself and at the tokens before it, which sum to 1."
        )


def attention_state(model: nn.Module, text: str, encoding: Encoding) -> dict[str, Any]:
    """Return the attention of all heads of ``model`` on a text, packed for the front end.

    The scaled scores are stored; scores, masked scores and weights follow from them. Raises
    ``ValueError`` for a text that cannot be shown.
    """
    ids = encode_text(encoding, text)
    scaled, channels = _scaled_scores(model, ids)
    return {
        "text": text,
        "tokens": [encoding.decode_single_token_bytes(i).decode("latin-1") for i in ids],
        "layers": scaled.shape[0],
        "heads": scaled.shape[1],
        "channels": channels,
        **pack(scaled),
    }


def encode_text(encoding: Encoding, text: str) -> list[int]:
    """Return the ids of a text that is not empty, or raise ``ValueError`` saying why not."""
    if not text:
        raise ValueError("the text is empty: at least one token is needed")
    if hasattr(encoding, "token_byte_values"):  # tiktoken panics in Rust where it could raise
        known = set(b"".join(encoding.token_byte_values()))
        for character in text:
            if not known.issuperset(character.encode()):
                raise ValueError(f"the encoding has no token for {character!r}")
    try:
        ids = list(encoding.encode_ordinary(text))
    except KeyError as error:
        raise ValueError(f"the encoding has no token for {error.args[0]!r}") from error
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Rust: it is no Exception, and has no public name
        raise ValueError("the encoding has no tokens for a part of this text") from error
    if not ids:
        raise ValueError("the encoding makes no token of this text: at least one is needed")
    return ids


def _scaled_scores(model: nn.Module, ids: list[int]) -> tuple[Tensor, int]:
    """Return the scaled scores ``(L, H, T, T)`` and the channels of a head."""
    from gptlib.activations import attention_maps
    from gptlib.model import CausalSelfAttention

    layers = [part for part in model.modules() if isinstance(part, CausalSelfAttention)]
    heads = sum(layer.n_heads for layer in layers)
    most = min(LIMIT, (math.isqrt(8 * LOOKS // max(heads, 1) + 1) - 1) // 2)
    if len(ids) > most:
        raise ValueError(f"the text has {len(ids):,} tokens, but at most {most:,} can be shown")
    with foreign.reading(model, ids, "these tokens") as batch:
        steps = attention_maps(model, batch)
    scaled = steps.scaled[:, 0].float().cpu()
    if not scaled.isfinite().all():
        raise ValueError("the model's attention scores are not all finite numbers")
    return scaled, layers[0].query_key_value.out_features // (3 * layers[0].n_heads)


def pack(scaled: Tensor) -> dict[str, Any]:
    """Return scaled scores ``(L, H, T, T)`` as base64 of small integers.

    ``ranges`` has each head's lowest and highest score (float32), ``peaks`` each row's highest up
    to the diagonal (16 bits, even between those two), ``below`` how far under that peak each score
    up to the diagonal is (``bits`` bits, finer near the peak, where the weights are), ``above``
    the scores beyond the diagonal (``bits`` bits, even), or nothing where they would not fit.
    """
    import torch

    bits, full = _packing(scaled.shape)
    size = scaled.shape[-1]
    row, column = torch.tril_indices(size, size)
    later, ahead = torch.triu_indices(size, size, 1)
    scaled = scaled.flatten(0, 1).double()  # (L * H, T, T)
    below, above = scaled[:, row, column], scaled[:, later, ahead]
    stored = torch.cat((below, above), 1) if full else below
    ranges = torch.stack(stored.aminmax(dim=1), 1).float()  # (L * H, 2)
    low, high = ranges.double()[:, :, None].unbind(1)
    width = (high - low).clamp(min=1e-6)
    peaks = scaled.tril().masked_fill(~torch.ones(size, size).tril().bool(), -torch.inf).amax(-1)
    depth = torch.log1p((peaks[:, row] - below) / BEND) / torch.log1p(width / BEND)
    return {
        "bits": bits,
        "ranges": _base64(ranges.numpy().astype("<f4").tobytes()),
        "peaks": _integers((peaks - low) / width, 16),
        "below": _integers(depth, bits),
        "above": _integers((above - low) / width, bits) if full else "",
    }


def _packing(shape: tuple[int, ...]) -> tuple[int, bool]:
    """Return the finest packing of maps ``(L, H, T, T)`` that keeps to ``SIZE``, or the last."""
    layers, heads, size, _ = shape
    for bits, full in PACKINGS:
        cells = size * size if full else size * (size + 1) // 2
        if layers * heads * (cells * bits + size * 16 + 64) / 6 <= SIZE:
            break
    return bits, full


def _integers(shares: Tensor, bits: int) -> str:
    """Return numbers from 0 to 1 as base64 of integers of ``bits`` bits, the highest bit first."""
    import numpy as np

    codes = (shares.clamp(0, 1) * (2**bits - 1)).round().int().numpy().reshape(-1, 1)
    return _base64(np.packbits((codes >> np.arange(bits - 1, -1, -1)) & 1).tobytes())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
