"""The population in eager PyTorch, one model after another, on a GPU if there is."""

import os
import statistics
import time

import torch
import torch.nn.functional as F
from contenders.scenarios import (
    BETAS,
    CLIP_NORM,
    LEARNING_RATE,
    SEED,
    WEIGHT_DECAY,
    Problem,
    learning_rate,
)
from contenders.torch_model import Transformer

PROBE_STEPS = 5  # timed with each number of threads
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def set_up(problem: Problem) -> dict:
    """Settles on the number of threads that is faster; not timed with the arm.

    On a GPU it warms up instead: the context and the libraries are loaded.
    """
    if DEVICE.type == "cuda":
        # As JAX multiplies float32 there: in TF32.
        torch.set_float32_matmul_precision("high")
        return {"device": torch.cuda.get_device_name(), "probe_seconds": probe(problem)}
    timings = {}
    for threads in thread_counts():
        torch.set_num_threads(threads)
        timings[threads] = probe(problem)
    best = min(timings, key=timings.__getitem__)
    torch.set_num_threads(best)
    return {"threads": best, "probe_seconds": timings}


def train(problem: Problem) -> dict:
    """One model after another."""
    found = [train_one(fields, problem) for fields in problem.configs]
    wait()
    return {
        "losses": [loss for loss, _ in found],
        "parameters": [parameters for _, parameters in found],
    }


def train_one(fields: dict, problem: Problem) -> tuple[float, int]:
    """The last step's loss, and the model's parameters."""
    torch.manual_seed(SEED)
    model, steps = model_of(fields), problem.scenario.steps
    optimizer = optimizer_for(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: float(learning_rate(step, steps)) / LEARNING_RATE
    )
    for index in range(steps):
        loss = train_step(model, optimizer, problem.windows(index))
        scheduler.step()
    return loss.item(), sum(weights.numel() for weights in model.parameters())


def model_of(fields: dict) -> Transformer:
    """Drawn where it is trained."""
    with DEVICE:
        return Transformer(fields)


def wait():
    """Until a GPU has done all that it was asked for."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def train_step(model, optimizer, windows) -> torch.Tensor:
    """i32[B, T+1] -> the loss f32[], nats."""
    tokens = torch.from_numpy(windows).to(DEVICE).long()
    logits = model(tokens[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    return loss.detach()


def optimizer_for(model) -> torch.optim.Optimizer:
    """AdamW in its fused form, the fastest; decay is for matrices."""
    matrices = [weights for weights in model.parameters() if weights.ndim == 2]
    scales = [weights for weights in model.parameters() if weights.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": scales, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=True)


def thread_counts() -> list[int]:
    """One, two, and every core that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return sorted({count for count in (1, 2, cores) if count <= cores})


def probe(problem: Problem) -> float:
    """Seconds of a step of the smallest model and of one of the largest."""
    size = lambda fields: fields["num_layers"] * fields["hidden_dim"] ** 2
    seconds = 0.0
    for choose in (min, max):
        model = model_of(choose(problem.configs, key=size))
        optimizer = optimizer_for(model)
        train_step(model, optimizer, problem.windows(0))
        wait()
        taken = []
        for _ in range(PROBE_STEPS):
            began = time.perf_counter()
            train_step(model, optimizer, problem.windows(0))
            wait()
            taken.append(time.perf_counter() - began)
        seconds += statistics.median(taken)
    return seconds
