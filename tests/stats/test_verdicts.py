"""Verdicts: their records."""

import json

from harness.stats.verdicts import Verdict, from_record

KEYS = {
    "model_id": "small@1a2b", "model": "small", "dataset": "kvasir_polyp", "split": "test",
    "prompts": "released", "prompt_type": "p6", "probe": "synonym", "attribute": "size",
    "perturbation": "synonym", "meaning": "preserved",
}  # fmt: skip


def test_a_verdict_survives_its_file():
    """A worked example: a synonym costs 1 %, so invariance within 3 % holds."""
    verdict = Verdict(
        **KEYS,
        kind="invariance", of="relative_change", accepted_low=-3.0, accepted_high=3.0,
        binding=True, verdict="holds", test="equivalence",
        reason="Dice changes by -1.0 % [-1.9, 0.1], within 3 %: invariance holds.",
        p_value=0.001, p_adjusted=0.004, n_family=4, estimate=-1.0, low=-1.9, high=0.1,
        low90=-1.7, high90=-0.1, standard_error=0.5, flips_at=2.1, smallest_effect=1.4,
        n_samples=100, n_clusters=98,
    )  # fmt: skip
    assert from_record(json.loads(json.dumps(verdict.record()))) == verdict


def test_an_open_end_is_null_in_the_file_and_open_again_after_it():
    verdict = Verdict(
        **KEYS, kind="minimum", of="agreement", accepted_low=0.9, accepted_high=float("inf"),
        binding=True, verdict="inconclusive", reason="12 clusters, 20 are needed.",
    )  # fmt: skip
    record = json.loads(json.dumps(verdict.record(), allow_nan=False))
    assert (record["accepted_low"], record["accepted_high"]) == (0.9, None)
    assert from_record(record).accepted_high == float("inf")
