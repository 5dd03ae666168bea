"""Finds what ships with the package, keeps paths inside their root, reads YAML with its lines.

Conventions: a *kind* is ``models`` or ``suites``; a place inside a YAML file is
written ``file.yaml:12: probes[2].perturbation``. Files come from strangers: sizes and
nesting are bounded before anything is built, keys stand once, texts hold no NUL and no
half of a surrogate pair, whole numbers fit 64 bits (`harness.files.canonical`, which reads
JSON, has the same rules). Nothing that is read is executed.
"""

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar, cast

import pydantic
import yaml

from harness.errors import CardError, DataError, HarnessError
from harness.files.canonical import MAX_DEPTH, cut, decoded, read_bytes, shown, value_problem

Place = tuple[str | int, ...]
Schema = TypeVar("Schema", bound=pydantic.BaseModel)

MAX_YAML_BYTES = 4 << 20

# libyaml's, where PyYAML has it: a card is read three times as fast.
_FAST_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_PACKAGE = Path(__file__).resolve().parent.parent


def cache_folder(name: str) -> Path:
    """A folder for what can be made again: ``VLSM_HARNESS_CACHE``, else the user's caches."""
    if named := os.environ.get("VLSM_HARNESS_CACHE"):
        return Path(named).expanduser() / name
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "vlsm-harness" / name


def shipped(kind: str) -> Path:
    """The folder ``models`` or ``suites`` that belongs to this copy of the harness.

    A wheel carries both under ``harness/_shipped``; in a checkout they stand
    beside the package.
    """
    installed = _PACKAGE / "_shipped" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def inside(root: Path, relative: str, *, where: str) -> Path:
    """The path `relative` below `root`, links followed; refused if it leaves it or is no path."""
    problem = path_problem(relative)
    if problem and not leaves(relative):
        raise DataError(
            f"{where}: the path {relative[:120]!r} {problem}. A path that this system can hold is "
            "needed. Rename the file."
        )
    base = root.resolve()
    path = base if problem else (base / relative).resolve()
    if problem or not path.is_relative_to(base):
        raise DataError(
            f"{where}: the path {relative!r} leaves the folder {str(root)!r}. "
            "Paths must stay below it. Remove '..', links and leading slashes from the name."
        )
    return path


def leaves(relative: str) -> bool:
    r"""Whether a path is absolute or climbs, read as this system reads it or as Windows does.

    Example:
        >>> [leaves(p) for p in ("a/b", "a/../b", "/a", "C:\\a", "\\a", "a\\..\\b")]
        [False, False, True, True, True, True]
    """
    windows = PureWindowsPath(relative)
    climbs = "\\" in relative and (".." in windows.parts or windows.root == "\\")
    return Path(relative).is_absolute() or windows.is_absolute() or climbs


def path_problem(relative: str) -> str | None:
    """Why a text can be no path below a folder, or None."""
    if leaves(relative):
        return "is absolute or climbs"
    return name_problem(relative)


def name_problem(relative: str) -> str | None:
    """Why no disk can hold a path of this text, or None."""
    if "\0" in relative:
        return "holds the character NUL"
    try:
        parts = [part.encode() for part in Path(relative).parts]
    except UnicodeEncodeError:
        return "holds half of a surrogate pair"
    longest = max(map(len, parts), default=0)
    if longest > _MAX_NAME or len(relative.encode()) > _MAX_PATH:
        return f"holds a name of more than {_MAX_NAME} bytes, or has more than {_MAX_PATH}"
    return None


_MAX_NAME, _MAX_PATH = 255, 3000


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
            name = f"[{step}]" if isinstance(step, int) else shown(step)
            dotted += f".{name}" if dotted and isinstance(step, str) else name
        return f"{self.path}:{known}" + (f": {dotted}" if dotted else "")


def read_yaml(path: Path, *, error: type[HarnessError] = CardError) -> Document:
    """Read one YAML mapping: no tags, no aliases, no merged or doubled keys; a mark is skipped."""
    missing = (
        "Give the name of a built-in or the path of a YAML file; `vlsm-harness ls` lists the "
        "built-in names."
    )
    content = read_bytes(path, most=MAX_YAML_BYTES, error=error, missing=missing)
    return parse_yaml(content, path, error=error)


def parse_yaml(content: bytes, path: Path, *, error: type[HarnessError] = CardError) -> Document:
    """Parse the bytes of one YAML mapping as `read_yaml` does; `path` is where they came from."""
    # A command reads the same few cards again and again.
    found = (_remembered if len(content) <= _SMALL else _parsed)(content, path, error)
    return Document(path, copy.deepcopy(found.data), found.lines)


def _parsed(content: bytes, path: Path, error: type[HarnessError]) -> Document:
    text = decoded(content, path, error=error)
    lines: dict[Place, int] = {}
    try:
        try:
            root = _composed(text, path, error, _FAST_LOADER)
        except yaml.YAMLError:  # told in the same words whichever reader is there
            root = _composed(text, path, error, yaml.SafeLoader)
    except yaml.reader.ReaderError as problem:
        line = text.count("\n", 0, problem.position) + 1
        raise error(
            f"{path}:{line}: not valid YAML ({problem.reason}). Correct the line."
        ) from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        what = getattr(problem, "problem", None) or str(problem)
        raise error(f"{path}:{line}: not valid YAML ({shown(what)}). Correct the line.") from None
    data = None if root is None else _Reader(path, error, lines).value(root, ())
    if not isinstance(data, dict):
        raise error(f"{path}:1: found {type(data).__name__}. The file must hold keys and values.")
    return Document(path, data, lines)


