"""Training a GPT: one step, the loop around it, what is saved on the way, and several processes.

What chapter 5 builds is in ``loop.py``, and can be imported from here.
"""

from gptlib.training.loop import (
    NotFiniteError,
    Stopped,
    TrainingConfig,
    adamw,
    autocast,
    compute_gradients,
    cross_entropy,
    evaluate,
    learning_rate,
    parameter_groups,
    perplexity,
    train,
)

__all__ = [
    "NotFiniteError",
    "Stopped",
    "TrainingConfig",
    "adamw",
    "autocast",
    "compute_gradients",
    "cross_entropy",
    "evaluate",
    "learning_rate",
    "parameter_groups",
    "perplexity",
    "train",
]
