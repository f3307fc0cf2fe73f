"""The command line, ``python -m gptlib``: train a GPT, let it write, count what it is made of."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gptlib import __version__, accounting
from gptlib.config import FAMILY, GPTConfig

# What takes long to import is imported where it is used, so that --help comes at once.
if TYPE_CHECKING:
    import torch
    from tiktoken import Encoding
    from torch import Tensor

    from gptlib.data import Batches, StoryBatches
    from gptlib.history import History
    from gptlib.model import GPT
    from gptlib.training import TrainingConfig

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_VOCABULARY = "vocabulary.tiktoken"
_VOCABULARY_STORIES = 4_000
_MOST_STORIES = 200_000
_DTYPES = ("float32", "bfloat16")
_HELD_OUT_STORIES = 200
_HELD_OUT_BATCHES = 20
_CHARACTERS_FOR_A_VOCABULARY = 8_000_000

HeldOut = list[tuple["Tensor", "Tensor"]]

DESCRIPTION = """\
Train a GPT, let it write, count what it is made of: the course "GPT, block by block" at the
command line."""

EXAMPLES = """\
examples:
  python -m gptlib generate "Once upon a time"   the mini model, which comes with the course
  python -m gptlib train --folder my-run         a mini GPT on stories, in minutes
  python -m gptlib generate --model my-run       what you have just trained
  python -m gptlib count gpt2                    where GPT-2's 124 million parameters are

'python -m gptlib COMMAND --help' says more about a command."""

GENERATE_EXAMPLES = """\
examples:
  python -m gptlib generate "Once upon a time"
  python -m gptlib generate "Once upon a time" --temperature 0    the likeliest token each time
  python -m gptlib generate --seed 7 --number 3                   three texts, the same each time
  python -m gptlib generate "ROMEO:" --model my-run               a model that you have trained
  python -m gptlib generate "My name is" --model gpt2             OpenAI's; downloaded once

A model is mini; gpt2, gpt2-medium, gpt2-large or gpt2-xl, of OpenAI; the folder of a training; a
folder with config.json and model.safetensors; a .safetensors file; or OWNER/NAME, another GPT-2 on
the Hugging Face hub. Its vocabulary is the one that lies beside it (vocabulary.tiktoken), or else
the one that has as many entries as the model, of GPT-2 and the stories."""

TRAIN_EXAMPLES = """\
examples:
  python -m gptlib train --folder my-run
  python -m gptlib train --folder verse --data tiny-shakespeare --steps 2000
  python -m gptlib train --folder mine --data notes.txt --emb-dim 128 --n-layers 2 --n-heads 4

Stopped at any moment, with Ctrl-C or without, a training goes on from its last checkpoint when
the same command is given again. The folder holds the checkpoint and the vocabulary.

On several GPUs, or processors, torchrun starts a process for each, and they train together:
  torchrun --nproc-per-node 2 -m gptlib train --folder my-run"""

COUNT_EXAMPLES = """\
examples:
  python -m gptlib count                           every member of the family, one a line
  python -m gptlib count gpt2 gpt3                 two of them, part by part
  python -m gptlib count mini --n-layers 12        one of them, changed

Memory is that of the parameters: their weights, and what training with AdamW keeps for each of
them. The activations come on top, and depend on the batch."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    args = parser.parse_args(argv)
    args.again = shlex.join([*_started_with(), "-m", "gptlib", *argv])
    if hasattr(sys.stdout, "reconfigure"):  # a terminal may lack a character that a text has
        sys.stdout.reconfigure(errors="replace")
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # who read the output has seen enough: see Python's note on SIGPIPE
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        who = f" (rank {_rank()})" if _rank() else ""
        print(f"gptlib {args.command}{who}: {message}", file=sys.stderr)
        return FAILED
    return code


def _rank() -> int | None:
    """Return the number of this process if torchrun started it, as one of several."""
    return int(os.environ["RANK"]) if {"RANK", "LOCAL_RANK"} <= os.environ.keys() else None


def _started_with() -> list[str]:
    """Return what stands before ``-m gptlib`` in the command that was given."""
    if _rank() is None:
        return ["python"]
    return ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1")]


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show the default of every option that has one, and the examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_none = action.default is None or action.default is False
        return action.help if has_none else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gptlib", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=_Help
    )
    parser.add_argument("--version", action="version", version=f"gptlib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, add, run, summary, examples in (
        ("generate", _add_generate, _generate, "let a model write", GENERATE_EXAMPLES),
        ("train", _add_train, _train, "train a model", TRAIN_EXAMPLES),
        ("count", _add_count, _count, "count parameters and memory", COUNT_EXAMPLES),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=examples,
            formatter_class=_Help,
        )
        add(command)
        command.set_defaults(run=run)
    return parser


