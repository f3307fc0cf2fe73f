"""What can be computed exactly with a story grammar: samples, probabilities, counts, entropy.

Everything here walks a ``notation.Grammar``, which has been proven unambiguous when it
was parsed; nothing here knows a word of the stories themselves.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, TypeAlias, TypeVar

from gptlib.stories.notation import (
    Choice,
    Draw,
    Grammar,
    Item,
    Line,
    Mention,
    Opening,
    Option,
    Style,
)

Memory: TypeAlias = dict[str, Option]  # what has been remembered so far, by variable
Value = TypeVar("Value")

_WORD = re.compile(r"(?<!['A-Za-z])[A-Za-z]+(?:-[A-Za-z]+)*(?:'[a-z]+)?")


def words_in(text: str) -> list[str]:
    """List the words of a text; a hyphen may be inside one, a possessive 's is not part of it."""
    return [word.removesuffix("'s") for word in _WORD.findall(text)]


def resolve(draw: Draw, memory: Memory) -> Choice:
    """Find the list or rule that a draw takes from, given what has been remembered."""
    switch = draw.switch
    choice = draw.targets[memory[switch[0]].value(switch[1]) if switch else ""]
    return choice.without(memory[draw.exclude]) if draw.exclude else choice


def begin(grammar: Grammar) -> tuple[Item, ...]:
    """Return all that a story has to say before anything is said: the draw it begins with."""
    start = grammar.start
    return (Draw(start.name, None, "", "", Style(), {"": start}),)


# ---------------------------------------------------------------------------------------
# Telling
# ---------------------------------------------------------------------------------------


def tell(grammar: Grammar, random: Callable[[], float]) -> str:
    """One story, drawn with ``random``, a function that returns floats in [0, 1)."""
    pieces: list[str] = []
    memory: Memory = {}

    def say(items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, str):
                pieces.append(item)
            elif isinstance(item, Mention):
                pieces.append(item.says[memory[item.name]])
            else:
                choice = resolve(item, memory)
                pick = bisect_right(choice.cumulative, random() * choice.total)
                option = choice.options[pick]
                if item.name:
                    memory[item.name] = option
                if isinstance(option, Line):
                    say(option.items)
                else:
                    pieces.append(choice.spoken(item.style).says[option])

    say(begin(grammar))
    return "".join(pieces)


# ---------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------


class LostError(Exception):
    """The text does not go on as any story would; the argument is the offset where."""


def log_prob(grammar: Grammar, text: str) -> float:
    """Return the natural log of a text's probability; -inf when the grammar cannot tell it."""
    reader = Reader(grammar, text)
    try:
        end = reader.line(reader.choose(grammar.start, 0), 0)
    except LostError:
        return -math.inf
    return math.fsum(reader.terms) if end == len(text) else -math.inf


class Reader:
    """Follows the one path through the grammar that can lead to a text."""

    def __init__(self, grammar: Grammar, text: str) -> None:
        self.text = text
        self.memory: Memory = {}
        self.terms: list[float] = []  # the log-probability of each choice on the path
        self.openings = grammar.openings

    def line(self, line: Line, position: int) -> int:
        """Read a line from ``position``; the offset after it."""
        text, memory = self.text, self.memory
        for item in line.items:
            if isinstance(item, Draw):
                position = self.draw(item, position)
            else:
                want = item if isinstance(item, str) else item.says[memory[item.name]]
                if text.startswith(want, position):
                    position += len(want)
                else:
                    position = self.missed(item, position)
        return position

    def missed(self, item: str | Mention, position: int) -> int:
        """Go on after ``item`` although the text does not say it, or raise LostError."""
        raise LostError(position)

    def draw(self, draw: Draw, position: int) -> int:
        """Read what a draw says, remember it if the draw does; the offset after it."""
        choice = resolve(draw, self.memory)
        option: Option
        if choice.is_rule:
            option = self.choose(choice, position)
        else:
            found = choice.spoken(draw.style).read(self.text, position)
            if not found:
                raise LostError(position)
            option, end = found
            self.terms.append(choice.log_prob[option])
        if draw.name:
            self.memory[draw.name] = option
        return self.line(option, position) if isinstance(option, Line) else end

    def choose(self, rule: Choice, position: int) -> Line:
        """Find the one alternative whose opening stands at ``position``."""
        for option in rule.options:
            assert isinstance(option, Line)
            if self.begins(option, position):
                self.terms.append(rule.log_prob[option])
                return option
        return self.stray(rule, position)

    def stray(self, rule: Choice, position: int) -> Line:
        """Choose although no alternative stands at ``position``, or raise LostError."""
        raise LostError(position)

    def begins(self, line: Line, position: int) -> bool:
        """Whether the line begins at ``position``, as far as the text tells."""
        return any(self.stands(opening, position) for opening in self.openings[line])

    def stands(self, opening: Opening, position: int) -> bool:
        """Whether the text says exactly this opening at ``position``."""
        for part in opening:
            want = part if isinstance(part, str) else part.says[self.memory[part.name]]
            if not self.text.startswith(want, position):
                return False
            position += len(want)
        return True


