"""Checks of chapter 8, “Looking inside”."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gptlib.activations import Record, changed, record, same_word
from gptlib.checks import call, compare, describe, exercise, function
from gptlib.config import GPTConfig
from gptlib.model import GPT

_SHAPE = GPTConfig(
    vocab_size=40, context_length=16, emb_dim=24, n_heads=3, n_layers=2, drop_rate=0.0
)


@cache
def _model() -> GPT:
    """Return a small model in which every parameter does something, the norms' too."""
    generator = torch.Generator().manual_seed(0)
    model = GPT(_SHAPE, generator).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_(noise, alpha=0.3 if name.endswith(("scale", "shift", "bias")) else 0.2)
    return model


def _call(reader: Callable[..., Any], model: GPT, *arguments: object) -> Any:
    """Call the reader's function with a model, whose many lines no message should show."""

    def answer(*arguments: object) -> Any:
        return reader(model, *arguments)

    answer.__name__ = getattr(reader, "__name__", "<lambda>")
    return call(answer, *arguments)


def _ids(seed: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(_SHAPE.vocab_size, (1, length), generator=generator)


def _maps(seed: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, 3, length, length, generator=generator)
    ahead = torch.ones(length, length, dtype=torch.bool).triu(1)
    return scores.masked_fill(ahead, -torch.inf).softmax(-1)


def _distances(length: int) -> Tensor:
    position = torch.arange(length)
    return (position[:, None] - position).float()


@exercise("8.1", shows="A head's reach is a number; no picture is needed for it.")
def _distance(answer: object) -> str | None:
    reader = function(answer)
    for weights in (_maps(0, 5), _maps(1, 9)):
        length = weights.shape[-1]
        far = (weights * _distances(length)).sum(-1)  # (L, H, T)
        got, right = call(reader, weights), far.mean(-1)
        difference = compare(got, right)
        if difference is not None:
            slips = [
                (far.sum(-1), " Average over the positions, and do not sum."),
                (-right, " The one that looks stands in the row, what it looks at in the column."),
                (far.mean(-1) / length, " The weights of a row sum to 1: a sum, not a mean."),
                (far.mean((-1, -2)), " Keep a number for every head."),
                (far[..., 1:].mean(-1), " The first position counts too, with distance 0."),
            ]
            return f"For weights of {length} tokens, your function {difference}" + _slip(got, slips)
    return None


def _slip(got: object, slips: Sequence[tuple[Tensor | float, str]]) -> str:
    """Return what to say of a well-known wrong answer."""
    return next((why for slip, why in slips if compare(got, slip) is None), "")


def _latest_map(ids: Tensor) -> Tensor:
    before = same_word(ids)
    after = before.flip(-1).cumsum(-1).flip(-1)  # how many from here on
    return before & (after == 1)


_TEXTS = [[1, 2, 1, 1, 2, 3, 1], [5], [4, 4, 4], [7, 8, 9], [0, 3, 0, 3, 0, 3, 3]]


@exercise("8.2", shows="At most one place in each row, so a score for it is one weight a row.")
def _latest(answer: object) -> str | None:
    reader = function(answer)
    for text in _TEXTS:
        ids = torch.tensor(text)
        got, right = call(reader, ids), _latest_map(ids)
        if not isinstance(got, Tensor) or got.shape != right.shape:
            wanted = f"a map of shape {(*right.shape,)}"
            return f"For the ids {text}, your function gave {describe(got)}, expected {wanted}."
        if torch.equal(got.bool(), right):
            continue
        row, column = (int(i) for i in (got.bool() != right).nonzero()[0])
        said = "names" if got.bool()[row, column] else "does not name"
        return f"For the ids {text}, position {row}: your map {said} place {column}." + (
            _latest_slip(got.bool(), ids)
        )
    return None


def _latest_slip(got: Tensor, ids: Tensor) -> str:
    before = same_word(ids)
    first = before & (before.cumsum(-1) == 1)
    slips = [
        (before, " It names all earlier places; only the last of them is asked for."),
        (first, " That is the first time, not the latest."),
        (_latest_map(ids) | torch.eye(len(ids)).bool(), " A position is not its own past."),
        (_latest_map(ids).T, " The position that looks is the row."),
    ]
    return next((why for slip, why in slips if torch.equal(got, slip)), "")


def _excess_of(exact: dict[int, float], logits: Tensor) -> float:
    log_q = logits.double().log_softmax(-1)
    return math.fsum(p * (math.log(p) - float(log_q[token])) for token, p in exact.items())


_PLACES: list[tuple[dict[int, float], Tensor]] = [
    ({2: 1.0}, torch.tensor([0.5, -1.0, 2.0, 0.0])),
    ({0: 0.5, 3: 0.5}, torch.tensor([1.0, 0.0, -2.0, 0.5])),
    ({3: 0.7, 1: 0.2, 0: 0.1}, torch.tensor([0.1, 0.4, 0.3, 3.0, -1.0])),
    ({1: 0.25, 2: 0.75}, torch.tensor([80.0, -40.0, 60.0])),  # a q that float32 rounds to 0
]


@exercise("8.3", shows="0 where the model's probabilities are exact, and never below.")
def _excess(answer: object) -> str | None:
    reader = function(answer)
    for exact, logits in _PLACES:
        got, right = call(reader, exact, logits), _excess_of(exact, logits)
        difference = compare(got, right, 1e-4)
        if difference is not None:
            asked = f"For exact = {exact} and logits {logits.tolist()}, your function {difference}"
            return asked + _slip(got, _excess_slips(exact, logits))
    return None


def _excess_slips(exact: dict[int, float], logits: Tensor) -> list[tuple[Tensor | float, str]]:
    right, entropy = _excess_of(exact, logits), -math.fsum(p * math.log(p) for p in exact.values())
    log_q = logits.double().log_softmax(-1)
    other = math.fsum(
        math.exp(float(log_q[token])) * (float(log_q[token]) - math.log(p))
        for token, p in exact.items()
    )
    plain = math.fsum(p * (math.log(p) - float(logits[token])) for token, p in exact.items())
    return [
        (right + entropy, " That is the model's expected loss: the entropy is still in it."),
        (-right, " The sign is wrong: it is p log (p / q)."),
        (other, " The sum is weighted by the exact p, not by the model's q."),
        (plain, " The logits are not log-probabilities yet."),
        (right / math.log(2), " That is in bits; nats are asked for."),
        (math.inf, " A probability was rounded to 0: use log_softmax."),
    ]


@cache
def _end_costs() -> Tensor:
    """Return the loss of the end-of-text token with each head of the mini model off, (L, H)."""
    from gptlib import pretrained, stories, tokenizer

    mini, encoding = pretrained.load("mini"), tokenizer.stories()
    end, (layers, heads) = encoding.eot_token, (mini.config.n_layers, mini.config.n_heads)
    told = stories.sample(11, stories.VALIDATION_SEED)[6::2]  # three whose end is in doubt
    costs = torch.zeros(layers, heads)
    with torch.no_grad():
        for ids in (torch.tensor([[end, *encoding.encode_ordinary(text)]]) for text in told):
            for i in range(layers):
                for h in range(heads):
                    with changed(mini, f"blocks.{i}.attention.head.{h}", 0):
                        costs[i, h] -= mini(ids)[0, -1].log_softmax(-1)[end] / len(told)
    return costs


@exercise("8.4", shows="It knows that the story is over. For other tokens it hardly matters.")
def _ending(answer: object) -> str | None:
    try:
        layer, head = (int(part) for part in answer)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return f"Your answer is {describe(answer)}, but a pair (layer, head) is asked for."
    costs = _end_costs()
    if not (0 <= layer < len(costs) and 0 <= head < costs.shape[1]):
        return (
            f"There is no head {layer}.{head}: the mini model has layers 0 to {len(costs) - 1} "
            f"and heads 0 to {costs.shape[1] - 1}."
        )
    if costs[layer, head] == costs.max():
        return None
    return (
        f"Without head {layer}.{head} the end costs {costs[layer, head]:.3f} nats. Another head "
        "is missed more."
    )


def _carried(
    model: GPT, ids: Tensor, other: Tensor, name: str, positions: list[int], a: int, b: int
) -> tuple[float, float, float]:
    """Return the gap before, in the other telling, and after the patch."""

    def gap(logits: Tensor) -> float:
        return float(logits[0, -1, a] - logits[0, -1, b])

    with record(model) as theirs:
        there = gap(model(other))
    with changed(model, name, theirs[name], positions):
        after = gap(model(ids))
    return gap(model(ids)), there, after


@exercise("8.5", shows="0 is nothing, 1 all of it; a part can also carry more, or push back.")
@torch.no_grad()
def _carries(answer: object) -> str | None:
    reader, model = function(answer), _model()
    one, other = _ids(0, 9), _ids(0, 9)
    other[0, 2] = (one[0, 2] + 1) % _SHAPE.vocab_size
    for name, positions in (
        ("blocks.0", [8]),
        ("blocks.1", list(range(9))),
        ("blocks.1.attention.head.1", [8]),
        ("embeddings", [2]),
    ):
        got = _call(reader, model, one, other, name, positions, 4, 7)
        before, there, after = _carried(model, one, other, name, positions, 4, 7)
        right = (before - after) / (before - there)
        difference = compare(got, right, 1e-3)
        if difference is not None:
            everywhere = _carried(model, one, other, name, list(range(9)), 4, 7)[2]
            slips: list[tuple[Tensor | float, str]] = [
                (1 - right, " That is the share that stayed."),
                (before - after, " Divide by how far the two tellings are apart."),
                ((before - everywhere) / (before - there), " Change the named positions only."),
                (-right, " The sign is wrong."),
                (0.0, " Was the activation taken from the other telling?"),
            ]
            return f"With {name} at {positions}, your function {difference}" + _slip(got, slips)
    return None


def _parts(r: Record) -> Tensor:
    parts = [r["embeddings"]]
    for i in range(r.n_layers):
        parts += [r[f"blocks.{i}.attention"], r[f"blocks.{i}.feed_forward"]]
    return torch.stack(parts)[:, 0, -1]  # (2L + 1, C)


def _votes(model: GPT, r: Record, token: int) -> Tensor:
    x, norm = _parts(r), model.final_norm
    spread = (x.sum(0).var(unbiased=False) + norm.eps).sqrt()
    centered = x - x.mean(-1, keepdim=True)
    return centered / spread @ (norm.scale * model.output_head.weight[token])


@exercise("8.6", shows="With the norm's shift the votes add up to the logit: nothing is left out.")
@torch.no_grad()
def _voting(answer: object) -> str | None:
    reader, model = function(answer), _model()
    for seed, length, token in ((1, 7, 3), (2, 4, 39)):
        with record(model) as r:
            model(_ids(seed, length))
        got, right = _call(reader, model, r, token), _votes(model, r, token)
        difference = compare(got, right, 1e-4)
        if difference is not None:
            return f"For a text of {length} tokens, your function {difference}" + _slip(
                got, _vote_slips(model, r, token)
            )
    return None


def _vote_slips(model: GPT, r: Record, token: int) -> list[tuple[Tensor | float, str]]:
    x, norm, right = _parts(r), model.final_norm, _votes(model, r, token)
    row = model.output_head.weight[token]
    spread = (x.sum(0).var(unbiased=False) + norm.eps).sqrt()
    sample = (x.sum(0).var() + norm.eps).sqrt()
    return [
        (
            norm(x) @ row,
            " A part is divided by the whole stream's spread, not by its own.",
        ),
        (x / spread @ (norm.scale * row), " Center each part first."),
        (right * spread, " Divide by the spread of the stream."),
        (right * spread / sample, " LayerNorm's variance is the biased one."),
        ((x - x.mean(-1, keepdim=True)) / spread @ row, " The norm's scale is missing."),
        (right + norm.shift @ row / len(x), " Leave the shift out: it is no part of the stream."),
        (right + norm.shift @ row, " Leave the shift out: it is no part of the stream."),
    ]
