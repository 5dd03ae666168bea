"""On which device and in which precision a model computes, and what it holds there.

Conventions: weights stay float32. *float32* is exact: without the shortened products
(TF32, bfloat16) that torch allows in convolutions on CUDA, and that a trainer may have
allowed in all products, on CPUs with matrix units too. *bfloat16* and *float16* are mixed:
torch's autocast shortens what bears it, and logits are compared with the threshold in
float32. ``mixed`` means bfloat16 where the device has it, else float16, which has
three more digits and overflows beyond 65,504; ``auto`` means float32 on a CPU, where
little is gained without arithmetic for bfloat16 (`bfloat16_gain` measures it), and
``mixed`` on CUDA. ``two-speed`` is ``mixed``, with float32 where that could matter
(`harness.engine.two_speed`). What was chosen, never ``auto`` or ``mixed``, enters the model's id
and the run, so that two precisions never share a score.

Tolerance: `reports/precision.md` has the differences from float32 that were measured.
"""

import contextlib
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, cast

import torch

from harness.errors import ModelError, choose

Precision = Literal["float32", "bfloat16", "float16"]
ASKED = ("auto", "float32", "bfloat16", "float16", "mixed")
TWO_SPEED = "two-speed"
TOLERANCE = 0.005
"""How far two speeds may move the Dice of a case, in [0, 1], where nobody says."""
BROKEN = {"float32": 0.01, "bfloat16": 0.2, "float16": 0.05}
"""Gaps above this share of the logits' spread are no rounding: something is mixed up."""
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is CUDA where there is one.

    Raises:
        ModelError: The name is unknown, or the device is not there.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    kind = name.partition(":")[0]
    choose(kind, ["auto", "cpu", "cuda"], kind="device", where="device", error=ModelError)
    if kind == "cuda" and not available:
        raise ModelError(
            f"device: {name!r} was asked for, and torch sees no CUDA device. Give --device cpu, or "
            "install a CUDA build of torch on a machine that has one (`vlsm-harness doctor`)."
        )
    return torch.device(name)


def choose_precision(asked: str, device: torch.device, *, where: str) -> Precision:
    """What ``--dtype`` means on a device.

    Raises:
        ModelError: The name is unknown, or the device cannot compute so.
    """
    if tolerance_of(asked) is not None:
        raise ModelError(
            f"{where}: found --dtype {asked}. Two speeds are of a whole run alone (`run`). Give "
            "float32 or mixed here."
        )
    choose(asked, (*ASKED, TWO_SPEED), kind="dtype", where=where, error=ModelError)
    if asked == "auto":
        asked = "mixed" if device.type == "cuda" else "float32"
    if asked == "mixed":
        return "bfloat16" if has_bfloat16(device) else "float16"
    if asked == "bfloat16" and not has_bfloat16(device):
        raise ModelError(
            f"{where}: bfloat16 was asked for, and {device} has no arithmetic for it. Give --dtype "
            "mixed, which is float16 there, or float32."
        )
    return cast(Precision, asked)


