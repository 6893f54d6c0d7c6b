"""Parameters of ours as tensors of theirs, and back: the tables read both ways."""

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from arch import ArchitectureConfig, Params
from arch.cost import parameters
from arch.initial import embedding_deviation
from arch.layers.positions import sinusoidal
from arch.model import POSITION_SCALE
from arch.padding import parameter_shapes
from jaxnas.errors import UsageError
from jaxnas.export.native import NativeClass, Row

# Another machine's sine may differ in its last digits, relative to the largest.
_POSITION_TOLERANCE = 1e-6


def position_table(config: ArchitectureConfig) -> np.ndarray:
    """What the model adds to the embeddings: f32[max_seq_length, D]."""
    positions = jnp.arange(config.max_seq_length)
    channels = np.arange(config.hidden_dim)
    table = sinusoidal(positions, channels, config.hidden_dim)
    return np.asarray(_position_scale(config) * table)


def _position_scale(config: ArchitectureConfig) -> float:
    return POSITION_SCALE * embedding_deviation(config)


def to_tensors(
    native: NativeClass, config: ArchitectureConfig, params: Params
) -> dict[str, np.ndarray]:
    """Their tensors by name, float32 like ours.

    Args:
      native: the class.
      config: of the model, which the class takes.
      params: a language model's "params".

    Raises:
      ValueError: the table and the parameters do not name the same tensors.
    """
    flat = {name: np.asarray(x) for name, x in flatten_dict(params, sep=".").items()}
    rows = native.rows_of(config)
    if sorted(flat) != sorted(name for row in rows for name in row.ours):
        raise ValueError(f"{native.name}'s table is not of these: {sorted(flat)}")
    tensors = {}
    for row in rows:
        ours = [flat[name] for name in row.ours]
        for name, layer in _names(row, config):
            parts = ours if layer is None else [x[layer] for x in ours]
            tensors[name] = np.ascontiguousarray(row.transform.export(*parts))
    for name in set(_zero_names(native, config)).difference(tensors):
        size = tensors[_weight_of(name)].shape[-1 if native.inputs_first else 0]
        tensors[name] = np.zeros(size, np.float32)
    if native.positions is not None and not config.learned_positions:
        tensors[native.positions] = position_table(config)
    return tensors


def check_size(config: ArchitectureConfig, held: int) -> None:
    """Refuses a config of far more parameters than there are, before room is made.

    Raises:
      UsageError: so many are `held`, and the config asks for more than twice as many,
        or for more layers.
    """
    number = parameters(config)
    if number > 2 * held or config.num_layers > held:
        raise UsageError(f"{held:,} numbers are there, the config asks for {number:,}")


def guessed(
    native: NativeClass, config: ArchitectureConfig, tensors: dict[str, np.ndarray]
) -> ArchitectureConfig:
    """The config with what its class says by tensors alone."""
    if not native.guessed:
        return config
    biases = any(
        name in tensors and tensors[name].any() for name in _zero_names(native, config)
    )
    table = tensors.get(native.positions or "")
    learned = table is not None and not is_sinusoid(table, config)
    return dataclasses.replace(
        config, biases=biases, qkv_bias=biases, learned_positions=learned
    )


def from_tensors(
    native: NativeClass, config: ArchitectureConfig, tensors: dict[str, np.ndarray]
) -> Params:
    """The inverse of `to_tensors`.

    Args:
      native: the class.
      config: of our model.
      tensors: float32, by their names.

    Raises:
      UsageError: a tensor is missing, has another shape, or holds what ours
        cannot represent.
    """
    tensors = dict(tensors)
    shapes = _shapes(config)
    flat: dict[str, np.ndarray] = {}
    for row in native.rows_of(config):
        ours = [shapes[name][1:] if row.stacked else shapes[name] for name in row.ours]
        wanted = row.transform.export(*map(np.zeros, ours)).shape
        layers = [
            row.transform.restore(_take(tensors, name, wanted), *ours)
            for name, _ in _names(row, config)
        ]
        for name, parts in zip(row.ours, zip(*layers, strict=True), strict=True):
            flat[name] = np.stack(parts) if row.stacked else parts[0]
    _check_rest(native, config, tensors, flat)
    return unflatten_dict(flat, sep=".")


def _shapes(config: ArchitectureConfig) -> dict[str, tuple[int, ...]]:
    shapes = flatten_dict(parameter_shapes(config), sep=".")
    return {name: leaf.shape for name, leaf in shapes.items()}


def _take(
    tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> np.ndarray:
    if name not in tensors:
        raise UsageError(f"tensor {name} is missing")
    tensor = tensors.pop(name)
    if tensor.shape != shape:
        raise UsageError(
            f"tensor {name} has shape {list(tensor.shape)}, config.json asks for "
            f"{list(shape)}"
        )
    return tensor


def _check_rest(
    native: NativeClass,
    config: ArchitectureConfig,
    tensors: dict[str, np.ndarray],
    flat: dict[str, np.ndarray],
) -> None:
    """Accepts what says nothing new, refuses what ours has no place for."""
    if native.positions is not None and not config.learned_positions:
        shape = (config.max_seq_length, config.hidden_dim)
        _take(tensors, native.positions, shape)
    for name, tensor in tensors.items():
        if name.endswith(".bias"):
            if tensor.any():
                raise UsageError(f"tensor {name} is not zero: ours has no such bias")
        elif not _is_tied_head(native, config, name, tensor, flat):
            raise UsageError(f"tensor {name} has no place in our model")


def is_sinusoid(positions: np.ndarray, config: ArchitectureConfig) -> bool:
    """Whether a table is the one that export writes."""
    if positions.shape != (config.max_seq_length, config.hidden_dim):
        return False  # the table of an absurd length is never made
    table = position_table(config)
    allowed = _POSITION_TOLERANCE * _position_scale(config)
    rounded = table.astype(np.float16).astype(np.float32)
    return bool(
        np.array_equal(positions, rounded) or np.abs(positions - table).max() <= allowed
    )


def _is_tied_head(
    native: NativeClass,
    config: ArchitectureConfig,
    name: str,
    tensor: np.ndarray,
    flat: dict[str, np.ndarray],
) -> bool:
    (head,) = [row for row in native.rows if row.ours == ("head.kernel",)]
    return (
        config.tie_embeddings
        and name == head.theirs
        and np.array_equal(tensor, flat["embed.embedding"])
    )


def _names(row: Row, config: ArchitectureConfig) -> Iterator[tuple[str, int | None]]:
    """The names of a row's tensors, with their layers."""
    if row.stacked:
        for layer in range(config.num_layers):
            yield row.theirs.format(layer=layer), layer
    else:
        yield row.theirs, None


def _zero_names(native: NativeClass, config: ArchitectureConfig) -> list[str]:
    return [
        name.format(layer=layer)
        for name in native.zeros
        for layer in range(config.num_layers if "{layer}" in name else 1)
    ]


def _weight_of(bias: str) -> str:
    """The tensor beside the bias."""
    return bias.removesuffix("bias") + "weight"
