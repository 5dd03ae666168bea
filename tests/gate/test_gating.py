"""What the gate says of runs whose every figure is known: each rule, each outcome, and its laws."""

import json
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.gate.audited import read_run
from harness.gate.baseline import read_file, text_of
from harness.gate.checks import Severity
from harness.gate.gating import as_baseline, baseline_at, check_run


def states(found, rule):
    return {str(c.place): c.state for c in found.checks if c.rule == rule}


def only(found, rule):
    checks = [c for c in found.checks if c.rule == rule]
    assert len(checks) == 1, checks
    return checks[0]


# ---- rules of the suite


@pytest.mark.parametrize(
    ("most", "left", "state", "told"),
    [
        (20, 0.95, "holds", "shown to be a drop of at most 20 %."),
        (20, 0.6, "fails", "shown not to be a drop of at most 20 %."),
        (5, 0.95, "open", "neither shown to be a drop of at most 5 % nor to be worse."),
    ],
)
def test_max_drop(make, behaviour, most, left, state, told):
    how = behaviour(left={"synonym": left, "gone": 0.7, "noise": 0.8, "antonym": 0.2})

    check = only(check_run(make("run", how, gate={"max_drop": most})), "max_drop")

    assert (check.state, str(check.place)) == (state, "d/test p6 synonym size")
    assert check.reason.startswith("Dice changes by -")
    assert check.reason.endswith(told)
    assert check.low <= check.estimate <= check.high
    bound = {"holds": check.low > -most, "fails": check.high < -most}
    assert bound.get(state, check.low < -most < check.high)


def test_max_drop_where_it_is_chosen(make):
    rules = [{"at_most": 50, "probes": ["gone", "noise"]}, {"at_most": 5, "probes": ["gone"]}]
    found = check_run(make("run", gate={"max_drop": rules}))
    asked = {(c.place.probe, c.asked): c.state for c in found.checks if c.rule == "max_drop"}
    assert asked == {
        ("gone", "a drop of at most 50 %"): "holds",
        ("noise", "a drop of at most 50 %"): "holds",
        ("gone", "a drop of at most 5 %"): "fails",
    }
    assert {c.n_family for c in found.checks if c.rule == "max_drop"} == {3}


@pytest.mark.parametrize(("least", "state"), [(0.5, "holds"), (0.95, "fails"), (0.78, "open")])
def test_min_dice_is_of_the_originals(make, least, state):
    check = only(check_run(make("run", gate={"min_dice": least})), "min_dice")
    assert (check.state, check.place.probe) == (state, "original")
    assert check.reason.startswith("Mean Dice is 0.7")


def test_min_dice_does_not_need_a_mask_everywhere(make, behaviour):
    """A model that marks nothing is not excused from its Dice."""
    found = check_run(make("run", behaviour(quality=0.01, noise=0.0), gate={"min_dice": 0.5}))
    assert only(found, "min_dice").state == "fails"


def test_must_listen_follows_the_evidence_of_the_language_verdict(make, behaviour):
    heard = check_run(make("heard", gate={"must_listen": ["size"]}))
    assert only(heard, "must_listen").state == "holds"
    deaf = behaviour(left={"antonym": 1.0, "gone": 1.0, "noise": 1.0}, follows=0.0, noise=0.0)
    unheard = only(check_run(make("deaf", deaf, gate={"must_listen": ["size"]})), "must_listen")
    assert unheard.state == "fails"
    assert unheard.reason.startswith("size is unheard: antonym on test: Dice changes by 0.0 %")
    few = only(check_run(make("few", n=10, gate={"must_listen": ["size"]})), "must_listen")
    assert few.state == "open"
    assert "10 clusters" in few.reason


