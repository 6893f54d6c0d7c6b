"""From a body of code to a model that other software runs, in one budget.

Search, a training from untrained weights, scores, export: each in a folder of its
own, each as the command of its name does it, each gone on with where it was stopped.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w
from rich.console import Console

from arch import ArchitectureConfig
from arch.spaces import SPACES
from jaxnas.benchmarks.bits import bits
from jaxnas.benchmarks.lines import cursors, drawn_lines, held_out, lines
from jaxnas.benchmarks.longest_match import matched_lines
from jaxnas.benchmarks.passes import interval
from jaxnas.clock import LEAST, Spent, seconds_of
from jaxnas.config import RunConfig, Settings
from jaxnas.data.named import read_source
from jaxnas.evaluation.costs import costs_of
from jaxnas.export.card import CARD, model_card
from jaxnas.export.model_folder import load_model
from jaxnas.latency.finalists import hardware_of
from jaxnas.pipeline.run import run
from jaxnas.pipeline.shippable import shippable
from jaxnas.pipeline.train import train
from jaxnas.pipeline.train_plan import TrainPlan
from jaxnas.presets import (
    LONGER,
    SHIPPED,
    default_space,
    is_space_file,
    longer_windows,
    vocabulary_for,
)
from jaxnas.report.tracking import Tracker, on_candidate
from jaxnas.source_name import source_without_folders
from jaxnas.storage.files import write_json, write_whole
from jaxnas.storage.inputs import read_json, read_text, read_toml
from jaxnas.storage.jsonl import Json
from jaxnas.storage.kinds import read_kept
from jaxnas.storage.run_folder import SCORES, RunFolder, existing_run, new_run
from jaxnas.wording import command

SEARCH_SHARE = 0.26  # of the budget
# Scores and export have a minute, but a tenth of the budget at most, and a twentieth
# at least: a long one leaves a large model.
SCORING, MOST_SCORING, LEAST_SCORING = 60.0, 0.1, 0.05
CURSORS, SHOWN, WINDOWS, CONTEXT = 200, 10, 512, 256
# Of the training, in whose minutes Muon is ahead: see experiments/code-small.
OPTIMIZER = "muon"
SPACE = "space.toml"
SAMPLES = "completions.md"


class Shipped(NamedTuple):
    """What other software loads.

    Attributes:
      path: a file, or a folder.
      form: as `export --format` calls it.
      notes: on what is not in it as the model holds it.
    """

    path: Path
    form: str
    notes: tuple[str, ...] = ()

    @property
    def mib(self) -> float:
        """Of the file, or of all files in the folder."""
        inside = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(one.stat().st_size for one in inside if one.is_file()) / 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShipPlan:
    """What `ship` was asked for.

    Attributes:
      data: source of the code.
      budget: time for all of it.
      max_size: MiB of the model, None for `SHIPPED` or the space's own.
      max_latency: ms, as `max_size`.
      vocab_size: tokens, None for as many as suit the corpus and the scale.
      fim: share of the last training's pieces that are rearranged, see `TrainPlan`.
      seed: of everything.
      exports: raises a UsageError for a model that is not to be found; None if any
        may be.
    """

    data: str
    budget: str
    max_size: float | None
    max_latency: float | None
    vocab_size: int | None
    fim: float
    seed: int
    exports: Callable[[ArchitectureConfig], object] | None


def ship(
    out: Path,
    plan: ShipPlan,
    backend: str,
    console: Console,
    tracker: Tracker | None = None,
) -> Path:
    """Searches, trains, scores; returns the folder of the better model.

    Where it is to fill in the middle, that is the trained one: no other can.

    Args:
      out: where all of it lies.
      plan: see `ShipPlan`.
      backend: JAX's, which decides the space and the scale.
      console: to print to.
      tracker: told of candidates and of the training.
    """
    seconds = seconds_of(plan.budget)
    config = _search_settings(out, plan, backend, SEARCH_SHARE * seconds)
    after = min(MOST_SCORING, max(LEAST_SCORING, SCORING / seconds))
    trained_by = (1 - after) * seconds
    ahead = trained_by - SEARCH_SHARE * seconds
    _search(out / "search", config, ahead, console, tracker)
    left = trained_by - _spent(out / "search")
    training = out / "training"
    searched, trained = _train(training, plan, config, backend, left, console, tracker)
    folder = "search" if searched < trained and not plan.fim else "training"
    better = out / folder
    model = better / "model"
    console.print(f"the model is that of the {folder}")
    if folder == "training" and searched < trained:
        console.print(
            f"the search's has {searched:.3f} bits per byte, this one {trained:.3f}, "
            "but no tokens to fill in the middle",
            soft_wrap=True,
        )
    if not (out / SCORES).exists():
        scores, samples = _scored(model, plan)
        scores["of"] = folder
        write_whole(out / SAMPLES, samples)
        write_json(out / SCORES, scores)
    return model


def _search_settings(
    out: Path, plan: ShipPlan, backend: str, seconds: float
) -> RunConfig:
    """Of the search; the space is written as a file, without what cannot be shipped."""
    space: str = default_space(backend)
    wanted: dict[str, Any] = {
        name: value
        for name, value in (
            ("max_size", plan.max_size),
            ("max_latency", plan.max_latency),
            ("vocab_size", _vocabulary(out / "search", plan, space)),
        )
        if value is not None
    }
    base = RunConfig(space=space, **SHIPPED.get(space, {}) | wanted).resolve(backend)
    if plan.exports is not None:
        path = out / SPACE
        if not path.exists():
            write_whole(path, shippable(SPACES[space], plan.exports, base.vocab_size))
        space = str(path)
    return RunConfig(
        space=space,
        data=plan.data,
        budget=f"{seconds:.0f}s",
        # As long as the training's, as many tokens a step: what is best in short
        # windows is not in long ones.
        **longer_windows(base.window, base.eval_windows, base.final_windows),
        batch=max(1, base.batch // LONGER),
        vocab_size=base.vocab_size,
        max_size=base.max_size,
        max_latency=base.max_latency,
        final_steps=0,  # it is trained from untrained weights instead
        baseline=False,
        seed=plan.seed,
    )


def _vocabulary(search: Path, plan: ShipPlan, space: str) -> int | None:
    """Tokens of the vocabulary; a search that has begun keeps its own."""
    begun = search / "config.toml"
    if begun.exists():
        return int(read_toml(begun)["vocab_size"])
    if plan.vocab_size is not None or space not in SHIPPED:
        return plan.vocab_size
    return vocabulary_for(sum(len(one.content) for one in read_source(plan.data).files))


def _spent(search: Path) -> float:
    """Seconds that the search took, in all processes."""
    spent: Spent = read_kept(search / "budget.json", Spent)
    return spent["spent"]


def _search(
    path: Path,
    config: RunConfig,
    ahead: float,
    console: Console,
    tracker: Tracker | None,
) -> None:
    """Searches, unless that is done."""
    if (path / "summary.json").exists():
        return
    console.rule("search")
    resumed = (path / "config.toml").exists()
    copy = path.parent / SPACE
    text = read_text(copy) if is_space_file(config.space or "") else None
    opened = (
        existing_run(path)
        if resumed
        else new_run(path, "search", config.to_toml(), text)
    )
    with opened as folder:
        run(
            folder,
            config,
            resumed=resumed,
            began=time.monotonic(),
            on_candidate=on_candidate(tracker),
            ahead=ahead,
        )


def _train(
    path: Path,
    plan: ShipPlan,
    config: RunConfig,
    backend: str,
    left: float,
    console: Console,
    tracker: Tracker | None,
) -> tuple[float, float]:
    """Bits per byte on validation of the search's model and of the trained one.

    On the same windows. The test split is for what is told.
    """
    summary = path / "summary.json"
    if not summary.exists():
        console.rule("training")
        settings = config.resolve(backend)
        winner = path.parent / "search" / "model"
        begun = path / "config.toml"
        # One that an earlier version began keeps its optimizer.
        resumed = begun.exists()
        kept = read_toml(begun) if resumed else {}
        wanted = TrainPlan(
            model=str(winner.resolve()),
            quantization=_finer(winner, settings),
            data=plan.data,
            fresh=True,
            fim=plan.fim,
            tokens=None,
            budget=f"{max(LEAST, left):.0f}s",
            window=settings.window,
            batch=LONGER * settings.batch,
            accumulate=1,
            learning_rate=settings.learning_rate,
            optimizer=str(kept.get("optimizer", OPTIMIZER)),
            evaluate_every=500,
            eval_windows=settings.eval_windows,
            final_windows=settings.final_windows,
            patience=None,
            seed=plan.seed,
        )
        values = {k: v for k, v in dataclasses.asdict(wanted).items() if v is not None}
        opened = (
            existing_run(path)
            if resumed
            else new_run(path, "train", tomli_w.dumps(values))
        )
        with opened as folder:
            train(folder, wanted, console, time.monotonic(), tracker)
    found = read_json(summary)
    searched = found["before"]["validation"]
    trained = found["splits"]["validation"]["winner"]
    return float(searched["bits_per_byte"]), float(trained["bits_per_byte"])


def _finer(model: Path, settings: Settings) -> str | None:
    """int8 in place of the winner's int4, where the limits have room for it.

    After a short training four bits cost less than its noise; after a long one they
    cost what experiments/compress says, and eight cost nothing.
    """
    winner = load_model(model).config
    if winner.quantization != "int4":
        return None
    finer = dataclasses.replace(winner, quantization="int8")
    hardware = hardware_of(settings, RunFolder(model.parent).manifest)
    costs = costs_of(finer, hardware, settings.latency)
    fits = costs.size_mib <= settings.max_size
    within = settings.max_latency is None or costs.latency_ms <= settings.max_latency
    return "int8" if fits and within else None


def _scored(model: Path, plan: ShipPlan) -> tuple[Json, str]:
    """Scores on the test split, and some completions as they were drawn."""
    loaded = load_model(model)
    places = cursors(held_out(plan.data), CURSORS, plan.seed)
    scores: Json = {
        "bpb": bits(loaded, plan.data, WINDOWS),
        "line": lines(loaded, places, CONTEXT),
        "ngram": matched_lines(loaded, plan.data, places, CONTEXT),
    }
    shown = places[:: max(1, len(places) // SHOWN)][:SHOWN]
    parts = [f"Completions of held-out lines, as they were drawn ({model}).\n"]
    for place, text in zip(shown, drawn_lines(loaded, shown, CONTEXT), strict=True):
        above = "\n".join(place.before.split("\n")[-3:])
        parts.append(
            f"```\n{above}\n```\nthe model: `{text!r}`\n\nthe file: `{place.line!r}`\n"
        )
    return scores, "\n".join(parts)


def score_rows(scores: Json) -> list[tuple[str, str]]:
    """Each score in words."""
    bpb, line = scores["bpb"], scores["line"]
    match, number = line["exact_match"], line["cursors"]
    low, high = interval(match, number)
    rows = [
        ("bits per byte", f"{bpb['bits_per_byte']:.3f}"),
        ("of a token bigram", f"{bpb['bigram']:.3f}"),
        ("next tokens right", f"{bpb['accuracy']:.3f}"),
        (f"next lines right, of {number}", f"{match:.3f} ({low:.3f} to {high:.3f})"),
        ("edit similarity of a line", f"{line['edit_similarity']:.3f}"),
    ]
    if ngram := scores.get("ngram"):  # folders of earlier versions have none
        rows += [
            ("lines right by an n-gram", f"{ngram['exact_match']:.3f}"),
            ("edit similarity of those", f"{ngram['edit_similarity']:.3f}"),
        ]
    return rows


def shown_command(plan: ShipPlan, runtime: str) -> str:
    """What was asked for, for a shell; of the data's paths the names alone."""
    limits = [
        part
        for name in ("max_size", "max_latency", "vocab_size", "fim")
        if (value := getattr(plan, name))
        for part in (f"--{name.replace('_', '-')}", f"{value:g}")
    ]
    return command(
        *("ship", source_without_folders(plan.data), "--budget", plan.budget),
        *(*limits, "--seed", plan.seed, "--runs-on", runtime),
    )


