"""A suite's YAML file as tests: file, then dataset, then probe.

Conventions: collecting reads the suite's file alone, neither data nor model. A probe is one
test; where the suite binds it to several expectations, one test each.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from harness.cards import load_dataset_card
from harness.errors import HarnessError
from harness.gate.audited import read_run
from harness.gate.checks import FAILED, INCOMPLETE, Severity, exit_code
from harness.gate.gating import check_run
from harness.pytest_plugin.audit import Audit, ProbeFailed
from harness.pytest_plugin.session import Request, audited, requested
from harness.records import ExpectedMask
from harness.report.escape import plain
from harness.stats.verdicts import Verdict
from harness.suite.expectations import Expectation, binding, expected
from harness.suite.schema import DatasetEntry, Suite, load_suite, rules_of

TOLERATED_FAILURES = 0.01
"""Share of cases without a score above which an audit is not complete."""


class Target(NamedTuple):
    """What one test checks: a probe, by index a model and an expectation (None: none binds)."""

    probe: str
    model: int
    expectation: int | None


class SuiteFile(pytest.File):
    """A suite."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """A test that every case was evaluated, then the datasets."""
        suite = load_suite(self.path)
        request = requested(self.config, str(self.path))
        complete: Any = CompleteItem.from_parent(self, name="every_case")
        complete.request = request
        yield complete
        if suite.gate.model_dump(exclude_defaults=True):
            for model, argument in enumerate(request.models):
                name = "gate" if len(request.models) == 1 else f"gate[{argument}]"
                gate: Any = GateItem.from_parent(self, name=name)
                gate.request, gate.model = request, model
                yield gate
        for entry in suite.datasets:
            found: Any = SetCollector.from_parent(self, name=_set_name(entry))
            found.suite, found.entry, found.request = suite, entry, request
            yield found

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The text of a fault in the file; a traceback of any other."""
        return _error_text(excinfo) or super().repr_failure(excinfo)


class SetCollector(pytest.Collector):
    """A dataset of a suite."""

    suite: Suite
    entry: DatasetEntry
    request: Request

    def collect(self) -> Iterator[pytest.Item]:
        """Its probes."""
        for probe, rule in rules_of(self.suite):
            for model, argument in enumerate(self.request.models):
                settings = self.suite.statistics
                own = expected(
                    probe.expect,
                    rule.meaning,
                    margins=settings.margins,
                    absent=rule.expected_mask == ExpectedMask.EMPTY,
                    least_refusal=settings.least_refusal,
                )
                if not binding(probe.expect, rule.meaning):
                    own = ()
                for index, label in _labels(own):
                    models = [str(argument)] if len(self.request.models) > 1 else []
                    parts = "-".join([*models, *label])
                    name = probe.name + (f"[{parts}]" if parts else "")
                    item: Any = ProbeItem.from_parent(self, name=name)
                    item.request, item.entry = self.request, self.entry
                    item.target = Target(probe.name, model, index)
                    yield item


def _labels(expectations: tuple[Expectation, ...]) -> Iterator[tuple[int | None, list[str]]]:
    """The index of each expectation, and a name where there are several."""
    if not expectations:
        yield None, []
    names = [f"{one.kind}-{one.of}" for one in expectations]
    for index, name in enumerate(names):
        number = [] if names.count(name) == 1 else [str(index)]
        yield index, [name, *number] if len(names) > 1 else []


def _set_name(entry: DatasetEntry) -> str:
    """The dataset, and what of it is not the default."""
    is_file = entry.name.endswith((".yaml", ".yml"))
    defaults = ("test", "", "released")
    further = [x for x, default in zip(entry.key[1:], defaults, strict=True) if x != default]
    return "-".join([Path(entry.name).stem if is_file else entry.name, *further])