# ---- generate ------------------------------------------------------------------------------------


def _add_generate(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("prompt", nargs="?", help="how the text begins (default: the model begins)")
    add("--model", default="mini", help="a name, a folder or a file: see below")
    add("--dtype", choices=_DTYPES, default=_DTYPES[0], help="how its numbers are kept in memory")
    add("--max-new-tokens", type=int, default=300, metavar="N", help="the most tokens to write")
    add("--temperature", type=float, default=0.8, help="0 is certain, 1 the model's own chances")
    add("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens only")
    add("--top-p", type=float, metavar="P", help="draw from the likeliest that make up P only")
    add("--seed", type=int, help="repeat what this number gave before")
    add("--number", type=int, default=1, metavar="N", help="how many texts to write")


def _generate(args: argparse.Namespace) -> int:
    import torch

    model, encoding = _load(args.model, getattr(torch, args.dtype))
    generator = torch.Generator()
    if args.seed is None:
        generator.seed()
    else:
        generator.manual_seed(args.seed)
    if args.number < 1:
        raise ValueError(f"--number must be at least 1, not {args.number}")
    sampling = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p}
    for number in range(args.number):
        if number:
            print("\n---\n")
        _write(model, encoding, args.prompt or "", args.max_new_tokens, generator, sampling)
    return DONE


def _write(
    model: GPT,
    encoding: Encoding,
    prompt: str,
    max_new_tokens: int,
    generator: torch.Generator,
    sampling: dict[str, float | int | None],
) -> None:
    """Print a prompt, and what follows it as it is written."""
    from gptlib.generation import write

    pieces = write(model, encoding, prompt, max_new_tokens, generator=generator, **sampling)
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _load(name: str, dtype: torch.dtype) -> tuple[GPT, Encoding]:
    """Return the model that is meant, ready to write, and its vocabulary."""
    from gptlib.downloads import hub
    from gptlib.training import checkpoints

    place, has_vocabulary = checkpoints.latest(name), Path(name, _VOCABULARY).exists()
    if place and has_vocabulary:
        model, folder = _trained(place).to(dtype), Path(name)
    elif name in ("mini", *hub.RELEASED):
        model, folder = _pretrained(name, dtype), None
    elif place:
        raise ValueError(f"there is no {_VOCABULARY} in {name}: 'python -m gptlib train' saves it")
    elif has_vocabulary and not any(Path(name).glob("*.safetensors")):
        raise ValueError(f"there is no checkpoint in {name} yet: its training was broken off")
    else:
        model = _pretrained(name, dtype)
        folder = Path(name).parent if Path(name).is_file() else Path(name)
    return model.eval(), _vocabulary(name, folder, model.config.vocab_size)


def _trained(place: Path) -> GPT:
    """Return the model of a training, as it was at this checkpoint."""
    from gptlib.model import GPT
    from gptlib.training import checkpoints

    if (place / ".metadata").exists():  # several processes wrote it
        from gptlib.training import sharded

        return sharded.load(place)
    model = GPT(GPTConfig(**checkpoints.read_record(place)["identity"]["model"]))
    checkpoints.load_weights(model, place)
    return model


def _pretrained(name: str, dtype: torch.dtype) -> GPT:
    """Return the model of this name, folder or file; what is on the hub is downloaded."""
    from gptlib import pretrained
    from gptlib.downloads import hub

    try:
        return pretrained.load(name, dtype)
    except hub.DownloadError as error:
        if name in hub.RELEASED:
            raise
        raise hub.DownloadError(f"there is no folder {name} here, and {error}") from None


def _vocabulary(name: str, folder: Path | None, vocab_size: int) -> Encoding:
    """Return the vocabulary beside a model, or the one of the course that has its size."""
    from gptlib import tokenizer

    if folder and (folder / _VOCABULARY).exists():
        return tokenizer.load(folder / _VOCABULARY)
    for known in (tokenizer.stories, tokenizer.gpt2):  # the second takes longer to make
        if known().n_vocab == vocab_size:
            return known()
    raise ValueError(
        f"{name} has a vocabulary of {vocab_size:,} entries, which is not GPT-2's and not the "
        f"stories': save it as {_VOCABULARY} beside the weights"
    )


# ---- train ---------------------------------------------------------------------------------------


def _add_train(command: argparse.ArgumentParser) -> None:
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
        choices=("stories", "gpt2", "bpe"),
        help="the stories' vocabulary, GPT-2's, or one learned from the text "
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
    _add_size(command)


def _add_size(command: argparse.ArgumentParser) -> None:
    """Add the options that change a configuration; those not given change nothing."""
    for name in ("emb_dim", "n_heads", "n_layers", "context_length"):
        option = f"--{name.replace('_', '-')}"
        command.add_argument(option, type=int, metavar="N", help="instead of the size's own")
    command.add_argument("--drop-rate", type=float, metavar="P", help="instead of the size's own")


