"""A run that is finished: shown again, and rid of what it needs no more."""

from rich.console import Console

from jaxnas.config import Settings
from jaxnas.errors import UsageError
from jaxnas.evaluation.user_objectives import objective_names
from jaxnas.pipeline.verify import verify
from jaxnas.report.closing import show_found
from jaxnas.report.quality import show_quality
from jaxnas.report.tables import top_table
from jaxnas.results.phases import last_of
from jaxnas.results.result import read_results
from jaxnas.results.summary import Summary, read_summary
from jaxnas.storage import disk
from jaxnas.storage.run_folder import RunFolder
from jaxnas.wording import command


def already_done(folder: RunFolder, config: Settings, console: Console) -> Summary:
    """A finished run is shown again, not run again, if its files are whole."""
    try:
        summary = read_summary(folder.summary)
        results = read_results(folder.results)
        number = len(summary["search"]["top"])
        names = objective_names(config.objectives)
        later = read_results(folder.rungs) if folder.rungs.exists() else []
        last = last_of(later, results)
        top_table(last, number, names)
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{folder.summary} or {folder.results} is damaged: remove the former to "
            f"finish the run again"
        ) from None
    for part in verify(folder):
        if part.lost is not None:
            raise UsageError(f"{folder.path} is damaged: {part.name}: {part.said}")
    tidy(folder)
    console.print(f"{folder.path} is finished already", soft_wrap=True)
    show_found(summary, results, last, number, console, names)
    show_quality(summary["final"], console)
    # Of a run that was killed behind its summary there is none.
    how = command("report", folder.path)
    page = folder.report if folder.report.exists() else f"written by {how}"
    console.print(f"{'report':<11} {page}", soft_wrap=True)
    return summary


def tidy(folder: RunFolder) -> None:
    """Removes what only an unfinished run needs."""
    disk.remove(folder.best_weights)
    for path in (folder.states, folder.finishing):
        if path.exists():
            disk.remove_folder(path)
