"""The notation of a story grammar: read it, link it, and refuse it loudly when it is wrong.

A grammar is a text file of word lists and rules. ``assets/stories.grammar`` explains the
notation at its top and is the example to imitate. This module turns such a text into objects
and proves that every text has at most one derivation; ``engine`` samples, reads and
counts with them.

Why one derivation: at each choice, no option may begin with the text that begins another
one, whatever was said before. A reader that goes from left to right then never has a doubt,
so the probability of a story is the product along a single path.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TypeAlias

START = "story"  # the rule a story begins from


class GrammarError(ValueError):
    """The text of a grammar breaks a rule of the notation; the message says where and which."""


# ---------------------------------------------------------------------------------------
# What a grammar is made of
# ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """How a word is dressed when it is said: with an article, with a capital letter."""

    article: bool = False
    capital: bool = False

    def dress(self, text: str) -> str:
        """Give a text its article and its capital."""
        if self.article:
            text = ("an " if text[0] in "aeiouAEIOU" else "a ") + text
        return text[0].upper() + text[1:] if self.capital else text


@dataclass(frozen=True, eq=False)
class Word:
    """One entry of a word list, with its other forms by column name."""

    text: str
    forms: Mapping[str, str]
    weight: int

    def value(self, form: str) -> str:
        """Return one of the word's forms; "" is the word itself."""
        return self.forms[form] if form else self.text


@dataclass(frozen=True, eq=False)
class Line:
    """One alternative of a rule. Its label, if it has one, can be remembered."""

    label: str
    weight: int
    items: tuple[Item, ...]
    where: str  # "line 12", for messages

    def value(self, form: str) -> str:
        """Return the label, which is all that can be remembered of a line."""
        return self.label


