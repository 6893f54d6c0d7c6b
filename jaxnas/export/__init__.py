"""Models for other software, and from it: Hugging Face's `transformers`."""

from jaxnas.export.choice import CLASSES, class_for
from jaxnas.export.read import Imported, import_folder
from jaxnas.export.write import Exported, export_folder, export_random

__all__ = [
    "CLASSES",
    "Exported",
    "Imported",
    "class_for",
    "export_folder",
    "export_random",
    "import_folder",
]