@pytest.mark.parametrize(("least", "state"), [(0.5, "holds"), (0.9, "fails"), (0.7, "open")])
def test_must_refuse_is_of_prompts_for_what_is_not_there(make, behaviour, least, state):
    found = check_run(make("run", behaviour(refuses=0.7), gate={"must_refuse": least}))
    check = only(found, "must_refuse")
    assert (check.state, check.place.probe, check.n_clusters) == (state, "absent", 30)
    assert check.asked == f"a refusal rate of at least {least:g}"
    assert check.reason.startswith("The refusal rate is 0.7")


def test_must_refuse_can_be_asked_of_one_probe(make, behaviour):
    rule = [{"at_least": 0.5, "probes": ["antonym"]}]
    found = check_run(make("run", behaviour(refuses=0.7), gate={"must_refuse": rule}))
    assert [c.reason.split(" selects")[0] for c in found.of("incomplete")] == [
        "The rule gate.must_refuse[0]"
    ]


def test_expectations_that_bind_are_rules(make, behaviour):
    """What preserves the meaning binds by itself, other probes where the suite says so."""
    fine = check_run(make("fine"))
    assert states(fine, "expectation") == {"d/test p6 synonym size": "holds"}
    worse = behaviour(left={"synonym": 0.5})
    assert only(check_run(make("worse", worse)), "expectation").state == "fails"
    assert states(check_run(make("none", worse, expect=[])), "expectation") == {}


@pytest.mark.parametrize(
    ("gate", "name"),
    [
        ({"max_drop": [{"at_most": 5, "probes": ["other"]}]}, "max_drop[0]"),
        ({"min_dice": [{"at_least": 0.5, "datasets": ["other"]}]}, "min_dice[0]"),
        ({"must_listen": ["size", "color"]}, "must_listen[0] color"),
        ({"must_refuse": 0.5}, "must_refuse[0]"),
    ],
)
def test_a_rule_that_selects_nothing_leaves_the_gate_shut(make, gate, name):
    found = check_run(make("run", gate=gate))
    reasons = [c.reason for c in found.of("incomplete")]
    assert reasons == [
        f"The rule gate.{name} selects nothing in this run: no such probe, dataset or attribute "
        "was evaluated."
    ]
    assert found.code == 3


def test_a_gate_that_could_decide_nothing_says_so(make):
    found = check_run(make("run", n=8, gate={"must_refuse": 0.5}))
    assert found.code == 3
    assert found.verdict.startswith("incomplete, since nothing could be decided: ")
    assert not check_run(make("other")).verdict.startswith("incomplete")


# ---- a baseline


def test_a_run_is_never_inferior_to_itself(make):
    run = make("run")
    found = check_run(run, as_baseline(run))
    assert found.code == 0
    assert found.pairing == "paired case by case: both ran the same plan"
    assert set(states(found, "non_inferiority").values()) == {"holds"}
    assert only(found, "original_dice").estimate == 0


def test_means_are_compared_and_not_sums(make):
    """The baseline saw half as many samples of each cluster, with the same figures."""
    run = make("run")
    old = as_baseline(run)
    sums = old.sums.with_columns(pl.selectors.float() / 2)
    found = check_run(run, replace(old, sums=sums, run=None))
    compared = [c for c in found.checks if c.rule in ("original_dice", "non_inferiority")]
    assert {c.state for c in compared} == {"holds"}
    assert [c.estimate for c in compared] == pytest.approx([0] * 5)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(quality=st.floats(0.3, 0.9), noise=st.floats(0, 0.1), seed=st.integers(2, 50))
def test_no_run_is_inferior_to_itself(tmp_path_factory, write_at, behaviour, quality, noise, seed):
    how = behaviour(quality=quality, noise=noise, model_seed=seed)
    run = read_run(write_at(tmp_path_factory.mktemp("runs") / "run", how, n=20))
    found = check_run(run, as_baseline(run))
    compared = [c.state for c in found.checks if c.rule in ("original_dice", "non_inferiority")]
    assert compared == ["holds"] * 5


