"""Checks of chapter 6, “Pretrained weights”."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gptlib import pretrained
from gptlib.checks import (
    WrongAnswerError,
    call,
    compare,
    describe,
    exercise,
    function,
    number,
)
from gptlib.config import GPTConfig
from gptlib.model import GPT

_FILE, _WEIGHTS, _MASKS = 548_105_171, 4 * 124_439_808, 12 * 4 * 1_024**2


@exercise(
    "6.1",
    shows="Nine tenths of the file are parameters, one tenth is masks that nobody needs, and the "
    "list of it all takes a page or two.",
)
def _bytes_of_json(answer: object) -> str | None:
    got = number(answer, 0)
    right = _FILE - _WEIGHTS - _MASKS - 8
    slips = {
        8: "that includes the first eight bytes, which are not JSON.",
        _MASKS + 8: "that is all that is left beside the parameters. Take the masks off as well.",
        _MASKS: "the masks are still in it.",
        _MASKS - _MASKS // 4: "a mask's numbers are float32: how many bytes is each?",
        _MASKS - _MASKS // 12: "there is a mask in each of the 12 blocks.",
    }
    slips |= {8 + _MASKS - _MASKS // 4: slips[_MASKS - _MASKS // 4]}
    slips |= {8 + _MASKS - _MASKS // 12: slips[_MASKS - _MASKS // 12]}
    if got - right in slips:
        return f"Your answer is {describe(answer)}, but {slips[int(got - right)]}"
    if got != right:
        return f"Your answer is {describe(answer)}. Take parameters and masks off the whole file."
    return None


_HEADER: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [6, 4], "data_offsets": [0, 96]},
    "b": {"dtype": "BF16", "shape": [3, 10], "data_offsets": [96, 156]},
    "c": {"dtype": "I8", "shape": [5, 7], "data_offsets": [156, 191]},
    "d": {"dtype": "F64", "shape": [2, 3], "data_offsets": [191, 239]},
}


def _span(length: int, header: Mapping[str, Any], name: str, row: int) -> tuple[int, int]:
    begin, end = header[name]["data_offsets"]
    width = (end - begin) // header[name]["shape"][0]
    first = 8 + length + begin + row * width
    return first, first + width


@exercise(
    "6.2",
    shows="A header of a few thousand bytes is an index to gigabytes: one row costs one row.",
)
def _row_span(answer: object) -> str | None:
    reader = function(answer)
    for name, row in (("a", 0), ("a", 5), ("b", 2), ("c", 4), ("d", 1)):
        length = 400
        got, wanted = call(reader, length, _HEADER, name, row), _span(length, _HEADER, name, row)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            return f"Your function gave {describe(got)}, expected two positions."
        if compare(list(got), list(wanted), 0) is None:
            continue
        entry = _HEADER[name]
        what = (
            f"A header of {length} bytes, a tensor {entry['dtype']} {tuple(entry['shape'])} at "
            f"{entry['data_offsets']}, row {row}: your function gave {describe(tuple(got))}, "
            f"expected {wanted}."
        )
        return what + _span_slip(tuple(got), wanted, length, entry, row)
    return None


def _span_slip(
    got: tuple[Any, ...], wanted: tuple[int, int], length: int, entry: Mapping[str, Any], row: int
) -> str:
    first, last = wanted
    width = 4 * entry["shape"][1]
    start = 8 + length + entry["data_offsets"][0]
    tall = (last - first) * entry["shape"][0] // entry["shape"][1]
    slips = {
        (first - 8, last - 8): " The file begins with the eight bytes of the length.",
        (first - length, last - length): " The numbers begin after the header.",
        (first - length - 8, last - length - 8): " Offsets count from the end of the header.",
        (first, last - 1): " The second is the byte after the row.",
        (start + row * width, start + (row + 1) * width): " Its numbers do not have 4 bytes.",
        (start + row * tall, start + (row + 1) * tall): " That is as long as a column.",
    }
    return next((why for slip, why in slips.items() if got == slip), "")


_TIED = GPTConfig(vocab_size=11, context_length=5, emb_dim=4, n_heads=2, n_layers=2)
_UNTIED = GPTConfig(
    vocab_size=11, context_length=5, emb_dim=4, n_heads=2, n_layers=2, tie_head=False
)
_PREFIX = "transformer."


def _stored(config: GPTConfig, prefix: bool, seed: int = 0) -> tuple[GPT, dict[str, Tensor]]:
    """Return a model without two equal tensors, and its tensors under GPT-2's names."""
    generator = torch.Generator().manual_seed(seed)
    model = GPT(config, generator)
    for parameter in model.parameters():
        parameter.data.normal_(generator=generator)
    tensors = pretrained.to_gpt2(model)
    if not prefix:
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    return model, tensors


