import argparse
import dataclasses
import math
import tomllib

import pytest

from jaxnas.commands.options import Parser, add_settings, given_settings
from jaxnas.config import RunConfig, kind_of, make_config, read_toml
from jaxnas.errors import UsageError
from jaxnas.presets import PRESETS, SEARCHES
from jaxnas.training.lengths import PhaseLength

FIELDS = {field.name: field for field in dataclasses.fields(RunConfig)}
OPEN = {
    "memory_limit",
    "warm_start",
    "max_evals",
    "patience",
    "target",
    "max_latency",
    "objectives",
    "budget",
}  # what may stay open


def parsed(*words):
    parser = Parser(prog="search")
    parser.add_argument("--out")
    add_settings(parser)
    return given_settings(parser.parse_args(list(words)))


def toml(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def settled(tmp_path, text, *words, backend="cpu"):
    """Settings of a file and flags, as the command line joins them."""
    values = read_toml(toml(tmp_path, text)) | parsed(*words)
    return make_config(values, "settings").resolve(backend)


def test_a_flag_wins_over_the_file_over_the_preset_over_the_default(tmp_path):
    small = PRESETS["small"].settings
    assert settled(tmp_path, "").batch == small["batch"] == 8
    assert settled(tmp_path, "batch = 9").batch == 9
    assert settled(tmp_path, "batch = 9", "--batch", "5").batch == 5
    assert settled(tmp_path, "", "--batch", "5").batch == 5
    assert settled(tmp_path, "seed = 3").seed == 3
    assert settled(tmp_path, "seed = 3", "--seed", "0").seed == 0  # though a default
    assert settled(tmp_path, "weight_decay = 0.0").weight_decay == 0.0
    other = settled(tmp_path, "preset = 'standard'\nbatch = 9")
    assert (other.batch, other.window) == (9, PRESETS["standard"].settings["window"])
    flag = settled(tmp_path, "preset = 'standard'", "--preset", "small")
    assert (flag.preset, flag.window) == ("small", small["window"])


def test_only_what_was_written_counts_as_given():
    assert parsed() == {}
    assert parsed("--out", "x", "--final-steps", "0") == {"final_steps": 0}
    given = parsed("--learning-rate", "1e-3", "--space=full", "--top-k", "2")
    assert given == {"learning_rate": 1e-3, "space": "full", "top_k": 2}


def test_a_switch_has_two_flags(tmp_path):
    assert parsed("--baseline") == {"baseline": True}
    assert parsed("--no-baseline") == {"baseline": False}
    assert settled(tmp_path, "").baseline
    assert not settled(tmp_path, "baseline = false").baseline
    assert settled(tmp_path, "baseline = false", "--baseline").baseline
    with pytest.raises(UsageError, match="baseline=1 is not of type bool"):
        settled(tmp_path, "baseline = 1")


def test_every_field_has_a_flag_with_its_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        parsed("--help")
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for name, field in FIELDS.items():
        assert f"--{name.replace('_', '-')}" in said
        assert field.metadata["help"].split()[0] in said


@pytest.mark.parametrize(
    "words",
    [
        ["--no-such-flag", "1"],
        ["--popul", "3"],  # no abbreviations: a later flag could change them
        ["--population", "three"],
        ["--population", "3.0"],
        ["--learning-rate", "fast"],
        ["--population"],
        ["stray"],
    ],
    ids=" ".join,
)
def test_a_wrong_flag_is_one_line_and_code_2(capsys, words):
    with pytest.raises(SystemExit) as stopped:
        parsed(*words)
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words[0] in said.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("populaton = 3", "unknown key 'populaton'.*known: space, strategy"),
        ("[search]\npopulation = 3", "unknown key 'search'"),
        ("a = 1\nb = 2", "unknown key 'a', 'b'"),
        ("population = ", "is not TOML"),
        ("population = 3\npopulation = 4", "is not TOML"),
        ("population == 3\n" * 3, "is not TOML"),
    ],
    ids=lambda x: x[:20],
)
def test_a_file_that_cannot_be_used(tmp_path, text, said):
    path = toml(tmp_path, text)
    with pytest.raises(UsageError, match=said) as raised:
        read_toml(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("what", ["missing", "a folder", "not text"])
def test_a_file_that_cannot_be_read(tmp_path, what):
    path = tmp_path / "config.toml"
    if what == "a folder":
        path.mkdir()
    if what == "not text":
        path.write_bytes(b"seed = '\xff'")
    with pytest.raises(UsageError, match=r"config\.toml") as raised:
        read_toml(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("population = true", "population=True is not of type int"),
        ("population = '3'", "population='3' is not of type int"),
        ("population = 3.0", "population=3.0 is not of type int"),
        ("population = 0", "population=0 must be at least 1"),
        ("population = [3]", "population=.* is not of type int"),
        ("learning_rate = true", "learning_rate=True is not of type float"),
        ("learning_rate = '1e-3'", "learning_rate='1e-3' is not of type float"),
        ("learning_rate = nan", "learning_rate=nan must be finite"),
        ("learning_rate = 0.0", "learning_rate=0.0 must be above 0"),
        ("size_limit = inf", "size_limit=inf must be finite"),
        ("weight_decay = -1", "weight_decay=-1 must be at least 0"),
        ("seed = -1", "seed=-1 must be at least 0"),
        ("seed = 4294967296", "seed=4294967296 must be at most 4294967295"),
        ("vocab_size = 256", "vocab_size=256 must be at least 257"),
        ("vocab_size = 65537", "vocab_size=65537 must be at most 65536"),
        ("space = 3", "space=3 is not of type str"),
        ("space = 'nope'", "space='nope' must be one of .*, modern, or FILE.toml"),
        ("target = 'acc=1'", "target='acc=1': 'acc=1' is no target: write METRIC=X"),
        ("phases = 'slow'", "phases='slow': 'slow' is no phase: fast, medium, full"),
        ("phases = 'fast,fast'", "phases='fast,fast': fast is named twice"),
        ("phases = '0'", "phases='0': a phase needs at least 1 sample"),
        ("phases = '4x5x6'", "phases='4x5x6': '4x5x6' is no phase"),
        ("phases = '4,8'\nsamples = 3", "samples and epochs are of a lone phase"),
        ('preset = "big\\n"', "preset=.* must be one of auto, small, standard"),
        ("seed = 1979-05-27", "seed=.* is not of type int"),
    ],
    ids=lambda x: x[:24],
)
def test_a_value_that_cannot_be_used(tmp_path, text, said):
    values = read_toml(toml(tmp_path, text))
    with pytest.raises(UsageError, match=f"^a.toml: {said}") as raised:
        make_config(values, "a.toml")
    assert "\n" not in str(raised.value)


