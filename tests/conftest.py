"""Strict by default: what JAX would quietly allow is an error here."""

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


@pytest.fixture
def key():
    return jax.random.key(0)
