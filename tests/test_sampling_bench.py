"""The sampling bench: what is stored, that JavaScript samples as Python does, what is refused."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiktoken
import torch
import traitlets
from IPython.core.formatters import DisplayFormatter
from torch import Tensor

from gptlib import tokenizer
from gptlib.config import GPTConfig
from gptlib.generation import next_probabilities
from gptlib.model import GPT
from gptlib.widgets import SamplingBench, page, sampling_bench
from gptlib.widgets.base import MIME_TYPE
from gptlib.widgets.sampling_bench import KEPT, pack
from tests.javascript import call_each, run_code

ERROR = 1e-4  # of a probability, at most


def normal(size: int, seed: int, spread: float = 1.0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread


def letters() -> tiktoken.Encoding:
    """Return an encoding of a few letters, and of the end-of-text token."""
    ranks = {bytes([ord("a") + i]): i for i in range(14)} | {b" ": 14}
    return tiktoken.Encoding(
        "letters", pat_str=".", mergeable_ranks=ranks, special_tokens={tokenizer.END_OF_TEXT: 15}
    )


def gpt(**sizes: int) -> GPT:
    size = {"vocab_size": 16, "context_length": 8, "emb_dim": 8, "n_heads": 2, "n_layers": 1}
    return GPT(GPTConfig(**size | sizes), torch.Generator().manual_seed(0))


def given_logits(logits: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a model that answers the same to any prompt."""
    return lambda ids: logits.expand(1, ids.shape[1], -1)


def drawn(logits: Tensor, settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the front end draws from, for each of some settings."""
    stored = pack(logits)
    code = """
        const ranked = widget.decode(given.stored);
        for (const settings of given.settings) {
          const found = widget.settle(ranked, settings);
          log({ ...found, ids: [...ranked.ids], probabilities: [...found.probabilities],
            rest: [...found.rest] });
        }
    """
    return run_code("sampling_bench", code, {"stored": stored, "settings": settings})


def random_settings(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return settings that the reader can choose, the same at every run."""
    draw = random.Random(seed)
    return [
        {
            "temperature": draw.choice([0, 1, 0.05, round(draw.uniform(0.05, 2), 2)]),
            "top_k": draw.choice([None, draw.randint(1, 100)]),
            "top_p": draw.choice([None, round(draw.uniform(0.05, 1), 2)]),
        }
        for _ in range(count)
    ]


def by_id(found: dict[str, Any], size: int) -> Tensor:
    probabilities = torch.zeros(size, dtype=torch.float64)
    probabilities[torch.tensor(found["ids"])] = torch.tensor(
        found["probabilities"], dtype=torch.float64
    )
    return probabilities


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sort on one thread: on a busy machine, threads that wait for each other take 20 times it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the numbers ------------------------------------------------------------------------------

TIES = torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0, 2.0, 1.0, 1.0])
SHAPES = {
    "untrained": normal(2048, 1, 0.2),
    "trained": normal(2048, 2, 3.0) - 6 * torch.linspace(0, 1, 2048),
    "certain": torch.cat([torch.tensor([30.0]), normal(2047, 3, 2.0)]),
    "crowded": normal(2048, 4, 3.0).mul(20).round() / 20,
    "ties": TIES,
    "equal": torch.zeros(53),  # of which no top_p takes a whole number exactly
    "single": torch.zeros(1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_javascript_draws_from_what_python_draws_from(shape: str) -> None:
    logits = SHAPES[shape]
    settings = random_settings(40)
    for chosen, found in zip(settings, drawn(logits, settings), strict=True):
        expected = next_probabilities(logits, **chosen).double()
        probabilities = by_id(found, len(logits))
        assert (probabilities - expected).abs().max() < ERROR, chosen
        assert abs(probabilities.sum() - 1) < 1e-9
        assert found["rest"] == []
        kept = probabilities > 0
        assert found["possible"] == kept.sum()
        own = logits.double().softmax(-1)
        assert found["share"] == pytest.approx(float(own[kept].sum()), abs=ERROR)
        entropy = -torch.special.xlogy(expected, expected).sum()
        assert found["entropy"] == pytest.approx(float(entropy), abs=20 * ERROR)


def test_of_a_large_vocabulary_the_unlikely_are_a_histogram() -> None:
    logits = normal(50_257, 5, 2.5)
    stored = pack(logits)
    assert len(stored["named"]) == KEPT
    assert sum(count for count, _ in stored["rest"]) == 50_257 - KEPT
    settings = random_settings(16)
    for chosen, found in zip(settings, drawn(logits, settings), strict=True):
        expected = next_probabilities(logits, **chosen).double()
        probabilities = by_id(found, len(logits))
        kept = torch.tensor(found["ids"])
        assert (probabilities - expected)[kept].abs().max() < ERROR, chosen
        assert sum(found["rest"]) == pytest.approx(
            float(1 - expected[kept].sum()), abs=10 * ERROR
        ), chosen
        possible = int((expected > 0).sum())
        if chosen["temperature"] > 0.2:  # below, PyTorch's float32 holds no number so small
            assert found["possible"] == pytest.approx(possible, rel=0.01)


def test_ranks_are_pythons_even_where_logits_collide() -> None:
    dense = torch.cat([normal(2047, 6, 1e-6), torch.tensor([-40.0])])
    for logits in (dense, SHAPES["crowded"], TIES):
        (found,) = drawn(logits, [{"temperature": 1, "top_k": None, "top_p": None}])
        assert found["ids"] == logits.sort(descending=True, stable=True).indices.tolist()


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, 0.0, 2.5])
    settings = {"temperature": 0.8, "top_k": 4, "top_p": None}
    code = """
        const found = widget.settle(widget.decode(given.stored), given.settings);
        for (let seed = 0; seed < 3; seed++) log([...widget.draw(found, 10000, seed)]);
        log([...widget.draw(found, 5, 1)]);
    """
    *runs, first = run_code("sampling_bench", code, {"stored": pack(logits), "settings": settings})
    expected = next_probabilities(logits, **settings).sort(descending=True).values[:4] * 10_000
    for ranks in runs:
        counts = torch.bincount(torch.tensor(ranks), minlength=4)
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert chi_square < 16.3  # three degrees of freedom: one in a thousand is above
    assert first == runs[1][:5]
    assert runs[0] != runs[1]


