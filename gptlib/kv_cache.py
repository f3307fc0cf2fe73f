"""The KV cache: what attention keeps of the tokens read so far, so that none is read twice.

Shapes: ``B`` texts written at once, ``H`` heads, ``T`` new tokens, ``D`` channels of one head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from gptlib.config import GPTConfig

#: A way for queries to gather from keys and values, each ``(B, H, T, D)``: to ``(B, H, T, D)``.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class KVCache:
    """The keys and values of the tokens read so far, in every layer, with room for the context.

    ``like`` is a tensor of the type and on the device that they shall have. Built in chapter 5.
    """

    def __init__(self, config: GPTConfig, like: Tensor, batch_size: int) -> None:
        shape = (batch_size, config.n_heads, config.context_length, config.head_dim)
        self.length = 0
        self.keys = [like.new_zeros(shape) for _ in range(config.n_layers)]
        self.values = [like.new_zeros(shape) for _ in range(config.n_layers)]

    def layer(self, i: int) -> Attend:
        """Return how a layer attends, to be handed to its block."""
        return partial(self.attend, i)

    def attend(self, i: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Add the new tokens' keys and values in a layer, and let the queries see all so far."""
        start, end = self.length, self.length + keys.shape[2]
        self.keys[i][:, :, start:end], self.values[i][:, :, start:end] = keys, values
        mask = None  # one new token alone sees them all
        if end - start > 1:
            mask = torch.ones(end - start, end, dtype=torch.bool, device=keys.device).tril(start)
        if i + 1 == len(self.keys):  # the last layer has them too
            self.length = end
        return functional.scaled_dot_product_attention(
            queries, self.keys[i][:, :, :end], self.values[i][:, :, :end], mask
        )  # (B, H, T, D)
