"""What an earlier run found is told to a new one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results import made_result
from searching import jitted

from arch import ArchitectureConfig
from arch.spaces import SPACES
from jaxnas.config import RunConfig
from jaxnas.errors import UsageError
from jaxnas.evaluation.fitness import FitnessSettings
from jaxnas.hardware import hardware_named
from jaxnas.pipeline.limits import costs_of_space
from jaxnas.pipeline.strategy import make_strategy
from jaxnas.pipeline.warm_start import warm_start
from jaxnas.results.result import read_results
from jaxnas.storage.jsonl import to_line

SPACE = SPACES["medium"]
FIELDS = {"vocab_size": 1024, "max_seq_length": 64}
SETTINGS = {"genetic": {"elite_share": 0.5}}


def strategy_named(name):
    given = SETTINGS.get(name, {})
    config = RunConfig(strategy=name, space="medium", population=6, **given)
    settings = config.resolve("cpu")
    table = costs_of_space(settings, hardware_named("cpu-core"), FIELDS)
    return jitted(make_strategy(settings, table, FitnessSettings()))


def line_of(config, objectives):
    status = "failed" if objectives is None else "ok"
    return made_result(config=config, status=status, objectives=objectives)


@pytest.fixture
def lines(key):
    """Six candidates of the space, then three that are of no use."""
    genomes = SPACE.sample(key, 6)
    found = [
        line_of(SPACE.decode(genome, **FIELDS), [0.9 - 0.1 * n, 5.0 + n, 2.0])
        for n, genome in enumerate(genomes)
    ]
    another = {**FIELDS, "vocab_size": 512}
    outside = SPACES["full"].choices[2][0]
    small = SPACE.decode(genomes[0], **FIELDS).to_dict() | {"hidden_dim": outside}
    small = ArchitectureConfig(**small)
    return [
        *found,
        line_of(SPACE.decode(genomes[0], **another), [0.1, 1.0, 1.0]),
        line_of(small, [0.1, 1.0, 1.0]),
        line_of(SPACE.decode(genomes[1], **FIELDS), None),
    ]


SLOW = pytest.param("predictor", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["genetic", "nsga2", "aging", "local", SLOW])
@pytest.mark.sweep(4)
def test_it_equals_being_told_by_hand(name, lines):
    strategy = strategy_named(name)
    start = strategy.init(jax.random.key(1))
    warm, told = warm_start(strategy, start, lines, SPACE, FIELDS)
    assert told == 6
    canonical = [SPACE.encode(line.config) for line in lines[:6]]
    by_hand = strategy.tell(
        start,
        jnp.arange(-6, 0, dtype=jnp.int32),
        jnp.asarray(np.stack(canonical)),
        jnp.asarray([line.objectives for line in lines[:6]], jnp.float32),
        jnp.ones(6, bool),
    )
    chex.assert_trees_all_equal(warm, by_hand)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), warm, start)
    assert any(jax.tree.leaves(changed))


def test_without_a_line_of_use_nothing_is_told(lines):
    strategy = strategy_named("nsga2")
    start = strategy.init(jax.random.key(1))
    same, told = warm_start(strategy, start, lines[6:], SPACE, FIELDS)
    assert told == 0
    chex.assert_trees_all_equal(same, start)


def test_lines_are_read_while_another_run_writes_them(tmp_path, lines):
    path = tmp_path / "results.jsonl"
    torn = to_line(lines[1].to_row())[:-20]
    path.write_bytes(to_line(lines[0].to_row()) + torn)
    assert read_results(path) == lines[:1]
    assert path.read_bytes().endswith(torn)
    with pytest.raises(UsageError, match=r"cannot read .*absent"):
        read_results(tmp_path / "absent")


def test_the_folder_is_anchored_and_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = RunConfig(warm_start="runs/a").anchored()
    assert config.warm_start == str(tmp_path / "runs" / "a")
    assert "warm_start" in config.to_toml()
    assert "warm_start" not in RunConfig().to_toml()
