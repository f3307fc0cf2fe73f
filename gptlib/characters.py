"""Vocabularies whose tokens are characters, and what a vocabulary without every byte can encode.

A byte-level vocabulary has a token for each byte, so it encodes any text. One of characters has
those of a text alone: the smallest vocabulary there is, and the quickest to train a model with.
"""

from __future__ import annotations

from collections.abc import Sequence

import regex
import tiktoken

from gptlib.tokenizer import END_OF_TEXT

#: Each character is a piece of its own, line feeds too.
PATTERN = r"[\s\S]"


def vocabulary(text: str) -> tiktoken.Encoding:
    """Return the vocabulary of a text's characters, in their order, END_OF_TEXT last.

    Raises ``ValueError`` for a text without characters, or with half of one (a lone surrogate).
    """
    if not text:
        raise ValueError("a vocabulary of characters needs a text with at least one")
    found = sorted(set(text))
    try:
        tokens = [character.encode() for character in found]
    except UnicodeEncodeError as error:
        raise ValueError(f"the text has a lone surrogate, {error.object!r}") from None
    return tiktoken.Encoding(
        f"characters-{len(tokens) + 1}",
        pat_str=PATTERN,
        mergeable_ranks={token: number for number, token in enumerate(tokens)},
        special_tokens={END_OF_TEXT: len(tokens)},
    )


def is_byte_level(encoding: tiktoken.Encoding) -> bool:
    """Say whether each byte is a token, so that the encoding has tokens for any text."""
    ranks = encoding._mergeable_ranks
    return all(bytes([byte]) in ranks for byte in range(256))


def encode(encoding: tiktoken.Encoding, text: str) -> list[int]:
    """Return the tokens of a text, special tokens being text like any other.

    Raises ``ValueError`` for a character that the encoding has no token for: tiktoken panics there,
    with an error that is no ``Exception``.
    """
    if not is_byte_level(encoding):
        _require_tokens(encoding, text)
    return encoding.encode_ordinary(text)


def encode_batch(encoding: tiktoken.Encoding, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each text, in several threads; raises as :func:`encode` does."""
    if not is_byte_level(encoding):
        return [encode(encoding, text) for text in texts]
    return encoding.encode_ordinary_batch(list(texts))


def end_of_text(encoding: tiktoken.Encoding) -> int:
    """Return the token between texts, or raise ``ValueError`` if the encoding has none."""
    if END_OF_TEXT not in encoding.special_tokens_set:
        has = ", ".join(sorted(encoding.special_tokens_set)) or "it has none"
        raise ValueError(
            f"the encoding {encoding.name!r} has no special token {END_OF_TEXT}, which begins and "
            f"ends a text ({has})"
        )
    return encoding.eot_token


def _require_tokens(encoding: tiktoken.Encoding, text: str) -> None:
    ranks = encoding._mergeable_ranks
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # as tiktoken does
    for piece in dict.fromkeys(regex.findall(encoding._pat_str, text)):
        data = piece.encode()
        if data in ranks or all(bytes([byte]) in ranks for byte in data):
            continue
        lacking = next((sign for sign in piece if sign.encode() not in ranks), piece)
        raise ValueError(
            f"the encoding {encoding.name!r} has no token for {lacking!r}: it has "
            f"{len(ranks):,} tokens, and not every byte is one of them"
        )
