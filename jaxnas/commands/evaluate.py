"""`evaluate MODEL ...`: what saved models are worth on files not trained on."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console
from rich.progress import Progress, TaskID

from jaxnas.commands.options import MANY, Parser, check_flags, file_to_write, whole
from jaxnas.errors import UsageError
from jaxnas.storage.jsonl import Json
from jaxnas.storage.run_folder import model_in

if TYPE_CHECKING:  # it takes seconds
    from jaxnas.export.model_folder import LoadedModel

Report: TypeAlias = Callable[[int, int], None]  # what is done, of how much
Scorer: TypeAlias = "Callable[[LoadedModel, Report], Json | None]"

# What a benchmark's columns are, and where each figure stands in its scores.
_COLUMNS = {
    "bpb": {"bits/byte": "bits_per_byte", "bigram": "bigram", "xz": "xz"},
    "line": {
        "lines": "exact_match",
        "n-gram": "ngram",
        "alike": "edit_similarity",
        "saved": "saved",
    },
    "fim": {"fims": "exact_match", "alike": "edit_similarity", "saved": "saved"},
    "syntax": {"parses": "parses", "repeats": "repeats"},
    "humaneval": {"HumanEval @1": "pass@1", "@10": "pass@10"},
    "mbpp": {"MBPP @1": "pass@1", "@10": "pass@10"},
}
BENCHMARKS = tuple(_COLUMNS)
_TABLES = (("bpb", "line"), ("fim", "syntax"), ("humaneval", "mbpp"))  # 80 wide
_PROBLEMS, _LINES = ("humaneval", "mbpp"), ("line", "fim")
_PYTHON = (".py", ".pyi")
# Of each setting that is a number.
_BOUNDS: dict[str, dict[str, Any]] = {
    "windows": {"kind": int, "least": 1, "most": 10**6},
    "window": {"kind": int, "least": 1},
    "cursors": {"kind": int, "least": 1, "most": 10**6},
    "context": {"kind": int, "least": 1, "most": 10**6},
    "samples": {"kind": int, "least": 1, "most": 10**4},
    "max_new": {"kind": int, "least": 1, "most": 10**4},
    "problems": {"kind": int, "least": 1},
    "confidence": {"kind": float, "least": 0, "most": 1},
    "temperature": {"kind": float, "above": 0, "most": 100},
    "top_p": {"kind": float, "above": 0, "most": 1},
}

_ABOUT = """\
Scores models on the test files of a source. MODEL is a folder with a saved model, or
a run's. bpb: bits per byte and next-token accuracy, beside token n-grams and xz; line:
how often the likeliest tokens behind a cursor are the file's next line, beside what
followed the longest match in the training files, and the share of characters that
saves; fim: the same by models that were trained to read what stands
behind the line, too; syntax: how many completions parse, and repeat themselves;
humaneval, mbpp: pass@1 and pass@10 of what the model writes, run in a sandbox.
"""


def main(arguments: list[str]) -> None:
    """Prints a table, a row a model."""
    options = _parser().parse_args(arguments)
    wanted = options.on.split(",")
    for name in wanted:
        if name not in BENCHMARKS:
            raise UsageError(f"--on: no {name!r}: choose {', '.join(BENCHMARKS)}")
    check_flags(vars(options), _BOUNDS, open_=("problems", "window"))
    _check_problems(options, wanted)
    # Only now, for it takes seconds.
    from jaxnas.report.steps import bars_on
    from jaxnas.report.tables import plain_console
    from jaxnas.runtime import set_up

    set_up()
    console = plain_console()
    with bars_on(console) as bars:
        found = _scores(options, wanted, bars)
    _print(found, options, wanted, console)
    if options.out is not None:
        about = {
            name: getattr(options, name)
            for name in ("data", "seed", "context", "confidence", "temperature")
        }
        options.out.write_text(json.dumps(about | {"models": found}, indent=2) + "\n")


def _check_problems(options: argparse.Namespace, wanted: list[str]) -> None:
    """Raises a UsageError for problems without their file, or that may not run."""
    for name in [one for one in _PROBLEMS if one in wanted]:
        if getattr(options, name) is None:
            raise UsageError(f"--on {name} needs its file: --{name} PATH")
        if not options.execute:
            raise UsageError(f"--on {name} runs what the model writes: give --execute")


def _scores(
    options: argparse.Namespace, wanted: list[str], bars: Progress
) -> dict[str, Json]:
    """Of each model, by its path."""
    from arch.cost import size_mib
    from jaxnas.export.model_folder import load_model

    models = {str(path): load_model(model_in(path)) for path in options.models}
    scorers = _scorers(options, wanted)
    found: dict[str, Json] = {}
    for name, model in models.items():
        found[name] = {"size_mib": size_mib(model.config)}
        for which, score in scorers.items():
            bar = bars.add_task(f"{name} {which}", total=None)

            def report(done: int, total: int, bar: TaskID = bar) -> None:
                bars.update(bar, completed=done, total=total)

            scores = score(model, report)
            if scores is not None:
                found[name][which] = scores
    return found


def _scorers(options: argparse.Namespace, wanted: list[str]) -> dict[str, Scorer]:
    """How each benchmark scores a model; None for one that it is not for."""
    from jaxnas.benchmarks.bits import bits
    from jaxnas.benchmarks.form import form
    from jaxnas.benchmarks.lines import cursors, held_out, lines
    from jaxnas.benchmarks.longest_match import matched_lines
    from jaxnas.data.fim import fim_ids

    found: dict[str, Scorer] = {}
    if "bpb" in wanted:
        found["bpb"] = lambda model, _: bits(
            model, options.data, options.windows, options.window
        )
    if {*_LINES, "syntax"} & set(wanted):
        files = held_out(options.data)
        places = cursors(files, options.cursors, options.seed)
        python = [file for file in files if file.name.endswith(_PYTHON)]
        in_python = cursors(python, options.cursors, options.seed)

    def line(filling: bool) -> Scorer:
        def score(model: "LoadedModel", report: Report) -> Json | None:
            if filling and fim_ids(model.tokenizer) is None:
                return None
            found = lines(
                model, places, options.context, report, filling, options.confidence
            )
            if not filling:
                ngram = matched_lines(model, options.data, places, options.context)
                found["ngram"] = ngram["exact_match"]
                found["ngram_edit_similarity"] = ngram["edit_similarity"]
            return found

        return score

    for name in [one for one in _LINES if one in wanted]:
        found[name] = line(name == "fim")
    if "syntax" in wanted:
        found["syntax"] = lambda model, report: form(
            model, in_python, options.context, report
        )
    for name in [one for one in _PROBLEMS if one in wanted]:
        found[name] = _passes(options, name)
    return found


def _passes(options: argparse.Namespace, name: str) -> Scorer:
    """pass@k on a file's problems; errors of the file and the sandbox come first."""
    from arch.decoding.sampling import Sampling
    from jaxnas.benchmarks.passes import passes
    from jaxnas.benchmarks.problems import READERS
    from jaxnas.benchmarks.sandbox import LIMITS, find_sandbox

    problems = READERS[name](getattr(options, name))[: options.problems]
    sandbox = find_sandbox()
    sampling = Sampling(temperature=options.temperature, top_p=options.top_p)
    return lambda model, report: passes(
        model,
        problems,
        sandbox,
        samples=options.samples,
        sampling=sampling,
        max_new=options.max_new,
        limits=LIMITS,
        seed=options.seed,
        report=report,
    )


