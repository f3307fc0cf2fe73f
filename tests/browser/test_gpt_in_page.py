"""The model that runs in the page: its numbers are PyTorch's, and the page stays free."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional

from gptlib import activations, generation, pretrained, stories, tokenizer
from gptlib.activations import attention_maps
from gptlib.model import GPT
from gptlib.widgets import engine, linker
from tests.browser.conftest import ROOT, quiet_page, serve_folder

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Page = playwright_api.Page

MINI = ROOT / "gptlib" / "assets" / "mini"
ENGINE = ("page/gpt_worker.js", "page/gpt.js")
END = tokenizer.stories().eot_token
HOSTILE = "<script>alert(1)</script>\u202e שלום 👩\u200d👩\u200d👧 \x00<|endoftext|> don't"

# `model` answers requests; `gather` returns all messages of one, the answer last.
HTML = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script type="module">
  import { connect } from "./page/gpt_worker.js";
  window.connect = connect;
  window.gather = async (type, details = {}) => {
    const found = [];
    const answer = await model.ask(type, details, (message) => found.push(message));
    const plain = (value) => ArrayBuffer.isView(value) ? [...value] : value;
    const open = (message) => Object.fromEntries(
      Object.entries(message).map(([name, value]) => [name, plain(value)]));
    return [...found, answer].map(open);
  };
  window.model = connect();
  window.announced = ANNOUNCED;
  const vocabulary = await (await fetch("stories_vocabulary.json")).json();
  Object.assign(announced, { vocabulary, url: new URL("model.safetensors", location.href).href });
  window.ready = true;
</script>"""


@pytest.fixture(scope="module")
def mini() -> Iterator[GPT]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the browser needs the other one
    yield pretrained.load("mini")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a page that has the engine, the vocabulary and the weights, and nothing else."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("lib/link.js", *(name for name, _ in linker.linked(*ENGINE))):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(linker.FOLDER / name, folder / name)
    shutil.copy(MINI / "model.safetensors", folder)
    (folder / "stories_vocabulary.json").write_text(engine.vocabulary_json("stories"))
    weights = (MINI / "model.safetensors").read_bytes()
    announced = {
        "bytes": len(weights),
        "sha256": hashlib.sha256(weights).hexdigest(),
        "config": json.loads((MINI / "config.json").read_text()),
    }
    (folder / "index.html").write_text(HTML.replace("ANNOUNCED", json.dumps(announced)))
    yield from serve_folder(folder)


@pytest.fixture(scope="module")
def model(browser: Any, address: str) -> Iterator[Page]:
    """Open the page and load the model there, once for all tests that only ask it."""
    with quiet_page(browser) as page:
        page.goto(address)
        page.wait_for_function("window.ready")
        page.evaluate("model.ask('load', announced)")
        yield page


def ask(page: Page, kind: str, **details: Any) -> Any:
    """Send a request; return all its messages, the answer last."""
    return page.evaluate("([kind, details]) => gather(kind, details)", [kind, details])


def logits_of(page: Page, index: int | None = None) -> torch.Tensor:
    details = {} if index is None else {"index": index}
    (answer,) = ask(page, "alternatives", count=2048, **details)
    by_id = {entry["id"]: entry["logit"] for entry in answer["alternatives"]}
    return torch.tensor([by_id[token] for token in range(len(by_id))])


def assert_parity(page: Page, mini: GPT, ids: list[int], count: int) -> float:
    """Compare logits and a greedy continuation; return how far the logits are apart."""
    ask(page, "feed", ids=ids)
    with torch.no_grad():
        expected = mini(torch.tensor([ids[-256:]]))[0, -1]
    error = float((logits_of(page) - expected).abs().max())
    assert error < 1e-3
    messages = ask(page, "continue", count=count, sampling={"temperature": 0})
    written = [message["token"] for message in messages[:-1]]
    greedy = generation.generate(mini, torch.tensor([ids]), count, temperature=0, stop=END)
    assert written == [int(token) for token in greedy]
    return error


