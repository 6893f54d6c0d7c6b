"""Weights rounded in the forward pass, and trained as if they were not.

The rounding is that of the blocks which are shipped afterwards; its gradient is taken
to be 1 (straight-through: Bengio et al. 2013, arXiv:1308.3432).
"""

import jax
import jax.numpy as jnp
import numpy as np

from arch import Params
from arch.layout import from_rows, layout_of, to_rows
from jaxnas.compress.quantize import Blocks, from_blocks
from jaxnas.compress.weighted import least_error


def straight_through(params: Params, quantization: str) -> Params:
    """The values that are stored, with the gradient of those that are trained.

    Args:
      params: a language model's "params".
      quantization: "int8" or "int4".
    """

    def passed(weights: jax.Array, stored: jax.Array) -> jax.Array:
        return weights + jax.lax.stop_gradient(stored - weights)

    stored, _ = _rounded(jax.lax.stop_gradient(params), quantization)
    return jax.tree.map(passed, params, stored)


def trained_codes(
    params: Params, quantization: str
) -> tuple[Params, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The "params" as `straight_through` has them, and codes and scales by path."""
    stored, blocks = jax.jit(_rounded, static_argnums=1)(params, quantization)
    codes = {
        name: (np.asarray(one.codes), np.asarray(one.scales))
        for name, one in blocks.items()
    }
    return stored, codes


def _rounded(params: Params, quantization: str) -> tuple[Params, dict[str, Blocks]]:
    found: dict[str, Blocks] = {}

    def round_one(path: tuple, weights: jax.Array) -> jax.Array:
        layout = layout_of(path)
        if not layout.matrix:
            return weights.astype(jnp.float16).astype(jnp.float32)
        rows = to_rows(layout, weights.astype(jnp.float32))
        flat = least_error(rows.reshape(-1, rows.shape[-1]), quantization)
        lead = rows.shape[:-1]
        blocks = Blocks(*(one.reshape(*lead, *one.shape[1:]) for one in flat))
        found[".".join(entry.key for entry in path)] = blocks
        values = from_blocks(blocks, rows.shape[-1])
        return from_rows(layout, values, weights.shape)

    return jax.tree_util.tree_map_with_path(round_one, params), found
