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
from gptlib.config import FAMILY, GPTConfig

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
  python -m gptlib train --folder tuned --data notes.txt --from gpt2     fine-tuning

nanoGPT's run on Shakespeare's characters is this with --n-layers 6 --n-heads 6 --emb-dim 384
--context-length 256 --drop-rate 0.2 --batch-size 64 --learning-rate 1e-3 --steps 5000; its small
one, for a CPU, with 4, 4, 128, 64, 0, 12, 1e-3 and 2000:
  python -m gptlib train --folder bard --data tiny-shakespeare --encoding characters

Stopped at any moment, with Ctrl-C or without, a training goes on from its last checkpoint when
the same command is given again. The folder holds the checkpoint and the vocabulary
(tokenizer.json). One that is finished goes on if it is given again with more --steps, then also
with other --data and rates. In a text file, a line of <|endoftext|> ends one text and begins
another.

On several GPUs, or processors, torchrun starts a process for each, and they train together:
  torchrun --nproc-per-node 2 -m gptlib train --folder my-run"""


def add(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    _add_text(command)
    _add_model(command)
    add = command.add_argument
    add("--folder", default="run", help="where checkpoints and the vocabulary are kept")
    add("--steps", type=int, default=1_000, help="how many steps to train")
    add("--batch-size", type=int, default=16, metavar="N", help="rows in a step")
    rate = "the highest one (default: 0.002, with --from 0.0001)"
    add("--learning-rate", type=float, metavar="RATE", help=rate)
    add("--seed", type=seed, default=0, metavar="N", help="of weights and batches")
    add("--every", type=int, default=100, metavar="STEPS", help="measure and save this often")
    add("--device", help="cpu, cuda, ... (default: cuda if there is one)")
    sharding = "with torchrun: the whole model in each process, or a share (default: ddp)"
    add("--sharding", choices=("ddp", "fsdp"), help=sharding)


def _add_text(command: argparse.ArgumentParser) -> None:
    """Add the options that say what to train on."""
    from gptlib.downloads.texts import TEXTS

    add = command.add_argument
    names = ", ".join(sorted(TEXTS))
    add("--data", default="stories", help=f"stories, a text file, or a text to fetch: {names}")
    add("--or-stories", action="store_true", help="take stories if the text cannot be fetched")
    share = "of a text, not trained on (default: 0.1)"
    add("--held-out", type=float, metavar="SHARE", help=share)
    add(
        "--encoding",
        choices=("stories", "gpt2", "bpe", "characters"),
        help="the stories' vocabulary, GPT-2's, one learned from the text, or its characters "
        "(default: stories for stories, bpe for another text)",
    )
    add("--vocab-size", type=int, metavar="N", help="entries to learn for bpe (default: 2048)")


def _add_model(command: argparse.ArgumentParser) -> None:
    """Add the options that say which model to train."""
    add = command.add_argument
    start = "begin with its weights and vocabulary: as --model of 'generate'"
    add("--from", dest="start", metavar="MODEL", help=start)
    add("--size", choices=sorted(FAMILY), metavar="NAME", help="as in 'count' (default: mini)")
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


_OF_ITS_MODEL = ("size", "emb_dim", "n_heads", "n_layers", "drop_rate", "encoding", "vocab_size")


def _require_sense(args: argparse.Namespace) -> None:
    """Refuse, before any work, options that cannot be followed, and those that change nothing."""
    if not args.folder:
        raise ValueError("--folder must name a folder, not ''")
    sized(args.size or "mini", args)
    if args.start is not None:
        for name in _OF_ITS_MODEL:
            if getattr(args, name) is not None:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} is decided by the model of --from: leave it out")
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
    with _training(args) as (train, device):
        first, known = _start(args)
        config = first.config if first else sized(args.size or "mini", args)
        _require_memory(config, args, device)
        encoding, batches, held_out, n_texts = _source(args, config.context_length, known)
        model = first or _model(args, encoding)
        if processes.rank() is None:
            model.to(device)
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
    if saved and processes.rank() == 0:  # it may have a share of the model only
        model = runs.trained(saved)
    return model, encoding, history


@contextmanager
def _training(args: argparse.Namespace) -> Iterator[tuple[Callable[..., History], torch.device]]:
    """Yield what trains, and where: this process alone or, joined, all that torchrun started."""
    from gptlib.training import train

    if processes.rank() is None:
        if args.sharding:
            raise ValueError("--sharding is for several processes: start them with torchrun")
        yield train, _device(args)
        return
    from gptlib.training.distributed import joined, train_distributed

    if args.device is not None:
        raise ValueError("--device is not for several processes: each takes its own GPU, if any")
    with joined() as device:  # the model is made on the CPU, and each takes what it needs
        yield partial(train_distributed, sharding=args.sharding or "ddp"), device


def _schedule(args: argparse.Namespace) -> TrainingConfig:
    from gptlib.training import TrainingConfig

    usual = 2e-3 if args.start is None else 1e-4  # what is known is not to be lost at once
    rate = usual if args.learning_rate is None else args.learning_rate
    return TrainingConfig(
        steps=args.steps,
        learning_rate=rate,
        warmup_steps=min(100, args.steps // 10),
        evaluate_every=args.every,
        save_every=args.every,
        seed=args.seed,
    )


def _start(args: argparse.Namespace) -> tuple[GPT | None, Encoding | None]:
    """Return the model to begin with, and its vocabulary, if one is named."""
    if args.start is None:
        return None, None
    import torch

    from gptlib import runs

    model, encoding = runs.load(args.start, torch.float32)
    most, length = model.config.context_length, args.context_length
    if length is not None and length > most:
        raise ValueError(f"--context-length is at most {most:,} for {args.start}, not {length:,}")
    return model, encoding


def _source(args: argparse.Namespace, own_length: int, known: Encoding | None) -> Source:
    """Return the vocabulary, what to train on, and what to measure the loss on."""
    from gptlib import sources
    from gptlib.downloads.texts import FetchError

    length = own_length if args.context_length is None else args.context_length
    vocab_size = 2_048 if args.vocab_size is None else args.vocab_size
    cut = sources.Cut(args.batch_size, length, args.seed, known or args.encoding, vocab_size)
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


def _require_memory(config: GPTConfig, args: argparse.Namespace, device: torch.device) -> None:
    """Refuse a model that cannot be trained here: the system would end the program, silently."""
    from gptlib import devices

    held = sum(accounting.training_bytes(config).values())
    if args.sharding == "fsdp":
        held //= processes.number("WORLD_SIZE")
    if device.type == "cpu" and processes.rank() is not None:
        held *= processes.number("LOCAL_WORLD_SIZE")
    there = devices.memory(device)
    if there is not None and held > there:
        raise ValueError(
            f"training {args.size or 'this model'} takes {accounting.format_bytes(held)} for "
            f"weights, gradients and AdamW's moments, and {device} has "
            f"{accounting.format_bytes(there)}: take a smaller --size"
        )


def _model(args: argparse.Namespace, encoding: Encoding) -> GPT:
    import torch

    from gptlib.model import GPT

    config = sized(args.size or "mini", args, encoding.n_vocab)
    return GPT(config, torch.Generator().manual_seed(args.seed))


def _introduce(model: GPT, args: argparse.Namespace, n_texts: int) -> None:
    """Say what begins, or goes on."""
    from gptlib.training import checkpoints

    checkpoint = checkpoints.latest(args.folder)
    count = accounting.format_count(accounting.total(model.config))
    memory = accounting.format_bytes(sum(accounting.training_bytes(model.config).values()))
    place = f"on {next(model.parameters()).device}"
    if processes.rank() is not None:
        place = f"in {processes.number('WORLD_SIZE')} processes"
    texts = f" ({n_texts:,} texts between <|endoftext|>)" if n_texts > 1 else ""
    going_on = f"going on from {checkpoint}, " if checkpoint else ""
    print(
        f"{count} parameters {place}, {args.steps:,} steps of {args.batch_size:,} rows from "
        f"{args.data}{texts}; {going_on}saved in {args.folder} every {args.every:,} steps; "
        f"{memory} for weights, gradients and moments",
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
