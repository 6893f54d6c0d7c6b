"""Which models become GGUF files, and what stands in them."""

import dataclasses
import json

import numpy as np
import pytest
from export_cells import TOKENS, all_cells, cell, tied
from gguf_cells import FALSE_FRIENDS, expected_architecture, models, saved

from arch.layout import INPUT_AXES
from jaxnas.data.tokenizer import load_tokenizer
from jaxnas.errors import UsageError
from jaxnas.export.choice import class_for
from jaxnas.export.decoders import LLAMA
from jaxnas.export.llama_cpp import export_gguf, write
from jaxnas.export.llama_cpp.architectures import ARCHITECTURES, architecture_for
from jaxnas.export.llama_cpp.modelfile import modelfile
from jaxnas.export.llama_cpp.tokens import token_keys
from jaxnas.export.model_folder import load_codes, load_model
from jaxnas.export.weights import to_tensors
from jaxnas.run import main

gguf = pytest.importorskip("gguf")

MODELS = models()
ALIGNED = models(hidden_dim=64)  # a multiple of 32, and its root a power of two
SMALL = cell("transformer")


def read(path):
    """A file's settings and its tensors, as the package of ggml reads them."""
    reader = gguf.GGUFReader(path)
    settings = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        tensor.name: (
            tensor.tensor_type.name,
            gguf.dequantize(tensor.data, tensor.tensor_type),
        )
        for tensor in reader.tensors
    }
    return settings, tensors


def interleaved(rows, heads):
    """What llama.cpp's converter does to queries and keys of some architectures."""
    halves = rows.reshape(heads, 2, -1, rows.shape[-1])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def converted(config, params):
    """The tensors by another way: as transformers has them, then renamed by gguf."""
    name = expected_architecture(config)
    if name == "refact":  # no class has it; its weights are those of a Llama
        native, config = LLAMA, dataclasses.replace(config, position_encoding="rope")
    else:
        native = class_for(config)
    known = {"nemotron": "starcoder2", "refact": "llama"}.get(name, name)
    arch = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[known]
    names = gguf.get_tensor_name_map(arch, config.num_layers)
    root = np.sqrt(config.hidden_dim)
    found = {}
    for theirs, tensor in to_tensors(native, config, params).items():
        key = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        if name in ("llama", "arcee", "refact"):
            if ".q_proj." in theirs:
                tensor = interleaved(tensor, config.num_heads)
            if ".k_proj." in theirs:
                tensor = interleaved(tensor, config.key_value_heads)
        if name == "gemma" and key == "token_embd.weight":
            tensor = tensor * np.float32(1 / root)
        if name == "gemma" and key == "output_norm.weight":
            tensor = tensor * np.float32(root)
        if name == "gpt2" and "h." in theirs and tensor.ndim == 2:
            tensor = tensor.T  # Conv1D
        if theirs.endswith("A_log"):
            tensor = -np.exp(tensor)
        found[key] = tensor.squeeze()
    return found


def test_every_cell_has_its_architecture_or_is_refused():
    refused = 0
    for config in all_cells():
        for variant in (config, tied(config)):
            wanted = expected_architecture(variant)
            if wanted is not None:
                assert architecture_for(variant).name == wanted
                continue
            with pytest.raises(UsageError, match=r"no llama\.cpp arch") as raised:
                architecture_for(variant)
            said = str(raised.value)
            assert "\n" not in said
            values = variant.to_dict()
            assert any(f"{name}={value!r}" in said for name, value in values.items())
            refused += 1
    # Taken are 8 and a half of 45 combinations in 10 attentions, and 30 Mambas.
    assert refused == 1440 - 2 * (85 + 30)


@pytest.mark.parametrize("genes", FALSE_FRIENDS, ids="-".join)
def test_a_file_that_would_load_and_be_wrong_is_not_made(tmp_path, genes):
    config = cell("transformer", *genes)
    class_for(config)  # transformers has it
    folder = saved(config, tmp_path / "model")
    with pytest.raises(UsageError, match="no llama") as raised:
        export_gguf(folder, tmp_path / "out.gguf")
    assert FALSE_FRIENDS[genes] in str(raised.value).partition("exact would be")[0]
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sliding_window": 8}, "sliding_window=8"),
        ({"biases": True, "qkv_bias": True}, "biases=True"),
        ({"normalization": "layernorm", "qkv_bias": True}, "qkv_bias=True"),
    ],
)
def test_what_llama_cpp_would_leave_out_is_refused_by_its_name(fields, said):
    with pytest.raises(UsageError, match="no llama") as raised:
        architecture_for(dataclasses.replace(SMALL, **fields))
    assert said in str(raised.value).partition("exact would be")[0]


