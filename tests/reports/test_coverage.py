"""What perturbations make of a dataset is counted, and examples are chosen to be read."""

import polars as pl
import pytest


@pytest.fixture(scope="module")
def pages(script):
    return script("coverage")


def test_variants_and_the_prompts_they_were_made_of_are_counted(planned, pages):
    _, _, plan = planned("antonym_swap")

    rows = pages.coverage(plan)

    antonyms = plan.cases.filter(pl.col("perturbation") == "antonym")
    (row,) = rows.filter(pl.col("perturbation") == "antonym").iter_rows(named=True)
    assert (row["dataset"], row["split"], row["prompts"]) == ("kvasir_polyp", "test", 6)
    assert row["variants"] == antonyms.height
    assert row["applied"] == antonyms["original_case_id"].n_unique() <= 6


def test_reasons_are_counted_without_what_they_quote(planned, pages):
    _, _, plan = planned("antonym_swap")

    why = pages.reasons(plan)

    assert why["samples"].sum() == plan.not_applicable["n_samples"].sum()
    told = why.filter(pl.col("probe") == "antonym")["reason"].to_list()
    assert "no opposite of … in the curated lexicon" in told
    assert not any("'" in reason for reason in told)
    kind = pages.kind_of_reason("'a', the opposite of \"b\", is odd")
    assert kind == "…, the opposite of …, is odd"


def test_the_page_has_a_section_for_every_perturbation(planned, pages):
    _, _, plan = planned("antonym_swap")

    page = pages.coverage_page(pages.coverage(plan), pages.reasons(plan), summary=["Done."])

    assert page.startswith("# Coverage of the perturbations\n\n- Done.\n")
    assert "\n## antonym\n" in page
    assert "\n## swap_value\n" in page
    assert "| kvasir_polyp/test | 6 | " in page


def test_many_reasons_are_cut_short(pages):
    rows = pl.DataFrame(
        {"dataset": ["d"], "split": ["s"], "perturbation": ["x"], "variants": [0], "applied": [0],
         "prompts": [3]}
    )  # fmt: skip
    why = pl.DataFrame(
        {"dataset": ["d"] * 6, "split": ["s"] * 6, "probe": ["x"] * 6,
         "reason": [f"reason {n}" for n in range(6)], "samples": [6, 5, 4, 3, 2, 1]}
    )  # fmt: skip

    page = pages.coverage_page(rows, why, summary=[])

    assert "reason 0 (6); reason 1 (5); reason 2 (4); reason 3 (3); 2 other reasons" in page
    assert "reason 4" not in page


def test_the_sheet_holds_so_many_of_each_with_their_originals(planned, pages):
    _, _, plan = planned("antonym_swap")

    page = pages.sheet_page(plan.cases, each=3)

    assert page == pages.sheet_page(plan.cases, each=3)
    for name in ("antonym", "swap_value"):
        section = page.split(f"## {name} (changed)")[1].split("##")[0]
        assert section.count("- kvasir_polyp p6") == 3
    originals = set(plan.cases["original_prompt"])
    assert sum(f"`{text}`" in page for text in originals) > 0
