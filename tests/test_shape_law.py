"""What a shape costs in predicted loss: never less than nothing, more further out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch import ArchitectureConfig
from arch.cost.sizes import sizes_of
from arch.open_models import OPEN_MODELS, open_model
from arch.scaling.shape import (
    GROWTH,
    TERMS,
    aspect_ratio,
    plain_ffn_ratio,
    saturating_depth,
    shape_penalty,
    shape_terms,
)


def shape(layers, hidden, heads, ffn=4.0, kv_heads=None, family="transformer"):
    return sizes_of(
        ArchitectureConfig(
            arch_type=family,
            num_layers=layers,
            hidden_dim=hidden,
            num_heads=heads,
            kv_heads=kv_heads,
            ffn_multiplier=ffn,
            normalization="rmsnorm",
            activation="gelu",
            position_encoding="rope",
        )
    )


def test_the_published_pair_is_charged_what_was_measured():
    """Kaplan et al. 2020: 6 layers of 4,288 are within 3 % of 48 of 1,600."""
    wide, deep = shape(6, 4288, 67), shape(48, 1600, 25)
    assert shape_penalty(deep) == 0
    assert 0.025 < shape_penalty(wide) <= 0.031


def test_levine_s_depths():
    """arXiv:2006.12467, the fit: a width of 30K goes with about 95 layers."""
    assert saturating_depth(30_000) == pytest.approx(95, abs=1)
    assert saturating_depth(2) == 1


def test_one_head_of_keys_for_eight_costs_what_shazeer_measured():
    own = shape(16, 1024, 8, kv_heads=1, family="grouped_query_attention")
    assert 0.003 < shape_terms(own)["kv_heads"] < 0.011
    eight = shape(32, 8192, 64, kv_heads=8, family="grouped_query_attention")
    assert shape_terms(eight)["kv_heads"] == 0


@pytest.mark.parametrize("changed", ["layers", "hidden", "heads", "kv_heads", "inner"])
def test_a_term_is_never_below_zero_and_only_grows_outwards(changed):
    start = shape(32, 4096, 32, kv_heads=8, family="grouped_query_attention")
    assert shape_penalty(start) == 0
    for factors in (2.0 ** np.arange(9), 0.5 ** np.arange(9)):
        column = np.maximum(getattr(start, changed) * factors, 1)
        terms = shape_terms(start._replace(**{changed: column}))
        for values in terms.values():
            values = np.broadcast_to(values, column.shape)
            assert (values >= 0).all()
            assert (np.diff(values) >= 0).all()


def test_columns_and_jit_give_what_each_config_has():
    sizes = [sizes_of(model.config) for model in OPEN_MODELS]
    grouped = [own for own in sizes if own.arch_type == "grouped_query_attention"]
    columns = jax.tree.map(
        lambda *values: np.asarray(values), *(g[1:] for g in grouped)
    )
    together = type(grouped[0])(grouped[0].arch_type, *columns)
    alone = [float(shape_penalty(own)) for own in grouped]
    np.testing.assert_allclose(shape_penalty(together), alone, rtol=1e-12, atol=1e-15)

    def compiled(*fields):
        return shape_penalty(type(grouped[0])(grouped[0].arch_type, *fields))

    arrays = jax.tree.map(lambda column: jnp.asarray(column, jnp.float32), columns)
    found = jax.jit(compiled)(*arrays)
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_families_without_heads_have_no_term_of_heads():
    sizes = shape(24, 768, 1, family="mamba")
    assert set(shape_terms(sizes)) == {"aspect"}
    assert set(shape_terms(shape(24, 768, 1, family="rwkv"))) == {"aspect", "ffn"}


def test_terms_say_where_they_are_from():
    for term in TERMS:
        assert "arXiv:" in term.source
        assert 0 < term.uncertainty <= 1
        assert 0 < term.scale <= 2 * GROWTH


def test_open_models_are_thirty_configs_inside_or_near_the_ranges():
    assert len({model.name for model in OPEN_MODELS}) == len(OPEN_MODELS) == 30
    for model in OPEN_MODELS:
        sizes = sizes_of(model.config)
        assert shape_penalty(sizes) < 0.03
        assert 19 <= aspect_ratio(sizes) <= 137
        assert 4 <= plain_ffn_ratio(sizes) <= 12
    assert open_model("llama-3-8b").config.hidden_dim == 4096
    assert open_model("llama-9") is None


def test_a_gate_counts_as_a_half_more():
    config = open_model("Llama-2-7B").config
    plain = dataclasses.replace(config, activation="gelu", ffn_dim=None)
    assert plain_ffn_ratio(sizes_of(config)) == pytest.approx(1.5 * 11008 / 4096)
    assert plain_ffn_ratio(sizes_of(plain)) == 4
    without = dataclasses.replace(plain, arch_type="rwkv", activation="swiglu")
    assert plain_ffn_ratio(sizes_of(without)) == 4
