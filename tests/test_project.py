"""The repository keeps its own promises: addresses, layers, workflows, and errors of one line."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import gptlib
from tools import bootstrap, build, lock, repository

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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


# ---- Functions are short ------------------------------------------------------------------------

MOST_LINES = 40
SHORTER = {"accounting.py": 25}  # every formula of it can be seen at once
PYTHON = sorted(path for top in ("gptlib", "tools", "book") for path in (ROOT / top).rglob("*.py"))


def _long_functions(source: str, most: int) -> list[str]:
    """Return the functions with more lines than that, their docstrings not counted."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            told = node.body[0] if ast.get_docstring(node) else None
            docstring = told.end_lineno - told.lineno + 1 if told else 0
            lines = node.end_lineno - node.lineno + 1 - docstring
            found += [f"{node.name}: {lines} lines"] if lines > most else []
    return found


def test_every_function_is_short():
    assert len(PYTHON) > 50
    for path in PYTHON:
        assert _long_functions(path.read_text("utf-8"), SHORTER.get(path.name, MOST_LINES)) == [], (
            path
        )


def test_a_long_function_is_found_and_its_docstring_does_not_count():
    source = 'def one(x):\n    """Say.\n\n    More.\n    """\n    x += 1\n    return x\n'
    assert _long_functions(source, 3) == []
    assert _long_functions(source, 2) == ["one: 3 lines"]
    assert _long_functions("async " + source, 2) == ["one: 3 lines"]


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
    for name in ("README.md", "pyproject.toml", "CITATION.cff", "notebooks/01_what_a_gpt_is.ipynb"):
        assert new in (tmp_path / name).read_text("utf-8")
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert f"git clone {new} && cd a-fork\n" in readme


def test_the_readme_clones_this_repository_and_enters_its_folder():
    url = repository.repository()
    clones = re.findall(r"git clone (\S+) && cd (\S+)", (ROOT / "README.md").read_text("utf-8"))
    assert clones == [(url, url.rsplit("/", 1)[1])]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("https://x.org/a/book", "https://x.org/me/copy"),
        ("git+https://x.org/a/book@v1.0.0", "git+https://x.org/me/copy@v1.0.0"),
        ("https://x.org/a/book.git", "https://x.org/me/copy.git"),
        ("https://x.org/a/bookshop", "https://x.org/a/bookshop"),
        ("https://colab.org/github/a/book/blob/v1", "https://colab.org/github/me/copy/blob/v1"),
        ("https://binder.org/v2/gh/a/book/v1", "https://binder.org/v2/gh/me/copy/v1"),
        ("cd book\n", "cd copy\n"),
        ("cd book && make", "cd copy && make"),
        ("cd book-of-names, cd books", "cd book-of-names, cd books"),
    ],
)
def test_an_address_moves_in_every_form_and_nothing_else(before, after):
    assert repository.moved(before, "https://x.org/a/book", "https://x.org/me/copy") == after


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_repository_needs_no_environment(tmp_path):
    """Text is edited without gigabytes of packages: the plan of make names no set-up."""
    command = ["make", "--dry-run", "repository", "URL=https://x.org/me/copy"]
    shutil.copy(ROOT / "Makefile", tmp_path)
    plan = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "tools/repository.py" in plan.stdout, plan.stderr
    assert "bootstrap" not in plan.stdout


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


@pytest.mark.slow  # it makes an environment; by day `explain` above is tested with what pip says
@pytest.mark.system
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
    assert {path.stem for path in workflows} >= {"ci", "nightly", "pages", "versions"}
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
    ]
    process = subprocess.run([*command, *workflows], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ("dependabot", ".github/dependabot.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/cell_output.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_settings_of_services_fit_their_schemas(schema, name):
    arguments = ["--builtin-schema", f"vendor.{schema}", str(ROOT / name)]
    result = CliRunner().invoke(check_jsonschema, arguments)  # in this process: it is slow to start
    assert result.exit_code == 0, result.output


@pytest.mark.system
def test_the_issue_form_s_command_prints_the_versions():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/cell_output.yml").read_text("utf-8"))
    (words,) = [
        part["attributes"]["description"] for part in form["body"] if part.get("id") == "versions"
    ]
    code = re.search(r"`(.+)`", words)[1]
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert f"gptlib {gptlib.__version__}\n" in process.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
@pytest.mark.parametrize("name", [".ci/run", ".devcontainer/set_up", ".binder/postBuild"])
def test_scripts_of_services_can_be_run(name):
    assert os.access(ROOT / name, os.X_OK)
    process = subprocess.run(["bash", "-n", ROOT / name], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")


def test_the_parts_that_ci_runs_side_by_side_are_all_of_make_test():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    parts = dict(re.findall(r"^(test-\w+):.*\n\t@\$\(PYTEST\) (.+)$", makefile, re.M))
    assert set(workflow["jobs"]["course"]["strategy"]["matrix"]["part"]) == set(parts)
    assert set(parts.values()) == {"tests --ignore=tests/browser", "tests/browser", "notebooks"}
    assert 'testpaths = ["tests", "notebooks"]' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_every_requirement_is_pinned_exactly():
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", pin)] == []


def test_requirements_hold_all_that_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = project["dependencies"] + [
        line for extra in lock.EXTRAS for line in project["optional-dependencies"][extra]
    ]
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pins = dict(line.partition(" ")[0].split("==") for line in lines)
    for requirement in map(Requirement, asked):
        if requirement.name == "gptlib":  # with extras, which are among lock.EXTRAS
            assert requirement.extras <= {"hub", *lock.EXTRAS}
            continue
        pin = pins.get(canonicalize_name(requirement.name), "nothing")
        assert pin != "nothing", f"{requirement} is not in requirements.txt: run 'make lock'"
        assert requirement.specifier.contains(pin), (
            f"pyproject.toml asks for {requirement}, requirements.txt has {pin}: run 'make lock'"
        )


def constraints(name: str) -> dict[str, str]:
    lines = (ROOT / "tests/constraints" / name).read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_lowest_versions_that_are_tested_are_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    tested = constraints("lowest.txt")
    for requirement in map(Requirement, asked):
        if requirement.name != "gptlib":
            (lowest,) = [s.version for s in requirement.specifier if s.operator == ">="]
            found = tested[canonicalize_name(requirement.name)]
            assert Version(found) == Version(lowest), (
                f"pyproject.toml allows {requirement}, and 'make lowest' tests {found}: run the "
                "command at the head of tests/constraints/lowest.txt, or raise the bound"
            )


def test_colab_is_tested_with_its_own_versions():
    assert constraints("colab.in").items() <= constraints("colab.txt").items()


def test_what_only_a_gpu_needs_is_not_locked():
    lines = ["nvidia-cublas==1", "cuda-pathfinder==1", "triton==3 ; a == 'b'", "tritonclient==2"]
    assert lock.without_gpu(lines) == ["tritonclient==2"]


# ---- Makefile -----------------------------------------------------------------------------------


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY: ((?:\\\n|.)+)$", makefile, re.M)[1].replace("\\", " ").split()
    described = re.findall(r"^([a-z-]+):.*## \S", makefile, re.M)
    assert sorted(phony) == sorted(described), (
        "every target of the Makefile is in .PHONY and has a '## description' for 'make help'"
    )


def test_commits_name_no_path_of_a_machine():
    for path in repository.text_files():
        if path != Path(__file__).resolve():
            assert not re.search(r"/(root|work|home)/[\w.]+/", path.read_text("utf-8")), path
