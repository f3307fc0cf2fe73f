"""A training run to look back at: at several moments its loss, what it wrote, where a head looked.

A replay is a plain dict in JSON's types, in the form of :class:`Replay`. :func:`build` makes one
from the weights of several moments, :func:`check` tells a replay from anything else, and
:func:`mini` is the replay of the mini model's own training.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from safetensors.torch import load_file
from tiktoken import Encoding
from torch import Tensor

from gptlib import stories
from gptlib.activations import attention_maps
from gptlib.config import GPTConfig
from gptlib.generation import generate
from gptlib.history import History
from gptlib.model import GPT
from gptlib.training import evaluate

#: The story whose attention is shown. Right before its last name, only one of the two can follow.
FRAGMENT = (
    "Ada and Tom were best friends. One sunny Friday, they ran to the park. "
    "Tom had dreamed of a goose with twelve beards and told Ada all about it."
)
#: What each sample begins with. The last one needs a name to be remembered.
PROMPTS = ("", "Once upon a time", FRAGMENT[: FRAGMENT.rindex(" Ada")])

VERSION = 1
CURVE_POINTS = 400  #: at most so many points has the curve of the loss
MAP_TOKENS = 40  #: at most so many tokens has the fragment, the start of the text included
NEW_TOKENS = 220  #: at most so many tokens has a sample after its prompt; no story is longer
EXAMPLES = 3  #: at most so many examples of what could stand where a sample leaves the grammar
PROBES = 8  #: on so many stories the heads are compared

Weights = Mapping[str, Tensor]
Batch = tuple[Tensor, Tensor]


class Sample(TypedDict):
    """A text, its prompt included, and the grammar's verdict: :class:`gptlib.stories.Verdict`."""

    text: str
    parses: bool
    fails_at: int | None  #: in characters, which are code points
    expected: list[str]
    names: bool
    pronouns: bool
    object: bool


class Moment(TypedDict):
    """What was measured with the weights that ``step`` steps had made."""

    step: int
    stories: int  #: read until then
    tokens: int  #: read until then
    held_out: float  #: loss on held-out stories, in nats per token
    training: float  #: mean loss of the last 25 batches before, or of the first one
    samples: list[Sample]  #: one for each prompt
    score: float  #: what the head that is shown gives to the name that comes next,
    others: float  #: and to the other names (see :func:`name_attention`)
    map: str  #: its weights on the fragment, the lower triangle by rows, base64 of bytes, 255 is 1


class Curve(TypedDict):
    """The loss in training: means over the steps from one point to the next."""

    steps: list[int]
    losses: list[float]


class Head(TypedDict):
    """The head whose attention is shown, counted from 0."""

    layer: int
    head: int


class Fragment(TypedDict):
    """The story whose attention is shown. The first of the ``tokens`` is the start of the text."""

    text: str
    tokens: list[str]  #: a character a byte
    query: int  #: the token to show first, the one right before the last name
    name: str  #: that name
    targets: list[int]  #: its earlier places


class Replay(TypedDict):
    """A replay; its moments are in the order of their steps."""

    version: int
    steps: int
    floor: float  #: in nats per token
    curve: Curve
    prompts: list[str]
    fragment: Fragment
    head: Head
    moments: list[Moment]


def build(
    config: GPTConfig,
    moments: Iterable[tuple[int, Weights]],
    history: History,
    encoding: Encoding,
    *,
    held_out: Sequence[Batch],
    batch_size: int,
    floor: float | None = None,
    prompts: Sequence[str] = PROMPTS,
    fragment: str = FRAGMENT,
    seed: int = 0,
) -> Replay:
    """Return the replay of a run on stories, from the weights of several moments.

    ``moments`` are pairs: after how many steps, and the weights by the names of a :class:`GPT`'s
    parameters. ``history`` is that of the run, ``batch_size`` the stories in each step. The loss on
    ``held_out`` is measured at the steps where the history does not have it already. The samples
    are drawn at temperature 1, each with ``seed``. The head shown is :func:`best_head` at the last
    moment. ``floor`` is :func:`gptlib.stories.entropy_per_token`
    unless it is given.

    Raises ``ValueError`` if a moment is missing, double, later than the history, or of another
    shape than ``config``, and for a fragment that is too long or repeats no name.
    """
    taken = sorted(moments, key=lambda pair: pair[0])
    _check_steps([step for step, _ in taken], history)
    shown = _fragment(fragment, encoding, min(MAP_TOKENS, config.context_length))
    probes = _probes(encoding, config.context_length)
    model = GPT(config).eval()
    put_weights(model, *taken[-1])
    head = best_head(model, probes)
    watch = _Watch(model, encoding, held_out, prompts, shown, probes, head, seed)
    if floor is None:
        floor = stories.entropy_per_token(encoding).nats_per_token
    return {
        "version": VERSION,
        "steps": history.steps,
        "floor": round(floor, 5),
        "curve": thin(history.losses),
        "prompts": list(prompts),
        "fragment": shown,
        "head": head,
        "moments": [_moment(watch, *pair, history, batch_size) for pair in taken],
    }


