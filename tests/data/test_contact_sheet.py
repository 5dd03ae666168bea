"""Contact sheets show each target once, of whatever data set."""

import re

import pytest

from harness.cards import load_dataset_card
from harness.data.contact_sheet import contact_sheet
from harness.data.generators import generate
from harness.data.images import read_image
from harness.errors import DataError

PAIRS = load_dataset_card("phantom_pairs")


def test_a_contact_sheet_shows_each_target_once(tmp_path):
    generate(PAIRS, tmp_path, sizes={"test": 2})
    sheet = contact_sheet(PAIRS, tmp_path, tmp_path / "out" / "sheet.png", n=2)
    picture = read_image(sheet)
    outlines = (picture == (60, 255, 120)).all(axis=-1)

    # 2 images, each plain and with either target: 6 panes of 192 px in one row.
    assert picture.shape == (34 + 192 + 8 + 44, 6 * 200 + 8, 3)
    assert [bool(outlines[:, 8 + 200 * k : 200 + 200 * k].any()) for k in range(6)] == [
        *(False, True, True),
        *(False, True, True),
    ]


def test_mistakes_are_explained(tmp_path):
    with pytest.raises(
        DataError,
        match=r"^contact sheet: 0 images\. At least one is needed\. Give a larger n\.$",
    ):
        contact_sheet(PAIRS, tmp_path, tmp_path / "a.png", n=0)
    with pytest.raises(DataError, match=re.escape("phantom_pairs: no such folder. The dataset")):
        contact_sheet(PAIRS, tmp_path, tmp_path / "a.png")
