"""The page that a run leaves."""

from rich.console import Console

from jaxnas.clock import Clock
from jaxnas.data import Dataset
from jaxnas.errors import reason_of
from jaxnas.pipeline.completions import complete
from jaxnas.report.page.write import write_page
from jaxnas.results.record import read_record
from jaxnas.storage.run_folder import RunFolder
from jaxnas.wording import command

COMPLETING = 20.0  # seconds that must be left of a budget for completions


def write_report(
    folder: RunFolder, dataset: Dataset, clock: Clock, console: Console
) -> None:
    """Writes the page of a run that is done, whatever becomes of it.

    Within a budget that is nearly spent it has no completions: `report` adds them.
    """
    try:
        record = read_record(folder.path, ended=True)
        enough = record.summary is not None and clock.left() > COMPLETING
        shown = complete(folder, dataset, record.config.seed) if enough else []
        write_page(folder.report, record, shown)
        console.print(f"{'report':<11} {folder.report}", soft_wrap=True)
        if record.summary is not None:
            words = f"{'next':<11} {command('serve', folder.path)}; or generate, train"
            console.print(words, soft_wrap=True)
    except Exception as error:  # a run is finished with a page or without
        console.print(f"warning: no report was written: {reason_of(error)}")
