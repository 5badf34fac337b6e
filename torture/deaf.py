"""What stands before a real registry and answers for it: too late, with garbage, by half, or not at all."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

#: pass: as the registry; held: so too, when it is let go.
#: Of the others those whose name ends with "registered" let the registry hear the message first.
Manner = Literal[
    "pass",
    "held",
    "silent",
    "silent, registered",
    "garbage",
    "garbage, registered",
    "no SOAP, registered",
    "another message, registered",
    "cut",
    "cut, registered",
    "dripping, registered",
]
GARBAGE = bytes(range(256)) * 40
_OTHER = "urn:uuid:00000000-0000-4000-8000-000000000000"


class Relay:
    """An HTTP server before the registry at `url`; `manner` may be changed at any time. It closes every connection after one answer."""

    def __init__(self, url: str) -> None:
        self.manner: Manner = "pass"
        #: For each message that is held, and when they may go.
        self.holding, self.let_go = threading.Semaphore(0), threading.Event()
        self._host = urlsplit(url).netloc
        self._ended = threading.Event()
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                relay._answer(self, relay.manner)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def relaying(self) -> Iterator[Relay]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _answer(self, asked: BaseHTTPRequestHandler, manner: Manner) -> None:
        body = _body(asked)
        if manner == "held":
            self.holding.release()
            self.let_go.wait(60)
            manner = "pass"
        status, content_type, answer = 200, "application/soap+xml", b""
        if manner == "pass" or manner.endswith("registered"):
            connection = http.client.HTTPConnection(self._host, timeout=60)
            connection.request("POST", asked.path, body, {"Content-Type": asked.headers["Content-Type"]})
            heard = connection.getresponse()
            status, content_type, answer = heard.status, heard.headers["Content-Type"], heard.read()
            connection.close()
        kind = manner.partition(",")[0]
        if kind == "silent":
            self._ended.wait(60)
            return
        if kind == "garbage":
            asked.wfile.write(GARBAGE)
            return
        if kind == "no SOAP":
            content_type, answer = "text/html", b"<html><body>503 Service Unavailable</body></html>"
        if kind == "another message":
            head, _, tail = answer.partition(b"RelatesTo>urn:uuid:")
            answer = head + b"RelatesTo>" + _OTHER.encode() + tail[36:]
        asked.send_response_only(status)
        asked.send_header("Content-Type", content_type)
        asked.send_header("Content-Length", str(max(len(answer), 100)))
        asked.end_headers()
        if kind == "dripping":
            for at in range(len(answer)):
                asked.wfile.write(answer[at : at + 1])
                asked.wfile.flush()
                if self._ended.wait(0.2):
                    return
        asked.wfile.write(answer[: len(answer) // 2] if kind == "cut" else answer)


def _body(asked: BaseHTTPRequestHandler) -> bytes:
    """The request's body, of a known length or in chunks."""
    if "Content-Length" in asked.headers:
        return asked.rfile.read(int(asked.headers["Content-Length"]))
    found = b""
    while size := int(asked.rfile.readline(), 16):
        found += asked.rfile.read(size)
        asked.rfile.readline()
    asked.rfile.readline()
    return found
