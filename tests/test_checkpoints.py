"""Checkpoints: killed at any moment, a training ends with the weights of one that was not.

Run as a program, this file is the server that the tests with SIGKILL use: it has imported PyTorch,
and each training that it is asked for runs in a fork of it, which starts at once.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptlib.config import GPTConfig
from gptlib.history import History
from gptlib.model import GPT
from gptlib.training import TrainingConfig, checkpoints, parameter_groups, train
from gptlib.training.checkpoints import CheckpointError
from gptlib.training.loop import TrainingRun

ROOT = Path(__file__).resolve().parent.parent
SHAPE = GPTConfig(vocab_size=13, context_length=6, emb_dim=8, n_heads=2, n_layers=1, drop_rate=0.3)
CONFIG = TrainingConfig(
    steps=6, warmup_steps=2, precision="float32", evaluate_every=2, save_every=2, learning_rate=0.01
)
#: Saves after each step, so that most of its time is spent in saving.
LONG = dataclasses.replace(CONFIG, steps=40, save_every=1)

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork and no SIGKILL")


class Random:
    """Batches of random ids; at one step, if it is given, they fail."""

    def __init__(self, seed=0, fails_at=None):
        self.seed, self.fails_at = seed, fails_at

    def batch(self, step):
        if step == self.fails_at:
            raise RuntimeError("the batches failed")
        generator = torch.Generator().manual_seed(1_000 * self.seed + step)
        ids = torch.randint(13, (4, 7), generator=generator)
        return ids[:, :-1], ids[:, 1:]

    def describe(self):
        return {"kind": "Random", "seed": self.seed, "shape": (4, 6)}


def gpt(seed=0, config=SHAPE):
    return GPT(config, torch.Generator().manual_seed(seed))


def quietly(model, folder=None, config=CONFIG, batches=None):
    return train(model, batches or Random(), config, folder=folder, progress=False)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices gain nothing from a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole():
    """Return the weights that a training makes which nothing interrupts."""
    model = gpt()
    quietly(model)
    return weights(model)


@pytest.fixture
def stopped(tmp_path):
    """Return a run's folder with a checkpoint of step 4, and 2 steps still to do."""
    with pytest.raises(RuntimeError, match="the batches failed"):
        quietly(gpt(), tmp_path / "run", batches=Random(fails_at=5))
    assert checkpoints.latest(tmp_path / "run").name == "step-00000004"
    return tmp_path / "run"


# ---------------------------------------------------------------------------------------------
# Killed at any moment


class Server:
    """Trains in processes of their own; see the top of this file."""

    def __init__(self):
        command = [sys.executable, "-m", "tests.test_checkpoints"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def train(self, folder, user=None, kill_after=None):
        """Train in a folder; return what the process said, or the signal that killed it."""
        request = json.dumps([str(folder), user, kill_after])
        self.process.stdin.write(f"{request}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def serve():
    torch.set_num_threads(1)
    quietly(
        gpt(), config=dataclasses.replace(CONFIG, steps=1)
    )  # PyTorch imports half of itself here
    print("ready", flush=True)
    for line in sys.stdin:
        folder, user, kill_after = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, _attempt(Path(folder), user).encode())
            os._exit(0)
        os.close(writer)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)  # if it has ended by itself, this changes nothing
        status = os.waitpid(child, 0)[1]
        with open(reader) as said:
            answer = said.read() or f"killed by signal {os.waitstatus_to_exitcode(status)}"
        print(json.dumps(answer), flush=True)


def _attempt(folder, user):
    try:
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        quietly(gpt(), folder, LONG)
    except BaseException:
        return traceback.format_exc()
    return "done"


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@posix
@pytest.mark.system
@pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path, server, kills):
    chance, model = random.Random(kills), gpt()
    quietly(model, config=LONG)
    began = time.perf_counter()
    assert server.train(tmp_path / "timed") == "done"
    duration = time.perf_counter() - began
    landed, in_saving, runs = 0, 0, 0
    folder = tmp_path / "run-0"
    while landed < kills or runs == 0:
        delay = chance.uniform(0, duration / 4) if landed < kills else None
        ended = server.train(folder, kill_after=delay)
        if ended == "killed by signal -9":
            landed += 1
            in_saving += any(folder.glob(".saving-*"))
        else:
            assert ended == "done"
            again = gpt(seed=99)
            assert checkpoints.load_weights(again, folder).steps == 40
            _assert_whole(folder, again, model)
            runs += 1
            folder = tmp_path / f"run-{runs}"
    if kills >= 30:
        assert in_saving > 0
    print(f"{landed} kills, {in_saving} of them while saving, {runs} runs, {duration:.2f} s a run")


