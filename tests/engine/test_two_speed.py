"""Two speeds: no case moves by more than the tolerance, also where the band does not hold."""

import math
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.auditing.evaluating import Conditions
from harness.auditing.running import run_models
from harness.data.images import read_image
from harness.engine import two_speed
from harness.engine.shards import Shard
from harness.engine.tally import Decoded
from harness.engine.two_speed import SecondLook, TwoSpeeds
from harness.errors import ModelError, UsageError
from harness.metrics import dice
from harness.model.loading import load_model, load_two_speed
from harness.model.precision import TOLERANCE, tolerance_of

CUT = math.log(0.6 / 0.4)


def look_at(truths, *, band, tolerance, empty=1.0, refusal_area=0.001):
    """A second look at one picture with a prompt a truth, and what it needs of a tally."""
    n = len(truths)
    tally = SimpleNamespace(
        threshold=0.6,
        empty=empty,
        truths_of=lambda case: [("set", str(case))],
        at_metric_size=lambda start, logits: [(start, logits)],
        known_truth=lambda name, height, width: truths[int(name[1])],
    )
    shard = Shard(
        index=0,
        cases=pl.DataFrame({"image": ["a"] * n, "case_id": pl.Series(range(n), dtype=pl.UInt64)}),
        images=("a",),
        pairs=np.array([(0, k) for k in range(n)]),
        pair_of_case=np.arange(n),
        original_pair=np.zeros(n, dtype=np.int64),
    )
    speeds = TwoSpeeds(pl.DataFrame(), tolerance, refusal_area, band)
    return SecondLook(shard, speeds, tally)


def score(mask, truth, empty):
    return float(dice([(mask & truth).sum()], [mask.sum()], [truth.sum()], empty=empty)[0])


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.3), st.sampled_from([1.0, 0.0]))
def test_no_pair_that_is_left_alone_can_move_by_more_than_the_tolerance(seed, tolerance, empty):
    """Whatever falls over within the band, the worst way of all included."""
    rng = np.random.default_rng(seed)
    size, band = int(rng.integers(2, 9)), 0.3
    logits = torch.from_numpy(CUT + rng.normal(0, rng.choice([0.1, 1, 3]), (6, size, size))).float()
    truths = [
        torch.from_numpy(rng.random((size, size)) < rng.choice([0, 0.2, 0.8])) for _ in "123456"
    ]
    look = look_at(truths, band=band, tolerance=tolerance, empty=empty)
    doubts = look._doubts(0, logits)
    for k, truth in enumerate(truths):
        before = score(logits[k] > CUT, truth, empty)
        inside, outside = (
            torch.where(truth == which, 0.999 * band, -0.999 * band) for which in (1, 0)
        )
        ways = [
            inside,
            outside,
            *(0.999 * band * (2 * torch.rand(size, size) - 1) for _ in range(5)),
        ]
        moved = [abs(score(logits[k] + way > CUT, truth, empty) - before) for way in ways]
        assert doubts[k] or max(moved) <= tolerance + 1e-9
        # And nothing is doubted for no reason: the two worst ways are bounds that are reached.
        could = (logits[k] > CUT - band).sum()
        sure = (logits[k] > CUT + band).sum()
        turns = any(sure <= limit < could for limit in (0, 10))
        assert not doubts[k] or turns or max(moved) > 0.98 * tolerance


@pytest.mark.parametrize(("n_near", "is_doubted"), [(0, False), (3, True)])
def test_a_mask_that_may_be_empty_is_asked_again(n_near, is_doubted):
    """However little of a large target it could be."""
    logits = torch.full((1, 10, 10), CUT - 5.0)
    logits[0, 0, :n_near] = CUT + 0.1
    look = look_at([torch.ones(10, 10, dtype=torch.bool)], band=0.3, tolerance=0.9)
    assert look._doubts(0, logits).tolist() == [is_doubted]


