"""The population in eager PyTorch, in two processes of one thread each."""

import multiprocessing

import torch
from contenders import torch_eager
from contenders.scenarios import CannotRunError, Problem

PROCESSES = 2
_pool = None


def set_up(problem: Problem) -> dict:
    """Starts the processes and warms them up; not timed with the arm."""
    global _pool
    if torch_eager.DEVICE.type != "cpu":
        raise CannotRunError("a GPU's processes wait for each other")
    _pool = multiprocessing.get_context("spawn").Pool(
        PROCESSES, torch.set_num_threads, (1,)
    )
    _pool.map(torch_eager.probe, [problem] * PROCESSES, chunksize=1)
    return {"processes": PROCESSES}


def train(problem: Problem) -> dict:
    """Each process takes the next model as it is free, the largest first."""
    assert _pool is not None
    order = sorted(
        range(len(problem.configs)),
        key=lambda at: -problem.configs[at]["hidden_dim"],
    )
    jobs = [(problem.configs[at], problem) for at in order]
    found = dict(
        zip(order, _pool.starmap(torch_eager.train_one, jobs, chunksize=1), strict=True)
    )
    return {
        "losses": [found[at][0] for at in range(len(order))],
        "parameters": [found[at][1] for at in range(len(order))],
    }
