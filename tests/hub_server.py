"""A hub of this machine: it speaks as much of the hub's protocol as downloading a file takes.

Files of a repository are at ``/NAME/resolve/REVISION/FILE``, where a revision is "main" or the
repository's commit. As on the hub, a large file (``.safetensors``, ``.bin``) is elsewhere: the
answer there redirects, and announces the file's size and its SHA-256. Any answer can be made to
fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

_LARGE = (".safetensors", ".bin")
_BLOCK = 2**20


class Request(NamedTuple):
    """What was asked for, and how it was answered; ``start`` is the first byte of a range."""

    method: str
    name: str
    file: str
    start: int | None
    status: int


class Hub(ThreadingHTTPServer):
    """The server, and what can be made to go wrong in it."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Path], commits: Mapping[str, str] | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = dict(repositories)
        self.commits = {name: hashlib.sha1(name.encode()).hexdigest() for name in repositories}
        self.commits |= commits or {}
        self.requests: list[Request] = []
        #: The values of the header Authorization that came with requests, by kind of address.
        self.tokens: set[str | None] = set()
        self.tokens_of_large_files: set[str | None] = set()
        #: Commits that "main" was at before, by any repository.
        self.old_commits: set[str] = set()
        #: What is answered instead: a status for everything, or for some files, or nothing.
        self.status: int | Mapping[str, int] | None = None
        #: After how many bytes the next downloads of large files are cut, one after the other.
        self.cuts: list[int] = []
        self.lies_about_size = False  # it announces more bytes than there are
        self.alters = False  # it sends another byte in the middle of a large file
        self.gated = False  # its owner wants to be asked
        self.has_xet = False  # it announces that large files can be had through Xet
        self.slowly = 0.0  # it waits so many seconds before it sends a large file
        self._open: set[socket.socket] = set()
        self._sha256: dict[tuple[Path, int, int], str] = {}
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        """Be gone: refuse new connections, and end those that are kept open."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
            self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: socket.socket, client_address: object) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about a client that has gone."""

    def downloads(self, file: str) -> list[int | None]:
        """Return from which byte on a file was asked for, each time."""
        return [r.start for r in self.requests if r.method == "GET" and r.file == file]

    def environment(self, folder: Path) -> dict[str, str]:
        """Return what a child process needs to take this for the hub, with caches in a folder."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_CACHE": str(folder / "hub"),
            "GPTLIB_CACHE": str(folder / "gptlib"),
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_TOKEN": "",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
        """Make this process take this for the hub, with caches in a folder; return the hub's."""
        from huggingface_hub import constants

        for name, value in self.environment(folder).items():
            monkeypatch.setenv(name, value)
        template = f"{self.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for name, value in {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_TOKEN_PATH": str(folder / "no token"),
            "AGENT_HARNESSES_PATH": str(folder / "no agents"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_PROGRESS_BARS": None,
        }.items():
            monkeypatch.setattr(constants, name, value, raising=False)
        return folder / "hub"

    def sha256(self, path: Path) -> str:
        state = path.stat()
        key = (path, state.st_size, state.st_mtime_ns)
        if key not in self._sha256:
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while block := file.read(_BLOCK):
                    digest.update(block)
            self._sha256[key] = digest.hexdigest()
        return self._sha256[key]


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        kind, name, revision, file = self._asked()
        hub = self.server
        tokens = hub.tokens_of_large_files if kind == "large" else hub.tokens
        tokens.add(self.headers["Authorization"])
        status = hub.status.get(file) if isinstance(hub.status, Mapping) else hub.status
        path = hub.repositories.get(name, Path("nowhere")) / file
        if kind not in ("resolve", "large"):
            self._send(404)
        elif status is not None:
            self._refuse(status, name, file)
        elif hub.gated:
            self._refuse(403, name, file, "GatedRepo")
        elif name not in hub.repositories:  # as on the hub, which does not tell what is private
            self._refuse(401, name, file, "RepoNotFound")
        elif revision not in ("main", hub.commits[name], *hub.old_commits):
            self._refuse(404, name, file, "RevisionNotFound")
        elif not path.is_file():
            self._refuse(404, name, file, "EntryNotFound")
        elif kind == "resolve" and file.endswith(_LARGE):
            self._redirect(name, file, path)
        else:
            self._send_file(name, file, path)

    def _asked(self) -> tuple[str, str, str, str]:
        """Return which part of the hub is asked, for which repository, revision and file."""
        parts = self.path.split("?")[0].strip("/").split("/")
        for kind in ("resolve", "large"):
            if kind in parts:
                at = parts.index(kind)
                return kind, "/".join(parts[:at]), parts[at + 1], "/".join(parts[at + 2 :])
        return "", "", "", ""

    def _commit(self, name: str) -> str:
        revision = self._asked()[2]
        return self.server.commits[name] if revision == "main" else revision

    def _range(self) -> int | None:
        asked = self.headers["Range"]
        return int(asked.removeprefix("bytes=").split("-")[0]) if asked else None

    def _send(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _note(self, name: str, file: str, status: int) -> None:
        self.server.requests.append(Request(self.command, name, file, self._range(), status))

    def _refuse(self, status: int, name: str, file: str, code: str | None = None) -> None:
        self._note(name, file, status)
        headers = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        if code == "EntryNotFound":
            headers["X-Repo-Commit"] = self.server.commits[name]
        body = json.dumps({"error": "so the test wants it"}).encode()
        self._send(status, {"Content-Type": "application/json", **headers}, body)

    def _redirect(self, name: str, file: str, path: Path) -> None:
        """Say where a large file is, how large, and what its SHA-256 is."""
        self._note(name, file, 302)
        hub = self.server
        commit = self._commit(name)
        more = 1_000 if hub.lies_about_size else 0
        headers = {
            "Location": f"http://localhost:{hub.server_port}/{name}/large/{commit}/{file}",
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{hub.sha256(path)}"',
            "X-Linked-Size": str(path.stat().st_size + more),
            "ETag": '"of the redirection"',
        }
        if hub.has_xet:
            headers |= {"X-Xet-Hash": "ab" * 32, "X-Xet-Refresh-Route": f"{hub.url}/no-xet-here"}
        self._send(302, headers)

    def _send_file(self, name: str, file: str, path: Path) -> None:
        hub, size, start = self.server, path.stat().st_size, self._range()
        if start is not None and start >= size:
            self._refuse(416, name, file)
            return
        self._note(name, file, 200 if start is None else 206)
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Length", str(size - (start or 0)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Repo-Commit", self._commit(name))
        git = path.read_bytes() if not file.endswith(_LARGE) else b""  # it has git's own hash
        etag = hashlib.sha1(b"blob %d\0" % size + git).hexdigest() if git else hub.sha256(path)
        self.send_header("ETag", f'"{etag}"')
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            large = file.endswith(_LARGE)
            self._copy(path, start or 0, hub.cuts.pop(0) if large and hub.cuts else None, large)

    def _copy(self, path: Path, start: int, n_bytes: int | None, large: bool) -> None:
        """Send a file from a byte on, and after ``n_bytes`` cut the connection."""
        if large and self.server.slowly:
            threading.Event().wait(self.server.slowly)
        middle = path.stat().st_size // 2
        with path.open("rb") as file:
            file.seek(start)
            while block := file.read(_BLOCK if n_bytes is None else min(_BLOCK, n_bytes)):
                at = file.tell() - len(block)
                if large and self.server.alters and at <= middle < file.tell():
                    changed = bytearray(block)
                    changed[middle - at] ^= 1
                    block = bytes(changed)
                self.wfile.write(block)
                n_bytes = None if n_bytes is None else n_bytes - len(block)
        if n_bytes is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serve(
    repositories: Mapping[str, Path], commits: Mapping[str, str] | None = None
) -> Iterator[Hub]:
    """Run a hub that has these repositories, each a folder, until the block ends."""
    hub = Hub(repositories, commits)
    try:
        yield hub
    finally:
        hub.stop()
