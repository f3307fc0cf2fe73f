"""The command line: what it prints, what it keeps, and how it ends."""

from __future__ import annotations

import io
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiktoken import Encoding

from gptlib import devices, pretrained, runs, sources, stories, tokenizer, vocabulary_files
from gptlib.cli import count, generate, train
from gptlib.cli import main as command_line
from gptlib.cli.main import _parser, main
from gptlib.config import FAMILY, GPTConfig
from gptlib.downloads import hub, texts
from gptlib.downloads.texts import FetchError
from gptlib.generation import write
from gptlib.model import GPT
from gptlib.training import checkpoints, loop

TINY = ["--emb-dim", "16", "--n-heads", "2", "--n-layers", "1", "--batch-size", "2"]
SMALL_TEXT = "".join(f"The {n}th line, and it's not the last.\n" for n in range(300))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder, and measures the loss on few stories."""
    monkeypatch.setattr(sources, "HELD_OUT_STORIES", 50)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPTLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def ended(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, what it printed, and its errors."""
    code = main(argv)
    return code, *capsys.readouterr()


def failed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that fails, and return its one line."""
    code, out, error = ended(capsys, *argv)
    assert (code, out) == (1, "")
    assert error.count("\n") == 1, error
    return error


def test_a_developer_sees_where_an_error_arose(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Traceback" not in failed(capsys, "generate", "--model", "nobody")
    monkeypatch.setenv("GPTLIB_DEBUG", "1")
    code, _, error = ended(capsys, "generate", "--model", "nobody")
    assert code == 1
    assert error.startswith("Traceback (most recent call last):")
    assert "runs.py" in error
    assert error.splitlines()[-1].startswith("gptlib generate: there is no model 'nobody'")


# ---- help and usage ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["generate"], ["train"], ["count"]])
def test_help_says_what_there_is(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main([*command, "--help"])
    assert ending.value.code == 0
    said = capsys.readouterr().out
    assert "examples:\n  python -m gptlib " in said
    assert "None" not in said
    assert max(map(len, said.splitlines())) <= 100


@pytest.mark.parametrize(
    "argv",
    [[], ["write"], ["train", "--steps", "many"], ["generate", "a", "b"], ["train", "--size", "x"]],
)
def test_wrong_usage_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(argv)
    assert ending.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("usage: python -m gptlib")


def test_every_example_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    """What --help shows is parsed here, all but the last step of it."""
    shown = [module.EXAMPLES for module in (command_line, count, generate, train)]
    pattern = r"^  python -m gptlib (.+?)(?:  .*)?$"
    examples = re.findall(pattern, "\n".join(shown), re.MULTILINE)
    assert len(examples) >= 10
    for example in examples:
        _parser().parse_args(shlex.split(example))


def test_the_help_loads_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "tiktoken", "filelock", "safetensors", "huggingface_hub")
    code = (
        "import sys; from gptlib.__main__ import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.endswith("\n[]\n"), process.stderr


# ---- generate ------------------------------------------------------------------------------------


@pytest.mark.asset
def test_the_mini_model_writes_right_after_installation(folder: Path) -> None:
    """As a reader gives it: in another folder, another process, without a network."""
    argv = [sys.executable, "-m", "gptlib", "generate", "Once upon a time", "--seed", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(argv, capture_output=True, text=True, cwd=folder, env=environment)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("Once upon a time")
    assert len(process.stdout.split()) > 20
    assert "<|endoftext|>" not in process.stdout


@pytest.mark.asset
def test_a_seed_repeats_and_sampling_changes_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    def written(*options: str) -> str:
        argv = ("generate", "One day", "--max-new-tokens", "12", *options)
        code, out, error = ended(capsys, *argv)
        assert (code, error) == (0, "")
        assert out.startswith("One day")
        return out

    assert written("--seed", "3") == written("--seed", "3")
    greedy = written("--temperature", "0")
    assert greedy == written("--top-k", "1", "--seed", "5") == written("--top-p", "1e-9")
    assert len({written("--temperature", "3", "--seed", str(n)) for n in range(4)}) > 1
    three = written("--number", "3", "--temperature", "0")
    assert three == "\n---\n\n".join([greedy] * 3)


@pytest.mark.asset  # it is opened before the numbers are looked at
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "-1"], "temperature must be "),
        (["--top-k", "0"], "top_k must be at least 1"),
        (["--top-p", "2"], "top_p must be above 0 and at most 1"),
        (["--max-new-tokens", "-1"], "max_new_tokens must be at least 0, not -1"),
        (["--number", "0"], "--number must be at least 1, not 0"),
        (["--model", "none"], "there is no model 'none'; there is mini, gpt2, gpt2-medium, gpt2-"),
        (["--model", "./none"], "there is no folder or file "),
        (["--model", "none.safetensors"], "there is no folder or file none.safetensors"),
        (["--model", "."], ". has no model.safetensors"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failed(capsys, "generate", *options).startswith(f"gptlib generate: {message}")


def saved(folder: str, vocab_size: int, encoding: Encoding | None = None) -> GPT:
    """Save a tiny model, with its vocabulary or without, and return it."""
    shape = GPTConfig(vocab_size, context_length=16, emb_dim=16, n_heads=2, n_layers=1)
    model = GPT(shape, torch.Generator().manual_seed(0)).eval()
    pretrained.save(model, folder, encoding)
    return model


def by_hand(model: GPT, encoding: Encoding, prompt: str) -> str:
    return prompt + "".join(write(model, encoding, prompt, 6, temperature=0)) + "\n"


GREEDY = ["--max-new-tokens", "6", "--temperature", "0"]


@pytest.mark.parametrize("place", ["some", "some/model.safetensors"])
def test_a_saved_model_writes_with_the_vocabulary_it_was_saved_with(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its number of entries says nothing: this one has as many as the stories'."""
    own = tokenizer.train_bpe(stories.sample(1)[0] + SMALL_TEXT, 300, [tokenizer.END_OF_TEXT])
    shape = GPTConfig(own.n_vocab, context_length=16, emb_dim=16, n_heads=2, n_layers=1)
    model = GPT(shape, torch.Generator().manual_seed(0)).eval()
    pretrained.save(model, "some", own)
    code, out, error = ended(capsys, "generate", "One", "--model", place, *GREEDY)
    assert (code, out, error) == (0, by_hand(model, own, "One"), "")
    code, out, _ = ended(capsys, "generate", "--model", place, "--dtype", "bfloat16", *GREEDY)
    assert (code, out) == (0, by_hand(model.bfloat16(), own, ""))

    pretrained.save(pretrained.load(place), "again")  # it travels on
    assert ended(capsys, "generate", "One", "--model", "again", *GREEDY)[0] == 0
    assert Path("again/tokenizer.json").read_bytes() == Path("some/tokenizer.json").read_bytes()


