"""What a search of shapes found, on the console."""

import numpy as np
from rich.console import Console

from jaxnas.automl.problem import Problem, configs_of
from jaxnas.automl.reasons import reasons
from jaxnas.automl.search import Found
from jaxnas.automl.tables import limits_table, shapes_table

FRONT_ROWS = 20  # of the Pareto front that are printed


def print_found(
    console: Console, problem: Problem, found: Found, strategy: str, seconds: float
) -> None:
    """The limits, the best, why the first is what it is, some of the front."""
    spec, shapes = problem.spec, problem.shapes
    use = spec.use
    console.print(
        f"{spec.name}: {spec.family}, {shapes.total:,} shapes; {strategy} evaluated "
        f"{found.evaluated:,} in {seconds:.1f} s, {found.feasible:,} keep the limits"
    )
    if spec.limits:
        console.print(limits_table(found.binding, found.evaluated))
    if not found.feasible:
        table = shapes_table(
            "The shape that breaks the limits least",
            configs_of(problem, found.nearest),
            found.nearest,
        )
        console.print(table)
        return
    title = f"Top {len(found.top.genomes)} by score"
    configs = configs_of(problem, found.top)
    console.print(
        shapes_table(title, configs, found.top, found.scores, limits=spec.limits)
    )
    console.print("Why the first:")
    for line in reasons(problem, found.top, 0):
        console.print(f"- {line}")
    picks = _spread(problem, found)
    shown = found.apart.take(picks)
    title = (
        f"Pareto front over {', '.join(problem.objectives)}: {len(shown.genomes)} of "
        f"{len(found.apart.genomes):,} told apart of {len(found.front.genomes):,}; "
        "* the knee"
    )
    knee = picks.tolist().index(found.knee)
    configs = configs_of(problem, shown)
    console.print(shapes_table(title, configs, shown, limits=spec.limits, knee=knee))
    console.print(
        f"latency: batch {use.batch}, {use.prompt} tokens read, {use.context} "
        f"remembered, on {use.devices} x {use.hardware.name}, not calibrated\n"
        f"loss: {use.law.label}; {use.training_tokens:.3g} training tokens"
    )


def _spread(problem: Problem, found: Found) -> np.ndarray:
    """Rows of the thinned front, evenly by the first objective, and the knee."""
    order = found.apart.values[problem.aims[0]].argsort(kind="stable")
    number = len(order)
    picks = {
        round(row * (number - 1) / max(1, FRONT_ROWS - 1))
        for row in range(min(number, FRONT_ROWS))
    }
    picks.add(int(np.flatnonzero(order == found.knee)[0]))
    return order[sorted(picks)]
