"""What the GPU sections share: tables of plain text, clocks, compilations."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = 8  # that compile
BATCH_SECONDS = 0.02  # of calls that are waited for together


class Report:
    """A section's figures, written after each piece, for it may be cut off."""

    def __init__(self, path: Path, small: bool, seconds: float):
        """Arguments: of the JSON; whether sizes are tiny; until it should end."""
        self._path, self.small = path, small
        self._deadline = time.monotonic() + seconds
        self.figures: dict = {"failures": [], "left_out": []}
        self._write()

    @property
    def left(self) -> float:
        """Seconds."""
        return self._deadline - time.monotonic()

    def has_time(self, what: str, seconds: float = 0.0) -> bool:
        """Whether so many are left; if not, says that this piece is left out."""
        if self.left > seconds:
            return True
        print(f"left out, for time is up: {what}", flush=True)
        self.figures["left_out"].append(what)
        self._write()
        return False

    def keep(self, name: str, figures):
        """Writes a piece's figures."""
        self.figures[name] = figures
        self._write()

    def fail(self, what: str):
        """Says what is wrong, goes on, and lets the section fail in the end."""
        print(f"FAILED: {what}", flush=True)
        self.figures["failures"].append(what)
        self._write()

    def _write(self):
        self._path.write_text(json.dumps(self.figures, indent=2) + "\n")


def print_table(title: str, rows: Sequence[dict], columns: dict[str, str]):
    """Rows as text; `columns` are the keys and how their numbers are formatted."""
    lines = [list(columns)]
    for row in rows:
        lines.append([_text(row.get(key), form) for key, form in columns.items()])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for line in lines:
        padded = [
            text.rjust(width) if form else text.ljust(width)
            for text, width, form in zip(line, widths, columns.values(), strict=True)
        ]
        print("  ".join(padded).rstrip())
    print(flush=True)


def _text(value, form: str) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else format(value, form)


def clock(calls: dict[str, Callable], seconds: float) -> dict[str, float]:
    """Median seconds of each call, all in turn.

    Short calls are waited for together: on a GPU a wait costs more than they do.
    Donated arguments are the caller's to hand over from call to call.
    """
    import jax
    from timing import race

    def batch_of(call):
        jax.block_until_ready(call())
        begin = time.perf_counter()
        jax.block_until_ready(call())
        once = time.perf_counter() - begin
        number = int(min(100, max(1, BATCH_SECONDS / max(once, 1e-6))))

        def batch():
            for _ in range(number - 1):
                call()
            return call()

        return batch, number

    batches = {name: batch_of(call) for name, call in calls.items()}
    contenders = {name: batch for name, (batch, _) in batches.items()}
    timings = race(contenders, seconds=seconds, most=20)
    return {name: timings[name].median / batches[name][1] for name in calls}


def at_once(
    jobs: dict[str, Callable], report: Report, failing: bool = True
) -> dict[str, object]:
    """Runs jobs side by side, those of XLA's compiler above all.

    Returns:
      What each gave; those that failed are told to the report and left out.
    """
    done = {}
    with ThreadPoolExecutor(THREADS) as pool:
        asked = {name: pool.submit(job) for name, job in jobs.items()}
        for name, future in asked.items():
            try:
                done[name] = future.result()
            except Exception as error:  # any: the other programs still run
                if failing:
                    report.fail(f"{name}: {first_line(error)}")
    return done


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    said = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {said[0][:300]}"


def temporary_bytes(compiled) -> int:
    """Of a compiled program; 0 if the backend does not tell."""
    found = compiled.memory_analysis()
    return 0 if found is None else int(found.temp_size_in_bytes)