# ---------------------------------------------------------------------------------------
# Searching: slow, and blind to the proof that the fast reader relies on
# ---------------------------------------------------------------------------------------


@dataclass
class Search:
    """An exhaustive search for every derivation of a text.

    It tries all options at every choice, so it finds a second derivation if there is one, and
    it knows how far any story agrees with the text.

    Attributes:
        furthest: length of the longest prefix of the text that also begins some story.
        wanted: what some story has at ``furthest``, as (offset, text from that offset).
    """

    text: str
    furthest: int = 0
    wanted: set[tuple[int, str]] = field(default_factory=set)

    def derivations(self, grammar: Grammar) -> Iterator[float]:
        """Yield the log-probability of each derivation of the text."""
        return self._walk(begin(grammar), 0, {}, 0.0)

    def _walk(
        self, items: tuple[Item, ...], position: int, memory: Memory, total: float
    ) -> Iterator[float]:
        for i, item in enumerate(items):
            if isinstance(item, Draw):
                yield from self._branch(item, items[i + 1 :], position, memory, total)
                return
            want = item if isinstance(item, str) else item.says[memory[item.name]]
            if not self._agrees(want, position):
                return
            position += len(want)
        if position == len(self.text):
            yield total
        else:
            self._note(position, position, END)

    def _branch(
        self, draw: Draw, rest: tuple[Item, ...], position: int, memory: Memory, total: float
    ) -> Iterator[float]:
        choice = resolve(draw, memory)
        for option in choice.options:
            known = {**memory, draw.name: option} if draw.name else memory
            sum_ = total + choice.log_prob[option]
            if isinstance(option, Line):
                yield from self._walk(option.items + rest, position, known, sum_)
            else:
                want = choice.spoken(draw.style).says[option]
                if self._agrees(want, position):
                    yield from self._walk(rest, position + len(want), known, sum_)

    def _agrees(self, want: str, position: int) -> bool:
        if self.text.startswith(want, position):
            return True
        common = 0
        while self.text[position + common : position + common + 1] == want[common]:
            common += 1
        self._note(position + common, position, want)
        return False

    def _note(self, reached: int, position: int, want: str) -> None:
        if reached > self.furthest:
            self.furthest, self.wanted = reached, set()
        if reached == self.furthest:
            self.wanted.add((position, want))


END = "\0"  # what ``Search.wanted`` holds where a story ends


def every(grammar: Grammar) -> Iterator[tuple[str, float]]:
    """All derivations of a small grammar, each as (text, log-probability)."""

    def walk(
        items: tuple[Item, ...], text: str, memory: Memory, total: float
    ) -> Iterator[tuple[str, float]]:
        for i, item in enumerate(items):
            if isinstance(item, str):
                text += item
            elif isinstance(item, Mention):
                text += item.says[memory[item.name]]
            else:
                choice = resolve(item, memory)
                for option in choice.options:
                    known = {**memory, item.name: option} if item.name else memory
                    sum_ = total + choice.log_prob[option]
                    if isinstance(option, Line):
                        yield from walk(option.items + items[i + 1 :], text, known, sum_)
                    else:
                        said = text + choice.spoken(item.style).says[option]
                        yield from walk(items[i + 1 :], said, known, sum_)
                return
        yield text, total

    return walk(begin(grammar), "", {}, 0.0)


# ---------------------------------------------------------------------------------------
# Summing over all stories, without listing them
# ---------------------------------------------------------------------------------------

# A fact is ((variable, form), value). A state is all that later choices depend on.
Keys: TypeAlias = frozenset[tuple[str, str]]
State: TypeAlias = frozenset[tuple[tuple[str, str], str]]


def count(grammar: Grammar) -> int:
    """Count the derivations, and so the stories, since each story has one."""
    return _fold(grammar, 1, lambda p: 1, lambda a, b: a * b, lambda a, b: a + b)


