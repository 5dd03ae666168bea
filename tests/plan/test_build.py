"""A plan is frozen, hashed, complete, and the same whatever the order of making."""

import json
import re
from dataclasses import replace
from importlib import metadata

import polars as pl
import pytest

from harness.auditing.choices import select_suite
from harness.errors import NothingSelectedError, RunError, SuiteError
from harness.plan.build import NOT_APPLICABLE_SCHEMA, PLAN_SCHEMA, PlannedSet, build_plan
from harness.prompts.perturbations import apply_edits
from harness.records import Edit
from harness.suite.schema import Probe


def test_a_plan_keeps_its_schema(planned):
    _, _, plan = planned()
    assert dict(plan.cases.schema) == PLAN_SCHEMA
    assert dict(plan.not_applicable.schema) == NOT_APPLICABLE_SCHEMA
    assert plan.cases["case_id"].n_unique() == plan.cases.height


def test_the_same_command_gives_the_same_plan(planned):
    (_, _, first), (_, _, second) = planned(), planned()
    assert first.sha256 == second.sha256
    assert first.cases.equals(second.cases)


def test_another_seed_gives_other_words(planned):
    suite, sets, plan = planned()
    other = build_plan(suite.model_copy(update={"seed": 1}), sets)
    assert set(plan.cases["word"].drop_nulls()) != set(other.cases["word"].drop_nulls())
    assert plan.sha256 != other.sha256


def test_a_sample_has_the_same_variants_in_a_smaller_plan(planned):
    """Each draw has its own seed, and value sets are the whole split's."""
    _, _, whole = planned()
    _, _, part = planned(limit=2)
    kept = whole.cases.filter(pl.col("sample_id").is_in(part.cases["sample_id"].unique().implode()))
    assert part.cases.equals(kept)


def test_each_probe_of_the_paper_is_planned(planned):
    _, _, plan = planned()
    counts = dict(plan.cases.group_by("probe").len().rows())
    assert counts["original"] == counts["empty"] == 6
    # six attributes of a P6 prompt, ten words, six samples
    assert counts["random_word"] == 6 * 10 * 6
    assert {"antonym", "swap_value"} <= set(counts)


def test_random_words_are_the_same_for_every_sample(planned):
    _, _, plan = planned()
    words = plan.cases.filter(pl.col("probe") == "random_word")
    for _, rows in words.group_by("sample_id", "attribute"):
        assert rows.sort("repeat")["word"].to_list() == plan.sources["words"]


def test_edits_lead_from_the_original_to_the_variant(planned):
    _, _, plan = planned()
    for row in plan.cases.iter_rows(named=True):
        edits = [Edit(*values) for values in json.loads(row["edits"])]
        assert apply_edits(row["original_prompt"], edits) == row["prompt"]


def test_within_a_probe_a_variant_differs_from_its_original_and_the_others(planned):
    _, _, plan = planned()
    variants = plan.cases.filter(pl.col("probe") != "original")
    assert (variants["prompt"] != variants["original_prompt"]).all()
    key = ["dataset", "sample_id", "probe", "attribute", "prompt_index", "prompt"]
    assert variants.select(key).is_unique().all()


def test_every_variant_points_to_its_original(planned):
    _, _, plan = planned()
    originals = plan.cases.filter(pl.col("probe") == "original").select(
        "case_id", "sample_id", "prompt_index", text="prompt"
    )
    joined = plan.cases.join(originals, left_on="original_case_id", right_on="case_id")
    assert joined.height == plan.cases.height
    assert (joined["sample_id"] == joined["sample_id_right"]).all()
    assert (joined["text"] == joined["original_prompt"]).all()


def test_what_does_not_apply_is_counted_with_its_reason(planned):
    """Every (sample, attribute) is either a case or counted."""
    _, _, plan = planned()
    antonyms = plan.cases.filter(pl.col("probe") == "antonym")
    skipped = plan.not_applicable.filter(pl.col("probe") == "antonym")
    assert antonyms.height + skipped["n_samples"].sum() == 6 * 6
    assert skipped["reason"].str.len_chars().min() > 10


