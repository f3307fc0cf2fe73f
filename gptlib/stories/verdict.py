"""How far does a text follow the story grammar? A verdict that is useful on near misses.

Two readings of the text give the answer. A strict one finds the first place where no story
goes on like the text. A lenient one reads on where a name, a pronoun or the thing is not the
one that was told before, and notes the slip; where even it loses the thread, the rest of the
text is searched for words that contradict what was told.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from gptlib.stories.engine import (
    END,
    LostError,
    Memory,
    Reader,
    Search,
    log_prob,
    vocabulary,
    words_in,
)
from gptlib.stories.notation import Choice, Draw, Grammar, Line, Mention, Opening

PEOPLE = "child"  # the list whose words are names and whose other forms are pronouns
COLOR = "color"  # a thing is what is drawn and remembered right after a word of this list
Kind = Literal["names", "pronouns", "object"]


@dataclass(frozen=True)
class Verdict:
    """How far a text follows the grammar of the stories.

    Attributes:
        parses: the whole text is a story that the grammar can tell.
        log_prob: natural log of its probability; -inf unless it parses.
        fails_at: None if it parses; else the length of the longest beginning of the text that
            also begins some story, so ``text[fails_at]`` is the first character that cannot
            stand there. It is ``len(text)`` when the text breaks off.
        expected: at most five examples of what some story has there, from the start of the
            word that ``fails_at`` falls into; empty if the text parses.
        names: two children are introduced, each place that calls for one of them by name has
            that name, and no other name and no unknown capitalized word appears.
        pronouns: a child is introduced, each place that calls for a pronoun has the one of
            the child it refers to, and no pronoun of a gender that neither child has appears.
        object: a thing and its color are introduced, and wherever the story calls for them
            again, the same thing and the same color stand.

    The three flags do not need the text to parse. Where the text leaves every path of the
    grammar, what it should say is unknown; from there on, ``names`` and ``pronouns`` go by
    the words alone, and ``object`` is false if a color other than the told ones stands, or a
    told thing with another's color. A flag is false if what it is about was never introduced.
    """

    parses: bool
    log_prob: float
    fails_at: int | None
    expected: tuple[str, ...]
    names: bool
    pronouns: bool
    object: bool

    @property
    def consistent(self) -> bool:
        """Whether names, pronouns and object all are."""
        return self.names and self.pronouns and self.object

    def __str__(self) -> str:
        if self.parses:
            first = f"a story (log-probability {self.log_prob:.2f})"
        else:
            wanted = " or ".join(repr(text) for text in self.expected)
            first = f"not a story: fails at character {self.fails_at}, expected {wanted}"
        flags = (("names", self.names), ("pronouns", self.pronouns), ("object", self.object))
        marks = ", ".join(f"{name} {'✓' if holds else '✗'}" for name, holds in flags)
        return f"{first}; {marks}"


def judge_text(grammar: Grammar, text: str) -> Verdict:
    """Return the verdict on a text; see ``Verdict``."""
    value = log_prob(grammar, text)
    if value > -math.inf:
        return Verdict(True, value, None, (), True, True, True)
    search = Search(text)
    for _ in search.derivations(grammar):
        raise AssertionError(f"the reader missed a derivation of {text!r}")
    slips = _slips(grammar, text)
    return Verdict(
        parses=False,
        log_prob=-math.inf,
        fails_at=search.furthest,
        expected=_expected(search),
        names="names" not in slips,
        pronouns="pronouns" not in slips,
        object="object" not in slips,
    )


def _expected(search: Search) -> tuple[str, ...]:
    """Short examples of what could stand at the point of failure."""
    text = search.text
    start = max(text.rfind(" ", 0, search.furthest), text.rfind("\n", 0, search.furthest)) + 1
    examples: dict[str, None] = {}
    for position, want in sorted(search.wanted):
        if want == END:
            examples["the end of the story"] = None
        else:
            want = text[start:position] + want[max(0, start - position) :]
            examples[" ".join(want.split(" ")[:3]).strip()] = None
    return tuple(examples)[:5]


# ---------------------------------------------------------------------------------------
# The lenient reading
# ---------------------------------------------------------------------------------------


def _slips(grammar: Grammar, text: str) -> set[Kind]:
    """Which of the three kinds are contradicted, or never introduced."""
    listener = _Listener(grammar, text)
    try:
        end = listener.line(listener.choose(grammar.start, 0), 0)
    except LostError as lost:
        end = lost.args[0]
    # Whole words only: back to the start of the one at hand, and without a last one that may
    # have been cut off.
    rest = re.sub(r"[A-Za-z'-]+$", "", text[text.rfind(" ", 0, end) + 1 :])
    return listener.slips | _Rest(grammar, listener.memory, rest).slips()


@lru_cache(maxsize=8)
def _things(grammar: Grammar) -> frozenset[str]:
    """Name the lists that things come from."""
    lists: set[str] = set()
    for line in grammar.lines():
        for color, space, thing in zip(line.items, line.items[1:], line.items[2:], strict=False):
            if not (isinstance(color, Draw) and color.source == COLOR and space == " "):
                continue
            if isinstance(thing, Draw) and thing.name:
                lists |= {choice.name for choice in thing.targets.values()}
    return frozenset(lists)


class _Listener(Reader):
    """A reader that forgives a wrong name, pronoun or thing, and takes a note of it."""

    def __init__(self, grammar: Grammar, text: str) -> None:
        super().__init__(grammar, text)
        self.grammar = grammar
        self.lists = {
            name: {choice.name for choice in lists} for name, lists in grammar.variables.items()
        }
        self.slips: set[Kind] = set()

    def missed(self, item: str | Mention, position: int) -> int:
        end = None if isinstance(item, str) else self._forgive(item, position)
        if end is None:
            raise LostError(position)
        assert isinstance(item, Mention)
        kind = self._kind(item)
        if kind:
            self.slips.add(kind)
        return end

    def stray(self, rule: Choice, position: int) -> Line:
        """Choose the alternative that needs the least forgiving, then the longest agreement."""
        best: tuple[int, int] | None = None
        for option in rule.options:
            assert isinstance(option, Line)
            for opening in self.openings[option]:
                cost = self._cost(opening, position)
                if cost and (best is None or cost < best):
                    best, choice = cost, option
        if best is None:
            raise LostError(position)
        self.terms.append(rule.log_prob[choice])
        return choice

    def _cost(self, opening: Opening, position: int) -> tuple[int, int] | None:
        """Count what must be forgiven for an opening to stand here, and minus its length."""
        start, forgiven = position, 0
        for part in opening:
            want = part if isinstance(part, str) else part.says[self.memory[part.name]]
            if self.text.startswith(want, position):
                position += len(want)
                continue
            end = None if isinstance(part, str) else self._forgive(part, position)
            if end is None:
                return None
            position, forgiven = end, forgiven + 1
        return forgiven, start - position

    def _kind(self, mention: Mention) -> Kind | None:
        lists = self.lists[mention.name]
        if PEOPLE in lists:
            return "pronouns" if mention.form else "names"
        return "object" if lists & (_things(self.grammar) | {COLOR}) else None

    def _forgive(self, mention: Mention, position: int) -> int | None:
        """Find the offset after something that stands where ``mention`` should."""
        want = mention.says[self.memory[mention.name]]
        if want.startswith(self.text[position:]):
            return None  # not a slip: the text breaks off
        others = sorted(set(mention.says.values()), key=len, reverse=True)
        kind = self._kind(mention)
        if kind == "names":
            others.append("[A-Z][a-z]+")
        elif kind == "pronouns":
            others.append("(?i:it|its|they|them|their)")
        elif kind == "object" and not mention.form:
            others.append(" ".join(["[a-z-]+"] * (want.count(" ") + 1)))
        found = re.compile(rf"(?:{'|'.join(others)})(?![A-Za-z])").match(self.text, position)
        return found.end() if found else None


# ---------------------------------------------------------------------------------------
# The rest, where only the words are left to go by
# ---------------------------------------------------------------------------------------


class _Rest:
    """Text of which the path through the grammar is unknown, and what was told before it."""

    def __init__(self, grammar: Grammar, memory: Memory, text: str) -> None:
        self.grammar, self.text = grammar, text
        told = list(memory.items())
        self.people = [o for name, o in told if self._lists(name) & {PEOPLE}]
        self.colors = [o.value("") for name, o in told if self._lists(name) & {COLOR}]
        self.things = [o.value("") for name, o in told if self._lists(name) & _things(grammar)]

    def _lists(self, variable: str) -> set[str]:
        return {choice.name for choice in self.grammar.variables[variable]}

    def slips(self) -> set[Kind]:
        checks: dict[Kind, bool] = {
            "names": self._names(),  # first: it may introduce the children
            "pronouns": self._pronouns(),
            "object": self._object(),
        }
        return {kind for kind, holds in checks.items() if not holds}

    def _names(self) -> bool:
        known = {child.value(""): child for child in self.grammar.choices[PEOPLE].options}
        sayable = vocabulary(self.grammar)
        holds = True
        for word in words_in(self.text):
            if word in known and known[word] not in self.people:
                holds = holds and len(self.people) < 2
                self.people.append(known[word])
            elif word[0].isupper():
                holds = holds and bool({word, word.lower()} & sayable)
        return holds and len(self.people) >= 2

    def _pronouns(self) -> bool:
        everyone = self.grammar.choices[PEOPLE]
        known = {child.value(form) for child in everyone.options for form in everyone.columns}
        right = {child.value(form) for child in self.people[:2] for form in everyone.columns}
        said = {word.lower() for word in words_in(self.text)}
        return bool(self.people) and said & known <= right

    def _object(self) -> bool:
        colors = [color.value("") for color in self.grammar.choices[COLOR].options]
        things = {
            o.value("")
            for name in _things(self.grammar)
            for o in self.grammar.choices[name].options
        }
        longest_first = sorted(things, key=len, reverse=True)
        pair = re.compile(rf"\b({'|'.join(colors)}) ({'|'.join(longest_first)})\b")
        pairs = pair.findall(self.text)
        if not self.colors and not self.things and pairs:
            self.colors, self.things = [pairs[0][0]], [pairs[0][1]]
        told = set(zip(self.colors, self.things, strict=False))
        said = {word for word in words_in(self.text) if word in colors}
        return bool(told) and set(pairs) <= told and said <= set(self.colors)
