"""Spaces of one's own as TOML: what they hold, and what is refused in one line."""

import itertools
import pathlib
import re
import shutil
import time
import tomllib

import numpy as np
import pytest
from calibrated import keep_calibration
from corpus import write_corpus

from arch.config import ArchitectureConfig
from arch.genes import ALLOWED_GENES, DEFAULTS
from arch.spaces import SPACES
from jaxnas.config import RunConfig
from jaxnas.errors import UsageError
from jaxnas.hardware import hardware_named
from jaxnas.pipeline.limits import costs_of_space
from jaxnas.presets import SPACE_NAMES
from jaxnas.run import main
from jaxnas.spaces import (
    load_space,
    name_and_space,
    parse_space,
    read_space,
    still_holds,
)
from jaxnas.storage.run_folder import RunFolder, new_run

EXAMPLE = """
name = "tiny-code"
[genes]
arch_type = ["transformer", "rwkv"]
num_layers = [2, 4]
hidden_dim = [64, 96, 128]
head_dim = [16, 32]
quantization = ["fp16", "int8"]
tie_embeddings = false
[[forbid]]
arch_type = "rwkv"
quantization = "int8"
[[forbid]]
hidden_dim = [96, 128]
num_layers = 4
"""
LEAST = "[genes]\nnum_layers = 2\nhidden_dim = 64\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(EXAMPLE)
    return path


def models_of(space):
    """Every model, by decoding every genome."""
    found = set()
    for index in range(space.total):
        try:
            found.add(space.decode(space.genome_at(index)))
        except ValueError:
            continue
    return found


def test_a_space_is_what_its_lines_say():
    space = parse_space(EXAMPLE, "own.toml", "own")
    assert space.name == "tiny-code"
    written = tomllib.loads(EXAMPLE)["genes"]
    assert space.genes == tuple(written)
    for gene, values in written.items():
        assert space.values(gene) == tuple(np.atleast_1d(values).tolist())
    wanted = set()
    for kind, layers, width, stored in itertools.product(
        written["arch_type"], (2, 4), (64, 96, 128), written["quantization"]
    ):
        if (kind, stored) == ("rwkv", "int8") or (layers == 4 and width > 64):
            continue
        for head in (16, 32):
            config = ArchitectureConfig(
                **DEFAULTS
                | {
                    "arch_type": kind,
                    "num_layers": layers,
                    "hidden_dim": width,
                    "num_heads": width // head,
                    "quantization": stored,
                }
            )
            wanted.add(config.canonical())
    assert models_of(space) == wanted
    assert space.distinct_count == len(wanted)


def test_every_field_of_a_config_can_be_a_gene_and_needs_not():
    values = {
        "num_layers": 2,
        "hidden_dim": 64,
        "arch_type": "grouped_query_attention",
        "ffn_multiplier": 2,  # TOML's 2 means 2.0
        "ffn_dim": 100,
        "head_dim": 16,
        "num_heads": 2,
        "kv_heads": 1,
        "kv_group": 2,
        "inner_dim": 64,
        "normalization": "layernorm",
        "activation": "relu2",
        "position_encoding": "alibi",
        "attention_dropout": 0,
        "residual_dropout": 0.1,
        "quantization": "int4",
        "pruning_ratio": 0.2,
        "tie_embeddings": True,
    }
    assert set(values) == set(ALLOWED_GENES)
    for gene, value in values.items():
        others = {name: values[name] for name in ("num_layers", "hidden_dim")}
        lines = [f"{k} = {v!r}".lower() for k, v in (others | {gene: value}).items()]
        space = parse_space("[genes]\n" + "\n".join(lines), "own.toml", "own")
        [value_read] = space.values(gene)
        assert value_read == value
        kinds = (str, bool, int) if type(value) is not int else (int, float)
        assert isinstance(value_read, (*kinds, float))
        own = parse_space(LEAST, "own.toml", "own")
        if gene not in own.genes:
            assert gene not in DEFAULTS or own.values(gene) == (DEFAULTS[gene],)
    numbers = parse_space(LEAST + "ffn_multiplier = [2, 2.5]", "own.toml", "own")
    assert [type(x) for x in numbers.values("ffn_multiplier")] == [float, float]