def test_list_prompts_are_separate_prompts(photo_root, planned):
    suite, sets, _ = planned()
    entry = sets[0].entry.model_copy(update={"prompt_type": "p7"})
    listed = [PlannedSet(entry, sets[0].card, sets[0].root, sets[0].samples, sets[0].all_samples)]
    cases = build_plan(suite, listed).cases
    assert set(cases["prompt_index"]) == {0, 1}
    assert cases.filter(pl.col("probe") == "original").height == 12


def test_a_changed_prompt_names_the_sample_it_describes(photo_root, photo_rows, planned):
    """Two samples of one image; opposite sizes describe each other."""
    rows, write = photo_rows
    folder = photo_root / "kvasir_polyp"
    (folder / "masks" / "twin.png").write_bytes((folder / "masks" / "test_0.png").read_bytes())
    twin = json.loads(json.dumps(rows[0]).replace("small", "large")) | {"mask_name": "twin.png"}
    rows.append(twin)
    write()

    _, _, plan = planned("antonym_swap")
    named = plan.cases.filter(pl.col("named_sample_id").is_not_null(), pl.col("probe") == "antonym")

    pairs = set(named.select("sample_id", "named_sample_id").rows())
    assert pairs == {("test_0.png", "twin.png"), ("twin.png", "test_0.png")}
    assert set(named["expected_mask"]) == {"named"}
    others = plan.cases.filter(pl.col("probe") == "antonym", pl.col("named_sample_id").is_null())
    assert set(others["expected_mask"]) == {"undefined"}


def test_a_sample_without_the_prompt_type_is_counted(photo_rows, planned):
    rows, write = photo_rows
    del rows[0]["prompts"]["p6"]
    write()
    _, _, plan = planned("empty_prompt")
    skipped = plan.not_applicable.row(0, named=True)
    assert (skipped["probe"], skipped["reason"], skipped["n_samples"]) == (
        "original",
        "the row has no p6 prompt",
        1,
    )


def test_an_unknown_attribute_is_answered_with_the_nearest(planned):
    suite, sets, _ = planned()
    wrong = Probe(name="x", perturbation="antonym", attributes=["colour"])
    message = (
        "suite 'paper': probe 'x': no dataset of this run has the attribute 'colour'. "
        "Did you mean 'color'? Known attributes: "
    )
    with pytest.raises(SuiteError, match=re.escape(message)):
        build_plan(suite.model_copy(update={"probes": [wrong]}), sets)


def test_a_dataset_may_limit_the_attributes(planned, photo_root):
    suite, sets, full = planned()
    entry = sets[0].entry.model_copy(update={"attributes": ["size", "color"]})
    cases = build_plan(suite, [replace(sets[0], entry=entry)]).cases
    changed = cases["attribute"].drop_nulls().unique().sort().to_list()
    assert changed == ["color", "size"]
    kept = full.cases.filter(pl.col("attribute").is_in(changed) | pl.col("attribute").is_null())
    assert cases["case_id"].sort().equals(kept["case_id"].sort())
    none = sets[0].entry.model_copy(update={"attributes": []})
    left = build_plan(suite, [replace(sets[0], entry=none)])
    assert left.cases["probe"].unique().sort().to_list() == ["empty", "original"]
    wrong = sets[0].entry.model_copy(update={"attributes": ["colour"]})
    message = "dataset 'kvasir_polyp': its card does not have the attribute 'colour'. Did you mean"
    with pytest.raises(SuiteError, match=re.escape(message)):
        build_plan(suite, [replace(sets[0], entry=wrong)])


def test_nothing_selected_says_so(planned):
    suite, sets, _ = planned()
    entry = sets[0].entry.model_copy(update={"prompt_type": "p9"})
    none = [PlannedSet(entry, sets[0].card, sets[0].root, sets[0].samples, sets[0].all_samples)]
    with pytest.raises(NothingSelectedError, match="suite 'paper': no case is left. At least one"):
        build_plan(suite, none)


def test_doubled_cases_are_refused(planned):
    suite, sets, _ = planned()
    with pytest.raises(RunError, match="cases share a case id, the first is probe 'original' of"):
        build_plan(suite, [sets[0], sets[0]])


