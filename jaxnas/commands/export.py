"""`export MODEL`: a trained model for other software."""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

from jaxnas.commands.options import Parser, whole
from jaxnas.errors import RunFailed, UsageError
from jaxnas.export import Exported, export_folder, export_random
from jaxnas.export.card import CARD, model_card
from jaxnas.export.folder import whole_folder
from jaxnas.export.llama_cpp import TYPES, Written, export_gguf
from jaxnas.export.llama_cpp.modelfile import MODELFILE, modelfile
from jaxnas.export.llama_cpp.verify import (
    LIMIT,
    TEXTS,
    Verified,
    check_runtime,
    verify,
)
from jaxnas.export.llama_cpp.write import gguf_beside
from jaxnas.export.model_folder import load_model
from jaxnas.export.onnx.write import export_onnx
from jaxnas.export.reference import LIKELY, Agreed
from jaxnas.report.tables import plain_console
from jaxnas.storage.files import write_whole
from jaxnas.storage.inputs import is_file
from jaxnas.storage.run_folder import model_in

_ABOUT = """\
Writes a model in a form that another program loads.

formats:
  hf      Hugging Face: AutoModelForCausalLM.from_pretrained(DIR) computes the same
          function [default]
  gguf    llama.cpp, and what is built on it: one file with the tokenizer. Codes of
          int8 and int4 leave as they are, as Q8_0 and Q4_0
  ollama  a folder with such a file and a Modelfile
  onnx    a folder for onnxruntime and transformers.js: a graph with a cache

A model card stands beside each. A model that the other program would not compute
exactly is refused.
"""


def main(arguments: list[str]) -> None:
    """Exports a model folder, or a config with random weights."""
    parser = _parser()
    options = parser.parse_args(arguments)
    options.model = model_in(options.model)
    if options.format != "gguf" and options.out is None:
        parser.error("the following arguments are required: --out")
    if options.type and options.format in ("hf", "onnx"):
        raise UsageError("--type is for --format gguf and ollama")
    if options.format == "hf":
        if options.verify:
            raise UsageError("--verify is for --format gguf, ollama and onnx")
        out = options.out
        _print_folder(out, _export(options.model, out, options.init_seed))
        return
    if is_file(options.model) or options.init_seed is not None:
        raise UsageError(
            f"--format {options.format} needs a model's folder: it holds the tokenizer"
        )
    if options.format == "onnx":
        out = options.out
        _print_folder(out, *export_onnx(options.model, out, options.verify))
        return
    if options.verify:
        check_runtime()
    export = _to_gguf if options.format == "gguf" else _to_ollama
    export(options)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run export",
        usage="python -m jaxnas.run export MODEL [--format hf] --out DIR "
        "[--init-seed N]\n       python -m jaxnas.run export MODEL "
        "--format gguf|ollama [--type TYPE] [--out PATH] [--verify]\n"
        "       python -m jaxnas.run export MODEL --format onnx --out DIR [--verify]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        type=Path,
        help="a model's folder, a run's, or a config file",
    )
    add("--format", choices=["hf", "gguf", "ollama", "onnx"], default="hf", help="[hf]")
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
        help="runs llama.cpp or onnxruntime on the export and compares it with the "
        "model; what differs is not kept",
    )
    add(
        "--init-seed",
        metavar="N",
        type=whole(),
        help="hf: draws random weights; for a config file, which has none",
    )
    return parser


def _to_gguf(options: argparse.Namespace) -> None:
    """A file, and its card beside it."""
    model = options.model
    out = options.out or Path(f"{model.resolve().name}.gguf")
    card = out.with_name(f"{out.name.removesuffix('.gguf')}.md")
    if card.exists():
        raise UsageError(f"{card} is there already: choose another --out")
    written, verified = _gguf(options, out)
    config = load_model(model).config
    write_whole(card, model_card(model, config, "gguf", written.notes, path=out.name))
    _print_file(written, verified, [("file", out), ("card", card)])


