"""Reads a pickle as data: nothing in it is imported, called or built.

The stack machine here knows numbers, texts, containers and names; where the pickle calls a name,
the caller's table decides what stands for the result, and `Unknown` for everything else. Python's
machine calls and imports; torch's restricted one refuses a file for a single foreign object; and
both hash any key of a dictionary, of which one nested a million tuples deep ends the process. Here
keys other than text are forgotten, and nothing walks into nested values. What is held is bounded by
the length of the pickle, times about sixty. Source: CPython's ``pickletools``.
"""

import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

# What a damaged pickle makes of the machine, `pickletools` included.
DAMAGE = (
    pickle.UnpicklingError,
    struct.error,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
)

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# They push what lies outside the pickle: a process-wide table, buffers of the caller.
_OUTSIDE = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER"}
_IGNORED = {"PROTO", "FRAME", "READONLY_BUFFER"}
_MARK = object()


@dataclass(frozen=True)
class Name:
    """Something the pickle would import; it never is."""

    module: str
    name: str


@dataclass(frozen=True)
class Unknown:
    """Stands for an object nobody here knows; `made_by` is what would have made it."""

    made_by: Name | None = None


Build = Callable[..., Any]
Step = Callable[[Any], object]


def read_pickle(
    stream: BinaryIO,
    *,
    builders: Mapping[tuple[str, str], Build],
    persistent: Callable[[Any], Any],
) -> Any:
    """The value that one pickle describes; the stream, in memory, then stands behind it.

    `builders` make what stands for the result of a call of ``(module, name)``, from arguments that
    may be anything; `persistent` what stands for a persistent id. Raises one of `DAMAGE`.
    """
    machine = _Machine(builders, persistent)
    for opcode, argument, _ in pickletools.genops(stream):
        machine.step(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(
        self, builders: Mapping[tuple[str, str], Build], persistent: Callable[[Any], Any]
    ) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._builders, self._persistent = builders, persistent
        self._steps = self._table()

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        if name in self._steps:
            self._steps[name](argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self.stack.append(tuple(self._last(_TUPLES[name])))
        elif name in _OUTSIDE:
            self.stack.append(Unknown())
        elif name not in _IGNORED:
            # Numbers, texts and bytes: `pickletools` has decoded them.
            self.stack.append(argument)

    def _table(self) -> Mapping[str, Step]:
        put = dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._put)
        get: dict[str, Step] = dict.fromkeys(
            ("GET", "BINGET", "LONG_BINGET"), lambda at: self.stack.append(self.memo[at])
        )
        memorise = {"MEMOIZE": lambda _: self._put(len(self.memo))}
        return self._containers() | put | get | memorise | self._objects()

    def _containers(self) -> dict[str, Step]:
        push, pop = self.stack.append, self.stack.pop
        return {
            "MARK": lambda _: push(_MARK),
            "POP": lambda _: pop(),
            "POP_MARK": lambda _: self._marked(),
            "DUP": lambda _: push(self.stack[-1]),
            "EMPTY_LIST": lambda _: push([]),
            "LIST": lambda _: push(self._marked()),
            "APPEND": lambda _: self._extend(self._last(1)),
            "APPENDS": lambda _: self._extend(self._marked()),
            "TUPLE": lambda _: push(tuple(self._marked())),
            "EMPTY_DICT": lambda _: push({}),
            "DICT": lambda _: push(_entries(self._marked())),
            "SETITEM": lambda _: self._update(self._last(2)),
            "SETITEMS": lambda _: self._update(self._marked()),
            "EMPTY_SET": lambda _: push(Unknown()),
            "ADDITEMS": lambda _: self._marked(),
            "FROZENSET": lambda _: (self._marked(), push(Unknown())),
        }

    def _objects(self) -> dict[str, Step]:
        push = self.stack.append
        return {
            "GLOBAL": lambda text: push(Name(*text.split(" ", 1))),
            "STACK_GLOBAL": lambda _: push(_named(*self._last(2))),
            "REDUCE": lambda _: push(self._made(*self._last(2))),
            "NEWOBJ": lambda _: push(self._made(*self._last(2))),
            "NEWOBJ_EX": lambda _: push(self._made(*self._last(3)[:2])),
            "OBJ": lambda _: push(self._object(*self._marked())),
            "INST": lambda text: push(self._object(Name(*text.split(" ", 1)), *self._marked())),
            "BUILD": lambda _: self._last(1),
            "PERSID": lambda text: push(self._persistent(text)),
            "BINPERSID": lambda _: push(self._persistent(*self._last(1))),
            "STOP": lambda _: None,
        }

    def _last(self, n: int) -> list[Any]:
        """Take the last `n` values off the stack, in their order."""
        if len(self.stack) < n:
            raise ValueError("the pickle takes more from its stack than is there")
        values = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return values

    def _marked(self) -> list[Any]:
        """Take everything above the last mark off the stack, and the mark."""
        at = len(self.stack) - 1
        while at >= 0 and self.stack[at] is not _MARK:
            at -= 1
        if at < 0:
            raise ValueError("the pickle has no mark where it needs one")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def _put(self, at: int) -> None:
        self.memo[at] = self.stack[-1]

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _update(self, flat: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_entries(flat))

    def _made(self, maker: Any, arguments: Any) -> Any:
        """What stands for ``maker(*arguments)``."""
        if not isinstance(maker, Name):
            return Unknown()
        build = self._builders.get((maker.module, maker.name))
        if build is None or not isinstance(arguments, tuple):
            return Unknown(maker)
        return build(*arguments)

    def _object(self, maker: Any = None, *arguments: Any) -> Any:
        return self._made(maker, arguments)


def _named(module: Any, name: Any) -> Name | Unknown:
    return Name(module, name) if type(module) is type(name) is str else Unknown()


def _entries(flat: list[Any]) -> dict[str, Any]:
    """Keys and values in turn; of the keys texts are kept, which are safe to hash."""
    return {
        key: value for key, value in zip(flat[::2], flat[1::2], strict=True) if type(key) is str
    }
