"""Figures carry words, are the same bytes each time, and leave nothing open."""

from __future__ import annotations

import pytest

from gptlib import figures


@pytest.fixture
def picture(monkeypatch):
    """Return a function that shows a figure and gives back its data and metadata."""
    shown = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, raw, metadata: shown.append((data, metadata))
    )

    def show():
        figure, axes = figures.new(3, 2)
        axes.plot([0, 1], [0, 1])
        axes.set_title("A line")
        figures.show(figure, "A straight line from zero to one")
        return shown[-1]

    return show


def test_show_gives_a_picture_its_words_and_its_size(picture):
    data, metadata = picture()
    assert data["text/plain"] == "A straight line from zero to one"
    assert data["image/png"].startswith(b"\x89PNG")
    drawn = metadata["image/png"].pop("drawn")
    assert metadata["image/png"] == {
        "width": 300,
        "height": 200,
        "alt": "A straight line from zero to one",
    }
    assert drawn["axes 1 title"] == "A line"


def test_the_same_figure_is_the_same_bytes(picture):
    assert picture()[0]["image/png"] == picture()[0]["image/png"]


@pytest.mark.parametrize("alt", ["", "a plot", "one two three four"])
def test_show_asks_for_words(alt):
    figure, _ = figures.new()
    with pytest.raises(ValueError, match="alt must say in words what the figure shows"):
        figures.show(figure, alt)


def test_colors_carry_on_white():
    """Lines need a contrast of 3 to 1; the two light colors of the palette are for areas."""
    for name in set(figures.PALETTE) - {"yellow", "orange", "sky", "purple"}:
        assert 1.05 / (_luminance(figures.PALETTE[name]) + 0.05) >= 3, name


def _luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