def test_a_uniformly_worse_model_fails(make, behaviour):
    """It looks steadier, since Dice after the change is what it was; its originals tell."""
    old = as_baseline(make("old"))
    worse = make("new", behaviour(quality=0.6))
    found = check_run(worse, old)
    check = only(found, "original_dice")
    assert (found.code, check.state, check.known) == (1, "fails", False)
    assert check.estimate == pytest.approx(-25, abs=2)
    assert check.reason.endswith("shown to be more than 5 % worse.")
    assert check.reason.startswith("Dice of the original prompts differs from the baseline's by -2")


def test_what_gets_worse_is_named_and_only_that(make, behaviour):
    old = as_baseline(make("old"))
    left = {"synonym": 1.0, "gone": 0.4, "noise": 0.8, "antonym": 0.2}
    found = check_run(make("new", behaviour(left=left, model_seed=2)), old)
    assert [(c.rule, c.place.probe) for c in found.of("failed")] == [("non_inferiority", "gone")]
    check = found.of("failed")[0]
    assert check.estimate == pytest.approx(-30, abs=2)
    assert check.reason.startswith("The change of Dice differs from the baseline's by -")


def test_a_named_target_that_is_followed_less_is_a_loss(make, behaviour):
    """The own mask says the contrary: a deaf model keeps more of its Dice."""
    old = as_baseline(make("old"))
    deaf = behaviour(left=GOOD_BUT | {"antonym": 1.0}, follows=0.1)
    failed = check_run(make("new", deaf), old).of("failed")
    assert [(c.place.probe, c.unit) for c in failed] == [("antonym", "points")]
    assert failed[0].estimate < -100
    assert failed[0].reason.endswith("shown to be more than 5 points worse.")


def test_a_model_that_refuses_less_than_the_baseline_fails(make, behaviour):
    old = as_baseline(make("old", behaviour(refuses=1.0)))
    failed = check_run(make("new", behaviour(refuses=0.5)), old).of("failed")
    assert [(c.rule, c.place.probe, c.unit) for c in failed] == [
        ("non_inferiority", "absent", "points")
    ]
    assert failed[0].estimate == pytest.approx(-50, abs=4)
    assert failed[0].asked == "a refusal rate at most 10 points below the baseline's"
    assert failed[0].reason.endswith("shown to be more than 10 points worse.")


def test_refusal_is_not_inferior_to_itself_nor_compared_where_nobody_measured_it(make, behaviour):
    run = make("run", behaviour(refuses=0.7))
    old = as_baseline(run)
    own = next(c for c in check_run(run, old).checks if "refusal rate" in c.asked)
    assert (own.state, own.estimate) == ("holds", 0)
    bare = old.sums.with_columns(n_refused=0.0, refused=0.0)
    void = next(
        c
        for c in check_run(run, replace(old, sums=bare, run=None)).checks
        if "refusal rate" in c.asked
    )
    assert (void.state, void.reason) == (
        "void",
        "Nothing to compare with: the baseline says nothing of refusal here.",
    )


GOOD_BUT = {"synonym": 1.0, "gone": 0.7, "noise": 0.8, "antonym": 0.2}


def test_what_is_compared_can_be_chosen(make):
    rule = {"margin": 3, "meanings": ["changed"], "probes": ["antonym"]}
    run = make("run", gate={"non_inferiority": rule})
    found = check_run(run, as_baseline(run))
    compared = [(c.place.probe, c.unit) for c in found.checks if c.rule == "non_inferiority"]
    assert sorted(compared) == [("antonym", "percent"), ("antonym", "points")]
    assert "original_dice" in {c.rule for c in found.checks}, "always a rule"


