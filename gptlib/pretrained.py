"""Load GPT-2 checkpoints into the course's model, and save it so that transformers opens it.

A checkpoint is a folder with ``config.json``, which has the shape, and ``model.safetensors``, which
has the tensors under OpenAI's names. :data:`NAMES` is the whole mapping between those names and
ours. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tiktoken import Encoding
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gptlib import devices, origins, vocabulary_files
from gptlib.config import FAMILY, GPTConfig
from gptlib.model import GPT
from gptlib.tensor_files import WEIGHTS, PretrainedError, Tensors, located, vocabulary_of
from gptlib.tokenizer import END_OF_TEXT


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

#: The numbers of a ``config.json``, by our names; where it lacks one, GPTConfig's default holds.
_SETTINGS = {
    "vocab_size": "vocab_size",
    "context_length": "n_positions",
    "emb_dim": "n_embd",
    "n_heads": "n_head",
    "n_layers": "n_layer",
    "drop_rate": "resid_pdrop",
    "tie_head": "tie_word_embeddings",
}
#: What else a ``config.json`` may say, where it says it: the first is what is written.
_ALLOWED: dict[str, tuple[object, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
_CONFIG = "config.json"
_WIDEST = 10**8  # of a model that PyTorch can count the numbers of
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def load(
    name_or_path: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> GPT:
    """Return a trained model, in evaluation mode.

    ``name_or_path`` is "mini", the course's own, which comes with it; a released GPT-2 ("gpt2",
    "gpt2-medium", "gpt2-large", "gpt2-xl"); a folder or a ``.safetensors`` file; or another GPT-2
    on the Hugging Face hub, as "owner/name". A ``Path``, or a text such as "./gpt2", is always one
    of your own files. What is on the hub is downloaded once (:func:`gptlib.downloads.hub.fetch`).

    ``config.json`` decides the shape. A file without one beside it must have the token and position
    embeddings of a model in :data:`gptlib.config.FAMILY`, and is taken for that one.

    The model is built without memory, and filled from a memory map of the file. For a float32 model
    on the CPU, float32 numbers stay where they are: nothing is copied, a transposed matrix is a
    view, and what you change is yours alone. The file may be replaced or deleted meanwhile, as
    :func:`save` does, but must not be written into. (On Windows, where a mapped file cannot be
    replaced, all is copied.) Everything else is copied, one tensor at a time.

    Raises :class:`gptlib.tensor_files.PretrainedError` for files that are not GPT-2's, whole and
    finite; :class:`gptlib.downloads.hub.DownloadError` if they cannot be had;
    ``FileNotFoundError`` for a path where nothing is; ``ValueError`` for another name, type or
    device.
    """
    _require_usable(dtype, device)
    with located(name_or_path) as place:
        tensors = Tensors(place)
        settings = _settings(tensors)
        model = blank(_config(tensors, settings))
        _require_fit(tensors, model)
        state = dict(_read(tensors, model.config, dtype, torch.device(device)))
        _require_finite(tensors, model.config, state)
        vocabulary = vocabulary_of(name_or_path, tensors.folder)
    origins.remember(model, origins.Origin(tensors.folder, settings or {}, vocabulary))
    if model.config.tie_head:
        state["output_head.weight"] = state["token_embedding.weight"]
    model.load_state_dict(state, assign=True)
    return model.eval()


def save(model: nn.Module, folder: str | Path, encoding: Encoding | None = None) -> Path:
    """Write a model as transformers' ``GPT2LMHeadModel.from_pretrained`` opens it; return where.

    The vocabulary goes with it, as ``AutoTokenizer.from_pretrained`` opens it: the ``encoding``, or
    the one that was beside the weights when they were loaded. What ``config.json`` said then, and
    is not the model's shape, is said again. The files take the place of those that are there only
    once they are written whole. Weights keep their type. A model without biases for queries, keys
    and values gets zeros there, which is the same model. What wraps a model, as ``torch.compile``
    and DDP do, is left out. Raises ``OSError`` if the files cannot be written, ``ValueError`` for
    an encoding with more tokens than the model has, or one that transformers could not open, and
    for numbers that are not finite.
    """
    gpt = unwrapped(model)
    if gpt.config.tie_head and gpt.output_head.weight is not gpt.token_embedding.weight:
        raise ValueError("the head has a matrix of its own, but model.config.tie_head is True")
    if encoding and encoding.n_vocab > gpt.config.vocab_size:
        raise ValueError(
            f"the encoding has {encoding.n_vocab:,} tokens, "
            f"and the model's vocab_size is {gpt.config.vocab_size:,}"
        )
    tensors = to_gpt2(gpt)
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise ValueError(
                f"{name} has numbers that are infinite or not a number: load refuses it"
            )
    beside = vocabulary_files.contents_of(encoding) if encoding else origins.of(gpt).files()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as unfinished:
        new = Path(unfinished)
        text = json.dumps(settings_of(gpt, encoding), indent=2)
        (new / _CONFIG).write_text(text + "\n", encoding="utf-8")
        try:
            save_file(tensors, new / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{folder / WEIGHTS} cannot be written: {error}") from None
        shutil.copymode(new / _CONFIG, new / WEIGHTS)  # safetensors lets only its owner read it
        for name, data in beside.items():
            (new / name).write_bytes(data)
        for name in (WEIGHTS, _CONFIG, *beside):
            (new / name).replace(folder / name)
    return folder


def names(config: GPTConfig) -> Iterator[Row]:
    """Yield a row for each parameter of a model, block by block. Built in chapter 6."""
    for row in NAMES:
        if "{}" not in row.ours and (row.ours != "output_head.weight" or not config.tie_head):
            yield row
    for number in range(config.n_layers):
        for ours, theirs, transposed in NAMES:
            if "{}" in ours:
                yield Row(ours.format(number), theirs.format(number), transposed)


def to_gpt2(model: GPT) -> dict[str, Tensor]:
    """Return a model's tensors under GPT-2's names, transposed where they are stored so.

    Built in chapter 6.
    """
    parameters, tensors = dict(model.named_parameters()), {}
    for ours, theirs, transposed in names(model.config):
        if ours.endswith("query_key_value.bias") and not model.config.qkv_bias:
            tensor = model.token_embedding.weight.new_zeros(3 * model.config.emb_dim)
        else:
            tensor = parameters[ours].detach()
        prefix = "" if theirs == "lm_head.weight" else "transformer."
        tensors[prefix + theirs] = (tensor.T if transposed else tensor).contiguous()
    return tensors


def unwrapped(model: nn.Module) -> GPT:
    """Return the GPT in what ``torch.compile``, DataParallel and DDP make of one."""
    while not isinstance(model, GPT):
        inner = getattr(model, "_orig_mod", getattr(model, "module", None))
        if not isinstance(inner, nn.Module):
            raise TypeError(f"model must be a GPT, not {type(model).__name__}")
        model = inner
    return model


def settings_of(model: GPT, encoding: Encoding | None = None) -> dict[str, Any]:
    """Return what ``config.json`` says of a model, in transformers' terms.

    The end of text is the encoding's; without one it is what the model's ``config.json`` said when
    it was loaded, or else the last token, as in GPT-2's vocabulary and the stories'.
    """
    config = model.config
    last = config.vocab_size - 1
    settings = {
        "architectures": ["GPT2LMHeadModel"],
        **{name: values[0] for name, values in _ALLOWED.items()},
        **{theirs: getattr(config, ours) for ours, theirs in _SETTINGS.items()},
        "embd_pdrop": config.drop_rate,
        "attn_pdrop": config.drop_rate,
        **dict.fromkeys(("bos_token_id", "eos_token_id"), last),
        "dtype": str(model.token_embedding.weight.dtype).removeprefix("torch."),
    }
    of_weights = {"architectures", "dtype", "torch_dtype", *_SETTINGS.values()}
    said = origins.of(model).settings
    settings |= {name: value for name, value in said.items() if name not in of_weights}
    if encoding and END_OF_TEXT in encoding.special_tokens_set:
        settings |= dict.fromkeys(("bos_token_id", "eos_token_id"), encoding.eot_token)
    return settings


def config_of(settings: Mapping[str, Any]) -> GPTConfig:
    """Return the shape that a ``config.json`` gives.

    Raises ``ValueError`` if it asks for what GPT-2 does not have, naming what it asks for.
    """
    for name, allowed in _ALLOWED.items():
        if settings.get(name, allowed[0]) not in allowed:
            wanted = " or ".join(map(repr, allowed))
            raise ValueError(f"{name} is {settings[name]!r}, and GPT-2 has {wanted}")
    given = {ours: settings[name] for ours, name in _SETTINGS.items() if name in settings}
    try:
        config = GPTConfig(**given)
    except ValueError as error:  # it says our names, where the reader of the file needs theirs
        theirs = re.sub("|".join(_SETTINGS), lambda found: _SETTINGS[found[0]], str(error))
        raise ValueError(theirs) from None
    if settings.get("n_inner") not in (None, 4 * config.emb_dim):
        raise ValueError(
            f"n_inner is {settings['n_inner']!r}, and GPT-2 has 4 * n_embd = {4 * config.emb_dim:,}"
        )
    return config


class _Undrawn(TorchFunctionMode):
    """Skip ``torch.nn.init``: drawing for tensors without memory only costs time, seconds at first.

    PyTorch hands each of those functions that draws to the mode before it starts.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__:
            return None
        return func(*args, **(kwargs or {}))


