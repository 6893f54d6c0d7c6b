import dataclasses
import itertools
import json

import pytest

from arch.baselines import BASELINES
from arch.config import ArchitectureConfig
from arch.families import FAMILIES, VARIANTS

BASE = ArchitectureConfig(
    arch_type="transformer",
    num_layers=3,
    hidden_dim=96,
    num_heads=4,
    ffn_multiplier=2.5,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    attention_dropout=0.1,
    residual_dropout=0.2,
    vocab_size=500,
    max_seq_length=64,
    quantization="int8",
    pruning_ratio=0.25,
    tie_embeddings=True,
    ffn_dim=100,
)

NAN, INF = float("nan"), float("inf")
COUNT = ([0, -1, 2.0, True, "4", None], "an int of at least 1")
RATE = ([-0.1, 1, 1.5, NAN, INF, True, "0", None], r"a number in \[0, 1\)")
OVERRIDE = ([0, -5, 64.0, True, "64"], "null or an int of at least 1")
POSITIVE = ([0, -1.0, NAN, INF, True, "1", None], "a number above 0")
SWITCH = ([1, 0, "true", None], "true | false")
BAD = {
    "arch_type": (["gpt", None, 3], "transformer | .* | mamba | rwkv"),
    "num_layers": COUNT,
    "hidden_dim": COUNT,
    "num_heads": COUNT,
    "ffn_multiplier": ([0, -2.0, NAN, INF, 1e308, "4", True, None], "above 0"),
    "normalization": (["batchnorm", None], "layernorm | rmsnorm | groupnorm"),
    "activation": (["relu", 0], "gelu | silu | geglu | swiglu"),
    "position_encoding": (["none", None], "absolute | rope | alibi"),
    "attention_dropout": RATE,
    "residual_dropout": RATE,
    "vocab_size": COUNT,
    "max_seq_length": COUNT,
    "quantization": (["fp32", 8], "fp16 | int8 | int4"),
    "pruning_ratio": RATE,
    "tie_embeddings": SWITCH,
    "ffn_dim": OVERRIDE,
    "kv_heads": OVERRIDE,
    "inner_dim": OVERRIDE,
    "attention_dim": OVERRIDE,
    "norm_epsilon": POSITIVE,
    "rope_theta": POSITIVE,
    "rope_scaling": POSITIVE,
    "qkv_bias": SWITCH,
    "biases": SWITCH,
    "tanh_gelu": SWITCH,
    "learned_positions": SWITCH,
    "sliding_window": OVERRIDE,
    "rotary_dim": OVERRIDE,
    "parallel_residual": SWITCH,
    "shared_norm": SWITCH,
    "head_bias": SWITCH,
}
# What a variant goes with.
NEEDS = {
    "shared_norm": {"parallel_residual": True},
    "head_bias": {"tie_embeddings": False},
}


def test_what_is_as_always_is_not_written():
    """Digests and files of configs stay as they were before there were variants."""
    assert not set(BASE.to_dict()) & set(VARIANTS)
    for name, value in VARIANTS.items():
        assert getattr(BASE, name) == value
        other = {False: True, None: 8}.get(value) or 2 * value
        fields = NEEDS.get(name, {}) | {name: other}
        changed = dataclasses.replace(BASE, **fields)
        assert changed.to_dict() == BASE.to_dict() | fields
        assert ArchitectureConfig.from_json(changed.to_json()) == changed
        assert getattr(changed.canonical(), name) == other


