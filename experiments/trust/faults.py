"""Each change of a small run to the disk fails, in four ways; then it is gone on with.

    python experiments/trust/faults.py --out experiments/trust/faults.jsonl

The run, the faults and what has to come out are those of `tests/test_faults.py`: the
bytes of the run that nothing disturbed, nothing lost, nothing half written left. All
runs share a process, which compiles once. A line is added for each case; cases whose
lines are there are left out, so that the same command goes on with what was stopped.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import pytest
from corpus import write_corpus
from faults import WAYS, Disk
from test_faults import bytes_of, check, searched, share_programs

from jaxnas.storage.jsonl import read_lines


def outcome(out: Path, whole: tuple, number: int, way: str) -> str:
    """What is wrong after that fault; empty if nothing is."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            check(out, whole, number, way)
    except Exception as error:  # each is a finding, and the others are still to be run
        return f"{type(error).__name__}: {error}"[:500]
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return ""


def run_all(root: Path, out: Path, limit: int) -> None:
    """Runs the cases that have no line yet, in a random order that is always the same.

    Raises:
      SystemExit: the lines are those of a run with another number of changes.
    """
    write_corpus(root / "code")
    searched(root / "first", root / "code")  # what is cached is cached by then
    with pytest.MonkeyPatch.context() as patch:
        counted = Disk(patch)
        searched(root / "run", root / "code")
    whole = root / "code", bytes_of(root / "run"), counted.names
    changes = len(counted.names)
    done = read_lines(out) if out.exists() else []
    if any(line["changes"] != changes for line in done):
        raise SystemExit(f"{out} is of a run with another number than {changes}")
    known = {(line["number"], line["way"]) for line in done}
    cases = [(number + 1, way) for number in range(changes) for way in WAYS]
    random.Random(0).shuffle(cases)
    for number, way in [case for case in cases if case not in known][:limit]:
        wrong = outcome(root / "disturbed", whole, number, way)
        name = counted.names[number - 1]
        line = {"number": number, "way": way, "change": name, "changes": changes}
        with out.open("a") as file:
            file.write(json.dumps(line | {"wrong": wrong}) + "\n")
    done = read_lines(out)
    wrong = [line for line in done if line["wrong"]]
    print(f"{len(done)} of {len(cases)} cases done, {len(wrong)} ended otherwise")
    for line in wrong:
        print(line)
    sys.exit(1 if wrong else 0)


def main() -> None:
    """Prints how many cases are done, and those that ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a line for each case")
    parser.add_argument("--limit", type=int, default=10**9, help="cases to run now")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        os.environ["JAXNAS_CACHE"] = str(Path(root) / "cache")
        share_programs(patch)
        run_all(Path(root), options.out, options.limit)


if __name__ == "__main__":
    main()
