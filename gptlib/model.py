"""The blocks of GPT-2, and the model that they make.

Shapes: ``B`` batch, ``T`` tokens, ``C`` channels (``emb_dim``), ``H`` heads, ``D`` channels of one
head, ``V`` vocabulary, ``L`` layers. The architecture is that of Radford et al. (2019), section
2.3, as in the code released with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from gptlib.config import GPTConfig
from gptlib.kv_cache import Attend, KVCache


class LayerNorm(nn.Module):
    """Bring each vector to mean 0 and variance 1, then scale and shift its channels.

    Maps ``(..., C)`` to ``(..., C)``. Ba, Kiros and Hinton (2016); the variance is the biased one.

    Built in chapter 4.
    """

    def __init__(self, emb_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.scale.shape, self.scale, self.shift, self.eps)


class GELU(nn.Module):
    """The Gaussian error linear unit in its tanh form, which GPT-2 uses; keeps the shape.

    Hendrycks and Gimpel (2016), section 2. Built in chapter 4.
    """

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x, approximate="tanh")


class CausalSelfAttention(nn.Module):
    """Masked multi-head attention: each position gathers from itself and those before it.

    Maps ``(B, T, C)`` to ``(B, T, C)``. Vaswani et al. (2017), section 3.2. Whoever calls it may
    bring another way to ``attend``: a model that writes with a cache does. Built in chapter 3.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.drop_rate = config.drop_rate
        self.query_key_value = nn.Linear(config.emb_dim, 3 * config.emb_dim, bias=config.qkv_bias)
        self.projection = nn.Linear(config.emb_dim, config.emb_dim)
        self.dropout = nn.Dropout(config.drop_rate)

    def split_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries, keys and values of all heads, each ``(B, H, T, D)``."""
        fused = self.query_key_value(x)  # (B, T, 3C)
        heads = fused.unflatten(-1, (3, self.n_heads, -1))  # (B, T, 3, H, D)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # (B, H, T, D), three times
        return queries, keys, values

    def forward(self, x: Tensor, attend: Attend | None = None) -> Tensor:
        queries, keys, values = self.split_heads(x)  # (B, H, T, D)
        drop_rate = self.drop_rate if self.training else 0.0
        if attend is None:
            context = functional.scaled_dot_product_attention(
                queries, keys, values, dropout_p=drop_rate, is_causal=True
            )  # (B, H, T, D)
        else:
            context = attend(queries, keys, values)  # (B, H, T, D)
        joined = context.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.dropout(self.projection(joined))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, applied to each position alone.

    Maps ``(..., C)`` to ``(..., C)``, through ``4 * C`` channels. Built in chapter 4.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.emb_dim, 4 * config.emb_dim)
        self.activation = GELU()
        self.projection = nn.Linear(4 * config.emb_dim, config.emb_dim)
        self.dropout = nn.Dropout(config.drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        widened = self.activation(self.expand(x))  # (B, T, 4C)
        return self.dropout(self.projection(widened))  # (B, T, C)


class TransformerBlock(nn.Module):
    """Attention, then the feed-forward network, each with a norm before it and a shortcut around.

    Maps ``(B, T, C)`` to ``(B, T, C)``. Built in chapter 4.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm_1 = LayerNorm(config.emb_dim)
        self.attention = CausalSelfAttention(config)
        self.norm_2 = LayerNorm(config.emb_dim)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, attend: Attend | None = None) -> Tensor:
        x = x + self.attention(self.norm_1(x), attend=attend)
        return x + self.feed_forward(self.norm_2(x))


