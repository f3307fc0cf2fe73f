"""GPT-2's encoding against tiktoken's own, and the BPE trainer against chapter 2's."""

import hashlib
import json
import pickle
import runpy
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import regex
import tiktoken
import tiktoken.load
import tiktoken_ext.openai_public
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gptlib import tokenizer
from gptlib.tokenizer import END_OF_TEXT, GPT2_PATTERN, merges, token_bytes, train_bpe

ROOT = Path(__file__).resolve().parent.parent
VOCAB_BPE = (ROOT / "gptlib" / "assets" / "vocab.bpe").read_bytes()
CHAPTER = ROOT / "notebooks" / "02_text_to_vectors.ipynb"

BLANKS = (
    "\t\n\v\f\r \x85\xa0\u1680\u2002\u2003\u2009\u2028\u2029\u202f\u205f\u3000\x1c\x1f\u200b\ufeff"
)
CHARACTERS = st.one_of(
    st.characters(codec="utf-8"),
    st.characters(min_codepoint=0x10000),
    st.characters(codec="ascii"),
    st.characters(categories=["Mn", "Mc", "Me"]),
    st.characters(categories=["Cc", "Cf"]),
    st.characters(categories=["N"]),
    st.sampled_from(BLANKS),
    st.sampled_from("'sdtmlvre S1"),  # contractions, words, numbers
)
UNICODE = st.one_of(st.text(CHARACTERS, max_size=10), st.text(CHARACTERS, min_size=8, max_size=80))
CONTRACTIONS = "I'd we'll he's I'm isn't you're I've I'D WE'LL HE'S I'M ISN'T YOU'RE I'VE 'l 'v ''s"
FEW_LETTERS = st.text(st.sampled_from("aab  c1'\né"), min_size=1, max_size=80)

# The same examples on every run and every machine, however slow it is.
PROPERTY = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)

TEXTS = {
    "one pair": "ab",
    "overlapping pairs": "aaaa aaa aa a aaaaaaaaaaaaa",
    "overlaps of longer tokens": "abababab ababab baba",
    "ties": "ab cd ef gh dc ba",
    "English": "It isn't the cat's hat, it's that fat rat's hat, and that's that. We'll see. " * 3,
    "white space": " a  b   c    d\t\te \n\n\n f\r\n\r\n  ",
    "digits and signs": "3.14159 + 2.71828 = 5.85987!!! ... --- ((())) 1111 2222",
    "accents": "Ünïcödé e\u0301 é ñandú garçon Ünï",
    "scripts": "日本語の日本 привет при नमस्ते नम مرحبا مرح",
    "emoji": "👩‍👩‍👧 👩‍👩‍👧‍👦 🇬🇧🇬🇧 👍🏽👍",
    "control characters": "\x00\x00\x00\x1b[31m\x7f\x85\ufeff\x00\x00",
    "all code points below 2,000": "".join(map(chr, range(2000))),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """GPT-2's encoding from tiktoken's own loader, with both of OpenAI's files.

    encoder.json is written here from the merges; tiktoken compares the hash of what it reads with
    that of the original file, so the two are the same byte for byte.
    """
    letters = [chr(byte) for byte in range(256) if chr(byte).isprintable() and byte != 32]
    letters += [chr(256 + n) for n in range(256 - len(letters))]
    entries = letters + [line.replace(" ", "") for line in VOCAB_BPE.decode().split("\n")[1:-1]]
    ids = {entry: n for n, entry in enumerate([*entries, "<|endoftext|>"])}
    files = {"vocab.bpe": VOCAB_BPE, "encoder.json": json.dumps(ids).encode()}
    assert hashlib.sha256(files["encoder.json"]).hexdigest() == (
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path_factory.mktemp("tiktoken")))
        patch.setattr(tiktoken.load, "read_file", lambda address: files[address.split("/")[-1]])
        return tiktoken.Encoding(**tiktoken_ext.openai_public.gpt2())