def test_a_condition_is_for_families_that_use_all_of_its_genes():
    """Canonical genomes stay valid, with whatever stands in genes without a use."""
    lines = """
    [genes]
    arch_type = ["rwkv", "transformer"]
    num_layers = [2, 3]
    hidden_dim = [32, 64]
    head_dim = [16, 32]
    [[forbid]]
    head_dim = 16
    num_layers = 2
    """
    space = parse_space(lines, "own.toml", "own")
    every = [space.genome_at(index) for index in range(space.total)]
    valid = [genome for genome in every if space.valid(genome)]
    found = {space.decode(space.canonical(genome)) for genome in valid}
    assert found == models_of(space)
    assert len(found) == space.distinct_count == 4 + 6
    grid = {space.index_of(np.asarray(space.canonical(genome))) for genome in valid}
    assert all(space.valid(space.genome_at(index)) for index in grid)


WRONG = [
    ("", r"own\.toml: needs a table \[genes\]"),
    ("genes = 3", r"needs a table \[genes\]"),
    ("[genes]", r"needs a table \[genes\]"),
    ("a = = 3", "own.toml is not TOML: "),
    ("[" * 5000, "own.toml is not TOML: "),
    ("x = " + "[" * 5000, "own.toml is not TOML: "),
    ("x = " + "9" * 5000, "own.toml is not TOML: "),
    ("gens = 3\n" + LEAST, "unknown key 'gens'; known: name, genes, forbid"),
    ('name = ""\n' + LEAST, "name='' is not allowed"),
    ('name = "../up"\n' + LEAST, "name='../up' is not allowed"),
    ('name = "a\\nb"\n' + LEAST, "name='a.*' is not allowed"),
    ("name = 3\n" + LEAST, "name=3 is not allowed"),
    ("[genes]\nnum_layers = 2", "lacks the gene hidden_dim"),
    (LEAST + "colour = 3", "unknown gene 'colour': choose of arch_type, num_layers"),
    (LEAST + "vocab_size = 300", "unknown gene 'vocab_size': choose of "),
    (LEAST + "activation = []", "gene activation has no choices"),
    (LEAST + 'activation = ["gelu", "gelu"]', "gene activation .* distinct choices"),
    (LEAST + "ffn_multiplier = [2, 2.0]", "gene ffn_multiplier .* distinct choices"),
    (LEAST + "activation = [['gelu']]", "needs text, a number, true or false"),
    (LEAST + "activation = {a = 1}", "needs text, a number, true or false"),
    (LEAST + "activation = 1979-05-27", "needs text, a number, true or false"),
    (LEAST + "quantization = [4]", "quantization=4 is not allowed: needs fp16 | int8"),
    (LEAST + 'num_heads = ["a"]', "num_heads='a' is not allowed: needs an int"),
    (LEAST + "num_heads = true", "num_heads=True is not allowed: needs an int"),
    (LEAST + "tie_embeddings = 1", "tie_embeddings=1 is not allowed: needs true"),
    (LEAST + "ffn_multiplier = nan", "ffn_multiplier=nan is not allowed"),
    (LEAST + "ffn_multiplier = inf", "ffn_multiplier=inf is not allowed"),
    (LEAST + "pruning_ratio = true", "pruning_ratio=True is not allowed: needs a num"),
    (LEAST + "pruning_ratio = 1", r"pruning_ratio=1\.0 is not allowed"),
    (LEAST + 'arch_type = "rnn"', "arch_type='rnn' is not allowed: needs transformer"),
    ("[genes]\nnum_layers = [2.5]\nhidden_dim = 64", "num_layers=2.5 is not allowed"),
    ('[genes]\nnum_layers = 2\nhidden_dim = ["a"]', "hidden_dim='a' is not allowed"),
    ("[genes]\nnum_layers = 2\nhidden_dim = 9999999", "needs at most 100,000"),
    ("[genes]\nnum_layers = 2\nhidden_dim = 50\nnum_heads = 3", "no valid config"),
    (LEAST + "num_heads = 2\nhead_dim = 16", "has both head_dim and num_heads"),
    (LEAST + "forbid = 3", "unknown gene 'forbid'"),
    ("forbid = 3\n" + LEAST, r"write \[\[forbid\]\]"),
    (LEAST + "[forbid]\nnum_layers = 2", r"write \[\[forbid\]\]"),
    (LEAST + "[[forbid]]", "a condition names no gene"),
    (LEAST + '[[forbid]]\nactivation = "gelu"', "no gene of it: num_layers, hidden_d"),
    (LEAST + "[[forbid]]\nnum_layers = 3", "num_layers=3, which is none .*: 2"),
    (LEAST + "[[forbid]]\nnum_layers = []", "gene num_layers has no choices"),
    (LEAST + "[[forbid]]\nnum_layers = 2", "holds no valid config"),
    (
        "[genes]\nnum_layers = [1, 2]\nhidden_dim = 64\n[[forbid]]\nnum_layers = true",
        "num_layers=True, which is none of its choices: 1, 2",
    ),
    (
        LEAST + f"ffn_dim = {list(range(1, 102))}",
        "gene ffn_dim has 101 choices, at most 100 can be",
    ),
    (
        f"[genes]\nnum_layers = {list(range(1, 101))}\nhidden_dim = [64, 128]\n"
        + "\n".join(
            f"{gene} = {[n / 1000 for n in range(100)]}"
            for gene in ("attention_dropout", "residual_dropout", "pruning_ratio")
        )
        + "\n"
        + "\n".join(
            f"{gene} = {list(range(1, 101))}"
            for gene in ("ffn_dim", "inner_dim", "kv_heads", "num_heads")
        )
        + f"\nactivation = {['gelu', 'silu', 'geglu', 'swiglu', 'relu2']}"
        + "\nquantization = ['fp16', 'int8', 'int4']\ntie_embeddings = [true, false]"
        + "\nposition_encoding = ['rope', 'alibi', 'absolute']"
        + "\nnormalization = ['layernorm', 'rmsnorm', 'groupnorm']",
        "genomes, at most 4.6e.18 can be",
    ),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=range(len(WRONG)))
