"""Turns templates into pages that need nothing but themselves, and says what they were made from.

Conventions: every value is escaped (autoescape is always on); what is safe markup is a
`markupsafe.Markup` made here or in `harness.report.figure`. Style and script are inlined. A page
opens from disk and asks for nothing. It carries hashes, SHA-256 in hexadecimal over texts (never
over figures, whose last digits differ between machines), as ``<meta name="vlsm-...">``: they tell
whether a page that was kept is what this harness would write.
"""

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from harness._version import __version__
from harness.files.canonical import canonical
from harness.prompts.word_diff import word_edits
from harness.report.figure import drawing, stylesheet
from harness.report.sheet import csv_text
from harness.suite.schema import Suite

if TYPE_CHECKING:
    import polars as pl
    from jinja2 import Environment
    from markupsafe import Markup

    from harness.stats.flips import Flip

TEMPLATES = Path(__file__).with_name("templates")
LONGEST = 400
"""Characters of a text that a page shows; files hold all of them."""

# Of a table of n columns of text, those that follow: a class on each of their cells weighs more.
_FIGURES = ",".join(f".t{n} td:nth-child(n+{n + 1})" for n in range(1, 25))
_FIGURES += "{text-align:right;white-space:nowrap}\n"

_KEPT = {"\u200d", "\ufe0f"}  # join and colour emoji, and can do nothing else


def rendered(template: str, *folders: Path, **content: Any) -> str:
    """A page from a template, which may extend ``base.html.j2``.

    Templates are looked for in `folders`, then in `TEMPLATES`; a missing name of the content is an
    error.
    """
    return environment(*folders).get_template(template).render(**content)


@lru_cache(maxsize=8)
def environment(*folders: Path) -> "Environment":
    """The templates with what all of them use: `style`, `script`, `version` and the filters."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    found = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = {
        name: (TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "page.js")
    }
    found.globals.update(
        version=__version__,
        style=Markup(stylesheet() + own["style.css"] + _FIGURES),  # our own files
        script=Markup(own["page.js"]),
        theme=Markup(stylesheet()),
    )
    found.filters.update(shown=shown, csv_uri=csv_uri, brief=brief, drawn=drawing)
    found.filters.update(was=was, became=became, bar=bar)
    return found


def shown(text: object, longest: int = LONGEST) -> str:
    r"""A text as a page shows it: cut where it is long, invisible characters as escapes.

    Direction marks and other control characters could make a name look like another one.

    Example:
        >>> print(shown("a" + chr(0x202e) + "b"), shown("x" * 12, 5))
        a\u202eb xxxxx… (12 characters)
    """
    whole = str(text)
    cut = whole if len(whole) <= longest else f"{whole[:longest]}… ({len(whole):,} characters)"
    return "".join(map(_visible, cut))


def _visible(character: str) -> str:
    if character in _KEPT or character == "\n":
        return character
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return ascii(character)[1:-1] if hidden else character


def brief(data: "pl.DataFrame") -> str:
    """A table as CSV for a page, with fewer digits than the files that `report --csv` writes."""
    return csv_text(data, digits=4)


def csv_uri(text: str) -> str:
    """A file's content as an address: the link works offline and without script."""
    return "data:text/csv;charset=utf-8," + quote(text, safe=" ,.;:|/()[]=+_~!*@")


def bar(curve: "Flip") -> str:
    """Where a curve's two ends and its margin lie on a bar, in percent of it: a style.

    Example:
        >>> from harness.stats.flips import Flip
        >>> bar(Flip("size", "percent", 4.0, "heard", 25.0, "unheard", math.inf))
        '--a:50;--b:100;--j:20'
    """
    is_share = curve.unit == "fraction"
    ends = (curve.low_to, curve.high_from, curve.judged_at)
    places = [100 * v if is_share else 10 * math.sqrt(v) for v in ends]
    return ";".join(
        f"--{name}:{min(place, 100):.0f}" for name, place in zip("abj", places, strict=True)
    )


def was(original: str, text: str) -> "Markup":
    """The original prompt, with the words that `text` lacks struck out."""
    return _marked(original, text, old=True)


def became(original: str, text: str) -> "Markup":
    """The changed prompt, with the words that it brings underlined."""
    return _marked(original, text, old=False)


def _marked(original: str, text: str, *, old: bool) -> "Markup":
    from markupsafe import Markup

    original, text = original[: 4 * LONGEST], text[: 4 * LONGEST]
    plain = Markup("{}")
    own = Markup("<del>{}</del>" if old else "<ins>{}</ins>")
    parts = [
        (own if is_own else plain).format(shown(piece))
        for piece, is_own in _pieces(original, text, old=old)
        if piece
    ]
    empty = Markup('<span class="muted">(no words)</span>')
    return Markup("").join(parts) if parts else empty


def _pieces(original: str, text: str, *, old: bool) -> Iterator[tuple[str, bool]]:
    """What both prompts share, and what one of them has alone."""
    at = 0
    for edit in word_edits(original, text):
        yield original[at : edit.start], False
        yield (edit.old if old else edit.new), True
        at = edit.end
    yield original[at:], False


_ROOMS = ("report", "stats")
_META = re.compile(r'<meta name="vlsm-([a-z]+)" content="([0-9a-f]*)">')


def made_from(suite: Suite, plan_sha256: str) -> dict[str, str]:
    """What a page depends on: `code` that computes and draws, `suite`, `plan`."""
    said = canonical(suite.model_dump(mode="json", exclude_defaults=True))
    return {
        "code": code_sha256(),
        "suite": hashlib.sha256(said).hexdigest(),
        "plan": plan_sha256,
    }


def code_sha256() -> str:
    """Hash of the rooms that make a page, templates and all, whatever their line ends."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((package / room).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
                digest.update(canonical([path.relative_to(package).as_posix(), text]))
    return digest.hexdigest()


def read_made_from(page: Path) -> dict[str, str]:
    """The hashes that a page carries."""
    with page.open(encoding="utf-8") as lines:
        head = "".join(line for _, line in zip(range(40), lines, strict=False))
    return dict(_META.findall(head))