def _print(
    found: dict[str, Json],
    options: argparse.Namespace,
    wanted: list[str],
    console: Console,
) -> None:
    from jaxnas.report.tables import add_numbers, plain_table

    for group in _TABLES:
        order = [name for name in group if name in wanted]
        if not order:
            continue
        table = plain_table(_title(order, options))
        table.add_column("model", overflow="fold", min_width=16)
        titles = (title for name in order for title in _COLUMNS[name])
        add_numbers(table, "MiB", *titles)
        for name, one in found.items():
            cells = [
                _cell(one.get(which, {}).get(figure))
                for which in order
                for figure in _COLUMNS[which].values()
            ]
            table.add_row(name, f"{one['size_mib']:.2f}", *cells)
        console.print(table)
    for line in _notes(found, options):
        console.print(line, soft_wrap=True)


def _title(order: list[str], options: argparse.Namespace) -> str:
    files = [str(getattr(options, name)) for name in order if name in _PROBLEMS]
    return f"On {' and '.join(files) or f'the test files of {options.data}'}"


def _cell(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"


def _notes(found: dict[str, Json], options: argparse.Namespace) -> Iterator[str]:
    """What the columns mean, with their errors."""
    if any("bpb" in one for one in found.values()):
        yield "bigram, xz: bits/byte of a token bigram and of xz on the same files"
    scores = [one[name] for one in found.values() for name in _LINES if name in one]
    if scores:
        yield (
            f"lines: share of {options.cursors} lines at most that are completed "
            f"exactly, {_exact_error(scores)}; n-gram: by what followed the longest "
            f"match in training; fims: as lines, with what stands behind the line; "
            f"alike: edit similarity; saved: share of characters in lines that are "
            f"right and held {options.confidence:g} likely or more"
        )
    if any("syntax" in one for one in found.values()):
        yield (
            "parses: share of completions that Python can read on from; repeats: "
            "share of which half or more came before in them"
        )
    for model, one in found.items():
        for name in [which for which in _PROBLEMS if which in one]:
            low, high = one[name]["pass@1_interval"]
            long = one[name]["too_long"]
            room = f"; {long} prompts leave the window no room" if long else ""
            yield (
                f"{model} {name}: {one[name]['problems']} problems, "
                f"{one[name]['samples']} samples each, in {one[name]['sandbox']}; "
                f"pass@1 95 %: {low:.3f} to {high:.3f}{room}"
            )


def _exact_error(scores: Sequence[Json]) -> str:
    """How far shares of exact lines may be off; of none there is no deviation."""
    if worst := max(one["exact_match_error"] for one in scores):
        return f"standard error at most {worst:.3f}"
    fewest = min(one["cursors"] for one in scores)
    return f"where none is, 95 % sure to be below {1 - 0.05 ** (1 / fewest):.3f}"


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run evaluate",
        usage="python -m jaxnas.run evaluate MODEL ... [--data SOURCE] [settings]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add("models", metavar="MODEL", type=Path, nargs="+", help="a model's folder")
    add("--on", default="bpb,line", metavar="A,B", help=f"[{','.join(BENCHMARKS)}]")
    add("--data", default="stdlib", metavar="SOURCE", help="as of a search [stdlib]")
    add("--windows", type=whole(MANY), default=512, metavar="N", help="of bpb [512]")
    add(
        "--window",
        type=whole(MANY),
        metavar="N",
        help="their tokens at most [the model's]",
    )
    add(
        "--cursors",
        type=whole(MANY),
        default=200,
        metavar="N",
        help="of line, syntax [200]",
    )
    add(
        "--context",
        type=whole(),
        default=256,
        metavar="N",
        help="tokens before a cursor, at most [256]",
    )
    add("--seed", type=whole(), default=0, metavar="N", help="of the cursors [0]")
    add(
        "--confidence",
        type=float,
        default=0.5,
        metavar="X",
        help="from which an editor shows a line [0.5]",
    )
    _add_problems(parser)
    add("--out", type=file_to_write, metavar="FILE", help="the figures as JSON")
    return parser


def _add_problems(parser: Parser) -> None:
    """Flags of HumanEval and MBPP."""
    add = parser.add_argument
    add("--execute", action="store_true", help="run what models write, in a sandbox")
    add("--humaneval", type=Path, metavar="PATH", help="HumanEval.jsonl[.gz]")
    add("--mbpp", type=Path, metavar="PATH", help="mbpp.jsonl, sanitized-mbpp.json")
    add("--problems", type=whole(), metavar="N", help="the first ones only")
    add(
        "--samples",
        type=whole(MANY),
        default=20,
        metavar="N",
        help="of a problem [20]",
    )
    add("--temperature", type=float, default=0.2, metavar="X", help="of samples [0.2]")
    add("--top-p", type=float, default=0.95, metavar="X", help="of samples [0.95]")
    add(
        "--max-new",
        type=whole(MANY),
        default=256,
        metavar="N",
        help="their tokens [256]",
    )
