"""Progress bars with rate and time left; plain lines when the output is no terminal.

Conventions: progress goes to standard error, results to standard output.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.report.escape import visible

# Without a terminal a line is printed this often.
LINE_EVERY_S = 10.0


@contextmanager
def progress(
    title: str, total: int | None, *, unit: str = "", done: int = 0, quiet: bool = False
) -> Iterator[Callable[[int], None]]:
    """A bar over `total` units of work; yields the function that advances it."""
    title = visible(title)
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        yield from _bar(title, total, unit, done)
    else:
        yield from _lines(title, total, unit, done)


@contextmanager
def counting(title: str, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A count of work whose end is not known beforehand."""
    with progress(title, None, quiet=quiet) as advance:
        yield lambda: advance(1)


def _bar(title: str, total: int | None, unit: str, done: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.1f} {unit or 'items'}/s")

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda n: bar.advance(task, n)


def _lines(title: str, total: int | None, unit: str, done: int) -> Iterator[Callable[[int], None]]:
    start = last = time.monotonic()
    count = done

    def advance(n: int) -> None:
        nonlocal count, last
        count += n
        now = time.monotonic()
        if now - last >= LINE_EVERY_S or count == total:
            last = now
            rate = max((count - done) / max(now - start, 1e-9), 1e-9)
            ends = (
                ""
                if total is None
                else f" of {total}, {max(total - count, 0) / max(rate, 1e-9):.0f} s left"
            )
            print(f"{title}: {count}{ends} ({rate:.1f} {unit or 'items'}/s)", file=sys.stderr)  # noqa: T201

    yield advance
