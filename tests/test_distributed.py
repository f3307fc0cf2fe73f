"""Training on several processes computes what one process does, and survives what kills them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint import FileSystemReader

from gptlib import accounting, pretrained, training
from gptlib.cli.main import main
from gptlib.config import FAMILY
from gptlib.data import IGNORED, StoryBatches, WindowBatches
from gptlib.training import NotFiniteError, checkpoints, distributed, sharded
from gptlib.training.checkpoints import CheckpointError
from gptlib.training.distributed import DisagreementError, part
from tests import distributed_worker as worker
from tests.distributed_worker import HaltError, Random, Ranks, config, gpt

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "book" / "cluster.md"

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(sys.platform == "win32", reason="Gloo's tests need fork"),
]


@pytest.fixture(scope="module")
def ranks():
    """Four processes that can join; what they run together is in distributed_worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = Ranks(4)
    yield pool
    pool.close()
    torch.set_num_threads(threads)


@functools.cache
def alone(shape=worker.SHAPE, batches=None, halt_at=-1, accumulate=1):
    """Return the history and the weights of one process, by gptlib.training.train."""
    model, history = gpt(shape), None
    batches = batches or Random(halt_at=halt_at)
    with contextlib.suppress(HaltError):
        history = training.train(
            model, batches, config(accumulate=accumulate), progress=False, held_out=held_out()
        )
    return history, {name: p.detach().clone() for name, p in model.named_parameters()}


def held_out():
    """Three batches: one as long as others, one of a single row, one without any target."""
    batches = [Random().batch(100), Random(rows=1, empty_rows=0).batch(101)]
    inputs, targets = batches[0]
    return [*batches, (inputs, torch.full_like(targets, IGNORED))]


def together(ranks, world, changes=None, seed=0, **options):
    """Train on ``world`` ranks; return each one's history and weights, or raise what they did."""
    run = functools.partial(worker.train, **options)
    outcomes = ranks.run(world, run, changes or {}, seed)
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if errors:
        assert len(errors) == world, f"only some ranks failed: {errors}"
        assert len({(type(error), str(error)) for error in errors}) == 1, errors
        raise errors[0]
    return outcomes


