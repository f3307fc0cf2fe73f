"""The record of a run: its numbers, its picture, and the picture that is drawn as it grows."""

from __future__ import annotations

import json
import math
import sys
import time
import types

import pytest

from gptlib import figures
from gptlib.history import History, LivePlot


def history(steps=40, every=10):
    record = History()
    for step in range(steps):
        record.add_step(7 * math.exp(-step / 2) + 0.5, 1.0 + step, 100 + step, 0.5)
        if (step + 1) % every == 0:
            record.add_evaluation(1 / (step + 1))
    return record


def test_an_evaluation_belongs_to_the_steps_done_so_far():
    assert [step for step, _ in history(25).evaluations] == [10, 20]
    assert history(25).steps == 25


@pytest.mark.parametrize("width", [1, 3, 25, 100])
def test_smoothed_is_the_mean_of_the_last_losses(width):
    record = history()
    for step, mean in enumerate(record.smoothed(width)):
        some = record.losses[max(0, step + 1 - width) : step + 1]
        assert mean == pytest.approx(sum(some) / len(some), rel=1e-12)
    assert len(record.smoothed(width)) == 40
    assert History().smoothed(width) == []


def test_smoothing_over_nothing_is_refused():
    with pytest.raises(ValueError, match="width must be at least 1, not 0"):
        history().smoothed(0)


def test_a_long_history_is_smoothed_in_one_pass():
    record = History(losses=[1.0] * 100_000)
    began = time.process_time()
    record.smoothed(50_000)
    assert time.process_time() - began < 2


def test_the_summary_has_loss_and_speed():
    assert history().summary() == "loss 0.500, held out 0.025, 239 tokens/s"
    assert History().summary() == "0 tokens/s"


def test_json_and_back_is_the_same_history():
    record = history()
    assert History.from_json(json.loads(json.dumps(record.to_json()))) == record
    with pytest.raises(KeyError, match="norms"):
        History.from_json({"losses": []})


# ---------------------------------------------------------------------------------------------
# The picture


def drawn(record, **options):
    (axes,) = record.plot(**options).axes
    return axes


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_the_picture_has_its_lines_its_names_and_its_floor():
    record = history()
    axes = drawn(record, floor=0.4, title="A run")
    raw, smoothed, held_out, floor = axes.lines
    assert list(raw.get_ydata()) == record.losses
    assert list(smoothed.get_ydata()) == record.smoothed(5)
    assert list(zip(*held_out.get_data(), strict=True)) == record.evaluations
    assert set(floor.get_ydata()) == {0.4}
    assert words(axes) == ["floor 0.400", "from 7.5 at first"]
    assert axes.get_title(loc="left") == "A run"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("steps", "loss (nats per token)")
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["training, mean of 5 steps", "held-out text"]


def test_the_first_losses_do_not_press_the_rest_flat():
    short = History(losses=[7.0, 6.5, 6.0, 5.5])
    assert drawn(short).get_ylim() == pytest.approx((0, 7 * 1.05))
    assert words(drawn(short)) == []
    long = History(losses=[7.0] * 50 + [0.5] * 1_950, evaluations=[(40, 7.0), (1_000, 0.6)])
    low, high = drawn(long, floor=0.3).get_ylim()
    assert low == 0
    assert 0.6 < high < 1
    assert words(drawn(long)) == ["from 7.0 at first"]
    # The floor is always in the picture, even of a run that leaked through it.
    assert drawn(History(losses=[0.1] * 100), floor=0.3).get_ylim()[1] > 0.3


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_empty_and_a_short_history_can_be_drawn(steps):
    record = history(steps, every=1)
    axes = drawn(record, floor=0.3)
    axes.figure.draw_without_rendering()
    raw, smoothed, *held_out, floor = axes.lines
    assert list(raw.get_ydata()) == record.losses
    assert list(smoothed.get_ydata()) == record.smoothed(5)
    assert [list(zip(*line.get_data(), strict=True)) for line in held_out] == (
        [record.evaluations] if steps else []
    )
    assert set(floor.get_ydata()) == {0.3}
    assert axes.get_xlim() == (0, max(steps, 1))
    low, high = axes.get_ylim()
    assert low == 0
    assert max([0.3, *record.losses]) < high < 9


# ---------------------------------------------------------------------------------------------
# Live


class Notebook:
    """Stands in for a notebook: keeps what each place displays, by the place's number."""

    def __init__(self, monkeypatch):
        self.places = []
        shell = types.SimpleNamespace(kernel=None)
        monkeypatch.setattr("IPython.get_ipython", lambda: shell)
        monkeypatch.setattr("IPython.display.display", self.display)

    def display(self, data, raw, metadata, display_id):
        assert raw
        assert display_id is True
        self.places.append([(data, metadata)])
        place = self.places[-1]
        return types.SimpleNamespace(
            update=lambda data, raw, metadata: place.append((data, metadata))
        )


def test_a_notebook_sees_one_picture_that_changes(monkeypatch):
    notebook, live, record = Notebook(monkeypatch), LivePlot(floor=0.335), history(20)
    live(record)
    record.add_step(0.4, 1.0, 10, 0.1)
    live(record)
    ((first, second),) = notebook.places
    assert first[0]["image/png"] != second[0]["image/png"]
    assert first[0]["text/plain"] == second[0]["text/plain"]  # nbval looks at the first alone
    assert second[1]["image/png"]["alt"] == second[0]["text/plain"]
    assert second[0]["text/plain"] == (
        "Loss in training, in nats per token, against the steps done so far: the loss of each "
        "step, pale, a line for their running mean, points for held-out text, and a dashed line "
        "for the floor at 0.335."
    )


def test_the_words_name_only_what_is_drawn(monkeypatch):
    notebook = Notebook(monkeypatch)
    LivePlot(title="Ten stories")(History(losses=[1.0]))
    assert notebook.places[0][0][0]["text/plain"] == (
        "Ten stories, in nats per token, against the steps done so far: the loss of each step, "
        "pale, and a line for their running mean."
    )


@pytest.mark.parametrize("loaded", [False, True])
def test_outside_a_notebook_nothing_is_shown(monkeypatch, capsys, loaded):
    if not loaded:
        monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(figures, "bundle", None)
    LivePlot(floor=0.3)(history())
    assert capsys.readouterr() == ("", "")
