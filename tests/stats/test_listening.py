"""The language verdict: what it takes to be listening, deaf, moved, unmoved, steady, brittle."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from harness.plan.build import NOT_APPLICABLE_SCHEMA, PLAN_SCHEMA
from harness.runs.store import SCORE_SCHEMA
from harness.stats.assessment import assess
from harness.stats.language import from_record, shortened
from harness.stats.pairs import ModelFacts
from harness.suite.schema import Suite

MODEL = ModelFacts("m@1", "m", (), False, 0.5)
SIZE = 400


class Scenes:
    """Scenes of two targets, A and B: prompts of A, one changed word each, counts as told.

    `follows` is the share of the named target that a changed prompt's mask covers, `stays` the
    share of the own target; 0 and 1 are a deaf model, 1 and 0 one that listens.
    """

    def __init__(self, n=40, seed=0):
        self.n, self.rng = n, np.random.default_rng(seed)
        self.plan, self.scores = [], []
        for s in range(n):
            original = self._case(s, "original", None, "original", "own", base=f"scene {s}")
            original["original_case_id"] = original["case_id"]
            self._score(original, own=0.9, agree=1.0)

    def _case(self, s, probe, attribute, meaning, expected, *, base, **given):
        row = dict.fromkeys(PLAN_SCHEMA)
        row |= {"case_id": len(self.plan) + 1, "original_case_id": s + 1, "dataset": "d"}
        row |= {"split": "test", "sample_id": f"s{s}", "image": f"{s}.png", "image_id": f"i{s}"}
        row |= {"cluster_id": f"c{s:03d}", "probe": probe, "attribute": attribute, "repeat": 0}
        row |= {"perturbation": probe, "meaning": meaning, "expected_mask": expected}
        row |= {"prompts": "released", "prompt_type": "p6", "prompt_index": 0, "mask": f"{s}.png"}
        row |= {"prompt": f"{base} {probe} {attribute}", "original_prompt": base} | given
        self.plan.append(row)
        return row

    def _score(self, row, *, own, agree, named=None):
        noise = self.rng.uniform(-0.02, 0.02)
        hit = int(SIZE * min(max(own * (1 + noise), 0), 1))
        score = dict.fromkeys(SCORE_SCHEMA) | {"model_id": "m@1", "case_id": row["case_id"]}
        score |= {"tp": hit, "n_pred": SIZE, "n_gt": SIZE, "height": 64, "width": 64}
        score |= {"tp_original": int(SIZE * agree), "n_pred_original": SIZE, "status": "done"}
        if named is not None:
            score |= {"tp_named": int(SIZE * named), "n_named": SIZE}
        self.scores.append(score)

    def probe(self, name, attribute, *, meaning="changed", stays, follows=None, agree=None, **more):
        """One variant a scene; `more` are columns of the plan."""
        for s in range(self.n):
            expected = "own" if follows is None else "named"
            row = self._case(s, name, attribute, meaning, expected, base=f"scene {s}", **more)
            agree_now = stays if agree is None else agree
            self._score(row, own=0.9 * stays, agree=agree_now, named=follows)
        return self

    def arguments(self):
        return {
            "plan": pl.DataFrame(self.plan, schema=PLAN_SCHEMA, orient="row"),
            "scores": pl.DataFrame(self.scores, schema=SCORE_SCHEMA, orient="row"),
            "models": [MODEL],
            "not_applicable": pl.DataFrame(schema=NOT_APPLICABLE_SCHEMA),
        }

    def verdict(self, texts=None, **statistics):
        content = {"name": "s", "title": "s", "statistics": {"draws": 500} | statistics}
        suite = Suite.model_validate(content)
        return assess(**self.arguments(), suite=suite, texts=texts).language[0]


def test_a_mask_that_goes_where_the_word_points_listens():
    found = Scenes().probe("antonym", "size", stays=0.1, follows=0.85).verdict()
    assert (found.language, found.heard, found.named_targets) == ("listening", ("size",), True)
    assert found.reason == (
        "m on d listens to size: its mask follows the word; its steadiness was not tested."
    )
    (evidence,) = found.evidence
    assert evidence.state == "heard"
    assert evidence.p_heard <= 0.05
    assert evidence.named_gain[1] > 0
    assert evidence.reason.endswith("the mask goes where the word points.")


def test_a_mask_that_stays_is_deaf():
    scenes = Scenes().probe("antonym", "size", stays=1.0, follows=0.05)
    found = scenes.probe("swap", "color", stays=1.0, follows=0.05).verdict()
    assert (found.language, found.unheard) == ("deaf", ("size", "color"))
    assert found.reason.startswith("m on d is deaf: whichever word changes, its mask stays; ")
    assert [e.reason.rpartition(": ")[2] for e in found.evidence] == [
        "another word changes nothing."
    ] * 2


def test_only_words_that_were_changed_are_spoken_of():
    """Where the prompt as a whole was another, nothing is known of single words."""
    found = Scenes().probe("other_sample", None, stays=1.0, follows=0.05).verdict()
    assert found.reason.startswith("m on d is deaf: when the prompt as a whole changes, its mask")


def test_a_model_that_always_marks_the_other_target_does_not_listen():
    """Its Dice with the named mask is the higher one, and its mask never moves."""
    found = Scenes().probe("antonym", "size", stays=0.3, follows=0.9, agree=1.0).verdict()
    (evidence,) = found.evidence
    assert evidence.named_gain[1] > 0
    assert evidence.state != "heard"
    assert found.language == "cannot tell"


def test_the_named_target_must_win_by_more_than_the_margin():
    """A model trained on single targets wavers between two: half of a point is no listening."""
    found = Scenes().probe("antonym", "size", stays=0.5, follows=0.46).verdict()
    (evidence,) = found.evidence
    assert 0 < evidence.named_gain[1] < evidence.named_gain[2] < 2 * 0.9
    assert evidence.state == "unclear"
    assert found.language == "cannot tell"
    assert evidence.reason.endswith("the mask moves, but is not shown to go where the word points.")


def test_the_own_target_must_lose_more_than_the_margin():
    """Where the named target has always won, a mask that merely trembles follows nothing."""
    found = Scenes().probe("antonym", "size", stays=0.99, follows=0.98, agree=0.6).verdict()
    (evidence,) = found.evidence
    assert evidence.named_gain[1] > 2 * 0.9
    assert -2 < evidence.decisive_change[1] < evidence.decisive_change[2] < 0
    assert evidence.state == "unclear"


def test_a_mask_that_moves_elsewhere_does_not_listen():
    found = Scenes().probe("antonym", "size", stays=0.3, follows=0.05).verdict()
    assert found.language == "cannot tell"
    assert found.evidence[0].reason.endswith(
        "the mask moves, but is not shown to go where the word points."
    )


def test_one_attribute_suffices_to_listen_and_all_are_needed_to_be_deaf():
    scenes = Scenes().probe("antonym", "size", stays=1.0, follows=0.05)
    found = scenes.probe("antonym", "color", stays=0.1, follows=0.85).verdict()
    assert (found.language, found.heard, found.unheard) == ("listening", ("color",), ("size",))
    assert found.reason == (
        "m on d listens to color: its mask follows the word; it does not listen to size; its "
        "steadiness was not tested."
    )
    scenes = Scenes().probe("antonym", "size", stays=1.0, follows=0.05)
    half = scenes.probe("antonym", "color", stays=0.96, follows=0.05).verdict()
    assert (half.language, half.unheard, half.unclear) == ("cannot tell", ("size",), ("color",))
    assert half.reason.startswith("m on d cannot be judged on color (antonym color: Dice changes")
    assert "; it does not listen to size; " in half.reason


def test_what_no_named_target_could_show_is_not_said_to_be_undecided():
    """Another image's prompt names nothing in this one: it can never be heard to follow."""
    scenes = Scenes().probe("antonym", "size", stays=0.1, follows=0.85)
    found = scenes.probe("other_sample", None, stays=0.3).verdict()
    assert (found.language, found.unclear) == ("listening", ("the whole prompt",))
    assert found.reason == (
        "m on d listens to size: its mask follows the word; its steadiness was not tested."
    )


