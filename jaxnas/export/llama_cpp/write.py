"""Export: a model of ours as a GGUF file."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax

from arch.cost import size_bytes
from jaxnas.errors import UsageError
from jaxnas.export.llama_cpp.architecture import EXACT_GELU, GELU
from jaxnas.export.llama_cpp.architectures import architecture_for
from jaxnas.export.llama_cpp.blocks import K_PACKAGE, K_QUANT, QUANTIZATION, TYPES
from jaxnas.export.llama_cpp.package import check_package
from jaxnas.export.llama_cpp.tensors import Tensor, to_file_tensors
from jaxnas.export.llama_cpp.tokens import token_keys, token_note
from jaxnas.export.model_folder import LoadedModel, load_codes, load_model, narrowest
from jaxnas.export.rows import weights_of
from jaxnas.storage.files import PARTIAL

if TYPE_CHECKING:
    import gguf

# `general.file_type`
_FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "q4_k": 14}
_QUANTIZATION_VERSION = 2  # of ggml's block formats


class Written(NamedTuple):
    """What was written."""

    architecture: str  # llama.cpp's
    parameters: int
    kind: str  # of the matrices, of TYPES
    bytes: int  # of the file
    tensor_bytes: int  # of all its tensors
    counted: int  # bytes of the weights, as a search counts them
    tokens: int  # of the tokenizer
    exact: bool  # holds the model's values, none rounded
    chat: bool  # holds a chat template
    notes: tuple[str, ...]  # what is not as it was asked for, or not as counted


def export_gguf(model: Path, out: Path, kind: str | None = None) -> Written:
    """Exports a model folder as one file.

    Args:
      model: the folder, as `save_model` wrote it.
      out: the file to make.
      kind: type of the matrices, of TYPES; None for what the model holds.

    Raises:
      UsageError: no architecture of llama.cpp computes the model exactly, or it
        would read other tokens, there is no model, the package `gguf` is missing,
        or `out` is there already. Then nothing is written.
    """
    with gguf_beside(model, out, kind) as (_, written):
        return written


@contextlib.contextmanager
def gguf_beside(
    model: Path, out: Path, kind: str | None = None
) -> Iterator[tuple[Path, Written]]:
    """As `export_gguf`: yields the file under another name, for a look at it.

    It becomes `out` when the block is done. If the block fails, nothing stays.
    """
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} is there already: choose another --out")
    check_package()
    loaded = load_model(model)
    architecture = architecture_for(loaded.config)
    keys = architecture.keys(loaded.config)
    kind = _held(loaded) if kind is None else kind
    if kind == K_QUANT and importlib.util.find_spec(K_PACKAGE) is None:
        raise UsageError(
            f"{kind} needs the package {K_PACKAGE}: pip install 'jaxnas[kquant]'"
        )
    settings = {f"tokenizer.{name}": v for name, v in _tokens(loaded, model).items()}
    settings |= {f"{architecture.name}.{name}": value for name, value in keys.items()}
    if loaded.config.activation in GELU and not loaded.config.tanh_gelu:
        settings |= {EXACT_GELU: True}
    settings |= {"general.name": model.resolve().name}
    settings |= {"general.file_type": _FILE_TYPES[kind]}
    if kind in (*QUANTIZATION, K_QUANT):
        settings |= {"general.quantization_version": _QUANTIZATION_VERSION}
    weights = weights_of(loaded.config, loaded.params, load_codes(model))
    tensors = list(to_file_tensors(architecture, loaded.config, weights, kind))
    beside = out.with_name(f".{out.name}.{os.getpid()}{PARTIAL}")
    try:
        with _writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            _write(beside, architecture.name, settings, tensors)
        written = Written(
            architecture.name,
            sum(leaf.size for leaf in jax.tree.leaves(loaded.params)),
            kind,
            beside.stat().st_size,
            sum(tensor.stored.data.nbytes for tensor in tensors),
            size_bytes(loaded.config),
            loaded.tokenizer.get_vocab_size(),
            all(tensor.stored.exact for tensor in tensors),
            "tokenizer.chat_template" in settings,
            (*_notes(tensors), *filter(None, [token_note(loaded.tokenizer)])),
        )
        yield beside, written
        with _writing(out):
            beside.replace(out)
    finally:
        if beside.exists():
            beside.unlink()


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from None


def _tokens(loaded: LoadedModel, model: Path) -> dict[str, object]:
    return dict(token_keys(loaded.tokenizer, loaded.config, model))


def _held(loaded: LoadedModel) -> str:
    """The type that holds the model's matrices as they are."""
    for kind, quantization in QUANTIZATION.items():
        if loaded.config.quantization == quantization:
            return kind
    leaves = jax.tree.leaves(loaded.params)
    return {"float16": "f16", "float32": "f32"}[narrowest(leaves).name]


def _write(
    path: Path, architecture: str, settings: dict[str, object], tensors: list[Tensor]
) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    for name, value in settings.items():
        writer.add_key_value(name, value, _value_type(value))
    kinds = {kind: gguf.GGMLQuantizationType[kind.upper()] for kind in TYPES}
    for tensor in tensors:
        kind = kinds[tensor.stored.kind]
        writer.add_tensor(tensor.name, tensor.stored.data, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _value_type(value: object) -> "gguf.GGUFValueType":
    import gguf

    if type(value) is int:
        return gguf.GGUFValueType.UINT32
    return gguf.GGUFValueType.get_type(value)


def _notes(tensors: list[Tensor]) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for tensor in tensors:
        names.setdefault(tensor.note, []).append(tensor.name)
    for note, same in names.items():
        if note:
            few = same[0] if len(same) == 1 else f"{len(same)} matrices"
            yield f"{few} {note}"
