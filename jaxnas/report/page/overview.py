"""What was asked, what came out, and how good it is."""

from collections.abc import Iterator, Sequence
from typing import NotRequired, TypedDict

from jaxnas.clock import clock_words
from jaxnas.config import Settings
from jaxnas.report.drawing import drawing_svg
from jaxnas.report.page.document import tiles_of
from jaxnas.report.page.tags import table, tag, text
from jaxnas.report.page.view import PageView
from jaxnas.report.quality import gain_lines, quality_rows, warnings
from jaxnas.report.tables import mebibytes, millions
from jaxnas.report.words import describe, phases_in_words
from jaxnas.results.record import Record
from jaxnas.wording import command, counted


class Completion(TypedDict):
    """A held-out line.

    Attributes:
      before: what stands before it.
      written: the line that was written behind that, without white space around it.
      line: the file's own.
      text: what was written, as it stands: with what begins it.
    """

    before: str
    written: str
    line: str
    text: NotRequired[str]  # earlier versions did not keep it


def tiles(view: PageView) -> str:
    """The few figures that matter most."""
    best, config = view.best, view.record.config
    if best is None:
        return _none_yet(len(view.record.results))
    summary, costs = view.record.summary, best.costs
    shown = []
    if summary is not None:
        found = summary["final"]["splits"]["test"]["winner"]
        shown += [
            ("bits per byte", f"{found['bits_per_byte']:.3f}", "on the test split"),
            ("next tokens right", f"{found['accuracy']:.1%}", "on the test split"),
        ]
        if (gain := summary["final"].get("gain")) is not None:
            each = gain["splits"]["test"]
            error = each["standard_error"]
            words = "" if error is None else f"± {error:.3f}, "
            saved = f"{each['bits_per_byte']:+.3f}"
            shown.append(("saved bits per byte", saved, f"{words}over a plain Llama"))
    else:
        bits, accuracy = best.metrics.bits_per_byte, best.metrics.accuracy
        shown += [
            ("bits per byte", f"{bits:.3f}", "so far, on validation"),
            ("next tokens right", f"{accuracy:.1%}", "so far, on validation"),
        ]
    most = config.max_latency
    limit = "no limit" if most is None else f"of {most:g} allowed"
    parameters = f"{millions(costs.stored_parameters)} parameters"
    shown += [
        ("MiB", mebibytes(costs.size_mib), f"of {config.max_size:g}, {parameters}"),
        ("milliseconds", f"{costs.latency_ms:.2f}", f"predicted, {limit}"),
    ]
    return tiles_of(shown)


def winner_words(view: PageView) -> str:
    """The winner in a line, and its drawing."""
    best = view.best
    if best is None:
        return ""
    name = "Best so far " if view.record.summary is None else "Winner "
    words = tag("p", name, view.link(best.id), " ", text(describe(best.config)))
    return words + tag("div", drawing_svg(best.config), class_="drawings")


def asked(record: Record) -> str:
    """The settings that decide what was looked for."""
    rows = [(tag("b", text(name)), text(words)) for name, words in _asked(record)]
    return table(("", ""), rows)


def _asked(record: Record) -> Iterator[tuple[str, str]]:
    config, manifest = record.config, record.manifest
    yield "space", config.space
    yield "limits", limits_words(config)
    yield (
        "search",
        f"{config.strategy}, {counted(config.generations, 'generation')} of "
        f"{config.population}, seed {config.seed}",
    )
    if config.budget is not None:
        clock = record.clock
        used = "" if clock is None else f", {clock_words(clock['spent'])} used"
        yield "budget", f"{config.budget}{used}"
    yield "training", f"{phases_in_words(config)} a candidate"
    if data := manifest.get("data"):
        yield (
            "data",
            f"{config.data}: {data['files_kept']:,} files, "
            f"{data['bytes'] / 1e6:.1f} MB, {data['vocab_size']:,} tokens",
        )
    if manifest:
        versions = manifest.get("versions", {})
        yield (
            "machine",
            f"{manifest.get('device')}, {manifest.get('cores')} cores, "
            f"Python {manifest.get('python')}, jax {versions.get('jax')}",
        )
    folder = record.folder
    # The user's own file may be another by now.
    space = ("--space", folder.space) if folder.space.exists() else ()
    others = (*space, *record.config.code_flags)
    yield "again", command("--config", folder.config, *others, "--out", "NEW")


def limits_words(config: Settings) -> str:
    """1 MiB and 1.5 ms."""
    most = config.max_latency
    return f"{config.max_size:g} MiB" + ("" if most is None else f" and {most:g} ms")


def quality(record: Record) -> str:
    """The winner beside n-grams and obvious models, with what it gains."""
    if record.summary is None:
        return tag(
            "p",
            "The winner is scored on held-out files, beside n-grams and what one "
            "would train without a search, when the run ends.",
        )
    final = record.summary["final"]
    rows = [[text(cell) for cell in row] for row in quality_rows(final)]
    marked = ["mark" if row[1] == "winner" else None for row in rows]
    header = ("split", "model", "bits/byte", "accuracy")
    lines = [tag("p", text(line)) for line in gain_lines(final)]
    if any(row[1].startswith("obvious") for row in rows):
        about = (
            "An obvious model is Llama-like, of usual proportions, and trains as long."
        )
        lines.append(tag("p", about, class_="small"))
    lines += [tag("p", text(line), class_="warning") for line in warnings(final)]
    return table(header, rows, numbers=2, classes=marked) + "".join(lines)


def completions(shown: Sequence[Completion]) -> str:
    """Held-out lines as the winner wrote them."""
    if not shown:
        return ""
    cards = [
        tag(
            "div",
            tag(
                "pre",
                text(one["before"]),
                *_marked(one),
            ),
            tag("p", "the file: ", tag("code", text(one["line"])), class_="small"),
            class_="completion right"
            if one["written"] == one["line"]
            else "completion",
        )
        for one in shown
    ]
    right = sum(one["written"] == one["line"] for one in shown)
    about = (
        f"Lines of test files, drawn by chance: the likeliest tokens, marked, behind "
        f"what stands before. {right} of {len(shown)} are the file's own line."
    )
    return tag("p", about) + tag("div", *cards, class_="completions")


def _marked(one: Completion) -> tuple[str, str]:
    """The white space that begins what was written, and the rest of it, marked."""
    written = one.get("text", "\n" + one["written"])
    shown = written.lstrip()
    space = written[: len(written) - len(shown)] or ("" if shown else "\n")
    return text(space), tag("mark", text(shown or "(nothing)"))


def _none_yet(number: int) -> str:
    if number == 0:
        return tag("p", "No candidate has ended yet.")
    why = tag("a", "why", href="#failures")
    said = f"None of {number:,} candidates has succeeded"
    return tag("p", f"{said}: {why}.", class_="warning")
