"""Requests to `serve` with mistakes in them: an answer or a closed line, no crash."""

import contextlib
import json
import socket

import pytest
from fuzzing import fuzz, json_text, spoilt
from hypothesis import given
from hypothesis import strategies as st
from test_serve import ask, model, serving  # noqa: F401

SOUND = {
    "/v1/completions": {
        "prompt": "def f(x):",
        "max_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "min_p": 0.1,
        "stop": ["\n"],
        "seed": 1,
        "n": 1,
        "stream": False,
    },
    "/infill": {
        "input_prefix": "def f(",
        "input_suffix": "):\n    pass",
        "prompt": "x",
        "n_predict": 3,
        "t_max_predict_ms": 500,
        "stream": True,
    },
}


@pytest.fixture(scope="module")
def server(model):  # noqa: F811
    with serving(model, seconds=5.0) as server:
        raised = []
        server.handle_error = lambda *_: raised.append(_)
        yield server
        assert raised == []


def exchanged(server, raw, whole):
    """What comes back for these bytes, until the line is closed.

    Where they are no whole request the server is told that no more will come.
    """
    with socket.create_connection(server.server_address[:2], timeout=20) as line:
        line.sendall(raw)
        if not whole:
            line.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := line.recv(65536):
                answer += piece
        return answer


def request_of(path, body):
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_without_mistakes_all_are_answered(server):
    for path, body in SOUND.items():
        assert ask(server, path, body)[0] == 200


@fuzz(60)
@given(st.data())
def test_a_body(server, data):
    path = data.draw(st.sampled_from(list(SOUND)))
    body = data.draw(json_text(SOUND[path]) | spoilt(json.dumps(SOUND[path]).encode()))
    answer = exchanged(server, request_of(path, body), whole=True)
    status = int(answer.split()[1])
    assert status in (200, 400), answer
    if status == 400:
        said = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
        assert said
        assert "\n" not in said
        assert len(said) < 500


@fuzz(60)
@given(st.data())
def test_a_head(server, data):
    path = data.draw(st.sampled_from([*SOUND, "/health", "/v1/models"]))
    whole = request_of(path, json.dumps(SOUND.get(path, {})).encode())
    answer = exchanged(server, data.draw(spoilt(whole)), whole=False)
    assert answer[:5] in (b"HTTP/", b"", b"<!DOC", b"<!doc")
    assert b"Traceback" not in answer
    assert ask(server, "/health") == (200, {"status": "ok", "engine": "float32"})
