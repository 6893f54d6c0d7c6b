import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.evaluation.fitness import (
    OBJECTIVES,
    FitnessSettings,
    fitness,
    fitness_of,
    objectives_of,
    scores,
)

DEFAULT = FitnessSettings()
OTHER = FitnessSettings(
    accuracy_weight=1.0,
    size_weight=0.0,
    latency_weight=2.5,
    size_target=3.0,
    size_limit=7.0,
    latency_target=0.25,
)


def by_hand(accuracy, size, latency, s):
    """The weighted score, from its description."""
    if size <= s.size_target:
        size_score = 1.0
    elif size >= s.size_limit:
        size_score = 0.0
    else:
        size_score = (s.size_limit - size) / (s.size_limit - s.size_target)
    fast = latency <= s.latency_target
    latency_score = 1.0 if fast else s.latency_target / latency
    return (
        s.accuracy_weight * accuracy
        + s.size_weight * size_score
        + s.latency_weight * latency_score
    )


@pytest.mark.parametrize(
    ("size", "score"),
    [(0.1, 1), (100, 1), (101, 0.9975), (300, 0.5), (499, 0.0025), (500, 0), (900, 0)],
)
def test_size_score(size, score):
    found = scores(np.array([0.5, size, 1.0]), DEFAULT)[1]
    assert found == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(
    ("latency", "score"), [(0.01, 1), (10, 1), (12.5, 0.8), (20, 0.5), (1000, 0.01)]
)
def test_latency_score(latency, score):
    found = scores(np.array([0.5, 1.0, latency]), DEFAULT)[2]
    assert found == pytest.approx(score, abs=1e-12)


def test_weights_of_the_scores():
    # Half for accuracy, three tenths for size, two tenths for latency.
    assert fitness_of([0.0, 1.0, 1.0], DEFAULT) == pytest.approx(1.0)
    assert fitness_of([1.0, 1.0, 1.0], DEFAULT) == pytest.approx(0.3 + 0.2)
    assert fitness_of([0.0, 600.0, 1.0], DEFAULT) == pytest.approx(0.5 + 0.2)
    assert fitness_of([1.0, 600.0, 40.0], DEFAULT) == pytest.approx(0.2 / 4)
    assert fitness_of([0.6, 300.0, 20.0], DEFAULT) == pytest.approx(0.2 + 0.15 + 0.1)


def test_objectives_are_minimised():
    assert objectives_of(0.25, 12.0, 3.0) == [0.75, 12.0, 3.0]
    assert len(OBJECTIVES) == 3
    start = [0.6, 300.0, 20.0]
    for place in range(3):
        better = list(start)
        better[place] *= 0.9
        assert fitness_of(better, DEFAULT) > fitness_of(start, DEFAULT)


@pytest.mark.parametrize("settings", [DEFAULT, OTHER], ids=["default", "other"])
def test_numpy_jax_and_hand_agree(settings):
    rng = np.random.default_rng(0)
    accuracy = rng.uniform(size=(40, 5))
    size, latency = np.exp(rng.uniform(-1, 7, (2, 40, 5)))
    objectives = np.stack([1 - accuracy, size, latency], axis=-1)
    wanted = np.vectorize(lambda *three: by_hand(*three, settings))(
        accuracy, size, latency
    )
    np.testing.assert_allclose(fitness(objectives, settings), wanted, rtol=1e-12)
    on_device = jax.jit(lambda x: fitness(x, settings, jnp))(objectives)
    np.testing.assert_allclose(on_device, wanted, rtol=1e-5, atol=1e-6)
    alone = [fitness_of(row, settings) for row in objectives.reshape(-1, 3)]
    np.testing.assert_array_equal(alone, fitness(objectives, settings).ravel())


def test_a_failure_stays_nan():
    objectives = np.array([[math.nan] * 3, [0.5, 300.0, 20.0]])
    for xp in (np, jnp):
        found = np.asarray(fitness(xp.asarray(objectives), DEFAULT, xp))
        assert np.isnan(found).tolist() == [True, False]
        each = np.asarray(scores(xp.asarray(objectives), DEFAULT, xp))
        assert np.isnan(each).tolist() == [[True] * 3, [False] * 3]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"accuracy_weight": -0.1}, "accuracy_weight=-0.1"),
        ({"size_weight": math.nan}, "size_weight=nan"),
        ({"latency_weight": math.inf}, "latency_weight=inf"),
        (
            {"accuracy_weight": 0, "size_weight": 0, "latency_weight": 0.0},
            "weight are all 0",
        ),
        ({"size_target": 0.0}, "size_target=0.0"),
        ({"latency_target": -1.0}, "latency_target=-1.0"),
        ({"latency_target": math.nan}, "latency_target=nan"),
        ({"size_limit": 100.0}, "size_limit=100.0.*size_target=100.0"),
        ({"size_limit": math.nan}, "size_limit=nan"),
        ({"size_limit": math.inf}, "size_limit=inf"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(changes, said):
    with pytest.raises(ValueError, match=said) as raised:
        dataclasses.replace(DEFAULT, **changes)
    assert "\n" not in str(raised.value)
