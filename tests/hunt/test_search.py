"""What is found is the smallest break: known ones, and what trying everything finds."""

import re
from itertools import combinations, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk import edit_distance

from harness.errors import ModelError
from harness.hunt import search
from harness.hunt.evaluator import Measurement
from harness.hunt.search import BREAK_BELOW_PERCENT, DEAF_ABOVE_AGREEMENT, SearchLog, is_break
from harness.hunt.space import Kind
from harness.prompts.edits import apply_edits
from harness.prompts.perturbations import variants_of
from harness.prompts.strategies import size_of
from harness.records import Edit, Variant


def everything(hunt, sample, prompt, kind, *, most=3):
    """Slow and plain: every set of variants of different rules that do not overlap."""
    space = hunt.space(sample, prompt, kind)
    pool = []
    for rule in space.rules:
        for attribute in prompt.values if rule.per_attribute else [None]:
            made = variants_of(
                rule,
                prompt,
                attribute=attribute,
                context=space.context,
                rng=np.random.default_rng(1),
                repeats=10_000,
            )
            pool += [((rule.name, attribute), v) for v in made if isinstance(v, Variant)]
    for n in range(1, most + 1):
        for chosen in combinations(pool, n):
            edits = sorted((e for _, v in chosen for e in v.edits), key=lambda e: (e.start, e.end))
            pairs = pairwise((e.start, e.end) for e in edits)
            apart = all(a[1] <= b[0] and a != b for a, b in pairs)
            if len({kind for kind, _ in chosen}) == n and apart:
                text = apply_edits(prompt.text, edits)
                if text != prompt.text:
                    yield (len(edits), edit_distance(prompt.text, text)), text


@pytest.mark.parametrize(
    ("nothing", "variant", "size"),
    [
        (r"\.$", "small pink round polyp.", (1, 1)),
        (r"!|\t", "small pink round polyp!", (1, 1)),
        (r"[A-Z]{4}", "SMALL PINK ROUND POLYP", (4, 19)),
        (r"ploy|SMALL", "small pink round ployp", (1, 2)),
        (r"circular", "small pink circular polyp", (1, 6)),
    ],
)
def test_a_known_break_is_found_and_is_the_smallest(hunter, nothing, variant, size):
    hunt = hunter("preserved", limit=1, nothing=nothing)
    (outcome,) = hunt.results()
    case = outcome.smallest
    assert outcome.prompt.text == "small pink round polyp"
    assert case.variant == variant
    assert (case.size.edits, case.size.characters) == size
    assert case.figures.dice == 0
    assert case.figures.relative_change_percent == -100
    assert case.search.minimality == ("proven" if size[0] == 1 else "single variants")


@pytest.mark.parametrize(
    "nothing",
    [r"  .*!$", r"\s{2}.*\.\.\.$", r"^\".*[\t\n]", r"[ \t]$|!", r"\n.*\.$", r"  .*  ", r"zebra"],
)
def test_search_agrees_with_trying_everything(hunter, nothing):
    hunt = hunter("preserved", names=["whitespace", "punctuation"], limit=1, nothing=nothing)
    (outcome,) = hunt.results()
    plain = everything(hunt, outcome.sample, outcome.prompt, Kind.PRESERVED)
    broken = sorted(made for made in plain if re.search(nothing, made[1]))

    assert outcome.search.minimality == "proven"
    if not broken:
        assert outcome.smallest is None
        return
    smallest = {text for size, text in broken if size == broken[0][0]}
    assert (outcome.smallest.size.edits, outcome.smallest.size.characters) == broken[0][0]
    assert outcome.smallest.variant in smallest


def test_a_break_of_two_edits_among_all_families(hunter):
    """Neither another shape alone breaks it, nor a mark at the end."""
    hunt = hunter("preserved", limit=1, nothing=r"(?i)^(?!.*round).*polyp[^a-z]", budget=3000)
    (outcome,) = hunt.results()
    assert outcome.smallest is not None
    assert outcome.smallest.size.edits == 2
    assert outcome.smallest.search.minimality == "proven"


def test_the_same_seed_gives_the_same_case_and_the_model_sees_each_text_once(hunter):
    cases = []
    for _ in range(2):
        hunt = hunter("preserved", limit=1, nothing=r"p{2}", seed=3)
        (outcome,) = hunt.results()
        toy = hunt.encoder.model.raw
        assert toy.images_encoded == 1
        assert toy.pairs_decoded == toy.texts_encoded == outcome.search.calls
        assert outcome.search.calls == outcome.search.n_tried + 1
        cases.append(outcome.smallest)
    assert cases[0] == cases[1]


