"""Text in, tokens out: what a tokenizer makes of any text, encodings side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import traitlets

from gptlib.widgets.base import Widget, one_of, well_formed

if TYPE_CHECKING:
    import tiktoken

ENCODINGS = ("gpt2", "stories")
LIMIT = 5_000
"""The widget shows at most this many characters, so that no paste can freeze it."""


class TokenExplorer(Widget):
    """Shows the tokens of ``text`` in GPT-2's encoding and in the stories' own, side by side.

    The reader may change the text; the trait ``text`` follows, and ``tokens`` with it. A special
    token such as ``<|endoftext|>`` in the text is ordinary text here.

    Raises ``ValueError`` for an encoding that does not exist, naming it and those that do.
    """

    _module = "token_explorer"

    text = traitlets.Unicode().tag(sync=True)
    encodings = traitlets.List(traitlets.Unicode()).tag(sync=True)
    tokens = traitlets.Dict().tag(sync=True)

    def __init__(self, text: str, encodings: Sequence[str] = ENCODINGS) -> None:
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {type(text).__name__}")
        names = [encodings] if isinstance(encodings, str) else list(encodings)
        super().__init__(text=text, encodings=names, tokens=tokenize(text, _check(names)))

    @traitlets.validate("encodings")
    def _check_encodings(self, proposal: dict[str, Any]) -> list[str]:
        return _check(proposal["value"])

    @traitlets.validate("text")
    def _check_text(self, proposal: dict[str, Any]) -> str:
        return well_formed(proposal["value"])

    @traitlets.observe("text", "encodings")
    def _update(self, change: dict[str, Any]) -> None:
        if self.encodings:
            self.tokens = tokenize(self.text, self.encodings)

    def state(self) -> dict[str, Any]:
        """Return the text and its tokens; lists are packed into strings, which keep files small."""
        packed: dict[str, Any] = {"text": self.tokens["text"]}
        for name in self.encodings:
            lists = self.tokens[name].items()
            packed[name] = {key: " ".join(map(str, values)) for key, values in lists}
        return {"text": self.text, "encodings": list(self.encodings), "tokens": packed}

    def describe(self) -> str:
        """Say in words how many tokens each encoding makes of the text."""
        counts = [
            f"{name} makes {len(self.tokens[name]['ids']):,} tokens of it"
            for name in self.encodings
        ]
        shown = self.tokens["text"]
        start = shown if len(shown) <= 60 else shown[:59] + "…"
        return (
            f"Token explorer: the text {start!r} has {len(shown):,} characters and "
            f"{len(shown.encode()):,} bytes; " + ", ".join(counts) + "."
        )


def tokenize(text: str, encodings: Sequence[str]) -> dict[str, Any]:
    """Return the first ``LIMIT`` characters of a text and their tokens in each encoding.

    Tokens are given by their ids and by how many bytes of the text's UTF-8 each one takes.
    """
    shown = well_formed(text[:LIMIT])
    tokens: dict[str, Any] = {"text": shown}
    for name in encodings:
        ids = _encoding(name).encode_ordinary(shown)
        lengths = [len(_encoding(name).decode_single_token_bytes(i)) for i in ids]
        tokens[name] = {"ids": ids, "lengths": lengths}
    return tokens


@cache
def _encoding(name: str) -> tiktoken.Encoding:
    from gptlib import tokenizer

    return tokenizer.gpt2() if name == "gpt2" else tokenizer.stories()


def _check(names: Sequence[str]) -> list[str]:
    if not names:
        raise ValueError(f"encodings must name at least one of {', '.join(ENCODINGS)}")
    for name in names:
        one_of("encodings", name, ENCODINGS)
    if len(set(names)) < len(names):
        raise ValueError(f"encodings must not repeat a name, not {list(names)!r}")
    return list(names)
