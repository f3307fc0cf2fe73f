"""What several test files share, and the rule that a test that reads the mini model says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gptlib import checks

_running: list[pytest.Item] = []


def pytest_configure() -> None:
    sys.addaudithook(_refuse_unmarked)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    _running[:] = [item]
    result = yield
    _running.clear()
    return result


def _refuse_unmarked(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse the mini model's files to a test that is not marked, or `make check` would grow."""
    if event != "open" or not _running or not isinstance(arguments[0], (str, bytes)):
        return
    if _running[0].path.name == "test_judged.py":  # it only hashes them
        return
    path = Path(os.fsdecode(arguments[0]))
    if path.parts[-3:-1] != ("assets", "mini") or path.name not in _FILES:
        return
    if _running[0].get_closest_marker("quick"):
        raise AssertionError(f"this test reads the mini model's {path.name}: mark it asset")


_FILES = ("config.json", "model.safetensors")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str, object], str]:
    """Check an answer and return the one line that was printed."""

    def check(name: str, answer: object) -> str:
        checks.check(name, answer)
        out = capsys.readouterr().out
        assert out.count("\n") == 1, f"more than one line: {out!r}"
        return out.rstrip("\n")

    return check
