"""A web server on this machine that plays an archive, a literature service or a chat model."""

import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    """What was asked: ``parameters`` are those of the address and of a submitted form."""

    method: str
    path: str
    parameters: dict
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Reply:
    """What is answered; ``cut`` sends only so many bytes of the body and hangs up."""

    body: object = b""  # bytes, str, or what becomes JSON
    status: int = 200
    type: str = "application/json"
    headers: dict = field(default_factory=dict)
    cut: int | None = None
    delay: float = 0.0


@contextlib.contextmanager
def serving(answer):
    """Address of a server for which ``answer(request)`` gives each Reply, and the requests so far.

    Instead of a function a list of replies can be given, which are sent in turn.
    """
    requests, lock = [], threading.Lock()
    if not callable(answer):
        replies = list(answer)
        answer = lambda request: replies.pop(0)  # noqa: E731

    class Handler(BaseHTTPRequestHandler):
        def _serve(self):
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            url = urlsplit(self.path)
            form = body.decode("latin-1") if "form-urlencoded" in (
                self.headers["Content-Type"] or "") else ""
            parameters = {k: v[-1] for part in (url.query, form)
                          for k, v in parse_qs(part).items()}
            request = Request(self.command, url.path, parameters,
                              {k.lower(): v for k, v in self.headers.items()}, body)
            with lock:
                requests.append(request)
                reply = answer(request)
            time.sleep(reply.delay)
            data = reply.body
            if not isinstance(data, bytes):
                data = (data if isinstance(data, str) else json.dumps(data)).encode()
            with contextlib.suppress(ConnectionError):  # a client that has given up
                self.send_response(reply.status)
                headers = {"Content-Type": reply.type, "Content-Length": len(data)}
                for name, value in (headers | reply.headers).items():
                    self.send_header(name, str(value))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data[:reply.cut])

        do_GET = do_POST = do_HEAD = _serve

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