def test_every_field_is_listed_here():
    assert list(BAD) == [field.name for field in dataclasses.fields(BASE)]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [(name, bad, allowed) for name, (values, allowed) in BAD.items() for bad in values],
)
def test_a_bad_value_is_refused_with_its_name_and_what_is_allowed(name, value, allowed):
    with pytest.raises(ValueError, match=allowed.replace("|", r"\|")) as error:
        dataclasses.replace(BASE, **{name: value})
    line = str(error.value)
    assert line.startswith(f"{name}={value!r} is not allowed")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 7}, "num_heads=7 .* divisor of hidden_dim=96"),
        ({"num_heads": 32}, "num_heads=32 .* even size for rope, hidden_dim=96"),
        (
            {"normalization": "groupnorm", "hidden_dim": 100, "num_heads": 2},
            "hidden_dim=100 .* multiple of 8 for groupnorm",
        ),
        ({"rotary_dim": 5}, "rotary_dim=5 .* null or an even number, at most a head's"),
        ({"rotary_dim": 26}, "rotary_dim=26 .* at most a head's"),
        ({"shared_norm": True}, "shared_norm=True .* false where parallel_residual is"),
        ({"head_bias": True}, "head_bias=True .* false where embeddings are tied"),
        ({"ffn_multiplier": 0.01, "ffn_dim": None}, "ffn_multiplier=0.01 .* channel"),
        ({"ffn_multiplier": 1e30, "ffn_dim": None}, "ffn_multiplier=1e.30 .* channels"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BASE, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_heads": 32, "position_encoding": "alibi"},  # heads of 3
        {"num_heads": 48},  # heads of 2
        {"num_heads": 1, "normalization": "layernorm", "hidden_dim": 10},
        {"num_layers": 1, "vocab_size": 1, "max_seq_length": 1, "ffn_dim": 1},
        {"attention_dropout": 0, "residual_dropout": 0.999, "pruning_ratio": 0.999},
        {"ffn_multiplier": 0.01},  # ffn_dim says how many there are
        {"arch_type": "mamba", "num_heads": 7},  # mamba has no heads
        {"arch_type": "rwkv", "normalization": "groupnorm", "hidden_dim": 100},
    ],
)
def test_the_limits_of_what_is_allowed(changes):
    config = dataclasses.replace(BASE, **changes)
    assert {name: getattr(config, name) for name in changes} == changes


def test_derived_sizes():
    assert BASE.head_dim == 24
    assert BASE.feedforward_dim == 100
    assert dataclasses.replace(BASE, ffn_dim=None).feedforward_dim == 240
    rounded = dataclasses.replace(BASE, ffn_dim=None, ffn_multiplier=0.99)
    assert rounded.feedforward_dim == 95  # 95.04
    gated = {"gelu": False, "silu": False, "geglu": True, "swiglu": True}
    for name, wanted in gated.items():
        assert dataclasses.replace(BASE, activation=name).gated is wanted


def test_defaults():
    fields = BASE.to_dict()
    required = dict(itertools.islice(fields.items(), 8))
    assert ArchitectureConfig(**required).to_dict() == {
        **required,
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
        "vocab_size": 50000,
        "max_seq_length": 2048,
        "quantization": "fp16",
        "pruning_ratio": 0.0,
        "tie_embeddings": False,
        "ffn_dim": None,
        "kv_heads": None,
        "inner_dim": None,
    }


@pytest.mark.parametrize("config", [BASE, *BASELINES.values()])
def test_json_round_trip(config):
    text = config.to_json()
    assert ArchitectureConfig.from_json(text) == config
    assert ArchitectureConfig.from_dict(config.to_dict()) == config
    assert list(json.loads(text)) == [name for name in BAD if name not in VARIANTS]
    assert text == json.dumps(json.loads(text), indent=2) + "\n"


def test_json_is_plain():
    assert json.loads(BASE.to_json()) == {
        "arch_type": "transformer",
        "num_layers": 3,
        "hidden_dim": 96,
        "num_heads": 4,
        "ffn_multiplier": 2.5,
        "normalization": "rmsnorm",
        "activation": "swiglu",
        "position_encoding": "rope",
        "attention_dropout": 0.1,
        "residual_dropout": 0.2,
        "vocab_size": 500,
        "max_seq_length": 64,
        "quantization": "int8",
        "pruning_ratio": 0.25,
        "tie_embeddings": True,
        "ffn_dim": 100,
        "kv_heads": None,
        "inner_dim": None,
    }


def test_unknown_keys_are_named():
    values = {**BASE.to_dict(), "n_layers": 3, "rope": True}
    with pytest.raises(ValueError, match="'n_layers', 'rope'; known: arch_type, num"):
        ArchitectureConfig.from_dict(values)


def test_missing_keys_are_named():
    values = BASE.to_dict()
    del values["num_heads"], values["activation"], values["ffn_dim"]
    with pytest.raises(ValueError, match=r"config lacks num_heads, activation$"):
        ArchitectureConfig.from_dict(values)


