"""The guard itself: nothing under test reaches beyond this machine, and CI does not skip.

That notebooks cannot either, tests/test_notebooks.py shows.
"""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from pytest_socket import SocketConnectBlockedError

pytest_plugins = ["pytester"]

# A name that leads nowhere, should the guard ever let it pass.
ASK = "import socket; socket.create_connection(('nowhere.invalid', 80))"


def test_a_test_cannot_connect_beyond_this_machine():
    # pytest-socket warns and raises; here the warning is an error and comes first.
    blocked = pytest.raises((SocketConnectBlockedError, UserWarning), match="A test tried to use")
    with socket.socket() as connection, blocked:
        connection.connect(("nowhere.invalid", 80))


def test_a_process_that_a_test_starts_cannot_either():
    process = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True)
    assert "tests stay on this machine, but something asked for nowhere.invalid" in process.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux does CI provide everything")
@pytest.mark.parametrize(("ci", "outcome"), [("1", "failed"), ("", "skipped")])
def test_a_skip_fails_in_ci_alone(pytester, monkeypatch, pytestconfig, ci, outcome):
    monkeypatch.setenv("CI", ci)
    monkeypatch.syspath_prepend(pytestconfig.rootpath)
    pytester.makeconftest((pytestconfig.rootpath / "conftest.py").read_text("utf-8"))
    pytester.makepyfile("import pytest\ndef test_it(): pytest.skip('no browser')")
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(**{outcome: 1})
