"""Training: each part against PyTorch's or against itself, and the loop's promises."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from gptlib.config import GPTConfig
from gptlib.data import IGNORED
from gptlib.downloads import files
from gptlib.history import History
from gptlib.model import GPT
from gptlib.training import (
    NotFiniteError,
    Stopped,
    TrainingConfig,
    autocast,
    checkpoints,
    compute_gradients,
    cross_entropy,
    evaluate,
    learning_rate,
    loop,
    parameter_groups,
    perplexity,
    train,
)
from gptlib.training.loop import computes_bfloat16

CPU = torch.device("cpu")
SHAPE = GPTConfig(vocab_size=13, context_length=6, emb_dim=8, n_heads=2, n_layers=1, drop_rate=0.0)
DROPPING = dataclasses.replace(SHAPE, drop_rate=0.3)
CONFIG = TrainingConfig(
    steps=4, warmup_steps=2, precision="float32", evaluate_every=2, save_every=2, learning_rate=0.01
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices gain nothing from a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Random:
    """Batches of random ids, some of whose targets do not count."""

    def __init__(self, rows=4, length=6, ignored=0.2):
        self.rows, self.length, self.ignored = rows, length, ignored

    def batch(self, step):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(13, (self.rows, self.length + 1), generator=generator)
        left_out = torch.rand(self.rows, self.length, generator=generator) < self.ignored
        return ids[:, :-1], ids[:, 1:].masked_fill(left_out, IGNORED)

    def describe(self):
        return {"kind": "Random", "rows": self.rows, "pair": (self.rows, self.length)}


def gpt(config=SHAPE, seed=0):
    return GPT(config, torch.Generator().manual_seed(seed))


def with_config(**changes):
    return dataclasses.replace(CONFIG, **changes)


def quietly(model, config=CONFIG, batches=None, **others):
    return train(model, batches or Random(), config, progress=False, **others)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


# ---------------------------------------------------------------------------------------------
# The configuration


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, 0) for name in ("steps", "accumulate", "evaluate_every", "save_every")],
        ("warmup_steps", -1),
        ("seed", -1),
        ("steps", 2.0),
        ("steps", True),
        ("learning_rate", -1e-3),
        ("learning_rate", math.inf),
        ("learning_rate", math.nan),
        ("learning_rate", "fast"),
        ("weight_decay", math.inf),
        ("final_share", 1.1),
        ("beta_1", 1.0),
        ("beta_2", -0.1),
        ("clip_norm", 0.0),
        ("clip_norm", math.nan),
        ("precision", "float16"),
    ],
)
def test_a_value_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*{value!r}"):
        with_config(**{name: value})


def test_values_at_the_edge_are_allowed_and_do_what_they_say():
    flat = with_config(final_share=1, warmup_steps=0)
    assert {learning_rate(step, flat) for step in range(9)} == {CONFIG.learning_rate}
    still = gpt()
    assert quietly(still, with_config(learning_rate=0)).steps == CONFIG.steps
    assert same(weights(still), weights(gpt()))
    model = gpt()
    _, norm = compute_gradients(model, *Random().batch(0), with_config(clip_norm=math.inf))
    whole = torch.cat([p.grad.flatten() for p in model.parameters()])  # nothing was cut off
    assert whole.norm().item() == pytest.approx(norm)
    moved = gpt()
    quietly(moved, with_config(beta_1=0.0, beta_2=0.0))
    assert not same(weights(moved), weights(gpt()))


# ---------------------------------------------------------------------------------------------
# The parts


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ignored", [0.0, 0.5])
def test_cross_entropy_is_that_of_pytorch(transposed, kind, ignored):
    _, targets = Random(3, 5, ignored).batch(0)
    logits = torch.randn(13, 15).T.view(3, 5, 13) if transposed else torch.randn(3, 5, 13)
    logits = logits.to(kind)
    expected = functional.cross_entropy(
        logits.float().reshape(15, 13), targets.reshape(15), ignore_index=IGNORED
    )
    ours = cross_entropy(logits, targets)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected)


def test_a_uniform_guess_costs_the_log_of_the_vocabulary():
    loss = cross_entropy(torch.zeros(2, 3, 13), torch.ones(2, 3, dtype=torch.long))
    assert loss.item() == pytest.approx(math.log(13))
    assert perplexity(loss.item()) == pytest.approx(13)
    assert perplexity(0.0) == 1.0


@pytest.mark.parametrize("tie_head", [True, False])
def test_matrices_are_decayed_and_nothing_else_is(tie_head):
    model = gpt(dataclasses.replace(SHAPE, tie_head=tie_head))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, others = parameter_groups(model, 0.25)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.25, 0.0)
    block = "blocks.0."
    assert {names[id(p)] for p in decayed["params"]} == {
        "token_embedding.weight",
        "position_embedding.weight",
        *([] if tie_head else ["output_head.weight"]),
        f"{block}attention.query_key_value.weight",
        f"{block}attention.projection.weight",
        f"{block}feed_forward.expand.weight",
        f"{block}feed_forward.projection.weight",
    }
    assert {names[id(p)] for p in others["params"]} == {
        f"{block}attention.query_key_value.bias",
        f"{block}attention.projection.bias",
        f"{block}feed_forward.expand.bias",
        f"{block}feed_forward.projection.bias",
        *(f"{norm}.{part}" for norm in (f"{block}norm_1", f"{block}norm_2", "final_norm")
          for part in ("scale", "shift")),
    }  # fmt: skip
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_frozen_parameters_are_left_out():
    model = gpt()
    model.position_embedding.weight.requires_grad_(False)
    kept = [p for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert all(p is not model.position_embedding.weight for p in kept)


def test_the_rate_at_its_corners():
    config = with_config(steps=110, warmup_steps=10, learning_rate=0.5, final_share=0.2)
    rates = [learning_rate(step, config) for step in range(200)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[9] == rates[10] == 0.5 == max(rates)
    assert rates[60] == pytest.approx(0.5 * (0.2 + 0.8 / 2))
    assert rates[110:] == pytest.approx([0.1] * 90)  # beyond the end it stays
    assert all(earlier >= later for earlier, later in pairwise(rates[10:]))
    assert learning_rate(0, with_config(steps=1, warmup_steps=0, learning_rate=0.5)) == 0.5
    assert learning_rate(0, with_config(steps=1, warmup_steps=50, learning_rate=0.5)) == 0.01


@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_the_rate_is_that_of_pytorchs_schedulers():
    config = with_config(steps=60, warmup_steps=8, learning_rate=0.3, final_share=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    parts = torch.optim.lr_scheduler
    schedule = parts.SequentialLR(
        optimizer,
        [
            parts.LinearLR(optimizer, 1 / 8, 1.0, total_iters=7),
            parts.CosineAnnealingLR(optimizer, T_max=52, eta_min=0.03),
        ],
        milestones=[8],
    )
    theirs = []
    for _ in range(60):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert [learning_rate(step, config) for step in range(60)] == pytest.approx(theirs)


# ---------------------------------------------------------------------------------------------
# Gradients


@pytest.mark.parametrize("accumulate", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("ignored", [0.0, 0.6])
def test_gradients_are_those_of_the_whole_batch(accumulate, ignored):
    model, (inputs, targets) = gpt(), Random(ignored=ignored).batch(3)
    targets[1] = IGNORED  # a row of padding alone
    loss = functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    loss.backward()
    expected = gradients(model)
    norm = torch.cat([g.flatten() for g in expected.values()]).norm().item()
    model.zero_grad()
    config = with_config(accumulate=accumulate, clip_norm=math.inf)
    assert compute_gradients(model, inputs, targets, config) == pytest.approx(
        (loss.item(), norm), rel=1e-5
    )
    torch.testing.assert_close(gradients(model), expected)


def test_long_gradients_are_cut_to_clip_norm_and_short_ones_are_not():
    model, batch = gpt(), Random().batch(0)
    _, norm = compute_gradients(model, *batch, with_config(clip_norm=math.inf))
    whole = gradients(model)
    for limit, share in ((norm / 4, 1 / 4), (norm * 4, 1)):
        model.zero_grad()
        _, before = compute_gradients(model, *batch, with_config(clip_norm=limit))
        assert before == pytest.approx(norm)
        expected = {name: gradient * share for name, gradient in whole.items()}
        torch.testing.assert_close(gradients(model), expected, rtol=1e-4, atol=1e-7)


def test_precision_decides_the_type_of_the_products_alone(monkeypatch):
    product = {}
    for precision in ("float32", "bfloat16", "auto"):
        with autocast(CPU, precision):
            product[precision] = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    assert product["float32"] == torch.float32
    assert product["bfloat16"] == torch.bfloat16
    assert product["auto"] == (torch.bfloat16 if computes_bfloat16(CPU) else torch.float32)
    monkeypatch.setattr(loop, "computes_bfloat16", lambda device: False)
    with autocast(CPU, "auto"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_what_the_processor_can_do_is_found_in_every_version(monkeypatch):
    assert isinstance(computes_bfloat16(CPU), bool)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # as in older versions
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert computes_bfloat16(CPU) is True
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert computes_bfloat16(CPU) is False
    assert computes_bfloat16(torch.device("mps")) is False


def test_bfloat16_trains_with_dropout_and_float32_weights():
    model, always = gpt(DROPPING), Random()
    always.batch = lambda step: Random().batch(0)
    history = quietly(model, with_config(precision="bfloat16", steps=30), always)
    assert history.losses[-1] < history.losses[0]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


# ---------------------------------------------------------------------------------------------
# Evaluation


def test_evaluation_counts_each_token_once():
    model, batches = gpt(DROPPING), [Random(ignored=0.1).batch(0), Random(ignored=0.8).batch(1)]
    batches.append((batches[0][0], torch.full_like(batches[0][1], IGNORED)))  # nothing counts
    model.eval()
    nats = [
        functional.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="none")
        for x, y in batches
    ]
    counted = torch.cat(
        [n[y.flatten() != IGNORED] for n, (_, y) in zip(nats, batches, strict=True)]
    )
    model.train()
    assert evaluate(model, iter(batches)) == pytest.approx(counted.mean().item())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_evaluation_without_targets_is_refused_and_the_mode_comes_back():
    model = gpt()
    with pytest.raises(ValueError, match="held_out has no targets"):
        evaluate(model, [])
    with pytest.raises(ValueError, match="ids must be from 0"):
        evaluate(model, [(torch.full((1, 2), 13), torch.ones(1, 2, dtype=torch.long))])
    assert model.training


# ---------------------------------------------------------------------------------------------
# The loop


def test_a_step_is_adamws_by_hand():
    config = with_config(steps=3, clip_norm=math.inf, weight_decay=0.3, beta_1=0.8, beta_2=0.95)
    # A bias of the keys changes no attention: its gradient is noise, which AdamW would blow up.
    without_bias = dataclasses.replace(SHAPE, qkv_bias=False)
    trained, model = gpt(without_bias), gpt(without_bias)
    quietly(trained, config)
    decayed = {id(p) for p in parameter_groups(model, 1.0)[0]["params"]}
    means, squares = ({p: torch.zeros_like(p) for p in model.parameters()} for _ in range(2))
    for step in range(3):
        rate, (inputs, targets) = learning_rate(step, config), Random().batch(step)
        model.zero_grad()
        functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
        with torch.no_grad():
            for p in model.parameters():
                p *= 1 - rate * 0.3 * (id(p) in decayed)
                means[p] = 0.8 * means[p] + 0.2 * p.grad
                squares[p] = 0.95 * squares[p] + 0.05 * p.grad**2
                mean = means[p] / (1 - 0.8 ** (step + 1))
                square = squares[p] / (1 - 0.95 ** (step + 1))
                p -= rate * mean / (square.sqrt() + 1e-8)
    torch.testing.assert_close(weights(trained), weights(model), rtol=1e-4, atol=1e-6)


def test_the_seed_decides_dropout_and_the_global_random_numbers_stay():
    models = [gpt(DROPPING) for _ in range(3)]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = quietly(models[0], with_config(seed=1)).losses
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert quietly(models[1], with_config(seed=1)).losses == first
    assert quietly(models[2], with_config(seed=2)).losses != first


def test_evaluation_changes_nothing_in_the_training():
    alone, watched = gpt(DROPPING), gpt(DROPPING)
    quietly(alone)
    quietly(watched, with_config(evaluate_every=1), held_out=(Random().batch(s) for s in (9, 10)))
    assert same(weights(alone), weights(watched))


def test_the_history_has_each_step_and_each_evaluation():
    seen, model = [], gpt(DROPPING)
    held_out = [Random().batch(99)]

    def note(history):
        seen.append((history.steps, len(history.evaluations)))

    history = quietly(model, with_config(steps=5), held_out=held_out, on_evaluate=note)
    assert history.steps == len(history.norms) == len(history.tokens) == len(history.seconds) == 5
    assert [step for step, _ in history.evaluations] == [2, 4, 5]
    assert seen == [(2, 1), (4, 2), (5, 3)]
    assert history.evaluations[-1][1] == evaluate(model, held_out)
    assert history.tokens == [int((Random().batch(s)[1] != IGNORED).sum()) for s in range(5)]


def test_what_was_there_before_does_not_matter_and_is_put_back():
    fresh, used = gpt(), gpt()
    used(Random().batch(7)[0]).sum().backward()  # gradients left over from elsewhere
    used.eval()
    quietly(fresh)
    quietly(used)
    assert same(weights(fresh), weights(used))
    assert (fresh.training, used.training) == (True, False)
    assert all(p.grad is None for p in used.parameters())


def test_a_batch_without_targets_is_refused():
    with pytest.raises(ValueError, match="the batch of step 0 has no targets"):
        quietly(gpt(), batches=Random(ignored=1.0))


def test_the_bar_shows_loss_speed_and_time_left(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # tqdm cuts off what a narrow terminal has no room for
    monkeypatch.setenv("LINES", "40")
    train(gpt(), Random(), CONFIG, held_out=[Random().batch(9)])
    out, err = capsys.readouterr()
    assert out == ""
    last = err.rstrip().split("\r")[-1]
    assert "4/4 [" in last
    assert "<" in last  # tqdm's time left
    assert "loss 2." in last
    assert "held out 2." in last
    assert "tokens/s" in last
    quietly(gpt())
    assert capsys.readouterr() == ("", "")


def test_a_compiled_model_trains_and_keeps_its_names(tmp_path):
    plain = gpt(DROPPING)
    in_place, wrapped = gpt(DROPPING), torch.compile(gpt(DROPPING), backend="eager")
    in_place.compile(backend="eager")
    for name, model in (("plain", plain), ("in_place", in_place), ("wrapped", wrapped)):
        quietly(model, folder=tmp_path / name)
        again = gpt(seed=5)
        checkpoints.load_weights(again, tmp_path / name)
        assert same(weights(again), weights(plain)), name


# ---------------------------------------------------------------------------------------------
# How a training stops early


class Spoiled(Random):
    """Batches that spoil a weight before one step."""

    def __init__(self, model, step, value=math.nan):
        super().__init__()
        self.model, self.step, self.value = model, step, value

    def batch(self, step):
        if step == self.step:
            with torch.no_grad():
                self.model.final_norm.shift[0] = self.value
        return super().batch(step)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model = gpt()
    config = with_config(steps=9)
    with pytest.raises(NotFiniteError, match="the loss became nan in step 5") as caught:
        quietly(model, config, Spoiled(model, 5), folder=tmp_path)
    assert caught.value.step == 5
    assert caught.value.learning_rate == learning_rate(5, config)
    assert caught.value.checkpoint == tmp_path / "step-00000004"
    assert str(tmp_path / "step-00000004") in str(caught.value)
    assert f"{caught.value.learning_rate:.3g}" in str(caught.value)
    checkpoints.load_weights(model, caught.value.checkpoint)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_leaves_the_weights(value):
    model, before = gpt(), weights(gpt())
    model.final_norm.shift.register_hook(lambda gradient: gradient * value)
    with pytest.raises(NotFiniteError, match=r"a gradient became .* in step 0.*none was saved"):
        quietly(model, with_config(clip_norm=math.inf))
    assert same(weights(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    model = gpt()
    config = with_config(learning_rate=3e38, warmup_steps=0, weight_decay=1e3)
    with pytest.raises(NotFiniteError) as caught:
        quietly(model, config, folder=tmp_path)
    assert caught.value.checkpoint is None
    with pytest.raises(NotFiniteError, match="a weight became"):  # in its only step
        quietly(gpt(), dataclasses.replace(config, steps=1), folder=tmp_path / "other")
    assert checkpoints.latest(tmp_path / "other") is None


def test_a_held_out_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "evaluate", lambda model, held_out: math.nan)
    with pytest.raises(NotFiniteError, match="the loss on held-out text became nan in step 1"):
        quietly(gpt(), held_out=[Random().batch(0)], folder=tmp_path)
    assert checkpoints.latest(tmp_path) is None


class Interrupting(Random):
    """Batches that press Ctrl-C during some steps."""

    def __init__(self, *steps):
        super().__init__()
        self.steps = list(steps)

    def batch(self, step):
        while step in self.steps:
            self.steps.remove(step)
            os.kill(os.getpid(), signal.SIGINT)
        return super().batch(step)


@pytest.fixture
def ctrl_c():
    """Let Ctrl-C interrupt, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_stops_between_steps_and_loses_nothing(tmp_path, ctrl_c):
    config, whole = with_config(steps=6), gpt(DROPPING)
    quietly(whole, config)
    model = gpt(DROPPING)
    with pytest.raises(Stopped, match=r"stopped after 3 steps, saved in .*step-00000003") as caught:
        quietly(model, config, Interrupting(2), folder=tmp_path)
    assert caught.value.history.steps == 3
    assert caught.value.checkpoint == checkpoints.latest(tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = gpt(DROPPING, seed=3)
    history = quietly(again, config, Interrupting(), folder=tmp_path)
    assert (history.steps, same(weights(again), weights(whole))) == (6, True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_without_a_folder_and_twice(ctrl_c):
    model = gpt()
    with pytest.raises(Stopped, match="after 2 steps, not saved") as caught:
        quietly(model, batches=Interrupting(1))
    assert caught.value.checkpoint is None
    with pytest.raises(KeyboardInterrupt) as twice:
        quietly(model, batches=Interrupting(1, 1))
    assert not isinstance(twice.value, Stopped)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_someone_else_is_left_alone():
    presses = []
    ours = signal.signal(signal.SIGINT, lambda *_: presses.append(1))
    try:
        assert quietly(gpt(), batches=Interrupting(1)).steps == 4
    finally:
        signal.signal(signal.SIGINT, ours)
    assert presses == [1]


def test_a_finished_training_is_not_trained_again(tmp_path, capsys):
    first = quietly(gpt(), folder=tmp_path)
    model = gpt(seed=1)
    calls = []
    again = train(model, Random(), CONFIG, folder=tmp_path, on_evaluate=calls.append)
    assert isinstance(again, History)
    assert (again, calls, capsys.readouterr().err) == (first, [], "")
    trained = gpt()
    quietly(trained)
    assert same(weights(model), weights(trained))


def test_a_loss_too_high_has_an_infinite_perplexity():
    assert perplexity(800.0) == math.inf
    assert perplexity(1.0) == pytest.approx(math.e)


def test_any_whole_number_is_a_seed():
    assert quietly(gpt(DROPPING), with_config(seed=10**30)).steps == CONFIG.steps


def test_an_empty_name_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="folder must be the path of a folder, not ''"):
        train(gpt(), Random(), CONFIG, folder="", progress=False)
    with pytest.raises(ValueError, match="folder must be the path of a folder, not ''"):
        checkpoints.latest("")
    with pytest.raises(ValueError, match="the cache must be a folder, or None"):
        files.prepare("")
    assert list(tmp_path.iterdir()) == []