def test_the_burden_is_on_the_new_model(make, behaviour):
    """A loss near the margin is shown neither way: failed, or a warning when lenient."""
    old = as_baseline(make("old", behaviour(noise=0.0)))
    near = make("new", behaviour(left=GOOD_BUT | {"gone": 0.655}, noise=0.05, model_seed=3))
    found = check_run(near, old)
    (check,) = found.of("failed")
    assert (check.state, check.place.probe, found.code) == ("open", "gone", 1)
    assert check.reason.endswith("not shown to be at most 5 % worse.")
    lenient = check_run(near, old, severity=Severity(lenient=True))
    assert lenient.code == 0
    assert [c.place.probe for c in lenient.of("warning") if c.rule == check.rule] == ["gone"]
    worse = make("worse", behaviour(left=GOOD_BUT | {"gone": 0.3}))
    assert check_run(worse, old, severity=Severity(lenient=True)).code == 1


def test_a_regression_too_small_to_be_seen_is_incomplete(make, behaviour):
    noisy = behaviour(noise=0.35)
    old = as_baseline(make("old", noisy))
    new = make("new", replace(noisy, model_seed=9), gate={"max_drop": 2}, expect=[])
    found = check_run(new, old)
    unable = [c for c in found.of("incomplete") if c.rule == "non_inferiority"]
    assert unable
    for check in unable:
        assert check.smallest_effect > 2
        assert (
            "is the smallest that 4 of 5 studies like this one would show, and 2 " in check.reason
        )
    assert found.of("failed") == tuple(c for c in found.of("failed") if c.state == "fails")


def test_too_few_clusters_are_incomplete(make):
    run = make("run", n=8)
    found = check_run(run, as_baseline(run))
    assert (found.code, only(found, "original_dice").state) == (3, "unable")
    assert only(found, "original_dice").reason == (
        "No verdict: 8 clusters, and 20 are needed. Run more images, or leave the place out of "
        "gate.non_inferiority."
    )


def test_a_baseline_without_dice_has_nothing_to_compare_with(make, behaviour):
    old = as_baseline(make("old", behaviour(quality=0.02)))
    found = check_run(make("new"), old)
    check = only(found, "original_dice")
    assert (check.state, check.result) == ("void", "warning")
    assert (
        check.reason
        == "Nothing to compare with: in the baseline's run, baseline too low: Dice under 0.1."
    )


def test_dice_that_is_lost_altogether_is_not_excused(make, behaviour):
    found = check_run(make("new", behaviour(quality=0.02)), as_baseline(make("old")))
    assert only(found, "original_dice").state == "fails"
    gone = next(c for c in found.checks if c.place.probe == "gone")
    assert (gone.state, gone.result) == ("open", "failed")
    assert gone.reason == (
        "Not shown: in this run, baseline too low: Dice under 0.1; in the baseline's it was not."
    )


# ---- files and orders


def test_a_file_and_the_run_it_was_made_of_agree(make, behaviour, tmp_path):
    old = as_baseline(make("old"))
    path = tmp_path / "baseline.json"
    path.write_text(text_of(old), encoding="utf-8")
    for number, left in enumerate((GOOD_BUT, GOOD_BUT | {"gone": 0.62}, GOOD_BUT | {"noise": 0.5})):
        new = make(f"new{number}", behaviour(left=left, model_seed=number + 4))
        by_run, by_file = check_run(new, old), check_run(new, read_file(path))
        assert by_file.pairing.startswith("paired by cluster: both ran the same plan, and the ")
        assert by_file.code == by_run.code
        for one, other in zip(by_run.checks, by_file.checks, strict=True):
            assert (one.key, one.state, one.result) == (other.key, other.state, other.result)
            assert one.estimate == pytest.approx(other.estimate, abs=1e-6, nan_ok=True)
            assert one.low == pytest.approx(other.low, abs=1e-6, nan_ok=True)


