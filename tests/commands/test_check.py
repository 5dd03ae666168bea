"""``check`` says what it found, what it could not look at, and leaves with the right code."""

import json
import re

import pytest

from harness.data import checks


def test_check_counts_defects_in_a_table(call):
    code, out, _ = call("check", "--datasets", "kvasir_polyp", "-q", "--json")
    assert code == 0
    code, out, _ = call("check", "--datasets", "kvasir_polyp")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert any(
        line.startswith("kvasir_polyp/test: 6 rows, 6 images, 54 prompts; 6 distinct p6")
        for line in lines
    )
    assert any(
        re.match(r"2 6 the shape has an article annotations row 1: 'a circle'", x) for x in lines
    )
    assert any(
        re.match(r"\d 6 the location contradicts the mask masks row \d: says", x) for x in lines
    )
    assert "not checked: length in tokens of kvasir_polyp/test: no tokenizer was asked." in out
    assert "1 annotation files, 6 rows, 54 prompts, 48 of them not empty," in out
    assert "6 samples, 6 images, 6 clusters, 54 prompts parsed." in out


def test_json_holds_every_check_that_was_done(call):
    code, out, _ = call("check", "--datasets", "kvasir_polyp", "--json")
    assert code == 0
    data = json.loads(out)["data"]
    found = {f["defect"]: f["n_rows"] for f in data["findings"]}
    assert found["duplicate_row"] == 0
    assert found["no_box"] == 6
    assert found["wrong_location"] > 0
    assert data["totals"]["rows"] == data["files"][0]["n_rows"] == 6
    assert [u["what"] for u in data["unchecked"]] == ["length in tokens"]


def test_annotations_alone_are_checked_and_the_rest_is_named(call, photo_root):
    folder = photo_root / "kvasir_polyp"
    for part in ("images", "masks"):
        for path in (folder / part).iterdir():
            path.unlink()
        (folder / part).rmdir()
    code, out, _ = call("check", "--datasets", "kvasir_polyp")
    assert code == 0
    for what in ("words against masks, empty masks", "images by their content"):
        assert f"not checked: {what} of kvasir_polyp/test: the folder is not there." in out
    assert "contradicts the mask" not in out
    assert "6 samples, 6 images" in out


def test_corrected_prompts_need_masks(call, photo_root):
    for path in (photo_root / "kvasir_polyp" / "masks").iterdir():
        path.unlink()
    code, _, err = call("check", "--datasets", "kvasir_polyp", "--prompts", "corrected", "-q")
    assert code == 2
    assert "the mask" in err


def test_what_stops_the_reading_is_counted_before_it_does(call, photo_rows):
    rows, write = photo_rows
    rows[3]["prompts"]["p6"] = "somewhere there may be something"
    write()
    code, out, err = call("check", "--datasets", "kvasir_polyp")
    assert code == 2
    assert re.search(r"1 +6 +the row cannot be read +annotations +row 3: ", out)
    assert "test.json: row 3: " in err


def test_tokens_are_counted_on_request(call, monkeypatch):
    """Of words here: loading CLIP's vocabulary takes seconds."""

    def of_words(limit):
        return checks.Tokenizer("word", lambda texts: [len(t.split()) for t in texts], limit)

    monkeypatch.setattr(checks, "clip_tokenizer", of_words)
    code, out, _ = call("check", "--datasets", "kvasir_polyp", "--tokens", "10", "--json")
    assert code == 0
    found = {f["defect"]: f["n_rows"] for f in json.loads(out)["data"]["findings"]}
    assert found["too_long_p1"] == 0
    assert found["too_long_p6"] == 6


@pytest.mark.parametrize("value", ["0", "many"])
def test_a_limit_is_a_positive_number(call, value):
    assert call("check", "--datasets", "kvasir_polyp", "--tokens", value)[0] == 2