def prompts(n: int) -> list[list[int]]:
    """Return ids of n texts of 10 to 200 tokens, END_OF_TEXT before each."""
    rng = random.Random(0)
    lengths = [10, 200, *(rng.randint(10, 200) for _ in range(n - 2))]
    texts = iter(stories.sample(4 * n, seed=7))
    found = []
    for length in lengths:
        text = " ".join(next(texts) for _ in range(4))
        found.append([END, *tokenizer.stories().encode_ordinary(text)][:length])
    assert list(map(len, found)) == lengths
    return found


def test_it_writes_what_pytorch_writes(model: Page, mini: GPT) -> None:
    for ids in prompts(3):
        assert_parity(model, mini, ids, 70)  # 200 + 70 is past the context


@pytest.mark.slow
def test_it_writes_what_pytorch_writes_after_fifty_prompts(model: Page, mini: GPT) -> None:
    errors = [assert_parity(model, mini, ids, 100) for ids in prompts(50)]
    print(f"largest difference of a logit: {max(errors):.2e}")


def test_any_text_becomes_tiktokens_ids(model: Page, mini: GPT) -> None:
    encoding = tokenizer.stories()
    for text in ("", HOSTILE, "🙂" * 2_500, "The " * 2_500 + "x" * 10_000):
        (fed,) = ask(model, "feed", text=text)
        assert fed["ids"] == [END, *encoding.encode_ordinary(text)]
        assert "".join(fed["texts"]) == text
        view = generation.in_view(torch.tensor([fed["ids"]]), 256)
        assert fed["start"] == len(fed["ids"]) - view.shape[1]
        with torch.no_grad():
            assert (logits_of(model) - mini(view)[0, -1]).abs().max() < 1e-3


def test_losses_and_attention_are_pytorchs(model: Page, mini: GPT) -> None:
    text = stories.sample(1, seed=3)[0]
    (fed,) = ask(model, "feed", text=text)
    ids = torch.tensor([fed["ids"]])
    *parts, answer = ask(model, "losses", text=text)
    losses = torch.tensor([value for part in parts for value in part["values"]])
    with torch.no_grad():
        expected = functional.cross_entropy(mini(ids)[0, :-1], ids[0, 1:], reduction="none")
    assert answer["ids"] == fed["ids"]
    assert (losses - expected).abs().max() < 1e-3

    maps = attention_maps(mini, ids).weights[:, 0]  # (L, H, T, T)
    (newest,) = ask(model, "attention")
    assert (
        torch.tensor(newest["weights"]).view(maps.shape[:3]) - maps[:, :, -1]
    ).abs().max() < 1e-4
    (whole,) = ask(model, "attention", layer=2, head=4)
    assert (torch.tensor(whole["weights"]).view(maps.shape[2:]) - maps[2, 4]).abs().max() < 1e-4


def test_lens_and_scores_are_pytorchs(model: Page, mini: GPT) -> None:
    encoding = tokenizer.stories()
    text = encoding.decode(encoding.encode_ordinary(stories.sample(1, seed=4)[0])[:100])
    (found,) = ask(model, "lens", text=text)
    ids = torch.tensor([found["ids"]])  # (1, T)
    with torch.no_grad(), activations.record(mini) as r:
        mini(ids)
    expected = activations.logit_lens(mini, r.residual)[:, 0].softmax(-1)  # (E, T, V)
    ends, size = expected.shape[:2]
    assert (found["ends"], size) == (5, 101)
    best = torch.tensor(found["best"]).view(ends, size, 5)
    own = torch.tensor(found["own"]).view(ends, size, 5)
    assert (own - expected.topk(5).values).abs().max() < 1e-3
    assert (own - expected.gather(-1, best)).abs().max() < 1e-3
    for name, token in (("chosen", expected[-1].argmax(-1)), ("next", ids[0].roll(-1))):
        values = torch.tensor(found[name], dtype=torch.float32).view(ends, size)[:, :-1]
        wanted = expected.gather(-1, token.expand(ends, -1)[..., None])[:, :-1, 0]
        assert (values - wanted).abs().max() < 1e-3
    (scores,) = ask(model, "scores", text=text, bare=True)
    assert scores["ids"] == found["ids"][1:]
    scaled = attention_maps(mini, ids[:, 1:]).scaled[:, 0]  # (L, H, T, T)
    assert (torch.tensor(scores["scores"]).view(scaled.shape) - scaled).abs().max() < 1e-3