def test_logits_that_are_no_numbers_are_asked_again():
    truths = [torch.ones(4, 4, dtype=torch.bool)] * 3
    look = look_at(truths, band=0.1, tolerance=0.1)
    look._is_checked[:] = False
    short = torch.full((3, 4, 4), 5.0)
    short[1, 0, 0] = torch.inf
    asked = []

    def exact(rows):
        asked.extend(rows)
        return Decoded(torch.full((len(rows), 4, 4), 4.0))

    said = look.settle(0, Decoded(short), exact)
    assert asked == [1]
    assert said.logits[:, 0, 0].tolist() == [5, 4, 5]


SUITE = "paper"


@pytest.fixture
def audited(planned, photo_root, toy_card, tmp_path, monkeypatch):
    """A function: run the toy on a few pictures, in shards of a picture or two."""
    suite, _, _ = planned(SUITE)
    monkeypatch.setattr("harness.engine.shards.PAIRS_PER_SHARD", 150)

    def run(name, dtype, *, workers=1, more=None, **settings):
        how = Conditions(
            device="cpu", dtype=dtype, workers=workers, random_weights=True, **(more or {})
        )
        card = toy_card(**settings)
        return run_models(
            suite, [(str(card), None)], root=photo_root, out=tmp_path / name, conditions=how
        )

    return run


def dice_of(store):
    rows = store.scores().sort("case_id")
    return dice(rows["tp"], rows["n_pred"], rows["n_gt"], empty=1.0)


def entry(store):
    (found,) = store.manifest["models"]
    return found


ROUGH = {"off": 0.004, "off_in_the_dark": 0.004, "dark": -9.0}


def test_every_case_is_within_the_tolerance_and_the_run_says_what_it_did(audited):
    exact = audited("exact", "float32", rough=ROUGH)
    both = audited("both", "two-speed:0.01", rough=ROUGH)
    rough = audited("rough", "bfloat16", rough=ROUGH)
    assert (
        0
        < abs(dice_of(exact) - dice_of(both)).max()
        <= 0.01
        < abs(dice_of(exact) - dice_of(rough)).max()
    )
    found = entry(both)["two_speed"]
    assert 0 < found["n_again"] < found["n_pairs"]
    assert 0 < found["n_checked"] < found["n_pairs"]
    assert found["n_failed"] == 0
    assert found["largest_difference"] <= found["tolerance"] == 0.01
    assert 0.008 <= found["band"] < 0.1
    assert entry(both)["precision"] == "two-speed:0.01 (bfloat16)"
    (note,) = (n for n in entry(both)["notes"] if n.startswith("two speeds: "))
    assert (
        f"{100 * found['n_again'] / found['n_pairs']:.1f} % of the pairs were decoded again" in note
    )
    assert "could have moved the Dice of a case by more than 0.01." in note
    assert len({entry(s)["model_id"] for s in (exact, both, rough)}) == 3


def test_where_the_band_does_not_hold_all_of_the_shard_is_of_float32(
    audited, monkeypatch, toy_card, photo_root
):
    """Mixed precision is far off in one picture that is not in the sample."""
    monkeypatch.setattr(two_speed, "N_PICTURES", 1)
    monkeypatch.setattr(two_speed, "CHECKED", 1)
    monkeypatch.setattr("harness.engine.shards.PAIRS_PER_SHARD", 20)
    model = load_model(toy_card(), random_weights=True, device="cpu")
    pictures = [read_image(path) for path in sorted((photo_root / "kvasir_polyp/images").iterdir())]
    pixels = torch.stack([model.adapter.preprocess(picture) for picture in pictures])
    means = model.adapter.encode_images(pixels).maps.detach().mean((1, 2, 3))
    first, darkest = float(means[0]), float(means.min())
    assert darkest < first
    off = {"off": 0.0001, "off_in_the_dark": 2.0, "dark": (first + darkest) / 2}
    exact = audited("exact", "float32", rough=off)
    both = audited("both", "two-speed", rough=off)
    found = entry(both)["two_speed"]
    assert 0 < found["n_failed"] < found["n_shards"]
    shards = both.table("speeds", entry(both)["model_id"])
    assert (
        shards.filter(~pl.col("held"))["n_again"] == shards.filter(~pl.col("held"))["n_pairs"]
    ).all()
    assert abs(dice_of(exact) - dice_of(both)).max() <= TOLERANCE
    (note,) = (n for n in entry(both)["notes"] if n.startswith("two speeds: "))
    failed = (
        f"In {found['n_failed']} of {found['n_shards']} shards the band did not hold: all of these"
    )
    assert failed in note


