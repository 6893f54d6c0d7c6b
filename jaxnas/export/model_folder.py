"""A model as a folder: weights as they are stored, config, tokenizer.

The weights file holds what the size objective counts: a matrix at int8 or int4
is its blocks' codes and their fp16 scales, everything else is fp16. A model that
was not trained here can be kept exactly: then all of it is float32, or fp16 if
that is exact.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from tokenizers import Tokenizer

from arch import ArchitectureConfig, Params
from arch.cost.totals import parameters
from arch.layout import Layout, from_rows, layout_of, to_rows
from arch.padding import parameter_shapes
from jaxnas.compress import Blocks, from_blocks, host_codes, prune
from jaxnas.compress.quantize import BLOCK
from jaxnas.data import check_room, load_tokenizer
from jaxnas.data.tokenizer import known_end_of_text
from jaxnas.errors import UsageError
from jaxnas.export.generation import end_tokens
from jaxnas.storage import disk
from jaxnas.storage.files import write_whole
from jaxnas.storage.inputs import JSON_BYTES, read_text, regular_file

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"

# Of a parameter in a model's "params".
_Path: TypeAlias = tuple[jax.tree_util.DictKey, ...]
# Codes and scales of a matrix in blocks, on the host.
Codes: TypeAlias = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """What `load_model` reads; as a tuple it is config, params and tokenizer.

    Attributes:
      config: of the model.
      params: float32, as stored: rounded.
      tokenizer: the one it was trained with.
      ends: tokens that end a text, each below the config's `vocab_size`.
    """

    config: ArchitectureConfig
    params: Params
    tokenizer: Tokenizer
    ends: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter((self.config, self.params, self.tokenizer))

    def first_token(self) -> int:
        """What an empty prompt is read as: the token that ended the text before it.

        Raises:
          UsageError: the tokenizer has none.
        """
        end = known_end_of_text(self.tokenizer)
        if end is None and not self.ends:
            raise UsageError(
                "the prompt is empty, and the tokenizer has no token to begin with"
            )
        return self.ends[0] if end is None else end


def save_model(
    folder: str | Path,
    config: ArchitectureConfig,
    params: Params,
    tokenizer: Tokenizer,
    exact: bool = False,
    codes: Mapping[str, Codes] | None = None,
) -> ArchitectureConfig:
    """Prunes, quantises and writes a trained model.

    Args:
      folder: made if it is not there.
      config: with the compression to apply.
      params: uncompressed.
      tokenizer: the one it was trained with.
      exact: where fp16 would change a value, all weights are float32, which is
        twice as large as the config counts.
      codes: of matrices that are rounded already, as `load_codes` gives them; the
        others are rounded to nearest.

    Returns:
      The config of the written model: pruned already.

    Raises:
      ValueError: `exact`, and the config quantises; or not, and a weight is
        beyond the range of fp16.
    """
    folder = Path(folder)
    if exact and config.quantization != "fp16":
        raise ValueError(f"exact weights are not {config.quantization}: needs fp16")
    if not exact:
        _check_range(params)
    disk.make_folder(folder)
    config, params = prune(config, params)
    tensors: dict[str, np.ndarray] = {}
    kind = narrowest(jax.tree.leaves(params)) if exact else np.dtype(np.float16)

    def store(path: _Path, weights: np.ndarray | jax.Array) -> None:
        weights = jnp.asarray(weights)
        own = (codes or {}).get(_name(path))
        tensors.update(_stored(path, weights, config.quantization, kind, own))

    jax.tree_util.tree_map_with_path(store, params)
    # Names in order: the same model gives the same bytes.
    ordered = {name: tensors[name] for name in sorted(tensors)}
    write_whole(folder / WEIGHTS, safetensors.numpy.save(ordered, {"format": "jaxnas"}))
    write_whole(folder / TOKENIZER, tokenizer.to_str(pretty=True))
    write_whole(folder / CONFIG, config.to_json())
    return config


def _check_range(params: Params) -> None:
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(params))
    if float(np.finfo(np.float16).max) < largest < np.inf:
        raise ValueError(
            f"a weight of size {largest:g} is beyond fp16: save with exact=True"
        )


def load_model(folder: str | Path) -> LoadedModel:
    """Reads what `save_model` wrote.

    Raises:
      UsageError: the folder lacks a file, or holds other tensors than its
        config asks for, more tokens than it has room for, weights that are not
        finite, or a generation config that is none.
    """
    folder = Path(folder)
    try:
        config = ArchitectureConfig.from_json(_text(folder / CONFIG))
        _check_size(config, regular_file(folder / WEIGHTS))
        tokenizer = load_tokenizer(_text(folder / TOKENIZER))
        tensors = safetensors.numpy.load_file(folder / WEIGHTS)
        shapes = parameter_shapes(config)
    except Exception as error:  # each library has its own errors for a bad file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"cannot read a model from {folder}: {reason}") from None
    check_room(tokenizer, config.vocab_size, str(folder / TOKENIZER))
    for name, x in tensors.items():
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise UsageError(f"{folder / WEIGHTS}: {name} is not finite everywhere")
    wanted: dict[str, str] = {}
    wide = all(x.dtype == np.float32 for x in tensors.values())
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        wanted |= _expected(path, leaf.shape, config.quantization, wide)
    held = {name: f"{x.dtype}{list(x.shape)}" for name, x in tensors.items()}
    for name in sorted(wanted.keys() | held.keys()):
        if wanted.get(name) != held.get(name):
            raise UsageError(
                f"{folder / WEIGHTS} does not fit {folder / CONFIG} at {name}: "
                f"is {held.get(name, 'missing')}, "
                f"needs to be {wanted.get(name, 'missing')}"
            )
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _restored(path, leaf.shape, tensors), shapes
    )
    # An id without a row in the embedding is never drawn.
    ends = (id_ for id_ in end_tokens(folder, tokenizer) if id_ < config.vocab_size)
    return LoadedModel(config, params, tokenizer, tuple(ends))


def _check_size(config: ArchitectureConfig, weights: Path) -> None:
    """Raises a UsageError for a config of far more parameters than the file holds."""
    size, number = weights.stat().st_size, parameters(config)
    if number > 2 * size:  # in int4 they have half a byte each
        raise UsageError(
            f"{weights} holds {size:,} bytes, its config has {number:,} parameters"
        )


def load_codes(folder: str | Path) -> dict[str, Codes]:
    """The codes and scales that a readable model folder holds, by parameter.

    Returns:
      i8[..., rows, blocks, 32] and f16[..., rows, blocks], as `to_blocks` shapes
      them, by the dotted path below "params"; empty if nothing is quantised.
    """
    tensors = safetensors.numpy.load_file(regular_file(Path(folder) / WEIGHTS))
    names = [name.removesuffix(".codes") for name in tensors if name.endswith(".codes")]
    return {name: _codes(name, tensors) for name in names}


def narrowest(arrays: Iterable[np.ndarray | jax.Array]) -> np.dtype:
    """float16 if each value of the float32 arrays is one, else float32."""

    def survives(values: np.ndarray) -> bool:
        with np.errstate(over="ignore"):
            return np.array_equal(values, values.astype(np.float16))

    exact = all(survives(np.asarray(array)) for array in arrays)
    return np.dtype(np.float16 if exact else np.float32)


def write_arrays(path: Path, params: Params, metadata: dict[str, str]) -> None:
    """Writes a tree of arrays exactly, in one step."""
    flat = {name: np.asarray(x) for name, x in flatten_dict(params, sep=".").items()}
    write_whole(path, safetensors.numpy.save(flat, metadata))


def read_arrays(path: Path) -> tuple[Params, dict[str, str]]:
    """The inverse of `write_arrays`: the tree and its metadata."""
    with safetensors.safe_open(regular_file(path), "numpy") as file:
        flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return unflatten_dict(flat, sep="."), file.metadata() or {}


def _text(path: Path) -> str:
    return read_text(path, JSON_BYTES)


def _name(path: _Path) -> str:
    return ".".join(entry.key for entry in path)


def _stored(
    path: _Path,
    weights: jax.Array,
    quantization: str,
    kind: np.dtype,
    rounded: Codes | None = None,
) -> dict[str, np.ndarray]:
    name, layout = _name(path), layout_of(path)
    if quantization == "fp16" or not layout.matrix:
        return {name: np.asarray(weights, kind)}
    if rounded is None:
        rows = np.asarray(to_rows(layout, np.asarray(weights), np))
        rounded = host_codes(rows, quantization)
    codes, scales = rounded
    if quantization == "int4":  # two codes a byte: the first 16, then the last
        shifted = (codes + 8).astype(np.uint8)
        codes = shifted[..., :16] | (shifted[..., 16:] << 4)
    return {f"{name}.codes": codes, f"{name}.scales": scales}


def _expected(
    path: _Path, shape: tuple[int, ...], quantization: str, wide: bool
) -> dict[str, str]:
    """Type and shape of what `_stored` gives, by name."""
    name, layout = _name(path), layout_of(path)
    if quantization == "fp16" or not layout.matrix:
        kind = "float32" if wide and quantization == "fp16" else "float16"
        return {name: f"{kind}{list(shape)}"}
    rows = _rows_shape(layout, shape)
    blocks = [*rows[:-1], -(-rows[-1] // BLOCK)]
    kind, size = {"int8": ("int8", BLOCK), "int4": ("uint8", BLOCK // 2)}[quantization]
    return {
        f"{name}.codes": f"{kind}{[*blocks, size]}",
        f"{name}.scales": f"float16{blocks}",
    }


def _restored(
    path: _Path, shape: tuple[int, ...], tensors: dict[str, np.ndarray]
) -> jax.Array:
    name, layout = _name(path), layout_of(path)
    if name in tensors:
        return jnp.asarray(tensors[name], jnp.float32)
    blocks = Blocks(*map(jnp.asarray, _codes(name, tensors)))
    row_length = _rows_shape(layout, shape)[-1]
    return from_rows(layout, from_blocks(blocks, row_length), shape)


def _codes(name: str, tensors: dict[str, np.ndarray]) -> Codes:
    codes = tensors[f"{name}.codes"]
    if codes.dtype == np.uint8:
        codes = np.concatenate([codes & 15, codes >> 4], axis=-1).astype(np.int8) - 8
    return codes, tensors[f"{name}.scales"]


def _rows_shape(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
    weights = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(functools.partial(to_rows, layout), weights).shape
