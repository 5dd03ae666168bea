"""Corrected prompts say what the mask shows, and nothing else changes."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.auditing.choices import select_suite
from harness.auditing.samples import read_sets
from harness.cards import load_dataset_card
from harness.data.corrected import Rules, correct, denies
from harness.data.layout import load_samples
from harness.data.masks import SIZES, MaskWords, describe
from harness.errors import DataError
from harness.plan.build import build_plan
from harness.prompts.grammar import load_grammar

KVASIR, BUSI, BKAI, CAMUS = map(load_dataset_card, ("kvasir_polyp", "busi", "bkai_polyp", "camus"))
PLACES = ("center", "top", "bottom left", "right, top", "left, left, bottom right")
WORDS = MaskWords("two", "tiny, medium", "bottom, center")

words = st.builds(
    MaskWords,
    st.sampled_from(["one", "two", "thirteen", "many"]),
    st.sets(st.sampled_from(SIZES), min_size=1).map(
        lambda s: ", ".join(w for w in SIZES if w in s)
    ),
    st.sampled_from(PLACES),
)
released_words = st.fixed_dictionaries(
    {
        "number": st.sampled_from(["one", "two", "ten"]),
        "size": st.sampled_from(["small", "small, medium"]),
        "color": st.sampled_from(["white", "pink"]),
        "shape": st.sampled_from(["round", "a large, oval bump", "it is round"]),
        "class": st.just("polyp"),
        "location": st.sampled_from(PLACES),
        "description": st.sampled_from(["a small lump", "often a bumpy flesh"]),
    }
)


def photo(values):
    """Every rung of a released row."""
    grammar = load_grammar(KVASIR)
    return {
        rung: (
            grammar.parse(grammar.render(rung, {a: values[a] for a in named}), prompt_type=rung),
        )
        for rung in grammar.prompt_types
        for named in [grammar.templates[rung][-1].attributes]
    }


def rules(card, descriptions=()):
    return Rules(card, load_grammar(card), descriptions)


def texts(prompts):
    return {rung: [p.text for p in several] for rung, several in prompts.items()}


def parsed(card, **rungs):
    grammar = load_grammar(card)
    return {
        rung: tuple(
            grammar.parse(text, prompt_type=rung, index=index)
            for index, text in enumerate([several] if isinstance(several, str) else several)
        )
        for rung, several in rungs.items()
    }


@given(released_words, words)
def test_only_what_follows_from_the_mask_changes(values, words):
    before = photo(values)
    after = rules(KVASIR).prompts(before, words)

    assert after.keys() == before.keys()
    for rung, (prompt,) in after.items():
        expected = dict(before[rung][0].values)
        expected |= {k: v for k, v in words._asdict().items() if k in expected}
        assert prompt.values == expected
        assert (prompt.prompt_type, prompt.index) == (rung, 0)
        assert prompt.template == before[rung][0].template


@given(released_words, words)
def test_correcting_twice_is_correcting_once(values, words):
    once = rules(KVASIR).prompts(photo(values), words)
    assert rules(KVASIR).prompts(once, words) == once


@given(released_words)
def test_a_row_that_is_right_stays_byte_for_byte(values):
    said = MaskWords(values["number"], values["size"], values["location"])
    assert rules(KVASIR).prompts(photo(values), said) == photo(values)


def test_capitals_and_plurals_follow_the_number():
    before = parsed(
        BUSI,
        p1="Tumor in the breast ultrasound image.",
        p3=["One benign tumor in the breast ultrasound image.",
            "One regular-shaped tumor in the breast ultrasound image."],
        p5="Two small, medium benign tumors at the top, left in the breast ultrasound image.",
    )  # fmt: skip
    several = rules(BUSI).prompts(before, WORDS)
    assert texts(several) == {
        "p1": ["Tumor in the breast ultrasound image."],
        "p3": [
            "Two benign tumors in the breast ultrasound image.",
            "Two regular-shaped tumors in the breast ultrasound image.",
        ],
        "p5": [
            "Two tiny, medium benign tumors at the bottom, center in the breast ultrasound image."
        ],
    }
    assert [p.index for p in several["p3"]] == [0, 1]
    one = rules(BUSI).prompts(before, MaskWords("one", "large", "right"))
    assert texts(one)["p5"] == [
        "One large benign tumor at the right in the breast ultrasound image."
    ]


def test_a_denied_polyp_is_given_the_words_that_are_known():
    """Shape and colour were never asked for; descriptions are those of the other rows."""
    rungs = [f"p{n}" for n in range(1, 10)]
    before = parsed(BKAI, p0="", **dict.fromkeys(rungs, "no polyp"))
    assert all(denies(p, BKAI) for rung in rungs for p in before[rung])

    after = rules(BKAI, ["a small lump", "a bump"]).prompts(before, WORDS)

    known = "two tiny, medium polyp"
    assert texts(after) == {
        "p0": [""],
        "p1": ["polyp"],
        "p2": ["polyp"],
        "p3": ["polyp"],
        "p4": ["tiny, medium polyp"],
        "p5": [known],
        "p6": [f"{known}, located in bottom, center of the image"],
        "p7": ["polyp which is a small lump", "polyp which is a bump"],
        "p8": [f"{known} which is a small lump", f"{known} which is a bump"],
        "p9": [
            f"{known} which is a small lump located in bottom, center of the image",
            f"{known} which is a bump located in bottom, center of the image",
        ],
    }


def test_what_cannot_be_said_truly_is_left_out():
    """Kvasir's P6 needs a shape and a colour; without descriptions there is no P7."""
    before = parsed(KVASIR, p0="", p1="no polyp", p6="no polyp", p7=["no polyp"])
    assert texts(rules(KVASIR).prompts(before, WORDS)) == {"p0": [""], "p1": ["polyp"]}