def farthest(ours, theirs):
    """Return the largest difference between two lists or dicts of numbers or tensors."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        ours, theirs = ours.values(), theirs.values()
    assert len(ours) == len(theirs)
    differences = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return max(float(d.max()) if isinstance(d, torch.Tensor) else d for d in differences)


# ---- Who reads what ------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["windows", "stories"])
def test_the_ranks_together_read_what_one_process_reads(kind, world):
    stream = torch.tensor([0, *[1, 2, 3, 0, 4, 5, 6, 7, 8, 0, 9, 0] * 3])
    batches = WindowBatches(stream, 7, 4) if kind == "windows" else StoryBatches(stream, 0, 5, 6)
    for step in range(3):
        whole = batches.batch(step)
        parts = [part(*whole, rank, world) for rank in range(world)]
        for half, halves in zip(whole, zip(*parts, strict=True), strict=True):
            assert torch.equal(torch.cat(halves), half)
        sizes = [len(inputs) for inputs, _ in parts]
        assert max(sizes) - min(sizes) <= 1


def test_a_rank_for_which_no_row_is_left_has_no_target():
    inputs, targets = Random(rows=2, empty_rows=0).batch(0)
    parts = [part(inputs, targets, rank, 4) for rank in range(4)]
    assert [len(rows) for rows, _ in parts] == [1, 1, 1, 1]
    assert torch.equal(torch.cat([wanted for _, wanted in parts[:2]]), targets)
    assert all((wanted == IGNORED).all() for _, wanted in parts[2:])


# ---- The same as one process ---------------------------------------------------------------------


def assert_the_same_as_alone(outcomes):
    expected, weights = alone()
    for history, ours in outcomes:
        assert farthest(history.losses, expected.losses) < 1e-5
        assert farthest(history.norms, expected.norms) < 1e-5
        assert farthest(ours, weights) < 1e-5
        assert history.tokens == expected.tokens
        steps, losses = zip(*history.evaluations, strict=True)
        assert list(steps) == [step for step, _ in expected.evaluations]
        assert farthest(losses, [loss for _, loss in expected.evaluations]) < 1e-5
        assert history.losses == outcomes[0][0].losses
    assert max(expected.norms) > config().clip_norm  # or clipping would not be seen


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_training_equals_that_of_one_process(ranks, sharding):
    """Ranks have unequal numbers of rows and of targets, and all start from rank 0's weights.

    That four ranks equal one is seen below, with checkpoints.
    """
    outcomes = together(ranks, 2, seed=[0, 7], sharding=sharding, held_out=held_out())
    assert_the_same_as_alone(outcomes)


@pytest.mark.parametrize(("rows", "sharding"), [(3, "ddp"), (9, "ddp"), (9, "fsdp")])
def test_accumulation_changes_nothing_on_several_ranks(ranks, rows, sharding):
    batches = Random(rows, empty_rows=0)
    expected, weights = alone(batches=batches)
    for history, ours in together(
        ranks, 2, {"accumulate": 3}, sharding=sharding, batches=batches, held_out=held_out()
    ):
        assert farthest(history.losses, expected.losses) < 1e-5
        assert farthest(history.norms, expected.norms) < 1e-5
        assert farthest(ours, weights) < 1e-5


def test_two_ranks_are_one_process_with_two_pieces_to_the_bit(ranks):
    """The same rows, the same sums: what else differs is the order in which four would be added."""
    batches = Random(4, empty_rows=0)
    expected, weights = alone(batches=batches, accumulate=2)
    for history, ours in together(ranks, 2, batches=batches, held_out=held_out()):
        assert history.losses == expected.losses
        assert farthest(ours, weights) == 0


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_one_rank_with_dropout_is_one_process_to_the_bit(ranks, sharding):
    shape = dataclasses.replace(worker.SHAPE, drop_rate=0.3)
    expected, weights = alone(shape=shape)
    ((history, ours),) = together(ranks, 1, shape=shape, sharding=sharding, held_out=held_out())
    assert history.losses == expected.losses
    assert farthest(ours, weights) == 0


def test_fsdp_holds_on_each_rank_its_share(ranks):
    """Weights, gradients and two moments: four numbers for each parameter."""
    held, counts = zip(*ranks.run(4, worker.shares), strict=True)
    assert sum(held) == 4 * counts[0]
    assert max(held) < 1.1 * counts[0]


# ---- What all ranks refuse together --------------------------------------------------------------


DIFFERENCES = [
    ({"changes": {"learning_rate": 0.5}}, "for training, learning_rate is 0.5 on rank 2, and"),
    ({"shape": dataclasses.replace(worker.SHAPE, n_layers=1)}, "for model, n_layers is 1 on"),
    ({"batches": Random(rows=6)}, "for batches, rows is 6 on rank 2, and 5 on rank 0"),
    ({"sharding": "fsdp"}, "for call, sharding is 'fsdp' on rank 2, and 'ddp' on rank 0"),
    ({"held_out": [Random().batch(0)]}, "for call, held-out targets is"),
    ({"folder": "elsewhere"}, "for call, folder is 'elsewhere' on rank 2"),
]


def test_a_rank_that_disagrees_is_refused(ranks):
    """One after the other: nothing that a rank refused stands in the way of the next start."""
    usual = [{}] * len(DIFFERENCES)
    options = [usual, usual, [difference for difference, _ in DIFFERENCES]]
    for errors in ranks.run(3, worker.train_each, options):
        for error, (_, says) in zip(errors, DIFFERENCES, strict=True):
            assert isinstance(error, DisagreementError)
            assert says in str(error)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_loss_that_is_no_number_stops_all_ranks(ranks, sharding, tmp_path):
    run = functools.partial(worker.train_without_numbers, sharding=sharding, folder=tmp_path)
    outcomes = ranks.run(2, run, {"save_every": 1})
    for error in outcomes:
        assert isinstance(error, NotFiniteError), error
        assert str(error) == str(outcomes[0])
        assert error.step == 2
        assert error.checkpoint == tmp_path / "step-00000002"


def test_held_out_batches_without_targets_are_refused(ranks):
    inputs, targets = Random().batch(0)
    nothing = [(inputs, torch.full_like(targets, IGNORED))]
    with pytest.raises(ValueError, match="held_out has no targets"):
        together(ranks, 2, held_out=nothing)


def test_an_unknown_sharding_is_refused():
    with pytest.raises(ValueError, match='sharding must be "ddp" or "fsdp", not \'zero\''):
        distributed.train_distributed(gpt(), Random(), config(), sharding="zero")


def test_without_torchrun_nothing_is_joined(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="start it with torchrun"), distributed.joined():
        pass


@pytest.mark.parametrize(
    ("n_gpus", "n_here", "backend"),
    [(2, "2", "nccl"), (8, "2", "nccl"), (2, "", "nccl"), (1, "2", "gloo"), (0, "2", "gloo")],
)
def test_nccl_is_chosen_where_each_process_has_a_gpu(monkeypatch, n_gpus, n_here, backend):
    """Two processes on a machine with one GPU, as most have, compute on the CPU."""
    calls, has_cuda = [], backend == "nccl"
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", n_here)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: calls[0])
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(distributed, "rendezvous", lambda _: iter([(dist.HashStore(), 5, 8)]))
    monkeypatch.setattr(
        dist,
        "init_process_group",
        lambda kind, store, rank, world_size: calls.append((kind, rank, world_size)),
    )
    monkeypatch.setattr(dist, "get_backend", lambda: backend)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("left"))
    with distributed.joined() as device:
        assert device == (torch.device("cuda", 1) if has_cuda else torch.device("cpu"))
    assert calls == [*([1] if has_cuda else []), (backend, 5, 8), "left"]


def test_a_restart_on_several_machines_needs_a_new_store(monkeypatch):
    """torchrun's own has the addresses of processes that are gone."""
    places = {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_MAX_RESTARTS": "3",
        "GROUP_WORLD_SIZE": "2",
    }
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "rendezvous", lambda _: iter([(dist.HashStore(), 0, 2)]))
    with pytest.raises(ValueError, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        distributed._meeting_place()
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert isinstance(distributed._meeting_place()[0], dist.HashStore)


def test_a_restart_on_one_machine_does_not_read_old_addresses(monkeypatch):
    shared = dist.HashStore()
    monkeypatch.setattr(distributed, "rendezvous", lambda _: iter([(shared, 0, 2)]))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    for start in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", start)
        store, *_ = distributed._meeting_place()
        assert not store.check(["address"])
        store.set("address", "there")


# ---- Checkpoints ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written_by_four(ranks, tmp_path_factory):
    """A folder for each way of sharding, where four ranks stopped after step 2 of 4."""
    folders = {}
    for sharding in ("ddp", "fsdp"):
        folders[sharding] = tmp_path_factory.mktemp(sharding)
        with pytest.raises(HaltError):
            together(
                ranks,
                4,
                sharding=sharding,
                held_out=held_out(),
                folder=folders[sharding],
                batches=Random(halt_at=2),
            )
    return folders


@pytest.mark.parametrize(
    ("world", "before", "after"),
    [
        (1, "ddp", "ddp"),
        (1, "fsdp", "fsdp"),
        (2, "ddp", "fsdp"),
        (2, "fsdp", "ddp"),
        (4, "ddp", "ddp"),
        (4, "fsdp", "fsdp"),
    ],
)
def test_what_four_wrote_is_gone_on_from(ranks, written_by_four, world, before, after, tmp_path):
    """The first two steps are those of four ranks, of which the first has no target at all."""
    shutil.copytree(written_by_four[before], tmp_path, dirs_exist_ok=True)
    outcomes = together(ranks, world, sharding=after, held_out=held_out(), folder=tmp_path)
    assert_the_same_as_alone(outcomes)
    assert [path.name for path in checkpoints.finished(tmp_path)] == ["step-00000004"]


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_what_four_wrote_opens_in_one_ordinary_process(written_by_four, sharding, tmp_path):
    model = sharded.load(written_by_four[sharding])
    _, weights = alone(halt_at=2)
    assert farthest({n: p.detach() for n, p in model.named_parameters()}, weights) < 1e-5
    assert not model.training
    again = pretrained.load(pretrained.save(model, tmp_path))
    assert torch.equal(again.token_embedding.weight, model.token_embedding.weight)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_what_four_wrote_is_gone_on_from_in_one_ordinary_process(
    written_by_four, sharding, tmp_path
):
    shutil.copytree(written_by_four[sharding], tmp_path, dirs_exist_ok=True)
    model, rest = gpt(seed=7), {"progress": False, "held_out": held_out(), "folder": tmp_path}
    history = training.train(model, Random(), config(), **rest)
    assert_the_same_as_alone([(history, {n: p.detach() for n, p in model.named_parameters()})])
    assert (checkpoints.latest(tmp_path) / "weights.safetensors").exists()


@pytest.mark.parametrize(("world", "sharding"), [(1, "ddp"), (2, "ddp"), (2, "fsdp"), (4, "fsdp")])
def test_what_one_ordinary_process_wrote_is_gone_on_from(ranks, world, sharding, tmp_path):
    rest = {"progress": False, "held_out": held_out(), "folder": tmp_path}
    with pytest.raises(HaltError):
        training.train(gpt(), Random(halt_at=2), config(), **rest)
    outcomes = together(ranks, world, sharding=sharding, held_out=held_out(), folder=tmp_path)
    assert_the_same_as_alone(outcomes)
    assert checkpoints.is_sharded(checkpoints.latest(tmp_path))


def test_what_one_process_wrote_and_was_damaged_is_refused_by_all(ranks, tmp_path):
    with pytest.raises(HaltError):
        training.train(gpt(), Random(halt_at=2), config(), folder=tmp_path, progress=False)
    optimizer = checkpoints.latest(tmp_path) / "optimizer.safetensors"
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"optimizer.safetensors is damaged: it has"):
        together(ranks, 2, folder=tmp_path)


