"""The pages: complete, self-contained, escaped, not stale."""

import json
import math
import re
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.commands.tracks import reference_of
from harness.leaderboard.beside import Shared, badge, render_others
from harness.leaderboard.board import build_boards, rank_rows
from harness.leaderboard.log import BUILT
from harness.leaderboard.site import (
    render_pages,
    safe_link,
    source_sha256,
    spread_cell,
    write_site,
)
from harness.leaderboard.tracks import load_track

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "{{ 7 * 7 }}",
    "\u202egnp.exe\u2066",
    "👩‍⚕️ مرحبا",
    "x" * 10_000,
)


class Page(HTMLParser):
    """What a page links to and holds."""

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.handlers, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("href", "src", "action", "xlink:href"):
                self.links.append(value)
            if name.startswith("on"):
                self.handlers.append(value)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def plain_pages(row, reference):
    return render_pages(
        [rank_rows(reference.track, [row]), rank_rows(load_track("medvlsm-v1"), [])]
    )


def spoiled(row):
    """A row every text of which is hostile; no schema would let it through."""
    first, second, script, braces, marks, emoji, long = HOSTILE
    weights = row.submission.weights.model_copy(update={"address": script})
    submission = row.submission.model_copy(
        update={
            "title": marks, "authors": list(HOSTILE), "paper": second, "code": script,
            "licence": braces, "weights": weights, "trained_on": [first], "notes": long,
        }
    )  # fmt: skip
    hardware = row.facts.hardware.model_copy(update={"device_name": first})
    facts = row.facts.model_copy(
        update={"hardware": hardware, "notes": [second], "libraries": {first: second}}
    )
    flag = row.flag.model_copy(update={"note": first + emoji})
    return replace(row, submission=submission, facts=facts, flag=flag)


def test_hostile_texts_appear_as_texts(row, reference, plain_pages):
    found = render_pages([rank_rows(reference.track, [spoiled(row)])])
    for name in ("phantom-v1.html", f"phantom-v1/{row.submission.name}.html"):
        page, plain = Page(found[name]), Page(plain_pages[name])
        assert page.tags.count("script") == plain.tags.count("script") == 1
        assert page.tags.count("img") == 0
        assert page.handlers == []
        assert not any("javascript" in link for link in page.links)
        assert "\u202e" not in found[name]
        assert len(found[name]) < len(plain_pages[name]) + 20_000
    model = Page(found[f"phantom-v1/{row.submission.name}.html"]).text
    for text in HOSTILE[:4]:
        assert text in model
    assert r"\u202egnp.exe\u2066" in model
    assert "👩‍⚕️ مرحبا" in model
    assert "… (10,000 characters)" in model


@given(st.text(max_size=60) | st.sampled_from(HOSTILE))
def test_only_addresses_become_links(text):
    link = safe_link(text)
    if link is not None:
        assert re.fullmatch(r"https?://[!-~]+", link)
        assert not set(link) & set("\"'<>")


@pytest.mark.parametrize(
    "text",
    [
        "data:text/html,x",
        "//example.org",
        "https://",
        "https://a b",
        "file:///etc",
        "HTTP://x",
        None,
    ],
)
def test_other_schemes_are_no_links(text):
    assert safe_link(text) is None


def test_pages_need_nothing_but_themselves(plain_pages):
    outside = {"https://arxiv.org/abs/2112.10003"}
    for name, text in plain_pages.items():
        page = Page(text)
        up = "../" * name.count("/")
        for link in page.links:
            if link.startswith(("data:", "#")) or link in outside:
                continue
            assert link.startswith(up)
            assert link.removeprefix(up) in plain_pages, (name, link)
        assert page.tags.count("link") == 1  # the empty icon


def test_a_page_says_that_training_data_are_self_declared(plain_pages, row):
    for name in ("phantom-v1.html", f"phantom-v1/{row.submission.name}.html"):
        assert "rained on (self-declared)" in Page(plain_pages[name]).text
    assert "Nobody can check it from the outside" in Page(plain_pages["phantom-v1.html"]).text


def test_the_papers_track_states_its_defects(plain_pages):
    text = Page(plain_pages["medvlsm-v1.html"]).text
    assert "No row yet" in text
    assert "Corrected list: the released test.json is that of CVC-ColonDB, byte for byte" in text
    for one in load_track("medvlsm-v1").datasets:
        assert one.annotations_sha256 in text
    assert "13 of the 78 test rows are normal, with an empty mask" in text


def test_controls_stand_apart_and_have_no_place(row, reference):
    submission = row.submission.model_copy(update={"control": True})
    found = render_pages([rank_rows(reference.track, [replace(row, submission=submission)])])
    text = Page(found["phantom-v1.html"]).text
    assert "Controls, unranked" in text
    assert "place" not in text.split("Controls, unranked")[1].split("Listening map")[0]


