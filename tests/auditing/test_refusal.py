"""A model that refuses in exactly three of ten pictures, through the public door."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

import harness
from harness.auditing.choices import model_arguments, select_suite
from harness.auditing.evaluating import Conditions
from harness.auditing.running import run_models
from harness.auditing.summarising import summarise
from harness.errors import RunError
from harness.runs.store import THRESHOLDS

ADAPTER = '''
import numpy as np
import torch
from PIL import Image

from harness.models import TokenCounts


class Oracle:
    """Marks the disc where a polyp is named; anything else in seven of ten pictures."""

    input_size = (48, 48)

    def __init__(self, settings, *, weights):
        self.refuses = settings["refuses"]
        self.module = torch.nn.Identity()

    def count_tokens(self, texts):
        counts = tuple(len(text.split()) for text in texts)
        return TokenCounts(counts, (False,) * len(counts))

    def preprocess(self, image):
        resized = Image.fromarray(np.asarray(image)).resize((48, 48), Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float()

    def predict(self, pixels, texts):
        logits = torch.where(pixels[:, 0] > 119, 5.0, -5.0)
        for place, text in enumerate(texts):
            number = int(pixels[place, 2, 0, 0])
            if "polyp" not in text and number % 10 < self.refuses:
                logits[place] = -5.0
        return logits
'''

SUITE = """
name: absent
title: Is what is not there refused?
datasets: [{name: kvasir_polyp, prompt_type: p6}]
probes:
  - {name: absent, perturbation: absent, repeats: 2}
  - {name: demanded, perturbation: absent, expect: [{kind: refusal, at_least: 0.1}]}
  - {name: empty_prompt, perturbation: empty}
statistics: {draws: 400}
"""


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A data root with 40 pictures whose blue is their number."""
    from tests.conftest import write_photo_dataset

    root = tmp_path_factory.mktemp("numbered")
    write_photo_dataset(root, "kvasir_polyp", n=40)
    for number in range(40):
        path = root / "kvasir_polyp" / "images" / f"test_{number}.png"
        pixels = np.array(Image.open(path))
        pixels[..., 2] = number
        Image.fromarray(pixels).save(path)
    (root / "adapter.py").write_text(ADAPTER, encoding="utf-8")
    (root / "absent.yaml").write_text(SUITE, encoding="utf-8")
    return root


def audited(root, refuses, *, name="run", **conditions):
    card = (
        "name: oracle\ntitle: Oracle\nadapter: adapter.py:Oracle\nthreshold: 0.5\n"
        f"settings: {{refuses: {refuses}}}\n"
    )
    (root / "oracle.yaml").write_text(card, encoding="utf-8")
    store = run_models(
        select_suite(str(root / "absent.yaml")),
        model_arguments([str(root / "oracle.yaml")], None),
        root=root,
        out=root / f"{name}-{refuses}",
        conditions=Conditions(random_weights=True, **conditions),
    )
    with store.locked():
        summarise(store)
    return harness.load_run(store.folder)


@pytest.mark.parametrize(
    ("refuses", "word"), [(0, "hallucinates"), (3, "hallucinates"), (10, "refuses")]
)
def test_an_oracle_is_found_out(numbered, refuses, word):
    run = audited(numbered, refuses)

    rows = {row["probe"]: row for row in run.assessment.summary.iter_rows(named=True)}
    row = rows["absent"]
    assert row["refusal_rate"] == pytest.approx(refuses / 10)
    assert row["refusal_rate_low"] <= refuses / 10 <= row["refusal_rate_high"]
    assert 0 < row["refusal_rate_high"] - row["refusal_rate_low"] < 0.32
    assert (row["n_samples_refusal"], row["n_clusters_refusal"], row["miss_rate"]) == (40, 40, 0)
    if refuses < 10:
        assert row["aligned_share"] == 1
    (verdict,) = run.assessment.language
    assert verdict.refusal == word
    assert row["expectation"] == "refusal of refusal_rate at least 0.8"
    assert row["verdict"] == ("holds" if word == "refuses" else "fails")
    assert rows["demanded"]["expectation"] == "refusal of refusal_rate at least 0.1"
    assert rows["demanded"]["verdict"] == ("holds" if refuses else "fails")
    assert rows["empty_prompt"]["n_samples_refusal"] == 0


def test_the_first_thing_told_of_a_model_that_paints_whatever_it_is_asked_for(numbered):
    run = audited(numbered, 0)
    text = (run.folder / "summary.md").read_text(encoding="utf-8")
    assert "it hallucinates what is not there (refusal rate 0.000 [0.000, 0.088])" in " ".join(
        text.split()
    )
    (line,) = (x for x in text.splitlines() if x.startswith("| absent ") and "whole" in x)
    assert "refuses: no" in line
    assert "unmoved: yes" not in line


def test_the_curve_over_thresholds_needs_no_second_run(numbered):
    run = audited(numbered, 3, name="curved", thresholds=True)
    plain = audited(numbered, 3)
    assert run.scores.drop("model_id").equals(plain.scores.drop("model_id"))

    curve = pl.read_parquet(run.folder / "thresholds.parquet")
    assert curve["threshold"].to_list() == list(THRESHOLDS)
    # Logits of +-5 are on one side of every threshold.
    assert curve["refusal_rate"].to_list() == pytest.approx([0.3] * 19)
    assert set(curve["refusal"]) == {"hallucinates"}
    row = next(r for r in run.summary.iter_rows(named=True) if r["probe"] == "absent")
    assert curve["dice"].to_list() == pytest.approx([row["reference_dice"]] * 19)
    assert curve["chosen"].sum() == 2
    text = " ".join((run.folder / "summary.md").read_text(encoding="utf-8").split())
    assert (
        "Refusal over thresholds: the verdict stands over the whole range: hallucinates at 19 of 19"
    ) in text

    message = "oracle was run with thresholds 'kept', now it is None. A run keeps one thresholds"
    with pytest.raises(RunError, match=message):
        audited(numbered, 3, name="curved")
