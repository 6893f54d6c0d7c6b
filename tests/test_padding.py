"""A member goes into a shape and comes out bit for bit, and so does its storage."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch import ArchitectureConfig
from arch.config import QUANTIZATIONS
from arch.cost import kept_channels
from arch.families import FAMILIES, USES, has_heads
from arch.genes import GENES
from arch.padding import (
    Shape,
    common_shape,
    extract,
    holds,
    pad,
    parameter_shapes,
    shape_key,
)
from arch.space import Space
from arch.spaces import SPACES
from jaxnas.compress import prune_in_place, round_weights
from jaxnas.training.loop import fresh_state
from jaxnas.training.members import extract_state, pad_state, traits_array
from jaxnas.training.settings import TrainSettings

SETTINGS = TrainSettings(window=4, batch=1, learning_rate=1e-3)
GATED = ArchitectureConfig(
    arch_type="transformer",
    num_layers=2,
    hidden_dim=32,
    num_heads=4,
    ffn_multiplier=2.0,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    vocab_size=11,
)
PLAIN = dataclasses.replace(GATED, activation="silu")

every_family = pytest.mark.parametrize("family", FAMILIES)


def of_family(family, **changes):
    return dataclasses.replace(GATED, arch_type=family, **changes)


def space_of(family, *heads):
    """The full space of a family with such heads, an eighth as wide."""
    full = SPACES["full"]
    narrow = tuple(width // 8 for width in full.values("hidden_dim"))
    changes = {
        "arch_type": (family,),
        "num_heads": heads,
        "num_layers": (1, 2, 3, 4),
        "hidden_dim": narrow,
    }
    return Space(family, tuple(changes.get(gene, full.values(gene)) for gene in GENES))


@functools.cache
def buckets(family, number=6):
    """Random members of one shape key each, some with counts that no gene has."""
    rng = np.random.default_rng(FAMILIES.index(family))
    found = []
    for heads in ((6,), (2, 6, 16)) if has_heads(family) else ((1,),) * 2:
        space, bucket = space_of(family, *heads), []
        tied = bool(rng.integers(2))
        for genome in space.sample(jax.random.key(len(found)), number):
            fields = {"vocab_size": 11, "tie_embeddings": tied}
            for name in ("ffn_dim", "inner_dim"):
                if name in USES[family] and rng.integers(2):
                    fields[name] = int(rng.integers(1, 300))
            if "kv_heads" in USES[family]:
                own = space.decode(genome, vocab_size=11).num_heads
                fields["kv_heads"] = {2: 1, 6: 6, 16: 4}[own]
            bucket.append(space.decode(genome, **fields))
        found.append(bucket)
    return found


def tree_of(config, seed=0):
    """Random numbers in the places of the parameters, none of them zero."""
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.uniform(1, 2, leaf.shape) * rng.choice([-1, 1], leaf.shape)
    return jax.tree.map(
        lambda leaf: draw(leaf).astype(leaf.dtype), parameter_shapes(config)
    )


def assert_same(got, wanted):
    """Bit for bit, dtypes and structure too."""
    chex.assert_trees_all_equal_structs(got, wanted)
    chex.assert_trees_all_equal_shapes_and_dtypes(got, wanted)
    chex.assert_trees_all_equal(got, wanted)


# ---- there and back ----


@every_family
@pytest.mark.sweep(3)
def test_extract_is_the_inverse_of_pad(family):
    for bucket in buckets(family):
        shape = common_shape(bucket)
        wanted = parameter_shapes(shape)
        for config in bucket:
            tree = tree_of(config)
            padded = pad(tree, config, shape)
            chex.assert_trees_all_equal_shapes_and_dtypes(padded, wanted)
            assert_same(extract(padded, config, shape), tree)


@every_family
@pytest.mark.sweep(3)
def test_what_pad_adds_is_zero(family):
    for bucket in buckets(family):
        shape = common_shape(bucket)
        for config in bucket:
            tree = tree_of(config)
            added = pad(tree, config, shape)
            filled = sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(added))
            assert filled == sum(leaf.size for leaf in jax.tree.leaves(tree))


@every_family
def test_a_training_state_comes_back(family):
    for bucket in buckets(family):
        shape = common_shape(bucket)
        wanted = fresh_state(tree_of(shape), SETTINGS)
        for config in bucket[:3]:
            state = fresh_state(tree_of(config), SETTINGS)
            clip, adam, *others = state.moments
            adam = adam._replace(
                count=np.int32(7), mu=tree_of(config, 1), nu=tree_of(config, 2)
            )
            state = state._replace(moments=(clip, adam, *others), step=np.int32(7))
            padded = pad_state(state, config, shape)
            chex.assert_trees_all_equal_shapes_and_dtypes(padded, wanted)
            assert_same(extract_state(padded, config, shape), state)
            for name, tree in (("mu", adam.mu), ("nu", adam.nu)):
                got = getattr(padded.moments[1], name)
                assert_same(got, pad(tree, config, shape))


def test_dtypes_are_kept():
    config = dataclasses.replace(GATED, hidden_dim=16)
    for dtype in (np.int8, np.float16, jnp.bfloat16):
        tree = jax.tree.map(lambda leaf, to=dtype: leaf.astype(to), tree_of(config))
        assert_same(extract(pad(tree, config, GATED), config, GATED), tree)


def test_the_stream_is_padded_inside_each_group():
    config = dataclasses.replace(GATED, hidden_dim=24)  # 3 of 4 channels a group
    tree = tree_of(config)
    padded = pad(tree, config, GATED)
    own = tree["embed"]["embedding"].reshape(11, 8, 3)
    groups = padded["embed"]["embedding"].reshape(11, 8, 4)
    np.testing.assert_array_equal(groups[..., :3], own)
    # Channels of a head are padded behind, heads and layers are where they were.
    own, wide = (x["blocks"]["mixer"]["out"]["kernel"] for x in (tree, padded))
    np.testing.assert_array_equal(
        wide[:, :, :6].reshape(2, 4, 6, 8, 4)[..., :3], own.reshape(2, 4, 6, 8, 3)
    )


# ---- shapes ----


@every_family
def test_the_common_shape_is_the_smallest_that_holds_its_members(family):
    for bucket in buckets(family):
        shape = common_shape(bucket)
        assert all(holds(shape, config) for config in bucket)
        assert shape.num_layers == max(config.num_layers for config in bucket)
        assert shape.inner_channels == max(config.inner_channels for config in bucket)
        assert shape.hidden_dim == max(config.hidden_dim for config in bucket)
        assert set(shape.heads) == {heads for c in bucket for heads in c.heads}
        gated = "activation" in USES[family] and any(c.gated for c in bucket)
        assert shape.gated == gated


@every_family
def test_the_common_shape_of_a_shape_is_itself(family):
    for bucket in buckets(family):
        shape = common_shape(bucket)
        assert shape == shape.canonical()
        for some in ([shape], [shape, *bucket], bucket[::-1]):
            assert common_shape(some) == shape


def test_a_narrow_shape_holds_what_its_members_chose_alone():
    first = of_family("transformer", normalization="rmsnorm", activation="swiglu")
    second = dataclasses.replace(first, hidden_dim=16, position_encoding="alibi")
    wide, narrow = (common_shape([first, second], narrow=one) for one in (False, True))
    assert "position_encoding" not in narrow.agreed  # they differ there
    assert {"normalization", "activation"} <= set(narrow.agreed)
    for shape in (wide, narrow):
        assert Shape(**dataclasses.asdict(shape)) == shape  # as from JSON
        for config in (first, second):
            assert holds(shape, config)
            tree = tree_of(config)
            assert_same(extract(pad(tree, config, shape), config, shape), tree)
    for change in (
        {"normalization": "layernorm"},
        {"activation": "gelu"},
        {"activation": "geglu"},
    ):
        other = dataclasses.replace(first, **change)
        assert holds(wide, other)
        assert not holds(narrow, other)
        assert holds(common_shape([narrow, other], narrow=True), other)
    # A trait is data in a shape that holds a shape in which it is.
    assert common_shape([wide, first], narrow=True).agreed == wide.agreed
    # What is settled is no data in a wide one either.
    dropping = dataclasses.replace(first, attention_dropout=0.1)
    assert holds(wide, dropping)
    without = common_shape([first], settled=("attention_dropout",))
    assert holds(without, dataclasses.replace(first, normalization="groupnorm"))
    assert not holds(without, dropping)


@pytest.mark.parametrize("odd", [10, 12, 36])
@every_family
@pytest.mark.sweep(6)
def test_an_odd_width_fits_only_itself(family, odd):
    config = of_family(family, hidden_dim=odd, num_heads=2, position_encoding="alibi")
    like = dataclasses.replace(config, num_layers=4, ffn_dim=99, inner_dim=99)
    assert holds(like, config)
    wide = dataclasses.replace(config, hidden_dim=40)
    assert not holds(wide, config)
    assert not holds(wide, dataclasses.replace(config, hidden_dim=odd + 2))
    with pytest.raises(ValueError, match="share no shape"):
        common_shape([wide, config])
    for shape in (like, common_shape([config, like])):
        assert holds(shape, config)
        assert_same(
            extract(pad(tree_of(config), config, shape), config, shape), tree_of(config)
        )


OTHERS = [
    {"arch_type": "flash_attention"},
    {"vocab_size": 12},
    {"tie_embeddings": True},
    {"max_seq_length": 512},
    {"hidden_dim": 20, "position_encoding": "alibi"},
]


@pytest.mark.parametrize("changes", OTHERS, ids=str)
def test_others_share_no_shape(changes):
    base, other = GATED, dataclasses.replace(GATED, **changes)
    assert shape_key(base) != shape_key(other)
    with pytest.raises(ValueError, match="share no shape"):
        common_shape([base, other])
    # Whichever is the larger.
    assert not holds(base, other)
    assert not holds(other, base)


@pytest.mark.parametrize(
    "changes", [{"num_layers": 3}, {"hidden_dim": 40}, {"ffn_dim": 65}], ids=str
)
def test_what_does_not_fit_is_refused(changes):
    larger = dataclasses.replace(GATED, **changes)
    assert holds(GATED, GATED)
    assert not holds(GATED, larger)
    with pytest.raises(ValueError, match="does not fit into"):
        pad(tree_of(larger), larger, GATED)
    state = fresh_state(tree_of(larger), SETTINGS)
    with pytest.raises(ValueError, match="does not fit into"):
        pad_state(state, larger, GATED)


def test_a_gate_needs_a_place():
    assert holds(GATED, PLAIN)
    assert not holds(PLAIN, GATED)
    with pytest.raises(ValueError, match="does not fit into"):
        pad(tree_of(GATED), GATED, PLAIN)
    padded = pad(tree_of(PLAIN), PLAIN, GATED)
    assert not padded["blocks"]["feedforward"]["gate"]["kernel"].any()
    assert common_shape([PLAIN, GATED]).gated
    assert not common_shape([PLAIN, PLAIN]).gated


def test_attention_shares_a_shape_whatever_its_heads():
    configs = [
        of_family("transformer", num_heads=2),
        of_family("transformer", num_heads=3, hidden_dim=24),
        of_family("grouped_query_attention", kv_heads=1),
        of_family("grouped_query_attention", num_heads=8),
    ]
    shape = common_shape(configs)
    assert shape.heads == ((2, 2), (3, 3), (4, 1), (8, 4))
    for config in configs:
        assert holds(shape, config)
        tree = tree_of(config)
        assert_same(extract(pad(tree, config, shape), config, shape), tree)
    other = of_family("transformer", num_heads=4)
    assert shape_key(other) == shape_key(shape)
    assert not holds(shape, other)  # nothing was compiled for its heads


def test_families_without_a_gate_ignore_the_activation():
    for family in ("mamba", "rwkv"):
        gated, plain = (of_family(family, activation=a) for a in ("geglu", "gelu"))
        assert holds(plain, gated)
        assert common_shape([gated, plain]) == common_shape([plain])


# ---- compression in the layout that the member has alone ----


@jax.jit
def stored(params, kept, quantization, traits):
    return round_weights(prune_in_place(params, kept), quantization, traits)


@pytest.mark.parametrize(
    ("family", "tied"), [*((family, False) for family in FAMILIES), ("rwkv", True)]
)
@pytest.mark.sweep(3)
def test_padding_does_not_change_what_is_stored(family, tied):
    # Blocks of 32 end inside the rows, of the stream and of what is inside.
    config = of_family(family, hidden_dim=72, tie_embeddings=tied)
    wider = dataclasses.replace(config, num_layers=3, hidden_dim=96, num_heads=6)
    check_stored(config, wider)


def test_attention_of_another_width_is_stored_as_it_is():
    config = of_family("transformer", attention_dim=48, num_heads=3)
    check_stored(config, dataclasses.replace(config, num_layers=3, num_heads=6))


def check_stored(config, larger):
    """Rounded in a shape that holds both, the config's weights are as alone."""
    shape, traits = common_shape([config, larger]), traits_array(config)
    params = tree_of(config)
    padded = pad(params, config, shape)
    for ratio in (0.0, 0.4):
        kept = jnp.int32(kept_channels(config.inner_channels, ratio))
        for quantization in map(jnp.int32, range(len(QUANTIZATIONS))):
            wanted = stored(params, kept, quantization, None)
            found = stored(padded, kept, quantization, traits)
            own = extract(found, config, shape)
            chex.assert_trees_all_equal(own, jax.tree.map(np.asarray, wanted))
            # Rounding puts nothing into the padding.
            assert_same(pad(own, config, shape), jax.tree.map(np.asarray, found))
