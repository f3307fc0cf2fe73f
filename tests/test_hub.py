"""Checkpoints from the hub: what arrives, what is kept, and what is said when it does not work."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants, file_download, hf_hub_download

from gptlib.downloads import hub as library
from gptlib.downloads.hub import RELEASED, DownloadError, Repository, fetch, fetch_vocabulary, parts
from tests.hub_server import Hub, serve

CONFIG = b'{"model_type": "gpt2"}'
BODY = random.Random(0).randbytes(100_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
NAME = "someone/small"
PINNED = Repository(NAME, COMMIT, SHA256)
LATEST = Repository(NAME)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder that the hub has; the weights need not be any."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(BODY)
    return folder


@pytest.fixture
def hub(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one repository, for this process, which has empty caches."""
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1_000)  # what is kept when it is cut
    close_session()
    with serve({NAME: repository}, {NAME: COMMIT}) as server:
        server.cache = server.use(monkeypatch, tmp_path / "caches")
        yield server
    close_session()


def blobs(hub: Hub) -> list[str]:
    """Return the names of the whole files in the cache, but those that git keeps: the weights.

    Older clients keep what arrived before a cut, under another name, to go on from there.
    """
    names = [path.name for path in hub.cache.glob("models--*/blobs/*")]
    return [name for name in names if len(name) != 40 and not name.endswith(".incomplete")]


def refused(repository: Repository) -> str:
    """Fetch what cannot be had, and return the one sentence that says so."""
    with pytest.raises(DownloadError) as raised:
        fetch(repository)
    assert raised.value.__cause__ is None  # nor pages of the client's own errors above it
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    message = str(raised.value)
    assert "\n" not in message
    assert f"{repository.name} at {repository.revision}" in message
    return message


def assert_right(repository: Repository) -> None:
    folder = fetch(repository)
    assert (folder / "config.json").read_bytes() == CONFIG
    assert (folder / "model.safetensors").read_bytes() == BODY


# ---- what arrives --------------------------------------------------------------------------------


