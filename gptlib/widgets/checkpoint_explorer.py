"""What is inside a checkpoint: the tree of its tensors, and the values of each of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import traitlets

from gptlib import accounting
from gptlib.widgets.base import Widget

if TYPE_CHECKING:
    from torch import Tensor

    from gptlib.pretrained import Row
    from gptlib.tensor_files import Tensors

LIMIT = 2_000
"""The widget lists at most this many tensors."""
MATRICES, CELLS, FEW_CELLS = 250, 1_024, 256
"""Up to so many matrices are drawn with the first number of cells each, more with the second."""
STRIP = 64
"""A vector is drawn as a strip of at most this many cells."""
STEEPEST = 4
"""A picture is at most this many times as wide as high, or as high as wide."""
BINS = 40
"""A histogram has at most this many bins,"""
WIDTH = 4
"""and goes at most this many standard deviations to either side of the mean."""
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
"""Base64's, 6 bits each: a cell of a picture takes one, a bin of a histogram two."""
ZERO, ODD = 31, 63
"""A cell's digit where its average is 0, and where not all of its values are finite numbers."""

_PREFIX = "transformer."


class Summary(NamedTuple):
    """The values of a tensor: how they spread, how alike its rows are, and a small picture.

    The histogram covers ``low`` to ``high``; ``peak`` values are in its fullest bin, ``below`` and
    ``above`` lie outside. ``near`` is the mean cosine similarity of neighboring rows, ``any`` that
    of any two. ``reach`` is how far from 0 the averages go that the picture has in its cells.
    Values that are not finite are counted in ``nan`` and ``infinite``, and nowhere else.
    """

    mean: float = math.nan
    std: float = math.nan
    min: float = math.nan
    max: float = math.nan
    low: float = math.nan
    high: float = math.nan
    near: float = math.nan
    any: float = math.nan
    reach: float = 0.0
    peak: int = 0
    below: int = 0
    above: int = 0
    nan: int = 0
    infinite: int = 0
    rows: int = 0
    bins: str = ""
    cells: str = ""


