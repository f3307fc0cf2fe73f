"""The stories: exact probabilities, one derivation each, and a judge that sees near misses."""

from __future__ import annotations

import math
import re
from collections import Counter
from importlib.resources import files
from random import Random

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib import stories
from gptlib.stories import engine as engine
from gptlib.stories.notation import Choice, Draw, Grammar, GrammarError, Line, Mention, parse

SOURCE = (files("gptlib") / "assets" / "stories.grammar").read_text(encoding="utf-8")
GRAMMAR = stories.grammar()


@pytest.fixture(scope="module")
def many() -> list[str]:
    return stories.sample(100_000, stories.TRAIN_SEED)


# --------------------------------------------------------------------------- sampling

SMALL = """
words child | he
  Ada, Mia | she
  (3) Tom  | he
words color
  red, (2) orange
rule story
  - [hero = child] met [friend = child, not hero] in [a color = color] cap. [deed = deed]
    [end.{deed}]
rule deed
  - (give, 2) {hero.He} had {a color} cap too.
  - (keep) {friend.He} sang.
  - (keep) "Hello," said {friend}.
rule end.give
  - {hero} gave it to {friend}.
  - {Color} was the cap.
rule end.keep
  - {friend} went home.
"""


def test_samples_do_not_depend_on_the_machine_or_the_version() -> None:
    random = Random(7).random
    small = parse(SMALL)
    assert [engine.tell(small, random) for _ in range(4)] == [
        "Ada met Tom in a red cap. He sang. Tom went home.",
        "Tom met Ada in an orange cap. He had an orange cap too. Tom gave it to Ada.",
        "Tom met Ada in a red cap. She sang. Ada went home.",
        'Mia met Tom in a red cap. "Hello," said Tom. Tom went home.',
    ]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 2**64))
def test_a_shorter_sample_begins_a_longer_one(n: int, more: int, seed: int) -> None:
    assert stories.sample(n + more, seed)[:n] == stories.sample(n, seed)


@pytest.mark.judges("stories")
def test_no_story_of_100_000_occurs_twice(many: list[str]) -> None:
    assert len(set(many)) == 100_000


@pytest.mark.judges("stories")
def test_train_and_validation_stories_are_disjoint(many: list[str]) -> None:
    assert stories.TRAIN_SEED != stories.VALIDATION_SEED
    assert set(many).isdisjoint(stories.sample(20_000, stories.VALIDATION_SEED))


# --------------------------------------------------------------------------- probabilities


@pytest.mark.judges("stories")
def test_mean_surprise_of_20_000_stories_is_the_entropy(many: list[str]) -> None:
    surprise = [-stories.log_prob(story) for story in many[:20_000]]
    mean = math.fsum(surprise) / len(surprise)
    variance = math.fsum((s - mean) ** 2 for s in surprise) / (len(surprise) - 1)
    assert abs(mean - stories.entropy()) < 3 * math.sqrt(variance / len(surprise))


def derivations(grammar: Grammar, text: str) -> list[float]:
    return list(engine.Search(text).derivations(grammar))


def test_every_story_has_exactly_one_derivation() -> None:
    for story in stories.sample(400, seed=11):
        assert derivations(GRAMMAR, story) == [pytest.approx(stories.log_prob(story), abs=1e-9)]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_edited_stories_are_read_as_the_exhaustive_search_reads_them(seed: int, data) -> None:
    story = stories.sample(1, seed)[0]
    at = data.draw(st.integers(0, len(story) - 1))
    put = data.draw(st.sampled_from(["", "a", " ", "he", "Ben", ".", "red", "é", story[at:]]))
    cut = data.draw(st.sampled_from([0, 1, 3, len(story)]))
    text = story[:at] + put + story[at + cut :]
    found = derivations(GRAMMAR, text)
    assert len(found) <= 1
    assert stories.log_prob(text) == pytest.approx(found[0] if found else -math.inf, abs=1e-9)


