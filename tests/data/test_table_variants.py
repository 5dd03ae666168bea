"""Rows of a table find their samples, and become cases of a plan like any other."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from harness.auditing.choices import select_suite
from harness.auditing.samples import read_sets
from harness.cards import load_dataset_card
from harness.data.table_variants import gather, with_originals
from harness.data.tables import TableEntry
from harness.errors import DataError, SuiteError
from harness.plan.build import build_plan
from harness.prompts.grammar import LEXICON
from harness.records import Prompt, Sample
from harness.suite.schema import load_suite

KVASIR = load_dataset_card("kvasir_polyp")
SUITE = """\
name: mine
title: Mine
datasets:
  - {name: kvasir_polyp, prompt_type: p6}
tables:
  - {dataset: kvasir_polyp, file: mine.csv, under: suite}
probes:
  - {name: short, perturbation: table, meaning: removed}
  - {name: empty, perturbation: empty}
"""


def sample(image, mask=None, text="one small pink round polyp, located in top of the image"):
    return Sample(
        dataset="kvasir_polyp",
        split="test",
        sample_id=mask or image,
        image=Path("root") / image,
        mask=Path("root") / (mask or image),
        image_id=image,
        cluster_id=image,
        prompts={"p6": (Prompt(text, "p6"),)},
    )


@pytest.fixture
def gathered(tmp_path):
    """Texts of one CSV for given samples."""

    def make(rows, samples, **settings):
        columns = ["image", "prompt", "perturbation", "mask"][: len(rows[0])]
        pl.DataFrame(rows, schema=columns, orient="row").write_csv(tmp_path / "t.csv")
        entry = TableEntry.model_validate({"dataset": "kvasir_polyp", "file": "t.csv"} | settings)
        return gather([entry], samples, data_root=tmp_path, suite_folder=None, where="suite 's'")

    return make


def test_rows_are_kept_in_order_and_once(gathered):
    rows = [("a.png", t, "short") for t in ("x", "y", "x")] + [("b.png", "z", "long")]
    found = gathered(rows, [sample("a.png"), sample("b.png")])
    assert found.texts == {("short", "a.png"): ("x", "y"), ("long", "b.png"): ("z",)}
    assert found.names == {"short", "long"}


def test_names_are_compared_whole_or_by_stem(gathered):
    samples = [sample("a.jpg")]
    with pytest.raises(DataError, match="no row fits an image of 'kvasir_polyp'"):
        gathered([("a.png", "x", "short")], samples)
    found = gathered([("images/a.png", "x", "short")], samples, match="stem")
    assert found.texts == {("short", "a.jpg"): ("x",)}


def test_rows_of_other_images_are_counted(gathered):
    found = gathered([("a.png", "x", "p"), ("z.png", "x", "p")], [sample("a.png")])
    (source,) = found.sources
    assert (source["rows"], source["unmatched"], source["file"]) == (2, 1, "t.csv")


def test_a_table_of_strangers_names_both_sides(gathered):
    message = (
        "t.csv: no row fits an image of 'kvasir_polyp': the table names 'z.png', the dataset "
        "'a.png'. Names must be equal; with 'match: stem' their endings need not be. "
        "Correct the table or the suite."
    )
    with pytest.raises(DataError, match="^" + re.escape(message)):
        gathered([("z.png", "x", "p")], [sample("a.png")])


def test_an_image_with_several_targets_needs_masks(gathered):
    samples = [sample("a.png", "m1.png"), sample("a.png", "m2.png")]
    message = "row 2: the image 'a.png' has 2 targets. A row must say which one it describes. Name"
    with pytest.raises(DataError, match=re.escape(message)):
        gathered([("a.png", "x", "p")], samples)
    found = gathered([("a.png", "x", "p", "m2.png")], samples, columns={"mask": "mask"})
    assert found.texts == {("p", "m2.png"): ("x",)}


def test_originals_of_a_table_take_the_place_of_the_released_ones(gathered):
    samples = [sample(f"{n}.png") for n in "abc"]
    said = "one large white round polyp, located in left of the image"
    rows = [("a.png", said, "original"), ("b.png", "Polyp visible.", "original")]
    found = with_originals(KVASIR, samples, gathered(rows, samples), prompt_type="p6")
    (first,), (second,) = (s.prompts["p6"] for s in found[:2])
    assert (first.text, first.values["size"]) == (said, "large")
    assert (second.text, second.template, second.values) == (
        "Polyp visible.",
        LEXICON,
        {"class": "Polyp"},
    )
    assert found[2].prompts == {}


@pytest.mark.parametrize("with_table", [True, False])
def test_originals_that_no_table_gives_are_asked_for(gathered, with_table):
    tables = gathered([("a.png", "x", "short")], [sample("a.png")]) if with_table else None
    message = (
        "dataset 'kvasir_polyp': 'prompts: table', and no table of the suite has rows named "
        "'original' for it. Originals come from there. Add a table of originals, or leave "
        "'prompts' out to compare with the released ones."
    )
    with pytest.raises(DataError, match="^" + re.escape(message) + "$"):
        with_originals(KVASIR, [sample("a.png")], tables, prompt_type="p6")


@pytest.fixture
def plan_of(photo_root, tmp_path):
    """Plan a suite of one's own with a table beside it."""
    folder = tmp_path / "suite"
    folder.mkdir()

    def make(rows, suite=SUITE, *, name="mine.csv", root=folder, **options):
        frame = pl.DataFrame(rows, schema=["image", "prompt", "perturbation"], orient="row")
        frame.write_csv(root / name)
        (folder / "mine.yaml").write_text(suite, encoding="utf-8")
        chosen = select_suite(str(folder / "mine.yaml"), **options)
        return build_plan(chosen, read_sets(chosen, photo_root))

    return make