@pytest.mark.parametrize("name", MODELS)
def test_a_file_holds_the_model(tmp_path, name):
    config = MODELS[name]
    folder = saved(config, tmp_path / "model")
    written = export_gguf(folder, tmp_path / "out.gguf")
    assert (written.kind, written.exact) == ("f32", True)
    settings, tensors = read(tmp_path / "out.gguf")
    arch = settings["general.architecture"]
    assert arch == written.architecture == expected_architecture(config)
    loaded = load_model(folder)
    wanted = converted(config, loaded.params)
    if name.startswith(("stablelm-tied", "nemotron-tied")):
        wanted["output.weight"] = wanted["token_embd.weight"]
    extra = tensors.keys() - wanted.keys()
    for key, (kind, values) in tensors.items():
        assert kind == "F32"
        if key in extra:  # biases that transformers leaves out
            assert key.endswith(".bias")
            assert not values.any()
            continue
        np.testing.assert_array_equal(values, wanted[key], err_msg=key)
    assert wanted.keys() <= tensors.keys()
    sizes = {
        "block_count": 2,
        "embedding_length": 32,
        "context_length": 28,
        "vocab_size": 300,
    }
    assert sizes == {key: settings[f"{arch}.{key}"] for key in sizes}
    if arch != "mamba":
        heads = config.num_heads, config.key_value_heads
        for key, value in zip(("head_count", "head_count_kv"), heads, strict=True):
            assert settings[f"{arch}.attention.{key}"] == value


@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("name", ALIGNED)
def test_codes_leave_as_they_are(tmp_path, name, quantization):
    config = dataclasses.replace(ALIGNED[name], quantization=quantization)
    folder = saved(config, tmp_path / "model", exact=False)
    written = export_gguf(folder, tmp_path / "q.gguf")
    export_gguf(folder, tmp_path / "f32.gguf", "f32")
    (_, found), (_, plain) = (read(tmp_path / f"{f}.gguf") for f in ("q", "f32"))
    kind = {"int8": "Q8_0", "int4": "Q4_0"}[quantization]
    assert written.kind == kind.lower()
    assert written.exact
    quantised = 0
    for key, (stored, values) in found.items():
        np.testing.assert_array_equal(values, plain[key][1], err_msg=key)
        quantised += stored == kind
        assert stored in (kind, "F32")
    codes = load_codes(folder)
    assert {key.split(".")[-2] for key in codes} <= INPUT_AXES.keys()
    # What is not quantised has rows of other lengths, or is no matrix.
    narrow = "mamba" in name
    repeats = name.startswith(("stablelm-tied", "nemotron-tied"))
    matrices = sum(
        len(x) if k.startswith("blocks") else 1 for k, (x, _) in codes.items()
    )
    fused = 2 * 2 * name.startswith(("gpt2", "mpt"))  # three in one, two layers
    assert quantised == matrices - 2 * narrow - fused + repeats


def test_the_file_is_as_large_as_the_search_counts(tmp_path):
    for quantization in ("int8", "int4"):
        config = cell("transformer", hidden_dim=256, quantization=quantization)
        folder = saved(config, tmp_path / quantization, exact=False)
        written = export_gguf(folder, tmp_path / f"{quantization}.gguf")
        norms = 5 * 256  # scales: fp16 in the count, F32 in the file
        assert written.tensor_bytes - written.counted == norms * 2
        assert written.bytes < 1.01 * written.counted + 8000  # the tokenizer


def test_what_no_block_holds_is_wider_and_a_note_says_so(tmp_path):
    gemma = tied(cell("transformer", activation="geglu", hidden_dim=96))
    odd = cell("transformer", hidden_dim=48, ffn_dim=96)
    for config, wide, note in (
        (gemma, {"token_embd.weight"}, "no scale holds it over sqrt(hidden_dim=96)"),
        (odd, None, "rows of 48 weights are no blocks of 32"),
    ):
        config = dataclasses.replace(config, quantization="int4")
        folder = saved(config, tmp_path / f"{config.hidden_dim}", exact=False)
        written = export_gguf(folder, tmp_path / f"{config.hidden_dim}.gguf")
        assert note in "; ".join(written.notes)
        assert written.exact
        _, tensors = read(tmp_path / f"{config.hidden_dim}.gguf")
        kinds = {
            key: kind for key, (kind, values) in tensors.items() if values.ndim > 1
        }
        if wide is not None:
            assert {key for key, kind in kinds.items() if kind != "Q4_0"} == wide
        else:
            assert {key for key, kind in kinds.items() if kind == "Q4_0"} == {
                f"blk.{layer}.ffn_down.weight" for layer in (0, 1)
            }


