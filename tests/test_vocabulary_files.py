"""Vocabularies beside the weights: what we write transformers opens, what it writes we do.

The other implementation is the tokenizers library, which comes with transformers.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiktoken import Encoding
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gptlib import characters, tokenizer, vocabulary_files
from gptlib.tokenizer import END_OF_TEXT

PROSE = (
    "The cat's 42 kittens, they'll   sleep in the hut.\n\n\tThen they'd wake; we've seen 3! " * 20
)
WORLD = (
    "Übermäßig schön: 日本語のテキスト и русский текст, עברית, हिन्दी, 👩‍👩‍👧 e\u0301 \u200d. " * 20
)
LATER = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def learned(text: str, size: int, *special: str) -> Encoding:
    return tokenizer.train_bpe(text, size, special or [END_OF_TEXT])


def with_ids(encoding: Encoding, pattern: str, first: int, special: dict[str, int]) -> Encoding:
    """The same tokens, the bytes in another order, from the id ``first`` on."""
    tokens = sorted(encoding._mergeable_ranks, key=encoding._mergeable_ranks.__getitem__)
    shuffled = tokens[:256]
    random.Random(0).shuffle(shuffled)
    ranks = {token: n for n, token in enumerate([*shuffled, *tokens[256:]], start=first)}
    return Encoding("other", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


VOCABULARIES = {
    "GPT-2's": tokenizer.gpt2(),
    "the stories'": tokenizer.stories(),
    "of prose": learned(PROSE, 300),
    "of the world": learned(WORLD, 350),
    "bytes alone": learned(PROSE, 257),
    "three special tokens": learned(WORLD, 300, END_OF_TEXT, "<|pad|>", "<a ü>"),
    "another special token": learned(PROSE, 290, "</s>"),
    "special first": with_ids(
        learned(PROSE, 300), tokenizer.TIKTOKEN_PATTERN, 2, {END_OF_TEXT: 0, "<pad>": 1}
    ),
    "no special token": with_ids(learned(WORLD, 300), tokenizer.GPT2_PATTERN, 0, {}),
    "another pattern": with_ids(learned(PROSE, 300), LATER, 0, {END_OF_TEXT: 299}),
    "characters of prose": characters.vocabulary(PROSE),
    "characters of the world": characters.vocabulary(WORLD),
}
each_vocabulary = pytest.mark.parametrize("encoding", VOCABULARIES.values(), ids=VOCABULARIES)


def texts_for(encoding: Encoding) -> st.SearchStrategy[str]:
    """Any text, or of the characters that there are, and often of blanks and quotes."""
    if characters.is_byte_level(encoding):
        return st.text() | st.text("a's 1\n\t.éß日👍\u2028\u0085")
    return st.text([token.decode() for token in encoding._mergeable_ranks])


@pytest.fixture(scope="module", params=VOCABULARIES.values(), ids=VOCABULARIES)
def there_and_back(request, tmp_path_factory):
    """Return a vocabulary, the tokenizers library's of the file that we write, and ours of it."""
    path = vocabulary_files.save(request.param, tmp_path_factory.mktemp("saved"))
    return request.param, Tokenizer.from_file(str(path)), vocabulary_files.load(path)


any_time = settings(deadline=None, suppress_health_check=list(HealthCheck))


@given(data=st.data())
@settings(any_time, max_examples=60)
def test_what_we_write_makes_the_same_tokens_elsewhere_and_here(there_and_back, data):
    encoding, theirs, again = there_and_back
    text = data.draw(texts_for(encoding))
    found = theirs.encode(text, add_special_tokens=False).ids
    assert found == characters.encode(encoding, text)
    assert found == characters.encode(again, text)
    assert theirs.decode(found, skip_special_tokens=False) == text


@each_vocabulary
def test_a_vocabulary_that_was_saved_is_loaded_as_it_was(encoding, tmp_path):
    vocabulary_files.save(encoding, tmp_path)
    again = vocabulary_files.load(tmp_path)
    assert vocabulary_files.are_equal(again, encoding)
    assert again.n_vocab == encoding.n_vocab
    assert again.name == tmp_path.name


