import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from arch.config import ACTIVATIONS, NORMALIZATIONS, ArchitectureConfig
from arch.layers.activations import activate
from arch.layers.dropout import dropout
from arch.layers.norms import NORMS, Norm
from arch.layers.positions import alibi_slopes, rotate, sinusoidal
from arch.mixers.attention import Attention
from arch.traits import channel_index, traits_of

NORM_OF = dict(zip(NORMALIZATIONS, NORMS, strict=True))


def config(**changes):
    fields = {
        "arch_type": "transformer",
        "num_layers": 1,
        "hidden_dim": 16,
        "num_heads": 2,
        "ffn_multiplier": 2.0,
        "normalization": "layernorm",
        "activation": "gelu",
        "position_encoding": "alibi",
    }
    return ArchitectureConfig(**(fields | changes))


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# ---- norms ----


def norm_of_one_token(name, x):
    """A token's channels f64[D], normalised with an epsilon of 1e-5."""
    if name == "rmsnorm":
        return x / math.sqrt(sum(value**2 for value in x) / len(x) + 1e-5)
    parts = np.split(x, 8) if name == "groupnorm" else [x]
    return np.concatenate([(p - p.mean()) / np.sqrt(p.var() + 1e-5) for p in parts])


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize("shape", [(16,), (3, 24), (2, 5, 40)])
@pytest.mark.parametrize("scale", [1.0, 3e-3])  # at the second epsilon tells
def test_norms_are_their_formulas(name, shape, scale):
    x = scale * (draw(0, *shape) + 0.5)
    tokens = x.astype(np.float64).reshape(-1, shape[-1])
    wanted = np.stack([norm_of_one_token(name, token) for token in tokens])
    got = NORM_OF[name](jnp.asarray(x), shape[-1])
    np.testing.assert_allclose(got, wanted.reshape(shape), atol=2e-5)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_no_norm_mixes_along_the_sequence_or_the_batch(name):
    x = jnp.asarray(draw(1, 2, 3, 16))
    jacobian = jax.jacobian(lambda x: NORM_OF[name](x, 16))(x)
    for place in np.ndindex(2, 3):
        sees = np.asarray(jacobian[place]).any(axis=(0, 3))
        assert sees[place]
        assert sees.sum() == 1


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize(("width", "padded"), [(16, 40), (24, 32), (32, 32)])
def test_a_padded_norm_is_the_norm_of_the_true_channels(name, width, padded):
    x = draw(2, 3, width) + 0.5
    index, true = map(np.asarray, channel_index(padded, jnp.int32(width)))
    wide = np.zeros((3, padded), np.float32)
    wide[:, true] = x[:, index[true]]
    got = np.asarray(NORM_OF[name](jnp.asarray(wide), jnp.int32(width)))
    alone = np.asarray(NORM_OF[name](jnp.asarray(x), width))
    np.testing.assert_allclose(got[:, true], alone[:, index[true]], atol=1e-6)
    assert not got[:, ~true].any()


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_the_norm_module_scales_and_takes_float32_statistics(name):
    traits = traits_of(config(normalization=name))
    x = jnp.asarray(draw(3, 4, 16) + 20, jnp.bfloat16)
    scale = draw(4, 16)
    got = Norm().apply({"params": {"scale": scale}}, x, traits)
    exact = np.asarray(x.astype(jnp.float32), np.float64)
    wanted = np.stack([norm_of_one_token(name, token) for token in exact]) * scale
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(np.float32), wanted, rtol=2**-8, atol=1e-5)


def test_channels_are_padded_inside_each_of_the_8_groups():
    index, true = channel_index(32, 16)
    assert index.reshape(8, 4)[true.reshape(8, 4)].tolist() == list(range(16))
    assert true.reshape(8, 4).tolist() == [[True, True, False, False]] * 8
    whole, all_true = channel_index(20, 20)
    assert whole.tolist() == list(range(20))
    assert all_true.all()


# ---- activations ----


def gelu(x):
    return 0.5 * x * (1 + special.erf(x / math.sqrt(2)))


def silu(x):
    return x / (1 + np.exp(-x))