def mini() -> Replay:
    """Return the replay of the mini model's training."""
    asset = files("gptlib") / "assets" / "mini" / "replay.json"
    return check(json.loads(asset.read_text(encoding="utf-8")))


def moments_in(folder: str | Path) -> list[tuple[int, Weights]]:
    """Return the moments that lie in a folder as ``STEP.safetensors``, in the steps' order."""
    paths = sorted(Path(folder).glob("*.safetensors"))
    return [(int(path.stem), load_file(path)) for path in paths]


def to_json(replay: Replay) -> str:
    """Return a replay as compact JSON, in a line of its own."""
    return json.dumps(replay, ensure_ascii=False, separators=(",", ":")) + "\n"


def put_weights(model: GPT, step: int, weights: Weights) -> None:
    """Copy a moment's weights into the model; ``ValueError`` if they are not of its shape."""
    for name, parameter in model.named_parameters():
        ours = tuple(parameter.shape)
        theirs = tuple(weights[name].shape) if name in weights else "nothing"
        if ours != theirs:
            raise ValueError(f"moment {step} has {theirs} for {name}, where the model has {ours}")
        parameter.data.copy_(weights[name])


def thin(losses: Sequence[float], most: int = CURVE_POINTS) -> Curve:
    """Return a curve of at most so many points, each the mean since the one before.

    The points come at even distances on a logarithmic axis: early steps one by one, later ones
    many together.
    """
    ends = {round(math.exp(math.log(len(losses)) * i / max(most - 1, 1))) for i in range(most)}
    steps = sorted(ends | {len(losses)})[-most:]
    means = [
        sum(losses[start:end]) / (end - start)
        for start, end in zip([0, *steps], steps, strict=False)
    ]
    return {"steps": steps, "losses": [round(mean, 4) for mean in means]}


# --- what is measured at a moment ----------------------------------------------------------------


class _Watch(NamedTuple):
    """What stays the same from moment to moment, and the model, which does not."""

    model: GPT
    encoding: Encoding
    held_out: Sequence[Batch]
    prompts: Sequence[str]
    fragment: Fragment
    probes: list[_Probe]
    head: Head
    seed: int


def _moment(
    watch: _Watch, step: int, weights: Weights, history: History, batch_size: int
) -> Moment:
    put_weights(watch.model, step, weights)
    recent = history.losses[max(0, step - 25) : max(1, step)]
    layer, head = watch.head["layer"], watch.head["head"]
    right, wrong = name_attention(watch.model, watch.probes)  # (L, H), both
    measured = dict(history.evaluations)
    held_out = measured[step] if step in measured else evaluate(watch.model, watch.held_out)
    return {
        "step": step,
        "stories": step * batch_size,
        "tokens": sum(history.tokens[:step]),
        "held_out": round(held_out, 5),
        "training": round(sum(recent) / len(recent), 5),
        "samples": [_sample(watch, prompt) for prompt in watch.prompts],
        "score": round(float(right[layer, head]), 4),
        "others": round(float(wrong[layer, head]), 4),
        "map": _map(watch),
    }


def _sample(watch: _Watch, prompt: str) -> Sample:
    """Let the model write, from the start of a text to its end, and judge it."""
    encoding, length = watch.encoding, watch.model.config.context_length
    ids = torch.tensor([_ids(prompt, encoding)])  # (1, T)
    written = generate(
        watch.model,
        ids,
        min(NEW_TOKENS, length - ids.shape[1]),
        stop=encoding.eot_token,
        generator=torch.Generator().manual_seed(watch.seed),
    )
    new = [token for token in map(int, written) if token != encoding.eot_token]
    tokens = b"".join(encoding.decode_tokens_bytes(new))
    text = prompt + tokens.decode("utf-8", errors="replace")
    verdict = stories.judge(text)
    return {
        "text": text,
        "parses": verdict.parses,
        "fails_at": verdict.fails_at,
        "expected": list(verdict.expected[:EXAMPLES]),
        "names": verdict.names,
        "pronouns": verdict.pronouns,
        "object": verdict.object,
    }


