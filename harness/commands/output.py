"""What commands print: names and texts of strangers reach terminals and CI logs escaped.

Conventions: results go to standard output, remarks to standard error. Every line passes
`harness.report.escape.visible`: no control character, no direction mark and no workflow
command of a card or a data set is obeyed. The colours of `rich` are its own.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from harness.report.escape import visible, visible_json

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console
    from rich.table import Table


def say(text: str, *, err: bool = False) -> None:
    """Print lines."""
    typer.echo(visible(text), err=err)


def say_json(content: Any) -> None:
    """Print JSON, of which a text is a whole document already."""
    if not isinstance(content, str):
        content = json.dumps(content, indent=1, ensure_ascii=False)
    typer.echo(visible_json(content.rstrip("\n")))


def terminal(width: int | None = None, *, err: bool = False, **options: Any) -> "Console":
    """A console that escapes what it prints; `width` counts where the output is no terminal."""
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
    from rich.segment import Segment

    class Escaped:
        """Renders what it holds, escaped."""

        def __init__(self, inner: ConsoleRenderable) -> None:
            self.inner = inner

        def __rich_console__(self, console: Console, how: ConsoleOptions) -> Iterator[Segment]:
            for segment in console.render(self.inner, how):
                is_text = not segment.control
                yield segment._replace(text=visible(segment.text)) if is_text else segment

    class Escaping(RenderHook):
        """Escapes everything that a console renders."""

        def process_renderables(
            self, renderables: list[ConsoleRenderable]
        ) -> list[ConsoleRenderable]:
            """Each in its escaped form."""
            return [Escaped(one) for one in renderables]

    found = Console(stderr=err, markup=False, emoji=False, **options)
    if width is not None and not found.is_terminal:
        found.width = width
    found.push_render_hook(Escaping())
    return found


def table(frame: "pl.DataFrame", *, title: str) -> "Table":
    """A frame as a table for the terminal, figures to the right."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left")
    for name, kind in frame.schema.items():
        made.add_column(name, justify="right" if kind.is_numeric() else "left")
    for row in frame.iter_rows():
        made.add_row(*(Text("" if value is None else str(value)) for value in row))
    return made
