"""Prompts of unequal length in one batch, each continued as it would be alone.

The shorter ones get padding before their first token, so that all go on in the same column. No
token sees the padding, and positions are counted from the first token. Shapes: ``B`` texts, ``T``
columns read at once, ``S`` columns read so far, ``C`` channels, ``H`` heads, ``D`` channels of one
head, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import tiktoken
import torch
from torch import Tensor
from torch.nn import functional

from gptlib.config import GPTConfig
from gptlib.generation import check_sampling, in_view, sample_next
from gptlib.kv_cache import KVCache
from gptlib.model import GPT, check_ids, in_mode


class PaddedCache(KVCache):
    """The keys and values of texts that begin with padding: ``padding`` ``(B,)`` columns each."""

    def __init__(self, config: GPTConfig, like: Tensor, padding: Tensor) -> None:
        super().__init__(config, like, len(padding))
        self.padding = padding

    def positions(self, n: int) -> Tensor:
        """Return the positions ``(B, n)`` of the next columns, 0 in the padding."""
        columns = torch.arange(self.length, self.length + n, device=self.padding.device)  # (n,)
        return (columns - self.padding[:, None]).clamp(min=0)  # (B, n)

    def attend(self, i: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Add the new tokens' keys and values in a layer, and let each query see its own text."""
        start, end = self.length, self.length + keys.shape[2]
        self.keys[i][:, :, start:end], self.values[i][:, :, start:end] = keys, values
        columns = torch.arange(end, device=keys.device)  # (S,)
        rows = columns[start:, None]  # (T, 1)
        is_text = columns >= self.padding[:, None, None]  # (B, 1, S)
        # Padding sees itself, or its softmax would have nothing to share out.
        mask = (columns <= rows) & is_text | (columns == rows)  # (B, T, S)
        if i + 1 == len(self.keys):  # the last layer has them too
            self.length = end
        return functional.scaled_dot_product_attention(
            queries, self.keys[i][:, :, :end], self.values[i][:, :, :end], mask[:, None]
        )  # (B, H, T, D)


def padded(model: GPT, texts: Sequence[Tensor]) -> tuple[Tensor, PaddedCache]:
    """Return texts, each flat, as one batch ``(B, T)`` of ids, and an empty cache for it."""
    lengths = torch.tensor([len(text) for text in texts])
    rows = [functional.pad(text, (int(lengths.max()) - len(text), 0)) for text in texts]
    like = model.token_embedding.weight
    padding = (lengths.max() - lengths).to(like.device)  # (B,)
    return torch.stack(rows).to(like.device), PaddedCache(model.config, like, padding)


def next_logits(model: GPT, ids: Tensor, cache: PaddedCache) -> Tensor:
    """Read ids ``(B, T)`` that follow those in the cache; return the logits ``(B, V)`` after them.

    It is :func:`gptlib.generation.next_logits`, with the positions that each text has alone.
    """
    check_ids(ids, model.config)
    positions = cache.positions(ids.shape[1])  # (B, T)
    x = model.token_embedding(ids) + model.position_embedding(positions)  # (B, T, C)
    for i, block in enumerate(model.blocks):
        x = block(x, attend=cache.layer(i))
    logits: Tensor = model.output_head(model.final_norm(x[:, -1:]))[:, 0]  # (B, V)
    return logits


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int] | Tensor],
    max_new_tokens: int,
    *,
    stop: int | None = None,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Iterator[Tensor]:
    """Continue prompts, each a flat list of ids: yield the next token of each, ``(B,)``.

    The logits are those of each prompt alone, up to rounding, so at temperature 0 the texts are
    what :func:`gptlib.generation.generate` writes, also where they grow past the context. A text
    that has drawn the token ``stop`` repeats it; when all have, the iteration ends.

    Raises ``ValueError`` at once for prompts or numbers that ``generate`` there refuses.
    """
    check_sampling(temperature, top_k, top_p)
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be at least 0, not {max_new_tokens!r}")
    if not len(prompts):
        raise ValueError("prompts must be at least one, not an empty list")
    texts = [torch.as_tensor(prompt).cpu() for prompt in prompts]
    for text in texts:
        newest = text[None, -model.config.context_length :] if text.ndim == 1 else text
        check_ids(newest, model.config)
    if stop is not None and not 0 <= stop < model.config.vocab_size:
        raise ValueError(
            f"stop must be a token, from 0 to {model.config.vocab_size - 1:,}, not {stop!r}"
        )
    draw = partial(
        sample_next, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
    )
    return _generate(model, texts, max_new_tokens, draw, stop)


def _generate(
    model: GPT,
    texts: list[Tensor],
    max_new_tokens: int,
    draw: Callable[[Tensor], Tensor],
    stop: int | None,
) -> Iterator[Tensor]:
    most = model.config.context_length
    texts = [in_view(text[None], most)[0] for text in texts]
    unread, cache = padded(model, texts)
    ended = torch.zeros(len(texts), dtype=torch.bool, device=unread.device)  # (B,)
    for _ in range(max_new_tokens):
        with in_mode(model, training=False), torch.no_grad():
            logits = next_logits(model, unread, cache)  # (B, V)
        token = draw(logits)  # (B,)
        if stop is not None:
            token = token.masked_fill(ended, stop)
            ended = ended | (token == stop)
        yield token
        if stop is not None and ended.all():
            return
        unread = token[:, None]  # (B, 1)
        texts = [torch.cat([text, new]) for text, new in zip(texts, unread.cpu(), strict=True)]
        if max(map(len, texts)) > most:  # where one is cut, its positions are new: read all again
            texts = [in_view(text[None], most)[0] for text in texts]
            unread, cache = padded(model, texts)


def write(
    model: GPT,
    encoding: tiktoken.Encoding,
    prompts: Sequence[str],
    max_new_tokens: int,
    **sampling: Any,
) -> list[str]:
    """Continue prompts, of which any may be empty, and return the new text of each.

    It is :func:`gptlib.generation.write` for several prompts at once. ``sampling`` goes to
    :func:`generate`: ``temperature``, ``top_k``, ``top_p``, ``generator``.
    """
    if isinstance(prompts, str):
        raise TypeError(f"prompts must be a list of texts, not one string: {prompts!r:.60}")
    if encoding.n_vocab != model.config.vocab_size:
        raise ValueError(
            f"the encoding has {encoding.n_vocab:,} tokens, "
            f"but the model's vocab_size is {model.config.vocab_size:,}"
        )
    end = encoding.eot_token
    ids = [[end, *encoding.encode_ordinary(prompt)] for prompt in prompts]
    columns = list(generate(model, ids, max_new_tokens, stop=end, **sampling))
    written = torch.stack(columns, dim=1).tolist() if columns else [[] for _ in prompts]
    kept = [row[: row.index(end)] if end in row else row for row in written]
    return [encoding.decode(row, errors="replace") for row in kept]
