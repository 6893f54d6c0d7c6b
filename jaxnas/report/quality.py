"""How good the winner is beside what is obvious: n-grams, and a model of no search."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from arch import ArchitectureConfig
from jaxnas.report.tables import add_numbers, plain_table
from jaxnas.results.gain import Gain, Obvious
from jaxnas.results.summary import Final

_JUDGED_ON = "test"  # nothing was chosen on it


def show_quality(final: Final, console: Console) -> None:
    """The table of quality, the gain, and a warning for each that the winner loses to.

    A summary written before 0.1.0 has no obvious models.
    """
    console.print(quality_table(final))
    for line in (*gain_lines(final), *warnings(final)):
        console.print(line, soft_wrap=True)


def quality_table(final: Final) -> Table:
    """The winner beside n-grams and obvious models, on validation and test."""
    table = plain_table("Next-token quality", "split", "model")
    add_numbers(table, "bits/byte", "accuracy")
    for row in quality_rows(final):
        table.add_row(*row)
    return table


def quality_rows(final: Final) -> Iterator[tuple[str, str, str, str]]:
    """Split, model, bits per byte, accuracy; the winner is the last of its split."""
    for split, scores in final["splits"].items():
        for name, metrics in (
            ("token unigram", scores["unigram"]),
            ("token bigram", scores["bigram"]),
            *(
                (obvious_words(one), one["splits"][split])
                for one in final.get("baseline", [])
                if split in one["splits"]
            ),
            ("winner", scores["winner"]),
        ):
            figures = f"{metrics['bits_per_byte']:.3f}", f"{metrics['accuracy']:.4f}"
            yield split, name, *figures


def obvious_words(one: Obvious) -> str:
    """An obvious model, by what tells it apart; and its steps, if they are others."""
    shape = shape_words(ArchitectureConfig.from_dict(one["config"]))
    steps = f" ({one['steps']:,} steps)" if one["steps"] != one["planned"] else ""
    return f"obvious model {shape}{steps}"


def shape_words(model: ArchitectureConfig) -> str:
    """What tells obvious models apart."""
    tied = " tied" if model.tie_embeddings else ""
    return f"L{model.num_layers} H{model.hidden_dim}{tied}"


def gain_lines(final: Final) -> Iterator[str]:
    """What the winner gains, or that it was not compared."""
    gain = final.get("gain")
    if gain is not None:
        rival, winner = final["baseline"][gain["over"]], "the winner"
        if rival["steps"] != rival["planned"]:
            winner = f"the winner ({rival['planned']:,} steps)"
        over = f"the {obvious_words(rival)}"
        parts = [
            f"{each['bits_per_byte']:+.4f} bits/byte on {split}{_error(gain, split)}"
            for split, each in gain["splits"].items()
        ]
        yield f"gain         of {winner} over {over}: {', '.join(parts)}"
    for one in final.get("baseline", []):
        if one["reason"] is not None:
            yield f"gain         unknown over the {obvious_words(one)}: {one['reason']}"


def _error(gain: Gain, split: str) -> str:
    found = gain["splits"][split]
    error, windows = found["standard_error"], found["windows"]
    return "" if error is None else f" (standard error {error:.4f}, {windows} windows)"


def warnings(final: Final) -> Iterator[str]:
    """A line for each reference that is no worse than the winner on the test split."""
    scores = final["splits"][_JUDGED_ON]
    mine = scores["winner"]["bits_per_byte"]
    rivals = [
        ("the token unigram", scores["unigram"]["bits_per_byte"]),
        ("the token bigram", scores["bigram"]["bits_per_byte"]),
    ]
    gain = final.get("gain")
    if gain is not None:
        best = final["baseline"][gain["over"]]
        theirs = best["splits"][_JUDGED_ON]["bits_per_byte"]
        rivals.append((f"the {obvious_words(best)}", theirs))
    for name, theirs in rivals:
        if theirs <= mine:
            yield (
                f"warning: the winner loses to {name} on {_JUDGED_ON}: "
                f"{mine:.3f} against {theirs:.3f} bits/byte"
            )
