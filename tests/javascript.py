"""Run the widgets' JavaScript outside of a browser, with the deno that type-checks it too."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import deno

FOLDER = Path(__file__).resolve().parent / "js"
WIDGETS = FOLDER.parent.parent / "gptlib" / "widgets"
ENVIRONMENT = os.environ | {"NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}


def run_deno(*arguments: object, given: str = "") -> str:
    """Run deno with something on its standard input, and return what it prints."""
    done = subprocess.run(
        [deno.find_deno_bin(), *map(str, arguments)],
        input=given,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=ENVIRONMENT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_script(name: str, lines: Iterable[object]) -> list[Any]:
    """Give a script of ``tests/js`` lines of JSON, and return the lines that it answers."""
    given = "".join(json.dumps(line) + "\n" for line in lines)
    answers = run_deno("run", "--no-check", "--allow-read", FOLDER / name, given=given)
    return [json.loads(line) for line in answers.splitlines()]


def run_code(widget: str, code: str, given: object) -> list[Any]:
    """Run code that has the module of a widget as ``widget``, and return what it ``log``s.

    The code finds in ``given`` what it is given.
    """
    head = f"""
        import * as widget from {json.dumps((WIDGETS / f"{widget}.js").as_uri())};
        const given = JSON.parse(await new Response(Deno.stdin.readable).text());
        const log = (answer) => console.log(JSON.stringify(answer));
    """
    answers = run_deno("eval", "--ext=js", head + code, given=json.dumps(given))
    return [json.loads(line) for line in answers.splitlines()]


def call_each(widget: str, calls: list[list[Any]]) -> list[Any]:
    """Call exported functions of a widget's module, each given as its name and arguments."""
    answers = run_script("bridge.js", [[widget, *call] for call in calls])
    assert len(answers) == len(calls)
    return answers