def test_nobody_guesses_a_vocabulary_by_its_number_of_entries(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = saved("some", 2_048)
    message = failed(capsys, "generate", "--model", "some", *GREEDY)
    assert message.startswith("gptlib generate: some has 2,048 tokens and no vocabulary beside its")
    assert "as --encoding gpt2, or stories, or a folder that has it" in message
    argv = ("generate", "One day", "--model", "some", *GREEDY)
    code, out, error = ended(capsys, *argv, "--encoding", "stories")
    assert (code, out, error) == (0, by_hand(model, tokenizer.stories(), "One day"), "")
    assert "the encoding has 50,257 tokens" in failed(capsys, *argv, "--encoding", "gpt2")
    assert "there is no vocabulary 'words'; there is stor" in failed(
        capsys, *argv, "--encoding", "words"
    )
    vocabulary_files.save(tokenizer.stories(), "beside")
    for name in ("beside", "beside/tokenizer.json"):
        assert ended(capsys, *argv, "--encoding", name)[:2] == (code, out)

    Path("some/tokenizer.model").write_text("")
    assert "tokenizer.model is of a kind that is not read" in failed(capsys, *argv)
    Path("some/tokenizer.json").write_text("{}")
    assert "tokenizer.json is not a vocabulary that is read here" in failed(capsys, *argv)


def test_a_model_that_transformers_saved_writes_with_its_tokenizer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from transformers import AutoTokenizer

    own = tokenizer.train_bpe(SMALL_TEXT, 300, [tokenizer.END_OF_TEXT])
    vocabulary_files.save(own, "ours")
    model = saved("theirs", 300)
    AutoTokenizer.from_pretrained("ours").save_pretrained("theirs")
    code, out, _ = ended(capsys, "generate", "One", "--model", "theirs", *GREEDY)
    assert (code, out) == (0, by_hand(model, own, "One"))


def test_a_training_s_model_is_saved_with_its_vocabulary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The way of one who trains at the command line, and then goes on in Python."""
    Path("my text.txt").write_text(SMALL_TEXT)
    argv = ["train", *TINY, "--context-length", "16", "--data", "my text.txt", "--steps", "2"]
    assert ended(capsys, *argv, "--vocab-size", "300", "--folder", "mine")[0] == 0
    model, encoding = runs.load("mine", torch.float32)
    pretrained.save(model, "b")
    expected = by_hand(model, encoding, "The")
    for place in ("mine", "b"):
        assert ended(capsys, "generate", "The", "--model", place, *GREEDY)[:2] == (0, expected)


def test_a_model_of_the_hub_is_fetched_and_writes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved("fetched", 50_257)
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda what: asked.append(what.name) or Path("fetched"))
    code, out, error = ended(capsys, "generate", "One day", "--model", "gpt2", *GREEDY)
    assert (code, out, error) == (0, by_hand(model, tokenizer.gpt2(), "One day"), "")
    assert asked == ["openai-community/gpt2"]

    def fetch_vocabulary(what: hub.Repository) -> Path | None:
        asked.append(f"the vocabulary of {what.name}")
        return Path("own") if what.name == "someone/else" else None

    monkeypatch.setattr(hub, "fetch_vocabulary", fetch_vocabulary)
    vocabulary_files.save(tokenizer.gpt2(), "own")
    code, again, error = ended(capsys, "generate", "One day", "--model", "someone/else", *GREEDY)
    assert (code, again, error) == (0, out, "")
    assert asked[1:] == ["someone/else", "the vocabulary of someone/else"]
    message = failed(capsys, "generate", "One day", "--model", "someone/without", *GREEDY)
    assert message.startswith("gptlib generate: someone/without has 50,257 tokens and no vocab")


def test_a_model_that_cannot_be_fetched_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(repository: hub.Repository) -> Path:
        raise hub.DownloadError(f"{repository.name} cannot be had")

    monkeypatch.setattr(hub, "fetch", fetch)
    message = failed(capsys, "generate", "--model", "gpt2")
    assert message == "gptlib generate: openai-community/gpt2 cannot be had\n"
    message = failed(capsys, "generate", "--model", "runs/first")
    assert message == (
        "gptlib generate: there is no folder runs/first here, and runs/first cannot be had\n"
    )


def test_a_folder_of_a_training_that_was_broken_off_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("run").mkdir()
    vocabulary_files.save(tokenizer.stories(), "run")
    message = failed(capsys, "generate", "--model", "run")
    assert message.startswith("gptlib generate: there is no checkpoint in run yet: its training ")


# ---- train ---------------------------------------------------------------------------------------


def test_a_model_of_stories_is_trained_and_writes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", *TINY, "--folder", "run", "--steps", "4", "--every", "2"]
    code, out, error = ended(capsys, *argv)
    assert code == 0
    assert out.strip()
    assert re.search(r"^[\d,]+ parameters on \w+, 4 steps of 2 rows from stories; ", error)
    assert re.search(r"^step 2: loss \d.*\nstep 4: loss \d.*\ndone after 4 steps: ", error, re.M)
    assert error.endswith("more of it: python -m gptlib generate --model run\n")
    assert checkpoints.latest(folder / "run").name == "step-00000004"

    code, out, error = ended(capsys, *argv)  # again: nothing is left to do, the sample is the same
    assert (code, "step 2" in error) == (0, False)
    code, again, error = ended(capsys, "generate", "One", "--model", "run", "--max-new-tokens", "5")
    assert (code, error) == (0, "")
    assert again.startswith("One")
    (folder / "run" / "tokenizer.json").unlink()
    message = failed(capsys, "generate", "One", "--model", "run")
    assert message.startswith("gptlib generate: there is no vocabulary in run, neither tokenizer.")
    argv = ("generate", "One", "--model", "run", "--max-new-tokens", "5")
    assert ended(capsys, *argv, "--encoding", "stories")[0] == 0
    tokenizer.save(tokenizer.stories(), "run/vocabulary.tiktoken")  # as version 1.0 wrote it
    assert ended(capsys, *argv)[0] == 0


def test_a_model_of_a_file_learns_its_vocabulary(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "my text.txt").write_text(SMALL_TEXT)
    argv = ["train", *TINY, "--context-length", "16", "--data", "my text.txt", "--steps", "2"]
    code, _, error = ended(capsys, *argv, "--vocab-size", "300", "--folder", "my run")
    assert code == 0
    assert "held out" in error
    assert error.endswith("more of it: python -m gptlib generate --model 'my run'\n")
    vocabulary = vocabulary_files.load("my run")
    assert vocabulary.n_vocab == 300
    assert b" line" in tokenizer.token_bytes(vocabulary)
    shape = checkpoints.read_record(checkpoints.latest("my run"))["identity"]["model"]
    assert (shape["vocab_size"], shape["context_length"], shape["emb_dim"]) == (300, 16, 16)

    code, out, _ = ended(capsys, "generate", "The 1", "--model", "my run", "--max-new-tokens", "9")
    assert code == 0
    assert out.startswith("The 1")

    message = failed(capsys, *argv, "--vocab-size", "310", "--folder", "my run")
    assert "my run has another vocabulary, of another training" in message
    assert vocabulary_files.load("my run").n_vocab == 300
    other_seed = ("--vocab-size", "300", "--folder", "my run", "--seed", "5")
    code, _, error = ended(capsys, *argv, *other_seed)
    assert code == 1
    assert re.search(r"\ngptlib train: .*step-00000002 is of another run: .* seed .*\n$", error)


def test_a_text_that_cannot_be_fetched_is_replaced_only_if_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(name: str) -> Path:
        raise FetchError(f"there is no network for {name}")

    monkeypatch.setattr(texts, "fetch", fetch)
    argv = ["train", *TINY, "--data", "tiny-shakespeare", "--steps", "1"]
    assert failed(capsys, *argv) == "gptlib train: there is no network for tiny-shakespeare\n"
    code, _, error = ended(capsys, *argv, "--or-stories")
    assert code == 0
    assert error.startswith("there is no network for tiny-shakespeare. Training on stories instead")


def test_a_text_of_the_course_is_fetched_and_read(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "fetched").write_text(SMALL_TEXT)
    monkeypatch.setattr(texts, "fetch", {"tiny-shakespeare": folder / "fetched"}.__getitem__)
    argv = ["train", *TINY, "--context-length", "16", "--data", "tiny-shakespeare", "--steps", "1"]
    assert ended(capsys, *argv, "--encoding", "stories")[0] == 0
    assert vocabulary_files.are_equal(vocabulary_files.load("run"), tokenizer.stories())


def test_the_characters_of_a_text_are_a_vocabulary(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """nanoGPT's best-known small run is of this kind."""
    (folder / "my.txt").write_text(SMALL_TEXT.replace("line", "líne"))
    argv = ["train", *TINY, "--context-length", "16", "--data", "my.txt", "--steps", "2"]
    code, out, _ = ended(capsys, *argv, "--encoding", "characters")
    assert code == 0
    vocabulary = vocabulary_files.load("run")
    assert vocabulary.n_vocab == len(set((folder / "my.txt").read_text("utf-8"))) + 1
    assert set(out) <= set((folder / "my.txt").read_text("utf-8"))
    code, out, _ = ended(capsys, "generate", "The líne", "--model", "run", "--max-new-tokens", "9")
    assert (code, out[:8]) == (0, "The líne")
    message = failed(capsys, "generate", "The ☃", "--model", "run")
    assert message.startswith("gptlib generate: the encoding 'run' has no token for '☃': it has ")


@pytest.mark.parametrize("encoding", ["bpe", "characters", "stories", "gpt2"])
def test_the_texts_of_a_file_are_separate_and_counted(
    encoding: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = "".join(f"The {n}th line, and it's not the last.\n" for n in range(50))
    (folder / "my.txt").write_text("<|endoftext|>\n".join([one] * 6))
    argv = ["train", *TINY, "--context-length", "16", "--data", "my.txt", "--steps", "1"]
    size = ["--vocab-size", "280"] if encoding == "bpe" else []
    code, out, error = ended(capsys, *argv, *size, "--encoding", encoding)
    assert code == 0, error
    assert " from my.txt (6 texts between <|endoftext|>); saved in " in error
    assert "endoftext" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "no.txt"], "there is no file no.txt: --data takes stories, a text file, or "),
        (["--data", "https://a.b/c.txt"], "--data takes no address: save https://a.b/c.txt as a f"),
        (["--data", "."], ". is a folder, not a text file"),
        (["--data", "short.txt"], "text supports only"),
        (["--data", "short.txt", "--encoding", "gpt2"], "a text of 75 tokens is shorter than one"),
        (["--data", "latin.txt"], "latin.txt is not UTF-8: invalid continuation byte at byte 1 ("),
        (["--steps", "0"], "steps must be a whole number of at least 1, not 0"),
        (["--batch-size", "0"], "batch_size must be a whole number of at least 1, not 0"),
        (["--learning-rate", "-1"], "learning_rate must be "),
        (["--context-length", "9", "--steps", "2"], "a text of "),
        (["--n-heads", "5", "--steps", "2"], "emb_dim must be divisible by n_heads"),
        (["--folder", "short.txt", "--steps", "2"], "[Errno 17] File exists: 'short.txt'"),
        (["--device", "abacus", "--steps", "2"], "device must be one that PyTorch has here, such "),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "short.txt").write_text("A short text. " * 20)
    (folder / "latin.txt").write_bytes("né".encode("latin-1") + b"e")
    assert failed(capsys, "train", *options).startswith(f"gptlib train: {message}")


