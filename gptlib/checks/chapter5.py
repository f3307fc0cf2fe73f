"""Checks of chapter 5, “Training”."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gptlib import accounting
from gptlib.checks import (
    WrongAnswerError,
    call,
    compare,
    describe,
    exercise,
    function,
)
from gptlib.config import FAMILY, GPTConfig


@exercise(
    "5.1",
    shows="Per byte, models with different vocabularies can be compared, and a file of zeros "
    "and ones can be made that short.",
)
def _bits_per_byte(answer: object) -> str | None:
    reader = function(answer)
    for loss, n_tokens, n_bytes in ((math.log(2), 100, 400), (0.34, 147, 640), (1.2, 90, 60)):
        expected = loss * n_tokens / n_bytes / math.log(2)
        got = call(reader, loss, n_tokens, n_bytes)
        difference = compare(got, expected)
        if difference is None:
            continue
        slips = {
            " Those are nats: a bit is ln 2 nats.": expected * math.log(2),
            " A bit is less than a nat, so there are more bits than nats.": expected
            * math.log(2) ** 2,
            " Those are bits per token.": loss / math.log(2),
            " Those are bits, of the whole text.": loss / math.log(2) * n_tokens,
            " The total is loss times tokens; divide it by the bytes.": loss
            / math.log(2)
            * n_bytes
            / n_tokens,
        }
        hint = next((why for why, slip in slips.items() if compare(got, slip) is None), "")
        return f"bits_per_byte({loss:.6g}, {n_tokens}, {n_bytes}) {difference}{hint}"
    return None


def _gradients(scale: float, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in ((3, 4), (4,), (2, 2))]


@exercise(
    "5.2",
    shows="All gradients are one long vector: it gets shorter, and points where it did.",
)
def _clip(answer: object) -> str | None:
    reader = function(answer)
    cases = [([torch.tensor([3.0, -4.0]), torch.tensor([[12.0]])], 1.0)]
    cases += [(_gradients(5.0, 0), 1.0), (_gradients(0.01, 1), 1.0), (_gradients(1.0, 2), 2.5)]
    cases += [([torch.zeros(2), torch.zeros(1, 2)], 1.0)]
    for gradients, longest in cases:
        length = math.sqrt(sum(part.square().sum().item() for part in gradients))
        got = call(reader, gradients, longest)
        what = f"Gradients of length {length:.4g}, longest = {longest:g}:"
        if not isinstance(got, (list, tuple)) or len(got) != len(gradients):
            return f"{what} your function gave {describe(got)}, expected a list of tensors."
        expected = _shortened(gradients, longest)
        for place, (ours, wanted) in enumerate(zip(got, expected, strict=True)):
            difference = compare(ours, wanted, 1e-4)
            if difference is not None:
                hint = _clip_slip(got, gradients, longest)
                return f"{what} tensor {place} {difference}{hint}"
    return None


def _shortened(gradients: Sequence[Tensor], longest: float) -> list[Tensor]:
    length = math.sqrt(sum(part.square().sum().item() for part in gradients))
    return [part * min(1.0, longest / length) if length else part for part in gradients]


def _clip_slip(got: Sequence[object], gradients: Sequence[Tensor], longest: float) -> str:
    slips: dict[str, Callable[[Tensor], Tensor]] = {
        " You shortened each tensor by itself, which turns the whole.": lambda part: _shortened(
            [part], longest
        )[0],
        " You cut each number by itself, which turns the whole.": lambda part: part.clamp(
            -longest, longest
        ),
        " What is short enough stays as it is.": lambda part: part * (longest / total),
        " The length has a square root.": lambda part: part * min(1.0, longest / total**2),
        " Nothing was clipped.": lambda part: part,
    }
    total = math.sqrt(sum(part.square().sum().item() for part in gradients)) or math.nan
    for why, slip in slips.items():
        pairs = zip(got, gradients, strict=True)
        if all(compare(ours, slip(part), 1e-4) is None for ours, part in pairs):
            return why
    return ""


@exercise(
    "5.3",
    shows="The dice of a story move both costs alike, so their difference is far less noisy.",
)
def _excess(answer: object) -> str | None:
    reader = function(answer)
    generator = torch.Generator().manual_seed(3)
    cases = [(torch.tensor([5.0, 3.0, 7.0]), torch.tensor([4.0, 3.0, 5.0]))]
    for n, spread in ((50, 0.5), (400, 2.0)):
        grammar = 49 + 6 * torch.randn(n, generator=generator)
        cases.append((grammar + 1 + spread * torch.randn(n, generator=generator), grammar))
    for model, grammar in cases:
        got = call(reader, model, grammar)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise WrongAnswerError(
                f"Your function gave {describe(got)}, expected two numbers: mean and error."
            )
        apart = (model - grammar).double()
        wanted = (apart.mean().item(), apart.std().item() / math.sqrt(len(apart)))
        for name, ours, expected in zip(("mean", "standard error"), got, wanted, strict=True):
            difference = compare(ours, expected, 1e-4)
            if difference is not None:
                hint = _excess_slip(ours, expected, model, grammar)
                return f"With {len(apart)} stories the {name} {difference}{hint}"
    return None


def _excess_slip(got: object, expected: float, model: Tensor, grammar: Tensor) -> str:
    n = len(model)
    apart = model - grammar
    slips: dict[str, float | Tensor] = {
        " It is the model's cost minus the grammar's.": -expected,
        " That is the spread of single stories: divide by the root of their number.": apart.std(),
        " Divide by the root of the number of stories, not by the number.": apart.std() / n,
        " Those are two independent samples' errors. Here each story is in both: take the "
        "differences first.": (model.var() / n + grammar.var() / n).sqrt(),
        " That is the error of the model's costs alone.": model.std() / math.sqrt(n),
        " Estimate the spread with n - 1, as `std` does.": apart.std(correction=0) / math.sqrt(n),
    }
    hits = (why for why, slip in slips.items() if compare(got, float(slip), 1e-3) is None)
    return next(hits, "")


# --- 5.4 to 5.6 ---


@exercise(
    "5.4",
    shows="Where the model is sure, few tokens stay, and where it is open, many: as with top-p.",
)
def _min_p(answer: object) -> str | None:
    reader = function(answer)
    generator = torch.Generator().manual_seed(4)
    cases = [(torch.tensor([2.0, 1.0, 0.0, -3.0]), 0.3)]
    cases += [(torch.tensor([[3.0, 0.0, 0.0, 0.0], [1.0, 0.0, -1.2, -2.0]]), 0.1)]
    rows = torch.tensor([[0.1], [1.0], [4.0]]) * torch.randn(3, 12, generator=generator)
    cases += [(rows, 0.3), (rows, 1.0), (torch.randn(2, 3, 8, generator=generator), 0.05)]
    for logits, share in cases:
        got = call(reader, logits, share)
        difference = compare(got, _cut_below(logits, share), 1e-4)
        if difference is None:
            continue
        slips = {
            " What is kept adds up to 1: divide by its sum.": _cut_below(
                logits, share, whole=False
            ),
            " Each row has a likeliest token of its own: dim=-1.": _cut_below(
                logits, share, by_row=False
            ),
            " The bar is the share of the likeliest probability, not the share itself.": (
                _cut_below(logits, share, relative=False)
            ),
            " Nothing was cut.": logits.softmax(dim=-1),
        }
        hint = next((why for why, slip in slips.items() if compare(got, slip, 1e-4) is None), "")
        return f"min_p(logits of shape {tuple(logits.shape)}, {share:g}) {difference}{hint}"
    return None


def _cut_below(
    logits: Tensor, share: float, whole: bool = True, relative: bool = True, by_row: bool = True
) -> Tensor:
    """Return the right answer, or one with a slip: not divided, an absolute bar, one for all."""
    probabilities = logits.softmax(dim=-1)
    likeliest = probabilities.amax(dim=-1, keepdim=True) if by_row else probabilities.max()
    kept = probabilities * (probabilities >= (share * likeliest if relative else share))
    return kept / kept.sum(dim=-1, keepdim=True) if whole else kept


# Models by name, memory in units of 2**30 bytes, and tokens.
_SERVED = (("gpt2", 4.0, 1_024), ("gpt2-xl", 24.0, 300), ("gpt3", 640.0, 2_048), ("mini", 0.1, 7))


@exercise(
    "5.5",
    shows="What limits how many readers a model can answer at once is memory for their caches.",
)
def _texts_at_once(answer: object) -> str | None:
    reader = function(answer)
    mini = FAMILY["mini"]
    each, weights = 4 * mini.n_layers * mini.emb_dim * 50, 2 * accounting.total(mini)
    cases = [(name, int(gib * 2**30), n_tokens) for name, gib, n_tokens in _SERVED]
    cases += [("mini", weights + 3 * each, 50), ("mini", weights + 3 * each - 1, 50)]
    cases += [("gpt2-xl", 2**31, 100), ("gpt2", 2**32, 1_025)]
    for name, memory, n_tokens in cases:
        config = FAMILY[name]
        got, expected = call(reader, config, memory, n_tokens), _served(config, memory, n_tokens)
        if compare(got, expected, 0) is None:
            continue
        what = f"texts_at_once({name}, {memory:,} bytes, {n_tokens:,})"
        said = f"{what} gave {describe(got)}, expected {expected:,}."
        return said + _served_slip(got, config, memory, n_tokens)
    return None


def _served(
    config: GPTConfig, memory: int, n_tokens: int, weights: int = 2, cache: int = 4, width: int = 0
) -> int:
    """Return how many texts fit; the numbers at the end stand for slips."""
    if n_tokens > config.context_length:
        return 0
    each = cache * config.n_layers * (width or config.emb_dim) * n_tokens
    return max(0, (memory - weights * accounting.total(config)) // each)


def _served_slip(got: object, config: GPTConfig, memory: int, n_tokens: int) -> str:
    if n_tokens > config.context_length:
        return f" The model has {config.context_length:,} positions."
    if isinstance(got, float) and not got.is_integer():
        return " Texts are counted whole."
    if isinstance(got, (int, float)) and got < 0:
        return " The weights alone do not fit, so no text does."
    slips = {
        _served(config, memory, n_tokens, weights=0): " The weights are in memory too.",
        _served(config, memory, n_tokens, cache=2): " There are keys and there are values.",
        _served(config, memory, n_tokens, weights=4): " The weights have 2 bytes each.",
        _served(config, memory, n_tokens, weights=4, cache=8): " Numbers of 16 bits have 2 bytes.",
        _served(config, memory, n_tokens, cache=8): " Numbers of 16 bits have 2 bytes.",
        _served(config, memory, n_tokens, width=config.head_dim): " Every head has a cache.",
        _served(config, memory, n_tokens) + 1: " The last of your texts does not fit: round down.",
    }
    return next((why for slip, why in slips.items() if compare(got, slip, 0) is None), "")


def _table(n: int, seed: int) -> Callable[[Sequence[int]], Tensor]:
    """Return a small model: log-probabilities of n tokens that depend on all ids before."""

    def log_probs(ids: Sequence[int]) -> Tensor:
        place = 0
        for token in ids:
            place = (place * (n + 1) + int(token) + 1) % 1_000_003
        generator = torch.Generator().manual_seed(seed * 1_000_003 + place)
        return (1.5 * torch.randn(n, generator=generator)).log_softmax(dim=-1)

    return log_probs


@exercise(
    "5.6",
    shows="The likeliest next token need not begin the likeliest text.",
)
def _beam_search(answer: object) -> str | None:
    reader = function(answer)
    cases = [(3, 0, 1, 1), (5, 1, 4, 1), (4, 6, 3, 64), (4, 11, 3, 100)]
    cases += [(6, seed, 5, width) for seed in range(4, 10) for width in (2, 3, 5)]
    for size, seed, n, width in cases:
        model = _table(size, seed)
        got, expected = call(reader, model, n, width), _beams(model, n, width)
        what = f"With {size} tokens, n = {n} and width = {width}, beam_search gave"
        ids = got.tolist() if isinstance(got, Tensor) else got
        if not isinstance(ids, (list, tuple)) or len(ids) != n:
            return f"{what} {describe(got)}, expected a list of {n} ids."
        if compare(list(ids), expected, 0) is None:
            continue
        if width >= size ** (n - 1):
            why = " So wide a beam drops nothing, and finds the likeliest text of all."
        else:
            why = _beam_slip(list(ids), model, n, width)
        return f"{what} {describe(ids)}, expected {expected}.{why}"
    return None


def _beams(
    model: Callable[[Sequence[int]], Tensor], n: int, width: int, summed: bool = True
) -> list[int]:
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(n):
        longer = [
            (value + (so_far if summed else 0.0), [*ids, token])
            for so_far, ids in beams
            for token, value in enumerate(model(ids).tolist())
        ]
        beams = sorted(longer, key=lambda beam: -beam[0])[:width]
    return beams[0][1]


def _beam_slip(ids: list[int], model: Callable[[Sequence[int]], Tensor], n: int, width: int) -> str:
    slips = {
        " That is the greedy text.": _beams(model, n, 1),
        " Add up the log-probabilities of all tokens, not the last one's.": _beams(
            model, n, width, summed=False
        ),
        " That beam is one wider.": _beams(model, n, width + 1),
    }
    return next((why for why, slip in slips.items() if ids == slip), "")