_SMALL = 1 << 16
_remembered = cast("Callable[..., Document]", lru_cache(maxsize=256)(_parsed))


def _composed(text: str, path: Path, error: type[HarnessError], loader: Any) -> Any:
    _refuse_events(text, path, error, loader)
    return yaml.compose(text, Loader=loader)


def _refuse_events(text: str, path: Path, error: type[HarnessError], loader: Any) -> None:
    """Before anything is composed: aliases blow up memory, nesting the stack of this process."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise error(
                f"{path}:{line}: the alias '*{shown(str(event.anchor))}'. "
                "Anchors and aliases are not allowed here. Write the value out."
            )
        if (tag := getattr(event, "tag", None)) is not None:
            raise error(
                f"{path}:{line}: the tag {shown(tag)!r}. Tags are not allowed here. Write "
                "the value alone, a text between quotes."
            )
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise error(
                f"{path}:{line}: nested too deeply. At most {MAX_DEPTH} lists and mappings may lie "
                "within each other. Write it flat."
            )


@dataclass(frozen=True)
class _Reader:
    """Turns composed YAML into values, and notes the line of each key."""

    path: Path
    error: type[HarnessError]
    lines: dict[Place, int]

    def value(self, node: yaml.Node, place: Place) -> Any:
        """The value of a node at a place."""
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*place, n)) for n, child in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self._scalar(node, line)
        found = {}
        for key, child in node.value:
            name = self._key(key, place)
            found[name] = self.value(child, (*place, name))
        return found

    def _key(self, node: yaml.Node, place: Place) -> str:
        line = node.start_mark.line + 1
        if node.tag == "tag:yaml.org,2002:merge":
            raise self.error(
                f"{self.path}:{line}: the key '<<'. Keys are not merged here. Write them out."
            )
        name = self._scalar(node, line) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(name, str):
            raise self.error(
                f"{self.path}:{line}: the key {cut(repr(node.value))} is no text. Keys are "
                "texts. Put it between quotes."
            )
        if (*place, name) in self.lines:
            raise self.error(
                f"{self.path}:{line}: the key {name!r} stands twice (first on line "
                f"{self.lines[*place, name]}). A key may stand once. Remove one of the two."
            )
        self.lines[*place, name] = line
        return name

    def _scalar(self, node: yaml.Node, line: int) -> Any:
        try:
            found = yaml.constructor.SafeConstructor().construct_object(node)
        except _UNREADABLE:
            kind = str(node.tag).rpartition(":")[2]
            found = None
            problem: str | None = f"reads like a value of the kind {kind!r} and is none"
        else:
            problem = value_problem(found)
        if problem:
            raise self.error(
                f"{self.path}:{line}: the value {cut(repr(node.value))} {problem}. Correct it, or "
                "put quotes around it where a text is meant."
            )
        return found


# What the constructors of PyYAML raise of a scalar that only looks like a date or a number.
_UNREADABLE = (ValueError, OverflowError, LookupError, TypeError, AttributeError, yaml.YAMLError)


def validate(
    document: Document, schema: type[Schema], *, error: type[HarnessError] = CardError
) -> Schema:
    """Check a document against its schema; one error tells line, key and nearest key of each."""
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
        field = schema.model_fields.get(str(place[0])) if len(place) == 1 else None
        example = f", such as `{field.examples[0]}`" if field and field.examples else ""
        return f"{where}: the key is missing. Add it{example}."
    if problem["type"] == "model_type" and isinstance(problem["input"], str):
        return _needs_mapping(problem["input"], where, _keys_needed(schema, place))
    message = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
    return f"{where}: found {cut(repr(problem['input']))}. {message}. Correct the value."


def _needs_mapping(given: str, where: str, keys: Sequence[str]) -> str:
    """Of a text where a mapping is wanted: the form, with the text where it is most likely due."""
    own = next((key for key in ("file", "name") if key in keys), keys[0])
    content = {key: cut(given) if key == own else "..." for key in keys}
    form = yaml.safe_dump(content, default_flow_style=True, sort_keys=False, width=1000).strip()
    return f"{where}: found {cut(repr(given))}. A mapping is needed. Write `{form}`."


def _keys_needed(schema: type[pydantic.BaseModel], place: Sequence[str | int]) -> list[str]:
    """Keys without a default at `place`, and that of a file; else all."""
    known = _nodes(schema, place)
    every = [key for node in known for key in node.get("properties", {})]
    needed = [key for node in known for key in node.get("required", [])]
    needed += [key for key in ("file",) if key in every and key not in needed]
    return needed or every or ["name"]


def _known_keys(schema: type[pydantic.BaseModel], place: Sequence[str | int]) -> list[str]:
    """Keys allowed at `place`, read off the JSON Schema, which resolves every nesting."""
    return sorted({key for node in _nodes(schema, place) for key in node.get("properties", {})})


def _nodes(schema: type[pydantic.BaseModel], place: Sequence[str | int]) -> list[dict[str, Any]]:
    whole = schema.model_json_schema()
    nodes = [whole]
    for step in place:
        nodes = [child for node in nodes for child in _children(node, step, whole)]
    return [resolved for node in nodes for resolved in _alternatives(node, whole)]


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
