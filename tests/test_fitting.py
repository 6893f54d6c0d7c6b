"""A fit finds the law that made the losses, and says how far it is off."""

import dataclasses

import numpy as np
import pytest
from cost_configs import SMALL, of_family

from arch import cost, scaling
from arch.families import FAMILIES
from arch.scaling.fit import FEWEST_ROWS, MeasuredLoss, fit, fit_law, log_error, take

TRUE = scaling.ScalingLaw(
    name="true",
    source="made up",
    counts="non-embedding",
    irreducible=1.7,
    parameter_scale=60.0,
    parameter_exponent=0.3,
    token_scale=900.0,
    token_exponent=0.4,
    parameter_range=(1, 1),
    token_range=(1, 1),
    depth=0.25,
    pruning=0.8,
    rounding=3.0,
    families=(0.2, -0.3, 0.2, 0.1, 0.4, -0.6),
)


def random_rows(number, law=TRUE, noise=0.0, seed=0, tokens=None):
    """Losses that the law gives, with relative noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(number):
        config = of_family(
            FAMILIES[index % len(FAMILIES)],
            num_layers=int(rng.integers(2, 25)),
            hidden_dim=32 * int(rng.integers(2, 30)),
            vocab_size=int(rng.integers(300, 50000)),
            quantization=list(cost.STORAGE)[rng.integers(3)],
            pruning_ratio=float(rng.choice([0, 0.2, 0.5])),
        )
        read = tokens or 10 ** rng.uniform(6, 9)
        loss = scaling.predicted_loss(config, read, law) * np.exp(noise * rng.normal())
        rows.append(MeasuredLoss(config, read, loss))
    return rows


def test_the_law_that_made_the_losses_is_found():
    found = fit(random_rows(120))
    assert found.rows == found.law.rows == 120
    assert found.error < 1e-3
    for name in ("irreducible", "parameter_exponent", "token_exponent"):
        assert getattr(found.law, name) == pytest.approx(getattr(TRUE, name), rel=0.03)
    assert found.law.depth == pytest.approx(TRUE.depth, abs=0.02)
    assert found.law.pruning == pytest.approx(TRUE.pruning, abs=0.05)
    assert found.law.rounding == pytest.approx(TRUE.rounding, rel=0.1)
    # Families are told apart from one another: what all share is in the scale.
    between = np.subtract(found.law.families, found.law.families[0])
    truth = np.subtract(TRUE.families, TRUE.families[0])
    np.testing.assert_allclose(between, truth, atol=0.03)


def test_the_error_is_that_of_rows_not_seen():
    rows, others = random_rows(120, noise=0.01), random_rows(200, noise=0.01, seed=1)
    found = fit(rows)
    # The mean of |N(0, .01)| is .0080; 14 coefficients cost a little more.
    assert 0.0075 < found.error < 0.0105
    misses = [
        np.log(scaling.predicted_loss(row.config, row.tokens, found.law) / row.loss)
        for row in others
    ]
    assert np.mean(np.abs(misses)) == pytest.approx(found.error, rel=0.2)
    assert found.error < 0.5 * found.total_error < 0.5 * found.constant_error


def test_the_error_of_the_largest_is_that_of_a_fit_to_the_smaller():
    rows = sorted(
        random_rows(60, noise=0.01),
        key=lambda row: scaling.config_capacity(row.config).kept,
    )
    found = fit(rows)
    assert 0 < found.largest_error < 0.1
    # What larger models do cannot be seen in smaller ones.
    bent = [row._replace(loss=row.loss * 1.5) for row in rows[48:]]
    assert fit([*rows[:48], *bent]).largest_error > 0.2


def test_a_few_broken_trainings_do_not_bend_the_law():
    rows = random_rows(120, noise=0.002)
    broken = [row._replace(loss=3 * row.loss) for row in rows[::24]]
    law = fit(rows[:119] + broken).law
    misses = [
        np.log(scaling.predicted_loss(row.config, row.tokens, law) / row.loss)
        for row in rows
    ]
    assert np.median(np.abs(misses)) < 0.01


def test_without_a_difference_in_tokens_there_is_no_term_of_tokens():
    found = fit(random_rows(60, tokens=1e8))
    assert found.law.token_scale == found.law.token_exponent == 0
    assert found.law.token_range == (1e8, 1e8)
    assert found.error < 2e-3
    assert scaling.predicted_loss(SMALL, 1e6, found.law) == pytest.approx(
        scaling.predicted_loss(SMALL, 1e9, found.law)
    )


def test_corrections_that_rows_do_not_show_stay_at_zero():
    plain = dataclasses.replace(
        TRUE, depth=0.0, pruning=0.0, rounding=1.0, families=(0.0,) * 6
    )
    rows = [
        row._replace(config=dataclasses.replace(SMALL, num_layers=2 + index))
        for index, row in enumerate(random_rows(30))
    ]
    rows = [
        row._replace(loss=scaling.predicted_loss(row.config, row.tokens, plain))
        for row in rows
    ]
    law = fit(rows).law
    assert law.pruning == pytest.approx(0, abs=1e-3)
    assert law.rounding == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(law.families, 0, atol=1e-3)


def test_the_same_rows_give_the_same_law():
    rows = random_rows(40, noise=0.01)
    assert fit(rows) == fit(rows)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (random_rows(FEWEST_ROWS - 1), "9 rows are too few"),
        ([MeasuredLoss(SMALL, 1e6, 3.0)] * 12, "one size"),
        ([*random_rows(12), MeasuredLoss(SMALL, 1e6, float("nan"))], "every loss"),
        ([*random_rows(12), MeasuredLoss(SMALL, 1e6, 0.0)], "every loss"),
        ([*random_rows(12), MeasuredLoss(SMALL, -1.0, 3.0)], "every number of tokens"),
    ],
)
def test_rows_that_say_nothing_are_refused(rows, said):
    with pytest.raises(ValueError, match=said):
        fit(rows)


def test_the_error_of_a_law_by_hand():
    capacity = scaling.config_capacity(SMALL)
    columns = scaling.Capacity(
        *(np.full(2, float(value)) for value in capacity[:-1]),
        tuple(np.full(2, float(value)) for value in capacity.family),
    )
    loss, tokens = scaling.predicted_loss(SMALL, 1e6, TRUE), np.full(2, 1e6)
    error = log_error(TRUE, columns, tokens, np.array([2 * loss, loss / 4]))
    assert error == pytest.approx(1.5 * np.log(2))
    assert take(columns, np.array([True, False])).kept.shape == (1,)
    # One size says nothing of the exponent, and is predicted all the same.
    law = fit_law(columns, tokens, np.array([loss, loss]))
    assert log_error(law, columns, tokens, np.array([loss, loss])) < 1e-3
