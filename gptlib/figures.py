"""The course's look for matplotlib: one palette, one style, and alternative text for every picture.

The palette is Okabe and Ito's, safe for color-blind readers; the widgets use the same colors.
"""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from gptlib.drawn import drawn

#: The course's colors by name.
PALETTE: dict[str, str] = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "gray": "#5F6B76",
    "ink": "#1B1F24",
}

_PIXELS_PER_INCH = 200
_CSS_PIXELS_PER_INCH = 100

_STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "axes.facecolor": "white",
    "axes.edgecolor": PALETTE["gray"],
    "axes.labelcolor": PALETTE["ink"],
    "axes.titlecolor": PALETTE["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": cycler(
        color=[PALETTE[name] for name in ("blue", "orange", "green", "red", "purple", "sky")]
    ),
    "grid.color": "#E3E7EB",
    "grid.linewidth": 0.8,
    "xtick.color": PALETTE["gray"],
    "ytick.color": PALETTE["gray"],
    "xtick.labelcolor": PALETTE["ink"],
    "ytick.labelcolor": PALETTE["ink"],
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 2,
    "font.family": "DejaVu Sans",  # it ships with matplotlib, so a figure is the same everywhere
    "font.size": 10,
}


def new(width: float = 6.4, height: float = 3.6, rows: int = 1, columns: int = 1) -> Any:
    """Return a new figure in the house style and its axes, as ``pyplot.subplots`` does.

    ``width`` and ``height`` are in inches; the page shows an inch as 100 CSS pixels. The figure
    belongs to no window and is drawn only by :func:`show`. From the first call on, the style holds
    for every figure of the session: matplotlib reads it again for each title and legend.
    """
    matplotlib.rcParams.update(_STYLE)
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns)


def show(figure: Figure, alt: str) -> None:
    """Display a figure as a PNG together with ``alt``, the words for whoever cannot see it.

    Raises ``ValueError`` if ``alt`` says too little to stand for the picture.
    """
    from IPython.display import display

    data, metadata = bundle(figure, alt)
    display(data, raw=True, metadata=metadata)


def bundle(figure: Figure, alt: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what :func:`show` displays: the picture and the words, and the metadata for both.

    The metadata says what is drawn, too: see ``gptlib.drawn``.
    """
    if len(alt.split()) < 5:
        raise ValueError(f"alt must say in words what the figure shows, not {alt!r}")
    width, height = figure.get_size_inches() * _CSS_PIXELS_PER_INCH
    data = {"image/png": _png(figure), "text/plain": alt}
    size = {"width": round(width), "height": round(height), "alt": alt}
    return data, {"image/png": size | {"drawn": drawn(figure)}}


def _png(figure: Figure) -> bytes:
    """Return the figure as a PNG of at most 256 colors: a third of the size, and looks the same."""
    from PIL import Image

    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=_PIXELS_PER_INCH)
    picture = Image.open(full).convert("RGB")
    method, dither = Image.Quantize.MEDIANCUT, Image.Dither.NONE
    picture.quantize(256, method=method, dither=dither).save(small, "PNG", optimize=True)
    return small.getvalue()