def entropy(grammar: Grammar) -> float:
    """Return the entropy of a story in nats: the mean of -log p over all of them, exactly.

    Carries pairs (p, h), where p is the probability of arriving somewhere and h is the sum of
    -p log p(path) over the ways to arrive. In sequence: (p, h)(q, g) = (pq, pg + qh).
    """
    p, h = _fold(
        grammar,
        (1.0, 0.0),
        lambda p: (p, -p * math.log(p)),
        lambda a, b: (a[0] * b[0], a[0] * b[1] + b[0] * a[1]),
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
    )
    assert math.isclose(p, 1.0, rel_tol=1e-9), p
    return h


def _fold(
    grammar: Grammar,
    one: Value,
    step: Callable[[float], Value],
    times: Callable[[Value, Value], Value],
    plus: Callable[[Value, Value], Value],
) -> Value:
    """Sum over all derivations the product of ``step(p)`` over their choices.

    Stories that agree on every fact that a later choice depends on are kept together, so the
    sum walks the grammar once, not the stories.
    """
    fold = _Fold(step, times, plus)
    (total,) = fold.walk(begin(grammar), {frozenset(): one}, frozenset()).values()
    return total


class _Fold(Generic[Value]):
    """A sum over derivations, carried as one partial sum for each state of the facts."""

    def __init__(
        self,
        step: Callable[[float], Value],
        times: Callable[[Value, Value], Value],
        plus: Callable[[Value, Value], Value],
    ) -> None:
        self.step, self.times, self.plus = step, times, plus
        self.needs = _Needs()

    def walk(
        self, items: Sequence[Item], states: dict[State, Value], later: Keys
    ) -> dict[State, Value]:
        """Carry the sums past ``items``, split by the facts that something ``later`` needs."""
        for i, item in enumerate(items):
            if not isinstance(item, Draw):
                continue
            live = self.needs.of(items[i + 1 :]) | later
            merged: dict[State, Value] = {}
            for option, arrived in self.branch(item, states, live).items():
                if isinstance(option, Line):
                    arrived = self.walk(option.items, arrived, live)
                for state, value in arrived.items():
                    known = frozenset(fact for fact in state if fact[0] in live)
                    self.add(merged, known, value)
            states = merged
        return states

    def branch(
        self, draw: Draw, states: dict[State, Value], live: Keys
    ) -> dict[Option, dict[State, Value]]:
        """Split the sums by the options of a draw, adding what the draw remembers."""
        branches: dict[Option, dict[State, Value]] = {}
        forms = [form for name, form in live if name == draw.name]
        for state, value in states.items():
            choice = _resolve_fact(draw, dict(state))
            for option in choice.options:
                new = {((draw.name, form), option.value(form)) for form in forms}
                product = self.times(value, self.step(option.weight / choice.total))
                self.add(branches.setdefault(option, {}), state | new, product)
        return branches

    def add(self, sums: dict[State, Value], state: State, value: Value) -> None:
        """Add to the sum of a state."""
        sums[state] = self.plus(sums[state], value) if state in sums else value


def _resolve_fact(draw: Draw, facts: dict[tuple[str, str], str]) -> Choice:
    """``resolve`` for a summary of what has been remembered."""
    choice = draw.targets[facts[draw.switch] if draw.switch else ""]
    if draw.exclude:
        text = facts[draw.exclude, ""]
        for option in choice.options:
            if option.value("") == text:
                return choice.without(option)
    return choice


class _Needs:
    """Which facts the choices in a stretch of a story depend on."""

    def __init__(self) -> None:
        self._lines: dict[Line, Keys] = {}

    def of(self, items: Sequence[Item]) -> Keys:
        """Collect the facts that the draws in ``items``, and in what they open, depend on."""
        facts: set[tuple[str, str]] = set()
        for item in items:
            if isinstance(item, Draw):
                facts |= {item.switch} if item.switch else set()
                facts |= {(item.exclude, "")} if item.exclude else set()
                for choice in item.targets.values():
                    for option in choice.options:
                        if isinstance(option, Line):
                            facts |= self.line(option)
        return frozenset(facts)

    def line(self, line: Line) -> Keys:
        """Collect those of a line, once."""
        if line not in self._lines:
            self._lines[line] = self.of(line.items)
        return self._lines[line]


@lru_cache(maxsize=8)
def vocabulary(grammar: Grammar) -> frozenset[str]:
    """All different words; a capital stays only where the word never goes without it."""
    said: set[str] = set()
    for line in grammar.lines():
        for item in line.items:
            if isinstance(item, str):
                said.update(words_in(item))
            elif isinstance(item, Mention):
                said.update(word for text in item.says.values() for word in words_in(text))
            else:
                for choice in item.targets.values():
                    for option in choice.options:
                        if not isinstance(option, Line):
                            text = item.style.dress(option.text)
                            said.update(words_in(text))
    return frozenset(word for word in said if word == word.lower() or word.lower() not in said)