def test_several_processes_and_a_run_that_goes_on_do_what_one_does(audited, monkeypatch):
    one = audited("one", "two-speed:0.01", rough=ROUGH)
    two = audited("two", "two-speed:0.01", workers=2, rough=ROUGH)
    part = min(two.folder.glob("scores/*.parquet"))
    part.unlink()
    again = audited("two", "two-speed:0.01", rough=ROUGH)
    scores = [store.scores().sort("case_id") for store in (one, again)]
    assert scores[0].equals(scores[1])
    assert entry(one)["two_speed"] == entry(again)["two_speed"]


def test_where_no_picture_can_be_read_nothing_is_left_to_half_precision(toy_card, tmp_path):
    model = load_two_speed(toy_card(), random_weights=True, device="cpu", tolerance=0.01)
    sample = pl.DataFrame({"image": ["a.png"], "dataset": ["d"], "prompt": ["p"]})
    assert two_speed.measure_band(model, sample, tmp_path, {}) == math.inf


@pytest.mark.parametrize("value", ["0", "1", "2", "nan", "none", "-0.1"])
def test_a_tolerance_is_a_share_of_dice(value):
    with pytest.raises(ModelError) as caught:
        tolerance_of(f"two-speed:{value}")
    assert str(caught.value) == (
        f"--dtype two-speed: found the tolerance {value!r}. It is how far the Dice of a case may "
        "move, a number between 0 and 1 such as 0.005. Correct it."
    )


def test_other_precisions_have_no_tolerance():
    assert [tolerance_of(name) for name in ("auto", "mixed", "two-speed")] == [None, None, 0.005]


def test_what_two_speeds_do_not_keep_is_refused(audited, call, toy_card):
    with pytest.raises(UsageError) as caught:
        audited("curves", "two-speed", more={"thresholds": True})
    assert str(caught.value) == (
        "--dtype two-speed: found --thresholds. Two speeds keep Dice to a tolerance at the model's "
        "own threshold, and nothing else. Leave that out, or give --dtype float32."
    )
    with pytest.raises(UsageError, match="found hd95, nsd"):
        two_speed.refuse_further_counts(thresholds=False, columns=["iou", "hd95", "nsd"])
    code, _, err = call("run", "paper", "--model", toy_card(), "--tolerance", "0.1")
    assert code == 2
    assert "--tolerance 0.1: found --dtype auto. Only two speeds have a tolerance." in err


def test_elsewhere_than_in_a_run_there_is_one_speed(toy_card):
    """`check`, `hunt` and `bench` would else compute in half precision and say nothing."""
    with pytest.raises(
        ModelError, match=r"found --dtype two-speed\. Two speeds are of a whole run"
    ):
        load_model(toy_card(), random_weights=True, device="cpu", dtype="two-speed")
    with pytest.raises(ModelError, match=r"unknown dtype 'twospeed'\. Did you mean 'two-speed'\?"):
        load_model(toy_card(), random_weights=True, device="cpu", dtype="twospeed")


def test_a_function_has_one_speed_and_says_so(tmp_path):
    (tmp_path / "f.py").write_text("def f(image, prompt):\n    return image.mean(axis=-1) > 9\n")
    (tmp_path / "card.yaml").write_text("name: f\nadapter: f.py:f\nkind: callable\n")
    model = load_two_speed(tmp_path / "card.yaml", device="cpu", tolerance=0.01)
    assert (model.exact, model.arithmetic) == (None, "float32")
    assert "--dtype two-speed: a function computes as it does" in model.notes[-1].text


def test_a_model_that_samples_has_one_speed(tmp_path):
    with pytest.raises(ModelError, match="it draws random numbers, which differ between two"):
        load_two_speed("medclipseg-small", random_weights=True, device="cpu", tolerance=0.01)
