"""The profile of a device that has none: measured once, and kept."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch.cost import HARDWARE
from jaxnas import hardware

CPU = jax.local_devices()[0]
SMALL = {"matrix": 64, "array_mib": 1}


class Unknown:
    """This process's device under another name."""

    device_kind, platform, compute_capability = "NVIDIA L4", "gpu", "8.9"

    def memory_stats(self):
        return {"bytes_limit": 12345}


@pytest.fixture
def device(monkeypatch, tmp_path):
    """A device without a profile that runs on the CPU, and an empty cache."""
    monkeypatch.setenv("JAXNAS_CACHE", str(tmp_path))
    put = jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda value, _: put(value, CPU))
    return Unknown()


def test_peak_and_bandwidth_are_measured_once_and_kept(device, monkeypatch):
    said = []
    found = hardware.measured(device, said.append, **SMALL)
    assert said == ["no profile of NVIDIA L4: measuring its peak and bandwidth, once"]
    assert found.name == "NVIDIA L4"
    assert 1e6 < found.peak_flops < 1e14
    assert 1e7 < found.bandwidth < 1e13
    assert found.memory_bytes == 12345
    assert found.launch_seconds == HARDWARE["rtx-4090"].launch_seconds
    monkeypatch.setattr(hardware, "_peak_flops", lambda *_: pytest.fail("again"))
    assert hardware.measured(device, said.append, **SMALL) == found
    assert len(said) == 1


def test_what_is_timed_is_the_work_that_counts(device, monkeypatch):
    def products(function, array):
        doubling = 2 * len(array) * jnp.eye(len(array), dtype=array.dtype)
        done = 2.0**hardware._PRODUCTS * doubling  # each product doubles it
        np.testing.assert_array_equal(function(doubling), done)
        return 0.5

    monkeypatch.setattr(hardware, "_least_seconds", products)
    flops = hardware._PRODUCTS * 2 * 64**3
    assert hardware._peak_flops(device, 64) == flops / 0.5

    def copy(function, array):
        assert array.nbytes == 2**20
        np.testing.assert_array_equal(function(array), array + 1)
        return 0.5

    monkeypatch.setattr(hardware, "_least_seconds", copy)
    assert hardware._bandwidth(device, 1) == 2 * 2**20 / 0.5  # read, and written


def test_a_device_whose_memory_is_taken_has_the_nearest_figures(device, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(hardware, "_bandwidth", full)
    said = []
    found = hardware.measured(device, said.append, **SMALL)
    assert found.peak_flops == HARDWARE["rtx-4090"].peak_flops
    assert "estimated: that of rtx-4090" in said[-1]
    assert len(said) == 2


def test_auto_measures_only_what_has_no_profile(monkeypatch):
    assert hardware.hardware_named("auto") == HARDWARE["cpu-core"]
    unknown = types.SimpleNamespace(device_kind="NVIDIA T1000")
    monkeypatch.setattr(jax, "devices", lambda: [unknown])
    monkeypatch.setattr(hardware, "measured", lambda device, say: device.device_kind)
    assert hardware.hardware_named("auto") == "NVIDIA T1000"
    assert hardware.hardware_named("h100") == HARDWARE["h100"]
