"""The HTTP side: OpenAI's completions and llama.cpp's infill, bounded everywhere.

One completion is drawn at a time; those that wait are bounded in number, bodies in
size, and every completion in time.
"""

import contextlib
import hmac
import http
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxnas.serving.completer import Completer
from jaxnas.serving.protocol import (
    BadRequest,
    Request,
    completion_request,
    infill_request,
    read_json,
)
from jaxnas.storage.jsonl import Json

BODY = 2**22  # bytes of a request, at most
WAITING = 16  # requests, at most, beside the one that is drawn for
SLOW = 30.0  # seconds that a client may take to send


class Bounds(NamedTuple):
    """What the server is started with.

    Attributes:
      seconds: of a completion, at most; also of waiting for one's turn.
      token: that a request must carry, None for none.
    """

    seconds: float
    token: str | None


class Server(http.server.ThreadingHTTPServer):
    """Serves one model; `begin` it, then `serve_forever`."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        model: Path,
        completer: Completer,
        bounds: Bounds,
    ) -> None:
        """Binds the address; `model` is the folder, whose name the model has."""
        self._stop = threading.Event()  # what closes a server that binds nothing, too
        super().__init__(address, _Handler)
        resolved = model.resolve()
        self.model = "/".join(resolved.parts[-2:])
        self.completer, self.bounds = completer, bounds
        self.drawing = threading.Lock()
        self.places = threading.BoundedSemaphore(WAITING + 1)

    def begin(self) -> None:
        """Compiles in the background what will be asked for."""
        warm = self.completer.warm
        threading.Thread(target=warm, args=(self._stop,), daemon=True).start()

    def server_close(self) -> None:
        """Also ends what compiles in the background, as soon as it can."""
        self._stop.set()
        super().server_close()


class _Refused(Exception):
    """Status and reason."""

    def __init__(self, status: http.HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = SLOW

    def handle(self) -> None:
        """Answers one request after the other, until the client is gone."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """`/health` and `/v1/models`."""
        if self.path in ("/health", "/v1/health"):
            self._send({"status": "ok", "engine": self.server.completer.engine})
        elif self.path in ("/v1/models", "/models"):
            one = {"id": self.server.model, "object": "model", "owned_by": "jaxnas"}
            self._send({"object": "list", "data": [one]})
        else:
            self._refuse(http.HTTPStatus.NOT_FOUND, f"no {self.path[:100]} here")

    def do_POST(self) -> None:
        """`/v1/completions` and `/infill`."""
        routes: dict[str, tuple[Callable, Callable]] = {
            "/v1/completions": (completion_request, self._as_openai),
            "/completions": (completion_request, self._as_openai),
            "/infill": (infill_request, self._as_llama),
        }
        try:
            body = self._body()
            if self.path not in routes:
                reason = f"no {self.path[:100]} here"
                raise _Refused(http.HTTPStatus.NOT_FOUND, reason)
            self._authorised()
            read, answer = routes[self.path]
            request = read(read_json(body))
            complete = self.server.completer.complete
            # Closed within the turn: the next one goes on from what was read.
            with (
                _Turn(self.server) as until,
                contextlib.closing(complete(request, until)) as pieces,
            ):
                answer(request, self._while_there(pieces))
        except BadRequest as error:
            self._refuse(http.HTTPStatus.BAD_REQUEST, str(error))
        except _Refused as error:
            self._refuse(error.status, str(error))

    def _while_there(self, pieces: Iterator[str]) -> Iterator[str]:
        """The pieces, as long as the client is there.

        Raises:
          ConnectionError: it is gone, perhaps before its turn.
        """
        self._check_client()
        for piece in pieces:
            self._check_client()
            yield piece

    def _check_client(self) -> None:
        """Raises a ConnectionError if the client has closed its side."""
        self.connection.settimeout(0)
        try:
            if not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionAbortedError("the client is gone")
        except BlockingIOError:  # it has no more to say, and waits
            pass
        finally:
            self.connection.settimeout(self.timeout)

    def _body(self) -> bytes:
        """The request's body; one that is too long is not read."""
        text = self.headers.get("Content-Length", "")
        if not text.isascii() or not text.isdigit() or len(text) > 19:
            self.close_connection = True
            raise _Refused(http.HTTPStatus.LENGTH_REQUIRED, "no Content-Length")
        if int(text) > BODY:
            self.close_connection = True
            reason = f"the body has more than {BODY} bytes"
            raise _Refused(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        return self.rfile.read(int(text))

    def _authorised(self) -> None:
        token = self.server.bounds.token
        given = self.headers.get("Authorization", "").encode()
        if token and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            reason = "the token is missing or wrong"
            raise _Refused(http.HTTPStatus.UNAUTHORIZED, reason)

    def _as_openai(self, request: Request, pieces: Iterator[str]) -> None:
        def answer(text: str, reason: str | None) -> Json:
            choice = {
                "index": 0,
                "text": text,
                "logprobs": None,
                "finish_reason": reason,
            }
            return {
                "id": f"cmpl-{time.monotonic_ns()}",
                "object": "text_completion",
                "created": int(time.time()),
                "model": self.server.model,
                "choices": [choice],
            }

        if request.stream:
            self._stream(answer(piece, None) for piece in pieces)
            self._event(answer("", self.server.completer.counts.reason))
            self._event("[DONE]")
            return
        text = "".join(pieces)
        counts = self.server.completer.counts
        usage = {
            "prompt_tokens": counts.prompt,
            "completion_tokens": counts.drawn,
            "total_tokens": counts.prompt + counts.drawn,
        }
        self._send(answer(text, counts.reason) | {"usage": usage})

    def _as_llama(self, request: Request, pieces: Iterator[str]) -> None:
        if request.stream:
            self._stream({"content": piece, "stop": False} for piece in pieces)
        text = "" if request.stream else "".join(pieces)
        counts = self.server.completer.counts
        last = {
            "content": text,
            "stop": True,
            "model": self.server.model,
            "tokens_predicted": counts.drawn,
            "tokens_evaluated": counts.prompt,
            "stop_type": "limit" if counts.reason == "length" else "eos",
        }
        self._event(last) if request.stream else self._send(last)

    def _stream(self, events: Iterator[Json]) -> None:
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for event in events:
            self._event(event)

    def _event(self, event: Json | str) -> None:
        text = event if isinstance(event, str) else json.dumps(event)
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def _refuse(self, status: http.HTTPStatus, reason: str) -> None:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        error = {"message": reason, "type": kind, "code": int(status)}
        self._send({"error": error}, status)

    def _send(self, answer: Json, status: http.HTTPStatus = http.HTTPStatus.OK) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: an editor asks many times a minute."""


class _Turn:
    """The turn to draw: until when, inside the block.

    Raises:
      _Refused: too many wait, or this one waited too long.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def __enter__(self) -> float:
        server, busy = self._server, http.HTTPStatus.SERVICE_UNAVAILABLE
        if not server.places.acquire(blocking=False):
            raise _Refused(busy, f"{WAITING} requests are waiting: try again later")
        if not server.drawing.acquire(timeout=server.bounds.seconds):
            server.places.release()
            raise _Refused(busy, "the model was busy for too long: try again later")
        return time.monotonic() + server.bounds.seconds

    def __exit__(self, *_: object) -> None:
        self._server.drawing.release()
        self._server.places.release()
