"""On which device and in which precision a model computes, and what it holds there.

Conventions: weights stay float32. *float32* is exact: on CUDA without the shortened
products (TF32) that torch allows in convolutions. *bfloat16* and *float16* are mixed:
torch's autocast shortens what bears it, and logits are compared with the threshold in
float32. ``mixed`` means bfloat16 where the device has it, else float16, which has
three more digits and overflows beyond 65,504; ``auto`` means float32 on a CPU, where
nothing is gained otherwise, and ``mixed`` on CUDA. What was chosen, never ``auto`` or
``mixed``, enters the model's id and the run, so that two precisions never share a
score.

Tolerance: `reports/precision.md` has the differences from float32 that were measured.
"""

import contextlib
import platform
import sys
from collections.abc import Iterator
from typing import Literal, cast

import torch

from harness.errors import ModelError, choose

Precision = Literal["float32", "bfloat16", "float16"]
ASKED = ("auto", "float32", "bfloat16", "float16", "mixed")
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
    choose(asked, ASKED, kind="dtype", where=where, error=ModelError)
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


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16; every CPU does, if need be slowly."""
    if device.type != "cuda":
        return True
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


@contextlib.contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """The context in which a model computes."""
    if precision == "float32":
        # TF32 convolutions would lift float32 logits out of a model's noise floor.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    else:
        with torch.autocast(device.type, dtype=_DTYPES[precision]):
            yield


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