def _map(watch: _Watch) -> str:
    """Return the weights of the head on the fragment, as :class:`Moment` says."""
    ids = torch.tensor([_ids(watch.fragment["text"], watch.encoding)])  # (1, T)
    layer, head = watch.head["layer"], watch.head["head"]
    weights = attention_maps(watch.model, ids).weights[layer, 0, head]  # (T, T)
    row, column = torch.tril_indices(*weights.shape)
    codes = (weights[row, column] * 255).round().byte()
    return base64.b64encode(codes.numpy().tobytes()).decode("ascii")


# --- names, and the heads that find them again ---------------------------------------------------


class _Place(NamedTuple):
    """Where a name is about to come that stood before."""

    query: int  # the token right before it
    name: str
    targets: list[int]  # the earlier places of this name
    others: list[int]  # and of other names


class _Probe(NamedTuple):
    """A story, and the places in it where a name comes again."""

    ids: Tensor  # (1, T)
    places: list[_Place]


def name_attention(model: GPT, probes: Sequence[_Probe]) -> tuple[Tensor, Tensor]:
    """Return what each head gives to the name that comes next, and to other names: ``(L, H)``.

    Whoever is about to write a name that stood before must know which of the two children it is.
    It is the weight that the token right before the name gives to the earlier places of this name,
    or of the others, added up; and its mean over all such tokens of the probes. The place of a
    name is its tokens and the one after them, in which an earlier layer may have noted the name.
    """
    right, wrong = [], []
    for ids, places in probes:
        weights = attention_maps(model, ids).weights[:, 0]  # (L, H, T, T)
        right += [weights[:, :, place.query, place.targets].sum(-1) for place in places]  # (L, H)
        wrong += [weights[:, :, place.query, place.others].sum(-1) for place in places]  # (L, H)
    return torch.stack(right).mean(0), torch.stack(wrong).mean(0)


def best_head(model: GPT, probes: Sequence[_Probe]) -> Head:
    """Return the head that most prefers the name that comes next to the other names."""
    right, wrong = name_attention(model, probes)  # (L, H), both
    layer, head = divmod(int((right - wrong).argmax()), right.shape[1])
    return {"layer": layer, "head": head}


def repeated_names(text: str, encoding: Encoding) -> list[_Place]:
    """Return the places where a name of the stories comes again in a text.

    Tokens are counted from the start of the text, which is a token of its own.
    """
    ends = [0]  # of each token, in characters: a story has one byte for each
    for token in encoding.decode_tokens_bytes(encoding.encode_ordinary(text)):
        ends.append(ends[-1] + len(token))
    seen: dict[str, list[int]] = {}
    places = []
    for match in _names().finditer(text):
        start, end = match.span()
        tokens = [i for i in range(1, len(ends)) if ends[i - 1] < end and ends[i] > start]
        query = tokens[0] - 1
        if match[0] in seen:
            targets = [i for i in seen[match[0]] if i <= query]
            others = {i for name in seen for i in seen[name] if i <= query} - set(targets)
            places.append(_Place(query, match[0], targets, sorted(others)))
        seen[match[0]] = [*seen.get(match[0], []), *tokens, tokens[-1] + 1]
    return places


@cache
def _names() -> re.Pattern[str]:
    children = stories.grammar().choices["child"].options
    names = "|".join(re.escape(child.value("")) for child in children)
    return re.compile(rf"\b(?:{names})\b")


def _probes(encoding: Encoding, context_length: int) -> list[_Probe]:
    texts = stories.sample(PROBES, stories.VALIDATION_SEED)
    probes = []
    for text in texts:
        ids = _ids(text, encoding)[:context_length]
        places = [place for place in repeated_names(text, encoding) if place.query < len(ids)]
        probes.append(_Probe(torch.tensor([ids]), places))
    if not any(probe.places for probe in probes):
        raise ValueError(f"with context_length = {context_length} no name comes into view again")
    return probes


def _fragment(text: str, encoding: Encoding, most: int) -> Fragment:
    ids, places = _ids(text, encoding), repeated_names(text, encoding)
    if len(ids) > most:
        raise ValueError(f"the fragment has {len(ids)} tokens, its start included; {most} fit")
    if not places:
        raise ValueError(f"in the fragment {text!r} no name comes again")
    tokens = [token.decode("latin-1") for token in encoding.decode_tokens_bytes(ids[1:])]
    query, name, targets, _ = places[-1]
    shown = ["", *tokens]
    return {"text": text, "tokens": shown, "query": query, "name": name, "targets": targets}


