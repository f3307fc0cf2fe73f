"""Load GPT-2 checkpoints into the course's model, and save it so that transformers opens it.

A checkpoint is a folder with ``config.json``, which has the shape, and ``model.safetensors``, which
has the tensors under OpenAI's names. :data:`NAMES` is the whole mapping between those names and
ours. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gptlib import hub
from gptlib.config import FAMILY, GPTConfig
from gptlib.model import GPT


class PretrainedError(ValueError):
    """A checkpoint cannot be loaded; the message names the file, and says why."""


class Row(NamedTuple):
    """A parameter's name here and in GPT-2's files, and whether it is stored transposed there."""

    ours: str
    theirs: str
    transposed: bool = False


#: The whole mapping; ``{}`` stands for a block's number. A linear layer's matrix is stored as
#: (in, out) by OpenAI, and as (out, in) by PyTorch.
NAMES = (
    Row("token_embedding.weight", "wte.weight"),
    Row("position_embedding.weight", "wpe.weight"),
    Row("blocks.{}.norm_1.scale", "h.{}.ln_1.weight"),
    Row("blocks.{}.norm_1.shift", "h.{}.ln_1.bias"),
    Row("blocks.{}.attention.query_key_value.weight", "h.{}.attn.c_attn.weight", True),
    Row("blocks.{}.attention.query_key_value.bias", "h.{}.attn.c_attn.bias"),
    Row("blocks.{}.attention.projection.weight", "h.{}.attn.c_proj.weight", True),
    Row("blocks.{}.attention.projection.bias", "h.{}.attn.c_proj.bias"),
    Row("blocks.{}.norm_2.scale", "h.{}.ln_2.weight"),
    Row("blocks.{}.norm_2.shift", "h.{}.ln_2.bias"),
    Row("blocks.{}.feed_forward.expand.weight", "h.{}.mlp.c_fc.weight", True),
    Row("blocks.{}.feed_forward.expand.bias", "h.{}.mlp.c_fc.bias"),
    Row("blocks.{}.feed_forward.projection.weight", "h.{}.mlp.c_proj.weight", True),
    Row("blocks.{}.feed_forward.projection.bias", "h.{}.mlp.c_proj.bias"),
    Row("final_norm.scale", "ln_f.weight"),
    Row("final_norm.shift", "ln_f.bias"),
    Row("output_head.weight", "lm_head.weight"),
)

#: What is in a file and is not a weight: the masks that older versions of transformers stored.
_BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
#: What a ``config.json`` may say, where it says it: the first is what is written.
_ALLOWED: dict[str, tuple[object, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"


def load(
    name_or_path: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> GPT:
    """Return a trained model, in evaluation mode.

    ``name_or_path`` is "mini", the course's own, which comes with it; a released GPT-2 ("gpt2",
    "gpt2-medium", "gpt2-large", "gpt2-xl"); the path of a folder or a ``.safetensors`` file; or
    another GPT-2 on the Hugging Face hub, as "owner/name". What is on the hub is downloaded once
    (:func:`gptlib.hub.fetch`). A ``.safetensors`` file without ``config.json`` beside it must have
    the shapes of a model in :data:`gptlib.config.FAMILY`.

    The model is built without memory, and each tensor read from a memory map into its place: beside
    the model, the largest tensor is all that memory must hold.

    Raises :class:`PretrainedError` for files that are not GPT-2's, whole and finite;
    :class:`gptlib.hub.DownloadError` if they cannot be had; ``ValueError`` for another name or a
    ``dtype`` of whole numbers; ``FileNotFoundError`` for a path where nothing is.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type such as torch.float32, not {dtype}")
    with _place(name_or_path) as place:
        tensors = Tensors(place)
        config = _config(place, tensors)
        state = dict(_read(tensors, config, dtype, torch.device(device)))
    if config.tie_head:
        state["output_head.weight"] = state["token_embedding.weight"]
    model = blank(config)
    model.load_state_dict(state, assign=True)
    return model.eval()


