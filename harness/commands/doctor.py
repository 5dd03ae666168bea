"""``doctor``: what this machine has, what is missing, and what that disables.

Conventions: nothing is fetched and nothing outside is asked. A finding is `ok`,
`missing` (something optional; the rest works) or `broken` (something every run needs).
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import typer

from harness._version import __version__
from harness.auditing.faster import WORTH_A_WORD
from harness.commands.options import AsJson
from harness.commands.output import say, say_json

if TYPE_CHECKING:
    from packaging.requirements import Requirement

State = Literal["ok", "missing", "broken"]
DISTRIBUTION = "vlsm-harness"
# Less than this and a run of a few data sets may not fit.
LEAST_FREE_GIB = 1.0
# What each extra of the distribution is for.
EXTRAS = {
    "train": "finetune",
    "tables": "variants read from XLSX tables",
    "coco": "data init of masks that COCO packs as text",
    "volumes": "data init of NIfTI files",
    "lite": "the models lite-film, lite-cross and lite-image-only",
    "croissant": "export --to croissant",
    "ray": "--executor ray",
    "openvino": "--backend openvino",
    "mlflow": "--log mlflow",
    "wandb": "--log wandb",
    "tensorboard": "--log tensorboard",
}


class Finding(NamedTuple):
    """One thing looked at."""

    name: str
    state: State
    found: str
    disables: str = ""
    remedy: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Tell what is installed here, what is missing and what that disables.

    Exit 0, also where something optional is missing; 2 where something that every run needs is.
    """
    findings = list(examine())
    broken = [finding for finding in findings if finding.state == "broken"]
    if as_json:
        content = {"ok": not broken, "findings": [f._asdict() for f in findings]}
        say_json(content)
    else:
        _show(findings)
    if broken:
        raise typer.Exit(2)


