"""Chapter 6 with one line changed: every cell holds for a checkpoint of GPT-2's full size.

The weights are random, and a server on this machine stands in for the hub. So this tests all that
the chapter does with OpenAI's weights, but for what they know.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from safetensors.torch import save_file

from gptlib import pretrained
from gptlib.config import FAMILY
from gptlib.downloads import hub
from gptlib.model import GPT
from tests.hub_server import serve

CHAPTER = Path(__file__).resolve().parent.parent / "notebooks/06_pretrained_weights.ipynb"
LINE = 'CHECKPOINT = "mini"'
GPT2 = hub.RELEASED["gpt2"]

#: Runs in the kernel before the chapter's first cell: random weights have another SHA-256.
PIN = """\
from gptlib.downloads import hub
hub.RELEASED["gpt2"] = hub.Repository({name!r}, {revision!r}, {sha256!r})
del hub
"""


def released(folder: Path) -> str:
    """Write a checkpoint as GPT-2's is on the hub: no prefix, and masks; return its SHA-256."""
    config = FAMILY["gpt2"]
    model = GPT(config, torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, config.context_length, config.context_length).tril()
    tensors = {f"h.{n}.attn.bias": mask.clone() for n in range(config.n_layers)}
    for name, tensor in pretrained.to_gpt2(model).items():
        tensors[name.removeprefix("transformer.")] = tensor
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(pretrained.settings_of(model)))
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


@pytest.mark.slow
def test_every_cell_holds_for_a_checkpoint_of_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = released(tmp_path / "files")
    startup = tmp_path / "ipython/profile_default/startup"
    startup.mkdir(parents=True)
    pin = PIN.format(name=GPT2.name, revision=GPT2.revision, sha256=sha256)
    (startup / "pin.py").write_text(pin)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    notebook = nbformat.read(CHAPTER, as_version=4)
    lines = [cell for cell in notebook.cells if LINE in cell.source.splitlines()]
    assert len(lines) == 1
    lines[0].source = lines[0].source.replace(LINE, 'CHECKPOINT = "gpt2"')
    (tmp_path / "empty").mkdir()
    with serve({GPT2.name: tmp_path / "files"}, {GPT2.name: GPT2.revision}) as server:
        for name, value in server.environment(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        resources = {"metadata": {"path": str(tmp_path / "empty")}}
        client = NotebookClient(notebook, timeout=600, resources=resources)
        client.execute()  # raises CellExecutionError where a cell does
        assert server.downloads("model.safetensors") == [None]

    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert "gpt2: 124,439,808 parameters" in printed
    assert "124,439,808 numbers in 148 tensors, 12 masks" in printed
    assert "ours: every stage agrees" in printed
    assert "visualize" not in printed  # the weights are random
    assert "Data visualization empowers users to:" in printed
