"""Windows over a stream of tokens: what they hold, how many there are, what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptlib.data import windows

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