def test_a_dataset_the_suite_does_not_list_is_added():
    chosen = ["kvasir_polyp", "folder/mine.yaml,busi/train", "phantom_pairs/size", "cvc300_polyp"]
    suite = select_suite("paper", datasets=chosen)
    assert [(d.name, d.split) for d in suite.datasets] == [
        ("kvasir_polyp", "test"),
        ("folder/mine.yaml", "test"),
        ("busi", "train"),
        ("phantom_pairs", "size"),
        ("cvc300_polyp", "recovered_test"),
    ]


MEANINGS = ("meaning_removed", "meaning_destroyed", "meaning_changed", "meaning_preserved")


@pytest.mark.parametrize("suite", MEANINGS)
def test_a_suite_of_one_meaning_plans_nothing_else(planned, suite):
    """A rung that only adds to the prompt takes nothing away."""
    _, _, plan = planned(suite, limit=3)
    variants = plan.cases.filter(pl.col("probe") != "original")
    meanings = set(variants["meaning"])
    assert meanings - {"preserved"} <= {suite.removeprefix("meaning_")}
    if suite == "meaning_preserved":
        assert set(variants["expected_mask"]) == {"own"}
    for row in variants.iter_rows(named=True):
        edits = [Edit(*values) for values in json.loads(row["edits"])]
        assert apply_edits(row["original_prompt"], edits) == row["prompt"]
        assert row["prompt"] != row["original_prompt"]


def test_every_probe_of_the_four_suites_makes_something(planned):
    for name in MEANINGS:
        suite, _, plan = planned(name)
        found = set(plan.cases["probe"])
        rungs = {"p6", "p8", "p9"}  # the original's own, and two the rows do not have
        # Photo sets do not say what else their pictures show.
        assert {probe.name for probe in suite.probes} - found <= {
            *rungs,
            "absent_target",
            "negation_named",
        }


def test_each_rung_is_a_probe_of_its_own(planned):
    _, _, plan = planned("meaning_removed")
    for rung in ("p0", "p1", "p5", "p7"):
        rows = plan.cases.filter(pl.col("probe") == rung)
        assert set(rows["variant_type"]) == {rung}
    skipped = plan.not_applicable.filter(pl.col("probe") == "p9")
    assert set(skipped["reason"]) == {"the row has no p9 prompt"}


def test_everybodys_prompt_is_lent_once(planned):
    _, sets, plan = planned("meaning_changed")
    own = {s.sample_id: s.prompts["p6"][0].text for s in sets[0].samples}
    lent = plan.cases.filter(pl.col("probe") == "other_sample", pl.col("repeat") == 0)
    assert sorted(lent["prompt"]) == sorted(own.values())
    assert all(row["prompt"] != row["original_prompt"] for row in lent.iter_rows(named=True))


def test_composed_edits_are_planned_once_and_recorded(planned):
    suite, sets, plain = planned("meaning_preserved", limit=2)
    asked = suite.model_copy(update={"property_based": 4})

    plan = build_plan(asked, sets)

    composed = plan.cases.filter(pl.col("probe") == "property_based_preserved")
    assert plan.cases.filter(pl.col("probe") != "property_based_preserved").equals(plain.cases)
    assert set(composed["perturbation"]) == {"composed"}
    assert composed.group_by("sample_id").len()["len"].to_list() == [4, 4]
    for row in composed.iter_rows(named=True):
        edits = [Edit(*values) for values in json.loads(row["edits"])]
        assert apply_edits(row["original_prompt"], edits) == row["prompt"]
    assert plan.sources["hypothesis"] == metadata.version("hypothesis")
    assert "hypothesis" not in plain.sources
    assert plan.sha256 == build_plan(asked, sets).sha256 != plain.sha256


def test_composed_edits_keep_to_the_meanings_and_attributes_of_the_suite(planned):
    suite, sets, _ = planned("meaning_changed", limit=2)
    probes = [Probe(name="size", perturbation="antonym", attributes=["size"])]
    probes.append(Probe(name="case", perturbation="case"))

    plan = build_plan(suite.model_copy(update={"property_based": 2, "probes": probes}), sets)

    names = {name for name in plan.cases["probe"] if name.startswith("property_based")}
    assert names == {"property_based_changed", "property_based_preserved"}
    changed = plan.cases.filter(pl.col("probe") == "property_based_changed")
    edits = [edit for text in changed["edits"] for edit in json.loads(text)]
    assert {attribute for *_, attribute in edits} == {"size"}
