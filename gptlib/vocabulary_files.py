"""A model's vocabulary beside its weights, in the form that transformers and tokenizers open.

That is ``tokenizer.json``, with ``tokenizer_config.json`` for what lies around it. What is read is
this, GPT-2's older pair ``vocab.json`` and ``merges.txt``, and ``vocabulary.tiktoken``, which
:func:`gptlib.tokenizer.save` writes. tiktoken does the encoding: a file that it would encode by
other rules than the file's own is refused, with the rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import tiktoken

from gptlib import characters, tokenizer
from gptlib.downloads import files
from gptlib.tokenizer import END_OF_TEXT

TOKENIZER, _AROUND = "tokenizer.json", "tokenizer_config.json"
_VOCAB, _MERGES, _ADDED = "vocab.json", "merges.txt", "added_tokens.json"
_TIKTOKEN = "vocabulary.tiktoken"
#: All that belongs to a vocabulary; what is in front is read first.
NAMES = (TOKENIZER, _VOCAB, _MERGES, _TIKTOKEN, _AROUND, _ADDED, "special_tokens_map.json")
#: Files of vocabularies that are not read: they are named instead of passed over.
_FOREIGN = ("tokenizer.model", "spiece.model", "vocab.txt", "vocab.bpe", "tekken.json", "meta.pkl")

#: The vocabularies that come with the course.
KNOWN: dict[str, Callable[[], tiktoken.Encoding]] = {
    "stories": tokenizer.stories,
    "gpt2": tokenizer.gpt2,
}


def save(encoding: tiktoken.Encoding, folder: str | Path) -> Path:
    """Write a vocabulary into a folder, for :func:`load` and transformers; return where it lies.

    Raises ``ValueError`` for one that is not of characters and not byte-level BPE.
    """
    folder, contents = Path(folder), contents_of(encoding)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (_AROUND, TOKENIZER):
        with files.writing(folder / name) as file:
            file.write(contents[name])
    return folder / TOKENIZER


def load(place: str | Path) -> tiktoken.Encoding:
    """Return the vocabulary in a folder, or in a file: ``tokenizer.json`` or tiktoken's.

    Raises ``FileNotFoundError`` where there is none, and ``ValueError`` for one that cannot be
    read, or whose rules are not tiktoken's.
    """
    place = Path(place)
    if place.is_file():
        name = TOKENIZER if place.suffix == ".json" else _TIKTOKEN
        return parse({name: place.read_bytes()}, place)
    found = contents(place)
    if not is_there(found):
        raise FileNotFoundError(f"there is no vocabulary in {place}: {what_else(place)}")
    return parse(found, place)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a vocabulary that lie in a folder, by their names."""
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).is_file()}


def is_there(found: Mapping[str, bytes]) -> bool:
    """Say whether files are a vocabulary, or only what goes with one."""
    return TOKENIZER in found or _TIKTOKEN in found or {_VOCAB, _MERGES} <= found.keys()


def parse(found: Mapping[str, bytes], place: Path) -> tiktoken.Encoding:
    """Return the vocabulary that the files of this place hold; raises as :func:`load` does."""
    if TOKENIZER not in found and not {_VOCAB, _MERGES} <= found.keys():
        return tokenizer.parse(found[_TIKTOKEN], _path(place, _TIKTOKEN))
    path = _path(place, TOKENIZER if TOKENIZER in found else _VOCAB)
    try:
        whole = json.loads(found[TOKENIZER]) if TOKENIZER in found else _of_pair(found)
        return _encoding(whole, path.parent.name or path.name)
    except _DAMAGED as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is not a vocabulary that is read here: {why}") from None


def are_equal(first: tiktoken.Encoding, second: tiktoken.Encoding) -> bool:
    """Say whether two vocabularies have the same tokens, and cut texts by the same rule."""
    patterns = {first._pat_str, second._pat_str}
    return (
        (len(patterns) == 1 or patterns <= set(tokenizer.PATTERNS))
        and first._mergeable_ranks == second._mergeable_ranks
        and first._special_tokens == second._special_tokens
    )


def what_else(folder: Path) -> str:
    """Say what is in a folder instead of a vocabulary that is read."""
    foreign = [name for name in _FOREIGN if (folder / name).exists()]
    if foreign:
        return f"{', '.join(foreign)} is of a kind that is not read"
    return f"neither {TOKENIZER}, nor {_VOCAB} and {_MERGES}, nor {_TIKTOKEN}"


#: What comes of a file whose parts are of another kind than they should be.
_DAMAGED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