def test_sampling_is_pythons(model: Page) -> None:
    (fed,) = ask(model, "feed", text="One day,")
    logits = logits_of(model)
    for sampling in (
        {"temperature": 0.7},
        {"topK": 7},
        {"topP": 0.9},
        {"temperature": 1.5, "topK": 20, "topP": 0.5},
    ):
        (answer,) = ask(model, "alternatives", count=2048, sampling=sampling)
        drawn = {entry["id"]: entry["drawn"] for entry in answer["alternatives"]}
        names = {"temperature": "temperature", "topK": "top_k", "topP": "top_p"}
        expected = generation.next_probabilities(
            logits, **{names[name]: value for name, value in sampling.items()}
        )
        assert (torch.tensor([drawn[i] for i in range(2048)]) - expected).abs().max() < 1e-5
    assert fed["alternatives"][0]["own"] == pytest.approx(float(logits.softmax(0).max()), abs=1e-5)


def test_it_writes_beside_the_page_and_can_be_stopped(model: Page) -> None:
    assert len(model.workers) == 1  # benchmarks/page.py measures how free the page is
    (_, stopped), tokens = model.evaluate(
        """async () => {
          const tokens = [];
          const writing = model.ask("continue", { seed: 1, sampling: { topK: 1 } }, ({ token }) => {
            if (tokens.push(token) === 5) stopping = model.ask("stop");
          });
          let stopping;
          const answer = await writing;
          return [[(await stopping).type, answer.reason], tokens];
        }"""
    )
    assert stopped == "stopped"
    assert 5 <= len(tokens) < 200


def test_a_load_that_fails_is_one_clear_message(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_function("window.ready")
    load = """change => model.ask("load", { ...announced, ...change })
      .then(() => "loaded", (error) => [error.code, error.message])"""
    code, message = page.evaluate(load, {"sha256": "0" * 64})
    assert (code, "SHA-256" in message) == ("corrupt", True)
    code, message = page.evaluate(load, {"bytes": 5_000_000})
    assert (code, "4449456 of 5000000 bytes" in message) == ("truncated", True)
    assert page.evaluate(load, {}) == "loaded"
    broken = """() => connect({ worker: URL.createObjectURL(new Blob(["not a program"])) })
      .ask("feed").catch((error) => [error.code, error.message])"""
    code, message = page.evaluate(broken)
    assert (code, message.startswith("This browser cannot run the model")) == ("worker", True)
    missing = "delete window.Worker, connect().ask('feed').catch((error) => error.code)"
    assert page.evaluate(missing) == "worker"


def test_it_runs_from_blob_urls_as_in_jupyter(page: Page, address: str) -> None:
    """Python sends the modules as text, and the weights as bytes."""
    page.goto(address)
    page.wait_for_function("window.ready")
    found = page.evaluate(
        """async (modules) => {
          const { link } = await import("./lib/link.js");
          const urls = link(modules);
          const [worker, gpt] = [urls["page/gpt_worker.js"], urls["page/gpt.js"]];
          const { connect } = await import(worker);
          const model = connect({ worker, gpt });
          const bytes = await (await fetch("model.safetensors")).arrayBuffer();
          const weights = new DataView(bytes); // anywidget hands over bytes so
          await model.ask("load", { ...announced, url: undefined, weights }, null, [bytes]);
          const { ids } = await model.ask("feed", { text: "One day" });
          model.close();
          return ids;
        }""",
        linker.linked(*ENGINE),
    )
    assert found == [END, *tokenizer.stories().encode_ordinary("One day")]