def test_without_named_targets_words_are_moved_or_unmoved_here():
    moved = Scenes().probe("antonym", "size", stays=0.5).verdict()
    assert (moved.language, moved.heard) == ("moved here", ("size",))
    assert moved.reason.startswith("m on d is moved by size here; ")
    still = Scenes().probe("antonym", "size", stays=1.0).verdict()
    assert (still.language, still.unheard) == ("unmoved here", ("size",))
    assert any("may be due to the data" in text for text in still.confounds)


def test_a_mask_may_move_while_its_dice_stays():
    found = Scenes().probe("antonym", "size", stays=1.0, agree=0.6).verdict()
    assert found.language == "moved here"


@pytest.mark.parametrize(
    ("keeps", "steadiness", "words"),
    [
        (1.0, "steady", "it is steady under changes that keep the meaning."),
        (0.6, "brittle", "it is brittle under changes that keep the meaning."),
        (0.97, "cannot tell", "whether it is steady is undecided."),
    ],
)
def test_steadiness_is_what_keeps_under_a_kept_meaning(keeps, steadiness, words):
    scenes = Scenes().probe("antonym", "size", stays=0.1, follows=0.85)
    found = scenes.probe("synonym", "size", meaning="preserved", stays=keeps).verdict()
    assert found.steadiness == steadiness
    assert found.reason.endswith(words)
    blocked = [text for text in found.blocking if text.startswith("Steadiness: synonym size: ")]
    assert len(blocked) == (steadiness == "cannot tell")


