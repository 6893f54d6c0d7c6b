"""`export MODEL`: a trained model for other software."""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

from jaxnas.commands.options import Parser
from jaxnas.errors import RunFailed, UsageError
from jaxnas.export import Exported, export_folder, export_random
from jaxnas.export.llama_cpp import TYPES, Written, export_gguf
from jaxnas.export.llama_cpp.verify import (
    LIKELY,
    LIMIT,
    TEXTS,
    Agreement,
    Verified,
    check_runtime,
    verify,
)
from jaxnas.export.llama_cpp.write import gguf_beside
from jaxnas.report.tables import plain_console

_ABOUT = """\
Writes a model in a form that another program loads.

formats:
  hf    Hugging Face: AutoModelForCausalLM.from_pretrained(DIR) computes the same
        function [default]
  gguf  llama.cpp, and what is built on it: one file with the tokenizer. Codes of
        int8 and int4 leave as they are, as Q8_0 and Q4_0

A model that the other program would not compute exactly is refused.
"""


def main(arguments: list[str]) -> None:
    """Exports a model folder, or a config with random weights."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.format == "gguf":
        _to_gguf(options)
        return
    for flag, value in (("--type", options.type), ("--verify", options.verify)):
        if value:
            raise UsageError(f"{flag} is for --format gguf")
    if options.out is None:
        parser.error("the following arguments are required: --out")
    _print_folder(options.out, _export(options.model, options.out, options.init_seed))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run export",
        usage="python -m jaxnas.run export MODEL [--format hf] --out DIR "
        "[--init-seed N]\n       python -m jaxnas.run export MODEL --format gguf "
        "[--type TYPE] [--out FILE] [--verify]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="a model's folder, or a config file")
    add("--format", choices=["hf", "gguf"], default="hf", help="[hf]")
    add(
        "--type",
        choices=TYPES,
        help="of a gguf's matrices [what the model holds]",
    )
    add(
        "--out",
        metavar="PATH",
        type=Path,
        help="the folder to make; of gguf the file [MODEL.gguf, here]",
    )
    add(
        "--verify",
        action="store_true",
        help="gguf: runs llama.cpp on the file and compares it with the model; what "
        "differs is not kept",
    )
    add(
        "--init-seed",
        metavar="N",
        type=int,
        help="hf: draws random weights; for a config file, which has none",
    )
    return parser


def _to_gguf(options: argparse.Namespace) -> None:
    model = options.model
    if model.is_file() or options.init_seed is not None:
        raise UsageError("--format gguf needs a model's folder: it holds the tokenizer")
    if options.verify:
        check_runtime()
    out = options.out or Path(f"{model.resolve().name}.gguf")
    verified = None
    with gguf_beside(model, out, options.type) as (file, written):
        if options.verify:
            verified = _verify(model, file, written)
    _print_file(out, written, verified)


def _verify(model: Path, file: Path, written: Written) -> Verified:
    """Compares the file with the model.

    Raises:
      RunFailed: llama.cpp would compute another function, or read other tokens.
    """
    if written.kind == "f32":
        verified = verify(model, file, file)
    else:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".") as folder:
            f32 = Path(folder) / "f32.gguf"
            export_gguf(model, f32, "f32")
            verified = verify(model, file, f32)
    wrong = ""
    if verified.file.texts < len(TEXTS):
        wrong = f"{len(TEXTS) - verified.file.texts} texts have other tokens"
    elif not verified.as_f32.difference <= LIMIT:
        wrong = f"log-probabilities in F32 differ by {verified.as_f32.difference:.2g}"
    elif written.exact and not verified.same:
        wrong = "the file's values are not the model's"
    if wrong:
        raise RunFailed(f"llama.cpp computes another model, nothing is kept: {wrong}")
    return verified


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


def _print_folder(out: Path, written: Exported) -> None:
    tokens = "none: random weights have no words"
    if written.tokens is not None:
        tokens = f"{written.tokens:,} tokens"
    _print(
        [
            ("class", written.architecture),
            ("parameters", f"{written.parameters:,}"),
            ("weights", f"{_mib(written.bytes)}, {written.weights}"),
            ("tokenizer", tokens),
            ("folder", str(out)),
        ]
    )


def _print_file(out: Path, written: Written, verified: Verified | None) -> None:
    size, counted = _mib(written.tensor_bytes), _mib(written.counted)
    lines = [
        ("llama.cpp", written.architecture),
        ("parameters", f"{written.parameters:,}"),
        ("weights", f"{size}, {written.kind}; a search counts {counted}"),
        ("tokenizer", f"{written.tokens:,} tokens"),
        *(("note", note) for note in written.notes),
        ("file", f"{out}, {_mib(written.bytes)}"),
    ]
    if verified is not None:
        lines += [
            ("token ids", f"equal in {verified.file.texts} of {len(TEXTS)} texts"),
            (written.kind, _agreement(verified.file)),
        ]
    if verified is not None and written.kind != "f32":
        same = "every value the same" if verified.same else "values rounded"
        lines.append(("as f32", f"{_agreement(verified.as_f32)}; {same}"))
    _print(lines)


def _agreement(found: Agreement) -> str:
    return (
        f"{found.greedy} of {found.new} greedy tokens equal, log-probabilities of "
        f"{LIKELY:g} on within {found.difference:.1e}"
    )


def _print(lines: Iterable[tuple[str, str]]) -> None:
    console = plain_console()
    for name, value in lines:
        console.print(f"{name:<11} {value}", soft_wrap=True)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
