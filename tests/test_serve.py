"""`serve`: what an editor asks for, many at once, and what nobody should ask."""

import concurrent.futures
import contextlib
import dataclasses
import http.client
import json
import random
import socket
import threading
import time

import jax
import numpy as np
import pytest
from tasks import TINY

import jaxnas.serving.server as module
from arch import build_model
from arch.decoding.generate import Generated
from arch.decoding.generate import generate as generate_tokens
from arch.decoding.sampling import GREEDY
from arch.decoding.unrolled import unstack
from arch.initial import draw_parameters
from jaxnas.commands.generate import main as generate
from jaxnas.data.fim import fim_ids, with_fim
from jaxnas.data.tokenizer import train_tokenizer
from jaxnas.export.model_folder import load_model, save_model
from jaxnas.run import main
from jaxnas.serving.completer import Completer, line_behind
from jaxnas.serving.pieces import _held_back, pieces
from jaxnas.serving.protocol import (
    STOP_LENGTH,
    BadRequest,
    Request,
    completion_request,
    infill_request,
)
from jaxnas.serving.server import Bounds, Server

CODE = ["def f(x):\n    return x\n", "import os\nprint(os.getcwd())\n"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Untrained, of 12 positions: what is drawn is noise, but the same each time."""
    folder = tmp_path_factory.mktemp("serve") / "model"
    tokenizer = train_tokenizer(CODE, TINY.vocab_size)
    save_model(
        folder, TINY, draw_parameters(build_model(TINY), jax.random.key(0)), tokenizer
    )
    return folder


@contextlib.contextmanager
def serving(model, token=None, seconds=60.0):
    server = Server(
        ("127.0.0.1", 0), model, Completer(model, 512), Bounds(seconds, token)
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def server(model):
    with serving(model) as server:
        yield server


def ask(server, path, body=None, headers=None):
    """Status and JSON of a GET, or a POST of a body."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    with contextlib.closing(connection):
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, raw, headers or {})
        answer = connection.getresponse()
        text = answer.read()
        if answer.headers["Content-Type"] == "application/json":
            return answer.status, json.loads(text)
        return answer.status, text.decode()


def test_health_and_the_model(server):
    assert ask(server, "/health") == (200, {"status": "ok", "engine": "float32"})
    status, models = ask(server, "/v1/models")
    assert (status, models["data"][0]["id"][-6:]) == (200, "/model")


def test_a_completion_is_what_generate_writes(server, model, capsysbinary):
    generate([str(model), "--prompt", "def ", "--greedy", "--max-new", "5"])
    wanted = capsysbinary.readouterr().out.decode().removesuffix("\n")
    body = {"prompt": "def ", "temperature": 0, "max_tokens": 5}
    status, found = ask(server, "/v1/completions", body)
    assert status == 200
    assert found["choices"][0]["text"] == wanted
    assert found["choices"][0]["finish_reason"] == "length"
    assert found["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 5,
        "total_tokens": 9,
    }


@pytest.mark.parametrize("path", ["/v1/completions", "/infill"])
def test_a_stream_is_the_same_text(server, path):
    body = {"prompt": "def ", "temperature": 0.7, "seed": 5, "top_k": 9}
    _, whole = ask(server, path, body)
    status, text = ask(server, path, body | {"stream": True})
    assert status == 200
    events = [one.removeprefix("data: ") for one in text.split("\n\n") if one]
    if path == "/infill":
        pieces = [json.loads(event)["content"] for event in events]
        assert "".join(pieces) == whole["content"]
        assert json.loads(events[-1])["stop"] is True
    else:
        assert events.pop() == "[DONE]"
        pieces = [json.loads(event)["choices"][0]["text"] for event in events]
        assert "".join(pieces) == whole["choices"][0]["text"]


def test_a_long_file_is_read_from_its_end(server):
    """The model has 12 positions: half for what stands before, half for what comes."""
    body = {"input_prefix": "x = 1\n" * 500, "n_predict": 50}
    status, found = ask(server, "/infill", body)
    assert (status, found["tokens_evaluated"]) == (200, 6)
    assert found["tokens_predicted"] == 6


def test_an_infill_ends_before_the_line_behind(model):
    completer = Completer(model, 512)
    request = Request(before="def ", max_new=6, sampling=infill_request({}).sampling)
    free = "".join(completer.complete(request, time.monotonic() + 60))
    assert len(free) > 3
    with pytest.MonkeyPatch.context() as patch:
        # Whatever the noise is, the line behind the cursor is the end of it.
        patch.setattr("jaxnas.serving.completer.line_behind", lambda text: "line")
        patch.setattr("jaxnas.serving.completer.pieces", cut_at_two)
        request = dataclasses.replace(request, after="\nline\n")
        found = "".join(completer.complete(request, time.monotonic() + 60))
    assert found == free[:2]
    assert completer.counts.reason == "stop"