def _sized(name: str, args: argparse.Namespace, vocab_size: int | None = None) -> GPTConfig:
    names = ("emb_dim", "n_heads", "n_layers", "context_length", "drop_rate")
    changes = {name: getattr(args, name) for name in names} | {"vocab_size": vocab_size}
    return replace(FAMILY[name], **{k: v for k, v in changes.items() if v is not None})


def _train(args: argparse.Namespace) -> int:
    import torch

    from gptlib.training import checkpoints

    speaks = not _rank()  # alone, or the first of several
    try:
        model, encoding, history = _train_model(args, speaks)
    except KeyboardInterrupt:
        return _interrupted(args, checkpoints.latest(args.folder)) if speaks else INTERRUPTED
    if not speaks:
        return DONE
    print(f"done after {history.steps:,} steps: {history.summary()}\n", file=sys.stderr)
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(args.seed)
    _write(model, encoding, "", model.config.context_length, generator, {"temperature": 0.8})
    again = shlex.join(["python", "-m", "gptlib", "generate", "--model", args.folder])
    print(f"\nmore of it: {again}", file=sys.stderr)
    return DONE


def _train_model(args: argparse.Namespace, speaks: bool) -> tuple[GPT, Encoding, History]:
    """Train what the options say; of several processes, the first returns the whole model."""
    from gptlib.training import checkpoints

    schedule = _schedule(args)
    with _training(args) as train:
        encoding, batches, held_out = _data(args)
        model = _model(args, encoding)
        if speaks:
            _keep_vocabulary(encoding, Path(args.folder))
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
    if saved and _rank() == 0:  # it may have a share of the model only
        model = _trained(saved)
    return model, encoding, history


@contextmanager
def _training(args: argparse.Namespace) -> Iterator[Callable[..., History]]:
    """Yield what trains, on this process alone or, joined, on all that torchrun started."""
    from gptlib.training import train

    if _rank() is None:
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


def _data(args: argparse.Namespace) -> tuple[Encoding, Batches, HeldOut]:
    """Return the vocabulary, what to train on, and what to measure the loss on."""
    path = _path(args)
    context_length = args.context_length or FAMILY[args.size].context_length
    return _text_data(args, path, context_length) if path else _story_data(args, context_length)


def _story_data(args: argparse.Namespace, context_length: int) -> tuple[Encoding, Batches, HeldOut]:
    from gptlib import stories

    encoding = _encoding(args, "stories", lambda: "\n".join(stories.sample(_VOCABULARY_STORIES)))
    told = stories.sample(min(max(1, args.steps * args.batch_size), _MOST_STORIES))
    batches = _story_batches(told, encoding, args.batch_size, context_length, args.seed)
    tests = stories.sample(_HELD_OUT_STORIES, stories.VALIDATION_SEED)
    return encoding, batches, _story_batches(tests, encoding, 50, context_length).in_order()


def _text_data(
    args: argparse.Namespace, path: Path, context_length: int
) -> tuple[Encoding, Batches, HeldOut]:
    from gptlib import data

    encoding = _encoding(args, "bpe", lambda: data.read_text(path, _CHARACTERS_FOR_A_VOCABULARY))
    training, held_out = data.split(data.file_stream(path, encoding), args.held_out)
    batches = data.WindowBatches(training, args.batch_size, context_length, args.seed)
    held_out = held_out[: _HELD_OUT_BATCHES * args.batch_size * context_length + 1]
    length = min(context_length, len(held_out) - 1)
    return encoding, batches, data.WindowBatches(held_out, args.batch_size, length).in_order()


def _story_batches(
    texts: list[str], encoding: Encoding, batch_size: int, context_length: int, seed: int = 0
) -> StoryBatches:
    from gptlib import data

    stream = data.stream_of(texts, encoding)
    return data.StoryBatches(stream, encoding.eot_token, batch_size, context_length, seed)


def _path(args: argparse.Namespace) -> Path | None:
    """Return the file of the text to train on, or None for stories."""
    from gptlib.downloads import texts

    if args.data == "stories":
        return None
    if args.data in texts.TEXTS:
        try:
            return texts.fetch(args.data)
        except texts.FetchError as error:
            if not args.or_stories:
                raise
            print(f"{error}. Training on stories instead.", file=sys.stderr)
            return None
    if "://" in args.data:
        raise ValueError(f"--data takes no address: save {args.data} as a file, and give that")
    if not Path(args.data).exists():
        names = ", ".join(sorted(texts.TEXTS))
        raise FileNotFoundError(
            f"there is no file {args.data}: --data takes stories, a text file, or {names}"
        )
    return Path(args.data)