def test_values_from_json_are_validated():
    text = BASE.to_json().replace('"hidden_dim": 96', '"hidden_dim": 96.5')
    with pytest.raises(ValueError, match=r"hidden_dim=96\.5 .* an int"):
        ArchitectureConfig.from_json(text)
    text = BASE.to_json().replace('"pruning_ratio": 0.25', '"pruning_ratio": NaN')
    with pytest.raises(ValueError, match="pruning_ratio=nan"):
        ArchitectureConfig.from_json(text)


@pytest.mark.parametrize("text", ["", "{", BASE.to_json()[:-4], "{'a': 1}"])
def test_broken_json_is_refused(text):
    with pytest.raises(ValueError, match=r"config is not JSON: .*line"):
        ArchitectureConfig.from_json(text)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"mamba"'])
def test_json_that_is_no_object_is_refused(text):
    with pytest.raises(ValueError, match="a config is an object of fields, got"):
        ArchitectureConfig.from_json(text)


def test_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.num_layers = 4
    again = ArchitectureConfig.from_json(BASE.to_json())
    assert {BASE: "found"}[again] == "found"
    assert len({BASE, again, dataclasses.replace(BASE, num_layers=4)}) == 2


# What each family reads beyond the depth, the width, the residual dropout, the
# vocabulary and the compression, by its definition.
FEEDFORWARD = {"ffn_multiplier", "ffn_dim"}
HEADS = {"num_heads", "position_encoding"}
STYLE = {"normalization", "activation"}
READS = {
    "transformer": FEEDFORWARD | HEADS | STYLE | {"attention_dropout"},
    "grouped_query_attention": FEEDFORWARD | HEADS | STYLE | {"attention_dropout"},
    "linear_transformer": FEEDFORWARD | HEADS | STYLE,
    "flash_attention": FEEDFORWARD | HEADS | STYLE,
    "mamba": {"normalization"},
    "rwkv": FEEDFORWARD,
}
CHANGED = {
    "num_layers": 4,
    "hidden_dim": 192,
    "num_heads": 2,
    "ffn_dim": 101,
    "normalization": "layernorm",
    "activation": "silu",
    "position_encoding": "alibi",
    "attention_dropout": 0.3,
    "residual_dropout": 0.3,
    "vocab_size": 501,
    "max_seq_length": 65,
    "quantization": "int4",
    "pruning_ratio": 0.5,
    "tie_embeddings": False,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("field", CHANGED)
def test_canonical_forgets_just_what_the_family_does_not_read(family, field):
    config = dataclasses.replace(BASE, arch_type=family)
    other = dataclasses.replace(config, **{field: CHANGED[field]})
    always = set(CHANGED) - set().union(*READS.values())
    reads = field in READS[family] | always
    assert (config.canonical() != other.canonical()) == reads


@pytest.mark.parametrize("family", FAMILIES)
def test_canonical_keeps_what_the_family_reads(family):
    config = dataclasses.replace(BASE, arch_type=family, ffn_dim=None)
    kept = config.canonical()
    for field in READS[family]:
        assert getattr(kept, field) == getattr(config, field)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("multiplier", [2.5, 4.0, 1.51])
@pytest.mark.parametrize("channels", [None, 240, 384, 144, 100])
def test_canonical_is_idempotent_and_keeps_the_model(family, multiplier, channels):
    config = dataclasses.replace(
        BASE, arch_type=family, ffn_multiplier=multiplier, ffn_dim=channels
    )
    once = config.canonical()
    assert once.canonical() == once
    if family != "mamba":
        assert once.feedforward_dim == config.feedforward_dim


def test_canonical_drops_an_ffn_dim_that_repeats_the_multiplier():
    replace = dataclasses.replace
    plain = replace(BASE, ffn_dim=None)
    assert replace(BASE, ffn_dim=240).canonical() == plain
    # An override makes the multiplier idle, whatever it is.
    assert replace(BASE, ffn_multiplier=3.0).canonical() == BASE.canonical()
    assert BASE.canonical().feedforward_dim == 100
    four = replace(BASE, ffn_multiplier=4.0, ffn_dim=None)
    assert replace(BASE, ffn_dim=384).canonical() == four
