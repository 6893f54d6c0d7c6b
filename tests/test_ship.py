"""`ship`: what is searched can be exported, and all of it ends in one folder."""

import dataclasses
import importlib.util
import json
import shlex
import shutil

import jax
import pytest
from corpus import write_corpus
from cost_configs import of_family
from written_run import written_run, written_summary

import jaxnas.commands.ship as command
import jaxnas.pipeline.ship as module
from arch import build_model
from arch.cost import size_mib
from arch.initial import draw_parameters
from arch.space import Space
from arch.spaces import SPACES
from jaxnas.config import RunConfig
from jaxnas.data import train_tokenizer
from jaxnas.errors import UsageError
from jaxnas.export.choice import class_for
from jaxnas.export.llama_cpp.architectures import architecture_for
from jaxnas.export.model_folder import load_model, save_model
from jaxnas.pipeline.ship import ShipPlan, score_rows, shown_command
from jaxnas.pipeline.shippable import shippable
from jaxnas.presets import vocabulary_for
from jaxnas.run import main
from jaxnas.spaces import parse_space
from jaxnas.storage.run_folder import PARTS, RunFolder, model_in, new_run

SCORES = {
    "bpb": {"bits_per_byte": 1.25, "bigram": 1.5, "accuracy": 0.4},
    "line": {
        "cursors": 200,
        "exact_match": 0.125,
        "exact_match_error": 0.02,
        "edit_similarity": 0.5,
    },
}


@pytest.mark.parametrize("exports", [class_for, architecture_for])
@pytest.mark.parametrize("name", ["nano", "modern"])
def test_all_that_is_left_of_a_space_can_be_exported(name, exports):
    text = shippable(SPACES[name], exports, 1024)
    space = parse_space(text, "text", "none")
    assert space.name == f"{name}-shippable"
    # A good part of it, and in each family that can be exported at all.
    assert 0.1 < space.distinct_count / SPACES[name].distinct_count < 0.5
    assert {"transformer", "mamba"} <= set(space.families)
    assert "linear_transformer" not in space.families
    for genome in space.sample(jax.random.key(0), 200):
        exports(space.decode(genome, vocab_size=1024, max_seq_length=64))


def test_what_can_be_exported_is_left():
    """Every model of the space that is not refused is in what is left of it."""
    space = SPACES["nano"]
    left = parse_space(shippable(space, architecture_for, 1024), "text", "none")
    fields = {"vocab_size": 1024, "max_seq_length": 64}
    kept = 0
    for genome in space.sample(jax.random.key(1), 300):
        config = space.decode(genome, **fields)
        try:
            architecture_for(config)
        except UsageError:
            continue
        kept += 1
        values = dict(zip(space.genes, genome, strict=True))
        chosen = {gene: space.values(gene)[at] for gene, at in values.items()}
        other = [
            left.values(gene).index(chosen[gene])
            if chosen[gene] in left.values(gene)
            else 0  # a gene that its family does not read
            for gene in left.genes
        ]
        assert bool(left.valid(jax.numpy.asarray(other))), config
        assert left.decode(other, **fields).canonical() == config.canonical()
    assert kept > 30


def test_nothing_left_is_one_line():
    space = Space(
        "all",
        (("linear_transformer",), (2,), (64,)),
        ("arch_type", "num_layers", "hidden_dim"),
    )
    with pytest.raises(UsageError, match="no model of space all can be exported"):
        shippable(space, class_for, 1024)


