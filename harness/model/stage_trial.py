"""Runs a stage that OpenVINO has compiled in a process that may die.

A graph that was traced wrongly can read memory that is not its own, and then ends the process that
runs it. So an export runs first where that harms nobody: ``python -m`` this module.

Conventions: arguments are the export's file and OpenVINO's settings as JSON; standard input holds
numpy's archive of the inputs, ``arr_0`` and so on, `n` of them a call. Exit 0 when all calls came
to their end.
"""

import io
import json
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 600


def fate_of(export: Path, settings: Mapping[str, Any], calls: Sequence[Sequence[Any]]) -> str:
    """How a process that runs an export ends; empty where it ends well or raises."""
    archive = io.BytesIO()
    np.savez(archive, *(array for call in calls for array in call))
    given = [sys.executable, "-m", __name__, str(export), json.dumps(settings), str(len(calls[0]))]
    try:
        done = subprocess.run(
            given, input=archive.getvalue(), capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"OpenVINO did not end within {SECONDS} s"
    # What raises here raises in the caller's own process as well, and says why.
    if done.returncode < 0:
        return f"OpenVINO ends the process that runs it (signal {-done.returncode})"
    return ""


def main() -> None:
    """Run every call on standard input."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    warnings.simplefilter("ignore")
    import openvino

    export, settings, n = sys.argv[1:]
    model = openvino.Core().compile_model(export, "CPU", json.loads(settings))
    request = model.create_infer_request()
    with np.load(io.BytesIO(sys.stdin.buffer.read())) as archive:
        arrays = list(archive.values())
    for start in range(0, len(arrays), int(n)):
        request.infer(arrays[start : start + int(n)], share_inputs=True)


if __name__ == "__main__":
    main()
