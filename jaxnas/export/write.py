"""Export: a model of ours as a folder that `transformers` loads."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import safetensors.numpy

from arch import ArchitectureConfig, Params, build_model
from arch.config import QUANTIZATIONS
from arch.cost import size_bytes
from arch.initial import draw_parameters
from jaxnas.compress import prune, round_weights
from jaxnas.errors import UsageError
from jaxnas.export.card import CARD, model_card
from jaxnas.export.choice import class_for
from jaxnas.export.folder import check_free, whole_folder
from jaxnas.export.generation import write_generation
from jaxnas.export.model_folder import CONFIG, WEIGHTS, load_model, narrowest
from jaxnas.export.native import NativeClass
from jaxnas.export.settings import to_settings
from jaxnas.export.tokens import special_ids, write_tokens
from jaxnas.export.weights import to_tensors
from jaxnas.keys import key_of
from jaxnas.storage.files import write_json, write_whole
from jaxnas.storage.inputs import read_text


class Exported(NamedTuple):
    """What was written."""

    architecture: str  # the class in transformers
    parameters: int
    weights: str  # type of the stored weights
    bytes: int  # of the weights file
    tokens: int | None  # of the tokenizer, if there is one
    quantization: str  # of the model
    counted: int  # bytes of the weights, as a search counts them


def export_folder(model: Path, out: Path) -> Exported:
    """Exports a model folder, as `save_model` wrote it.

    Raises:
      UsageError: no class computes the model exactly, there is no model, or
        `out` is not free. Then nothing is written.
    """
    check_free(out)
    config, params, tokenizer = load_model(model)
    native = class_for(config)
    tensors = to_tensors(native, config, params)
    with whole_folder(out) as folder:
        ids = write_tokens(model, tokenizer, config.max_seq_length, folder)
        stored = _write(native, config, tensors, ids, folder)
        write_whole(folder / CARD, model_card(model, config, "hf"))
    return _summary(native, config, params, stored, tokenizer.get_vocab_size())


def export_random(file: Path, seed: int, out: Path) -> Exported:
    """Exports a config with random weights, pruned and rounded as it says.

    There is no tokenizer.

    Raises:
      UsageError: as `export_folder`.
    """
    check_free(out)
    try:
        config = ArchitectureConfig.from_json(read_text(file))
    except UsageError:
        raise
    except (ValueError, OverflowError) as error:
        raise UsageError(f"cannot read a config from {file}: {error}") from None
    class_for(config)  # before anything is drawn
    config, params = random_model(config, seed)
    native = class_for(config)
    tensors = to_tensors(native, config, params)
    with whole_folder(out) as folder:
        ids = special_ids({})
        write_generation(folder, ids)
        stored = _write(native, config, tensors, ids, folder)
    return _summary(native, config, params, stored, None)


def random_model(
    config: ArchitectureConfig, seed: int
) -> tuple[ArchitectureConfig, Params]:
    """Initial weights as a model folder would hold them: the config, "params"."""
    try:
        drawn = draw_parameters(build_model(config), key_of(seed, "export"))
    except (ValueError, MemoryError, OverflowError) as error:
        raise UsageError(f"cannot draw these weights: {error}") from None
    quantization = QUANTIZATIONS.index(config.quantization)
    config, params = prune(config, drawn)
    compress = functools.partial(round_weights, quantization=quantization)
    return config, jax.jit(compress)(params)


def _write(
    native: NativeClass,
    config: ArchitectureConfig,
    tensors: dict[str, np.ndarray],
    ids: Mapping[str, object],
    folder: Path,
) -> tuple[str, int]:
    """Writes config and weights, of the narrowest type that holds them exactly.

    Returns:
      The type, and the bytes of the weights file.
    """
    weights = {name: x for name, x in tensors.items() if name != native.positions}
    kind = narrowest(weights.values())
    stored = tensors | {name: x.astype(kind) for name, x in weights.items()}
    safetensors.numpy.save_file(stored, folder / WEIGHTS, {"format": "pt"})
    write_json(folder / CONFIG, to_settings(native, config, ids))
    return kind.name, (folder / WEIGHTS).stat().st_size


def _summary(
    native: NativeClass,
    config: ArchitectureConfig,
    params: Params,
    stored: tuple[str, int],
    tokens: int | None,
) -> Exported:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    counted = size_bytes(config)
    return Exported(
        native.architecture, parameters, *stored, tokens, config.quantization, counted
    )
