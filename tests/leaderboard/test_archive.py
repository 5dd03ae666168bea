"""A submission as one file: whole, described, the same each time."""

import io
import json
import re
import zipfile

import pytest
import yaml

from harness.errors import SubmissionError
from harness.leaderboard.archive import write_archive
from harness.leaderboard.verification import open_submission, verify


def test_an_archive_holds_the_submission_as_it_is_verified(copy, tmp_path, reference):
    out = write_archive(copy, tmp_path / "new" / "mine.zip")
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked" / copy.name
    assert open_submission(unpacked).digest == open_submission(copy).digest
    assert verify(open_submission(unpacked), reference).reasons == ()
    assert sorted(p.name for p in (tmp_path / "unpacked").iterdir()) == [
        ".zenodo.json", "CITATION.cff", "README.md", copy.name,
    ]  # fmt: skip


def test_the_same_submission_gives_the_same_bytes(copy, tmp_path):
    one, two = (write_archive(copy, tmp_path / f"{n}.zip").read_bytes() for n in (1, 2))
    assert one == two


def read(path, name):
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        return archive.read(name).decode()


def test_it_says_who_made_it_and_which_it_is(copy, tmp_path):
    out = write_archive(copy, tmp_path / "a.zip")
    own = yaml.safe_load((copy / "submission.yaml").read_text())
    citation = yaml.safe_load(read(out, "CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert [a["name"] for a in citation["authors"]] == own["authors"]
    assert citation["identifiers"][0]["value"] == f"sha256:{open_submission(copy).digest}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", citation["date-released"])
    assert {"message", "title", "type"} <= citation.keys()
    assert "license" not in citation
    zenodo = json.loads(read(out, ".zenodo.json"))
    assert [c["name"] for c in zenodo["creators"]] == own["authors"]
    assert (zenodo["upload_type"], zenodo["title"]) == ("dataset", citation["title"])
    related = [one["identifier"] for one in zenodo["related_identifiers"]]
    assert related == [own["paper"]], "code and weights that ship with the harness have no address"
    assert f"vlsm-harness verify {copy.name}" in read(out, "README.md")


def test_hostile_texts_stay_texts(copy, edit, tmp_path):
    own = yaml.safe_load((copy / "submission.yaml").read_text())
    own |= {"authors": ["<script>x</script>"], "title": "a: 'b' \"c\"", "licence": "<img src=x>"}
    own |= {"code": "https://example.org/code", "paper": "https://example.org/paper"}
    (copy / "submission.yaml").write_text(yaml.safe_dump(own))
    out = write_archive(copy, tmp_path / "a.zip")
    citation, zenodo = (
        yaml.safe_load(read(out, "CITATION.cff")),
        json.loads(read(out, ".zenodo.json")),
    )
    assert citation["authors"] == [{"name": "<script>x</script>"}]
    assert citation["title"] == "a: 'b' \"c\": prompt robustness on phantom-v1"
    assert citation["repository-code"] == "https://example.org/code"
    assert citation["references"][0]["url"] == "https://example.org/paper"
    assert "<img" not in zenodo["description"]
    assert {r["identifier"] for r in zenodo["related_identifiers"]} == {
        "https://example.org/code", "https://example.org/paper",
    }  # fmt: skip


def test_an_incomplete_submission_is_not_archived(copy, tmp_path):
    (copy / "run.json").unlink()
    with pytest.raises(SubmissionError, match="no complete submission. An archive is made of one"):
        write_archive(copy, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
