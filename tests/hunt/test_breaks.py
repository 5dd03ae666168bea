"""Breaks: written and read back, refused when they were changed, replayed on the right data."""

import json
import re
from dataclasses import replace

import pytest

from harness.errors import DataError
from harness.hunt.breaks import MAX_BYTES, read_break, read_breaks, write_break
from harness.hunt.hunt import replay


@pytest.fixture
def found(hunter, tmp_path):
    """A hunt with a known break, its case and its file."""
    hunt = hunter("preserved", names=["punctuation"], limit=1, nothing=r"\.$")
    (outcome,) = hunt.results()
    return hunt, outcome.smallest, write_break(outcome.smallest, tmp_path / "breaks")


def test_a_case_comes_back_as_it_was(found):
    _, case, path = found
    assert read_break(path) == case
    assert read_breaks(path.parent) == read_breaks(path) == {path: case}
    assert re.fullmatch(r"preserved-kvasir_polyp-test-[0-9a-f]{12}\.json", path.name)


def test_a_replay_gives_the_same_figures(found):
    hunt, case, _ = found
    again = replay(case, hunt.planned, hunt.encoder, where="here")
    assert again.breaks
    assert again.same_scores
    assert again.scores == case.figures


def test_a_repaired_model_no_longer_breaks(found, hunter):
    _, case, _ = found
    hunt = hunter("preserved", limit=1)
    again = replay(case, hunt.planned, hunt.encoder, where="here")
    assert not again.breaks
    assert not again.same_scores
    assert again.scores.relative_change_percent == 0


CHANGES = {
    "variant": (
        {"variant": "small polyp"},
        "the edits make 'small pink round polyp.', 'variant' says 'small polyp'. Both must be one "
        "text. Take the file as `vlsm-harness hunt` wrote it.",
    ),
    "size": (
        {"size": {"edits": 2, "characters": 1}},
        "'size' says 2 edits and 1 characters, the edits are (1, 1). Both must agree. Take the "
        "file as `vlsm-harness hunt` wrote it.",
    ),
    "edits": (
        {"edits": [{"start": 0, "end": 5, "old": "large", "new": "x"}]},
        "edit 'large' -> 'x': characters 0 to 5 are 'small'. They must be what the edit replaces. "
        "Apply the edit to its own original.",
    ),
    "figures": (
        {"model_id": "another"},
        "is not that of the content. A break must be what was found. Take the file as "
        "`vlsm-harness hunt` wrote it.",
    ),
    "no edit": ({"edits": []}, ":1: edits: found []. List should have at least 1 item"),
    "unknown key": ({"kindd": "deaf"}, ":1: kindd: unknown key. Did you mean 'kind'?"),
    "kind": ({"kind": "loud"}, ":1: kind: found 'loud'."),
    "form": ({"form": "vlsm-harness break 9"}, ":1: form: found 'vlsm-harness break 9'."),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_case_is_refused(found, what):
    change, message = CHANGES[what]
    path = found[2]
    content = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="^" + re.escape(str(path)) + ".*" + re.escape(message)):
        read_break(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "found list. A break is one JSON object. Give a file that `vlsm-harness hunt`"),
        ("{", "not valid JSON (Expecting property name"),
        ("[" * 100_000, "nested too deeply. Flat rows are expected. Give a file that"),
        (
            " " * (MAX_BYTES + 1),
            f"has more than {MAX_BYTES:,} bytes. At most so many are read. Check that",
        ),
    ],
)
def test_what_is_no_case_is_refused(tmp_path, content, message):
    path = tmp_path / "case.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="^" + re.escape(f"{path}: {message}")):
        read_break(path)


def test_an_empty_folder_is_refused(tmp_path):
    message = f"{tmp_path}: no *.json here. A folder of breaks is needed. Give the --out of "
    with pytest.raises(DataError, match="^" + re.escape(message)):
        read_breaks(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sample_id": "elsewhere"},
            "here: kvasir_polyp/test has no sample 'elsewhere'. The data must be those of the "
            "hunt. Give their --data-root.",
        ),
        (
            {"image_id": "0" * 16},
            "of kvasir_polyp/test has another image than when the break was found. The data must "
            "be those of the hunt. Give their --data-root, or hunt again.",
        ),
        ({"original_prompt": "polyp"}, "has another prompt than when the break was found."),
    ],
)
def test_other_data_are_refused(found, change, message):
    hunt, case, _ = found
    with pytest.raises(DataError, match=re.escape(message)):
        replay(case.model_copy(update=change), hunt.planned, hunt.encoder, where="here")


def test_masks_of_another_size_are_refused(hunter):
    hunt = hunter("preserved", limit=1)
    sample, other = hunt.planned.all_samples[:2]
    wrong = replace(hunt, planned=replace(hunt.planned, samples=[replace(sample, mask=other.mask)]))
    message = "the mask has 40 x 48 pixels, its image 48 x 40. Both must have one size. Export the"
    with pytest.raises(DataError, match=re.escape(message)):
        list(wrong.results())
