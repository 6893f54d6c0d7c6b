"""Predicted loss: the published figures, and what must never help."""

import contextlib
import dataclasses
import io
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cost_configs import SMALL, VARIANTS, of_family

from arch import cost, scaling
from arch.families import FAMILIES, USES
from arch.scaling.laws import counted_parameters

CORRECTED = dataclasses.replace(
    scaling.DEFAULT_LAW,
    name="corrected",
    depth=-0.3,
    pruning=1.5,
    rounding=2.5,
    families=(0.1, -0.2, 0.0, 0.3, -0.4, 0.5),
)
ALL_LAWS = (*scaling.LAWS.values(), CORRECTED)


def test_a_law_by_hand():
    # Chinchilla: 406.4 / 70e9^.3392 and 410.7 / 1.4e12^.2849.
    law = dataclasses.replace(scaling.LAWS["hoffmann2022"], counts="non-embedding")
    terms = 1.6934, 0.08518, 0.14224
    assert scaling.law_loss(law, 70e9, 1.4e12) == pytest.approx(sum(terms), abs=2e-4)
    # Kumar et al.: 4299 / 1e8^.4965 is .459, 18060 / 13e9^.4965 is .1721.
    law = scaling.LAWS["kumar2024"]
    terms = 2.7648, 0.459, 0.1721
    assert scaling.law_loss(law, 1e8, 13e9) == pytest.approx(sum(terms), abs=1e-3)


def test_laws_divide_a_budget_as_their_papers_say():
    share = {
        name: law.token_exponent / (law.parameter_exponent + law.token_exponent)
        for name, law in scaling.LAWS.items()
    }
    assert share["hoffmann2022"] == pytest.approx(0.46, abs=0.005)
    assert share["besiroglu2024"] == pytest.approx(0.513, abs=0.0005)
    # The refit agrees with how Chinchilla was trained: 70 B, 1.4 trillion tokens.
    law = dataclasses.replace(scaling.LAWS["besiroglu2024"], counts="non-embedding")
    parameters = np.geomspace(1e9, 1e12, 1000)
    losses = scaling.law_loss(law, parameters, 70e9 * 1.4e12 / parameters)
    assert parameters[np.argmin(losses)] == pytest.approx(70e9, rel=0.1)


@pytest.mark.parametrize(
    ("millions", "hidden"),
    [(44, 512), (425, 1280), (1143, 1792), (4516, 3072), (16183, 5120)],
)
def test_parameters_are_counted_as_the_law_counts_them(millions, hidden):
    # Models of Hoffmann et al. (table A9), a vocabulary of 32,000.
    outside = millions * 1e6 - 32000 * hidden
    counted = counted_parameters(scaling.LAWS["hoffmann2022"], outside)
    assert counted == pytest.approx(millions * 1e6, rel=0.06)
    assert counted_parameters(scaling.LAWS["kumar2024"], outside) == outside


def test_the_rounding_penalty_by_hand():
    # ln: .0598 is -2.8167; 26e9^.5068 is 12.1538; 30e6^-.3439 is -5.9208; bits.
    logarithm = -2.8167 + 12.1538 - 5.9208 + 1.1277 - 3 / 0.5907
    penalty = scaling.rounding_penalty(30e6, 26e9, 3)
    assert math.log(penalty) == pytest.approx(logarithm, abs=1e-3)
    double = (
        scaling.rounding_penalty(30e6, 52e9, 3),
        scaling.rounding_penalty(60e6, 26e9, 3),
    )
    assert double[0] / penalty == pytest.approx(1.421, abs=1e-3)
    assert penalty / double[1] == pytest.approx(1.269, abs=1e-3)
    assert scaling.rounding_penalty(30e6, 26e9, 16) < 1e-9


def test_bits_of_a_weight_leave_its_scale_out():
    bits = {name: scaling.bits_of(storage) for name, storage in cost.STORAGE.items()}
    assert bits == {"fp16": 16, "int8": 8, "int4": 4}


def test_a_prediction_is_the_law_and_what_rounding_adds():
    config = dataclasses.replace(SMALL, quantization="int4", pruning_ratio=0.4)
    # 3 layers of 96; of 240 channels 144 would stay, 4.5 x 32: 160 do.
    kept = 3 * (4 * 96**2 + 3 * 96 * 160 + 192) + 96
    law = scaling.LAWS["kumar2024"]
    by_hand = scaling.law_loss(law, kept, 1e8) + scaling.rounding_penalty(kept, 1e8, 4)
    assert scaling.predicted_loss(config, 1e8, law) == pytest.approx(by_hand, rel=1e-12)