def _assert_whole(folder, again, model):
    assert same(weights(again), weights(model))
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "step-00000040"]


@posix
def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(server):
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "run").mkdir()
        (folder / "run").chmod(0o555)
        folder.chmod(0o755)
        said = server.train(folder / "run", user=65_534 if os.geteuid() == 0 else None)
        assert f"PermissionError: [Errno 13] Permission denied: '{folder}/run/.lock'" in said
        assert files(folder) == {}
    finally:
        shutil.rmtree(folder)


# ---------------------------------------------------------------------------------------------
# Saving


def test_a_run_that_was_stopped_ends_with_the_same_weights(stopped, whole):
    model = gpt(seed=7)
    history = quietly(model, stopped)
    assert same(weights(model), whole)
    assert (history.steps, len(history.seconds)) == (6, 6)
    assert [p.name for p in stopped.glob("step-*")] == ["step-00000006"]
    assert quietly(gpt(seed=8), stopped) == history


def test_a_checkpoint_is_safetensors_and_json(stopped):
    place = checkpoints.latest(stopped)
    assert sorted(p.name for p in place.iterdir()) == [
        "optimizer.safetensors",
        "training.json",
        "weights.safetensors",
    ]
    model = gpt(seed=3)
    assert checkpoints.load_weights(model, place).steps == 4
    assert same(weights(model), load_file(place / "weights.safetensors"))
    by_run = gpt(seed=4)
    checkpoints.load_weights(by_run, stopped)
    assert same(weights(by_run), weights(model))


def prepared(folder, steps=4):
    """Return a run and its history, ready to be saved."""
    model = gpt()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1))
    run = TrainingRun(model, optimizer, CONFIG, Random())
    history = History(*([[1.0] * steps] * 4))
    return run, history, folder


def test_saving_the_same_step_again_never_lacks_a_checkpoint(tmp_path, monkeypatch):
    run, history, folder = prepared(tmp_path / "run")
    first = checkpoints.save(run, history, folder)
    removed = []
    rmtree = shutil.rmtree

    def watched(path, **options):
        assert checkpoints.latest(folder) != path
        removed.append(path)
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    second = checkpoints.save(run, history, folder)
    assert removed == [first]
    assert checkpoints.latest(folder) == second
    assert checkpoints.read_record(second)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such call")
def test_a_new_checkpoint_is_on_the_disk_before_an_older_one_goes(tmp_path, monkeypatch):
    """Or a power cut could leave neither: a folder's list of names is written for itself."""
    run, history, folder = prepared(tmp_path / "run")
    first = checkpoints.save(run, history, folder)
    fsync, rmtree, synced, removed = os.fsync, shutil.rmtree, [], []

    def watched_fsync(descriptor):
        fsync(descriptor)
        synced.append((os.fstat(descriptor).st_ino, len(checkpoints.finished(folder))))

    def watched_rmtree(path, **options):
        assert synced[-1] == (folder.stat().st_ino, 2)  # with both of them in its list
        removed.append(path)
        rmtree(path, **options)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(shutil, "rmtree", watched_rmtree)
    checkpoints.save(run, history, folder)
    assert removed == [first]


def test_an_earlier_step_does_not_replace_a_later_one(tmp_path):
    run, history, folder = prepared(tmp_path / "run")
    place = checkpoints.save(run, history, folder)
    before = files(folder)
    with pytest.raises(CheckpointError, match=r"step-00000004 is of a later step than 3"):
        checkpoints.save(run, prepared(folder, steps=3)[1], folder)
    assert (checkpoints.latest(folder), files(folder)) == (place, before)


