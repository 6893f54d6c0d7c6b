"""Which models are exported, as what, and what stands in the folder."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from export_cells import (
    TEXT,
    TOKENS,
    all_cells,
    cell,
    expected_class,
    perturbed,
    tied,
)
from safetensors.numpy import load_file

from arch.layers.positions import rotate
from jaxnas.errors import UsageError
from jaxnas.export import (
    CLASSES,
    class_for,
    export_folder,
    export_random,
    import_folder,
    transforms,
)
from jaxnas.export.card import CARD
from jaxnas.export.model_folder import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    load_model,
    save_model,
)
from jaxnas.export.weights import to_tensors
from jaxnas.run import main

LLAMA, MPT = cell("transformer"), cell("transformer", "layernorm", "alibi", "gelu")
GPT2 = cell("transformer", "layernorm", "absolute", "gelu")
BUILT = [
    LLAMA,
    cell("transformer", activation="silu"),
    cell("grouped_query_attention", "layernorm", activation="silu", kv_heads=1),
    cell("grouped_query_attention", "layernorm", kv_heads=2),
    GPT2,
    MPT,
    cell("mamba", inner_dim=96),
    cell("rwkv", ffn_multiplier=3.0),
]


def saved(config, folder, **options):
    save_model(folder, config, perturbed(config), TOKENS, **options)
    return folder


def settings(folder):
    return json.loads((folder / CONFIG).read_text())


def named(architecture):
    (found,) = [native for native in CLASSES if native.architecture == architecture]
    return found


def test_every_cell_has_its_class_or_is_refused_and_leaves_nothing(tmp_path):
    refused = 0
    for config in all_cells():
        wanted = expected_class(config)
        if wanted is not None:
            assert class_for(config).architecture == wanted
            continue
        (tmp_path / CONFIG).write_text(config.to_json())
        with pytest.raises(UsageError, match="no Hugging Face class") as raised:
            export_random(tmp_path / CONFIG, 0, tmp_path / "a" / "out")
        said = str(raised.value)
        assert "\n" not in said
        values = config.to_dict() | {"kv_heads": config.key_value_heads}
        assert any(f"{field}={value!r}" in said for field, value in values.items())
        assert [path.name for path in tmp_path.iterdir()] == [CONFIG]
        refused += 1
    assert refused == 473  # of 720


def test_what_a_class_asks_for_makes_the_model_one_of_its_own():
    """The advice in a refusal is good advice, for every class of the family."""
    for config in all_cells():
        for native in CLASSES:
            misfits = native.misfits(config.canonical())
            if "arch_type" in misfits:
                continue
            for values in itertools.product(*misfits.values()):
                changes = dict(zip(misfits, values, strict=True))
                fitting = dataclasses.replace(config, **changes)
                assert class_for(fitting) is native, (config, changes)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            cell("flash_attention", "groupnorm"),
            "it has normalization='groupnorm'; exact would be Llama with "
            "normalization='rmsnorm'; StableLm with normalization='layernorm'",
        ),
        (  # only what no class has is to blame
            cell("transformer", "groupnorm", "alibi", "swiglu"),
            "it has normalization='groupnorm'; exact would be Llama with "
            "normalization='rmsnorm', position_encoding='rope'",
        ),
        (
            cell("transformer", "rmsnorm", "alibi", "silu"),
            "it has position_encoding='alibi'; exact would be Arcee with "
            "position_encoding='rope'",
        ),
        (
            cell("transformer", "layernorm", "absolute", "geglu"),
            "exact would be StableLm with position_encoding='rope'; GPT2 with "
            "activation='gelu' or 'silu'",
        ),
        (
            dataclasses.replace(MPT, ffn_multiplier=2.0),
            "exact would be Starcoder2 with position_encoding='rope'; GPT2 with "
            "position_encoding='absolute'; MPT with ffn_multiplier=4.0",
        ),
        (dataclasses.replace(MPT, ffn_dim=96), "MPT with ffn_dim=128"),
        (
            cell("grouped_query_attention", "layernorm", "absolute", "gelu"),
            "GPT2 with kv_heads=4",
        ),
        (cell("mamba", "layernorm"), "Mamba with normalization='rmsnorm'"),
        (cell("rwkv", num_layers=1), "it has num_layers=1; exact would be Rwkv"),
        (cell("linear_transformer"), "no Hugging Face class has arch_type='linear_tr"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value.arch_type,
)
def test_a_refusal_names_the_field_and_what_would_do(config, said):
    with pytest.raises(UsageError) as raised:
        class_for(config)
    assert said in str(raised.value)


def test_rotary_heads_turn_the_same_in_their_order():
    """Half-split rotation of reordered channels is ours, reordered."""
    rng = np.random.default_rng(0)
    heads = rng.standard_normal((1, 5, 3, 8)).astype(np.float32)  # [B, T, N, H]
    ours = np.asarray(rotate(heads, np.arange(5)[None], 8))

    def reorder(x):
        rows = transforms.ROTARY.export(x.reshape(5, 3, 8))  # [N H, T]
        return rows.T.reshape(5, 3, 8)

    given = reorder(heads).astype(np.float64)
    angle = np.arange(5)[:, None] * 10000.0 ** (-np.arange(0, 8, 2) / 8)
    cosine, sine = (np.tile(f(angle), 2)[:, None] for f in (np.cos, np.sin))
    turned = np.concatenate([-given[..., 4:], given[..., :4]], axis=-1)
    theirs = given * cosine + turned * sine
    np.testing.assert_allclose(theirs, reorder(ours), atol=1e-6)


@pytest.mark.parametrize(
    ("transform", "shapes"),
    [
        (transforms.SAME, [(6,)]),
        (transforms.LINEAR, [(6, 3, 4)]),
        (transforms.LINEAR_OUT, [(3, 4, 6)]),
        (transforms.CONV1D, [(6, 3, 4)]),
        (transforms.CONV1D_OUT, [(3, 4, 6)]),
        (transforms.ROTARY, [(6, 3, 4)]),
        (transforms.LINEAR_FUSED, [(6, 3, 4)] * 3),
        (transforms.CONV1D_FUSED, [(6, 3, 4)] * 3),
        (transforms.TAPS, [(4, 6)]),
        (transforms.STEPS_FIRST, [(6, 32 + 3)]),
        (transforms.ROW, [(6,)]),
    ],
)
def test_a_transform_moves_every_value_and_back(transform, shapes):
    rng = np.random.default_rng(0)
    ours = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    theirs = transform.export(*ours)
    joined = np.concatenate([one.ravel() for one in ours])
    np.testing.assert_array_equal(np.sort(theirs.ravel()), np.sort(joined))
    for found, one in zip(transform.restore(theirs, *shapes), ours, strict=True):
        np.testing.assert_array_equal(found, one)


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("config", BUILT, ids=expected_class)
def test_import_then_export_gives_the_same_bits(tmp_path, config, tie):
    config = tied(config) if tie else config
    export_folder(saved(config, tmp_path / "ours", exact=True), tmp_path / "one")
    found = import_folder(tmp_path / "one", tmp_path / "model")
    assert found.config == config.canonical()
    ours, read = load_model(tmp_path / "ours"), load_model(tmp_path / "model")
    jax.tree.map(np.testing.assert_array_equal, read.params, ours.params)
    assert read.tokenizer.to_str() == TOKENS.to_str()
    export_folder(tmp_path / "model", tmp_path / "two")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names
    for name in names - {CARD}:  # which names the folder
        one, two = ((tmp_path / which / name).read_bytes() for which in ("one", "two"))
        assert one == two, name


@pytest.mark.parametrize("quantization", ["fp16", "int8"])
def test_weights_are_float16_where_that_is_exact(tmp_path, quantization):
    config = dataclasses.replace(GPT2, quantization=quantization)
    written = export_folder(saved(config, tmp_path / "ours"), tmp_path / "out")
    kind = "float16" if quantization == "fp16" else "float32"
    assert written.weights == kind
    tensors = load_file(tmp_path / "out" / WEIGHTS)
    positions = tensors.pop("transformer.wpe.weight")  # is no weight, is computed
    assert positions.dtype == np.float32
    assert {str(tensor.dtype) for tensor in tensors.values()} == {kind}
    loaded = load_model(tmp_path / "ours")
    native = class_for(loaded.config)
    for name, values in to_tensors(native, loaded.config, loaded.params).items():
        if name in tensors:
            np.testing.assert_array_equal(tensors[name].astype(np.float32), values)
    assert settings(tmp_path / "out")["dtype"] == "float32"


def test_a_table_that_misses_a_parameter_exports_nothing(tmp_path):
    params = perturbed(LLAMA)
    params["blocks"]["mixer"]["extra"] = {"kernel": np.zeros((2, 3), np.float32)}
    with pytest.raises(ValueError, match="Llama's table is not of these"):
        to_tensors(named("LlamaForCausalLM"), LLAMA, params)


def test_settings_that_transformers_would_default_to_others_are_written(tmp_path):
    export_folder(saved(LLAMA, tmp_path / "ours"), tmp_path / "out")
    found = settings(tmp_path / "out")
    rope = {"rope_theta": 10000.0, "rope_type": "default"}
    wanted = {
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,  # as version 4 reads it
        "rope_parameters": rope,  # as version 5 does
        "max_position_embeddings": 28,
        "attention_dropout": 0.0,
        "eos_token_id": 0,
        "tie_word_embeddings": False,
    }
    assert wanted.items() <= found.items()


def test_random_weights_are_those_a_model_folder_would_hold(tmp_path):
    config = dataclasses.replace(LLAMA, quantization="int4", pruning_ratio=0.5)
    (tmp_path / CONFIG).write_text(config.to_json())
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        written = export_random(tmp_path / CONFIG, seed, tmp_path / out)
    assert written.tokens is None
    a, b, c = (load_file(tmp_path / out / WEIGHTS) for out in "abc")
    up = "model.layers.0.mlp.up_proj.weight"
    assert a[up].shape == (64, 32)
    assert (a[up] == b[up]).all()
    assert (a[up] != c[up]).mean() > 0.5
    for block in a[up].reshape(-1, 32):
        assert len(np.unique(block)) <= 16  # the values of four bits
    assert not (tmp_path / "a" / TOKENIZER).exists()
    assert settings(tmp_path / "a")["eos_token_id"] is None


@pytest.mark.parametrize("what", ["model", "file", "folder", "link"])
def test_what_is_there_is_left_alone(tmp_path, what):
    saved(LLAMA, tmp_path / "ours")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    out = tmp_path / ("ours" if what == "model" else what)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(UsageError, match="choose another --out"):
        export_folder(tmp_path / "ours", out)
    after = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert after == before


def test_a_folder_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    saved(LLAMA, tmp_path / "ours")
    (tmp_path / "empty").mkdir()

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jaxnas.export.write.to_settings", stop)
        for out in ("new", "empty"):
            with pytest.raises(KeyboardInterrupt):
                export_folder(tmp_path / "ours", tmp_path / out)
    assert {path.name for path in tmp_path.iterdir()} == {"ours", "empty"}
    export_folder(tmp_path / "ours", tmp_path / "empty")
    export_folder(tmp_path / "ours", tmp_path / "deep" / "new")
    names = {CONFIG, WEIGHTS, TOKENIZER, "generation_config.json"}
    names |= {"tokenizer_config.json", "special_tokens_map.json", CARD}
    for out in (tmp_path / "empty", tmp_path / "deep" / "new"):
        assert {path.name for path in out.iterdir()} == names


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    saved(LLAMA, tmp_path / "ours")
    (tmp_path / "config.json").write_text(LLAMA.to_json())
    assert main(["export", "ours", "--format", "hf", "--out", "out"]) == 0
    printed = capsys.readouterr().out
    for word in ("LlamaForCausalLM", "float16", f"{TOKENS.get_vocab_size()} tokens"):
        assert word in printed
    assert main(["import", "out", "--out", "back"]) == 0
    assert "transformer L2 H32 heads 4 FFN 4 rmsnorm" in capsys.readouterr().out
    random = ["export", "config.json", "--format", "hf", "--init-seed", "7"]
    assert main([*random, "--out", "random"]) == 0
    assert "tokenizer" in capsys.readouterr().out
    assert (tmp_path / "back" / WEIGHTS).is_file()
    assert TOKENS.encode(TEXT).ids == load_model("back").tokenizer.encode(TEXT).ids


def test_a_quantised_model_says_how_much_larger_it_leaves(tmp_path, capsys):
    config = dataclasses.replace(LLAMA, hidden_dim=64, quantization="int4")
    saved(config, tmp_path / "ours")
    assert main(["export", str(tmp_path / "ours"), "--out", str(tmp_path / "out")]) == 0
    (note,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("note")
    ]
    # Of 4 bits and a share of a scale, 32 are made: 128 bytes of 18.
    assert "no form for int4 blocks: exact values in 7." in note
    assert "GGUF" in note


HF = ["--format", "hf", "--out"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "ours", *HF, "ours"], "ours is not empty"),
        (["export", "none", *HF, "x"], "cannot read a model fro"),
        (
            ["export", "ours", "--format", "ggml", "--out", "x"],
            "invalid choice: 'ggml'",
        ),
        (["export", "ours", "--format", "hf"], "required: --out"),
        (["export", "c.json", *HF, "x"], "c.json has no weights"),
        (
            ["export", "c.json", *HF, "x", "--init-seed", "-1"],
            "--init-seed in 0 to 2**32 - 1",
        ),
        (
            ["export", "ours", *HF, "x", "--init-seed", "1"],
            "--init-seed is for a config file",
        ),
        (
            ["export", "bad.json", *HF, "x", "--init-seed", "1"],
            "cannot read a config from bad.json: config lacks arch_type",
        ),
        (
            [
                "export",
                "group.json",
                "--format",
                "hf",
                "--out",
                "x",
                "--init-seed",
                "1",
            ],
            "normalization='groupnorm'",
        ),
        (
            ["import", "none", "--out", "x"],
            "cannot read none/config.json: No such file",
        ),
        (["import", "ours", "--out", "x"], "model_type=None cannot be imported"),
        (["import", "ours", "--out", "ours"], "ours is not empty"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    saved(LLAMA, tmp_path / "ours")
    (tmp_path / "c.json").write_text(LLAMA.to_json())
    (tmp_path / "bad.json").write_text("{}")
    group = dataclasses.replace(LLAMA, normalization="groupnorm")
    (tmp_path / "group.json").write_text(group.to_json())
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
