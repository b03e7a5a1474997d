"""Local fake of the Hub with the part of its protocol that pushing and fetching a model need.

Repositories are kept in memory, every commit is a snapshot of all files, and each file is sent inline ("regular").
"""

import base64
import hashlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

TOKEN = "hf_of_the_test"


@dataclass
class Repo:
    """Model repository: its commits, oldest first, and its access settings."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str = "by hand") -> str:
        """Add or replace `files` and return the ID of the commit."""
        before = next(reversed(self.commits.values()), {})
        oid = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = before | files
        self.messages.append(message)
        return oid

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a revision, which is a commit ID or `main` for the latest commit."""
        if revision == "main":
            return next(reversed(self.commits), None)
        return revision if revision in self.commits else None


class FakeHub:
    """Repositories of the fake Hub, and the requests it received as (method, path, token)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str, str | None]] = []

    def fetched(self) -> set[str]:
        """Return the names of the requested files."""
        return {
            path.rpartition("/")[2]
            for method, path, _ in self.requests
            if method == "GET" and "/resolve/" in path
        }


@contextmanager
def fake_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Run a fake Hub and redirect huggingface_hub to it, with its cache and logins under `folder`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    server.hub = FakeHub(url)  # type: ignore[attr-defined]
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(folder / "stored_tokens"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("AGENT_HARNESSES_PATH", "HF_XET_CACHE"):
        monkeypatch.setattr(constants, name, str(folder / name.lower()), raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(socket, "getaddrinfo", _this_machine_only(socket.getaddrinfo))
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _this_machine_only(look_up: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(host: str, *rest: Any, **options: Any) -> Any:
        assert host == "127.0.0.1", f"a test tried to connect to {host}"
        return look_up(host, *rest, **options)

    return guarded


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Suppress the access log."""

    @property
    def _hub(self) -> FakeHub:
        hub: FakeHub = self.server.hub  # type: ignore[attr-defined]
        return hub

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(self.path.partition("?")[0])
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self._hub.requests.append((self.command, path, token))
        name = r"(?P<name>[^/]+/[^/]+)"
        routes: list[tuple[str, Callable[..., None]]] = [
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (rf"/api/models/{name}(?:/revision/(?P<revision>[^/]+))?", self._info),
            (rf"/api/models/{name}/tree/(?P<revision>[^/]+)", self._tree),
            (rf"/api/models/{name}/preupload/(?P<revision>[^/]+)", self._preupload),
            (rf"/api/models/{name}/commit/(?P<revision>[^/]+)", self._commit),
            (rf"/{name}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", self._file),
        ]
        for pattern, answer in routes:
            if match := re.fullmatch(pattern, path):
                return answer(body, token=token, **match.groupdict())
        return self._refuse(404, "NotFound")

    def _create(self, body: bytes, token: str | None) -> None:
        asked = json.loads(body)
        if token != TOKEN:
            return self._refuse(401, None, "Invalid username or password.")
        name = f"{asked['organization'] or 'ann'}/{asked['name']}"
        if asked["organization"] == "others":
            return self._refuse(403, None, "You don't have the rights to create a model under others")
        if name in self._hub.repos:
            return self._send(
                409, {"url": f"{self._hub.url}/{name}", "error": "You already created this model repo"}
            )
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self._hub.repos[name] = Repo(private=private)
        return self._send(200, {"url": f"{self._hub.url}/{name}"})

    def _validate(self, body: bytes, token: str | None) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def _info(self, body: bytes, token: str | None, name: str, revision: str | None) -> None:
        if found := self._found(name, revision or "main", token):
            repo, oid = found
            siblings = [{"rfilename": file} for file in repo.commits[oid]]
            self._send(
                200, {"_id": name, "id": name, "sha": oid, "private": repo.private, "siblings": siblings}
            )

    def _tree(self, body: bytes, token: str | None, name: str, revision: str) -> None:
        if found := self._found(name, revision, token):
            repo, oid = found
            files = [
                {"type": "file", "path": file, "size": len(content), "oid": _git_oid(content)}
                for file, content in repo.commits[oid].items()
            ]
            self._send(200, files)

    def _preupload(self, body: bytes, token: str | None, name: str, revision: str) -> None:
        files = [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def _commit(self, body: bytes, token: str | None, name: str, revision: str) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        [summary] = [line["value"]["summary"] for line in lines if line["key"] == "header"]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        oid = self._hub.repos[name].commit(files, summary)
        url = f"{self._hub.url}/{name}/commit/{oid}"
        self._send(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def _file(self, body: bytes, token: str | None, name: str, revision: str, file: str) -> None:
        if found := self._found(name, revision, token):
            repo, oid = found
            if file not in repo.commits[oid]:
                return self._refuse(404, "EntryNotFound")
            content = repo.commits[oid][file]
            headers = {"ETag": f'"{_git_oid(content)}"', "X-Repo-Commit": oid}
            return self._send(200, content, headers)
        return None

    def _found(self, name: str, revision: str, token: str | None) -> tuple[Repo, str] | None:
        """Return the repository and the commit, or send an error response and return None."""
        repo = self._hub.repos.get(name)
        if repo is None or (repo.private and token != TOKEN):
            self._refuse(401 if token is None else 404, "RepoNotFound", "Repository not found")
        elif repo.gated:
            self._refuse(403, "GatedRepo", f"Access to model {name} is restricted")
        elif (oid := repo.resolve(revision)) is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repo, oid
        return None

    def _refuse(self, status: int, code: str | None, message: str = "not found") -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, {"error": message}, headers)

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
