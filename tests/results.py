"""Results whose figures no training made."""

from tasks import TINY

from arch import ArchitectureConfig
from jaxnas.evaluation.costs import Costs
from jaxnas.results.result import Result, Scored
from jaxnas.training.scoring import Metrics


def made_result(
    identity: int = 0,
    *,
    config: ArchitectureConfig = TINY,
    status: str = "ok",
    generation: int = 0,
    accuracy: float = 0.5,
    loss: float = 2.0,
    bits_per_byte: float = 3.0,
    stored_parameters: int = 1000,
    size: float = 1.0,
    latency: float = 1.0,
    objectives: list[float] | None = None,
    fitness: float | None = None,
    by: str | None = None,
) -> Result:
    """A result; figures that are not given are made up."""
    about = {
        "id": identity,
        "generation": generation,
        "genome": (identity,),
        "config": config,
        "status": status,
        "costs": Costs(
            parameters=stored_parameters,
            stored_parameters=stored_parameters,
            size_mib=size,
            forward_flops=1,
            latency_ms=latency,
        ),
        "phase": None if by is None else "later",
        "by": by,
    }
    if status != "ok":
        return Result(**about, reason="TrainingFailed: nan")
    metrics = Metrics(
        accuracy=accuracy, loss=loss, perplexity=1.0, bits_per_byte=bits_per_byte
    )
    own = [1 - accuracy, size, latency] if objectives is None else objectives
    quality = accuracy if fitness is None else fitness
    return Scored(**about, metrics=metrics, objectives=own, fitness=quality)