def reached(story: str) -> str:
    """A grammar with the given story line, and every block of the real one that it reaches."""
    blocks = dict(re.findall(r"(?m)^(?:words|rule) (\S+)(.*(?:\n[ \t].*|\n)*)", SOURCE))
    headers = dict(re.findall(r"(?m)^((?:words|rule) (\S+)).*", SOURCE))
    names = {name: header for header, name in headers.items()}
    wanted, seen = [story], []
    while wanted:
        text = re.sub(r"(?m)^ *#.*", "", wanted.pop())
        for source, switch in re.findall(r"\[(?:[aA] )?(?:\S+ = )?([\w.-]+)(\{)?", text):
            for name in blocks:
                new = name.startswith(source.lower()) if switch else name == source.lower()
                if new and name not in seen:
                    seen.append(name)
                    wanted.append(blocks[name])
    return "\n".join([f"rule story\n  - {story}", *(names[name] + blocks[name] for name in seen)])


PARTS = [
    "[outside = outside] [clear.{outside}]",
    "[weather = weather] [hero = child] [sky.{weather.kind}] [close.{weather.kind}]",
    "[place = place] [spot = spot.{place.kind}] [A baby = baby.{place.kind}] {spot} {baby}.",
    "[a color = color] [toy = toy] {a color} {toy.played} [other = toy, not toy]",
    "[hero = child] [friend = child, not hero] [color = color] [plan = stuck-choice] {color}",
    "[hero = child] [friend = child, not hero] [share-choice] [forgive]",
]