def blank(config: GPTConfig) -> GPT:
    """Return a model of this shape whose parameters have no memory: PyTorch's meta device."""
    with torch.device("meta"), _Undrawn():
        return GPT(config)


def mini_record() -> dict[str, Any]:
    """Return the record of the mini model's training.

    Its parts: ``seed``, ``stories`` (how many it read, each once), ``steps``, ``tokens``,
    ``seconds``, ``machine``, ``losses`` (nats per token, one of every few steps), ``evaluations``
    (pairs: after how many steps, and the loss on held-out stories), ``judged`` (what share of so
    many ``stories`` that it then wrote keeps to the grammar) and ``decided`` (at so many
    ``places`` where a rule decides between two words, the share that the right one gets of both:
    the ``mean`` and the ``least``). What came after that run, on what it had left unlearned, has
    such parts too: ``drill``, ``settling``, ``lessons`` and ``rest``.
    """
    asset = files("gptlib") / "assets" / "mini" / "training.json"
    record: dict[str, Any] = json.loads(asset.read_text(encoding="utf-8"))
    return record


def _require_usable(dtype: torch.dtype, device: str | torch.device) -> None:
    """Raise ``ValueError`` unless a model can be made of this type and there, before any work."""
    if dtype not in _DTYPES:
        known = ", ".join(map(str, _DTYPES))
        raise ValueError(f"dtype must be one of {known}, not {dtype!r}")
    devices.require(device, dtype)