@dataclass(frozen=True)
class Mention:
    """``{hero}``, ``{hero.he}``, ``{a color}``: a word remembered earlier, said again."""

    name: str
    form: str
    style: Style
    says: dict[Option, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Draw:
    """``[color]``, ``[hero = child]``, ``[friend = child, not hero]``, ``[spot.{place.kind}]``.

    ``source`` names the list or rule; with a ``switch`` (variable, form), the remembered value
    is added to that name. ``targets`` maps each possible value ("" without a switch) to its
    list or rule.
    """

    source: str
    switch: tuple[str, str] | None
    name: str  # "" when the word is not remembered
    exclude: str  # "" when every word may come
    style: Style
    targets: dict[str, Choice] = field(default_factory=dict, repr=False)


Option: TypeAlias = Word | Line
Item: TypeAlias = str | Mention | Draw


@dataclass(frozen=True, eq=False)
class Choice:
    """A word list or a rule: weighted options, exactly one of which is taken."""

    name: str
    columns: tuple[str, ...]
    options: tuple[Option, ...]
    where: str
    _without: dict[Option, Choice] = field(default_factory=dict, repr=False)
    _spoken: dict[Style, Spoken] = field(default_factory=dict, repr=False)

    @cached_property
    def cumulative(self) -> tuple[int, ...]:
        """The running totals of the weights."""
        return tuple(accumulate(option.weight for option in self.options))

    @cached_property
    def total(self) -> int:
        """The sum of the weights."""
        return self.cumulative[-1]

    @cached_property
    def log_prob(self) -> dict[Option, float]:
        """The natural log of each option's probability."""
        return {option: math.log(option.weight / self.total) for option in self.options}

    @property
    def is_rule(self) -> bool:
        """Whether this is a rule and not a word list."""
        return isinstance(self.options[0], Line)

    def without(self, option: Option) -> Choice:
        """Leave one word out, if the list has it; the others keep their weights."""
        if option not in self._without:
            rest = tuple(other for other in self.options if other is not option)
            self._without[option] = Choice(self.name, self.columns, rest, self.where)
        return self._without[option]

    def spoken(self, style: Style) -> Spoken:
        """Dress the words of this list in one style, ready to be said and to be read."""
        if style not in self._spoken:
            says = {word: style.dress(word.value("")) for word in self.options}
            self._spoken[style] = Spoken(says)
        return self._spoken[style]


class Spoken:
    """Words as text, and back: ``says`` maps word to text, ``read`` finds the word in a text."""

    def __init__(self, says: dict[Option, str]) -> None:
        self.says = says
        self._words = {text: word for word, text in says.items()}
        self._match = re.compile("|".join(map(re.escape, says.values()))).match

    def read(self, text: str, position: int) -> tuple[Option, int] | None:
        """Find the word that stands at ``position``; it and the offset after it, or None."""
        found = self._match(text, position)
        return (self._words[found.group()], found.end()) if found else None


@dataclass(frozen=True, eq=False)
class Grammar:
    """A linked and checked grammar: all choices by name, and the lists each variable takes."""

    choices: Mapping[str, Choice]
    variables: Mapping[str, tuple[Choice, ...]]
    openings: Mapping[Line, tuple[Opening, ...]]

    @property
    def start(self) -> Choice:
        """The rule that every story begins from."""
        return self.choices[START]

    def lines(self) -> Iterator[Line]:
        """Yield all alternatives of all rules."""
        for choice in self.choices.values():
            for option in choice.options:
                if isinstance(option, Line):
                    yield option


# The text an alternative begins with, as far as it is known before anything new is drawn.
Opening: TypeAlias = tuple[str | Mention, ...]


# ---------------------------------------------------------------------------------------
# Reading the notation
# ---------------------------------------------------------------------------------------

_HEADER = re.compile(r"(words|rule) ([a-z][\w.-]*)((?: *\| *[a-z_]+)*)$")
_BULLET = re.compile(r"- (?:\((?:([a-z]+))?(?:, )?(\d+)?\) )?(.+)$")
_WORD = re.compile(r"(?:\((\d+)\) )?(.+)$")
_SLOT = re.compile(r"(\[[^\[\]]*\]|\{[^{}]*\})")
_DRAW = re.compile(
    r"\[(?:([aA]) )?(?:([A-Za-z][\w-]*) = )?([A-Za-z][\w-]*(?:\.[\w-]+)*\.?)"
    r"(?:\{([\w-]+)(?:\.(\w+))?\})?(?:, not ([\w-]+))?\]"
)
_MENTION = re.compile(r"\{(?:([aA]) )?([A-Za-z][\w-]*)(?:\.([A-Za-z]\w*))?\}")


def parse(source: str) -> Grammar:
    """Read, link and check the text of a grammar.

    Raises:
        TypeError: ``source`` is not a string.
        GrammarError: the text breaks a rule of the notation, or is ambiguous.
    """
    if not isinstance(source, str):
        raise TypeError(f"a grammar is a str, not {type(source).__name__}: {source!r}")
    choices: dict[str, Choice] = {}
    for header, rows in _blocks(source):
        choice = _choice(header, rows)
        if choice.name in choices:
            raise GrammarError(f"{choice.where}: {choice.name!r} is defined twice")
        choices[choice.name] = choice
    if START not in choices or not choices[START].is_rule:
        raise GrammarError(f"a grammar needs a rule named {START!r}")
    return _link(choices)


def _blocks(source: str) -> Iterator[tuple[tuple[int, str], list[tuple[int, str]]]]:
    """Split into (header, rows), each with its line number; continued lines are joined."""
    header: tuple[int, str] | None = None
    rows: list[tuple[int, str]] = []
    for number, raw in enumerate(source.splitlines(), 1):
        line = raw.rstrip()
        if not line or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace():
            if header:
                yield header, rows
            header, rows = (number, line), []
        elif header is None:
            raise GrammarError(f"line {number}: {line.strip()!r} stands under no header")
        elif rows and _continues(header[1], rows[-1][1], line.lstrip()):
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line.strip()}")
        else:
            rows.append((number, line.strip()))
    if header:
        yield header, rows


def _continues(header: str, before: str, line: str) -> bool:
    """Whether a line goes on with the row before it."""
    if header.startswith("rule"):
        return not line.startswith("- ")
    return before.endswith(",") or line.startswith("|")


def _choice(header: tuple[int, str], rows: Sequence[tuple[int, str]]) -> Choice:
    where = f"line {header[0]}"
    found = _HEADER.match(header[1])
    if not found:
        raise GrammarError(
            f"{where}: expected 'words NAME | column …' or 'rule NAME'; {header[1]!r}"
        )
    kind, name, rest = found.groups()
    columns = tuple(column.strip() for column in rest.split("|")[1:])
    options: list[Option] = []
    for number, row in rows:
        if kind == "rule":
            options.append(_line(number, row))
        else:
            options.extend(_words(number, row, columns))
    if not options:
        raise GrammarError(f"{where}: {name!r} has nothing to choose from")
    return Choice(name, columns, tuple(options), where)


