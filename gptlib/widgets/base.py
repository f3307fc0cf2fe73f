"""What all widgets share: one front end each, one stylesheet, and an output in three forms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import anywidget

MIME_TYPE = "application/vnd.gptlib.widget+json"

_FOLDER = Path(__file__).resolve().parent


class Widget(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
    """An anywidget whose output also draws in a page without a kernel, and reads as plain text.

    A subclass names its module in ``_module``: the JavaScript of that name beside this file draws
    it, in a notebook and in the page alike.
    """

    _module: ClassVar[str]
    _css = _FOLDER / "style.css"
    _ipython_display_ = None  # ipywidgets 7 displays by this hook, which would hide our bundle

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find the subclass's JavaScript."""
        if "_module" in cls.__dict__:  # not in the class that traitlets makes for each widget
            cls._esm = _FOLDER / f"{cls._module}.js"
        super().__init_subclass__(**kwargs)

    def state(self) -> dict[str, Any]:
        """Return what the page needs to draw this widget, as JSON; the same for the same traits."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return in words what the widget shows."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        live = super()._repr_mimebundle_(**kwargs)
        if live is None:  # the widget is closed
            return None
        data, metadata = live
        data[MIME_TYPE] = {"widget": self._module, "state": self.state()}
        metadata = {**metadata, MIME_TYPE: {"alt": self.describe()}}
        data["text/plain"] = self.describe()
        return data, metadata


def one_of(name: str, value: Any, allowed: Any) -> str:
    """Return ``value`` if it is one of the names ``allowed``, else raise ``ValueError``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def well_formed(text: str) -> str:
    """Replace lone surrogates, which are no characters and have no UTF-8, as tiktoken does."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