def _path(place: Path, name: str) -> Path:
    return place if place.is_file() else place / name


# ---- There ---------------------------------------------------------------------------------------

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def contents_of(encoding: tiktoken.Encoding) -> dict[str, bytes]:
    """Return the files of a vocabulary, by their names; raises as :func:`save` does."""
    ends = {END_OF_TEXT} & encoding.special_tokens_set
    around = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the one that leaves the file as it is
        "clean_up_tokenization_spaces": False,
        **{f"{kind}_token": end for end in ends for kind in ("bos", "eos")},
    }
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for token, number in sorted(encoding._special_tokens.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "post_processor": None,
        **(_bytes_of if characters.is_byte_level(encoding) else _characters_of)(encoding),
    }
    texts = {
        TOKENIZER: json.dumps(whole, ensure_ascii=False, indent=1),
        _AROUND: json.dumps(around),
    }
    return {name: text.encode() + b"\n" for name, text in texts.items()}


def _bytes_of(encoding: tiktoken.Encoding) -> dict[str, Any]:
    """Return what is particular to byte-level BPE: tokens spelled in signs, one for each byte."""
    ids = encoding._mergeable_ranks
    spelled = {number: _spelled(token) for token, number in ids.items()}
    try:
        merges = _merges(encoding, spelled)
    except KeyError as error:
        raise ValueError(
            f"the encoding {encoding.name!r} is no byte-level BPE: {error.args[0]!r} is a part of "
            "a token, and no token"
        ) from None
    usual = encoding._pat_str in tokenizer.PATTERNS
    cut = {"type": "Split", "pattern": {"Regex": encoding._pat_str}, "behavior": "Isolated"}
    parts = [{**cut, "invert": False}, {**_BYTE_LEVEL, "use_regex": False}]
    return {
        "pre_tokenizer": {**_BYTE_LEVEL, "use_regex": True}
        if usual
        else {"type": "Sequence", "pretokenizers": parts},
        "decoder": {**_BYTE_LEVEL, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": _in_order({token: n for n, token in spelled.items()}, encoding),
            "merges": merges,
        },
    }


def _merges(encoding: tiktoken.Encoding, spelled: Mapping[int, str]) -> list[list[str]]:
    """Return the pairs that are merged, in their order, in signs."""
    ranks = encoding._mergeable_ranks
    if len(ranks) == 50_256 and ranks == tokenizer.gpt2()._mergeable_ranks:
        return [line.split(" ") for line in tokenizer.gpt2_merges()]  # the others take seconds
    return [[spelled[left], spelled[right]] for left, right in tokenizer.merges(encoding)]


def _characters_of(encoding: tiktoken.Encoding) -> dict[str, Any]:
    """Return what is particular to characters, each of them a word."""
    ranks = encoding._mergeable_ranks
    if encoding._pat_str != characters.PATTERN or any(len(t.decode()) != 1 for t in ranks):
        raise ValueError(
            f"the encoding {encoding.name!r} cannot be written as {TOKENIZER}: a byte is no token, "
            "and it is not one of gptlib.characters"
        )
    cut = {"type": "Split", "pattern": {"Regex": characters.PATTERN}, "behavior": "Isolated"}
    vocab = _in_order({token.decode(): number for token, number in ranks.items()}, encoding)
    return {
        "pre_tokenizer": {**cut, "invert": False},
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": ""},
    }


def _in_order(vocab: dict[str, int], encoding: tiktoken.Encoding) -> dict[str, int]:
    """Return tokens by their ids, with the special ones, which would get other ids elsewhere."""
    return dict(sorted((vocab | encoding._special_tokens).items(), key=lambda item: item[1]))


def _spelled(token: bytes) -> str:
    return "".join(map(_SIGNS.__getitem__, token))


_BYTES = tokenizer.byte_signs()
_SIGNS = {byte: sign for sign, byte in _BYTES.items()}


# ---- And back ------------------------------------------------------------------------------------


def _of_pair(found: Mapping[str, bytes]) -> dict[str, Any]:
    """Return GPT-2's older pair of files as the ``tokenizer.json`` that it stands for."""
    vocab = json.loads(found[_VOCAB])
    added = {END_OF_TEXT: vocab[END_OF_TEXT]} if END_OF_TEXT in vocab else {}
    added |= json.loads(found.get(_ADDED, b"{}"))
    lines = found[_MERGES].decode().splitlines()
    merges = [line for line in lines if line and not line.startswith("#version")]
    return {
        "added_tokens": [{"content": token, "id": number} for token, number in added.items()],
        "pre_tokenizer": {**_BYTE_LEVEL, "use_regex": True},
        "model": {"vocab": vocab, "merges": merges},
    }


