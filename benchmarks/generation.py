"""How fast the 124M model writes, beside transformers' generate and beside the memory's pace.

Run: python benchmarks/generation.py [--pairs 5] [--new 128] [--prompt 32] [--threads 2]
         [--lengths] [--dtypes bfloat16 float32]

Greedy decoding, one text, random weights, the same in both libraries, in evaluation mode. Our ways
take turns with transformers' `generate` (its defaults: eager float32, sdpa, a cache): cached eager
float32, and the compiled reader, with bfloat16 weights unless told otherwise. Each turn gives one
ratio, above 1 where ours is faster; printed are the median of the ratios and their quartiles, of
the time on the clock and of the processor time of all threads.

To draw one token, every weight is read once; so a token cannot take less than the bytes of the
weights over the memory's bandwidth. It is measured in each turn by summing 240 MB of float32, and
the best of all turns is taken, as is the best time of each way. "linear" and "rows" are the
products alone, without all that stands between them: the gap from there to a whole token is
attention, norms, and Python. Run it while nothing else runs, and leave OMP_WAIT_POLICY alone:
threads that sleep between the many small steps of a token ("passive") cost the compiled way a
third of its speed.

With --lengths, times per token at 32, 256 and 1,000 tokens of text, with and without the cache.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from fast_generation import FastReader, RowProducts, by_columns
from model import seconds, summary, transformers_gpt2
from torch import Tensor, nn
from transformers import __version__

from gptlib.config import GPTConfig
from gptlib.generation import Reader, generate, next_logits
from gptlib.kv_cache import KVCache
from gptlib.model import GPT

Way = Callable[[], object]
Times = tuple[float, float]  # on the clock, and of the processor


@torch.no_grad()
def share_weights(ours: GPT, theirs: nn.Module) -> None:
    """Give transformers' model our weights: theirs come in the same order, linear ones turned."""
    pairs = zip(ours.named_parameters(), theirs.named_parameters(), strict=True)
    for (_, our_parameter), (their_name, their_parameter) in pairs:
        turned = ".c_" in their_name and our_parameter.ndim == 2
        their_parameter.copy_(our_parameter.T if turned else our_parameter)


def write(model: GPT, ids: Tensor, n_new: int, reader: Reader) -> Tensor:
    """Return the new tokens ``(1, n_new)``, greedily."""
    return torch.stack(list(generate(model, ids, n_new, temperature=0, reader=reader)), dim=1)


def transformers_write(model: nn.Module, ids: Tensor, n_new: int) -> Tensor:
    """Return the new tokens of transformers' own loop ``(1, n_new)``, greedily."""
    mask = torch.ones_like(ids)
    written = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=n_new)
    return written[:, ids.shape[1] :]


def products_alone(model: GPT, change: Callable[[nn.Linear], nn.Module], head: nn.Module) -> Way:
    """Return all products of one token with the weights, and nothing else."""
    inputs = {width: torch.randn(1, 1, width) for width in (768, 3_072)}
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    layers = [change(layer) for layer in linear] + [head]

    @torch.no_grad()
    def multiply() -> list[Tensor]:
        return [layer(inputs[layer.weight.shape[1]]) for layer in layers]

    return multiply


def row_products(model: GPT, dtype: torch.dtype) -> Way:
    """Return the same products, compiled, each row by itself."""

    def stored(weight: Tensor) -> nn.Parameter:
        return nn.Parameter(weight.detach().to(dtype), requires_grad=False)

    head = RowProducts(stored(model.output_head.weight))
    return torch.compile(
        products_alone(model, lambda layer: RowProducts(stored(layer.weight), layer.bias), head)
    )


def take_turns(ways: dict[str, Way], pairs: int) -> dict[str, list[Times]]:
    """Run every way once to warm it up, then in turns; return the times of each."""
    for way in ways.values():
        way()
    times: dict[str, list[Times]] = {name: [] for name in ways}
    for turn in range(pairs):
        names = list(ways) if turn % 2 == 0 else list(ways)[::-1]
        for name in names:
            times[name].append(seconds(ways[name]))
    return times


