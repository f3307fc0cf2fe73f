"""How a command ends, whatever goes wrong: one line that says why, an exit code, no traceback."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptlib import tokenizer, vocabulary_files
from gptlib.cli import count, ending, generate, train
from gptlib.cli.main import main
from gptlib.downloads import files

GPTLIB = shlex.join([sys.executable, "-m", "gptlib"])
TINY = "--steps 2 --every 2 --n-layers 1 --emb-dim 12 --n-heads 2 --context-length 20"

posix = pytest.mark.skipif(os.name == "nt", reason="these are the shell's ways to close a stream")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPTLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def failed(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 1) -> str:
    """Run a command that fails, and return its one line."""
    assert main(argv) == code
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1, error
    return error


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as it is typed."""
    return subprocess.run(
        command, shell=True, capture_output=True, text=True, env={**os.environ, **environment}
    )


def raises(error: BaseException):
    def run(args):
        raise error

    return run


class PanicException(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("not\nthat"), 1, "gptlib count: not that\n"),
        (OSError(), 1, "gptlib count: OSError\n"),
        (MemoryError(), 1, "gptlib count: there is not enough memory: try a smaller model\n"),
        (ImportError("no module"), 1, "gptlib count: no module\n"),
        (TypeError("x"), 70, "gptlib count: a fault of gptlib, which was not foreseen (TypeError"),
        (
            KeyError("x"),
            70,
            "gptlib count: a fault of gptlib, which was not foreseen (KeyError: 'x",
        ),
        (PanicException("x"), 70, "gptlib count: a fault of gptlib, which was not foreseen (Panic"),
        (AssertionError(), 70, "gptlib count: a fault of gptlib, which was not foreseen (Asserti"),
    ],
)
def test_every_error_is_one_line_and_an_exit_code(
    error: BaseException,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(count, "run", raises(error))
    assert failed(capsys, "count", code=code).startswith(said)
    monkeypatch.setenv("GPTLIB_DEBUG", "1")
    assert main(["count"]) == code
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):")
    monkeypatch.setenv("GPTLIB_DEBUG", "0")
    failed(capsys, "count", code=code)


def test_ctrl_c_is_no_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (count, generate, train):
        monkeypatch.setattr(module, "run", raises(KeyboardInterrupt()))
    for command in ("count", "generate", "train"):
        assert failed(capsys, command, code=130) == "\n"


def test_the_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert ending.EXIT_CODES in said
    for code in (0, ending.FAILED, 2, ending.BROKEN, ending.INTERRUPTED):
        assert f"  {code} " in said


@posix
def test_a_closed_output_swallows_what_is_printed(folder: Path) -> None:
    closed = shell(f"{GPTLIB} count gpt2 >&-")
    assert (closed.returncode, closed.stderr) == (0, "")
    assert shell(f"{GPTLIB} --help >&-").returncode == 0
    refused = shell(f"{GPTLIB} count gpt5 2>&-")
    assert (refused.returncode, refused.stdout) == (1, "")
    (folder / "t.txt").write_text("".join(f"The {n}th line.\n" for n in range(300)))
    trained = shell(f"{GPTLIB} train --data t.txt --vocab-size 280 {TINY} --device cpu 2>&-")
    assert trained.returncode == 0
    assert "step 2" not in trained.stdout
    assert [path.name for path in Path("run").glob("step-*")] == ["step-00000002"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_is_one_line() -> None:
    full = shell(f"{GPTLIB} count > /dev/full")
    assert full.returncode == 1
    assert full.stderr == "gptlib count: [Errno 28] No space left on device\n"


def test_variables_of_torchrun_that_are_empty_are_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "")
    monkeypatch.setenv("LOCAL_RANK", "")
    assert main(["count", "gpt2"]) == 0
    capsys.readouterr()
    assert failed(capsys, "train", "--sharding", "ddp").endswith("start them with torchrun\n")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert failed(capsys, "train", "--sharding", "ddp").endswith("start them with torchrun\n")
    monkeypatch.setenv("RANK", "first")
    message = failed(capsys, "train")
    assert "variable RANK must be a whole number, as torchrun sets it, not 'first'" in message


HOMELESS = """
import pwd
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
"""


@posix
@pytest.mark.asset
def test_who_has_no_home_can_write_with_the_mini_model() -> None:
    code = HOMELESS + "from gptlib.cli.main import main; raise SystemExit(main())"
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "GPTLIB_CACHE")}
    argv = [sys.executable, "-c", code, "generate", "One", "--max-new-tokens", "3", "--seed", "1"]
    process = subprocess.run(argv, capture_output=True, text=True, env=environment)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("One")


@posix
def test_a_cache_without_a_home_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    for name in ("HOME", "GPTLIB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    with pytest.raises(OSError, match="set the environment variable GPTLIB_CACHE to a folder"):
        files.prepare()
    assert not Path("~").exists()
    monkeypatch.setenv("GPTLIB_CACHE", "here")
    assert files.prepare() == Path("here")


@pytest.mark.parametrize("command", ["train", "generate"])
@pytest.mark.parametrize("seed", ["-1", "1.5", str(2**64), "9" * 5_000, "two", ""])
def test_a_seed_that_pytorch_does_not_take_is_refused_first(
    seed: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, f"--seed={seed}"])
    assert ended.value.code == 2
    assert "--seed: must be a whole number from 0 to 2**64 - 1, not " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folder", ""], "--folder must name a folder, not ''"),
        (
            ["--device", "hpu"],
            "device must be one that PyTorch has here, such as \"cpu\", not 'hpu'",
        ),
        (["--device", ""], "device must be one that PyTorch has here, such as \"cpu\", not ''"),
        (["--vocab-size", "512"], "--vocab-size is for a vocabulary to learn, and that of stories"),
        (["--data", "t.txt", "--encoding", "gpt2", "--vocab-size", "300"], "--vocab-size is for a"),
        (["--held-out", "0.2"], "--held-out is for a text: stories to measure the loss on are ma"),
        (
            ["--data", "t.txt", "--context-length", "0"],
            "context_length must be a whole number of at least 1, not 0",
        ),
        (["--data", "fifo"], "fifo can be read once only: save what it says as a file"),
    ],
)
@posix
def test_what_cannot_be_followed_is_refused_before_any_work(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "t.txt").write_text("".join(f"The {n}th line.\n" for n in range(300)))
    os.mkfifo("fifo")
    assert failed(capsys, "train", *options).startswith(f"gptlib train: {message}")
    assert sorted(path.name for path in folder.iterdir()) == ["fifo", "t.txt"]


def test_sizes_beyond_all_units_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", "mini", "--vocab-size", "1" + 40 * "0"]) == 0
    assert "QiB" in capsys.readouterr().out


def test_a_vocabulary_that_cannot_be_written_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    from gptlib import runs

    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(bytes(data)[:7])
            raise OSError("the disk is full")

    encoding, place = tokenizer.stories(), folder / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", FullDisk)
        with pytest.raises(OSError, match="the disk is full"):
            runs.keep_vocabulary(encoding, place)
    assert list(place.iterdir()) == []
    runs.keep_vocabulary(encoding, place)
    saved = vocabulary_files.load(place)
    assert tokenizer.token_bytes(saved) == tokenizer.token_bytes(encoding)
