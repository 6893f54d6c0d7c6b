"""Import: a GGUF file as a model of ours, its blocks as the numbers they stand for.

The tables that write a file are read the other way. What a file says and ours does
not have is refused, all of it in one line.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from arch import ArchitectureConfig, Params
from arch.layout import fan_in, from_rows
from arch.padding import parameter_shapes
from jaxnas.errors import UsageError
from jaxnas.export.decoders import QKV
from jaxnas.export.folder import check_free, whole_folder
from jaxnas.export.llama_cpp.architecture import (
    EXACT_GELU,
    GELU,
    Architecture,
    FileRow,
    Keys,
)
from jaxnas.export.llama_cpp.architectures import ARCHITECTURES
from jaxnas.export.llama_cpp.package import check_package
from jaxnas.export.llama_cpp.tensors import is_bias
from jaxnas.export.llama_cpp.tokens import tokenizer_of, write_kept
from jaxnas.export.model_folder import WEIGHTS, save_model
from jaxnas.export.read import Imported
from jaxnas.export.rows import layout_at
from jaxnas.export.settings import built
from jaxnas.export.weights import check_size, is_sinusoid

if TYPE_CHECKING:
    import gguf

MAGIC = b"GGUF"
# Settings of a file -> fields and properties of ours.
_NUMBERS = {
    "attention.key_length": "head_dim",
    "embedding_length": "hidden_dim",
    "block_count": "num_layers",
    "context_length": "max_seq_length",
    "feed_forward_length": "feedforward_dim",
    "attention.head_count": "num_heads",
    "attention.head_count_kv": "key_value_heads",
    "attention.layer_norm_rms_epsilon": "norm_epsilon",
    "attention.layer_norm_epsilon": "norm_epsilon",
    "rope.freq_base": "rope_theta",
    "rope.scaling.factor": "rope_scaling",
    "rope.dimension_count": "rotary_channels",
    "use_parallel_residual": "parallel_residual",
}
_COMPARED = {
    "rotary_dim": "rotary_channels",
    "parallel_residual": "parallel_residual",
}
# Older files leave these out, and llama.cpp assumes what ours has.
_ASSUMED = ("vocab_size", "rope.", "attention.key_length", "attention.value_length")
_READABLE = {
    one.name: one for one in ARCHITECTURES if not any(row.change for row in one.rows)
}


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    if not path.is_file():  # a folder, or what would be waited for
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def import_gguf(source: Path, out: Path) -> Imported:
    """Makes a model folder from a GGUF file.

    The weights are those that llama.cpp computes with, as fp16 if that holds them
    all, as float32 if not.

    Args:
      source: the file, its tokenizer in it.
      out: the model folder to make.

    Raises:
      UsageError: the file cannot be read, or ours cannot represent what it says;
        nothing is written.
    """
    check_free(out)
    reader, settings = _open(source)
    try:
        architecture = _architecture(settings)
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        config = _config(architecture, settings, tensors)
        tokenizer = tokenizer_of(settings, config.vocab_size)
        params = _params(architecture, config, tensors)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None
    with whole_folder(out) as folder:
        save_model(folder, config, params, tokenizer, exact=True)
        write_kept(settings, folder)
        size = (folder / WEIGHTS).stat().st_size
    parameters = sum(x.size for x in flatten_dict(params).values())
    return Imported(f"{architecture.name} (GGUF)", config, parameters, size)


def _open(source: Path) -> tuple["gguf.GGUFReader", dict[str, Any]]:
    """The file, and its settings by name."""
    check_package()
    import gguf

    try:
        reader = gguf.GGUFReader(source)
        return reader, {name: one.contents() for name, one in reader.fields.items()}
    except Exception as error:  # a broken file ends in whatever NumPy raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"cannot read {source}: {reason}") from None


def _architecture(settings: Mapping[str, Any]) -> Architecture:
    name = settings.get("general.architecture")
    if name not in _READABLE:
        known = ", ".join(_READABLE)
        raise UsageError(f"architecture {name!r} cannot be imported: only {known}")
    return _READABLE[name]


def _config(
    architecture: Architecture, settings: Mapping[str, Any], tensors: Mapping[str, Any]
) -> ArchitectureConfig:
    """Of our model; every setting of the file is compared with what it would have."""
    begin = f"{architecture.name}."
    found = {
        name.removeprefix(begin): _shortest(value)
        for name, value in settings.items()
        if name.startswith(begin)
    }
    numbers = {ours: found[name] for name, ours in _NUMBERS.items() if name in found}
    # Where it must be all of a head, or one after the other, that is compared below.
    for field, number in _COMPARED.items():
        if field not in architecture.takes:
            numbers.pop(number, None)
    numbers["vocab_size"] = len(settings.get("tokenizer.ggml.tokens", ()))
    numbers["tie_embeddings"] = "output.weight" not in tensors
    numbers |= dict.fromkeys(_biases(architecture, tensors), True)
    if EXACT_GELU not in settings:  # as llama.cpp computes it
        numbers["tanh_gelu"] = architecture.takes["activation"][0] in GELU
    missing = {"hidden_dim", "num_layers", "max_seq_length", "num_heads"}
    if missing := missing.difference(numbers):
        names = [name for name, ours in _NUMBERS.items() if ours in missing]
        raise UsageError(f"{begin}{', '.join(names)} is missing")
    config = built(architecture.takes, {}, numbers)
    held = sum(int(one.n_elements) for one in tensors.values())
    check_size(config, held)
    positions = tensors.get(architecture.positions or "")
    if positions is not None and not is_sinusoid(_values(positions), config):
        config = dataclasses.replace(config, learned_positions=True)
        check_size(config, held)
    reasons = list(_differences(architecture.keys(config), found))
    reasons += [
        f"{field}={getattr(config, field)!r}: needs {' or '.join(map(repr, values))}"
        for field, values in architecture.misfits(config).items()
    ]
    if reasons:
        raise UsageError("; ".join(f"{begin}{reason}" for reason in reasons))
    return config


def _biases(architecture: Architecture, tensors: Mapping[str, Any]) -> set[str]:
    """Our fields for the biases of the first layer that are not all zero."""
    names = {row.theirs.format(layer=0): row.when for row in architecture.rows}
    found = {
        field
        for name, field in names.items()
        if field and name.endswith(".bias") and name in tensors
        if _values(tensors[name]).any()
    }
    # Where attention's last layer has one, so have queries, keys and values.
    return found - {"out_bias"} | ({QKV} if "out_bias" in found else set())


def _differences(ours: Keys, theirs: Mapping[str, Any]) -> Iterator[str]:
    for name, value in ours.items():
        if name not in theirs:
            if not name.startswith(_ASSUMED):
                yield f"{name} is missing"
        elif theirs[name] != value:
            yield f"{name}={theirs[name]!r}: ours would have {value!r}"
    for name, value in theirs.items():
        if name not in ours and not (name == "rope.scaling.type" and value == "none"):
            yield f"{name}={value!r}: ours has no such setting"


def _shortest(value: Any) -> Any:
    """A file's float32 as the number that was meant."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _params(
    architecture: Architecture, config: ArchitectureConfig, tensors: Mapping[str, Any]
) -> Params:
    """The parameters, from tensors that all have to have a place."""
    shapes = flatten_dict(parameter_shapes(config), sep=".")
    left = dict(tensors)
    flat: dict[str, np.ndarray] = {}
    for row in architecture.rows_of(config):
        layers = range(config.num_layers) if row.stacked else [None]
        names = [row.theirs.format(layer=layer) for layer in layers]
        wanted = [shapes[name].shape[1 if row.stacked else 0 :] for name in row.ours]
        each = [_restored(row, config, left, name, wanted) for name in names]
        for name, parts in zip(row.ours, zip(*each, strict=True), strict=True):
            flat[name] = np.stack(parts) if row.stacked else parts[0]
    if architecture.positions is not None and not config.learned_positions:
        _take(left, architecture.positions)
    for name, tensor in left.items():
        if not name.endswith(".bias") or _values(tensor).any():
            raise UsageError(f"tensor {name} has no place in our model")
    return unflatten_dict(flat, sep=".")


