import functools
import math
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_reference import (
    as_data,
    attention,
    config_of,
    draw,
    layer_by_hand,
    run,
    slopes_of,
    weights_of,
)

import arch.block
from arch import build_model
from arch.config import POSITION_ENCODINGS
from arch.initial import draw_parameters
from arch.mixers import flash
from arch.mixers.attention import attention_state
from arch.mixers.softmax import Scoring, attend_densely
from arch.traits import channel_index, traits_of

SLOPES = {
    "none": None,
    "alibi": jnp.asarray([[0.5, 0.1, 0.02], [0.3, 0.05, 0.01]], jnp.float32),
}
every_position = pytest.mark.parametrize("position", POSITION_ENCODINGS)


def drawn(tokens, keys=None, dtype=jnp.float32, groups=2, heads=3, size=8):
    """Queries, keys, values and a slope of what they give."""
    shape = (2, tokens, groups, heads, size)
    q, ahead = jnp.asarray(draw(0, *shape)), jnp.asarray(draw(1, *shape))
    k, v = (jnp.asarray(draw(s, 2, keys or tokens, groups, size)) for s in (2, 3))
    return tuple(x.astype(dtype) for x in (q, k, v, ahead))


def pulled(attend, q, k, v, ahead):
    """What `attend` gives, and the gradients of queries, keys and values."""

    @jax.jit
    def both(q, k, v):
        mixed, pull = jax.vjp(attend, q, k, v)
        return mixed, *pull(ahead)

    return both(q, k, v)


# ---- blocks ----


@pytest.mark.parametrize("slopes", SLOPES)
@pytest.mark.parametrize("block", [5, 16, 64])
def test_blocks_are_the_formula_for_rows_that_go_on_from_anywhere(slopes, block):
    q, k, v, _ = drawn(tokens=13, keys=37)
    positions = np.asarray([[0], [24]]) + np.arange(13)
    by_head = np.zeros(6) if slopes == "none" else np.ravel(SLOPES[slopes])
    wanted = attention(q.reshape(2, 13, 6, 8), k, v, positions, 0.7, by_head)
    got = jax.jit(functools.partial(flash.attend_by_blocks, block=block))(
        q, k, v, jnp.asarray(positions), Scoring(0.7, SLOPES[slopes])
    )
    np.testing.assert_allclose(got.reshape(2, 13, 6, 8), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("slopes", "tokens", "block"),
    [("none", 32, 8), ("alibi", 41, 16), ("none", 7, 16)],
)
def test_gradients_of_blocks_are_those_of_the_whole_matrix(slopes, tokens, block):
    q, k, v, ahead = drawn(tokens)
    rest = (jnp.arange(tokens)[None], Scoring(0.7, SLOPES[slopes]))
    by_blocks = functools.partial(flash.attend_by_blocks, block=block)
    got = pulled(lambda *some: by_blocks(*some, *rest), q, k, v, ahead)
    wanted = pulled(lambda *some: attend_densely(*some, *rest), q, k, v, ahead)
    for one, other in zip(got, wanted, strict=True):
        assert jnp.abs(other).max() > 1
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_blocks_in_the_future_are_not_visited():
    q, k, v, _ = drawn(tokens=30)
    k, v = k.at[:, 20:].set(jnp.nan), v.at[:, 20:].set(jnp.nan)
    got = jax.jit(functools.partial(flash.attend_by_blocks, block=10))(
        q, k, v, jnp.arange(30)[None], Scoring(1.0, None)
    )
    assert jnp.isfinite(got[:, :20]).all()
    assert jnp.isnan(got[:, 20:]).all()


def test_large_scores_do_not_overflow():
    q, k, v, ahead = drawn(tokens=40)
    rest = (jnp.arange(40)[None], Scoring(1e4, None))
    by_blocks = functools.partial(flash.attend_by_blocks, block=16)
    got = pulled(lambda *some: by_blocks(*some, *rest), q, k, v, ahead)
    wanted = pulled(lambda *some: attend_densely(*some, *rest), q, k, v, ahead)
    # Each query reads one key alone.
    np.testing.assert_allclose(got[0], wanted[0], atol=1e-5)
    np.testing.assert_allclose(got[3], wanted[3], atol=1e-5)
    assert all(jnp.isfinite(one).all() for one in got)