@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0"])
def test_another_type_rounds_as_ggml_does(tmp_path, kind):
    config = cell("transformer", hidden_dim=64)
    folder = saved(config, tmp_path / "model")  # float32
    written = export_gguf(folder, tmp_path / "out.gguf", kind)
    assert not written.exact
    assert f"rounded to {kind}" in written.notes[0]
    export_gguf(folder, tmp_path / "f32.gguf", "f32")
    _, tensors = read(tmp_path / "out.gguf")
    _, plain = read(tmp_path / "f32.gguf")
    ggml = gguf.GGMLQuantizationType[kind.upper()]
    for key, (stored, values) in tensors.items():
        exact = plain[key][1]
        if exact.ndim < 2:
            np.testing.assert_array_equal(values, exact)
            continue
        assert stored == kind.upper()
        theirs = gguf.dequantize(gguf.quantize(exact, ggml), ggml)
        apart = values != theirs
        # Ours rounds half to even, theirs away from zero or by adding 8.5.
        assert apart.mean() < 1e-3, key
        assert np.abs(values - exact).max() <= 1.01 * np.abs(theirs - exact).max()


def test_the_type_is_what_the_model_holds(tmp_path):
    for exact, kind in ((True, "f32"), (False, "f16")):
        folder = saved(SMALL, tmp_path / kind, exact=exact)
        written = export_gguf(folder, tmp_path / f"{kind}.gguf")
        assert (written.kind, written.exact) == (kind, True)
        _, tensors = read(tmp_path / f"{kind}.gguf")
        for stored, values in tensors.values():
            assert stored == (kind.upper() if values.ndim > 1 else "F32")


def test_the_tokenizer_goes_along(tmp_path):
    export_gguf(saved(SMALL, tmp_path / "model"), tmp_path / "out.gguf")
    settings, _ = read(tmp_path / "out.gguf")
    tokens = settings["tokenizer.ggml.tokens"]
    assert len(tokens) == len(settings["tokenizer.ggml.token_type"]) == 300
    size = TOKENS.get_vocab_size()
    assert tokens[:size] == [TOKENS.id_to_token(i) for i in range(size)]
    assert len(set(tokens)) == 300
    types = settings["tokenizer.ggml.token_type"]
    assert types == [3] + [1] * (size - 1) + [5] * (300 - size)
    merges = json.loads(TOKENS.to_str())["model"]["merges"]
    assert settings["tokenizer.ggml.merges"] == [" ".join(pair) for pair in merges]
    for role in ("bos", "eos", "padding"):
        assert settings[f"tokenizer.ggml.{role}_token_id"] == 0
    assert settings["tokenizer.ggml.add_bos_token"] is False


def changed(change):
    content = json.loads(TOKENS.to_str())
    change(content)
    return load_tokenizer(json.dumps(content))


def with_split(content):
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": False},
            content["pre_tokenizer"],
        ],
    }


def with_template(content):
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {
            "<|endoftext|>": {
                "id": "<|endoftext|>",
                "ids": [0],
                "tokens": ["<|endoftext|>"],
            }
        },
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "pre_tokenizer="),
        (lambda c: c["pre_tokenizer"].update(use_regex=False), "pre_tokenizer="),
        (with_split, "pre_tokenizer='Digits + ByteLevel'"),
        (lambda c: c.update(pre_tokenizer=None), "pre_tokenizer='None'"),
        (lambda c: c.update(normalizer={"type": "NFD"}), "normalizer='NFD'"),
        (with_template, "post_processor='TemplateProcessing'"),
        (lambda c: c["model"].update(ignore_merges=True), "model.ignore_merges=True"),
        (lambda c: c["model"].update(byte_fallback=True), "model.byte_fallback=True"),
        (lambda c: c["model"].update(merges=[]), "it has no merges"),
    ],
)
def test_another_tokenizer_is_refused_by_what_differs(tmp_path, change, said):
    with pytest.raises(UsageError, match="would read other tokens") as raised:
        token_keys(changed(change), SMALL, tmp_path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_digits_one_by_one_are_another_rule(tmp_path):
    def digits(content):
        with_split(content)
        content["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = True

    assert token_keys(TOKENS, SMALL, tmp_path)["ggml.pre"] == "gpt-2"
    assert token_keys(changed(digits), SMALL, tmp_path)["ggml.pre"] == "smollm"


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = saved(SMALL, tmp_path / "model")
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="choose another --out"):
        export_gguf(folder, tmp_path / "mine")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "write_tensors_to_file", stop)
        with pytest.raises(KeyboardInterrupt):
            export_gguf(folder, tmp_path / "out.gguf")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "mine"}
    with pytest.raises(UsageError, match="cannot write"):
        export_gguf(folder, tmp_path / "mine" / "out.gguf")
    export_gguf(folder, tmp_path / "new" / "out.gguf")


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    saved(SMALL, tmp_path / "ours", exact=False)
    assert main(["export", "ours", "--format", "gguf"]) == 0
    printed = capsys.readouterr().out
    for word in ("llama", "f16; a search counts", "280 tokens", "ours.gguf"):
        assert word in printed
    arguments = ["export", "ours", "--format", "gguf", "--type", "f32", "--out", "b"]
    assert main(arguments) == 0
    assert (tmp_path / "b").stat().st_size > (tmp_path / "ours.gguf").stat().st_size


