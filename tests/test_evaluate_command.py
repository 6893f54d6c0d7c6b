"""`evaluate`: bits per byte and lines of saved models."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from corpus import write_corpus
from tasks import TINY

import jaxnas.benchmarks.lines as module
from arch import build_model
from arch.initial import draw_parameters
from jaxnas.benchmarks.bits import bits
from jaxnas.benchmarks.form import form
from jaxnas.benchmarks.lines import (
    Cursor,
    Drawn,
    cursors,
    first_line,
    held_out,
    lines,
    similarity,
    with_first_line,
)
from jaxnas.benchmarks.longest_match import matched_lines
from jaxnas.data import SourceFile
from jaxnas.data.fim import with_fim
from jaxnas.data.tokenizer import train_tokenizer
from jaxnas.errors import UsageError
from jaxnas.export.generation import GENERATION
from jaxnas.export.model_folder import load_model, save_model
from jaxnas.run import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Code, and an untrained model of bytes."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_corpus(folder / "code")
    tokenizer = train_tokenizer(["ab"], TINY.vocab_size)
    params = draw_parameters(build_model(TINY), jax.random.key(0))
    save_model(folder / "model", TINY, params, tokenizer)
    return folder


def test_an_untrained_model_guesses(place):
    """Each of 257 tokens is as likely as another: 8 bits a byte and a little."""
    found = bits(load_model(place / "model"), f"folder:{place / 'code'}", 40)
    assert found["bits_per_byte"] == pytest.approx(np.log2(257), abs=0.1)
    assert found["windows"] == 40
    assert found["bigram"] < found["unigram"] < found["bits_per_byte"]


def test_cursors_stand_before_lines_of_held_out_files(place):
    files = held_out(f"folder:{place / 'code'}")
    texts = {file.text for file in files}
    found = cursors(files, 30, seed=1)
    assert found == cursors(files, 30, seed=1) != cursors(files, 30, seed=2)
    assert len(found) == 30
    for one in found:
        assert len(one.line) >= module.LEAST
        assert any(
            text.startswith(one.before)
            and text[len(one.before) :].lstrip().startswith(one.line)
            for text in texts
        )
    assert len(cursors(files, 10**9, 0)) == sum(
        len(line.strip()) >= module.LEAST
        for file in files
        for line in file.text.split("\n")[module.ABOVE :]
    )


def test_lines_are_compared_without_their_indentation(place, monkeypatch):
    places = [Cursor("a", "x = 1"), Cursor("b", "y = 2"), Cursor("c", "z")]
    drawn = [("\n\n    x = 1\n    y", 0.9), ("y = 3 ", 0.7), ("", 0.1)]
    drawn = [Drawn(text, [], sure) for text, sure in drawn]
    monkeypatch.setattr(module, "drawn_at", lambda *_: iter(drawn))
    found = lines(load_model(place / "model"), places, 256)
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert found["edit_similarity"] == pytest.approx((1 + 0.8 + 0) / 3)
    assert found["exact_match_error"] == pytest.approx((2 / 9 / 3) ** 0.5)
    assert found["saved"] == pytest.approx(5 / 11)
    at = found["at_confidence"]
    assert at["0.8"] == pytest.approx({"shown": 1 / 3, "right": 1.0, "saved": 5 / 11})
    assert at["0.6"] == pytest.approx({"shown": 2 / 3, "right": 0.5, "saved": 5 / 11})


def test_what_is_drawn_is_what_the_model_writes(place):
    """Row by row, whatever stands beside it in its batch."""
    model = load_model(place / "model")
    places = [Cursor("def f(x):", "?"), Cursor("a", "?"), Cursor("import os" * 9, "?")]
    together = list(module.drawn_lines(model, places, 256))
    alone = [text for one in places for text in module.drawn_lines(model, [one], 256)]
    assert together == alone
    assert all(together)


def test_nothing_before_a_cursor_is_the_beginning_of_a_text(place):
    file = SourceFile("a.c", b"\n\n\nint main() {\n")
    places = cursors([file], 1, seed=0)
    assert places[0].before == ""
    model = load_model(place / "model")
    end = model.tokenizer.token_to_id("<|endoftext|>")
    assert module.prompt_of(model, places[0], 64) == [end]
    assert lines(model, places, 64)["cursors"] == 1
    assert form(model, places, 64)["completions"] == 1
    assert matched_lines(model, f"folder:{place / 'code'}", places, 64)


def test_what_is_drawn_ends_where_the_model_s_folder_says(place, tmp_path):
    """A model of others ends its texts by tokens of its own."""
    shutil.copytree(place / "model", tmp_path / "model")
    places = [Cursor("def f(x):", "?")]
    free = next(module.drawn_at(load_model(place / "model"), places, 256)).tokens
    end = next(token for token in free if token != free[0])
    ids = {"eos_token_id": [end, TINY.vocab_size]}
    (tmp_path / "model" / GENERATION).write_text(json.dumps(ids))
    model = load_model(tmp_path / "model")
    assert model.ends == (end,)  # no other one is ever drawn
    found = next(module.drawn_at(model, places, 256)).tokens
    assert found == free[: free.index(end) + 1] != free


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("", "", 1.0),
        ("abc", "abc", 1.0),
        ("abc", "", 0.0),
        ("kitten", "sitting", 4 / 7),
    ],
)
def test_similarity_is_of_edits(one, other, alike):
    assert similarity(one, other) == similarity(other, one) == pytest.approx(alike)


def test_the_first_line_says_something():
    assert first_line("\n   \n  a b \nc") == "a b"
    assert first_line(" \n") == ""


def test_a_text_is_kept_up_to_the_end_of_its_first_line():
    assert with_first_line("\n   \n  a b \nc") == "\n   \n  a b"
    assert with_first_line("a\nb") == "a"
    assert with_first_line(" \n") == ""


def test_the_command_prints_a_row_a_model(place, tmp_path, capsys):
    out = tmp_path / "scores.json"
    data = f"folder:{place / 'code'}"
    given = [str(place / "model"), "--data", data, "--cursors", "20", "--windows", "20"]
    given += ["--on", "bpb,line,syntax"]
    assert main(["evaluate", *given, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "bits/byte" in text
    assert "share of 20 lines at most" in text
    found = json.loads(out.read_text())["models"][str(place / "model")]
    assert found["line"]["cursors"] == 20
    assert found["bpb"]["windows"] == 20
    assert found["syntax"]["completions"] <= 20
    assert 0 < found["bpb"]["xz"] < 8


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--on", "speed"], "--on: no 'speed'"),
        (["--cursors", "0"], "--cursors 0"),
        (["--confidence", "2"], "--confidence 2"),
        (["--on", "mbpp"], "--on mbpp needs its file"),
        (["--on", "humaneval", "--humaneval", "x"], "give --execute"),
        (["--on", "mbpp", "--mbpp", "none", "--execute"], "cannot read none"),
        (["--data", "folder:none"], "does not exist"),
    ],
)
def test_what_cannot_be_used_is_one_line(place, capsys, more, said):
    assert main(["evaluate", str(place / "model"), *more]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


def test_no_model_is_one_line(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "cannot read a model" in capsys.readouterr().err


def test_the_other_side_is_read_by_models_that_learned_to(place, tmp_path):
    config = dataclasses.replace(TINY, vocab_size=300, position_encoding="alibi")
    texts = [file.text for file in held_out(f"folder:{place / 'code'}")]
    tokenizer = with_fim(train_tokenizer(texts, 300))
    params = draw_parameters(build_model(config), jax.random.key(0))
    save_model(tmp_path, config, params, tokenizer)
    model = load_model(tmp_path)
    places = cursors(held_out(f"folder:{place / 'code'}"), 4, seed=0)
    one = [place._replace(after="") for place in places]
    with_other = list(module.drawn_lines(model, places, 64, filling=True))
    assert with_other != list(module.drawn_lines(model, one, 64, filling=True))
    assert lines(model, places, 64, filling=True)["cursors"] == 4
    with pytest.raises(UsageError, match="not trained to fill"):
        list(module.drawn_lines(load_model(place / "model"), places, 64, filling=True))