def test_gradients_in_bfloat16_are_summed_in_float32():
    # The first key is read by every query of many blocks.
    q, k, v, ahead = drawn(tokens=128, dtype=jnp.bfloat16)
    rest = (jnp.arange(128)[None], Scoring(0.1, None))
    by_blocks = functools.partial(flash.attend_by_blocks, block=4)
    got = pulled(lambda *some: by_blocks(*some, *rest), q, k, v, ahead)
    exact = [x.astype(jnp.float32) for x in (q, k, v, ahead)]
    wanted = pulled(lambda *some: attend_densely(*some, *rest), *exact)
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == jnp.bfloat16
        off = np.abs(np.asarray(one, np.float32) - other).mean()
        assert off < 0.004 * np.abs(other).mean()  # the rounding of the result


# ---- the layer ----


@every_position
def test_flash_is_multi_head_attention_forward_and_backward(position):
    tokens = 300  # in three blocks
    dense, thin = (config_of(f, position) for f in ("transformer", "flash_attention"))
    weights, x = weights_of(dense), draw(4, 2, tokens, 32)
    ahead = draw(5, 2, tokens, 32) / math.sqrt(tokens)
    wanted = slopes_of(dense, weights, x, ahead)
    got = slopes_of(thin, weights, x, ahead)
    assert wanted[0].std() > 0.2
    for one, other in zip(*map(jax.tree.leaves, (got, wanted)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@every_position
def test_the_layer_is_its_formula(position):
    config = config_of("flash_attention", position)
    weights, x = weights_of(config), draw(6, 2, 150, 32)
    got, _ = jax.jit(functools.partial(run, config))(weights, x)
    np.testing.assert_allclose(got, layer_by_hand(config, x, weights), atol=1e-5)


@jax.jit
def decode_loop(weights, x, state, traits, lengths):
    """One program for all position encodings."""
    config = config_of("flash_attention")
    return run(config, weights, x, state, traits, lengths=lengths)


@every_position
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_long_prompt_fills_the_cache_and_decoding_goes_on(position, dtype):
    config = config_of("flash_attention", position)
    weights, x = weights_of(config), draw(7, 2, 170, 32)
    whole = layer_by_hand(config, x, weights)
    lengths = np.asarray([150, 97])
    padded = np.where(
        np.arange(150)[None, :, None] < lengths[:, None, None], x[:, :150], 9
    )
    state = attention_state(config, batch=2, capacity=200, dtype=dtype)
    traits = as_data(config)
    got, state = decode_loop(weights, padded.astype(dtype), state, traits, lengths)
    atol = 1e-5 if dtype == jnp.float32 else 0.06
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(
            got[row, :length].astype(np.float32), whole[row, :length], atol=atol
        )
    for more in range(3):
        token = np.stack([x[row, length + more] for row, length in enumerate(lengths)])
        got, state = decode_loop(
            weights, token[:, None].astype(dtype), state, traits, None
        )
        for row, length in enumerate(lengths):
            wanted = whole[row, length + more]
            np.testing.assert_allclose(
                got[row, 0].astype(np.float32), wanted, atol=atol
            )
    assert state.length.tolist() == [153, 100]


@every_position
def test_gradients_in_bfloat16_are_finite_and_near(position):
    config = config_of("flash_attention", position)
    weights, x, ahead = weights_of(config), draw(8, 2, 300, 32), draw(9, 2, 300, 32)
    exact = slopes_of(config, weights, x, ahead)
    rough = slopes_of(config, weights, x.astype(jnp.bfloat16), ahead)
    for one, other in zip(*map(jax.tree.leaves, (rough, exact)), strict=True):
        off = np.linalg.norm(np.asarray(one, np.float32) - other)
        assert off < 0.03 * np.linalg.norm(other)


def test_flash_drops_no_attention_weights(key):
    config = config_of("flash_attention", attention_dropout=0.5)
    weights, x = weights_of(config), jnp.asarray(draw(10, 1, 20, 32))
    traits = traits_of(config)._replace(attention_dropout=0.5)
    program = str(jax.make_jaxpr(functools.partial(run, config))(weights, x))
    dropping = functools.partial(run, config, traits=traits, key=key)
    assert str(jax.make_jaxpr(dropping)(weights, x)) == program


# ---- traits as data ----


def padded_weights(narrow, weights, wide):
    """A layer's weights in the corner of a wider layer's zeros."""
    index, true = channel_index(wide.hidden_dim, narrow.hidden_dim)
    stream = np.flatnonzero(true)[np.argsort(index[true])]
    head, heads = np.arange(narrow.head_dim), np.arange(narrow.num_heads)
    filled = jax.tree.map(np.zeros_like, weights_of(wide))
    for name, kernel in filled.items():
        axes = (heads, head, stream) if name == "out" else (stream, heads, head)
        kernel["kernel"][np.ix_(*axes)] = weights[name]["kernel"]
    return filled, stream


def test_padded_members_compute_what_they_compute_alone_in_one_program():
    wide = config_of("flash_attention", hidden_dim=64)
    x, ahead = draw(11, 2, 300, 32), draw(12, 2, 300, 32) / math.sqrt(300)
    members = [config_of("flash_attention", p) for p in POSITION_ENCODINGS]
    traits = map(as_data, members)
    weights = weights_of(members[0])
    filled, stream = padded_weights(members[0], weights, wide)
    spread = np.zeros((2, 2, 300, 64), np.float32)
    spread[..., stream] = x, ahead
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *traits)

    @jax.jit
    @jax.vmap
    def together(traits):
        layer = lambda w, x: run(wide, w, x, traits=traits)[0]
        y, pull = jax.vjp(layer, filled, jnp.asarray(spread[0]))
        return y, *pull(jnp.asarray(spread[1]))

    got = together(stacked)
    for at, member in enumerate(members):
        y, by_weights, by_x = slopes_of(member, weights, x, ahead)
        wanted = padded_weights(member, by_weights, wide)[0]
        np.testing.assert_allclose(got[0][at][..., stream], y, atol=1e-5)
        np.testing.assert_allclose(got[2][at][..., stream], by_x, atol=1e-5)
        for name, leaf in wanted.items():
            mine, kernel = np.asarray(got[1][name]["kernel"][at]), leaf["kernel"]
            np.testing.assert_array_equal(mine[kernel == 0], 0)
            off = np.linalg.norm(mine - kernel)
            assert off < 1e-5 * np.linalg.norm(kernel)


# ---- memory ----


@functools.cache
def temporary(family, tokens):
    """Bytes held while a layer computes its gradients: d=256, 4 heads."""
    config = config_of(family, hidden_dim=256)
    x = jax.ShapeDtypeStruct((1, tokens, 256), jnp.float32)
    weights = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, weights_of(config)))

    def loss(weights, x):
        return jnp.sum(run(config, weights, x)[0] ** 2)

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(weights, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_is_an_eighth_of_dense_attention_at_2048_tokens():
    assert 8 * temporary("flash_attention", 2048) <= temporary("transformer", 2048)


def test_memory_grows_with_the_tokens_not_with_their_square():
    assert temporary("flash_attention", 4096) < 2.2 * temporary("flash_attention", 2048)


# ---- which way ----

AMPERE = SimpleNamespace(compute_capability="8.0")
DEVICES = {
    "Ampere": (AMPERE, True),
    "Hopper": (SimpleNamespace(compute_capability="9.0"), True),
    "Blackwell": (SimpleNamespace(compute_capability="12.0"), True),
    "Turing": (SimpleNamespace(compute_capability="7.5"), False),
    "AMD": (SimpleNamespace(compute_capability="gfx942"), False),
    "no GPU": (SimpleNamespace(), False),
}


@pytest.mark.parametrize("name", DEVICES)
def test_cudnn_runs_on_what_it_supports(name, monkeypatch):
    device, wanted = DEVICES[name]
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert flash.has_cudnn() == wanted


def test_this_machine_is_asked_without_failing():
    assert flash.has_cudnn() in (True, False)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "cudnn"),
        ({"dtype": jnp.float16}, "cudnn"),
        ({"size": 128}, "cudnn"),
        ({"dtype": jnp.float32}, "blocks"),
        ({"size": 136}, "blocks"),
        ({"size": 60}, "blocks"),
        ({"slopes": jnp.ones((4, 1))}, "blocks"),
        ({"scale": jnp.float32(0.1)}, "blocks"),
        ({"whole": False}, "blocks"),
        ({"tokens": flash.DENSE_TOKENS}, "dense"),
        ({"tokens": 1, "whole": False}, "dense"),
    ],
)
def test_the_way_that_suits_shapes_and_device(changes, wanted, monkeypatch):
    case = {
        "tokens": 200,
        "dtype": jnp.bfloat16,
        "size": 64,
        "slopes": None,
        "scale": 0.1,
        "whole": True,
    } | changes
    q = jax.ShapeDtypeStruct((2, case["tokens"], 4, 1, case["size"]), case["dtype"])
    scoring = Scoring(case["scale"], case["slopes"])
    monkeypatch.setattr(jax, "devices", lambda: [AMPERE])
    assert flash.choose_way(q, scoring, case["whole"]) == wanted
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace()])
    without = "blocks" if wanted == "cudnn" else wanted
    assert flash.choose_way(q, scoring, case["whole"]) == without