def _to_ollama(options: argparse.Namespace) -> None:
    """A folder with the file, a Modelfile and the card."""
    model, name = options.model, "model.gguf"
    with whole_folder(options.out) as folder:
        written, verified = _gguf(options, folder / name)
        config, _, tokenizer = load_model(model)
        text = modelfile(name, config, tokenizer, chat=written.chat)
        write_whole(folder / MODELFILE, text)
        card = model_card(model, config, "ollama", written.notes)
        write_whole(folder / CARD, card)
    _print_file(written, verified, [("folder", options.out)])


def _gguf(options: argparse.Namespace, out: Path) -> tuple[Written, Verified | None]:
    with gguf_beside(options.model, out, options.type) as (file, written):
        verified = _verify(options.model, file, written) if options.verify else None
    return written, verified


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
    if verified.texts < len(TEXTS):
        wrong = f"{len(TEXTS) - verified.texts} texts have other tokens"
    elif not verified.as_f32.difference <= LIMIT:
        wrong = f"log-probabilities in F32 differ by {verified.as_f32.difference:.2g}"
    elif written.exact and not verified.same:
        wrong = "the file's values are not the model's"
    if wrong:
        raise RunFailed(f"llama.cpp computes another model, nothing is kept: {wrong}")
    return verified


def _export(model: Path, out: Path, seed: int | None) -> Exported:
    if is_file(model):
        if seed is None or not 0 <= seed < 2**32:
            raise UsageError(
                f"{model} has no weights: draw them with --init-seed in 0 to 2**32 - 1"
            )
        return export_random(model, seed, out)
    if seed is not None:
        raise UsageError(f"--init-seed is for a config file, {model} is none")
    return export_folder(model, out)


def _print_folder(
    out: Path, written: Exported, agreement: Agreed | None = None
) -> None:
    tokens = "none: random weights have no words"
    if written.tokens is not None:
        tokens = f"{written.tokens:,} tokens"
    lines = [
        ("class", written.architecture),
        ("parameters", f"{written.parameters:,}"),
        ("weights", f"{_mib(written.bytes)}, {written.weights}"),
        *_wider(written),
        ("tokenizer", tokens),
        ("folder", str(out)),
    ]
    if agreement is not None:
        lines.append(("onnxruntime", _agreement(agreement)))
    _print(lines)


def _wider(written: Exported) -> Iterable[tuple[str, str]]:
    """What a quantised model costs in a form that has no codes."""
    if not written.weights.startswith("float") or written.quantization == "fp16":
        return
    times = written.bytes / written.counted
    yield (
        "note",
        f"transformers has no form for {written.quantization} blocks: exact values in "
        f"{times:.1f} times the {_mib(written.counted)} that a search counts; a GGUF "
        f"file keeps the codes",
    )


def _print_file(
    written: Written, verified: Verified | None, places: list[tuple[str, Path]]
) -> None:
    size, counted = _mib(written.tensor_bytes), _mib(written.counted)
    lines = [
        ("llama.cpp", written.architecture),
        ("parameters", f"{written.parameters:,}"),
        ("weights", f"{size}, {written.kind}; a search counts {counted}"),
        ("tokenizer", f"{written.tokens:,} tokens"),
        *(("note", note) for note in written.notes),
        ("size", f"{_mib(written.bytes)} with the tokenizer"),
        *((name, str(path)) for name, path in places),
    ]
    if verified is not None:
        lines += [
            ("token ids", f"equal in {verified.texts} of {len(TEXTS)} texts"),
            (written.kind, _agreement(verified.file)),
        ]
    if verified is not None and written.kind != "f32":
        same = "every value the same" if verified.same else "values rounded"
        lines.append(("as f32", f"{_agreement(verified.as_f32)}; {same}"))
    _print(lines)


def _agreement(found: Agreed) -> str:
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
