"""A stranger's folder: nothing is followed or executed, and every reason is told."""

import io
import json
import os

import polars as pl
import pytest

from harness.errors import SubmissionError
from harness.leaderboard import reading
from harness.leaderboard.reading import read_facts, read_files, read_submission, read_tables
from harness.leaderboard.submission import LIMITS, SCORES

FILES = ", ".join(LIMITS)
MOST = dict.fromkeys(LIMITS, 100_000)


@pytest.fixture
def file_reasons(copy):
    def told():
        found = []
        read_files(copy, found)
        return found

    return told


def test_the_files_of_a_real_submission_are_read(copy, file_reasons):
    assert file_reasons() == []
    assert set(read_files(copy, [])) == set(LIMITS)


def test_a_missing_file_is_told(copy, file_reasons):
    (copy / "run.json").unlink()
    assert file_reasons() == [
        f"run.json: no such file. A submission has the files {FILES}. Make the folder anew with "
        "`vlsm-harness submit RUN`."
    ]


def test_an_unknown_file_is_told(copy, file_reasons):
    (copy / "setup.py").write_text("raise SystemExit")
    found = f"setup.py: unknown file. A submission has only {FILES}. Remove it."
    assert file_reasons() == [found]


def test_a_folder_in_it_is_told(copy, file_reasons):
    (copy / "more").mkdir()
    assert file_reasons() == [f"more: a folder. A submission has only {FILES}. Remove it."]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../elsewhere", "run.json"])
def test_a_link_is_not_followed(copy, file_reasons, target):
    (copy / "scores.parquet").unlink()
    (copy / "scores.parquet").symlink_to(target)
    assert file_reasons() == [
        "scores.parquet: a link. Files stand in the folder themselves. Copy the file there."
    ]


def test_a_pipe_is_not_waited_for(copy, file_reasons):
    (copy / "scores.parquet").unlink()
    os.mkfifo(copy / "scores.parquet")
    assert file_reasons()[0].startswith("scores.parquet: no plain file. A submission has only")


def test_a_link_to_a_folder_is_no_submission(copy):
    link = copy.with_name("link")
    link.symlink_to(copy)
    with pytest.raises(SubmissionError, match=r"link: no folder\. A submission is a folder, no"):
        read_files(link, [])


def test_a_file_beyond_its_limit_is_not_read(copy, file_reasons):
    size = LIMITS["submission.yaml"] + 1
    with (copy / "submission.yaml").open("wb") as file:
        file.truncate(size)
    assert file_reasons() == [
        f"submission.yaml: {size} bytes. At most {LIMITS['submission.yaml']} bytes are read. Make "
        "the folder anew with `vlsm-harness submit RUN`."
    ]


def test_a_name_of_control_characters_is_cleaned(copy, file_reasons):
    (copy / "a\x1b[2J\u202eb").write_text("")
    (found,) = file_reasons()
    assert found.startswith("a [2J b: unknown file")


def yaml_reasons(text):
    found = []
    assert read_submission(text.encode(), found) is None
    return found


GOOD = """\
format: 1
track: phantom-v1
name: mine
title: Mine
authors: [Ada]
paper: null
code: https://example.org/code
weights: {address: https://example.org/w, sha256: "%s"}
licence: MIT
trained_on: [phantom_crowd]
""" % ("ab" * 32)


def test_a_good_one_is_read():
    found = []
    submission = read_submission(GOOD.encode(), found)
    assert found == []
    assert submission.authors == ["Ada"]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("licence", "license", "license: unknown key. Did you mean 'licence'? Known keys: "),
        ("[Ada]", "&a [*a]", "the alias '*a'. Anchors and aliases are not allowed here."),
        ("[Ada]", "!!python/object/apply:os.system [ls]", "apply:os.system'. Tags are not"),
        ("licence: MIT", "licence: MIT\nlicence: GPL", "the key 'licence' stands twice (first on"),
        ("[Ada]", "[" * 20_000, "submission.yaml:5: nested too deeply. At most 40 lists and"),
        ("[Ada]", "\n  " + "- " * 5000 + "a", "nested too deeply"),
        ("[Ada]", "[" + "9" * 5000 + "]", "reads like a value of the kind 'int' and is none"),
        ("[Ada]", "[2020-13-45]", "the value '2020-13-45' reads like a value of the kind"),
        ("Mine", "'FILL IN: one line'", "submission.yaml:4: title: still to be given. The authors"),
        ("[Ada]", "[]", "authors: found []. List should have at least 1 item"),
        ("title: Mine", "title: " + "x" * 10_000, "title: found 'xxxx"),
        ("Mine", '"a\\u202Eb"', "it holds control or direction marks, or blanks around it"),
        ("https://example.org/code", "javascript:alert(1)", "an address begins with https:// or"),
        ("https://example.org/code", "https://a@b.org/", "an address begins with https:// or"),
        ("https://example.org/code", "https://a.org/'><script>", "an address begins with https://"),
        ("name: mine", "name: ../mine", "name: found '../mine'. String should match pattern"),
        ("format: 1", "format: 2", "format: found 2. Input should be 1."),
        ("sha256: ", "sha256: x", "weights.sha256"),
    ],
)  # fmt: skip
def test_what_yaml_may_not_hold_is_told(old, new, text):
    assert old in GOOD
    found = yaml_reasons(GOOD.replace(old, new))
    assert any(text in reason for reason in found), found
    assert all(len(reason) < 1000 for reason in found)