def test_cudnn_is_asked_for_the_same_function():
    q, k, v, ahead = drawn(tokens=40)
    positions, scoring = jnp.arange(40)[None], Scoring(0.7, None)
    asked = lambda q, k, v: flash.attend_with_cudnn(q, k, v, scoring, "xla")
    dense = lambda q, k, v: attend_densely(q, k, v, positions, scoring)
    got, wanted = (pulled(one, q, k, v, ahead) for one in (asked, dense))
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_layer_asks_cudnn_for_whole_sequences_only(monkeypatch):
    asked, real = [], jax.nn.dot_product_attention

    def answer(*qkv, **arguments):
        asked.append(arguments["implementation"])
        return real(*qkv, **arguments | {"implementation": "xla"})

    monkeypatch.setattr(jax, "devices", lambda: [AMPERE])
    monkeypatch.setattr(jax.nn, "dot_product_attention", answer)
    config = config_of("flash_attention")
    weights, x = weights_of(config), jnp.asarray(draw(13, 2, 150, 32), jnp.bfloat16)
    state = attention_state(config, batch=2, capacity=150, dtype=jnp.bfloat16)
    step = functools.partial(run, config)
    jax.eval_shape(step, weights, x, state)  # its mask would be misplaced
    assert asked == []
    got, _ = jax.jit(step)(weights, x)
    assert asked == ["cudnn"]
    wanted = layer_by_hand(config, np.asarray(x, np.float32), weights)
    np.testing.assert_allclose(got.astype(np.float32), wanted, atol=0.06)