def _encoding(args: argparse.Namespace, default: str, text: Callable[[], str]) -> Encoding:
    """Return the vocabulary that was asked for; only one to learn needs the text."""
    from gptlib import tokenizer

    name = args.encoding or default
    if name == "bpe":
        return tokenizer.train_bpe(text(), args.vocab_size, [tokenizer.END_OF_TEXT])
    return tokenizer.gpt2() if name == "gpt2" else tokenizer.stories()


def _keep_vocabulary(encoding: Encoding, folder: Path) -> None:
    """Save the vocabulary beside the checkpoints; refuse a folder that has another one."""
    from gptlib import tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    place = folder / _VOCABULARY
    if not place.exists():
        tokenizer.save(encoding, place)
    elif tokenizer.token_bytes(tokenizer.load(place)) != tokenizer.token_bytes(encoding):
        raise ValueError(
            f"{place} is another vocabulary, of another training: give the same options as "
            "before, or another --folder"
        )


def _model(args: argparse.Namespace, encoding: Encoding) -> GPT:
    import torch

    from gptlib.model import GPT

    config = _sized(args.size, args, encoding.n_vocab)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return GPT(config, torch.Generator().manual_seed(args.seed)).to(device)


def _introduce(model: GPT, args: argparse.Namespace) -> None:
    """Say what begins, or goes on."""
    from gptlib.training import checkpoints

    checkpoint = checkpoints.latest(args.folder)
    count = accounting.format_count(accounting.total(model.config))
    place = f"on {next(model.parameters()).device}"
    if _rank() is not None:
        place = f"in {os.environ['WORLD_SIZE']} processes"
    going_on = f"going on from {checkpoint}, " if checkpoint else ""
    print(
        f"{count} parameters {place}, {args.steps:,} steps of {args.batch_size:,} rows from "
        f"{args.data}; {going_on}saved in {args.folder} every {args.every:,} steps",
        file=sys.stderr,
    )


def _report(history: History) -> None:
    """Print a line, where there is no terminal for a progress bar."""
    print(f"step {history.steps:,}: {history.summary()}", file=sys.stderr, flush=True)


def _interrupted(args: argparse.Namespace, checkpoint: Path | None) -> int:
    """Say what was saved and how to go on."""
    saved = f"the last checkpoint is {checkpoint}" if checkpoint else "no checkpoint was saved yet"
    there = "goes on from there" if checkpoint else "begins again"
    print(f"\nstopped: {saved}; the same command {there}:\n  {args.again}", file=sys.stderr)
    return INTERRUPTED


# ---- count ---------------------------------------------------------------------------------------


def _add_count(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"members of the family: {', '.join(FAMILY)} (default: a line for each)",
    )
    _add_size(command)
    command.add_argument("--vocab-size", type=int, metavar="N", help="instead of the size's own")


def _count(args: argparse.Namespace) -> int:
    unknown = [name for name in args.names if name not in FAMILY]
    if unknown:
        raise ValueError(f"there is no {unknown[0]!r} in the family: {', '.join(FAMILY)}")
    configs = {name: _sized(name, args, args.vocab_size) for name in args.names or FAMILY}
    rows = _parts(configs) if args.names else _family(configs)
    _print_table(rows)
    return DONE


def _family(configs: dict[str, GPTConfig]) -> list[list[str]]:
    """Return a table with a line for each configuration."""
    rows = [["", "layers", "width", "heads", "context", "parameters", *_MEMORY]]
    for name, config in configs.items():
        shape = (config.n_layers, config.emb_dim, config.n_heads, config.context_length)
        numbers = [*shape, accounting.total(config)]
        rows.append([name, *map(accounting.format_count, numbers), *_memory(config)])
    return rows


def _parts(configs: dict[str, GPTConfig]) -> list[list[str]]:
    """Return a table with a line for each part, and a column for each configuration."""
    counts = [accounting.parameters(config) for config in configs.values()]
    rows = [["parameters", *configs]]
    for part in counts[0]:
        rows.append([part, *(accounting.format_count(count[part]) for count in counts)])
    rows.append(["total", *(accounting.format_count(sum(count.values())) for count in counts)])
    memory = [_memory(config) for config in configs.values()]
    rows += [["memory", *("" for _ in configs)]]
    rows += [[what, *values] for what, *values in zip(_MEMORY, *memory, strict=True)]
    return rows


_MEMORY = ("float32", "bfloat16", "training")


def _memory(config: GPTConfig) -> list[str]:
    """Return what the weights take in two types, and what training in float32 takes."""
    weights = [accounting.weight_bytes(config, dtype) for dtype in ("float32", "bfloat16")]
    training = sum(accounting.training_bytes(config).values())
    return [accounting.format_bytes(n) for n in (*weights, training)]


def _print_table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows with their first column to the left and the others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())


if __name__ == "__main__":
    sys.exit(main())