def cut_at_two(parts, tokenizer, stops, prompt, line):
    assert line == "line"
    yield "".join(pieces(parts, tokenizer, stops, prompt))[:2]


@pytest.mark.parametrize(
    ("drawn", "text"),
    [
        ("y\n    x = 1\nz", "y"),
        ("y\r\n    x = 1\r\nz", "y\r"),
        ("y\n    x = 1", "y"),
        ("y\n    x = 10", "y\n    x = 10"),
        ("y\n    x = 10\n    x = 1\n", "y\n    x = 10"),
        ("    x = 1\n", "    x = 1\n"),
        ("y\n    x =", "y\n    x ="),
    ],
)
def test_a_line_ends_a_text_where_it_is_a_whole_one(drawn, text):
    tokenizer = train_tokenizer(["ab"], 257)
    ids = np.array([tokenizer.encode(drawn).ids])
    parts = [Generated(ids, np.array([size + 1])) for size in range(ids.size)]
    found = list(pieces(iter(parts), tokenizer, (), (), "    x = 1"))
    assert "".join(found) == text


@pytest.mark.parametrize(
    ("after", "line"),
    [
        (")\n\n    x = 1  \ny", "    x = 1"),
        (")", ""),
        (")\n\n}\n", ""),
        (")\n" + "x" * STOP_LENGTH, "x" * STOP_LENGTH),
        (")\n" + "x" * (STOP_LENGTH + 1), ""),
    ],
)
def test_the_next_line_that_says_something_ends_a_completion(after, line):
    assert line_behind(after) == line


def test_a_long_stop_is_not_compared_at_every_length():
    began = time.monotonic()
    assert _held_back("xa", ["a" * 10**6]) == 1
    assert time.monotonic() - began < 5


def test_eight_at_once(server):
    def one(number):
        body = {"prompt": f"def f{number}", "max_tokens": 4, "seed": number}
        return ask(server, "/v1/completions", body)[0]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(8))) == [200] * 8


def request_of(path, **body):
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nContent-Length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


def wait_for(holds):
    """Waits for something to happen, 20 seconds at most."""
    end = time.monotonic() + 20
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    assert holds()


@contextlib.contextmanager
def watched(model, monkeypatch):
    """A server that draws without an end, what it does, and what it cannot handle."""
    with serving(model) as server:
        done, raised = [], []

        def complete(request, until):
            done.append("begun")
            try:
                while True:
                    yield "x"
                    time.sleep(0.01)
            finally:
                done.append("in turn" if server.drawing.locked() else "out of turn")

        close = server.shutdown_request

        def closed(line):
            close(line)
            done.append("closed")

        monkeypatch.setattr(server.completer, "complete", complete)
        monkeypatch.setattr(server, "handle_error", lambda *_: raised.append(_))
        monkeypatch.setattr(server, "shutdown_request", closed)
        yield server, done
        assert raised == []


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_drawn_for_a_client_that_is_gone(model, monkeypatch, stream):
    """Its completion ends before the turn does: the next one has what was read."""
    with watched(model, monkeypatch) as (server, done):
        with socket.create_connection(server.server_address[:2], timeout=10) as line:
            line.sendall(request_of("/infill", prompt="a", stream=stream))
            wait_for(lambda: done)
        wait_for(lambda: "closed" in done)
        assert done == ["begun", "in turn", "closed"]


def test_a_client_that_goes_while_it_waits_has_no_turn(model, monkeypatch):
    with watched(model, monkeypatch) as (server, done):
        with (
            server.drawing,
            socket.create_connection(server.server_address[:2], timeout=10) as line,
        ):
            line.sendall(request_of("/infill", prompt="a"))
            wait_for(lambda: server.places._value == module.WAITING)
        wait_for(lambda: done)
        assert done == ["closed"]


@pytest.mark.parametrize("path", ["/health", "/none"])
def test_an_answer_that_nobody_takes_is_no_error(model, monkeypatch, path):
    def gone(*_):
        raise BrokenPipeError

    with watched(model, monkeypatch) as (server, done):
        monkeypatch.setattr(module._Handler, "_send", gone)
        with pytest.raises(http.client.RemoteDisconnected):
            ask(server, path)
        with pytest.raises(http.client.RemoteDisconnected):
            ask(server, path, {})
        wait_for(lambda: done == ["closed"] * 2)


def test_one_draws_and_sixteen_wait(server):
    places = server.places
    wait_for(lambda: places._value == module.WAITING + 1)  # all others have ended
    taken = [places for _ in range(40) if places.acquire(blocking=False)]
    for one in taken:
        one.release()
    assert len(taken) == 1 + module.WAITING == 17


