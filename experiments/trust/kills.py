"""Runs that are killed at random moments of their whole life, beside one that is not.

    python experiments/trust/kills.py --number 50 --out experiments/trust/kills.json

Each time a part of the run's life is drawn, and a moment within it; there the process
is killed (SIGKILL), told to end (SIGTERM), or stopped and let go on (SIGSTOP, SIGCONT).
What ended is resumed, and may be disturbed again, until the run has ended. Then its
results, trainings, phases, winner, weights and summary have to be those of the run
that nothing disturbed: the same bytes. Programs come from a warm cache; the data is
prepared anew in each life.
"""

import argparse
import collections
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from test_faults import SETTINGS as SMALL
from test_faults import SPACE

import jaxnas
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.storage.jsonl import read_lines

SETTINGS = {
    name.replace("_", "-"): value for name, value in SMALL.items() if name != "baseline"
} | {"repeats": 1, "final-steps": 200}
SAME = ("results.jsonl", "rungs.jsonl", "best.json", "summary.json")
MODEL = ("model/model.safetensors", "model/config.json", "model/tokenizer.json")
# How often each is drawn, of ten.
WAYS = ("kill",) * 7 + ("terminate",) * 2 + ("stop",)
MOST = 4  # times that one run is disturbed
SLOWEST = 600.0  # seconds of one process


def begun(run: Path) -> dict[str, Callable[[], bool]]:
    """The parts of a run's life, in their order, with what tells that one began."""

    def holds(name: str) -> Callable[[], bool]:
        path = run / name
        return lambda: path.exists() and path.stat().st_size > 0

    return {
        "start": lambda: True,
        "data": holds("config.toml"),
        "search": holds("manifest.json"),
        "phases": holds("rungs.jsonl"),
        "last training": holds("best.json"),
        "report": holds("summary.json"),
    }


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """What was done to a process, and in which part of the run's life."""

    way: str
    part: str
    after: float  # seconds since the process began


