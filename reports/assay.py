"""Writes the assay card, how often verdicts are right on models of known truth: `make calibration`.

Models are the small ones that ship and oracles: functions that know the targets of every picture,
follow the prompt in a set share of them and refuse a set share of the prompts for what is absent.
A tenth of an oracle's masks is off by one pixel, whatever the prompt. Counts of stored runs are
judged again on some of their clusters, drawn for each model alone, with 2,000 draws; no model runs
for it.

Truth comes from how models were made. Oracles: by construction. Models that ship: an attribute is
heard where the card claims it, and not heard by the control and by models that were trained where
every picture holds one target. What is left, attributes that a model was taught and does not claim,
has no known truth and is left out; so is the refusal of models that were taught it in part.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

import harness
from harness import __version__
from harness.auditing.evaluating import Conditions
from harness.auditing.running import run_models
from harness.auditing.samples import read_sets
from harness.cards import ModelCard, load_model_card
from harness.data.images import content_id, read_image, read_mask
from harness.files.writing import write_json
from harness.model.wrapping import WrappedFunction
from harness.report.sheet import table_lines
from harness.runs.store import RunStore
from harness.stats.assay import (
    ASSAY_VERSION,
    CARD,
    GROUPS,
    Count,
    sentences,
    share_text,
    sizes_of,
    total,
)
from harness.stats.assessment import assess, signature_of
from harness.stats.language import LanguageVerdict
from harness.stats.pairs import ModelFacts, assessed
from harness.suite.schema import Suite

PAIRS, CROWD = "phantom_pairs", "phantom_crowd"
ONE_TARGET = {"phantom_solo"}
SIZES = {PAIRS: (20, 30, 40), CROWD: (20, 30, 50, 120)}
STRENGTHS = (0.0, 0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
REFUSALS = (0.0, 0.5, 0.7, 0.6, 0.9, 0.95, 1.0)
SEEDS = range(3)
JITTER, DRAWS = 0.1, 2_000

Mask = NDArray[np.bool_]
Targets = Mapping[str, Mapping[str, Mask]]


class Oracle:
    """A function that hears its prompt in a share of the pictures, and refuses what is absent."""

    def __init__(self, targets: Targets, hears: float, refuses: float, seed: int) -> None:
        self.targets, self.hears, self.refuses, self.seed = targets, hears, refuses, seed

    def __call__(self, image: NDArray[np.uint8], prompt: str) -> Mask:
        """The mask of the prompt's target, of all targets, or of none; ``(H, W)``."""
        key = content_id(image)
        own = self.targets[key]
        if prompt not in own and self._chance(key, prompt, "refuses") < self.refuses:
            return np.zeros(image.shape[:2], dtype=bool)
        is_heard = prompt in own and self._chance(key, "hears") < self.hears
        mask = own[prompt] if is_heard else np.any(list(own.values()), axis=0)
        return np.roll(mask, 1, axis=1) if self._chance(key, prompt, "off") < JITTER else mask

    def _chance(self, *words: str) -> float:
        text = "\0".join([str(self.seed), *words]).encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:7], "big") / (1 << 56)


def oracles(suite: Suite, root: Path) -> dict[str, tuple[WrappedFunction, float, float]]:
    """Every oracle with its strengths, by name."""
    targets: dict[str, dict[str, Mask]] = {}
    for planned in read_sets(suite, root):
        for sample in planned.samples:
            own = targets.setdefault(content_id(read_image(sample.image)), {})
            for prompt in sample.prompts[planned.prompt_type]:
                own[prompt.text] = read_mask(sample.mask)
    found = {}
    for k, (hears, refuses) in enumerate(zip(STRENGTHS, REFUSALS, strict=True)):
        for seed in SEEDS:
            name = f"oracle-{k}-{seed}"
            wrapped = harness.wrap(Oracle(targets, hears, refuses, 10 * k + seed), name=name)
            found[name] = (wrapped, hears, refuses)
    return found


