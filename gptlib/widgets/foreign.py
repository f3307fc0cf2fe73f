"""Models that a reader brings: anything may be given to a widget, and fail in its own way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def reading(model: Any, ids: list[int], what: str) -> Iterator[Tensor]:
    """Yield ids as ``(1, T)``, where the model computes, to run it on; it is in evaluation mode.

    ``what`` names the ids for the reader. Raises ``ValueError``, in one line, where the model does
    not take them.
    """
    import torch

    from gptlib.model import in_mode

    is_module = isinstance(model, torch.nn.Module)
    device = next(model.parameters(), torch.empty(0)).device if is_module else None
    with in_mode(model, training=False) if is_module else nullcontext(), torch.no_grad():
        try:
            yield torch.tensor([ids], device=device)
        except ValueError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(f"the model does not take {what} ({reason})") from error
