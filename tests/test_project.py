"""The repository keeps its own promises: addresses, layers, workflows, and errors of one line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools import bootstrap, build, repository

ROOT = Path(__file__).resolve().parent.parent
GPTLIB = ROOT / "gptlib"


def test_imports_point_one_way():
    """The layers are in pyproject.toml. An import of a type alone counts, too."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("config.py", "from gptlib.model import GPT\n"),
        ("data.py", "if TYPE_CHECKING:\n    from gptlib.training.loop import TrainingRun\n"),
        ("training/checkpoints.py", "from gptlib.training import loop\n"),
        ("model.py", "import gptlib.widgets\n"),
        ("accounting.py", "def late():\n    from gptlib.model import GPT\n"),
    ],
)
def test_an_import_the_other_way_is_found(tmp_path, path, line):
    shutil.copytree(GPTLIB, tmp_path / "gptlib", ignore=shutil.ignore_patterns("assets", "*.js"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "gptlib" / path).open("a") as file:
        file.write(line)
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert process.returncode == 1, process.stdout
    assert "BROKEN" in process.stdout


def test_importing_the_library_loads_nothing_heavy_and_prints_nothing():
    code = "import sys, gptlib; print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.stdout, process.stderr) == ("[]\n", "")


# ---- The repository's address -------------------------------------------------------------------


def test_no_copy_of_the_repository_address_is_stale():
    """Whatever names a repository of this course names the one in _config.yml."""
    url = repository.repository()
    slug = url.split("/", 3)[3]
    for path in repository.text_files():
        if path == Path(__file__).resolve():
            continue
        text = path.read_text("utf-8")
        found = re.findall(r"git\+(https://[\w./-]+?)(?:[\"'\\\s)@]|\.git)", text)
        found += re.findall(r"git clone (https://\S+)", text)
        assert set(found) <= {url}, path
        assert set(re.findall(r"/github/([\w.-]+/[\w.-]+)/blob", text)) <= {slug}, path


def test_make_repository_changes_every_copy(tmp_path):
    old, new = repository.repository(), "https://github.com/someone/a-fork"
    for path in repository.text_files():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    command = [sys.executable, "tools/repository.py", new]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert yaml.safe_load((tmp_path / "_config.yml").read_text("utf-8"))["repository"]["url"] == new
    left = [p for p in tmp_path.rglob("*") if p.is_file() and ".git" not in p.parts]
    assert [p for p in left if old in p.read_text("utf-8", "ignore")] == []
    for name in ("README.md", "pyproject.toml", "notebooks/01_what_a_gpt_is.ipynb"):
        assert new in (tmp_path / name).read_text("utf-8")


@pytest.mark.parametrize("url", ["", "not-an-address", "https://github.com/only-an-owner"])
def test_make_repository_refuses_what_is_no_address(url):
    command = [sys.executable, ROOT / "tools/repository.py", url]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.startswith("URL must look like https://github.com/you/your-fork")


# ---- Errors of the set-up -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        (
            "WARNING: Retrying\nNewConnectionError: Temporary failure in name resolution",
            "No network",
        ),
        ("The virtual environment was not created: ensurepip is not available.", "no venv module"),
        ("PermissionError: [Errno 13] Permission denied: '.venv'", "No permission"),
        ("noise\nERROR: No matching distribution found for torch==9", "No matching distribution"),
    ],
)
def test_setup_errors_say_what_to_do_in_one_line(output, advice):
    message = bootstrap.explain(output, "Installing requirements.txt")
    assert advice in message
    assert "\n" not in message


def test_setup_refuses_a_python_that_is_too_old(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit):
        bootstrap.check_python()
    error = capsys.readouterr().err
    assert "The course needs Python 3.10 to 3.13" in error
    assert error.count("\n") == 1


def test_setup_refuses_a_python_without_venv(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit):
        bootstrap.check_venv()
    error = capsys.readouterr().err
    assert "This Python has no venv module" in error
    assert error.count("\n") == 1


def test_the_set_up_can_be_read_by_the_oldest_python():
    """Python 2 stops at the first character beyond ASCII, before it can say what is wrong."""
    assert (ROOT / "tools/bootstrap.py").read_bytes().isascii()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_without_python_says_what_to_install(tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/bootstrap.py", tmp_path / "tools")
    command = ["make", "book", "PYTHON=python-that-is-not-there"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode != 0
    assert "install Python 3.10 to 3.13" in process.stderr


def test_setup_without_network_says_so(tmp_path):
    """The real thing: pip, asked for an index on a port of this machine where nothing listens."""
    environment = {
        **os.environ,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "1",
        "PYTHONPATH": "",
    }
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/bootstrap.py", tmp_path / "tools")
    (tmp_path / "requirements.txt").write_text("no-such-package-here==1\n")
    command = [sys.executable, "tools/bootstrap.py"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert process.returncode == 1
    assert process.stderr.startswith("No network")
    assert process.stderr.count("\n") == 1


def test_a_full_disk_while_building_says_so():
    assert build.explain("OSError: [Errno 28] No space left on device") == (
        "The disk is full: free some space, then run make again."
    )


# ---- Workflows and pins -------------------------------------------------------------------------


def test_workflows_fit_the_schema():
    workflows = sorted((ROOT / ".github/workflows").glob("*.yml"))
    assert len(workflows) == 2
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
    ]
    process = subprocess.run([*command, *workflows], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout


def test_every_requirement_is_pinned_exactly():
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", pin)] == []


def test_commits_name_no_path_of_a_machine():
    for path in repository.text_files():
        if path != Path(__file__).resolve():
            assert not re.search(r"/(root|work|home)/[\w.]+/", path.read_text("utf-8")), path
