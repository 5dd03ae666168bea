"""Runs an audit once a session, however many tests and workers ask for it.

Conventions: equal requests share one folder. The first process to lock it runs the suite (what
an earlier session finished is not run again) and writes ``done.json`` with the session's name;
the others wait at the lock and read what is there. A failure is written down too, so that
every test shows it and none tries again.
"""

import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import HarnessError, UsageError, nearest
from harness.files.writing import make_folder, sealed, unsealed, write_bytes, writing
from harness.pytest_plugin.audit import Audit

if TYPE_CHECKING:
    from harness.model.wrapping import WrappedFunction

_AUDITS = pytest.StashKey[dict[str, Audit]]()
_SESSION = pytest.StashKey[str]()


@dataclass(frozen=True)
class Request:
    """What to run; None and empty values are the suite's own."""

    suite: str
    models: "tuple[str | WrappedFunction, ...]"
    data_root: str | None
    datasets: tuple[str, ...] = ()
    split: str | None = None
    prompt_type: str | None = None
    prompts: str | None = None
    limit: int | None = None
    device: str = "auto"
    random_weights: bool = False

    @property
    def key(self) -> str:
        """A name for the folder of such runs."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        given["models"] = [str(model) for model in self.models]  # a function's is its id
        content = json.dumps(given, sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return f"{Path(self.suite).stem.partition('.')[0]}-{digest[:12]}"


def requested(config: pytest.Config, suite: str, **given: Any) -> Request:
    """A request with the command line's choices where none are given."""
    chosen = {
        "models": tuple(config.getoption("--vlsm-model")),
        "data_root": config.getoption("--vlsm-data-root"),
        "limit": config.getoption("--vlsm-limit"),
        "device": config.getoption("--vlsm-device"),
        "random_weights": config.getoption("--vlsm-random-weights"),
    }
    chosen |= {k: v for k, v in given.items() if v is not None}
    if chosen["data_root"] is not None or Path("data").exists():  # a test may go elsewhere
        chosen["data_root"] = str(Path(chosen["data_root"] or "data").absolute())
    return Request(suite=suite, **chosen)


def marked(config: pytest.Config, marker: Any, folder: Path) -> Request:
    """The request of a test's ``vlsm`` marker; a suite's file may lie in the test's `folder`."""
    if marker is None:
        raise UsageError(
            "vlsm_audit: the test has no marker. It says what to run: put "
            "@pytest.mark.vlsm('random_word') above the test."
        )
    if len(marker.args) > 2:
        raise UsageError(
            f"@pytest.mark.vlsm: {len(marker.args)} arguments without a name. At most suite and "
            "model stand without one. Name the others."
        )
    given = dict(zip(("suite", "model"), marker.args, strict=False)) | marker.kwargs
    known = {f.name for f in fields(Request)} - {"models", "random_weights"} | {"model"}
    for name in given:
        if name not in known:
            raise UsageError(
                f"@pytest.mark.vlsm: unknown argument {name!r}.{nearest(name, known)} Known "
                f"arguments: {', '.join(map(repr, sorted(known)))}."
            )
    if "suite" not in given:
        raise UsageError("@pytest.mark.vlsm: no suite. One is needed. Give its name or file first.")
    beside = folder / str(given.pop("suite"))
    suite = str(beside) if beside.suffix in {".yaml", ".yml"} else beside.name
    models = _models(given.pop("model", None))
    given["datasets"] = _texts(given.pop("datasets", None))
    request = requested(config, suite, **given, models=models or None)
    if not request.models:
        pytest.skip("no model: give --vlsm-model CARD, or model=CARD in @pytest.mark.vlsm")
    return request


def _models(value: Any) -> "tuple[str | WrappedFunction, ...]":
    """Names or paths of cards, and functions that `harness.wrap` returned."""
    many = value if isinstance(value, list | tuple) else [value] * (value is not None)
    return tuple(str(one) if isinstance(one, str | Path) else one for one in many)