FORMULAS = {
    "gelu": lambda gate, up: gelu(up),
    "silu": lambda gate, up: silu(up),
    "geglu": lambda gate, up: gelu(gate) * up,
    "swiglu": lambda gate, up: silu(gate) * up,
    "relu2": lambda gate, up: np.maximum(up, 0) ** 2,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_their_formulas(name):
    traits = traits_of(config(activation=name))
    gate, up = 3 * draw(5, 2, 3, 50), 3 * draw(6, 2, 3, 50)
    wanted = FORMULAS[name](gate.astype(np.float64), up.astype(np.float64))
    arrays = jnp.asarray(gate), jnp.asarray(up)
    chosen = traits._replace(activation=jnp.int32(traits.activation))
    for some in (traits, chosen):
        np.testing.assert_allclose(activate(*arrays, some), wanted, atol=1e-5)
    if name in ("gelu", "silu", "relu2"):
        for some in (traits, chosen):
            alone = activate(None, arrays[1], some)
            np.testing.assert_allclose(alone, wanted, atol=1e-5)


# ---- positions ----


@pytest.mark.parametrize("width", [16, 20, 64])
def test_sinusoids_are_those_of_vaswani(width):
    positions = np.asarray([0, 1, 2, 17, 300])
    wanted = np.zeros((5, width))
    for row, position in enumerate(positions):
        for i in range(width // 2):
            angle = position / 10000 ** (2 * i / width)
            wanted[row, 2 * i : 2 * i + 2] = math.sin(angle), math.cos(angle)
    got = sinusoidal(jnp.asarray(positions), np.arange(width), width)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_a_column_of_sinusoids_is_its_channels():
    positions = jnp.arange(12).reshape(3, 4)
    whole = sinusoidal(positions, np.arange(16), 16)
    picked = np.asarray([3, 0, 15, 8])
    some = sinusoidal(positions, jnp.asarray(picked), jnp.int32(16))
    np.testing.assert_allclose(some, whole[..., picked], atol=1e-6)


@pytest.mark.parametrize("head_dim", [2, 8, 24])
def test_rotary_turns_interleaved_pairs_as_complex_numbers(head_dim):
    x = draw(7, 2, 5, 3, head_dim)
    positions = np.asarray([[0, 1, 2, 3, 4], [9, 10, 100, 400, 5]])
    pairs = x.astype(np.float64)[..., 0::2] + 1j * x[..., 1::2]
    theta = 10000.0 ** (-np.arange(0, head_dim, 2) / head_dim)
    turned = pairs * np.exp(1j * positions[:, :, None, None] * theta)
    got = np.asarray(rotate(jnp.asarray(x), jnp.asarray(positions), head_dim))
    np.testing.assert_allclose(got[..., 0::2], turned.real, atol=2e-4)
    np.testing.assert_allclose(got[..., 1::2], turned.imag, atol=2e-4)


def test_rotary_scores_depend_on_the_distance_alone():
    q, k = draw(8, 1, 1, 2, 8), draw(9, 1, 1, 2, 8)

    def score(at, back):
        turned = [
            rotate(jnp.asarray(x), jnp.full((1, 1), place), 8)
            for x, place in [(q, at), (k, at - back)]
        ]
        return np.asarray(jnp.sum(turned[0] * turned[1], axis=-1)).ravel()

    for back in (0, 1, 7):
        near = score(7, back)
        np.testing.assert_allclose(score(40, back), near, atol=1e-5)
        np.testing.assert_allclose(score(200, back), near, atol=1e-4)
    np.testing.assert_allclose(score(5, 0), (q * k).sum(axis=-1).ravel(), atol=1e-5)
    assert np.abs(score(9, 1) - score(9, 3)).min() > 1e-2


def test_rotary_switched_off_and_rotary_of_a_padded_head():
    x = jnp.asarray(draw(10, 1, 4, 2, 6))
    positions = jnp.arange(4)[None]
    off = rotate(x, positions, 6, jnp.bool_(False))
    np.testing.assert_array_equal(off, x)
    padded = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 4)))
    turned = rotate(padded, positions, jnp.int32(6))
    alone = rotate(x, positions, 6)
    np.testing.assert_allclose(turned[..., :6], alone, atol=1e-6)
    assert not turned[..., 6:].any()


def published_slopes(heads):
    """The recursion of the ALiBi authors' code, geometric from its first term."""
    power = math.log2(heads)
    if power == int(power):
        first = 2 ** -(2 ** -(power - 3))
        return [first * first**i for i in range(heads)]
    lower = 2 ** int(power)
    finer = published_slopes(2 * lower)[0::2]
    return published_slopes(lower) + finer[: heads - lower]


@pytest.mark.parametrize("heads", [8, 12, 6, 16, 2, 1])
def test_alibi_slopes_are_the_published_ones(heads):
    got = alibi_slopes(heads)
    assert got.shape == (heads,)
    np.testing.assert_allclose(got, published_slopes(heads), rtol=1e-6)


def test_alibi_slopes_of_the_paper():
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(2).tolist() == [2.0**-4, 2.0**-8]
    assert alibi_slopes(1).tolist() == [2.0**-8]
    # Between 1/2 and 1/256 the finer series adds what lies between.
    finer = [2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5]
    np.testing.assert_allclose(alibi_slopes(12)[8:], finer, rtol=1e-6)


