"""What all widgets share: how they reach a front end, and an output in three forms."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import anywidget
import ipywidgets
import traitlets

from gptlib.widgets import linker

MIME_TYPE = "application/vnd.gptlib.widget+json"


class Kit(ipywidgets.Widget):  # type: ignore[misc, unused-ignore]
    """The modules and the style that all widgets share, which a notebook gets once.

    It has no view. A widget names it in its trait ``_kit``, and ``lib/link.js`` asks for it there.
    """

    packed = traitlets.Bytes().tag(sync=True)

    _shared: ClassVar[Kit | None] = None

    def __init__(self) -> None:
        names = sorted(f"lib/{path.name}" for path in (linker.FOLDER / "lib").glob("*.js"))
        parts = {"modules": linker.linked(*names), "css": linker.css("lib/base.css")}
        super().__init__(packed=linker.packed(parts))

    @classmethod
    def shared(cls) -> Kit:
        """Return the kit of this process, which is made anew if somebody has closed it."""
        if cls._shared is None or cls._shared.comm is None:
            cls._shared = cls()
        return cls._shared


class Widget(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
    """An anywidget whose output also draws in a page without a kernel, and reads as plain text.

    A subclass names itself in ``_module``: the JavaScript and the CSS of that name beside this
    file draw it, in a notebook and in the page alike.
    """

    _module: ClassVar[str]
    _esm = linker.FOLDER / "lib" / "link.js"
    _ipython_display_ = None  # ipywidgets 7 displays by this hook, which would hide our bundle

    _kit = traitlets.Instance(Kit).tag(sync=True, **ipywidgets.widget_serialization)
    _program = traitlets.Bytes().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        (*_, (_, program)) = linker.linked(f"{self._module}.js")
        super().__init__(_kit=Kit.shared(), _program=linker.packed(program), **traits)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find the subclass's style."""
        if "_module" in cls.__dict__:  # not in the class that traitlets makes for each widget
            cls._css = linker.css(f"{cls._module}.css")
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