def _encoding(whole: Mapping[str, Any], name: str) -> tiktoken.Encoding:
    """Return the encoding that a ``tokenizer.json`` describes; raise if tiktoken's is another."""
    model, vocab = whole["model"], dict(whole["model"]["vocab"])
    added = {token["content"]: token["id"] for token in whole.get("added_tokens") or ()}
    if whole.get("normalizer"):
        raise ValueError(f"its normalizer changes the text ({whole['normalizer'].get('type')})")
    of_characters = model.get("type") == "WordLevel"
    pattern = _pattern(whole.get("pre_tokenizer"), "Split" if of_characters else "ByteLevel")
    for token in added:
        vocab.pop(token, None)
    if of_characters:
        if pattern != characters.PATTERN:
            raise ValueError(f"its model is WordLevel, and its words are no characters: {pattern}")
        ranks = {token.encode(): number for token, number in vocab.items()}
    else:
        ranks = _ranks(model, vocab, added)
    numbers = sorted((*ranks.values(), *added.values()))
    if numbers != list(range(len(numbers))):
        raise ValueError(f"its {len(numbers):,} ids are not those from 0 on, each once")
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=added)
    if not of_characters:
        _require_same_merges(encoding, model["merges"])
    return encoding


def _pattern(cut: Mapping[str, Any] | None, last: str) -> str:
    """Return the pattern that cuts a text into pieces, in which alone tokens are merged.

    ``last`` is "ByteLevel" where the pieces then become bytes, "Split" where they stay characters.
    """
    cut = cut or {}
    steps = (cut["pretokenizers"] or [{}]) if cut.get("type") == "Sequence" else [cut]
    kinds = [step.get("type") for step in steps]
    if steps[-1].get("add_prefix_space"):
        raise ValueError("it puts a blank before a text (add_prefix_space)")
    if kinds == [last] == ["ByteLevel"] and steps[0].get("use_regex", True):
        return tokenizer.TIKTOKEN_PATTERN
    first, rest = steps[0], steps[1:]
    pattern, whole = first.get("pattern", {}), (first.get("behavior"), first.get("invert"))
    bytes_follow = kinds == ["Split", last] and not rest[0].get("use_regex", True)
    if not (bytes_follow or kinds == [last]) or "Regex" not in pattern or whole[0] != "Isolated":
        raise ValueError(f"its text is cut by {kinds} in a way that tiktoken has not: {first}")
    if whole[1]:
        raise ValueError("its pieces are what the pattern does not find (invert)")
    return str(pattern["Regex"])


def _ranks(
    model: Mapping[str, Any], vocab: Mapping[str, int], added: dict[str, int]
) -> dict[bytes, int]:
    """Return the tokens that bytes are merged into; those that no merge makes go to ``added``."""
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"its model is {model['type']}, and BPE is read")
    for setting in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(setting):
            raise ValueError(f"its {setting} is {model[setting]!r}, which GPT-2's BPE lacks")
    made = {"".join(_pair(merge)) for merge in model["merges"]}
    ranks = {}
    for token, number in vocab.items():
        if (len(token) == 1 and token in _BYTES) or token in made:
            ranks[bytes(_BYTES[sign] for sign in token)] = number
        else:
            added[token] = number
    if lacking := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise ValueError(f"it has no token for {len(lacking)} of the 256 bytes")
    return ranks


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _require_same_merges(encoding: tiktoken.Encoding, listed: list[str | list[str]]) -> None:
    """Raise ``ValueError`` unless tiktoken, which knows ranks alone, does the merges of the file.

    It joins any two tokens that make a third, the one with the smallest id first. So the merges
    must be listed in the order of the ids that they make, and each be the one that is left to do
    when all before it are done: then a token is made in one way only.
    """
    theirs = [_pair(merge) for merge in listed]
    if [" ".join(pair) for pair in theirs] == tokenizer.gpt2_merges():
        return  # to go through 50,000 of them takes seconds
    spelled = {n: _spelled(token) for token, n in encoding._mergeable_ranks.items()}
    ours = _merges(encoding, spelled)
    for number, (listed_pair, own) in enumerate(zip_longest(theirs, ours)):
        if listed_pair != own:
            raise ValueError(
                f"its merge {number:,} is {listed_pair}, where its ids make tiktoken do {own}"
            )
