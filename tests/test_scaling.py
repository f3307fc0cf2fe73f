"""The scaling laws: what is fitted, what is refused, what is stored, and how it was trained."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
import torch

from gptlib import accounting, scaling, stories, tokenizer
from gptlib.config import FAMILY
from gptlib.data import IGNORED, StoryBatches, stream_of
from gptlib.scaling import JointLaw, Point
from tools import train_scaling

SIZES = np.geomspace(1e4, 4e6, 10)
ENCODING = tokenizer.stories()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Compute in one thread: on matrices this small, several only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def results():
    return scaling.results()


@pytest.fixture(scope="module")
def record():
    return json.loads((files("gptlib") / "assets" / "scaling.json").read_text("utf-8"))


# A law in one variable.


def test_a_power_law_is_found_exactly():
    law = scaling.fit_power_law(SIZES, 30 * SIZES**-0.4)
    assert law.coefficient == pytest.approx(30)
    assert law.exponent == pytest.approx(0.4)
    assert law.exponent_error == pytest.approx(0, abs=1e-9)
    assert law.predict(1e5) == pytest.approx(30 * 1e5**-0.4)


def test_its_standard_error_is_how_far_noise_moves_the_exponent():
    random = np.random.default_rng(0)
    laws = [
        scaling.fit_power_law(SIZES, 30 * SIZES**-0.4 * np.exp(random.normal(0, 0.1, len(SIZES))))
        for _ in range(2_000)
    ]
    exponents = np.array([law.exponent for law in laws])
    errors = np.array([law.exponent_error for law in laws])
    assert exponents.mean() == pytest.approx(0.4, abs=0.001)
    assert math.sqrt((errors**2).mean()) == pytest.approx(exponents.std(), rel=0.05)
    # Student's t: of 10 points and 2 numbers fitted, 95% lie within 2.306 standard errors.
    assert (np.abs(exponents - 0.4) < 2.306 * errors).mean() == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2], [1, 2], "3 points"),
        ([], [], "3 points"),
        ([[1, 2, 3]], [[1, 2, 3]], "3 points"),
        ([1, 2, 3], [1, 2], "same shape"),
        ([1, 2, 3], [1, 0, 2], "above 0"),
        ([1, -2, 3], [1, 2, 3], "above 0"),
        ([1, 2, 3], [1, math.nan, 3], "above 0"),
        ([1, 2, math.inf], [1, 2, 3], "above 0"),
        ([7, 7, 7], [1, 2, 3], "different x"),
    ],
)
def test_a_power_law_refuses_what_has_none(x, y, message):
    with pytest.raises(ValueError, match=message):
        scaling.fit_power_law(x, y)


# A law in two.

LAW = JointLaw(a=400.0, alpha=0.65, b=3.2e4, beta=0.88)


def points_of(law: JointLaw, noise: float = 0.0, seed: int = 0) -> list[Point]:
    random = np.random.default_rng(seed)
    return [
        Point(f"{n:.0f}", round(n), d, law.predict(round(n), d) * math.exp(random.normal(0, noise)))
        for n in SIZES
        for d in (236_000, 473_000, 946_000, 1_891_000, 3_782_000, 7_564_000)
    ]


@pytest.mark.parametrize(
    "law", [LAW, JointLaw(3.0, 0.2, 9e5, 1.2), JointLaw(2e4, 1.1, 30.0, 0.25)], ids=str
)
def test_a_joint_law_is_found_exactly(law):
    found = scaling.fit_joint_law(points_of(law))
    for name in ("a", "alpha", "b", "beta"):
        assert getattr(found, name) == pytest.approx(getattr(law, name), rel=1e-6)


def test_noise_moves_a_joint_law_as_far_as_the_jackknife_says():
    names = {point.name for point in points_of(LAW)}
    fits, errors = [], []
    for seed in range(10):
        points = points_of(LAW, 0.05, seed)
        fits.append(scaling.fit_joint_law(points).alpha)
        left = [scaling.fit_joint_law([p for p in points if p.name != name]) for name in names]
        errors.append(scaling.jackknife_error([law.alpha for law in left]))
    assert np.mean(fits) == pytest.approx(LAW.alpha, abs=0.02)
    assert np.mean(errors) == pytest.approx(np.std(fits), rel=0.5)


def test_a_jackknife_of_means_is_the_standard_error_of_the_mean():
    values = np.random.default_rng(0).normal(size=20)
    means = [np.delete(values, i).mean() for i in range(20)]
    assert scaling.jackknife_error(means) == pytest.approx(values.std(ddof=1) / math.sqrt(20))
    with pytest.raises(ValueError, match="at least 2 values, not 1"):
        scaling.jackknife_error([1.0])


def test_a_joint_law_refuses_what_has_none():
    points = points_of(LAW)
    with pytest.raises(ValueError, match="at least 5 points"):
        scaling.fit_joint_law(points[:4])
    with pytest.raises(ValueError, match=r"above 0 .* -0\.1 is not"):
        scaling.fit_joint_law([*points, Point("below the floor", 10, 10, -0.1)])


def test_no_size_is_better_than_the_best_one():
    for flops in (1e12, 1e14, 1e16):
        sizes = np.geomspace(1e3, 1e8, 20_001)
        losses = [LAW.predict(n, flops / (6 * n)) for n in sizes]
        best = LAW.best_size(flops)
        assert best == pytest.approx(sizes[int(np.argmin(losses))], rel=1e-3)
        assert accounting.six_nd_flops(best, LAW.best_tokens(flops)) == pytest.approx(flops)
    assert LAW.best_size(1e16) / LAW.best_size(1e14) == pytest.approx(100**LAW.size_growth)


def test_the_frontier_is_what_nothing_cheaper_equals():
    points = points_of(LAW, 0.1)
    best = scaling.frontier(points)
    assert [p.flops for p in best] == sorted(p.flops for p in best)
    for point in points:
        better = any(p.flops <= point.flops and p.reducible <= point.reducible for p in best)
        assert better, f"{point} is on neither side of the frontier"
    for point in best:
        cheaper = [p.reducible for p in points if p.flops < point.flops]
        assert all(loss > point.reducible for loss in cheaper)


# What is stored.


def test_the_stored_runs_are_those_that_the_script_trains(results, record):
    assert len(results.runs) >= 8
    counts = [run.n_parameters for run in results.runs]
    assert counts == sorted(counts)
    assert counts[0] < 11_000
    assert counts[-1] > 3_700_000
    sizes = {size.name: size for size in map(train_scaling.size, train_scaling.HEADS)}
    assert {run.name for run in results.runs} == set(sizes)
    for run in results.runs:
        assert run.config == sizes[run.name].config
        assert run.learning_rate == sizes[run.name].learning_rate
        assert len(run.tokens) == len(run.losses) == len(train_scaling.POINTS)
        assert run.tokens == results.runs[0].tokens
        assert run.seconds > 0
    assert results.runs[-2].config.emb_dim == FAMILY["mini"].emb_dim
    assert "provisional" not in record
    assert len(json.dumps(record)) < 60_000


def test_no_loss_is_below_the_floor_which_is_the_grammar_s_own_loss(results):
    assert results.floor == pytest.approx(train_scaling.floor(), abs=1e-6)
    expected = stories.entropy_per_token(ENCODING)
    spread = expected.standard_error * math.sqrt(2_000 / train_scaling.N_HELD_OUT)
    assert abs(results.floor - expected.nats_per_token) < 4 * spread + 0.01
    assert all(point.reducible > 0 for point in results.points())


def test_the_largest_size_is_predicted_by_the_others_within_a_factor_of_three(results):
    largest = results.runs[-1]
    measured = largest.losses[-1] - results.floor
    joint = scaling.fit_joint_law(results.points(without=largest.name))
    line = scaling.fit_power_law(
        [run.n_parameters for run in results.runs[:-1]],
        [run.losses[-1] - results.floor for run in results.runs[:-1]],
    )
    for predicted in (
        joint.predict(largest.n_parameters, largest.tokens[-1]),
        line.predict(largest.n_parameters),
    ):
        assert 1 / 3 < predicted / measured < 3
        assert abs(predicted - measured) < 0.03  # nats per token


def test_leaving_out_needs_a_name_that_is_there(results):
    assert len(results.points(without="width-4")) == len(results.points()) - 6
    assert set(scaling.leave_one_out(results)) == {run.name for run in results.runs}
    with pytest.raises(ValueError, match="no run 'gpt2', only width-4, "):
        results.points(without="gpt2")


def test_reading_the_results_loads_no_torch():
    code = (
        "import sys; from gptlib import scaling; scaling.results(); print('torch' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.stdout, process.stderr) == ("False\n", "")


# How it was trained.

TINY = train_scaling.Size(4, 1, 1e-2)


@pytest.fixture
def texts(monkeypatch, tmp_path):
    """Batches of one story, and one that is held out; what is saved is saved elsewhere."""
    monkeypatch.setattr(train_scaling, "WORK", tmp_path)
    stream = stream_of(stories.sample(12), ENCODING)
    batches = StoryBatches(stream, ENCODING.eot_token, 1, 256)
    return batches, StoryBatches(stream, ENCODING.eot_token, 1, 256).in_order()[:1]


def test_a_training_that_was_stopped_comes_to_the_same_numbers(texts, tmp_path, monkeypatch):
    batches, held_out = texts
    whole = train_scaling.train(TINY, batches, held_out, (5, 10))
    weights = torch.load(TINY.path)["model"]
    assert len(whole["losses"]) == 2
    TINY.path.unlink()

    once = batches.batch
    monkeypatch.setattr(batches, "batch", lambda step: once(step) if step < 7 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_scaling.train(TINY, batches, held_out, (5, 10), save_every=3)
    monkeypatch.setattr(batches, "batch", once)
    saved = torch.load(TINY.path)
    assert (saved["steps"], saved["record"]["losses"]) == (7, whole["losses"][:1])

    again = train_scaling.train(TINY, batches, held_out, (5, 10), save_every=3)
    assert again | {"seconds": 0} == whole | {"seconds": 0}
    assert all(torch.equal(w, weights[name]) for name, w in torch.load(TINY.path)["model"].items())
    lines = (tmp_path / "log.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["loss"] for line in lines] == whole["losses"] + whole["losses"]


def test_a_point_counts_the_tokens_of_its_decay(texts):
    batches, held_out = texts
    record = train_scaling.train(TINY, batches, held_out, (5, 10))
    seen = [int((batches.batch(step)[1] != IGNORED).sum()) for step in range(10)]
    assert record["tokens"] == [sum(seen[:5]), sum(seen)]


def test_the_rate_climbs_stays_and_falls(texts, monkeypatch):
    monkeypatch.setattr(train_scaling, "WARMUP_STEPS", 2)
    training = train_scaling.Training(TINY, texts[0])
    rates = []
    training.optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    training.advance(4)
    training.advance(8, falling=True)
    falls = [1 - math.sqrt(done / 4) for done in range(4)]
    assert rates == pytest.approx([TINY.learning_rate * x for x in (0.5, 1, 1, 1, *falls)])


def test_all_widths_start_with_vectors_of_the_same_length():
    models = [train_scaling.untrained(train_scaling.size(width).config) for width in (4, 64, 192)]
    vectors = [model.token_embedding.weight.detach() for model in models]
    lengths = [float(v.square().sum(dim=1).mean()) for v in vectors]
    assert lengths == pytest.approx([192 * 0.12**2] * 3, rel=0.05)
