"""What was judged in full is recorded, and whatever it rests on makes it be judged again."""

from __future__ import annotations

import shutil

import pytest

from tests import judged

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("name", judged.FILES)
def test_the_committed_assets_are_those_that_were_judged(name):
    assert judged.recorded(name), (
        f"a file that the verdict on {name!r} rests on has changed since it was recorded (see "
        "FILES in tests/judged.py): run 'make judge', and commit tests/judged.json"
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("stories", "gptlib/assets/stories.grammar"),
        ("mini", "gptlib/assets/stories.grammar"),
        ("mini", "gptlib/assets/mini/model.safetensors"),
        ("mini", "gptlib/model.py"),
        ("mini", "tools/train_mini.py"),
    ],
)
def test_a_change_is_seen(name, file, tmp_path, monkeypatch):
    for pattern in judged.FILES[name]:
        for path in judged.ROOT.glob(pattern):
            copy = tmp_path / path.relative_to(judged.ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
    before = judged.state(name)
    monkeypatch.setattr(judged, "ROOT", tmp_path)
    assert judged.state(name) == before
    with (tmp_path / file).open("ab") as stream:
        stream.write(b"#")
    assert judged.state(name) != before
    (tmp_path / file).unlink()
    if file in judged.FILES[name]:
        with pytest.raises(FileNotFoundError, match=f"there is no {file}"):
            judged.state(name)


def test_what_was_judged_waits_for_the_night_and_the_rest_does_not(pytester, monkeypatch):
    monkeypatch.syspath_prepend(judged.ROOT)
    pytester.makeconftest((judged.ROOT / "conftest.py").read_text("utf-8"))
    pytester.makeini("[pytest]\nmarkers =\n slow:\n judges:\n")
    pytester.makepyfile(
        "import pytest\n"
        "from tests import judged\n"
        "judged.recorded = lambda name: name == 'old'\n"
        "@pytest.mark.judges('old')\ndef test_old(): pass\n"
        "@pytest.mark.judges('new')\ndef test_new(): pass\n"
    )
    pytester.runpytest_inprocess("-m", "not slow").assert_outcomes(passed=1, deselected=1)
    pytester.runpytest_inprocess("-m", "slow").assert_outcomes(passed=1, deselected=1)
