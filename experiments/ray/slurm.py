"""A search on nodes of a SLURM cluster: submitit starts Ray on them, and the run.

    pip install 'jaxnas[ray]' submitit
    python experiments/ray/slurm.py --nodes 4 --cores 16 -- --out runs/many

What stands behind `--` goes to `python -m jaxnas.run`. Home and the folder that it
is started in have to be the same on all nodes. `--here` needs no SLURM: it starts
the nodes as processes of this machine, one for each of `--nodes`.
"""

import argparse
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import submitit

PORT = 6379
TRIES = 60  # of a node, a second apart or more, to reach the first


def main() -> None:
    """Submits the job and waits for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cores", type=int, default=1, help="of each node")
    parser.add_argument("--gpus", type=int, default=0, help="of each node")
    parser.add_argument("--minutes", type=int, default=240)
    parser.add_argument("--partition")
    parser.add_argument("--here", action="store_true")
    parser.add_argument("run", nargs="*", help="arguments of the run")
    options = parser.parse_args()
    cluster = "local" if options.here else "slurm"
    executor = submitit.AutoExecutor(folder="submitit/%j", cluster=cluster)
    executor.update_parameters(timeout_min=options.minutes, cpus_per_task=options.cores)
    if options.here:
        executor.update_parameters(tasks_per_node=options.nodes)
    else:
        executor.update_parameters(
            nodes=options.nodes, tasks_per_node=1, gpus_per_node=options.gpus
        )
        if options.partition:
            executor.update_parameters(slurm_partition=options.partition)
    token = secrets.token_hex(32)  # without it nobody else may use these workers
    job = executor.submit(node, options.run, options.cores, options.gpus, token)
    print(f"job {job.job_id}, output in submitit/{job.job_id}")
    sys.exit(max(job.results()))


def node(arguments: list[str], cores: int, gpus: int, token: str) -> int:
    """What each node does: the first runs the search, the others lend their cores."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    task = submitit.JobEnvironment()
    has = [f"--num-cpus={cores}", f"--num-gpus={gpus}"]
    ray = str(Path(sys.executable).with_name("ray"))
    head = Path("submitit", task.job_id, "head")
    if task.global_rank == 0:
        address = f"{socket.getfqdn()}:{PORT}"
        start = [ray, "start", "--head", f"--port={PORT}", "--include-dashboard=false"]
        subprocess.run([*start, *has], check=True)
        head.write_text(address)
        run = [sys.executable, "-m", "jaxnas.run", "--ray", address, *arguments]
        try:
            return subprocess.run(run).returncode
        finally:
            head.unlink()
            subprocess.run([ray, "stop"])
    return lend(ray, has, head)


def lend(ray: str, has: list[str], head: Path) -> int:
    """Joins the first node, and stays until the run there has ended."""
    for _ in range(TRIES):
        time.sleep(1)
        if head.exists():
            break
    else:
        print(f"no node has written {head}", file=sys.stderr)
        return 1
    start = [ray, "start", f"--address={head.read_text()}", *has]
    subprocess.run(start, check=True)
    while head.exists():
        time.sleep(2)
    if os.environ.get("SLURM_JOB_ID"):  # else the first node's `ray stop` is for all
        subprocess.run([ray, "stop"])
    return 0


if __name__ == "__main__":
    main()
