"""What tests and notebooks live under: no network, figures compared, no needless skip in CI."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from nbval.plugin import IPyNbCell

from tests import drawing, judged

# The same examples in every run, and no deadline: machines differ.
settings.register_profile("book", derandomize=True, deadline=None, database=None)
settings.load_profile("book")

ROOT = Path(__file__).resolve().parent

# Kernels and other Python processes that tests start are held to this machine too: see
# tests/guard/sitecustomize.py. In this process pytest-socket does the same.
_GUARD = str(ROOT / "tests" / "guard")
os.environ["PYTHONPATH"] = os.pathsep.join(
    part for part in (_GUARD, os.environ.get("PYTHONPATH", "")) if part
)
os.environ["PYTHONHASHSEED"] = "0"
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")


# A test without any of these marks is quick, and belongs to `make check`.
_NOT_QUICK = {"asset", "browser", "full_size", "judges", "network", "slow", "system"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the night whatever judges an asset that is as it was, and mark what is quick."""
    for item in items:
        judges = item.get_closest_marker("judges")
        if judges and judged.recorded(judges.args[0]):
            item.add_marker(pytest.mark.slow)
        if "mini" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.asset)
        if not _NOT_QUICK & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.quick)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """In CI, turn a skip into a failure: CI installs whatever a test needs."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        if sys.platform != "linux":  # the other systems only run the library's tests
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, which can provide what it needs: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """Compare what a notebook's figures draw: nbval compares no pictures."""
    result = yield
    if isinstance(item, IPyNbCell) and item.options["check"]:
        tags = item.cell.metadata.get("tags", ())
        wrong = drawing.compared(item.cell.outputs, item.test_outputs, "figure-words" in tags)
        if wrong:
            item.raise_cell_error("Figures differ", "\n".join(wrong))
    return result
