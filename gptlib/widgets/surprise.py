"""How surprising each token of a story is: to a model, and to the grammar that knows it exactly."""

from __future__ import annotations

import codecs
import heapq
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import traitlets

from gptlib.widgets import engine, foreign
from gptlib.widgets.base import one_of, well_formed
from gptlib.widgets.linker import linked

if TYPE_CHECKING:
    import tiktoken
    from torch import Tensor, nn

    from gptlib.stories.notation import Item, Option, Style

GRAMMAR = "stories_grammar.json"
"""The name of the grammar among a site's files, as :func:`grammar_json` writes it."""

COLORS = ("loss", "surprisal", "excess")
LIKELIEST = 3
"""Shares are stored of so many tokens that the grammar, and as many that the model, likes best."""
SMALLEST = 0.005
"""A share below this is stored only of the token that came."""
EXPECTED = 5
"""At most so many examples say what could have stood where a text leaves the grammar."""
MOST_STORIES = 12


class Surprise(engine.EngineWidget):
    """Holds a model's loss at each token of a story against what the best predictor would lose.

    ``story`` is a text, or a few to choose from; what is no story is followed as far as the grammar
    goes. ``encoding`` is the stories' own unless another is given, ``model`` the mini model; the
    model reads the story after the end-of-text token. ``chosen`` counts the stories from 0,
    ``token`` the tokens of the chosen one. ``color`` is what the text is colored by: the model's
    ``loss``, the exact ``surprisal``, or the ``excess`` of the one over the other.

    With the mini model the reader may change the text, or let the model write one: the front end
    then runs the model and the grammar itself, in a page and in a notebook alike.

    Raises ``TypeError`` and ``ValueError`` for what is no story, encoding or model, and for a text
    that is empty or does not fit into the model's context, naming what was given.
    """

    _module = "surprise"

    stories: traitlets.List[Any] = traitlets.List().tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)
    color = traitlets.Unicode("loss").tag(sync=True)
    weights = traitlets.Int(0).tag(sync=True)  #: bytes of the mini model, 0 for others

    def __init__(
        self,
        story: str | Sequence[str],
        encoding: tiktoken.Encoding | None = None,
        model: nn.Module | None = None,
    ) -> None:
        from gptlib import pretrained, tokenizer

        texts = _checked(story)
        own = encoding is None or _is_stories(encoding)
        encoding = tokenizer.stories() if encoding is None else encoding
        is_mini = own and (model is None or engine.is_mini(_module(model)))
        model = pretrained.load("mini") if model is None else _module(model)
        stories = [judge(text, encoding, model) for text in texts]
        weights = engine.about()["bytes"] if is_mini else 0
        super().__init__(stories=stories, token=_telling(stories[0]), weights=weights)
        self.on_msg(self._hand_over_grammar)

    @traitlets.validate("chosen", "token")
    def _check_index(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        parts = self.stories if name == "chosen" else self.stories[self.chosen]["tokens"]
        if not 0 <= value < len(parts):
            raise ValueError(f"{name} must be from 0 to {len(parts) - 1}, not {value}")
        return int(value)

    @traitlets.validate("color")
    def _check_color(self, proposal: dict[str, Any]) -> str:
        return one_of("color", proposal["value"], COLORS)

    @traitlets.observe("chosen")
    def _keep_in_range(self, change: dict[str, Any]) -> None:
        self.token = min(self.token, len(self.stories[self.chosen]["tokens"]) - 1)

    def _hand_over_grammar(self, _: Any, content: Any, buffers: Any) -> None:
        """Send what the front end follows a story with; a page has it among its files."""
        if not isinstance(content, dict) or content.get("type") != "grammar":
            return
        modules = linked("page/story_follower.js", "page/gpt.js")
        grammar, vocabulary = grammar_json(), engine.vocabulary_json("stories")
        data = {"grammar": json.loads(grammar), "vocabulary": json.loads(vocabulary)}
        self.send({"type": "grammar", "modules": modules, **data})

    def state(self) -> dict[str, Any]:
        """Return the stories with all that is known of their tokens, and what is chosen."""
        names = ("stories", "chosen", "token", "color", "weights")
        return {name: getattr(self, name) for name in names}

    def describe(self) -> str:
        """Say in words what the chosen story costs."""
        story = self.stories[self.chosen]
        text, known = "".join(story["tokens"]), len(story["surprisal"])
        names = ("loss", "surprisal", "entropy")
        loss, surprisal, entropy = (math.fsum(story[name][:known]) for name in names)
        start = text if len(text) <= 60 else text[:59] + "…"
        whole = known == len(story["tokens"])
        return (
            f"Surprise, token by token, of the text {start!r}: {len(story['tokens'])} tokens, "
            f"{'all' if whole else f'the first {known}'} as a story has them. On these the model "
            f"loses {loss:.2f} nats. The best possible predictor, which knows the grammar, loses "
            f"{surprisal:.2f}. What it expects to lose, its entropy at each token, adds up to "
            f"{entropy:.2f}."
        )


# --- what is known of a story ---------------------------------------------------------------------


def judge(text: str, encoding: tiktoken.Encoding, model: nn.Module) -> dict[str, Any]:
    """Return what is known of each token of a text; all losses in nats.

    ``tokens`` has the text that each completes, together the text; of a whole story the last is its
    end, "".
    ``loss`` is the model's. As far as the text is a story, ``surprisal`` is the exact one,
    ``entropy`` what was to be expected of it, and ``possible`` says how many tokens could come;
    these two are known of the token that leaves the grammar too. ``shares`` lists for each token
    triples, one after the other: an id, whose text is in ``names``, and the probabilities that the
    grammar (None where the text is no story) and the model give it; it is empty where both are
    certain of the token. ``end`` says how the text ends: "whole", or what could follow where it
    "breaks" off or stand where it "leaves" the grammar.
    """
    from gptlib import characters

    characters.end_of_text(encoding)  # or an error that names it
    ids = characters.encode(encoding, text)
    expected, end = _follow(ids, encoding)
    ids += [encoding.eot_token] * (end["kind"] == "whole")
    logs = _log_probabilities(model, encoding, ids)  # (T, V)
    named: set[int] = set()
    shares = []
    for index, token in enumerate(ids):
        exact = expected[index] if index < len(expected) else None
        rows = list(_shares(exact, logs[index], token))
        named.update(row[0] for row in rows)
        shares.append([value for row in rows for value in row])
    return {
        "tokens": _texts(encoding, ids),
        "loss": [round(-float(logs[i, token]), 4) for i, token in enumerate(ids)],
        "surprisal": [
            round(-math.log(p), 4) + 0.0
            for token, exact in zip(ids, expected, strict=False)
            if (p := exact.get(token))
        ],
        "entropy": [round(_entropy(exact), 4) for exact in expected],
        "possible": [len(exact) for exact in expected],
        "shares": shares,
        "names": {str(token): encoding.decode([token]) for token in sorted(named)},
        "end": end,
    }


def _follow(
    ids: Sequence[int], encoding: tiktoken.Encoding
) -> tuple[list[dict[int, float]], dict[str, Any]]:
    """Return what the grammar expects before each token, while it is a story's, and how it ends."""
    from gptlib.stories.surprise import Follower

    follower = Follower(encoding)
    expected = []
    for token in ids:
        expected.append(follower.next)
        if token not in follower.next:
            break
        follower.read(token)
    else:
        if encoding.eot_token in follower.next:
            return [*expected, follower.next], {"kind": "whole"}
    lost = bool(expected) and expected[-1] is follower.next
    best = heapq.nlargest(EXPECTED, follower.next, key=lambda token: follower.next[token])
    return expected, {
        "kind": "leaves" if lost else "breaks",
        "expected": [encoding.decode([token]) for token in best],
        "others": len(follower.next) - len(best),
    }


def _entropy(exact: dict[int, float]) -> float:
    return max(0.0, -math.fsum(p * math.log(p) for p in exact.values()))


def _shares(
    exact: dict[int, float] | None, logs: Tensor, token: int
) -> Iterator[tuple[int, float | None, float]]:
    """Yield the token, and those that the grammar or the model likes best, with both shares."""
    best = heapq.nlargest(LIKELIEST, exact or {}, key=lambda other: (exact or {})[other])
    rows = []
    for other in dict.fromkeys(
        [token, *best, *logs.topk(min(LIKELIEST, len(logs))).indices.tolist()]
    ):
        p = None if exact is None else round(exact.get(other, 0.0), 3)
        q = round(float(logs[other].exp()), 3)
        if other == token or max(p or 0.0, q) >= SMALLEST:
            rows.append((other, p, q))
    (_, p, q), *more = rows
    if more or p is None or min(p, q) < 1 - SMALLEST:
        yield from rows


def _log_probabilities(model: nn.Module, encoding: tiktoken.Encoding, ids: list[int]) -> Tensor:
    """Return what a model gives each token before it reads it, after the end-of-text: (T, V)."""
    read = [encoding.eot_token, *ids[:-1]]
    config = getattr(model, "config", None)
    most = getattr(config, "context_length", None)
    if most is not None and len(read) > most:
        raise ValueError(
            f"the story has {len(read):,} tokens with the end-of-text token, but the model reads "
            f"at most {most:,}"
        )
    size = getattr(config, "vocab_size", encoding.n_vocab)
    if size != encoding.n_vocab:
        raise ValueError(f"the model knows {size:,} tokens, the encoding {encoding.n_vocab:,}")
    with foreign.reading(model, read, "this story") as batch:
        logits: Tensor = model(batch)[0].double().cpu()
    if logits.shape != (len(read), encoding.n_vocab):
        raise ValueError(
            f"the model returns logits of shape {(1, *logits.shape)} for {len(read)} tokens of "
            f"{encoding.n_vocab:,}, not {(1, len(read), encoding.n_vocab)}"
        )
    if not logits.isfinite().all():
        raise ValueError("the model's logits are not all finite numbers")
    return logits.log_softmax(-1)  # (T, V)


def _texts(encoding: tiktoken.Encoding, ids: Iterable[int]) -> list[str]:
    """Return the text that each token completes: a character comes with its last byte."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    end = encoding.eot_token
    return ["" if i == end else decoder.decode(encoding.decode_single_token_bytes(i)) for i in ids]


def _telling(story: dict[str, Any]) -> int:
    """Return the token to look at first: at which the model lost most in vain."""
    known = len(story["surprisal"])
    exact = story["surprisal"] + [0.0] * (len(story["tokens"]) - known)
    costs = [loss - least for loss, least in zip(story["loss"], exact, strict=True)]
    return costs.index(max(costs))


# --- what is given --------------------------------------------------------------------------------


def _checked(story: Any) -> list[str]:
    """Return the stories that a reader can choose from."""
    if not isinstance(story, (str, list, tuple)):
        raise TypeError(
            f"story must be a str or several, not {type(story).__name__}: {story!r:.80}"
        )
    stories = [story] if isinstance(story, str) else list(story)
    if not 1 <= len(stories) <= MOST_STORIES:
        raise ValueError(f"story must be 1 to {MOST_STORIES} texts, not {len(stories)}")
    for text in stories:
        if not isinstance(text, str):
            raise TypeError(
                f"story must be a str or several, not {type(text).__name__}: {text!r:.80}"
            )
        if not text:
            raise ValueError("story must not be empty: at least one token is needed")
    if len(set(stories)) < len(stories):
        raise ValueError(f"story must not repeat a text, not {stories!r:.200}")
    return [well_formed(text) for text in stories]


def _module(model: Any) -> nn.Module:
    from torch import nn

    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    return model


def _is_stories(encoding: Any) -> bool:
    """Say whether an encoding is the stories' own."""
    import tiktoken

    from gptlib import tokenizer

    if not isinstance(encoding, tiktoken.Encoding):
        raise TypeError(f"encoding must be a tiktoken.Encoding, not {type(encoding).__name__}")
    own = tokenizer.stories()
    return encoding.n_vocab == own.n_vocab and (
        encoding is own or tokenizer.token_bytes(encoding) == tokenizer.token_bytes(own)
    )


# --- the grammar as data --------------------------------------------------------------------------


@cache
def grammar_json() -> str:
    """Return the stories' grammar as ``story_follower.js`` reads it: lists and rules by name."""
    from gptlib import stories

    choices = stories.grammar().choices
    data = {name: [_option(option) for option in c.options] for name, c in choices.items()}
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def _option(option: Option) -> dict[str, Any]:
    from gptlib.stories.notation import Word

    weight = {"weight": option.weight} if option.weight > 1 else {}
    if isinstance(option, Word):
        forms = {"forms": dict(option.forms)} if option.forms else {}
        return {"word": option.text, **forms, **weight}
    label = {"label": option.label} if option.label else {}
    return {"line": [_item(item) for item in option.items], **label, **weight}


def _item(item: Item) -> str | dict[str, Any]:
    from gptlib.stories.notation import Mention

    if isinstance(item, str):
        return item
    if isinstance(item, Mention):
        form = {"form": item.form} if item.form else {}
        return {"say": item.name, **form, **_style(item.style)}
    found = {"draw": item.source, "by": item.switch, "as": item.name, "not": item.exclude}
    return {name: value for name, value in found.items() if value} | _style(item.style)


def _style(style: Style) -> dict[str, bool]:
    chosen = {"article": style.article, "capital": style.capital}
    return {name: True for name, value in chosen.items() if value}
