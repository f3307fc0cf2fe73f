"""The comparison of figures: what changes a picture is told, and what nobody sees is not."""

from __future__ import annotations

import numpy as np
import pytest

from gptlib import figures
from gptlib.drawn import UNKNOWN
from gptlib.drawn import drawn as describe
from tests import drawing


def drawn(change=None, **options):
    """Describe a figure with one of everything; ``change`` is done to its two pairs of axes."""
    values = np.linspace(1, 2, 100)
    figure, (left, right) = figures.new(6, 3, columns=2)
    left.plot(range(100), options.get("line", values), "o-", label="a loss")
    left.axhline(1.5)
    left.bar(["a", "b"], options.get("bars", [1.0, 2.0]))
    left.scatter([10, 20], options.get("points", [1.2, 1.3]))
    left.vlines([5, 6], 1, 1.5)
    left.fill_between([30, 40], [1, 1.2], [1.4, 1.5])
    left.annotate(options.get("words", "loss 0.335"), (10, 1), (20, 1.5), arrowprops={})
    left.set(title=options.get("title", "A loss"), xlabel="steps", ylim=options.get("ylim", (0, 3)))
    left.legend()
    image = right.imshow(options.get("image", np.add.outer(range(20), range(30))))
    right.set_xticks([0, 10], options.get("ticks", ["zero", "ten"]))
    figure.colorbar(image, ax=right)
    if change:
        change(left, right)
    figure.draw_without_rendering()
    return describe(figure)


@pytest.fixture(scope="module")
def stored():
    return drawn()


def test_the_same_figure_is_the_same(stored):
    assert drawing.differences(stored, drawn()) == []
    assert UNKNOWN not in stored.values()


LINE = np.linspace(1, 2, 100)
SEEN = {
    "a line": ({"line": LINE + 0.03}, "axes 1 lines 1 y: number 1 of 16 was "),
    "one point of a line": ({"line": LINE + 0.6 * (np.arange(100) == 50)}, "lines 1 y: number 8"),
    "a bar": ({"bars": [1.0, 1.9]}, "axes 1 patches 1 y: number 4 of 4 was 667 and is 633"),
    "a point": ({"points": [1.2, 1.4]}, "axes 1 collections 1 y: number 2 of 2"),
    "a word": ({"words": "loss 0.337"}, "texts: was 'loss 0.335', is 'loss 0.337'"),
    "a title": ({"title": "Loss"}, "axes 1 title: was 'A loss', is 'Loss'"),
    "limits": ({"ylim": (0, 3.1)}, "axes 1 y limits: were 0 3, are 0 3.1"),
    "a tick": ({"ticks": ["zero", "nine"]}, "axes 2 x ticks: was 'zero | ten', is 'zero | nine'"),
    "an image": ({"image": np.add.outer(range(20), range(30)[::-1])}, "axes 2 images 1 color"),
    "colors": ({"image": 2 * np.add.outer(range(20), range(30))}, "axes 2 images 1 color limits"),
    "the look": (lambda left, _: left.lines[0].set_color("red"), "axes 1 lines 1: was \"'a loss'"),
    "one line more": (lambda left, _: left.axvline(3), "axes 1 lines 3: was 'nothing', is "),
    "one line less": (lambda left, _: left.lines[1].remove(), "axes 1 lines 2: was '- None def"),
    "a scale": (lambda left, _: left.set_xscale("symlog"), "axes 1 x scale: was 'linear', is 's"),
    "no legend": (lambda left, _: left.legend_.remove(), "axes 1 legend: was 'a loss', is 'noth"),
    "a masked image": (lambda _, right: hide(right), "axes 2 images 1 color: number 1 of 64 was"),
    "a new kind": (lambda left, _: left.table([["a"]]), f"axes 1 tables 1: {UNKNOWN}"),
}


def hide(axes):
    values = axes.images[0].get_array().astype(float)
    values[:4, :4] = np.nan
    axes.images[0].set_data(values)


@pytest.mark.parametrize("name", SEEN)
def test_what_is_seen_is_told(stored, name):
    change, expected = SEEN[name]
    now = drawn(change) if callable(change) else drawn(**change)
    assert expected in "\n".join(drawing.differences(stored, now))


UNSEEN = {
    "the last digits of a line": {"line": LINE * (1 + 1e-3)},
    "limits": {"ylim": (0, 3.01)},
    "the rounding of a word": {"words": "loss 0.336"},
    "an image": {"image": np.add.outer(range(20), range(30)) + 0.01},
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_nobody_sees_is_not_told(stored, name):
    assert drawing.differences(stored, drawn(**UNSEEN[name])) == []


def test_where_places_are_measured_only_words_are_compared(stored):
    now = drawn(line=LINE + 0.5, ylim=(0, 9))
    assert drawing.differences(stored, now, words_only=True) == []
    now = drawn(line=LINE + 0.5, title="Loss")
    assert len(drawing.differences(stored, now, words_only=True)) == 1


def test_every_figure_of_a_cell_is_compared(stored):
    def output(described):
        return {"data": {"image/png": "…"}, "metadata": {"image/png": {"drawn": described}}}

    figure, other = output(stored), output(stored | {"axes 1 title": "Other"})
    assert drawing.compared([figure], [figure]) == []
    assert drawing.compared([figure], []) == ["1 figures are stored, and 0 were drawn"]
    assert drawing.compared([{"data": {"text/plain": "…"}}], []) == []
    assert drawing.compared([figure, figure], [figure, other])[0].startswith("figure 2")
