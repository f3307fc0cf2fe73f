"""Any options, and any bytes in files: a command ends well, and leaves no half of a file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gptlib import pretrained, runs, sources, tokenizer
from gptlib.cli.main import main
from gptlib.config import GPTConfig
from gptlib.downloads import hub, texts
from gptlib.model import GPT
from gptlib.training import checkpoints

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarm"),
]

SECONDS = 120  # more than any command here takes, on a busy machine
TEXT = "".join(f"The {n}th line, and it's not the last.\n" for n in range(60))
TINY = ["--emb-dim=8", "--n-heads=2", "--n-layers=1", "--context-length=16", "--batch-size=2"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a text, a saved model and a run; nothing is fetched, and stories are few."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "t.txt").write_text(TEXT, encoding="utf-8")
    shape = GPTConfig(2_048, context_length=16, emb_dim=8, n_heads=2, n_layers=1)
    model = GPT(shape, torch.Generator().manual_seed(0))
    pretrained.save(model, folder / "some", tokenizer.stories())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "HELD_OUT_STORIES", 50)
        patch.setattr(hub, "fetch", fails(hub.DownloadError("no network")))
        patch.setattr(texts, "fetch", fails(texts.FetchError("no network")))
        with chdir(folder):
            argv = ["train", *TINY, "--data", "t.txt", "--encoding", "stories", "--device", "cpu"]
            assert ended([*argv, "--steps", "1"])[0] == 0
        yield folder


def fails(error: Exception) -> Callable[..., Path]:
    def fetch(*arguments: object) -> Path:
        raise error

    return fetch


@contextlib.contextmanager
def chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def ended(argv: list[str]) -> tuple[int | str | None, str]:
    """Run a command; return its exit code and its errors, or fail where it takes too long."""

    def stop(*_: object) -> None:
        raise AssertionError(f"it takes more than {SECONDS} s: {argv}")

    error = io.StringIO()
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
            return main(argv), error.getvalue()
    except SystemExit as exit_:
        return exit_.code, error.getvalue()
    finally:
        signal.alarm(0)


def check(argv: list[str]) -> None:
    """Run a command, and see that it ends as one should, leaving whole files only."""
    code, error = ended(argv)
    assert code in (0, 1, 2), f"{argv}: {code}, {error}"
    assert "Traceback" not in error, f"{argv}: {error}"
    if code == 1:
        assert error.splitlines()[-1].startswith(f"gptlib {argv[0]}: "), error
    for folder in {path.parent for path in Path().rglob("step-*")} | {Path("run"), Path("out")}:
        assert not list(folder.glob(".saving-*")), f"{argv} left half a file"
    if Path("out", runs.VOCABULARY).exists():
        tokenizer.load(Path("out", runs.VOCABULARY))
        if checkpoints.latest("out"):
            runs.trained(Path("out"))


NUMBERS = st.sampled_from(
    ["-1", "0", "1", "2", "1e-50", "0.5", "1.5", "nan", "inf", "-inf", "", "1" + "0" * 30, "x", "²"]
)
SMALL = st.sampled_from(
    ["-1", "0", "1", "2", "", "x", "-" + "9" * 30]
)  # what would take long is not
WORDS = st.text(st.characters(exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["mini", "run", "some", "t.txt", ".", "out", "stories", "some/model.safetensors", "cpu", "gpt2"]
)


def options(table: dict[str, st.SearchStrategy[str]]) -> st.SearchStrategy[list[str]]:
    """Return any of these options, each with a value of its own."""
    one = st.sampled_from(sorted(table)).flatmap(
        lambda name: table[name].map(lambda value: [f"{name}={value}"])
    )
    return st.lists(one, max_size=5).map(lambda found: [word for words in found for word in words])


GENERATE = options(
    {
        "--model": WORDS,
        "--device": WORDS,
        "--dtype": WORDS | st.just("bfloat16"),
        "--file": WORDS,
        "--temperature": NUMBERS,
        "--top-k": NUMBERS,
        "--top-p": NUMBERS,
        "--seed": NUMBERS,
        "--number": SMALL,
    }
)
TRAIN = options(
    {
        "--data": WORDS,
        "--folder": WORDS.filter(lambda word: not os.path.isabs(word)) | st.just("out"),
        "--encoding": WORDS | st.sampled_from(["stories", "gpt2", "bpe"]),
        "--vocab-size": NUMBERS | st.just("300"),
        "--held-out": NUMBERS,
        "--learning-rate": NUMBERS,
        "--every": SMALL,
        "--seed": NUMBERS,
        "--device": WORDS,
        "--from": WORDS,
        "--emb-dim": NUMBERS,
        "--n-heads": NUMBERS,
        "--n-layers": SMALL,
        "--context-length": SMALL | st.just("8"),
        "--drop-rate": NUMBERS,
        "--size": WORDS | st.sampled_from(["mini", "gpt3"]),
        "--steps": SMALL,
        "--batch-size": SMALL,
    }
)
COUNT = options({"--vocab-size": NUMBERS, "--emb-dim": NUMBERS, "--n-layers": NUMBERS})
BRIEF = ["--max-new-tokens=2"]
SHORT = ["--steps=1", *TINY, "--folder=out", "--data=t.txt"]
COMMANDS = st.one_of(
    st.tuples(st.just(["generate"]), st.lists(WORDS, max_size=1), st.just(BRIEF), GENERATE),
    st.tuples(st.just(["train", *SHORT]), st.just([]), TRAIN),
    st.tuples(st.just(["count"]), st.lists(WORDS, max_size=2), COUNT),
).map(lambda parts: [word for part in parts for word in part])


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(COMMANDS)
def test_any_options_end_well(models: Path, argv: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, chdir(Path(folder)):
        shutil.copytree(models, folder, dirs_exist_ok=True)
        check(argv)


BYTES = st.binary(max_size=200) | st.text(max_size=60).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


@st.composite
def harms(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Return a way to damage a file: other bytes, fewer, a few changed, or another JSON value."""
    kind, place, new = draw(st.sampled_from("oCcj")), draw(st.floats(0, 1)), draw(BYTES)
    value = draw(st.sampled_from([None, -1, 10**12, "x", [], {}, 1e308, True]))

    def harm(data: bytes) -> bytes:
        at = int(place * len(data))
        if kind == "o":
            return new
        if kind == "C":
            return data[:at]
        if kind == "j" and data.startswith(b"{"):
            return json.dumps(changed(json.loads(data), at, value)).encode()
        return data[:at] + new[:3] + data[at + len(new[:3]) :]

    return harm


