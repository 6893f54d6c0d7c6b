"""One search on two workers of a local Ray cluster, and on one.

    python experiments/ray/two_workers.py --out experiments/ray/two_workers.json

Each run is a process of its own with a cache of its own, so that it compiles all of
its programs; data is prepared before. Seconds are those of the search alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = {
    "space": "nano",
    "strategy": "random",
    "population": 16,
    "generations": 1,
    "phases": "160",
    "eval_windows": 64,
    "final_windows": 16,
    "final_steps": 4,
    "measure_top": 0,
    "latency": "estimate",
    "baseline": False,
}


def main() -> None:
    """Runs all and writes what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--one", nargs=2, metavar=("WORKERS", "FOLDER"))
    options = parser.parse_args()
    if options.one:
        run(int(options.one[0]), options.one[1], options.data)
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        lines = set()
        for workers in (2, 1):
            out = Path(folder, str(workers))
            found[str(workers)] = in_own_process(workers, out, options)
            lines.add((out / "run" / "results.jsonl").read_bytes())
        found["same bytes"] = len(lines) == 1
    found["ratio"] = found["1"]["search"] / found["2"]["search"]
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def in_own_process(workers: int, out: Path, options: argparse.Namespace) -> dict:
    """Seconds of a run with so many workers."""
    out.mkdir()
    command = [sys.executable, __file__, "--out", os.devnull, "--data", options.data]
    begin, load = time.monotonic(), os.getloadavg()[0]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(out / "xla")}
    subprocess.run(
        [*command, "--one", str(workers), str(out / "run")],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    lines = (out / "run" / "timings.jsonl").read_text().splitlines()
    stages = {
        one["stage"]: one["seconds"] for one in map(json.loads, lines) if "stage" in one
    }
    whole = round(time.monotonic() - begin, 1)
    return {"search": stages["search"], "process": whole, "load before": round(load, 1)}


def run(workers: int, folder: str, data: str) -> None:
    """The search, in this process."""
    import ray

    import jaxnas

    ray.init("local", num_cpus=workers, include_dashboard=False)
    jaxnas.search(folder, data=data, ray="auto", **SETTINGS)


if __name__ == "__main__":
    main()