def test_what_a_crash_left_is_swept_away_and_what_is_not_ours_is_not(stopped):
    (stopped / ".saving-abc").mkdir()
    (stopped / "step-00000002").mkdir()  # older: removing it was interrupted
    (stopped / "step-00000004 (copy)").mkdir()
    (stopped / "notes.txt").write_text("mine")
    quietly(gpt(), stopped)
    names = sorted(p.name for p in stopped.iterdir())
    assert names == [".lock", "notes.txt", "step-00000004 (copy)", "step-00000006"]


def test_a_folder_has_one_training_at_a_time(stopped, whole):
    before = files(stopped)
    with (
        checkpoints.locked(stopped),
        pytest.raises(CheckpointError, match="is in use by another training"),
    ):
        quietly(gpt(), stopped)
    assert files(stopped) == before
    model = gpt()
    quietly(model, stopped)
    assert same(weights(model), whole)


@posix
@pytest.mark.parametrize("limit", [100, 4_000, 10_000])
def test_a_disk_that_is_full_leaves_the_checkpoint_before(stopped, whole, limit):
    import resource

    before = files(stopped)
    assert max(map(len, before.values())) > 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    model = gpt()
    try:  # beyond the limit the system refuses to write, as it does when the disk is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(OSError, match="File too large"):
            quietly(model, stopped)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(stopped) == before
    quietly(gpt(seed=1), stopped)
    checkpoints.load_weights(model, stopped)
    assert same(weights(model), whole)


@pytest.mark.parametrize("call", range(4))
def test_a_disk_that_is_full_at_last_does_so_too(stopped, monkeypatch, call):
    before, calls = files(stopped), []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == call + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left on device"):
        quietly(gpt(), stopped)
    assert files(stopped) == before
    assert not list(stopped.glob(".saving-*"))


