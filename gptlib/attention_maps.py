"""Where attention looks: the steps from queries and keys to weights, and the maps of a model.

Shapes: ``L`` layers, ``B`` batch, ``H`` heads, ``T`` tokens, ``D`` channels of one head. In a map,
row ``i`` belongs to the position that looks, column ``j`` to the position looked at.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gptlib.model import CausalSelfAttention, in_mode


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
