"""The mini model writes in the reader's own browser, and shows what it weighs at every token."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import traitlets

from gptlib.widgets.base import one_of, well_formed
from gptlib.widgets.engine import EngineWidget, weights

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("write", "next", "surprise", "attention")
"""What can be open: the text, which always is, and three panels."""

SHORTEST, WRITTEN = 30, 40
"""So many tokens follow the prompt in the stored example: it stops where much can come next."""
LONGEST = 64
"""The longest prompt, in tokens, that an example is stored for."""
LIKELIEST = 8
"""So many alternatives are stored at each place of the example."""
SHARES = 10_000
"""Their probabilities are stored in parts of this."""

HOTTEST = 2.0
LARGEST_K = 100
_EXAMPLE_SEED = 1


class Playground(EngineWidget):
    """Lets the reader write with the mini model, which runs in the reader's own browser.

    ``prompt`` is the beginning that stands in the box at first. ``parts`` says what is open at
    first: all of ``PARTS`` by default, or some, such as ``["write", "next"]``. ``seed`` decides
    the draws: the same beginning, settings and seed give the same text in every browser.
    ``temperature``, ``top_k`` and ``top_p`` mean what they mean in
    :func:`gptlib.generation.next_probabilities`. ``text`` holds what was written last, the
    beginning included; an empty line stands between two stories.

    Before the model is loaded, a stored example is shown: the prompt, continued by the same model
    in PyTorch. Raises ``TypeError`` or ``ValueError`` for what a trait does not take.
    """

    _module = "playground"

    prompt = traitlets.Unicode("Once upon a time").tag(sync=True)
    temperature = traitlets.Float(1.0).tag(sync=True)
    top_k = traitlets.Int(None, allow_none=True).tag(sync=True)
    top_p = traitlets.Float(None, allow_none=True).tag(sync=True)
    seed = traitlets.Int(1).tag(sync=True)
    parts: traitlets.List[str] = traitlets.List(list(PARTS)).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(2).tag(sync=True)
    colored = traitlets.Bool(True).tag(sync=True)
    fast = traitlets.Bool(False).tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    example: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    size = traitlets.Int(read_only=True).tag(sync=True)  # of the weights, in bytes

    def __init__(
        self, prompt: str = "Once upon a time", *, parts: Sequence[str] | None = None, seed: int = 1
    ) -> None:
        if not isinstance(prompt, str):
            raise TypeError(f"prompt must be a str, not {type(prompt).__name__}: {prompt!r:.80}")
        chosen = PARTS if parts is None else _known(parts)
        super().__init__(prompt=prompt, parts=list(chosen), seed=seed)
        self.set_trait("size", len(weights()))

    @traitlets.validate("temperature", "top_k", "top_p")
    def _check_settings(self, proposal: dict[str, Any]) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        if value is None:
            return None
        low, high = {"temperature": (0, HOTTEST), "top_k": (1, LARGEST_K), "top_p": (0, 1)}[name]
        above = name == "top_p" and value == 0
        if not low <= value <= high or above or (name == "temperature" and 0 < value < 1e-6):
            bounds = "above 0 and at most 1" if name == "top_p" else f"from {low} to {high:g}"
            raise ValueError(f"{name} must be {bounds} here, not {value!r}")
        return value

    @traitlets.validate("seed", "layer", "head")
    def _check_count(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        most = {"seed": 2**32 - 1, "layer": 3, "head": 5}[name]
        if not 0 <= value <= most:
            raise ValueError(f"{name} must be from 0 to {most:,}, not {value!r}")
        return int(value)

    @traitlets.validate("prompt")
    def _check_prompt(self, proposal: dict[str, Any]) -> str:
        return well_formed(proposal["value"])

    @traitlets.validate("parts")
    def _check_parts(self, proposal: dict[str, Any]) -> list[str]:
        return _known(proposal["value"])

    def state(self) -> dict[str, Any]:
        """Return the settings, and an example of what the model writes after the prompt."""
        names = ("prompt", "temperature", "top_k", "top_p", "seed", "parts", "layer", "head")
        settings = {name: getattr(self, name) for name in (*names, "colored", "fast", "size")}
        return {**settings, "text": "", "example": example(self.prompt)}

    def describe(self) -> str:
        """Say in words what the reader can do here, and what the example says."""
        shown = example(self.prompt)
        written = "".join(shown["texts"]) if shown else ""
        story = f" As an example, it has written: {written!r}." if shown else ""
        return (
            "Playground: the mini model writes in your own browser. You type a beginning, and it "
            "goes on token by token; you see how surprised it is by each token, what else it "
            "weighed, and where its attention looks, and you may take another token instead. "
            f"The beginning is {_start(self.prompt)!r}.{story}"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        self.example = example(self.prompt)  # not before: it takes the model a second
        return super()._repr_mimebundle_(**kwargs)


def _known(parts: Iterable[str]) -> list[str]:
    """Return the parts in their order, with the text, which is always open."""
    if isinstance(parts, str):
        raise TypeError(f"parts must be a list of names, not the str {parts!r}")
    named = {one_of("each of parts", part, PARTS) for part in parts}
    return [part for part in PARTS if part in named or part == "write"]


@lru_cache(maxsize=8)
def example(prompt: str) -> dict[str, Any]:
    """Return what the mini model writes after a prompt, and what it weighed at every place.

    ``ids`` and ``texts`` are the tokens, the end-of-text token that stands before them first;
    ``prompt`` counts those of the prompt, with it. ``losses`` are nats, of all tokens but the
    first. ``alternatives`` holds for each place after the first, and for the next one, ids and
    their probabilities in turn, in parts of ``SHARES``; ``names`` the texts of these ids. All of
    it is empty for a prompt of more than ``LONGEST`` tokens.
    """
    import torch

    from gptlib import generation, pretrained, tokenizer

    encoding = tokenizer.stories()
    begun = [encoding.eot_token, *encoding.encode_ordinary(prompt)]
    if len(begun) > LONGEST + 1:
        return {}
    model = pretrained.load("mini")
    draws = torch.Generator().manual_seed(_EXAMPLE_SEED)
    written = generation.generate(
        model, torch.tensor([begun]), WRITTEN, stop=encoding.eot_token, generator=draws
    )
    ids = begun + [int(token) for token in written]
    with torch.no_grad():
        shares = model(torch.tensor([ids]))[0].double().softmax(-1)  # (T, V)
    entropies = torch.special.entr(shares).sum(-1).tolist()  # (T,)
    stops = range(min(len(begun) + SHORTEST, len(ids)), len(ids) + 1)
    stop = max(stops, key=lambda length: entropies[length - 1])
    ids, shares = ids[:stop], shares[:stop]
    likeliest = [_likeliest(row) for row in shares]
    names = sorted({token for row in likeliest for token in row[::2]})
    return {
        "ids": ids,
        "texts": _texts(ids, encoding),
        "prompt": len(begun),
        "losses": [
            round(-math.log(row[token]), 3) for row, token in zip(shares[:-1], ids[1:], strict=True)
        ],
        "alternatives": likeliest,
        "names": {
            str(token): encoding.decode_single_token_bytes(token).decode(errors="replace")
            for token in names
            if token != encoding.eot_token
        },
    }


def _likeliest(shares: Tensor) -> list[int]:
    """Return the likeliest tokens of probabilities ``(V,)``: an id, its share, the next id, …."""
    values, ids = shares.topk(LIKELIEST)
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    return [number for token, value in pairs for number in (token, round(SHARES * value))]


def _texts(ids: list[int], encoding: Any) -> list[str]:
    """Return the text that each token completes: "" for one that ends within a character."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [
        decoder.decode(b"" if token == encoding.eot_token else encoding.decode_bytes([token]))
        for token in ids
    ]


def _start(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
