"""What tests and notebooks live under: no network, and in CI no skip of what CI can provide."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

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
