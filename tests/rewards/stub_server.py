"""A local server that answers as it is told, and notes what it was asked."""

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Stub:
    """What the server is told and what it saw.

    Args:
        reply: from the request's JSON (and the number of requests before it) to (status, JSON or text, headers).
    """

    def __init__(self, reply: Callable[[Any, int], tuple]) -> None:
        self.reply, self.seen, self.headers = reply, [], []
        self.under_way = self.most_at_once = 0
        self.lock = threading.Lock()
        self.url = ""

    def handle(self, body: Any, headers: dict[str, str]) -> tuple:
        with self.lock:
            before = len(self.seen)
            self.seen.append(body)
            self.headers.append(headers)
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            return self.reply(body, before)
        finally:
            with self.lock:
                self.under_way -= 1


@contextmanager
def serving(reply: Callable[[Any, int], tuple]):
    """A `Stub` that serves until the end of the block."""
    stub = Stub(reply)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer, *more = stub.handle(body, {k.lower(): v for k, v in self.headers.items()})
            raw = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            try:
                self.send_response(status)
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client had enough of waiting

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def chat(text: str, likely: list[dict[str, float]] | None = None, tokens: list[str] | None = None, **message) -> dict:
    """A chat completion; `likely` has the alternatives of each of `tokens` (the whole text by default)."""
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    if likely is not None:
        names = tokens or [text]
        choice["logprobs"] = {
            "content": [
                {"token": t, "logprob": alternatives.get(t, -99.0),
                 "top_logprobs": [{"token": a, "logprob": p} for a, p in alternatives.items()]}
                for t, alternatives in zip(names, likely, strict=True)
            ]
        }  # fmt: skip
    return {"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 2}}