# ---- the whole model ----


def training(config, tokens):
    """jit of (params, tokens) -> loss, gradients; and their abstract arguments."""
    model = build_model(config)
    ids = jax.ShapeDtypeStruct((1, tokens), jnp.int32)

    def loss(params, ids):
        return jnp.square(model.apply(params, ids)).mean()

    params = jax.eval_shape(model.init, jax.random.key(0), ids)
    return jax.jit(jax.value_and_grad(loss)), (params, ids)


@pytest.mark.slow
def test_a_model_needs_an_eighth_of_dense_attentions_memory_at_2048_tokens():
    def temporary(family):
        config = config_of(family, num_layers=4, hidden_dim=256, vocab_size=64)
        step, arguments = training(config, 2048)
        return step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    assert temporary("flash_attention") * 8 <= temporary("transformer")


def test_blocks_computed_again_give_the_same_gradients(monkeypatch):
    config = config_of("flash_attention", num_layers=2, vocab_size=17)
    params = {"params": draw_parameters(build_model(config), jax.random.key(0))}
    ids = jnp.asarray(draw(0, 2, 40) > 0, jnp.int32)
    found = []
    for least in (1024, 32):
        monkeypatch.setattr(arch.block, "RECOMPUTED_TOKENS", least)
        step, _ = training(config, 40)
        found.append(step(params, ids))
        again = "remat" in str(jax.make_jaxpr(step)(params, ids))
        assert again == (least == 32)
    chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-6)
