"""Text to token ids and back: GPT-2's encoding, the stories' own, and a trainer for new ones.

Every vocabulary in the course is a `tiktoken.Encoding`. Nothing here opens a network connection.
"""

import base64
import functools
import hashlib
import heapq
import operator
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path

import regex
import tiktoken

END_OF_TEXT = "<|endoftext|>"

# The pattern that OpenAI released with GPT-2. A piece is a contraction, or letters, or digits, or
# other signs, each with at most one space before it, or white space. Tokens never cross pieces.
GPT2_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

# The same pieces without backtracking: on a million blanks it would overflow tiktoken's stack. Of
# white space before a sign all but the last character is taken, by the thousand, then one by one.
TIKTOKEN_PATTERN = (
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++"""
    r"""|\s++$|(?=\s\s)(?:\s{1024}(?=\s))*+(?:\s(?=\s))*+|\s"""
)
# The form that is in tiktoken itself, which backtracks, and below the one of its older versions.
_TIKTOKENS_OWN = (
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
)
#: Forms of the one pattern that cut every text alike.
PATTERNS = (
    GPT2_PATTERN,
    TIKTOKEN_PATTERN,
    _TIKTOKENS_OWN,
    _TIKTOKENS_OWN.replace("++", "+").replace(r"\s+$|", ""),
)

# SHA-256 of the files in assets/. tools/train_stories_vocabulary.py keeps the second.
_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "stories.tiktoken": "a675c2dab1a95100457cf84dc91b6b1ea3239c958696cc4c6dda78cdf5583c49",
}
_N_BYTES = 256

Pair = tuple[int, int]


@functools.cache
def gpt2() -> tiktoken.Encoding:
    """Return GPT-2's encoding: 256 bytes, 50,000 merges and END_OF_TEXT (id 50,256).

    It is rebuilt from the shipped `vocab.bpe`, the merges that OpenAI released with GPT-2.
    Raises RuntimeError if that file is damaged.
    """
    alphabet = byte_signs()
    # str.translate wants code points; Latin-1 is the encoding whose code points are the bytes.
    to_byte = {ord(sign): byte for sign, byte in alphabet.items()}
    tokens = [bytes([byte]) for byte in alphabet.values()]
    for line in gpt2_merges():
        tokens.append(line.replace(" ", "").translate(to_byte).encode("latin-1"))
    return _encoding("gpt2", tokens, [END_OF_TEXT])


def gpt2_merges() -> list[str]:
    """Return the lines of `vocab.bpe`: two parts of a token, in the signs of `byte_signs`."""
    return _asset("vocab.bpe").decode().splitlines()[1:]  # the first is "#version: 0.2"


@functools.cache
def stories() -> tiktoken.Encoding:
    """Return the course's own encoding: `train_bpe` on its stories, END_OF_TEXT last (id 2,047).

    Raises RuntimeError if the shipped file is damaged.
    """
    lines = _asset("stories.tiktoken").splitlines()  # one token a line, in base64, and its id
    tokens = [base64.b64decode(line.split()[0]) for line in lines]
    return _encoding("stories", tokens, [END_OF_TEXT])


def train_bpe(text: str, vocab_size: int, special_tokens: Sequence[str] = ()) -> tiktoken.Encoding:
    """Learn a byte-level BPE vocabulary from `text` (Sennrich et al., 2016; Radford et al., 2019).

    Ids 0-255 are the bytes, then come the merges in the order learned, then the special tokens.
    Each step merges the most frequent pair of neighbors inside the pieces of GPT2_PATTERN; of
    pairs equally frequent, the one with the smaller left id, then with the smaller right id.

    Raises TypeError for arguments of the wrong type, and ValueError if `text` is empty, contains a
    special token or has too few pairs to merge, if `vocab_size` leaves no room for the bytes and
    the special tokens, or if a special token is empty or repeated.
    """
    _check_text("text", text)
    special_tokens = _checked_special_tokens(special_tokens, text)
    n_merges = _checked_vocab_size(vocab_size, len(special_tokens))
    learned = _learn_merges(text, n_merges)
    if len(learned) < n_merges:
        raise ValueError(
            f"text supports only {len(learned) + vocab_size - n_merges:,} entries "
            f"({_N_BYTES} bytes, {len(learned):,} merges, {len(special_tokens)} special), "
            f"got vocab_size={vocab_size:,}: give more text or a smaller vocab_size"
        )
    tokens = [bytes([byte]) for byte in range(_N_BYTES)]
    for left, right in learned:
        tokens.append(tokens[left] + tokens[right])
    return _encoding(f"bpe-{vocab_size}", tokens, special_tokens)


def save(encoding: tiktoken.Encoding, path: str | Path) -> None:
    """Write a vocabulary into a file for `load`: a line for each token, in tiktoken's format.

    Raises ValueError if `load` could not tell that it is this one: its special tokens must be
    END_OF_TEXT alone, with the last id, its pieces GPT-2's, and every byte a token.
    """
    end = len(encoding._mergeable_ranks)
    if encoding._special_tokens != {END_OF_TEXT: end} or encoding.n_vocab != end + 1:
        raise ValueError(
            f"only {END_OF_TEXT} can be a special token, and must have the last id, "
            f"got {encoding._special_tokens}"
        )
    if encoding._pat_str not in PATTERNS:
        raise ValueError(
            f"{encoding.name!r} cuts text by another pattern than GPT-2's, and the file has no "
            f"room for it: gptlib.vocabulary_files.save writes such a one, got {encoding._pat_str}"
        )
    tokens = sorted(encoding._mergeable_ranks, key=encoding._mergeable_ranks.__getitem__)
    _require_tokens(tokens, repr(encoding.name))
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    Path(path).write_bytes(b"".join(lines))


def load(path: str | Path) -> tiktoken.Encoding:
    """Return the vocabulary that `save` wrote, END_OF_TEXT last; its name is that of the file.

    Raises ValueError if the file is something else, and FileNotFoundError if there is none.
    """
    return parse(Path(path).read_bytes(), Path(path))


def parse(data: bytes, path: Path) -> tiktoken.Encoding:
    """Return the vocabulary that a file of these bytes holds; raises as `load` does."""
    tokens: list[bytes] = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            token, rank = line.split()
            tokens.append(base64.b64decode(token, validate=True))
            in_order = int(rank) == len(tokens) - 1
        except ValueError:
            in_order = False
        if not in_order:
            raise ValueError(f"{path} is not a vocabulary: line {number:,} is {line[:40]!r}")
    _require_tokens(tokens, str(path))
    return _encoding(path.stem, tokens, [END_OF_TEXT])


def token_bytes(encoding: tiktoken.Encoding) -> list[bytes]:
    """Return what each id stands for: `token_bytes(encoding)[id]`, special tokens included.

    Raises KeyError if the encoding's ids have gaps, as some of OpenAI's later ones do.
    """
    return [encoding.decode_single_token_bytes(token_id) for token_id in range(encoding.n_vocab)]


def merges(encoding: tiktoken.Encoding) -> list[Pair]:
    """Return the pairs of ids that the encoding merges, in the order in which they were learned.

    A `tiktoken.Encoding` stores only the merged tokens. The pair behind a token is what remains
    of its bytes once every earlier merge is done.
    """
    ranks = encoding._mergeable_ranks  # tiktoken's README extends encodings through it
    pairs = []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) == 1:
            continue
        left, right = _parts_before(token, ranks)
        pairs.append((ranks[left], ranks[right]))
    return pairs


def _parts_before(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """Split a token into the parts that stand just before it is itself merged."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        joined = [left + right for left, right in pairwise(parts)]
        first = min(range(len(joined)), key=lambda i: ranks.get(joined[i], len(ranks)))
        parts[first : first + 2] = [joined[first]]
    return parts


def _require_tokens(tokens: Sequence[bytes], whose: str) -> None:
    if len(set(tokens)) < len(tokens) or not {bytes([n]) for n in range(_N_BYTES)} <= set(tokens):
        raise ValueError(f"{whose} is not a vocabulary: a byte is missing, or a token comes twice")


def _asset(name: str) -> bytes:
    """Read a file that ships with gptlib, and check that it is the one that was shipped."""
    data = (resources.files("gptlib") / "assets" / name).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != _SHA256[name]:
        raise RuntimeError(
            f"gptlib/assets/{name} is damaged: its SHA-256 is {found}, "
            f"expected {_SHA256[name]}. Install gptlib again."
        )
    return data


def byte_signs() -> dict[str, int]:
    """Return the sign that stands for each byte in `vocab.bpe`, in the order of GPT-2's ids.

    Bytes that print in Latin-1 stand for themselves and come first; the other 68, blanks and
    control codes among them, are written as the signs from U+0100 on.
    """
    printable = [byte for byte in range(_N_BYTES) if chr(byte).isprintable() and chr(byte) != " "]
    others = [byte for byte in range(_N_BYTES) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(_N_BYTES + n): byte for n, byte in enumerate(others)}


def _encoding(
    name: str, tokens: Sequence[bytes], special_tokens: Sequence[str]
) -> tiktoken.Encoding:
    """Wrap tokens, and after them special tokens, in the order of their ids."""
    return tiktoken.Encoding(
        name,
        pat_str=TIKTOKEN_PATTERN,
        mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
        special_tokens={token: rank for rank, token in enumerate(special_tokens, len(tokens))},
        explicit_n_vocab=len(tokens) + len(special_tokens),
    )


def _learn_merges(text: str, n_merges: int) -> list[Pair]:
    """Return the first `n_merges` merges of `text`, or as many as it has."""
    line = _Line(text)
    # The top of the heap is the next pair: highest count, then smallest ids. Once a pair is made
    # its count only falls, so a count noted in the heap is never too low.
    heap = [(-count, *pair) for pair, count in line.counts.items()]
    heapq.heapify(heap)
    learned: list[Pair] = []
    while heap and len(learned) < n_merges:
        noted, *ids = heapq.heappop(heap)
        pair = (ids[0], ids[1])
        count = line.counts[pair]
        if count == -noted:
            new = line.merge(pair, _N_BYTES + len(learned))
            learned.append(pair)
            for born in new:
                heapq.heappush(heap, (-line.counts[born], *born))
        elif count > 0:  # other merges took some of its places: note the count it has now
            heapq.heappush(heap, (-count, *pair))
    return learned


class _Line:
    """The different pieces of a text in one line of tokens, with the count of every pair.

    A piece is stored once, with how often the text has it. A pair is counted at every place where
    it stands, overlaps included: `aaa` has `aa` twice. Counts are kept up to date from merge to
    merge, so a merge costs no more than the places it changes.
    """

    def __init__(self, text: str) -> None:
        gap = -1  # stands between pieces; later also where a token was taken into the one before
        self.ids = [gap]
        self.weights = [0]
        for piece, count in Counter(regex.findall(GPT2_PATTERN, text)).items():
            data = piece.encode()
            self.ids += [*data, gap]
            self.weights += [count] * (len(data) + 1)
        self.before = list(range(-1, len(self.ids) - 1))
        self.after = list(range(1, len(self.ids) + 1))
        self.counts: defaultdict[Pair, int] = defaultdict(int)
        self.places: defaultdict[Pair, list[int]] = defaultdict(list)
        for place, pair in enumerate(pairwise(self.ids)):
            if gap not in pair:
                self.counts[pair] += self.weights[place]
                self.places[pair].append(place)

    def merge(self, pair: Pair, new: int) -> list[Pair]:
        """Replace `pair` by the token `new`, left to right; return the pairs that this makes."""
        ids, before, after = self.ids, self.before, self.after
        made: dict[Pair, None] = {}  # an ordered set
        # They stand from left to right: a pair gets all its places in the one merge that makes it.
        for place in self.places.pop(pair):
            other = after[place]
            if (ids[place], ids[other]) != pair:
                continue  # taken by an earlier merge, or by the overlapping place just before
            previous, following = before[place], after[other]
            ids[place], ids[other] = new, -1
            after[place], before[following] = following, place
            weight = self.weights[place]
            if ids[previous] >= 0:
                self.counts[ids[previous], pair[0]] -= weight
                self._note((ids[previous], new), previous, weight, made)
            if ids[following] >= 0:
                self.counts[pair[1], ids[following]] -= weight
                self._note((new, ids[following]), place, weight, made)
        del self.counts[pair]
        return [born for born in made if self.counts[born] > 0]

    def _note(self, pair: Pair, place: int, weight: int, made: dict[Pair, None]) -> None:
        self.counts[pair] += weight
        self.places[pair].append(place)
        made[pair] = None


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {type(value).__name__}: {value!r:.80}")
    if not value:
        raise ValueError(f"{name} is empty: it must have at least one character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} must be valid Unicode, got the lone surrogate "
            f"{value[error.start]!r} at character {error.start:,}"
        ) from None


def _checked_special_tokens(special_tokens: Sequence[str], text: str) -> list[str]:
    if isinstance(special_tokens, (str, bytes)) or not isinstance(special_tokens, Sequence):
        raise TypeError(
            "special_tokens must be a list or tuple of str, "
            f"got {type(special_tokens).__name__}: {special_tokens!r:.80}"
        )
    for position, token in enumerate(special_tokens):
        _check_text(f"special_tokens[{position}]", token)
        if token in special_tokens[:position]:
            raise ValueError(f"special_tokens must differ, got {token!r} more than once")
        if token in text:
            raise ValueError(
                f"text must not contain the special token {token!r}, "
                f"got it at character {text.index(token):,}"
            )
    return list(special_tokens)


def _checked_vocab_size(vocab_size: int, n_special: int) -> int:
    """Return how many merges fit, after checking that the rest does."""
    if isinstance(vocab_size, bool) or not hasattr(vocab_size, "__index__"):
        raise TypeError(
            f"vocab_size must be an int, got {type(vocab_size).__name__}: {vocab_size!r}"
        )
    least = _N_BYTES + max(1, n_special)
    if vocab_size < least:
        raise ValueError(
            f"vocab_size must be at least {least} ({_N_BYTES} bytes and {least - _N_BYTES} more), "
            f"got {vocab_size}"
        )
    return operator.index(vocab_size) - _N_BYTES - n_special
