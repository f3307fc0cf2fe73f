"""``generate``: let a model write."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from gptlib.cli.prompt import add_prompt, prompt
from gptlib.cli.size import seed

# What takes long to import is imported where it is used, so that --help comes at once.
if TYPE_CHECKING:
    import torch
    from tiktoken import Encoding

    from gptlib.model import GPT

SUMMARY = "let a model write"
DTYPES = ("float32", "bfloat16")
EXAMPLES = """\
examples:
  python -m gptlib generate "Once upon a time"
  python -m gptlib generate "Once upon a time" --temperature 0    the likeliest token each time
  python -m gptlib generate --seed 7 --number 3                   three texts, the same each time
  python -m gptlib generate "ROMEO:" --model my-run               a model that you have trained
  python -m gptlib generate "My name is" --model gpt2             OpenAI's; downloaded once
  python -m gptlib generate --file begin.txt                      a prompt that is in a file
  echo "Once" | python -m gptlib generate -                       one from another program

A model is mini; gpt2, gpt2-medium, gpt2-large or gpt2-xl, of OpenAI; the folder of a training, or
of one of its checkpoints; a folder with config.json and model.safetensors; a .safetensors file; or
OWNER/NAME, another GPT-2 on the Hugging Face hub. A folder here comes before a model of its name.
Its vocabulary is the one that lies beside it: tokenizer.json, or vocab.json with merges.txt, or
vocabulary.tiktoken. Where there is none, say which one it was trained with."""


def add(command: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = command.add_argument
    add_prompt(command)
    add("--model", default="mini", help="a name, a folder or a file: see below")
    add("--encoding", metavar="NAME", help="stories, gpt2, or where the vocabulary lies instead")
    add("--device", default="cpu", help="where to compute: cpu, cuda, ...")
    add("--dtype", choices=DTYPES, default=DTYPES[0], help="how its numbers are kept in memory")
    add("--max-new-tokens", type=int, default=300, metavar="N", help="the most tokens to write")
    add("--temperature", type=float, default=0.8, help="0 is certain, 1 the model's own chances")
    add("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens only")
    add("--top-p", type=float, metavar="P", help="draw from the likeliest that make up P only")
    add("--seed", type=seed, metavar="N", help="repeat what this number gave before")
    add("--number", type=int, default=1, metavar="N", help="how many texts to write")


def run(args: argparse.Namespace) -> int:
    """Load a model and print what it writes; return the exit code."""
    import torch

    from gptlib import runs

    if args.number < 1:
        raise ValueError(f"--number must be at least 1, not {args.number}")
    begins = prompt(args)
    if runs.is_here(args.model):
        print(f"{args.model} is the folder here, not the known model", file=sys.stderr)
    model, encoding = runs.load(args.model, getattr(torch, args.dtype), args.device, args.encoding)
    generator = torch.Generator(args.device)
    if args.seed is None:
        generator.seed()
    else:
        generator.manual_seed(args.seed)
    sampling = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p}
    for number in range(args.number):
        if number:
            print("\n---\n")
        write_out(model, encoding, begins, args.max_new_tokens, generator, sampling)
    return 0


def write_out(
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
