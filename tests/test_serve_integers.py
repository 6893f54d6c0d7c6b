"""`serve --engine int8`: what rounding costs, and reading on from a cache."""

import threading

import jax
import numpy as np
import pytest
from tasks import TINY

from arch import build_model
from arch.initial import draw_parameters
from jaxnas.data.tokenizer import train_tokenizer
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import load_model, save_model
from jaxnas.serving.completer import Completer
from jaxnas.serving.integers import IntegerModel
from jaxnas.serving.protocol import completion_request
from jaxnas.training.loop import logits_of

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("integers") / "model"
    tokenizer = train_tokenizer(["def f(x):\n    return x\n"], TINY.vocab_size)
    params = draw_parameters(build_model(TINY), jax.random.key(0))
    save_model(folder, TINY, params, tokenizer)
    return folder


def test_logits_are_near_and_a_cut_cache_reads_on(model):
    loaded = load_model(model)
    integers = IntegerModel(model, loaded)
    first, second = [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 9, 8]
    integers.read(first)
    found = integers.read(second)
    again = IntegerModel(model, loaded).read(second)
    np.testing.assert_allclose(found, again, rtol=0, atol=0.02 * np.ptp(again))
    network = build_model(loaded.config)
    exact = logits_of(network, loaded.params, np.asarray([second]))[0, -1]
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.03 * np.ptp(exact))


def test_what_compiles_ahead_reads_in_another_place(model):
    """The text that is being completed goes on as if nothing else was read."""
    body = {"prompt": "def f(x):", "max_tokens": 16, "temperature": 0}
    request, never = completion_request(body), float("inf")
    whole = "".join(Completer(model, 64, "int8").complete(request, never))
    completer, stop = Completer(model, 64, "int8"), threading.Event()
    stop.set()  # after one program
    pieces = completer.complete(request, never)
    first = next(pieces)
    completer.warm(stop)
    rest = list(pieces)
    assert rest
    assert first + "".join(rest) == whole


def test_auto_takes_it_and_int8_refuses_what_it_cannot(model, monkeypatch):
    assert Completer(model, 512, "auto").engine == "int8"
    monkeypatch.setattr(
        "jaxnas.serving.completer.missing", lambda config: "no such package"
    )
    assert Completer(model, 512, "auto").engine == "float32"
    with pytest.raises(UsageError, match=r"--engine int8 cannot serve .*no such"):
        Completer(model, 512, "int8")


def test_a_graph_that_would_be_too_large_is_said(model, monkeypatch):
    monkeypatch.setattr("jaxnas.serving.integers.MOST_PARAMETERS", 100)
    with pytest.raises(UsageError, match=r"parameters are more than 100"):
        Completer(model, 512, "int8")
