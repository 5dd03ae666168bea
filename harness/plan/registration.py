"""Seals what will be asked before anyone has seen an answer, and says what was asked otherwise.

A registration is a JSON file: the resolved suite (datasets, probes, seed, expectations, margins,
correction), the plan's hash and size, the limit, the date, and a seal over all of it. The date is
that of the machine that wrote it: only a place that others can see, a commit or a public archive,
proves it.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from harness._version import __version__
from harness.errors import UsageError
from harness.files.canonical import canonical, parse_json
from harness.files.writing import write_json
from harness.plan.build import Plan
from harness.suite.schema import Suite

SEAL = "seal_sha256"
_AGAIN = "Write it with `vlsm-harness plan SUITE --register FILE`, before the first run."
_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "registered": str,
    "harness": str,
    "plan_sha256": str,
    "n_cases": int,
    "limit": (int, type(None)),
    "suite": dict,
}


class Registration(NamedTuple):
    """What was registered, when (ISO 8601, UTC), and the seal."""

    registered: str
    plan_sha256: str
    n_cases: int
    limit: int | None
    suite: Mapping[str, Any]
    seal: str


def register(path: Path, plan: Plan, suite: Suite, *, limit: int | None) -> Registration:
    """Write a registration.

    Raises:
        UsageError: There is a file of that name: what is sealed is not written over.
        RunError: The disk refuses it.
    """
    if path.exists():
        raise UsageError(
            f"--register {path}: there is a file of that name. A registration is not written over. "
            "Give another name, or remove the file yourself."
        )
    content: dict[str, Any] = {
        "registered": datetime.now(UTC).isoformat(timespec="seconds"),
        "harness": __version__,
        "plan_sha256": plan.sha256,
        "n_cases": plan.n_cases,
        "limit": limit,
        "suite": suite.model_dump(mode="json", exclude_none=True),
    }
    write_json(path, content | {SEAL: _seal(content)})
    return read_registration(path)


def read_registration(path: Path) -> Registration:
    """Read a registration and hold it against its seal.

    Raises:
        UsageError: There is none, it is none, or it was changed after it was sealed.
    """
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise UsageError(f"{path}: no registration ({problem.strerror}). {_AGAIN}") from None
    found = parse_json(raw, path, error=UsageError, repair=_AGAIN)
    if not isinstance(found, dict) or found.keys() != {*_KEYS, SEAL}:
        raise UsageError(f"{path}: no registration. It has other keys than one has. {_AGAIN}")
    content = {key: found[key] for key in _KEYS}
    if not all(isinstance(content[key], kind) for key, kind in _KEYS.items()):
        raise UsageError(f"{path}: no registration. Its values are of other kinds. {_AGAIN}")
    if _seal(content) != found[SEAL]:
        raise UsageError(
            f"{path}: it was changed after it was sealed. The file as it was written is needed. "
            "Take it from where you published it."
        )
    known = {key: content[key] for key in Registration._fields if key != "seal"}
    return Registration(**known, seal=found[SEAL])


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(content)).hexdigest()


def differences(held: Registration, plan: Plan, suite: Suite, *, limit: int | None) -> list[str]:
    """What a run asks otherwise than was registered; empty where nothing differs.

    Keys of the suite are named; a plan that differs though suite and limit are the same was made
    of other data, or by other code.
    """
    now = suite.model_dump(mode="json", exclude_none=True)
    keys = [k for k in dict.fromkeys([*held.suite, *now]) if held.suite.get(k) != now.get(k)]
    found = [f"suite: {', '.join(keys)}"] if keys else []
    if held.limit != limit:
        before, after = ("no limit" if n is None else n for n in (held.limit, limit))
        found.append(f"limit: {before} was registered, {after} was run")
    if held.plan_sha256 != plan.sha256:
        sizes = f"{held.n_cases:,} cases were registered, {plan.n_cases:,} were planned"
        found.append(f"plan: {sizes}" + ("" if found else "; the data or the code are others"))
    return found


def record(held: Registration, differs: list[str]) -> dict[str, Any]:
    """For the record of a run."""
    return {"registered": held.registered, SEAL: held.seal, "differs": differs}


def sentence(known: Mapping[str, Any]) -> str:
    """A run's record of its registration, in words."""
    start = f"registered on {known['registered']} (seal {str(known[SEAL])[:12]})"
    differs = known.get("differs") or []
    return f"{start}; differs in {'; '.join(differs)}" if differs else f"{start}; run as registered"
