"""``train``: train a model, on one process or on several."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gptlib import accounting
from gptlib.cli.generate import write_out
from gptlib.cli.size import add_size, sized
from gptlib.config import FAMILY

# What takes long to import is imported where it is used, so that --help comes at once.
if TYPE_CHECKING:
    from tiktoken import Encoding

    from gptlib.history import History
    from gptlib.model import GPT
    from gptlib.sources import Source
    from gptlib.training import TrainingConfig

SUMMARY = "train a model"
INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C has ended
EXAMPLES = """\
examples:
  python -m gptlib train --folder my-run
  python -m gptlib train --folder verse --data tiny-shakespeare --steps 2000
  python -m gptlib train --folder mine --data notes.txt --emb-dim 128 --n-layers 2 --n-heads 4

nanoGPT's run on Shakespeare's characters is this with --n-layers 6 --n-heads 6 --emb-dim 384
--context-length 256 --drop-rate 0.2 --batch-size 64 --learning-rate 1e-3 --steps 5000; its small
one, for a CPU, with 4, 4, 128, 64, 0, 12, 1e-3 and 2000:
  python -m gptlib train --folder bard --data tiny-shakespeare --encoding characters

Stopped at any moment, with Ctrl-C or without, a training goes on from its last checkpoint when
the same command is given again. The folder holds the checkpoint and the vocabulary
(tokenizer.json). In a text file, a line of <|endoftext|> ends one text and begins another.