def test_time_and_turns_are_bounded(model, monkeypatch):
    with serving(model, seconds=0.2) as server:
        with server.drawing:  # someone else's turn, for ever
            assert ask(server, "/infill", {"prompt": "a"})[0] == 503
        monkeypatch.setattr(server, "places", threading.BoundedSemaphore(1))
        with server.places:
            assert ask(server, "/infill", {"prompt": "a"})[0] == 503
        assert ask(server, "/health")[0] == 200


def test_the_token_is_asked_for(model):
    with serving(model, token="sesame") as server:
        body = {"prompt": "a", "max_tokens": 1}
        for given in ({}, {"Authorization": "Bearer other"}):
            assert ask(server, "/v1/completions", body, given)[0] == 401
        right = {"Authorization": "Bearer sesame"}
        assert ask(server, "/v1/completions", body, right)[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/none", {}, 404, "no /none here"),
        ("/infill", b"{", 400, "no JSON"),
        ("/infill", b"[" * 100_000, 400, "no JSON"),
        ("/infill", b"\xff", 400, "not UTF-8"),
        ("/infill", [], 400, "no JSON object"),
        ("/infill", {"input_prefix": 1}, 400, "input_prefix must be a text"),
        ("/infill", {"prompt": "\ud800"}, 400, "no Unicode"),
        ("/infill", {"n_predict": 10**400}, 400, "n_predict"),
        ("/infill", {"temperature": -1}, 400, "temperature"),
        ("/infill", {"temperature": "hot"}, 400, "temperature"),
        ("/infill", {"t_max_predict_ms": -5}, 400, "t_max_predict_ms"),
        ("/v1/completions", {"prompt": ["a", "b"]}, 400, "prompt must be a text"),
        ("/v1/completions", {"n": 3}, 400, "n=3 must be 1"),
        ("/v1/completions", {"suffix": 1}, 400, "suffix must be a text"),
        ("/v1/completions", {"echo": True}, 400, "echo=True must be false"),
        ("/v1/completions", {"logprobs": 5}, 400, "logprobs=5 must be false"),
        ("/v1/completions", {"logit_bias": {"5": 9}}, 400, "must be {}"),
        ("/v1/completions", {"frequency_penalty": 0.5}, 400, "must be 0"),
        ("/v1/completions", {"presence_penalty": 1}, 400, "must be 0"),
        ("/infill", {"repeat_penalty": 1.1}, 400, "repeat_penalty=1.1 must be 1"),
        ("/infill", {"stop": ["a" * 501]}, 400, "stop must have at most 500"),
        ("/v1/completions", {"top_p": 0}, 400, "top_p"),
        ("/v1/completions", {"stop": ["a"] * 99}, 400, "stop must be"),
        ("/v1/completions", {"stream": "yes"}, 400, "stream"),
    ],
)
def test_what_cannot_be_used_is_one_line(server, path, body, status, said):
    found, answer = ask(server, path, body)
    assert (found, answer["error"]["code"]) == (status, status)
    assert said in answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]


def test_what_asks_for_nothing_is_let_pass():
    """What llama.vscode sends with each request, and the defaults of others."""
    editor = {
        "input_extra": [{"filename": "a.py", "text": "x"}],
        "samplers": ["top_k", "top_p", "infill"],
        "cache_prompt": True,
        "n_indent": 4,
        "t_max_prompt_ms": 500,
        "response_fields": ["content"],
    }
    neutral = {"n": 1, "best_of": 1, "echo": False, "logprobs": None, "logit_bias": {}}
    neutral |= {"frequency_penalty": 0.0, "presence_penalty": 0, "repeat_penalty": 1.0}
    for values in (editor, neutral, dict.fromkeys(neutral)):
        assert infill_request(values | {"seed": 1}) == infill_request({"seed": 1})


def test_a_suffix_stands_behind_the_cursor():
    asked = completion_request({"prompt": "def f(", "suffix": "):\n    pass"})
    assert (asked.before, asked.after) == ("def f(", "):\n    pass")
    assert completion_request({"suffix": None}).after == ""


def test_nothing_is_drawn_of_no_tokens(server):
    """llama.vim asks so to have other files read ahead."""
    status, found = ask(server, "/infill", {"prompt": "a", "n_predict": 0})
    assert (status, found["content"], found["tokens_predicted"]) == (200, "", 0)


