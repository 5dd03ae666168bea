"""Which programs make a model: the Python files and distributions behind its adapter.

A model's id covers every Python file that importing and building its adapter loads from
outside the interpreter and site-packages, and name and version of the distributions it
loads from there. What this process has imported before must not matter, so the files
are not those that appeared in ``sys.modules``: imports are followed from the adapter's
own module, through its text, the functions and classes it holds and those of the built
model; what is imported by a computed name or by path is watched while it happens.

Conventions: a file is *own* if it lies outside the interpreter, site-packages and the
harness. It is known by its module's name, never by its path. The libraries that the
harness needs itself stand in a run's record of its environment, not in the id.
"""

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from importlib import machinery, metadata
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

PRIVATE = "_vlsm_adapter_"
_PACKAGE = Path(__file__).resolve().parent.parent
_SITE = {"site-packages", "dist-packages"}
# Top-level names of what the harness requires: a run's record names their versions.
_RECORDED = {"PIL", "huggingface_hub", "numpy", "open_clip", "polars", "pydantic", "rich"}
_RECORDED |= {"safetensors", "scipy", "segmentation_models_pytorch", "timm", "tokenizers", "torch"}
_RECORDED |= {"torchmetrics", "torchvision", "transformers", "typer", "yaml", "harness"}
_RECORDED_DISTRIBUTIONS = {name.lower().replace("_", "-") for name in _RECORDED} | {
    *("pillow", "open-clip-torch", "segmentation-models-pytorch", "pyyaml")
}


class Traced(NamedTuple):
    """The programs behind a model.

    `files` are the own ones; `modules` are the names under which they and the packages
    around them stand in ``sys.modules``; `outdated` are files that are not what
    this process runs: changed since, or hidden by a module of the same name.
    """

    sha256: str
    files: frozenset[Path]
    modules: frozenset[str]
    outdated: tuple[str, ...]


class _Node(NamedTuple):
    """A module: where its text lies and what it holds."""

    name: str
    file: Path
    holds: Mapping[str, Any]


# What was in a file when this process first met it, and what adapters loaded by computed names.
_SEEN: dict[Path, str] = {}
_WATCHED: dict[str, dict[Path, _Node]] = {}


@contextlib.contextmanager
def watched_imports() -> Iterator[list[ModuleType]]:
    """The modules that are imported by name or executed from a file meanwhile."""
    seen: list[ModuleType] = []
    bootstrap: Any = importlib._bootstrap
    loader_class: Any = machinery.SourceFileLoader
    load, execute = bootstrap._gcd_import, loader_class.exec_module
    own = vars(loader_class).get("exec_module")  # of an adapter that loads another model

    def loading(*arguments: Any, **keys: Any) -> Any:
        seen.append(module := load(*arguments, **keys))
        return module

    def executing(loader: Any, module: ModuleType) -> None:
        seen.append(module)
        execute(loader, module)

    bootstrap._gcd_import = loading
    loader_class.exec_module = executing
    try:
        yield seen
    finally:
        bootstrap._gcd_import = load
        if own is None:
            del loader_class.exec_module
        else:
            loader_class.exec_module = own


def trace(adapter: ModuleType, built: Any, watched: Iterable[ModuleType]) -> Traced:
    """Follow an adapter's imports.

    `watched` is what was imported by computed names meanwhile.
    """
    remembered = _WATCHED.setdefault(adapter.__name__, {})
    for module in watched:
        if (node := _node_of(module)) is not None:
            remembered[node.file] = node
    first = _Node(adapter.__name__, Path(adapter.__file__ or ""), vars(adapter))
    nodes, libraries = _follow([first, *remembered.values(), *_held(_parts(built))])
    contents = {file: _sha256(file) for file in nodes}
    lines = sorted({f"{_stable_name(node)}:{contents[file]}" for file, node in nodes.items()})
    lines += [f"{name}=={version}" for name, version in sorted(_distributions(libraries))]
    changed = [
        str(file) for file in nodes if _SEEN.setdefault(file, contents[file]) != contents[file]
    ]
    hidden = [str(file) for node in nodes.values() if (file := _hidden(node)) is not None]
    return Traced(
        hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        frozenset(nodes),
        frozenset(name for node in nodes.values() for name in _around(node.name)),
        (*changed, *hidden),
    )


def forget(traced: Traced) -> None:
    """Let the modules of a model be imported anew."""
    packages = {name.partition(".")[0] for name in traced.modules if name.startswith(PRIVATE)}
    for name in list(sys.modules):
        is_private = name.partition(".")[0] in packages
        if is_private or (name in traced.modules and name != "__main__"):
            del sys.modules[name]
            _WATCHED.pop(name, None)
    for file in traced.files:
        _SEEN.pop(file, None)
    importlib.invalidate_caches()


def _follow(start: Iterable[_Node]) -> tuple[dict[Path, _Node], set[str]]:
    """Own modules by their files, and the top-level names of the libraries they import."""
    nodes: dict[Path, _Node] = {}
    libraries: set[str] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        file = node.file.resolve()
        if file in nodes or not file.is_file():
            continue
        nodes[file] = node
        waiting += _held(node.holds)
        for name in _imported(node):
            waiting += _resolve(name, libraries)
        waiting += _resolve(node.name, libraries)
    return nodes, libraries


def _resolve(name: str, libraries: set[str]) -> list[_Node]:
    """A module and the packages around it, as far as they are own."""
    found = []
    for part in _around(name):
        module = sys.modules.get(part)
        file = getattr(module, "__file__", None) or _origin(part)
        if file is None:
            if module is None and _locations(part) is None:
                break  # no module: a name inside the last one, or one that is not installed
        elif is_own(part, file):
            found.append(_Node(part, Path(file), vars(module) if module else {}))
        else:
            libraries |= {name.partition(".")[0]} if _is_of_site(file) else set()
            break
    return found


