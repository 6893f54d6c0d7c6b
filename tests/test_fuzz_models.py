"""Models with mistakes in them, ours and others': exit 0, 1 or 2, one line."""

import functools
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

import pytest
from export_cells import TOKENS, cell, perturbed
from fuzzing import ended, fuzz, json_text, spoilt
from hypothesis import given
from hypothesis import strategies as st

from jaxnas.export import export_folder
from jaxnas.export.llama_cpp import export_gguf
from jaxnas.export.model_folder import CONFIG, TOKENIZER, WEIGHTS, save_model

CELLS = {
    "llama": cell("grouped_query_attention", kv_heads=2, num_layers=1),
    "gpt2": cell("transformer", "layernorm", "absolute", "gelu", num_layers=1),
    "mamba": cell("mamba", num_layers=1),
}


@pytest.fixture(scope="module")
def made():
    """Folders of models, as we and transformers keep them, and a GGUF file."""
    root = Path(tempfile.mkdtemp())
    for name, config in CELLS.items():
        save_model(root / name, config, perturbed(config), TOKENS, exact=True)
        export_folder(root / name, root / f"hf-{name}")
    if importlib.util.find_spec("gguf"):
        export_gguf(root / "llama", root / "llama.gguf")
    yield root
    shutil.rmtree(root)


@functools.cache
def whole(path):
    return path.read_bytes()


def with_file(root, source, name, content):
    """A copy of a folder in which one file is another."""
    folder = root / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    (folder / name).write_bytes(content)
    return folder


def imported(kind, root, source):
    out = root / "imported"
    try:
        return ended(kind, ["import", source, "--out", out])
    finally:
        shutil.rmtree(out, ignore_errors=True)


@st.composite
def other_header(draw, raw):
    """A safetensors file with another header: of the same length, or any."""
    size = int.from_bytes(raw[:8], "little")
    header = draw(json_text(json.loads(raw[8 : 8 + size])))
    if draw(st.booleans()):
        said = len(header)
    else:
        said = draw(st.sampled_from([0, size, 2**31, 2**63 - 1, 2**64 - 1]))
    return said.to_bytes(8, "little") + header + raw[8 + size :]


def test_without_mistakes_all_are_read(made):
    for name in CELLS:
        assert ended("sound", ["show", made / name]) == 0
        assert imported("sound", made, made / f"hf-{name}") == 0


@fuzz(40)
@given(st.data())
def test_a_config_of_ours(made, data):
    source = made / data.draw(st.sampled_from(list(CELLS)))
    text = data.draw(json_text(json.loads(whole(source / CONFIG))))
    folder = with_file(made, source, CONFIG, text)
    what = data.draw(st.sampled_from([folder, folder / CONFIG]))
    ended("configs of ours", ["show", what])


@fuzz(40)
@given(st.data())
def test_a_config_of_transformers(made, data):
    source = made / f"hf-{data.draw(st.sampled_from(list(CELLS)))}"
    text = data.draw(json_text(json.loads(whole(source / CONFIG))))
    imported("configs of transformers", made, with_file(made, source, CONFIG, text))


@fuzz(40)
@given(st.data())
def test_other_files_of_transformers(made, data):
    source = made / f"hf-{data.draw(st.sampled_from(list(CELLS)))}"
    names = [
        path.name
        for path in sorted(source.glob("*.json"))
        if path.name not in (CONFIG, TOKENIZER)
    ]
    name = data.draw(st.sampled_from(names))
    text = data.draw(json_text(json.loads(whole(source / name))))
    imported("other files", made, with_file(made, source, name, text))


@fuzz(40)
@given(st.data())
def test_a_tokenizer(made, data):
    source = made / data.draw(st.sampled_from(["llama", "hf-llama"]))
    text = data.draw(json_text(json.loads(whole(source / TOKENIZER))))
    folder = with_file(made, source, TOKENIZER, text)
    if source.name == "llama":
        more = ["--prompt", "def f", "--greedy", "--max-new", "1"]
        ended("tokenizers", ["generate", folder, *more])
    else:
        imported("tokenizers", made, folder)


@fuzz(40)
@given(st.data())
def test_weights(made, data):
    source = made / data.draw(st.sampled_from(["llama", "hf-llama"]))
    raw = whole(source / WEIGHTS)
    content = data.draw(other_header(raw) | spoilt(raw))
    folder = with_file(made, source, WEIGHTS, content)
    if source.name == "llama":
        ended("safetensors", ["export", folder, "--out", made / "exported"])
        shutil.rmtree(made / "exported", ignore_errors=True)
    else:
        imported("safetensors", made, folder)


@fuzz(20)
@given(st.data())
def test_an_index_of_shards(made, data):
    source = made / "hf-llama"
    raw = whole(source / WEIGHTS)
    size = int.from_bytes(raw[:8], "little")
    names = [name for name in json.loads(raw[8 : 8 + size]) if name != "__metadata__"]
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "shard.safetensors")}
    text = data.draw(json_text(index))
    folder = with_file(made, source, f"{WEIGHTS}.index.json", text)
    (folder / WEIGHTS).rename(folder / "shard.safetensors")
    imported("indices of shards", made, folder)


@fuzz(40)
@given(st.data())
def test_a_gguf_file(made, data):
    pytest.importorskip("gguf")
    raw = whole(made / "llama.gguf")
    begin = data.draw(st.sampled_from([4, 8, 24, 200]))
    (made / "copy.gguf").write_bytes(data.draw(spoilt(raw, begin)))
    imported("gguf", made, made / "copy.gguf")
