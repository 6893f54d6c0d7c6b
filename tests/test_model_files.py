import dataclasses
import json
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from arch import ArchitectureConfig, build_model, cost
from arch.config import QUANTIZATIONS
from arch.initial import draw_parameters
from jaxnas.compress import prune, round_weights
from jaxnas.data import train_tokenizer
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    load_model,
    read_arrays,
    save_model,
    write_arrays,
)
from jaxnas.pipeline.winner import BestWeights
from jaxnas.training.phase import Phase

GATED = ArchitectureConfig(
    arch_type="transformer",
    num_layers=2,
    hidden_dim=40,  # rows that end in a padded block
    num_heads=2,
    ffn_multiplier=4.0,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    vocab_size=261,
    max_seq_length=16,
)
TIED = dataclasses.replace(GATED, activation="gelu", tie_embeddings=True, num_layers=1)
TEXT = "def f(x):\n    return x  # <|endoftext|> é\n"
TOKENS = train_tokenizer([TEXT] * 3, 261)


def parameters(config, seed=0):
    drawn = draw_parameters(build_model(config), jax.random.key(seed))
    rng = np.random.default_rng(seed)

    def change(path, leaf):
        if path[-1].key == "scale":
            return leaf * rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        return leaf

    return jax.tree.map(jnp.asarray, jax.tree_util.tree_map_with_path(change, drawn))


def compressed(config, quantization, ratio):
    return dataclasses.replace(config, quantization=quantization, pruning_ratio=ratio)


def tensor_bytes(path):
    """Bytes behind a safetensors header, whose length stands in the first 8."""
    raw = path.read_bytes()
    header = int.from_bytes(raw[:8], "little")
    tensors = json.loads(raw[8 : 8 + header])
    tensors.pop("__metadata__")
    spans = [tensor["data_offsets"] for tensor in tensors.values()]
    assert sum(end - begin for begin, end in spans) == len(raw) - 8 - header
    return len(raw) - 8 - header


@pytest.fixture
def saved(tmp_path):
    """A saved int8 model, and its folder."""
    config = compressed(GATED, "int8", 0.0)
    save_model(tmp_path / "model", config, parameters(GATED), TOKENS)
    return tmp_path / "model"


@pytest.mark.parametrize("base", [GATED, TIED], ids=["gated", "tied"])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("ratio", [0.0, 0.6])
@pytest.mark.sweep(4)
def test_what_is_loaded_is_what_was_scored(tmp_path, base, quantization, ratio):
    config, params = compressed(base, quantization, ratio), parameters(base)
    written = save_model(tmp_path / "a" / "model", config, params, TOKENS)
    found = load_model(tmp_path / "a" / "model")
    smaller, cut = prune(config, params)
    assert written == found.config == smaller
    assert found.config.pruning_ratio == 0
    wanted = round_weights(cut, QUANTIZATIONS.index(quantization))
    chex.assert_trees_all_equal_shapes_and_dtypes(found.params, wanted)
    chex.assert_trees_all_equal(found.params, wanted)
    size = tensor_bytes(tmp_path / "a" / "model" / WEIGHTS)
    assert size == cost.size_bytes(config) == cost.size_bytes(found.config)
    assert found.tokenizer.to_str() == TOKENS.to_str()


def test_the_scored_program_rounds_to_the_same_values(tmp_path):
    params = parameters(GATED)
    for index, quantization in enumerate(QUANTIZATIONS):
        config = compressed(GATED, quantization, 0.0)
        save_model(tmp_path / quantization, config, params, TOKENS)
        scored = jax.jit(round_weights)(params, jnp.int32(index))
        loaded = load_model(str(tmp_path / quantization))
        chex.assert_trees_all_equal(loaded.params, scored)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    config = compressed(GATED, "int4", 0.6)
    turned = lambda tree: (
        {name: turned(tree[name]) for name in reversed(tree)}
        if isinstance(tree, dict)
        else tree
    )
    params = parameters(GATED)
    save_model(tmp_path / "one", config, params, TOKENS)
    save_model(tmp_path / "two", config, turned(params), TOKENS)
    save_model(tmp_path / "other", config, parameters(GATED, seed=1), TOKENS)
    for name in (WEIGHTS, CONFIG, TOKENIZER):
        one = (tmp_path / "one" / name).read_bytes()
        assert (tmp_path / "two" / name).read_bytes() == one
        if name == WEIGHTS:
            assert (tmp_path / "other" / name).read_bytes() != one
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(
        [WEIGHTS, CONFIG, TOKENIZER]
    )


def test_the_tokenizer_reads_text_as_in_training(saved):
    tokenizer = load_model(saved).tokenizer
    assert tokenizer.encode(TEXT).ids == TOKENS.encode(TEXT).ids
    assert 0 not in tokenizer.encode(TEXT).ids  # spelled out, it ends nothing
    assert tokenizer.decode(tokenizer.encode(TEXT).ids) == TEXT


def refused(folder, said):
    with pytest.raises(UsageError, match=said) as raised:
        load_model(folder)
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, TOKENIZER])
def test_a_file_that_is_missing_or_damaged(saved, name):
    whole = (saved / name).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\xff\xfe" + whole, b"{}\n{}\n"):
        (saved / name).write_bytes(damaged)
        refused(saved, "cannot read a model from")
    (saved / name).unlink()
    refused(saved, "cannot read a model from")


