"""The map of a GPT: every block, what it does, what passes through it, what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import traitlets

from gptlib import accounting
from gptlib.config import FAMILY
from gptlib.widgets.base import Widget, one_of

BLOCKS: dict[str, str] = {
    "tokenizer": "tokenizer",
    "token_embedding": "token embedding",
    "position_embedding": "position embedding",
    "dropout": "dropout",
    "norm_1": "norm 1",
    "attention": "masked multi-head attention",
    "shortcut_1": "shortcut 1",
    "norm_2": "norm 2",
    "feed_forward": "feed-forward network",
    "shortcut_2": "shortcut 2",
    "final_norm": "final norm",
    "output_head": "output head",
    "sampling": "sampling",
}
GROUPS: dict[str, tuple[str, ...]] = {
    "embeddings": ("token_embedding", "position_embedding", "dropout"),
    "block": ("norm_1", "attention", "shortcut_1", "norm_2", "feed_forward", "shortcut_2"),
}
_SIZES = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers", "qkv_bias", "tie_head")


class ArchitectureMap(Widget):
    """A map of the GPT architecture to explore; ``lit`` marks where the reader is.

    ``lit`` is a block's or a group's name, or several; ``model`` is a name in
    ``gptlib.config.FAMILY``. The trait ``chosen`` holds the block that the reader has chosen.

    Raises ``ValueError`` for a name that does not exist, naming it and those that do.
    """

    _module = "architecture_map"

    lit = traitlets.List(traitlets.Unicode()).tag(sync=True)
    model = traitlets.Unicode("gpt2").tag(sync=True)
    chosen = traitlets.Unicode("").tag(sync=True)
    family: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(self, lit: str | Sequence[str] = (), model: str = "gpt2") -> None:
        blocks = _expand([lit] if isinstance(lit, str) else lit)
        super().__init__(
            lit=blocks,
            model=model,
            chosen=blocks[0] if blocks else "",
            family=family(),
        )

    @traitlets.validate("model")
    def _check_model(self, proposal: dict[str, Any]) -> str:
        return one_of("model", proposal["value"], FAMILY)

    @traitlets.validate("lit")
    def _check_lit(self, proposal: dict[str, Any]) -> list[str]:
        return _expand(proposal["value"])

    @traitlets.validate("chosen")
    def _check_chosen(self, proposal: dict[str, Any]) -> str:
        return one_of("chosen", proposal["value"], ["", *BLOCKS])

    def state(self) -> dict[str, Any]:
        """Return the traits that the page draws; the page adds the family of models."""
        return {"lit": list(self.lit), "model": self.model, "chosen": self.chosen}

    def describe(self) -> str:
        """Say in words what the map shows."""
        config = FAMILY[self.model]
        here = ", ".join(BLOCKS[name] for name in self.lit)
        return (
            f"Map of a GPT, drawn for {self.model}: text → tokenizer → token ids → token embedding "
            f"+ position embedding → dropout → {config.n_layers} transformer "
            "blocks (norm, masked multi-head attention, shortcut, norm, feed-forward, shortcut) → "
            "final norm → output head → logits → next token. "
            f"{accounting.format_count(accounting.total(config))} parameters."
            + (f" You are here: {here}." if here else "")
        )


def family() -> list[dict[str, Any]]:
    """Return the models of the family, in order, with the sizes that the map needs."""
    return [
        {"name": name} | {size: getattr(config, size) for size in _SIZES}
        for name, config in FAMILY.items()
    ]


def _expand(names: Iterable[str]) -> list[str]:
    """Replace groups by their blocks; return the blocks in the order of the data's way."""
    wanted: set[str] = set()
    for name in names:
        one_of("lit", name, [*BLOCKS, *GROUPS])
        wanted.update(GROUPS.get(name, (name,)))
    return [name for name in BLOCKS if name in wanted]