def test_corrections_change_what_a_parameter_is_worth():
    config = of_family("rwkv", num_layers=6, hidden_dim=96, pruning_ratio=0.5)
    config = dataclasses.replace(config, quantization="int4")
    capacity = scaling.config_capacity(config)
    assert capacity.layers / capacity.hidden == 4 / 64
    left = capacity.kept / capacity.trained
    assert 0.5 < left < 1
    worth = capacity.kept * left**1.5 * 4**-0.3 * math.exp(0.5)
    by_hand = scaling.law_loss(CORRECTED, worth, 1e9)
    by_hand += 2.5 * scaling.rounding_penalty(capacity.kept, 1e9, 4)
    assert scaling.predicted_loss(config, 1e9, CORRECTED) == pytest.approx(by_hand)


def test_a_law_is_called_a_ranking_until_it_is_fitted():
    for law in scaling.LAWS.values():
        assert "ranking" in law.label
        assert law.name in law.label
        assert law.rows == law.depth == law.pruning == 0
        assert law.rounding == 1
        assert set(law.families) == {0.0}
        assert "arXiv:" in law.source
    fitted = dataclasses.replace(scaling.DEFAULT_LAW, rows=12)
    assert "ranking" not in fitted.label
    assert "12" in fitted.label


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"counts": "all"}, "counts='all'"),
        ({"irreducible": -0.1}, "irreducible=-0.1"),
        ({"parameter_exponent": -1}, "parameter_exponent=-1"),
        ({"token_scale": math.nan}, "token_scale=nan"),
        ({"pruning": -1.0}, "pruning=-1.0"),
        ({"rounding": -0.5}, "rounding=-0.5"),
        ({"depth": 2.0}, "depth=2.0"),
        ({"families": (0.0,)}, "families=(0.0,)"),
    ],
)
def test_a_law_that_makes_no_sense_is_refused(changes, said):
    with pytest.raises(ValueError, match="not allowed") as error:
        dataclasses.replace(scaling.DEFAULT_LAW, **changes)
    assert said in str(error.value)


@pytest.mark.parametrize("tokens", [0, -5, math.nan])
def test_a_prediction_needs_tokens(tokens):
    with pytest.raises(ValueError, match="tokens"):
        scaling.predicted_loss(SMALL, tokens)


def random_config(rng):
    """Of any family, of any precision, pruned or not."""
    heads = int(rng.integers(1, 9)) * 2
    return of_family(
        FAMILIES[rng.integers(len(FAMILIES))],
        num_layers=int(rng.integers(1, 30)),
        num_heads=heads,
        hidden_dim=heads * 2 * int(rng.integers(4, 40)),
        ffn_dim=int(rng.integers(64, 4000)),
        inner_dim=int(rng.integers(64, 4000)),
        quantization=list(cost.STORAGE)[rng.integers(3)],
        pruning_ratio=float(rng.integers(0, 10)) / 10,
        vocab_size=int(rng.integers(1, 50000)),
    )


def grown(config, rng):
    """The config with more of one thing."""
    inner = "inner_dim" if "inner_dim" in USES[config.arch_type] else "ffn_dim"
    more = [
        {"num_layers": config.num_layers + int(rng.integers(1, 5))},
        {"hidden_dim": config.hidden_dim + 2 * config.num_heads},
        {"pruning_ratio": config.pruning_ratio * rng.random()},
    ]
    if not config.pruning_ratio:  # else more of the model is pruned too
        more.append({inner: getattr(config, inner) + int(rng.integers(1, 500))})
    if config.quantization != "fp16":
        more.append({"quantization": "fp16"})
    return dataclasses.replace(config, **more[rng.integers(len(more))])


@pytest.mark.parametrize("law", ALL_LAWS, ids=lambda law: law.name)
def test_nothing_that_is_taken_away_helps(law):
    rng = np.random.default_rng(0)
    for _ in range(300):
        config, tokens = random_config(rng), 10 ** rng.uniform(5, 12)
        loss = scaling.predicted_loss(config, tokens, law)
        assert loss > law.irreducible
        more = grown(config, rng)
        assert scaling.predicted_loss(more, tokens, law) <= loss, (config, more)
        words = dataclasses.replace(config, vocab_size=99, tie_embeddings=True)
        assert scaling.predicted_loss(words, tokens, law) == loss


