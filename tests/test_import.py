"""What is read of a folder of `transformers`, and what is refused by name."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax
import safetensors.numpy
from export_cells import TEXT, TOKENS, cell, perturbed, tied

from arch import build_model, cost
from arch.initial import draw_parameters
from jaxnas.data.tokenizer import END_OF_TEXT
from jaxnas.errors import UsageError
from jaxnas.export import export_folder, import_folder
from jaxnas.export.choice import class_named
from jaxnas.export.generation import end_tokens
from jaxnas.export.model_folder import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    load_model,
    narrowest,
    save_model,
)
from jaxnas.export.settings import from_settings
from jaxnas.export.tokens import chat_template

CELLS = {
    "llama": cell("grouped_query_attention", kv_heads=1),
    "llama-tied": tied(cell("transformer")),
    "arcee": cell("transformer", activation="silu"),
    "starcoder2": cell("transformer", "layernorm", activation="silu"),
    "stablelm": cell("transformer", "layernorm"),
    "gpt2": cell("transformer", "layernorm", "absolute", "gelu"),
    "mpt": cell("transformer", "layernorm", "alibi", "gelu"),
    "mamba": cell("mamba"),
    "rwkv": cell("rwkv"),
}
INDEX = f"{WEIGHTS}.index.json"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An exported folder of each class, made when it is asked for."""
    made = {}

    def folder(name):
        if name not in made:
            place = tmp_path_factory.mktemp(name)
            params = perturbed(CELLS[name])
            save_model(place / "model", CELLS[name], params, TOKENS, exact=True)
            export_folder(place / "model", place / "hf")
            made[name] = place / "hf"
        return made[name]

    return folder


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of an exported folder with changed settings and tensors."""

    def change(name, settings=None, tensors=None, without=()):
        source = exported(name)
        out = tmp_path / "hf"
        out.mkdir()
        for path in source.iterdir():
            (out / path.name).write_bytes(path.read_bytes())
        content = json.loads((source / CONFIG).read_text()) | (settings or {})
        content = {key: content[key] for key in content if key not in without}
        (out / CONFIG).write_text(json.dumps(content))
        if tensors is not None:
            found = safetensors.numpy.load_file(source / WEIGHTS)
            tensors(found)
            safetensors.numpy.save_file(found, out / WEIGHTS)
        return out

    return change


def refused(source, said, *, tokenizer=None):
    out = source.parent / "refused"
    with pytest.raises(UsageError) as raised:
        import_folder(source, out, tokenizer)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not out.exists()


DYNAMIC = {"type": "dynamic", "factor": 2.0}
LINEAR = {"rope_type": "linear", "factor": "2", "rope_theta": 1e4}
SEVERAL = {"hidden_act": "relu", "partial_rotary_factor": 0.5, "head_dim": "8"}
SETTINGS = [
    ("llama", {"rms_norm_eps": 0}, "norm_epsilon=0 is not allowed: needs a number abo"),
    ("llama", {"rms_norm_eps": "1e-6"}, "rms_norm_eps='1e-6' is no number"),
    ("llama", {"rope_parameters": DYNAMIC}, "rope_type='dynamic': ours has 'default'"),
    ("llama", {"rope_parameters": LINEAR}, "rope_factor='2' is no number"),
    (
        "llama",
        SEVERAL,
        "partial_rotary_factor=0.5: ours has 1.0 only; head_dim='8' is no whole number;"
        " hidden_act='relu': ours has silu, gelu, gelu_py",
    ),
    ("llama", {"model_type": "bert"}, "model_type='bert' cannot be imported: only ll"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ("llama", {"head_dim": 16}, "config.json asks for [64, 32]"),
    ("stablelm", {"head_dim": 16}, "head_dim=16: ours would have 8"),
    (
        "llama",
        {"hidden_act": "relu"},
        "hidden_act='relu': ours has silu, gelu, gelu_py",
    ),
    ("llama", {"num_key_value_heads": 3}, "kv_heads=3 is not allowed"),
    ("llama", {"hidden_size": "32"}, "hidden_size='32' is no whole number"),
    ("llama", {"intermediate_size": 96}, "config.json asks for [96, 32]"),
    ("llama", {"num_attention_heads": 0}, "num_heads=0 is not allowed"),
    ("llama", {"vocab_size": 10}, "the model room for 10"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    (
        "llama",
        {"num_hidden_layers": 3},
        "layers.2.input_layernorm.weight is missing",
    ),
    ("llama", {"num_hidden_layers": 1}, "tensor model.layers.1."),
    ("llama", {"tie_word_embeddings": True}, "tensor lm_head.weight has no place"),
    ("arcee", {"hidden_act": "relu6"}, "hidden_act='relu6'"),
    ("starcoder2", {"sliding_window": "8"}, "sliding_window='8' is no whole number"),
    ("gpt2", {"activation_function": "gelu_fast"}, "activation_function='gelu_fast'"),
    ("stablelm", {"qk_layernorm": True}, "qk_layernorm=True"),
    ("stablelm", {"use_parallel_residual": True}, "use_parallel_residual=True"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx=True"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=False"),
    ("gpt2", {"n_positions": 64}, "transformer.wpe.weight has shape [28, 32]"),
    ("gpt2", {"n_positions": 2**40}, "numbers are there, the config asks for"),
    ("gpt2", {"n_layer": 2**32 - 1}, "numbers are there, the config asks for"),
    ("mpt", {"attn_config": {"alibi": False}}, "attn_config.alibi=False"),
    ("mpt", {"attn_config": {"qk_ln": True}}, "attn_config.qk_ln=True"),
    ("mpt", {"attn_config": {"alibi_bias_max": 16}}, "attn_config.alibi_bias_max=16"),
    ("mpt", {"attn_config": {"clip_qkv": 6}}, "attn_config.clip_qkv=6"),
    ("mpt", {"attn_config": {"softmax_scale": 1.0}}, "attn_config.softmax_scale=1.0"),
    ("mpt", {"logit_scale": 2.0}, "logit_scale=2.0"),
    ("mpt", {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06"),
    ("mamba", {"state_size": 8}, "state_size=8"),
    ("mamba", {"conv_kernel": 3}, "conv_kernel=3"),
    ("mamba", {"time_step_rank": 5}, "time_step_rank=5: ours would have 2"),
    ("mamba", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
    ("mamba", {"use_conv_bias": False}, "use_conv_bias=False"),
    ("mamba", {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06"),
    ("rwkv", {"attention_hidden_size": 64}, "attention_hidden_size=64"),
    ("rwkv", {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06"),
]


@pytest.mark.parametrize(("name", "settings", "said"), SETTINGS)
def test_a_setting_that_ours_cannot_represent_is_named(copy, name, settings, said):
    refused(copy(name, settings), said)


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("llama", "hidden_size", "hidden_size is missing"),
        ("llama", "num_key_value_heads", "k_proj.weight has shape [8, 32]"),
    ],
)
def test_what_is_left_out_is_what_transformers_assumes(copy, name, key, said):
    refused(copy(name, without=(key,)), said)


def test_a_quarter_of_the_head_turns_where_stablelm_does_not_say():
    settings = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 28,
    }
    native = class_named("stablelm")
    with pytest.raises(UsageError, match=r"partial_rotary_factor=0\.25"):
        from_settings(native, settings)
    whole = settings | {"partial_rotary_factor": 1.0}
    assert from_settings(native, whole).activation == "swiglu"


def add(name, value):
    """Adds to a tensor, which is made if it is not there."""

    def change(tensors):
        tensors[name] = tensors.get(name, 0) + np.float32(value)

    return change


def put(name, value):
    return lambda tensors: tensors.update({name: value})


def rounded(name):
    def change(tensors):
        tensors[name] = tensors[name].astype(np.float16)

    return change


def turn(name):
    return lambda tensors: tensors.update({name: tensors[name].T.copy()})


ONES = np.ones(32, np.float32)
ATTENTION = "model.layers.1.self_attn"
TENSORS = [
    ("llama", put(f"{ATTENTION}.q_proj.bias", ONES), f"{ATTENTION}.q_proj.bias"),
    ("llama", put(f"{ATTENTION}.q_norm.weight", ONES), f"{ATTENTION}.q_norm.weight"),
    ("llama", put("model.norm.weight", ONES[:8]), "model.norm.weight has shape [8]"),
    ("llama", turn(f"{ATTENTION}.k_proj.weight"), "k_proj.weight has shape [32, 8]"),
    ("llama", put("model.norm.weight", ONES.astype(int)), "model.norm.weight is I64"),
    ("llama", lambda tensors: tensors.pop("lm_head.weight"), "lm_head.weight is miss"),
    ("llama-tied", put("lm_head.weight", np.ones((300, 32), np.float32)), "lm_head"),
    (
        "starcoder2",
        add("model.layers.0.input_layernorm.bias", 0.1),
        "0.input_layernorm",
    ),
    ("stablelm", add("model.norm.bias", 0.1), "tensor model.norm.bias is not zero"),
    ("mpt", put("transformer.blocks.0.attn.Wqkv.bias", ONES), "Wqkv.bias is not zero"),
    ("mamba", put("backbone.layers.0.mixer.in_proj.bias", ONES), "in_proj.bias is not"),
    (
        "rwkv",
        put("rwkv.blocks.0.attention.key.bias", ONES),
        "key.bias is not zero",
    ),
]


@pytest.mark.parametrize(("name", "change", "said"), TENSORS)
def test_a_tensor_that_ours_has_no_place_for_is_named(copy, name, change, said):
    refused(copy(name, tensors=change), said)


def same_model(one, other):
    ours, theirs = load_model(one), load_model(other)
    assert ours.config == theirs.config.canonical()
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


@pytest.mark.parametrize(
    ("name", "settings", "change"),
    [
        # As versions 4 and 5 of transformers spell the same rotation.
        ("llama", {"rope_parameters": None}, None),
        ("llama", {"rope_theta": None, "rope_scaling": None}, None),
        ("llama", {"rope_scaling": {"rope_type": "default"}}, None),
        ("llama", {"head_dim": None, "pretraining_tp": 1}, None),
        ("llama", {"attention_bias": True}, put(f"{ATTENTION}.q_proj.bias", 0 * ONES)),
        ("llama", {}, put(f"{ATTENTION}.rotary_emb.inv_freq", np.ones(4, np.float32))),
        ("llama-tied", {}, "head"),
        ("gpt2", {}, put("transformer.h.0.attn.bias", np.ones((1, 1, 4, 4), bool))),
        ("gpt2", {"n_inner": None, "attn_pdrop": 0.1}, None),
        ("gpt2", {}, lambda tensors: tensors.pop("transformer.ln_f.bias")),
        ("gpt2", {}, rounded("transformer.wpe.weight")),
        ("gpt2", {}, add("transformer.wpe.weight", 1e-9)),  # another machine's sine
        ("mamba", {"time_step_rank": "auto", "intermediate_size": None}, None),
        ("rwkv", {"rescale_every": 6, "attention_hidden_size": None}, None),
    ],
)
def test_what_means_the_same_is_read(copy, exported, tmp_path, name, settings, change):

    def with_head(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]

    source = copy(name, settings, with_head if change == "head" else change)
    import_folder(source, tmp_path / "model")
    same_model(tmp_path / "model", exported(name).parent / "model")


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_values_are_kept_whatever_their_type(copy, tmp_path, kind):
    source = copy("llama")
    tensors = safetensors.numpy.load_file(source / WEIGHTS)
    tensors["model.norm.weight"][0] = 1e-30  # not in float16
    narrow = {name: jnp.asarray(x, kind) for name, x in tensors.items()}
    safetensors.flax.save_file(narrow, source / WEIGHTS)
    import_folder(source, tmp_path / "model")
    stored = safetensors.numpy.load_file(tmp_path / "model" / WEIGHTS)
    wanted = "float16" if kind == "float16" else "float32"
    assert {str(x.dtype) for x in stored.values()} == {wanted}
    params = load_model(tmp_path / "model").params
    for ours, theirs in (
        (params["norm"]["scale"], "model.norm.weight"),
        (params["embed"]["embedding"], "model.embed_tokens.weight"),
    ):
        assert ours.dtype == jnp.float32
        np.testing.assert_array_equal(ours, narrow[theirs].astype(jnp.float32))


def test_a_checkpoint_in_parts_is_read(copy, exported, tmp_path):
    source = copy("llama")
    tensors = safetensors.numpy.load_file(source / WEIGHTS)
    (source / WEIGHTS).unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, held in parts.items():
        safetensors.numpy.save_file({n: tensors[n] for n in held}, source / part)
    where = {name: part for part, held in parts.items() for name in held}
    (source / INDEX).write_text(json.dumps({"weight_map": where}))
    import_folder(source, tmp_path / "model")
    same_model(tmp_path / "model", exported("llama").parent / "model")
    (source / "b.safetensors").unlink()
    refused(source, "b.safetensors: No such file")
    (source / INDEX).write_text("{}")
    refused(source, "has no weight_map")


def test_of_two_copies_the_index_decides(copy, exported, tmp_path):
    source = copy("llama")
    tensors = safetensors.numpy.load_file(source / WEIGHTS)
    (source / WEIGHTS).unlink()
    stale = {name: 0 * tensor for name, tensor in tensors.items()}
    names = sorted(tensors)
    # The last file to be read holds stale copies of all but one.
    mixed = stale | {names[0]: tensors[names[0]]}
    parts = {"a.safetensors": tensors, "b.safetensors": mixed}
    for part, held in parts.items():
        safetensors.numpy.save_file(held, source / part)
    where = dict.fromkeys(names, "a.safetensors") | {names[0]: "b.safetensors"}
    (source / INDEX).write_text(json.dumps({"weight_map": where}))
    import_folder(source, tmp_path / "model")
    same_model(tmp_path / "model", exported("llama").parent / "model")
    missing = where | {"model.other": "b.safetensors"}
    (source / INDEX).write_text(json.dumps({"weight_map": missing}))
    refused(source, "b.safetensors lacks tensor model.other")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(copy, value):
    def spoil(tensors):
        tensors["model.norm.weight"][3] = value

    refused(copy("llama", tensors=spoil), "model.norm.weight is not finite")


def test_a_token_beyond_the_embedding_is_refused(copy):
    source = copy("llama")
    content = json.loads((source / TOKENIZER).read_text())
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary[last] = 5000  # as many tokens as before
    (source / TOKENIZER).write_text(json.dumps(content))
    refused(source, "tokens up to id 5000, the model room for")


def test_files_that_are_missing_or_damaged(copy):
    source = copy("llama")
    whole = {path.name: path.read_bytes() for path in source.iterdir()}
    for name, damage, said in (
        (CONFIG, None, "config.json: No such file"),
        (CONFIG, b"{", "config.json is not JSON"),
        (CONFIG, b"[]", "it is no JSON object"),
        (WEIGHTS, None, "model.safetensors is missing"),
        (WEIGHTS, whole[WEIGHTS][:99], "cannot read model.safetensors"),
        (TOKENIZER, None, "tokenizer.json is missing: a model needs its tokenizer"),
        (TOKENIZER, b"{}", "cannot read"),
    ):
        (source / name).unlink()
        if damage is not None:
            (source / name).write_bytes(damage)
        refused(source, said)
        (source / name).write_bytes(whole[name])
    (source / WEIGHTS).rename(source / "pytorch_model.bin")
    refused(source, ".bin files of torch are not read")


def test_what_belongs_to_the_tokenizer_is_kept(copy, tmp_path):
    source = copy("llama", {"eos_token_id": 7})
    kept = {
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "x": 1},
        "generation_config.json": {"eos_token_id": 7, "temperature": 0.5},
    }
    for name, content in kept.items():
        (source / name).write_text(json.dumps(content))
    (source / "special_tokens_map.json").unlink()
    template = "{% for m in messages %}{{ m.content }}{% endfor %}\n"
    (source / "chat_template.jinja").write_text(template)
    import_folder(source, tmp_path / "model")
    export_folder(tmp_path / "model", tmp_path / "again")
    for name, content in kept.items():
        assert json.loads((tmp_path / "again" / name).read_text()) == content
    assert (tmp_path / "again" / "chat_template.jinja").read_text() == template
    assert chat_template(tmp_path / "again") == template
    assert json.loads((tmp_path / "again" / CONFIG).read_text())["eos_token_id"] == 7
    # With another tokenizer it says nothing any more.
    import_folder(source, tmp_path / "other", source / TOKENIZER)
    names = {path.name for path in (tmp_path / "other").iterdir()}
    assert names == {CONFIG, WEIGHTS, TOKENIZER}
    ids = load_model(tmp_path / "other").tokenizer.encode(TEXT).ids
    assert ids == TOKENS.encode(TEXT).ids


def test_a_template_is_kept_without_a_generation_config(copy, tmp_path):
    source = copy("llama", {"eos_token_id": 7})
    (source / "generation_config.json").unlink(missing_ok=True)
    settings = {"chat_template": "{{ messages }}", "tokenizer_class": "GPT2Tokenizer"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    import_folder(source, tmp_path / "model")
    assert chat_template(tmp_path / "model") == "{{ messages }}"
    assert end_tokens(tmp_path / "model", TOKENS) == [7]


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_generation_config_that_is_none_is_refused(copy, content):
    source = copy("llama")
    (source / "tokenizer_config.json").write_text("{}")
    (source / "generation_config.json").write_text(content)
    refused(source, "generation_config.json")


@pytest.mark.parametrize(
    ("content", "ends"),
    [({"eos_token_id": 7}, [7]), ({"eos_token_id": [7, 2]}, [7, 2])],
)
def test_a_text_ends_where_the_checkpoint_says(copy, tmp_path, content, ends):
    source = copy("llama")
    (source / "generation_config.json").write_text(json.dumps(content))
    (source / "tokenizer_config.json").write_text("{}")
    import_folder(source, tmp_path / "model")
    assert end_tokens(tmp_path / "model", TOKENS) == ends
    (tmp_path / "model" / "generation_config.json").unlink()
    assert end_tokens(tmp_path / "model", TOKENS) == [TOKENS.token_to_id(END_OF_TEXT)]


def test_exact_weights_are_stored_and_read_back(tmp_path):
    config = CELLS["llama"]
    params = perturbed(config)
    save_model(tmp_path / "exact", config, params, TOKENS, exact=True)
    read = load_model(tmp_path / "exact")
    jax.tree.map(np.testing.assert_array_equal, read.params, params)
    size = (tmp_path / "exact" / WEIGHTS).stat().st_size
    assert 2 * cost.size_bytes(config) < size < 2 * cost.size_bytes(config) + 4096
    # What fits is as small as a trained model, byte for byte.
    for name, exact in (("narrow", True), ("trained", False)):
        rounded = jax.tree.map(lambda x: x.astype(np.float16), params)
        wide = jax.tree.map(lambda x: x.astype(np.float32), rounded)
        save_model(tmp_path / name, config, wide, TOKENS, exact=exact)
    one, other = ((tmp_path / n / WEIGHTS).read_bytes() for n in ("narrow", "trained"))
    assert one == other
    tensors = safetensors.numpy.load_file(tmp_path / "exact" / WEIGHTS)
    tensors["norm.scale"] = tensors["norm.scale"].astype(np.float16)
    safetensors.numpy.save_file(tensors, tmp_path / "exact" / WEIGHTS)
    with pytest.raises(UsageError, match="does not fit"):
        load_model(tmp_path / "exact")


def test_weights_beyond_fp16_are_not_stored_as_infinities(tmp_path):
    config = CELLS["llama"]
    params = draw_parameters(build_model(config), jax.random.key(0))
    params["norm"]["scale"] = params["norm"]["scale"] * np.float32(1e5)
    with pytest.raises(ValueError, match="100000 is beyond fp16"):
        save_model(tmp_path / "model", config, params, TOKENS)
    assert not (tmp_path / "model").exists()


def test_exact_weights_are_not_quantised(tmp_path):
    config = cell("transformer", quantization="int8")
    with pytest.raises(ValueError, match="exact weights are not int8"):
        save_model(tmp_path / "model", config, {}, TOKENS, exact=True)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.0, -0.0, 1.0, 65504.0, 6e-8, 2**-24], "float32"),
        ([0.0, -0.0, 1.0, 65504.0, 2**-24], "float16"),
        ([65520.0], "float32"),
        ([1 + 2**-11], "float32"),
        ([1 + 2**-10], "float16"),
    ],
)
def test_the_narrowest_type_that_is_exact(values, kind):
    ones = np.ones(3, np.float32)
    assert narrowest([ones, np.float32(values)]) == kind