def test_a_checkpoint_that_is_not_whole_is_refused(ranks, written_by_four, tmp_path):
    shutil.copytree(written_by_four["fsdp"], tmp_path, dirs_exist_ok=True)
    place = checkpoints.latest(tmp_path)
    piece = next(path for path in sorted(place.iterdir()) if path.suffix == ".distcp")
    piece.write_bytes(piece.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{piece.name} is damaged: it has .* were written"):
        together(ranks, 2, folder=tmp_path, held_out=held_out())
    piece.unlink()
    with pytest.raises(CheckpointError, match=f"{piece.name} is damaged: it has 0 bytes"):
        sharded.load(place)
    (place / "training.json").unlink()
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        sharded.load(tmp_path)


def test_the_checkpoint_of_another_run_is_refused(ranks, written_by_four, tmp_path):
    shutil.copytree(written_by_four["ddp"], tmp_path, dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match=r"is of another run: its training has beta_1 = 0.9"):
        together(ranks, 2, {"beta_1": 0.8}, folder=tmp_path)


def test_the_two_kinds_of_checkpoint_are_told_apart(written_by_four, tmp_path):
    training.train(gpt(), Random(), config(), folder=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="is 'gptlib checkpoint', not 'gptlib sharded che"):
        sharded.load(tmp_path)
    with pytest.raises(CheckpointError, match="is 'gptlib sharded checkpoint', not 'gptlib che"):
        checkpoints.load_weights(gpt(), written_by_four["ddp"])


def test_a_save_that_fails_leaves_the_older_checkpoint(ranks, tmp_path):
    run = functools.partial(worker.train_on_a_full_disk, folder=tmp_path, sharding="fsdp")
    for full_rank in (0, 1):
        for error in ranks.run(2, run, {}, full_rank):
            assert isinstance(error, OSError), error
            assert "No space left" in str(error)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "step-00000002"]
    _, weights = alone()
    for _, ours in together(ranks, 2, folder=tmp_path):
        assert farthest(ours, weights) < 1e-5


