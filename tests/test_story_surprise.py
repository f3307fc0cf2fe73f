"""The exact surprisal of every token, held against the stories' probabilities and entropy."""

from __future__ import annotations

import math
import re
from collections import defaultdict

import pytest
import tiktoken
import torch
from hypothesis import given, settings

from gptlib import stories, tokenizer
from gptlib.stories import engine as engine
from gptlib.stories.notation import Grammar, parse
from gptlib.stories.surprise import Follower, Surprisal, next_token, surprisals
from tests.test_stories import BYTES, SMALL, grammars

ENCODING = tokenizer.stories()
STORIES = stories.sample(80, seed=31)


@pytest.fixture(scope="module")
def read() -> list[list[Surprisal]]:
    return [surprisals(story, ENCODING) for story in STORIES]


# --------------------------------------------------------------------------- the stories


def test_the_surprisals_of_a_story_are_its_log_probability(read: list[list[Surprisal]]) -> None:
    for story, tokens in zip(STORIES, read, strict=True):
        total = math.fsum(token.surprisal for token in tokens)
        assert total == pytest.approx(-stories.log_prob(story), abs=1e-9)
        assert [t.token for t in tokens] == [*ENCODING.encode_ordinary(story), ENCODING.eot_token]
        assert min(min(token.surprisal, token.entropy) for token in tokens) == 0
        assert tokens[-1].surprisal == tokens[-1].entropy == 0


@pytest.mark.parametrize("encoding", [BYTES, tokenizer.gpt2()], ids=lambda e: e.name)
def test_any_vocabulary_will_do(encoding: tiktoken.Encoding) -> None:
    for story in STORIES[:3]:
        total = math.fsum(token.surprisal for token in surprisals(story, encoding))
        assert total == pytest.approx(-stories.log_prob(story), abs=1e-9)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def test_the_entropies_of_a_story_add_up_to_the_entropy(read: list[list[Surprisal]]) -> None:
    """On average: the chain rule of entropy."""
    sums = [math.fsum(token.entropy for token in tokens) for tokens in read]
    mean, error = mean_and_error(sums)
    assert error < 0.02 * mean  # the test is not empty
    assert abs(mean - stories.entropy()) < 3 * error
    floor = stories.entropy_per_token(ENCODING)
    per_token = math.fsum(sums) / sum(map(len, read))
    assert per_token == pytest.approx(floor.nats_per_token, rel=0.02)


def test_the_entropy_is_the_mean_of_the_surprisal(read: list[list[Surprisal]]) -> None:
    excess = [math.fsum(token.surprisal - token.entropy for token in tokens) for tokens in read]
    mean, error = mean_and_error(excess)
    assert abs(mean) < 3 * error


def test_every_distribution_sums_to_one_and_gives_the_surprisal() -> None:
    follower = Follower(ENCODING)
    for token in [*ENCODING.encode_ordinary(STORIES[0]), ENCODING.eot_token]:
        before = follower.next
        assert math.fsum(before.values()) == pytest.approx(1, abs=1e-12)
        read = follower.read(token)
        assert read.surprisal == pytest.approx(-math.log(before[token]), abs=1e-12)
        entropy = -math.fsum(p * math.log(p) for p in before.values())
        assert read.entropy == pytest.approx(entropy, abs=1e-12)
    assert follower.next == {}


def test_next_token_of_a_beginning() -> None:
    def after(text: str) -> dict[str, float]:
        ids = ENCODING.encode_ordinary(text)
        return {ENCODING.decode([t]): p for t, p in next_token(ids, ENCODING).items()}

    assert after("Ada and Tom were best") == {" friends": pytest.approx(1)}
    bonds = after("Ada and Tom were")  # friends and best friends weigh 2, three more words 1
    assert list(bonds.values()) == pytest.approx([2 / 7, 2 / 7, 1 / 7, 1 / 7, 1 / 7])
    assert {*list(bonds)[:2]} == {" friends", " best"}
    assert set(after("Ada and Tom were best friends.")) == {" One"}
    assert next_token(torch.tensor([]).long(), ENCODING) == next_token([], ENCODING)
    assert next_token(torch.tensor(IDS[:9]), ENCODING) == next_token(IDS[:9], ENCODING)
    first = after("")
    assert math.fsum(first.values()) == pytest.approx(1)
    # Of 4 + 3 beginnings 4 are outdoors; of those, 3 in 8 begin with "One" and 1 with "Once".
    assert first["One"] == pytest.approx(4 / 7 * 3 / 8)


# --------------------------------------------------------------------------- small grammars

