"""Settings, flags, specs and spaces with mistakes in them: exit 0, 1 or 2, one line."""

import shutil
import tempfile
from pathlib import Path

import pytest
from corpus import write_corpus
from fuzzing import ended, fuzz, mutated_toml
from hypothesis import given
from hypothesis import strategies as st
from tasks import noise_task

import jaxnas.pipeline.prepared as pipeline
from jaxnas.automl.spec import SPECS
from jaxnas.data.named import read_source
from jaxnas.errors import RunFailed
from jaxnas.training.settings import TrainSettings

NOISE = TrainSettings(window=16, batch=4, learning_rate=0.01)
WORDS = (
    *('"12 ms"', '"8B"', '"24 GB"', '"half"', '"x"', '""', '"\\n"', "true", "nan"),
    *("-1", "0", "1.5", "inf", "1e308", "1e-308", "9223372036854775807"),
    *("1" + 30 * "0", "9" * 5_000, "[" * 9_999, '"' + "x" * 9_999 + '"', '"a\\u0000"'),
    *("[]", "[1,2]", "[64,128]", "[[1]]", '[1, "a"]', "{}", "{min=1}", "{max=1e9}"),
    *("{min=1,max=100000000,step=1}", "{min = 64, max = 4096, step = 1}"),
    *("{min=1,max=2,step=1e-9}", "2024-01-01", '"1x1,2x2"', '"9999999999x9999999999"'),
    *('"minimal"', '"fast,medium"', '"accuracy=0.3"', '"accuracy=1e999"', "[0.5]"),
    *('"folder:~nobody-here"', '"folder:/dev/zero"', '"pypi:"', '"30s"', '"9e9h"'),
    *('"1_0"', '"+1"', '"0x10"', "0x10", "1_000", "1e3", "65536", "4294967295"),
    *('"os:system"', '"no.such:name"', '"../x.toml"', '"decode"', '"genetic"'),
)
SPACE = """
name = "tiny-code"
[genes]
arch_type = ["transformer", "grouped_query_attention", "rwkv"]
num_layers = [2, 4]
hidden_dim = [64, 96, 128]
head_dim = [16, 32]
kv_group = [1, 2]
ffn_multiplier = [2.0, 4.0]
normalization = "rmsnorm"
activation = ["swiglu", "relu2"]
position_encoding = ["rope", "absolute"]
quantization = ["fp16", "int8"]
pruning_ratio = [0.0, 0.2]
tie_embeddings = false
[[forbid]]
arch_type = "rwkv"
quantization = "int8"
[[forbid]]
hidden_dim = [96, 128]
num_layers = 4
"""
SETTINGS = """
space = "{space}"
strategy = "nsga2"
population = 4
generations = 2
max_evals = 7
budget = "5m"
patience = 2
target = "accuracy=0.3"
seed = 1
crossover_rate = 0.5
mutation_rate = 0.1
max_size = 4.0
max_latency = 2.5
data = "{data}"
vocab_size = 300
eval_windows = 8
final_windows = 8
preset = "small"
phases = "8,16x2"
promote_share = 0.5
promote_by = "curve"
lucky = 1
repeats = 1
flat = 0.01
recovery_share = 0.1
window = 16
batch = 4
learning_rate = 0.01
weight_decay = 0.1
beta2 = 0.95
clip_norm = 1.0
warmup_share = 0.1
decay_share = 0.2
steps_per_call = 20
memory_limit = 500.0
final_steps = 40
baseline = false
accuracy_weight = 0.5
size_weight = 0.3
latency_weight = 0.2
size_target = 1.0
size_limit = 4.0
latency_target = 1.0
latency = "estimate"
objectives = "tasks:noise_task"
hardware = "cpu-core"
top_k = 5
measure_top = 1
checkpoint_every = 1
keep_checkpoints = 2
"""


@pytest.fixture(scope="module")
def begun():
    """A folder in which runs end where they would plan and train.

    The data is read as it is named, and then taken for noise.
    """
    root = Path(tempfile.mkdtemp())
    write_corpus(root / "code", files=40)
    (root / "own.toml").write_text(SPACE)

    def prepare(data, vocab_size):
        if not data.startswith(("stdlib", "pypi:")):  # which take long
            read_source(data)
        return noise_task(NOISE).dataset

    def plan(*_):
        raise RunFailed("the plan is not what is tried")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "prepare", prepare)
        patch.setattr(pipeline, "fit_to_budget", plan)
        patch.chdir(root)
        yield root
    shutil.rmtree(root)


def written(root, text=None):
    """A file of settings, by default of those without a mistake."""
    path = root / "settings.toml"
    path.write_text(sound(root) if text is None else text)
    return path


def sound(root):
    return SETTINGS.format(space=root / "own.toml", data=f"folder:{root / 'code'}")


def started(kind, root, path, *flags):
    out = root / "run"
    try:
        given = ["search", "--config", path, "--objectives=tasks:noise_task"]
        return ended(kind, [*given, "--out", out, *flags])
    finally:
        shutil.rmtree(out, ignore_errors=True)


def test_without_mistakes_all_of_it_is_read(begun):
    assert started("sound", begun, written(begun)) == 1  # where it would plan
    assert ended("sound", ["space", begun / "own.toml"]) == 0


@fuzz(40)
@given(st.data())
def test_settings_of_a_file(begun, data):
    text = data.draw(mutated_toml(sound(begun), WORDS))
    started("settings of a file", begun, written(begun, text))


NAMES = [line.split()[0] for line in SETTINGS.splitlines() if line]
VALUES = tuple(word.strip('"')[:400] for word in WORDS)


@fuzz(40)
@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text()),
        max_size=3,
    )
)
def test_settings_of_the_command_line(begun, flags):
    texts = [f"--{name.replace('_', '-')}={value}" for name, value in flags]
    started("flags", begun, written(begun), *texts)


@fuzz(15)
@given(st.data())
def test_a_spec(begun, data):
    texts = [path.read_text() for path in sorted(SPECS.glob("*.toml"))]
    path = begun / "spec.toml"
    text = data.draw(st.sampled_from(texts))
    path.write_text(data.draw(mutated_toml(text, WORDS)))
    ended("specs", ["automl", path])


@fuzz(20)
@given(st.data())
def test_a_space(begun, data):
    path = begun / "space.toml"
    path.write_text(data.draw(mutated_toml(SPACE, WORDS)))
    command = data.draw(st.sampled_from([["space"], ["front"]]))
    ended("spaces", [*command, path])
