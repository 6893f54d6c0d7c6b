"""All that is to be measured on a GPU, in one command of under 8 minutes.

    python experiments/speed/gpu.py [--sections NAME ...] [--small] [--out FILE]
        [--limit SECONDS]

Needs JAX with its GPU plugin, Flax, Optax, SciPy and tokenizers; PyTorch for its
arm of the population. Nothing is fetched. Each section runs in a process of its
own with a share of the time, which leaves out what does not fit; one that fails
or hangs does not take the others along. The exit code is 1 if any failed.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from on_gpu.report import Report, first_line

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "tokenizers", "torch")
GRACE = 15.0  # seconds for the piece that runs as a section's time ends


class Section(NamedTuple):
    """A module with `run(report)`."""

    module: str
    share: float  # of the time that is left, beside the later ones' shares
    needs: tuple[str, ...] = ()  # packages beyond JAX, Flax and NumPy


EVALUATION = ("optax", "scipy", "tokenizers")
SECTIONS = {
    "mixers": Section("on_gpu.mixers", 100),
    "training": Section("on_gpu.training", 45, ("optax",)),
    "decode": Section("on_gpu.decoding", 40, ("optax",)),
    "lanes": Section("on_gpu.lanes", 55, EVALUATION),
    "memory": Section("on_gpu.memory", 25, EVALUATION),
    "latency": Section("on_gpu.latency", 90, EVALUATION),
    "population": Section("on_gpu.population", 185, EVALUATION),
}


def main():
    """Runs the sections; or one of them, as a child."""
    options = parse()
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.child:
        sys.path.insert(0, str(ROOT))
        sys.exit(run_child(options))
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    # A section's processes end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    figures: dict = {"missing_packages": missing, "sections": {}}
    if missing:
        print(f"missing packages: {', '.join(missing)}; what needs them is left out")
    end = time.monotonic() + options.limit
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("JAXNAS_CACHE", folder)  # measured anew, and kept
        figures["machine"] = spawn("machine", options, 60, Path(folder))[0]
        print(json.dumps(figures["machine"], indent=1), flush=True)
        wanted = list(options.sections)
        while wanted:
            name = wanted.pop(0)
            later = sum(SECTIONS[one].share for one in wanted)
            share = SECTIONS[name].share / (SECTIONS[name].share + later)
            seconds = (end - time.monotonic() - GRACE) * share
            lacks = [one for one in SECTIONS[name].needs if one in missing]
            if lacks:
                found, failures = {"skipped": f"needs {', '.join(lacks)}"}, []
            else:
                print(f"==== {name}, at most {seconds:.0f} s", flush=True)
                found, failures = spawn(name, options, seconds, Path(folder))
            failed = failed or bool(failures)
            figures["sections"][name] = found
            print(f"==== {name}: {found.get('seconds', 0):.0f} s", *failures, sep="\n")
            sys.stdout.flush()
            if options.out:
                options.out.write_text(json.dumps(figures, indent=2) + "\n")
    for name, found in figures["sections"].items():
        state = "failed" if found.get("failures") else found.get("skipped", "done")
        print(f"{name}: {state}")
    sys.exit(int(failed))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(SECTIONS)
    parser.add_argument("--sections", nargs="+", choices=names, default=names)
    parser.add_argument("--small", action="store_true", help="short, to try it out")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    parser.add_argument("--limit", type=float, default=450, help="seconds for all")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def spawn(
    name: str, options: argparse.Namespace, seconds: float, folder: Path
) -> tuple[dict, list[str]]:
    """A section in a process of its own: its figures, and what failed."""
    file = folder / f"{name}.json"
    command = [sys.executable, __file__, "--child", name, "--out", str(file)]
    command += ["--seconds", str(seconds), *["--small"] * options.small]
    # A group of its own, for what a section starts in its turn ends with it.
    begin = time.monotonic()
    child = subprocess.Popen(command, start_new_session=True)
    reason = None
    try:
        if code := child.wait(max(seconds, 5.0) + GRACE):
            reason = f"exit {code}"
    except subprocess.TimeoutExpired:
        reason = "took too long"
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    found = json.loads(file.read_text()) if file.exists() else {}
    failures = found.setdefault("failures", [])
    if reason and not failures:
        failures.append(reason)
    found["seconds"] = time.monotonic() - begin
    return found, failures


def run_child(options: argparse.Namespace) -> int:
    """One section, in this process."""
    from jaxnas.runtime import ON_GPU

    # For functions that are compiled here and not by ours, too.
    flags = [f"--{name}={str(value).lower()}" for name, value in ON_GPU.items()]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])
    report = Report(options.out, options.small, options.seconds)
    try:
        if options.child == "machine":
            for name, value in machine().items():
                report.keep(name, value)
        else:
            importlib.import_module(SECTIONS[options.child].module).run(report)
    except Exception as error:  # any: the other sections still run
        report.fail(f"{options.child}: {first_line(error)}")
        traceback.print_exc()
    return int(bool(report.figures["failures"]))


def machine() -> dict:
    """What the figures are taken on."""
    import jax

    from arch.mixers.flash import has_cudnn

    [device, *_] = jax.devices()
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "device_kind": device.device_kind,
        "backend": jax.default_backend(),
        "platform_version": device.client.platform_version.splitlines()[-1],
        "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "cudnn_attention": has_cudnn(),
        "torch_sees_cuda": sees_cuda(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
    }


def sees_cuda() -> bool | None:
    """Whether PyTorch does; None without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    main()