class Entry(NamedTuple):
    """A tensor of a checkpoint: its name there, its shape, its type in the file, its values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    summary: Summary


class CheckpointExplorer(Widget):
    """Shows what is in a checkpoint: its tensors under their names in the file, and their values.

    ``place`` is what :func:`gptlib.pretrained.load` takes: "mini", a folder, a ``.safetensors``
    file. What ``load`` refuses for its tensors can be looked at too: unknown names, other shapes,
    values that are not finite. ``tensor`` names the one that is shown first.

    The traits follow what the reader does: ``tensor`` is the chosen one, ``opened`` has the names
    of the blocks that are unfolded, ``search`` what the reader looks for.

    Raises what ``load`` raises for a place without a checkpoint and for damaged files, and
    ``ValueError`` for a tensor that is not there and for more than ``LIMIT`` tensors.
    """

    _module = "checkpoint_explorer"

    checkpoint: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    tensor = traitlets.Unicode("").tag(sync=True)
    opened: traitlets.List[str] = traitlets.List(traitlets.Unicode()).tag(sync=True)
    search = traitlets.Unicode("").tag(sync=True)

    def __init__(self, place: str | Path = "mini", tensor: str | None = None) -> None:
        from gptlib import tensor_files  # here, so that a page is built without torch

        with tensor_files.located(place) as path:
            tensors = tensor_files.Tensors(path)
            self._names = _sorted(tensors)
            chosen = (self._names or [""])[0] if tensor is None else self._known(tensor)
            self._entries = list(_survey(tensors, self._names))
            title = path.resolve().name if path == Path(place) else str(place)
            checkpoint = {"title": title, **_told(tensors), **_packed(self._entries)}
        groups = [group for group in map(group_of, [chosen, *self._names]) if group]
        super().__init__(checkpoint=checkpoint, tensor=chosen, opened=groups[:1])

    @traitlets.validate("tensor")
    def _check_tensor(self, proposal: dict[str, Any]) -> str:
        return self._known(proposal["value"]) if self._names else ""

    def _known(self, name: Any) -> str:
        if name not in self._names:
            few = ", ".join(self._names[:3])
            raise ValueError(
                f"tensor must be one of the file's {len(self._names):,} ({few}, …), not {name!r}"
            )
        return str(name)

    def state(self) -> dict[str, Any]:
        """Return what is in the file, packed, and what is chosen of it."""
        return {name: getattr(self, name) for name in ("checkpoint", "tensor", "opened", "search")}

    def describe(self) -> str:
        """Say in words what is in the file; how its values spread is for the eye."""
        title, size = self.checkpoint["title"], accounting.format_bytes(self.checkpoint["bytes"])
        values = _plural(sum(math.prod(entry.shape) for entry in self._entries), "value")
        types = ", ".join(dict.fromkeys(entry.dtype for entry in self._entries)) or "none"
        turned = [name for name in self._names if (row := _row(name)) and row.transposed]
        odd = [entry.name for entry in self._entries if entry.summary.nan + entry.summary.infinite]
        words = [
            f"Checkpoint explorer: {title} has {_plural(len(self._names), 'tensor')} with {values} "
            f"({types}) in {size}."
        ]
        if masks := self.checkpoint["masks"]:
            words.append(f"Left out are {_plural(masks, 'mask')}, which are no parameters.")
        if turned:
            words.append(f"Stored transposed are {len(turned):,}: {_some(turned)}.")
        if odd:
            words.append(f"Not all values are finite numbers in {_some(odd)}.")
        return " ".join([*words, f"Shown is {self.tensor}."] if self.tensor else words)


# --- what is in the file ----------------------------------------------------------------------


@cache
def _rows() -> Sequence[Row]:
    from gptlib.pretrained import NAMES

    return NAMES


def _row(name: str) -> Row | None:
    """Return the row of the name table that has a tensor's name."""
    pattern = re.sub(r"(?<=\.)[0-9]+(?=\.)", "{}", name, count=1)
    return next((row for row in _rows() if row.theirs == pattern), None)


def group_of(name: str) -> str:
    """Return the block that a tensor belongs to, as "h.0", or "" if it is in none."""
    found = re.match(r"((?:.*?\.)?[0-9]+)\..", name)
    return found[1] if found else ""


def _sorted(tensors: Tensors) -> list[str]:
    """Return the names of all tensors, in the order in which the data meets them."""
    if len(tensors.shapes) > LIMIT:
        count = f"{len(tensors.shapes):,}"
        raise ValueError(f"{tensors.place} has {count} tensors, but at most {LIMIT:,} can be shown")

    def key(name: str) -> tuple[Any, ...]:
        row = _row(name)
        at = _rows().index(row) if row else len(_rows())
        in_block = re.match(r"h\.[0-9]+\.", name)
        section = 1 if in_block else 0 if at < 2 else 2  # the embeddings come first
        parts = [(part.zfill(9) if part.isdigit() else part) for part in name.split(".")]
        return (section, parts[1], at, parts) if in_block else (section, "", at, parts)

    return sorted(tensors.shapes, key=key)


