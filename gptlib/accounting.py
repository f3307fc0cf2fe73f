"""What a GPT is made of and what it takes: parameters, FLOPs, memory and time, in closed form.

Nothing here builds a model, so GPT-3 costs no more to count than the mini model. Sizes in memory
are in bytes; a FLOP is one multiplication or one addition. Shapes: ``B`` rows in a batch, ``T``
tokens in a row, ``C`` channels, ``H`` heads, ``L`` layers, ``V`` vocabulary; ``N`` parameters, and
``D`` tokens to train on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gptlib.config import GPTConfig

#: How many bytes one value takes, by the name of its type.
BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
#: A year of 365.25 days.
SECONDS_PER_YEAR = 31_557_600


@dataclass(frozen=True)
class Device:
    """A processor to train on: how fast it is at most, how much it holds, and who says so."""

    name: str
    flops_per_second: float
    memory_bytes: int
    source: str


def _device(name: str, teraflops_per_second: float, memory_gib: int, source: str) -> Device:
    return Device(name, teraflops_per_second * 1e12, memory_gib * 2**30, source)


# Lambda's estimate is Li (2020), "OpenAI's GPT-3 Language Model: A Technical Overview", which
# assumes these two speeds. The others are peaks of matrix products of 16-bit numbers, dense, in
# NVIDIA's data sheets of the products: T4 65, V100 SXM2 125, A100 312, H100 SXM and H200 SXM 1,979
# "with sparsity", which is twice the dense 989.5. The laptop is an example, not a measurement.
#: Some processors by a short name, with the speed that a source gives them.
DEVICES: dict[str, Device] = {
    "v100-lambda": _device("V100 (Lambda)", 28, 32, "Lambda's estimate, 2020"),
    "rtx8000-lambda": _device("RTX 8000 (Lambda)", 15, 48, "Lambda's estimate, 2020"),
    "t4": _device("T4", 65, 16, "data sheet, float16"),
    "v100": _device("V100", 125, 32, "data sheet, float16"),
    "a100": _device("A100", 312, 80, "data sheet, bfloat16"),
    "h100": _device("H100", 989.5, 80, "data sheet, bfloat16"),
    "h200": _device("H200", 989.5, 141, "data sheet, bfloat16"),
    "laptop": _device("A laptop", 0.1, 16, "an example: measure yours"),
}


def block_parameters(config: GPTConfig) -> dict[str, int]:
    """Count the parameters of one transformer block, by component.

    Every linear layer has a bias, except that ``qkv_bias=False`` leaves out the biases of the
    query, key and value projections. A layer norm has a scale and a shift for each channel.

    Built in chapter 4.
    """
    c = config.emb_dim
    return {
        "norm_1": 2 * c,
        "attention": 4 * c * c + c + (3 * c if config.qkv_bias else 0),
        "norm_2": 2 * c,
        "feed_forward": 8 * c * c + 5 * c,
    }


def parameters(config: GPTConfig) -> dict[str, int]:
    """Count the trainable parameters of a whole GPT, by component; the sum is the model's count.

    The components of the ``n_layers`` blocks are added up over all blocks. A tied output head
    has no parameters of its own: it is the token embedding's matrix, used a second time.

    Built in chapter 4.
    """
    counts = {
        "token_embedding": config.vocab_size * config.emb_dim,
        "position_embedding": config.context_length * config.emb_dim,
    }
    for name, count in block_parameters(config).items():
        counts[name] = config.n_layers * count
    counts["final_norm"] = 2 * config.emb_dim
    counts["output_head"] = 0 if config.tie_head else config.vocab_size * config.emb_dim
    return counts


def total(config: GPTConfig) -> int:
    """Return the number of trainable parameters of a GPT."""
    return sum(parameters(config).values())


def shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of a GPT, by name.

    Names and order are those of ``GPT(config).named_parameters()``. The weight of a linear layer
    is ``(out, in)``, as PyTorch stores it. A tied output head is not listed a second time.
    """
    c = config.emb_dim
    named: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (config.vocab_size, c),
        "position_embedding.weight": (config.context_length, c),
    }
    for layer in range(config.n_layers):
        for name, shape in _block_shapes(config).items():
            named[f"blocks.{layer}.{name}"] = shape
    named |= {"final_norm.scale": (c,), "final_norm.shift": (c,)}
    if not config.tie_head:
        named["output_head.weight"] = (config.vocab_size, c)
    return named


