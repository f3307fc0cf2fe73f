"""What a GPT is made of and what it takes: parameters by component and bytes, in closed form.

Nothing here builds a model, so GPT-3 costs no more to count than the mini model. Sizes in memory
are in bytes, and count the parameters and what training keeps for each of them; the activations
come on top, and depend on the batch.
"""

from __future__ import annotations

from gptlib.config import GPTConfig

#: How many bytes one value takes, by the name of its type.
BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


def block_parameters(config: GPTConfig) -> dict[str, int]:
    """Count the parameters of one transformer block, by component.

    Every linear layer has a bias, except that ``qkv_bias=False`` leaves out the biases of the
    query, key and value projections. A layer norm has a scale and a shift for each channel.
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


def _value_bytes(dtype: str) -> int:
    if dtype not in BYTES:
        raise ValueError(f"dtype must be one of {', '.join(BYTES)}, not {dtype!r}")
    return BYTES[dtype]


def format_count(count: int) -> str:
    """Write a count with commas between the thousands: 124439808 as ``124,439,808``."""
    return f"{count:,}"


def format_bytes(n: int) -> str:
    """Write a number of bytes in binary units, to one decimal: 497759232 as ``474.7 MiB``.

    A kibibyte (KiB) is 1,024 bytes, a mebibyte (MiB) 1,024 of those. Halves round up.
    """
    if n < 1_024:
        return f"{n} B"
    power = 1
    # What would round to 1024.0 is 1.0 of the next unit.
    while (tenths := (20 * n + 1_024**power) // (2 * 1_024**power)) >= 10 * 1_024:
        power += 1
    return f"{tenths / 10:.1f} {'KMGTPEZY'[power - 1]}iB"
