"""Streams of tokens, from texts and files, and the batches cut from them."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiktoken import Encoding
from torch import Tensor

from gptlib import characters, data, text_files, tokenizer
from gptlib.data import (
    IGNORED,
    StoryBatches,
    WindowBatches,
    file_stream,
    read_text,
    split,
    stream_of,
    windows,
)

# ---- windows -------------------------------------------------------------------------------------

LENGTHS = st.integers(1, 20)
STREAMS = st.lists(st.integers(0, 50_256), min_size=2, max_size=120)


@given(ids=STREAMS, data=st.data(), stride=LENGTHS)
def test_windows_are_what_the_definition_says(
    ids: list[int], data: st.DataObject, stride: int
) -> None:
    context_length = data.draw(st.integers(1, len(ids) - 1))
    inputs, targets = windows(ids, context_length, stride)

    assert len(inputs) == len(range(0, len(ids) - context_length, stride))
    assert inputs.shape == targets.shape == (len(inputs), context_length)
    for n in range(len(inputs)):
        start = n * stride
        assert inputs[n].tolist() == ids[start : start + context_length]
        assert targets[n].tolist() == ids[start + 1 : start + context_length + 1]


@given(ids=STREAMS, data=st.data(), stride=LENGTHS)
def test_targets_are_the_inputs_one_place_later(
    ids: list[int], data: st.DataObject, stride: int
) -> None:
    context_length = data.draw(st.integers(1, len(ids) - 1))
    inputs, targets = windows(ids, context_length, stride)
    assert torch.equal(targets[:, :-1], inputs[:, 1:])


@given(n=st.integers(2, 200), data=st.data())
def test_with_the_stride_of_a_window_every_target_comes_once(n: int, data: st.DataObject) -> None:
    context_length = data.draw(st.integers(1, n - 1))
    _, targets = windows(range(n), context_length, context_length)
    whole_windows = (n - 1) // context_length
    assert targets.flatten().tolist() == list(range(1, whole_windows * context_length + 1))


def test_a_tensor_gives_views_and_its_own_type() -> None:
    stream = torch.arange(10, dtype=torch.int32)
    inputs, targets = windows(stream, 4, 1)
    assert inputs.dtype == targets.dtype == torch.int32
    assert inputs.data_ptr() == stream.data_ptr()
    assert targets.untyped_storage().data_ptr() == stream.untyped_storage().data_ptr()


def test_the_shortest_stream_is_one_id_longer_than_a_window() -> None:
    inputs, targets = windows([7, 8, 9], 2, 1)
    assert inputs.tolist() == [[7, 8]]
    assert targets.tolist() == [[8, 9]]
    with pytest.raises(ValueError, match=r"one window of 3 needs .* at least 4 ids, not shape \(3"):
        windows([7, 8, 9], 3, 1)


@pytest.mark.parametrize(("context_length", "stride"), [(0, 1), (1, 0), (-2, 3)])
def test_lengths_below_one_are_refused(context_length: int, stride: int) -> None:
    message = f"must be at least 1, not {context_length} and {stride}"
    with pytest.raises(ValueError, match=message):
        windows(range(10), context_length, stride)


@pytest.mark.parametrize("ids", [[], torch.zeros(3, 4, dtype=torch.long), torch.tensor(5)])
def test_what_is_no_stream_is_refused(ids: object) -> None:
    with pytest.raises(ValueError, match="needs a flat stream of at least 3 ids"):
        windows(ids, 2, 1)  # type: ignore[arg-type]


# ---- stream_of -----------------------------------------------------------------------------------

STORIES = tokenizer.stories()
END = STORIES.eot_token


def test_a_stream_has_end_of_text_first_and_after_each_text() -> None:
    texts = ["Once upon a time.", "The end of it.", "é"]
    stream = stream_of(texts, STORIES)
    assert stream.dtype == torch.int32
    assert stream[0] == stream[-1] == END
    parts = STORIES.decode(stream.tolist()).split("<|endoftext|>")
    assert "<|endoftext|>".join(parts[1:-1]) == "<|endoftext|>".join(texts)
    assert (stream == END).sum() == len(texts) + 1  # the one inside a text is only its letters


def test_many_texts_make_the_stream_of_the_few(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Number {n}." for n in range(10)]
    whole = stream_of(texts, STORIES)
    monkeypatch.setattr(data, "_TEXTS_AT_ONCE", 3)
    assert torch.equal(stream_of(texts, STORIES), whole)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ([], ValueError, "there is none"),
        (["a", ""], ValueError, "number 1 is empty"),
        ("a text", TypeError, "a list of texts, not one string: 'a text'"),
    ],
)
def test_what_makes_no_stream_is_refused(texts: list[str], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        stream_of(texts, STORIES)


def test_an_encoding_without_end_of_text_is_refused() -> None:
    without = tokenizer.train_bpe("aaaa", 257)
    with pytest.raises(ValueError, match=r"'bpe-257' has no special token <\|endoftext\|>"):
        stream_of(["a"], without)


# ---- StoryBatches --------------------------------------------------------------------------------


def numbered(lengths: list[int]) -> Tensor:
    """A stream of texts, the n-th of them that many times the token n + 1, end-of-text 0."""
    texts = [[n + 1] * length for n, length in enumerate(lengths)]
    return torch.tensor([0] + [id_ for text in texts for id_ in (*text, 0)], dtype=torch.int32)


def told(batches: StoryBatches, epoch: int) -> list[int]:
    """The texts of an epoch in the order in which they come."""
    first = epoch * batches.per_epoch
    steps = range(first, first + batches.per_epoch)
    return [n for step in steps for n in batches.batch(step)[0][:, 1].tolist()]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=40), data=st.data())
def test_a_row_is_a_text_between_two_ends(lengths: list[int], data: st.DataObject) -> None:
    batch_size = data.draw(st.integers(1, len(lengths)))
    batches = StoryBatches(numbered(lengths), 0, batch_size, context_length=10)
    for step in range(batches.per_epoch):
        inputs, targets = batches.batch(step)
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.shape == targets.shape
        for row, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
            n = row[1]
            text = [0, *[n] * lengths[n - 1], 0]
            padding = len(row) - len(text) + 1
            assert row == text[:-1] + [0] * padding
            assert wanted == text[1:] + [IGNORED] * padding
        assert not (targets == IGNORED).all(dim=0).any()  # no wider than its longest text


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    seed=st.integers(0, 1_000),
    data=st.data(),
)
def test_in_an_epoch_every_text_comes_once(
    lengths: list[int], seed: int, data: st.DataObject
) -> None:
    batch_size = data.draw(st.integers(1, len(lengths)))
    batches = StoryBatches(numbered(lengths), 0, batch_size, 10, seed)
    for epoch in range(3):
        texts = told(batches, epoch)
        assert len(texts) == len(set(texts)) == len(lengths) // batch_size * batch_size
        if len(lengths) % batch_size == 0:
            assert sorted(texts) == list(range(1, len(lengths) + 1))


def test_no_text_is_left_out_for_ever() -> None:
    """Sorted by length before the last are left out, those would be the longest each time."""
    batches = StoryBatches(numbered([1, 2, 3, 4, 9]), 0, 2, 10)
    seen = {n for epoch in range(20) for n in told(batches, epoch)}
    assert seen == {1, 2, 3, 4, 5}


def test_a_batch_depends_on_the_seed_and_the_step_alone() -> None:
    stream = numbered(list(range(1, 9)) * 5)
    one, other = (StoryBatches(stream, 0, 4, 10, seed=3) for _ in range(2))
    steps = [0, 35, 7, 20, 35]  # of several epochs, in any order
    for step in steps:
        for left, right in zip(one.batch(step), other.batch(step), strict=True):
            assert torch.equal(left, right)
    assert told(one, 0) != told(one, 1)
    assert told(one, 0) != told(StoryBatches(stream, 0, 4, 10, seed=4), 0)


def test_the_order_is_the_same_on_every_machine() -> None:
    """A training that is resumed relies on it: these numbers must never change."""
    batches = StoryBatches(numbered([1, 2, 3, 4] * 3), 0, 4, 10, seed=0)
    assert told(batches, 0) == [7, 8, 4, 12, 10, 2, 3, 11, 9, 1, 5, 6]
    assert told(batches, 1) == [5, 9, 1, 2, 6, 10, 7, 3, 11, 12, 4, 8]
    digest = "2cd48690bf381ebc7231ae8325cba2556c4fd3ccd9b6c97da9631e39f82fe6e7"
    assert batches.describe() == {
        "kind": "StoryBatches", "batch_size": 4, "seed": 0, "tokens": 43, "sha256": digest
    }  # fmt: skip


def test_texts_of_one_length_share_a_batch() -> None:
    batches = StoryBatches(numbered([1, 2, 3, 4] * 50), 0, 10, 10)
    lengths = [(batches.batch(step)[1] != IGNORED).sum(dim=1) for step in range(20)]
    assert sum(int(some.max() - some.min()) for some in lengths) <= 3


def test_in_order_gives_every_text_in_its_order() -> None:
    batches = StoryBatches(numbered([3, 1, 2, 4, 1]), 0, 2, 10)
    assert [inputs[:, 1].tolist() for inputs, _ in batches.in_order()] == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize(
    ("stream", "batch_size", "context_length", "message"),
    [
        (numbered([3, 2]), 3, 10, "batch_size must be from 1 to the 2 texts in the stream, not 3"),
        (numbered([3, 2]), 0, 10, "batch_size must be a whole number of at least 1, not 0"),
        (numbered([3, 2]), 1.5, 10, "batch_size must be a whole number of at least 1, not 1.5"),
        (numbered([3, 9]), 1, 9, "text of 10 tokens, end-of-text included, does not fit into"),
        (numbered([3, 9])[1:], 1, 10, "must begin and end with end-of-text, 0"),
        (numbered([3, 9])[:-1], 1, 10, "must begin and end with end-of-text, 0"),
        (torch.tensor([0]), 1, 10, "must begin and end with end-of-text, 0"),
        (torch.tensor([0, 1, 0, 0, 2, 0]), 1, 10, "text number 1 in the stream is empty"),
    ],
)
def test_streams_and_numbers_that_make_no_batches_are_refused(
    stream: Tensor, batch_size: int, context_length: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        StoryBatches(stream, 0, batch_size, context_length)


# ---- WindowBatches -------------------------------------------------------------------------------


@given(n=st.integers(2, 60), seed=st.integers(0, 1_000), step=st.integers(0, 10**6), data=st.data())
def test_a_window_is_a_part_of_the_stream(
    n: int, seed: int, step: int, data: st.DataObject
) -> None:
    context_length = data.draw(st.integers(1, n - 1))
    batches = WindowBatches(torch.arange(n, dtype=torch.int32), 5, context_length, seed)
    inputs, targets = batches.batch(step)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.shape == targets.shape == (5, context_length)
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs - inputs[:, :1], torch.arange(context_length).expand(5, -1))
    assert targets.max() < n
    again = WindowBatches(torch.arange(n, dtype=torch.int32), 5, context_length, seed)
    assert torch.equal(again.batch(step)[0], inputs)


def test_all_windows_come_and_the_same_on_every_machine() -> None:
    batches = WindowBatches(torch.arange(12, dtype=torch.int32), 4, 3, seed=0)
    starts = [batches.batch(step)[0][:, 0].tolist() for step in range(50)]
    assert {start for some in starts for start in some} == set(range(9))
    assert starts[:2] == [[8, 0, 2, 6], [4, 5, 0, 5]]


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int32, torch.int64])
def test_a_stream_may_be_of_any_type_and_in_a_file(dtype: torch.dtype, tmp_path: Path) -> None:
    ids = torch.randint(0, 50_257, (300,), generator=torch.Generator().manual_seed(0))
    (tmp_path / "ids").write_bytes(ids.to(dtype).numpy().tobytes())
    mapped = torch.from_file(str(tmp_path / "ids"), shared=False, size=300, dtype=dtype)
    batches = WindowBatches(mapped, 4, 8, seed=1)
    whole = WindowBatches(ids, 4, 8, seed=1)
    for one, other in zip(batches.batch(5), whole.batch(5), strict=True):
        assert one.dtype == torch.int64
        assert torch.equal(one, other)
    for one, other in zip(batches.in_order(), whole.in_order(), strict=True):
        assert torch.equal(torch.stack(one), torch.stack(other))
    expected = hashlib.sha256((tmp_path / "ids").read_bytes()).hexdigest()
    assert batches.describe()["sha256"] == expected
    assert json.loads(json.dumps(batches.describe())) == {
        "kind": "WindowBatches", "batch_size": 4, "context_length": 8, "seed": 1,
        "tokens": 300, "sha256": expected,
    }  # fmt: skip


def test_in_order_every_target_comes_once() -> None:
    batches = WindowBatches(torch.arange(24), 2, 5).in_order()
    assert [len(inputs) for inputs, _ in batches] == [2, 2]
    assert torch.cat([targets.flatten() for _, targets in batches]).tolist() == list(range(1, 21))


@pytest.mark.parametrize(
    ("batch_size", "context_length", "seed", "message"),
    [
        (1, 10, 0, "a text of 10 tokens is shorter than one window: .* = 10 needs at least 11"),
        (1, 0, 0, "context_length and stride must be at least 1"),
        (0, 5, 0, "batch_size must be a whole number of at least 1, not 0"),
        (1, 5, -1, "seed must be a whole number of at least 0, not -1"),
    ],
)
def test_windows_that_cannot_be_cut_are_refused(
    batch_size: int, context_length: int, seed: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        WindowBatches(torch.arange(10), batch_size, context_length, seed)


# ---- split ---------------------------------------------------------------------------------------


def test_a_stream_is_split_at_its_end() -> None:
    stream = torch.arange(20)
    training, held_out = split(stream, 0.25)
    assert torch.equal(torch.cat([training, held_out]), stream)
    assert len(held_out) == 5
    assert training.data_ptr() == stream.data_ptr()


@pytest.mark.parametrize(
    ("n", "share", "message"),
    [
        (20, 0.0, "between 0 and 1, not 0.0"),
        (20, 1.0, "between 0 and 1, not 1.0"),
        (20, 0.05, "of 20 tokens leaves 1 to hold out and 19 to train on"),
        (20, 0.95, "of 20 tokens leaves 19 to hold out and 1 to train on"),
    ],
)
def test_a_split_that_leaves_too_little_is_refused(n: int, share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(torch.arange(n), share)


# ---- files ---------------------------------------------------------------------------------------

PROSE = "It's the 1st day — déjà vu:\n\n  'Tis 12,345 o'clock.\t漢字 and  more \n \n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "text.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("encoding", [tokenizer.gpt2(), STORIES], ids=lambda e: e.name)
def test_a_file_is_its_text_between_two_ends(encoding, tmp_path: Path) -> None:
    stream = file_stream(write(tmp_path, PROSE), encoding)
    assert stream.dtype == torch.int32
    end = encoding.eot_token
    assert stream.tolist() == [end, *encoding.encode_ordinary(PROSE), end]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
def test_line_ends_and_the_byte_order_mark_do_not_matter(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "_BYTES_AT_ONCE", size)
    text = "one\ntwo\n\nthree é\n"
    path = write(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_text(path) == text
    assert file_stream(path, STORIES).tolist() == [END, *STORIES.encode_ordinary(text), END]
    assert text.startswith(read_text(path, at_most=5))


# Signs that meet in GPT-2's pattern: blanks of all kinds, letters, digits, contractions, others.
SIGNS = st.text(alphabet=" \n\t\u3000\x1c\x85aé漢'st1²._😀", max_size=60)


@given(text=SIGNS, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_the_pieces_of_a_text_have_the_tokens_of_the_whole(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = list(text_files._pieces(text[start:end] for start, end in pairwise(places)))
    assert "".join(pieces) == text
    gpt2 = tokenizer.gpt2()
    tokens = [id_ for piece in pieces for id_ in gpt2.encode_ordinary(piece)]
    assert tokens == gpt2.encode_ordinary(text)


def test_a_long_text_is_cut_and_one_without_blanks_is_not() -> None:
    parts = ["word " * 10] * 5
    assert len(list(text_files._pieces(parts))) == 6
    assert list(text_files._pieces(["word"] * 5)) == ["word" * 5]


@pytest.fixture
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LARGE_FILE", 1)
    monkeypatch.setattr(text_files, "_BYTES_AT_ONCE", 11)


@pytest.mark.usefixtures("every_file_is_large")
def test_a_large_file_is_encoded_once_and_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = write(tmp_path, PROSE), tmp_path / "cache"
    expected = [END, *STORIES.encode_ordinary(PROSE), END]
    assert file_stream(path, STORIES, cache).tolist() == expected
    (kept,) = cache.iterdir()
    assert kept.stat().st_size == 4 * len(expected)

    other = file_stream(path, tokenizer.gpt2(), cache)
    assert other.tolist() == [50_256, *tokenizer.gpt2().encode_ordinary(PROSE), 50_256]
    assert len(list(cache.iterdir())) == 2

    before = kept.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(text_files, "_encoded", None)  # what is in the cache is not encoded again
        stream = file_stream(path, STORIES, cache)
    stream[1] = 0  # a change stays in memory
    assert kept.read_bytes() == before

    write(tmp_path, PROSE + "!")
    assert len(file_stream(path, STORIES, cache)) == len(expected) + 1


@pytest.mark.usefixtures("every_file_is_large")
def test_every_vocabulary_has_a_file_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, "aabb")
    for learned_from, expected in (("aa", [256, 98, 98]), ("bb", [97, 97, 256])):
        encoding = tokenizer.train_bpe(learned_from, 258, [tokenizer.END_OF_TEXT])
        assert file_stream(path, encoding, tmp_path / "cache").tolist() == [257, *expected, 257]


@pytest.mark.usefixtures("every_file_is_large")
@pytest.mark.parametrize("damage", [b"", b"1234567", b"12345678"])
def test_a_damaged_file_of_tokens_is_made_again(damage: bytes, tmp_path: Path) -> None:
    path, cache = write(tmp_path, PROSE), tmp_path / "cache"
    expected = file_stream(path, STORIES, cache).tolist()
    (kept,) = cache.iterdir()
    kept.write_bytes(damage)
    assert file_stream(path, STORIES, cache).tolist() == expected


@pytest.mark.usefixtures("every_file_is_large")
def test_a_large_file_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, b"good text at first, then \xff and more")
    with pytest.raises(
        ValueError, match=r"text.txt is not UTF-8: invalid start byte at byte 25 \("
    ):
        file_stream(path, STORIES, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("every_file_is_large")
def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path, PROSE)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match=r"taken cannot be written \(.+\): set .* GPTLIB_CACHE to a"):
        file_stream(path, STORIES, tmp_path / "taken")


@pytest.mark.parametrize("size", [1, 3, 1_000])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"ok\r\nna\xefve", r"is not UTF-8: invalid continuation byte at byte 6 \(0xef\)"),
        (b"abc \xe6\xbc", r"is not UTF-8: unexpected end of data at byte 4 \(0xe6\)"),
        ("Café".encode("utf-16"), r"is not UTF-8: invalid start byte at byte 0 \(0xff\)"),
    ],
)
def test_a_file_that_holds_no_text_is_refused(
    content: bytes, message: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "_BYTES_AT_ONCE", size)
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=rf"text\.txt {message}"):
        file_stream(path, STORIES)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path.name} is a folder, not a text file"):
        file_stream(tmp_path, STORIES)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing\.txt"):
        read_text(tmp_path / "nothing.txt")


# ---- the files of vocabularies -------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [tokenizer.gpt2(), STORIES], ids=lambda e: e.name)
def test_a_vocabulary_is_saved_and_loaded(encoding, tmp_path: Path) -> None:
    tokenizer.save(encoding, tmp_path / "mine.tiktoken")
    loaded = tokenizer.load(tmp_path / "mine.tiktoken")
    assert loaded.name == "mine"
    assert tokenizer.token_bytes(loaded) == tokenizer.token_bytes(encoding)
    assert loaded.eot_token == encoding.eot_token
    assert loaded.encode_ordinary(PROSE) == encoding.encode_ordinary(PROSE)


def test_a_vocabulary_with_other_special_tokens_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"only <\|endoftext\|> can be a special token"):
        tokenizer.save(tokenizer.train_bpe("aaaa", 258, ["<|other|>"]), tmp_path / "v")
    assert list(tmp_path.iterdir()) == []


def _with_gap() -> Encoding:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 300}
    end = {tokenizer.END_OF_TEXT: 301}
    pattern = tokenizer.GPT2_PATTERN
    return Encoding("gap", pat_str=pattern, mergeable_ranks=ranks, special_tokens=end)


def _with_pattern() -> Encoding:
    known = tokenizer.train_bpe("abab", 258, [tokenizer.END_OF_TEXT])
    return Encoding(
        "blanks",
        pat_str=r"\s+|\S+",
        mergeable_ranks=known._mergeable_ranks,
        special_tokens=known._special_tokens,
    )


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        (characters.vocabulary("abc"), "'characters-4' cuts text by another pattern than GPT-2's"),
        (_with_pattern(), "'blanks' cuts text by another pattern than GPT-2's"),
        (_with_gap(), "must have the last id"),
    ],
)
def test_what_could_not_be_loaded_is_refused_when_it_is_saved(
    encoding: Encoding, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer.save(encoding, tmp_path / "v.tiktoken")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [b"{}", *lines], "line 1 is b'{}'"),
        (lambda lines: lines[1:], "line 1 is b'AQ== 1'"),
        (lambda lines: [*lines[:-1], b"?? 2046"], r"line 2,047 is b'\?\? 2046'"),
        (lambda lines: lines[:100], "a byte is missing, or a token comes twice"),
        (lambda lines: [*lines, b"AA== 2047"], "a byte is missing, or a token comes twice"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(change, message: str, tmp_path: Path) -> None:
    path = tmp_path / "v.tiktoken"
    tokenizer.save(STORIES, path)
    path.write_bytes(b"\n".join(change(path.read_bytes().splitlines())))
    with pytest.raises(ValueError, match=f"v.tiktoken is not a vocabulary: {message}"):
        tokenizer.load(path)


# ---- the texts of a file -------------------------------------------------------------------------


FILES_OF_TEXTS = {
    "lines of their own": "one\n<|endoftext|>\ntwo\n<|endoftext|>\nthree\n",
    "first and last": "<|endoftext|>\none\n<|endoftext|>\ntwo\n<|endoftext|>\nthree\n<|endoftext|>",
    "several": "one\n<|endoftext|>\n<|endoftext|>\ntwo\n<|endoftext|><|endoftext|>three\n",
    "within a line": "one\n<|endoftext|>two\n<|endoftext|>three\n",
    "line ends of Windows": "one\r\n<|endoftext|>\r\ntwo\r\n<|endoftext|>\r\nthree\r\n",
}


@pytest.mark.parametrize("text", FILES_OF_TEXTS.values(), ids=FILES_OF_TEXTS)
@pytest.mark.parametrize("n_bytes", [1, 5, 14, 2**20])
def test_end_of_text_in_a_file_is_the_token(
    text: str, n_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "_BYTES_AT_ONCE", n_bytes)
    (tmp_path / "texts.txt").write_text(text, newline="")
    expected = stream_of(["one\n", "two\n", "three\n"], STORIES)
    assert torch.equal(file_stream(tmp_path / "texts.txt", STORIES), expected)


def test_end_of_text_in_one_of_several_texts_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"text number 1 has <\|endoftext\|> in it, at character 2"
    ):
        stream_of(["a", "b <|endoftext|>"], STORIES)


def test_a_text_with_a_character_that_the_encoding_lacks_is_refused(tmp_path: Path) -> None:
    letters = characters.vocabulary("abc\n")
    (tmp_path / "text.txt").write_text("abc\nabd\n")
    with pytest.raises(ValueError, match="the encoding 'characters-5' has no token for 'd'"):
        file_stream(tmp_path / "text.txt", letters)
    with pytest.raises(ValueError, match="the encoding 'characters-5' has no token for 'd'"):
        stream_of(["abc", "d"], letters)
    assert stream_of(["ab", "c\n"], letters).tolist() == [4, 1, 2, 4, 3, 0, 4]


@given(st.text(min_size=1))
def test_the_characters_of_any_text_are_a_vocabulary_for_it(text: str) -> None:
    encoding = characters.vocabulary(text)
    ids = characters.encode(encoding, text)
    assert [sorted(set(text))[number] for number in ids] == list(text)
    assert encoding.decode(ids) == text
    assert encoding.eot_token == encoding.n_vocab - 1 == len(set(text))


@pytest.mark.parametrize(("text", "message"), [("", "at least one"), ("a\ud800", "lone surrogate")])
def test_a_text_that_has_no_characters_to_learn_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        characters.vocabulary(text)


@pytest.mark.parametrize("wrong", [None, b"bytes", 3, np.array(["a", "b"])])
def test_what_is_no_text_is_named(wrong):
    with pytest.raises(TypeError, match="text number 1 must be a str, not "):
        stream_of(["a", wrong], tokenizer.stories())


def test_texts_may_be_any_iterable():
    expected = stream_of(["one", "two"], tokenizer.stories())
    for texts in (np.array(["one", "two"]), iter(["one", "two"]), ("one", "two")):
        assert torch.equal(stream_of(texts, tokenizer.stories()), expected)
    with pytest.raises(ValueError, match="but there is none"):
        stream_of(np.array([], dtype=str), tokenizer.stories())


def test_a_stream_may_be_a_list_as_for_windows():
    ids = [0, 5, 6, 0, 7, 8, 9, 0]
    for kind in (list, np.array):
        stream = kind(ids)
        same = WindowBatches(torch.tensor(ids), 2, 3)
        assert WindowBatches(stream, 2, 3).describe() == same.describe()
        assert StoryBatches(stream, 0, 1, 9).batch(0)[0].shape[0] == 1


def test_any_whole_number_is_a_seed():
    stream = torch.arange(50)
    inputs, _ = WindowBatches(stream, 2, 5, seed=1_700_000_000_000_000_000).batch(3)
    assert inputs.shape == (2, 5)
