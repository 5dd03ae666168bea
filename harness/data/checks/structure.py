"""Defects in how rows are built: boxes, lists, doubles, and targets that are denied.

Conventions: as in `rows`. A box is ``[x0, y0, x1, y1]``; it is a proper one when both its
sides are longer than nothing. Where there is no mask, a proper box stands for a target.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from harness.data.checks.rows import Defect, SplitRows
from harness.data.corrected import denies

_ANNOTATIONS = "annotations"
_BOX = "bbox"


def has_target(entry: Any) -> bool | None:
    """Whether a row's box encloses something; None without a box of four numbers."""
    box = entry.get(_BOX) if isinstance(entry, dict) else None
    if not isinstance(box, list) or len(box) != 4:
        return None
    if not all(isinstance(side, int | float) for side in box):
        return None
    return bool(box[0] < box[2] and box[1] < box[3])


def refused_rows(rows: SplitRows) -> Mapping[int, str]:
    """Rows that cannot be read at all."""
    return rows.refused


def no_box(rows: SplitRows) -> Mapping[int, str]:
    """Rows without a bounding box."""
    return {
        place: "no 'bbox'" for place, entry in enumerate(rows.entries) if has_target(entry) is None
    }


def inverted_boxes(rows: SplitRows) -> Mapping[int, str]:
    """Boxes that end before they begin."""
    return {
        place: f"{entry[_BOX]!r}"
        for place, entry in enumerate(rows.entries)
        if has_target(entry) is False
    }


def empty_sentences(rows: SplitRows) -> Mapping[int, str]:
    """Rows whose ``sentences`` hold no text."""
    return {
        place: "'sentences' hold no text"
        for place, entry in enumerate(rows.entries)
        if (said := _sentences(entry)) and not any(said)
    }


def _sentences(entry: Any) -> list[str]:
    listed = entry.get("sentences") if isinstance(entry, dict) else None
    listed = listed if isinstance(listed, list) else []
    return [str(s.get("sent", "")).strip() for s in listed if isinstance(s, dict)]


def unusual_forms(rows: SplitRows) -> Mapping[int, str]:
    """A text where most rows of the file have a list, or a list of another length."""
    forms: dict[str, Counter[str]] = {}
    for _, rung, form in _forms(rows):
        forms.setdefault(rung, Counter())[form] += 1
    usual = {rung: counts.most_common(1)[0][0] for rung, counts in forms.items()}
    found: dict[int, str] = {}
    for place, rung, form in _forms(rows):
        if form != usual[rung]:
            found.setdefault(place, f"{rung} is {form}, elsewhere {usual[rung]}")
    return found


def _forms(rows: SplitRows) -> Iterator[tuple[int, str, str]]:
    for place, row in rows.read():
        for rung in row.prompts:
            value = rows.entries[place]["prompts"][rung]
            yield place, rung, f"a list of {len(value)}" if isinstance(value, list) else "a text"


def doubled_rows(rows: SplitRows) -> Mapping[int, str]:
    """Rows that name the image and mask of an earlier one."""
    seen: dict[tuple[str, str], int] = {}
    found = {}
    for place, row in rows.read():
        first = seen.setdefault((row.image_name, row.mask_name), place)
        if first != place:
            found[place] = f"{row.image_name!r} stands in row {first} too"
    return found


def shared_prompts(rows: SplitRows) -> Mapping[int, str]:
    """A second target of an image that the first one's words describe as well."""
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    found: dict[int, str] = {}
    for place, row in rows.read():
        for text in {p.text for p in row.prompts.get(rows.card.prompt_type, ()) if p.text}:
            first, mask = seen.setdefault((row.image_name, text), (place, row.mask_name))
            if mask != row.mask_name:
                found[place] = f"{text!r} names another mask in row {first}"
    return found


def denied_targets(rows: SplitRows) -> Mapping[int, str]:
    """A prompt that says there is nothing, in a row whose box encloses something."""
    found: dict[int, str] = {}
    for place, prompt in rows.prompts():
        if has_target(rows.entries[place]) and denies(prompt, rows.card):
            found.setdefault(place, f"{prompt.text!r} with the box {rows.entries[place][_BOX]!r}")
    return found


STRUCTURE: dict[str, Defect] = {
    "refused": Defect("the row cannot be read", _ANNOTATIONS, refused_rows),
    "duplicate_row": Defect("the row stands twice", _ANNOTATIONS, doubled_rows),
    "shared_prompt": Defect("one prompt for two targets", _ANNOTATIONS, shared_prompts),
    "denied_target": Defect("a target that the prompt denies", _ANNOTATIONS, denied_targets),
    "unusual_form": Defect("text or list unlike most rows", _ANNOTATIONS, unusual_forms),
    "inverted_box": Defect("the box ends before it begins", _ANNOTATIONS, inverted_boxes),
    "no_box": Defect("no bounding box", _ANNOTATIONS, no_box),
    "empty_sentences": Defect("'sentences' without text", _ANNOTATIONS, empty_sentences),
}
