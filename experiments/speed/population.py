"""How long a population of distinct small transformers takes to train.

    python experiments/speed/population.py [--scenario NAME ...] [--members N ...]
        [--steps N ...] [--arms NAME ...] [--repeats N] [--out FILE] [--small]

Every contender trains the same configs on the same tokens, in a process of its
own, in turn, round after round; medians count. Ours runs twice a round, with an
empty compilation cache and with the one it left. Prints a table for each
scenario, with ratios to arm (a): above 1 is slower than ours. An arm without a
cache has one time, which stands in both ratios. "loss" is the mean over models
of the last step's, "apart" its mean distance to the Flax arm's, model by model.
"""

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path

from contenders.arms import ARMS, measure, spawn
from contenders.scenarios import SCENARIOS, Scenario

from jaxnas.commands.options import file_to_write

OURS, REFERENCE = "planned", "flax"
PACKAGES = ("jaxnas", "jax", "jaxlib", "flax", "optax", "numpy", "torch")


def race(arms: list[str], words: list[str], repeats: int, limit: float) -> dict:
    """Every arm's runs: name -> {"cold": [...], "warm": [...], "unable": reason}."""
    found: dict = {name: {"cold": [], "warm": [], "unable": None} for name in arms}
    for turn in range(repeats):
        first = turn % len(arms)  # no arm always follows the same one
        for name in arms[first:] + arms[:first]:
            if not found[name]["unable"]:
                run_turn(name, found[name], words, limit)
    for runs in found.values():
        for kind in ("cold", "warm"):
            if runs[kind]:
                times = [run["seconds"] for run in runs[kind]]
                runs[f"{kind}_seconds"] = statistics.median(times)
    return found


def run_turn(name: str, runs: dict, words: list[str], limit: float):
    """An arm's runs of one round: cold, and warm if it keeps its programs."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) if ARMS[name].cached else None
        for kind in ("cold", "warm") if cache else ("cold",):
            result = spawn(name, words, cache, limit)
            if reason := result.get("unable"):
                runs["unable"], runs["crashed"] = reason, "crashed" in result
                return
            runs[kind].append(result)


def check_models(found: dict):
    """Stops if two arms did not train models of the same size."""
    counts = {
        name: runs["cold"][0]["parameters"]
        for name, runs in found.items()
        if runs["cold"] and "parameters" in runs["cold"][0]
    }
    for (one, its), (other, theirs) in itertools.combinations(counts.items(), 2):
        if its != theirs:
            raise SystemExit(f"{one} and {other} count parameters {its} and {theirs}")


def table_of(title: str, found: dict):
    """Seconds, their ratios to arm (a), and losses to check the arms by."""
    from jaxnas.report.tables import add_numbers, plain_table

    table = plain_table(title)
    table.add_column("arm", no_wrap=True)
    add_numbers(table, "cold s", "warm s", "cold/(a)", "warm/(a)", "loss", "apart")
    ours = found.get(OURS, {})
    reference = found.get(REFERENCE, {}).get("cold")
    for name, runs in found.items():
        if runs["unable"]:
            table.add_row(ARMS[name].title, *["-"] * 6)
            continue
        cold, warm = runs["cold_seconds"], runs.get("warm_seconds")
        losses = runs["cold"][0]["losses"]
        table.add_row(
            ARMS[name].title,
            f"{cold:.2f}",
            "-" if warm is None else f"{warm:.2f}",
            ratio(cold, ours.get("cold_seconds")),
            ratio(cold if warm is None else warm, ours.get("warm_seconds")),
            f"{statistics.mean(losses):.3f}",
            apart(losses, reference[0]["losses"]) if reference else "-",
        )
    return table


def ratio(seconds: float, to: float | None) -> str:
    """Two digits behind the point, or a dash where arm (a) did not run."""
    return "-" if to is None else f"{seconds / to:.2f}"


def apart(losses: list[float], others: list[float]) -> str:
    """The mean distance of two arms' losses, model by model."""
    pairs = zip(losses, others, strict=True)
    return f"{statistics.mean(abs(a - b) for a, b in pairs):.3f}"


