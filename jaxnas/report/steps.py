"""A bar of training steps with the time left."""

import contextlib
from collections.abc import Callable, Iterator

import rich.progress
from rich.console import Console


def bars_on(console: Console) -> rich.progress.Progress:
    """Bars with the time left, which only a terminal shows."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextlib.contextmanager
def steps_shown(
    console: Console, title: str
) -> Iterator[Callable[[int, int, float], None]]:
    """Yields a function that is told steps done, steps in all, and the last loss.

    Only a terminal shows the bar.
    """
    bar = bars_on(console)
    task = bar.add_task(title, total=None)

    def report(done: int, total: int, loss: float) -> None:
        words = f"{title}, loss {loss:.3f}"
        bar.update(task, completed=done, total=total, description=words)

    with bar:
        yield report