@pytest.mark.parametrize("repository_", [PINNED, LATEST, Repository(NAME, COMMIT)])
def test_what_is_here_is_not_asked_for_again(
    repository_: Repository, hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    assert_right(repository_)
    assert fetch(repository_).name == COMMIT
    assert hub.downloads("config.json") == hub.downloads("model.safetensors") == [None]
    assert {request.file for request in hub.requests} == {"config.json", "model.safetensors"}
    hub.stop()
    assert_right(repository_)
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal


@pytest.mark.parametrize("names", [["tokenizer.json"], ["vocab.json", "merges.txt"]], ids=str)
def test_a_vocabulary_is_fetched_in_the_form_that_is_there(
    names: list[str], hub: Hub, repository: Path
) -> None:
    assert fetch_vocabulary(LATEST) is None
    for name in names:
        (repository / name).write_text(name)
    folder = fetch_vocabulary(LATEST)
    assert folder.name == COMMIT
    assert [(folder / name).read_text() for name in names] == names
    assert {path.name for path in folder.iterdir()} == set(names)
    hub.stop()
    with pytest.raises(DownloadError, match="the hub cannot be reached"):
        fetch_vocabulary(Repository("someone/other"))


def test_main_is_what_it_is_now_and_all_files_are_of_one_commit(
    hub: Hub, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_right(LATEST)
    hub.commits[NAME] = "1" * 40
    (repository / "config.json").write_bytes(b"{}")
    original = library._weights

    def change(*arguments: object) -> list[Path]:  # between one file and the next
        hub.commits[NAME] = "2" * 40
        hub.old_commits = {"1" * 40}
        return original(*arguments)

    monkeypatch.setattr(library, "_weights", change)
    folder = fetch(LATEST)
    assert folder.name == "1" * 40
    assert (folder / "model.safetensors").read_bytes() == BODY
    assert hub.downloads("model.safetensors") == [None]  # the same content: not sent again


def test_a_token_is_sent_to_the_hub_and_not_beyond(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert_right(LATEST)
    assert hub.tokens == {"Bearer hf_secret"}
    assert hub.tokens_of_large_files == {None}


def test_a_hub_that_has_another_way_is_asked_in_the_common_one_without_its_package(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.has_xet = True
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    assert_right(PINNED)


def test_the_released_models_are_pinned() -> None:
    for name, pinned in RELEASED.items():
        assert pinned.name == f"openai-community/{name}"
        assert re.fullmatch("[0-9a-f]{40}", pinned.revision)
    assert RELEASED["gpt2"].revision == COMMIT
    known = {name: (pinned.sha256 or "")[:8] for name, pinned in RELEASED.items()}
    assert known == {"gpt2": "248dfc39", "gpt2-medium": "", "gpt2-large": "", "gpt2-xl": "0f8b28eb"}


# ---- cut off, truncated, altered -----------------------------------------------------------------


def test_a_connection_that_is_cut_goes_on_from_there(hub: Hub) -> None:
    hub.cuts = [60_000, 10_000]
    assert_right(PINNED)
    assert hub.downloads("model.safetensors") == [None, 60_000, 70_000]


def test_a_connection_that_stays_cut_leaves_nothing_half(hub: Hub) -> None:
    hub.cuts = [60_000] + [0] * 10
    message = refused(PINNED)
    assert message.startswith(f"{NAME} at {COMMIT} cannot be had: the connection was cut")
    assert message.endswith("try again")
    assert len(hub.downloads("model.safetensors")) < 10
    assert blobs(hub) == []
    hub.cuts = []
    assert_right(PINNED)


def test_a_file_that_is_shorter_than_announced_is_not_kept(hub: Hub) -> None:
    hub.lies_about_size = True
    assert "what arrived is not whole (" in refused(PINNED)
    assert blobs(hub) == []
    hub.lies_about_size = False
    assert_right(PINNED)


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_file_that_is_not_what_was_announced_is_deleted(sha256: str | None, hub: Hub) -> None:
    hub.alters = True
    message = refused(replace(PINNED, sha256=sha256))
    wrong = hashlib.sha256(BODY[:50_000] + bytes([BODY[50_000] ^ 1]) + BODY[50_001:]).hexdigest()
    assert f"its SHA-256 is {wrong} instead of {SHA256}; it is deleted, and the next " in message
    assert blobs(hub) == []
    hub.alters = False
    assert_right(PINNED)


def test_what_is_pinned_goes_before_what_is_announced(hub: Hub) -> None:
    assert f"instead of {'0' * 64}; it is deleted" in refused(replace(PINNED, sha256="0" * 64))
    assert blobs(hub) == []


def test_what_was_killed_before_the_check_is_checked_the_next_time(hub: Hub) -> None:
    hub.alters = True
    hf_hub_download(NAME, "model.safetensors", revision=COMMIT)  # and then it was killed
    assert "it is deleted" in refused(PINNED)
    hub.alters = False
    assert_right(PINNED)


@pytest.mark.parametrize("damage", ["truncate", "change"])
def test_a_file_that_is_damaged_later_is_noticed(damage: str, hub: Hub) -> None:
    weights = fetch(PINNED) / "model.safetensors"
    with weights.open("r+b") as file:
        if damage == "truncate":
            file.truncate(50_000)
        else:
            file.write(b"!!!")
    state = weights.stat()
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns + 1))  # clocks can be coarse
    hub.stop()
    assert "it is deleted" in refused(PINNED)


def test_a_file_is_read_to_check_it_only_once(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    original = library._sha256
    monkeypatch.setattr(library, "_sha256", lambda path: read.append(path) or original(path))
    for _ in range(3):
        assert_right(PINNED)
    assert len(read) == 1
    # A folder of the course that cannot be written costs time, and nothing else.
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("GPTLIB_CACHE", str(tmp_path / "a file"))
    for _ in range(2):
        assert_right(PINNED)
    assert len(read) == 3


def test_a_store_that_several_repositories_share_is_followed(hub: Hub) -> None:
    """The client keeps what it fetched in its other way in one place, under another hash."""
    weights = fetch(LATEST) / "model.safetensors"
    blob = weights.parent / weights.readlink()
    stored = hub.cache / "blobs" / "ab" / ("ab" * 32)
    stored.parent.mkdir(parents=True)
    blob.replace(stored)
    blob.symlink_to(os.path.relpath(stored, blob.parent))
    assert_right(LATEST)
    stored.write_bytes(BODY[::-1])
    assert f"instead of {SHA256}; it is deleted" in refused(LATEST)
    assert not stored.exists()
    assert blobs(hub) == []
    assert_right(LATEST)


# ---- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "the hub answers 401: there is no such model, or only its owner's HF_TOKEN opens it"),
        (403, "the hub answers 403: there is no such model, or only its owner's HF_TOKEN opens it"),
        (404, "the hub answers 404: there is no such model, or only its owner's HF_TOKEN opens it"),
        (429, "the hub answers 429: try again later"),
        (500, "the hub answers 500: try again later"),
        (503, "the hub answers 503: try again later"),
    ],
)
def test_an_answer_that_is_an_error_is_one_sentence(
    status: int, said: str, file: str, hub: Hub
) -> None:
    hub.status = {file: status}
    assert refused(PINNED) == f"{NAME} at {COMMIT} cannot be had: {said}"
    assert len([request for request in hub.requests if request.file == file]) == 1  # no waiting
    assert blobs(hub) == []
    hub.status = None
    assert_right(PINNED)


def test_a_hub_that_fails_between_two_questions_has_not_said_that_there_is_no_such_file(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url: None)
    hub.status = {"model.safetensors": 500}
    assert refused(LATEST).endswith("the hub answers 500: try again later")


def test_what_the_hub_does_not_have_is_named(hub: Hub, repository: Path) -> None:
    assert "answers 401: there is no such model" in refused(Repository("someone/else"))
    assert "answers 404: there is no such revision" in refused(Repository(NAME, "0" * 40))
    hub.gated = True
    assert "answers 403: agree to its terms on the hub, and set HF_TOKEN" in refused(LATEST)
    hub.gated = False
    (repository / "config.json").unlink()
    assert refused(LATEST).endswith("answers 404: it has no config.json")
    (repository / "config.json").write_bytes(CONFIG)
    (repository / "model.safetensors").rename(repository / "pytorch_model.bin")
    only = "it has no model.safetensors, and nothing but .safetensors files is read"
    assert refused(LATEST) == f"{NAME} at main cannot be had: {only}"
    assert hub.downloads("pytorch_model.bin") == []


@pytest.mark.parametrize("name", ["a/b/c", "a b/c", "a--b", "../c", "./model", "x.git"])
def test_a_name_that_cannot_be_is_the_callers_mistake(name: str, hub: Hub) -> None:
    with pytest.raises(ValueError, match=f"'{re.escape(name)}' cannot be the name of a model on"):
        fetch(Repository(name))
    assert hub.requests == []


def test_without_a_network_what_is_here_loads_and_the_rest_says_so(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_right(LATEST)
    hub.stop()
    began = time.perf_counter()
    message = refused(Repository("someone/else"))
    assert "someone/else at main cannot be had: the hub cannot be reached: is there a" in message
    assert time.perf_counter() - began < 5
    assert_right(LATEST)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_right(LATEST)
    message = refused(Repository("someone/else"))
    assert message.endswith("it is not in the cache, and HF_HUB_OFFLINE says that nothing is down"
                            "loaded")  # fmt: skip


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert refused(LATEST).endswith(": pip install huggingface-hub")


def test_importing_it_does_not_import_the_client() -> None:
    code = "import sys, gptlib.downloads.hub; print('huggingface_hub' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout == "False\n", process.stderr


# ---- the cache -----------------------------------------------------------------------------------


def test_two_processes_download_it_once(hub: Hub, tmp_path: Path) -> None:
    hub.slowly = 1.0
    code = f"from gptlib.downloads.hub import *; print(fetch(Repository({NAME!r})))"
    environment = {**os.environ, **hub.environment(tmp_path / "shared")}
    argv = [sys.executable, "-W", "error", "-c", code]
    both = [
        subprocess.Popen(argv, stdout=-1, stderr=-1, text=True, env=environment) for _ in range(2)
    ]
    ends = [process.communicate(timeout=100) for process in both]
    assert ends[0] == ends[1]
    assert ends[0][1] == ""
    assert (Path(ends[0][0].strip()) / "model.safetensors").read_bytes() == BODY
    assert hub.downloads("model.safetensors") == [None]


@contextlib.contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Make a folder and all in it read-only, and be someone who must respect that."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no read-only folders")
def test_a_read_only_cache_is_read_and_otherwise_named(
    hub: Hub, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        place = Path(name)
        place.chmod(0o755)
        hub.repositories[NAME] = repository.rename(place / "repository")
        cache = hub.use(monkeypatch, place / "caches")
        cache.mkdir(parents=True)
        monkeypatch.setenv("GPTLIB_CACHE", str(place / "caches" / "none"))
        with unprivileged(place / "caches"):
            message = refused(LATEST)
            assert "the hub's cache cannot be written ([Errno 13] Permission denied: " in message
            assert message.endswith("set HF_HOME to a folder that can")
        assert list(cache.iterdir()) == []
        assert_right(LATEST)
        with unprivileged(place / "caches"):
            assert_right(LATEST)
            hub.commits[NAME] = "1" * 40
            assert "cannot be written" in refused(LATEST)
            hub.commits[NAME] = COMMIT
            message = refused(replace(PINNED, sha256="0" * 64))
            assert "; it cannot be deleted (Permission denied): delete " in message
            hub.stop()
            assert_right(LATEST)


def test_a_cache_that_is_no_folder_is_named(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "a file"))
    assert "the hub's cache cannot be written ([Errno " in refused(LATEST)


def test_a_full_disk_is_named_and_leaves_nothing_half(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, block: bytes) -> None:
            self.file.write(block[:1_000])
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    original: Callable[..., None] = file_download.http_get
    with monkeypatch.context() as patch:
        patch.setattr(
            file_download, "http_get", lambda url, file, **rest: original(url, Full(file), **rest)
        )
        assert "there is no room left for it: make room, or set HF_HOME" in refused(PINNED)
    assert blobs(hub) == []
    assert_right(PINNED)


# ---- a checkpoint in several files ---------------------------------------------------------------


def split(repository: Path, weight_map: object) -> None:
    (repository / "model.safetensors").unlink(missing_ok=True)
    index = {"metadata": {"total_size": 9}, "weight_map": weight_map}
    (repository / "model.safetensors.index.json").write_text(json.dumps(index))
    for number in (1, 2):
        part = repository / f"model-0000{number}-of-00002.safetensors"
        part.write_bytes(BODY[:50_000] if number == 1 else BODY[50_000:])


@pytest.mark.parametrize("repository_", [PINNED, LATEST])
def test_all_parts_are_fetched_and_checked(
    repository_: Repository, hub: Hub, repository: Path
) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    split(repository, {"wte.weight": names[0], "wpe.weight": names[1], "ln_f.bias": names[1]})
    folder = fetch(repository_)
    assert parts(folder / "model.safetensors.index.json") == names
    assert b"".join((folder / name).read_bytes() for name in names) == BODY
    asked = len(hub.requests)
    assert fetch(repository_) == folder
    assert len(hub.requests) - asked == (repository_ == LATEST)
    hub.stop()
    assert fetch(repository_) == folder
    (folder / names[1]).write_bytes(b"something else")
    assert f"{names[1]} of {NAME} at {repository_.revision} is not what " in refused(repository_)


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        ({"a": "../../config.json"}, "lists '../../config.json', which is not a .safetensors file"),
        ({"a": "../other.safetensors"}, "lists '../other.safetensors', which is not a .safetenso"),
        ({"a": "/etc/x.safetensors"}, "lists '/etc/x.safetensors', which is not a .safetensors f"),
        ({"a": "..\\x.safetensors"}, "which is not a .safetensors file beside it"),
        ({"a": "pytorch_model.bin"}, "lists 'pytorch_model.bin', which is not a .safetensors file"),
        ({"a": 5}, "lists 5, which is not a .safetensors file beside it"),
        ({"a": ["b"]}, "is not the index of a checkpoint"),
        ([], "is not the index of a checkpoint"),
        ({"a": "model-00003-of-00002.safetensors"}, "it has no model-00003-of-00002.safetensors"),
    ],
)
def test_an_index_that_is_not_one_is_refused(
    weight_map: object, said: str, hub: Hub, repository: Path
) -> None:
    split(repository, weight_map)
    assert said in refused(LATEST)
    assert blobs(hub) == []