# --- what is stored ---------------------------------------------------------------------------


def test_state_of_the_stories_vocabulary_is_small() -> None:
    encoding = tokenizer.stories()
    bench = SamplingBench(
        given_logits(SHAPES["trained"]), ["One", "Two", "Three"], encoding, top_p=0.9
    )
    state = json.dumps(bench.state())
    each = [len(json.dumps(one)) for one in bench.stored]
    assert max(each) < 8_500
    assert len(state) - sum(each) < 20_000
    assert "".join(bench.tokens).encode("latin-1") == b"".join(tokenizer.token_bytes(encoding))


def test_state_of_gpt2s_vocabulary_keeps_to_100_kilobytes_a_prompt() -> None:
    bench = SamplingBench(given_logits(normal(50_257, 7, 2.0)), "A", tokenizer.gpt2())
    assert bench.tokens == []
    assert len(json.dumps(bench.state())) < 100_000
    (stored,) = bench.stored
    data = base64.b64decode(stored["ids"])
    ids = [int.from_bytes(data[i : i + 3], "little") for i in range(0, len(data), 3)]
    texts = [tokenizer.gpt2().decode_single_token_bytes(i).decode("latin-1") for i in ids]
    assert stored["texts"] == texts


def test_output_has_three_forms_and_is_the_same_each_time() -> None:
    bundles = []
    for _ in range(2):
        bench = SamplingBench(gpt(), ["ab", "c"], letters(), temperature=0.5, top_k=3)
        data, metadata = DisplayFormatter().format(bench)
        assert data.pop("application/vnd.jupyter.widget-view+json")
        assert set(data) == {MIME_TYPE, "text/plain"}
        assert not {"live", "error", "typed"} & set(data[MIME_TYPE]["state"])
        assert metadata[MIME_TYPE] == {"alt": data["text/plain"]}
        bundles.append(json.dumps([data, metadata]))
    assert bundles[0] == bundles[1]
    assert "after the prompt 'ab'" in bundles[0]
    assert "temperature 0.5, top-k 3" in bundles[0]
    assert "</script" in page.widget_html("sampling_bench", bench.state(), "")


def test_the_model_reads_the_prompt_after_the_end_of_text_token() -> None:
    model, encoding = gpt(), letters()
    model.train()
    bench = SamplingBench(model, "ab", encoding)
    assert model.training
    with torch.no_grad():
        expected = model.eval()(torch.tensor([[15, 0, 1]]))[0, -1]
    stored = bench.state()["stored"][0]
    (found,) = drawn(expected, [{"temperature": 1, "top_k": None, "top_p": None}])
    assert stored["codes"] == pack(expected)["codes"]
    assert (by_id(found, 16) - expected.softmax(-1)).abs().max() < ERROR


# --- the reader types and adds ----------------------------------------------------------------


def test_a_padded_model_s_further_entries_are_no_bars() -> None:
    model = gpt(vocab_size=64).eval()
    found = sampling_bench.next_logits(model, letters(), "ab")
    assert torch.equal(found, model(torch.tensor([[15, 0, 1]]))[0, -1, :16])
    assert SamplingBench(model, "ab", letters()).stored[0]["size"] == 16


def test_bars_follow_the_prompt_and_the_added_tokens() -> None:
    bench = SamplingBench(gpt(), ["ab", "c"], letters())
    bench.prompt = "a"
    assert bench.typed["text"] == "a"
    typed = bench.typed
    bench.added = [1]
    assert bench.typed["added"] == [1]
    assert bench.typed["codes"] != typed["codes"]
    assert bench.typed["codes"] == bench.stored[0]["codes"]  # the same ids as of "ab"
    state = bench.state()
    assert (state["prompt"], state["added"]) == ("a", [1])
    assert [one["text"] for one in state["stored"]] == ["ab", "c", "a"]
    assert "prompt 'ab'" in bench.describe()
    bench.prompt = "c"
    assert bench.added == []
    assert len(bench.state()["stored"]) == 2


