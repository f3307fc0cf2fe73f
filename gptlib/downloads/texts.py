"""Texts in the public domain, fetched once from an address and checked against a pinned hash."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from gptlib import __version__
from gptlib.downloads import files

#: For how many seconds nothing may arrive before a connection counts as cut.
TIMEOUT = 30.0

_BLOCK = 2**16


class FetchError(OSError):
    """A text cannot be fetched; the message says why, and what can be done."""


@dataclass(frozen=True)
class Text:
    """A text at an address, and what must arrive from there: this many bytes with this SHA-256."""

    name: str
    title: str
    author: str
    url: str
    sha256: str
    n_bytes: int
    public_domain: str


#: The texts of the course, by name.
TEXTS: dict[str, Text] = {
    text.name: text
    for text in (
        Text(
            name="tiny-shakespeare",
            title="Tiny Shakespeare: 40,000 lines of the plays, put together by Andrej Karpathy",
            author="William Shakespeare (1564-1616)",
            url="https://raw.githubusercontent.com/karpathy/char-rnn/"
            "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
            sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            n_bytes=1_115_394,
            public_domain="the author died in 1616",
        ),
        # As in the Canterbury corpus; the tests of Brotli have a copy.
        Text(
            name="alice",
            title="Alice's Adventures in Wonderland",
            author="Lewis Carroll (1832-1898)",
            url="https://raw.githubusercontent.com/google/brotli/"
            "ed738e842d2fbdf2d6459e39267a633c4a9b2f5d/tests/testdata/alice29.txt",
            sha256="7467306ee0feed4971260f3c87421154a05be571d944e9cb021a5713700c38f0",
            n_bytes=152_089,
            public_domain="published in 1865; the author died in 1898",
        ),
    )
}


def fetch(text: str | Text, cache: str | Path | None = None) -> Path:
    """Return the file of a text; what is not in the cache yet is downloaded into it.

    A text is one of :data:`TEXTS` by its name, or a :class:`Text`. What was downloaded before the
    connection was cut is kept, and the next call goes on from there. Two processes may fetch the
    same text at once: one downloads it, the other waits.

    Raises ``ValueError`` for a name that is not in :data:`TEXTS`, :class:`FetchError` if the text
    cannot be had, and ``OSError`` if the cache folder (``cache``, or
    :func:`gptlib.downloads.files.folder`) cannot be written.
    """
    from filelock import FileLock  # here, as is stories below: both take long to import

    text = find(text) if isinstance(text, str) else text
    folder = files.prepare(cache)
    path = folder / f"{text.name}-{text.sha256[:12]}.txt"
    part = path.with_suffix(".part")
    with FileLock(path.with_suffix(".lock")):
        if _is_right(path, text):
            return path
        try:
            _download(text, part)
            if not _is_right(part, text):
                _refuse(text, part)
            part.replace(path)
        except FetchError:
            raise
        except OSError as error:
            raise files.unwritable(folder, error) from None
    return path


def find(name: str) -> Text:
    """Return the text of this name, or raise ``ValueError`` with the names that there are."""
    if name not in TEXTS:
        raise ValueError(f"there is no text {name!r}; there is {', '.join(sorted(TEXTS))}")
    return TEXTS[name]


def read(text: str | Text, cache: str | Path | None = None, *, or_stories: bool = False) -> str:
    """Return a text as a string, fetched if it is not in the cache.

    With ``or_stories``, a text that cannot be fetched is replaced by stories of about the same
    length, with a blank line between two, and a warning says so. Raises as :func:`fetch` does.
    """
    text = find(text) if isinstance(text, str) else text
    try:
        return fetch(text, cache).read_text(encoding="utf-8")
    except FetchError as error:
        if not or_stories:
            raise
        warnings.warn(f"{error}. Here are stories instead.", stacklevel=2)
    from gptlib import stories

    some = stories.sample(100)
    n = round(100 * text.n_bytes / len("\n\n".join(some)))
    return "\n\n".join(stories.sample(max(1, n)))


def _is_right(path: Path, text: Text) -> bool:
    if not path.is_file() or path.stat().st_size != text.n_bytes:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == text.sha256


def _refuse(text: Text, part: Path) -> None:
    """Delete what has arrived, and raise :class:`FetchError`."""
    n_bytes, digest = part.stat().st_size, hashlib.sha256(part.read_bytes()).hexdigest()
    part.unlink()
    raise FetchError(
        f"{text.url} is not what it was: {n_bytes:,} bytes with SHA-256 {digest}, where "
        f"{text.n_bytes:,} with {text.sha256} are expected; what arrived is deleted"
    )


def _download(text: Text, part: Path) -> None:
    """Add to a file what it lacks of a text; raise :class:`FetchError` if it stays incomplete."""
    with part.open("ab") as file:
        n_bytes = file.seek(0, os.SEEK_END)
        if n_bytes >= text.n_bytes:  # all is there already; whether it is right is seen later
            return
        with contextlib.closing(_open(text, n_bytes)) as response:
            goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {n_bytes}-")
            if not goes_on:  # it sends all of it, again or for the first time
                file.seek(0)
                file.truncate()
            why = _copy(response, file, text.n_bytes)
    n_bytes = part.stat().st_size
    if n_bytes < text.n_bytes:
        raise FetchError(
            f"the connection was cut after {n_bytes:,} of {text.n_bytes:,} bytes of {text.url}"
            f"{why}; what arrived is kept, and the next attempt goes on from there"
        )


def _open(text: Text, n_bytes: int) -> http.client.HTTPResponse:
    """Ask for a text from this byte on, or raise :class:`FetchError`."""
    headers = {"User-Agent": f"gptlib/{__version__}"}
    if n_bytes:
        headers["Range"] = f"bytes={n_bytes}-"
    request = urllib.request.Request(text.url, headers=headers)
    host = urlsplit(text.url).hostname
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and n_bytes:
            return _open(text, 0)  # there are fewer bytes than arrived before
        advice = "try again later" if error.code >= 500 else "it may have moved"
        raise FetchError(
            f"{host} answers {error.code} ({error.reason}) to {text.url}: {advice}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "reason", None) or error or type(error).__name__
        raise FetchError(
            f"{host} cannot be reached ({why}) to fetch {text.url}: is there a network?"
        ) from None
    return response


def _copy(response: http.client.HTTPResponse, file: BinaryIO, n_bytes: int) -> str:
    """Write what arrives, until it is more than there should be; return what cut it, if known."""
    while file.tell() <= n_bytes:
        try:
            block = response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            return f" ({error or type(error).__name__})"
        if not block:
            break
        file.write(block)
    return ""