def test_there_is_no_single_score(plain_pages):
    header = re.findall(r"<th scope=\"col\"[^>]*>(.*?)</th>", plain_pages["phantom-v1.html"])
    assert [re.sub("<.*?>|&nbsp;", " ", h) for h in header[:9]] == [
        "place", "model", "class", "Dice [95 %]", "empty %", "random word %", "antonym %",
        "swap value %", "same meaning %",
    ]  # fmt: skip
    assert not any("score" in h.lower() or "total" in h.lower() for h in header)


def test_pages_of_rows_that_are_gone_are_removed(tmp_path, row, reference):
    write_site(tmp_path, [rank_rows(reference.track, [row])])
    names = [f"phantom-v1/{row.submission.name}.{ending}" for ending in ("html", "svg")]
    assert all((tmp_path / name).is_file() for name in names)
    write_site(tmp_path, [rank_rows(reference.track, [])])
    assert not any((tmp_path / name).exists() for name in names)
    built = json.loads((tmp_path / BUILT).read_text())
    assert built["pages"] == ["index.html", "phantom-v1.html", "submit.html"]


def test_a_badge_says_class_and_refusal_and_nothing_of_the_submission(row):
    from xml.etree import ElementTree

    for label, refusal, said in (
        ("listening and steady", "refuses", "listening and steady, refuses"),
        ("unmoved", "cannot tell", "unmoved"),
        ("cannot tell", "hallucinates", "cannot tell, hallucinates"),
    ):
        standing = row.standing._replace(label=label, refusal=refusal)
        picture = ElementTree.fromstring(badge(replace(spoiled(row), standing=standing)))
        texts = [part.text for part in picture.iter() if part.tag.endswith("}text")]
        assert texts == ["prompt use", said]
        assert picture.get("aria-label") == f"prompt use: {said}"
    control = replace(row, submission=row.submission.model_copy(update={"control": True}))
    assert ">control" in badge(control)


def test_boards_for_programs_have_every_row(row, reference):
    undefined = replace(row, dice=row.dice._replace(low=math.nan))
    boards = [rank_rows(reference.track, [undefined]), rank_rows(load_track("medvlsm-v1"), [])]
    found = render_others(boards)
    content = json.loads(found["board.json"])

    assert set(found) == {"board.json", f"phantom-v1/{row.submission.name}.svg"}
    assert [one["track"] for one in content["tracks"]] == ["phantom-v1", "medvlsm-v1"]
    (told,) = content["tracks"][0]["rows"]
    assert told["name"] == row.submission.name
    assert told["class"] == row.standing.label
    assert told["dice"]["low"] is None
    assert told["dice"]["estimate"] == pytest.approx(row.dice.estimate, rel=1e-9)
    assert told["submission_sha256"] == row.sha256
    assert content["tracks"][1]["rows"] == []


def test_only_a_model_that_listens_has_a_place(row, reference):
    for label, place in (("listening and brittle", "1"), ("unmoved", "-"), ("cannot tell", "-")):
        one = replace(row, standing=row.standing._replace(label=label))
        found = render_pages([rank_rows(reference.track, [one])])
        cells = re.findall(r'<tbody>\n<tr>\n<td class="n">(.*?)</td>', found["phantom-v1.html"])
        assert cells[0] == place
        shown = Page(found[f"phantom-v1/{row.submission.name}.html"]).text
        assert ("no place: it was not shown to listen" in shown) == (place == "-")


def test_a_spread_of_nothing_is_a_dash():
    assert spread_cell(None) == "-"


def test_the_board_is_not_stale(board_folder):
    """Of submissions, flags, tracks and templates; the slow test compares the pages themselves."""
    built = json.loads((board_folder / BUILT).read_text())
    assert built["made_from_sha256"] == source_sha256(board_folder), "run `make leaderboard`"
    there = {p.relative_to(board_folder).as_posix() for p in board_folder.rglob("*.html")}
    assert there == set(built["pages"])


@pytest.mark.slow
def test_every_page_is_what_the_submissions_give(board_folder):
    # Checks lapse: as of the day on which the pages were written.
    on = date.fromisoformat(json.loads((board_folder / BUILT).read_text())["on"])
    found = build_boards(board_folder, lambda t: reference_of(t, None), tick=lambda: None, on=on)
    for name, text in (render_pages(found) | render_others(found)).items():
        assert (board_folder / name).read_text(encoding="utf-8") == text, "run `make leaderboard`"


def test_what_a_page_is_made_from_enters_the_hash(board_folder):
    first = source_sha256(board_folder)
    flags = board_folder / "flags.yaml"
    changed = source_sha256(board_folder, read=lambda p: p.read_bytes() + b" " * (p == flags))
    assert changed != first


def test_the_board_says_in_a_few_words_what_is_shared_with_training():
    nothing = Shared([], None, None, None)
    assert (nothing.note, nothing.text) == ("", "-")
    named = Shared(["a", "b"], None, None, None)
    assert named.note == "2 of these on this track, pictures not compared"
    assert named.text == "a, b; pictures not compared"
    seen = Shared(["a"], 3, 40, 2)
    assert seen.note == "1 of these on this track, 3 of 40 pictures"
    assert seen.text == "a; 3 of 40 pictures, 2 patients"