@pytest.mark.parametrize(
    ("at_step", "said"),
    [
        (1, r"stopped: no checkpoint was saved yet; the same command begins again:"),
        (3, r"stopped: the last checkpoint is run.step-00000002; the same command goes on from th"),
    ],
)
def test_ctrl_c_says_what_was_saved_and_how_to_go_on(
    at_step: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("text.txt").write_text(SMALL_TEXT)
    argv = ["train", *TINY, "--data", "text.txt", "--encoding", "stories", "--steps", "4"]
    argv += ["--context-length", "16", "--every", "2"]
    original = loop.compute_gradients
    calls = []

    def interrupt(*arguments):
        calls.append(0)
        if len(calls) == at_step:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "compute_gradients", interrupt)
        code, out, error = ended(capsys, *argv)
    assert (code, out) == (130, "")
    assert re.search(said, error)
    assert error.endswith(f"\n  python -m gptlib {' '.join(argv)}\n")
    code, _, error = ended(capsys, *argv)
    assert code == 0
    assert ("step 2" in error) == (at_step == 1)  # after a checkpoint it goes on from there


# ---- count ---------------------------------------------------------------------------------------


def test_count_lists_the_family(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = ended(capsys, "count")
    assert (code, error) == (0, "")
    header, *lines = out.splitlines()
    assert header.split() == [
        "layers", "width", "heads", "context", "parameters", "float32", "bfloat16", "training"
    ]  # fmt: skip
    assert [line.split()[0] for line in lines] == list(FAMILY)
    gpt2 = "gpt2 12 768 12 1,024 124,439,808 474.7 MiB 237.4 MiB 1.9 GiB"
    assert gpt2 in [" ".join(line.split()) for line in lines]
    assert len({line.rindex("iB") for line in lines}) == 1  # right to right


def test_count_shows_the_parts_of_some(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ended(capsys, "count", "gpt2", "gpt3", "--n-layers", "1", "--vocab-size", "10")
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert rows["token_embedding"] == ["7,680", "122,880"]
    assert rows["total"] == ["7,883,520", "1,837,412,352"]
    assert rows["training"] == ["120.3", "MiB", "27.4", "GiB"]


def test_count_refuses_what_is_no_member(capsys: pytest.CaptureFixture[str]) -> None:
    message = "gptlib count: there is no 'gpt5' in the family: mini, gpt2, "
    assert failed(capsys, "count", "gpt5").startswith(message)
    message = "gptlib count: emb_dim must be divisible by n_heads"
    assert failed(capsys, "count", "mini", "--emb-dim", "10").startswith(message)


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    argv = [sys.executable, "-m", "gptlib", "count"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


# ---- prompts, models and runs, as they are given -------------------------------------------------


class Piped(io.TextIOWrapper):
    """Standard input that another program writes."""

    def __init__(self, data: bytes, kind: int = stat.S_IFIFO) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.kind = kind

    def fileno(self) -> int:
        return -self.kind


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    original = os.fstat

    def fstat(number: int) -> object:
        return original(number) if number >= 0 else SimpleNamespace(st_mode=-number)

    monkeypatch.setattr(os, "fstat", fstat)
    return lambda *arguments: monkeypatch.setattr(sys, "stdin", Piped(*arguments))


def test_a_prompt_is_read_from_standard_input_or_a_file(
    piped: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved("some", 2_048, tokenizer.stories())
    expected = by_hand(model, tokenizer.stories(), "Eva\nwas é")
    prompt = "Eva\nwas é\n".encode()
    Path("begin.txt").write_bytes(prompt)
    for given in (["-"], ["--file", "-"], ["--file", "begin.txt"]):
        piped(prompt)
        assert ended(capsys, "generate", *given, "--model", "some", *GREEDY) == (0, expected, "")
    piped(prompt)
    code, out, error = ended(capsys, "generate", "--model", "some", *GREEDY)
    assert (code, out, error) == (0, expected, "reading the prompt from standard input\n")
    piped(prompt, stat.S_IFCHR)  # a terminal: nobody waits for it
    expected = by_hand(model, tokenizer.stories(), "")
    assert ended(capsys, "generate", "--model", "some", *GREEDY) == (0, expected, "")
    piped(b"not read")
    expected = by_hand(model, tokenizer.stories(), "Eva")
    assert ended(capsys, "generate", "Eva", "--model", "some", *GREEDY) == (0, expected, "")


def test_a_prompt_that_cannot_be_read_is_one_line(
    piped: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(*argv: str) -> str:
        return failed(capsys, "generate", *argv).removeprefix("gptlib generate: ")

    piped(b"caf\xe9!")
    assert said("-") == "standard input is not UTF-8: invalid continuation byte at byte 3\n"
    piped(b"a" * (2**24 + 1))
    assert said("-") == "standard input is longer than 16,777,216 bytes, and no prompt\n"
    monkeypatch.setattr(sys, "stdin", None)
    assert said("-") == "there is no standard input to read the prompt from: it is closed\n"
    assert said("--file", "none.txt") == "there is no file none.txt\n"
    assert said("a", "--file", "b") == "give a prompt, or --file to read it, and not both\n"


def test_a_device_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    saved("some", 2_048, tokenizer.stories())
    message = failed(capsys, "generate", "--model", "some", "--device", "hpu")
    assert message.startswith("gptlib generate: device must be one that PyTorch has here, such as ")
    code, _, error = ended(capsys, "generate", "--model", "some", "--device", "cpu", *GREEDY)
    assert (code, error) == (0, "")
    assert failed(capsys, "generate", "--model", "").startswith("gptlib generate: a model has a na")


def small_run(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Train a tiny model of a file; return what was said."""
    Path("t.txt").write_text(SMALL_TEXT)
    argv = ["train", *TINY, "--data", "t.txt", "--encoding", "stories", "--context-length", "16"]
    code, _, error = ended(capsys, *argv, "--every", "2", *options)
    assert code == 0, error
    return error


def test_a_checkpoint_can_be_named_itself(capsys: pytest.CaptureFixture[str]) -> None:
    small_run(capsys, "--steps", "2")
    whole = ended(capsys, "generate", "The", "--model", "run", *GREEDY)
    place = str(checkpoints.latest("run"))
    assert ended(capsys, "generate", "The", "--model", place, *GREEDY) == whole
    assert whole[0] == 0


def test_a_finished_run_goes_on_with_more_steps(capsys: pytest.CaptureFixture[str]) -> None:
    small_run(capsys, "--steps", "2")
    said = small_run(capsys, "--steps", "4")
    assert "going on from run" in said
    assert "step 2:" not in said
    assert "done after 4 steps" in said


def test_a_model_is_tuned_from_its_weights(capsys: pytest.CaptureFixture[str]) -> None:
    model = saved("some", 2_048, tokenizer.stories())
    Path("t.txt").write_text(SMALL_TEXT)
    argv = ["train", "--from", "some", "--data", "t.txt", "--steps", "1", "--batch-size", "2"]
    assert ended(capsys, *argv, "--learning-rate", "0")[0] == 0
    tuned = runs.trained(Path("run"))
    assert tuned.config == model.config
    ours = dict(tuned.named_parameters())
    assert all(torch.equal(ours[name], p) for name, p in model.named_parameters())
    kept = vocabulary_files.load("run")
    assert tokenizer.token_bytes(kept) == tokenizer.token_bytes(tokenizer.stories())
    record = checkpoints.read_record(checkpoints.latest("run"))["identity"]["training"]
    assert record["learning_rate"] == 0
    assert ended(capsys, *argv, "--folder", "other")[0] == 0
    record = checkpoints.read_record(checkpoints.latest("other"))["identity"]["training"]
    assert record["learning_rate"] == 1e-4

    for option in (["--n-layers", "2"], ["--encoding", "bpe"], ["--size", "gpt2"]):
        message = failed(capsys, *argv, *option)
        assert message == (
            f"gptlib train: {option[0]} is decided by the model of --from: leave it out\n"
        )
    message = failed(capsys, *argv, "--context-length", "17")
    assert message == "gptlib train: --context-length is at most 16 for some, not 17\n"


def test_a_folder_here_comes_before_a_known_model(capsys: pytest.CaptureFixture[str]) -> None:
    model = saved("gpt2", 2_048, tokenizer.stories())
    code, out, error = ended(capsys, "generate", "One", "--model", "gpt2", *GREEDY)
    assert (code, out) == (0, by_hand(model, tokenizer.stories(), "One"))
    assert error == "gpt2 is the folder here, not the known model\n"
    Path("mini").mkdir()
    tokenizer.save(tokenizer.stories(), "mini/vocabulary.tiktoken")
    code, _, error = ended(capsys, "generate", "--model", "mini")
    assert code == 1
    assert "gptlib generate: there is no checkpoint in mini yet: its training was" in error
    Path("mini/vocabulary.tiktoken").unlink()
    Path("mini/model.safetensors").write_bytes(b"half")
    code, _, error = ended(capsys, "generate", "--model", "mini")
    assert code == 1
    assert "mini/model.safetensors is not a whole .safetensors file" in error.replace(os.sep, "/")


@pytest.mark.asset
def test_a_folder_with_other_things_is_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mini").mkdir()
    Path("mini/notes.txt").write_text("of mine")
    assert ended(capsys, "generate", "One", "--max-new-tokens", "1")[::2] == (0, "")


def test_a_model_that_no_memory_holds_is_refused_first(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = failed(capsys, "train", "--size", "gpt3", "--device", "cpu")
    assert message.startswith(
        "gptlib train: training gpt3 takes 2.5 TiB for weights, gradients and"
    )
    assert ", and cpu has " in message
    assert list(folder.iterdir()) == []
    monkeypatch.setattr(devices, "memory", lambda device: None)  # nothing says how much there is
    assert " for weights, gradients and moments" in small_run(capsys, "--steps", "1")


def test_memory_is_that_of_the_machine_or_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    whole = devices.memory(cpu)
    assert whole is None or 2**28 < whole < 2**60
    if whole is not None:
        monkeypatch.setattr(Path, "read_text", lambda self, encoding: "1048576\n")
        assert devices.memory(cpu) == 2**20
        monkeypatch.setattr(Path, "read_text", lambda self, encoding: "max\n")
        assert devices.memory(cpu) >= whole
    assert devices.memory(torch.device("meta")) is None