# What decides a token comes late: inside the word, in the next slot, at the end of the story.
TRAP = """
words child
  Ada, (2) Bo
words color
  red, (2) orange
rule story
  - The [sky] "[what]" said [who = child]. {who}'s hat was [a hue = color]. [end]
rule sky
  - (2) cloud came.
  - clouds came.
  - (4) cloudy sky came.
rule what
  - Hi.
  - (3) Ho
rule end
  - (2) {A hue} hat
  - "{hue}."
"""
CLOUDY = tokenizer.train_bpe('The cloud The cloud hat hat." hat."', 269, [tokenizer.END_OF_TEXT])


def check_by_enumeration(grammar: Grammar, encoding: tiktoken.Encoding) -> None:
    """Compare every distribution, after every beginning, with sums over a list of all stories."""
    told = [
        ((*encoding.encode_ordinary(text), encoding.eot_token), math.exp(log_prob))
        for text, log_prob in engine.every(grammar)
    ]
    begin: defaultdict[tuple[int, ...], float] = defaultdict(float)
    follow: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
    for ids, p in told:
        for i in range(len(ids)):
            begin[ids[:i]] += p
            follow[ids[:i]].add(ids[i])
        begin[ids] += p
    for ids, _ in told:
        follower = Follower(encoding, grammar)
        for i, token in enumerate(ids):
            before = ids[:i]
            exact = {t: begin[(*before, t)] / begin[before] for t in follow[before]}
            assert follower.next == pytest.approx(exact, abs=1e-12), (before, token)
            follower.read(token)


@pytest.mark.parametrize("source", [SMALL, TRAP], ids=["small", "trap"])
@pytest.mark.parametrize("encoding", [BYTES, CLOUDY, ENCODING], ids=["bytes", "cloudy", "stories"])
def test_a_small_grammar_by_enumeration(source: str, encoding: tiktoken.Encoding) -> None:
    check_by_enumeration(parse(source), encoding)


def test_the_trap_is_one() -> None:
    cloud = CLOUDY.encode_ordinary(" cloud")
    for word in (" clouds", " cloudy"):
        assert CLOUDY.encode_ordinary(word)[: len(cloud)] == cloud
    assert len(CLOUDY.encode_ordinary('."')) == 1


@settings(max_examples=12, deadline=None)
@given(grammars())
def test_random_grammars_by_enumeration(source: str) -> None:
    check_by_enumeration(parse(source), CLOUDY)


# --------------------------------------------------------------------------- mistakes

STORY = STORIES[0]
IDS = ENCODING.encode_ordinary(STORY)
SENTENCE = STORY[: STORY.index(".") + 1]


def test_what_is_no_story_is_told_where_it_goes_wrong() -> None:
    beginning = "Ada and Tom were"
    says = (
        f"no story goes on like this: token {len(ENCODING.encode_ordinary(beginning))} is ' lost', "
        f"at character {len(beginning)}, after {beginning!r}; expected ' friends', ' best', "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        surprisals(beginning + " lost.", ENCODING)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "token 0 is '<|endoftext|>', at character 0, after ''; expected "),
        (
            "One",
            "after 'One'; expected ' bright', ' mild', ' sunny', ' warm', ' blustery', 11 others",
        ),
        (SENTENCE, f"is '<|endoftext|>', at character {len(SENTENCE)}, after {SENTENCE[-40:]!r}; "),
        (STORY + " The", f"is ' The', at character {len(STORY)}, "),
        ("Once upon a cat", "is ' cat', at character 11, after 'Once upon a'; expected ' time'"),
        ("\ud800", "token 0 is '\ufffd'"),
    ],
)
def test_a_text_that_is_no_whole_story_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        surprisals(text, ENCODING)


ONLY_A = tiktoken.Encoding(
    "only-a", pat_str=".", mergeable_ranks={b"a": 0}, special_tokens={"<|endoftext|>": 1}
)
NO_END = tiktoken.Encoding("no-end", pat_str=".", mergeable_ranks={b"a": 0}, special_tokens={})


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: surprisals(b"x", ENCODING), TypeError, "story is a str, not bytes: b'x'"),  # type: ignore
        (lambda: surprisals(STORY, "gpt2"), TypeError, "encoding is a tiktoken.Encoding, not str"),  # type: ignore
        (lambda: next_token("x", ENCODING), TypeError, "ids are token ids, not str: encode 'x'"),  # type: ignore
        (lambda: next_token([0.5], ENCODING), TypeError, "'float' object cannot be interpreted"),  # type: ignore
        (lambda: next_token([9999], ENCODING), ValueError, "token 0 is id 9999, at character 0"),
        (
            lambda: next_token([*IDS, ENCODING.eot_token, 5], ENCODING),
            ValueError,
            "; expected nothing",
        ),
        (lambda: Follower(ONLY_A), ValueError, "the encoding 'only-a' has no token for '"),
        (lambda: surprisals("It", ONLY_A), ValueError, "the encoding 'only-a' has no token for '"),
        (lambda: Follower(NO_END), ValueError, "'no-end' has no special token <|endoftext|>"),
    ],
)
def test_mistakes_of_the_caller(call, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        call()
