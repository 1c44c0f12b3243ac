"""A local HTTP server that misbehaves as told, for the tests of downloads."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One answer: the truth unless told to lie."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = '"v1"'
    ranges: bool = True  # honour Range
    if_range: bool = True  # honour If-Range
    length: int | None = None  # Content-Length to claim
    start: int | None = None  # where a range begins, whatever was asked
    extra: bytes = b""  # sent, and counted in Content-Length, beyond the body
    cut: int | None = None  # drop the connection after so many bytes of this answer
    framing: str = "length"  # "length", "chunked" or "none"
    drip: bool = False  # after `cut` bytes, go on one byte at a time until the client leaves


class Server:
    """`routes` maps a path to its answers, one a request, the last one for ever; `requests` records (path, headers)."""

    def __init__(self, routes: dict[str, Reply | list[Reply]] | None = None) -> None:
        self.routes: dict[str, list[Reply]] = {}
        for path, replies in (routes or {}).items():
            self.serve(path, replies)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def serve(self, path: str, replies: Reply | list[Reply]) -> None:
        self.routes[path] = [replies] if isinstance(replies, Reply) else list(replies)

    def answer(self, path: str, headers: dict[str, str]) -> Reply:
        with self._lock:
            self.requests.append((path, headers))
            replies = self.routes.get(path, [Reply(status=404)])
            return replies.pop(0) if len(replies) > 1 else replies[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def ranges(self) -> list[str | None]:
        """The Range header of every request so far."""
        return [headers.get("Range") for _, headers in self.requests]

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = False  # joined on close: no socket outlives a test

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is part of the game


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply = server.answer(self.path, dict(self.headers.items()))
            start = self._start(reply)
            body = reply.body[start:] + reply.extra
            if start >= len(reply.body) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(reply.body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if reply.framing == "chunked":
                self.protocol_version = "HTTP/1.1"
            self.send_response(206 if start else reply.status)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(reply.body) - 1}/{len(reply.body)}")
            if reply.framing == "length":
                self.send_header("Content-Length", str(len(body) if reply.length is None else reply.length - start))
            elif reply.framing == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
            if reply.etag:
                self.send_header("ETag", reply.etag)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            sent = body[: reply.cut]
            if reply.framing == "chunked":
                for at in range(0, len(sent), 100):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(sent[at : at + 100]), sent[at : at + 100]))
                if reply.cut is None:
                    self.wfile.write(b"0\r\n\r\n")
            else:
                self.wfile.write(sent)
            for at in range(len(sent), len(body) if reply.drip else 0):
                self.wfile.write(body[at : at + 1])
                time.sleep(0.01)
            self.close_connection = True

        def _start(self, reply: Reply) -> int:
            asked = self.headers.get("Range")
            if asked is None or not reply.ranges or reply.status != 200:
                return 0
            if reply.if_range and self.headers.get("If-Range") not in (None, reply.etag):
                return 0
            return reply.start or int(asked.removeprefix("bytes=").removesuffix("-"))

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
