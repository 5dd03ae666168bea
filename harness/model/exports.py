"""Stages of a model compiled by OpenVINO, and the folder in which they are kept.

A stage is traced once and stored as OpenVINO's representation; what is stored is read back by
the same versions for the same model alone. The number of rows stays free, so that one export
serves every batch.

Conventions: a stage takes and gives tensors whose first axis is N; numbers of its inputs are
converted to the type with which it was traced. The folder is the user's own: a file of it that
others can write, or that is not what was written, is not read.
"""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness._version import __version__
from harness.errors import ModelError, RunError
from harness.files import cache_folder
from harness.files.writing import make_folder, temporary_folder, write_json
from harness.model.stage_trial import fate_of

Tensors = tuple[Tensor, ...]

KEPT_BYTES = 16 << 30
"""Exports kept at most; full-size models have half a gigabyte. Those used longest ago go first."""

_ASKED = 2
_SUMS = "sums.json"
_FILES = ("stage.xml", "stage.bin")
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class Stage(NamedTuple):
    """What is exported: a function of tensors, and inputs of its kind.

    `module` has the weights that the function uses. `free` says for each input which axes
    differ from call to call; axis 0 does unless the example has one row.
    """

    name: str
    call: Callable[..., Any]
    module: nn.Module
    example: Tensors
    free: tuple[tuple[int, ...], ...] = ()

    @property
    def is_one_row(self) -> bool:
        """Whether it was traced, and is called, with a single row."""
        return all(len(leaf) == 1 for leaf in self.example)

    @property
    def shapes(self) -> list[list[int]]:
        """Of the inputs; -1 where an axis is free."""
        free = self.free or ((),) * len(self.example)
        return [
            [
                -1 if (axis == 0 and not self.is_one_row) or axis in own else n
                for axis, n in enumerate(leaf.shape)
            ]
            for leaf, own in zip(self.example, free, strict=True)
        ]


def import_openvino() -> Any:
    """The library, which is told to report nothing to its makers.

    Raises:
        ModelError: It is not installed.
    """
    if "openvino" not in sys.modules:
        # Importing it reports its use over the network unless this package is missing.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import openvino
    except ImportError:
        raise ModelError(
            "--backend openvino: OpenVINO is not installed. The extra 'openvino' brings it. "
            "Install it with `pip install 'vlsm-harness[openvino]'`, or use --backend torch."
        ) from None
    return openvino


def check_precision(precision: str, *, where: str) -> None:
    """Refuse a precision in which OpenVINO would not compute here.

    Raises:
        ModelError: The CPU or OpenVINO has no arithmetic for it.
    """
    if precision == "float32":
        return
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and "BF16" in capabilities:
        return
    # Asked for more, OpenVINO computes in float32 and says nothing.
    raise ModelError(
        f"{where}: {precision} was asked for with --backend openvino, whose arithmetic on this CPU "
        f"is {', '.join(capabilities)}. float32 is needed here. Give --dtype float32, or use "
        "--backend torch."
    )


@cache
def _core() -> Any:
    return import_openvino().Core()


class Compiled:
    """A compiled stage: tensors of the traced kind -> the stage's tensors."""

    def __init__(self, model: Any, *, precision: str, like: Tensors) -> None:
        """Compile OpenVINO's `model` for as many threads as torch has; `like` are inputs."""
        self._dtypes = [leaf.dtype for leaf in like]
        compiled_model = _core().compile_model(model, "CPU", _settings(precision))
        self._request = compiled_model.create_infer_request()

    def __call__(self, *leaves: Tensor) -> Tensors:
        """The stage's tensors, each a copy of its own."""
        try:
            found = self._request.infer(_arrays(leaves, self._dtypes), share_inputs=True)
        except MemoryError as problem:  # as the engine, which halves its batches, expects it
            raise torch.OutOfMemoryError(f"OpenVINO: {problem}") from None
        return tuple(torch.from_numpy(values) for values in found.to_tuple())