ROWS = [
    ("test_0.png", "a polyp", "short"),
    ("test_0.png", "one polyp", "short"),
    ("test_1.png", "polyp", "short"),
]


def test_rows_become_cases_beside_those_of_rules(plan_of):
    plan = plan_of(ROWS)
    cases = plan.cases.filter(pl.col("probe") == "short")
    assert cases.select("sample_id", "prompt", "repeat").rows() == [
        ("test_0.png", "a polyp", 0),
        ("test_0.png", "one polyp", 1),
        ("test_1.png", "polyp", 0),
    ]
    row = cases.row(0, named=True)
    assert (row["perturbation"], row["meaning"], row["expected_mask"]) == (
        "table",
        "removed",
        "undefined",
    )
    assert json.loads(row["edits"])
    assert plan.cases.filter(pl.col("probe") == "empty").height == 6
    missing = plan.not_applicable.filter(pl.col("probe") == "short").row(0, named=True)
    assert (missing["reason"], missing["n_samples"]) == (
        "the table has no row for this image",
        4,
    )


def test_a_text_equal_to_its_original_is_no_variant(plan_of):
    same = "one small pink round polyp, located in top left of the image"
    plan = plan_of([("test_0.png", same, "short"), *ROWS])
    reasons = plan.not_applicable.filter(pl.col("probe") == "short")["reason"].to_list()
    assert "the table's text is the original prompt" in reasons


@pytest.mark.parametrize(
    ("meaning", "expected"),
    [("preserved", "own"), ("changed", "undefined"), ("destroyed", "undefined")],
)
def test_the_meaning_decides_which_mask_is_right(plan_of, meaning, expected):
    plan = plan_of(ROWS, SUITE.replace("removed", meaning))
    cases = plan.cases.filter(pl.col("probe") == "short")
    assert (set(cases["meaning"]), set(cases["expected_mask"])) == ({meaning}, {expected})


def test_the_table_enters_the_hash_of_the_plan(plan_of):
    before, again, other = plan_of(ROWS), plan_of(ROWS), plan_of(ROWS[:2])
    assert before.sha256 == again.sha256 != other.sha256
    (source,) = before.sources["tables"]
    assert (source["file"], source["rows"]) == ("mine.csv", 3)
    assert "/" not in source["file"]


def test_a_table_may_lie_below_the_data_root(plan_of, photo_root):
    plan = plan_of(ROWS, SUITE.replace(", under: suite", ""), root=photo_root)
    assert plan.cases.filter(pl.col("probe") == "short").height == 3


