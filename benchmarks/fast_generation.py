"""Writing one text fast: weights in a better order, or compiled and in half the bytes.

To draw one token, a model reads every weight once, and computes little with each: the memory sets
the pace. :func:`by_columns` only stores the weights in an order that is read faster.
:class:`FastReader` stores them in bfloat16, and reads them in the order in which they lie, by code
that is compiled for this processor. All arithmetic stays in float32.
"""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional

from gptlib.generation import next_logits
from gptlib.kv_cache import KVCache
from gptlib.model import GPT

# PyTorch compiles lengths of 0 and 1, and views of a whole tensor, as cases of their own. The few
# tokens that are read with the cache so short, or the last that fills it, are not worth it.
_SHORTEST = 2


@torch.no_grad()
def by_columns(model: GPT) -> GPT:
    """Return a copy for writing: the same numbers, each matrix column after column in memory.

    A matrix times a single vector is quicker in this order (``benchmarks/generation.py``).
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data = module.weight.data.T.contiguous().T
    return model


class RowProducts(nn.Module):
    """A linear layer as one product and one sum for each row of its matrix ``(out, in)``.

    Maps ``(..., in)`` to ``(..., out)``. Compiled, each row is read once and nothing is stored
    between the two; not compiled, or for many vectors at once, it is slow.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the products of every row with each vector, and the bias added."""
        products = (self.weight * x[..., None, :]).sum(dim=-1)  # (..., out)
        return products if self.bias is None else products + self.bias


class Lookup(nn.Module):
    """An embedding whose vectors come out in float32, whatever the type of its matrix."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors ``(..., C)`` of ids ``(...)``."""
        return functional.embedding(ids, self.weight).float()


def with_row_products(model: GPT, dtype: torch.dtype) -> GPT:
    """Return a copy of a model, in evaluation mode, whose matrices are of ``dtype``.

    Its linear layers are :class:`RowProducts`. Norms, biases and positions stay as they are.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)

    def stored(weight: Tensor) -> nn.Parameter:
        return nn.Parameter(weight.to(dtype), requires_grad=False)

    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, RowProducts(stored(child.weight), child.bias))
    head = stored(model.output_head.weight)
    table = head if model.config.tie_head else stored(model.token_embedding.weight)
    model.token_embedding, model.output_head = Lookup(table), RowProducts(head)  # type: ignore
    return model


class FastReader:
    """Reads the newest token of one text faster than :func:`gptlib.generation.next_logits`.

    Give it to ``generate`` or ``write``: ``generate(model, ids, 100, reader=FastReader(model))``.
    Making it compiles the step, which takes from seconds to minutes, the first time that a machine
    does it for a shape of model. Prompts, and batches of more than one text, are read the ordinary
    way, as everything is where nothing can be compiled: then a warning says why, and ``compiled``
    is False. It copies the weights as they are now, in ``dtype``.

    Calling it raises ``ValueError`` for another model than its own.
    """

    def __init__(self, model: GPT, dtype: torch.dtype = torch.bfloat16) -> None:
        self.model, self.compiled = model, False
        self._rows = with_row_products(model, dtype)
        self._step = torch.compile(next_logits, dynamic=True, fullgraph=True)
        self._lengths = range(_SHORTEST, model.config.context_length - 1)  # of the cache
        if not self._lengths:
            return
        weight = model.token_embedding.weight
        cache = KVCache(model.config, weight, batch_size=1)
        cache.length = _SHORTEST
        ids = torch.zeros(1, 1, dtype=torch.int64, device=weight.device)
        try:
            with torch.no_grad():
                self._step(self._rows, ids, cache)
            self.compiled = True
        except Exception as error:  # whatever a compiler that is missing or broken makes of it
            warnings.warn(
                f"writing goes on without compiled code, more slowly: {error}", stacklevel=2
            )

    def __call__(self, model: GPT, ids: Tensor, cache: KVCache) -> Tensor:
        """Read ids that follow those in the cache, as ``next_logits`` does; return the logits."""
        if model is not self.model:
            raise ValueError("this FastReader was made for another model: make one for this")
        if self.compiled and ids.shape == (1, 1) and cache.length in self._lengths:
            with torch.no_grad():
                return self._step(self._rows, ids.long(), cache)
        return next_logits(model, ids, cache)