def changed(record: object, at: int, value: object) -> object:
    """Return a JSON record with another value in one of its places."""
    if not isinstance(record, dict) or not record:
        return value
    name = sorted(record)[at % len(record)]
    return record | {name: changed(record[name], at // len(record), value)}


FILES = st.sampled_from(
    [
        ("t.txt", ["train", *SHORT, "--encoding=stories", "--context-length=8", "--emb-dim=12"]),
        ("t.txt", ["train", *SHORT, "--vocab-size=258", "--context-length=8", "--emb-dim=12"]),
        ("t.txt", ["generate", "--file=t.txt", "--model=some", *BRIEF]),
        ("some/config.json", ["generate", "--model=some", *BRIEF]),
        ("some/model.safetensors", ["generate", "--model=some", *BRIEF]),
        ("run/vocabulary.tiktoken", ["generate", "--model=run", *BRIEF]),
        ("run/step-00000001/training.json", ["generate", "--model=run", *BRIEF]),
        ("run/step-00000001/weights.safetensors", ["generate", "--model=run", *BRIEF]),
        *(
            (f"run/step-00000001/{name}", ["train", *TINY, "--data=t.txt",
             "--encoding=stories", "--steps=2", "--device=cpu"])
            for name in ("training.json", "weights.safetensors", "optimizer.safetensors")
        ),
    ]
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(FILES, harms())
@example(("t.txt", ["generate", "--file=t.txt", "--model=some", *BRIEF]), lambda data: b"\xff")
def test_any_bytes_in_a_file_end_well(
    models: Path, file: tuple[str, list[str]], harm: Callable[[bytes], bytes]
) -> None:
    name, argv = file
    with tempfile.TemporaryDirectory() as folder, chdir(Path(folder)):
        shutil.copytree(models, folder, dirs_exist_ok=True)
        Path(name).write_bytes(harm(Path(name).read_bytes()))
        check(argv)
