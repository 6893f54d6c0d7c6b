"""Distillation: the loss, what is stored, and the command."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus import write_corpus
from tasks import TINY

from arch import build_model
from arch.initial import draw_parameters
from jaxnas.data import prepare
from jaxnas.data.tokenizer import train_tokenizer
from jaxnas.export.model_folder import load_model, save_model
from jaxnas.run import main
from jaxnas.training.distillation import (
    Lesson,
    divergence,
    gather_lesson,
    top_expected,
)


@pytest.fixture(scope="module")
def logits():
    """Of a teacher and a student, f32[2, 3, 5, 12]."""
    return 2 * jax.random.normal(jax.random.key(0), (2, 3, 5, 12))


def lesson_of(logits, number):
    return Lesson(jnp.zeros((3, 6), jnp.int32), *top_expected(logits, number))


def test_with_all_tokens_stored_it_is_the_whole_divergence(logits):
    teacher, student = map(jax.nn.log_softmax, logits)
    whole = (jnp.exp(teacher) * (teacher - student)).sum(axis=-1)
    found = divergence(logits[1], lesson_of(logits[0], 12))
    np.testing.assert_allclose(found, whole, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("number", [1, 4])
def test_all_others_are_one_token_more(logits, number):
    teacher, student = (np.exp(jax.nn.log_softmax(one)) for one in logits)
    order = np.argsort(-teacher, axis=-1)[..., :number]
    few = [np.take_along_axis(one, order, axis=-1) for one in (teacher, student)]
    p, q = (np.append(one, 1 - one.sum(-1, keepdims=True), -1) for one in few)
    expected = (p * np.log(p / q)).sum(axis=-1)
    found = divergence(logits[1], lesson_of(logits[0], number))
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-3)


def test_it_is_least_where_the_student_expects_the_same(logits):
    lesson = lesson_of(logits[0], 4)
    slope = jax.grad(lambda x: divergence(x, lesson).sum())(logits[0])
    assert float(jnp.abs(slope).max()) < 2e-3
    assert float(jnp.abs(divergence(logits[0], lesson)).max()) < 2e-3


def test_a_batch_has_what_is_expected_behind_its_tokens():
    ids = jnp.arange(20, dtype=jnp.uint16)[:, None]
    lesson = Lesson(jnp.arange(20), ids, ids.astype(jnp.float16))
    batch = gather_lesson(lesson, jnp.array([0, 10]), 4)
    np.testing.assert_array_equal(batch.tokens, [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]])
    np.testing.assert_array_equal(batch.ids[..., 0], batch.tokens[:, :-1])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with code, a teacher and the config of a student."""
    folder = tmp_path_factory.mktemp("distil")
    code = write_corpus(folder / "code")
    dataset = prepare(f"folder:{code}", 300)
    config = dataclasses.replace(TINY, vocab_size=300, max_seq_length=16)
    params = draw_parameters(build_model(config), jax.random.key(0))
    save_model(folder / "teacher", config, params, dataset.tokenizer)
    save_model(folder / "other", config, params, train_tokenizer(["other"], 300))
    small = dataclasses.replace(config, hidden_dim=16)
    (folder / "student.json").write_text(small.to_json())
    odd = dataclasses.replace(config, vocab_size=280)
    (folder / "odd.json").write_text(odd.to_json())
    return folder


def run(place, student, out, *more):
    return main(
        [
            *("distil", str(place / "teacher"), str(place / student)),
            *("--data", f"folder:{place / 'code'}", "--out", str(out)),
            *("--window", "16", "--batch", "4", "--final-windows", "16", *more),
        ]
    )


def test_a_config_learns_with_the_teachers_tokens(place, tmp_path, capsys, told):
    out = tmp_path / "out"
    flags = ("--tokens", "3840", "--stored", "640", "--learning-rate", "0.02")
    assert run(place, "student.json", out, *flags, "--tracker", "my_tracker:log") == 0
    assert [(kind, step) for kind, step, _ in told][-1] == ("training", 60)
    assert told[-1][2]["loss"] < told[0][2]["loss"]
    found = load_model(out / "model")
    assert found.config.hidden_dim == 16
    assert found.tokenizer.to_str() == load_model(place / "teacher").tokenizer.to_str()
    # 640 tokens in windows of 16, each with its next token, 16 stored of each.
    assert np.load(out / "teacher" / "ids.npy").shape == (40, 17, 16)
    scores = json.loads((out / "summary.json").read_text())["bits_per_byte"]
    assert set(scores) == {"teacher", "student"}
    assert "640 tokens" not in (printed := capsys.readouterr().out)
    assert "training 60 steps" in printed
    # It goes on where it ended: nothing changes.
    before = (out / "model" / "model.safetensors").read_bytes()
    assert main(["distil", "--resume", str(out)]) == 0
    assert (out / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ("other", "have different tokenizers"),
        ("odd.json", "vocab_size=280 is not the teacher's 300"),
        ("missing", "is no folder"),
    ],
)
def test_a_student_of_other_tokens_is_refused(place, tmp_path, capsys, student, said):
    assert run(place, student, tmp_path / "out", "--tokens", "640") == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
