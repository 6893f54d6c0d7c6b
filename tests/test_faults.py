"""Each change of a run to the disk fails in turn; afterwards nothing is lost."""

import shutil

import pytest
from corpus import write_corpus
from faults import WAYS, Disk, Killed

import jaxnas
from jaxnas.errors import RunFailed, UsageError
from jaxnas.pipeline.verify import verify
from jaxnas.population import compiler
from jaxnas.storage.files import PARTIAL
from jaxnas.storage.run_folder import RunFolder

SPACE = """
name = "two"
[genes]
num_layers = [1, 2]
hidden_dim = [16, 32]
num_heads = 2
normalization = "rmsnorm"
activation = "gelu"
position_encoding = "rope"
attention_dropout = 0.0
residual_dropout = 0.0
"""
SETTINGS = {
    "strategy": "random",
    "population": 2,
    "generations": 2,
    "phases": "8,16",
    "promote_share": 0.5,
    "lucky": 0,
    "repeats": 0,
    "window": 16,
    "batch": 4,
    "vocab_size": 300,
    "eval_windows": 8,
    "final_windows": 8,
    "final_steps": 4,
    "checkpoint_every": 1,
    "keep_checkpoints": 2,
    "measure_top": 0,
    "latency": "estimate",
    "baseline": False,
}
COMPARED = ("results.jsonl", "rungs.jsonl", "best.json", "summary.json")
MODEL = ("model.safetensors", "config.json", "tokenizer.json")


def searched(out, code):
    space = code.parent / "two.toml"
    space.write_text(SPACE)
    jaxnas.search(out, data=f"folder:{code}", space=str(space), **SETTINGS)


def bytes_of(run):
    files = [run / name for name in COMPARED]
    files += [run / "model" / name for name in MODEL]
    return {path.name: path.read_bytes() for path in files}


def share_programs(patch):
    """Runs of this process compile once: their programs are the same."""
    known, compile_anew = {}, compiler.compile_program

    def compile_program(program, task, windows, lone, device):
        key = program, task.settings, windows, lone, device
        if key not in known:
            known[key] = compile_anew(program, task, windows, lone, device)
        return known[key]

    patch.setattr(compiler, "compile_program", compile_program)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The corpus, a run that nothing disturbed, and its changes to the disk."""
    root = tmp_path_factory.mktemp("faults")
    write_corpus(root / "code")
    with pytest.MonkeyPatch.context() as patch:
        share_programs(patch)
        searched(root / "first", root / "code")  # what is cached is cached by then
        with pytest.MonkeyPatch.context() as inner:
            counted = Disk(inner)
            searched(root / "run", root / "code")
        assert bytes_of(root / "first") == bytes_of(root / "run")
        yield root / "code", bytes_of(root / "run"), counted.names


def disturbed(out, code, number, way):
    """Whether a run with that fault ended without a result."""
    expected = Killed if way == "kill" else (OSError, RunFailed, UsageError)
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, number, way)
        try:
            searched(out, code)
        except expected:
            return True
    return False


def check(out, whole, number, way):
    """The run is disturbed at one place, and gone on with."""
    code, wanted, names = whole
    about = f"{names[number - 1]}, change {number} of {len(names)}, {way}"
    stopped = disturbed(out, code, number, way)
    if stopped:
        if (out / "config.toml").exists():
            jaxnas.resume(out)
        else:
            searched(out, code)
    assert bytes_of(out) == wanted, about
    assert [part for part in verify(RunFolder(out)) if part.lost] == [], about
    left = {path.name for path in out.iterdir() if path.name.startswith(".")}
    if way == "readonly" and not stopped:  # then nothing can be removed either
        left = {name for name in left if not name.endswith(PARTIAL)}
    assert left <= {".lock"}, about


@pytest.mark.parametrize(("way", "part"), [("kill", 0.4), ("full", 0.7)])
def test_a_change_that_fails_loses_nothing(tmp_path, whole, way, part):
    check(tmp_path / "run", whole, round(part * len(whole[2])), way)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_each_change_that_fails_loses_nothing(tmp_path, whole, way):
    for number in range(1, len(whole[2]) + 1):
        check(tmp_path / "run", whole, number, way)
        shutil.rmtree(tmp_path / "run")
