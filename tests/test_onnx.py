"""ONNX graphs in onnxruntime against our own modules, cache and padding included."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from export_cells import TOKENS, cell, name_of, perturbed, tied
from gguf_cells import published, saved

from arch import build_model
from arch.config import ACTIVATIONS, NORMALIZATIONS, POSITION_ENCODINGS
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import CONFIG, TOKENIZER, load_codes, load_model
from jaxnas.export.onnx import decoder
from jaxnas.export.onnx.decoder import decoder_graph
from jaxnas.export.onnx.write import GRAPH, export_onnx
from jaxnas.export.rows import weights_of
from jaxnas.run import main

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SMALL = cell("transformer")


def cells():
    """Each norm with each position, and every activation, family and sharing."""
    families = itertools.cycle(
        [
            ("transformer", {}),
            ("grouped_query_attention", {"kv_heads": 2}),
            ("flash_attention", {}),
            ("grouped_query_attention", {"kv_heads": 1, "num_heads": 4}),
        ]
    )
    activations = itertools.cycle(ACTIVATIONS)
    for norm, position in itertools.product(NORMALIZATIONS, POSITION_ENCODINGS):
        family, sizes = next(families)
        yield cell(family, norm, position, next(activations), **sizes)
    yield cell("transformer", position="alibi", num_heads=6, hidden_dim=48, ffn_dim=72)
    yield tied(SMALL)


class Session:
    """A graph, and the cache of what it has read."""

    def __init__(self, config, params, codes=None):
        graph = decoder_graph(config, weights_of(config, params, codes or {}))
        content = graph.model().SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        self.session = onnxruntime.InferenceSession(content, options)
        self.config = config

    def start(self, batch):
        shape = (batch, self.config.key_value_heads, 0, self.config.head_dim)
        self.cache = {
            f"past_key_values.{layer}.{kind}": np.zeros(shape, np.float32)
            for layer in range(self.config.num_layers)
            for kind in ("key", "value")
        }
        self.mask = np.zeros((batch, 0), np.int64)

    def read(self, tokens, real=None):
        real = np.ones_like(tokens) if real is None else real
        before = self.mask.sum(axis=1, keepdims=True)
        self.mask = np.concatenate([self.mask, real], axis=1)
        positions = np.maximum(before + real.cumsum(axis=1) - 1, 0)
        feeds = {
            "input_ids": tokens,
            "attention_mask": self.mask,
            "position_ids": positions,
        }
        logits, *states = self.session.run(None, feeds | self.cache)
        self.cache = dict(zip(self.cache, states, strict=True))
        return logits


def our_logits(config, params, tokens):
    model = build_model(config)
    read = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens))
    return np.asarray(read(params, tokens))


@pytest.mark.parametrize("config", list(cells()), ids=name_of)
def test_a_graph_computes_our_function_and_reads_on(config):
    params = perturbed(config)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 24))
    wanted = our_logits(config, params, tokens)
    session = Session(config, params)
    session.start(2)
    parts = [session.read(part) for part in np.split(tokens, [8, 9, 10, 16], axis=1)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), wanted, atol=5e-5)


PUBLISHED = published() | {
    "window": dataclasses.replace(published()["starcoder2-biases"], sliding_window=5)
}


@pytest.mark.parametrize("config", PUBLISHED.values(), ids=PUBLISHED)
def test_a_graph_computes_what_was_imported_and_reads_on(config):
    params = perturbed(config)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 24))
    session = Session(config, params)
    session.start(2)
    parts = [session.read(part) for part in np.split(tokens, [8, 9, 10, 16], axis=1)]
    found, wanted = np.concatenate(parts, axis=1), our_logits(config, params, tokens)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("position", POSITION_ENCODINGS)
def test_padding_before_a_row_changes_nothing(position):
    config = cell("transformer", "layernorm", position, "gelu")
    params = perturbed(config)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocab_size, (2, 10))
    real = np.ones_like(tokens)
    real[1, :4] = 0
    session = Session(config, params)
    session.start(2)
    padded = [
        session.read(tokens[:, :7], real[:, :7]),
        session.read(tokens[:, 7:], real[:, 7:]),
    ]
    alone = our_logits(config, params, tokens[1:, 4:])
    found = np.concatenate(padded, axis=1)[1:, 4:]
    np.testing.assert_allclose(found, alone, atol=5e-5)


def test_the_folder_is_what_transformers_js_reads(tmp_path, capsys):
    folder = saved(cell("grouped_query_attention", kv_heads=2), tmp_path / "model")
    out = tmp_path / "out"
    arguments = ["export", str(folder), "--format", "onnx", "--out", str(out)]
    assert main([*arguments, "--verify"]) == 0
    printed = capsys.readouterr().out
    assert "14 of 14 greedy tokens equal" in printed
    names = {path.name for path in out.iterdir()}
    assert {CONFIG, TOKENIZER, "tokenizer_config.json", "onnx", "README.md"} <= names
    settings = json.loads((out / CONFIG).read_text())
    assert settings["num_key_value_heads"] == 2
    assert settings["num_hidden_layers"] == 2
    assert settings["eos_token_id"] == 0
    graph = onnx.load(out / GRAPH).graph
    assert [x.name for x in graph.input][:3] == [
        "input_ids",
        "attention_mask",
        "position_ids",
    ]
    assert [x.name for x in graph.output][:2] == ["logits", "present.0.key"]
    assert (out / TOKENIZER).read_text() == (folder / TOKENIZER).read_text()
    assert TOKENS.get_vocab_size() == 280


@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize(
    "config",
    [
        cell("grouped_query_attention", kv_heads=2, hidden_dim=64),
        tied(cell("transformer", "layernorm", "alibi", "gelu", hidden_dim=64)),
        cell("transformer", "layernorm", "absolute", "relu2", hidden_dim=48),
    ],
    ids=name_of,
)
def test_codes_stay_codes(tmp_path, config, quantization):
    config = dataclasses.replace(config, quantization=quantization)
    folder = saved(config, tmp_path / "model", exact=False)
    held = load_model(folder)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 12))
    wanted = our_logits(config, held.params, tokens)
    session = Session(config, held.params, load_codes(folder))
    session.start(2)
    parts = [session.read(part) for part in np.split(tokens, [8, 9], axis=1)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), wanted, atol=2e-4)


@pytest.mark.parametrize("quantization", ["fp16", "int8", "int4"])
def test_the_file_has_the_size_that_was_counted(tmp_path, quantization):
    config = cell("transformer", hidden_dim=256, quantization=quantization)
    folder = saved(config, tmp_path / "model", exact=False)
    written, agreement = export_onnx(folder, tmp_path / "out", verify=True)
    kinds = {"fp16": "float16"}
    assert written.weights == kinds.get(quantization, quantization)
    # The graph itself and its names come on top.
    assert 0 <= written.bytes - written.counted < 25_000
    assert agreement.greedy == agreement.new


@pytest.mark.parametrize("quantization", ["fp16", "int4"])
def test_what_a_file_cannot_hold_is_refused(tmp_path, monkeypatch, quantization):
    config = cell("transformer", hidden_dim=256, quantization=quantization)
    folder = saved(config, tmp_path / "model", exact=False)
    size = export_onnx(folder, tmp_path / "out")[0].counted
    monkeypatch.setattr("jaxnas.export.onnx.graph.MOST_BYTES", size - 1)
    with pytest.raises(UsageError, match="ONNX holds at most"):
        export_onnx(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_graph_that_computes_something_else_is_not_kept(
    tmp_path, monkeypatch, capsys
):
    folder = saved(SMALL, tmp_path / "model")
    in_order = lambda heads, size, _: np.arange(heads * size)
    monkeypatch.setattr(decoder, "halves", in_order)
    arguments = ["export", str(folder), "--format", "onnx", "--verify"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "onnxruntime computes another model, nothing is kept" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["mamba", "rwkv", "linear_transformer"])
def test_what_is_no_softmax_attention_is_refused(tmp_path, family):
    folder = saved(cell(family), tmp_path / "model")
    with pytest.raises(UsageError, match=f"arch_type='{family}'"):
        export_onnx(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ours", "--format", "onnx"], "are required: --out"),
        (["ours", "--format", "onnx", "--out", "ours"], "ours is not empty"),
        (["ours", "--format", "onnx", "--out", "x", "--type", "f16"], "--type is for"),
        (["c.json", "--format", "onnx", "--out", "x"], "needs a model's folder"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    saved(SMALL, tmp_path / "ours")
    (tmp_path / "c.json").write_text(SMALL.to_json())
    try:
        code = main(["export", *arguments])
    except SystemExit as stopped:  # the parser's own
        code = stopped.code
    printed = capsys.readouterr()
    assert code == 2
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"ours", "c.json"}
