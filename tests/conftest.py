"""Strict by default: what JAX would quietly allow is an error here."""

import collections
import getpass
import os
import sys
import tempfile
import types
from pathlib import Path

import jax
import pytest

# Tests compile more than they compute; for the runs that they start, too. Without
# fusion emitters that takes half of the time; XLA of jaxlib 0.12 knows no others, and
# ends the process for a flag that it does not know.
EMITTERS = (
    "--xla_cpu_use_fusion_emitters=false" if jax.__version_info__ < (0, 11) else ""
)
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0", EMITTERS]
).strip()

FOLDER = Path(tempfile.gettempdir()) / f"jaxnas-tests-{getpass.getuser()}"


def pytest_configure(config):
    # Tests compile the same small programs again and again. A folder for each
    # process: what another one has half written is never read.
    process = os.environ.get("PYTEST_XDIST_WORKER", "main")
    jax.config.update("jax_compilation_cache_dir", str(FOLDER / "compiled" / process))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_debug_key_reuse", True)
    # Warnings are errors. Each exception stands with its reason.
    for line in (
        "error",
        # orbax and its dependencies, not ours to mend.
        "ignore::DeprecationWarning:orbax.*",
        "ignore::DeprecationWarning:google.*",
    ):
        config.addinivalue_line("filterwarnings", line)


@pytest.hookimpl(tryfirst=True)  # before "slow" is left out
def pytest_collection_modifyitems(items):
    """Of a test marked sweep(N), every Nth variant runs always, the others are slow."""
    variants = collections.Counter()
    for item in items:
        if (mark := item.get_closest_marker("sweep")) is not None:
            test = item.path, item.originalname
            if variants[test] % mark.args[0]:
                item.add_marker(pytest.mark.slow)
            variants[test] += 1


@pytest.fixture(scope="session", autouse=True)
def cache():
    """The tests' own cache, kept between sessions: data is prepared once.

    Nothing is measured in it, and the user's own is left alone.
    """
    from calibrated import keep_calibration  # after `pytest_configure`

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXNAS_CACHE", str(keep_calibration(FOLDER)))
        yield FOLDER


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def told(monkeypatch):
    """What a user's module was told."""
    calls = []
    module = types.ModuleType("my_tracker")
    module.log = lambda kind, step, figures: calls.append((kind, step, dict(figures)))
    module.fails = lambda *_: 1 / 0
    monkeypatch.setitem(sys.modules, "my_tracker", module)
    return calls
