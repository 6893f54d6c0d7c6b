"""Every strategy as a run uses it: made of its settings, saved and restored."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tomli_w
from searching import jitted

from arch.spaces import SPACES
from jaxnas.config import RunConfig, make_config, read_toml
from jaxnas.errors import UsageError
from jaxnas.evaluation.fitness import FitnessSettings
from jaxnas.hardware import hardware_named
from jaxnas.pipeline.limits import costs_of_space
from jaxnas.pipeline.strategy import make_strategy
from jaxnas.presets import STRATEGY_NAMES, STRATEGY_SETTINGS, unread_by
from jaxnas.run import main
from jaxnas.storage.checkpoints import Checkpoints
from search import STRATEGIES

POPULATION = 6


def settings_of(name):
    config = RunConfig(strategy=name, space="medium", population=POPULATION)
    return config.resolve("cpu")


def rows_of(genomes, first_id):
    ids = first_id + np.arange(POPULATION, dtype=np.int32)
    share = np.asarray(genomes).mean(axis=1, keepdims=True) / 10
    objectives = np.concatenate([share, 1 - share, share**2], axis=1)
    return ids, genomes, objectives.astype(np.float32), np.ones(POPULATION, bool)


def test_the_config_knows_every_strategy():
    assert set(STRATEGY_NAMES) == STRATEGIES.keys()
    with pytest.raises(UsageError, match="'best' must be one of random, genetic"):
        RunConfig(strategy="best")


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_a_strategy_reads_the_settings_that_it_takes(name):
    takes = inspect.signature(STRATEGIES[name]).parameters
    reads = STRATEGY_SETTINGS[name]
    assert takes.keys().isdisjoint(unread_by(name))
    assert reads.keys() <= takes.keys()
    for setting, default in reads.items():
        assert takes[setting].default in (default, None)
    config = RunConfig(strategy=name).resolve("cpu")
    assert {key: getattr(config, key) for key in reads} == reads
    assert all(getattr(config, key) is None for key in unread_by(name))


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_a_setting_that_the_strategy_does_not_read_is_refused(name, tmp_path):
    file = tmp_path / "settings.toml"
    for setting in unread_by(name):
        given = {"strategy": name, setting: 1 if setting == "tournament_size" else 0.9}
        line = f"{setting}=.* is not read by strategy {name}: only by genetic"
        with pytest.raises(UsageError, match=line):
            RunConfig(**given)
        file.write_text(tomli_w.dumps(given))
        with pytest.raises(UsageError, match=line):
            make_config(read_toml(file), str(file))
    # Earlier run folders hold genetic's defaults whatever the strategy is.
    file.write_text(tomli_w.dumps({**STRATEGY_SETTINGS["genetic"], "strategy": name}))
    if name != "nsga2":
        config = make_config(read_toml(file), str(file))
        assert config.resolve("cpu") == RunConfig(strategy=name).resolve("cpu")


def test_the_command_line_says_so_in_one_line(capsys):
    given = ["--strategy", "random", "--tournament-size", "9"]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert "tournament_size=9 is not read by strategy random" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("random", "aging")))
        for name in STRATEGY_NAMES
    ],
)
def test_a_restored_state_goes_on_as_the_one_that_was_saved(name, key, tmp_path):
    settings = settings_of(name)
    fields = {"vocab_size": 1024, "max_seq_length": settings.window}
    table = costs_of_space(settings, hardware_named("cpu-core"), fields)
    strategy = jitted(make_strategy(settings, table, FitnessSettings()))
    begin, middle, end = jax.random.split(key, 3)
    state = strategy.init(begin)
    genomes = strategy.ask(middle, state)
    assert np.asarray(jax.vmap(SPACES["medium"].valid)(genomes)).all()
    state = strategy.tell(state, *rows_of(genomes, 0))
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    checkpoints.save(1, state)
    fresh = strategy.init(jax.random.key(7))
    generation, restored = checkpoints.latest(jax.tree.map(jnp.zeros_like, fresh))
    assert generation == 1
    chex.assert_trees_all_equal(restored, state)
    goes_on = strategy.ask(end, restored)
    chex.assert_trees_all_equal(goes_on, strategy.ask(jax.random.clone(end), state))


@pytest.mark.parametrize(
    ("space", "given", "living"),
    [("nano", {}, 12), ("medium", {}, 100), ("nano", {"generations": 12}, 36)],
)
def test_aging_gets_past_its_first_population(space, given, living):
    settings = RunConfig(space=space, strategy="aging", **given).resolve("cpu")
    assert settings.population * settings.generations >= 2 * living
    fields = {"vocab_size": 1024, "max_seq_length": 64}
    table = costs_of_space(settings, hardware_named("cpu-core"), fields)
    strategy = make_strategy(settings, table, FitnessSettings())
    assert strategy.init(jax.random.key(0)).used.shape == (living,)


def test_ordered_genes_are_those_with_ascending_numbers():
    ordered = SPACES["medium"].ordered.tolist()
    assert ordered == [False, *[True] * 4, *[False] * 3, *[True] * 2, False, True]