def _settings(tensors: Tensors) -> dict[str, Any] | None:
    """Return what a checkpoint's config.json says, or None if it has none."""
    path = tensors.folder / _CONFIG
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise PretrainedError(f"{path} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise PretrainedError(f"{path} has a {type(settings).__name__} instead of settings by name")
    return settings


def _config(tensors: Tensors, settings: dict[str, Any] | None) -> GPTConfig:
    """Return the shape of a checkpoint's model: what config.json says, or the one it must be."""
    path = tensors.folder / _CONFIG
    if settings is None:
        return _known(tensors, path)
    try:
        config = config_of(settings)
    except ValueError as error:
        raise PretrainedError(f"{path} is not that of a GPT-2: {error}") from None
    width = max(config.vocab_size, config.context_length, config.emb_dim)
    if config.n_layers > len(tensors.shapes) or width > _WIDEST:
        # To build such a model could take for ever.
        raise PretrainedError(
            f"{path} asks for {config.n_layers:,} layers, {width:,} wide, and {tensors.place} has "
            f"{len(tensors.shapes):,} tensors"
        )
    return config


def _known(tensors: Tensors, path: Path) -> GPTConfig:
    """Return the configuration in FAMILY whose embeddings a checkpoint has."""
    embeddings = tensors.shapes.get("wte.weight"), tensors.shapes.get("wpe.weight")
    for config in FAMILY.values():
        width = config.emb_dim
        if embeddings == ((config.vocab_size, width), (config.context_length, width)):
            return config
    raise PretrainedError(
        f"there is no {path}, and the tensors of {tensors.place} are of no size that the course "
        "knows"
    )


def _require_fit(tensors: Tensors, model: GPT) -> None:
    """Raise :class:`PretrainedError` unless the tensors are those of the model, each of them."""
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    rows = names(model.config)
    wanted = {row.theirs: ours[row.ours][:: -1 if row.transposed else 1] for row in rows}
    wrong = {name: "is missing" for name in wanted if name not in tensors.shapes}
    for name, shape in tensors.shapes.items():
        if name == "lm_head.weight" and model.config.tie_head:
            if not _are_equal(tensors, name, "wte.weight"):
                wrong[name] = "is not wte.weight, and the model has one matrix for both"
        elif name not in wanted:
            wrong[name] = "is unknown"
        elif shape != wanted[name]:
            wrong[name] = f"is {shape} instead of {wanted[name]}"
    if wrong:
        raise PretrainedError(
            f"{tensors.place} does not have the tensors of its GPT-2: {_list_of(wrong)}"
        )


def _are_equal(tensors: Tensors, first: str, second: str) -> bool:
    return tensors.shapes.get(first) == tensors.shapes.get(second) and torch.equal(
        tensors[first], tensors[second]
    )


def _list_of(wrong: Mapping[str, str]) -> str:
    """Say what is wrong with each tensor, once for those that only their block tells apart."""
    blocks: dict[tuple[str, str], list[int]] = {}
    for name, what in wrong.items():
        number = _NUMBER.search(name)
        kind = _NUMBER.sub("*", name, count=1), what
        blocks.setdefault(kind, []).extend([int(number[0])] if number else [])
    parts = []
    for (name, what), numbers in blocks.items():
        first, *more = sorted(numbers) or [0]
        if not more:
            parts.append(f"{name.replace('*', str(first), 1)} {what}")
        elif more[-1] - first == len(more):
            parts.append(f"{name} {what} (* from {first} to {more[-1]})")
        else:
            parts.append(f"{name} {what} (* being {first}, {', '.join(map(str, more))})")
    return "; ".join(parts)


def _read(
    tensors: Tensors, config: GPTConfig, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield each parameter's name and its tensor: a view of its file, or a copy."""
    for ours, theirs, transposed in names(config):
        stored, path = tensors.shared(theirs), tensors.paths[theirs]
        if not stored.is_floating_point():
            raise PretrainedError(f"{path}: {theirs} has numbers of type {stored.dtype}")
        if _may_stay(stored, dtype, device):
            tensor = stored.T if transposed else stored
        else:  # from a map that ends here: what it has read of the file leaves the memory
            source = tensors[theirs].T if transposed else tensors[theirs]
            tensor = torch.empty(source.shape, dtype=dtype, device=device).copy_(source)
        yield ours, nn.Parameter(tensor)


def _may_stay(stored: Tensor, dtype: torch.dtype, device: torch.device) -> bool:
    """Say if a mapped tensor can be a parameter as it is."""
    is_aligned = stored.data_ptr() % stored.element_size() == 0  # older files are not
    here = device.type == "cpu" and sys.platform != "win32"
    # In 16 bits, some products with a transposed view are rounded in other places.
    return here and stored.dtype == dtype == torch.float32 and is_aligned


def _require_finite(tensors: Tensors, config: GPTConfig, state: Mapping[str, Tensor]) -> None:
    """Raise :class:`PretrainedError` if a number is infinite or not a number."""
    rows = list(names(config))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        finite = list(pool.map(_is_finite, (state[row.ours].detach() for row in rows)))
    for row, is_finite in zip(rows, finite, strict=True):
        if not is_finite:
            stored, what = tensors[row.theirs], "infinite or not a number"
            if stored.isfinite().all():
                what = f"too large for {state[row.ours].dtype}"
            raise PretrainedError(
                f"{tensors.paths[row.theirs]}: {row.theirs} has numbers that are {what}"
            )


def _is_finite(tensor: Tensor) -> bool:
    # One number that is not finite makes the sum so: no second tensor is needed to see it. NumPy
    # adds in this thread alone; PyTorch would wait for its others, long where the machine is busy.
    if tensor.device.type == "cpu" and tensor.dtype == torch.float32:
        with np.errstate(all="ignore"):
            is_finite = bool(np.isfinite(tensor.numpy().sum()))
    else:
        is_finite = bool(tensor.sum().isfinite())
    return is_finite or bool(tensor.isfinite().all())