def test_few_clusters_cannot_tell():
    found = Scenes(12).probe("antonym", "size", stays=0.1, follows=0.85).verdict()
    assert (found.language, found.unclear) == ("cannot tell", ("size",))
    assert found.blocking[0] == "antonym size: 12 clusters, and 20 are needed."
    assert found.reason.startswith(
        "m on d cannot be judged on size (antonym size: 12 clusters, and 20 are needed); "
    )


def test_few_named_targets_leave_deafness_to_be_told():
    scenes = Scenes().probe("antonym", "size", stays=1.0)
    for score in scenes.scores[40:50]:
        score |= {"tp_named": 10, "n_named": SIZE}
    found = scenes.verdict()
    assert found.named_targets
    assert (found.language, found.unheard) == ("deaf", ("size",))
    moved = Scenes().probe("antonym", "size", stays=0.2)
    for score in moved.scores[40:50]:
        score |= {"tp_named": 300, "n_named": SIZE}
    (evidence,) = moved.verdict().evidence
    assert evidence.reason.endswith("10 clusters with a named target, and 20 are needed.")
    assert math.isnan(evidence.p_heard)


def test_edits_that_never_reach_the_model_tell_nothing():
    scenes = Scenes().probe("antonym", "size", stays=1.0, follows=0.05)
    texts = scenes.arguments()["plan"].filter(pl.col("probe") == "antonym").select(
        text="prompt", original_text="original_prompt", model_id=pl.lit("m@1"),
        edit_survives=pl.lit(False), same_tokens=pl.lit(True),
    )  # fmt: skip
    found = scenes.verdict(texts)
    assert found.language == "cannot tell"
    assert found.blocking[0] == "antonym size: edits cut away by the model's token limit."


def test_without_a_valid_word_in_a_words_place_nothing_is_told():
    found = Scenes().probe("empty", None, meaning="removed", stays=1.0).verdict()
    assert (found.language, found.evidence) == ("cannot tell", ())
    assert found.blocking[0] == "No verdict: no probe replaces a word with another valid value."


def test_a_random_word_is_shown_beside_and_decides_nothing():
    deaf = Scenes().probe("antonym", "size", stays=1.0, follows=0.05)
    deaf = deaf.probe("random_word", "size", meaning="destroyed", stays=0.7).verdict()
    assert deaf.language == "deaf"
    assert deaf.evidence[0].random_word_change == pytest.approx(-30, abs=1)
    (text,) = [t for t in deaf.confounds if "random word" in t]
    assert text.endswith("that is the shock of an unknown word, not language use.")
    heard = Scenes().probe("antonym", "size", stays=0.1, follows=0.85)
    heard = heard.probe("random_word", "size", meaning="destroyed", stays=0.7).verdict()
    (text,) = [t for t in heard.confounds if "random word" in t]
    assert text.endswith("so that the verdict rests on valid words.")
    alone = Scenes().probe("random_word", "size", meaning="destroyed", stays=0.2).verdict()
    assert alone.language == "cannot tell"