def _words(number: int, row: str, columns: Sequence[str]) -> Iterator[Word]:
    texts, *forms = (cell.strip() for cell in row.split("|"))
    if len(forms) != len(columns):
        raise GrammarError(f"line {number}: {len(forms)} forms for {len(columns)} columns: {row!r}")
    for cell in texts.split(","):
        found = _WORD.match(cell.strip())
        if not found or not all(forms):
            raise GrammarError(f"line {number}: a word or a form is empty: {row!r}")
        yield Word(
            found.group(2), dict(zip(columns, forms, strict=True)), _weight(found.group(1), number)
        )


def _line(number: int, row: str) -> Line:
    found = _BULLET.match(row)
    if not found:
        raise GrammarError(f"line {number}: an alternative begins with '- ': {row!r}")
    label, weight, text = found.groups()
    if "  " in text:
        raise GrammarError(f"line {number}: two spaces in a row: {text!r}")
    items = tuple(_item(part, number) for part in _SLOT.split(text) if part)
    _check_neighbors(items, number)
    return Line(label or "", _weight(weight, number), items, f"line {number}")


def _weight(digits: str | None, number: int) -> int:
    if digits is not None and int(digits) < 1:
        raise GrammarError(f"line {number}: a weight is 1 or more, not {digits}")
    return int(digits or 1)


def _item(part: str, number: int) -> Item:
    """Read a piece of a line: literal text, ``[a draw]`` or ``{a mention}``."""
    if part[0] == "[":
        found = _DRAW.fullmatch(part)
        if not found:
            raise GrammarError(f"line {number}: not a draw: {part!r}")
        article, name, source, variable, form, exclude = found.groups()
        capital = article == "A" or (article is None and (name or source)[0].isupper())
        switch = (variable, form or "") if variable else None
        style = Style(article is not None, capital)
        return Draw(source.lower(), switch, (name or "").lower(), exclude or "", style)
    if part[0] == "{":
        found = _MENTION.fullmatch(part)
        if not found:
            raise GrammarError(f"line {number}: not a mention: {part!r}")
        article, name, form = found.groups()
        capital = article == "A" or (article is None and (form or name)[0].isupper())
        return Mention(name.lower(), (form or "").lower(), Style(article is not None, capital))
    if set(part) & set("[]{}"):
        raise GrammarError(f"line {number}: a bracket without its partner: {part!r}")
    return part


def _check_neighbors(items: Sequence[Item], number: int) -> None:
    """Refuse a slot that is not a whole word: no letter and no other slot touches it."""
    for left, right in pairwise(items):
        glued = (
            (not isinstance(left, str) and not isinstance(right, str))
            or (isinstance(left, str) and left[-1].isalpha())
            or (isinstance(right, str) and right[0].isalpha())
        )
        if glued:
            raise GrammarError(f"line {number}: no space between {left!r} and {right!r}")


# ---------------------------------------------------------------------------------------
# Linking: every name must lead somewhere
# ---------------------------------------------------------------------------------------


def _link(choices: dict[str, Choice]) -> Grammar:
    lines = [o for c in choices.values() for o in c.options if isinstance(o, Line)]
    draws = [(line, i) for line in lines for i in line.items if isinstance(i, Draw)]
    for line, draw in draws:
        if draw.switch is None:
            draw.targets[""] = _target(choices, draw.source, line)
    variables = _variables(choices, draws)
    for line in lines:
        for item in line.items:
            if isinstance(item, Mention):
                _link_mention(item, variables, line)
            elif isinstance(item, Draw):
                _check_draw(item, variables, line)
    _check_reach(choices)
    openings: dict[Line, tuple[Opening, ...]] = {}
    for line in lines:
        openings[line] = tuple(_openings(line.items))
    grammar = Grammar(choices, variables, openings)
    _check_binding(grammar)
    _check_apart(grammar)
    return grammar


def _target(choices: Mapping[str, Choice], name: str, line: Line) -> Choice:
    if name not in choices:
        raise GrammarError(f"{line.where}: nothing is called {name!r}")
    return choices[name]


