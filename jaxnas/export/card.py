"""The model card beside an export: what the model is, learnt from, and scores."""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from arch import ArchitectureConfig
from arch.cost import MIB, size_bytes, stored_parameters
from jaxnas.errors import UsageError
from jaxnas.source_name import source_without_folders
from jaxnas.storage.inputs import read_json
from jaxnas.storage.jsonl import Json
from jaxnas.storage.run_folder import RunFolder

CARD = "README.md"


def model_card(
    model: Path,
    config: ArchitectureConfig,
    form: str,
    notes: Iterable[str] = (),
    scores: Iterable[tuple[str, str]] = (),
    made_by: str | None = None,
    path: str = ".",
) -> str:
    """A card in Markdown, with the front matter of the Hugging Face hub.

    Data, evaluation and seed are those of the run that the model is of; of another
    folder the card says that they are not recorded. Of paths it has the names alone.

    Args:
      model: the folder that is exported.
      config: of the model.
      form: what is exported, as the command's `--format` calls it.
      notes: sentences on what is not in the export as the model holds it.
      scores: on the test files, more than the run has: what and how much.
      made_by: the one command that made all of it, as a shell reads it; None for
        the run's and the export's.
      path: of the export, from the card's folder.
    """
    run = RunFolder(model.resolve().parent)
    of_run = model.resolve() == run.model
    manifest = _json(run.manifest) if of_run else {}
    summary = _json(run.summary) if of_run else {}
    parts = (
        _front_matter(form),
        _what(config, notes),
        _use(form, path),
        _data(manifest.get("data")),
        _evaluation(summary),
        _scores(scores),
        _making(run, model.resolve().name, form, manifest, made_by),
    )
    return "\n".join(line for part in parts for line in (*part, ""))


def _front_matter(form: str) -> Iterator[str]:
    library = {"hf": "transformers", "gguf": "llama.cpp", "onnx": "transformers.js"}
    yield from (
        "---",
        f"library_name: {library.get(form, form)}",
        "pipeline_tag: text-generation",
    )
    yield from ("tags:", "- code", "- jaxnas", "---")


def _what(config: ArchitectureConfig, notes: Iterable[str]) -> Iterator[str]:
    yield "# A language model of code"
    yield ""
    yield (
        f"{stored_parameters(config):,} parameters, {size_bytes(config) / MIB:.1f} MiB "
        f"of weights at {config.quantization}, texts of up to {config.max_seq_length} "
        f"tokens."
    )
    yield ""
    for note in notes:
        yield f"- {note}"
        yield ""
    yield from _table(("field", "value"), config.canonical().to_dict().items())


_PYTHON = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
prompt = tokenizer("def ", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=32)[0]))
```"""
_JAVASCRIPT = """\
```js
import { AutoModelForCausalLM, AutoTokenizer } from "@huggingface/transformers";

const tokenizer = await AutoTokenizer.from_pretrained("PATH");
const model = await AutoModelForCausalLM.from_pretrained("PATH", { dtype: "fp32" });
const output = await model.generate({ ...tokenizer("def "), max_new_tokens: 32 });
```"""


_COMMANDS = {
    "gguf": "llama-server -m {} --port 8012",
    "ollama": "ollama create code -f Modelfile",
    "jaxnas": "python -m jaxnas.run serve {} --port 8012",
}


def _use(form: str, path: str) -> Iterator[str]:
    """How to run it, from the folder of the card."""
    yield "## How to use it"
    yield ""
    if form in _COMMANDS:
        yield from ("```bash", _COMMANDS[form].format(shlex.quote(path)), "```")
    else:
        program = _PYTHON if form == "hf" else _JAVASCRIPT
        yield program.replace("PATH", path)
    if form in ("gguf", "jaxnas"):
        yield ""
        yield (
            "answers editors at `http://127.0.0.1:8012`: llama.vim, llama.vscode, and "
            "what speaks OpenAI's `/v1/completions`."
        )


def _data(data: Json | None) -> Iterator[str]:
    yield "## Data"
    yield ""
    if data is None:
        yield "What it learnt from is not recorded beside the model."
        return
    yield from _table(
        ("", ""),
        [
            ("source", source_without_folders(str(data.get("source")))),
            ("hash of the corpus", data.get("corpus_hash")),
            ("hash of the tokenizer", data.get("tokenizer_hash")),
            *(
                (split, f"{size['files']:,} files, {size['tokens']:,} tokens")
                for split, size in data.get("splits", {}).items()
            ),
            ("licences", _licences(data.get("licences"))),
        ],
    )


def _licences(found: object) -> str:
    """As the source spells them, with how often."""
    if not found or not isinstance(found, dict):
        return "those of the files: not recorded"
    return ", ".join(f"{name} ({number})" for name, number in found.items())


def _evaluation(summary: Json) -> Iterator[str]:
    yield "## Evaluation"
    yield ""
    final = summary.get("final") or summary
    if "splits" in final:
        yield from _beside_ngrams(final)
    elif found := _bits_per_byte(summary):
        *others, (_, own) = found
        rows = [
            (split, name, f"{bits:.3f}")
            for name, scores in (*others, ("this model", own))
            for split, bits in scores.items()
        ]
        yield from _table(("split", "model", "bits per byte"), rows)
    else:
        yield "It is not recorded beside the model."


def _bits_per_byte(summary: Json) -> list[tuple[str, dict[str, float]]]:
    """By model and split, as `compress` and `distil` keep them; the last is the own."""
    steps = summary.get("steps")
    if isinstance(steps, list):
        return [(step["name"], step["bits_per_byte"]) for step in steps]
    return list(summary.get("bits_per_byte", {}).items())


def _beside_ngrams(final: Json) -> Iterator[str]:
    rows = []
    for split, found in final["splits"].items():
        for name, scores in found.items():
            if isinstance(scores, dict):
                who = "this model" if name == "winner" else name
                bits = f"{scores['bits_per_byte']:.3f}"
                rows.append((split, who, bits, f"{scores['accuracy']:.3f}"))
    yield from _table(("split", "model", "bits per byte", "accuracy"), rows)
    yield ""
    yield "Accuracy is of the next token; n-grams are counted on the training data."


def _scores(scores: Iterable[tuple[str, str]]) -> Iterator[str]:
    rows = list(scores)
    if rows:
        yield from _table(("on the test files", ""), rows)


def _making(
    run: RunFolder, model: str, form: str, manifest: Json, made_by: str | None
) -> Iterator[str]:
    """The commands, by the names of the folders: where they lie is nobody's concern."""
    name = run.path.name
    yield "## How it was made"
    yield ""
    yield "```bash"
    if made_by is not None:
        yield made_by
    else:
        if "seed" in manifest:
            settings = shlex.quote(f"{name}/{run.config.name}")
            yield f"python -m jaxnas.run --config {settings} --out NEW"
        folder = shlex.quote(f"{name}/{model}")
        yield f"python -m jaxnas.run export {folder} --format {form}"
    yield "```"
    if manifest:
        versions = manifest.get("versions", {})
        used = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield ""
        seed = f"Seed {manifest['seed']}, on" if "seed" in manifest else "On"
        yield f"{seed} {manifest.get('device')}: {used}."


def _table(
    header: tuple[str, ...], rows: Iterable[tuple[object, ...]]
) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def _json(path: Path) -> Json:
    """A run's file; nothing where there is none that can be read."""
    try:
        content = read_json(path)
    except UsageError:
        return {}
    return content if isinstance(content, dict) else {}
