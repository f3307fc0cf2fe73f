"""What several test files share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gptlib import checks


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str, object], str]:
    """Check an answer and return the one line that was printed."""

    def check(name: str, answer: object) -> str:
        checks.check(name, answer)
        out = capsys.readouterr().out
        assert out.count("\n") == 1, f"more than one line: {out!r}"
        return out.rstrip("\n")

    return check
