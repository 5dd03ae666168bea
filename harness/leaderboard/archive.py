"""A submission as one file for an archive that gives a DOI, such as Zenodo.

The ZIP holds the folder as it is, ``CITATION.cff`` (version 1.2.0 of the format), ``.zenodo.json``
and ``README.md``. Equal submissions give equal bytes: it holds no times but the run's day. No
licence is named, since the archive's own is its depositor's to choose; that of the weights is told.
"""

import html
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.errors import SubmissionError
from harness.files.writing import write_bytes
from harness.leaderboard.submission import TO_GIVE, WITH_THE_HARNESS, RunFacts, Submission
from harness.leaderboard.verification import OpenedSubmission, open_submission

_OLDEST = (1980, 1, 1, 0, 0, 0)
_KEYWORDS = ["image segmentation", "vision-language model", "robustness", "vlsm-harness"]


def write_archive(folder: Path, out: Path) -> Path:
    """Write a complete submission as a ZIP.

    Raises:
        SubmissionError: The submission is not complete, every reason told.
    """
    opened = open_submission(folder)
    if opened.submission is None or opened.facts is None or opened.reasons:
        reasons = "\n".join(f"  {text}" for text in opened.reasons)
        raise SubmissionError(
            f"{folder}: no complete submission. An archive is made of one. Repair it:\n{reasons}"
        )
    write_bytes(out, _zipped(_contents(opened, opened.submission, opened.facts)))
    return out


def _zipped(contents: Mapping[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name, _OLDEST), contents[name], zipfile.ZIP_DEFLATED)
    return held.getvalue()


def _contents(
    opened: OpenedSubmission, submission: Submission, facts: RunFacts
) -> dict[str, bytes]:
    files = {f"{submission.name}/{name}": data for name, data in opened.files.items()}
    title = f"{submission.title}: prompt robustness on {submission.track}"
    about = (
        f"Counts of every case of {submission.name} on the track {submission.track} of "
        f"vlsm-harness {facts.harness}, with the figures that follow from them. SHA-256 of the "
        f"submission: {opened.digest}. Licence of the weights: {submission.licence}. Trained on "
        f"(self-declared): {', '.join(submission.trained_on) or 'nothing named'}."
    )
    citation = {
        "cff-version": "1.2.0",
        "message": "If you use these data, please cite them.",
        "type": "dataset",
        "title": title,
        "abstract": about,
        "authors": [{"name": name} for name in submission.authors],
        "date-released": facts.at[:10],
        "keywords": _KEYWORDS,
        "identifiers": [
            {"type": "other", "value": f"sha256:{opened.digest}", "description": "submission"}
        ],
        **_links(submission),
    }
    files["CITATION.cff"] = yaml.safe_dump(citation, sort_keys=False, allow_unicode=True).encode()
    files[".zenodo.json"] = f"{json.dumps(_zenodo(submission, title, about), indent=1)}\n".encode()
    files["README.md"] = (
        f"`{submission.name}/` is a submission to the leaderboard of vlsm-harness. Whether all of "
        f"it follows from its counts: `vlsm-harness verify {submission.name}` (version "
        f"{facts.harness}).\n"
    ).encode()
    return files


def _is_address(text: str | None) -> bool:
    return text is not None and text != WITH_THE_HARNESS and not text.startswith(TO_GIVE)


def _links(submission: Submission) -> dict[str, Any]:
    """Of ``CITATION.cff``."""
    found: dict[str, Any] = {}
    if _is_address(submission.code):
        found["repository-code"] = submission.code
    if _is_address(submission.paper):
        found["references"] = [
            {
                "type": "article",
                "title": submission.title,
                "authors": [{"name": name} for name in submission.authors],
                "url": submission.paper,
            }
        ]
    return found


def _zenodo(submission: Submission, title: str, about: str) -> dict[str, Any]:
    """Zenodo reads the description as HTML."""
    related = [
        {"identifier": address, "relation": relation}
        for address, relation in (
            (submission.paper, "isSupplementTo"),
            (submission.code, "isDerivedFrom"),
            (submission.weights.address, "isDerivedFrom"),
        )
        if _is_address(address)
    ]
    return {
        "title": title,
        "upload_type": "dataset",
        "description": f"<p>{html.escape(about)}</p>",
        "creators": [{"name": name} for name in submission.authors],
        "keywords": _KEYWORDS,
        "related_identifiers": related,
    }