def assay(calibration: RunStore, suite: Suite, *, root: Path, out: Path) -> list[Count]:
    """Run the oracles, judge all models by number of clusters, and count."""
    asked = [p for p in suite.probes if p.name in {"antonym", "swap_value"} or "absent" in p.name]
    own = [d for d in suite.datasets if d.name in SIZES]
    changed = {"name": "assay", "probes": asked, "datasets": own, "out_of_distribution": False}
    changed["statistics"] = suite.statistics.model_copy(update={"draws": DRAWS})
    suite = suite.model_copy(update=changed)
    known = oracles(suite, root)
    models = [(wrapped, None) for wrapped, _, _ in known.values()]
    store = run_models(suite, models, root=root, out=out, conditions=Conditions(kept_masks=0))
    counted: Counter[tuple[str, str, float | None, int, str]] = Counter()
    for facts in assessed(calibration.manifest):
        card = load_model_card(facts.name).card
        for size, verdict in judged(calibration, facts, suite):
            counted.update((*key, size, outcome) for key, outcome in of_card(card, verdict))
    for facts in assessed(store.manifest):
        _, hears, refuses = known[facts.name]
        for size, verdict in judged(store, facts, suite):
            counted.update(
                (*key, size, outcome) for key, outcome in of_oracle(hears, refuses, verdict, suite)
            )
    return counts(counted)


Outcome = tuple[tuple[str, str, float | None], str]


def of_card(card: ModelCard, verdict: LanguageVerdict) -> Iterator[Outcome]:
    """Kind, truth and strength of what is known of a model that ships, and what was said of it."""
    cannot = card.control or set(card.trained_on) <= ONE_TARGET
    if verdict.dataset == PAIRS:
        for attribute, state in states(verdict):
            if attribute in (card.uses or ()) or cannot:
                truth = "yes" if attribute in (card.uses or ()) else "no"
                yield ("attribute", truth, None), outcome(state, truth)
    elif "absent_percent" not in str(card.training):
        yield ("refusal", "no", None), outcome(verdict.refusal, "no")


def of_oracle(
    hears: float, refuses: float, verdict: LanguageVerdict, suite: Suite
) -> Iterator[Outcome]:
    """The same of an oracle."""
    if verdict.dataset == PAIRS:
        truth = "yes" if hears else "no"
        for _, state in states(verdict):
            yield ("attribute", truth, hears), outcome(state, truth)
    else:
        truth = "yes" if refuses > suite.statistics.least_refusal else "no"
        yield ("refusal", truth, refuses), outcome(verdict.refusal, truth)


def states(verdict: LanguageVerdict) -> Iterator[tuple[str, str]]:
    """Each attribute with what is said of it."""
    for state in ("heard", "unheard", "unclear"):
        yield from ((attribute, state) for attribute in getattr(verdict, state))


SAYS = {"heard": "yes", "unheard": "no", "refuses": "yes", "hallucinates": "no"}


def outcome(said: str, truth: str) -> str:
    """``right``, ``wrong`` or ``undecided``."""
    return "undecided" if said not in SAYS else "right" if SAYS[said] == truth else "wrong"


def judged(
    store: RunStore, facts: ModelFacts, suite: Suite
) -> Iterator[tuple[int, LanguageVerdict]]:
    """Verdicts on one model from some of its clusters, beside their number in each set."""
    probes = ["original", *(probe.name for probe in suite.probes)]
    whole = store.plan_cases().filter(pl.col("probe").is_in(probes))
    scores = store.scores().filter(pl.col("model_id") == facts.model_id)
    for dataset, sizes in SIZES.items():
        keys = ["split", "cluster_id"]
        own = whole.filter(pl.col("dataset") == dataset)
        clusters = own.select(keys).unique().sort(keys)
        for size in sizes:
            seed = int.from_bytes(hashlib.sha256(f"{facts.name} {size}".encode()).digest()[:4])
            kept = clusters.filter(pl.int_range(pl.len()).shuffle(seed).over("split") < size)
            plan = own.join(kept, on=keys, how="semi")
            found = assess(
                plan,
                scores.filter(pl.col("case_id").is_in(plan["case_id"].implode())),
                models=[facts],
                not_applicable=store.not_applicable().clear(),
                suite=suite,
                cluster_kinds=store.manifest["cluster_kinds"],
                texts=store.texts(),
            )
            yield from ((size, verdict) for verdict in found.language)