def _way_in() -> list[tuple[str, GPTConfig, dict[str, Tensor], GPT]]:
    with_prefix, tensors = _stored(_TIED, True)
    cases = [("names with the prefix", _TIED, tensors, with_prefix)]
    model, tensors = _stored(_TIED, False, 1)
    masks = {f"h.{n}.attn.bias": torch.ones(1, 1, 5, 5) for n in range(2)}
    masks |= {f"h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in range(2)}
    cases.append(("names without the prefix, and masks", _TIED, tensors | masks, model))
    model, tensors = _stored(_TIED, True, 2)
    head = {"lm_head.weight": tensors[_PREFIX + "wte.weight"]}
    cases.append(("a tied model whose file has the head too", _TIED, tensors | head, model))
    model, tensors = _stored(_UNTIED, True, 3)
    cases.append(("a head that is not tied", _UNTIED, tensors, model))
    return cases


@exercise(
    "6.3",
    shows="Taking things out of a dictionary shows what is missing and what is left over.",
)
def _to_ours(answer: object) -> str | None:
    reader = function(answer)
    for what, config, tensors, model in _way_in():
        got = call(reader, tensors, config)
        if not isinstance(got, dict):
            return f"With {what}: your function gave {describe(got)}, expected a dictionary."
        problem = _way_in_slip(got, dict(model.named_parameters()))
        if problem:
            return f"With {what}: {problem}"
    _, tensors = _stored(_TIED, True)
    missing = {name: tensor for name, tensor in tensors.items() if not name.endswith("ln_f.bias")}
    for what, damaged in {
        "With ln_f.bias missing": missing,
        "With a tensor h.0.attn.rotary left over": tensors
        | {_PREFIX + "h.0.attn.rotary": torch.zeros(2)},
        "With a block 2 too many": tensors | {_PREFIX + "h.2.ln_1.bias": torch.zeros(4)},
    }.items():
        problem = _does_not_refuse(reader, damaged)
        if problem:
            return f"{what}, {problem}"
    return None


def _way_in_slip(got: Mapping[str, object], wanted: Mapping[str, Tensor]) -> str | None:
    missing = [name for name in wanted if name not in got]
    unknown = [name for name in got if name not in wanted]
    if missing:
        return f"{missing[0]} is missing."
    if "output_head.weight" in unknown:
        return "output_head.weight is there, but the head is tied."
    if unknown:
        return f"{unknown[0]} is none of our names."
    for name, tensor in wanted.items():
        difference = compare(got[name], tensor.detach(), 0)
        if difference is not None:
            ours = got[name]
            flat = tensor.detach().T if tensor.ndim == 2 else tensor.detach()
            if isinstance(ours, Tensor) and compare(ours, flat, 0) is None:
                return f"{name} is the wrong way round."
            return f"{name} {difference}"
    return None


def _does_not_refuse(reader: Callable[..., Any], tensors: dict[str, Tensor]) -> str | None:
    try:
        got = reader(dict(tensors), _TIED)
    except ValueError:
        return None
    except Exception as error:
        return f"your function raised {type(error).__name__}, expected a ValueError."
    return f"your function gave {describe(got)}, expected a ValueError."


def _shards(sizes: Mapping[str, int], limit: int, strict: bool = False) -> dict[str, str]:
    numbers: dict[str, int] = {}
    file, used = 0, 0
    for name, size in sizes.items():
        full = used + size >= limit if strict else used + size > limit
        if file == 0 or (used and full):
            file, used = file + 1, 0
        numbers[name], used = file, used + size
    return {name: f"model-{n:05}-of-{file:05}.safetensors" for name, n in numbers.items()}


@exercise(
    "6.4",
    shows="An index of names and files is all that a checkpoint in pieces needs.",
)
def _shard(answer: object) -> str | None:
    reader = function(answer)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for sizes, limit in (
        ([3, 4, 2, 5], 8),
        ([4, 4, 4], 8),
        ([2, 20, 2, 3], 8),
        ([9], 8),
        ([1] * 24, 2),
        ([5, 5, 1, 1], 6),
    ):
        named = dict(zip(letters, sizes, strict=False))
        got, wanted = call(reader, named, limit), _shards(named, limit)
        if isinstance(got, dict) and got == wanted and list(got) == list(wanted):
            continue
        what = f"Sizes {describe(sizes)} and limit = {limit}:"
        return f"{what} {_shard_slip(got, wanted, named, limit)}"
    return None


def _shard_slip(
    got: object, wanted: Mapping[str, str], sizes: Mapping[str, int], limit: int
) -> str:
    if not isinstance(got, dict) or set(got) != set(wanted):
        return f"your function gave {describe(got)}, expected a file for each name."
    if got == wanted:
        return "the order of the tensors has changed."
    name = next(name for name in wanted if got[name] != wanted[name])
    why = ""
    if got == _shards(sizes, limit, strict=True):
        why = " A file may have exactly the limit."
    elif str(got[name])[-20:] != wanted[name][-20:]:
        why = f" There are {len(set(wanted.values()))} files in all."
    elif "-00000-" in str(got[name]):
        why = " The first file has the number 1."
    return f"tensor {name} is in {describe(got[name])}, expected {wanted[name]!r}.{why}"


#: The blocks where the patient is damaged: in its square matrix, and in its norms.
_SQUARE_IN, _NORMS_IN = 1, 3


def patient() -> GPT:
    """Return a model that tells stories badly: it was damaged in two places (exercise 6.5)."""
    model = _shuffled()
    square = model.get_parameter(f"blocks.{_SQUARE_IN}.attention.projection.weight")
    square.data = square.data.T.contiguous()
    block = model.blocks[_NORMS_IN]
    block.norm_1, block.norm_2 = block.norm_2, block.norm_1
    return model


def _shuffled() -> GPT:
    """Return the mini model with its channels in another order, which changes no logit."""
    model = pretrained.load("mini")
    order = torch.randperm(model.config.emb_dim, generator=torch.Generator().manual_seed(6))
    for name, parameter in model.named_parameters():
        writes = name.endswith(("projection.weight", "projection.bias"))
        reads = name.endswith(("query_key_value.weight", "expand.weight", "embedding.weight"))
        if writes or (parameter.ndim == 1 and "norm" in name):
            parameter.data = parameter.data[order]
        elif reads:
            parameter.data = parameter.data[:, order]
    return model


@exercise(
    "6.5",
    shows="No error, no second program: a loss and one repair at a time were enough.",
)
@torch.no_grad()
def _repaired(answer: object) -> str | None:
    if not isinstance(answer, GPT):
        return f"Your answer is {describe(answer)}, but a model is asked for."
    right, ill = _shuffled(), patient()
    if answer.config != right.config:
        raise WrongAnswerError("That is a model of another shape than the patient.")
    ids = torch.arange(64)[None] * 29 % right.config.vocab_size
    answer = answer.eval()
    if torch.allclose(answer(ids), right(ids), atol=1e-2):
        ours = dict(answer.named_parameters())
        if all(torch.equal(ours[name], other) for name, other in right.named_parameters()):
            return None
        return "It answers as it should, but it is not the patient: repair that one."
    if torch.allclose(answer(ids), ill(ids), atol=1e-2):
        return "Nothing has changed yet: it answers like the patient."
    return _half_repaired(answer, right)


def _half_repaired(answer: GPT, right: GPT) -> str:
    def differ(*words: str) -> bool:
        ours = dict(answer.named_parameters())
        named = [name for name in ours if any(word in name for word in words)]
        return any(not torch.equal(ours[name], right.get_parameter(name)) for name in named)

    if not differ("attention.projection.weight"):
        return "The square matrices are all right now. The norms are not."
    if not differ("norm_1", "norm_2"):
        return "The norms are all right now. The square matrices are not."
    return "Neither the square matrices nor the norms are right yet."


def _balanced(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return a matrix for values and a projection as training leaves them, in small."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(2, size, size, generator=generator) / size**0.5
    inner, read, write = (0.6 * torch.randn(3, size, generator=generator)).exp()
    values = inner[:, None] * draws[0] * read
    return values, write[:, None] * draws[1] * inner


@exercise(
    "6.6",
    shows="Training leaves its traces: what was learned together fits together.",
)
def _is_turned(answer: object) -> str | None:
    reader = function(answer)
    cases = [(f"random matrices, seed {n}", *_balanced(96, n)) for n in range(3)]
    for n, block in enumerate(pretrained.load("mini").blocks):
        fused = block.get_parameter("attention.query_key_value.weight").detach()
        square = block.get_parameter("attention.projection.weight").detach()
        cases.append((f"block {n} of the mini model", fused.chunk(3)[2], square))
    for number_of, (what, values, square) in enumerate(cases):
        for turned in (bool(number_of % 2), not number_of % 2):
            got = call(reader, values, square.T.contiguous() if turned else square)
            got = got.item() if isinstance(got, Tensor) and got.numel() == 1 else got
            if not isinstance(got, (bool, int)):
                return f"Your function gave {describe(got)}, expected True or False."
            if bool(got) != turned:
                lies = "the wrong way round" if turned else "right"
                return f"With {what}, the square lies {lies}, and is_turned gave {got}."
    return None