def _variables(
    choices: Mapping[str, Choice], draws: Sequence[tuple[Line, Draw]]
) -> dict[str, tuple[Choice, ...]]:
    """Find the lists that each variable takes its value from; link switches on the way."""
    variables: dict[str, list[Choice]] = {}
    waiting = list(draws)
    while waiting:
        later: list[tuple[Line, Draw]] = []
        for line, draw in waiting:
            if draw.switch and draw.switch[0] not in variables:
                later.append((line, draw))
                continue
            if draw.name:
                known = variables.setdefault(draw.name, [])
                targets = _resolve(choices, draw, variables, line)
                known.extend(c for c in targets if c not in known)
        if len(later) == len(waiting):
            line, draw = later[0]
            assert draw.switch
            raise GrammarError(f"{line.where}: {{{draw.switch[0]}}} is never remembered")
        waiting = later
    for line, draw in draws:  # again: by now every list of every variable is known
        _resolve(choices, draw, variables, line)
    return {name: tuple(lists) for name, lists in variables.items()}


def _resolve(
    choices: Mapping[str, Choice],
    draw: Draw,
    variables: Mapping[str, Sequence[Choice]],
    line: Line,
) -> list[Choice]:
    if draw.switch:
        name, form = draw.switch
        for choice in variables[name]:
            for option in choice.options:
                value = _value(option, form, name, line)
                draw.targets[value] = _target(choices, draw.source + value, line)
    return list(draw.targets.values())


def _value(option: Option, form: str, name: str, line: Line) -> str:
    if isinstance(option, Word):
        if form and form not in option.forms:
            raise GrammarError(f"{line.where}: {option.text!r} ({name}) has no form {form!r}")
    elif form or not option.label:
        raise GrammarError(f"{line.where}: {name!r} remembers a rule: label every alternative")
    return option.value(form)


def _link_mention(
    mention: Mention, variables: Mapping[str, tuple[Choice, ...]], line: Line
) -> None:
    if mention.name not in variables:
        raise GrammarError(f"{line.where}: {{{mention.name}}} is never remembered")
    for choice in variables[mention.name]:
        if choice.is_rule:
            raise GrammarError(f"{line.where}: {{{mention.name}}} remembers a rule, not a word")
        for option in choice.options:
            text = _value(option, mention.form, mention.name, line)
            mention.says[option] = mention.style.dress(text)


def _check_draw(draw: Draw, variables: Mapping[str, tuple[Choice, ...]], line: Line) -> None:
    for choice in draw.targets.values():
        if choice.is_rule and draw.style != Style():
            raise GrammarError(f"{line.where}: only a word takes an article or a capital: {draw}")
        if draw.name and choice.is_rule:
            for option in choice.options:
                _value(option, "", draw.name, line)
        if draw.exclude and choice not in variables.get(draw.exclude, ()):
            raise GrammarError(
                f"{line.where}: 'not {draw.exclude}' needs a variable drawn from {choice.name!r}"
            )


def _check_reach(choices: Mapping[str, Choice]) -> None:
    """Every list is used, and no rule leads back to itself."""
    seen: set[str] = set()

    def visit(choice: Choice, path: tuple[str, ...]) -> None:
        if choice.name in path:
            raise GrammarError(f"{choice.where}: {choice.name!r} leads back to itself: {path}")
        if choice.name in seen:
            return
        for option in choice.options:
            for item in option.items if isinstance(option, Line) else ():
                for target in item.targets.values() if isinstance(item, Draw) else ():
                    visit(target, (*path, choice.name))
        seen.add(choice.name)

    visit(choices[START], ())
    for choice in choices.values():
        if choice.name not in seen:
            raise GrammarError(f"{choice.where}: {choice.name!r} is never used")


def _check_binding(grammar: Grammar) -> None:
    """On every path, a variable is remembered before it is used, and only once."""
    done: dict[tuple[str, frozenset[str]], frozenset[str]] = {}

    def visit(choice: Choice, known: frozenset[str]) -> frozenset[str]:
        key = (choice.name, known)
        if key not in done:
            ends = [follow(option, known) for option in choice.options if isinstance(option, Line)]
            done[key] = frozenset.intersection(*ends) if ends else known
        return done[key]

    def follow(line: Line, known: frozenset[str]) -> frozenset[str]:
        for item in line.items:
            if isinstance(item, str):
                continue
            needs = {item.name} if isinstance(item, Mention) else _needs(item)
            if not needs <= known:
                raise GrammarError(f"{line.where}: used before it is drawn: {needs - known}")
            if isinstance(item, Draw):
                ends = [visit(target, known) for target in item.targets.values()]
                if item.name in known:
                    raise GrammarError(f"{line.where}: {item.name!r} is remembered twice")
                known = frozenset.intersection(*ends) | ({item.name} - {""})
        return known

    visit(grammar.start, frozenset())