def test_a_prompt_that_cannot_be_read_leaves_the_last_bars() -> None:
    bench = SamplingBench(gpt(), "ab", letters())
    bench.prompt = "abcd"
    before = bench.typed
    bench.prompt = "abcdefgh"
    assert bench.error == (
        "the prompt has 9 tokens with the end-of-text token, but the model reads at most 8"
    )
    assert bench.typed is before
    assert json.dumps(bench.state())
    bench.prompt = "abcdefg"
    assert bench.error == ""
    bench.added = [15]
    assert "9 tokens" in bench.error
    bench.prompt = "ab"
    assert (bench.error, bench.added) == ("", [])


def test_the_messages_of_a_front_end_are_answered() -> None:
    bench = SamplingBench(gpt(), ["ab", "c"], letters())

    def answer(**state: Any) -> dict[str, Any]:
        """Return what else changes, of all that a front end is told of."""
        told: dict[str, Any] = {}

        def tell(change: dict[str, Any]) -> None:
            told[change["name"]] = change["new"]

        names = sorted(set(bench.keys) - set(state))  # ipywidgets 7 has some keys twice
        bench.observe(tell, names)
        data = {"method": "update", "state": state, "buffer_paths": []}
        bench._handle_msg({"content": {"data": data}, "buffers": []})
        bench.unobserve(tell, names)
        return told

    typed = answer(prompt="a")["typed"]
    assert (typed["text"], typed["added"]) == ("a", [])
    assert answer(added=[1])["typed"]["added"] == [1]
    assert "9 tokens" in answer(prompt="abcdefgh")["error"]
    assert answer(prompt="c") == {"error": ""}  # a stored one: the page has it
    assert answer(temperature=0.5) == {}


# --- what is refused --------------------------------------------------------------------------


def without_end() -> tiktoken.Encoding:
    ranks = {bytes([byte]): byte for byte in range(16)}
    return tiktoken.Encoding("bare", pat_str=".", mergeable_ranks=ranks, special_tokens={})


def failing(ids: Tensor) -> Tensor:
    raise RuntimeError("sizes differ\nand more")


def bench(**settings: Any) -> SamplingBench:
    return SamplingBench(given_logits(TIES.repeat(2)), "a", letters(), **settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SamplingBench(gpt(), [], letters()), "1 to 20 texts, not 0"),
        (lambda: SamplingBench(gpt(), ["a", "a"], letters()), r"repeat a text, not \['a', 'a'\]"),
        (lambda: SamplingBench(gpt(), "abcdefghi", letters()), "10 tokens .* at most 8"),
        (lambda: SamplingBench(given_logits(normal(15, 0)), "a", letters()), "15 tokens, the enc"),
        (lambda: SamplingBench(gpt(vocab_size=1_040), "a", letters()), "1,040 tokens, the enc"),
        (lambda: SamplingBench(gpt(), "aé", letters()), "'letters' has no token for 'é'"),
        (lambda: SamplingBench(gpt(), "a", without_end()), "no special token <.endoftext.>"),
        (lambda: SamplingBench(failing, "a", letters()), r"\(RuntimeError: sizes differ\)$"),
        (lambda: SamplingBench(given_logits(TIES.repeat(2).log10().log()), "a", letters()), "fini"),
        (lambda: bench(temperature=-1), "temperature must .* not -1"),
        (lambda: bench(temperature=2.5), "temperature must be at most 2 here, not 2.5"),
        (lambda: bench(top_k=0), "top_k must .* not 0"),
        (lambda: bench(top_k=101), "top_k must be at most 100 here, not 101"),
        (lambda: bench(top_p=0.0), "top_p must .* not 0"),
        (lambda: setattr(bench(), "draws", 10_001), "draws must be from 0 to 10,000, not 10001"),
        (lambda: setattr(bench(), "seed", -1), "seed must be from 0 .* not -1"),
        (lambda: setattr(bench(), "added", [16]), "ids from 0 to 15"),
    ],
)
def test_what_cannot_be_shown_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_prompts_must_be_texts() -> None:
    with pytest.raises(TypeError, match="int"):
        SamplingBench(gpt(), [3], letters())  # type: ignore[list-item]
    with pytest.raises(traitlets.TraitError):
        bench().prompt = 3


# --- JavaScript and Python agree --------------------------------------------------------------


def test_javascript_offers_only_settings_that_python_takes() -> None:
    (stops,) = call_each("lib/sampling", [["STOPS"]])
    presets, most = call_each("sampling_bench", [["PRESETS"], ["MOST_DRAWS"]])
    one = bench()
    for name, values in stops.items():
        for value in values:
            setattr(one, name, value)
    for preset in presets:
        for name in stops:
            assert preset[name] in stops[name]
    assert (stops["temperature"][0], stops["temperature"][-1]) == (0, 2)
    assert most == sampling_bench.MOST_DRAWS