@each_vocabulary
def test_transformers_opens_a_folder_and_what_it_saves_is_opened_here(encoding, tmp_path):
    from transformers import AutoTokenizer

    vocabulary_files.save(encoding, tmp_path / "ours")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "ours")
    text = PROSE if characters.is_byte_level(encoding) else encoding.decode([5, 0, 1, 5, 5, 27])
    ids = theirs(text, add_special_tokens=False)["input_ids"]
    assert ids == characters.encode(encoding, text)
    assert theirs.decode(ids) == text
    assert len(theirs) == encoding.n_vocab
    if END_OF_TEXT in encoding.special_tokens_set:
        assert theirs.eos_token_id == theirs.bos_token_id == encoding.eot_token
        assert theirs(END_OF_TEXT, add_special_tokens=False)["input_ids"] == [encoding.eot_token]
    theirs.save_pretrained(tmp_path / "theirs")
    assert vocabulary_files.are_equal(vocabulary_files.load(tmp_path / "theirs"), encoding)


# ---- What others write --------------------------------------------------------------------------


def trained_elsewhere(special: list[str], size: int = 300, **cut: object) -> Tokenizer:
    """A byte-level BPE as the tokenizers library learns and keeps it."""
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, **cut)
    theirs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([PROSE, WORLD], trainer)
    return theirs


@pytest.fixture(scope="module", params=["its own", "the pair", "more tokens", "the pair and more"])
def from_elsewhere(request, tmp_path_factory):
    """Return a vocabulary of the tokenizers library, and ours of what it wrote."""
    folder = tmp_path_factory.mktemp("theirs")
    theirs = trained_elsewhere([END_OF_TEXT, "<pad>"])
    if "more" in request.param:
        theirs.add_special_tokens(["<|user|>"])
    if "pair" in request.param:
        theirs.model.save(str(folder))
        if "more" in request.param:
            (folder / "added_tokens.json").write_text(json.dumps({"<|user|>": 300}))
    else:
        theirs.save(str(folder / "tokenizer.json"))
    return theirs, vocabulary_files.load(folder)


@given(text=st.text() | st.text("a's 1\n\t.éß日👍"))
@settings(any_time, max_examples=60)
def test_what_others_write_makes_the_same_tokens_here(from_elsewhere, text):
    theirs, ours = from_elsewhere
    assert ours.encode_ordinary(text) == theirs.encode(text, add_special_tokens=False).ids
    assert ours.eot_token == theirs.token_to_id(END_OF_TEXT) == 0
    assert ours.n_vocab == theirs.get_vocab_size()


def test_the_files_of_gpt2_as_openai_released_them_are_gpt2_s(tmp_path):
    sign = {byte: sign for sign, byte in tokenizer.byte_signs().items()}
    tokens = tokenizer.token_bytes(tokenizer.gpt2())[:-1]
    vocab = {"".join(sign[byte] for byte in token): n for n, token in enumerate(tokens)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab | {END_OF_TEXT: 50_256}))
    merges = ["#version: 0.2", *tokenizer.gpt2_merges(), ""]
    (tmp_path / "merges.txt").write_text("\n".join(merges), encoding="utf-8")
    assert vocabulary_files.are_equal(vocabulary_files.load(tmp_path), tokenizer.gpt2())


def test_a_vocabulary_in_tiktoken_s_format_is_opened(tmp_path):
    tokenizer.save(tokenizer.stories(), tmp_path / "vocabulary.tiktoken")
    for place in (tmp_path, tmp_path / "vocabulary.tiktoken"):
        assert vocabulary_files.are_equal(vocabulary_files.load(place), tokenizer.stories())


def change(model=None, **parts):
    def changed(whole):
        whole["model"].update(model or {})
        whole.update(parts)

    return changed


def swap_merges(whole):
    merges = whole["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]


def take_a_byte(whole):
    del whole["model"]["vocab"]["!"]


def leave_a_gap(whole):
    whole["added_tokens"][0]["id"] = 400


OTHER = {
    "another model": (change({"type": "Unigram"}), "its model is Unigram, and BPE is read"),
    "a normalizer": (change(normalizer={"type": "NFC"}), r"its normalizer changes the text \(NFC"),
    "dropout": (change({"dropout": 0.1}), "its dropout is 0.1"),
    "a suffix": (change({"end_of_word_suffix": "</w>"}), "its end_of_word_suffix is '</w>'"),
    "a blank before": (
        change(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True}),
        "it puts a blank before a text",
    ),
    "blanks alone": (change(pre_tokenizer={"type": "Whitespace"}), r"cut by \['Whitespace'\]"),
    "nothing": (change(pre_tokenizer=None), r"cut by \[None\]"),
    "no steps": (
        change(pre_tokenizer={"type": "Sequence", "pretokenizers": []}),
        r"cut by \[None\]",
    ),
    "merges in another order": (swap_merges, "its merge 3 is "),
    "a byte that is missing": (take_a_byte, "it has no token for 1 of the 256 bytes"),
    "a gap": (leave_a_gap, "its 300 ids are not those from 0 on"),
    "no model": (lambda whole: whole.pop("model"), "it has no 'model'"),
}


