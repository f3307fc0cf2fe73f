"""Training a GPT: the loss, the optimizer, the schedule of its rate, and the loop.

Shapes: ``B`` rows in a batch, ``T`` tokens in a row, ``V`` entries in the vocabulary.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from gptlib.data import IGNORED, Batches
from gptlib.history import History
from gptlib.model import in_mode
from gptlib.training import checkpoints, resuming
from gptlib.training.ctrl_c import CtrlC


@dataclass(frozen=True)
class TrainingConfig:
    """How to train: what decides, with the model and the batches, every weight of the result.

    The rate climbs in a line to ``learning_rate`` over ``warmup_steps``, then falls along a cosine
    to ``final_share`` of it; a warm-up longer than the run is cut off with it. ``clip_norm`` is the
    longest gradient that is let through (``math.inf``: any). Each batch is cut into ``accumulate``
    pieces of whole rows, or into its rows if there are fewer, one after the other, which changes
    the memory needed and not the gradient. ``precision`` is "float32", "bfloat16" (slow where the
    hardware does not compute in it), or "auto": bfloat16 where it does. ``evaluate_every`` and
    ``save_every`` count steps.

    Raises ``ValueError`` when a value is out of its range, naming the value and the rule.
    """

    steps: int = 1_000
    learning_rate: float = 2e-3
    final_share: float = 0.1
    warmup_steps: int = 100
    weight_decay: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    clip_norm: float = 1.0
    accumulate: int = 1
    precision: str = "auto"
    evaluate_every: int = 100
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "evaluate_every", "save_every"):
            _require(name, getattr(self, name), at_least=1)
        for name in ("warmup_steps", "seed"):
            _require(name, getattr(self, name), at_least=0)
        for name in ("learning_rate", "weight_decay"):
            _require_number(name, getattr(self, name), "at least 0", lambda x: 0 <= x < math.inf)
        _require_number("final_share", self.final_share, "from 0 to 1", lambda x: 0 <= x <= 1)
        for name in ("beta_1", "beta_2"):
            _require_number(name, getattr(self, name), "in [0, 1)", lambda x: 0 <= x < 1)
        _require_number("clip_norm", self.clip_norm, "above 0", lambda x: x > 0)
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(
                f'precision must be "auto", "float32" or "bfloat16", not {self.precision!r}'
            )


class NotFiniteError(ArithmeticError):
    """Training stopped: a loss, a gradient or a weight was infinite or not a number.

    ``step``, counted from 0, and ``learning_rate`` say when; ``checkpoint`` is where the last good
    weights lie, if any were saved. After a loss or a gradient that is not finite, the model's
    weights are those before the step.
    """

    def __init__(self, what: str, step: int, rate: float, checkpoint: Path | None) -> None:
        self.step, self.learning_rate, self.checkpoint = step, rate, checkpoint
        saved = f"the last good checkpoint is {checkpoint}" if checkpoint else "none was saved"
        super().__init__(
            f"{what} in step {step:,}, at a learning rate of {rate:.3g}; {saved}. "
            "A lower learning_rate, a longer warm-up or a smaller clip_norm may help."
        )


class Stopped(KeyboardInterrupt):
    """Training was interrupted from the keyboard, between two steps.

    ``history`` is what was measured so far; ``checkpoint`` is where training goes on from, if it
    has a folder. The model's weights are those of the last step done.
    """

    def __init__(self, history: History, checkpoint: Path | None) -> None:
        self.history, self.checkpoint = history, checkpoint
        saved = f"saved in {checkpoint}" if checkpoint else "not saved: training had no folder"
        super().__init__(f"training stopped after {history.steps:,} steps, {saved}")


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss in nats: minus the log of the probability given to each target.

    ``logits`` are ``(B, T, V)``, ``targets`` ``(B, T)``; targets that are IGNORED do not count.
    Not a number if none counts. Built in chapter 5.
    """
    rows = logits.flatten(0, 1).float()  # (B * T, V)
    log_probs = rows.log_softmax(dim=-1)  # (B * T, V)
    return functional.nll_loss(log_probs, targets.flatten(), ignore_index=IGNORED)


def perplexity(loss: float) -> float:
    """Return e to the loss: among how many equally likely tokens the model is left to choose."""
    return torch.tensor(loss, dtype=torch.float64).exp().item()  # infinite where math.exp fails


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split the parameters for AdamW: matrices are decayed; biases, scales and shifts are not.

    Loshchilov and Hutter (2019) for the decay; Brown et al. (2020), appendix B, for its size.

    Built in chapter 5.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the rate of a step, counted from 0: a warm-up in a line, then half a cosine.

    Built in chapter 5.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    share = (1 + math.cos(math.pi * min(done, 1.0))) / 2  # from 1 to 0
    return config.learning_rate * (config.final_share + (1 - config.final_share) * share)