def tolerance_of(asked: str) -> float | None:
    """The tolerance of ``two-speed`` or ``two-speed:0.01``; None of every other ``--dtype``.

    Raises:
        ModelError: It is no number between 0 and 1.
    """
    name, _, value = asked.partition(":")
    if name != TWO_SPEED:
        return None
    try:
        tolerance = float(value) if value else TOLERANCE
    except ValueError:
        tolerance = math.nan
    if not 0 < tolerance < 1:
        raise ModelError(
            f"--dtype two-speed: found the tolerance {value!r}. It is how far the Dice of a case "
            f"may move, a number between 0 and 1 such as {TOLERANCE}. Correct it."
        )
    return tolerance


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16; every CPU does, if need be slowly."""
    if device.type != "cuda":
        return True
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


@cache
def bfloat16_gain() -> float:
    """How many times as fast this CPU multiplies matrices in bfloat16 as in float32, measured.

    Far below 1 where it has no arithmetic for it; takes a quarter of a second there.
    """
    exact = torch.rand(512, 512, dtype=torch.float32, device="cpu")
    short = exact.bfloat16()
    with torch.inference_mode(), computing(torch.device("cpu"), "float32"):
        _product_s(exact), _product_s(short[:64])  # the first product chooses its kernel
        return min(_product_s(exact) for _ in range(5)) / min(_product_s(short) for _ in range(2))


def _product_s(matrix: torch.Tensor) -> float:
    # Of the processor: other programs may keep a wall clock waiting.
    start = time.process_time()
    matrix @ matrix.T
    return time.process_time() - start


@contextlib.contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """The context in which a model computes, whatever was set in this process before.

    Products of float32 are exact in it, new tensors are float32 on the CPU, and autocast
    is on exactly where `precision` asks for it. Afterwards all is as it was.

    Raises:
        ModelError: What was computed has changed these settings and left them so.
    """
    with settings_restored():
        _set_exact()
        meant = _settings()
        short = precision != "float32"
        dtype = _DTYPES[precision] if short else None
        with torch.autocast(device.type, dtype=dtype, enabled=short):
            yield
        changed = [key for key, value in _settings().items() if value != meant[key]]
    if changed:
        raise ModelError(
            f"the model changes torch's settings while it computes ({', '.join(changed)}). What it "
            f"computed is no {precision} then. Set them nowhere in the adapter: --dtype says in "
            "which precision the model computes."
        )


@contextlib.contextmanager
def settings_restored() -> Iterator[None]:
    """Leave torch's settings as they were, also those that `computing` does not set.

    An adapter may change them where it is imported, as trainers do; its neighbours in
    this process must not compute otherwise for it.
    """
    before, others = _settings(), _other_settings()
    try:
        yield
    finally:
        _restore(before)
        for key, value in others.items():
            read, write = _OTHERS[key]
            if read() != value:
                write(value)


@contextlib.contextmanager
def building(changed: list[str]) -> Iterator[None]:
    """Restore torch's settings after a stranger's code was imported; say which it changed.

    Models are built as `computing` computes: in float32, on the CPU, whatever was set before.
    """
    with settings_restored():
        _set_exact()
        meant = _settings() | _other_settings()
        yield
        now = _settings() | _other_settings()
        changed += [key for key, value in now.items() if value != meant[key]]


# Each of torch's libraries may shorten the factors of float32 products. An empty name is all of
# them; a later name is a part of an earlier one and follows it until it is set itself.
_LIBRARIES: tuple[str, ...] = ("", "cuda.matmul", "cudnn", "cudnn.conv", "cudnn.rnn")
_LIBRARIES += ("mkldnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")
_Setting = tuple[Callable[[], Any], Callable[[Any], Any]]
_OTHERS: Mapping[str, _Setting] = {
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "deterministic algorithms": (
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    ),
    "gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "autocast of the CPU": (
        lambda: (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        lambda value: _set_autocast("cpu", *value),
    ),
    "autocast of CUDA": (
        lambda: (torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")),
        lambda value: _set_autocast("cuda", *value),
    ),
    "cudnn": (
        lambda: (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        lambda value: _set_cudnn(*value),
    ),
}


def _other_settings() -> dict[str, Any]:
    return {key: read() for key, (read, _) in _OTHERS.items()}


def _set_autocast(kind: str, enabled: bool, dtype: torch.dtype) -> None:
    torch.set_autocast_enabled(kind, enabled)
    torch.set_autocast_dtype(kind, dtype)


def _set_cudnn(benchmark: bool, deterministic: bool) -> None:
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.deterministic = deterministic


def _settings() -> dict[str, Any]:
    """What decides in which precision float32 is computed."""
    found: dict[str, Any] = {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device().type,
        # The older of torch's two ways to say it; None where the newer contradicts it.
        "float32 matmul precision": _said(torch.get_float32_matmul_precision),
        "TF32 of cudnn": _said(lambda: torch.backends.cudnn.allow_tf32),
        "cudnn": torch.backends.cudnn.enabled,
    }
    libraries = {f"fp32_precision of {name or 'all'}": _library(name) for name in _LIBRARIES}
    return found | {
        key: library.fp32_precision
        for key, library in libraries.items()
        if hasattr(library, "fp32_precision")
    }


def _said(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:
        return None


def _library(name: str) -> Any:
    found: Any = torch.backends
    for step in name.split(".") if name else ():
        found = getattr(found, step, None)
    return found


def _set_exact() -> None:
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.enabled = True
    # TF32 convolutions would lift float32 logits out of a model's noise floor.
    torch.backends.cudnn.allow_tf32 = False
    for name in _LIBRARIES:
        if hasattr(library := _library(name), "fp32_precision"):
            library.fp32_precision = "ieee"


def _restore(before: Mapping[str, Any]) -> None:
    torch.set_default_dtype(before["default dtype"])
    device = before["default device"]
    torch.set_default_device(None if device == "cpu" else device)
    if (older := before["float32 matmul precision"]) is not None:
        torch.set_float32_matmul_precision(older)
    if (older := before["TF32 of cudnn"]) is not None:
        torch.backends.cudnn.allow_tf32 = older
    torch.backends.cudnn.enabled = before["cudnn"]
    values = {name: before.get(f"fp32_precision of {name or 'all'}") for name in _LIBRARIES}
    for name, value in values.items():
        library = _library(name)
        if value is not None and library.fp32_precision != value:
            library.fp32_precision = value


def device_name(device: torch.device) -> str:
    """What the device calls itself, such as ``NVIDIA H100 80GB HBM3`` or ``x86_64``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def watched_memory(device: torch.device, peaks_mib: list[float]) -> Iterator[None]:
    """Append the most memory in MiB that was held meanwhile.

    On a CPU nothing tells what one part of a process held: there it is the most that
    the whole process has held since it began.
    """
    if device.type != "cuda":
        yield
        peaks_mib.append(_process_peak_mib())
        return
    torch.cuda.reset_peak_memory_stats(device)
    yield
    peaks_mib.append(torch.cuda.max_memory_allocated(device) / 2**20)


def _process_peak_mib() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kibibytes on Linux, bytes on macOS.
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
