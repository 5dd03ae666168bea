"""What an audit says while it works, to whoever listens: it prints nothing itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Listener:
    """Hears and says nothing; the command line has one that draws bars."""

    def note(self, text: str) -> None:
        """What the user of the numbers should know."""

    def remark(self, text: str) -> None:
        """What goes on, for those who watch."""

    @contextmanager
    def progress(
        self, title: str, total: int | None, *, unit: str = "", done: int = 0
    ) -> Iterator[Callable[[int], None]]:
        """Work of `total` units, where it is known; yields the function that advances it."""
        yield lambda _: None

    @contextmanager
    def counting(self, title: str) -> Iterator[Callable[[], None]]:
        """Work whose end is not known beforehand."""
        with self.progress(title, None) as advance:
            yield lambda: advance(1)


SILENT = Listener()