def compute_gradients(
    model: nn.Module, inputs: Tensor, targets: Tensor, config: TrainingConfig
) -> tuple[float, float]:
    """Leave the gradient of a batch's loss in the model, clipped; return the loss and its length.

    The length, or norm, is that before clipping. Pascanu, Mikolov and Bengio (2013), section 3.2.

    Built in chapter 5.
    """
    n_targets = (targets != IGNORED).sum()
    total = torch.zeros((), device=inputs.device)
    for rows, wanted in zip(
        inputs.chunk(config.accumulate), targets.chunk(config.accumulate), strict=True
    ):
        share = (wanted != IGNORED).sum() / n_targets
        if share == 0:  # rows of padding alone have no loss
            continue
        with autocast(inputs.device, config.precision):
            logits = model(rows)  # (B, T, V)
        loss = cross_entropy(logits, wanted) * share
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    return total.item(), norm.item()


@torch.no_grad()
def evaluate(model: nn.Module, held_out: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the mean loss in nats per token over batches ``(B, T)``, in evaluation mode.

    Raises ``ValueError`` if ``held_out`` has no target at all. Built in chapter 5.
    """
    device, nats, n_tokens = next(model.parameters()).device, 0.0, 0
    with in_mode(model, training=False):
        for inputs, targets in held_out:
            n = int((targets != IGNORED).sum())
            if n:
                loss = cross_entropy(model(inputs.to(device)), targets.to(device))
                nats, n_tokens = nats + loss.item() * n, n_tokens + n
    if n_tokens == 0:
        raise ValueError("held_out has no targets: there is nothing to measure the loss on")
    return nats / n_tokens


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Run matrix products in bfloat16 inside this context, if ``precision`` asks for it.

    On a CPU, attention is then computed in plain products: the fused kernel takes longer with
    bfloat16 than with float32 there.
    """
    reduced = precision == "bfloat16" or (precision == "auto" and computes_bfloat16(device))
    plain = sdpa_kernel(SDPBackend.MATH) if reduced and device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, torch.bfloat16 if reduced else None, enabled=reduced), plain:
        yield