def _settings(precision: str) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        # With a single thread OpenVINO 2026.4 ends the process after exports of some models.
        "INFERENCE_NUM_THREADS": max(2, torch.get_num_threads()),
        "NUM_STREAMS": 1,  # one batch after the other, each with all threads
        # Pinned, the processes of one machine would all sit on its first cores.
        "ENABLE_CPU_PINNING": False,
    }


def _arrays(leaves: Tensors, dtypes: Sequence[torch.dtype]) -> list[Any]:
    return [
        leaf.detach().to(dtype).contiguous().numpy()
        for leaf, dtype in zip(leaves, dtypes, strict=True)
    ]


class RowByRow:
    """A stage that was traced with one row and knows no other number."""

    def __init__(self, one: Compiled) -> None:
        self._one = one

    def __call__(self, *leaves: Tensor) -> Tensors:
        """The stage's tensors, of any number of rows."""
        rows = [self._one(*(leaf[i : i + 1] for leaf in leaves)) for i in range(len(leaves[0]))]
        return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))


def compiled(
    stage: Stage, *, model_id: str, precision: str, calls: Sequence[Tensors] = ()
) -> Compiled:
    """The stage compiled, exported first where no earlier export is at hand.

    A new export is tried on `calls` in a process of its own.

    Raises:
        ValueError: The export does not fit other shapes, or ends the process that runs it.
    """
    place = _place(stage, model_id)
    if place is not None and _is_intact(place):
        model = None
        with contextlib.suppress(RuntimeError):  # another process may have removed it since
            model = _core().read_model(place / _FILES[0])
        if model is not None:
            return Compiled(model, precision=precision, like=stage.example)
    exported = _export(stage)
    tried = [_arrays(call, [leaf.dtype for leaf in stage.example]) for call in calls]
    if place is not None:
        with contextlib.suppress(OSError, RuntimeError, RunError):  # the cache's disk may be full
            return _tried(exported, stage, precision, tried, place=place)
    return _tried(exported, stage, precision, tried, place=None)


def _tried(
    exported: Any, stage: Stage, precision: str, calls: list[list[Any]], *, place: Path | None
) -> Compiled:
    """Compile an export from a file, once it has run elsewhere, and keep it at its place."""
    with temporary_folder(beside=place) as folder:
        file = folder / _FILES[0]
        import_openvino().save_model(exported, file, compress_to_fp16=False)
        if calls and (fate := fate_of(file, _settings(precision), calls)):
            raise ValueError(fate)
        # From the file: what is in memory shares the weights of a trace that goes.
        found = Compiled(_core().read_model(file), precision=precision, like=stage.example)
        if place is not None:
            _keep(folder, place)
        return found


