"""What programs are compiled with, by platform; the user's XLA_FLAGS go first."""

import pytest

from jaxnas.runtime import compiler_options


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_what_the_user_set_is_left_alone(platform, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    every = compiler_options(platform, quick=True)
    assert every
    for name in every:
        monkeypatch.setenv("XLA_FLAGS", f"--{name}=0")
        assert compiler_options(platform, quick=True).keys() == every.keys() - {name}


def test_a_gpu_tunes_no_products(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    # Without tuning, Triton's products take seven times as long as cuBLAS's.
    assert compiler_options("gpu") == {
        "xla_gpu_enable_triton_gemm": False,
        "xla_gpu_autotune_level": "0",
    }