def _block_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of one transformer block, by name."""
    c = config.emb_dim
    return {
        "norm_1.scale": (c,),
        "norm_1.shift": (c,),
        "attention.query_key_value.weight": (3 * c, c),
        **({"attention.query_key_value.bias": (3 * c,)} if config.qkv_bias else {}),
        "attention.projection.weight": (c, c),
        "attention.projection.bias": (c,),
        "norm_2.scale": (c,),
        "norm_2.shift": (c,),
        "feed_forward.expand.weight": (4 * c, c),
        "feed_forward.expand.bias": (4 * c,),
        "feed_forward.projection.weight": (c, 4 * c),
        "feed_forward.projection.bias": (c,),
    }


def weight_bytes(config: GPTConfig, dtype: str = "float32") -> int:
    """Return how many bytes the parameters of a GPT take when each is stored as ``dtype``.

    Raises ``ValueError`` for a ``dtype`` that is not in :data:`BYTES`.
    """
    return total(config) * _value_bytes(dtype)


def training_bytes(config: GPTConfig, dtype: str = "float32") -> dict[str, int]:
    """Return how many bytes training with AdamW holds for the parameters, by purpose.

    Each parameter has its weight, its gradient and AdamW's two moments, the running means of the
    gradient and of its square, which are float32 (Loshchilov and Hutter, 2019). In a 16-bit
    ``dtype`` the optimizer keeps a float32 master copy of the weights too, for steps that 16 bits
    would round away (Micikevicius et al., 2018, section 3.1). Both ways come to 16 bytes a
    parameter (Rajbhandari et al., 2020, section 3.1). Activations are not part of it.

    Raises ``ValueError`` for a ``dtype`` that is not in :data:`BYTES`.
    """
    value, count = _value_bytes(dtype), total(config)
    return {
        "weights": value * count,
        "gradients": value * count,
        "master_weights": 0 if dtype == "float32" else BYTES["float32"] * count,
        "moments": 2 * BYTES["float32"] * count,
    }


def sharded_bytes(held: Mapping[str, int], n_devices: int) -> dict[str, int]:
    """Return what each device holds of ``held`` when it is cut into equal shares, rounded up.

    With weights, gradients and moments all cut: ZeRO's third stage (Rajbhandari et al., 2020,
    section 5), which PyTorch calls fully sharded. Data parallelism alone cuts nothing.
    """
    _require("n_devices", n_devices)
    return {name: -(-size // n_devices) for name, size in held.items()}


def communication_bytes(
    config: GPTConfig, n_devices: int, dtype: str = "float32"
) -> dict[str, float]:
    """Return how many bytes each device sends in one training step, by way of sharing the work.

    Data parallelism adds up the gradients of all ``n`` devices in a ring, which sends each of them
    ``2 * (n - 1) / n`` times (Patarasuk and Yuan, 2009). With everything sharded, the weights are
    gathered twice, for the forward and the backward pass, and the gradients are added up straight
    into their shares: ``3 * (n - 1) / n`` (Rajbhandari et al., 2020, section 7).
    """
    _require("n_devices", n_devices)
    each = weight_bytes(config, dtype) * (n_devices - 1) / n_devices
    return {"data_parallel": 2 * each, "sharded": 3 * each}


def kv_cache_bytes(
    config: GPTConfig, batch_size: int = 1, length: int | None = None, dtype: str = "float32"
) -> int:
    """Return the bytes of the keys and values kept in generation: ``2 * L * B * T * C`` values.

    ``length`` is the tokens in each of the ``batch_size`` texts, by default the whole context.
    """
    length = _checked_length(config, batch_size, length)
    return 2 * config.n_layers * batch_size * length * config.emb_dim * _value_bytes(dtype)


def block_activation_bytes(
    config: GPTConfig,
    batch_size: int = 1,
    length: int | None = None,
    dtype: str = "float32",
    attention: str = "auto",
) -> dict[str, int]:
    """Return the bytes that one transformer block keeps for the backward pass, by component.

    A value of each channel and token is kept at 16 places (``16 * B * T * C`` values): before and
    after each norm, 4 more in attention (query, key, value and what they make), 4 before and 4
    after the GELU; a norm keeps mean and deviation of each token, too. Fused attention adds a
    float32 for each head and token, plain attention the float32 matrices of all heads,
    ``B * H * T * T`` values, three times over with dropout (the weights, what dropout left of them,
    and its mask). See :func:`activation_bytes` for what counts and for the arguments.
    """
    length = _checked_length(config, batch_size, length)
    tokens, value = batch_size * length, _value_bytes(dtype)
    channels = value * tokens * config.emb_dim
    if _is_fused(config, attention):
        inside = 3 * channels + BYTES["float32"] * tokens * config.n_heads
    else:
        inside = _plain_attention_bytes(config, batch_size, length, dtype)
    norm = channels + 2 * value * tokens
    mask = channels if config.drop_rate else 0
    return {
        "norm_1": norm,
        "attention": 2 * channels + inside + mask,
        "norm_2": norm,
        "feed_forward": 9 * channels + mask,
    }


def activation_bytes(
    config: GPTConfig,
    batch_size: int = 1,
    length: int | None = None,
    dtype: str = "float32",
    attention: str = "auto",
) -> dict[str, int]:
    """Return the bytes that a training step keeps for the backward pass, by component.

    Counted are the tensors that autograd saves from ids to loss, each storage once, without the
    parameters; with the log-probabilities that :func:`gptlib.training.cross_entropy` keeps, which
    are float32 always. The model and what it computes are of type ``dtype``, without autocast.
    ``drop_rate`` above 0 adds a mask for each dropout, with values of ``dtype`` as on a CPU (a GPU
    needs one byte for each). ``attention`` is "fused", a kernel that keeps no matrix of ``T * T``
    (Dao et al., 2022), "plain", or "auto": what PyTorch takes on a CPU, plain with dropout and
    fused without. At the peak, tensors on their way come on top, such as the logits.

    Raises ``ValueError`` for a ``length`` above the context's and for names that do not exist.
    """
    length = _checked_length(config, batch_size, length)
    block = block_activation_bytes(config, batch_size, length, dtype, attention)
    value = _value_bytes(dtype)
    tokens = batch_size * length
    channels = value * tokens * config.emb_dim
    kept = {
        "token_embedding": 8 * tokens,  # the ids, as int64
        "position_embedding": 8 * length,
        "dropout": channels if config.drop_rate else 0,
    }
    kept |= {name: config.n_layers * size for name, size in block.items()}
    kept["final_norm"] = channels + 2 * value * tokens
    kept["output_head"] = channels
    kept["loss"] = BYTES["float32"] * (tokens * config.vocab_size + 1) + 8 * tokens
    return kept


def checkpointed_activation_bytes(
    config: GPTConfig,
    batch_size: int = 1,
    length: int | None = None,
    dtype: str = "float32",
    attention: str = "auto",
) -> dict[str, int]:
    """Return the same as :func:`activation_bytes` with every block checkpointed, by purpose.

    Kept are the input of each block and all outside of the blocks. In the backward pass, one block
    at a time is computed again from its input, and keeps what it needs. Chen et al. (2016).
    """
    length = _checked_length(config, batch_size, length)
    block = block_activation_bytes(config, batch_size, length, dtype, attention)
    whole = activation_bytes(config, batch_size, length, dtype, attention)
    inputs = batch_size * length * config.emb_dim * _value_bytes(dtype)
    return {
        "block_inputs": config.n_layers * inputs,
        "one_block": sum(block.values()) - inputs,  # its input is there already
        "outside": sum(size for name, size in whole.items() if name not in block),
    }


def block_flops(
    config: GPTConfig, batch_size: int = 1, length: int | None = None
) -> dict[str, int]:
    """Count the FLOPs of one transformer block's forward pass, by component.

    A matrix of ``n`` numbers takes ``2 * n`` FLOPs for each token, a multiplication and an addition
    for each number. Attention also multiplies queries with keys and weights with values, ``2 * C``
    FLOPs each for every pair of tokens: all ``T * T`` of them, also those that the mask hides.
    Only matrix products count, as in PyTorch's ``FlopCounterMode``, whose figures these are where
    attention is plain products (it passes over the CPU's fused kernel, and counts nothing there).
    """
    length = _checked_length(config, batch_size, length)
    tokens, c = batch_size * length, config.emb_dim
    return {
        "norm_1": 0,
        "attention": 8 * tokens * c * c + 4 * tokens * length * c,
        "norm_2": 0,
        "feed_forward": 16 * tokens * c * c,
    }


def forward_flops(
    config: GPTConfig, batch_size: int = 1, length: int | None = None
) -> dict[str, int]:
    """Count the FLOPs of a whole GPT's forward pass over ids ``(B, T)``, by component.

    ``length`` is the tokens in each row, by default the whole context. An embedding looks rows up
    and multiplies nothing. The output head takes ``2 * V * C`` for each token, tied or not. See
    :func:`block_flops` for what counts.

    Raises ``ValueError`` for a ``length`` above the context's.
    """
    length = _checked_length(config, batch_size, length)
    counts = {"token_embedding": 0, "position_embedding": 0}
    for name, count in block_flops(config, batch_size, length).items():
        counts[name] = config.n_layers * count
    counts["final_norm"] = 0
    counts["output_head"] = 2 * batch_size * length * config.vocab_size * config.emb_dim
    return counts


def training_flops(
    config: GPTConfig, batch_size: int = 1, length: int | None = None
) -> dict[str, int]:
    """Count the FLOPs of a training step's forward and backward pass, by component.

    Each product of the forward pass has two in the backward pass, one for the gradient of each of
    its two factors, and each as large as itself: three times the forward pass in all. Kernels that
    compute something again come on top (:func:`recomputed_flops`). The loss and the optimizer
    multiply no matrices.
    """
    return {name: 3 * n for name, n in forward_flops(config, batch_size, length).items()}


def recomputed_flops(
    config: GPTConfig, batch_size: int = 1, length: int | None = None
) -> dict[str, int]:
    """Count the FLOPs that a training step does a second time to save memory, by the way it does.

    Fused attention computes the products of queries and keys again (Dao et al., 2022, section 3.1).
    Checkpointing reads each block again up to the last tensor that its backward pass needs: the
    factors of its last product, or with dropout the mask after it.
    """
    length = _checked_length(config, batch_size, length)
    tokens, c = batch_size * length, config.emb_dim
    block = sum(block_flops(config, batch_size, length).values())
    last_product = 0 if config.drop_rate else 8 * tokens * c * c
    return {
        "fused_attention": config.n_layers * 2 * tokens * length * c,
        "checkpointing": config.n_layers * (block - last_product),
    }


def run_flops(config: GPTConfig, n_tokens: int, length: int | None = None) -> int:
    """Count the FLOPs of training on ``n_tokens`` tokens, in rows of ``length``.

    For each token ``3 * (L * (24 * C * C + 4 * T * C) + 2 * V * C)``, as :func:`training_flops`.
    """
    length = _checked_length(config, 1, length)
    return sum(training_flops(config, 1, length).values()) * n_tokens // length


def six_nd_flops(n_parameters: float, n_tokens: float) -> float:
    """Return ``6 * N * D``, the rule of thumb for the FLOPs of training.

    Two for each parameter and token in the forward pass, four in the backward pass (Kaplan et al.,
    2020, section 2.1). It leaves out the products of attention, and counts embeddings and biases
    although they multiply nothing. Brown et al. (2020), appendix D, use it for GPT-3.
    """
    return 6 * n_parameters * n_tokens


def six_nd_error(config: GPTConfig, length: int | None = None) -> float:
    """Return how far ``6 * N * D`` is from the counted FLOPs, as a share: -0.03 is 3% too few."""
    length = _checked_length(config, 1, length)
    return six_nd_flops(total(config), length) / run_flops(config, length, length) - 1


def training_seconds(
    flops: float, flops_per_second: float, utilization: float = 1.0, n_devices: int = 1
) -> float:
    """Return the time that ``flops`` take on ``n_devices`` devices of that speed each, in seconds.

    ``utilization`` is the share of the speed that training reaches, in (0, 1]. PaLM's authors call
    it model FLOPs utilization (Chowdhery et al., 2022, section 4.1).
    """
    _require("n_devices", n_devices)
    if not 0 < utilization <= 1:
        raise ValueError(f"utilization must be above 0 and at most 1, not {utilization!r}")
    if not 0 < flops_per_second < math.inf:
        raise ValueError(f"flops_per_second must be above 0, not {flops_per_second!r}")
    return flops / (flops_per_second * utilization * n_devices)


def device_years(flops: float, flops_per_second: float, utilization: float = 1.0) -> float:
    """Return the time that ``flops`` take on one device, in years of 365.25 days."""
    return training_seconds(flops, flops_per_second, utilization) / SECONDS_PER_YEAR


def training_price(seconds: float, n_devices: int, price_per_device_hour: float) -> float:
    """Return what ``n_devices`` devices cost for that time, in the currency of the hourly price."""
    return seconds / 3_600 * n_devices * price_per_device_hour


def _plain_attention_bytes(config: GPTConfig, batch_size: int, length: int, dtype: str) -> int:
    """Return the bytes of queries, keys, values and matrices; float32, whatever the type."""
    tokens = batch_size * length
    # The values of a single row are not copied: they hold on to queries and keys as well.
    vectors = 5 if batch_size == 1 and dtype == "float32" else 3
    matrices = 3 if config.drop_rate else 1
    return (
        BYTES["float32"] * tokens * (vectors * config.emb_dim + matrices * config.n_heads * length)
    )


def _is_fused(config: GPTConfig, attention: str) -> bool:
    if attention not in ("fused", "plain", "auto"):
        raise ValueError(f'attention must be "fused", "plain" or "auto", not {attention!r}')
    return attention == "fused" or (attention == "auto" and not config.drop_rate)


def _checked_length(config: GPTConfig, batch_size: int, length: int | None) -> int:
    """Return the length of a row, the context's if none is given; refuse what no batch has."""
    length = config.context_length if length is None else length
    _require("batch_size", batch_size)
    _require("length", length)
    if length > config.context_length:
        raise ValueError(f"length is {length:,}, but context_length is {config.context_length:,}")
    return length


def _require(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def _value_bytes(dtype: str) -> int:
    if dtype not in BYTES:
        raise ValueError(f"dtype must be one of {', '.join(BYTES)}, not {dtype!r}")
    return BYTES[dtype]


def format_count(count: int) -> str:
    """Write a count with commas between the thousands: 124439808 as ``124,439,808``."""
    return f"{count:,}"


def format_bytes(n: int) -> str:
    """Write a number of bytes in binary units, to one decimal: 497759232 as ``474.7 MiB``.

    A kibibyte (KiB) is 1,024 bytes, a mebibyte (MiB) 1,024 of those, up to quebibytes (QiB). Halves
    round up.
    """
    if n < 1_024:
        return f"{n} B"
    power = 1
    # What would round to 1024.0 is 1.0 of the next unit.
    while (tenths := (20 * n + 1_024**power) // (2 * 1_024**power)) >= 10 * 1_024 and power < 10:
        power += 1
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth} {'KMGTPEZYRQ'[power - 1]}iB"
