"""Problems, their programs, pass@k, and what is said of a completion's form."""

import dataclasses
import gzip
import itertools
import json

import jax
import numpy as np
import pytest
from tasks import TINY

import jaxnas.benchmarks.passes as module
from arch import build_model
from arch.decoding.sampling import GREEDY, Sampling
from arch.initial import draw_parameters
from jaxnas.benchmarks.confidence import log_probabilities
from jaxnas.benchmarks.form import begins_python, repeats
from jaxnas.benchmarks.lines import tokens_of_line
from jaxnas.benchmarks.passes import interval, pass_at, passes
from jaxnas.benchmarks.problems import (
    HUMANEVAL_STOPS,
    cut,
    read_humaneval,
    read_mbpp,
    top_names,
)
from jaxnas.benchmarks.sandbox import LIMITS, find_sandbox
from jaxnas.data.tokenizer import train_tokenizer
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import LoadedModel

HUMANEVAL = [
    {
        "task_id": "HumanEval/0",
        "prompt": 'import math\n\n\ndef area(r):\n    """ Of a circle. """\n',
        "canonical_solution": "    return math.pi * r * r\n",
        "test": "def check(candidate):\n    assert candidate(2) == math.pi * 4\n",
        "entry_point": "area",
    },
    {
        "task_id": "HumanEval/1",
        "prompt": "def twice(x):\n",
        "canonical_solution": "    return [x, x]\n",
        "test": "def check(candidate):\n    assert candidate(2) == [2, 2]\n",
        "entry_point": "twice",
    },
]
MBPP = {
    "task_id": 7,
    "text": "Write a function to add.",
    "code": "def add(a, b):\r\n  return a + b",
    "test_setup_code": "one = 1",
    "test_list": ["assert add(one, 2) == 3"],
}


def write(folder, rows):
    path = folder / "problems.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return path


def sandbox():
    try:
        return find_sandbox()
    except UsageError as error:
        pytest.skip(str(error))


def tiny():
    params = draw_parameters(build_model(TINY), jax.random.key(0))
    return LoadedModel(TINY, params, train_tokenizer(["ab"], TINY.vocab_size))


def test_pass_at_k_is_the_share_of_choices_with_a_right_one():
    samples = 6
    for right, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        choices = list(itertools.combinations(range(samples), k))
        hits = sum(any(one < right for one in choice) for choice in choices)
        assert pass_at(samples, right, k) == pytest.approx(hits / len(choices))


def test_the_interval_holds_the_mean_and_is_never_empty():
    low, high = interval(0.0, 164)
    assert low == 0
    assert high == pytest.approx(1.959964**2 / (164 + 1.959964**2))
    assert interval(1.0, 164) == (pytest.approx(1 - high), 1.0)
    for mean in (0.1, 0.5):
        low, high = interval(mean, 164)
        assert low < mean < high
        assert interval(mean, 974)[1] < high


def test_the_samples_of_each_problem_are_counted(tmp_path, monkeypatch):
    problems = read_humaneval(write(tmp_path, HUMANEVAL))
    texts = [[one.reference, "\n    return 1", "\n    exit(0)"] for one in problems]
    drawn = iter([texts[0], texts[1][1:] + texts[1][2:]])
    monkeypatch.setattr(module, "_samples", lambda *_: next(drawn))
    found = passes(
        tiny(),
        problems,
        sandbox(),
        samples=3,
        sampling=GREEDY,
        max_new=8,
        limits=LIMITS,
        seed=0,
    )
    assert found["passed"] == {"HumanEval/0": 1, "HumanEval/1": 0}
    assert found["pass@1"] == pytest.approx(1 / 6)
    assert "pass@10" not in found


def test_what_is_drawn_ends_at_a_stop_or_the_window(tmp_path):
    (short, _), model = read_humaneval(write(tmp_path, HUMANEVAL)), tiny()
    long = short._replace(prompt="x" * TINY.max_seq_length)
    weights = module.unstack(model.params)
    sampling = Sampling(temperature=1.0)
    given = (jax.random.key(1), model, weights)
    assert module._samples(*given, long, 4, sampling, 8) == []
    short = short._replace(prompt="x = ")
    texts = module._samples(*given, short, 4, sampling, 8)
    assert len(texts) == 4
    assert len(set(texts)) > 1
    assert all(cut(text, short.stops) == text for text in texts)