class _Traced(nn.Module):
    """A stage as torch's tracer wants it: a module with a forward of tensors."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        # Registered here, weights are the module's own; else they would be constants.
        self.call, self.module = stage.call, stage.module

    def forward(self, *leaves: Tensor) -> Any:
        found = self.call(*leaves)
        return (found,) if isinstance(found, Tensor) else tuple(found)


def _export(stage: Stage) -> Any:
    openvino = import_openvino()
    with torch.no_grad(), warnings.catch_warnings():
        # `torch.export` refuses numbers that are read off tensors, which adapters do to cut
        # padding, and takes ten times as long; what tracing fixes by mistake is seen in the check.
        warnings.simplefilter("ignore")
        trace: Any = torch.jit.trace
        traced = trace(_Traced(stage).eval(), stage.example, check_trace=False)
        model = openvino.convert_model(traced, example_input=stage.example)
    model.reshape({i: openvino.PartialShape(shape) for i, shape in enumerate(stage.shapes)})
    _check_shapes(model, stage)
    return model


def _check_shapes(model: Any, stage: Stage) -> None:
    """Refuse a graph in which a number of rows or a length was fixed by mistake, before it is run.

    Run with others it would read memory that is not its own.
    """
    openvino = import_openvino()
    for tried in _other_shapes(stage):
        told = model.clone()
        try:
            told.reshape({i: openvino.PartialShape(shape) for i, shape in enumerate(tried)})
        except RuntimeError as problem:
            why = str(problem).strip().splitlines()[0][:120]
            raise ValueError(f"inputs of the shapes {tried} do not fit it: {why}") from None
        for output in told.outputs:
            found, n_rows = output.partial_shape, tried[0][0]
            if found.rank.is_dynamic or found[0].is_dynamic or found[0].get_length() != n_rows:
                raise ValueError(f"its number of rows is fixed: {n_rows} in give {found} out")


def _other_shapes(stage: Stage) -> Iterator[list[list[int]]]:
    """Of inputs as they may come: other numbers of rows, and lengths along the free axes."""
    free = stage.free or ((),) * len(stage.example)
    parts = (1.0, 0.5, 0.3) if any(free) else (1.0,)
    for n_rows in (1,) if stage.is_one_row else (1, 3, 5):
        for part in parts:
            shapes = [[n_rows, *map(int, leaf.shape[1:])] for leaf in stage.example]
            for shape, own in zip(shapes, free, strict=True):
                for axis in own:
                    shape[axis] = max(1, round(part * shape[axis]))
            yield shapes


def versions(*libraries: str) -> dict[str, str]:
    """Of what compiles a stage, and of what reads it."""
    return {"harness": __version__, **{name: metadata.version(name) for name in libraries}}


def own_cache(name: str) -> Path | None:
    """A folder of the caches into which this user alone can write; None where there is none."""
    root = cache_folder(name)
    try:
        if not root.exists():
            make_folder(root).chmod(0o700)
    except (OSError, RunError):
        return None
    return root if _is_own(root) else None


def _place(stage: Stage, model_id: str) -> Path | None:
    """The stage's own folder; None where the cache is not the user's own."""
    root = own_cache("openvino")
    if root is None:
        return None
    dtypes = [str(leaf.dtype) for leaf in stage.example]
    # Raised when what is asked of an export changes: earlier ones are then made anew.
    content = [model_id, stage.name, stage.shapes, dtypes, versions("torch", "openvino"), _ASKED]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return root / digest[:32]


def _is_own(path: Path) -> bool:
    """Whether only this user can have written a file or folder."""
    try:
        found = path.lstat()
    except OSError:
        return False
    if not hasattr(os, "geteuid"):
        return not stat.S_ISLNK(found.st_mode)
    is_ours = found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return is_ours and not stat.S_ISLNK(found.st_mode)


def _is_intact(place: Path) -> bool:
    """Whether a folder has an export, as it was written; what is none is removed."""
    if not place.is_dir():
        return False
    try:
        sums = json.loads((place / _SUMS).read_bytes()) if _is_own(place / _SUMS) else None
        intact = _is_own(place) and all(_is_own(place / name) for name in _FILES)
        intact = intact and sums == _sums(place)
        os.utime(place)  # used now
    except (OSError, ValueError):
        intact = False
    if not intact:
        shutil.rmtree(place, ignore_errors=True)
    return intact


def _sums(folder: Path) -> dict[str, str]:
    found = {}
    for name in _FILES:
        with (folder / name).open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _keep(folder: Path, place: Path) -> None:
    """Move an export to its place, whole or not at all."""
    try:
        for name in _FILES:
            (folder / name).chmod(0o600)
        write_json(folder / _SUMS, _sums(folder))
        (folder / _SUMS).chmod(0o600)
        os.rename(folder, place)
    except (OSError, RunError):  # a full disk; another process was first
        return
    _forget_oldest(place.parent, but=place)


def _forget_oldest(root: Path, *, but: Path) -> None:
    """Keep at most `KEPT_BYTES` of exports."""
    used: Sequence[tuple[float, int, Path]] = sorted(
        (folder.stat().st_mtime, sum(f.stat().st_size for f in folder.iterdir()), folder)
        for folder in root.iterdir()
        if folder.is_dir() and folder != but and not folder.name.startswith(".")
    )
    total = sum(size for _, size, _ in used)
    for _, size, folder in used:
        if total <= KEPT_BYTES:
            break
        shutil.rmtree(folder, ignore_errors=True)
        total -= size
