"""A data set without a grammar, from ``peek`` to the report; several seeds of one recipe."""

import json
import re

import polars as pl
import pytest

import harness
from harness.auditing.choices import model_arguments, recipe_arguments
from harness.auditing.running import _recipes
from harness.errors import UsageError
from harness.prompts.freetext import terms

CARD = """name: mine
title: Mine
modality: photographs
source: made here
licence: none
splits: [test]
prompt_type: p6
clusters: {rule: image}
classes: [blob]
"""
COUNTED = (
    "mine/test: spans: lexicon: size in 6, location in 6, class in 6 of 6 prompts; 0 name nothing. "
    "1 names size again: the first mention is changed."
)


@pytest.fixture
def mine(photo_root, write_photos, tmp_path):
    """The card of a small set of free text below the data root."""
    rows = write_photos(photo_root, "mine")
    for number, row in enumerate(rows):
        size, place = (("small", "upper left"), ("large", "lower right"))[number % 2]
        text = f"A {size} blob in the {place} of the picture"
        row["prompts"] = {"p6": text + ", a little blurred" * (number == 3)}
    (photo_root / "mine" / "anns" / "test.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(CARD, encoding="utf-8")
    return tmp_path / "mine.yaml"


def run_toy(call, card, toy_card, out):
    arguments = ("--model", toy_card(), "--random-weights", "--datasets", card, "--out", out)
    return call("run", "antonym_swap", *arguments)


def test_peek_shows_what_was_found(call, mine):
    code, out, _ = call("peek", "antonym_swap", "--datasets", mine, "-n", "2")

    assert code == 0
    assert "    spans: lexicon: size=small, class=blob, location=upper left\n" in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert any("size A [-small-] blob" in x and "A {+large+} blob" in x for x in lines)


def test_check_counts_what_was_found(call, mine):
    code, out, _ = call("check", "antonym_swap", "--datasets", mine)
    assert code == 0
    assert COUNTED in " ".join(out.split())

    _, out, _ = call("check", "antonym_swap", "--datasets", mine, "--json")
    (spans,) = json.loads(out)["spans"]
    assert (spans["from"], spans["found"]["size"], spans["again"]) == ("lexicon", 6, {"size": 1})


def test_a_run_its_summary_and_its_report_name_the_lexicon(
    call, mine, toy_card, tmp_path, monkeypatch
):
    monkeypatch.setenv("VLSM_TRUST_ADAPTERS", "1")
    out = tmp_path / "run"
    code, _, err = run_toy(call, mine, toy_card, out)
    assert code == 0
    assert COUNTED in " ".join(err.split())

    assert COUNTED in " ".join((out / "summary.md").read_text(encoding="utf-8").split())
    manifest = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert manifest["sources"]["spans"] == {"mine": "lexicon"}
    assert manifest["sources"]["terms_sha256"] == terms.read_terms()[1]
    assert call("report", out)[0] == 0
    assert "spans: lexicon: size in 6" in (out / "report.html").read_text(encoding="utf-8")


def test_the_hash_of_the_plan_covers_the_further_words(planned, mine, monkeypatch):
    _, _, before = planned("antonym_swap", datasets=[str(mine)])
    known = terms.read_terms()
    monkeypatch.setattr("harness.plan.build.read_terms", lambda: (known[0], "another"))
    _, _, after = planned("antonym_swap", datasets=[str(mine)])

    assert before.cases.equals(after.cases)
    assert before.sha256 != after.sha256


def test_plans_of_sets_with_a_grammar_say_nothing_of_them(planned):
    _, _, plan = planned("antonym_swap")
    assert not {"spans", "terms_sha256"} & set(plan.sources)


def test_checkpoints_of_a_recipe_are_told_by_commas(tmp_path):
    comma = tmp_path / "a,b.ckpt"
    comma.touch()

    found = recipe_arguments(["m=1.pt,2.pt,3.pt", "n", f"o={comma}", "p=1.pt,2.pt"], None)

    assert [name for name, _ in found.models] == ["m", "m", "m", "n", "o", "p", "p"]
    assert [str(file) for _, file in found.models[:3]] == ["1.pt", "2.pt", "3.pt"]
    assert found.recipes == ((0, 1, 2), (5, 6))


@pytest.mark.parametrize(
    ("value", "what"), [("m=a.pt,a.pt", "one checkpoint twice"), ("m=a.pt,", "an empty checkpoint")]
)
def test_doubled_and_empty_checkpoints_are_refused(value, what):
    message = (
        f"--model {value}: found {what}. A recipe is several checkpoints of one model, each "
        "another training seed. Write --model CARD=SEED1.ckpt,SEED2.ckpt with different files."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        recipe_arguments([value], None)


def test_a_recipe_is_refused_where_one_model_is_taken():
    message = (
        "--model m=1.pt,2.pt: found several checkpoints. One is taken here; `run` takes the seeds "
        "of a recipe. Name one: --model m=1.pt."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        model_arguments(["m=1.pt,2.pt"], None)


class Store:
    """What `_recipes` reads of a run."""

    def __init__(self, *recipes):
        models = [{"model_id": f"m@{k}", "name": "m"} for k in "123"]
        self.manifest = {"models": models, "recipes": [*recipes]}


def test_a_recipe_is_known_by_its_seeds_whatever_their_order():
    (one,) = _recipes(Store(), ["m@2", "m@1", "m@3"], ((0, 1),))

    assert (one["name"], one["seeds"]) == ("m (2 seeds)", ["m@1", "m@2"])
    assert one["model_id"].startswith("m-seeds@")
    assert _recipes(Store(one), ["m@1", "m@2"], ((0, 1),)) == [one]
    assert len(_recipes(Store(one), ["m@1", "m@3"], ((0, 1),))) == 2


def test_copies_of_one_checkpoint_are_no_seeds():
    message = (
        "m: found 2 checkpoints that are 1 different models. The seeds of a recipe differ. Leave "
        "out the copies."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        _recipes(Store(), ["m@1", "m@1"], ((0, 1),))


def test_a_run_of_a_recipe_is_assessed_as_one(call, mine, toy_card, tmp_path, monkeypatch):
    """Two settings of a toy stand for two seeds: what a run keeps, read as a recipe."""
    monkeypatch.setenv("VLSM_TRUST_ADAPTERS", "1")
    assert run_toy(call, mine, toy_card, tmp_path / "r")[0] == 0
    run = harness.load_run(tmp_path / "r")
    (entry,) = run.manifest["models"]
    other = entry | {"model_id": "toy@other"}
    scores = run.scores.with_columns(model_id=pl.lit("toy@other"))
    recipe = {"model_id": "toy-seeds@0", "name": "toy (2 seeds)", "seeds": sorted(
        [entry["model_id"], "toy@other"]
    )}  # fmt: skip

    from harness.stats.assessment import assess
    from harness.stats.pairs import assessed

    manifest = dict(run.manifest) | {"models": [entry, other], "recipes": [recipe]}
    found = assess(
        run.plan,
        pl.concat([run.scores, scores]),
        models=assessed(manifest),
        not_applicable=run.store.not_applicable(),
        suite=run.suite,
    )
    assert set(found.summary["model"]) == {"toy (2 seeds)"}

    run.__dict__["manifest"] = manifest
    (shown,) = run.models
    assert shown["model_id"] == "toy-seeds@0"
    assert shown["notes"][0].startswith("2 checkpoints of one recipe: ")
    assert run.names["toy@other"] == "toy@other"
    assert run.kept("toy-seeds@0") == run.kept(recipe["seeds"][0])


def test_a_card_may_say_how_far_its_annotators_agree(call, mine, toy_card, tmp_path):
    """Margins are then told in units of what they differ by, in the summary and on the page."""
    mine.write_text(f"{CARD}inter_annotator_dice: 0.917\n", encoding="utf-8")
    out = tmp_path / "run"
    assert run_toy(call, mine, toy_card, out)[0] == 0
    run = harness.load_run(out)
    assert run.manifest["inter_annotator_dice"] == {"mine": 0.917}
    told = (
        "mine: a margin of 2 % is 0.24, of 3 % 0.36 of the annotators' own disagreement (1 - Dice; "
        "their Dice is 0.917)."
    )
    assert told in " ".join((out / "summary.md").read_text(encoding="utf-8").split())
    page = run.write_report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert told.replace("'", "&#39;") in page


@pytest.mark.parametrize("value", ["1.2", "-0.1", ".nan", "good"])
def test_a_dice_between_annotators_lies_between_0_and_1(call, mine, value):
    mine.write_text(f"{CARD}inter_annotator_dice: {value}\n", encoding="utf-8")
    code, _, err = call("check", "antonym_swap", "--datasets", mine)
    assert code == 2
    assert "inter_annotator_dice" in err
    assert str(mine) in err.replace("\n", "")