def test_what_is_no_text_is_told():
    found = []
    assert read_submission(b"\xff\xfe", found) is None
    assert found[0].startswith(
        "submission.yaml: cannot be read as UTF-8 text (byte 0: invalid start"
    )


def test_all_mistakes_are_told_at_once():
    text = GOOD.replace("licence", "license").replace("Mine", "'FILL IN: x'")
    found = yaml_reasons(text.replace("[Ada]", "[]"))
    for text in (
        "license: unknown key",
        "licence: the key is missing",
        "title: still",
        "authors: ",
    ):
        assert any(text in reason for reason in found), found


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda d: d | {"hidden": 1}, "run.json:1: hidden: unknown key."),
        (lambda d: {k: v for k, v in d.items() if k != "at"}, "run.json:1: at: the key is missing"),
        (lambda d: d | {"threshold": 2}, "run.json:1: threshold: found 2. Input should be less"),
        (lambda d: d | {"threshold": float("nan")}, "run.json: not valid JSON (NaN is no number"),
        (lambda d: d | {"model_id": "../x"}, "run.json:1: model_id: found '../x'. String should"),
        (lambda d: [d], "run.json: no object. It holds plain texts, lists and numbers"),
    ],
)  # fmt: skip
def test_what_a_run_may_not_say_is_told(real_folder, spoil, text):
    facts = json.loads((real_folder / "run.json").read_text())
    found = []
    assert read_facts(json.dumps(spoil(facts)).encode(), found) is None
    assert any(text in reason for reason in found), found


@pytest.mark.parametrize("text", ["[" * 100_000, "{", '{"a": ' + "9" * 5000 + "}"])
def test_json_that_breaks_parsers_is_told(text):
    found = []
    assert read_facts(text.encode(), found) is None
    assert found[0].startswith(("run.json: not valid JSON (", "run.json: nested too deeply. "))


def parquet(table):
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def table_reasons(content, most=100_000):
    found = []
    assert read_tables({"scores.parquet": content}, MOST | {"scores.parquet": most}, found) == {}
    return found


SMALL = pl.DataFrame(schema=SCORES)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            b"PAR1 not at all PAR1",
            "scores.parquet: no Parquet file. It is the file",
        ),
        (b"", "scores.parquet: no Parquet file. It is the file"),
        (
            parquet(SMALL.with_columns(extra=pl.lit("x"))),
            "scores.parquet: unknown column 'extra'. Its columns are case_id, tp, n_pred, n_gt,",
        ),
        (
            parquet(SMALL.drop("tp")),
            "scores.parquet: tp: no such column. It is Int64.",
        ),
        (
            parquet(SMALL.cast({"tp": pl.Float64})),
            "scores.parquet: tp: the column is 'Float64'. It is Int64.",
        ),
    ],
)
def test_a_table_of_other_columns_is_told(content, text):
    assert table_reasons(content)[0].startswith(text)


def asked_for_its_account_alone(files, *, most_bytes, columns=None):
    return columns == [] or pytest.fail("it was decoded")


def test_a_table_of_too_many_rows_is_not_decoded(tables, monkeypatch):
    monkeypatch.setattr(reading, "survives", asked_for_its_account_alone)
    found = table_reasons(parquet(tables["scores.parquet"]), most=11_000)
    assert found[0].startswith(
        "scores.parquet: 11672 rows. The track asks for fewer; at most 11000 are read."
    )


def test_a_damaged_table_is_told(real_folder):
    content = bytearray((real_folder / "scores.parquet").read_bytes())
    content[4:40] = bytes(36)
    (found,) = table_reasons(bytes(content))
    assert found.startswith(
        "scores.parquet: decoding ends in an error, or takes more memory or time than is given to"
    )
