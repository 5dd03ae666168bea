"""The figures draw the frame's numbers, say them in words, and hold their data."""

import math
import re
import xml.etree.ElementTree as ET

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import load_run
from harness.report.breakdown import dice_expression, subgroups, word_effects
from harness.report.charts import (
    BORDER,
    QUADRANTS,
    listening_map,
    listening_points,
    place_labels,
)
from harness.report.figure import (
    HUES,
    PALETTE,
    WIDTH,
    Figure,
    Panel,
    cut,
    drawing,
    stylesheet,
    write_figure,
)
from harness.report.marks import SHAPES, looks, padded
from harness.report.summary_charts import (
    agreement_figure,
    attribute_figure,
    away_figure,
    ladder_figure,
    ladder_rows,
)
from harness.suite.schema import Suite

NAMES = {"small@1a2b": "small"}


@pytest.fixture(scope="module")
def run(small_run):
    return load_run(small_run)


def agreeing(probe, meaning, agreement, **more):
    limits = {"agreement_low": agreement - 0.02, "agreement_high": min(1, agreement + 0.02)}
    return {"probe": probe, "meaning": meaning, "agreement": agreement, **limits, **more}


@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("steady", [True, False])
def test_each_quadrant_is_reached(summary_of, assessment, moves, steady):
    rows = summary_of(
        agreeing("original", "original", 1.0),
        agreeing("antonym", "changed", 0.4 if moves else 0.98, attribute="size"),
        agreeing("swap_value", "changed", 0.99, attribute="color"),
        agreeing("typo", "preserved", 0.97 if steady else 0.8),
        agreeing("case", "preserved", 1.0),
    )
    points = listening_points(assessment(rows))
    assert points["quadrant"].to_list() == [QUADRANTS[moves, steady]]
    row = points.row(0, named=True)
    assert row["meaning"] == pytest.approx(60 if moves else 2)
    assert row["meaning_by"] == "antonym size"
    assert (row["n_meaning"], row["n_wording"]) == (2, 2)
    assert row["meaning_low"] < row["meaning"] < row["meaning_high"]


def test_a_model_without_both_kinds_of_probe_has_no_place(summary_of, assessment):
    rows = summary_of(agreeing("antonym", "changed", 0.4), agreeing("empty", "removed", 0.2))
    points = listening_points(assessment(rows))
    assert points.is_empty()
    assert listening_map(points) is None


def test_the_border_is_that_of_the_verdicts():
    assert BORDER == 5


def changed(probe, value, **more):
    figures = {
        "relative_change_percent": value,
        "relative_change_low_percent": value - 3,
        "relative_change_high_percent": value + 3,
    }
    return {"probe": probe, "perturbation": probe, **figures, **more}


def test_the_papers_figure_sets_random_words_left_and_other_values_right(summary_of):
    rows = summary_of(
        changed("random_word", -7.0, attribute="size"),
        changed("antonym", -40.0, attribute="size"),
        changed("swap_value", math.nan, attribute="color", reason="baseline too low"),
        changed("empty", -10.0),
    )
    figure = attribute_figure(rows, NAMES)
    assert figure.data.height == 3
    assert "baseline too low" in figure.csv
    panel, key = figure.panels
    assert "size, antonym: -40.0 %" in panel.description
    left, right = panel.chart.to_dict()["hconcat"]
    titles = [half["layer"][1]["encoding"]["x"]["title"] for half in (left, right)]
    assert titles == ["random word, %", "other value, %"]
    assert key.title == "Key"


def test_no_attribute_no_figure(summary_of):
    assert attribute_figure(summary_of(changed("empty", -10.0)), NAMES) is None


SUITE = Suite(
    name="s",
    title="s",
    probes=[
        {"name": "short", "perturbation": "prompt_type", "rungs": ["p1"]},
        {"name": "many", "perturbation": "prompt_type", "rungs": ["p2", "p3"]},
    ],
)


def test_rungs_of_the_ladder(summary_of):
    rows = summary_of(
        {"probe": "original", "perturbation": "original", "dice": 0.8},
        {"probe": "nothing", "perturbation": "empty", "dice": 0.2},
        {"probe": "short", "perturbation": "prompt_type", "dice": 0.5},
        {"probe": "many", "perturbation": "prompt_type", "dice": 0.6},
        {"probe": "other_sample", "perturbation": "other_sample", "dice": 0.1},
        {"probe": "antonym", "perturbation": "antonym", "attribute": "size", "dice": 0.3},
    )
    found = dict(ladder_rows(rows, SUITE).select("rung", "dice").iter_rows())
    # A probe of two rungs has no place: its figure is the mean of both.
    assert found == {"p6": 0.8, "p0": 0.2, "p1": 0.5, "other": 0.1}
    floor = ladder_figure(rows, SUITE, NAMES, frozenset(NAMES)).data["floor"]
    assert set(floor) == {0.8}


