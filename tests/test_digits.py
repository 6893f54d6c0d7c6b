"""The digits of `experiments/mnist`: its classifiers, and its page."""

import importlib
import json
import re
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from browser import found_in, needs_chromium

FOLDER = Path(__file__).parents[1] / "experiments" / "mnist"

SCRIPT = """
const card = document.getElementById("card");
const rowsLeft = () => document.querySelectorAll("#all tbody tr:not(.off)").length;
const every = rowsLeft();
document.querySelector("#all [data-open]").click();
const shown = card.textContent;
document.querySelector("[data-family]").click();
const root = document.documentElement;
done({ every, shown, left: rowsLeft(), fits: root.scrollWidth <= root.clientWidth });
"""


@pytest.fixture
def module(monkeypatch):
    """Imports a script of the folder, as it is found when it is run."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def test_digits_count_a_classifier_as_it_is_alone(key, module):
    digits = module("digits")
    groups = digits.shapes(8)
    assert len(groups) == 15  # attention with and without groups is one family
    for family in range(6):
        config = digits.decoded(np.asarray([family, 1, 0, 0, 1, 0, 1, 0]), 8)
        shape = groups[digits.group_of(config)]
        params, count = digits.first_parameters(config, shape, 8, key)
        alone = digits.SequenceClassifier(config, digits.CLASSES)
        found = jax.eval_shape(alone.init, key, jax.numpy.zeros((1, 8, 8)))
        assert count == sum(leaf.size for leaf in jax.tree.leaves(found))
        wide = digits.SequenceClassifier(shape, digits.CLASSES)
        expected = jax.eval_shape(wide.init, key, jax.numpy.zeros((1, 8, 8)))
        chex.assert_trees_all_equal_shapes(params, expected["params"])


@pytest.fixture
def result():
    return json.loads((FOLDER / "result.json").read_text())


def test_the_page_has_every_model(module, result):
    page = module("page").page_of(result)
    number = len(result["candidates"])
    assert page.count("<circle") == 2 * number
    known = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    for one in result["candidates"]:
        own = known["candidates"][str(one["id"])]["config"]
        assert (known["shared"] | own).items() >= one["config"].items()


@needs_chromium
@pytest.mark.parametrize("width", [800, 1600])
def test_a_browser_runs_it_without_a_complaint(module, result, tmp_path, width):
    found = found_in(module("page").page_of(result), SCRIPT, tmp_path, width)
    families = [one["config"]["arch_type"] for one in result["candidates"]]
    assert found["every"] == len(families)
    assert found["left"] == len(families) - families.count("transformer")
    assert '"arch_type": "rwkv"' in found["shown"]
    assert found["fits"]
