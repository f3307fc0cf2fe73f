"""What a figure draws, in words and a few numbers, so that a test can compare two drawings.

A picture's bytes depend on the machine, and cannot tell what changed. :func:`gptlib.figures.show`
therefore stores this description in the metadata of its output, where no reader sees it, and the
tests compare it when they run a notebook again.

Places are in thousandths of the axes, so that the numbers tell what an eye would see: two drawings
that differ by a few of them look the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import singledispatch
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.category import StrCategoryFormatter
from matplotlib.collections import Collection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FixedFormatter, FuncFormatter

#: So many numbers of a row are kept, and so many rows and columns of an image; of more, the means.
ROW, SIDE = 16, 8
#: What lies further outside of the axes than this share of them is not in the picture.
OUTSIDE = 0.05
UNKNOWN = "cannot be compared yet: describe it in gptlib/drawn.py"

#: What labels the ticks of an axis with words that it was given, and not with its own numbers.
_GIVEN = (FixedFormatter, FuncFormatter, StrCategoryFormatter)

Words = Iterator[tuple[str, str]]  # the name of a part, and what is said of it

_masked: Any = np.ma  # which has no types


def drawn(figure: Figure) -> dict[str, str]:
    """Describe each part of a figure that has been drawn, by the part's name.

    Names that end in ``limits`` have two numbers of the data; those that end in ``x``, ``y`` or
    ``color`` have thousandths, of the axes or of the colors; all others have words.
    """
    width, height = figure.get_size_inches()
    found = {"figure": f"{width:g} x {height:g} inches", "figure texts": _said(figure.texts)}
    for number, axes in enumerate(figure.axes, start=1):
        found |= {f"axes {number} {name}": said for name, said in _parts(axes)}
    return {name: said for name, said in found.items() if said}


def _parts(axes: Any) -> Words:
    yield "title", " | ".join(filter(None, map(axes.get_title, ("left", "center", "right"))))
    for axis in (axes.xaxis, axes.yaxis):
        yield f"{axis.axis_name} label", axis.get_label().get_text()
        yield f"{axis.axis_name} scale", axis.get_scale()
        yield f"{axis.axis_name} limits", _limits(*axis.get_view_interval())
        if isinstance(axis.get_major_formatter(), _GIVEN):
            yield f"{axis.axis_name} ticks", _said(axis.get_ticklabels())
    yield "legend", _said(axes.get_legend().get_texts()) if axes.get_legend() else ""
    yield "texts", _said(axes.texts)
    yield from _places("texts", [spot for text in axes.texts for spot in _spots(text, axes)], axes)
    for number, (look, same) in enumerate(groupby(axes.patches, key=_look), start=1):
        corners = [patch.get_window_extent().get_points() for patch in same]
        yield f"patches {number}", f"{len(corners)} {look}"
        yield from _places(f"patches {number}", corners, axes)
    for kind in ("lines", "collections", "images", "artists", "tables", "child_axes"):
        for number, artist in enumerate(getattr(axes, kind), start=1):
            for name, said in _artist(artist, axes):
                yield f"{kind} {number} {name}".rstrip(), said


@singledispatch
def _artist(artist: Any, axes: Any) -> Words:
    yield "", UNKNOWN


@_artist.register(Line2D)
def _line(line: Any, axes: Any) -> Words:
    style = f"{line.get_linestyle()} {line.get_marker()} {line.get_drawstyle()}"
    yield "", f"{_label(line)} {style} {to_hex(line.get_color())}".lstrip()
    yield from _places("", line.get_transform().transform(line.get_xydata()), axes)


@_artist.register(Collection)
def _collection(collection: Any, axes: Any) -> Words:
    """Points, whose one mark is drawn at many places, or lines and areas."""
    if collection.get_array() is None:
        colors = map(to_hex, (*collection.get_facecolor(), *collection.get_edgecolor()))
        yield "", " ".join([_label(collection), *dict.fromkeys(colors)]).lstrip()
    else:
        yield from _colors(collection, collection.get_array().ravel())
    if isinstance(collection, PathCollection):
        pixels = collection.get_offset_transform().transform(collection.get_offsets())
    else:
        vertices = [path.vertices for path in collection.get_paths()]
        pixels = collection.get_transform().transform(np.concatenate([np.empty((0, 2)), *vertices]))
    yield from _places("", pixels, axes)


@_artist.register(AxesImage)
def _image(image: Any, axes: Any) -> Words:
    values = _masked.masked_invalid(image.get_array())
    yield "size", " x ".join(map(str, values.shape))
    left, right, low, high = image.get_extent()
    yield from _places("", axes.transData.transform([(left, low), (right, high)]), axes)
    yield from _colors(image, _means(_means(values, SIDE, 0), SIDE, 1))


def _colors(artist: Any, values: Any) -> Words:
    """Say which colors stand for some numbers, or are the numbers themselves."""
    if values.ndim < 3:
        yield "", f"{artist.get_cmap().name}"
        yield "color limits", _limits(*artist.get_clim())
        values = artist.norm(values)
    yield "color", _row(values.ravel(), most=max(ROW, SIDE * SIDE))


def _spots(text: Any, axes: Any) -> list[Any]:
    """Return the pixels where a text stands; of an annotation, also where its arrow points."""
    if not isinstance(text, Annotation):
        return [text.get_transform().transform(text.get_position())]
    ends = ((text.xy, text.xycoords), (text.xyann, text.anncoords))
    return [axes.transData.transform(place) for place, kind in ends if kind == "data"]


def _limits(low: float, high: float) -> str:
    return f"{low:.5g} {high:.5g}"


def _look(patch: Any) -> str:
    return f"{type(patch).__name__} {to_hex(patch.get_facecolor(), keep_alpha=True)}"


def _label(artist: Any) -> str:
    """Return an artist's name in a legend; where it has none, matplotlib made one up."""
    return "" if artist.get_label().startswith("_") else repr(artist.get_label())


def _said(texts: Iterable[Any]) -> str:
    return " | ".join(text.get_text() for text in texts)


def _places(name: str, pixels: Any, axes: Any) -> Words:
    """Say where in the axes some pixels are, pairs in any shape."""
    shares = axes.transAxes.inverted().transform(np.reshape(pixels, (-1, 2)))
    for side, row in zip("xy", np.clip(shares, -OUTSIDE, 1 + OUTSIDE).T, strict=True):
        yield f"{name} {side}".lstrip(), _row(row)


def _row(shares: Any, most: int = ROW) -> str:
    """Write numbers as thousandths, and what is no number as a dash."""
    few = _means(_masked.masked_invalid(shares), most, 0)
    return " ".join("-" if share is _masked.masked else str(round(1000 * share)) for share in few)


def _means(values: Any, most: int, axis: int) -> Any:
    """Return the means of ``most`` equal parts of an axis that is longer than that."""
    if values.shape[axis] <= most:
        return values
    return _masked.stack([part.mean(axis) for part in np.array_split(values, most, axis)], axis)