class VlsmItem(pytest.Item):
    """Base of all tests of a suite."""

    request: Request

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_marker("vlsm")

    def audit(self) -> Audit:
        """The audit of the suite, run by the first test that asks."""
        return audited(self.config, self.request)

    def reportinfo(self) -> tuple[Path, int, str]:
        """The suite's file."""
        return self.path, 0, self.name

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The text of a failure of the model or of the run; a traceback of any other."""
        if isinstance(excinfo.value, ProbeFailed):
            return str(excinfo.value)
        return _error_text(excinfo) or super().repr_failure(excinfo, style)


def _error_text(excinfo: pytest.ExceptionInfo[BaseException]) -> str:
    known = isinstance(excinfo.value, HarnessError)
    return f"error: {plain(str(excinfo.value))}" if known else ""


class CompleteItem(VlsmItem):
    """Every case of the plan has a score."""

    def runtest(self) -> None:
        """Fail if more than `TOLERATED_FAILURES` of a model's cases have no score."""
        audit = self.audit()
        cases = audit.summary.filter(pl.col("probe") != "out_of_distribution")
        counts = cases.group_by("model").agg(
            pl.col("n_cases").sum(), lost=pl.sum("n_failed") + pl.sum("n_missing")
        )
        lines = [
            f"{plain(model)}: {lost} of {n} cases have no score."
            for model, n, lost in counts.sort("model").iter_rows()
            if lost > TOLERATED_FAILURES * n
        ]
        if lines:
            at_most = f"At most {100 * TOLERATED_FAILURES:g} % may fail; scores/*.parquet says why."
            raise ProbeFailed("\n".join([*lines, at_most, f"run: {plain(str(audit.folder))}"]))


class GateItem(VlsmItem):
    """The suite's gate rules on one model, as `vlsm-harness gate` decides them."""

    model: int

    def runtest(self) -> None:
        """Fail with the checks that fail; skip, or fail with ``--vlsm-strict``, where none can."""
        audit, strict = self.audit(), bool(self.config.getoption("--vlsm-strict"))
        run = read_run(audit.folder, model=audit.model_ids[self.model])
        found = check_run(run, None, severity=Severity(strict=strict))
        # Expectations are tests of their own.
        checks = [check for check in found.checks if check.rule != "expectation"]
        lines = [
            plain(f"{check.result}: {check.rule} {check.place}: {check.asked}: {check.reason}")
            for check in checks
            if check.result != "passed"
        ]
        text = "\n".join([*lines, f"run: {plain(str(audit.folder))}"])
        code = exit_code(checks)
        if code == FAILED or (code == INCOMPLETE and strict):
            raise ProbeFailed(text)
        if code == INCOMPLETE:
            pytest.skip(text)


class ProbeItem(VlsmItem):
    """One probe on one dataset for one model, or one of its expectations."""

    entry: DatasetEntry
    target: Target

    def runtest(self) -> None:
        """Pass, fail or skip by the verdicts; a probe without a measurement fails."""
        audit = self.audit()
        keys = self._keys(audit)
        _require_measurements(audit.summary.filter(*(pl.col(k) == v for k, v in keys.items())))
        own = _nth(audit.verdicts(**keys), self.target.expectation)
        for verdict in own:
            where = verdict.attribute or "whole prompt"
            self.user_properties.append((f"vlsm {where}", f"{verdict.verdict}: {verdict.reason}"))
        for spoken in audit.language:
            if spoken.is_asked and all(getattr(spoken, k) == keys[k] for k in _SPOKEN):
                words = f"{spoken.language}, {spoken.steadiness}, {spoken.refusal}"
                self.user_properties.append(("vlsm verdict", f"{words}: {spoken.reason}"))
        if self.target.expectation is not None:
            strict = bool(self.config.getoption("--vlsm-strict"))
            audit.judge([v for v in own if v.binding], wanted="holds", strict=strict)

    def _keys(self, audit: Audit) -> dict[str, str]:
        card = load_dataset_card(self.entry.name)
        return {
            "model_id": audit.model_ids[self.target.model],
            "dataset": card.name,
            "split": self.entry.split,
            "prompts": self.entry.prompts,
            "prompt_type": self.entry.prompt_type or card.prompt_type,
            "probe": self.target.probe,
        }


_SPOKEN = ("model_id", "dataset", "prompts", "prompt_type")


def _require_measurements(rows: pl.DataFrame) -> None:
    cases = rows.filter(pl.col("n_cases") > 0)
    if cases.is_empty():
        reasons = "; ".join(rows["not_applicable"].drop_nulls().unique().sort())
        pytest.skip(f"does not apply: {plain(reasons) or 'no case in the plan'}")
    if cases["n_samples"].fill_null(0).sum() == 0:
        reasons = "; ".join(cases["reason"].drop_nulls().unique().sort())
        raise ProbeFailed(f"nothing was measured: {plain(reasons)}")


def _nth(verdicts: list[Verdict], index: int | None) -> list[Verdict]:
    """Of each attribute's verdicts the one on the probe's expectation `index`; all if None."""
    by_attribute: dict[str | None, list[Verdict]] = {}
    for verdict in verdicts:
        by_attribute.setdefault(verdict.attribute, []).append(verdict)
    wanted = slice(None) if index is None else slice(index, index + 1)
    return [verdict for own in by_attribute.values() for verdict in own[wanted]]