def test_one_rung_is_no_ladder(summary_of):
    rows = summary_of({"probe": "original", "perturbation": "original", "dice": 0.8})
    assert ladder_figure(rows, SUITE, NAMES, frozenset()) is None


def test_away_from_training_stands_beside_the_control(summary):
    figure = away_figure(summary, NAMES)
    assert figure.data["series"].to_list() == ["model", "control"]
    assert "model: -26.1 %" in figure.panels[0].description


def test_agreement_needs_both_figures(summary_of):
    both = changed("antonym", -5.0) | agreeing("antonym", "changed", 0.9)
    rows = summary_of(both, changed("typo", -1.0, meaning="preserved"))
    figure = agreement_figure(rows, NAMES)
    assert figure.data["probe"].to_list() == ["antonym"]
    assert agreement_figure(summary_of(changed("typo", -1.0)), NAMES) is None


def test_every_drawing_is_named_themed_and_fits_a_telephone(run):
    figures = run.figures()
    assert {"attributes", "ladder", "agreement", "words", "listening-map"} <= set(figures)
    ids = []
    for figure in figures.values():
        assert figure.data.height
        for svg in map(str, figure.drawings):
            root = ET.fromstring(svg)
            assert root.get("role") == "img"
            names = [root[0].text, root[1].text]
            assert all(names), figure.name
            assert float(root.get("width")) <= WIDTH + 25
            ids += re.findall(r'id="([^"]+)"', svg)
            inks = set(re.findall(r'"(#[0-9a-fA-F]{6})"', svg))
            assert inks <= {"#000000"}, (figure.name, inks)
    assert len(ids) == len(set(ids))


def test_a_name_that_looks_like_markup_stays_a_name():
    import altair as alt

    name = '<script>alert("clip4 #0068a8")</script>'
    data = pl.DataFrame({"n": [name], "v": [1.0]})
    chart = alt.Chart(data).mark_point(clip=True).encode(x="v:Q", y="n:N")
    svg = str(drawing(Panel(name, name, chart), "x"))
    root = ET.fromstring(svg)
    assert root[0].text == name
    assert not root.findall(".//{*}script")
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any('"clip4 #0068a8"' in text for text in texts if text)
    assert "url(#x-clip" in svg


def test_figures_are_written_for_print(tmp_path, run):
    figure = run.figures()["attributes"]
    paths = write_figure(figure, tmp_path)
    assert [p.suffix for p in paths] == [".svg", ".pdf", ".png", ".csv"]
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert pl.read_csv(paths[3]).height == figure.data.height
    assert "var(--" not in paths[0].read_text(encoding="utf-8")


def test_one_panel_is_a_chart_of_its_own():
    import altair as alt

    chart = alt.Chart(pl.DataFrame({"v": [1.0]})).mark_point().encode(x="v:Q")
    figure = Figure("one", "One", "", (Panel("A", "a", chart),), pl.DataFrame({"v": [1.0]}))
    assert figure.chart().to_dict()["title"] == "A"


def test_names_are_cut_in_the_middle():
    assert cut("short") == "short"
    assert len(cut("x" * 200)) == 34
    assert cut("a\u202eb") == "a?b"


def test_series_differ_in_hue_or_shape():
    n = len(HUES) * len(SHAPES)
    assert len(set(zip(*looks([str(k) for k in range(n)]), strict=True))) == n


def test_a_domain_holds_everything_finite():
    low, high = padded([-50, math.nan, math.inf, 3], least=(-10, 10))
    assert low < -50
    assert high > 10