def counts(counted: Mapping[tuple[str, str, float | None, int, str], int]) -> list[Count]:
    """One row a (kind, truth, strength, number of clusters)."""
    rows = sorted({key[:4] for key in counted}, key=lambda k: (k[0], k[1], k[3], k[2] or 0, str(k)))
    found = []
    for kind, truth, strength, size in rows:
        own = {o: counted.get((kind, truth, strength, size, o), 0) for o in ("right", "wrong")}
        n = sum(v for key, v in counted.items() if key[:4] == (kind, truth, strength, size))
        found.append(Count(kind, truth, strength, size, n, **own))
    return found


def write(rows: list[Count], suite: Suite) -> None:
    """Write the card that ships."""
    settings = suite.statistics.model_copy(update={"draws": DRAWS})
    content = {"version": ASSAY_VERSION, "harness": __version__, "verdicts": signature_of(settings)}
    content |= {"n_verdicts": sum(row.n for row in rows), "sentences": list(sentences(rows))}
    write_json(CARD, content | {"rows": [row._asdict() for row in rows]})


def page(rows: list[Count]) -> list[str]:
    """The card as Markdown."""
    lines = ["## How often verdicts are right", "", *_HOW]
    for kind, title in _TITLES.items():
        own = [row for row in rows if row.kind == kind]
        lines += ["", title, "", *_by_truth(own, kind), "", *_by_strength(own, kind)]
    return lines


def _by_truth(rows: list[Count], kind: str) -> Iterator[str]:
    cells = []
    for group in (g for g in GROUPS if g.kind == kind):
        for size in sizes_of(rows, kind):
            one = total(rows, group, size)
            share = share_text(one.right, one.n)
            cells.append(
                (group.name, *map(str, (size, one.right, one.wrong, one.undecided)), share)
            )
    header = ("truth", "clusters", "called so", "the opposite", "cannot tell", "called so [95 %]")
    yield from table_lines(header, cells, n_text=1)


def _by_strength(rows: list[Count], kind: str) -> Iterator[str]:
    sizes = sizes_of(rows, kind)
    cells = {row[1:4]: f"{row.right} of {row.n}" for row in rows}
    made = dict.fromkeys((row.truth, row.strength) for row in rows)
    header = ("called so, of models that", *(f"{size} clusters" for size in sizes))
    body = [(_made(kind, *one), *(cells[(*one, size)] for size in sizes)) for one in made]
    yield from table_lines(header, body, n_text=1)


def _made(kind: str, truth: str, strength: float | None) -> str:
    verb = "hear the word" if kind == "attribute" else "refuse"
    if strength is None:
        return f"ship and {verb if truth == 'yes' else f'do not {verb}'}"
    return f"are oracles and {verb} in {100 * strength:.0f} %"


_TITLES = {
    "attribute": "Single words, *heard* or *unheard*, in `phantom_pairs`:",
    "refusal": "Prompts for what is not there, *refuses* or *hallucinates*, in `phantom_crowd`:",
}
_HOW = (
    "Verdicts on models whose truth is known from how they were made: the cards of those that ship",
    "(a claim is a change of -60 % or more, measured once on these scenes without a test; the",
    "control and models trained on one target a picture cannot hear), and oracles that follow the",
    "deciding word in a set share of the pictures and refuse a set share of prompts, a tenth of",
    "their masks one pixel off. Attributes that a model was taught and does not claim have no",
    "known truth and are left out, as is the refusal of two models that were taught it in part.",
    "",
    "*Called so* is the sensitivity where the model hears (or refuses more than the verdict's",
    "bound of 80 %), and the specificity where it does not. *Cannot tell* counts against it; *the",
    "opposite* is a wrong verdict. Clusters are drawn anew for each model. Limits are exact",
    "(Clopper and Pearson's) for independent cases; models share pictures: they are too narrow.",
)
