"""One template of a prompt grammar: matching a text against it, filling it in.

Conventions: a template is literal text with slots. ``{size}`` takes what the attribute's rule
allows, ``{class=no polyp}`` exactly that text, ``{{`` and ``}}`` are braces. Closed values are
matched literally, longest first; a free slot takes the shortest text with which the rest still
matches, never blank at its ends. Every pair of a piece and a place in the text is tried at most
once, so that a stranger's text cannot make the work explode.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from harness.cards import AttributeRule
from harness.errors import CardError, nearest
from harness.records import Span

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}=]*)(?:=(?P<only>[^{}]*))?\}|(?P<stray>[{}])")


@dataclass(frozen=True)
class Slot:
    """A place for one attribute's value. No `values` means that any text fits."""

    attribute: str
    values: tuple[str, ...] = ()
    separator: str | None = None

    @cached_property
    def _by_letter(self) -> Mapping[str, tuple[str, ...]]:
        """The values that begin with a letter: most of a long list need not be tried."""
        found: dict[str, tuple[str, ...]] = {}
        for value in self.values:
            found[value[:1]] = (*found.get(value[:1], ()), value)
        return found

    @cached_property
    def _whole(self) -> frozenset[str]:
        return frozenset(self.values)

    @property
    def wanted(self) -> str:
        """What stands here, for messages."""
        return repr(self.values[0]) if len(self.values) == 1 else f"{{{self.attribute}}}"

    def ends(self, text: str, start: int) -> list[int]:
        """Where a closed value that begins at `start` may end, furthest first."""
        found: set[int] = set()
        open_starts = [start]
        while open_starts:
            begin = open_starts.pop()
            for value in self._by_letter.get(text[begin : begin + 1], ()):
                end = begin + len(value)
                if text.startswith(value, begin) and end not in found:
                    found.add(end)
                    if self.separator and text.startswith(self.separator, end):
                        open_starts.append(end + len(self.separator))
        return sorted(found, reverse=True)

    def admits(self, value: str) -> bool:
        """Whether `value` as a whole may stand here."""
        if not self.values:
            return bool(value) and value == value.strip()
        return value in self._whole or len(value) in self.ends(value, 0)


Piece = str | Slot


@dataclass
class _Attempt:
    """One match in progress: places known to fail, and how far it came (piece, position)."""

    text: str
    dead: set[tuple[int, int]] = field(default_factory=set)
    furthest: tuple[int, int] = (0, 0)

    def fail(self, piece: int, position: int) -> None:
        # Pieces before characters: a free slot may swallow the whole text in vain.
        if (piece, position) > self.furthest:
            self.furthest = (piece, position)


@dataclass(frozen=True)
class Mismatch:
    """Where a text stops fitting a template: piece, character, and what was due there."""

    piece: int
    position: int
    wanted: str


