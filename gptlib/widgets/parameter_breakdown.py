"""Where the parameters of a GPT are: areas that open, from the model to a single matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from gptlib import accounting
from gptlib.config import FAMILY, GPTConfig
from gptlib.widgets.architecture_map import family
from gptlib.widgets.base import Widget, one_of

if TYPE_CHECKING:
    from gptlib.model import GPT


def _paths() -> tuple[str, ...]:
    """Return the places that can be opened, from the whole model ("") to its single parameters.

    They carry the names of gptlib.model's attributes. All blocks are alike, so "blocks" stands for
    each of them. An embedding and the output head have one parameter, and stand for it.
    """
    paths = {"": None}
    for name in accounting.shapes(GPTConfig(n_layers=1, tie_head=False)):
        parts = name.replace("blocks.0", "blocks").split(".")
        alone = parts[0].endswith(("embedding", "head"))
        for end in range(1, len(parts) + (not alone)):
            paths["/".join(parts[:end])] = None
    return tuple(paths)


PATHS: tuple[str, ...] = _paths()
#: The largest values that the widget takes: every number it shows stays below 2**53, and so exact.
LIMITS: dict[str, int] = {
    "vocab_size": 1_000_000,
    "context_length": 1_000_000,
    "emb_dim": 65_536,
    "n_layers": 1_000,
}


class ParameterBreakdown(Widget):
    """The parameters of a GPT as areas to open, with controls for its configuration.

    ``model`` is a name in ``gptlib.config.FAMILY``, a ``GPTConfig``, or a model that has one, such
    as :func:`gptlib.pretrained.load` returns. The traits follow what the reader does: ``config``
    holds the configuration's sizes, ``path`` the part that is open, such as
    ``"blocks/attention/query_key_value/weight"``, and ``dtype`` the type whose bytes are shown.

    Raises ``ValueError`` for a name that does not exist, and for sizes that are out of range.
    """

    _module = "parameter_breakdown"

    config: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    start: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    path = traitlets.Unicode("").tag(sync=True)
    dtype = traitlets.Unicode("float32").tag(sync=True)
    family: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(self, model: str | GPTConfig | GPT = "gpt2") -> None:
        config = getattr(model, "config", model)
        if not isinstance(config, GPTConfig):
            config = FAMILY[one_of("model", config, FAMILY)]
        sizes = sizes_of(config)
        super().__init__(config=sizes, start=sizes, family=family())

    @traitlets.validate("config", "start")
    def _check_config(self, proposal: dict[str, Any]) -> dict[str, Any]:
        return checked_sizes(proposal["value"])

    @traitlets.validate("path")
    def _check_path(self, proposal: dict[str, Any]) -> str:
        return one_of("path", proposal["value"], PATHS)

    @traitlets.validate("dtype")
    def _check_dtype(self, proposal: dict[str, Any]) -> str:
        return one_of("dtype", proposal["value"], accounting.BYTES)

    def state(self) -> dict[str, Any]:
        """Return the traits that the page draws; the page adds the family of models."""
        names = ("config", "start", "path", "dtype")
        return {name: getattr(self, name) for name in names}

    def describe(self) -> str:
        """Say in words where the parameters are."""
        config = GPTConfig(**self.config)
        counts = accounting.parameters(config)
        block = sum(accounting.block_parameters(config).values())
        parts = {
            "token embedding": counts["token_embedding"],
            "position embedding": counts["position_embedding"],
            f"{config.n_layers} transformer blocks of {block:,} each": config.n_layers * block,
            "final norm": counts["final_norm"],
            "output head" + (", tied to the token embedding" * config.tie_head): (
                counts["output_head"]
            ),
        }
        total = accounting.total(config)
        listed = "; ".join(f"{part}: {count:,}" for part, count in parts.items())
        return (
            f"Where the parameters of {name_of(config)} are. {listed}; all together: {total:,}. "
            f"As {self.dtype} they take "
            f"{accounting.format_bytes(accounting.weight_bytes(config, self.dtype))}."
        )


def sizes_of(config: GPTConfig) -> dict[str, Any]:
    """Return the sizes that decide how many parameters there are; dropout has none."""
    return {name: value for name, value in vars(config).items() if name != "drop_rate"}


def checked_sizes(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes of a valid configuration that the widget can show."""
    expected = sizes_of(FAMILY["gpt2"])
    if set(sizes) != set(expected):
        raise ValueError(f"config must have the sizes {', '.join(expected)}, not {list(sizes)!r}")
    config = GPTConfig(**sizes)
    for name, limit in LIMITS.items():
        if sizes[name] > limit:
            raise ValueError(f"{name} must be at most {limit:,} here, not {sizes[name]}")
    return sizes_of(config)


def name_of(config: GPTConfig) -> str:
    """Return the name of a member of the family, or words for any other configuration."""
    for name, member in FAMILY.items():
        if sizes_of(member) == sizes_of(config):
            return name
    return f"a GPT of {config.n_layers} layers and {config.emb_dim:,} channels"
