"""What finetuning did to a model's language: against plain loops, and what may not be said."""

from collections import defaultdict
from dataclasses import replace

import polars as pl
import pytest

import harness
from harness.auditing.subjects import subjects_of
from harness.errors import UsageError
from harness.files.writing import parquet_bytes
from harness.runs.store import RunStore
from harness.stats.comparison.common import CHANGE, DECISIVE, STEADINESS
from harness.stats.comparison.tuning import compare_language, outcome_of


def exchanged(run):
    """`swap` exchanges words for valid ones; `empty_prompt` keeps the meaning, for a steadiness."""
    meaning = pl.when(pl.col("probe") == "empty_prompt").then(pl.lit("preserved"))
    meaning = meaning.when(pl.col("probe") == "random_word").then(pl.lit("destroyed"))
    meaning = meaning.when(pl.col("probe") == "swap").then(pl.lit("changed"))
    plan = run.plan.with_columns(meaning=meaning.otherwise("meaning"))
    return replace(run, plan=plan, scores=deaf(run.scores, plan))


def deaf(scores, plan):
    """One true mask a sample, and `blind` answers every prompt as it answers the original."""
    originals = plan.select("case_id", "original_case_id")
    of_original = ["tp", "n_pred", "n_gt", "n_pred_original"]
    answers = scores.select("model_id", "case_id", *of_original)
    said = originals.join(answers, left_on="original_case_id", right_on="case_id")
    said = said.drop("original_case_id").with_columns(tp_original="n_pred")
    blind = said.filter(pl.col("model_id") == "blind@1")
    keys = ["model_id", "case_id"]
    scores = scores.update(said.select(*keys, "n_gt"), on=keys).update(blind, on=keys)
    return scores.with_columns(tp=pl.min_horizontal("tp", "n_gt"))


@pytest.fixture(scope="module")
def run(compared_run):
    """Two models on the same cases: one is moved by every word, the other by none."""
    return compared_run(change=exchanged)


def compared(*names):
    return compare_language(*subjects_of([str(n) for n in names], [], rules={}))


def aspects(found):
    return {a.name: a for a in found.aspects}


@pytest.mark.parametrize(
    ("base", "tuned", "outcome"),
    [
        ("heard", "heard", "kept"),
        ("heard", "unheard", "lost"),
        ("unheard", "heard", "gained"),
        ("unheard", "unheard", "never"),
        ("heard", "unclear", "cannot tell"),
        ("unclear", "unheard", "cannot tell"),
        ("steady", "brittle", "lost"),
        ("hallucinates", "refuses", "gained"),
        ("refuses", "cannot tell", "cannot tell"),
        ("not asked", "refuses", "cannot tell"),
    ],
)
def test_an_outcome_needs_both_states(base, tuned, outcome):
    assert outcome_of(base, tuned) == outcome


def test_a_deaf_model_has_lost_what_its_base_heard(run):
    found = compared(f"{run}#m", f"{run}#blind")
    assert {n: a.outcome for n, a in aspects(found).items() if n != STEADINESS} == {
        "size": "lost",
        "color": "lost",
    }
    assert found.sentence == (
        "blind compared with m: on inside it lost color and size, gained its steadiness (as "
        "whatever hears nothing has)."
    )
    other_way = compared(f"{run}#blind", f"{run}#m")
    assert aspects(other_way)["size"].outcome == "gained"
    assert "it gained color and size, lost its steadiness." in other_way.sentence


def test_a_model_compared_with_itself_keeps_all_and_differs_by_nothing(run):
    found = compared(f"{run}#m", f"{run}#m")
    assert [a.outcome for a in found.aspects] == ["kept", "kept", "never"]  # it is brittle
    for aspect in found.aspects:
        assert aspect.difference == pytest.approx((0, 0, 0), abs=1e-12)
        assert aspect.value_base == aspect.value_tuned
    assert aspects(found)["size"].ratio == 1


def slow_change(folder, model_id, attribute):
    """The relative change of `swap` in percent from the counts: repeats first, then samples."""
    store = RunStore(folder)
    plan = {r["case_id"]: r for r in store.plan_cases().iter_rows(named=True)}
    dice = {
        r["case_id"]: 2 * r["tp"] / (r["n_pred"] + r["n_gt"])
        for r in store.scores().filter(pl.col("model_id") == model_id).iter_rows(named=True)
    }
    after, before = defaultdict(list), {}
    for case, row in plan.items():
        if row["probe"] == "swap" and row["attribute"] == attribute:
            after[row["sample_id"]].append(dice[case])
            before[row["sample_id"]] = dice[row["original_case_id"]]
    mean_after = sum(sum(v) / len(v) for v in after.values()) / len(after)
    return 100 * (mean_after / (sum(before.values()) / len(before)) - 1)


