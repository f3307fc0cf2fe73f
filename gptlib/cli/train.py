"""``train``: train a model, on one process or on several."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gptlib import accounting
from gptlib.cli import ending, processes
from gptlib.cli.generate import write_out
from gptlib.cli.size import add_size, seed, sized
from gptlib.config import FAMILY

# What takes long to import is imported where it is used, so that --help comes at once.
if TYPE_CHECKING:
    import torch
    from tiktoken import Encoding

    from gptlib.history import History
    from gptlib.model import GPT
    from gptlib.sources import Source
    from gptlib.training import TrainingConfig

SUMMARY = "train a model"
EXAMPLES = """\
examples:
  python -m gptlib train --folder my-run
  python -m gptlib train --folder verse --data tiny-shakespeare --steps 2000
  python -m gptlib train --folder mine --data notes.txt --emb-dim 128 --n-layers 2 --n-heads 4

Stopped at any moment, with Ctrl-C or without, a training goes on from its last checkpoint when
the same command is given again. The folder holds the checkpoint and the vocabulary.

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
    add(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of weights and batches",
    )
    add(
        "--encoding",
        choices=("stories", "gpt2", "bpe"),
        help="the stories' vocabulary, GPT-2's, or one learned from the text "
        "(default: stories for stories, bpe for another text)",
    )
    add("--vocab-size", type=int, metavar="N", help="entries to learn for bpe (default: 2048)")
    add(
        "--held-out",
        type=float,
        metavar="SHARE",
        help="of a text, not trained on (default: 0.1)",
    )
    add("--every", type=int, default=100, metavar="STEPS", help="measure and save this often")
    add("--device", help="cpu, cuda, ... (default: cuda if there is one)")
    add(
        "--sharding",
        choices=("ddp", "fsdp"),
        help="with torchrun: the whole model in each process, or a share (default: ddp)",
    )
    add("--size", default="mini", choices=sorted(FAMILY), metavar="NAME", help="as in 'count'")
    add_size(command)
    add("--drop-rate", type=float, metavar="P", help="of dropout, instead of the size's own")


def run(args: argparse.Namespace) -> int:
    """Train, and let the model write once; return the exit code."""
    _require_sense(args)
    import torch

    from gptlib.training import checkpoints

    speaks = not processes.rank()  # alone, or the first of several
    try:
        model, encoding, history = _train_model(args, speaks)
    except KeyboardInterrupt:
        if speaks:
            _say_what_was_saved(args, checkpoints.latest(args.folder))
        return ending.INTERRUPTED
    if not speaks:
        return 0
    print(f"done after {history.steps:,} steps: {history.summary()}\n", file=sys.stderr)
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(args.seed)
    write_out(model, encoding, "", model.config.context_length, generator, {"temperature": 0.8})
    again = shlex.join(["python", "-m", "gptlib", "generate", "--model", args.folder])
    print(f"\nmore of it: {again}", file=sys.stderr)
    return 0


def _require_sense(args: argparse.Namespace) -> None:
    """Refuse, before any work, options that cannot be followed, and those that change nothing."""
    if not args.folder:
        raise ValueError("--folder must name a folder, not ''")
    sized(args.size, args)
    encoding = args.encoding or ("stories" if args.data == "stories" else "bpe")
    if args.vocab_size is not None and encoding != "bpe":
        raise ValueError(
            f"--vocab-size is for a vocabulary to learn, and that of {encoding} is known: leave "
            "it out, or give --encoding bpe"
        )
    if args.held_out is not None and args.data == "stories":
        raise ValueError("--held-out is for a text: stories to measure the loss on are made anew")


def _train_model(args: argparse.Namespace, speaks: bool) -> tuple[GPT, Encoding, History]:
    """Train what the options say; of several processes, the first returns the whole model."""
    from gptlib import runs
    from gptlib.training import checkpoints

    schedule = _schedule(args)
    with _training(args) as train:
        device = _device(args)
        encoding, batches, held_out = _source(args)
        model = _model(args, encoding).to(device)
        if speaks:
            runs.keep_vocabulary(encoding, Path(args.folder))
            _introduce(model, args)
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
    if saved and processes.rank() == 0:  # it may have a share of the model only
        model = runs.trained(saved)
    return model, encoding, history


@contextmanager
def _training(args: argparse.Namespace) -> Iterator[Callable[..., History]]:
    """Yield what trains, on this process alone or, joined, on all that torchrun started."""
    from gptlib.training import train

    if processes.rank() is None:
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

    own = FAMILY[args.size].context_length
    length = own if args.context_length is None else args.context_length
    vocab_size = 2_048 if args.vocab_size is None else args.vocab_size
    cut = sources.Cut(args.batch_size, length, args.seed, args.encoding, vocab_size)
    try:
        path = sources.find(args.data)
    except FetchError as error:
        if not args.or_stories:
            raise
        print(f"{error}. Training on stories instead.", file=sys.stderr)
        path = None
    if path:
        return cut.of_text(path, 0.1 if args.held_out is None else args.held_out)
    return cut.of_stories(args.steps * args.batch_size)


def _device(args: argparse.Namespace) -> torch.device:
    import torch

    from gptlib import devices

    chosen = args.device
    if chosen is None:
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    return devices.require(chosen)


def _model(args: argparse.Namespace, encoding: Encoding) -> GPT:
    import torch

    from gptlib.model import GPT

    config = sized(args.size, args, encoding.n_vocab)
    return GPT(config, torch.Generator().manual_seed(args.seed))


def _introduce(model: GPT, args: argparse.Namespace) -> None:
    """Say what begins, or goes on."""
    from gptlib.training import checkpoints

    checkpoint = checkpoints.latest(args.folder)
    count = accounting.format_count(accounting.total(model.config))
    place = f"on {next(model.parameters()).device}"
    if processes.rank() is not None:
        place = f"in {processes.number('WORLD_SIZE')} processes"
    going_on = f"going on from {checkpoint}, " if checkpoint else ""
    print(
        f"{count} parameters {place}, {args.steps:,} steps of {args.batch_size:,} rows from "
        f"{args.data}; {going_on}saved in {args.folder} every {args.every:,} steps",
        file=sys.stderr,
    )


def _report(history: History) -> None:
    """Print a line, where there is no terminal for a progress bar."""
    print(f"step {history.steps:,}: {history.summary()}", file=sys.stderr, flush=True)


def _say_what_was_saved(args: argparse.Namespace, checkpoint: Path | None) -> None:
    """Say what was saved and how to go on."""
    saved = f"the last checkpoint is {checkpoint}" if checkpoint else "no checkpoint was saved yet"
    there = "goes on from there" if checkpoint else "begins again"
    again = shlex.join([*processes.starter(), "-m", "gptlib", *args.argv])
    print(f"\nstopped: {saved}; the same command {there}:\n  {again}", file=sys.stderr)