def test_flags_are_checked_too():
    for words in (["--learning-rate", "nan"], ["--seed", "-1"], ["--phases", "x"]):
        with pytest.raises(UsageError, match=words[0][2:].replace("-", "_")):
            make_config(parsed(*words), "settings")


def changed(field):
    """A value that the field allows and that is not its default."""
    bounds = field.metadata["bounds"]
    if "among" in bounds:
        return bounds["among"][-1]
    kind = kind_of(field)
    if kind is bool:
        return not field.default
    if field.name in ("phases", "budget", "target"):
        texts = {"phases": "medium", "budget": "1h30m", "target": "accuracy=0.5"}
        return texts[field.name]
    if kind is float and {"most", "below"} & bounds.keys():
        return 0.625
    if kind is str:
        return "folder:/a 'b' \"c\" \\é\t"
    return kind(bounds.get("least", 0)) + kind(3)


def test_toml_is_read_back(tmp_path):
    every = {name: changed(field) for name, field in FIELDS.items()}
    full = RunConfig(**every | {"strategy": "genetic"})  # which reads all the others
    other = RunConfig(strategy=every["strategy"])
    gpu = RunConfig().resolve("gpu")
    for config in (RunConfig(), full, other):
        values = read_toml(toml(tmp_path, config.to_toml()))
        assert make_config(values, "") == config
    for settings in (full.resolve("cpu"), gpu):
        values = read_toml(toml(tmp_path, settings.to_toml()))
        assert make_config(values, "").resolve("cpu") == settings
    assert "population" not in RunConfig().to_toml()  # open, so left out
    some = RunConfig(learning_rate=0.1 + 0.2, size_target=8)
    again = make_config(read_toml(toml(tmp_path, some.to_toml())), "")
    assert again == some
    assert again.learning_rate == 0.30000000000000004


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("phase", ["fast", "medium", "full"])
@pytest.mark.parametrize("preset", ["auto", "small", "standard"])
def test_resolving_fills_everything(backend, phase, preset):
    given = {"space": "medium", "strategy": "genetic"}
    given |= {"phases": phase, "preset": preset}
    config = RunConfig(**given).resolve(backend)
    values = dataclasses.asdict(config)
    assert {name for name, value in values.items() if value is None} == OPEN
    named = preset if preset != "auto" else "small" if backend == "cpu" else "standard"
    assert config.preset == named
    chosen = PRESETS[named]
    for name, value in chosen.settings.items():
        assert getattr(config, name) == value
    assert config.samples == chosen.phases[phase].samples
    assert config.epochs == chosen.phases[phase].epochs
    assert config.resolve("gpu") == config.resolve("cpu") == config


