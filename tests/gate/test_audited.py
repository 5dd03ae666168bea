"""Which model of a run is gated, and what its plan is known by."""

import re
from dataclasses import replace

import pytest

from harness.errors import RunError, UsageError
from harness.gate.audited import read_run
from harness.gate.baseline import drift_between


def refused(folder, message, *, error=UsageError, **arguments):
    with pytest.raises(error, match="^" + re.escape(f"{folder}: {message}")):
        read_run(folder, **arguments)


def test_the_only_model_that_is_no_control_is_meant(write, behaviour):
    folder = write("run", more=[("control", behaviour())])
    assert read_run(folder).identity.model == "m"
    assert read_run(folder, model="control").identity.model == "control"
    assert read_run(folder, model="m@1").n_planned == read_run(folder).n_done == 840
    alone = write("alone", model="control")
    assert read_run(alone).identity.model == "control"


def test_several_models_must_be_named(write, behaviour):
    folder = write("run", more=[("other", behaviour())])
    refused(
        folder,
        "the run holds 2 models, controls apart: 'm', 'other'. The gate is for one. Name it",
    )
    refused(
        folder, "unknown model 'othr'. Did you mean 'other'? Known models: 'm', 'other'.",
        model="othr",
    )  # fmt: skip


def test_what_is_no_run_is_refused(tmp_path, write):
    refused(
        tmp_path,
        "no run.json here. A run directory is needed. Give the folder that `vlsm-harness run` "
        "printed.",
    )
    message = (
        "the run holds no model. One is needed. Finish it: the command that began it continues it."
    )
    refused(write("run", models=[]), message, error=RunError)


def test_plans_are_told_apart_by_what_they_were_made_of(make):
    one = make("one")

    def drift(other, **changes):
        return drift_between(
            replace(other.identity, **changes),
            one.identity,
            new_cells=other.cells,
            old_cells=one.cells,
        )

    assert drift(make("same")).kind == "cases"
    assert drift(make("seed", seed=3)).kind == "draw"
    other = drift(make("lexicon", lexicon="other"))
    assert other.kind == "drift"
    assert other.reasons[0] == "lexicon was 'curated', is 'other'"
    assert len(other.reasons) == 5, "the originals are the same"
    fewer = make("fewer")
    fewer = replace(fewer, cells=fewer.cells[1:])
    assert drift(fewer, plan_sha256="x").reasons == (
        "d test released p6 antonym size is not in this run",
    )
    assert drift(make("na"), plan_sha256="x").reasons == ("what does not apply is another",)
