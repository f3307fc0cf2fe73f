"""What comes next: a prompt's likeliest tokens, moved by temperature, top-k and top-p."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import traitlets

from gptlib.widgets import foreign
from gptlib.widgets.base import Widget, well_formed

if TYPE_CHECKING:
    import tiktoken
    from torch import Tensor

KEPT = 4_096
"""So many tokens, the likeliest of a prompt, are stored one by one;"""
BINS = 512
"""what is less likely is stored as a histogram of at most this many bins."""
NEAR = 0.05
"""Within this distance of the highest logit the stored steps are even, farther off they widen."""
LEVELS = 2**24 - 1 - KEPT
"""The code of the least likely token that is kept, before codes that collide move on."""

HOTTEST = 2.0
LARGEST_K = 100
MOST_DRAWS = 10_000
MOST_PROMPTS = 20


class SamplingBench(Widget):
    """Shows what a model expects after a prompt, and what sampling makes of it.

    ``model`` takes ids ``(1, T)`` and returns logits ``(1, T, V)``, as ``GPT`` does; it reads the
    prompt after the end-of-text token. ``prompt`` is a text, or a few to choose from: a page
    without a kernel shows these. ``temperature``, ``top_k`` and ``top_p`` mean what they mean in
    :func:`gptlib.generation.next_probabilities`. ``draws`` tokens are drawn, by ``seed``.

    In a notebook the reader may type another prompt, or add a token to it, whose id goes into the
    trait ``added``; ``typed`` follows, or ``error`` says in one line why it cannot, and the bars
    stay as they were. Setting ``prompt`` empties ``added``.

    Raises ``ValueError`` for a prompt that the model does not take, and for settings out of range.
    """

    _module = "sampling_bench"

    tokens: traitlets.List[str] = traitlets.List().tag(sync=True)  # of a small vocabulary, all
    stored: traitlets.List[Any] = traitlets.List().tag(sync=True)
    typed: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    prompt = traitlets.Unicode().tag(sync=True)
    added: traitlets.List[int] = traitlets.List(traitlets.Int()).tag(sync=True)
    temperature = traitlets.Float(1.0).tag(sync=True)
    top_k = traitlets.Int(None, allow_none=True).tag(sync=True)
    top_p = traitlets.Float(None, allow_none=True).tag(sync=True)
    draws = traitlets.Int(0).tag(sync=True)
    seed = traitlets.Int(1).tag(sync=True)
    error = traitlets.Unicode("").tag(sync=True)
    live = traitlets.Bool(True, read_only=True).tag(sync=True)  # a page's state lacks it

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        prompt: str | Sequence[str],
        encoding: tiktoken.Encoding,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        prompts = _checked([prompt] if isinstance(prompt, str) else list(prompt))
        self._model, self._encoding = model, encoding
        self._logits: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        stored = [self._distribution(text, []) for text in prompts]
        whole = encoding.n_vocab <= KEPT
        super().__init__(
            stored=stored,
            tokens=_texts(encoding, range(encoding.n_vocab)) if whole else [],
            prompt=prompts[0],
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
        )

    @traitlets.validate("temperature", "top_k", "top_p")
    def _check_settings(self, proposal: dict[str, Any]) -> Any:
        from gptlib.generation import check_sampling

        name, value = proposal["trait"].name, proposal["value"]
        check_sampling(**{"temperature": 1.0, "top_k": None, "top_p": None, name: value})
        most = {"temperature": HOTTEST, "top_k": LARGEST_K}.get(name)
        if most is not None and value is not None and value > most:
            raise ValueError(f"{name} must be at most {most:g} here, not {value!r}")
        return value

    @traitlets.validate("draws", "seed")
    def _check_count(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        most = MOST_DRAWS if name == "draws" else 2**32 - 1
        if not 0 <= value <= most:
            raise ValueError(f"{name} must be from 0 to {most:,}, not {value!r}")
        return int(value)

    @traitlets.validate("prompt")
    def _check_prompt(self, proposal: dict[str, Any]) -> str:
        return well_formed(proposal["value"])

    @traitlets.validate("added")
    def _check_added(self, proposal: dict[str, Any]) -> list[int]:
        for token in proposal["value"]:
            if not 0 <= token < self._encoding.n_vocab:
                raise ValueError(f"added must hold ids from 0 to {self._encoding.n_vocab - 1}")
        return list(proposal["value"])

    @traitlets.observe("prompt", "added")
    def _update(self, change: dict[str, Any]) -> None:
        if change["name"] == "prompt" and self.added:
            self.added = []  # which comes back to here
            return
        if self._shown() is not None:
            self.error = ""
            return
        try:
            typed = self._distribution(self.prompt, self.added)
        except ValueError as error:
            self.error = str(error)
            return
        with self.hold_sync():
            self.typed, self.error = typed, ""

    def _shown(self) -> dict[str, Any] | None:
        """Return the distribution after the prompt and the added tokens, or None if not known."""
        known: list[dict[str, Any]] = [*self.stored, self.typed]
        chosen = (self.prompt, self.added)
        return next((one for one in known if one and (one["text"], one["added"]) == chosen), None)

    def _distribution(self, text: str, added: Sequence[int]) -> dict[str, Any]:
        logits = next_logits(self._model, self._encoding, text, added)
        self._logits[text, tuple(added)] = logits
        packed = pack(logits)
        ids = packed.pop("named")
        texts = _texts(self._encoding, ids)
        return {"text": text, "added": list(added), **packed, "texts": texts}

    def state(self) -> dict[str, Any]:
        """Return the distributions and the settings."""
        shown = self._shown() or self.stored[0]
        own = [] if shown in self.stored else [shown]
        chosen = ("tokens", "temperature", "top_k", "top_p", "draws", "seed")
        return {
            **{name: getattr(self, name) for name in chosen},
            "prompt": shown["text"],
            "added": shown["added"],
            "stored": [*self.stored, *own],
        }

    def describe(self) -> str:
        """Say in words what comes next, and how it would be drawn."""
        from gptlib.generation import next_probabilities

        shown = self._shown() or self.stored[0]
        logits = self._logits[shown["text"], tuple(shown["added"])]
        drawn = next_probabilities(logits, self.temperature, self.top_k, self.top_p)
        values, ids = logits.softmax(-1).topk(min(3, len(logits)))
        best = _texts(self._encoding, ids.tolist())
        listed = ", ".join(
            f"{text.encode('latin-1').decode(errors='replace')!r} {_percent(value)}"
            for text, value in zip(best, values.tolist(), strict=True)
        )
        text = shown["text"] + self._encoding.decode(shown["added"])
        settings = f"temperature {self.temperature:g}"
        settings += f", top-k {self.top_k}" * (self.top_k is not None)
        settings += f", top-p {self.top_p}" * (self.top_p is not None)
        return (
            f"Sampling bench: what comes after the prompt {_start(text)!r}. Of {len(logits):,} "
            f"tokens the model finds likeliest: {listed}. With {settings} the first of them is "
            f"drawn with {_percent(float(drawn.max()))}."
        )


def next_logits(
    model: Callable[[Tensor], Tensor],
    encoding: tiktoken.Encoding,
    text: str,
    added: Iterable[int] = (),
) -> Tensor:
    """Return the logits ``(V,)`` after the end-of-text token, a prompt, and some more tokens.

    Entries of a padded model that the encoding lacks are left out. Raises ``ValueError`` where the
    model or the encoding does not take the prompt, or the model answers for another vocabulary.
    """
    from gptlib import characters
    from gptlib.generation import PADDING

    end = characters.end_of_text(encoding)
    ids = [end, *characters.encode(encoding, text), *added]
    most = getattr(getattr(model, "config", None), "context_length", None)
    if most is not None and len(ids) > most:
        raise ValueError(
            f"the prompt has {len(ids):,} tokens with the end-of-text token, but the model reads "
            f"at most {most:,}"
        )
    with foreign.reading(model, ids, "this prompt") as batch:
        logits = model(batch)[0, -1].float().cpu()  # (V,)
    if not 0 <= len(logits) - encoding.n_vocab < PADDING:
        raise ValueError(
            f"the model knows {len(logits):,} tokens, the encoding {encoding.n_vocab:,}"
        )
    logits = logits[: encoding.n_vocab]
    if not logits.isfinite().all():
        raise ValueError("the model's logits are not all finite numbers")
    return logits.clone()  # and not a view of the logits of all tokens


def pack(logits: Tensor) -> dict[str, Any]:
    """Return logits ``(V,)`` as base64 of small integers, in a form that keeps their order.

    ``codes`` holds, in the order of the ids, how far each of the likeliest ``KEPT`` tokens is
    below the likeliest (24 bits, finer near 0, where a low temperature would magnify an error),
    up to ``width``. ``ids`` names them if they are not all; ``named`` lists these ids. ``rest``
    has the others as pairs: how many, and how far below on average.
    """
    import torch

    values, order = logits.double().sort(descending=True, stable=True)  # (V,)
    depths, kept = values[0] - values, order[:KEPT]
    width = max(float(f"{float(depths[len(kept) - 1]):.6g}"), 1e-6)
    even = torch.log1p(depths[:KEPT] / NEAR) / torch.log1p(torch.tensor(width).double() / NEAR)
    codes = torch.tensor(_apart((even.clamp(0, 1) * LEVELS).round().int().tolist(), kept.tolist()))
    by_id = kept.argsort()
    some = len(kept) < len(order)
    return {
        "size": len(order),
        "width": width,
        "codes": _integers(codes[by_id]),
        "ids": _integers(kept[by_id]) if some else "",
        "named": kept[by_id].tolist() if some else [],
        "rest": _histogram(depths[KEPT:]) if some else [],
    }


def _apart(codes: list[int], ids: list[int]) -> list[int]:
    """Move codes on where they collide, so that sorting by code, then id, gives this order."""
    for i in range(1, len(codes)):
        least = codes[i - 1] + (ids[i] < ids[i - 1])
        codes[i] = max(codes[i], least)
    return codes


def _histogram(depths: Tensor) -> list[list[float]]:
    """Return rising numbers as pairs: how many are in a bin, and their average."""
    import torch

    low, high = depths[0], depths[-1]
    places = (depths - low) / (high - low).clamp(min=1e-6) * BINS
    bins = places.long().clamp(max=BINS - 1)
    counts = torch.bincount(bins, minlength=BINS)
    sums = torch.zeros(BINS, dtype=depths.dtype).index_add(0, bins, depths)
    return [
        [count, round(total / count, 4)]
        for count, total in zip(counts.tolist(), sums.tolist(), strict=True)
        if count
    ]


def _checked(prompts: list[Any]) -> list[str]:
    """Return the prompts that a reader can choose from."""
    if not 1 <= len(prompts) <= MOST_PROMPTS:
        raise ValueError(f"prompt must be 1 to {MOST_PROMPTS} texts, not {len(prompts)}")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise TypeError(f"prompt must be a str or several, not {type(prompt).__name__}")
    if len(set(prompts)) < len(prompts):
        raise ValueError(f"prompt must not repeat a text, not {prompts!r}")
    return [well_formed(prompt) for prompt in prompts]


def _texts(encoding: tiktoken.Encoding, ids: Iterable[int]) -> list[str]:
    """Return the bytes of tokens, a character a byte."""
    return [encoding.decode_single_token_bytes(i).decode("latin-1") for i in ids]


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "under 1%"


def _integers(values: Tensor) -> str:
    """Return integers as base64, three bytes each, the lowest first."""
    import numpy as np

    data = values.numpy().astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
    return base64.b64encode(data.tobytes()).decode("ascii")


def _start(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
