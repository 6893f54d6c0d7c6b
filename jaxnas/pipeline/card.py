"""A shipped model's card: what it is, what it was made of, what it is worth."""

from pathlib import Path
from typing import NamedTuple

from arch import ArchitectureConfig
from arch.cost import parameters
from jaxnas.report.words import describe
from jaxnas.storage.jsonl import Json


class Shipped(NamedTuple):
    """What was made.

    Attributes:
      config: the model's.
      path: of what other software loads: a file, or a folder.
      use: a command, or a line of code.
      made_by: the command that made all of it.
      data: what the run's manifest says of its corpus.
      scores: of `jaxnas.benchmarks`, by name.
    """

    config: ArchitectureConfig
    path: Path
    use: str
    made_by: str
    data: Json
    scores: Json

    @property
    def mib(self) -> float:
        """Of the file, or of all files in the folder."""
        inside = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(one.stat().st_size for one in inside if one.is_file()) / 2**20


def score_rows(scores: Json) -> list[tuple[str, str]]:
    """Each score in words."""
    bpb, line = scores["bpb"], scores["line"]
    match, error = line["exact_match"], line["exact_match_error"]
    return [
        ("bits per byte", f"{bpb['bits_per_byte']:.3f}"),
        ("of a token bigram", f"{bpb['bigram']:.3f}"),
        ("next tokens right", f"{bpb['accuracy']:.3f}"),
        (f"next lines right, of {line['cursors']}", f"{match:.3f} +- {error:.3f}"),
        ("edit similarity of a line", f"{line['edit_similarity']:.3f}"),
    ]


def card(name: str, shipped: Shipped, samples: str) -> str:
    """The card as Markdown.

    Args:
      name: of the model.
      shipped: what was made.
      samples: file with completions, beside the card.
    """
    data = shipped.data
    size = f"{parameters(shipped.config):,} parameters, {shipped.mib:.2f} MiB"
    corpus = f"{data['files_kept']:,} files, {data['bytes'] / 1e6:.1f} MB"
    rows = [f"| {words} | {figure} |" for words, figure in score_rows(shipped.scores)]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"A language model for code: {describe(shipped.config)}, {size}.",
            "",
            f"Trained on {data['source']}: {corpus}, of which a tenth is kept for "
            f"validation and a tenth for the test. SHA-256 of the corpus: "
            f"`{data['corpus_hash']}`. What its licences allow holds for the model.",
            "",
            "| on the test files | |",
            "| --- | --- |",
            *rows,
            "",
            f"Completions, as they were drawn: {samples}.",
            "",
            f"Use: `{shipped.use}`",
            "",
            f"Made by: `{shipped.made_by}`",
            "",
        ]
    )