def test_a_folder_below_a_file_is_an_oserror(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        quietly(gpt(), tmp_path / "file" / "run")


# ---------------------------------------------------------------------------------------------
# Reading


def rewrite(place, **changes):
    path = place / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(place, part, name):
    record = json.loads((place / "training.json").read_text())
    del record[part][name]
    rewrite(place, **record)


def replace_file(place, name, data):
    """Put other bytes in a checkpoint's file, and write down their hash, as for what was saved."""
    import hashlib

    (place / name).write_bytes(data)
    record = json.loads((place / "training.json").read_text())
    record["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite(place, **record)


def replace_tensors(place, name, change):
    tensors = load_file(place / name)
    change(tensors)
    save_file(tensors, place / name)
    replace_file(place, name, (place / name).read_bytes())


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def longer(tensors):
    tensors["final_norm.scale"] = torch.ones(9)


def misnamed(tensors):
    tensors["extra"] = torch.ones(2)


WEIGHTS, OPTIMIZER, REST = "weights.safetensors", "optimizer.safetensors", "training.json"
MOMENT = "final_norm.scale.exp_avg"
DAMAGES = {
    "weights cut": (lambda p: cut(p / WEIGHTS), WEIGHTS, "is damaged: it has .* bytes, and"),
    "weights flipped": (lambda p: flip(p / WEIGHTS), WEIGHTS, "its SHA-256 is not that"),
    "weights gone": (lambda p: (p / WEIGHTS).unlink(), WEIGHTS, "is missing"),
    "optimizer cut": (lambda p: cut(p / OPTIMIZER), OPTIMIZER, "is damaged: it has"),
    "optimizer flipped": (lambda p: flip(p / OPTIMIZER), OPTIMIZER, "its SHA-256 is not that"),
    "optimizer gone": (lambda p: (p / OPTIMIZER).unlink(), OPTIMIZER, "is missing"),
    "record gone": (lambda p: (p / REST).unlink(), REST, "is missing"),
    "record cut": (lambda p: cut(p / REST), REST, "is damaged: it is not JSON"),
    "record not text": (lambda p: (p / REST).write_bytes(b"\xff\xfe"), REST, "is not JSON"),
    "record a list": (lambda p: (p / REST).write_text("[]"), REST, "is not a checkpoint of gptlib"),
    "foreign": (lambda p: (p / REST).write_text('{"format": "pt"}'), REST, "not a checkpoint of"),
    "older": (lambda p: rewrite(p, version=0), REST, "has version 0 of the format"),
    "newer": (lambda p: rewrite(p, version=3), REST, "has version 3 of the format"),
    "no history": (lambda p: rewrite(p, history=None), REST, 'it has no "history"'),
    "half a history": (lambda p: without(p, "history", "norms"), REST, "its history"),
    "no identity": (lambda p: without(p, "identity", "model"), REST, 'has no "model"'),
    "file not named": (lambda p: without(p, "files", OPTIMIZER), REST, "does not describe"),
    "not safetensors": (
        lambda p: replace_file(p, WEIGHTS, b"PK\x03\x04 a pickle"),
        WEIGHTS,
        "is not a safetensors file",
    ),
    "another shape": (
        lambda p: replace_tensors(p, WEIGHTS, longer),
        WEIGHTS,
        r"has \(9,\) for final_norm.scale, where the model has \(8,\)",
    ),
    "one name too many": (
        lambda p: replace_tensors(p, WEIGHTS, misnamed),
        WEIGHTS,
        r"has \(2,\) for extra, where the model has nothing",
    ),
    "another optimizer": (
        lambda p: replace_tensors(p, OPTIMIZER, misnamed),
        OPTIMIZER,
        r"does not fit the model: it has 'extra', of shape \(2,\)",
    ),
    "another moment": (
        lambda p: replace_tensors(p, OPTIMIZER, lambda t: t.update({MOMENT: torch.ones(3)})),
        OPTIMIZER,
        rf"does not fit the model: it has '{MOMENT}', of shape \(3,\)",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_nothing_is_touched(stopped, damage):
    harm, name, why = DAMAGES[damage]
    place = checkpoints.latest(stopped)
    harm(place)
    before, model = files(stopped), gpt(seed=5)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1))
    run = TrainingRun(model, optimizer, CONFIG, Random())
    with pytest.raises(CheckpointError, match=why) as caught:
        checkpoints.resume(run, stopped)
    assert str(place / name) in str(caught.value)
    with pytest.raises(CheckpointError, match=why):
        quietly(model, stopped)
    assert same(weights(model), weights(gpt(seed=5)))
    assert not optimizer.state
    assert files(stopped) == before


@pytest.mark.parametrize(
    ("others", "why"),
    [
        (
            {"config": dataclasses.replace(CONFIG, learning_rate=0.02)},
            "its training has learning_rate = 0.01, and this run has 0.02",
        ),
        ({"batches": Random(seed=2)}, "its batches has seed = 0, and this run has 2"),
        (
            {"model": gpt(config=dataclasses.replace(SHAPE, n_heads=4))},
            "its model has n_heads = 2, and this run has 4",
        ),
    ],
)
def test_a_folder_of_another_run_is_refused(stopped, others, why):
    before = files(stopped)
    with pytest.raises(CheckpointError, match=why) as caught:
        quietly(**({"model": gpt()} | others), folder=stopped)
    assert str(checkpoints.latest(stopped)) in str(caught.value)
    assert files(stopped) == before


def test_no_limit_to_the_gradient_is_kept_in_json(tmp_path):
    config = dataclasses.replace(CONFIG, clip_norm=float("inf"))
    quietly(gpt(), tmp_path, config)
    assert "Infinity" not in (checkpoints.latest(tmp_path) / REST).read_text()
    assert quietly(gpt(), tmp_path, config).steps == 6


def test_a_folder_without_a_checkpoint_changes_nothing(tmp_path):
    run, _, _ = prepared(tmp_path)
    assert checkpoints.resume(run, tmp_path / "none") == History()
    assert checkpoints.latest(tmp_path) is None
    assert checkpoints.latest(None) is None
    assert same(weights(run.model), weights(gpt()))
    with pytest.raises(CheckpointError, match=r"training\.json is missing"):
        checkpoints.load_weights(run.model, tmp_path)


if __name__ == "__main__":
    serve()
