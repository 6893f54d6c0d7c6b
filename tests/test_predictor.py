"""The model-guided strategy: its regression, its rays, and what it finds."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from searching import jitted

from search import hypervolume, posterior_mean, predictor, random_search
from search.surrogate.contrasts import effects
from search.surrogate.hv_scalarization import draw_rays, gains, lengths, view_of, volume
from search.surrogate.moead import best_of_each
from search.surrogate.regression import NOISES, regress, relevance

CHOICES = np.array([3, 4, 2, 5, 3, 2, 4, 3], np.int32)
ORDERED = np.array([1, 1, 0, 1, 0, 0, 1, 0], bool)
COLUMNS = effects(CHOICES, ORDERED)
EVERY = np.stack([*map(np.ravel, np.indices(CHOICES))], axis=1).astype(np.int32)
BATCH = 8


class Free(NamedTuple):
    """Every genome is valid."""

    cardinality: np.ndarray

    def valid(self, genome):
        return jnp.bool_(True)

    def repair(self, genome):
        return genome


def hidden(genomes):
    """i32[N, 8] -> f32[N], of main effects, and of pairs of those that are strong."""
    number = np.arange(len(COLUMNS.gene))
    size = np.cos(number) / (1 + COLUMNS.gene)
    both = 0.5 * np.sin(np.arange(COLUMNS.pairs.shape[1])) * size[COLUMNS.pairs].prod(0)
    weights = jnp.asarray(np.concatenate([[3.0], size, both]), jnp.float32)
    return COLUMNS.apply(weights, COLUMNS.main(genomes))


def price(genomes):
    """i32[N, 8] -> f32[N, 1], what more of everything costs."""
    return (genomes / (CHOICES - 1)[None]).sum(axis=1, keepdims=True) ** 2


def answers(genomes):
    return jnp.concatenate([hidden(genomes)[:, None], price(genomes)], axis=1)


def test_columns_have_mean_0_and_are_orthogonal():
    design = np.asarray(COLUMNS.design(EVERY))
    gram = design.T @ design / len(EVERY)
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-5)
    # Up to three powers of an ordered gene, all contrasts of another.
    assert np.bincount(COLUMNS.gene).tolist() == [2, 3, 1, 3, 2, 1, 3, 2]


def test_weights_are_applied_as_the_design_says(key):
    design = COLUMNS.design(EVERY[:50])
    weights = jax.random.normal(key, design.shape[1:])
    found = COLUMNS.apply(weights, COLUMNS.main(EVERY[:50]))
    np.testing.assert_allclose(found, design @ weights, atol=1e-4)


def test_regression_recovers_main_effects_and_pairs_and_knows_how_well(key):
    genomes = jax.random.permutation(key, EVERY)[:600]
    truth = np.asarray(hidden(genomes))
    errors, deviations = [], []
    for number in (50, 150, 450):
        used = jnp.arange(600) < number
        values = jnp.where(used, truth, jnp.nan)
        found = regress(COLUMNS, genomes, values, used)
        apart = COLUMNS.apply(found.mean, COLUMNS.main(genomes)) - truth
        errors.append(float(jnp.sqrt((apart[450:] ** 2).mean())))
        deviations.append(found.deviation(COLUMNS.design(genomes[450:])).mean())
    assert errors[2] < 0.02 * truth.std()
    assert errors[0] > errors[1] > errors[2]
    assert deviations[0] > deviations[1] > deviations[2]
    # Of the size of its error; too wide at the end, for it never trusts columns wholly.
    ratios = [float(d) / e for d, e in zip(deviations, errors, strict=True)]
    assert 0.5 < ratios[0] < 3
    assert all(0.5 < ratio < 10 for ratio in ratios)


def test_the_likeliest_noise_is_close_to_that_of_the_values(key):
    """What comes out errs less than the readings do: it has seen through the noise."""
    pick, err = jax.random.split(key)
    genomes = jax.random.permutation(pick, EVERY)[:400]
    truth = np.asarray(hidden(genomes))
    for level in (0.02, 0.3):
        noise = level * truth.std() * jax.random.normal(jax.random.clone(err), (400,))
        found = posterior_mean(Free(CHOICES), genomes, truth + noise, ordered=ORDERED)
        errors = np.asarray(found.mean) - truth
        assert np.sqrt((errors**2).mean()) < 0.7 * np.asarray(noise).std()
        # The deviation is of the size of the errors.
        ratio = np.sqrt((errors**2 / np.asarray(found.deviation) ** 2).mean())
        assert 0.4 < ratio < 2.5


def test_a_noise_that_is_known_is_the_one_that_is_taken(key):
    """Noise as large as the values: what is seen is pulled to the mean."""
    genomes = jax.random.permutation(key, EVERY)[:100]
    values, used = jnp.asarray(hidden(genomes)), jnp.ones(100, bool)

    def spread(noises):
        found = regress(COLUMNS, genomes, values, used, noises)
        return float(COLUMNS.apply(found.mean, COLUMNS.main(genomes)).std())

    assert spread((0.9,)) < 0.95 * spread(NOISES)
    with pytest.raises(ValueError, match="noises must be one or more"):
        predictor(Free(CHOICES), objectives=2, population=4, noises=())


def test_rows_that_failed_or_are_not_used_count_nothing(key):
    genomes = jax.random.permutation(key, EVERY)[:60]
    values = jnp.asarray(hidden(genomes))
    used = jnp.arange(60) < 50
    odd = jnp.where(used, values, 1e6).at[:3].set(jnp.nan)
    fewer = posterior_mean(Free(CHOICES), genomes[3:50], values[3:50], at=genomes)
    found = posterior_mean(Free(CHOICES), genomes, odd, used)
    np.testing.assert_allclose(found.mean, fewer.mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.deviation, fewer.deviation, rtol=0.02)


def test_genes_that_do_nothing_matter_least(key):
    """Two of eight genes decide, and forty readings are enough to see which."""
    genomes = jax.random.permutation(key, EVERY)[:40]
    values = 2.0 * genomes[:, 1] - genomes[:, 3]
    values = (values - values.mean()) / values.std()
    main = COLUMNS.design(genomes)[:, : 1 + len(COLUMNS.gene)]
    found = relevance(COLUMNS, main, values, jnp.ones(40, bool))
    strong = np.isin(COLUMNS.gene, [1, 3])
    assert found[strong].min() > 1.5 * found[~strong].max()


def test_a_constant_is_predicted_everywhere():
    found = regress(COLUMNS, EVERY[:20], jnp.full(20, 7.0), jnp.ones(20, bool))
    main = COLUMNS.main(EVERY[:99])
    np.testing.assert_allclose(COLUMNS.apply(found.mean, main), 7.0, rtol=1e-5)


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.sweep(2)
def test_rays_measure_hypervolume_and_what_a_point_adds(key, number):
    for_points, for_rays = jax.random.split(key)
    points = jax.random.uniform(for_points, (30, number))
    bad = jnp.full((2, number), jnp.nan).at[1].set(-jnp.inf)
    reference = jnp.full(number, 1.1)
    rays = draw_rays(for_rays, 10_000, number)
    np.testing.assert_allclose(jnp.linalg.norm(rays, axis=1), 1.0, rtol=1e-5)
    reach = lengths(jnp.concatenate([points, bad]), reference, rays)
    assert (reach[:, 30:] == 0).all()
    longest = reach[:, :20].max(axis=1)
    whole = hypervolume(points[:20], reference)
    assert volume(longest, number) == pytest.approx(float(whole), rel=0.01)
    with_one = lambda point: jnp.concatenate([points[:20], point[None]])
    volumes = jax.vmap(lambda point: hypervolume(with_one(point), reference))(points)
    found = gains(reach[:, :30], longest, number)
    np.testing.assert_allclose(found, volumes - whole, atol=0.004)
    # What the front holds already adds nothing, to the last bit.
    assert (gains(reach[:, :20], longest, number) == 0).all()


def test_expected_gain_over_draws_is_expected_hypervolume_improvement(key):
    """One objective is normal, the other exact: in closed form, strip by strip."""
    for_values, for_rays = jax.random.split(key)
    front = jnp.array([[0.1, 0.9], [0.4, 0.5], [0.8, 0.2]])
    reference = jnp.array([1.1, 1.1])
    mean, deviation, exact = 0.45, 0.2, 0.3
    drawn = mean + deviation * jax.random.normal(for_values, (4000,))
    points = jnp.stack([drawn, jnp.full(4000, exact)], axis=1)
    rays = draw_rays(for_rays, 2000, 2)
    longest = lengths(front, reference, rays).max(axis=1)
    found = float(gains(lengths(points, reference, rays), longest, 2).mean())

    def below(level):
        """E[max(0, level - value)] of the normal objective."""
        away = (level - mean) / deviation
        density = jax.scipy.stats.norm.pdf(away)
        return deviation * (away * jax.scipy.stats.norm.cdf(away) + density)

    # Between two values of the exact objective the front lies at one of the other.
    strips = [(0.3, 0.5, 0.8), (0.5, 0.9, 0.4), (0.9, 1.1, 0.1)]
    expected = sum((high - low) * float(below(level)) for low, high, level in strips)
    assert found == pytest.approx(expected, rel=0.05)


def test_the_view_does_not_depend_on_the_units(key):
    points = jax.random.uniform(key, (30, 2)).at[3].set(jnp.inf)
    units = jnp.array([[1000.0, 0.01]])
    reaches = [
        view_of(jax.random.key(1), those, 64).reach(those)
        for those in (points, points * units)
    ]
    np.testing.assert_allclose(*reaches, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unit", [1.0, 1e7])
def test_a_front_of_one_point_is_seen_as_wide_as_all_that_succeeded(unit):
    points = unit * jnp.array([[1.0, 5.0], [1.5, 7.0], [3.0, 6.0], [jnp.nan, 0.0]])
    view = view_of(jax.random.key(0), points, 64)
    np.testing.assert_allclose(view.width, unit * jnp.array([2.0, 2.0]), rtol=1e-6)
    assert (view.reach(points)[:, 0] > 0).all()


def test_every_direction_finds_its_best(key):
    """Direction r wants the genome whose digits are those of target r."""
    targets = jnp.asarray(EVERY[:: len(EVERY) // 6][:6])
    score = lambda genomes: (
        (8.0 - abs(genomes[None] - targets[:, None]).sum(axis=2).astype(jnp.float32))
        + jnp.float32(16)
    )

    def vary(key, mothers, fathers):
        number = len(mothers)
        gene, choice = jax.random.randint(key, (2, number), 0, 2**30)
        place = gene % 8
        chosen = choice % jnp.asarray(CHOICES)[place]
        return mothers.at[jnp.arange(number), place].set(chosen)

    start = jnp.zeros((6, 8), jnp.int32)
    found = best_of_each(key, start, vary, score, steps=40, children=16)
    np.testing.assert_array_equal(found, targets)


def searched(strategy, seed, batches, answers=answers):
    """All that it asked, i32[N, 8]."""
    strategy = jitted(strategy)
    state, asked = strategy.init(jax.random.key(seed)), []
    for number in range(batches):
        genomes = strategy.ask(jax.random.key(100 * seed + number), state)
        ids = BATCH * number + jnp.arange(BATCH, dtype=jnp.int32)
        everyone = jnp.ones(BATCH, bool)
        state = strategy.tell(state, ids, genomes, answers(genomes), everyone)
        asked.append(np.asarray(genomes))
    return np.concatenate(asked)


GUIDED = {
    "objectives": 2,
    "population": BATCH,
    "ordered": ORDERED,
    "capacity": 128,
    "start": 24,
}
CHEAP = {"cheap": price, "cheap_columns": (1,)}


@pytest.fixture(
    scope="module", params=[True, pytest.param(False, marks=pytest.mark.slow)]
)
def asked(request):
    """What it asks on a table of 8,640 genomes, where the price is known or not."""
    more = CHEAP if request.param else {}
    return searched(predictor(Free(CHOICES), **GUIDED, **more), 1, 12)


@pytest.mark.slow
def test_it_closes_most_of_the_gap_that_random_search_leaves(asked):
    every = answers(EVERY)
    best = every.min(axis=0, keepdims=True)
    worst = every.max(axis=0, keepdims=True)
    volume = lambda genomes: float(
        hypervolume((answers(genomes) - best) / (worst - best), np.full(2, 1.1, "f4"))
    )
    whole = volume(EVERY)
    drawn = searched(random_search(Free(CHOICES), population=BATCH), 1, 12)
    assert whole - volume(asked) < 0.2 * (whole - volume(drawn))


def test_it_never_asks_again(asked):
    assert len(np.unique(asked, axis=0)) == len(asked) == 12 * BATCH


@pytest.mark.parametrize("seed", [1, 2])
def test_all_it_asks_of_one_objective_is_promising(seed):
    """Every genome of a batch, not the first of it alone, once something is known."""
    alone = lambda genomes: hidden(genomes)[:, None]
    guided = GUIDED | {"objectives": 1}
    genomes = searched(predictor(Free(CHOICES), **guided), seed, 8, alone)
    values = np.asarray(hidden(genomes)).reshape(8, BATCH)
    every = np.sort(np.asarray(hidden(EVERY)))
    tenth = every[len(every) // 10]
    assert (values[4:] < tenth).mean() > 0.8 > 0.4 > (values[:3] < tenth).mean()
    assert values.min() <= every[20]
    assert len(np.unique(genomes, axis=0)) == len(genomes)


def test_what_it_asks_is_canonical():
    """The last gene means something only where the first is 0."""
    canonical = lambda genome: genome.at[-1].multiply(genome[0] == 0)
    strategy = predictor(Free(CHOICES), **GUIDED, canonical=canonical)
    genomes = searched(strategy, 2, 5)
    assert not genomes[genomes[:, 0] > 0, -1].any()
    assert genomes[:, -1].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cheap": price, "cheap_columns": (0, 1)}, "cheap_columns must be"),
        ({"cheap": price, "cheap_columns": (2,)}, "cheap_columns must be"),
        ({"cheap": price}, "cheap and cheap_columns go together"),
        ({"ordered": np.ones(3, bool)}, r"ordered must be bool\[8\]"),
        ({"start": 3000}, "start must be in 1 to capacity=2048"),
        ({"objectives": 0}, "objectives=0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        predictor(Free(CHOICES), **{"objectives": 2, **settings})
