"""The population benchmark's arms on this device, and what they come to.

Nothing here touches the device: each arm is a process of its own, as in
`population.py`, and one that held the device's memory would starve them.
"""

import json
import statistics

from contenders.arms import ARMS
from on_gpu.report import Report, print_table
from population import check_models, run_turn

# Scenario, steps, arms; in the order of their worth, for time may run out.
TURNS = [
    ("64-128", 50, ("planned", "torch", "flax")),
    ("64-128", 200, ("planned", "torch")),
    ("64-128", 50, ("one_bucket", "exact")),
    ("64-128", 1000, ("planned", "torch")),
]
TINY = [("small", 4, ("planned", "torch"))]
MEMBERS = 16
LEAST = {"planned": 40, "one_bucket": 40, "exact": 60, "flax": 30, "torch": 15}


def run(report: Report):
    """Turn by turn; prints the runs and, at the end, the ratios."""
    turns = TINY if report.small else TURNS
    found: dict[int, dict] = {}
    rows: list[dict] = []
    for name, steps, arms in turns:
        members = 4 if report.small else MEMBERS
        words = ["--scenario", name, "--members", str(members), "--steps", str(steps)]
        for arm in arms:
            what = f"{arm}, {steps} steps"
            if not report.has_time(what, 1 if report.small else LEAST[arm]):
                continue
            runs: dict = {"cold": [], "warm": [], "unable": None}
            run_turn(arm, runs, words, max(report.left, 10.0))
            if runs.get("crashed"):
                report.fail(f"{what}: {runs['unable']}")
            found.setdefault(steps, {})[arm] = runs
            rows.append(row_of(arm, steps, runs))
            print(f"{what}: {json.dumps(rows[-1])}", flush=True)
            report.keep("rows", rows)
            report.keep("runs", found)
        try:
            check_models(found.get(steps, {}))
        except SystemExit as error:
            report.fail(str(error))
    columns = {"arm": "", "steps": "d", "cold": ".2f", "warm": ".2f"}
    columns |= {"programs": "d", "predicted": ".2f", "set_up": ".1f", "loss": ".3f"}
    title = f"Population {turns[0][0]}, seconds; set-up is apart"
    print_table(title, rows, columns | {"unable": ""})
    summary = ratios(found)
    report.keep("ratios", summary)
    for name, value in summary.items():
        print(f"{name}: {value if isinstance(value, str) else format(value, '.2f')}")


def row_of(arm: str, steps: int, runs: dict) -> dict:
    """Of one arm's runs."""
    row = {"arm": ARMS[arm].title, "steps": steps, "unable": runs["unable"] or ""}
    for kind in ("cold", "warm"):
        for one in runs[kind]:
            row[kind] = one["seconds"]
    for one in runs["cold"]:
        row["set_up"] = one["set_up_seconds"]
        row["loss"] = statistics.mean(one["losses"])
        row |= {key: one.get(key) for key in ("programs", "predicted")}
    return row


def ratios(found: dict[int, dict]) -> dict[str, float | str]:
    """Beside the targets, and where PyTorch would be overtaken."""

    def seconds(arm, steps, kind="cold"):
        runs = found.get(steps, {}).get(arm, {}).get(kind) or []
        return runs[0]["seconds"] if runs else None

    summary: dict[str, float | str] = {}
    for steps in found:
        pairs = {
            "flax / ours cold (target 5)": ("flax", "cold"),
            "torch / ours cold": ("torch", "cold"),
            "torch / ours warm (target 3)": ("torch", "warm"),
        }
        for name, (other, kind) in pairs.items():
            ours = seconds("planned", steps, kind)
            theirs = flax_seconds(found, steps) if other == "flax" else None
            theirs = theirs or seconds(other, steps)
            if ours and theirs:
                summary[f"{name}, {steps} steps"] = theirs / ours
    both = [
        steps
        for steps in sorted(found)
        if seconds("planned", steps, "warm") and seconds("torch", steps)
    ]
    if len(both) > 1:
        ends = both[0], both[-1]
        theirs = line(ends, [seconds("torch", steps) for steps in ends])
        for kind in ("cold", "warm"):
            ours = line(ends, [seconds("planned", steps, kind) for steps in ends])
            name = (
                f"crossover with torch, ours {kind}, by {ends[0]} and {ends[1]} steps"
            )
            summary[name] = crossover(ours, theirs)
    return summary


def flax_seconds(found: dict[int, dict], steps: int) -> float | None:
    """Of the Flax arm, by its parts from the steps at which it did run."""
    for measured, arms in found.items():
        for one in arms.get("flax", {}).get("cold", []):
            each = one["other_steps_seconds"] / max(1, measured - 1)
            return one["seconds"] + each * (steps - measured)
    return None


def line(steps: tuple[int, int], seconds: list[float]) -> tuple[float, float]:
    """Seconds before the first step, and of each."""
    slope = (seconds[1] - seconds[0]) / (steps[1] - steps[0])
    return seconds[0] - slope * steps[0], slope


def crossover(ours: tuple[float, float], theirs: tuple[float, float]) -> str:
    """Where two lines meet, in words."""
    about = (
        f"ours {ours[0]:.1f} s + {1e3 * ours[1]:.1f} ms a step, "
        f"torch {theirs[0]:.1f} s + {1e3 * theirs[1]:.1f} ms a step"
    )
    if ours[1] == theirs[1]:
        return f"never ({about})"
    at = (ours[0] - theirs[0]) / (theirs[1] - ours[1])
    if at <= 0:
        better = "ours" if ours[1] < theirs[1] else "torch"
        return f"none, {better} is faster at any number ({about})"
    better = "ours" if ours[1] < theirs[1] else "torch"
    return f"{better} is faster beyond {at:.0f} steps ({about})"
