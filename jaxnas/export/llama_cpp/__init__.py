"""A model of ours as one file for llama.cpp: GGUF."""

from jaxnas.export.llama_cpp.write import TYPES, Written, export_gguf

__all__ = ["TYPES", "Written", "export_gguf"]
