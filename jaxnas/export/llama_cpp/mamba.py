"""Mamba in llama.cpp."""

import numpy as np

from arch import ArchitectureConfig
from arch.config import MAMBA_EXPAND, MAMBA_STATE, MAMBA_TAPS
from jaxnas.export.llama_cpp.architecture import (
    EMBED,
    HEAD,
    LAST_NORM,
    RMS_NORM,
    Architecture,
    FileRow,
    Keys,
    row,
    sizes_of_all,
)


def _mamba_keys(config: ArchitectureConfig) -> Keys:
    return sizes_of_all(config) | {
        "feed_forward_length": 0,
        "attention.head_count": 0,
        **RMS_NORM,
        "ssm.conv_kernel": MAMBA_TAPS,
        "ssm.inner_size": config.inner_channels,
        "ssm.state_size": MAMBA_STATE,
        "ssm.time_step_rank": config.step_rank,
        "ssm.dt_b_c_rms": False,
    }


def _mamba_sizes(config: ArchitectureConfig) -> dict[str, tuple]:
    """It loads no other count of channels, so no pruned model."""
    wanted = MAMBA_EXPAND * config.hidden_dim
    return {} if config.inner_channels == wanted else {"inner_dim": (wanted,)}


def _steps_first(config: ArchitectureConfig) -> np.ndarray:
    """Rows B, C, step -> step, B, C."""
    return np.roll(np.arange(2 * MAMBA_STATE + config.step_rank), -2 * MAMBA_STATE)


def _mixer(ours: str, theirs: str) -> FileRow:
    return row(f"blocks.mixer.{ours}", f"blk.{{layer}}.{theirs}")


MAMBA = Architecture(
    name="mamba",
    takes={"arch_type": ("mamba",), "normalization": ("rmsnorm",)},
    sizes=_mamba_sizes,
    keys=_mamba_keys,
    rows=(
        EMBED,
        row("blocks.mixer_norm.scale", "blk.{layer}.attn_norm.weight"),
        _mixer("in_proj.kernel", "ssm_in.weight"),
        _mixer("conv_kernel", "ssm_conv1d.weight")._replace(change=np.transpose),
        _mixer("conv_bias", "ssm_conv1d.bias"),
        _mixer("x_proj.kernel", "ssm_x.weight")._replace(order=_steps_first),
        _mixer("dt_proj.kernel", "ssm_dt.weight"),
        _mixer("dt_bias", "ssm_dt.bias"),
        _mixer("A_log", "ssm_a")._replace(change=lambda a_log: -np.exp(a_log)),
        _mixer("D", "ssm_d"),
        _mixer("out_proj.kernel", "ssm_out.weight"),
        LAST_NORM,
        HEAD,
    ),
)
