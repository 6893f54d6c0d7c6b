"""Parts behind gates: a closed gate is the model without the part."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_cells import perturbed

from arch import ArchitectureConfig, build_model
from arch.cost import size_bytes, stored_parameters
from arch.families import FAMILIES
from jaxnas.compress.gates import (
    cut_config,
    cuts,
    gated,
    open_gates,
    taylor_importance,
    without,
)
from jaxnas.training.loop import logits_of, next_token_losses

SMALL = ArchitectureConfig(
    arch_type="transformer",
    num_layers=2,
    hidden_dim=32,
    num_heads=4,
    ffn_multiplier=3.0,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    vocab_size=50,
    max_seq_length=16,
    inner_dim=96,
)
KINDS = ("inner channels", "heads", "layers")


def of_family(family, **changes):
    return dataclasses.replace(SMALL, arch_type=family, **changes)


def loss_of(config):
    model = build_model(config)

    def loss(params, windows):
        logits = logits_of(model, params, windows[:, :-1])
        return next_token_losses(logits, windows[:, 1:]).mean()

    return loss


def worth_of(config, params, gates, windows=4):
    tokens = jax.random.randint(jax.random.key(1), (windows, 9), 0, config.vocab_size)
    return jax.jit(taylor_importance, static_argnums=0)(
        loss_of(config), params, gates, tokens
    )


def all_cut(config, params):
    """Gates of a model from which a little of every part is gone."""
    gates = open_gates(config)
    parts = []
    for kind in KINDS:
        found = cuts(config, gates, worth_of(config, params, gates))
        for cut in found:
            if cut.part == kind:
                gates, parts = cut.gates, [*parts, kind]
    return gates, parts


def imported(**changes):
    """What models of others have otherwise than ours."""
    biased = {"normalization": "layernorm", "activation": "gelu", "qkv_bias": True}
    return dataclasses.replace(SMALL, **biased, biases=True, **changes)


@pytest.mark.parametrize(
    "config",
    [
        *map(of_family, FAMILIES),
        imported(arch_type="grouped_query_attention", kv_heads=2),
        imported(parallel_residual=True, shared_norm=True, rotary_dim=4),
    ],
    ids=[*FAMILIES, "biased", "parallel"],
)
def test_a_closed_gate_is_the_model_without_the_part(config):
    family = config.arch_type
    params = perturbed(config)
    gates, parts = all_cut(config, params)
    smaller = cut_config(config, gates)
    assert len(parts) > 1
    assert ("heads" in parts) == (family not in ("mamba", "rwkv"))
    assert size_bytes(smaller) < size_bytes(config)
    cut = without(params, gates)
    leaves = jax.tree.leaves(cut)
    assert sum(leaf.size for leaf in leaves) == stored_parameters(smaller)
    tokens = jax.random.randint(jax.random.key(0), (2, 8), 0, config.vocab_size)
    whole = logits_of(build_model(config), gated(params, gates), tokens)
    np.testing.assert_allclose(
        logits_of(build_model(smaller), cut, tokens), whole, rtol=1e-4, atol=1e-5
    )


def test_groups_go_with_their_queries():
    config = of_family("grouped_query_attention", kv_heads=2)
    gates, _ = all_cut(config, perturbed(config))
    smaller = cut_config(config, gates)
    assert (smaller.num_heads, smaller.key_value_heads, smaller.head_dim) == (2, 1, 8)


def test_importance_is_the_squared_slope_of_the_loss():
    config = SMALL
    params = perturbed(config)
    gates = open_gates(config)
    window = jax.random.randint(jax.random.key(1), (1, 9), 0, config.vocab_size)
    worth = worth_of(config, params, gates, windows=1)
    loss, moved = loss_of(config), 1e-2
    for part, place in (("inner", (1, 5)), ("groups", (0, 2)), ("layers", (1,))):

        def at(gate, part=part, place=place):
            changed = getattr(gates, part).copy()
            changed[place] = gate
            return float(loss(gated(params, gates._replace(**{part: changed})), window))

        slope = (at(1 + moved) - at(1 - moved)) / (2 * moved)
        np.testing.assert_allclose(
            getattr(worth, part)[place], slope**2, rtol=0.05, atol=1e-6
        )


def test_what_does_nothing_goes_first():
    config = SMALL
    params = perturbed(config)
    down = params["blocks"]["feedforward"]["down"]["kernel"].copy()
    idle = np.random.default_rng(0).permutation(96)[:32]
    down[:, idle] = 0
    params["blocks"]["feedforward"]["down"]["kernel"] = down
    gates = open_gates(config)
    found = cuts(config, gates, worth_of(config, params, gates))
    inner = next(cut for cut in found if cut.part == "inner channels")
    assert set(np.flatnonzero(inner.gates.inner[0] == 0)) == set(idle)
    tokens = jnp.arange(8)[None]
    np.testing.assert_allclose(
        logits_of(build_model(config), params, tokens),
        logits_of(
            build_model(cut_config(config, inner.gates)),
            without(params, inner.gates),
            tokens,
        ),
        rtol=1e-4,
        atol=1e-5,
    )


def test_alibi_keeps_its_heads():
    """A head's slope is its place among all of them."""
    config = dataclasses.replace(SMALL, position_encoding="alibi")
    gates = open_gates(config)
    parts = {cut.part for cut in cuts(config, gates, gates)}
    assert parts == {"inner channels", "layers"}


def test_one_of_each_part_stays():
    gates = open_gates(SMALL)
    while found := cuts(SMALL, gates, gates):
        gates = found[-1].gates
    least = cut_config(SMALL, gates)
    assert (least.num_layers, least.num_heads, least.inner_channels) == (1, 1, 32)
