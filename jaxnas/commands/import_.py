"""`import DIR|FILE.gguf`: a model of another program as one of ours."""

from pathlib import Path

from jaxnas.commands.options import Parser
from jaxnas.errors import UsageError
from jaxnas.export import CLASSES, import_folder
from jaxnas.export.llama_cpp.read import import_gguf, is_gguf
from jaxnas.report.tables import plain_console
from jaxnas.report.words import describe


def main(arguments: list[str]) -> None:
    """Makes a model folder from one that transformers wrote, or from a GGUF file."""
    names = ", ".join(native.name for native in CLASSES)
    parser = Parser(
        prog="python -m jaxnas.run import",
        usage="python -m jaxnas.run import DIR|FILE --out MODEL [--tokenizer FILE]",
        description=f"Reads a Hugging Face folder (config.json, model.safetensors, "
        f"tokenizer.json)\nof {names},\nor a GGUF file. What ours cannot represent is "
        f"refused.",
    )
    parser.add_argument(
        "source", metavar="DIR", type=Path, help="the folder, or a GGUF file"
    )
    parser.add_argument(
        "--out", metavar="MODEL", type=Path, required=True, help="the folder to make"
    )
    parser.add_argument(
        "--tokenizer", metavar="FILE", type=Path, help="[DIR/tokenizer.json]"
    )
    options = parser.parse_args(arguments)
    if is_gguf(options.source):
        if options.tokenizer is not None:
            raise UsageError("--tokenizer: a GGUF file has its own")
        imported = import_gguf(options.source, options.out)
    else:
        imported = import_folder(options.source, options.out, options.tokenizer)
    console = plain_console()
    for name, value in (
        ("class", imported.architecture),
        ("model", describe(imported.config)),
        ("parameters", f"{imported.parameters:,}"),
        ("weights", f"{imported.bytes / 2**20:.1f} MiB"),
        ("folder", str(options.out)),
    ):
        console.print(f"{name:<11} {value}", soft_wrap=True)