class Bench:
    """Where the runs lie, and how one is started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "two.toml").write_text(SPACE)

    def process(self, run: Path) -> subprocess.Popen:
        """Begins a run, or goes on with it."""
        code = Path(jaxnas.__file__).parent
        arguments = ["--resume", str(run)]
        if not (run / "config.toml").exists():
            space = f"--space={self.root / 'two.toml'}"
            arguments = [f"--out={run}", f"--data=folder:{code}", space]
            arguments += [f"--{name}={value}" for name, value in SETTINGS.items()]
            arguments += ["--no-baseline"]
        places = {
            "JAXNAS_CACHE": str(run.parent / f"cache-{run.name}"),  # the data
            "JAX_COMPILATION_CACHE_DIR": str(self.root / "programs"),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "jaxnas.run", *arguments],
            env=os.environ | places,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def whole(self, name: str) -> tuple[Path, dict[str, float]]:
        """A run that nothing disturbs, and seconds at which each part begins."""
        run = self.root / name
        process, start, seen = self.process(run), time.monotonic(), {}
        while process.poll() is None:
            for part, has_begun in begun(run).items():
                if part not in seen and has_begun():
                    seen[part] = time.monotonic() - start
            time.sleep(0.005)
        if process.returncode:
            raise SystemExit(f"the undisturbed run failed: {process.stderr.read()}")
        return run, seen | {"end": time.monotonic() - start}


def lengths(begins: dict[str, float]) -> dict[str, float]:
    """Seconds that each part takes."""
    ends = [*begins.values()][1:]
    return {part: end - begins[part] for part, end in zip(begins, ends, strict=False)}


def disturb(
    process: subprocess.Popen, run: Path, part: str, later: float, way: str
) -> Disturbance | None:
    """Does it so much later than a part began; None if the process ended before."""
    start, has_begun = time.monotonic(), begun(run)[part]
    while not has_begun():
        if process.poll() is not None:
            return None
        time.sleep(0.002)
    try:
        process.wait(later)
        return None
    except subprocess.TimeoutExpired:
        after = time.monotonic() - start
    there = [name for name, has_begun in begun(run).items() if has_begun()][-1]
    if way == "stop":
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        process.send_signal(signal.SIGCONT)
    else:
        process.send_signal(signal.SIGKILL if way == "kill" else signal.SIGTERM)
    return Disturbance(way, there, round(after, 2))


def life(
    bench: Bench, run: Path, parts: dict[str, float], rng: random.Random, most: int
) -> Iterator[Disturbance]:
    """Disturbs a run up to so many times, until it has ended.

    Raises:
      AssertionError: a process ended as it should not.
    """
    done = 0
    while True:
        process = bench.process(run)
        found = None
        if done < most:
            part, way = rng.choice([*parts]), rng.choice(WAYS)
            found = disturb(process, run, part, rng.uniform(0, parts[part]), way)
        said = process.communicate(timeout=SLOWEST)[1]
        allowed = {0} | ({-signal.SIGKILL} if found and found.way == "kill" else set())
        if found and found.way == "terminate":
            allowed |= {143, -signal.SIGTERM}  # the latter before Python listens
        assert process.returncode in allowed, (process.returncode, found, said[-500:])
        if found is not None:
            done += 1
            yield found
        if process.returncode == 0:
            return


def differences(whole: Path, run: Path) -> list[str]:
    """The files that are not the same bytes; of trainings, the lines in any order."""
    wrong = [
        name
        for name in (*SAME, *MODEL)
        if not (run / name).exists()
        or (whole / name).read_bytes() != (run / name).read_bytes()
    ]
    ours, theirs = (
        sorted(map(json.dumps, read_lines(path / "trainings.jsonl")))
        for path in (whole, run)
    )
    wrong += [] if ours == theirs else ["trainings.jsonl"]
    command = [sys.executable, "-m", "jaxnas.run", "verify", str(run)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        wrong.append("verify")
    hidden = {path.name for path in run.iterdir() if path.name.startswith(".")}
    return [*wrong, *(hidden - {".lock"})]


def report(found: list[Disturbance], lives: int, wrong: list[dict]) -> None:
    """A row for each part of a run's life, a column for each way."""
    counts = collections.Counter((one.part, one.way) for one in found)
    table = plain_table(f"{len(found)} disturbances of {lives} runs", "in")
    add_numbers(table, *dict.fromkeys(WAYS))
    for part in begun(Path()):
        table.add_row(part, *(str(counts[part, way]) for way in dict.fromkeys(WAYS)))
    console = plain_console()
    console.print(table)
    console.print(f"{len(wrong)} runs ended otherwise than the undisturbed one")
    for one in wrong:
        console.print(str(one), soft_wrap=True)


def main() -> None:
    """Prints what was done, and what came out otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=50, help="disturbances [50]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="all of it as JSON")
    options = parser.parse_args()
    rng, found, wrong, lives = random.Random(options.seed), [], [], 0
    with tempfile.TemporaryDirectory() as root:
        bench = Bench(Path(root))
        bench.whole("cold")  # fills the cache of programs
        whole, begins = bench.whole("whole")
        assert not differences(whole, bench.root / "cold")
        while len(found) < options.number:
            run = bench.root / f"run-{lives}"
            most, before = min(MOST, options.number - len(found)), len(found)
            try:
                found += life(bench, run, lengths(begins), rng, most)
                other = differences(whole, run)
            except AssertionError as error:
                other = [str(error)]
            lives += 1
            if other:
                about = [dataclasses.asdict(one) for one in found[before:]]
                wrong.append({"run": lives, "wrong": other, "disturbed": about})
            else:
                shutil.rmtree(run)
            print(f"{len(found)} of {options.number}: {other or 'same'}", flush=True)
        report(found, lives, wrong)
        if options.out is not None:
            value = {
                "disturbances": [dataclasses.asdict(one) for one in found],
                "runs": lives,
                "wrong": wrong,
                "seconds": begins,
            }
            options.out.write_text(json.dumps(value, indent=1) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
