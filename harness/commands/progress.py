"""Progress bars with rate and time left; plain lines when the output is no terminal.

Conventions: progress goes to standard error, results to standard output.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.auditing.listener import Listener
from harness.commands.output import say
from harness.report.escape import visible

# Without a terminal a line is printed this often.
LINE_EVERY_S = 10.0


class Terminal(Listener):
    """Tells a person at a terminal, or a log, what goes on; if quiet, notes alone."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def note(self, text: str) -> None:
        """A line on standard error."""
        say(text, err=True)

    def remark(self, text: str) -> None:
        """A line on standard error, unless quiet."""
        if not self._quiet:
            say(text, err=True)

    @contextmanager
    def progress(
        self, title: str, total: int | None, *, unit: str = "", done: int = 0
    ) -> Iterator[Callable[[int], None]]:
        """A bar over `total` units of work, with rate and time left."""
        title = visible(title)
        if self._quiet:
            yield lambda _: None
        elif sys.stderr.isatty():
            yield from _bar(title, total, unit, done)
        else:
            yield from _lines(title, total, unit, done)


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


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C at any moment leaves a run that can be continued, and says so."""
    import typer

    try:
        yield
    except KeyboardInterrupt:
        say("Interrupted. The same command again continues from here.", err=True)
        raise typer.Exit(130) from None
