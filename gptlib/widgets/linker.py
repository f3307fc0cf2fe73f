"""The widgets' JavaScript as text, for notebooks, which have no files to import from.

In a page a module imports others from beside itself. To a notebook the same modules are sent as
text, and ``lib/link.js`` makes modules of them there, in the order in which they come.
"""

from __future__ import annotations

import gzip
import json
import posixpath
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent

# An import or an export of something from a file: what stands before the file's name, and the name.
_IMPORT = re.compile(r'^((?:import|export)\b[^;"]*)"(\.{1,2}/[^"]+)"(?=;)', re.MULTILINE)
# Comments that have their lines to themselves: a reader of the text sent has no use for them.
_COMMENTS = re.compile(
    r"^[ \t]*(?:/\*\*?(?:(?!\*/).)*\*/|//[^\n]*)[ \t]*\n", re.DOTALL | re.MULTILINE
)


def linked(*names: str) -> list[tuple[str, str]]:
    """Return modules and all that they import, each after what it imports: names and texts.

    Names are paths from this folder, such as ``lib/kit.js``. In the texts an import names its
    module so: ``from "gptlib:lib/kit.js"``. Raises ``ValueError`` for modules that import one
    another in a circle.
    """
    found: dict[str, str] = {}
    for name in names:
        _add(name, found, ())
    return list(found.items())


def _add(name: str, found: dict[str, str], above: tuple[str, ...]) -> None:
    if name in above:
        raise ValueError(f"modules import one another in a circle: {' -> '.join((*above, name))}")
    if name in found:
        return
    for other in imports(name):
        _add(other, found, (*above, name))
    found[name] = _text(name)


@cache
def imports(name: str) -> tuple[str, ...]:
    """Return the names of the modules that a module imports itself."""
    return tuple(_resolve(name, other) for _, other in _IMPORT.findall(_read(name)))


@cache
def _text(name: str) -> str:
    text = _COMMENTS.sub("", _read(name))
    return _IMPORT.sub(lambda m: f'{m[1]}"gptlib:{_resolve(name, m[2])}"', text)


def _read(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def _resolve(name: str, other: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), other))


def all_imports(names: Iterable[str]) -> list[str]:
    """Return the names of all modules that some modules need, but not they themselves."""
    names = list(names)
    return [name for name, _ in linked(*names) if name not in names]


def css(name: str) -> str:
    """Return a style sheet without its comments and its indentation."""
    text = re.sub(r"/\*.*?\*/", "", _read(name), flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", text).strip() + "\n"


def packed(value: Any) -> bytes:
    """Return a value as JSON in gzip, the same bytes each time: what ``lib/link.js`` unpacks."""
    return gzip.compress(json.dumps(value, ensure_ascii=False).encode(), mtime=0)