def _ids(text: str, encoding: Encoding) -> list[int]:
    return [encoding.eot_token, *encoding.encode_ordinary(text)]


def _check_steps(steps: list[int], history: History) -> None:
    if not steps:
        raise ValueError("a replay needs at least one moment")
    for before, step in itertools.pairwise(steps):
        if before == step:
            raise ValueError(f"there are two moments at step {step:,}")
    if steps[0] < 0 or steps[-1] > history.steps or not history.steps:
        raise ValueError(
            f"moments must be at steps from 0 to the {history.steps:,} of the history, "
            f"not {steps[0]:,} to {steps[-1]:,}"
        )


# --- reading -------------------------------------------------------------------------------------


def check(data: Any) -> Replay:
    """Return the data if it is a replay, else raise ``ValueError`` that says in a line what is not.

    What is drawn is checked: every part is there, of its type, and they fit together.
    """
    _match(data, _FORM, "the replay")
    if data["version"] != VERSION:
        raise ValueError(f"the replay has version {data['version']}; this gptlib reads {VERSION}")
    steps = [moment["step"] for moment in data["moments"]]
    if not steps or any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError(f"the replay's moments must be in the order of their steps, not {steps}")
    if len(data["curve"]["steps"]) != len(data["curve"]["losses"]) or not data["curve"]["steps"]:
        raise ValueError("the replay's curve needs as many losses as steps, and one at least")
    size = len(data["fragment"]["tokens"])
    places = (data["fragment"]["query"], *data["fragment"]["targets"])
    if not all(0 <= place < size for place in places):
        raise ValueError(f"the replay's fragment has {size} tokens, but points at {max(places)}")
    for moment in data["moments"]:
        _check_moment(moment, size, len(data["prompts"]))
    return data  # type: ignore[no-any-return]


def _check_moment(moment: Moment, size: int, prompts: int) -> None:
    where = f"the replay's moment at step {moment['step']:,}"
    if len(moment["samples"]) != prompts:
        raise ValueError(f"{where} has {len(moment['samples'])} samples for {prompts} prompts")
    cells = size * (size + 1) // 2
    try:
        found = len(base64.b64decode(moment["map"], validate=True))
    except ValueError:
        raise ValueError(f"{where} has a map that is not base64") from None
    if found != cells:
        raise ValueError(f"{where} has a map of {found} weights, where {cells} are needed")
    if moment["held_out"] <= 0:
        raise ValueError(f"{where} has a held-out loss of {moment['held_out']}, not above 0")
    for sample in moment["samples"]:
        if (sample["fails_at"] is None) != sample["parses"]:
            raise ValueError(f"{where} has a sample that says both that it parses and where not")


_SAMPLE = {
    "text": str,
    "parses": bool,
    "fails_at": (int, type(None)),
    "expected": [str],
    "names": bool,
    "pronouns": bool,
    "object": bool,
}
_MOMENT = {
    "step": int,
    "stories": int,
    "tokens": int,
    "held_out": (float, int),
    "training": (float, int),
    "samples": [_SAMPLE],
    "score": (float, int),
    "others": (float, int),
    "map": str,
}
_FORM = {
    "version": int,
    "steps": int,
    "floor": (float, int),
    "curve": {"steps": [int], "losses": [(float, int)]},
    "prompts": [str],
    "fragment": {"text": str, "tokens": [str], "query": int, "name": str, "targets": [int]},
    "head": {"layer": int, "head": int},
    "moments": [_MOMENT],
}


def _match(value: Any, form: Any, where: str) -> None:
    """Raise ``ValueError`` unless a value has a form: a dict of forms, a list of one, or a type."""
    if isinstance(form, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a dict, not {type(value).__name__}")
        if set(value) != set(form):
            raise ValueError(f"{where} must have {', '.join(form)}, not {', '.join(value)}")
        for name, part in form.items():
            _match(value[name], part, f"{where}'s {name}")
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, not {type(value).__name__}")
        for number, item in enumerate(value):
            _match(item, form[0], f"{where}[{number}]")
    elif not isinstance(value, form) or (isinstance(value, bool) and form is not bool):
        raise ValueError(f"{where} cannot be {value!r}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} must be finite, not {value!r}")