def _around(name: str) -> list[str]:
    """``a.b.c`` -> ``a``, ``a.b``, ``a.b.c``."""
    steps = name.split(".")
    return [".".join(steps[:depth]) for depth in range(1, len(steps) + 1)]


def _spec(name: str) -> machinery.ModuleSpec | None:
    """Where a module would be imported from now; its packages are not imported for it."""
    package, _, _ = name.rpartition(".")
    path = _locations(package) if package else None
    if package and path is None:
        return None
    for finder in sys.meta_path:
        with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
            if (spec := finder.find_spec(name, path)) is not None:
                return spec
    return None


def _locations(name: str) -> list[str] | None:
    """The folders of a package."""
    module = sys.modules.get(name)
    if module is not None:
        return list(getattr(module, "__path__", None) or ()) or None
    spec = _spec(name)
    return list(spec.submodule_search_locations or ()) or None if spec else None


def _origin(name: str) -> str | None:
    spec = _spec(name)
    return spec.origin if spec and spec.has_location else None


def _imported(node: _Node) -> tuple[str, ...]:
    """Absolute names of the modules that a file's text imports, in its functions too."""
    if node.file.suffix != ".py":
        return ()
    is_package = node.file.name == "__init__.py"
    package = node.name if is_package else node.name.rpartition(".")[0]
    return _names_in(node.file.read_bytes(), package)


@lru_cache(maxsize=256)  # texts, of which each model of a family has the same
def _names_in(text: bytes, package: str) -> tuple[str, ...]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return ()
    names: list[str] = []
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            names += (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            base = _absolute(statement.module or "", statement.level, package)
            if base is not None:
                names += (base, *(f"{base}.{alias.name}" for alias in statement.names))
    return tuple(names)


def _absolute(module: str, level: int, package: str) -> str | None:
    if not level:
        return module
    steps = package.split(".")
    kept = steps[: len(steps) - level + 1]
    return ".".join([*kept, module] if module else kept) if kept and all(kept) else None


def _parts(built: Any) -> dict[str, Any]:
    """What a built adapter consists of: its attributes, and the classes of its layers."""
    held = dict(getattr(built, "__dict__", {})) | {"": type(built)}
    module: Any = held.get("module")
    if hasattr(module, "modules"):
        held |= {f"layer {n}": kind for n, kind in enumerate({type(m) for m in module.modules()})}
    return held


def _held(holds: Mapping[str, Any]) -> list[_Node]:
    """Own modules that the values of a module come from."""
    nodes = []
    for value in list(holds.values()):
        if isinstance(value, ModuleType):
            nodes.append(_node_of(value))
            continue
        for kind in value.__mro__ if isinstance(value, type) else (value,):
            members = list(vars(kind).values()) if isinstance(kind, type) else [kind]
            functions = [m for m in members if isinstance(m, FunctionType)]
            nodes += [_node_of_globals(f.__globals__) for f in functions[:1]]
    return [node for node in nodes if node is not None]


def _node_of(module: ModuleType) -> _Node | None:
    return _node_of_globals(getattr(module, "__dict__", {}))


def _node_of_globals(holds: Mapping[str, Any]) -> _Node | None:
    name, file = str(holds.get("__name__")), holds.get("__file__")
    mine = isinstance(file, str) and is_own(name, file)
    return _Node(name, Path(str(file)), holds) if mine else None


@cache
def is_own(name: str, file: str) -> bool:
    """Whether a module is neither the interpreter's, a library's nor the harness's."""
    if name.startswith(PRIVATE):
        return True
    path = Path(file).resolve()
    inside = any(path.is_relative_to(folder) for folder in (*_interpreter(), _PACKAGE))
    return not inside and not _is_of_site(file) and not file.startswith("<")


@cache
def _interpreter() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib"))


@cache
def _is_of_site(file: str) -> bool:
    return bool(_SITE & {*Path(file).parts, *Path(file).resolve().parts})


def _hidden(node: _Node) -> Path | None:
    """Another own file that the node's name means now: another model's stands in its place."""
    if node.name.startswith(PRIVATE) or sys.modules.get(node.name) is None:
        return None
    origin = _origin(node.name)
    if origin is None or not is_own(node.name, origin):
        return None
    other = Path(origin).resolve()
    return None if other == node.file.resolve() else other


def _stable_name(node: _Node) -> str:
    """The module's name without what differs from one process or machine to the next."""
    name = node.name.partition(".")[2] if node.name.startswith(PRIVATE) else node.name
    is_name = all(step.isidentifier() for step in name.split(".")) and name != "__main__"
    return name if is_name else node.file.name


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _owners(path: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Which distributions a top-level name is of; to read all of them takes half a second."""
    return metadata.packages_distributions()


def _distributions(libraries: set[str]) -> set[tuple[str, str]]:
    """Name and version of what is imported, and of what that requires in turn."""
    found: dict[str, str] = {}
    tops = sorted(libraries - _RECORDED)
    owners = _owners(tuple(sys.path)) if tops else {}
    waiting = [name for top in tops for name in owners.get(top, ())]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found or name in _RECORDED_DISTRIBUTIONS:
            continue
        with contextlib.suppress(metadata.PackageNotFoundError):
            distribution = metadata.distribution(name)
            found[name] = distribution.version
            required = [text for text in distribution.requires or () if "extra ==" not in text]
            waiting += [match[0] for text in required if (match := re.match(r"[\w.-]+", text))]
    return set(found.items())