def save(model: GPT, folder: str | Path) -> Path:
    """Write a model as transformers' ``GPT2LMHeadModel.from_pretrained`` opens it; return where.

    The files take the place of those that are there only once they are written whole. Weights keep
    their type. Raises ``OSError`` if they cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as unfinished:
        new = Path(unfinished)
        save_file(to_gpt2(model), new / _WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(settings_of(model), indent=2)
        (new / _CONFIG).write_text(text + "\n", encoding="utf-8")
        for name in (_WEIGHTS, _CONFIG):
            (new / name).replace(folder / name)
    return folder


def names(config: GPTConfig) -> Iterator[Row]:
    """Yield a row for each parameter of a model, block by block."""
    for row in NAMES:
        if "{}" not in row.ours and (row.ours != "output_head.weight" or not config.tie_head):
            yield row
    for number in range(config.n_layers):
        for ours, theirs, transposed in NAMES:
            if "{}" in ours:
                yield Row(ours.format(number), theirs.format(number), transposed)


def to_gpt2(model: GPT) -> dict[str, Tensor]:
    """Return a model's tensors under GPT-2's names, transposed where they are stored so."""
    parameters, tensors = dict(model.named_parameters()), {}
    for ours, theirs, transposed in names(model.config):
        prefix = "" if theirs == "lm_head.weight" else "transformer."
        if ours in parameters:
            tensor = parameters[ours].detach()
            tensors[prefix + theirs] = (tensor.T if transposed else tensor).contiguous()
        else:  # a model without the biases of queries, keys and values: they are 0
            like = model.token_embedding.weight
            tensors[prefix + theirs] = like.new_zeros(3 * model.config.emb_dim)
    return tensors


def settings_of(model: GPT) -> dict[str, Any]:
    """Return what ``config.json`` says of a model, in transformers' terms."""
    config = model.config
    last = config.vocab_size - 1  # the end of text, in GPT-2's vocabulary and the stories'
    settings = {name: values[0] for name, values in _ALLOWED.items()}
    return settings | {
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_embd": config.emb_dim,
        "n_head": config.n_heads,
        "n_layer": config.n_layers,
        **{f"{place}_pdrop": config.drop_rate for place in ("embd", "attn", "resid")},
        "tie_word_embeddings": config.tie_head,
        "bos_token_id": last,
        "eos_token_id": last,
        "dtype": str(model.token_embedding.weight.dtype).removeprefix("torch."),
    }


def config_of(settings: Mapping[str, Any]) -> GPTConfig:
    """Return the shape that a ``config.json`` gives.

    Raises ``ValueError`` if it asks for what GPT-2 does not have, naming what it asks for.
    """
    for name, allowed in _ALLOWED.items():
        if settings.get(name, allowed[0]) not in allowed:
            wanted = " or ".join(map(repr, allowed))
            raise ValueError(f"{name} is {settings[name]!r}, and GPT-2 has {wanted}")
    config = GPTConfig(
        vocab_size=settings.get("vocab_size", 50_257),
        context_length=settings.get("n_positions", 1_024),
        emb_dim=settings.get("n_embd", 768),
        n_heads=settings.get("n_head", 12),
        n_layers=settings.get("n_layer", 12),
        drop_rate=settings.get("resid_pdrop", 0.1),
        tie_head=settings.get("tie_word_embeddings", True),
    )
    if settings.get("n_inner") not in (None, 4 * config.emb_dim):
        raise ValueError(f"n_inner is {settings['n_inner']!r}, and GPT-2 has 4 * n_embd")
    return config


class _Blank(TorchFunctionMode):
    """Draw no random numbers: where tensors have no memory, that only costs time."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def blank(config: GPTConfig) -> GPT:
    """Return a model of this shape whose parameters have no memory: PyTorch's meta device."""
    with torch.device("meta"), _Blank():
        return GPT(config)


class Tensors:
    """The tensors of a checkpoint by their names, without the prefix that some files have.

    ``place`` is a ``.safetensors`` file, or a folder that has one, or several and an index.
    ``shapes`` has every tensor but the masks. Raises :class:`PretrainedError` if a file is damaged.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.files = _files(place)
        self._at: dict[str, tuple[Path, str]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in self.files:
            with self._open(path) as file:
                for stored in file.keys():  # noqa: SIM118
                    name = stored.removeprefix("transformer.")
                    if _BUFFERS.fullmatch(name):
                        continue
                    if name in self._at:
                        raise PretrainedError(f"{path} has {name} for the second time")
                    self._at[name] = path, stored
                    self.shapes[name] = tuple(file.get_slice(stored).get_shape())

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor, in a memory map of its own, which ends when the tensor does."""
        path, stored = self._at[name]
        with self._open(path) as file:
            tensor: Tensor = file.get_tensor(stored)
        return tensor

    @staticmethod
    @contextmanager
    def _open(path: Path) -> Iterator[Any]:
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise PretrainedError(f"{path} is not a whole .safetensors file: {error}") from None