def test_a_sample_ends_where_the_model_says(tmp_path):
    (problem, _), model = read_humaneval(write(tmp_path, HUMANEVAL)), tiny()
    problem = problem._replace(prompt="x = ", stops=())
    given = (problem, 1, GREEDY, 8)
    weights = module.unstack(model.params)
    (free,) = module._samples(jax.random.key(1), model, weights, *given)
    last = next(char for char in free if char.isascii())  # a token of its own
    ended = dataclasses.replace(model, ends=tuple(model.tokenizer.encode(last).ids))
    (found,) = module._samples(jax.random.key(1), ended, weights, *given)
    assert found == free[: free.index(last) + 1] != free
    # An empty prompt is a text's beginning.
    given = (problem._replace(prompt=""), *given[1:])
    assert module._samples(jax.random.key(1), model, weights, *given)


def test_mbpp_is_read(tmp_path):
    (problem,) = read_mbpp(write(tmp_path, [MBPP]))
    assert problem.name == "MBPP/7"
    assert problem.names == ("add",)
    assert problem.tests == "one = 1\nassert add(one, 2) == 3\n"
    assert problem.prompt.count('"""') == 2
    plain = tmp_path / "sanitized.json"
    row = {"prompt": "Add.", "test_imports": ["import math"]}
    row |= {name: MBPP[name] for name in ("task_id", "code", "test_list")}
    plain.write_text(json.dumps([row]))
    assert read_mbpp(plain)[0].tests.startswith("import math\n")


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"task_id": 1}'])
def test_another_file_is_one_line(tmp_path, content):
    path = tmp_path / "file"
    path.write_text(content)
    for read in (read_humaneval, read_mbpp):
        with pytest.raises(UsageError, match=r"is no|holds no"):
            read(path)


def test_names_are_those_outside_of_functions():
    code = "import a.b, c as d\nfrom e import f\nx, y = 1, 2\n"
    code += "def g():\n    z = 1\nclass H:\n    w = 1\n"
    assert top_names(code) == ("a", "d", "f", "x", "y", "g", "H")


def test_a_solution_ends_before_the_next_thing():
    assert cut("    return 1\n\ndef g():", HUMANEVAL_STOPS) == "    return 1\n"
    assert cut("    return 1", HUMANEVAL_STOPS) == "    return 1"


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ("x = 1\n", True),
        ("def f(x):\n    if x:", True),
        ("def f(x):\n    y = (1,\n", True),
        ('"""An open', True),
        ("def f(x):\n    return 1 1\n", False),
        ("x = )\n", False),
        ("def f():\n    x\n  y\n", False),
        ("\0", False),
    ],
)
def test_python_can_begin_with_what_parses(text, holds):
    assert begins_python(text) is holds


def test_a_completion_repeats_if_half_of_it_came_before():
    assert repeats([1, 2, 3] * 8)
    assert repeats([5] * 8)
    assert not repeats(list(range(64)))
    assert not repeats([1, 1, 1])


def test_a_line_ends_with_its_break():
    tokenizer = train_tokenizer(["ab"], 257)
    ids = tokenizer.encode("\n  ab\ncd").ids
    assert tokens_of_line(tokenizer, ids) == 6
    assert tokens_of_line(tokenizer, ids[:3]) == 3


def test_probabilities_are_those_of_the_model():
    model = tiny()
    prompts, drawn = [[1, 2, 3], [4]], [[5, 6], [7, 8, 9]]
    found = log_probabilities(model, prompts, drawn)
    for prompt, tokens, one in zip(prompts, drawn, found, strict=True):
        row = np.array([[*prompt, *tokens]])
        logits = build_model(TINY).apply({"params": model.params}, row)[0]
        every = jax.nn.log_softmax(logits)
        places = np.arange(len(prompt) - 1, row.size - 1)
        np.testing.assert_allclose(one, every[places, np.array(tokens)], atol=1e-4)
