"""Audits whether a vision-language segmentation model uses its prompt, and what breaks it."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness._version import __version__ as __version__

if TYPE_CHECKING:
    from harness.report.loaded import LoadedRun


def load_run(path: str | Path) -> "LoadedRun":
    """A run directory as polars frames, verdicts and charts; a notebook shows it.

    Args:
        path: What `vlsm-harness run` wrote.
    """
    from harness.report.loaded import load_run as load

    return load(path)