def test_redundancy_is_shown_where_one_word_decides():
    scenes = Scenes(80).probe("antonym", "size", stays=0.9)
    for score in scenes.scores[80:110]:
        score |= {"tp": 20, "tp_original": 20, "tp_named": 380, "n_named": SIZE}
    found = scenes.verdict()
    (evidence,) = found.evidence
    assert evidence.decisive_change[0] == pytest.approx(-94.5, abs=1)
    assert evidence.change[0] > -50
    (text,) = [t for t in found.confounds if "an effect shrinks" in t]
    assert "where the new word alone points to another target (30 samples)" in text


def test_effects_stand_by_prompt_type_where_a_run_has_several():
    scenes = Scenes().probe("antonym", "size", stays=0.5)
    rows = [r | {"prompt_type": "p1", "case_id": r["case_id"] + 10_000,
                 "original_case_id": r["original_case_id"] + 10_000}
            for r in scenes.plan]  # fmt: skip
    more = [s | {"case_id": s["case_id"] + 10_000} for s in scenes.scores]
    scenes.plan += rows
    scenes.scores += [s | {"tp": s["tp"] // 2} if s["case_id"] > 10_040 else s for s in more]
    found = scenes.verdict()
    (text,) = [t for t in found.confounds if "by prompt type" in t]
    assert text.startswith("antonym size by prompt type: p1 -7")
    assert "p6 -5" in text


@pytest.mark.parametrize(("shift", "place"), [(0.3, "fusion"), (0.001, "text tower")])
def test_deafness_sits_where_the_text_stops(shift, place):
    scenes = Scenes().probe("antonym", "size", stays=1.0, follows=0.05)
    plan = scenes.arguments()["plan"].filter(pl.col("probe") == "antonym")
    texts = plan.select(
        text="prompt", original_text="original_prompt", model_id=pl.lit("m@1"),
        edit_survives=pl.lit(True), same_tokens=pl.lit(False), shift=pl.lit(shift),
    )  # fmt: skip
    found = scenes.verdict(texts)
    assert found.place == place
    assert found.evidence[0].text_shift == pytest.approx(shift)
    (text,) = [t for t in found.confounds if "text embedding" in t]
    assert f"by {shift:.2f} of the distance between two prompts: the text tower" in text
    assert Scenes().probe("antonym", "size", stays=1.0, follows=0.05).verdict().place == "unknown"


def test_a_verdict_survives_its_file():
    found = Scenes().probe("antonym", "size", stays=0.1, follows=0.85).verdict()
    again = from_record(found.record())
    assert replace(again, evidence=()) == replace(found, evidence=())
    for first, second in zip(again.evidence, found.evidence, strict=True):
        assert repr(first) == repr(second)


def test_an_attribute_without_named_targets_is_unmoved_and_not_unheard():
    """On a set with named targets, too: nothing says which mask would have been right."""
    scenes = Scenes().probe("antonym", "size", stays=0.1, follows=0.85)
    found = scenes.probe("swap", "class", stays=1.0).verdict()
    assert (found.heard, found.unheard) == (("size",), ("class",))
    assert "; it is not moved by class here; " in found.reason


def test_what_another_probe_has_decided_blocks_nothing():
    scenes = Scenes().probe("antonym", "size", stays=0.1, follows=0.85)
    found = scenes.probe("swap", "size", stays=0.96).verdict()
    assert found.heard == ("size",)
    assert found.blocking == ("Steadiness: no probe keeps the meaning.",)


def test_a_change_of_the_whole_prompt_has_a_name():
    found = Scenes().probe("other_sample", None, stays=0.1, follows=0.85).verdict()
    assert found.reason.startswith("m on d listens to the whole prompt: ")


def test_a_decisive_change_of_few_samples_is_not_held_against_the_whole():
    scenes = Scenes(80).probe("antonym", "size", stays=0.9)
    for score in scenes.scores[80:90]:
        score |= {"tp": 20, "tp_original": 20, "tp_named": 380, "n_named": SIZE}
    assert not [t for t in scenes.verdict().confounds if "an effect shrinks" in t]


def test_many_labels_are_told_shortly():
    assert shortened(["antonym color", "antonym size", "typo"]) == "antonym (color, size), typo"
    split = [f"other_sample ({name})" for name in ("color", "size")]
    assert shortened(split) == "other_sample (color, size)"
    assert shortened(split[:1]) == "other_sample (color)"
    assert shortened(list("abcde")) == "a, b, c, d, e"
    assert shortened(list("abcdefghij")) == "a, b, c, d and 6 others"