def test_a_folder_in_use_is_refused_on_all_ranks(ranks, tmp_path):
    with checkpoints.locked(tmp_path), pytest.raises(CheckpointError, match="is in use"):
        together(ranks, 2, folder=tmp_path)


# ---- The command line ----------------------------------------------------------------------------


@pytest.mark.parametrize("sharding", [[], ["--sharding", "fsdp"]])
def test_the_command_line_trains_on_all_ranks(ranks, sharding, tmp_path, monkeypatch, capsys):
    """As torchrun starts it; only rank 0 speaks. What it trained, one process writes with."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("".join(f"This is line {n}.\n" for n in range(400)))
    tiny = "--emb-dim 8 --n-heads 2 --n-layers 1 --context-length 8 --batch-size 3 --steps 2"
    argv = ["train", "--data", "text.txt", "--encoding", "stories", *tiny.split(), *sharding]
    (first, out, said), *others = ranks.run(
        2, worker.command_line, argv, tmp_path, free_port(), [0, 1]
    )
    assert first == 0, said
    assert others == [(0, "", "")]
    assert " parameters in 2 processes, 2 steps of 3 rows from text.txt; " in said
    assert re.search(r"^done after 2 steps: loss \d", said, re.MULTILINE)
    saved = FileSystemReader(checkpoints.latest("run")).read_metadata().state_dict_metadata
    assert len(saved["weights.token_embedding.weight"].chunks) == (2 if sharding else 1)
    again = ["generate", "--model", "run", "--seed", "0", "--max-new-tokens", "8"]
    assert main(again) == 0
    assert capsys.readouterr() == (out, "")


def test_the_command_line_says_on_which_rank_it_fails(ranks, tmp_path):
    argv = ["train", "--steps", "0"]
    outcomes = ranks.run(2, worker.command_line, argv, tmp_path, free_port(), [0, 1])
    why = "steps must be a whole number of at least 1, not 0\n"
    assert outcomes[0] == (1, "", f"gptlib train: {why}")
    assert outcomes[1] == (1, "", f"gptlib train (rank 1): {why}")


def test_sharding_is_for_several_processes(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--sharding", "fsdp"]) == 1
    assert (
        "--sharding is for several processes: start them with torchrun" in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


def free_port():
    """Return a port of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# ---- Under torchrun ------------------------------------------------------------------------------


