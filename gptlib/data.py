"""Token streams, and the batches of inputs and targets that a model trains on.

A stream is a flat tensor of token ids. Texts in it stand between end-of-text tokens: one before
the first, one after each. Shapes: ``B`` rows in a batch, ``N`` windows, ``T`` tokens in a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from typing import Protocol

import torch
from tiktoken import Encoding
from torch import Tensor

from gptlib import characters
from gptlib.text_files import file_stream as file_stream
from gptlib.text_files import read_text as read_text
from gptlib.tokenizer import END_OF_TEXT

#: The target of a position that holds no text, only padding. The loss leaves it out.
IGNORED = -100

_TEXTS_AT_ONCE = 5_000
_BATCHES_SORTED_TOGETHER = 50


class Batches(Protocol):
    """What :func:`gptlib.training.train` reads: the batch of any step, the same each time."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs and the targets of a step, both ``(B, T)`` and int64."""

    def describe(self) -> dict[str, object]:
        """Say what the batches are made of, in JSON's types, to compare two runs by."""


def windows(ids: Sequence[int] | Tensor, context_length: int, stride: int) -> tuple[Tensor, Tensor]:
    """Cut a stream of token ids into inputs and targets, each of shape ``(N, T)``.

    Window ``n`` starts at ``n * stride``; its targets are its inputs one position later. A last
    window that would run past the end of the stream is left out.

    Raises ``ValueError`` if a length is below 1 or the stream is too short for one window.

    Built in chapter 2.
    """
    stream = torch.as_tensor(ids)
    if context_length < 1 or stride < 1:
        raise ValueError(
            f"context_length and stride must be at least 1, not {context_length} and {stride}"
        )
    if stream.ndim != 1 or len(stream) < context_length + 1:
        raise ValueError(
            f"one window of {context_length} needs a flat stream of at least "
            f"{context_length + 1} ids, not shape {tuple(stream.shape)}"
        )
    inputs = stream[:-1].unfold(0, context_length, stride)  # (N, T)
    targets = stream[1:].unfold(0, context_length, stride)  # (N, T)
    return inputs, targets