def computes_bfloat16(device: torch.device) -> bool:
    """Say whether the hardware multiplies bfloat16 numbers itself, and not by a detour."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    # Versions of PyTorch before that function have the answer only under a private name.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def train(
    model: nn.Module,
    batches: Batches,
    config: TrainingConfig,
    *,
    held_out: Iterable[tuple[Tensor, Tensor]] = (),
    folder: str | Path | None = None,
    progress: bool = True,
    on_evaluate: Callable[[History], None] | None = None,
) -> History:
    """Train a model in place, and return what was measured on the way.

    Every ``evaluate_every`` steps the loss on ``held_out`` is measured and ``on_evaluate`` is
    called. With a ``folder``, a checkpoint is saved there every ``save_every`` steps and at the
    end, and a training that was stopped goes on from the last one; the result is the same, bit for
    bit. Randomness (dropout's) depends on ``config.seed`` and the step alone, and the global random
    numbers stay as they were. Ctrl-C stops after the step that is running, a second one at once.

    Raises :class:`NotFiniteError` as soon as a loss or a gradient is not finite, :class:`Stopped`
    after Ctrl-C, :class:`gptlib.training.checkpoints.CheckpointError` if the folder is in use or
    holds a checkpoint that is damaged or of another training, ``OSError`` if one cannot be saved,
    and ``ValueError`` for a batch without targets, and for "" as a folder.
    """
    lay_by_rows(model)
    run = TrainingRun(model, adamw(model, config), config, batches, list(held_out), folder)
    with nullcontext() if folder is None else checkpoints.locked(folder):
        history = History() if folder is None else resuming.resume(run, folder)
        with CtrlC() as ctrl_c:
            take_steps(run, history, progress, on_evaluate, stops=lambda: ctrl_c.pressed)
    return history


@dataclass
class TrainingRun:
    """A training, and how it does what the loop asks for: here, all of it in this process.

    :class:`gptlib.training.distributed.DistributedRun` does the same on several processes; ``rank``
    is the number of this one.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    config: TrainingConfig
    batches: Batches
    held_out: Sequence[tuple[Tensor, Tensor]] = ()
    folder: str | Path | None = None
    rank: int = 0
    _identity: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for a run to go on from a checkpoint, in JSON's types."""
        if not self._identity:  # to describe a long stream takes a while, and it never changes
            shape = getattr(self.model, "config", None)
            kind = {"kind": type(self.model).__name__}
            model: dict[str, Any] = asdict(shape) if shape else kind
            named = checkpoints.named_parameters(self.model).items()
            if frozen := [name for name, parameter in named if not parameter.requires_grad]:
                model["frozen"] = frozen
            identity = {
                "model": model,
                "training": {name: _plain(value) for name, value in asdict(self.config).items()},
                "batches": self.batches.describe(),
            }
            self._identity = json.loads(json.dumps(identity))  # a tuple becomes a list, as there
        return self._identity

    def compute_gradients(self, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """Leave the gradient of a batch in the model, as :func:`compute_gradients` does."""
        device = next(self.model.parameters()).device
        return compute_gradients(self.model, inputs.to(device), targets.to(device), self.config)

    def evaluate(self) -> float:
        """Return the mean loss on the held-out batches."""
        return evaluate(self.model, self.held_out)

    def is_finite(self) -> bool:
        """Say whether every weight is a finite number."""
        return all(bool(p.isfinite().all()) for p in self.model.parameters())

    def save(self, history: History, folder: str | Path) -> None:
        """Save a checkpoint in the folder."""
        checkpoints.save(self, history, folder)


def take_steps(
    run: TrainingRun,
    history: History,
    progress: bool,
    on_evaluate: Callable[[History], None] | None,
    stops: Callable[[], bool] = lambda: False,
) -> None:
    """Train from where the history ends to the run's last step, and add to the history.

    This is the loop of :func:`train` and of
    :func:`gptlib.training.distributed.train_distributed`. After each step it asks ``stops`` whether
    to save, if there is a folder, and raise :class:`Stopped`.
    """
    config, folder = run.config, run.folder
    run.optimizer.zero_grad()
    with in_mode(run.model, training=True), _bar(history, config, progress) as bar:
        for step in range(history.steps, config.steps):
            _take_step(run, step, history)
            last = step + 1 == config.steps
            if last or (step + 1) % config.evaluate_every == 0:
                if run.held_out:
                    history.add_evaluation(run.evaluate())
                _require_finite(run, history)
                if on_evaluate:
                    on_evaluate(history)
            stop = stops()
            if folder is not None and (last or stop or (step + 1) % config.save_every == 0):
                _require_finite(run, history)
                run.save(history, folder)
            bar.set_postfix_str(history.summary(), refresh=False)
            bar.update()
            if stop:
                raise Stopped(history, checkpoints.latest(folder))


def _take_step(run: TrainingRun, step: int, history: History) -> None:
    """Change the weights by one step, and add what it measured to the history."""
    began = time.perf_counter()
    rate = learning_rate(step, run.config)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    inputs, targets = run.batches.batch(step)
    n_tokens = int((targets != IGNORED).sum())
    if n_tokens == 0:
        raise ValueError(f"the batch of step {step:,} has no targets: there is nothing to learn")
    # Each process has dropout masks of its own; the first one's are those of a process alone.
    seed = run.config.seed * 1_000_003 + step + (run.rank << 40)
    with _seeded(seed, next(run.model.parameters()).device):
        loss, norm = run.compute_gradients(inputs, targets)
    if not math.isfinite(loss) or not math.isfinite(norm):
        run.optimizer.zero_grad()
        what = f"a gradient became {norm}" if math.isfinite(loss) else f"the loss became {loss}"
        raise NotFiniteError(what, step, rate, checkpoints.latest(run.folder))
    run.optimizer.step()
    run.optimizer.zero_grad()
    history.add_step(loss, norm, n_tokens, time.perf_counter() - began)


def _require_finite(run: TrainingRun, history: History) -> None:
    """Refuse to go on, and to save, with weights or a held-out loss that are not finite."""
    what = ""
    if not run.is_finite():
        what = "a weight became infinite or not a number"
    elif history.evaluations and not math.isfinite(history.evaluations[-1][1]):
        what = f"the loss on held-out text became {history.evaluations[-1][1]}"
    if what:
        step = history.steps - 1
        rate = learning_rate(step, run.config)
        raise NotFiniteError(what, step, rate, checkpoints.latest(run.folder))


def lay_by_rows(model: nn.Module) -> None:
    """Copy each matrix that lies column by column, as a loaded checkpoint's may, row by row.

    The optimizer's state is saved by rows; PyTorch's fused AdamW would take its numbers for others
    where the matrix lies otherwise, without a word, and FSDP refuses such a matrix.
    """
    for parameter in model.parameters():
        if not parameter.is_contiguous():
            parameter.data = parameter.data.contiguous()


def adamw(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Return the optimizer that a configuration asks for, computed in one piece where it can be."""
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay),
        betas=(config.beta_1, config.beta_2),
        fused=next(model.parameters()).device.type in ("cpu", "cuda", "mps", "xpu"),
    )


def _bar(history: History, config: TrainingConfig, progress: bool) -> tqdm[Any]:
    return tqdm(
        total=config.steps,
        initial=history.steps,
        unit="step",
        disable=not progress or history.steps == config.steps,
        dynamic_ncols=True,
    )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let random numbers follow from a seed alone, and then go on as if nothing had been drawn."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed % 2**64)
        yield


def _require(name: str, value: object, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, not {value!r}")


def _require_number(name: str, value: object, rule: str, holds: Callable[[float], bool]) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not holds(value):
        raise ValueError(f"{name} must be a number {rule}, not {value!r}")


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: infinity has no number there."""
    return str(value) if value == math.inf else value
