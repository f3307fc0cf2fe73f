"""Text files, read part by part: as text, and as the stream of tokens that a training reads."""

from __future__ import annotations

import codecs
import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tiktoken import Encoding
from torch import Tensor

from gptlib import characters
from gptlib.downloads import files
from gptlib.tokenizer import END_OF_TEXT

#: A text file of this many bytes or more is encoded into a file, and read from there.
LARGE_FILE = 16 * 2**20

_BYTES_AT_ONCE = 2**20
#: What stands between the texts of a file: a line of END_OF_TEXT alone, or END_OF_TEXT in a line.
_SEPARATOR = re.compile(rf"(?m)^{re.escape(END_OF_TEXT)}\n|{re.escape(END_OF_TEXT)}")


def read_text(path: str | Path, at_most: int | None = None) -> str:
    """Return what a text file (UTF-8) says, or about the first ``at_most`` characters of it.

    Every line end becomes a line feed; a byte order mark is left out. Raises as
    :func:`file_stream` does.
    """
    parts: list[str] = []
    for part in _decoded(_checked(path)):
        parts.append(part)
        if at_most is not None and sum(map(len, parts)) >= at_most:
            break
    return "".join(parts)[:at_most]


def file_stream(path: str | Path, encoding: Encoding, cache: str | Path | None = None) -> Tensor:
    """Encode a text file (UTF-8) into one stream (int32): end-of-text, the text, end-of-text.

    Where the file has END_OF_TEXT, in a line of its own or within one, a text ends and another
    begins; the stream has the token there, once.

    A file of :data:`LARGE_FILE` bytes or more is encoded only once, into a file in the folder
    ``cache`` (the course's own if it is None), and the stream is that file, mapped into memory:
    what is not read takes none. Every line end becomes a line feed; a byte order mark is left out.

    Raises ``FileNotFoundError`` if there is no such file, ``ValueError`` if it is a folder, is
    empty, or is not UTF-8, all naming the path, and ``OSError`` if the cache cannot be written.
    """
    path = _checked(path)
    if path.stat().st_size < LARGE_FILE:
        return torch.from_numpy(np.concatenate(list(_encoded(path, encoding))))
    folder = files.prepare(cache)
    tokens = folder / f"tokens-{_digest(path, encoding)}.int32"
    if not _is_whole(tokens, characters.end_of_text(encoding)):
        with files.writing(tokens) as file:
            for ids in _encoded(path, encoding):
                file.write(ids.data)
    size = tokens.stat().st_size // np.dtype(np.int32).itemsize
    return torch.from_file(str(tokens), shared=False, size=size, dtype=torch.int32)


def without_separators(text: str) -> str:
    """Return a text with a line feed for each END_OF_TEXT: to learn a vocabulary from."""
    return _SEPARATOR.sub("\n", text)


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a text file")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} can be read once only: save what it says as a file")
    return path


def _encoded(path: Path, encoding: Encoding) -> Iterator[NDArray[np.int32]]:
    """Yield the stream of a text file, piece by piece."""
    end_of_text = np.array([characters.end_of_text(encoding)], dtype=np.int32)
    yield end_of_text
    has_ended = True
    for piece in _pieces(_decoded(path)):
        for number, text in enumerate(_SEPARATOR.split(piece)):
            if number and not has_ended:
                yield end_of_text
                has_ended = True
            if text:
                yield np.array(characters.encode(encoding, text), dtype=np.int32)
                has_ended = False
    if not has_ended:
        yield end_of_text


def _pieces(parts: Iterable[str]) -> Iterator[str]:
    """Cut a text that comes in parts where no token is cut: before a blank that follows a sign.

    No piece of GPT-2's pattern goes on from a sign to a blank, nor does it look that far ahead, so
    the pieces have the tokens of the whole. A text without blanks stays whole.
    """
    waiting: list[str] = []
    for part in parts:
        place = _last_cut(part)
        if place:
            yield "".join((*waiting, part[:place]))
            waiting.clear()
        waiting.append(part[place:])
    if rest := "".join(waiting):
        yield rest


def _last_cut(part: str) -> int:
    """Return the last place in a text where it can be cut, or 0."""
    for place in range(len(part) - 1, 0, -1):
        before = part[place - 1]  # END_OF_TEXT ends in ">": the line feed after it belongs to it
        if part[place] in " \n" and before != ">" and not before.isspace():
            return place
    return 0


def _decoded(path: Path) -> Iterator[str]:
    """Yield what a text file says, part by part, every line end as a line feed."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = io.IncrementalNewlineDecoder(decoder, translate=True)
    n_read, is_empty = 0, True
    with path.open("rb") as file:
        while True:
            data = file.read(_BYTES_AT_ONCE)
            n_read += len(data)
            try:
                text = lines.decode(data, final=not data)
            except UnicodeDecodeError as error:
                place = n_read - len(error.object) + error.start  # some bytes came the time before
                raise ValueError(
                    f"{path} is not UTF-8: {error.reason} at byte {place:,} "
                    f"(0x{error.object[error.start]:02x})"
                ) from None
            if is_empty:
                text = text.removeprefix("\ufeff")
            is_empty = is_empty and not text
            yield text
            if not data:
                break
    if is_empty:
        raise ValueError(f"{path} is empty")


def _digest(path: Path, encoding: Encoding) -> str:
    """Return the SHA-256 of a file and of all that decides how it is encoded."""
    ranks = sorted(encoding._mergeable_ranks.items(), key=lambda item: item[1])
    specials = sorted(encoding._special_tokens.items())
    rules = (encoding._pat_str, ranks, specials, _SEPARATOR.pattern)
    digest = hashlib.sha256(repr(rules).encode())
    with path.open("rb") as file:
        while data := file.read(_BYTES_AT_ONCE):
            digest.update(data)
    return digest.hexdigest()


def _is_whole(tokens: Path, end_of_text: int) -> bool:
    """Say whether a file of tokens is there, and begins and ends as one must."""
    if not tokens.exists() or tokens.stat().st_size < 8 or tokens.stat().st_size % 4:
        return False
    with tokens.open("rb") as file:
        first = file.read(4)
        file.seek(-4, io.SEEK_END)
        return first == file.read(4) == np.int32(end_of_text).tobytes()