# ---- at full size --------------------------------------------------------------------------------


@pytest.mark.slow
def test_gpt2_as_transformers_saves_it(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """124 million random parameters under OpenAI's name, and the hash that they have."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from gptlib import pretrained

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10 * 2**20)
    theirs = GPT2LMHeadModel(GPT2Config()).eval()
    theirs.save_pretrained(tmp_path / "gpt2")
    weights = tmp_path / "gpt2" / "model.safetensors"
    hub.repositories["openai-community/gpt2"] = tmp_path / "gpt2"
    hub.commits["openai-community/gpt2"] = COMMIT
    monkeypatch.setitem(RELEASED, "gpt2", replace(RELEASED["gpt2"], sha256=hub.sha256(weights)))
    ids = torch.randint(50_257, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = theirs(ids).logits

    def assert_loads() -> None:
        with torch.no_grad():
            torch.testing.assert_close(pretrained.load("gpt2")(ids), wanted, atol=1e-4, rtol=0)

    hub.alters = True
    assert "it is deleted, and the next attempt" in refused(RELEASED["gpt2"])
    hub.alters = False
    hub.requests.clear()
    half = weights.stat().st_size // 2
    hub.cuts = [half]
    assert_loads()
    first, second = hub.downloads("model.safetensors")
    assert first is None
    assert 0 <= half - second <= 10 * 2**20  # only the rest, to a block

    code = "from gptlib.pretrained import load; print(load('someone/gpt2').final_norm.scale.sum())"
    hub.repositories["someone/gpt2"] = tmp_path / "gpt2"
    hub.commits["someone/gpt2"] = "1" * 40
    hub.requests.clear()
    environment = {**os.environ, **hub.environment(tmp_path / "shared")}
    argv = [sys.executable, "-W", "error", "-c", code]
    both = [
        subprocess.Popen(argv, stdout=-1, stderr=-1, text=True, env=environment) for _ in range(2)
    ]
    ends = [process.communicate(timeout=500) for process in both]
    assert ends[0] == ends[1]
    assert ends[0][1] == ""
    assert hub.downloads("model.safetensors") == [None]
    hub.stop()
    assert_loads()
