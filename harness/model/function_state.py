"""What a function is made of, as a hash: its text, and the values it works with.

Two functions of one text may hold two sets of weights: in a closure, in a default, in an object
whose method they are, or in a global of their module. Files they import are covered by
`harness.model.sources`; here are the values, found from the function itself.

Conventions: the hash is the same in every process. Tensors and arrays count with their bytes,
libraries and open files with their names alone. What lies deeper than `_DEEPEST` is left out.
"""

import functools
import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from harness.model.sources import is_own

_DEEPEST = 8
_PLAIN = (str, bytes, int, float, complex, bool, type(None), Path)


def state_sha256(function: Any) -> str:
    """SHA-256 over a function's text and the values it refers to."""
    walk = _Walk()
    walk.feed(function, 0)
    return walk.digest.hexdigest()


class _Walk:
    """Follows values once each, in an order that depends on names alone."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # an id means something only while its object lives

    def feed(self, value: Any, depth: int) -> None:
        """Add a value and what it holds."""
        if isinstance(value, _PLAIN):
            self._say(type(value).__name__, value)
            return
        if depth > _DEEPEST or id(value) in self._seen:
            self._say("again", self._seen.get(id(value), "deep"))
            return
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        for part in _parts(value):
            if isinstance(part, memoryview):
                self.digest.update(part)
            else:
                self.feed(part, depth + 1)

    def _say(self, kind: str, value: Any) -> None:
        self.digest.update(f"{kind} {value!r}\n".encode("utf-8", "backslashreplace"))


def _parts(value: Any) -> Iterator[Any]:
    """What a value consists of, its kind first."""
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, functools.partial):
        yield from (value.func, list(value.args), dict(value.keywords))
    elif isinstance(value, ModuleType):
        yield value.__name__
    elif isinstance(value, type):
        yield from _of_class(value)
    elif isinstance(value, CodeType):
        yield from _of_code(value)
    else:
        yield from _of_data(value)


def _of_data(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous()
        yield from (str(array.dtype), tuple(array.shape))
        yield array.reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield from (value.dtype.str, value.shape)
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    elif isinstance(value, torch.nn.Module):
        yield from sorted({f"{type(m).__module__}.{type(m).__qualname__}" for m in value.modules()})
        yield dict(value.state_dict())
    elif isinstance(value, Mapping):
        yield from (part for key in sorted(value, key=repr) for part in (key, value[key]))
    elif isinstance(value, set | frozenset):
        yield from sorted(value, key=repr)
    elif isinstance(value, list | tuple):
        yield from value
    elif _is_own_kind(type(value)):
        yield type(value)
        yield dict(getattr(value, "__dict__", {}))


def _of_function(function: FunctionType) -> Iterator[Any]:
    yield function.__qualname__
    if not _is_own_kind(function):
        yield function.__module__
        return
    yield _text(function) or function.__code__
    yield from (list(function.__defaults__ or ()), dict(function.__kwdefaults__ or {}))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield name
        yield _content(cell)
    names = sorted(set(_names(function.__code__)) & function.__globals__.keys())
    yield {name: function.__globals__[name] for name in names}


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _of_class(kind: type) -> Iterator[Any]:
    yield kind.__qualname__
    if _is_own_kind(kind):
        yield _text(kind)
        functions = {k: v for k, v in vars(kind).items() if isinstance(v, FunctionType)}
        yield functions


def _of_code(code: CodeType) -> Iterable[Any]:
    return [memoryview(code.co_code), list(code.co_names), list(code.co_consts)]


def _names(code: CodeType) -> Iterator[str]:
    """Names that a function and those inside it look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _text(thing: Any) -> str | None:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError, IndentationError, SyntaxError):
        return None


def _is_own_kind(thing: Any) -> bool:
    """Whether a function or class is the user's, not a library's."""
    import sys

    module = sys.modules.get(thing.__module__ or "")
    file = getattr(module, "__file__", None)
    if file is None:  # a notebook or console; what is compiled into Python has no text of its own
        return bool(thing.__module__ == "__main__")
    return is_own(thing.__module__, file)
