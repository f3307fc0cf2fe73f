"""Writing with a GPT: from the logits to the next token, and from token to token.

Shapes: ``B`` texts written at once, ``T`` tokens, ``C`` channels, ``H`` heads, ``D`` channels of
one head, ``V`` vocabulary.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import tiktoken
import torch
from torch import Tensor
from torch.nn import functional

from gptlib import characters
from gptlib.kv_cache import KVCache
from gptlib.model import GPT, check_ids, in_mode


def next_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Turn logits ``(..., V)`` into the probabilities that the next token is drawn with, float32.

    The logits are divided by the temperature; at 0 the likeliest token is certain. Then all but
    the ``top_k`` likeliest tokens are dropped (Fan et al., 2018), then all beyond the likeliest few
    whose probabilities, of what is left, add up to ``top_p`` (Holtzman et al., 2020). Of tokens
    with the same logit, the one with the smaller id counts as the likelier.

    Raises ``ValueError`` for what :func:`check_sampling` and :func:`check_logits` refuse.

    Built in chapter 5.
    """
    check_sampling(temperature, top_k, top_p)
    check_logits(logits)
    if temperature == 0:
        return functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
    scores = logits if logits.dtype == torch.float64 else logits.float()
    below = scores - scores.amax(dim=-1, keepdim=True)  # 0 for the likeliest: nothing overflows
    probabilities = (below / temperature).softmax(dim=-1).float()  # (..., V)
    if top_k is None and top_p is None:
        return probabilities
    likeliest_first = logits.argsort(dim=-1, descending=True, stable=True)  # (..., V), ids
    kept = probabilities.gather(-1, likeliest_first)
    if top_k is not None:
        kept[..., top_k:] = 0
    if top_p is not None and top_p < 1:
        kept = kept / kept.sum(dim=-1, keepdim=True)
        before = kept.cumsum(dim=-1) - kept  # the probability of all likelier tokens
        kept = kept.masked_fill((before > 0) & (before >= top_p), 0)  # the first one stays
    kept = kept / kept.sum(dim=-1, keepdim=True)
    return torch.zeros_like(kept).scatter(-1, likeliest_first, kept)