BITS = {"validation": 1.0, "test": 1.25}


def kept(name, bits):
    """A step of `compress`, as its summary keeps it."""
    return {"name": name, "bytes": 1, "ms": 1.0, "bits_per_byte": {"test": bits}}


def test_a_card_says_what_the_run_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    saved(SMALL, tmp_path / "run" / "model")
    export = ["export", "run/model", "--format", "gguf", "--type", "q4_0"]
    assert main([*export, "--out", "alone.gguf"]) == 0
    card = (tmp_path / "alone.md").read_text()
    assert "library_name: llama.cpp" in card
    assert "rounded to q4_0, which is not what was scored" in card
    assert card.count("not recorded beside the model") == 2
    data = {
        "source": f"folder:{tmp_path / 'code'}",
        "corpus_hash": "c0ffee",
        "splits": {"train": {"files": 3, "tokens": 1234}},
    }
    scores = {"bits_per_byte": 1.5, "accuracy": 0.25}
    final = {"splits": {"test": {"windows": 9, "winner": scores, "bigram": scores}}}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"data": data}))
    (tmp_path / "run" / "summary.json").write_text(json.dumps({"final": final}))
    assert main([*export, "--out", "run.gguf"]) == 0
    card = (tmp_path / "run.md").read_text()
    for line in (
        "| source | folder:code |",
        "| hash of the corpus | c0ffee |",
        "| train | 3 files, 1,234 tokens |",
        "| test | this model | 1.500 | 0.250 |",
        "| test | bigram | 1.500 | 0.250 |",
        "python -m jaxnas.run export run/model --format gguf",
        "llama-server -m run.gguf --port 8012",
    ):
        assert line in card.splitlines()
    assert str(tmp_path) not in card  # where it lay is nobody's concern
    for name, summary in (
        ("compressed", {"steps": [kept("as it was", 1.5), kept("rounded", 1.625)]}),
        ("distilled", {"steps": 7, "bits_per_byte": {"x": BITS, "student": BITS}}),
    ):
        (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
        assert main([*export, "--out", f"{name}.gguf"]) == 0
    lines = (tmp_path / "compressed.md").read_text().splitlines()
    assert "| test | as it was | 1.500 |" in lines
    assert "| test | this model | 1.625 |" in lines
    lines = (tmp_path / "distilled.md").read_text().splitlines()
    assert {"| test | x | 1.250 |", "| test | this model | 1.250 |"} <= {*lines}
    (tmp_path / "new.md").write_text("mine")
    capsys.readouterr()
    assert main([*export, "--out", "new.gguf"]) == 2
    assert "new.md is there already" in capsys.readouterr().err
    assert not (tmp_path / "new.gguf").exists()


def test_ollama_gets_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    saved(SMALL, tmp_path / "ours")
    assert main(["export", "ours", "--format", "ollama", "--out", "out"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.gguf", "Modelfile", "README.md"}
    lines = (tmp_path / "out" / "Modelfile").read_text().splitlines()
    assert lines[:3] == [
        "FROM ./model.gguf",
        'TEMPLATE """{{ .Prompt }}"""',
        "PARAMETER num_ctx 28",
    ]
    assert 'PARAMETER stop "<|endoftext|>"' in lines
    assert "library_name: ollama" in (tmp_path / "out" / "README.md").read_text()
    capsys.readouterr()
    saved(cell("rwkv"), tmp_path / "rwkv")
    assert main(["export", "rwkv", "--format", "ollama", "--out", "no"]) == 2
    assert not (tmp_path / "no").exists()


def test_a_tokenizer_that_fills_in_the_middle_has_a_template_for_it():
    tokenizer = load_tokenizer(TOKENS.to_str())
    tokenizer.add_special_tokens(["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"])
    text = modelfile("a.gguf", SMALL, tokenizer, chat=False)
    assert (
        "{{ if .Suffix }}<|fim_prefix|>{{ .Prompt }}<|fim_suffix|>{{ .Suffix }}"
        "<|fim_middle|>{{ else }}{{ .Prompt }}{{ end }}"
    ) in text
    assert "TEMPLATE" not in modelfile("a.gguf", SMALL, tokenizer, chat=True)


GGUF = ["--format", "gguf"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "ours", *GGUF, "--out", "ours"], "ours is there already"),
        (["export", "none", *GGUF], "cannot read a model from none"),
        (["export", "c.json", *GGUF], "needs a model's folder"),
        (["export", "ours", *GGUF, "--init-seed", "1"], "needs a model's folder"),
        (["export", "ours", *GGUF, "--type", "q5_k"], "invalid choice: 'q5_k'"),
        (["export", "ours", "--type", "f16", "--out", "x"], "--type is for --format"),
        (["export", "ours", "--verify", "--out", "x"], "--verify is for --format"),
        (["export", "ours", "--format", "ollama"], "are required: --out"),
        (["export", "ours", "--format", "ollama", "--out", "ours"], "is not empty"),
        (["export", "rwkv", *GGUF], "no llama.cpp architecture has arch_type='rwkv'"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    saved(SMALL, tmp_path / "ours")
    saved(cell("rwkv"), tmp_path / "rwkv")
    (tmp_path / "c.json").write_text(SMALL.to_json())
    before = sorted(tmp_path.rglob("*"))
    try:
        code = main(arguments)
    except SystemExit as stopped:  # the parser's own
        code = stopped.code
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("missing", "flags"), [("gguf", []), ("xllamacpp", ["--verify"])]
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys, missing, flags):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == missing else find(name)
    )
    monkeypatch.chdir(tmp_path)
    saved(SMALL, tmp_path / "ours")
    assert main(["export", "ours", *GGUF, *flags]) == 2
    assert "pip install" in (said := capsys.readouterr().err)
    assert missing in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "ours.gguf").exists()