def test_presets_fill_what_is_open_and_nothing_else():
    opened = {name for name, field in FIELDS.items() if field.default is None}
    searched = {"population", "generations", "samples", "epochs"}
    searched |= {"crossover_rate", "mutation_rate", "phases", "repeats", "decay_share"}
    searched |= {"elite_share", "tournament_size", "latency", "measure_top"}
    searched |= {"space", "strategy", "max_size", "promote_share", "lucky"}
    searched |= {"accuracy_weight", "size_weight", "latency_weight"}
    for preset in PRESETS.values():
        assert set(preset.settings) | searched | OPEN == opened


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("space", [None, *SEARCHES])
def test_with_limits_the_most_accurate_wins(space, backend):
    names = ("accuracy_weight", "size_weight", "latency_weight")

    def weights(**given):
        settings = RunConfig(space=space, **given).resolve(backend)
        return tuple(getattr(settings, name) for name in names)

    limited = space in (None, "nano", "modern")
    assert weights() == ((1, 0, 0) if limited else (0.5, 0.3, 0.2))
    assert weights(max_size=3.0) == weights(max_latency=3.0) == (1, 0, 0)
    assert weights(max_size=3.0, size_weight=0.1) == (1, 0.1, 0)
    settings = RunConfig(space=space).resolve(backend)
    again = make_config(tomllib.loads(settings.to_toml()), "").resolve("cpu")
    assert again == settings


def test_the_space_depends_on_the_backend_alone():
    assert RunConfig().resolve("cpu").space == "nano"
    assert RunConfig().resolve("gpu").space == "modern"
    decode = RunConfig(latency="decode").resolve("cpu")
    assert decode.max_latency == pytest.approx(0.15)


@pytest.mark.parametrize("space", ["minimal", "medium", "full"])
def test_length_of_a_search(space):
    wanted = (10, 5) if space == "minimal" else (50, 100)
    for backend in ("cpu", "gpu"):
        config = RunConfig(space=space).resolve(backend)
        assert (config.population, config.generations) == wanted
        phases = ["fast"] if space == "minimal" else ["fast", "medium", "full"]
        assert list(config.named_phases()) == phases
        assert config.decay_share == (0.9 if space == "minimal" else 0.2)
        short = RunConfig(space=space, samples=8).resolve(backend)
        assert short.named_phases() == {
            "fast": PhaseLength(samples=8, epochs=short.epochs)
        }
        own = RunConfig(space=space, phases="8,16x3").resolve(backend)
        assert own.named_phases()["16x3"] == PhaseLength(samples=16, epochs=3)
        assert own.resolve("cpu") == own
    own = RunConfig(space=space, population=7).resolve("cpu")
    assert (own.population, own.generations) == (7, wanted[1])


def test_the_phases_train_as_long_as_they_say():
    lengths = {
        name: [(phase.samples, phase.epochs) for phase in preset.phases.values()]
        for name, preset in PRESETS.items()
    }
    assert lengths["standard"] == [(1_000, 5), (10_000, 10), (100_000, 20)]
    for each in lengths.values():
        products = [math.prod(pair) for pair in each]
        assert products == sorted(products)
        assert len(set(products)) == 3


def test_a_config_is_frozen_and_takes_no_positions():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 1
    with pytest.raises(TypeError):
        RunConfig("minimal")
    assert isinstance(parsed(), dict)
    assert given_settings(argparse.Namespace(seed=4, out="x")) == {"seed": 4}
