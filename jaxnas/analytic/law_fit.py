"""A scaling law fitted to what runs measured."""

from collections.abc import Sequence
from pathlib import Path

from arch.families import FAMILIES
from arch.scaling.fit import LawFit, MeasuredLoss, fit
from jaxnas.config import make_config, read_toml
from jaxnas.errors import UsageError
from jaxnas.results.result import read_results, scored
from jaxnas.storage.run_folder import RunFolder


def rows_of(run: Path) -> list[MeasuredLoss]:
    """The losses that a run measured of its successes, at the end of each phase.

    Raises:
      UsageError: the folder holds no run, or its results cannot be read.
    """
    folder = RunFolder(run)
    if not folder.results.is_file():
        raise UsageError(f"{run} holds no run (no {folder.results.name})")
    given = make_config(read_toml(folder.config), str(folder.config))
    settings = given.resolve("cpu")
    tokens = {
        name: float(phase.samples * phase.epochs * settings.window)
        for name, phase in settings.named_phases().items()
    }
    first = next(iter(tokens))
    files = [path for path in (folder.results, folder.rungs) if path.is_file()]
    results = [result for path in files for result in scored(read_results(path))]
    if unknown := {result.phase or first for result in results} - tokens.keys():
        raise UsageError(f"{folder.rungs} is damaged: no phase {min(unknown)!r}")
    return [
        MeasuredLoss(result.config, tokens[result.phase or first], result.metrics.loss)
        for result in results
    ]


def fit_runs(runs: Sequence[Path]) -> LawFit:
    """The law of all their losses.

    Raises:
      UsageError: as `rows_of`, or there is too little to fit.
    """
    rows = [row for run in runs for row in rows_of(run)]
    try:
        return fit(rows)
    except ValueError as error:
        raise UsageError(f"--fit {', '.join(map(str, runs))}: {error}") from None


def describe_fit(found: LawFit) -> list[str]:
    """The fit in lines: its error beside simpler laws', and its coefficients."""
    law = found.law
    families = [
        f"{name} {value:+.3f}"
        for name, value in zip(FAMILIES, law.families, strict=True)
        if value
    ]
    return [
        f"fitted on {found.rows} measured losses; error of the log loss on rows left "
        f"out {found.error:.4f}, a constant's {found.constant_error:.4f}, a law of "
        f"total parameters {found.total_error:.4f}; on the largest fifth, fitted to "
        f"the smaller ones, {_written(found.largest_error)}",
        f"E {law.irreducible:.4g}, A {law.parameter_scale:.4g}, alpha "
        f"{law.parameter_exponent:.4g}, B {law.token_scale:.4g}, beta "
        f"{law.token_exponent:.4g}; depth {law.depth:+.3f}, pruning {law.pruning:.3f}, "
        f"rounding x{law.rounding:.3g}; families: {', '.join(families) or 'none'}",
    ]


def _written(error: float | None) -> str:
    return "unknown (they are of one size)" if error is None else f"{error:.4f}"