def check_by_enumeration(grammar: Grammar) -> None:
    told = list(engine.every(grammar))
    assert len({text for text, _ in told}) == len(told) == engine.count(grammar)
    assert math.fsum(math.exp(p) for _, p in told) == pytest.approx(1, abs=1e-9)
    surprise = math.fsum(-p * math.exp(p) for _, p in told)
    assert engine.entropy(grammar) == pytest.approx(surprise, abs=1e-9)
    for text, value in told[:: max(1, len(told) // 200)]:
        assert engine.log_prob(grammar, text) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("part", PARTS)
def test_probabilities_of_a_part_sum_to_one(part: str) -> None:
    check_by_enumeration(parse(reached(part)))


def test_probabilities_of_a_small_grammar_sum_to_one() -> None:
    check_by_enumeration(parse(SMALL))
    told = {text: math.exp(p) for text, p in engine.every(parse(SMALL))}
    assert told[
        "Tom met Ada in an orange cap. He had an orange cap too. Orange was the cap."
    ] == pytest.approx(3 / 5 * 1 / 2 * 2 / 4 * 2 / 3 * 1 / 2)


@st.composite
def grammars(draw: st.DrawFn) -> str:
    """Small random grammars with weights, memory, exclusion, labels and switches."""
    weights = st.integers(1, 5)
    names = [
        f"({draw(weights)}) {name}" for name in ("Ada", "Ben", "Cy")[: draw(st.integers(2, 3))]
    ]
    text = [
        "words child",
        f"  {', '.join(names)}",
        "rule story",
        "  - [a = child] [b = child, not a] [k = kind] [end.{k}] [again.{b}]",
        "rule kind",
    ]
    labels = [draw(st.sampled_from(["x", "y"])) for _ in range(draw(st.integers(1, 4)))]
    for i, label in enumerate(labels):
        who = draw(st.sampled_from(["{a}", "{b}", "The end", "{a} and {b}"]))
        text.append(f"  - ({label}, {draw(weights)}) {'pqrs'[i]} {who}")
    for label in sorted(set(labels)):
        text.append(f"rule end.{label}")
        text += [f"  - ({draw(weights)}) {c}" for c in "uvw"[: draw(st.integers(1, 3))]]
    for name in ("Ada", "Ben", "Cy")[: len(names)]:
        text.append(f"rule again.{name}")
        text += [f"  - ({draw(weights)}) {c} {{b}}" for c in "uvw"[: draw(st.integers(1, 3))]]
    return "\n".join(text)


@settings(max_examples=60, deadline=None)
@given(grammars())
def test_probabilities_of_random_grammars_sum_to_one(source: str) -> None:
    check_by_enumeration(parse(source))


def test_there_are_over_10_to_the_15_stories() -> None:
    assert isinstance(stories.count(), int)
    assert stories.count() > 10**15


# --------------------------------------------------------------------------- the literature


def bounds(choice: Choice) -> tuple[int, int]:
    """The fewest and the most spaces in what a choice can say, as if its parts were free."""
    lows, highs = [], []
    for option in choice.options:
        parts = [item_bounds(item) for item in option.items] if isinstance(option, Line) else []
        if not isinstance(option, Line):
            parts = [(option.text.count(" "), option.text.count(" "))]
        lows.append(sum(low for low, _ in parts))
        highs.append(sum(high for _, high in parts))
    return min(lows), max(highs)


def item_bounds(item: str | Mention | Draw) -> tuple[int, int]:
    if isinstance(item, str):
        return item.count(" "), item.count(" ")
    if isinstance(item, Mention):
        spaces = [text.count(" ") for text in item.says.values()]
        return min(spaces), max(spaces)
    ends = [bounds(choice) for choice in item.targets.values()]
    article = int(item.style.article)
    return min(low for low, _ in ends) + article, max(high for _, high in ends) + article


@pytest.mark.judges("stories")
def test_every_story_has_60_to_200_words(many: list[str]) -> None:
    low, high = bounds(GRAMMAR.start)
    assert low + 1 >= 60
    assert high + 1 <= 200
    assert all(60 <= len(story.split()) <= 200 for story in many[:20_000])


@pytest.mark.judges("stories")
def test_the_words_are_those_that_are_said(many: list[str]) -> None:
    listed = stories.words()
    assert listed == sorted(set(listed))
    assert len(listed) >= 800
    said = {word for story in many for word in engine.words_in(story)}
    assert {word for word in said if word == word.lower() or word.lower() not in said} == set(
        listed
    )


@pytest.mark.judges("stories")
def test_the_prose_is_clean(many: list[str]) -> None:
    for story in many[:10_000]:
        assert not re.search(r"\b[aA] [aeiouAEIOU]|\b[aA]n [^aeiouAEIOU\W]", story), story
        assert not re.search(r"\b(\w+) \1\b", story, re.IGNORECASE), story
        assert not re.search(r"  |[^\w ,.?\"'-]| [,.?]|[,.?]\w|\.\.", story), story
        assert story.count('"') % 2 == 0, story
        assert story[0].isupper(), story
        assert story[-1] in '."', story
        sentences = re.split(r'(?<=[.?])"? ', story)
        assert len(sentences) == len(set(sentences)), story
        for sentence in sentences:
            assert sentence.lstrip('"')[0].isupper() or re.search(r"[?.]\" [a-z]", story), story


@pytest.mark.judges("stories")
def test_every_story_keeps_its_two_names_and_its_thing(many: list[str]) -> None:
    names = {child.value("") for child in GRAMMAR.choices["child"].options}
    colors = {color.value("") for color in GRAMMAR.choices["color"].options}
    for story in many[:10_000]:
        said = Counter(engine.words_in(story))
        assert len(names & said.keys()) == 2, story
        assert all(said[name] >= 2 for name in names & said.keys()), story
        told = colors & said.keys()
        assert len(told) in (1, 2), story
        assert all(said[color] >= 2 for color in told), story
        assert max(story.rfind(color) for color in told) > len(story) / 2, story


# --------------------------------------------------------------------------- the judge

BOYS = {child.value("") for child in GRAMMAR.choices["child"].options if child.value("he") == "he"}
GOOD = next(  # two girls, and a thing that was lost
    story
    for story in stories.sample(1_000, seed=3)
    if "Nobody had taken it" in story and BOYS.isdisjoint(engine.words_in(story))
)


def test_a_story_is_judged_a_story() -> None:
    for story in stories.sample(200, seed=5):
        verdict = stories.judge(story)
        assert verdict.parses
        assert verdict.consistent
        assert verdict.log_prob == stories.log_prob(story)
        assert (verdict.fails_at, verdict.expected) == (None, ())
        assert str(verdict).startswith("a story")


@pytest.mark.parametrize("text", ["", " ", "xyzzy", "The cat sat on the mat.", "\0", "0" * 5_000])
def test_what_tells_nothing_is_consistent_in_nothing(text: str) -> None:
    verdict = stories.judge(text)
    assert not any((verdict.parses, verdict.names, verdict.pronouns, verdict.object))
    assert verdict.log_prob == -math.inf
    assert verdict.fails_at is not None
    assert verdict.fails_at <= len(text)
    assert verdict.expected
    assert "not a story" in str(verdict)


PIECES = ["red ball", "Ada", "Ben ", "he ", "One sunny", " day, ", "\n", '"', "\ud800", "é", "(["]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text() | st.sampled_from(PIECES), max_size=8).map("".join))
def test_any_text_can_be_judged(text: str) -> None:
    verdict = stories.judge(text)
    assert verdict.parses == (verdict.log_prob > -math.inf) == (verdict.fails_at is None)
    assert str(verdict)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_a_story_that_breaks_off_fails_at_its_end(seed: int, where: float) -> None:
    story = stories.sample(1, seed)[0]
    text = story[: int(where * (len(story) - 1))]
    verdict = stories.judge(text)
    assert (verdict.parses, verdict.fails_at) == (False, len(text))
    if where > 0.75:
        assert verdict.consistent, text


