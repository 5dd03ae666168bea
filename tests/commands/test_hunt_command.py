"""``hunt`` and ``replay`` as a user meets them."""

import json

import pytest

from harness.hunt.breaks import read_break


@pytest.fixture
def hunting(call, toy_card, tmp_path):
    """Hunt with the spotter on two photos; returns code, output and errors."""
    out = tmp_path / "breaks"

    def run(*more, **settings):
        card = toy_card("spotter", **settings)
        return call(
            *("hunt", "--model", card, "--datasets", "kvasir_polyp", "--limit", "2"),
            *("--prompt-type", "p4", "--random-weights", "--out", out, *more),
        )

    return run


def test_breaks_are_shown_written_and_confirmed(hunting, call, toy_card, tmp_path):
    code, out, err = hunting("--families", "punctuation,typo", nothing=r"\.$")
    assert code == 0
    assert "preserved: small pink round polyp -> small pink round polyp{+.+}" in out
    assert "punctuation: 1 edits, 1 characters; Dice" in out
    assert "preserved: 2 broken, 0 unbroken, 0 skipped." in out
    assert "seed 0, Hypothesis " in out
    assert "hunting: 2 of 2" in err
    assert len(list((tmp_path / "breaks").glob("*.json"))) == 2

    card = tmp_path / "spotter.yaml"
    arguments = ["replay", tmp_path / "breaks", "--model", card, "--random-weights"]
    code, out, _ = call(*arguments)
    assert code == 0
    assert out.count("still breaks (preserved)") == 2
    assert out.count("the same figures") == 2
    assert "2 of 2 breaks confirmed." in out

    toy_card("spotter", nothing="white.*\\.$")  # the first is repaired, the second is not
    code, out, _ = call(*arguments)
    assert code == 1
    assert out.count("no longer breaks (preserved)") == 1
    code, out, _ = call(*arguments, "--json")
    assert code == 1
    content = json.loads(out)
    assert content["confirmed"] == 1
    assert sorted(one["breaks"] for one in content["breaks"]) == [False, True]


def test_json_holds_every_prompt(hunting):
    code, out, err = hunting("--json", "--kind", "both", "--budget", "30", nothing=r"pink.*!$")
    assert code == 0
    assert err == ""
    rows = json.loads(out)["prompts"]
    assert [row["kind"] for row in rows] == ["preserved", "deaf"] * 2
    assert [row["skipped"] is None for row in rows] == [True, False, True, False]
    assert max(row["calls"] for row in rows if row["calls"]) <= 30
    for row in rows:
        assert (row["file"] is None) == (row["break"] is None)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--kind", "loud"], "--kind: unknown kind 'loud'."),
        (
            ["--families", "tipo"],
            "--families: unknown perturbation 'tipo'. Did you mean 'typo'? Known perturbations: ",
        ),
        (
            ["--families", "empty", "--kind", "deaf"],
            "--families: {'empty': 'removed'}. For --kind deaf the meaning must be 'changed'. Name "
            "other perturbations, or another kind.",
        ),
        (
            ["--prompts", "table"],
            "--prompts: found 'table'. A hunt begins with released or corrected prompts, which can "
            "be parsed. Leave it out.",
        ),
    ],
)
def test_what_the_user_can_repair_exits_2(hunting, more, message):
    code, _, err = hunting(*more)
    assert code == 2
    assert message in err


def test_a_dataset_is_needed(call, toy_card):
    code, _, err = call("hunt", "--model", toy_card("spotter"), "--datasets", ",")
    assert code == 2
    assert "--datasets: found no name. A hunt needs at least one dataset. Name it; " in err


def test_nothing_to_hunt_exits_5(hunting):
    code, _, err = hunting("--prompt-type", "p9")
    assert code == 5
    assert "hunt: no prompt is left. At least one sample with a prompt of the chosen type" in err


def test_a_break_of_an_unknown_dataset_needs_its_card(hunting, call, tmp_path):
    """A case names a dataset, never a path; the hash is made anew, as a stranger could."""
    hunting("--families", "punctuation", "--limit", "1", nothing=r"\.$")
    (path,) = (tmp_path / "breaks").glob("*.json")
    case = read_break(path).model_copy(update={"dataset": "../../elsewhere"}).seal()
    path.write_text(case.model_dump_json(), encoding="utf-8")
    code, _, err = call("replay", path, "--model", tmp_path / "spotter.yaml")
    assert code == 2
    assert "dataset: unknown dataset '../../elsewhere'." in err