@dataclass(frozen=True)
class Template:
    """A compiled template."""

    source: str
    pieces: tuple[Piece, ...]

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of the slots, in order of their place."""
        return tuple(p.attribute for p in self.pieces if isinstance(p, Slot))

    @property
    def skeleton(self) -> str:
        """What every text of the template holds: literals and slots of a single value."""
        parts = [
            p if isinstance(p, str) else p.values[0] if len(p.values) == 1 else ""
            for p in self.pieces
        ]
        return "".join(parts)

    def match(self, text: str) -> tuple[Span, ...] | Mismatch:
        """The spans of all slots if the whole text fits, else where it stops to fit."""
        attempt = _Attempt(text)
        ends = _match(self.pieces, attempt, 0, 0)
        if ends is None:
            return Mismatch(*attempt.furthest, self._wanted(attempt.furthest[0]))
        starts = [0, *ends]
        return tuple(
            Span(piece.attribute, start, end, text[start:end])
            for piece, start, end in zip(self.pieces, starts, ends, strict=False)
            if isinstance(piece, Slot)
        )

    def _wanted(self, index: int) -> str:
        if index == len(self.pieces):
            return "the end"
        piece = self.pieces[index]
        return repr(piece) if isinstance(piece, str) else piece.wanted

    def render(self, values: Mapping[str, str]) -> str | None:
        """The text with `values` in the slots; None where a value may not stand."""
        parts = []
        for piece in self.pieces:
            if isinstance(piece, Slot):
                value = values.get(piece.attribute, "")
                if not piece.admits(value):
                    return None
                parts.append(value)
            else:
                parts.append(piece)
        return "".join(parts)


def compile_template(source: str, rules: Mapping[str, AttributeRule], *, where: str) -> Template:
    """Compile a template's text; `rules` say how each attribute's value is written.

    Refuses an open brace, a slot of no declared attribute or of one named before, and two free
    slots that touch.
    """
    pieces: list[Piece] = []
    literal, position = "", 0
    for token in _TOKEN.finditer(source):
        literal += source[position : token.start()]
        position = token.end()
        if token["stray"] is not None:
            raise CardError(
                f"{where}: a single {token['stray']!r} at character {token.start()} of {source!r}. "
                "Slots are written {size}, braces {{ and }}. Close the slot or double the brace."
            )
        if token["name"] is None:
            literal += token.group()[0]
            continue
        if literal:
            pieces.append(literal)
        pieces.append(_slot(token, rules, where))
        literal = ""
    literal += source[position:]
    if literal:
        pieces.append(literal)
    template = Template(source, tuple(pieces))
    _check(template, where)
    return template


def _slot(token: re.Match[str], rules: Mapping[str, AttributeRule], where: str) -> Slot:
    name, only = token["name"], token["only"]
    if name not in rules:
        known = ", ".join(map(repr, sorted(rules)))
        raise CardError(
            f"{where}: the slot {token.group()!r} names no attribute.{nearest(name, rules)} "
            f"Known attributes: {known}. Correct the slot or add the attribute to the card."
        )
    if only is not None:
        return Slot(name, (only,))
    rule = rules[name]
    return Slot(name, tuple(sorted(rule.values, key=lambda v: (-len(v), v))), rule.separator)


def _check(template: Template, where: str) -> None:
    names = template.attributes
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise CardError(
            f"{where}: the attribute {doubled[0]!r} has two slots in {template.source!r}. "
            "It may have one. Remove the other or give it a name of its own."
        )
    for before, after in zip(template.pieces, template.pieces[1:], strict=False):
        if isinstance(before, Slot) and isinstance(after, Slot) and not before.values:
            raise CardError(
                f"{where}: the free slot {{{before.attribute}}} touches {{{after.attribute}}}. "
                "Where it ends cannot be told. Put text between them."
            )


def _match(
    pieces: tuple[Piece, ...], attempt: _Attempt, index: int, start: int
) -> list[int] | None:
    """Ends of the pieces from `index` on if they match the rest of the text."""
    if index == len(pieces):
        if start == len(attempt.text):
            return []
        attempt.fail(index, start)
        return None
    if (index, start) in attempt.dead:
        return None
    for end in _ends(pieces, attempt, index, start):
        rest = _match(pieces, attempt, index + 1, end)
        if rest is not None:
            return [end, *rest]
    attempt.dead.add((index, start))
    return None


def _ends(pieces: tuple[Piece, ...], attempt: _Attempt, index: int, start: int) -> Sequence[int]:
    piece, text = pieces[index], attempt.text
    if isinstance(piece, str):
        ends: Sequence[int] = (start + len(piece),) if text.startswith(piece, start) else ()
    elif piece.values:
        ends = piece.ends(text, start)
    else:
        following = pieces[index + 1] if index + 1 < len(pieces) else None
        ends = list(_free_ends(text, start, following))
    if not ends:
        attempt.fail(index, start)
    return ends


def _free_ends(text: str, start: int, following: Piece | None) -> Iterator[int]:
    """Ends of a free value, nearest first: each place where the literal after it stands.

    Where that literal is missing, the value takes the rest and what follows fails there.
    """
    if start >= len(text) or text[start].isspace():
        return
    if not isinstance(following, str):
        if not text[-1].isspace():
            yield len(text)
        return
    end = text.find(following, start + 1)
    if end == -1:
        yield len(text)
    while end != -1:
        if not text[end - 1].isspace():
            yield end
        end = text.find(following, end + 1)