class _Stored(NamedTuple):
    """What a file says of a tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def item_size(self) -> float:
        """The bytes of a value: "BF16" says 16 bits, and "BOOL" nothing."""
        bits = re.search(r"[0-9]+", self.dtype)
        return int(bits[0]) / 8 if bits else 1


def _headers(tensors: Tensors) -> Iterator[_Stored]:
    """Yield what the files say of each tensor, the masks too, under their full names."""
    from safetensors import safe_open

    for path in tensors.files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                yield _Stored(name, part.get_dtype(), tuple(part.get_shape()))


def _told(tensors: Tensors) -> dict[str, Any]:
    """Return what the files say of themselves: bytes, types, the prefix of their names, masks."""
    headers = list(_headers(tensors))
    masks = [one for one in headers if one.name.removeprefix(_PREFIX) not in tensors.shapes]
    return {
        "bytes": sum(path.stat().st_size for path in tensors.files),
        "files": len(tensors.files),
        "prefix": _PREFIX if any(one.name.startswith(_PREFIX) for one in headers) else "",
        "masks": len(masks),
        "mask_bytes": int(sum(one.item_size * math.prod(one.shape) for one in masks)),
        "sizes": {one.dtype: one.item_size for one in headers},
    }


def _survey(tensors: Tensors, names: Sequence[str]) -> Iterator[Entry]:
    """Yield every tensor with a summary of its values, reading one at a time."""
    dtypes = {one.name.removeprefix(_PREFIX): one.dtype for one in _headers(tensors)}
    matrices = sum(len(shape) > 1 for shape in tensors.shapes.values())
    cells = CELLS if matrices <= MATRICES else FEW_CELLS
    for name in names:
        yield Entry(name, tensors.shapes[name], dtypes[name], summarize(tensors[name], cells))


def _packed(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Return the name table and all tensors as strings, tabs between the parts of each."""
    table = ["\t".join([theirs, ours, "T" * turned]) for ours, theirs, turned in _rows()]
    lines = []
    for name, shape, dtype, summary in entries:
        *numbers, bins, cells = summary
        fields = [" ".join(map(str, shape)), dtype, " ".join(map(_short, numbers)), bins, cells]
        lines.append("\t".join([*fields, name]))
    return {"names": table, "tensors": lines}


# --- the values -------------------------------------------------------------------------------


def summarize(tensor: Tensor, most: int = CELLS) -> Summary:
    """Return how the values of a tensor spread, and a picture of at most ``most`` cells.

    A tensor of more than two dimensions counts as a matrix of its last. It is read in bands of
    rows, so that beside it little memory is needed.
    """
    import torch

    if not tensor.numel():
        return Summary()
    matrix = tensor.reshape(-1, tensor.shape[-1]) if tensor.dim() > 1 else tensor.reshape(1, -1)
    rows, columns = grid(matrix.shape[0], matrix.shape[1], most)
    with torch.inference_mode():
        bands = matrix.tensor_split(rows)
        walk = _Walk(bands)
        return Summary(
            **walk.spread(), **walk.likeness(), **walk.picture(columns), **walk.histogram(bands)
        )


def grid(rows: int, columns: int, most: int) -> tuple[int, int]:
    """Return how many cells a picture has: square ones, as far as its shape is not too steep."""
    if rows == 1:
        return 1, min(columns, STRIP)
    steepness = min(max(rows / columns, 1 / STEEPEST), STEEPEST)
    high = math.sqrt(most * steepness)
    return min(rows, int(high)), min(columns, int(most / high))


