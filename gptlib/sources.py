"""What to train on, by the name that a person types: stories, a text file, or a text to fetch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from tiktoken import Encoding
from torch import Tensor

from gptlib import characters, data, stories, text_files, tokenizer, vocabulary_files
from gptlib.downloads import texts

VOCABULARY_STORIES = 4_000  #: from so many stories a vocabulary is learned
MOST_STORIES = 200_000  #: a training reads at most so many different ones
HELD_OUT_STORIES = 200
HELD_OUT_BATCHES = 20
CHARACTERS_FOR_A_VOCABULARY = 8_000_000


class Source(NamedTuple):
    """A vocabulary, what to train on, and what to measure the loss on.

    ``n_texts`` is how many texts a file has, between lines of END_OF_TEXT.
    """

    encoding: Encoding
    batches: data.Batches
    held_out: list[tuple[Tensor, Tensor]]
    n_texts: int = 1


@dataclass(frozen=True)
class Cut:
    """How a text becomes batches: ``batch_size`` rows of ``context_length`` tokens, by ``seed``.

    ``encoding`` is "stories", "gpt2", "bpe", a vocabulary of ``vocab_size`` learned from the text,
    "characters", those of the text, or a vocabulary that is there; by default the stories' for
    stories, and a learned one for any other text.
    """

    batch_size: int
    context_length: int
    seed: int = 0
    encoding: str | Encoding | None = None
    vocab_size: int = 2_048

    def of_stories(self, n: int) -> Source:
        """Return ``n`` stories as a source, or :data:`MOST_STORIES` of them."""
        encoding = self._encoding("stories", lambda: "\n".join(stories.sample(VOCABULARY_STORIES)))
        told = stories.sample(min(max(1, n), MOST_STORIES))
        tests = stories.sample(HELD_OUT_STORIES, stories.VALIDATION_SEED)
        batches = self._story_batches(told, encoding, self.batch_size, self.seed)
        return Source(encoding, batches, self._story_batches(tests, encoding, 50).in_order())

    def of_text(self, path: Path, held_out_share: float) -> Source:
        """Return a text file as a source, without the share of it that the loss is measured on."""
        at_most = None if self.encoding == "characters" else CHARACTERS_FOR_A_VOCABULARY
        encoding = self._encoding("bpe", lambda: text_files.read_text(path, at_most))
        stream = text_files.file_stream(path, encoding)
        end = characters.end_of_text(encoding)  # counted in parts: a stream may be a mapped file
        n_texts = sum(int((part == end).sum()) for part in torch.split(stream, 2**20)) - 1
        training, held_out = data.split(stream, held_out_share)
        batches = data.WindowBatches(training, self.batch_size, self.context_length, self.seed)
        held_out = held_out[: HELD_OUT_BATCHES * self.batch_size * self.context_length + 1]
        length = min(self.context_length, len(held_out) - 1)
        tests = data.WindowBatches(held_out, self.batch_size, length)
        return Source(encoding, batches, tests.in_order(), n_texts)

    def _encoding(self, default: str, text: Callable[[], str]) -> Encoding:
        """Return the vocabulary that was asked for; only one to learn needs the text."""
        name = default if self.encoding is None else self.encoding
        if isinstance(name, Encoding):
            return name
        if name in vocabulary_files.KNOWN:
            return vocabulary_files.KNOWN[name]()
        learned_from = text_files.without_separators(text())
        if name == "characters":
            return characters.vocabulary(learned_from)
        return tokenizer.train_bpe(learned_from, self.vocab_size, [tokenizer.END_OF_TEXT])

    def _story_batches(
        self, told: list[str], encoding: Encoding, batch_size: int, seed: int = 0
    ) -> data.StoryBatches:
        stream = data.stream_of(told, encoding)
        return data.StoryBatches(stream, encoding.eot_token, batch_size, self.context_length, seed)


def find(name: str) -> Path | None:
    """Return the file of the text to train on, fetched if it must be, or None for "stories".

    Raises ``ValueError`` for an address, ``FileNotFoundError`` where there is no such file, and
    :class:`gptlib.downloads.texts.FetchError` where a text cannot be had.
    """
    if name == "stories":
        return None
    if name in texts.TEXTS:
        return texts.fetch(name)
    if "://" in name:
        raise ValueError(f"--data takes no address: save {name} as a file, and give that")
    if not Path(name).exists():
        names = ", ".join(sorted(texts.TEXTS))
        raise FileNotFoundError(
            f"there is no file {name}: --data takes stories, a text file, or {names}"
        )
    return Path(name)
