"""Re-execute notebooks in place from fresh kernels, so that the same code stores the same bytes.

    python tools/execute.py [NOTEBOOK ...]     all notebooks by default

What changes from run to run is left out of the file: widget views (their model ids are random),
time stamps, kernel and editor metadata, random cell ids.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
# nbconvert takes a script's ending from here.
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
KEPT_CELL_METADATA = ("tags", "mirror", "jupyter", "mystnb", "editable")


def notebooks(root: Path = ROOT) -> list[Path]:
    """List the course's notebooks, without the copies that Jupyter keeps of what it saves."""
    paths = sorted(root.glob("notebooks/**/*.ipynb"))
    return [path for path in paths if path.parent.name != ".ipynb_checkpoints"]


def execute(path: Path) -> None:
    """Run one notebook in an empty folder and store its outputs; on an error leave the file."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = dict(KERNELSPEC)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=120,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            store_widget_state=False,
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],
        )
        client.execute()
    write(path, notebook)


def write(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Write a notebook without what differs between two runs of the same code."""
    tidy(notebook)
    nbformat.validate(notebook)
    text = nbformat.writes(notebook, version=4)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8", newline="\n")
    temporary.replace(path)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Take out of a notebook everything that is not its text, its code or what the code prints."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": LANGUAGE})
    for number, cell in enumerate(notebook.cells, start=1):
        cell["id"] = f"cell-{number:03d}"
        metadata = {k: v for k, v in cell.metadata.items() if k in KEPT_CELL_METADATA}
        cell.metadata = nbformat.from_dict(metadata)
        cell.pop("attachments", None)
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
            for output in cell.outputs:
                tidy_output(output)


def tidy_output(output: nbformat.NotebookNode) -> None:
    """Drop the widget view and the memory addresses and paths that a traceback shows."""
    output.get("data", {}).pop(WIDGET_VIEW, None)
    if output.output_type == "error":
        output.traceback = [f"{output.ename}: {output.evalue}"]
    if output.output_type == "stream":
        output.text = hide_addresses(output.text)
    if "text/plain" in output.get("data", {}):
        output.data["text/plain"] = hide_addresses(output.data["text/plain"])


def hide_addresses(text: str) -> str:
    """Replace the memory addresses in a text, as tests/nbval.cfg does before it compares."""
    return re.sub(r"\bat 0x[0-9a-f]+", "at 0xADDRESS", text)


def merge_streams(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join pieces of one stream, which arrive cut at moments that depend on the machine."""
    merged: list[nbformat.NotebookNode] = []
    streams: dict[str, nbformat.NotebookNode] = {}
    for output in outputs:
        if output.output_type != "stream":
            merged.append(output)
        elif output.name in streams:
            streams[output.name].text += output.text
        else:
            streams[output.name] = output
            merged.append(output)
    return merged


def main(arguments: list[str]) -> int:
    """Execute the notebooks named, or all of them; return 1 if one of them failed."""
    os.environ.setdefault("PYTHONHASHSEED", "0")
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    paths = [Path(a) for a in arguments] or notebooks()
    missing = [path for path in paths if not path.is_file()]
    if missing:
        print(f"No such notebook: {missing[0]}", file=sys.stderr)
        return 2
    failed = 0
    bar = tqdm(paths, unit="notebook", disable=None)
    for path in bar:
        bar.set_description(path.stem)
        try:
            execute(path)
        except CellExecutionError as error:
            failed += 1
            tqdm.write(f"{path}: left as it was, because a cell failed:\n{error}", sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