def test_a_folder_that_is_missing(tmp_path):
    refused(tmp_path / "none", "cannot read a model from")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_dim": 48}, "does not fit.*needs to be"),
        ({"num_layers": 3}, "does not fit.*needs to be"),
        ({"ffn_dim": 128}, "does not fit.*feedforward"),
        ({"activation": "gelu"}, "at blocks.feedforward.gate.*needs to be missing"),
        ({"tie_embeddings": True}, "at head.kernel.*needs to be missing"),
        ({"quantization": "fp16"}, "does not fit"),
        ({"quantization": "int4"}, "is int8.*needs to be uint8"),
        ({"vocab_size": 262}, "at embed.*261.*needs to be.*262"),
        ({"vocab_size": 260}, "261 tokens.*room for 260"),
        ({"arch_type": "mamba"}, "at blocks.feedforward.*needs to be missing"),
        ({"arch_type": "perceptron"}, "cannot read a model.*arch_type='perceptron'"),
        ({"num_layers": -1}, "cannot read a model.*num_layers=-1"),
        ({"colour": "red"}, "cannot read a model.*unknown config key 'colour'"),
    ],
    ids=str,
)
def test_a_config_of_another_model(saved, changes, said):
    values = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps(values | changes))
    refused(saved, said)


@pytest.mark.parametrize("name", ["hidden_dim", "num_layers", "vocab_size"])
def test_a_config_of_more_than_the_file_can_hold(saved, name):
    values = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps(values | {name: 2**36}))
    refused(saved, r"bytes, its config has [\d,]+ parameters")


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite(saved, value):
    tensors = safetensors.numpy.load_file(saved / WEIGHTS)
    tensors["norm.scale"][0] = value
    safetensors.numpy.save_file(tensors, saved / WEIGHTS)
    refused(saved, r"norm\.scale is not finite")


def test_a_token_beyond_the_embedding(saved):
    content = json.loads((saved / TOKENIZER).read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 70_000  # as many as before
    (saved / TOKENIZER).write_text(json.dumps(content))
    refused(saved, "tokens up to id 70000, the model room for")


CODES = "blocks.feedforward.up.kernel.codes"
SCALES = "blocks.feedforward.up.kernel.scales"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop(CODES),
        lambda t: t.pop("norm.scale"),
        lambda t: t.update(extra=np.zeros(3, np.float16)),
        lambda t: t.update({CODES: t[CODES][:, :-1]}),
        lambda t: t.update({CODES: t[CODES].astype(np.int16)}),
        lambda t: t.update({SCALES: t[SCALES][..., :1]}),  # would broadcast
        lambda t: t.update({SCALES: t[SCALES].astype(np.float32)}),
        lambda t: t.update({"norm.scale": t["norm.scale"].astype(np.float32)}),
    ],
    ids=["codes", "norm", "extra", "rows", "int16", "scales", "float32", "norm32"],
)
def test_other_tensors_than_the_config_asks_for(saved, change):
    tensors = safetensors.numpy.load_file(saved / WEIGHTS)
    change(tensors)
    safetensors.numpy.save_file(tensors, saved / WEIGHTS)
    refused(saved, f"{re.escape(WEIGHTS)} does not fit .*{re.escape(CONFIG)} at")


def test_arrays_come_back_exactly(tmp_path):
    params = parameters(TIED)
    params["odd"] = {"x": np.array([np.nan, -0.0, 1e-45, np.inf], np.float32)}
    write_arrays(tmp_path / "file", params, {"a": "1", "b": "é"})
    found, metadata = read_arrays(tmp_path / "file")
    assert metadata == {"a": "1", "b": "é"}
    chex.assert_trees_all_equal_shapes_and_dtypes(found, params)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_the_best_weights_are_kept(tmp_path):
    path = tmp_path / "best"
    best = BestWeights(path)
    assert best.read(GATED) is None
    best.offer(GATED, parameters(GATED), None)
    assert not path.exists()
    best.offer(GATED, parameters(GATED), 0.1 + 0.2)
    best.offer(TIED, parameters(TIED), 0.1 + 0.2)  # the first of equals
    best.offer(TIED, parameters(TIED), 0.2)
    chex.assert_trees_all_equal(best.read(GATED), parameters(GATED))
    chex.assert_trees_all_equal(
        best.read(compressed(GATED, "int4", 0.0)), parameters(GATED)
    )
    # Pruned weights have trained on; those of another phase are others.
    assert best.read(compressed(GATED, "int4", 0.5)) is None
    assert best.read(GATED, rung=1) is None
    assert best.read(TIED) is None
    again = BestWeights(path)  # as a resumed run finds it
    again.offer(TIED, parameters(TIED), 0.3)
    assert again.read(TIED) is None
    again.offer(TIED, parameters(TIED), 0.31)
    chex.assert_trees_all_equal(again.read(TIED), parameters(TIED))
    later = Phase(rung=1)
    again.offer(GATED, parameters(GATED), 0.1, later)
    chex.assert_trees_all_equal(again.read(GATED, rung=1), parameters(GATED))
    BestWeights(path).offer(TIED, parameters(TIED), 0.9)
    assert again.read(TIED) is None


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x02\0\0\0\0\0\0\0{}"])
def test_damaged_best_weights_are_as_good_as_none(tmp_path, damage):
    path = tmp_path / "best"
    path.write_bytes(damage)
    best = BestWeights(path)
    assert best.read(GATED) is None
    best.offer(GATED, parameters(GATED), 0.0)
    chex.assert_trees_all_equal(best.read(GATED), parameters(GATED))
