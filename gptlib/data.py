"""Token streams cut into training windows.

Shapes: ``N`` windows, ``T`` tokens in a window (the context length).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def windows(ids: Sequence[int] | Tensor, context_length: int, stride: int) -> tuple[Tensor, Tensor]:
    """Cut a stream of token ids into inputs and targets, each of shape ``(N, T)``.

    Window ``n`` starts at ``n * stride``; its targets are its inputs one position later. A last
    window that would run past the end of the stream is left out.

    Raises ``ValueError`` if a length is below 1 or the stream is too short for one window.
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
