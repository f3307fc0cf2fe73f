"""Fetching texts: what is checked, what is kept, and what is said when it does not work."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import platformdirs
import pytest

from gptlib import stories
from gptlib.downloads import files, texts
from gptlib.downloads.texts import TEXTS, FetchError, Text, fetch, read

BODY = "".join(f"Line {n} of a text, naïve as it is.\n" for n in range(5_000)).encode()


class Server(ThreadingHTTPServer):
    """A server of this machine that answers as a test wants, and notes what it was asked."""

    body = BODY
    status = 200
    stops_after: int | None = None  # cuts the connection after so many bytes
    hangs = False  # ... or only sends no more
    knows_ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.agents: list[str] = []
        self.go_on = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers["Range"]
        server.ranges.append(asked)
        server.agents.append(self.headers["User-Agent"])
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if server.status != 200 or (start >= len(server.body) and server.knows_ranges):
            self.send_error(server.status if server.status != 200 else 416)
            return
        if not asked or not server.knows_ranges:
            start = 0
        self.send_response(206 if start else 200)
        if start:
            last, size = len(server.body) - 1, len(server.body)
            self.send_header("Content-Range", f"bytes {start}-{last}/{size}")
        body = server.body[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.stops_after])
        if server.hangs:
            server.go_on.wait(10)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def text(server: Server) -> Text:
    return text_at(f"http://127.0.0.1:{server.server_port}/a/text.txt")


def text_at(url: str) -> Text:
    digest = hashlib.sha256(BODY).hexdigest()
    return Text("a-text", "A Text", "Nobody", url, digest, len(BODY), "it was made for this test")


def kept(cache: Path) -> dict[str, bytes]:
    """What the cache holds, locks aside, by the end of its name."""
    files = [path for path in cache.iterdir() if path.suffix != ".lock"]
    return {path.suffix: path.read_bytes() for path in files}


def test_a_text_is_fetched_once(server: Server, text: Text, tmp_path: Path) -> None:
    path = fetch(text, tmp_path / "new" / "cache")
    assert path.read_bytes() == BODY
    assert path.name == f"a-text-{text.sha256[:12]}.txt"
    assert fetch(text, tmp_path / "new" / "cache") == path
    assert server.ranges == [None]
    assert server.agents[0].startswith("gptlib/")
    assert read(text, tmp_path / "new" / "cache") == BODY.decode()


@pytest.mark.parametrize("change", [b"", BODY[:-1] + b"?"])
def test_a_file_that_was_changed_is_fetched_again(
    change: bytes, server: Server, text: Text, tmp_path: Path
) -> None:
    path = fetch(text, tmp_path)
    path.write_bytes(change)
    assert fetch(text, tmp_path).read_bytes() == BODY
    assert len(server.ranges) == 2


def test_a_cut_download_is_kept_and_goes_on(server: Server, text: Text, tmp_path: Path) -> None:
    server.stops_after = 70_001
    message = (
        r"the connection was cut after 70,001 of [\d,]+ bytes of http://.*text\.txt.*; what "
        "arrived is kept, and the next attempt goes on from there"
    )
    with pytest.raises(FetchError, match=message):
        fetch(text, tmp_path)
    assert kept(tmp_path) == {".part": BODY[:70_001]}
    with pytest.raises(FetchError, match="cut after 140,002 of"):
        fetch(text, tmp_path)
    server.stops_after = None
    assert fetch(text, tmp_path).read_bytes() == BODY
    assert server.ranges == [None, "bytes=70001-", "bytes=140002-"]
    assert kept(tmp_path) == {".txt": BODY}


def test_a_connection_on_which_nothing_comes_is_cut(
    server: Server, text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "TIMEOUT", 0.2)
    server.stops_after, server.hangs = 65_536 + 10, True
    with pytest.raises(FetchError, match=r"cut after [\d,]+ of .* \(timed out\); what arrived is"):
        fetch(text, tmp_path)
    assert BODY.startswith(kept(tmp_path)[".part"])


def test_a_server_that_knows_no_ranges_sends_it_all_again(
    server: Server, text: Text, tmp_path: Path
) -> None:
    server.stops_after = 1_000
    with pytest.raises(FetchError):
        fetch(text, tmp_path)
    server.stops_after, server.knows_ranges = None, False
    assert fetch(text, tmp_path).read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-"]


@pytest.mark.parametrize("body", [BODY[:-1] + b"?", BODY + b" and more" * 100_000])
def test_another_text_is_refused_and_deleted(
    body: bytes, server: Server, text: Text, tmp_path: Path
) -> None:
    server.body = body
    message = r"is not what it was: ([\d,]+) bytes .* are expected; what arrived is deleted"
    with pytest.raises(FetchError, match=message) as caught:
        fetch(text, tmp_path)
    assert kept(tmp_path) == {}
    n_bytes = int(re.search(message, str(caught.value))[1].replace(",", ""))
    assert n_bytes < len(BODY) + 100_000  # what is too long is not read to its end


def test_a_wrong_beginning_is_not_kept_for_ever(server: Server, text: Text, tmp_path: Path) -> None:
    for wrong in (b"wrong", b"wrong" * len(BODY)):
        (tmp_path / f"a-text-{text.sha256[:12]}.part").write_bytes(wrong)
        with pytest.raises(FetchError, match="is not what it was"):
            fetch(text, tmp_path)
        assert fetch(text, tmp_path).read_bytes() == BODY
        fetch(text, tmp_path).unlink()
    server.body = BODY[:10]  # the file at the address is shorter than what arrived before
    (tmp_path / f"a-text-{text.sha256[:12]}.part").write_bytes(BODY[:100])
    with pytest.raises(FetchError, match="cut after 10 of"):
        fetch(text, tmp_path)
    assert server.ranges[-2:] == ["bytes=100-", None]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, r"127\.0\.0\.1 answers 404 \(Not Found\) to http://.*: it may have moved"),
        (500, r"127\.0\.0\.1 answers 500 \(Internal Server Error\) to http://.*: try again later"),
    ],
)
def test_what_the_server_answers_is_said(
    status: int, message: str, server: Server, text: Text, tmp_path: Path
) -> None:
    part = tmp_path / f"a-text-{text.sha256[:12]}.part"
    part.write_bytes(BODY[:10])
    server.status = status
    with pytest.raises(FetchError, match=message):
        fetch(text, tmp_path)
    assert kept(tmp_path) == {".part": BODY[:10]}


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Text:
    """A text at a port where nothing listens."""
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return text_at(f"http://127.0.0.1:{free.getsockname()[1]}/text.txt")


def test_without_a_network_that_is_said(nowhere: Text, tmp_path: Path) -> None:
    with pytest.raises(
        FetchError, match=r"127\.0\.0\.1 cannot be reached \(.*refused.*\) to fetch"
    ):
        fetch(nowhere, tmp_path)
    with pytest.raises(FetchError, match="is there a network"):
        read(nowhere, tmp_path)


def test_a_server_that_hangs_up_is_one_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            connection, _ = listening.accept()
            with connection:  # a reset, and no good-bye
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

        thread = threading.Thread(target=hang_up)
        thread.start()
        text = text_at(f"http://127.0.0.1:{listening.getsockname()[1]}/text.txt")
        with pytest.raises(FetchError, match=r"cannot be reached \(.+\) to fetch"):
            fetch(text, tmp_path)
        thread.join()


def test_stories_come_instead_only_if_asked_for(nowhere: Text, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"cannot be reached .* Here are stories instead\."):
        told = read(nowhere, tmp_path, or_stories=True)
    assert told.split("\n\n")[:3] == stories.sample(3)
    assert len(told) == pytest.approx(nowhere.n_bytes, rel=0.1)


def test_a_cache_that_cannot_be_written_says_what_to_do(text: Text, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    message = r"taken.* cannot be written \(.+\): set the environment variable GPTLIB_CACHE to a"
    for place in ("taken", "taken/inside"):
        with pytest.raises(OSError, match=message) as caught:
            fetch(text, tmp_path / place)
        assert not isinstance(caught.value, FetchError)


def test_a_full_disk_is_no_fault_of_the_network(
    text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(texts, "_copy", full)
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\)") as caught:
        fetch(text, tmp_path)
    assert not isinstance(caught.value, FetchError)


def test_two_at_once_fetch_it_once(server: Server, text: Text, tmp_path: Path) -> None:
    server.stops_after, server.hangs = None, True
    with ThreadPoolExecutor() as pool:
        paths = [pool.submit(fetch, text, tmp_path) for _ in range(3)]
        server.go_on.set()
        assert [path.result().read_bytes() for path in paths] == [BODY] * 3
    assert server.ranges == [None]


def test_the_texts_are_pinned() -> None:
    for name, text in TEXTS.items():
        assert text.name == name
        assert len(bytes.fromhex(text.sha256)) == 32
        assert "/master/" not in text.url
        assert "/main/" not in text.url
    with pytest.raises(ValueError, match=r"there is no text 'moby'; there is alice, tiny-sh"):
        fetch("moby")


@pytest.mark.network
@pytest.mark.parametrize("name", sorted(TEXTS))
def test_the_texts_are_where_they_are_said_to_be(name: str, tmp_path: Path) -> None:
    assert fetch(name, tmp_path).stat().st_size == TEXTS[name].n_bytes


# ---- the cache folder ----------------------------------------------------------------------------


def test_the_cache_folder_is_the_system_s_or_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPTLIB_CACHE", raising=False)
    assert files.folder() == platformdirs.user_cache_path("gptlib", appauthor=False)
    monkeypatch.setenv("GPTLIB_CACHE", "mine")
    assert files.folder() == Path("mine")


@pytest.mark.skipif(sys.platform != "linux", reason="the variable is Linux's")
def test_on_linux_the_cache_is_where_it_always_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPTLIB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert files.folder() == Path("/xdg/gptlib")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.folder() == Path.home() / ".cache" / "gptlib"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def write(content: bytes, error: type[BaseException] | None) -> None:
        with files.writing(tmp_path / "file") as file:
            file.write(content)
            if error:
                raise error

    write(b"first", None)
    with pytest.raises(KeyboardInterrupt):
        write(b"second", KeyboardInterrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"first"