def mini_record() -> dict[str, Any]:
    """Return the record of the mini model's training.

    Its parts: ``seed``, ``stories`` (how many it read, each once), ``steps``, ``tokens``,
    ``seconds``, ``machine``, ``losses`` (nats per token, one of every few steps) and
    ``evaluations`` (pairs: after how many steps, and the loss on held-out stories).
    """
    asset = files("gptlib") / "assets" / "mini" / "training.json"
    record: dict[str, Any] = json.loads(asset.read_text(encoding="utf-8"))
    return record


@contextmanager
def _place(name_or_path: str | Path) -> Iterator[Path]:
    """Yield the folder or file that is meant, downloaded if it is not here."""
    name, path = str(name_or_path), Path(name_or_path)
    if name == "mini":
        with as_file(files("gptlib") / "assets" / "mini") as folder:
            yield folder
    elif name in hub.RELEASED:
        yield hub.fetch(hub.RELEASED[name])
    elif path.exists():
        yield path
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", name) and isinstance(name_or_path, str):
        yield hub.fetch(hub.Repository(name))
    elif isinstance(name_or_path, Path) or "/" in name or name.endswith(".safetensors"):
        raise FileNotFoundError(f"there is no folder or file {name}")
    else:
        known = ", ".join(("mini", *hub.RELEASED))
        raise ValueError(
            f"there is no model {name!r}; there is {known}, a folder, a .safetensors file, "
            'or a model on the Hugging Face hub as "owner/name"'
        )


def _files(place: Path) -> list[Path]:
    """Return the files that hold the tensors of a checkpoint."""
    if place.is_file():
        return [place]
    if (place / _WEIGHTS).is_file():
        return [place / _WEIGHTS]
    if not (place / _INDEX).is_file():
        raise PretrainedError(f"{place} has no {_WEIGHTS}: nothing but .safetensors files is read")
    return [place / name for name in hub.parts(place / _INDEX)]


def _config(place: Path, tensors: Tensors) -> GPTConfig:
    """Return the shape of a checkpoint's model, once every tensor has been seen to fit it."""
    path = (place.parent if place.is_file() else place) / _CONFIG
    if path.is_file():
        try:
            config = config_of(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, AttributeError) as error:
            raise PretrainedError(f"{path} is not that of a GPT-2: {error}") from None
    else:
        config = _known(place, tensors)
    wanted = _shapes(config)
    wrong = [f"{name} is missing" for name in wanted if name not in tensors.shapes]
    for name, shape in tensors.shapes.items():
        if name == "lm_head.weight" and config.tie_head:
            if shape != wanted["wte.weight"] or not torch.equal(
                tensors[name], tensors["wte.weight"]
            ):
                wrong.append(f"{name} is not wte.weight, and config.json says they are one")
        elif name not in wanted:
            wrong.append(f"{name} is unknown")
        elif shape != wanted[name]:
            wrong.append(f"{name} is {shape} instead of {wanted[name]}")
    if wrong:
        few = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5:,} more" if len(wrong) > 5 else "")
        raise PretrainedError(f"{place} does not have the tensors of a GPT-2 of its shape: {few}")
    return config


def _known(place: Path, tensors: Tensors) -> GPTConfig:
    """Return the configuration in FAMILY that has the shapes of a file without ``config.json``."""
    for config in FAMILY.values():
        if _shapes(config).items() <= tensors.shapes.items():
            return config
    raise PretrainedError(
        f"{place} has no {_CONFIG} beside it, and its tensors are of no size that the course knows"
    )


def _shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the tensors of a model have in a file."""
    ours = {name: tuple(tensor.shape) for name, tensor in blank(config).state_dict().items()}
    return {row.theirs: ours[row.ours][:: -1 if row.transposed else 1] for row in names(config)}


def _read(
    tensors: Tensors, config: GPTConfig, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield each parameter's name and its tensor, in a memory of its own."""
    for ours, theirs, transposed in names(config):
        stored = tensors[theirs]
        if not stored.is_floating_point():
            raise PretrainedError(f"{tensors.place}: {theirs} has whole numbers ({stored.dtype})")
        tensor = stored.T if transposed else stored
        tensor = torch.empty(tensor.shape, dtype=dtype, device=device).copy_(tensor)
        if not _is_finite(tensor):
            raise PretrainedError(
                f"{tensors.place}: {theirs} has numbers that are infinite or not a number"
            )
        yield ours, nn.Parameter(tensor)


def _is_finite(tensor: Tensor) -> bool:
    # One number that is not finite makes the sum so: no second tensor is needed to see it.
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())