def luminance(colour):
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    dark, bright = sorted(map(luminance, (one, other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_keep_the_contrast_of_wcag_aa(theme):
    colour = {name: both[theme] for name, both in PALETTE.items()}
    grounds = [colour[g] for g in ("paper", "panel")]
    washes = [colour[g] for g in colour if g.startswith("wash")]
    for name in ("ink", "muted", "accent"):
        assert min(contrast(colour[name], g) for g in grounds) >= 4.5, name
    assert min(contrast(colour["muted"], wash) for wash in washes) >= 4.5
    for hue in HUES:
        assert min(contrast(colour[hue], g) for g in grounds + washes) >= 3, hue


def test_light_values_tell_colours_apart():
    lights = [colour.light for colour in PALETTE.values()]
    assert len(lights) == len(set(lights))
    assert all(f"--{name}:" in stylesheet() for name in PALETTE)


def test_dice_of_counts_agrees_with_the_metric():
    from harness.metrics import dice

    counts = pl.DataFrame({"tp": [3, 0, 0], "n_pred": [4, 0, 5], "n_gt": [5, 0, 0]})
    found = counts.select(dice_expression(1.0)).to_series()
    assert found.to_list() == dice(*(counts[c] for c in counts.columns), empty=1.0).tolist()
    undefined = counts.select(dice_expression(math.nan)).to_series()
    assert undefined.to_list()[1] is None


def test_words_and_groups_agree_with_plain_means(run):
    """Against the whole frames, joined and averaged the slow way."""
    effects = word_effects(run.store, run.suite, run.summary)
    scores = run.scores.with_columns(dice=dice_expression(1.0))
    dice = {(m, c): d for m, c, d in scores.select("model_id", "case_id", "dice").iter_rows()}
    rows = run.plan.filter(pl.col("word").is_not_null()).rows(named=True)
    first = effects.row(0, named=True)
    own = [
        r
        for r in rows
        if all(r[k] == first[k] for k in ("dataset", "split", "probe", "attribute", "word"))
    ]
    after = [dice[first["model_id"], r["case_id"]] for r in own]
    before = [dice[first["model_id"], r["original_case_id"]] for r in own]
    assert first["n_cases"] == len(own) > 1
    assert first["after"] == pytest.approx(sum(after) / len(after))
    assert first["change_percent"] == pytest.approx(100 * (sum(after) / sum(before) - 1))

    groups = subgroups(run.store, run.suite, {"phantom_solo": "generated"})
    originals = groups.filter(meaning="original")
    n_samples = run.plan.filter(probe="original").height
    for grouping in ("target's share of the picture", "targets a picture", "modality"):
        counted = originals.filter(grouping=grouping).group_by("model_id").agg(pl.sum("n_samples"))
        assert set(counted["n_samples"]) == {n_samples}
    assert "not stated" in set(groups.filter(grouping="modality")["group"])
    pictures = dict(
        originals.filter(grouping="targets a picture").select("group", "n_samples").rows()
    )
    assert set(pictures) == {"1", "2"}


def test_without_random_words_the_other_half_has_the_attributes(summary_of):
    """A suite that replaces words by other values alone: one half, with its labels."""
    given = {"perturbation": "antonym", "probe": "antonym", "relative_change_percent": -5.0}
    one = summary_of(*(given | {"attribute": a} for a in ("color", "size")))
    panel = attribute_figure(one, NAMES).panels[0]
    (half,) = panel.chart.to_dict()["hconcat"]
    assert half["layer"][-1]["encoding"]["y"]["axis"] is not None
    drawn = drawing(panel, "x")
    assert "color" in drawn
    assert "random word" not in drawn
    caption = attribute_figure(one, NAMES).caption
    assert (
        "value becomes its opposite (filled) or another value of the data set (hollow)." in caption
    )
    both = summary_of(given | {"attribute": "size"}, given | {
        "attribute": "size", "perturbation": "random_word", "probe": "random_word"})  # fmt: skip
    assert len(attribute_figure(both, NAMES).panels[0].chart.to_dict()["hconcat"]) == 2
    assert "becomes a random uncommon word (left), or its opposite (filled, right) or another" in (
        attribute_figure(both, NAMES).caption
    )


def test_seven_sets_have_seven_hues():
    hues, _ = looks([str(k) for k in range(11)])
    assert len(set(hues)) == 11


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=8))
def test_every_model_has_a_label_within_the_map(points):
    labelled = [(x, y, str(n)) for n, (x, y) in enumerate(points, start=1)]
    found = place_labels(labelled)
    names = [name for *_, text, _ in found for name in text.split(", ")]
    assert sorted(names) == sorted(name for *_, name in labelled)
    for x, y, text, _ in found:
        assert any((x, y) == (a, b) or text.count(",") for a, b, _ in labelled)