def compare(ours: GPT, readers: dict[str, Reader], options: argparse.Namespace) -> None:
    """Print the ratios, and what share of the memory's bandwidth each way reaches."""
    theirs = transformers_gpt2(0.0).eval()
    share_weights(ours, theirs)
    theirs.generation_config.eos_token_id = None
    theirs.generation_config.pad_token_id = 0
    ids = torch.randint(50_257, (1, options.prompt))
    big, n_new = torch.randn(60_000_000), options.new
    ways = {name: partial(write, ours, ids, n_new, reader) for name, reader in readers.items()}
    columns = by_columns(ours)
    ways["eager, by columns"] = partial(write, columns, ids, n_new, next_logits)
    ways["transformers"] = partial(transformers_write, theirs, ids, n_new)
    tokens = {name: way() for name, way in ways.items()}
    for name, written in tokens.items():
        equal = (written == tokens["transformers"]).float().mean()
        print(f"  {name:20} {equal:.0%} of its tokens are transformers'")
    alone = {"linear float32": products_alone(ours, lambda layer: layer, ours.output_head)}
    alone["linear, by columns"] = products_alone(columns, lambda layer: layer, columns.output_head)
    for kind in options.dtypes:
        alone[f"rows {kind}"] = row_products(ours, getattr(torch, kind))
    times = take_turns({"sum": big.sum} | alone | ways, options.pairs)
    print(f"times of transformers over ours, median [quartiles], {n_new} new tokens:")
    for name in list(ways)[:-1]:
        clock, processor = (
            [
                theirs[i] / ours[i]
                for ours, theirs in zip(times[name], times["transformers"], strict=True)
            ]
            for i in (0, 1)
        )
        print(f"  {name:20} clock {summary(clock, '.2f')}   processor {summary(processor, '.2f')}")
    bandwidth = 240e6 / min(clock for clock, _ in times["sum"])
    matrices = sum(p.numel() for name, p in ours.named_parameters() if "position" not in name)
    print(f"the memory gives {bandwidth / 1e9:.1f} GB/s; of that reach, in their best turn:")
    for name in (*alone, *ways):
        n_bytes, n_tokens = matrices * (2 if "bfloat16" in name else 4), n_new
        best = min(clock for clock, _ in times[name]) / (n_tokens if name in ways else 1)
        share = n_bytes / best / bandwidth
        print(f"  {name:20} {share:4.0%}, {n_bytes / best / 1e9:5.1f} GB/s, {best * 1e3:.1f} ms")


def agreement(ours: GPT, fast: Reader, length: int = 64) -> None:
    """Print how far the logits of the fast reader are from the model's own, on a random text."""
    ids = torch.randint(50_257, (1, length))
    cache = KVCache(ours.config, ours.token_embedding.weight, 1)
    with torch.no_grad():
        logits = [fast(ours, ids[:, i : i + 1], cache) for i in range(length)]
        exact = ours(ids)[0]
    error = (torch.cat(logits) - exact).abs().max()
    print(f"  largest error of a logit {error:.4f}, where logits deviate by {exact.std():.2f}")


@torch.no_grad()
def as_the_text_grows(model: GPT, readers: dict[str, Reader], lengths: list[int]) -> None:
    """Print the time that one more token takes after texts of some lengths."""
    for length in lengths:
        ids = torch.randint(model.config.vocab_size, (1, length))
        for name, reader in readers.items():
            cache, times = KVCache(model.config, model.token_embedding.weight, 1), []
            next_logits(model, ids, cache)
            for _ in range(5):
                times.append(seconds(partial(reader, model, ids[:, -1:], cache))[0])
                cache.length = length  # forget the token again
            print(f"  {length:5} tokens, {name:20} {min(times) * 1e3:8.1f} ms a token")
        without = min(seconds(partial(model, ids))[0] for _ in range(2))
        print(f"  {length:5} tokens, {'without a cache':20} {without * 1e3:8.1f} ms a token")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="at least 2")
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--dtypes", nargs="*", default=["bfloat16"], help="of compiled weights; may be none"
    )
    parser.add_argument("--lengths", action="store_true", help="also as the text grows")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, transformers {__version__}, {options.threads} threads")
    model = GPT(GPTConfig(drop_rate=0.0)).eval()
    readers: dict[str, Reader] = {"eager float32": next_logits}
    for kind in options.dtypes:
        start = time.perf_counter()
        fast = FastReader(model, getattr(torch, kind))
        how = "compiled" if fast.compiled else "not compiled"
        print(f"{how} for {kind} in {time.perf_counter() - start:.0f} s", flush=True)
        readers[f"{how} {kind}"] = fast
        agreement(model, fast)
    compare(model, readers, options)
    if options.lengths:
        as_the_text_grows(model, readers, [32, 256, 1_000])


if __name__ == "__main__":
    main()