def test_killed_ranks_end_the_job_and_a_restart_goes_on(ranks, tmp_path):
    """The last of two ranks is killed in step 3; the restart goes on from step 2, and rank 0 is
    killed while it saves step 4. One restart was allowed, so the job ends; a third goes on."""
    folder, log = tmp_path / "run", tmp_path / "log"
    arguments = ["--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    arguments += [worker.__file__, str(folder), "[3]"]
    code = ranks.beside(300, worker.torchrun, arguments, log)
    said, ended = log.read_text(), time.time()
    deaths = [float(found) for found in re.findall(r"killed at ([\d.]+)", said)]
    assert len(deaths) == 2, said
    assert ended - deaths[-1] < 30
    assert code == 1
    assert "Signal 9 (SIGKILL) received" in said
    names = sorted(path.name for path in folder.iterdir())
    assert names[-1] == "step-00000002"
    assert any(name.startswith(".saving-") for name in names), "nobody died in a save"
    expected, weights = alone()
    history, ours = together(ranks, 2, folder=folder)[0]
    assert farthest(history.losses, expected.losses) < 1e-5
    assert farthest(ours, weights) < 1e-5
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "step-00000004"]


@pytest.mark.slow
def test_a_restart_goes_on_on_two_machines(tmp_path):
    """Two torchruns stand for two machines; the second one's only process is killed in step 3."""
    command = [sys.executable, "-m", "torch.distributed.run", "--max-restarts=2"]
    command += ["--nnodes=2", "--nproc-per-node=1", "--local-addr=127.0.0.1", "--rdzv-id=test"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}"]
    own = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "GPTLIB_DIE_IN_SAVE": "0"}
    settings = {
        "env": {**os.environ, **worker.ON_THIS_MACHINE, **own},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    command += [worker.__file__, str(tmp_path), "[3]"]
    jobs = [subprocess.Popen(command, **settings) for _ in range(2)]
    results = [job.communicate(timeout=200) for job in jobs]
    outputs = "".join(output for output, _ in results)
    assert [job.returncode for job in jobs] == [0, 0], [errors[-3000:] for _, errors in results]
    assert outputs.count("killed at") == 1
    assert outputs.count("done on cpu") == 2
    _, weights = alone()
    model = sharded.load(tmp_path)
    assert farthest({n: p.detach() for n, p in model.named_parameters()}, weights) < 1e-5


# ---- The numbers of the page ---------------------------------------------------------------------


def tables():
    """Return the cells of the page's tables, a list of rows each, without their heads."""
    found = re.findall(r"(?:^\|.*\|\n)+", PAGE.read_text("utf-8"), re.MULTILINE)
    rows = [table.strip().splitlines()[2:] for table in found]
    return [[[cell.strip() for cell in row.split("|")[1:-1]] for row in table] for table in rows]


def test_the_page_has_the_memory_that_accounting_computes():
    for name, count, *memory in tables()[0]:
        shape = FAMILY[name]
        held = accounting.training_bytes(shape)
        shares = [accounting.sharded_bytes(held, n) for n in (1, 8, 64, 1_024)]
        assert count == accounting.format_count(accounting.total(shape))
        assert memory == [accounting.format_bytes(sum(share.values())) for share in shares]
    text = PAGE.read_text("utf-8")
    gpu = accounting.DEVICES["h100"].memory_bytes
    assert f"{gpu // 16:,} parameters" in text
    assert f"H100 holds {accounting.format_bytes(gpu).replace('.0', '')}" in text
    for name in ("gpt2-xl", "gpt3"):
        whole = accounting.activation_bytes(FAMILY[name], attention="fused")
        less = accounting.checkpointed_activation_bytes(FAMILY[name], attention="fused")
        for kept in (whole, less):
            assert f"{accounting.format_bytes(sum(kept.values()))}" in text
    fits = [row[0] for row in tables()[0] if 16 * accounting.total(FAMILY[row[0]]) <= gpu]
    assert fits == ["gpt2", "gpt2-xl", "gpt3-2.7b"]  # as the text says below the table


def test_the_page_has_the_communication_that_accounting_computes():
    held_up = set()
    for name, gpus, tokens, computing, *sending in tables()[1]:
        shape, n = FAMILY[name], int(gpus.replace(",", ""))
        n_tokens = {"gpt2-xl": 512 * 1_024, "gpt3-13b": 2_000_000, "gpt3": 3_200_000}[name]
        speed = accounting.DEVICES["h100"].flops_per_second
        seconds = accounting.training_seconds(
            accounting.run_flops(shape, n_tokens), speed, utilization=0.4, n_devices=n
        )
        assert (tokens, computing) == (f"{n_tokens // n:,}", f"{seconds:.3g} s")
        sent, link = accounting.communication_bytes(shape, n), 450e9 if n <= 8 else 50e9
        ways = [sent["data_parallel"], sent["sharded"]]
        expected = [f"{size / 1e9:,.1f} GB in {size / link:.3g} s" for size in ways]
        fits = 16 * accounting.total(shape) <= accounting.DEVICES["h100"].memory_bytes
        assert sending == [expected[0] if fits else "does not fit", expected[1]]
        held_up |= {(name, n)} if min(ways[0 if fits else 1 :]) / link > seconds else set()
    everywhere = {(name, 1_024) for name in ("gpt2-xl", "gpt3-13b", "gpt3")}
    assert held_up == {("gpt2-xl", 64), *everywhere}  # as the text says below the table