@pytest.mark.parametrize("budget", [2, 5, 40])
def test_the_budget_counts_calls_and_says_when_it_ended(hunter, budget):
    hunt = hunter("preserved", limit=1, budget=budget, nothing="zebra")
    (outcome,) = hunt.results()
    assert outcome.smallest is None
    assert outcome.search.minimality == "unproven"
    assert hunt.encoder.model.raw.pairs_decoded == outcome.search.calls == budget


def test_deaf_breaks_are_found_where_another_target_is_named(hunter, twin_root):
    """The first two samples share an image; the toy finds the bright disc whatever is said."""
    outcomes = list(hunter("deaf", rung="p3").results())
    first, second, *others = outcomes
    assert [o.smallest is not None for o in outcomes] == [True, True] + [False] * 4
    assert first.smallest.variant == second.prompt.text == "white oval polyp"
    assert first.smallest.named_sample_id == second.sample.sample_id
    assert first.smallest.figures.agreement == 1
    assert first.smallest.size.edits == 2
    assert first.smallest.search.minimality == "proven"
    assert {o.reason for o in others} == {"the image has no other target that a prompt names"}


def test_a_model_that_listens_is_not_deaf(hunter, twin_root):
    outcomes = list(hunter("deaf", rung="p3", limit=2, rest="white").results())
    assert [o.reason for o in outcomes] == [None, None]
    assert [o.smallest for o in outcomes] == [None, None]
    assert {o.search.minimality for o in outcomes} == {"proven"}


def test_what_cannot_break_is_skipped_with_a_reason(hunter, twin_root):
    low = next(hunter("preserved", limit=1, nothing="polyp").results())
    blank = next(hunter("deaf", limit=1, nothing="polyp").results())
    empty = next(hunter("preserved", limit=1, rung="p0").results())
    assert low.reason == "baseline too low: Dice 0.000 is below 0.1"
    assert blank.reason == "the mask for its own prompt is empty"
    assert empty.reason == "no perturbation of the families applies"
    assert (low.smallest, blank.smallest, empty.smallest) == (None, None, None)


def test_logits_that_are_not_finite_stop_the_hunt(hunter):
    message = "logits for 'small pink round polyp' are not finite. Every logit must be a finite "
    with pytest.raises(ModelError, match=re.escape(message)):
        list(hunter("preserved", limit=1, bad="polyp").results())


shares = st.floats(0, 1)


@given(shares, shares, shares, st.integers(0, 3))
def test_breaks_by_their_definition(dice_original, dice, moved, n_pred):
    measured = Measurement(dice_original, dice, moved, n_pred)
    fell = dice_original > 0 and (dice - dice_original) / dice_original * 100
    assert is_break(Kind.DEAF, measured) == (n_pred > 0 and moved > DEAF_ABOVE_AGREEMENT)
    if dice_original == 0:
        assert not is_break(Kind.PRESERVED, measured)
    elif abs(fell - BREAK_BELOW_PERCENT) > 1e-9:
        assert is_break(Kind.PRESERVED, measured) == (fell < BREAK_BELOW_PERCENT)


words = st.text("abc ", max_size=8)


@given(words, words, words, words)
def test_size_is_nltks_distance_between_the_whole_texts(before, old, new, after):
    original = before + old + after
    edit = Edit(len(before), len(before) + len(old), old, new)
    assert size_of(original, [edit]) == (1, edit_distance(original, before + new + after))


class Counted:
    """A sample before a model that only counts its calls; the original was the first."""

    def __init__(self):
        self.calls, self.seen = 1, {}

    def knows(self, text):
        return text in self.seen

    def measure(self, text):
        if text not in self.seen:
            self.calls += 1
            self.seen[text] = Measurement(0.8, 0.8, 1.0, 9)
        return self.seen[text]


def test_calls_end_with_the_budget_and_texts_that_were_tried_cost_nothing():
    log = SearchLog(Counted(), SimpleNamespace(kind=Kind.PRESERVED), 5)
    tried = [log.measure(SimpleNamespace(text=text)) for text in ("a", "b", "a", "c", "d", "e")]
    assert [found is None for found in tried] == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("budget", "examples"), [(2, 1), (3, 1), (40, 20), (399, 199), (400, 200), (5000, 200)]
)
def test_hypothesis_has_half_of_the_budget_at_most(monkeypatch, budget, examples):
    """The other half is for trying what is smaller than its break."""
    told = []
    monkeypatch.setattr(search, "_search", lambda *_, examples, fixed_seed: told.append(examples))
    monkeypatch.setattr(search, "_try_all_smaller", lambda *_: search.Minimality.PROVEN)
    space = SimpleNamespace(atoms=["an edit"], kind=Kind.PRESERVED)
    search.find_smallest_break(Counted(), space, budget=budget, fixed_seed=0)
    assert told == [examples]