def test_the_searchs_model_is_judged_on_the_windows_of_the_trained_one(tmp_path):
    """Longer ones, on which either has fewer bits per byte."""
    scores = {"winner": {"bits_per_byte": 1.25}}
    summary = {
        "before": {"validation": {"bits_per_byte": 1.5}},
        "splits": {"validation": scores},
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert module._train(tmp_path, None, None, "cpu", 0.0, None, None) == (1.5, 1.25)


@pytest.fixture
def plan(tmp_path):
    """Of a small folder, with nothing else asked for."""
    return ShipPlan(
        data=f"folder:{write_corpus(tmp_path / 'code')}",
        budget="20m",
        max_size=None,
        max_latency=None,
        vocab_size=None,
        fim=0.0,
        seed=0,
        exports=None,
    )


def test_a_search_reads_as_far_as_its_training(plan, tmp_path):
    """As many tokens a step and a score as a search's, in longer windows."""
    plain = RunConfig(space="nano").resolve("cpu")
    settings = module._search_settings(tmp_path, plan, "cpu", 300.0).resolve("cpu")
    assert settings.window == 4 * plain.window
    assert settings.window * settings.batch == plain.window * plain.batch
    of_score = settings.window * settings.eval_windows
    assert of_score == plain.window * plain.eval_windows


def test_a_large_corpus_has_a_large_vocabulary():
    sizes = [10_000, 1_100_000, 2_100_000, 10**9]
    assert [vocabulary_for(size) for size in sizes] == [1024, 2048, 4096, 4096]


def test_limits_and_vocabulary_are_for_longer_trainings_but_where_given(plan, tmp_path):
    def of(backend="cpu", **given):
        asked = dataclasses.replace(plan, **given)
        found = module._search_settings(tmp_path, asked, backend, 300.0)
        return found.vocab_size, found.max_size, found.max_latency

    assert of() == (1024, 4.0, 5.0)
    assert of(vocab_size=512, max_size=0.5) == (512, 0.5, 5.0)
    modern = RunConfig(space="modern").resolve("gpu")
    assert of("gpu") == (modern.vocab_size, modern.max_size, modern.max_latency)


@pytest.mark.parametrize(
    ("quantization", "max_size", "finer"),
    [("int4", 4.0, "int8"), ("int4", 0.3, None), ("int8", 4.0, None)],
)
def test_a_long_training_is_stored_finely_where_there_is_room(
    tmp_path, quantization, max_size, finer
):
    config = of_family("transformer", hidden_dim=96, quantization=quantization)
    assert 0.3 < size_mib(dataclasses.replace(config, quantization="int8")) < 4.0
    params = draw_parameters(build_model(config), jax.random.key(0))
    save_model(tmp_path / "model", config, params, train_tokenizer(["x = 1"], 257))
    settings = RunConfig(space="nano", max_size=max_size, max_latency=5.0).resolve(
        "cpu"
    )
    assert module._finer(tmp_path / "model", settings) == finer


def test_a_search_that_has_begun_keeps_its_vocabulary(plan, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "config.toml").write_text("vocab_size = 2048\n")
    settings = module._search_settings(tmp_path, plan, "cpu", 300.0)
    assert settings.vocab_size == 2048


def test_the_command_of_a_card_is_for_a_shell_and_names_no_home():
    plan = ShipPlan(
        data="folder:/home/me/my code+include:*.py+without:/home/me/he.gz;stdlib",
        budget="20m",
        max_size=1.5,
        max_latency=None,
        vocab_size=2048,
        fim=0.0,
        seed=3,
        exports=None,
    )
    words = shlex.split(shown_command(plan, "llama.cpp"))
    assert words[4] == "folder:my code+include:*.py+without:he.gz;stdlib"
    assert words[5:] == [
        *("--budget", "20m", "--max-size", "1.5", "--vocab-size", "2048"),
        *("--seed", "3"),
        *("--runs-on", "llama.cpp"),
    ]


def test_the_scores_are_said_in_words():
    rows = dict(score_rows(SCORES))
    assert rows["bits per byte"] == "1.250"
    assert rows["next lines right, of 200"] == "0.125 (0.086 to 0.178)"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--budget", "60s"], "--budget 60s must be at least 4:00"),
        (["--budget", "soon"], "'soon' is no duration"),
        (["--max-size", "-1"], "--max-size -1.0 must be above 0"),
        (["--vocab-size", "256"], "--vocab-size 256 must be at least 257"),
        (["--runs-on", "toaster"], "must be one of llama.cpp, transformers, any"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, capsys, more, said):
    out = tmp_path / "out"
    assert main(["ship", "stdlib", "--out", str(out), *more]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not out.exists()


@pytest.mark.slow
def test_from_code_to_a_file_that_llama_cpp_reads(tmp_path, monkeypatch, capsys, told):
    pytest.importorskip("gguf")
    monkeypatch.setattr(command, "LEAST", 60.0)
    monkeypatch.setattr("jaxnas.pipeline.ship.CURSORS", 20)
    code, out = write_corpus(tmp_path / "code"), tmp_path / "out"
    given = ["ship", f"folder:{code}", "--out", str(out), "--budget", "130s"]
    given += ["--tracker", "my_tracker:log"]
    assert main(given) == 0
    assert {"candidate", "training"} <= {kind for kind, _, _ in told}
    scores = json.loads((out / "scores.json").read_text())
    assert scores["bpb"]["bits_per_byte"] < scores["bpb"]["bigram"]
    assert (out / "model.gguf").read_bytes()[:4] == b"GGUF"
    assert (out / "completions.md").read_text().count("the file:") == 10
    text = (out / "README.md").read_text()
    assert f"{scores['bpb']['bits_per_byte']:.3f}" in text
    assert "llama-server -m model.gguf" in text
    architecture_for(load_model(out / "training" / "model").config)
    # Nothing is done again, and nothing changes.
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    assert main(["ship", "--resume", str(out)]) == 0
    assert before == {
        path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()
    }


def test_a_package_that_is_missing_in_the_end_is_named_at_the_beginning(
    tmp_path, monkeypatch, capsys
):
    find = importlib.util.find_spec
    absent = lambda name: None if name == "gguf" else find(name)
    monkeypatch.setattr("importlib.util.find_spec", absent)
    out = tmp_path / "out"
    assert main(["ship", f"folder:{tmp_path}", "--out", str(out)]) == 2
    assert "GGUF needs the package gguf: pip install" in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture
def shipped(tmp_path):
    """A folder of `ship` with two models, as far as other commands read it."""
    out = tmp_path / "mine"
    for name in PARTS:
        written_run(out / name, summary=written_summary(1.5))
        (out / name / "model").mkdir()
        (out / name / "model" / "config.json").write_text("{}")
    (out / "config.toml").write_text('data = "stdlib"\n')
    return out


def test_what_was_made_is_kept_whatever_ends_it(shipped, tmp_path):
    assert RunFolder(shipped).holds_work()

    def fails(out, made):
        with new_run(out, "ship", "") as folder:
            if made:
                shutil.copytree(shipped / "search", folder.path / "search")
            raise UsageError("a package is missing")

    for made in (True, False):
        out = tmp_path / str(made)
        with pytest.raises(UsageError, match="a package is missing"):
            fails(out, made)
        assert (out / "search" / "results.jsonl").exists() == made
        assert out.exists() == made


@pytest.mark.parametrize("of", PARTS)
def test_its_folder_stands_for_the_model_that_was_scored(shipped, of):
    assert model_in(shipped) == shipped / "training" / "model"
    (shipped / "scores.json").write_text(json.dumps(SCORES | {"of": of}))
    assert model_in(shipped) == shipped / of / "model"


def test_its_parts_are_named_or_looked_at(shipped, capsys):
    for name in ("status", "report"):
        assert main([name, str(shipped)]) == 2
        said = capsys.readouterr().err
        assert f"{shipped} is of ship: look at its parts, {shipped}/search" in said
    main(["verify", str(shipped)])
    said = capsys.readouterr().out
    assert all(f"{shipped / name}\n" in said for name in PARTS)


@pytest.mark.parametrize(("lines", "behind"), [(0.02, True), (0.01, False)])
def test_a_model_that_copying_beats_is_warned_of(lines, behind):
    scores = SCORES | {"line": {"exact_match": 0.01}, "ngram": {"exact_match": lines}}
    assert (module._behind(scores) is not None) == behind
    assert module._behind(SCORES) is None
