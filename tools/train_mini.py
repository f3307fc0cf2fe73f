"""Train the mini model, and put it into gptlib/assets/mini: `make mini`.

It takes about two hours on two cores. Stopped at any moment, it goes on where it was. The run lies
in _build/mini: checkpoints, the weights at several moments, a line for each evaluation.

First comes the run, on stories as they come; then lessons in what it leaves unlearned
(tools/teacher.py says why).
"""

from __future__ import annotations

import copy
import json
import math
import platform
import re
import shutil
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from gptlib import pretrained, replay, stories, tokenizer
from gptlib.config import FAMILY
from gptlib.data import StoryBatches, stream_of
from gptlib.generation import generate
from gptlib.history import History
from gptlib.model import GPT
from gptlib.training import TrainingConfig, adamw, checkpoints, train
from gptlib.training.loop import take_steps
from tools.teacher import (
    Answers,
    LessonRun,
    Lessons,
    Places,
    answers_to,
    hard_pairs,
    joined,
    more_of,
    wasted,
)

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "gptlib" / "assets" / "mini"
WORK = ROOT / "_build" / "mini"

SEED = 0
BATCH_SIZE = 16
STEPS = 22_000
#: Every story is seen once: what is not learned by heart must be learned by rule.
N_STORIES = BATCH_SIZE * STEPS
N_HELD_OUT = 200
#: Trained without dropout: no story comes twice, so there is nothing to overfit.
MODEL = replace(FAMILY["mini"], drop_rate=0.0)
#: How much longer than with GPT-2's 0.02 the token vectors begin: see untrained().
TOKEN_SCALE = 6.0
CONFIG = TrainingConfig(
    steps=STEPS,
    learning_rate=2e-3,
    final_share=0.01,
    warmup_steps=200,
    weight_decay=0.01,
    evaluate_every=250,
    save_every=250,
    seed=SEED,
)
#: Then come lessons (see tools/teacher.py), on new stories. Hard is a token at which the model
#: gives at least so much probability to what cannot come. First a drill, in which nothing but the
#: hard tokens of so many stories is asked.
HARD = 0.25
N_DRILLED = 40_000
DRILL = replace(
    CONFIG, steps=400, learning_rate=1e-3, final_share=0.1, warmup_steps=50, evaluate_every=50
)
#: Then everything is asked, on so many others, and all settles.
N_TAUGHT = 48_000
SETTLING = replace(CONFIG, steps=3_000, learning_rate=1e-3, warmup_steps=100)
#: Then comes what is still hard, in a few of these stories. More such ones are looked for among so
#: many, until each has come often enough not to be learned by heart. All is asked, but a token
#: counts 1 + STRESS times what is wasted at it.
N_SEARCHED = 260_000
OFTEN = 5_000
STRESS = 50
LESSONS = replace(DRILL, steps=800, warmup_steps=30, accumulate=4)
#: And all settles again.
REST = replace(SETTLING, steps=800, learning_rate=5e-4)
N_JUDGED = 500
N_ALL_STORIES = N_STORIES + N_DRILLED + N_TAUGHT + N_SEARCHED
#: After these steps the weights are kept, for the replay: dense at first, when most is learned.
MOMENTS = (
    *(0, 25, 50, 100, 200, 300, 400, 600, 800),
    *(1_000, 1_500, 2_000, 3_000, 5_000, 8_000, 12_000, 16_000, STEPS),
)


