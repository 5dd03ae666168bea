"""Mixed precision moves Dice by no more than is stated, on real scenes with models that ship."""

import polars as pl
import pytest

DATASETS = ["phantom_crowd", "phantom_pairs/color"]


@pytest.fixture(scope="module")
def report(script):
    return script("precision")


@pytest.fixture(scope="module")
def measured(report, tmp_path_factory):
    root = tmp_path_factory.mktemp("precision")
    store = report.measure("cpu", 2, suite="antonym_swap", datasets=DATASETS, root=root)
    return report.differences(report.scored(store)), report.page(store)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_dice_stays_within_the_stated_tolerance(report, measured, precision):
    found, _ = measured
    rows = found.filter(pl.col("precision") == precision)

    assert rows.height >= 3
    assert rows["n_cases"].min() >= 30
    assert rows["mean_abs"].max() <= report.TOLERANCE[precision]
    # On two scenes one mask that flips moves a probe's mean more than it does on a whole set.
    assert rows["max_mean"].max() <= 5 * report.TOLERANCE_OF_MEANS[precision]
    # A comparison of a precision with itself would pass all of the above.
    assert rows["max_abs"].max() > 0


@pytest.mark.slow
def test_the_page_says_what_was_measured(report, measured):
    found, text = measured
    assert text.count("| bfloat16 |") == text.count("| float16 |") == found["name"].n_unique()
    assert f"{found['mean_abs'].max():.5f} on average" in text


def scores(rows):
    columns = ["name", "precision", "case_id", "original_case_id", "probe", "dice"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    return frame.with_columns(
        dataset=pl.lit("d"), split=pl.lit("test"), attribute=pl.lit(None, dtype=pl.String)
    )


def test_differences_are_what_they_say(report):
    found = report.differences(
        scores(
            [
                ("m", "float32", 1, 1, "original", 0.8),
                ("m", "float32", 2, 2, "original", 0.4),
                ("m", "float32", 3, 1, "empty", 0.5),
                ("m", "float32", 4, 2, "empty", 0.1),
                ("m", "bfloat16", 1, 1, "original", 0.8),
                ("m", "bfloat16", 2, 2, "original", 0.5),
                ("m", "bfloat16", 3, 1, "empty", 0.48),
                ("m", "bfloat16", 4, 2, "empty", 0.13),
            ]
        )
    ).row(0, named=True)

    assert (found["name"], found["precision"], found["n_cases"]) == ("m", "bfloat16", 4)
    assert found["mean_abs"] == pytest.approx((0 + 0.1 + 0.02 + 0.03) / 4)
    assert found["max_abs"] == found["p99_abs"] == pytest.approx(0.1)
    assert found["max_mean"] == pytest.approx(0.65 - 0.6)
    # -50 % in float32, and 100 (0.305 - 0.65) / 0.65 in the other.
    assert found["max_change"] == pytest.approx(abs(-50 - 100 * (0.305 - 0.65) / 0.65))


NOTHING = [(1, "original", 0.01), (2, "empty", 0.03)]


def test_a_change_of_nothing_is_no_change(report):
    """A model that misses everything in float32 has no change in percent."""
    rows = [("m", p, c, 1, probe, d) for p in ("float32", "float16") for c, probe, d in NOTHING]
    found = report.differences(scores(rows)).row(0, named=True)
    assert found["max_change"] is None
    assert found["max_abs"] == 0