def test_a_lesion_named_in_an_empty_mask_is_denied():
    before = parsed(
        BUSI,
        p0="",
        p2=["Benign tumor in the breast ultrasound image.",
            "Regular-shaped tumor in the breast ultrasound image."],
    )  # fmt: skip
    denied = {"p0": [""], "p2": ["No tumor in the breast ultrasound image."]}
    assert texts(rules(BUSI).prompts(before, None)) == denied
    again = parsed(BUSI, **{k: v for k, v in denied.items() if k != "p0"})
    assert rules(BUSI).prompts(again, None) == again


def test_a_list_too_long_for_the_grammar_leaves_no_prompt():
    endless = MaskWords("many", "tiny", ", ".join(["bottom right"] * 400))
    assert "p6" not in rules(KVASIR).prompts(photo(VALUES), endless)


VALUES = {
    "number": "one", "size": "small", "color": "pink", "shape": "round", "class": "polyp",
    "location": "center", "description": "a small lump",
}  # fmt: skip


def test_a_set_whose_words_do_not_come_from_masks_stays(tmp_path):
    """No mask is opened: there is none."""
    assert correct(CAMUS, []) == []
    folder = tmp_path / "camus" / "anns"
    folder.mkdir(parents=True)
    rows = [
        {
            "img_name": "patient0001_2CH_ED.png",
            "mask_name": "m.png",
            "prompts": {"p1": "Myocardium of the heart."},
        }
    ]
    (folder / "test.json").write_text(json.dumps(rows))
    plain, corrected = (
        load_samples(CAMUS, tmp_path, "test", pictures=False, prompts=kind)
        for kind in ("released", "corrected")
    )
    assert corrected == plain


def test_samples_are_corrected_by_their_own_masks(photo_root):
    samples = load_samples(KVASIR, photo_root, "test", prompts="corrected")
    assert len(samples) == 6
    for sample in samples:
        shown = describe(np.asarray(Image.open(sample.mask)) > 127)
        assert sample.prompts["p6"][0].values | shown._asdict() == sample.prompts["p6"][0].values


def test_a_missing_mask_is_named(photo_root):
    (photo_root / "kvasir_polyp" / "masks" / "test_2.png").unlink()
    message = "test_2.png: the mask is missing. Every annotation row needs its mask at this path."
    with pytest.raises(DataError, match=re.escape(message)):
        load_samples(KVASIR, photo_root, "test", pictures=False, prompts="corrected")


def test_every_suite_offers_both(planned):
    _, _, released = planned("paper")
    assert set(released.cases["prompts"]) == {"released"}
    both = select_suite("paper", datasets=["kvasir_polyp"], prompts="corrected")
    assert [entry.prompts for entry in both.datasets] == ["corrected"]


def test_released_and_corrected_stand_in_one_plan(photo_root, tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text(
        "name: both\ntitle: Both\ndatasets:\n"
        "  - {name: kvasir_polyp}\n  - {name: kvasir_polyp, prompts: corrected}\n"
        "probes:\n  - {name: antonym, perturbation: antonym}\n",
        encoding="utf-8",
    )
    suite = select_suite(str(path))
    plan = build_plan(suite, read_sets(suite, photo_root))
    assert (
        set(plan.cases["prompts"])
        == set(plan.not_applicable["prompts"])
        == {
            "released",
            "corrected",
        }
    )
    assert plan.cases["case_id"].n_unique() == plan.cases.height


@pytest.mark.parametrize(
    ("dataset", "split", "changed"),
    [
        ("kvasir_polyp", "test", 34),
        ("clinicdb_polyp", "test", 25),
        ("busi", "test", 17),
    ],
)
def test_rows_of_the_real_sets_that_change(shared_data, dataset, split, changed):
    card = load_dataset_card(dataset)
    before, after = (
        load_samples(card, shared_data, split, pictures=False, prompts=kind)
        for kind in ("released", "corrected")
    )
    assert all(a.prompts.keys() == b.prompts.keys() for a, b in zip(before, after, strict=True))
    assert sum(a.prompts != b.prompts for a, b in zip(before, after, strict=True)) == changed