def _show(findings: list[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        say(f"{finding.state:<7}  {finding.name:<{width}}  {finding.found}")
        if finding.disables:
            say(f"{'':<7}  {'':<{width}}  without it: {finding.disables}")
        if finding.remedy:
            say(f"{'':<7}  {'':<{width}}  {finding.remedy}")


def examine() -> Iterator[Finding]:
    """Look at everything, the most needed first; nothing that is missing ends it."""
    yield Finding("vlsm-harness", "ok", f"{__version__}, Python {sys.version.split()[0]}")
    yield from _distributions()
    for name, look in LOOKS.items():
        try:
            yield look()
        except Exception as problem:  # noqa: BLE001 - a broken package may raise anything
            told = f"{type(problem).__name__}: {problem}".splitlines()[0]
            yield Finding(name, "broken", told, "every run", f"Install {DISTRIBUTION} anew.")


def _distributions() -> Iterator[Finding]:
    """What the distribution requires, by itself and for its extras."""
    from packaging.requirements import Requirement

    try:
        required = [Requirement(line) for line in requires(DISTRIBUTION) or ()]
    except PackageNotFoundError:
        remedy = "Install it: `pip install .` in the checkout."
        yield Finding("packages", "missing", f"{DISTRIBUTION} is not installed", "plugins", remedy)
        return
    needed = [r for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = [told for told in map(_unfit, needed) if told]
    if wrong:
        remedy = f"`pip install {' '.join(repr(str(r)) for r in needed if _unfit(r))}`."
        yield Finding("packages", "broken", ", ".join(wrong), "every run", remedy)
    else:
        yield Finding("packages", "ok", f"all {len(needed)} that are required")
    for extra, purpose in EXTRAS.items():
        own = [r for r in required if r not in needed and r.marker and _is_for(r, extra)]
        absent = [told for told in map(_unfit, own) if told]
        if absent:
            remedy = f"`pip install '{DISTRIBUTION}[{extra}]'`."
            yield Finding(f"extra {extra}", "missing", ", ".join(absent), purpose, remedy)
        else:
            yield Finding(
                f"extra {extra}", "ok", ", ".join(f"{r.name} {_has(r.name)}" for r in own)
            )


def _is_for(requirement: "Requirement", extra: str) -> bool:
    return requirement.marker is not None and requirement.marker.evaluate({"extra": extra})


def _has(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _unfit(requirement: "Requirement") -> str | None:
    """What is wrong with an installed package; None where nothing is."""
    has = _has(requirement.name)
    if has is None:
        return f"{requirement.name} is not there"
    if not requirement.specifier.contains(has, prereleases=True):
        return f"{requirement.name} {has} is not {requirement.specifier}"
    return None


def _device() -> Finding:
    import torch

    from harness.model.precision import choose_device, choose_precision, device_name

    device = choose_device("auto")
    precision = choose_precision("auto", device, where="doctor")
    found = f"{device_name(device)} ({device.type}), {precision}, torch {torch.__version__}"
    if device.type == "cpu":
        return Finding("device", "ok", f"{found}; torch sees no CUDA device")
    return Finding("device", "ok", f"{found}, {torch.cuda.mem_get_info()[1] / 2**30:.0f} GiB")


def _bfloat16() -> Finding:
    from harness.model.precision import bfloat16_gain, choose_device

    if choose_device("auto").type == "cuda":
        return Finding("bfloat16", "ok", "on CUDA, --dtype auto chooses")
    gain = bfloat16_gain()
    told = f"matrices multiply at {gain:.2g} times the speed of float32 (measured here)"
    wise = "--dtype bfloat16 is faster" if gain > WORTH_A_WORD else "--dtype auto, float32, is best"
    return Finding("bfloat16", "ok", f"{told}: {wise}")


def _threads() -> Finding:
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS")
    told = f"OMP_NUM_THREADS={asked}" if asked else "OMP_NUM_THREADS is not set"
    return Finding("threads", "ok", f"{torch.get_num_threads()} of {usable} cores; {told}")


def _wordnet() -> Finding:
    from harness.errors import LexiconError
    from harness.prompts.wordnet import VERSION, load_wordnet

    disables = f"the lexicon 'curated+wordnet@{VERSION}'; 'curated' needs none"
    try:
        load_wordnet()
    except LexiconError as problem:
        found, _, remedy = str(problem).partition(" Install it")
        return Finding("wordnet", "missing", found, disables, f"Install it{remedy}")
    return Finding("wordnet", "ok", VERSION)


def _hub() -> Finding:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    offline = "offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "asked when needed"
    kept = sum(1 for path in cache.glob("models--*")) if cache.is_dir() else 0
    found = f"{offline}; {kept} models in its cache {cache}"
    if _is_writable(cache):
        return Finding("hub", "ok", found)
    remedy = "Name a folder that can be written in HF_HOME."
    return Finding("hub", "missing", f"{found}, which cannot be written", "fetching models", remedy)


def _disk() -> Finding:
    here = Path.cwd()
    free = {place: _free_gib(place) for place in (here, Path(tempfile.gettempdir()))}
    found = ", ".join(f"{gib:.1f} GiB free in {place}" for place, gib in free.items())
    if not _is_writable(here):
        remedy = "Give --out a folder that can be written."
        return Finding("disk", "missing", f"{found}; {here} cannot be written", "runs here", remedy)
    if min(free.values()) < LEAST_FREE_GIB:
        return Finding("disk", "missing", found, "large runs here", "Free space, or use --out.")
    return Finding("disk", "ok", found)


def _free_gib(place: Path) -> float:
    return shutil.disk_usage(place).free / 2**30


def _is_writable(folder: Path) -> bool:
    """Whether a folder can be written, or made where it is not there yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK)


LOOKS: dict[str, Callable[[], Finding]] = {
    "device": _device,
    "bfloat16": _bfloat16,
    "threads": _threads,
    "wordnet": _wordnet,
    "hub": _hub,
    "disk": _disk,
}
