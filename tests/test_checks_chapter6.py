"""Chapter 6's checkers: right answers pass, and typical wrong ones are told what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gptlib import pretrained
from gptlib.checks import chapter6
from gptlib.config import GPTConfig
from gptlib.model import GPT

Say = Callable[[str, object], str]
ALL = ["6.1", "6.2", "6.3", "6.4", "6.5", "6.6"]


def blank(*_: Any) -> Any:
    return ...


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.asset
@pytest.mark.parametrize("name", ALL)
def test_a_blank_is_not_tried_yet(say: Say, name: str) -> None:
    assert say(name, ...).startswith(f"○ {name} not tried yet")
    if name not in ("6.1", "6.5"):
        assert say(name, blank).startswith(f"○ {name} not tried yet")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("answer", ["words", None, lambda *_: None, lambda: 1, lambda *_: "x"])
def test_answers_of_the_wrong_kind_are_told_so(say: Say, name: str, answer: object) -> None:
    assert say(name, answer).startswith(f"✗ {name} ")


class TestBytesOfJson:
    whole, weights, mask = 548_105_171, 4 * 124_439_808, 4 * 1_024**2

    def test_right(self, say: Say) -> None:
        assert say("6.1", self.whole - self.weights - 12 * self.mask - 8).startswith("✓ 6.1 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (whole - weights - 12 * mask, "includes the first eight bytes"),
            (whole - weights, "Take the masks off"),
            (whole - weights - 8, "the masks are still in it"),
            (whole - weights - mask, "in each of the 12 blocks"),
            (whole - weights - mask - 8, "in each of the 12 blocks"),
            (whole - weights - 12 * mask // 4 - 8, "how many bytes is each"),
            (whole - 124_439_808, "off the whole file"),
        ],
    )
    def test_wrong(self, say: Say, answer: int, words: str) -> None:
        line = say("6.1", answer)
        assert line.startswith("✗ 6.1 ")
        assert words in line


def span(shift: int = 8, last: int = 0, width: int = 0, header: bool = True) -> Any:
    def solve(length: int, entries: dict[str, Any], name: str, row: int) -> tuple[int, int]:
        entry = entries[name]
        begin, end = entry["data_offsets"]
        rows, columns = entry["shape"]
        wide = width * columns if width else (end - begin) // rows
        first = shift + (length if header else 0) + begin + row * wide
        return first, first + wide + last

    return solve


class TestRowSpan:
    def test_right(self, say: Say) -> None:
        assert say("6.2", span()).startswith("✓ 6.2 ")

    def test_right_as_a_list(self, say: Say) -> None:
        assert say("6.2", lambda *given: list(span()(*given))).startswith("✓ 6.2 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (span(shift=0), "begins with the eight bytes"),
            (span(header=False), "begin after the header"),
            (span(shift=0, header=False), "count from the end of the header"),
            (span(last=-1), "the byte after the row"),
            (span(width=4), "do not have 4 bytes"),
            (lambda *given: span()(*given)[0], "expected two positions"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        line = say("6.2", answer)
        assert line.startswith("✗ 6.2 ")
        assert words in line


def way_in(
    masks: bool = True, turn: bool = True, left_over: bool = True, head: bool = True
) -> Callable[[dict[str, Tensor], GPTConfig], dict[str, Tensor]]:
    def solve(tensors: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
        rest = {name.removeprefix("transformer."): value for name, value in tensors.items()}
        if masks:
            names = (".attn.bias", ".attn.masked_bias")
            rest = {name: value for name, value in rest.items() if not name.endswith(names)}
        if config.tie_head and head:
            rest.pop("lm_head.weight", None)
        found = {}
        for row in pretrained.names(config):
            if row.theirs not in rest:
                raise ValueError(row.theirs)
            stored = rest.pop(row.theirs)
            found[row.ours] = stored.T if row.transposed and turn else stored
        if rest and left_over:
            raise ValueError(sorted(rest))
        return found

    return solve


class TestToOurs:
    def test_right(self, say: Say) -> None:
        assert say("6.3", way_in()).startswith("✓ 6.3 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (way_in(masks=False), "raised ValueError"),
            (way_in(turn=False), "query_key_value.weight "),
            (way_in(left_over=False), "rotary left over, your function gave"),
            (way_in(head=False), "raised ValueError"),
            (lambda t, c: [], "expected a dictionary"),
            (lambda t, c: {}, "token_embedding.weight is missing"),
            (lambda t, c: way_in()(t, c) | {"h": t}, "h is none of our names"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        line = say("6.3", answer)
        assert line.startswith("✗ 6.3 ")
        assert words in line

    def test_a_square_that_is_not_turned(self, say: Say) -> None:
        def answer(tensors: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
            found = way_in()(tensors, config)
            name = "blocks.0.attention.projection.weight"
            return found | {name: found[name].T}

        line = say("6.3", answer)
        assert "blocks.0.attention.projection.weight is the wrong way round" in line

    def test_a_head_where_none_belongs(self, say: Say) -> None:
        def answer(tensors: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
            found = way_in()(tensors, config)
            return found | {"output_head.weight": found["token_embedding.weight"]}

        assert "the head is tied" in say("6.3", answer)

    def test_the_wrong_error(self, say: Say) -> None:
        def answer(tensors: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
            try:
                return way_in()(tensors, config)
            except ValueError as error:
                raise KeyError(str(error)) from None

        assert "raised KeyError, expected a ValueError" in say("6.3", answer)


def pieces(strict: bool = False, first: int = 1, total: int | None = None) -> Any:
    def solve(sizes: dict[str, int], limit: int) -> dict[str, str]:
        files: list[int] = []
        used, file = 0, first - 1
        for size in sizes.values():
            if not files or used + size > limit - strict:
                file, used = file + 1, 0
            files.append(file)
            used += size
        count = total or file
        names = (f"model-{n:05}-of-{count:05}.safetensors" for n in files)
        return dict(zip(sizes, names, strict=True))

    return solve


class TestShard:
    def test_right(self, say: Say) -> None:
        assert say("6.4", pieces()).startswith("✓ 6.4 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (pieces(strict=True), "exactly the limit"),
            (pieces(total=9), "There are 2 files in all"),
            (lambda s, n: dict(sorted(pieces()(s, n).items(), reverse=True)), "the order"),
            (lambda s, n: {}, "a file for each name"),
            (
                lambda s, n: {
                    k: v.replace("-00001-", "-00000-") for k, v in pieces()(s, n).items()
                },
                "The first file has the number 1",
            ),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        line = say("6.4", answer)
        assert line.startswith("✗ 6.4 ")
        assert words in line


def turned(model: GPT, number: int) -> GPT:
    square = model.get_parameter(f"blocks.{number}.attention.projection.weight")
    square.data = square.data.T.contiguous()
    return model


def exchanged(model: GPT, number: int) -> GPT:
    block = model.blocks[number]
    block.norm_1, block.norm_2 = block.norm_2, block.norm_1
    return model


@pytest.mark.asset
class TestPatient:
    square, norms = chapter6._SQUARE_IN, chapter6._NORMS_IN

    def test_right(self, say: Say) -> None:
        model = turned(exchanged(chapter6.patient(), self.norms), self.square)
        assert say("6.5", model).startswith("✓ 6.5 ")

    def test_shuffling_channels_changes_no_logit(self) -> None:
        ids = torch.arange(40)[None]
        mini, shuffled = pretrained.load("mini"), chapter6._shuffled()
        with torch.no_grad():
            assert torch.allclose(mini(ids), shuffled(ids), atol=1e-3)
        differ = [
            not torch.equal(ours, other)
            for ours, other in zip(mini.parameters(), shuffled.parameters(), strict=True)
        ]
        assert sum(differ) >= len(differ) - 8  # two biases of a block stay as they are

    def test_wrong(self, say: Say) -> None:
        patient = chapter6.patient
        assert "Nothing has changed yet" in say("6.5", patient())
        assert "The norms are not" in say("6.5", turned(patient(), self.square))
        assert "The square matrices are not" in say("6.5", exchanged(patient(), self.norms))
        assert "Neither" in say("6.5", exchanged(turned(patient(), 0), 0))
        assert "not the patient" in say("6.5", pretrained.load("mini"))
        other = GPT(GPTConfig(vocab_size=9, context_length=4, emb_dim=4, n_heads=1, n_layers=1))
        assert "of another shape" in say("6.5", other)


def compared(values: Tensor, square: Tensor) -> bool:
    lengths = torch.stack([values.norm(dim=1), square.norm(dim=0), square.norm(dim=1)])
    alike = torch.corrcoef(lengths)
    return bool(alike[0, 1] < alike[0, 2])


@pytest.mark.asset
class TestIsTurned:
    def test_right(self, say: Say) -> None:
        assert say("6.6", compared).startswith("✓ 6.6 ")

    def test_right_as_a_tensor(self, say: Say) -> None:
        assert say("6.6", lambda *given: torch.tensor(compared(*given))).startswith("✓ 6.6 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda v, s: not compared(v, s), "the square lies right, and is_turned gave True"),
            (lambda v, s: False, "lies the wrong way round, and is_turned gave False"),
            (lambda v, s: compared(v.T, s), "and is_turned gave"),
            (lambda v, s: "no", "expected True or False"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        line = say("6.6", answer)
        assert line.startswith("✗ 6.6 ")
        assert words in line