On several GPUs, or processors, torchrun starts a process for each, and they train together:
  torchrun --nproc-per-node 2 -m gptlib train --folder my-run"""


def add(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from gptlib.downloads.texts import TEXTS

    add = command.add_argument
    names = ", ".join(sorted(TEXTS))
    add("--data", default="stories", help=f"stories, a text file, or a text to fetch: {names}")
    add("--or-stories", action="store_true", help="take stories if the text cannot be fetched")
    add("--folder", default="run", help="where checkpoints and the vocabulary are kept")
    add("--steps", type=int, default=1_000, help="how many steps to train")
    add("--batch-size", type=int, default=16, metavar="N", help="rows in a step")
    add("--learning-rate", type=float, default=2e-3, metavar="RATE", help="the highest one")
    add("--seed", type=int, default=0, help="decides the first weights and the batches")
    add(
        "--encoding",
        choices=("stories", "gpt2", "bpe", "characters"),
        help="the stories' vocabulary, GPT-2's, one learned from the text, or its characters "
        "(default: stories for stories, bpe for another text)",
    )
    add("--vocab-size", type=int, default=2_048, metavar="N", help="entries to learn for bpe")
    add("--held-out", type=float, default=0.1, metavar="SHARE", help="of a text, not trained on")
    add("--every", type=int, default=100, metavar="STEPS", help="measure and save this often")
    add("--device", help="cpu, cuda, ... (default: cuda if there is one)")
    add(
        "--sharding",
        choices=("ddp", "fsdp"),
        help="with torchrun: the whole model in each process, or a share (default: ddp)",
    )
    add("--size", default="mini", choices=sorted(FAMILY), metavar="NAME", help="as in 'count'")
    add_size(command)


def rank() -> int | None:
    """Return the number of this process if torchrun started it, as one of several."""
    return int(os.environ["RANK"]) if {"RANK", "LOCAL_RANK"} <= os.environ.keys() else None


def run(args: argparse.Namespace) -> int:
    """Train, and let the model write once; return the exit code."""
    import torch

    from gptlib.training import checkpoints

    speaks = not rank()  # alone, or the first of several
    try:
        model, encoding, history = _train_model(args, speaks)
    except KeyboardInterrupt:
        if speaks:
            _say_what_was_saved(args, checkpoints.latest(args.folder))
        return INTERRUPTED
    if not speaks:
        return 0
    print(f"done after {history.steps:,} steps: {history.summary()}\n", file=sys.stderr)
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(args.seed)
    write_out(model, encoding, "", model.config.context_length, generator, {"temperature": 0.8})
    again = shlex.join(["python", "-m", "gptlib", "generate", "--model", args.folder])
    print(f"\nmore of it: {again}", file=sys.stderr)
    return 0


def _train_model(args: argparse.Namespace, speaks: bool) -> tuple[GPT, Encoding, History]:
    """Train what the options say; of several processes, the first returns the whole model."""
    from gptlib import runs
    from gptlib.training import checkpoints

    schedule = _schedule(args)
    with _training(args) as train:
        encoding, batches, held_out, n_texts = _source(args)
        model = _model(args, encoding)
        if speaks:
            runs.keep_vocabulary(encoding, Path(args.folder))
            _introduce(model, args, n_texts)
        has_bar = sys.stderr.isatty()
        history = train(
            model,
            batches,
            schedule,
            held_out=held_out,
            folder=args.folder,
            progress=has_bar,
            on_evaluate=None if has_bar else _report,
        )
    saved = checkpoints.latest(args.folder)
    if saved and rank() == 0:  # it may have a share of the model only
        model = runs.trained(saved)
    return model, encoding, history


@contextmanager
def _training(args: argparse.Namespace) -> Iterator[Callable[..., History]]:
    """Yield what trains, on this process alone or, joined, on all that torchrun started."""
    from gptlib.training import train

    if rank() is None:
        if args.sharding:
            raise ValueError("--sharding is for several processes: start them with torchrun")
        yield train
        return
    from gptlib.training.distributed import joined, train_distributed

    if args.device:
        raise ValueError("--device is not for several processes: each takes its own GPU, if any")
    args.device = "cpu"  # the model is made there, and each process takes what it needs
    with joined():
        yield partial(train_distributed, sharding=args.sharding or "ddp")


def _schedule(args: argparse.Namespace) -> TrainingConfig:
    from gptlib.training import TrainingConfig

    return TrainingConfig(
        steps=args.steps,
        learning_rate=args.learning_rate,
        warmup_steps=min(100, args.steps // 10),
        evaluate_every=args.every,
        save_every=args.every,
        seed=args.seed,
    )


def _source(args: argparse.Namespace) -> Source:
    """Return the vocabulary, what to train on, and what to measure the loss on."""
    from gptlib import sources
    from gptlib.downloads.texts import FetchError

    length = args.context_length or FAMILY[args.size].context_length
    cut = sources.Cut(args.batch_size, length, args.seed, args.encoding, args.vocab_size)
    try:
        path = sources.find(args.data)
    except FetchError as error:
        if not args.or_stories:
            raise
        print(f"{error}. Training on stories instead.", file=sys.stderr)
        path = None
    if path:
        return cut.of_text(path, args.held_out)
    return cut.of_stories(args.steps * args.batch_size)


def _model(args: argparse.Namespace, encoding: Encoding) -> GPT:
    import torch

    from gptlib.model import GPT

    config = sized(args.size, args, encoding.n_vocab)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return GPT(config, torch.Generator().manual_seed(args.seed)).to(device)


def _introduce(model: GPT, args: argparse.Namespace, n_texts: int) -> None:
    """Say what begins, or goes on."""
    from gptlib.training import checkpoints

    checkpoint = checkpoints.latest(args.folder)
    count = accounting.format_count(accounting.total(model.config))
    place = f"on {next(model.parameters()).device}"
    if rank() is not None:
        place = f"in {os.environ['WORLD_SIZE']} processes"
    texts = f" ({n_texts:,} texts between <|endoftext|>)" if n_texts > 1 else ""
    going_on = f"going on from {checkpoint}, " if checkpoint else ""
    print(
        f"{count} parameters {place}, {args.steps:,} steps of {args.batch_size:,} rows from "
        f"{args.data}{texts}; {going_on}saved in {args.folder} every {args.every:,} steps",
        file=sys.stderr,
    )


def _report(history: History) -> None:
    """Print a line, where there is no terminal for a progress bar."""
    print(f"step {history.steps:,}: {history.summary()}", file=sys.stderr, flush=True)


def _say_what_was_saved(args: argparse.Namespace, checkpoint: Path | None) -> None:
    """Say what was saved and how to go on."""
    saved = f"the last checkpoint is {checkpoint}" if checkpoint else "no checkpoint was saved yet"
    there = "goes on from there" if checkpoint else "begins again"
    print(f"\nstopped: {saved}; the same command {there}:\n  {args.again}", file=sys.stderr)