def test_what_is_no_space_is_refused_in_one_line(text, said):
    with pytest.raises(UsageError, match=said) as raised:
        parse_space(text, "own.toml", "own")
    assert str(raised.value).startswith("own.toml")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("command", [["space"], ["front"], ["--space"]])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read .*own.toml: No such file"),
        (b"\xff\xfe", "own.toml is not UTF-8"),
        (b"", "own.toml: needs a table"),
        (b"[genes]\nnum_layers = 2\nhidden_dim = [64, 64]", "needs distinct choices"),
    ],
)
def test_every_command_says_so(command, content, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "own.toml").write_bytes(content)
    before = sorted(tmp_path.iterdir())
    assert main([*command, "own.toml"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    [line] = shown.err.splitlines()
    assert re.search(said, line)
    assert sorted(tmp_path.iterdir()) == before


def test_names_are_names_and_all_else_is_refused():
    for name in SPACE_NAMES:
        assert load_space(name) is SPACES[name]
    with pytest.raises(UsageError, match=r"no space 'nope': .*modern, or FILE\.toml"):
        load_space("nope")
    with pytest.raises(UsageError, match=r"space='nope' must be one of .*FILE\.toml"):
        RunConfig(space="nope")
    assert RunConfig(space="own.toml").space == "own.toml"


def test_the_file_is_searched_counted_and_has_a_front(file, capsys):
    space = load_space(str(file))
    assert main(["space", str(file), "--samples", "3"]) == 0
    shown = capsys.readouterr().out
    assert "space tiny-code" in shown
    assert f"{space.distinct_count:>12,}  distinct" in shown
    assert main(["front", str(file)]) == 0
    assert f"{space.total:,} genomes, {space.distinct_count:,}" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_space_too_large_for_a_table_is_refused_at_once(tmp_path, capsys):
    path = tmp_path / "large.toml"
    path.write_text(
        f"[genes]\nnum_layers = {list(range(1, 101))}\n"
        f"hidden_dim = {list(range(64, 6464, 64))}\n"
        f"ffn_dim = {list(range(1, 101))}\n"
        f"pruning_ratio = {[n / 1000 for n in range(100)]}\n"
    )
    begin = time.monotonic()
    assert main(["front", str(path)]) == 2
    assert time.monotonic() - begin < 20
    [line] = capsys.readouterr().err.splitlines()
    assert "large is too large for a table of its costs: 100,000,000 kinds" in line
    assert main(["space", str(path), "--samples", "2"]) == 0


def test_what_cannot_exist_breaks_the_limits_without_a_warning(file):
    """Where latency has no limit too; warnings are errors here."""
    space = load_space(str(file))
    settings = RunConfig(space="minimal", strategy="random").resolve("cpu")
    assert settings.max_latency is None
    hardware = hardware_named("cpu-core")
    fields = {"vocab_size": 300, "max_seq_length": 16}
    table = costs_of_space(settings, hardware, fields, space)
    absent = np.isinf(table.costs).any(axis=1)
    assert absent.any()
    assert (table.over[absent] > 0).all()
    assert table.feasible == space.distinct_count


def test_a_run_keeps_the_space_that_it_began_with(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = RunConfig(space="own.toml")
    config = given.anchored()
    assert config.space == str(file.resolve())
    name, text = name_and_space(config.space)
    assert name == "tiny-code"
    with new_run(None, name, config.to_toml(), text) as folder:
        assert folder.path.name == "tiny-code-001"
    folder = RunFolder(folder.path)
    began, text = read_space(config.space, folder.space)
    assert text == EXAMPLE
    assert still_holds(config.space, text)
    file.write_text(LEAST)
    assert not still_holds(config.space, text)
    assert read_space(config.space, folder.space).space == began
    file.unlink()
    assert not still_holds(config.space, text)
    assert read_space(config.space, folder.space).space == began
    assert name_and_space("nano") == ("nano", None)
    assert name_and_space(None) == ("search", None)


def test_the_name_is_that_of_the_file_unless_it_has_one(tmp_path):
    path = tmp_path / "my code.toml"
    path.write_text(LEAST)
    assert load_space(str(path)).name == "my code"
    copy = tmp_path / "space.toml"
    copy.write_text(LEAST)
    assert read_space(str(path), copy).space.name == "my code"


def test_the_example_of_the_documentation_is_a_space():
    document = "docs/spaces.md"
    text = (pathlib.Path(__file__).parents[1] / document).read_text()
    [example] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    space = parse_space(example, document, "own")
    assert {"arch_type", "head_dim"} <= set(space.genes)
    assert len(space.conditions) == 1


@pytest.mark.slow  # a whole run, twice
def test_a_run_goes_on_in_its_space_when_the_file_is_gone(
    file, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    keep_calibration(tmp_path / ".cache")
    monkeypatch.setenv("JAXNAS_CACHE", str(tmp_path / ".cache"))
    write_corpus(tmp_path / "code")
    flags = "--data folder:code --space own.toml --population 2 --generations 4 "
    flags += "--phases 8 --window 16 --batch 4 --vocab-size 300 --eval-windows 4 "
    flags += "--final-windows 4 --final-steps 0 --measure-top 0 --latency estimate "
    flags += "--checkpoint-every 1 --no-baseline --target accuracy=0"
    assert main(["search", *flags.split()]) == 0
    folder = RunFolder(tmp_path / "runs" / "tiny-code-001")
    shown = capsys.readouterr().out
    assert "the search ends after 2 candidates: candidate 0 reaches" in shown
    assert folder.space.read_text() == EXAMPLE
    names = ("results", "summary", "best")
    content = {name: getattr(folder, name).read_bytes() for name in names}
    folder.summary.unlink()
    last = max(folder.checkpoints.iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(last)
    file.unlink()
    assert main(["--resume", str(folder.path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "own.toml is not what it was when the run began" in shown
    assert content == {name: getattr(folder, name).read_bytes() for name in names}
    # Its own copy decides: another is refused.
    folder.summary.unlink()
    folder.space.write_text(LEAST)
    assert main(["--resume", str(folder.path)]) == 2
    assert "space_hash" in capsys.readouterr().err