@pytest.mark.parametrize("heads", [2, 4])
@pytest.mark.parametrize("encoding", ["alibi", "absolute", "rope"])
def test_attention_without_queries_weighs_by_the_position_bias(heads, encoding):
    # With zero queries the scores are the bias alone.
    hidden, length = 16, 6
    shape = config(num_heads=heads, position_encoding=encoding)
    eye = np.eye(hidden, dtype=np.float32)
    inward = {"kernel": eye.reshape(hidden, heads, -1)}
    params = {
        "query": {"kernel": np.zeros((hidden, heads, hidden // heads), np.float32)},
        "key": inward,
        "value": inward,
        "out": {"kernel": eye.reshape(heads, -1, hidden)},
    }
    x = draw(11, 2, length, hidden)
    layer = Attention(shape, jnp.float32)
    got, _ = layer.apply({"params": params}, x, None, traits_of(shape))
    slopes = published_slopes(heads) if encoding == "alibi" else [0.0] * heads
    split = x.reshape(2, length, heads, -1)
    wanted = np.zeros_like(split)
    for t in range(length):
        for head, slope in enumerate(slopes):
            weights = np.exp([-slope * (t - s) for s in range(t + 1)])
            weights /= weights.sum()
            wanted[:, t, head] = np.einsum(
                "s,bsh->bh", weights, split[:, : t + 1, head]
            )
    np.testing.assert_allclose(got, wanted.reshape(x.shape), atol=1e-5)


# ---- dropout ----


def dropped(key, shape, rate=0.5, channels=None):
    return np.asarray(dropout(key, jnp.ones(shape), rate, channels)) == 0


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate, key):
    x = jnp.asarray(draw(12, 500, 400) + 2)
    y = np.asarray(dropout(key, x, rate))
    gone = y == 0
    deviation = math.sqrt(rate * (1 - rate) / gone.size)
    assert abs(gone.mean() - rate) < 5 * deviation
    np.testing.assert_allclose(y[~gone], np.asarray(x)[~gone] / (1 - rate), rtol=1e-6)
    spread = math.sqrt(5 * rate / (1 - rate) / gone.size)  # E[x^2] = 5
    assert abs(y.mean() - np.asarray(x).mean()) < 5 * spread


def test_dropout_does_nothing_without_a_rate_or_a_key(key):
    x = jnp.asarray(draw(13, 3, 50))
    first, second = jax.random.split(key)
    assert dropout(None, x, 0.5) is x
    assert dropout(first, x, 0.0) is x
    np.testing.assert_array_equal(dropout(second, x, jnp.float32(0)), x)


def test_dropout_keeps_the_dtype(key):
    half = jnp.ones((4, 8), jnp.bfloat16)
    assert dropout(key, half, jnp.float32(0.5)).dtype == jnp.bfloat16


def test_a_higher_rate_drops_more_of_the_same(key):
    few, more = (dropped(jax.random.clone(key), (50, 60), r) for r in (0.2, 0.6))
    assert np.all(more[few])
    assert more.sum() > few.sum()


def test_one_key_one_mask(key):
    once, again = dropped(key, (9, 70)), dropped(jax.random.clone(key), (9, 70))
    np.testing.assert_array_equal(once, again)


def correlations(masks):
    """Between each two rows of bool[N, samples], in standard errors."""
    signs = 1.0 - 2.0 * masks
    together = signs @ signs.T / math.sqrt(masks.shape[1])
    return together[np.triu_indices(len(masks), 1)]


@pytest.mark.parametrize("rows", [True, False])
def test_draws_are_independent_between_rows_and_between_channels(rows, key):
    masks = dropped(key, (96, 8192) if rows else (8192, 96))
    found = correlations(masks if rows else masks.T)
    assert np.abs(found).max() < 5
    assert 0.9 < found.std() < 1.1


def test_draws_are_independent_between_keys(key):
    keys = [*jax.random.split(key, 40), *map(jax.random.key, range(100, 140))]
    masks = np.stack([dropped(one, (64, 64)).ravel() for one in keys])
    found = correlations(masks)
    assert np.abs(found).max() < 5
    assert 0.9 < found.std() < 1.1


def test_draws_are_independent_over_rectangles(key):
    # A sum of a row's and a channel's bits would show in the parity of four
    # corners, though each two of them are independent.
    signs = 1.0 - 2.0 * dropped(key, (2048, 2048))
    rng = np.random.default_rng(0)
    top, bottom = np.split(rng.permutation(2048), 2)
    left, right = np.split(rng.permutation(2048), 2)
    corners = [signs[np.ix_(r, c)] for r in (top, bottom) for c in (left, right)]
    parity = math.prod(corners)
    assert abs(parity.sum()) < 5 * math.sqrt(parity.size)


@pytest.mark.parametrize(("width", "padded"), [(16, 32), (24, 40)])
def test_a_padded_layout_draws_what_the_unpadded_draws(width, padded, key):
    index, true = channel_index(padded, width)
    wide = dropped(key, (3, 7, padded), channels=index)
    alone = dropped(jax.random.clone(key), (3, 7, width))
    np.testing.assert_array_equal(wide[..., true], alone)