@pytest.mark.parametrize("law", ALL_LAWS, ids=lambda law: law.name)
def test_each_compression_costs_something(law):
    for family in FAMILIES:
        config = of_family(family, ffn_dim=512, inner_dim=512)
        losses = [
            scaling.predicted_loss(dataclasses.replace(config, **change), 1e9, law)
            for change in (
                {},
                {"quantization": "int8"},
                {"quantization": "int4"},
                {"quantization": "int4", "pruning_ratio": 0.2},
                {"quantization": "int4", "pruning_ratio": 0.4},
            )
        ]
        assert all(np.diff(losses) > 0)


def test_a_pruned_model_is_never_better_than_one_trained_at_its_size():
    rng = np.random.default_rng(1)
    for _ in range(100):
        config = random_config(rng)
        kept = cost.kept_channels(config.inner_channels, config.pruning_ratio)
        inner = "inner_dim" if "inner_dim" in USES[config.arch_type] else "ffn_dim"
        smaller = dataclasses.replace(config, pruning_ratio=0.0, **{inner: kept})
        for law in scaling.LAWS.values():  # pruning costs nothing beyond what is gone
            pruned = scaling.predicted_loss(config, 1e9, law)
            assert pruned == pytest.approx(scaling.predicted_loss(smaller, 1e9, law))
        worse = scaling.predicted_loss(config, 1e9, CORRECTED)
        dense = scaling.predicted_loss(smaller, 1e9, CORRECTED)
        assert worse >= dense
        assert (worse > dense) == (kept < config.inner_channels)


def test_more_tokens_help_a_model_that_is_not_rounded():
    rng = np.random.default_rng(2)
    for _ in range(100):
        config = dataclasses.replace(random_config(rng), quantization="fp16")
        tokens = np.geomspace(1e5, 1e12, 20)
        losses = scaling.expected_loss(scaling.config_capacity(config), tokens)
        assert np.all(np.diff(losses) < 0)


def columns(configs, *, pruned):
    """Sizes of one family as columns."""
    rows = [cost.sizes_of(config, pruned=pruned) for config in configs]
    fields = {
        name: np.asarray([getattr(row, name) for row in rows], np.int64)
        for name in cost.Sizes._fields
        if name not in ("arch_type", "storage")
    }
    storage = zip(*[row.storage for row in rows], strict=True)
    return cost.Sizes(
        rows[0].arch_type,
        **fields,
        storage=cost.Storage(*(np.asarray(x, np.int64) for x in storage)),
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("law", ALL_LAWS, ids=lambda law: law.name)
def test_columns_give_what_single_configs_give(family, law):
    configs = [config for config in VARIANTS if config.arch_type == family]
    trained, exported = (columns(configs, pruned=pruned) for pruned in (False, True))
    together = scaling.expected_loss(scaling.capacity_of(trained, exported), 1e8, law)
    assert together.dtype == np.float64
    single = [scaling.predicted_loss(config, 1e8, law) for config in configs]
    np.testing.assert_allclose(together, single, rtol=1e-13)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("law", ALL_LAWS, ids=lambda law: law.name)
def test_under_jit_it_is_the_same(family, law):
    configs = [config for config in VARIANTS if config.arch_type == family]
    both = [columns(configs, pruned=pruned) for pruned in (False, True)]

    @jax.jit
    def compiled(trained, exported, tokens):
        sizes = [cost.Sizes(family, *fields) for fields in (trained, exported)]
        return scaling.expected_loss(scaling.capacity_of(*sizes), tokens, law)

    fields = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), [x[1:] for x in both])
    found = compiled(*fields, jnp.float32(1e8))
    assert found.dtype == jnp.float32
    eager = scaling.expected_loss(scaling.capacity_of(*both), 1e8, law)
    np.testing.assert_allclose(found, eager, rtol=2e-6)


DOCUMENT = (pathlib.Path(__file__).parents[1] / "docs/capability.md").read_text()


def test_the_document_shows_what_its_code_prints():
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue() == shown


def test_the_document_has_the_laws():
    for law in scaling.LAWS.values():
        coefficients = (
            law.irreducible,
            law.parameter_scale,
            law.parameter_exponent,
            law.token_scale,
            law.token_exponent,
        )
        cells = (f"`{law.name}`", *(f"{x:g}" for x in coefficients), law.counts)
        assert f"| {' | '.join(cells)} | N " in DOCUMENT
