"""Looking inside a GPT: where it attends, what flows through it, and what a change of it does.

Shapes: ``L`` layers, ``B`` texts read at once, ``T`` tokens, ``C`` channels, ``H`` heads, ``D``
channels of one head, ``V`` vocabulary. The model's own code runs as it is: everything here goes
through PyTorch's hooks, which are taken away again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gptlib.model import GPT, CausalSelfAttention, in_mode

# ---- Attention, step by step -------------------------------------------------------------------


class AttentionSteps(NamedTuple):
    """The steps from queries and keys to attention weights, each ``(..., T, T)``."""

    scores: Tensor  #: the dot product of each query with each key
    scaled: Tensor  #: the scores divided by the square root of ``D``
    masked: Tensor  #: the same, with minus infinity wherever a position would look ahead
    weights: Tensor  #: the softmax of each row, which sums to 1


def attention_steps(queries: Tensor, keys: Tensor) -> AttentionSteps:
    """Return every step of causal attention from queries and keys, both ``(..., T, D)``.

    It computes in the open what ``scaled_dot_product_attention`` computes inside: the weights
    times the values are that function's result. Vaswani et al. (2017), section 3.2.1.

    Built in chapter 3.
    """
    scores = queries @ keys.transpose(-2, -1)  # (..., T, T)
    scaled = scores / math.sqrt(queries.shape[-1])
    ahead = torch.ones_like(scores, dtype=torch.bool).triu(1)
    masked = scaled.masked_fill(ahead, -torch.inf)
    return AttentionSteps(scores, scaled, masked, masked.softmax(-1))


@torch.no_grad()
def attention_maps(model: nn.Module, ids: Tensor) -> AttentionSteps:
    """Run ``model`` on ids ``(B, T)`` and return its attention, each step ``(L, B, H, T, T)``.

    It listens to what enters each :class:`~gptlib.model.CausalSelfAttention` inside ``model`` and
    computes the steps with that layer's own weights. The model runs in evaluation mode.

    Raises ``ValueError`` if there is no such layer in ``model``.
    """
    layers = [part for part in model.modules() if isinstance(part, CausalSelfAttention)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no CausalSelfAttention to listen to")
    steps: list[AttentionSteps] = []

    def listen(layer: CausalSelfAttention, inputs: tuple[Tensor, ...]) -> None:
        queries, keys, _ = layer.split_heads(inputs[0])  # (B, H, T, D)
        steps.append(attention_steps(queries, keys))

    hooks = [layer.register_forward_pre_hook(listen) for layer in layers]
    try:
        with in_mode(model, training=False):
            model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return AttentionSteps(*(torch.stack(step) for step in zip(*steps, strict=True)))


# ---- Recording ----------------------------------------------------------------------------------

#: What a part of the model hands on, by name, from what enters it and what leaves it.
Listener = Callable[[Tensor, Tensor], dict[str, Tensor]]


class Record(dict[str, Tensor]):
    """The activations of the latest forward by name; :func:`record` says which there are."""

    def __init__(self, n_layers: int, n_heads: int) -> None:
        self.n_layers, self.n_heads = n_layers, n_heads
        self.start, self.earlier = 0, dict[str, Tensor]()  # what a cached forward goes on from

    @property
    def residual(self) -> Tensor:
        """The residual stream before the blocks and after each of them, ``(L + 1, B, T, C)``."""
        after = [self[f"blocks.{i}"] for i in range(self.n_layers)]
        return torch.stack([self["embeddings"], *after])

    @property
    def weights(self) -> Tensor:
        """The attention weights of all heads, ``(L, B, H, T, T)``."""
        return torch.stack([self[f"blocks.{i}.attention.weights"] for i in range(self.n_layers)])

    def begin(self, positions: Tensor) -> dict[str, Tensor]:
        """Forget the forward before, unless this one goes on from it."""
        self.start, self.earlier = int(positions[0]), dict(self) if positions[0] else {}
        self.clear()
        return {}

    def of_block(self, i: int) -> dict[str, Listener]:
        """Return what to note at each part of a block: ``x`` enters it, and ``y`` leaves it."""
        b, a, middle = (f"blocks.{i}{end}" for end in ("", ".attention", ".after_attention"))
        return {
            f"{b}.norm_1": lambda x, y: {f"{b}.norm_1": y} | ({} if i else {"embeddings": x}),
            f"{a}.query_key_value": lambda _, y: self.look(a, y),
            f"{a}.projection": lambda x, _: {
                f"{a}.head.{h}": z for h, z in enumerate(x.chunk(self.n_heads, -1))
            },
            a: lambda _, y: {a: y},
            f"{b}.norm_2": lambda x, y: {middle: x, f"{b}.norm_2": y},
            f"{b}.feed_forward": lambda _, y: {f"{b}.feed_forward": y},
            b: lambda _, y: {b: y},
        }

    def look(self, attention: str, fused: Tensor) -> dict[str, Tensor]:
        """Return what heads look with, from the fused ``(B, T, 3C)`` of the tokens just read."""
        earlier = self.earlier.get(f"{attention}.query_key_value", fused[:, :0])
        if earlier.shape[:2] != (len(fused), self.start):
            raise ValueError(f"record from the first token on, not after {self.start} tokens")
        fused = torch.cat([earlier, fused], dim=1)  # (B, T, 3C), all tokens so far
        heads = fused.view(*fused.shape[:2], 3, self.n_heads, -1)  # (B, T, 3, H, D)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # (B, H, T, D), three times
        weights = attention_steps(queries, keys).weights[:, :, self.start :]
        names = ("query_key_value", "queries", "keys", "values", "weights")
        found = (fused, queries, keys, values, weights)
        return {f"{attention}.{name}": value for name, value in zip(names, found, strict=True)}


@contextmanager
def record(model: GPT) -> Iterator[Record]:
    """Record what flows through a model, inside a ``with`` block, and leave the model as it was.

    After ``with record(model) as r: model(ids)``, ``r`` has, for every block ``i`` and head ``h``:

    - ``"embeddings"``, ``"blocks.i.after_attention"``, ``"blocks.i"``: the residual stream before
      the blocks, in the middle of a block, and after it, each ``(B, T, C)``
    - ``"blocks.i.attention"``, ``"blocks.i.feed_forward"``: what the two add to it, ``(B, T, C)``
    - ``"blocks.i.attention.weights"``: where each head looks, ``(B, H, T, T)``
    - ``"blocks.i.attention.queries"``, ``….keys"``, ``….values"``: ``(B, H, T, D)``; and
      ``"blocks.i.attention.query_key_value"``: the three as they come, ``(B, T, 3C)``
    - ``"blocks.i.attention.head.h"``: what a head hands to the projection, ``(B, T, D)``
    - ``"blocks.i.norm_1"``, ``"blocks.i.norm_2"``, ``"final_norm"``: ``(B, T, C)``

    Of several forwards, the latest is kept. In training mode this is what really flowed, dropout
    included; only the weights are those before their dropout. Recorded tensors have no gradients,
    and show what :func:`changed` changes.

    A model that writes with a cache reads a few tokens at a time: only these have rows. But
    queries, keys and values are those of all tokens so far, weights have a column for each, and
    ``"final_norm"`` has the last token.

    Raises ``ValueError`` for what :func:`check_open` refuses, and for a model that goes on with a
    cache whose tokens were read before. Built in chapter 8.
    """
    check_open(model)
    kept, hooks = Record(model.config.n_layers, model.config.n_heads), list[RemovableHandle]()

    def listen(path: str, hear: Listener) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            kept.update(hear(inputs[0].detach(), output.detach()))

        hooks.append(model.get_submodule(path).register_forward_hook(hook))

    try:
        listen("position_embedding", lambda positions, _: kept.begin(positions))
        for i in range(model.config.n_layers):
            for path, hear in kept.of_block(i).items():
                listen(path, hear)
        listen("final_norm", lambda _, y: {"final_norm": y})
        yield kept
    finally:
        for handle in hooks:
            handle.remove()


def check_open(model: GPT) -> None:
    """Raise ``ValueError`` unless a model is a GPT that hooks reach: not wrapped, not compiled."""
    if not isinstance(model, GPT):
        raise ValueError(
            f"a GPT is needed, not {type(model).__name__}: look into the model from before it was "
            "compiled or wrapped"
        )
    if any(part._compiled_call_impl is not None for part in model.modules()):
        raise ValueError("hooks do not reach into a compiled model: look into one that is not")


# ---- Changing -----------------------------------------------------------------------------------


@contextmanager
def changed(
    model: GPT,
    name: str,
    replacement: float | Tensor,
    positions: Collection[int] | None = None,
) -> Iterator[None]:
    """Put something else in place of an activation, inside a ``with`` block.

    ``name`` is one of those that :func:`record` knows: "embeddings", "blocks.i",
    "blocks.i.attention", "blocks.i.feed_forward" or "blocks.i.attention.head.h". ``replacement``
    is 0, which switches a head off; a tensor like a mean, ``(C,)`` or ``(D,)``; or an activation
    recorded elsewhere, ``(B, T, C)`` or ``(B, T, D)``, of which each position takes its own row.
    All positions are changed, or only those given, counted from the start of the text.

    Of two changes of one activation, that of the outer block holds.

    Raises ``ValueError`` for what :func:`check_open` refuses, a name or a position that does not
    exist, a replacement that does not fit, and at the end of the block if nothing was changed.
    """
    check_open(model)
    part, columns, enters = _find(model, name)
    if positions is not None and min(positions, default=0) < 0:
        raise ValueError(f"positions are counted from the start, from 0 on, not {min(positions)}")
    change = _Change(torch.as_tensor(replacement).detach(), positions, columns)
    hooks = [model.position_embedding.register_forward_pre_hook(change.begin)]
    try:  # before all other hooks, so that a record has what goes on from here
        if enters:
            hook = part.register_forward_pre_hook(lambda _, x: change(x[0]), prepend=True)
        else:
            hook = part.register_forward_hook(lambda _, __, y: change(y), prepend=True)
        hooks.append(hook)
        yield
    finally:
        for handle in hooks:
            handle.remove()
    if not change.n_changed:
        raise ValueError(f"nothing was changed: {name} was not computed at any such position")


def _find(model: GPT, name: str) -> tuple[nn.Module, slice, bool]:
    """Return the part that an activation enters or leaves, its channels, and if it enters."""
    pattern = r"embeddings|blocks\.(\d+)(?:\.(feed_forward|attention(?:\.head\.(\d+))?))?"
    found, config = re.fullmatch(pattern, name), model.config
    block, head = (int(found[group] or 0) for group in (1, 3)) if found else (0, 0)
    if not found or block >= config.n_layers or head >= config.n_heads:
        raise ValueError(
            f"there is no {name!r} to change: it is embeddings, or blocks.i, blocks.i.attention, "
            f"blocks.i.feed_forward or blocks.i.attention.head.h, with i below {config.n_layers} "
            f"and h below {config.n_heads}"
        )
    columns = slice(None)
    if name == "embeddings":
        return model.blocks[0], columns, True
    if found[3]:  # the heads stand side by side where they enter the projection
        columns = slice(head * config.head_dim, (head + 1) * config.head_dim)
        return model.get_submodule(f"blocks.{block}.attention.projection"), columns, True
    return model.get_submodule(name), columns, False


@dataclass
class _Change:
    """Puts a replacement in place of some channels of what passes, ``(B, T, C)``."""

    new: Tensor
    positions: Collection[int] | None
    columns: slice
    start: int = 0  # the position of the first token that is read
    n_changed: int = 0

    def begin(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.start = int(inputs[0][0])

    def __call__(self, x: Tensor) -> Tensor:
        read = range(self.start, self.start + x.shape[1])
        places = [p for p in read if self.positions is None or p in self.positions]
        if places:
            x, rows = x.clone(), [p - self.start for p in places]
            x[:, rows, self.columns] = _rows(self.new, places, x[:, rows, self.columns])
            self.n_changed += len(places)
        return x


def _rows(new: Tensor, places: list[int], old: Tensor) -> Tensor:
    """Return what stands at these positions from now on, in the shape of what stood there."""
    if new.ndim > 1 and new.shape[-2] > 1:  # a row for each position
        if places[-1] >= new.shape[-2]:
            raise ValueError(
                f"position {places[-1]} is to be changed, but the replacement has "
                f"{new.shape[-2]} positions: name those that are meant"
            )
        new = new[..., places, :]
    try:
        return new.to(old).expand_as(old)
    except RuntimeError:
        shapes = f"{(*new.shape,)} does not fit in place of {(*old.shape,)}"
        raise ValueError(f"a replacement of shape {shapes}") from None


# ---- What heads look at -------------------------------------------------------------------------
# A kind of head is a map of places: for ids (T,) the (T, T) pairs [position, place looked at].


def previous_token(ids: Tensor) -> Tensor:
    """Say where the token right before each position stands: ids ``(T,)`` to a map ``(T, T)``.

    Built in chapter 8.
    """
    position = torch.arange(len(ids), device=ids.device)  # (T,)
    return position == position[:, None] - 1


def first_token(ids: Tensor) -> Tensor:
    """Say where the first token stands, for all others: ids ``(T,)`` to a map ``(T, T)``.

    Built in chapter 8.
    """
    position = torch.arange(len(ids), device=ids.device)  # (T,)
    return (position == 0) & (position[:, None] > 0)


def same_word(ids: Tensor) -> Tensor:
    """Say where the token of each position stood before: ids ``(T,)`` to a map ``(T, T)``.

    Built in chapter 8.
    """
    return (ids == ids[:, None]).tril(-1)


def induction(ids: Tensor) -> Tensor:
    """Say what came after the token of each position before: ids ``(T,)`` to a map ``(T, T)``.

    What followed then may follow again (Olsson et al., 2022). A position is not its own past.

    Built in chapter 8.
    """
    return same_word(ids).roll(1, dims=-1).tril(-1)  # one place further


def head_scores(weights: Tensor, places: Tensor) -> Tensor:
    """Return how much of its attention each head gives to certain places, from 0 to 1.

    Maps weights ``(L, H, T, T)``, of one text, and a map of places ``(T, T)`` to ``(L, H)``: the
    mean over all positions that have such a place. Raises ``ValueError`` if none has.

    Built in chapter 8.
    """
    has_one = places.any(-1)  # (T,)
    if not has_one.any():
        raise ValueError(f"none of the {len(places)} positions has such a place to look at")
    given = (weights * places).sum(-1)  # (L, H, T)
    return given[..., has_one].mean(-1)  # (L, H)


# ---- Reading the residual stream ----------------------------------------------------------------


@torch.no_grad()
def logit_lens(model: GPT, residual: Tensor) -> Tensor:
    """Read the residual stream after every layer as the model reads it after the last one.

    Maps ``(L + 1, B, T, C)``, as in :attr:`Record.residual`, to logits ``(L + 1, B, T, V)``; the
    last are the model's own (nostalgebraist, 2020). Built in chapter 8.
    """
    return torch.stack([model.output_head(model.final_norm(x)) for x in residual])
