"""A whole model rounded with calibration data, layer by layer.

Each layer is rounded with what it reads from those before it, which are rounded by
then, as GPTQ has it (arXiv:2210.17323).
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from arch import ArchitectureConfig, LanguageModel, Params, build_model
from arch.block import Block
from arch.layout import Layout, from_rows, layout_of, to_rows
from arch.traits import traits_of
from jaxnas.compress.quantize import Blocks, from_blocks
from jaxnas.compress.weighted import Moments, Rounding, by_importance

BATCH = 8  # windows read at once

_Path: TypeAlias = tuple[str, ...]  # below "params"
_Seen: TypeAlias = dict[_Path, jax.Array]  # of a layer: sums of products of inputs
Codes: TypeAlias = tuple[np.ndarray, np.ndarray]  # and scales, of a matrix

_TABLES = (("embed", "embedding"), ("positions", "embedding"))
_HEAD = ("head", "kernel")


def round_calibrated(
    config: ArchitectureConfig,
    params: Params,
    windows: np.ndarray,
    quantization: str,
    rounding: Rounding,
) -> tuple[Params, dict[str, Codes]]:
    """The values that a model has once it is stored, and its codes.

    Embeddings, whose rows are looked up, are rounded with all channels alike.

    Args:
      config: of the model, nothing left to prune.
      params: its "params".
      windows: i32[N, T], calibration data.
      quantization: "int8" or "int4".
      rounding: of each matrix.

    Returns:
      The "params" as they are read back, float32, and codes and scales by dotted
      path, i8[..., rows, blocks, 32] and f16[..., rows, blocks].
    """
    model = build_model(config)
    whole = _Rounded(params, quantization)
    alike = Moments(np.eye(config.hidden_dim))
    for table in _TABLES:
        if table in whole.raw:
            whole.round(table, alike, by_importance)
    batches = [windows[i : i + BATCH] for i in range(0, len(windows), BATCH)]
    with jax.default_matmul_precision("float32"):
        xs = [_embedded(model, whole.tree(), tokens) for tokens in batches]
        xs = _round_blocks(config, whole, xs, rounding)
        if not config.tie_embeddings:
            normed = [_normed(model, whole.tree(), x) for x in xs]
            whole.round(_HEAD, _sum(map(_products, normed)), rounding)
    return jax.tree.map(jnp.asarray, whole.tree()), whole.codes()


class _Rounded:
    """A model that is rounded matrix by matrix; what has no rows is fp16 at once."""

    def __init__(self, params: Params, quantization: str) -> None:
        self.raw = {path: np.asarray(x) for path, x in flatten_dict(params).items()}
        self.stored = {
            path: x.astype(np.float16).astype(np.float32)
            for path, x in self.raw.items()
        }
        self._blocks: dict[_Path, list[Blocks]] = {}
        self._quantization = quantization

    def tree(self) -> Params:
        """The "params" as far as they are rounded."""
        return unflatten_dict(self.stored)

    def layer(self, number: int, raw: bool) -> Params:
        """A block's "params": not rounded, or as they are read back."""
        held = self.raw if raw else self.stored
        blocks = {path[1:]: x[number] for path, x in held.items() if _in_block(path)}
        return unflatten_dict(blocks)

    def round(
        self,
        path: _Path,
        moments: Moments,
        rounding: Rounding,
        layer: int | None = None,
    ) -> None:
        """Rounds a matrix, or one layer's of those that are stacked."""
        layout, part = _layout(path), slice(None)
        if layer is not None:
            part = slice(layer, layer + 1)
        weights = jnp.asarray(self.raw[path][part], jnp.float32)
        rows = to_rows(layout, weights)
        flat = np.asarray(rows).reshape(-1, rows.shape[-1])
        blocks = rounding(flat, moments, self._quantization)
        self._blocks.setdefault(path, []).append(blocks)
        values = from_blocks(blocks, rows.shape[-1]).reshape(rows.shape)
        self.stored[path][part] = np.asarray(from_rows(layout, values, weights.shape))

    def codes(self) -> dict[str, Codes]:
        """Of all matrices, by dotted path."""
        found = {}
        for path, blocks in self._blocks.items():
            codes, scales = (
                np.stack([np.asarray(one[part]) for one in blocks]) for part in (0, 1)
            )
            stacked = _layout(path).stacked
            found[".".join(path)] = (
                (codes, scales) if stacked else (codes[0], scales[0])
            )
        return found


def _round_blocks(
    config: ArchitectureConfig,
    whole: _Rounded,
    xs: list[jax.Array],
    rounding: Rounding,
) -> list[jax.Array]:
    """Rounds every layer's matrices; returns what the last layer writes.

    A layer is read twice: unrounded, for what its matrices are multiplied with, and
    rounded, for what the next one reads.
    """
    read = _reader(config)
    for layer in range(config.num_layers):
        raw = whole.layer(layer, raw=True)
        seen = [read(raw, x)[1] for x in xs]
        for path in seen[0]:
            moments = _sum(one[path] for one in seen)
            whole.round(("blocks", *path), moments, rounding, layer)
        stored = whole.layer(layer, raw=False)
        xs = [read(stored, x)[0] for x in xs]
    return xs


def _reader(config: ArchitectureConfig) -> Callable[..., tuple[jax.Array, _Seen]]:
    """(a layer's params, [B, T, D]) -> [B, T, D], and products of inputs by matrix."""
    block, traits = Block(config, jnp.float32), traits_of(config)

    @jax.jit
    def read(params: Params, x: jax.Array) -> tuple[jax.Array, _Seen]:
        seen: _Seen = {}

        def look(
            call: Callable[..., Any], args: tuple, kwargs: dict, context: Any
        ) -> Any:
            if isinstance(context.module, nn.DenseGeneral):
                seen[(*context.module.path, "kernel")] = _products(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(look):
            y, _ = block.apply({"params": params}, x, None, traits)
        return y, seen

    return read


def _sum(products: Iterable[jax.Array]) -> Moments:
    return Moments(np.sum([np.asarray(one, np.float64) for one in products], axis=0))


def _products(x: jax.Array) -> jax.Array:
    """[B, T, ...] -> f32[inputs, inputs], summed over tokens."""
    flat = x.reshape(x.shape[0] * x.shape[1], -1).astype(jnp.float32)
    return flat.T @ flat


@functools.partial(jax.jit, static_argnums=0)
def _embedded(model: LanguageModel, params: Params, tokens: jax.Array) -> jax.Array:
    first = jnp.zeros(1, jnp.int32)
    embedded = model.apply({"params": params}, tokens, first, method="embed_tokens")
    return jnp.asarray(embedded)


@functools.partial(jax.jit, static_argnums=0)
def _normed(model: LanguageModel, params: Params, x: jax.Array) -> jax.Array:
    """What the head reads."""
    last = lambda model, x: model.norm(x, traits_of(model.config))
    return jnp.asarray(model.apply({"params": params}, x, method=last))


def _layout(path: _Path) -> Layout:
    return layout_of(tuple(map(jax.tree_util.DictKey, path)))


def _in_block(path: _Path) -> bool:
    return path[0] == "blocks"