class _Walk:
    """One walk over the bands of a matrix, and what it adds up of the finite values."""

    def __init__(self, bands: Sequence[Tensor]) -> None:
        import torch

        columns = bands[0].shape[1]
        self.sums = torch.zeros(len(bands), columns, dtype=torch.float64)
        self.counts, self.odd = torch.zeros_like(self.sums), torch.zeros_like(self.sums)
        self.min, self.max, self.squares = math.inf, -math.inf, 0.0
        self.nan = self.infinite = self.rows = 0
        self.near, self.last = 0.0, torch.zeros(columns)
        self.directions = torch.zeros(columns, dtype=torch.float64)
        for number, band in enumerate(bands):
            self._add(number, band)
        self.count = int(self.counts.sum())
        self.mean = float(self.sums.sum()) / max(self.count, 1)
        variance = self.squares / max(self.count, 1) - self.mean**2
        # Of equal values, what is left is rounding.
        self.std = math.sqrt(max(variance, 0.0)) if self.min < self.max else 0.0

    def _add(self, number: int, band: Tensor) -> None:
        import torch

        values, finite = _finite(band)
        self.sums[number] = values.sum(0, dtype=torch.float64)
        self.counts[number] = len(band)
        self.squares += float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
        inner = values if finite is None else values[finite]
        if inner.numel():
            low, high = inner.aminmax()
            self.min, self.max = min(self.min, float(low)), max(self.max, float(high))
        if finite is not None:
            self.counts[number] = finite.sum(0)
            self.odd[number] = len(band) - self.counts[number]
            self.nan += int(band.isnan().sum())
            self.infinite += int(band.isinf().sum())
        if values.shape[1] > 1:
            norms = torch.linalg.vector_norm(values, dim=1, keepdim=True)
            units = values / norms.clamp(min=torch.finfo(values.dtype).tiny)  # (rows, C)
            self.near += float((units[1:] * units[:-1]).sum(dtype=torch.float64))
            self.near += float((units[0] * self.last).sum())
            self.last, self.rows = units[-1], self.rows + len(band)
            self.directions += units.sum(0, dtype=torch.float64)

    def spread(self) -> dict[str, Any]:
        """Return mean, standard deviation and range, and how many values are no numbers."""
        odd = {"nan": self.nan, "infinite": self.infinite}
        if not self.count:
            return odd
        return {"mean": self.mean, "std": self.std, "min": self.min, "max": self.max, **odd}

    def likeness(self) -> dict[str, Any]:
        """Return the mean cosine similarity of neighboring rows, and of any two rows."""
        pairs = self.rows * (self.rows - 1)
        if not pairs:
            return {}
        any_two = (float(self.directions @ self.directions) - self.rows) / pairs
        return {"near": self.near / (self.rows - 1), "any": any_two}

    def picture(self, columns: int) -> dict[str, Any]:
        """Return the averages of the cells as digits, symmetric around 0."""
        import torch

        def of_cells(values: Tensor) -> Tensor:
            return torch.stack([part.sum(1) for part in values.tensor_split(columns, 1)], 1)

        counts = of_cells(self.counts)  # (rows of cells, columns of cells)
        averages = of_cells(self.sums) / counts.clamp(min=1)
        reach = float(averages.abs().max())
        codes = ZERO + (averages / (reach or 1) * ZERO).round().int()
        codes[of_cells(self.odd) > 0] = ODD
        return {"reach": reach, "rows": len(counts), "cells": _digits(codes.flatten().tolist())}

    def histogram(self, bands: Sequence[Tensor]) -> dict[str, Any]:
        """Return how many values are in each bin, in a second walk over the bands."""
        import torch

        if not self.count:
            return {}
        low, high = torch.tensor(
            [
                max(self.min, self.mean - WIDTH * self.std),
                min(self.max, self.mean + WIDTH * self.std),
            ]
        ).tolist()  # as float32, like most values
        if not low < high:
            return {"low": self.min, "high": self.max, "peak": self.count}
        bins = torch.zeros(min(BINS, max(5, math.isqrt(self.count))), dtype=torch.float64)
        above = 0
        for band in bands:
            values, finite = _finite(band)
            inner = values if finite is None else values[finite]
            inner = inner.double() if high - low > 1e30 else inner  # its square is no float32
            bins += torch.histc(inner, len(bins), low, high)
            above += int((inner > high).sum())
        peak, inside = int(bins.max()), int(bins.sum())
        codes = (bins / peak * (64**2 - 1)).round().clamp(min=bins.clamp(max=1)).int()
        digits = [digit for code in codes.tolist() for digit in divmod(code, 64)]
        outside = {"below": self.count - inside - above, "above": above}
        return {"low": low, "high": high, "peak": peak, **outside, "bins": _digits(digits)}


def _finite(band: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return values to count with, 0 for what is not finite, and a mask if there is such."""
    import torch

    wide = band.dtype in (torch.float64, torch.int64)
    values = band.to(torch.float64 if wide else torch.float32)
    if values.sum().isfinite():  # one value that is not makes the sum so
        return values, None
    finite = values.isfinite()
    return values.where(finite, 0), finite


def _digits(codes: Iterable[int]) -> str:
    return "".join(DIGITS[code] for code in codes)


def _short(number: float) -> str:
    """Write a number in as few characters as it needs: whole ones whole, others to five digits."""
    if isinstance(number, int):
        return str(number)
    return "" if math.isnan(number) else f"{number:.5g}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more:,} more" if more > 0 else "")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
