"""Import: a folder of `transformers` as a model of ours."""

import re
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import safetensors
from tokenizers import Tokenizer

from arch import ArchitectureConfig
from jaxnas.data import check_room, load_tokenizer
from jaxnas.errors import UsageError
from jaxnas.export.choice import class_named
from jaxnas.export.folder import check_free, whole_folder
from jaxnas.export.generation import write_generation
from jaxnas.export.model_folder import CONFIG, TOKENIZER, WEIGHTS, save_model
from jaxnas.export.settings import from_settings
from jaxnas.export.tokens import copy_settings, keep_tokens, special_ids
from jaxnas.export.weights import check_size, from_tensors, guessed
from jaxnas.storage.inputs import JSON_BYTES, read_json, read_text, regular_file
from jaxnas.storage.jsonl import Json

INDEX = f"{WEIGHTS}.index.json"
_TYPES = ("F32", "F16", "BF16")


class Imported(NamedTuple):
    """What was written."""

    architecture: str  # the class it was
    config: ArchitectureConfig
    parameters: int
    bytes: int  # of the weights file


def import_folder(source: Path, out: Path, tokenizer: Path | None = None) -> Imported:
    """Makes a model folder from one that `transformers` wrote.

    The weights keep their values, whatever type they had: as fp16 if that
    holds them all, as float32 if not.

    Args:
      source: holds config.json and model.safetensors, or its index.
      out: the model folder to make.
      tokenizer: a tokenizer.json; None takes the source's.

    Raises:
      UsageError: something is missing, or ours cannot represent it. The line
        names the file, and the setting or tensor. Nothing is written.
    """
    check_free(out)
    content = _json(source / CONFIG)
    try:
        native = class_named(content.get("model_type"))
        config = from_settings(native, content)
    except UsageError as error:
        raise UsageError(f"{source / CONFIG}: {error}") from None
    text = _tokenizer(source if tokenizer is None else tokenizer, config)
    try:
        tensors = _tensors(source, native.buffers)
        held = sum(x.size for x in tensors.values())
        check_size(config, held)
        config = guessed(native, config, tensors)
        check_size(config, held)  # with a table of positions it may ask for more
        params = from_tensors(native, config, tensors)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None
    with whole_folder(out) as folder:
        save_model(folder, config, params, text, exact=True)
        if tokenizer is None:
            _keep(source, content, folder)
        size = (folder / WEIGHTS).stat().st_size
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Imported(native.architecture, config, parameters, size)


def _keep(source: Path, content: Json, folder: Path) -> None:
    """What transformers needs to read text as the source did."""
    if not keep_tokens(source, folder):
        copy_settings(source, folder)
        write_generation(folder, special_ids(content))


def _tokenizer(source: Path, config: ArchitectureConfig) -> Tokenizer:
    path = source / TOKENIZER if source.is_dir() else source
    try:
        tokenizer = load_tokenizer(read_text(path, JSON_BYTES))
    except UsageError:
        if path.exists():
            raise
        raise UsageError(
            f"{path} is missing: a model needs its tokenizer; save it there with "
            f"transformers, or name a tokenizer.json with --tokenizer"
        ) from None
    except Exception as error:  # the library raises bare ones
        raise UsageError(f"cannot read {path}: {_line(error)}") from None
    check_room(tokenizer, config.vocab_size, str(path))
    return tokenizer


def _tensors(source: Path, unread: tuple[str, ...]) -> dict[str, np.ndarray]:
    """All tensors as float32, but for those that are no weights."""
    tensors = {}
    for path, wanted in _weight_files(source).items():
        try:
            regular_file(path)
            # Of the frameworks without torch, this one knows bfloat16.
            with safetensors.safe_open(path, "flax") as file:
                there = file.keys()
                if missing := sorted((wanted or set()) - set(there)):
                    raise UsageError(f"{path.name} lacks tensor {missing[0]}")
                for name in there:
                    if wanted is not None and name not in wanted:
                        continue  # a copy that the index does not mean
                    if any(re.fullmatch(pattern, name) for pattern in unread):
                        continue
                    kind = file.get_slice(name).get_dtype()
                    if kind not in _TYPES:
                        known = ", ".join(_TYPES)
                        raise UsageError(f"tensor {name} is {kind}: only {known}")
                    tensors[name] = np.asarray(file.get_tensor(name), np.float32)
                    if not np.isfinite(tensors[name]).all():
                        raise UsageError(f"tensor {name} is not finite everywhere")
        except (OSError, safetensors.SafetensorError) as error:
            raise UsageError(f"cannot read {path.name}: {_line(error)}") from None
    return tensors


def _weight_files(source: Path) -> dict[Path, set[str] | None]:
    """The safetensors files, with the tensors that are read from each.

    One with all of them (None), or those that an index names.
    """
    if (source / WEIGHTS).exists():
        return {source / WEIGHTS: None}
    if (source / INDEX).is_file():
        try:
            files: dict[Path, set[str] | None] = {}
            for tensor, name in sorted(_json(source / INDEX)["weight_map"].items()):
                named = files.setdefault(source / Path(name).name, set())
                assert named is not None
                named.add(tensor)
            return files
        except (KeyError, TypeError, AttributeError):
            raise UsageError(f"{INDEX} has no weight_map of file names") from None
    if any(source.glob("*.bin")):
        raise UsageError(
            f"{WEIGHTS} is missing: .bin files of torch are not read; load and save "
            f"the folder with transformers first"
        )
    raise UsageError(f"{WEIGHTS} is missing")


def _json(path: Path) -> Json:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UsageError(f"cannot read {path}: it is no JSON object")
    return content


def _line(error: Exception) -> str:
    said = getattr(error, "strerror", None) or str(error)
    return (said.splitlines() or [type(error).__name__])[0]