@pytest.mark.parametrize(("damage", "message"), OTHER.values(), ids=OTHER)
def test_a_vocabulary_of_other_rules_is_refused_by_name(damage, message, tmp_path):
    path = vocabulary_files.save(VOCABULARIES["of prose"], tmp_path)
    whole = json.loads(path.read_text("utf-8"))
    damage(whole)
    path.write_text(json.dumps(whole))
    start = rf"^\S*{path.name} is not a vocabulary that is read here: .*"
    with pytest.raises(ValueError, match=start + message) as raised:
        vocabulary_files.load(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"model": 3}', "[" * 100_000])
def test_a_file_that_is_no_vocabulary_is_refused(text, tmp_path):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"tokenizer\.json is not a vocabulary that is read here: "
    ):
        vocabulary_files.load(tmp_path)


def places(whole, path=()):
    """Every place in a JSON value, but of the tokens and merges only a few."""
    yield path
    children = whole.items() if isinstance(whole, dict) else enumerate(whole)
    for key, child in list(children)[:12]:
        if isinstance(child, (dict, list)):
            yield from places(child, (*path, key))
        else:
            yield (*path, key)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@pytest.mark.parametrize("name", ["of prose", "another pattern", "characters of prose"])
@given(data=st.data())
@settings(any_time, max_examples=150)
def test_whatever_is_changed_in_a_file_it_is_opened_or_refused_in_one_line(name, data):
    whole = json.loads(vocabulary_files.contents_of(VOCABULARIES[name])["tokenizer.json"])
    *way, last = data.draw(st.sampled_from([place for place in places(whole) if place]))
    parent = whole
    for key in way:
        parent = parent[key]
    parent[last] = data.draw(json_values)
    found = {"tokenizer.json": json.dumps(whole).encode()}
    message = None
    try:
        encoding = vocabulary_files.parse(found, Path("folder"))
    except ValueError as error:
        message = str(error)
    if message is None:
        assert len(tokenizer.token_bytes(encoding)) == encoding.n_vocab
    else:
        start = f"{Path('folder', 'tokenizer.json')} is not a vocabulary that is read here: "
        assert message.startswith(start)
        assert "\n" not in message


def test_a_merge_that_tiktoken_would_do_in_another_way_is_refused(tmp_path):
    """It joins any two tokens that make a third, whichever pair the file lists."""
    theirs = trained_elsewhere([END_OF_TEXT], 257)
    whole = json.loads(theirs.to_str())
    whole["model"]["vocab"] |= {"ab": 257, "bc": 258, "abc": 259}
    whole["model"]["merges"] = [["a", "b"], ["b", "c"], ["a", "bc"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    assert len(Tokenizer.from_str(json.dumps(whole)).encode("abc").ids) == 2
    with pytest.raises(ValueError, match=r"its merge 2 is \['a', 'bc'\], where .* \['ab', 'c'\]"):
        vocabulary_files.load(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.txt", "meta.pkl"])
def test_a_file_of_another_kind_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer\.json, nor vocab\.json and"):
        vocabulary_files.load(tmp_path)
    (tmp_path / name).write_text("")
    with pytest.raises(FileNotFoundError, match=f"{name} is of a kind that is not read"):
        vocabulary_files.load(tmp_path)


def test_a_vocabulary_of_neither_bytes_nor_characters_is_not_written(tmp_path):
    words = Encoding(
        "words", pat_str=r"\S+|\s", mergeable_ranks={b"one": 0, b" ": 1}, special_tokens={}
    )
    with pytest.raises(
        ValueError, match=r"the encoding 'words' cannot be written as tokenizer\.json"
    ):
        vocabulary_files.save(words, tmp_path / "new")
    assert not (tmp_path / "new").exists()
