"""A small server that speaks the part of the Hugging Face hub's API that huggingface_hub uses to download models.

It answers ``/api/models/<id>/revision/<revision>``, ``/api/models/<id>/tree/<commit>`` and
``/<id>/resolve/<revision>/<file>`` with the headers, ranges and error codes of the hub, and keeps a log of what it was
asked for.
"""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repo:
    """A model on the server.

    Attributes
    ----------
    revisions
        Files (name -> content) of each branch or tag; "main" is the default.
    token
        Needed for everything (a private model) or, if ``gated``, for its files.
    gated
        Whether a missing token is answered as for a gated model.
    refused
        Tokens that are known, but without access (403).
    cuts
        File name -> how many bytes to send of each answer in turn before the connection is cut; then whole answers.
    status
        Answer everything with this status.
    """

    revisions: dict[str, dict[str, bytes]]
    token: str | None = None
    gated: bool = False
    refused: tuple[str, ...] = ()
    cuts: dict[str, list[int]] = field(default_factory=dict)
    status: int | None = None

    def commit(self, revision: str) -> str | None:
        """The 40 hex digits a branch, tag or commit stands for."""
        for name, files in self.revisions.items():
            content = b"".join(key.encode() + value for key, value in sorted(files.items()))
            digest = hashlib.sha1(name.encode() + content).hexdigest()
            if revision in (name, digest):
                return digest
        return None

    def files(self, revision: str) -> dict[str, bytes]:
        """The files of a branch, tag or commit."""
        return next(files for name, files in self.revisions.items() if self.commit(name) == self.commit(revision))


@dataclass(frozen=True)
class Request:
    """One request as the log keeps it."""

    method: str
    path: str
    range: str | None
    token: str | None

    @property
    def file(self) -> str | None:
        """The file that was asked for, None for a question to the API."""
        found = re.fullmatch(r"/[^/]+/[^/]+/resolve/[^/]+/(.+)", self.path)
        return found[1] if found else None


class HubServer:
    """The server, on a free port, in threads of its own; a context manager."""

    def __init__(self, repos: dict[str, Repo]) -> None:
        self.repos, self.log = repos, list[Request]()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """What HF_ENDPOINT must be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, name: str, method: str = "GET") -> list[Request]:
        """The requests for files of a model."""
        return [one for one in self.log if one.file and one.method == method and one.path.startswith(f"/{name}/")]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Keep standard error quiet; the log is a list."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        authorization = self.headers.get("Authorization")
        token = authorization.removeprefix("Bearer ") if authorization else None
        self.hub.log.append(Request(self.command, path, self.headers.get("Range"), token))
        found = re.fullmatch(
            r"/(?:api/models/(?P<api>[^/]+/[^/]+)(?:/(?P<kind>revision|tree)/(?P<at>[^/]+))?"
            r"|(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+))",
            path,
        )
        if found is None:
            return self._send(404, b"", body)
        name = found["api"] or found["repo"]
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._fail(404, "RepoNotFound", "Repository not found", body)
        if repo.status is not None:
            return self._send(repo.status, b"", body)
        if repo.token is not None and token != repo.token and not (repo.gated and found["api"]):
            code = "GatedRepo" if repo.gated else "RepoNotFound"
            return self._fail(403 if token in repo.refused else 401, code, "Access is restricted", body)
        revision = found["at"] or found["revision"] or "main"
        commit = repo.commit(revision)
        if commit is None:
            return self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}", body)
        files = repo.files(revision)
        if found["file"]:
            return self._send_file(repo, found["file"], files.get(found["file"]), commit, body)
        described = [{"type": "file", "path": key, "size": len(v), "oid": _etag(v)} for key, v in files.items()]
        if found["kind"] == "tree":
            return self._send(200, json.dumps(described).encode(), body)
        siblings = [{"rfilename": key} for key in files]
        model = {"_id": "0", "id": name, "modelId": name, "sha": commit, "private": False, "siblings": siblings}
        return self._send(200, json.dumps(model).encode(), body)

    def _send_file(self, repo: Repo, name: str, content: bytes | None, commit: str, body: bool) -> None:
        headers = {"X-Repo-Commit": commit}
        if content is None:
            return self._fail(404, "EntryNotFound", "Entry not found", body, headers)
        headers |= {"ETag": f'"{_etag(content)}"', "Accept-Ranges": "bytes"}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span is None or not body:
            return self._send(200, content, body, headers, cut=self._cut(repo, name, body))
        start, stop = int(span[1]), min(int(span[2] or len(content)) + bool(span[2]), len(content))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return self._send(206, content[start:stop], body, headers, cut=self._cut(repo, name, body))

    def _cut(self, repo: Repo, name: str, body: bool) -> int | None:
        return repo.cuts[name].pop(0) if body and repo.cuts.get(name) else None

    def _fail(self, status: int, code: str, message: str, body: bool, headers: dict[str, str] | None = None) -> None:
        self._send(
            status,
            json.dumps({"error": message}).encode(),
            body,
            {"X-Error-Code": code, "X-Error-Message": message} | (headers or {}),
        )

    def _send(
        self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json" if content[:1] in (b"{", b"[") else "text/plain")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