def test_the_figures_are_those_of_plain_loops(run):
    found = aspects(compared(f"{run}#m", f"{run}#blind"))
    for attribute in ("size", "color"):
        aspect = found[attribute]
        base, tuned = (slow_change(run, f"{m}@1", attribute) for m in ("m", "blind"))
        assert (aspect.figure, aspect.probe) == (CHANGE, "swap")
        assert aspect.value_base[0] == pytest.approx(base)
        assert aspect.value_tuned[0] == pytest.approx(tuned, abs=1e-9)
        assert aspect.difference[0] == pytest.approx(tuned - base)
        assert aspect.difference[1] < tuned - base < aspect.difference[2]
        assert aspect.ratio == pytest.approx(tuned / base)


def test_dice_stands_beside(run):
    found = compared(f"{run}#m", f"{run}#blind")
    (dice,) = found.dice
    assert dice.difference[0] == pytest.approx(dice.tuned[0] - dice.base[0])
    assert (dice.dataset, dice.n_clusters) == ("inside", 30)


def test_where_nothing_is_exchanged_nothing_is_said(compared_run):
    kept = compared_run(size=8)  # `swap` keeps the meaning there
    kept_only = RunStore(kept)
    plan = kept_only.plan_cases().filter(pl.col("meaning").is_in(["original", "preserved"]))
    kept_only.ledger.write({"plan.parquet": parquet_bytes(plan)})
    with pytest.raises(
        UsageError,
        match="the common cases of m and blind exchange no word for another valid value. Only such "
        "probes tell what a model hears. Run a suite like `meaning_changed` or `antonym_swap`",
    ):
        compared(f"{kept}#m", f"{kept}#blind")


def with_facts(run, **by_model):
    """Facts of each model's entry, and its table of texts."""
    store = RunStore(run)
    entries = [entry | by_model.get(entry["name"], {}) for entry in store.manifest["models"]]
    store.update(models=entries)


def write_shifts(run, **by_model):
    store = RunStore(run)
    for name, shifts in by_model.items():
        table = pl.DataFrame(
            {"text": [f"t{n}" for n in range(len(shifts))], "original_text": "o", "shift": shifts}
        )
        table = table.with_columns(edit_survives=True, truncated=False, same_tokens=False)
        store.ledger.write({f"texts/{name}@1.parquet": parquet_bytes(table)})


def test_the_diagnosis_says_what_the_runs_hold_and_no_more(compared_run):
    run = compared_run(change=exchanged, size=40)
    said = compared(f"{run}#m", f"{run}#blind").diagnosis
    assert said == (
        "The card of blind tells nothing of its training: whether it saw prompts for what is "
        "absent is unknown.",
        "Whether the text tower was changed is unknown: not both models show its embedding.",
    )
    card = {"training": {"courses": [{"steps": 3}]}, "prompt_type": "p6"}
    with_facts(run, blind={"card": card, "trained_on": ["inside"]})
    write_shifts(run, m=[0.5, 0.25, None], blind=[0.5, 0.25, 1.0])
    assert compared(f"{run}#m", f"{run}#blind").diagnosis == (
        "Every picture of inside that was audited holds one target. If its training split is "
        "alike, the picture alone told what to segment there, and training had no need of the "
        "words.",
        "blind was trained with prompts of type p6, says its card.",
        "The training recorded on the card of blind holds no negatives.",
        "The text tower answers as before: over 2 edits the shift of its embedding differs by at "
        "most 0 of the distance between two prompts.",
    )
    with_facts(run, blind={"card": {"training": {"courses": [{"negatives": 0.2}]}}})
    write_shifts(run, blind=[0.5, 0.75, 1.0])
    assert compared(f"{run}#m", f"{run}#blind").diagnosis[1:] == (
        "The text tower was changed: over 2 edits the shift of its embedding differs by at most "
        "0.5 of the distance between two prompts.",
    )


def test_the_public_face_takes_runs_and_models(run):
    found = harness.compare_language(f"{run}#m", f"{run}#blind")
    assert (found.base, found.tuned) == ("m", "blind")
    assert DECISIVE not in {a.figure for a in found.aspects}  # this set has no named targets