def sample_next(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw the next token of each text from its logits ``(B, V)``; return the ids ``(B,)``.

    See :func:`next_probabilities` for what the numbers do, and for the errors. At temperature 0
    nothing is drawn: it is the argmax. Built in chapter 5.
    """
    probabilities = next_probabilities(logits, temperature, top_k, top_p)  # (B, V)
    if temperature == 0:
        return probabilities.argmax(dim=-1)  # (B,)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]  # (B,)


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise ``ValueError`` unless the temperature is 0 or more, top_k 1 or more, top_p in (0, 1].

    A temperature between 0 and 1e-6 is refused too: it would mean 0, or a slip of the finger.
    """
    if not (temperature == 0 or 1e-6 <= temperature < float("inf")):
        raise ValueError(f"temperature must be 0 or at least 0.000001, not {temperature!r}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, or None for all tokens, not {top_k!r}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, or None, not {top_p!r}")


def check_logits(logits: Tensor) -> None:
    """Raise ``ValueError`` where logits ``(..., V)`` name no likeliest token: NaN, or infinite.

    Minus infinity is a logit like others, for a token that must not come; but not for all tokens.
    """
    highest = logits.amax(dim=-1)  # (...): NaN where one of them is
    if not highest.isfinite().all():
        wrong = highest[~highest.isfinite()][0].item()
        raise ValueError(
            f"the largest logit is {wrong}, and no token can be drawn: did the weights that made "
            "it become NaN or infinite?"
        )


def next_logits(model: GPT, ids: Tensor, cache: KVCache) -> Tensor:
    """Read ids ``(B, T)`` that follow those in the cache; return the logits ``(B, V)`` after them.

    They are the model's own at the last position, without reading the earlier ids again. The cache
    must have room for ``T`` more tokens. Built in chapter 5.
    """
    x = model.residual(ids, cache)[:, -1:]  # (B, 1, C)
    return model.output_head(model.final_norm(x))[:, 0]  # (B, V)


#: A model may have fewer entries than this beyond those of its vocabulary. Some models have a whole
#: multiple of 64, 128 or 1,024 entries, which is quicker to compute. Some have room for new tokens.
PADDING = 1_024

#: What can stand for :func:`next_logits` in :func:`generate`.
Reader = Callable[[GPT, Tensor, KVCache], Tensor]


def generate(
    model: GPT,
    ids: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
    n_tokens: int | None = None,
    generator: torch.Generator | None = None,
    cached: bool = True,
    reader: Reader = next_logits,
) -> Iterator[Tensor]:
    """Continue texts ``(B, T)``: yield the next token of each, ``(B,)``, as soon as it is drawn.

    A text that has drawn the token ``stop`` repeats it; when all have, the iteration ends. Only the
    first ``n_tokens`` entries of the model's vocabulary are drawn, if it is given. Texts
    may grow past the context, or be longer from the start: whenever more than ``context_length``
    tokens are in view, only the newest ``context_length // 2`` stay (at least one), and become the
    first positions. With ``cached=False`` the model reads all tokens in view again for each new
    one: the same tokens, slowly. Without a cache there is nothing for the ``reader`` to do.

    The model is in evaluation mode while it reads, and in its own between two tokens. Raises
    ``ValueError`` at once for ids that :func:`gptlib.model.check_ids` refuses (whatever their
    length), or numbers that :func:`check_sampling` refuses.
    """
    is_batch = isinstance(ids, Tensor) and ids.ndim == 2
    check_ids(ids[:, -model.config.context_length :] if is_batch else ids, model.config)
    check_sampling(temperature, top_k, top_p)
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be at least 0, not {max_new_tokens!r}")
    if stop is not None and not 0 <= stop < model.config.vocab_size:
        raise ValueError(
            f"stop must be a token, from 0 to {model.config.vocab_size - 1:,}, not {stop!r}"
        )
    sample = partial(
        sample_next, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
    )

    def draw(logits: Tensor) -> Tensor:
        return sample(logits[:, :n_tokens])  # (B, V) to (B,)

    return _generate(model, ids, max_new_tokens, draw, stop, reader if cached else None)


def _generate(
    model: GPT,
    ids: Tensor,
    max_new_tokens: int,
    draw: Callable[[Tensor], Tensor],
    stop: int | None,
    reader: Reader | None,
) -> Iterator[Tensor]:
    cache = KVCache(model.config, model.token_embedding.weight, len(ids))
    ids = unread = in_view(ids, model.config.context_length)  # (B, T)
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)  # (B,)
    parts = list(model.modules())  # once: to walk through them takes long beside one token
    for _ in range(max_new_tokens):
        trains = any(part.training for part in parts)
        with in_mode(model, training=False) if trains else nullcontext(), torch.no_grad():
            logits = reader(model, unread, cache) if reader else model(ids)[:, -1]  # (B, V)
        token = draw(logits)  # (B,)
        if stop is not None:
            token = token.masked_fill(ended, stop)
            ended = ended | (token == stop)
        yield token
        if stop is not None and ended.all():
            return
        unread = token[:, None]  # (B, 1)
        grown = torch.cat([ids, unread], dim=1)  # (B, T + 1)
        ids = in_view(grown, model.config.context_length)
        if ids.shape != grown.shape:  # all positions are new: read them again, from the first
            cache.length, unread = 0, ids


def in_view(ids: Tensor, context_length: int) -> Tensor:
    """Return the part of ids ``(B, T)`` that the model goes on from: all, or the newest half."""
    if ids.shape[1] <= context_length:
        return ids
    return ids[:, -max(1, context_length // 2) :]


def write(
    model: GPT,
    encoding: tiktoken.Encoding,
    prompt: str,
    max_new_tokens: int,
    **sampling: Any,
) -> Iterator[str]:
    """Continue a prompt, which may be empty, and yield the new text piece by piece.

    END_OF_TEXT stands before the prompt, since a text begins after it, and ends the writing where
    the model draws it. A piece is one token or more, never half a character. ``sampling`` goes to
    :func:`generate`: ``temperature``, ``top_k``, ``top_p``, ``generator``, ``cached``, ``reader``.

    The model may have more entries than the encoding, fewer than :data:`PADDING`, which are not
    drawn. Raises ``ValueError`` at once for what :func:`generate` refuses, for an encoding that is
    not the model's or lacks END_OF_TEXT, and for a prompt that it has no tokens for.
    """
    if not 0 <= model.config.vocab_size - encoding.n_vocab < PADDING:
        raise ValueError(
            f"the encoding has {encoding.n_vocab:,} tokens, "
            f"but the model's vocab_size is {model.config.vocab_size:,}"
        )
    end = characters.end_of_text(encoding)
    device = model.token_embedding.weight.device
    ids = torch.tensor([[end, *characters.encode(encoding, prompt)]], device=device)  # (1, T)
    sampling = {"stop": end, "n_tokens": encoding.n_vocab, **sampling}
    return _pieces(generate(model, ids, max_new_tokens, **sampling), encoding)


def _pieces(tokens: Iterator[Tensor], encoding: tiktoken.Encoding) -> Iterator[str]:
    # A token can end within a character; its bytes wait in the decoder for the rest.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in map(int, tokens):
        if token == encoding.eot_token:
            return
        if piece := decoder.decode(encoding.decode_single_token_bytes(token)):
            yield piece
