"""Finds what ships with the package, keeps paths inside their root, reads YAML with its lines.

Conventions: a *kind* is ``models`` or ``suites``; a place inside a YAML file is
written ``file.yaml:12: probes[2].perturbation``. Nothing that is read is executed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from harness.errors import CardError, DataError, HarnessError

Place = tuple[str | int, ...]
Schema = TypeVar("Schema", bound=pydantic.BaseModel)

_PACKAGE = Path(__file__).resolve().parent


def shipped(kind: str) -> Path:
    """The folder ``models`` or ``suites`` that belongs to this copy of the harness.

    A wheel carries both under ``harness/_shipped``; in a checkout they stand
    beside the package.
    """
    installed = _PACKAGE / "_shipped" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def inside(root: Path, relative: str, *, where: str) -> Path:
    """The path `relative` below `root`, links followed.

    Raises:
        DataError: The path is absolute or leaves `root`: annotations come from
            strangers.
    """
    base = root.resolve()
    path = (base / relative).resolve()
    if Path(relative).is_absolute() or not path.is_relative_to(base):
        raise DataError(
            f"{where}: the path {relative!r} leaves the folder {str(root)!r}. "
            "Paths must stay below it. Remove '..', links and leading slashes from the name."
        )
    return path


@dataclass(frozen=True)
class Document:
    """A parsed YAML file that remembers the line of every key."""

    path: Path
    data: dict[str, Any]
    lines: Mapping[Place, int] = field(default_factory=dict)

    def where(self, place: Place) -> str:
        """``file.yaml:12: probes[2].perturbation``; the nearest line that is known."""
        known = next(
            (self.lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in self.lines),
            1,
        )
        dotted = ""
        for step in place:
            dotted += f"[{step}]" if isinstance(step, int) else f".{step}" if dotted else step
        return f"{self.path}:{known}" + (f": {dotted}" if dotted else "")


def read_yaml(path: Path, *, error: type[HarnessError] = CardError) -> Document:
    """Read one YAML mapping: no tags, no aliases, no doubled keys.

    Raises:
        HarnessError: The file is missing, no YAML, no mapping, or uses what is
            refused; the class is `error`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(
            f"{path}: no such file. Give the name of a built-in or the path of a YAML file; "
            "`vlsm-harness ls` lists the built-in names."
        ) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(
            f"{path}: cannot be read as UTF-8 text ({problem}). Check the path and encoding."
        ) from None
    return parse_yaml(text, path, error=error)


def parse_yaml(text: str, path: Path, *, error: type[HarnessError] = CardError) -> Document:
    """Parse the text of one YAML mapping as `read_yaml` does; `path` is where it came from.

    Raises:
        HarnessError: As `read_yaml`.
    """
    return _parse(text, path, error)


def _parse(text: str, path: Path, error: type[HarnessError]) -> Document:
    lines: dict[Place, int] = {}
    try:
        # Aliases are refused before anything is composed: a few of them can blow up memory.
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise error(
                    f"{path}:{line}: the alias '*{event.anchor}'. "
                    "Anchors and aliases are not allowed here. Write the value out."
                )
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _collect_lines(root, (), lines, path, error)
        data = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        what = getattr(problem, "problem", None) or str(problem)
        raise error(f"{path}:{line}: not valid YAML ({what}). Correct the line.") from None
    if not isinstance(data, dict):
        raise error(f"{path}:1: found {type(data).__name__}. The file must hold keys and values.")
    return Document(path, data, lines)


def _collect_lines(
    node: yaml.Node,
    place: Place,
    lines: dict[Place, int],
    path: Path,
    error: type[HarnessError],
) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _collect_lines(child, (*place, index), lines, path, error)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            inner = (*place, str(key.value))
            line = key.start_mark.line + 1
            if inner in lines:
                raise error(
                    f"{path}:{line}: the key {key.value!r} stands twice (first on line "
                    f"{lines[inner]}). A key may stand once. Remove one of the two."
                )
            lines[inner] = line
            _collect_lines(child, inner, lines, path, error)


def validate(
    document: Document, schema: type[Schema], *, error: type[HarnessError] = CardError
) -> Schema:
    """Check a document against its schema, all mistakes in one message.

    Raises:
        HarnessError: At least one key is unknown, missing or of the wrong kind;
            each line of the message gives file, line, key and the nearest known key.
    """
    try:
        return schema.model_validate(document.data)
    except pydantic.ValidationError as problems:
        texts = [_explain(p, document, schema) for p in problems.errors(include_url=False)]
        raise error("\n".join(texts)) from None


def _explain(problem: Any, document: Document, schema: type[pydantic.BaseModel]) -> str:
    place = tuple(problem["loc"])
    where = document.where(place)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(schema, place[:-1])
        near = get_close_matches(str(place[-1]), known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{where}: unknown key.{hint} Known keys: {', '.join(map(repr, sorted(known)))}."
    if problem["type"] == "missing":
        return f"{where}: the key is missing. Add it."
    message = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
    return f"{where}: found {problem['input']!r}. {message}. Correct the value."


def _known_keys(schema: type[pydantic.BaseModel], place: Sequence[str | int]) -> list[str]:
    """Keys allowed at `place`, read off the JSON Schema, which resolves every nesting."""
    whole = schema.model_json_schema()
    nodes = [whole]
    for step in place:
        nodes = [child for node in nodes for child in _children(node, step, whole)]
    resolved = [r for node in nodes for r in _alternatives(node, whole)]
    return sorted({key for node in resolved for key in node.get("properties", {})})


def _alternatives(node: dict[str, Any], whole: dict[str, Any]) -> Iterable[dict[str, Any]]:
    if "$ref" in node:
        yield from _alternatives(whole["$defs"][node["$ref"].rsplit("/", 1)[-1]], whole)
        return
    yield node
    for key in ("anyOf", "oneOf", "allOf"):
        for option in node.get(key, []):
            yield from _alternatives(option, whole)


def _children(
    node: dict[str, Any], step: str | int, whole: dict[str, Any]
) -> Iterable[dict[str, Any]]:
    for option in _alternatives(node, whole):
        if isinstance(step, int):
            child = option.get("items")
        else:
            child = option.get("properties", {}).get(step, option.get("additionalProperties"))
        if isinstance(child, dict):
            yield child