def close(
    out: Path,
    plan: ShipPlan,
    model: Path,
    shipped: Shipped,
    runtime: str,
    console: Console,
) -> None:
    """Writes the model's card, and says what there is and how to use it."""
    rows = score_rows(read_json(out / SCORES))
    config = load_model(model).config
    made_by = shown_command(plan, runtime)
    form, notes, name = shipped.form, shipped.notes, shipped.path.name
    text = model_card(model, config, form, notes, rows, made_by, name)
    write_whole(out / CARD, text)
    console.rule("shipped")
    for words, figure in rows:
        console.print(f"{words:<28}{figure}")
    for name, words in (
        ("model", f"{shipped.path} ({shipped.mib:.2f} MiB)"),
        ("card", str(out / CARD)),
        ("completions", str(out / SAMPLES)),
        ("editor", command("serve", model)),
    ):
        console.print(f"{name:<11} {words}", soft_wrap=True)
    if (said := _behind(read_json(out / SCORES))) is not None:
        console.print(said, soft_wrap=True)


def _behind(scores: Json) -> str | None:
    """A warning where copying completes more lines than the model."""
    ngram = scores.get("ngram")
    if ngram is None or ngram["exact_match"] <= scores["line"]["exact_match"]:
        return None
    return (
        "warning: the model gets fewer lines right than an n-gram that copies: more "
        "code, or more time (--budget), would help"
    )
