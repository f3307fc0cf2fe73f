"""What the best possible predictor of the stories loses, token by token.

The grammar knows the probability of every story. So it also knows how probable each next token
is: of all the stories whose tokens begin like those read so far, the share that goes on with it.
No model can lose less on average. ``surprisals`` says what this predictor loses at each token of
a story; all together, that is minus the story's log-probability.
"""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, SupportsIndex

import regex
import tiktoken

from gptlib import characters, stories
from gptlib.stories.engine import Memory, begin, resolve
from gptlib.stories.notation import Draw, Grammar, Item, Line


class Surprisal(NamedTuple):
    """A token, what the best predictor loses at it, and what it must expect to lose there.

    ``token`` is an id, ``surprisal`` is -log p(token | the tokens before it), in nats, and
    ``entropy`` the mean of the surprisal over all tokens that may come there, in nats.
    """

    token: int
    surprisal: float
    entropy: float


def surprisals(story: str, encoding: tiktoken.Encoding) -> list[Surprisal]:
    """Return the exact surprisal and entropy at each token of a story, its end-of-text included.

    The surprisals add up to ``-stories.log_prob(story)``. That of the end-of-text is 0: no story
    is the beginning of another one.

    Raises:
        TypeError: ``story`` is not a str, or ``encoding`` not a tiktoken.Encoding.
        ValueError: ``story`` is not a whole story; the message says where it goes wrong.
    """
    if not isinstance(story, str):
        raise TypeError(f"story is a str, not {type(story).__name__}: {story!r:.80}")
    follower = Follower(encoding)
    ids = (*characters.encode(encoding, story), encoding.eot_token)
    return [follower.read(token) for token in ids]


def next_token(ids: Iterable[SupportsIndex], encoding: tiktoken.Encoding) -> dict[int, float]:
    """Return the exact probability of each token that may follow ``ids``, the most probable first.

    ``ids``, a list or a tensor, begin a story, with no end-of-text before it: ``[]`` asks for its
    first token.

    Raises:
        TypeError: ``ids`` is a text or not of integers, or ``encoding`` not a tiktoken.Encoding.
        ValueError: no story's tokens begin with ``ids``; the message says where it goes wrong.
    """
    if isinstance(ids, (str, bytes)):
        raise TypeError(f"ids are token ids, not {type(ids).__name__}: encode {ids!r:.80} first")
    follower = Follower(encoding)
    for token in ids:
        follower.read(operator.index(token))
    return dict(sorted(follower.next.items(), key=lambda pair: -pair[1]))


@dataclass(frozen=True)
class Telling:
    """A story half told, in one of the ways that agree with the tokens read so far.

    Attributes:
        probability: of this way, given those tokens.
        tokens: those that come next, as far as they are decided: the rest of a piece.
        text: what is said after them, not yet cut into pieces.
        items: what the grammar has still to say.
        memory: what it has remembered.
    """

    probability: float
    tokens: tuple[int, ...]
    text: str
    items: tuple[Item, ...]
    memory: Memory

    def on(self) -> Iterator[Telling]:
        """Say the next item, in each way that is open."""
        item, rest = self.items[0], self.items[1:]
        if not isinstance(item, Draw):
            said = item if isinstance(item, str) else item.says[self.memory[item.name]]
            yield replace(self, text=self.text + said, items=rest)
            return
        choice = resolve(item, self.memory)
        for option in choice.options:
            share = self.probability * option.weight / choice.total
            known = {**self.memory, item.name: option} if item.name else self.memory
            if isinstance(option, Line):
                yield Telling(share, self.tokens, self.text, option.items + rest, known)
            else:
                said = choice.spoken(item.style).says[option]
                yield Telling(share, self.tokens, self.text + said, rest, known)


class Follower:
    """Reads a story token by token, and knows before each one how probable every token is.

    It keeps all tellings that agree with the tokens so far. They are few: where the grammar
    chooses, no option begins like another one, so the text soon leaves a single telling. And a
    telling goes on only until its next token is decided. Tokens depend on what follows, but only
    inside the pieces that the encoding cuts a text into; so that is to the end of a piece.

    Attributes:
        next: the probability of each token that may come next; empty after the end-of-text.
    """

    next: dict[int, float]

    def __init__(self, encoding: tiktoken.Encoding, grammar: Grammar | None = None) -> None:
        if not isinstance(encoding, tiktoken.Encoding):
            raise TypeError(
                f"encoding is a tiktoken.Encoding, not {type(encoding).__name__}: {encoding!r:.80}"
            )
        characters.end_of_text(encoding)  # or an error that says that there is none
        self._encoding = encoding
        is_byte_level = characters.is_byte_level(encoding)
        self._tokens = (
            encoding.encode_ordinary if is_byte_level else partial(characters.encode, encoding)
        )
        self._piece = regex.compile(encoding._pat_str).match
        self._ids: list[int] = []  # the tokens read
        self._keep([Telling(1.0, (), "", begin(grammar or stories.grammar()), {})])

    def read(self, token: int) -> Surprisal:
        """Go on by one token; return how surprising it was.

        Raises:
            ValueError: no story goes on with it.
        """
        if token not in self.next:
            raise ValueError(self._lost(token))
        p = self.next[token]
        entropy = -math.fsum(q * math.log(q) for q in self.next.values())
        self._ids.append(token)
        self._keep(
            replace(telling, probability=telling.probability / p, tokens=telling.tokens[1:])
            for telling in self._tellings
            if telling.tokens[0] == token != self._encoding.eot_token
        )
        return Surprisal(token, max(0.0, -math.log(p)), max(0.0, entropy))

    def _keep(self, tellings: Iterable[Telling]) -> None:
        self._tellings = [longer for telling in tellings for longer in self._decided(telling)]
        shares: defaultdict[int, float] = defaultdict(float)
        for telling in self._tellings:
            shares[telling.tokens[0]] += telling.probability
        self.next = dict(shares)

    def _decided(self, telling: Telling) -> Iterator[Telling]:
        """Go on, in every way, until the next token is decided."""
        text, items = telling.text, telling.items
        if telling.tokens:
            yield telling
        elif not text and not items:
            yield replace(telling, tokens=(self._encoding.eot_token,))
        # A slot of a grammar is a whole word, so what is said next never changes a piece that
        # ends before the text does.
        elif (piece := self._piece(text)) and (piece.end() < len(text) or not items):
            tokens = tuple(self._tokens(piece.group()))
            yield replace(telling, tokens=tokens, text=text[piece.end() :])
        else:
            for longer in telling.on():
                yield from self._decided(longer)

    def _lost(self, token: int) -> str:
        """Say where the tokens are no longer those of a story, and what would have been."""
        before = self._encoding.decode(self._ids)
        known = token in range(self._encoding.n_vocab)
        found = repr(self._encoding.decode([token])) if known else f"id {token!r}"
        likely = sorted(self.next, key=lambda other: -self.next[other])
        wanted = [repr(self._encoding.decode([other])) for other in likely[:5]] or ["nothing"]
        wanted += [f"{len(likely) - 5} others"] if len(likely) > 5 else []
        return (
            f"no story goes on like this: token {len(self._ids)} is {found}, at character "
            f"{len(before)}, after {before[-40:]!r}; expected {', '.join(wanted)}"
        )