def test_a_table_is_not_looked_for_above_the_suite(plan_of, tmp_path):
    (tmp_path / "above.csv").write_text("image,prompt,perturbation\ntest_0.png,x,short\n")
    with pytest.raises(DataError, match="the path '../above.csv' leaves the folder"):
        plan_of(ROWS, SUITE.replace("mine.csv", "../above.csv"))


def test_a_table_is_for_one_split(plan_of, photo_root):
    """Another split has no table: that is counted, and no mistake of the suite."""
    folder = photo_root / "kvasir_polyp" / "anns"
    (folder / "val.json").write_bytes((folder / "test.json").read_bytes())
    plan = plan_of(ROWS, split="val")
    assert plan.cases.filter(pl.col("probe") == "short").is_empty()
    reasons = plan.not_applicable.filter(pl.col("probe") == "short")["reason"].to_list()
    assert reasons == ["no table of the suite is for this dataset"]


def test_a_probe_that_no_table_knows_is_answered_with_the_nearest(plan_of):
    message = (
        "suite 'mine': probe 'shrot': no table has rows of this name. Did you mean 'short'? "
        "Perturbations of the tables: 'short'."
    )
    with pytest.raises(SuiteError, match="^" + re.escape(message) + "$"):
        plan_of(ROWS, SUITE.replace("name: short", "name: shrot"))


@pytest.mark.parametrize(
    ("old", "new"),
    [(", meaning: removed", ""), ("perturbation: empty", "perturbation: empty, meaning: removed")],
)
def test_a_meaning_is_given_to_tables_and_only_to_them(tmp_path, old, new):
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.replace(old, new), encoding="utf-8")
    with pytest.raises(SuiteError, match="'meaning' is given with the perturbation 'table', and"):
        load_suite(path)


def test_originals_of_the_table_are_planned(plan_of):
    said = "one large white round polyp, located in left of the image"
    rows = [("test_0.png", said, "original"), ("test_0.png", "polyp", "short")]
    plan = plan_of(rows, SUITE.replace("prompt_type: p6", "prompt_type: p6, prompts: table"))
    assert plan.cases.select("probe", "prompts", "prompt", "original_prompt").rows() == [
        ("original", "table", said, said),
        ("short", "table", "polyp", said),
        ("empty", "table", "", said),
    ]
    (lost,) = plan.not_applicable.rows(named=True)
    assert (lost["probe"], lost["prompts"], lost["n_samples"]) == ("original", "table", 5)


def test_the_suite_survives_being_written_and_read(plan_of, tmp_path):
    """What a run stores leads to the same suite; where it lay is no part of it."""
    suite = load_suite(tmp_path / "suite" / "mine.yaml") if plan_of(ROWS) else None
    again = type(suite).model_validate(suite.model_dump(mode="json", exclude_none=True))
    assert again == suite != suite.model_copy(update={"seed": 7})
    assert "folder" not in suite.model_dump_json()
    assert suite.folder == tmp_path / "suite"


PUBLISHED = {"kvasir_polyp": 100, "clinicdb_polyp": 61, "busi": 78}


def test_the_published_prompts_are_planned_whole(shared_data):
    suite = select_suite("medclipseg")
    sets = read_sets(suite, shared_data, pictures=False)
    plan = build_plan(suite, sets)
    counts = plan.cases.group_by("dataset", "probe").len()
    assert set(counts.rows()) == {
        (dataset, probe, n)
        for dataset, n in PUBLISHED.items()
        for probe in (
            "original",
            "contradictory",
            "missing_location",
            "overdescriptive",
            "underdescriptive",
        )
    }
    assert plan.not_applicable.is_empty()
    assert all(source["unmatched"] == 0 for source in plan.sources["tables"])


def test_published_originals_are_the_released_prompts(shared_data):
    """All of them, word for word; of BUSI's two prompts an image one was drawn."""
    suite = select_suite("medclipseg")
    theirs = read_sets(suite, shared_data, pictures=False)
    released = select_suite("medclipseg", prompts="released")
    for one, other in zip(theirs, read_sets(released, shared_data, pictures=False), strict=True):
        for sample, own in zip(one.samples, other.samples, strict=True):
            (original,) = sample.prompts["p6"]
            assert original.text in [p.text for p in own.prompts["p6"]]
            assert original.spans