class OutputHead(nn.Module):
    """One logit for each entry of the vocabulary, from a tied or a matrix of its own; no bias.

    Maps ``(B, T, C)`` to ``(B, T, V)``. Press and Wolf (2017). Built in chapter 4.
    """

    def __init__(self, config: GPTConfig, token_embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = token_embedding.weight
        if not config.tie_head:
            self.weight = nn.Parameter(torch.empty_like(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        # A row for each entry of the vocabulary, a column for each position. The other way round,
        # rows of 50,257 numbers would start at odd addresses (benchmarks/model.py has both).
        scores = self.weight @ x.flatten(0, 1).T  # (V, B * T)
        return scores.T.view(*x.shape[:2], -1)  # (B, T, V)


class GPT(nn.Module):
    """GPT-2: maps token ids ``(B, T)`` to the logits ``(B, T, V)`` of each next token.

    It starts with GPT-2's random weights, drawn from ``generator`` (see :func:`initialize`), in
    training mode. With a ``cache``, the ids follow those that are in it, and are added to it.
    Calling it raises ``ValueError`` for ids that :func:`check_ids` refuses. Built in chapter 4.
    """

    def __init__(self, config: GPTConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.emb_dim)
        self.position_embedding = nn.Embedding(config.context_length, config.emb_dim)
        self.dropout = nn.Dropout(config.drop_rate)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layers))
        self.final_norm = LayerNorm(config.emb_dim)
        self.output_head = OutputHead(config, self.token_embedding)
        initialize(self, generator)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        x = self.residual(ids, cache)  # (B, T, C)
        return self.output_head(self.final_norm(x))  # (B, T, V)

    def residual(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return the residual stream after the last block, ``(B, T, C)``."""
        check_ids(ids, self.config)
        start = cache.length if cache else 0
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)  # (T,)
        x = self.token_embedding(ids) + self.position_embedding(positions)  # (B, T, C)
        x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x, attend=cache.layer(i)) if cache else block(x)  # (B, T, C)
        return x


def initialize(model: GPT, generator: torch.Generator | None = None) -> None:
    """Give a model GPT-2's random start, in place.

    Weights are normal around 0 with standard deviation 0.02, those of the position embedding 0.01
    (OpenAI's ``model.py``). Projections that end in a shortcut are smaller by the square root of
    their number, ``2 * n_layers`` (Radford et al., 2019, section 2.3). Biases and shifts are 0,
    scales 1. Built in chapter 4.
    """
    for name, parameter in model.named_parameters():
        std = 0.01 if name == "position_embedding.weight" else 0.02
        if name.endswith("projection.weight"):
            std = 0.02 / math.sqrt(2 * model.config.n_layers)
        if name.endswith("scale"):
            nn.init.ones_(parameter)
        elif name.endswith(("shift", "bias")):
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=std, generator=generator)


def check_ids(ids: Tensor, config: GPTConfig) -> None:
    """Raise ``ValueError`` unless ``ids`` are whole numbers ``(B, T)`` that the model can take.

    The numbers themselves are looked at only on the CPU, and not in a compiled model. To read one
    back from an accelerator would make the processor wait for it, at every training step.

    Built in chapter 4.
    """
    if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
        kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise ValueError(f"ids must be a tensor of whole numbers (torch.int64), not {kind}")
    if ids.ndim != 2 or ids.numel() == 0:
        raise ValueError(f"ids must have the shape (B, T), both at least 1, not {(*ids.shape,)}")
    if ids.shape[1] > config.context_length:
        raise ValueError(
            f"ids hold {ids.shape[1]:,} tokens, but context_length is {config.context_length:,}"
        )
    if ids.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = (int(extreme) for extreme in ids.aminmax())
        if low < 0 or high >= config.vocab_size:
            raise ValueError(
                f"ids must be from 0 to vocab_size - 1 = {config.vocab_size - 1:,}, "
                f"not {low if low < 0 else high:,}"
            )


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put a model into training or evaluation mode, and then each of its parts back into its own.

    A part may have another mode than the model, as one that is not to be trained any more has.
    """
    others = [part for part in model.modules() if part.training != training]
    if others:
        model.train(training)
    try:
        yield
    finally:
        for part in others:
            part.training = not training
