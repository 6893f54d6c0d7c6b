"""Strict by default: what JAX would quietly allow is an error here."""

import getpass
import tempfile
from pathlib import Path

import jax
import pytest


def pytest_configure(config):
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


@pytest.fixture(scope="session", autouse=True)
def cache():
    """The tests' own cache, kept between sessions: data is prepared once.

    Nothing is measured in it, and the user's own is left alone.
    """
    from calibrated import keep_calibration  # after `pytest_configure`

    folder = Path(tempfile.gettempdir()) / f"jaxnas-tests-{getpass.getuser()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXNAS_CACHE", str(keep_calibration(folder)))
        yield folder


@pytest.fixture
def key():
    return jax.random.key(0)