def test_another_backend_is_named(make, tmp_path):
    """Of a file as of a run; files from before there were two say nothing of it."""
    old, new = as_baseline(make("old")), make("new")
    other = replace(new, identity=replace(new.identity, backend="openvino"))
    path = tmp_path / "baseline.json"
    path.write_text(text_of(old), encoding="utf-8")
    said = "; the baseline was computed by torch, this run by openvino: pixels near the threshold "
    for baseline in (old, read_file(path)):
        assert said in check_run(other, baseline).pairing
        assert "computed by" not in check_run(new, baseline).pairing
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["backend"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "computed by" not in check_run(other, read_file(path)).pairing


def test_the_order_of_rows_does_not_matter(make, behaviour):
    old, how = as_baseline(make("old")), behaviour(left=GOOD_BUT | {"gone": 0.66}, model_seed=5)
    plain = check_run(make("plain", how), old)
    assert check_run(make("shuffled", how, shuffled=True), old).record() == plain.record()


def test_failures_are_new_or_known(make, behaviour):
    worse = behaviour(left=GOOD_BUT | {"synonym": 0.5})
    old = as_baseline(make("old", worse))
    assert old.failures == (
        "expectation: d/test p6 synonym size: invariance of relative_change within 3 %",
    )
    again = check_run(make("again", worse, gate={"min_dice": 0.9}), old)
    assert [(c.rule, c.known) for c in again.of("failed")] == [
        ("min_dice", False),
        ("expectation", True),
    ], "new ones first"
    assert "2 failed (1 new, 1 known)" in again.verdict
    assert again.code == 1
    warned = make("warned", worse, gate={"known": "warn"})
    tolerant = check_run(warned, old, severity=Severity(known_fails=False))
    assert (tolerant.code, [c.known for c in tolerant.of("warning")]) == (0, [True])


# ---- plans that differ


def test_another_seed_of_the_plan_is_paired_by_cluster(make, behaviour):
    old = as_baseline(make("old"))
    found = check_run(make("new", behaviour(model_seed=2), seed=7), old)
    assert found.code == 0
    assert found.pairing == (
        "paired by cluster: the plans are two draws of one design with different seeds"
    )
    noise = next(c for c in found.checks if c.place.probe == "noise")
    same = check_run(make("same", behaviour(model_seed=2)), old)
    fixed = next(c for c in same.checks if c.place.probe == "noise")
    assert noise.high - noise.low > fixed.high - fixed.low, "the words' own error is added"


def test_two_draws_of_a_few_words_cannot_be_compared(make):
    old = as_baseline(make("old", n_words=4))
    found = check_run(make("new", n_words=4, seed=7), old)
    assert [(c.place.probe, c.reason) for c in found.of("incomplete")] == [
        (
            "noise",
            "No verdict: the words were drawn anew, and fewer than 10 do not say how much words "
            "vary. Run the baseline's seed, or more words.",
        )
    ]
    assert check_run(make("same", n_words=4), old).code == 0


def test_the_words_error_counts_where_clusters_do_not_vary(make):
    """A model against its own plan under another name: only the words' error is left."""
    run = make("run")
    old = as_baseline(run)
    identity = replace(old.identity, plan_sha256="other", seed=9)
    noise = {}
    for error in (0.0, 2.0, 8.0):
        cells = old.cells.with_columns(word_error=pl.lit(error))
        new = replace(run, cells=run.cells.with_columns(word_error=pl.lit(0.0)))
        found = check_run(new, replace(old, identity=identity, cells=cells, run=None))
        noise[error] = next(c for c in found.checks if c.place.probe == "noise")
    assert (noise[0.0].low, noise[0.0].high) == (0, 0)
    assert noise[2.0].low == pytest.approx(-1.96 * 2, abs=0.02)
    assert noise[2.0].state == "holds"
    assert noise[8.0].high == pytest.approx(1.96 * 8, abs=0.08)
    assert noise[8.0].state == "unable", "16 % would be lost unseen"


def test_prompt_drift_is_an_error_of_its_own(make, tmp_path):
    old = as_baseline(make("old"))
    new = make("new", lexicon="other")
    with pytest.raises(UsageError) as caught:
        check_run(new, old, where="base.json")
    text = str(caught.value)
    assert text.startswith(
        "base.json: prompt drift: the plan of this run asks something else than the baseline's "
        "did (lexicon was 'curated', is 'other'; the cases of d test released p6 antonym size "
    )
    assert (
        "cases have the same key and another prompt; the first, antonym of d/test/s000, was "
        in text
    )
    assert text.endswith("or compare what is common to both by cluster: --allow-drift.")
    allowed = check_run(new, old, allow_drift=True)
    assert allowed.pairing.startswith("paired by cluster although prompts drifted (--allow-drift):")
    assert allowed.code == 0


def test_other_data_are_drift_and_what_is_common_can_be_compared(make):
    old = as_baseline(make("old", n=30))
    new = make("new", n=25, data_sha256="1" * 64)
    with pytest.raises(UsageError, match=r"prompt drift: .*\(data was '\w{16}', is '\w{16}'; "):
        check_run(new, old)
    found = check_run(new, old, allow_drift=True)
    assert only(found, "original_dice").n_clusters == 25
    assert found.pairing.endswith("; up to 5 clusters are in one of the two alone and left out")


def test_numbers_of_different_signatures_are_never_compared(make):
    old = as_baseline(make("old"))
    with pytest.raises(UsageError) as caught:
        check_run(make("new", threshold=0.3), old, where="base.json")
    assert str(caught.value) == (
        "base.json: the metric signature of the baseline is "
        "'dice|res:model|thr:0.5|empty:1|gt:>127|v:1', this run's is "
        "'dice|res:model|thr:0.3|empty:1|gt:>127|v:1'. Numbers of different signatures are never "
        "compared. Run both with one metric, threshold and statistics, or write the baseline anew "
        "from this run."
    )


def test_a_limited_run_is_not_compared(make):
    found = check_run(make("new", limit=8, n=8), as_baseline(make("old")))
    assert found.code == 3
    assert found.pairing == "not compared: the run was cut with --limit, its plan is another"
    assert only(found, "completeness").reason.endswith(
        "; the run was cut to 8 images per dataset (--limit)."
    )


def test_fewer_cases_than_the_plan_are_incomplete(make, behaviour):
    """Whatever the others show: the run says nothing of the plan."""
    found = check_run(make("run", behaviour(quality=0.2), lost=1, gate={"min_dice": 0.9}))
    assert only(found, "min_dice").result == "failed"
    assert found.code == 3
    assert only(found, "completeness").reason == "839 of 840 cases have a score."


def test_a_baseline_must_be_whole(make, write):
    run = make("run")
    for name, settings_, told in (
        ("lost", {"lost": 3}, "a baseline of 837 of 840 cases. A baseline is whole."),
        ("cut", {"limit": 8, "n": 8}, "a baseline of 224 of 224 cases, cut with --limit 8. A"),
    ):
        folder = write(name, **settings_)
        with pytest.raises(UsageError, match=f"{folder}: {told}"):
            baseline_at(folder, run=run)


def test_a_gate_that_decides_nothing_is_not_open(make):
    found = check_run(make("run", n=8))
    assert ({c.result for c in found.checks if c.rule != "completeness"}, found.code) == (
        {"warning"},
        3,
    )


def test_too_few_draws_for_so_many_tests_are_named(make):
    """100 draws give no p-value below 2/101: not enough for one of four tests."""
    run = make("run", gate={"max_drop": [{"at_most": 95, "probes": "all"}]}, draws=100)
    checks = [c for c in check_run(run).checks if c.rule == "max_drop"]
    assert {(c.state, c.n_family) for c in checks} == {("open", 4)}
    assert checks[0].reason.endswith(
        " All draws agree, but 100 of them are too few for 4 tests: raise statistics.draws."
    )


def test_a_hostile_baseline_cannot_paint_the_terminal(make):
    old = as_baseline(make("old"))
    identity = replace(old.identity, design={"\x1b[31mred": "x"}, plan_sha256="y")
    with pytest.raises(UsageError, match="prompt drift: ") as caught:
        check_run(make("new"), replace(old, identity=identity))
    assert "\x1b" not in str(caught.value)


def test_pools_of_other_sets_are_not_paired(make, monkeypatch):
    monkeypatch.setattr("harness.gate.gating.MOST_UNITS", 30)
    message = (
        "baseline: prompts drifted, and a set has more than 30 clusters, which are resampled in "
        "pools. Pools of two plans are paired where the plans are of one design. Write the "
    )
    with pytest.raises(UsageError, match=message):
        check_run(make("new", lexicon="other"), as_baseline(make("old")), allow_drift=True)


@pytest.mark.slow
def test_a_loss_of_exactly_the_margin_is_let_through_as_seldom_as_the_level_says(
    tmp_path, write_at, behaviour
):
    """150 pairs of checkpoints: the level is 2.5 % one-sided, before Holm's correction."""
    let_through, equal_failed = [], []
    for study in range(150):
        seeds = 3 * study + 10
        old = as_baseline(
            read_run(write_at(tmp_path / f"{study}-old", behaviour(noise=0.1, model_seed=seeds)))
        )
        for left, found in ((0.65, let_through), (0.70, equal_failed)):
            how = behaviour(
                left=GOOD_BUT | {"gone": left},
                noise=0.1,
                model_seed=seeds + (1 if left > 0.66 else 2),
            )
            new = read_run(write_at(tmp_path / f"{study}-{left}", how))
            check = next(c for c in check_run(new, old).checks if c.place.probe == "gone")
            found.append(check.state == ("holds" if found is let_through else "fails"))
    assert sum(let_through) / 150 <= 0.06
    assert sum(equal_failed) == 0


# ---- recipes


def recipe_run(write, behaviour, name, *, left):
    """Three seeds of one recipe, whose drop after the synonym is as given."""
    first, *others = (behaviour(left={"synonym": k}, model_seed=n) for n, k in enumerate(left))
    ids = ["m@1", "n@1", "o@1"]
    return write(
        name,
        first,
        more=list(zip("no", others, strict=True)),
        gate={"max_drop": [{"probes": ["synonym"], "at_most": 15}]},
        recipes=[{"model_id": "m-seeds@9", "name": "m (3 seeds)", "seeds": ids}],
    )


def test_a_recipe_is_gated_with_what_its_seeds_vary(write, behaviour):
    alike = recipe_run(write, behaviour, "alike", left=(0.9, 0.9, 0.9))
    apart = recipe_run(write, behaviour, "apart", left=(1.0, 0.9, 0.8))
    found = {run: read_run(run) for run in (alike, apart)}
    assert {one.identity.model_id for one in found.values()} == {"m-seeds@9"}
    assert found[alike].n_done == found[alike].n_planned == 3 * 840
    drops = {run: only(check_run(one), "max_drop") for run, one in found.items()}
    assert drops[alike].estimate == pytest.approx(drops[apart].estimate, abs=0.01)
    assert (drops[alike].state, drops[apart].state) == ("holds", "open")
    # Each seed alone passes or fails.
    single = [read_run(apart, model=f"{seed}@1") for seed in "mno"]
    assert [only(check_run(one), "max_drop").state for one in single] == ["holds", "holds", "fails"]


def test_a_recipe_stands_against_no_baseline(write, behaviour):
    run = recipe_run(write, behaviour, "run", left=(1.0, 0.9, 0.8))
    recipe, seed = read_run(run), read_run(run, model="m@1")
    message = r"'m \(3 seeds\)' is a recipe. .* gate one of its seeds: --model m@1.$"
    with pytest.raises(UsageError, match=message):
        check_run(recipe, as_baseline(seed))
    with pytest.raises(UsageError, match=message):
        baseline_at(run, run=seed)
    assert check_run(seed, as_baseline(seed)).baseline == seed.identity
