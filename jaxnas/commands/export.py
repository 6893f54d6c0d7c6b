"""`export MODEL`: a trained model for other software."""

from pathlib import Path

from jaxnas.commands.options import Parser
from jaxnas.errors import UsageError
from jaxnas.export import Exported, export_folder, export_random
from jaxnas.report.tables import plain_console

_ABOUT = """\
Writes a model as a folder that another program loads.

formats:
  hf   Hugging Face: AutoModelForCausalLM.from_pretrained(DIR) computes the same
       function. A model that no class of transformers computes is refused.
"""


def main(arguments: list[str]) -> None:
    """Exports a model folder, or a config with random weights."""
    parser = Parser(
        prog="python -m jaxnas.run export",
        usage="python -m jaxnas.run export MODEL --format hf --out DIR [--init-seed N]",
        description=_ABOUT,
    )
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help="a model's folder, or a config file"
    )
    parser.add_argument("--format", choices=["hf"], required=True)
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="the folder to make"
    )
    parser.add_argument(
        "--init-seed",
        metavar="N",
        type=int,
        help="draws random weights; for a config file, which has none",
    )
    options = parser.parse_args(arguments)
    _print(options.out, _export(options.model, options.out, options.init_seed))


def _export(model: Path, out: Path, seed: int | None) -> Exported:
    if model.is_file():
        if seed is None or not 0 <= seed < 2**32:
            raise UsageError(
                f"{model} has no weights: draw them with --init-seed in 0 to 2**32 - 1"
            )
        return export_random(model, seed, out)
    if seed is not None:
        raise UsageError(f"--init-seed is for a config file, {model} is none")
    return export_folder(model, out)


def _print(out: Path, written: Exported) -> None:
    tokens = "none: random weights have no words"
    if written.tokens is not None:
        tokens = f"{written.tokens:,} tokens"
    console = plain_console()
    for name, value in (
        ("class", written.architecture),
        ("parameters", f"{written.parameters:,}"),
        ("weights", f"{written.bytes / 2**20:.1f} MiB, {written.weights}"),
        ("tokenizer", tokens),
        ("folder", str(out)),
    ):
        console.print(f"{name:<11} {value}", soft_wrap=True)