def stream_of(texts: Iterable[str], encoding: Encoding) -> Tensor:
    """Encode texts into one stream (int32), an end-of-text token before the first, after each.

    Raises ``ValueError`` if there is no text, if one is empty or has an END_OF_TEXT in it, or if
    the encoding lacks that or a character, and ``TypeError`` for what is no text, and for a single
    string: its texts would be its characters.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of texts, not one string: {texts!r:.60}")
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text number {number:,} must be a str, not {text!r:.60}")
    if not texts or not all(texts):
        what = f"number {texts.index('')} is empty" if texts else "there is none"
        raise ValueError(f"a stream needs texts with something in them, but {what}")
    for number, text in enumerate(texts):
        if END_OF_TEXT in text:
            raise ValueError(
                f"text number {number:,} has {END_OF_TEXT} in it, at character "
                f"{text.index(END_OF_TEXT):,}: give what it separates as several texts"
            )
    end_of_text = characters.end_of_text(encoding)
    pieces = [torch.tensor([end_of_text], dtype=torch.int32)]
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = characters.encode_batch(encoding, texts[start : start + _TEXTS_AT_ONCE])
        flat = [id_ for ids in some for id_ in (*ids, end_of_text)]
        pieces.append(torch.tensor(flat, dtype=torch.int32))
    return torch.cat(pieces)


def split(stream: Tensor, held_out_share: float = 0.1) -> tuple[Tensor, Tensor]:
    """Cut a stream in two: what to train on, and its last part, held out to measure the loss on.

    Both are views. Raises ``ValueError`` unless the share is between 0 and 1 and leaves each part
    an input and its target.
    """
    if not 0 < held_out_share < 1:
        raise ValueError(f"held_out_share must be between 0 and 1, not {held_out_share!r}")
    n = round(len(stream) * held_out_share)
    if n < 2 or len(stream) - n < 2:
        raise ValueError(
            f"held_out_share = {held_out_share} of {len(stream):,} tokens leaves {n:,} to hold "
            f"out and {len(stream) - n:,} to train on; each part needs at least 2"
        )
    return stream[:-n], stream[-n:]


class StoryBatches:
    """Batches of whole texts, shuffled; rows shorter than the longest are padded at their end.

    ``stream`` is what :func:`stream_of` makes. The row of a text starts with the end-of-text token
    before it, so that a model learns to begin; its last target is the one after it, so that a
    model learns to stop. Texts of similar length share a batch, which saves padding. In an epoch
    every text comes once, in another order each time; what does not fill a batch, other texts each
    time, is left out.

    Raises ``ValueError`` if the stream does not begin and end with end-of-text, if it holds fewer
    texts than ``batch_size``, an empty one, or one longer than ``context_length``, end-of-text
    included.
    """

    def __init__(
        self,
        stream: Tensor | Sequence[int],
        end_of_text: int,
        batch_size: int,
        context_length: int,
        seed: int = 0,
    ) -> None:
        stream = torch.as_tensor(stream)
        if stream.ndim != 1 or not _is_framed(stream, end_of_text):
            raise ValueError(
                f"a stream of texts must begin and end with end-of-text, {end_of_text}: "
                "gptlib.data.stream_of makes one"
            )
        ends = (stream == end_of_text).nonzero().flatten()
        _require("seed", seed, at_least=0)
        _require("batch_size", batch_size, at_least=1)
        if len(ends) - 1 < batch_size:
            raise ValueError(
                f"batch_size must be from 1 to the {len(ends) - 1:,} texts in the stream, "
                f"not {batch_size:,}"
            )
        self.stream, self.end_of_text = stream, end_of_text
        self.batch_size, self.seed = batch_size, seed
        self.starts, self.lengths = ends[:-1], ends.diff()  # (number of texts,), both
        if int(self.lengths.min()) < 2:
            raise ValueError(f"text number {int(self.lengths.argmin()):,} in the stream is empty")
        if int(self.lengths.max()) > context_length:
            raise ValueError(
                f"a text of {int(self.lengths.max()):,} tokens, end-of-text included, does not "
                f"fit into context_length = {context_length:,}"
            )
        self.per_epoch = len(self.starts) // batch_size
        self._order = lru_cache(maxsize=2)(self._shuffle)
        self._stream_description = lru_cache(maxsize=1)(partial(_describe, stream))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs and the targets of a step, both ``(B, T)`` and int64."""
        epoch, number = divmod(step, self.per_epoch)
        return self.rows(self._order(epoch)[number])

    def rows(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and the targets of the texts with these numbers, padded."""
        starts, lengths = self.starts[texts, None], self.lengths[texts, None]  # (B, 1)
        columns = torch.arange(int(lengths.max()))  # (T,)
        padding = columns >= lengths  # (B, T)
        places = (starts + columns).clamp(max=len(self.stream) - 2)  # (B, T)
        inputs, targets = self.stream[places].long(), self.stream[places + 1].long()
        return inputs.masked_fill(padding, self.end_of_text), targets.masked_fill(padding, IGNORED)

    def in_order(self) -> list[tuple[Tensor, Tensor]]:
        """Return all texts, in their order, in batches: for :func:`gptlib.training.evaluate`."""
        return [
            self.rows(some) for some in torch.split(torch.arange(len(self.starts)), self.batch_size)
        ]

    def describe(self) -> dict[str, object]:
        """Say what the batches are made of, in JSON's types, to compare two runs by."""
        return {
            "kind": type(self).__name__,
            "batch_size": self.batch_size,
            "seed": self.seed,
            **self._stream_description(),
        }

    def _shuffle(self, epoch: int) -> Tensor:
        """Return the numbers of the texts in each batch of an epoch: (batches, B)."""
        generator = _generator(self.seed, epoch)
        texts = torch.randperm(len(self.starts), generator=generator)
        # What does not fill a batch goes before the sorting, or it would always be long texts.
        texts = texts[: self.per_epoch * self.batch_size]
        together = torch.split(texts, self.batch_size * _BATCHES_SORTED_TOGETHER)
        by_length = [some[self.lengths[some].argsort(stable=True)] for some in together]
        batches = torch.cat(by_length).view(self.per_epoch, self.batch_size)
        return batches[torch.randperm(self.per_epoch, generator=generator)]


def _rows(windows: Tensor, places: Tensor) -> Tensor:
    """Return some of the windows as int64; PyTorch 2.7 has no ``windows[places]`` for uint16."""
    return torch.stack([windows[place].long() for place in places.tolist()])


class WindowBatches:
    """Batches of windows cut from a stream at random places; no padding.

    The stream may be of any type of whole numbers, a list of them, or mapped into memory from a
    file: only the windows of a batch are read. Each window is drawn anew from all of them.

    Raises ``ValueError`` if the stream is too short for one window, or a number is out of range.
    """

    def __init__(
        self,
        stream: Tensor | Sequence[int],
        batch_size: int,
        context_length: int,
        seed: int = 0,
    ) -> None:
        stream = torch.as_tensor(stream)
        _require("seed", seed, at_least=0)
        _require("batch_size", batch_size, at_least=1)
        if stream.ndim == 1 and len(stream) <= context_length:
            raise ValueError(
                f"a text of {len(stream):,} tokens is shorter than one window: context_length = "
                f"{context_length:,} needs at least {context_length + 1:,}. Give more text, or a "
                "smaller context_length."
            )
        self.inputs, self.targets = windows(stream, context_length, stride=1)
        self.stream, self.batch_size, self.seed = stream, batch_size, seed
        self.context_length = context_length
        self._stream_description = lru_cache(maxsize=1)(partial(_describe, stream))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs and the targets of a step, both ``(B, T)`` and int64."""
        generator = _generator(self.seed, step)
        places = torch.randint(len(self.inputs), (self.batch_size,), generator=generator)
        return _rows(self.inputs, places), _rows(self.targets, places)

    def in_order(self) -> list[tuple[Tensor, Tensor]]:
        """Return the stream window after window, in batches: for :func:`gptlib.training.evaluate`.

        Every token but the first is a target once; what is left at the end for less than a window
        is not.
        """
        inputs, targets = windows(self.stream, self.context_length, stride=self.context_length)
        parts = (torch.split(half, self.batch_size) for half in (inputs, targets))
        return [(rows.long(), wanted.long()) for rows, wanted in zip(*parts, strict=True)]

    def describe(self) -> dict[str, object]:
        """Say what the batches are made of, in JSON's types, to compare two runs by."""
        return {
            "kind": type(self).__name__,
            "batch_size": self.batch_size,
            "context_length": self.context_length,
            "seed": self.seed,
            **self._stream_description(),
        }


def _generator(seed: int, number: int) -> torch.Generator:
    """Return a generator that depends on both numbers alone, so that any step can be resumed."""
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**64)


def _describe(stream: Tensor) -> dict[str, object]:
    """Return the length and the SHA-256 of a stream, which takes a while if it is long."""
    digest = hashlib.sha256(stream.contiguous().numpy().data).hexdigest()
    return {"tokens": len(stream), "sha256": digest}


def _require(name: str, value: object, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, not {value!r}")


def _is_framed(stream: Tensor, end_of_text: int) -> bool:
    return len(stream) > 1 and int(stream[0]) == int(stream[-1]) == end_of_text
