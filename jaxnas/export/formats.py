"""Which of the formats that other software reads holds a model exactly."""

from collections.abc import Callable

from arch import ArchitectureConfig
from jaxnas.errors import UsageError
from jaxnas.export.choice import class_for
from jaxnas.export.llama_cpp.architectures import architecture_for
from jaxnas.export.onnx.decoder import check_family

# Format -> what reads it, in words.
READERS = {
    "gguf": "for llama.cpp",
    "hf": "for transformers",
    "onnx": "for onnxruntime and transformers.js",
}
_CHECKS: dict[str, Callable[[ArchitectureConfig], object]] = {
    "gguf": architecture_for,
    "hf": class_for,
    "onnx": check_family,
}


def format_for(config: ArchitectureConfig) -> str | None:
    """The first format of READERS that holds the model exactly, None if none does."""
    for name, check in _CHECKS.items():
        try:
            check(config)
        except UsageError:
            continue
        return name
    return None