def _texts(value: str | Path | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (str(value),) if isinstance(value, str | Path) else tuple(map(str, value))


def audited(config: pytest.Config, request: Request) -> Audit:
    """The audit of a request: run here, by another worker, or read from memory.

    Where the run failed every test of the session that asks for it sees the same `AuditError`.
    """
    audits = config.stash.setdefault(_AUDITS, {})
    if request.key not in audits:
        folder = _runs(config) / request.key
        make_folder(folder)
        with _alone(folder):
            done = _done(folder, _session(config))
            if done is None:
                # Where pytest captures nothing (-s) progress can be seen.
                quiet = config.getoption("capture") != "no"
                done = _run(request, folder, quiet=quiet) | {"session": _session(config)}
                write_bytes(folder / "done.json", sealed(done))
        audits[request.key] = _opened(done)
    return audits[request.key]


class AuditError(HarnessError):
    """A suite could not be run."""


def _opened(done: Mapping[str, Any]) -> Audit:
    if done["error"]:
        raise AuditError(done["error"])
    return Audit.read(Path(done["run"]), done["models"])


def _runs(config: pytest.Config) -> Path:
    out = config.getoption("--vlsm-out")
    if out:
        return Path(out)
    if not config.pluginmanager.hasplugin("cacheprovider") or config.cache is None:
        raise UsageError(
            "--vlsm-out: not given, and pytest's cache is switched off. Runs need a folder. Give "
            "--vlsm-out DIR, or leave out -p no:cacheprovider."
        )
    with writing(Path("cache_dir of pytest")):
        return config.cache.mkdir("vlsm")


def _session(config: pytest.Config) -> str:
    """One name for all workers of a session."""
    # pytest-xdist puts `workerinput` on the configuration of its workers, and on no other.
    shared = getattr(config, "workerinput", {}).get("testrunuid")
    return str(config.stash.setdefault(_SESSION, shared or uuid.uuid4().hex))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process works on this request."""
    with writing(folder):
        handle = (folder / ".lock").open("w")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _done(folder: Path, session: str) -> dict[str, Any] | None:
    """What this session's first process wrote, if there was one."""
    path = folder / "done.json"
    found = unsealed(path.read_bytes()) if path.is_file() else None
    return found if found and found["session"] == session else None


def _run(request: Request, folder: Path, *, quiet: bool) -> dict[str, Any]:
    """Run and summarise; the run directory and the models' ids, or what went wrong."""
    import typer

    from harness.auditing.choices import recipe_arguments, select_suite
    from harness.auditing.evaluating import Conditions
    from harness.auditing.running import run_models
    from harness.auditing.summarising import summarise
    from harness.commands.progress import Terminal

    trust = os.environ.get("VLSM_TRUST_ADAPTERS")
    os.environ.setdefault("VLSM_TRUST_ADAPTERS", "ask")
    try:
        suite = select_suite(
            request.suite,
            datasets=request.datasets,
            split=request.split,
            prompt_type=request.prompt_type,
            prompts=request.prompts,
        )
        given = recipe_arguments(request.models, None)
        store = run_models(
            suite,
            given.models,
            root=None if request.data_root is None else Path(request.data_root),
            out=None,
            runs=folder,
            limit=request.limit,
            conditions=Conditions(device=request.device, random_weights=request.random_weights),
            listener=Terminal(quiet=quiet),
        )
        with store.locked():
            summarise(store)
    except typer.Exit:  # how a verb says that it was interrupted
        raise KeyboardInterrupt from None
    except HarnessError as problem:
        text = f"{problem} (In pytest: --vlsm-out gives another folder; this one is {folder}.)"
        return {"run": None, "models": [], "error": text}
    finally:
        if trust is None:
            os.environ.pop("VLSM_TRUST_ADAPTERS", None)
    return {
        "run": str(store.folder.absolute()),
        "models": store.manifest["evaluated"],
        "error": None,
    }
