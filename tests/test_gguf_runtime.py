"""GGUF files in llama.cpp itself, where the package `xllamacpp` is installed."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from export_cells import TOKENS, cell, perturbed
from gguf_cells import GELU, expected_architecture, models, published, saved

from arch import build_model
from arch.initial import draw_parameters
from arch.layers import activations
from jaxnas.data import load_tokenizer, train_tokenizer
from jaxnas.export.llama_cpp import architectures, export_gguf, write
from jaxnas.export.llama_cpp.read import import_gguf
from jaxnas.export.llama_cpp.tokens import RULES
from jaxnas.export.llama_cpp.verify import LIMIT, TEXTS, verify
from jaxnas.export.model_folder import load_model, save_model
from jaxnas.run import main

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

MODELS = models(max_seq_length=96) | {
    "llama-flash": cell("flash_attention", max_seq_length=96),
    "gpt2-grouped": cell(
        "grouped_query_attention", "layernorm", "absolute", "gelu", kv_heads=2
    ),
    "gpt2-wide": cell("transformer", "layernorm", "absolute", "gelu", ffn_dim=72),
    # Slopes of a count that is no power of two, and another hidden layer.
    "mpt-odd": cell(
        "transformer",
        "layernorm",
        "alibi",
        "gelu",
        num_heads=6,
        hidden_dim=48,
        ffn_dim=72,
    ),
    "refact-odd": cell(
        "grouped_query_attention",
        position="alibi",
        num_heads=6,
        hidden_dim=48,
        kv_heads=3,
    ),
    "mamba-one-layer": cell("mamba", num_layers=1),
}


def ggml_gelu(x):
    """GELU of llama.cpp on a CPU: the tanh form, from a table of fp16 numbers.

    ggml/src/ggml-cpu/vec.h: below -10 it is 0, above 10 the number itself.
    """
    rounded = x.astype(jnp.float16).astype(jnp.float32)
    table = jax.nn.gelu(rounded, approximate=True).astype(jnp.float16)
    inside = table.astype(jnp.float32)
    return jnp.where(x <= -10, 0.0, jnp.where(x >= 10, x, inside))


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_computes_our_function(tmp_path, monkeypatch, name):
    config = MODELS[name]
    folder = saved(config, tmp_path / "model")
    file = tmp_path / "out.gguf"
    export_gguf(folder, file)
    verified = verify(folder, file, file)
    assert verified.texts == len(TEXTS)
    found = verified.file
    assert found.greedy == found.new >= 14
    if expected_architecture(config) not in GELU:
        assert found.difference < 5e-5
        return
    assert found.difference < LIMIT
    # Most of that is of its table; what is left, of numbers on the edge of two.
    monkeypatch.setattr(activations, "gelu", ggml_gelu)
    assert verify(folder, file, file).file.difference < found.difference / 2


PUBLISHED = published(max_seq_length=96)


@pytest.mark.parametrize("name", PUBLISHED)
def test_llama_cpp_computes_what_was_imported(tmp_path, name):
    config = PUBLISHED[name]
    folder, file = saved(config, tmp_path / "model"), tmp_path / "out.gguf"
    assert export_gguf(folder, file).architecture == name.partition("-")[0]
    verified = verify(folder, file, file)
    assert verified.texts == len(TEXTS)
    assert verified.file.greedy == verified.file.new == 16
    # Where it is GELU, from a table of fp16 numbers.
    limit = 3e-3 if config.activation in ("gelu", "geglu") else 5e-5
    assert verified.file.difference < limit


DRAWN = {
    name: config
    for name, config in (MODELS | PUBLISHED).items()
    if expected_architecture(config) in GELU
}


@pytest.mark.parametrize("name", DRAWN)
def test_weights_as_they_are_drawn_keep_to_the_smooth_part_of_the_table(tmp_path, name):
    config = DRAWN[name]
    folder, file = tmp_path / "model", tmp_path / "out.gguf"
    drawn = draw_parameters(build_model(config), jax.random.key(0))
    save_model(folder, config, drawn, TOKENS, exact=True)
    export_gguf(folder, file)
    found = verify(folder, file, file).file
    assert found.greedy == found.new
    assert found.difference < (2e-3 if "gemma" in name else 3e-4)


@pytest.mark.parametrize("quantization", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_compressed_file_holds_the_weights_that_llama_cpp_computes_right(
    tmp_path, capsys, name, quantization
):
    sizes = {"hidden_dim": 64, "max_seq_length": 96, "quantization": quantization}
    folder = saved(models(**sizes)[name], tmp_path / "model", exact=False)
    out = tmp_path / "out.gguf"
    arguments = ["export", str(folder), "--format", "gguf", "--out", str(out)]
    assert main([*arguments, "--verify"]) == 0
    printed = capsys.readouterr().out
    assert f"equal in {len(TEXTS)} of {len(TEXTS)} texts" in printed
    (as_f32,) = [line for line in printed.splitlines() if line.startswith("as f32")]
    assert "16 of 16 greedy tokens equal" in as_f32
    assert "every value the same" in as_f32
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model", "out.gguf", "out.md"}


@pytest.mark.parametrize(
    ("genes", "name"),
    [
        (("rmsnorm", "rope", "silu"), "ARCEE"),
        (("rmsnorm", "rope", "gelu"), "ARCEE"),
        (("rmsnorm", "rope", "geglu"), "LLAMA"),
        (("layernorm", "rope", "silu"), "STARCODER2"),
        (("layernorm", "rope", "geglu"), "STABLE_LM"),
        (("layernorm", "absolute", "silu"), "GPT2"),
    ],
    ids=str,
)
def test_a_false_friend_is_found_and_not_kept(
    tmp_path, monkeypatch, capsys, genes, name
):
    """A file of the wrong architecture, made by force, weights as they are drawn."""
    config = cell("transformer", *genes, max_seq_length=96, hidden_dim=64)
    drawn = draw_parameters(build_model(config), jax.random.key(0))
    save_model(tmp_path / "model", config, drawn, TOKENS)
    forced = getattr(architectures, name)
    monkeypatch.setattr(write, "architecture_for", lambda _: forced)
    out = tmp_path / "out.gguf"
    arguments = ["export", str(tmp_path / "model"), "--format", "gguf", "--verify"]
    assert main([*arguments, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "nothing is kept: log-probabilities in F32 differ by" in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_file_that_llama_cpp_cannot_load_is_one_line(tmp_path, monkeypatch, capsys):
    config = cell("mamba", inner_dim=96)
    folder = saved(config, tmp_path / "model")
    monkeypatch.setattr(write, "architecture_for", lambda _: architectures.MAMBA)
    arguments = ["export", str(folder), "--format", "gguf", "--verify"]
    assert main([*arguments, "--out", str(tmp_path / "out.gguf")]) == 1
    said = capsys.readouterr().err
    assert "llama.cpp cannot run the file" in said
    assert "expansion factor of 2" in said
    assert len(said.splitlines()) == 1


def test_texts_become_the_same_tokens_by_every_rule(tmp_path):
    text, split = "".join(TEXTS), set()
    for parts, name in RULES:
        content = json.loads(train_tokenizer([text] * 3, 700).to_str())
        content["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [{"trim_offsets": True} | part for part in parts],
        }
        content["normalizer"] = {"type": "NFC"} if name == "qwen2" else None
        tokenizer = load_tokenizer(json.dumps(content))
        split.add(tuple(tokenizer.encode(text).ids))
        config = dataclasses.replace(cell("transformer"), vocab_size=700)
        folder, file = tmp_path / name, tmp_path / f"{name}.gguf"
        save_model(folder, config, perturbed(config), tokenizer, exact=True)
        written = export_gguf(folder, file)
        assert any("NFC" in note for note in written.notes) == (name == "qwen2")
        assert verify(folder, file, file).texts == len(TEXTS)
        import_gguf(file, tmp_path / f"{name}-back")
        back = load_model(tmp_path / f"{name}-back").tokenizer
        assert back.encode(text).ids == tokenizer.encode(text).ids
    assert len(split) == len(RULES)  # by each in another way