def _needs(draw: Draw) -> set[str]:
    return {draw.switch[0] if draw.switch else "", draw.exclude} - {""}


# ---------------------------------------------------------------------------------------
# The proof that every choice is told apart by the text
# ---------------------------------------------------------------------------------------


def _openings(items: Sequence[Item]) -> Iterator[Opening]:
    """Yield what a line can begin with, up to its first draw, or into it if it comes first."""
    opening: list[str | Mention] = []
    for item in items:
        if isinstance(item, Draw):
            break
        opening.append(item)
    if opening:
        yield tuple(opening)
        return
    draw = items[0]
    assert isinstance(draw, Draw)
    for choice in draw.targets.values():
        if not choice.is_rule:
            yield from ((text,) for text in choice.spoken(draw.style).says.values())
        for option in choice.options:
            if isinstance(option, Line):
                yield from _openings(option.items)


def _check_apart(grammar: Grammar) -> None:
    rivals = {
        draw.name: draw.exclude
        for line in grammar.lines()
        for draw in line.items
        if isinstance(draw, Draw) and draw.name and draw.exclude
    }
    apart = _Apart(rivals)
    for choice in grammar.choices.values():
        openings: list[tuple[Option, Opening]] = [
            (option, opening)
            for option in choice.options
            for opening in (
                grammar.openings[option] if isinstance(option, Line) else ((option.text,),)
            )
        ]
        for i, (one, left) in enumerate(openings):
            for two, right in openings[i + 1 :]:
                if one is not two and not apart(left, right):
                    raise GrammarError(
                        f"{choice.where}: in {choice.name!r}, one option may begin like another: "
                        f"{_show(left)!r} and {_show(right)!r}. Put what they share before the "
                        f"choice, or begin them with different words."
                    )


def _show(opening: Opening) -> str:
    return "".join(
        part if isinstance(part, str) else "{" + f"{part.name}.{part.form}".rstrip(".") + "}"
        for part in opening
    )


class _Apart:
    """Decides whether two openings differ, neither beginning the other, in every story.

    ``rivals`` maps a variable to the one it is never equal to.
    """

    def __init__(self, rivals: Mapping[str, str]) -> None:
        self.rivals = rivals
        self._cache: dict[tuple[Mention, Mention], bool] = {}

    def __call__(self, left: Opening, right: Opening) -> bool:
        if not left or not right:
            return False
        one, two = left[0], right[0]
        if isinstance(one, str) and isinstance(two, str):
            n = min(len(one), len(two))
            if one[:n] != two[:n]:
                return True
            return self(_rest(one[n:], left), _rest(two[n:], right))
        if one == two:
            return self(left[1:], right[1:])
        if isinstance(one, Mention) and isinstance(two, Mention) and self._always(one, two):
            return True
        mention = one if isinstance(one, Mention) else two
        assert isinstance(mention, Mention)
        return all(
            self(_fill(left, mention.name, option), _fill(right, mention.name, option))
            for option in mention.says
        )

    def _always(self, one: Mention, two: Mention) -> bool:
        """Whether two mentions alone tell the openings apart, for every pair of words."""
        if (one, two) not in self._cache:
            differ = self.rivals.get(one.name) == two.name or self.rivals.get(two.name) == one.name
            self._cache[one, two] = all(
                not a.startswith(b) and not b.startswith(a)
                for x, a in one.says.items()
                for y, b in two.says.items()
                if (x is y if one.name == two.name else not (differ and x is y))
            )
        return self._cache[one, two]


def _rest(text: str, opening: Opening) -> Opening:
    return (text, *opening[1:]) if text else opening[1:]


def _fill(opening: Opening, name: str, option: Option) -> Opening:
    return tuple(
        part.says[option] if isinstance(part, Mention) and part.name == name else part
        for part in opening
    )