class Snapshots:
    """Batches that keep the model's weights at certain steps, on their way."""

    def __init__(self, batches: StoryBatches, model: GPT) -> None:
        self.batches, self.model = batches, model
        self.describe = batches.describe

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch of a step; the weights are those that ``step`` steps made."""
        if step in MOMENTS:
            keep(self.model, step)
        return self.batches.batch(step)


def keep(model: GPT, step: int) -> None:
    """Write the weights in half precision into the working folder."""
    path = WORK / "moments" / f"{step:06d}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({n: p.detach().half() for n, p in model.named_parameters()}, path)


def untrained() -> GPT:
    """Return the model as it starts: GPT-2's random weights, but longer token vectors.

    GPT-2's 0.02 is made for 768 channels, and 192 of them make a vector half as long. Tokens that
    are used alike, such as the colors, then come to have vectors so alike (a mean cosine of 0.91
    after 5,500 steps) that the model never learns to copy them: where a story says its color
    again, it is no better than a guess. With vectors 3 times as long (and a weight decay of 0.01
    instead of 0.1) it copied colors after 1,750 steps, and what is rarer, a hurt knee, not after
    10,000. With 6 times, all of them are copied after 2,500.
    """
    model = GPT(MODEL, torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        model.token_embedding.weight *= TOKEN_SCALE
    return model


def plain_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
) -> torch.Tensor:
    """Do what ``scaled_dot_product_attention`` does, on a CPU, for short rows, in bfloat16.

    There PyTorch's own kernels take two to four times as long as these three products.
    """
    assert is_causal
    assert dropout_p == 0
    shape = queries.shape  # (B, H, T, D)
    queries, keys, values = (x.flatten(0, 1) for x in (queries, keys, values))  # (B * H, T, D)
    later = torch.full(shape[2:3] * 2, -math.inf, dtype=queries.dtype).triu(1)
    scores = torch.baddbmm(later, queries, keys.mT, alpha=1 / math.sqrt(shape[3]))
    with torch.autocast("cpu", enabled=False):  # it would widen the scores to float32
        weights = scores.softmax(dim=-1)
    return (weights @ values).unflatten(0, shape[:2])


def report(history: History) -> None:
    """Add a line to the log."""
    step, loss = history.evaluations[-1]
    line = {"step": step, "held_out": loss, "tokens": sum(history.tokens)}
    line |= {"seconds": round(sum(history.seconds), 1), "at": time.strftime("%H:%M:%S")}
    with (WORK / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def main() -> None:
    """Train, or go on training, and write the assets."""
    WORK.mkdir(parents=True, exist_ok=True)
    model = untrained()
    if shutil.which("g++") or shutil.which("clang++"):
        model.compile(dynamic=True)
    tests = rows(stories.sample(N_HELD_OUT, stories.VALIDATION_SEED), 50).in_order()
    with patch.object(functional, "scaled_dot_product_attention", plain_attention):
        read = rows(stories.sample(N_STORIES, stories.TRAIN_SEED), BATCH_SIZE)
        snapshots = Snapshots(read, model)
        history = train(
            model, snapshots, CONFIG, held_out=tests, folder=WORK / "run", on_evaluate=report
        )
        keep(model, STEPS)
        run = {
            "stories": N_STORIES,
            "judged": judged(told(model, N_JUDGED, SEED + 1)),
            "decided": decided(model),
            **recorded(history),
        }
        record = {"seed": SEED, **run, **teach(model, tests)}
    write(model, history, record, tests)


def rows(texts: list[str], batch_size: int = BATCH_SIZE) -> StoryBatches:
    """Return batches of stories."""
    encoding = tokenizer.stories()
    stream = stream_of(texts, encoding)
    return StoryBatches(stream, encoding.eot_token, batch_size, MODEL.context_length, SEED)


def teach(model: GPT, held_out: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, Any]:
    """Teach the model what the run has left unlearned; return the record."""
    fresh = iter(stories.sample(N_ALL_STORIES, stories.TRAIN_SEED)[N_STORIES:])
    drilled, taught = list(islice(fresh, N_DRILLED)), list(islice(fresh, N_TAUGHT))
    go = partial(follow, model, held_out)

    answers = answers_to(drilled)
    hard = examined(model, drilled, answers, "drilled") > HARD
    drill = Lessons(rows(drilled), hard, n_beginnings=64, n_stories=0, n_whole=N_DRILLED)
    record = {"drill": go("drill", DRILL, drill, answers, hard.float())}

    answers = answers_to(taught)
    whole, equal = Places(rows(taught)), torch.ones(len(answers.numbers))
    record["settling"] = go("settling", SETTLING, whole, answers, equal)

    found = examined(model, taught, answers, "taught")
    texts = more_of(hard_pairs(rows(taught).stream, found > HARD), list(fresh), OFTEN)
    more = answers_to(texts)
    found = torch.cat([found, examined(model, texts, more, "more")[1:]])
    lessons = Lessons(
        rows(taught + texts), found > HARD, n_beginnings=24, n_stories=8, n_whole=N_TAUGHT
    )
    both = joined(answers, more)
    record["lessons"] = go("lessons", LESSONS, lessons, both, 1 + STRESS * found)

    record["rest"] = go("rest", REST, whole, answers, equal)
    return record


def examined(model: GPT, texts: list[str], answers: Answers, name: str) -> torch.Tensor:
    """Return what the model wastes in some stories, as it is when this is asked first."""
    path = WORK / f"{name}.safetensors"
    if not path.exists():
        save_file({"wasted": wasted(model, rows(texts), answers)}, path)
    return load_file(path)["wasted"]


def follow(
    model: GPT,
    held_out: list[tuple[torch.Tensor, torch.Tensor]],
    name: str,
    plan: TrainingConfig,
    lessons: Lessons | Places,
    answers: Answers,
    weights: torch.Tensor,
) -> dict[str, Any]:
    """Train on lessons, or go on where that was; return what is kept of it."""
    optimizer, folder = adamw(model, plan), WORK / name
    run = LessonRun(
        model, optimizer, plan, lessons, held_out, folder, answers=answers, weights=weights
    )
    with checkpoints.locked(folder):
        history = checkpoints.resume(run, folder)
        take_steps(run, history, progress=True, on_evaluate=report)
    return {"judged": judged(told(model, N_JUDGED, SEED + 1)), **recorded(history)}


@patch.object(functional, "scaled_dot_product_attention", functional.scaled_dot_product_attention)
def told(model: GPT, n: int, seed: int) -> list[str]:
    """Return stories from nothing, 250 at once, drawn as they come: at temperature 1, uncut.

    The model writes with PyTorch's own attention, which knows caches.
    """
    encoding, generator = tokenizer.stories(), torch.Generator().manual_seed(seed)
    end = encoding.eot_token
    texts = []
    for _ in range(n // 250):
        start = torch.full((250, 1), end)
        drawn = generate(model, start, MODEL.context_length - 1, stop=end, generator=generator)
        for ids in torch.stack(list(drawn), dim=1).tolist():
            texts.append(encoding.decode(ids[: ids.index(end)] if end in ids else ids))
    return texts


def judged(texts: list[str]) -> dict[str, float]:
    """Return how many texts these are, and what share of them keeps to the grammar, and to what."""
    verdicts = [stories.judge(text) for text in texts]
    kinds = ("parses", "names", "pronouns", "object", "consistent")
    shares = {kind: sum(getattr(v, kind) for v in verdicts) / len(verdicts) for kind in kinds}
    return {"stories": len(verdicts), **shares}


@torch.no_grad()
def decided(model: GPT) -> dict[str, float]:
    """Return how sure the model is of a rule: what it gives the right one of two words.

    "NAME had brought a kite" or "NAME had no toy": who NAME is decides it. Of held-out stories it
    says in how many the rule comes, the right word's mean share of the two, and the least.
    """
    encoding = tokenizer.stories()
    words = {word: encoding.encode(word)[0] for word in (" brought", " no")}
    shares = []
    for text in stories.sample(N_HELD_OUT, stories.VALIDATION_SEED):
        if found := re.search(r"\. \w+ had( brought| no)(?= a | toy )", text):
            ids = [encoding.eot_token, *encoding.encode(text[: found.start(1)])]
            logits = model(torch.tensor([ids]))[0, -1, list(words.values())].float()
            shares.append(logits.softmax(0)[list(words).index(found[1])].item())
    return {"places": len(shares), "mean": sum(shares) / len(shares), "least": min(shares)}


def recorded(history: History) -> dict[str, Any]:
    """Return what is kept of a part of the training."""
    return {
        "steps": history.steps,
        "tokens": sum(history.tokens),
        "seconds": round(sum(history.seconds)),
        "losses": [round(loss, 4) for loss in history.losses[:: math.ceil(history.steps / 1_000)]],
        "evaluations": [(step, round(loss, 5)) for step, loss in history.evaluations],
    }


def write(
    model: GPT,
    history: History,
    record: dict[str, Any],
    held_out: list[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    """Write the weights in half precision, the record of the training, and the run's replay."""
    pretrained.save(copy.deepcopy(model).half(), ASSETS)
    record["machine"] = f"{platform.machine()}, torch {torch.__version__}"
    (ASSETS / "training.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    replayed = replay.build(
        MODEL,
        replay.moments_in(WORK / "moments"),
        history,
        tokenizer.stories(),
        held_out=held_out,
        batch_size=BATCH_SIZE,
    )
    (ASSETS / "replay.json").write_text(replay.to_json(replayed), encoding="utf-8")


if __name__ == "__main__":
    main()
