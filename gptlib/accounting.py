"""How many parameters a GPT has, component by component, in closed form."""

from __future__ import annotations

from gptlib.config import GPTConfig


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


def format_count(count: int) -> str:
    """Write a count with commas between the thousands: 124439808 as ``124,439,808``."""
    return f"{count:,}"