def test_half_a_word_at_the_end_is_not_a_slip() -> None:
    colors = "|".join(color.value("") for color in GRAMMAR.choices["color"].options)
    names = "|".join(child.value("") for child in GRAMMAR.choices["child"].options)
    for story in stories.sample(100, seed=25):
        for words in (colors, names, "he|she|his|her|him"):
            found = list(re.finditer(rf"\b({words})\b", story))
            if found and found[-1].start() > 0.7 * len(story):
                assert stories.judge(story[: found[-1].start() + 2]).consistent, story


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_fails_at_is_the_longest_beginning_of_a_story(seed: int, where: float) -> None:
    story = stories.sample(1, seed)[0]
    at = int(where * (len(story) - 1))
    text = story[:at] + "#" + story[at + 1 :]
    assert stories.judge(text).fails_at == at


def last(pattern: str, text: str) -> re.Match[str]:
    return list(re.finditer(pattern, text))[-1]


def replaced(match: re.Match[str], new: str) -> str:
    return match.string[: match.start()] + new + match.string[match.end() :]


def test_one_wrong_color_late() -> None:
    for story in stories.sample(300, seed=21):
        colors = [color.value("") for color in GRAMMAR.choices["color"].options]
        color = last(rf"\b({'|'.join(colors)})\b", story)
        other = next(c for c in colors if c not in story)
        verdict = stories.judge(replaced(color, other))
        assert (verdict.parses, verdict.names, verdict.pronouns) == (False, True, True), story
        assert not verdict.object, story
        assert verdict.fails_at is not None
        assert color.start() <= verdict.fails_at < color.end()
        assert verdict.expected[0].startswith(color.group())


SWAPPED = {"he": "she", "she": "he", "his": "her", "him": "her"}


def test_one_swapped_pronoun() -> None:
    seen = 0
    for story in stories.sample(300, seed=22):
        pronouns = list(re.finditer(r"\b(he|she|his|him)\b", story))
        if not pronouns:
            continue
        seen += 1
        pronoun = pronouns[-1]
        verdict = stories.judge(replaced(pronoun, SWAPPED[pronoun.group()]))
        assert (verdict.parses, verdict.pronouns) == (False, False), story
        assert (verdict.names, verdict.object) == (True, True), story
    assert seen > 150