def _take(tensors: dict[str, Any], name: str) -> np.ndarray:
    if name not in tensors:
        raise UsageError(f"tensor {name} is missing")
    return _values(tensors.pop(name))


def _values(tensor: Any) -> np.ndarray:
    import gguf

    try:
        return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    except NotImplementedError:
        kind = tensor.tensor_type.name
        raise UsageError(
            f"tensor {tensor.name} is {kind}, which gguf cannot read"
        ) from None


def _restored(
    row: FileRow,
    config: ArchitectureConfig,
    tensors: dict[str, Any],
    name: str,
    shapes: list[tuple[int, ...]],
) -> list[np.ndarray]:
    """Ours of the tensor of this name, a layer's, which is taken out of `tensors`."""
    theirs = _take(tensors, name)
    layouts = [layout_at(name)._replace(stacked=False) for name in row.ours]
    if is_bias(row):
        rows = [math.prod(shape) for shape in shapes]
        wanted: list[tuple[int, ...]] = [(sum(rows),)]
    elif not layouts[0].matrix:
        wanted = shapes
    else:
        lengths = [
            fan_in(layout, shape) for layout, shape in zip(layouts, shapes, strict=True)
        ]
        rows = [
            int(np.prod(shape)) // length
            for shape, length in zip(shapes, lengths, strict=True)
        ]
        wanted = [(sum(rows), lengths[0])]
    if theirs.shape != wanted[0]:
        raise UsageError(
            f"tensor {name} has shape {list(theirs.shape)}, the file's settings "
            f"ask for {list(wanted[0])}"
        )
    if row.factor is not None:
        theirs = theirs / np.float32(row.factor(config))
    if not layouts[0].matrix and not is_bias(row):
        return [theirs]
    if row.order is not None:
        ours = np.empty_like(theirs)
        ours[row.order(config)] = theirs
        theirs = ours
    parts = np.split(theirs, np.cumsum(rows)[:-1])
    if is_bias(row):
        pairs = zip(parts, shapes, strict=True)
        return [part.reshape(shape) for part, shape in pairs]
    return [
        np.asarray(from_rows(layout, jnp.asarray(part), shape))
        for layout, part, shape in zip(layouts, parts, shapes, strict=True)
    ]