def test_the_tables_name_each_tensor_once():
    for architecture in ARCHITECTURES:
        names = [row.theirs for row in architecture.rows]
        assert len({*names}) == len(names)
        ours = [name for row in architecture.rows for name in row.ours]
        assert len({*ours}) == len(ours)


def test_k_quants_want_rows_of_256(tmp_path):
    pytest.importorskip("libgguf")
    folder = saved(cell("transformer", hidden_dim=64), tmp_path / "small")
    with pytest.raises(UsageError, match=r"multiple of 256 .* token_embd.weight have"):
        export_gguf(folder, tmp_path / "out.gguf", "q4_k")
    assert {path.name for path in tmp_path.iterdir()} == {"small"}
    config = cell("transformer", hidden_dim=256, num_layers=1)
    folder = saved(config, tmp_path / "model")
    written = export_gguf(folder, tmp_path / "out.gguf", "q4_k")
    assert not written.exact
    assert any("rounded to q4_k" in note for note in written.notes)
    _, tensors = read(tmp_path / "out.gguf")
    export_gguf(folder, tmp_path / "exact.gguf", "f32")
    _, exact = read(tmp_path / "exact.gguf")
    export_gguf(folder, tmp_path / "plain.gguf", "q4_0")
    _, plain = read(tmp_path / "plain.gguf")
    for name, (kind, values) in tensors.items():
        assert kind == ("F32" if values.ndim == 1 else "Q4_K")
        wanted = exact[name][1]
        own = np.square(values - wanted).mean()
        other = np.square(plain[name][1] - wanted).mean()
        assert own <= other
        assert own == 0 or own < 0.01 * wanted.var()
    size = sum(x.size for _, x in tensors.values() if x.ndim == 2) * 144 / 256
    assert size < written.tensor_bytes < size + 4096


def test_k_quants_without_their_package_say_what_to_install(tmp_path, monkeypatch):
    find = write.importlib.util.find_spec
    monkeypatch.setattr(
        write.importlib.util,
        "find_spec",
        lambda name: None if name == "libgguf" else find(name),
    )
    folder = saved(SMALL, tmp_path / "model")
    with pytest.raises(UsageError, match=r"pip install 'jaxnas\[kquant\]'"):
        export_gguf(folder, tmp_path / "out.gguf", "q4_k")