def test_without_a_seed_each_text_is_another(server):
    def text(**more):
        body = {"prompt": "def ", "max_tokens": 6, "temperature": 1.5, **more}
        return ask(server, "/v1/completions", body)[1]["choices"][0]["text"]

    for more in ({}, {"seed": None}, {"seed": -1}):
        assert len({text(**more) for _ in range(5)}) > 1
    assert len({text(seed=0) for _ in range(3)}) == 1


def test_bodies_are_bounded(server, monkeypatch):
    monkeypatch.setattr(module, "BODY", 100)
    assert ask(server, "/infill", {"prompt": "a" * 200})[0] == 413


def test_raw_noise_does_not_stop_it(server):
    rng = random.Random(0)
    for _ in range(100):
        noise = rng.randbytes(rng.randrange(1, 200))
        if rng.random() < 0.5:
            head = f"POST /infill HTTP/1.1\r\nContent-Length: {len(noise)}\r\n\r\n"
            noise = head.encode() + noise
        with socket.create_connection(server.server_address[:2], timeout=10) as one:
            one.sendall(noise)
            one.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while one.recv(4096):
                    pass
    assert ask(server, "/health") == (200, {"status": "ok", "engine": "float32"})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--host", "0.0.0.0"], "give a --token"),
        (["--port", "99999"], "--port 99999"),
        (["--context", "0"], "--context 0"),
        (["--timeout", "-1"], "--timeout -1"),
        (["--host", "256.1.1.1", "--token", "x"], "cannot serve at"),
    ],
)
def test_bad_flags_are_one_line(model, capsys, more, said):
    assert main(["serve", str(model), *more]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


def test_a_request_that_says_nothing_is_greedy_infill():
    assert infill_request({}).sampling.temperature == 0
    with pytest.raises(BadRequest):
        infill_request({"t_max_predict_ms": True})


def test_special_tokens_are_text_unless_they_are_asked_for(tmp_path):
    config = dataclasses.replace(TINY, vocab_size=300, position_encoding="alibi")
    tokenizer = with_fim(train_tokenizer(CODE * 40, 300))
    params = draw_parameters(build_model(config), jax.random.key(0))
    save_model(tmp_path, config, params, tokenizer)
    text, special = "<|endoftext|>def ", tokenizer.token_to_id("<|endoftext|>")
    asked = Request(before=text, max_new=3, sampling=GREEDY)
    plain, chat = (Completer(tmp_path, 40, special=on) for on in (False, True))
    assert special not in plain._prompt(asked)[0]
    ids, _ = chat._prompt(asked)
    assert ids == [special, *tokenizer.encode("def ").ids]
    # What stands in a file is text: an editor knows of no special tokens.
    filling = dataclasses.replace(asked, plain=True)
    assert chat._prompt(filling) == plain._prompt(filling)
    drawn = "".join(chat.complete(asked, time.monotonic() + 60))
    assert chat.counts.prompt == len(ids)
    assert "<|endoftext|>" not in drawn


def test_an_infill_reads_both_sides_if_the_model_learned_to(tmp_path):
    config = dataclasses.replace(TINY, vocab_size=300, position_encoding="alibi")
    tokenizer = with_fim(train_tokenizer(CODE * 40, 300))
    assert tokenizer.get_vocab_size() < 300
    params = draw_parameters(build_model(config), jax.random.key(0))
    save_model(tmp_path, config, params, tokenizer)
    completer = Completer(tmp_path, 40)
    prefix, suffix, middle = fim_ids(tokenizer)
    before, after = "def f(x):\n    return ", "\nimport os\n"
    ids, most = completer._prompt(Request(before=before, after=after, max_new=9))
    encode = lambda text: tokenizer.encode(text).ids
    assert ids == [prefix, *encode(before), suffix, *encode(after), middle]
    assert most == 9
    ids, _ = completer._prompt(Request(before=before * 50, after=after * 50))
    assert len(ids) == 40
    before_it = ids.index(suffix) - 1
    assert 28 - 14 < before_it <= 28  # a quarter is behind; it moves in steps of 14
    grown, _ = completer._prompt(Request(before=before * 50 + ")", after=after * 50))
    assert grown[:before_it] == ids[:before_it]
    plain, _ = completer._prompt(Request(before=before, max_new=9))
    assert plain == encode(before)
    # The text is what was drawn behind the middle token, and nothing of the prompt.
    request = Request(before=before, after="\nx", max_new=6, sampling=GREEDY)
    text = "".join(completer.complete(request, time.monotonic() + 60))
    drawn = generate_tokens(
        jax.random.key(0),
        config,
        unstack(load_model(tmp_path).params),
        [completer._prompt(request)[0]],
        max_new=6,
        stop_tokens=[0],
    )
    length = int(drawn.lengths[0])
    assert text == tokenizer.decode(drawn.tokens[0, :length].tolist())