@pytest.mark.parametrize("n", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_gpt2_encodes_random_strings_as_tiktoken_does(reference, n):
    ours = tokenizer.gpt2()
    seen = set()

    @settings(PROPERTY, max_examples=n + n // 50)
    @given(UNICODE)
    @example(CONTRACTIONS)
    def compare(text):
        ids = ours.encode_ordinary(text)
        assert ids == reference.encode_ordinary(text)
        assert ours.decode_bytes(ids) == text.encode()
        assert ours.decode(ids) == text
        seen.add(text)

    compare()
    assert len(seen) >= n


def test_gpt2_knows_what_tiktoken_knows(reference):
    ours = tokenizer.gpt2()
    assert ours.name == "gpt2"
    assert ours.n_vocab == reference.n_vocab == 50_257
    assert token_bytes(ours) == [reference.decode_single_token_bytes(n) for n in range(50_257)]
    assert ours.special_tokens_set == {END_OF_TEXT}
    assert ours.eot_token == 50_256
    text = f"One.{END_OF_TEXT}Two.{END_OF_TEXT}"
    ids = ours.encode(text, allowed_special="all")
    assert ids == reference.encode(text, allowed_special="all")
    assert ids.count(50_256) == 2
    assert ours.decode(ids) == text


def test_gpt2_gives_the_published_ids():
    encode = tokenizer.gpt2().encode
    assert encode("Data visualization empowers users to") == [6601, 32704, 795, 30132, 2985, 284]
    assert encode("IEEE VIS conference highlights the") == [40, 31909, 50035, 4495, 11330, 262]


def test_a_special_token_in_text_is_refused_unless_allowed():
    with pytest.raises(ValueError, match="disallowed special token"):
        tokenizer.gpt2().encode(f"a{END_OF_TEXT}b")
    assert 50_256 not in tokenizer.gpt2().encode(END_OF_TEXT, disallowed_special=())


def test_gpt2_merges_are_those_of_its_file():
    written = [line.split(" ") for line in VOCAB_BPE.decode().split("\n")[1:-1]]
    tokens = token_bytes(tokenizer.gpt2())
    sign = {byte: sign for sign, byte in tokenizer.byte_signs().items()}
    found = [
        ["".join(sign[byte] for byte in tokens[half]) for half in pair]
        for pair in merges(tokenizer.gpt2())
    ]
    assert found == written


def test_gpt2_needs_no_network_and_loads_fast(tmp_path):
    script = """
        import socket, sys, time
        def refuse(*args, **kwargs):
            raise AssertionError("opened a connection")
        socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
        start = time.process_time()  # other processes must not count
        from gptlib import tokenizer
        tokenizer.gpt2().encode("Hello")
        print(time.process_time() - start)
        assert "torch" not in sys.modules and "gptlib.stories" not in sys.modules
        tokenizer.stories().encode("Hello")
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        for _ in range(3)
    ]
    assert min(float(run.stdout) for run in runs) < 0.5  # the imports of tiktoken and regex too


@pytest.mark.parametrize("name", ["gpt2", "stories"])
def test_encodings_are_cached_and_can_be_pickled(name):
    load = getattr(tokenizer, name)
    assert load() is load()
    copy = pickle.loads(pickle.dumps(load()))
    assert copy.encode("Hello, world") == load().encode("Hello, world")


@pytest.mark.parametrize("name", ["vocab.bpe", "stories.tiktoken"])
def test_a_damaged_file_is_named_with_both_hashes(name, tmp_path, monkeypatch):
    data = (ROOT / "gptlib" / "assets" / name).read_bytes()
    damaged = data[:500] + b"?" + data[501:]
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / name).write_bytes(damaged)
    monkeypatch.setattr(tokenizer.resources, "files", lambda package: tmp_path)
    load = {"vocab.bpe": tokenizer.gpt2, "stories.tiktoken": tokenizer.stories}[name]
    with pytest.raises(RuntimeError) as caught:
        load.__wrapped__()
    assert f"gptlib/assets/{name} is damaged" in str(caught.value)
    assert hashlib.sha256(damaged).hexdigest() in str(caught.value)
    assert hashlib.sha256(data).hexdigest() in str(caught.value)


@pytest.fixture(scope="module")
def plain_merges():
    """Chapter 2's `learn_merges(text, n_merges)`, from the cells that carry the tag plain-bpe."""
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    sources = [
        "".join(cell["source"])
        for cell in cells
        if "plain-bpe" in cell["metadata"].get("tags", []) and cell["cell_type"] == "code"
    ]
    assert sources, f"{CHAPTER.name} has no code cell with the tag plain-bpe"
    namespace = {}
    exec("\n".join(sources), namespace)
    return namespace["learn_merges"]


def train_all(text, most):
    """Train on `text` with `most` merges, or with as many as it has."""
    try:
        return train_bpe(text, 256 + most)
    except ValueError as error:
        possible = int(regex.search(r"only ([\d,]+) entries", str(error))[1].replace(",", ""))
        return train_bpe(text, possible) if possible > 256 else None


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_training_learns_the_merges_of_the_plain_algorithm(text, plain_merges):
    encoding = train_all(text, most=150)
    assert merges(encoding) == [tuple(pair) for pair in plain_merges(text, encoding.n_vocab - 256)]


@settings(PROPERTY, max_examples=300)
@given(text=st.one_of(FEW_LETTERS, UNICODE.filter(bool)))
def test_training_learns_the_merges_of_the_plain_algorithm_on_random_text(text, plain_merges):
    encoding = train_all(text, most=60)
    if encoding is None:
        assert list(plain_merges(text, 1)) == []
    else:
        assert merges(encoding) == [tuple(p) for p in plain_merges(text, encoding.n_vocab - 256)]


def test_training_on_stories_learns_the_merges_of_the_plain_algorithm(plain_merges):
    from gptlib import stories

    text = "\n".join(stories.sample(20))
    assert merges(train_bpe(text, 256 + 200)) == [tuple(p) for p in plain_merges(text, 200)]


def test_ids_are_bytes_then_merges_then_special_tokens():
    encoding = train_bpe("aaaa", 260, ["<|a|>", "<|b|>"])
    assert token_bytes(encoding)[:256] == [bytes([byte]) for byte in range(256)]
    assert token_bytes(encoding)[256:] == [b"aa", b"aaaa", b"<|a|>", b"<|b|>"]
    assert merges(encoding) == [(97, 97), (256, 256)]
    assert encoding.encode("aaaaa<|b|>", allowed_special="all") == [257, 97, 259]


def test_ties_go_to_the_smallest_left_id_and_then_to_the_smallest_right_id():
    # Every pair below stands once. "ab" and "ad" share their left id.
    assert merges(train_bpe("xyad\nab", 258)) == [(97, 98), (97, 100)]
    # A count of two beats any ids.
    assert merges(train_bpe("ab\nzz\nzz", 257)) == [(122, 122)]


def test_overlapping_pairs_all_count_but_merge_from_the_left():
    # "aaa" has two places of "aa": more than " 1" and "12" have, whose ids would come first.
    assert merges(train_bpe("aaa 12", 258)) == [(97, 97), (32, 49)]
    encoding = train_bpe("aaa", 257)
    assert encoding.encode("aaa") == [256, 97]


def test_merges_never_cross_pieces():
    tokens = token_bytes(train_all("the cat's 12 hats, the cat's 12 hats.\n\n\n", most=100))[256:]
    for token in tokens:
        assert regex.findall(GPT2_PATTERN, token.decode()) == [token.decode()]


@settings(PROPERTY, max_examples=200)
@given(training=FEW_LETTERS, text=st.one_of(FEW_LETTERS, UNICODE))
def test_an_encoding_applies_the_learned_merges_in_their_order(training, text):
    encoding = train_all(training, most=40)
    if encoding is None:
        return
    expected = []
    for piece in regex.findall(GPT2_PATTERN, text):
        ids = list(piece.encode())
        for new, pair in enumerate(merges(encoding), 256):
            place = 0
            while place < len(ids) - 1:
                if (ids[place], ids[place + 1]) == pair:
                    ids[place : place + 2] = [new]
                place += 1
        expected += ids
    assert encoding.encode_ordinary(text) == expected
    assert encoding.decode_bytes(expected) == text.encode()


def test_two_forms_of_the_pattern_find_the_same_pieces():
    @settings(PROPERTY, max_examples=2_000)
    @given(UNICODE)
    @example(CONTRACTIONS)
    def compare(text):
        assert regex.findall(GPT2_PATTERN, text) == regex.findall(tokenizer.TIKTOKEN_PATTERN, text)

    compare()


@pytest.mark.parametrize("end", ["", "x", "1", ".", "'s", "\nx"])
@pytest.mark.parametrize("blank", [" ", "\n", "\u3000"])
def test_a_text_with_a_million_blanks_is_encoded(blank, end):
    text = f"a{blank * 1_200_000}{end}"
    encoding = train_bpe("ab", 257)
    assert encoding.decode(encoding.encode_ordinary(text)) == text


@pytest.mark.parametrize("n", [1, 2, 1_023, 1_024, 1_025, 2_048, 2_049, 3_000])
@pytest.mark.parametrize("end", ["", "x", "7", "!", "\n", "\u3000x"])
def test_long_white_space_has_the_pieces_of_gpt2(n, end):
    for text in (f"a{' ' * n}{end}", f"{chr(9) * n}{end}", f"a{' ' * (n - 1)}{chr(10)}{end}"):
        assert regex.findall(GPT2_PATTERN, text) == regex.findall(tokenizer.TIKTOKEN_PATTERN, text)


ERRORS = [
    (("", 300), ValueError, "text is empty"),
    ((b"abc", 300), TypeError, "text must be a str, got bytes: b'abc'"),
    ((None, 300), TypeError, "text must be a str, got NoneType: None"),
    ((["abc"], 300), TypeError, "text must be a str, got list: ['abc']"),
    (("ab\ud800", 300), ValueError, "text must be valid Unicode, got the lone surrogate "
     "'\\ud800' at character 2"),
    (("abc", 256), ValueError, "vocab_size must be at least 257 (256 bytes and 1 more), got 256"),
    (("abc", 0), ValueError, "vocab_size must be at least 257 (256 bytes and 1 more), got 0"),
    (("abc", 257, ["<a>", "<b>"]), ValueError,
     "vocab_size must be at least 258 (256 bytes and 2 more), got 257"),
    (("abc", 257.0), TypeError, "vocab_size must be an int, got float: 257.0"),
    (("abc", "257"), TypeError, "vocab_size must be an int, got str: '257'"),
    (("abc", True), TypeError, "vocab_size must be an int, got bool: True"),
    (("abc", 300, ["<a>", ""]), ValueError, "special_tokens[1] is empty"),
    (("abc", 300, ["<a>", "<b>", "<a>"]), ValueError,
     "special_tokens must differ, got '<a>' more than once"),
    (("abc<a>", 300, ["<b>", "<a>"]), ValueError,
     "text must not contain the special token '<a>', got it at character 3"),
    (("abc", 300, "<a>"), TypeError,
     "special_tokens must be a list or tuple of str, got str: '<a>'"),
    (("abc", 300, {"<a>"}), TypeError, "special_tokens must be a list or tuple of str, got set"),
    (("abc", 300, None), TypeError, "special_tokens must be a list or tuple of str, got NoneType"),
    (("abc", 300, ["<a>", 7]), TypeError, "special_tokens[1] must be a str, got int: 7"),
    (("abc", 300, ["\udfff"]), ValueError, "special_tokens[0] must be valid Unicode"),
    (("abc", 300, ["<a>"]), ValueError, "text supports only 259 entries "
     "(256 bytes, 2 merges, 1 special), got vocab_size=300"),
    (("a", 257), ValueError, "text supports only 256 entries"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), ERRORS)
def test_mistakes_are_named(arguments, error, message):
    with pytest.raises(error, match=regex.escape(message, special_only=True)):
        train_bpe(*arguments)


def test_a_vocabulary_of_bytes_and_special_tokens_alone_is_allowed():
    encoding = train_bpe("a", 257, [END_OF_TEXT])
    assert encoding.encode(f"hé{END_OF_TEXT}", allowed_special="all") == [104, 195, 169, 256]
    assert merges(encoding) == []


def test_a_megabyte_trains_in_time():
    # One piece without end, on which every merge has places everywhere: the slowest text we know.
    text = "".join("abcd"[byte % 4] for byte in hashlib.shake_256(b"").digest(1_000_000))
    start = time.process_time()  # training uses one core; other processes must not count
    assert train_bpe(text, 2_048).n_vocab == 2_048
    assert time.process_time() - start < 15


def test_stories_vocabulary_is_what_training_on_stories_gives():
    remake = runpy.run_path(str(ROOT / "tools" / "train_stories_vocabulary.py"))
    assert remake["contents"]() == remake["ASSET"].read_bytes()


def test_stories_vocabulary_has_2048_entries_and_ends_with_end_of_text():
    encoding = tokenizer.stories()
    assert (encoding.name, encoding.n_vocab, encoding.eot_token) == ("stories", 2_048, 2_047)
    assert token_bytes(encoding)[:256] == [bytes([byte]) for byte in range(256)]
    assert token_bytes(encoding)[-1] == END_OF_TEXT.encode()
    text = "Any text: naïve 日本, not only stories.\n"
    assert encoding.decode(encoding.encode(text)) == text