def notes_on(found: dict) -> list[str]:
    """What there is to say of how each arm ran, or why it did not."""
    return [f"{ARMS[name].title}: {note_of(runs)}" for name, runs in found.items()]


def note_of(runs: dict) -> str:
    """A phrase."""
    if runs["unable"]:
        return f"not run: {runs['unable']}"
    cold = runs["cold"]
    seconds = statistics.median(run["import_seconds"] for run in cold)
    imports = f"imports {seconds:.1f} s apart"
    if "threads" in cold[0]:
        threads = ", ".join(str(run["threads"]) for run in cold)
        return f"{imports}; threads {threads}"
    if "init_seconds" in cold[0]:
        init, first, others = (
            statistics.median(run[f"{part}_seconds"] for run in cold)
            for part in ("init", "first_step", "other_steps")
        )
        parts = f"init {init:.1f} s, first steps {first:.1f} s, others {others:.1f} s"
        return f"{imports}; {parts}"
    return imports


def machine() -> dict:
    """What the figures were taken on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "versions": versions,
    }


def parse() -> argparse.Namespace:
    """The command line; with --arm, the arguments of one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = list(SCENARIOS)
    parser.add_argument(
        "--scenario", action="append", choices=known, help="may be repeated"
    )
    parser.add_argument("--members", type=int, nargs="+", help="configs, 16 or 24")
    parser.add_argument("--steps", type=int, nargs="+", help="of each model")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--limit", type=float, default=3600, help="seconds a run")
    parser.add_argument("--out", type=file_to_write, help="the figures as JSON")
    parser.add_argument("--small", action="store_true", help="short, to try it out")
    parser.add_argument("--arm", choices=list(ARMS), help="one run, in this process")
    return parser.parse_args()


def grid(options: argparse.Namespace) -> list[tuple[str, Scenario]]:
    """The scenarios asked for, by all members and steps asked for."""
    if options.small:
        return [("small", SCENARIOS["small"])]
    names = options.scenario or [name for name in SCENARIOS if name != "small"]
    return [
        (name, dataclasses.replace(SCENARIOS[name], members=members, steps=steps))
        for name in names
        for members in options.members or [SCENARIOS[name].members]
        for steps in options.steps or [SCENARIOS[name].steps]
    ]


def main():
    """Prints the tables; writes their figures as JSON if asked to."""
    options = parse()
    chosen = grid(options)
    if options.arm:
        print(json.dumps(measure(options.arm, chosen[0][1])))
        return
    from jaxnas.report.tables import plain_console

    console, about = plain_console(), machine()
    console.print(json.dumps(about), soft_wrap=True)
    figures: dict = {"machine": about, "scenarios": []}
    repeats = 1 if options.small else options.repeats
    for name, scenario in chosen:
        members, steps = scenario.members, scenario.steps
        words = ["--scenario", name, "--members", str(members), "--steps", str(steps)]
        found = race(options.arms, words, repeats, options.limit)
        title = (
            f"{members} models, hidden {name}, V {scenario.vocab}, "
            f"T {scenario.window}, B {scenario.batch}, {steps} steps; "
            f"median of {repeats}"
        )
        console.print(table_of(title, found))
        for note in notes_on(found):
            console.print(note, soft_wrap=True)
        check_models(found)
        row = {"name": name, **dataclasses.asdict(scenario), "arms": found}
        figures["scenarios"].append(row)
        if options.out:  # after each, for a long run may be cut off
            options.out.write_text(json.dumps(figures, indent=2) + "\n")
    everything = [run for row in figures["scenarios"] for run in row["arms"].values()]
    if any(runs.get("crashed") for runs in everything):
        raise SystemExit("an arm crashed")


if __name__ == "__main__":
    main()