@pytest.mark.parametrize("foreign", ["Zorg", "Benjamin", "Annabel"])
def test_one_foreign_name(foreign: str) -> None:
    names = "|".join(child.value("") for child in GRAMMAR.choices["child"].options)
    for story in stories.sample(150, seed=23):
        verdict = stories.judge(replaced(last(rf"\b({names})\b", story), foreign))
        assert (verdict.parses, verdict.names) == (False, False), story
        assert (verdict.pronouns, verdict.object) == (True, True), story


def test_a_third_child_is_a_foreign_name() -> None:
    names = [child.value("") for child in GRAMMAR.choices["child"].options]
    for story in stories.sample(150, seed=24):
        other = next(name for name in names if name not in story)
        verdict = stories.judge(replaced(last(rf"\b({'|'.join(names)})\b", story), other))
        assert (verdict.parses, verdict.names) == (False, False), story
        assert verdict.object, story


def test_judging_goes_on_where_the_grammar_is_left() -> None:
    intro = GOOD[: GOOD.index("There,")]
    verdict = stories.judge(intro + "They all ate soup with him and Zorg and a mauve thing.")
    assert verdict.fails_at == len(intro) + 3
    assert (verdict.names, verdict.pronouns) == (False, False)
    assert verdict.object
    assert stories.judge(intro + "They all ate soup.").consistent
    color = next(c for c in ("red", "blue") if c not in GOOD)
    assert not stories.judge(f"{intro}They ate a {color} soup.").object
    assert not stories.judge(intro + f"They met {min(BOYS)}.").names


def test_more_after_the_end() -> None:
    verdict = stories.judge(GOOD + " The end.")
    assert verdict.fails_at == len(GOOD)
    assert verdict.expected == ("the end of the story",)
    assert verdict.consistent


# --------------------------------------------------------------------------- the floor

BYTES = tiktoken.Encoding(
    "bytes",
    pat_str=r"[\s\S]",
    mergeable_ranks={bytes([i]): i for i in range(256)},
    special_tokens={"<|endoftext|>": 256},
)


def test_floor_in_bytes() -> None:
    floor = stories.entropy_per_token(BYTES, n=500, seed=9)
    sample = stories.sample(500, seed=9)
    mean = sum(len(story) + 1 for story in sample) / 500
    assert floor.nats_per_token == pytest.approx(stories.entropy() / mean)
    floors = [stories.entropy_per_token(BYTES, n=200, seed=s).nats_per_token for s in range(40)]
    center = sum(floors) / 40
    spread = math.sqrt(sum((f - center) ** 2 for f in floors) / 39)
    error = stories.entropy_per_token(BYTES, n=200, seed=0).standard_error
    assert 0.6 < spread / error < 1.5  # the error stated is the scatter seen
    assert f"{floor.nats_per_token:.4f}" in str(floor)


