"""Latency calibrated on some models and checked on others, as `calibrate --check`."""

import dataclasses

import jax
import jax.numpy as jnp
from on_gpu.report import THREADS, Report, print_table

from jaxnas.hardware import hardware_named
from jaxnas.latency.compare import compare
from jaxnas.latency.configs import draw_configs
from jaxnas.latency.fit import fit
from jaxnas.latency.measure import measure

MODELS, CHECKED = 18, 12
MOST_LAYERS = 8


def run(report: Report):
    """Fewer and flatter models than the command takes, for compilations are long."""
    models, checked = (4, 2) if report.small else (MODELS, CHECKED)
    [device, *_] = jax.devices()
    dtype = jnp.dtype("float32" if device.platform == "cpu" else "bfloat16")
    # Those that compile the soonest: a section's time is short.
    most = 2 if report.small else MOST_LAYERS
    drawn = [c for c in draw_configs(0, 90) if c.num_layers <= most]
    configs = drawn[: models + checked]
    measured = measure(configs, device, dtype, THREADS)
    rows = [
        {"config": config.to_dict(), **one.to_dict()}
        for config, one in zip(configs, measured, strict=True)
    ]
    report.keep("measured", rows)
    parts = [
        (configs[part], measured[part]) for part in (slice(models), slice(models, None))
    ]
    calibrated = fit(*parts[0])
    report.keep("calibrated", dataclasses.asdict(calibrated))
    table = compare(calibrated, hardware_named("auto"), *parts)
    report.keep("agreement", table)
    columns = {"reading": "", "predictor": "", "error": ".1%", "spearman": ".3f"}
    title = f"Latency of {checked} models, calibrated on {models} others"
    print_table(title, table, columns)