# --------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: stories.sample(-1), ValueError, "n is 0 or more, not -1"),
        (lambda: stories.sample(2.0), TypeError, "n is an int, not float: 2.0"),  # type: ignore
        (lambda: stories.sample(True), TypeError, "n is an int, not bool: True"),
        (lambda: stories.sample(1, -5), ValueError, "seed is 0 or more, not -5"),
        (lambda: stories.sample(1, "a"), TypeError, "seed is an int, not str: 'a'"),  # type: ignore
        (lambda: stories.log_prob(b"x"), TypeError, "story is a str, not bytes: b'x'"),  # type: ignore
        (lambda: stories.judge(None), TypeError, "text is a str, not NoneType: None"),  # type: ignore
        (lambda: stories.entropy_per_token("gpt2"), TypeError, "encoding is a tiktoken.Encoding"),  # type: ignore
        (lambda: stories.entropy_per_token(BYTES, n=1), ValueError, "n is 2 or more, not 1"),
        (lambda: parse(3), TypeError, "a grammar is a str, not int: 3"),  # type: ignore
    ],
)
def test_mistakes_of_the_caller(call, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        call()


COLOR = "\nwords color\n  red, blue"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "a grammar needs a rule named 'story'"),
        ("  - lost line", "line 1: '- lost line' stands under no header"),
        ("story\n  - Hi.", "line 1: expected 'words NAME | column …' or 'rule NAME'"),
        ("rule story", "line 1: 'story' has nothing to choose from"),
        ("rule story\n  Hi.", "line 2: an alternative begins with '- '"),
        ("rule story\n  - Hi.\nrule story\n  - Ho.", "line 3: 'story' is defined twice"),
        ("rule story\n  - (0) Hi.", "line 2: a weight is 1 or more, not 0"),
        ("rule story\n  - Hi  there.", "line 2: two spaces in a row"),
        ("rule story\n  - A [color.", "line 2: a bracket without its partner"),
        ("rule story\n  - A [col or].", "line 2: not a draw: '[col or]'"),
        ("rule story\n  - A {col or}.", "line 2: not a mention: '{col or}'"),
        ("rule story\n  - [color]ish" + COLOR, "line 2: no space between"),
        ("rule story\n  - A [hat].", "line 2: nothing is called 'hat'"),
        ("rule story\n  - A {hat}.", "line 2: {hat} is never remembered"),
        ("rule story\n  - Hi." + COLOR, "line 3: 'color' is never used"),
        ("rule story\n  - So [story]", "line 1: 'story' leads back to itself"),
        ("rule story\n  - {c} [c = color]" + COLOR, "line 2: used before it is drawn: {'c'}"),
        ("rule story\n  - [c = color] [c = color]" + COLOR, "line 2: 'c' is remembered twice"),
        ("rule story\n  - [c = color] {c.hue}" + COLOR, "line 2: 'red' (c) has no form 'hue'"),
        (
            "rule story\n  - [color]\nwords color | hue\n  red, blue",
            "line 4: 0 forms for 1 columns",
        ),
        ("rule story\n  - [color]\nwords color\n  red,, blue", "line 4: a word or a form is empty"),
        ("rule story\n  - [color]\nwords color\n  red, red", "'color', one option may begin like"),
        (
            "rule story\n  - [color]\nwords color\n  red, reddish",
            "one option may begin like another",
        ),
        ("rule story\n  - I am.\n  - I am. No.", "one option may begin like another"),
        ("rule story\n  - [color] a\n  - [color] b" + COLOR, "one option may begin like another"),
        (
            "rule story\n  - [x = color] [y = color] [z]\nrule z\n  - {x} a\n  - {y} an" + COLOR,
            "in 'z', one option may begin like another: '{x} a' and '{y} an'",
        ),
        (
            "rule story\n  - [x = z] {x}\nrule z\n  - (a) Hi.\n  - (b) Ho.",
            "line 2: {x} remembers a rule, not a word",
        ),
        ("rule story\n  - [x = z]\nrule z\n  - Hi.", "line 2: 'x' remembers a rule: label every"),
        ("rule story\n  - [a z]\nrule z\n  - Hi.", "only a word takes an article or a capital"),
        ("rule story\n  - [c = color] [z.{c}]" + COLOR, "line 2: nothing is called 'z.red'"),
        ("rule story\n  - [color, not c]" + COLOR, "line 2: 'not c' needs a variable drawn from"),
        ("rule story\n  - [z.{c}]\nrule z.a\n  - Hi.", "line 2: {c} is never remembered"),
    ],
)
def test_a_bad_grammar_is_refused(source: str, says: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(says)):
        parse(source)


def test_two_children_that_are_never_the_same_can_begin_alternatives() -> None:
    source = "rule story\n  - [x = color] [y = color, not x] [z]\nrule z\n  - {x}.\n  - {y}."
    check_by_enumeration(parse(source + COLOR))
