"""On the small models that ship: each break is the smallest, by trying everything, plainly."""

import time
from itertools import combinations

import numpy as np
import pytest
import torch
from nltk import edit_distance

from harness.auditing.samples import read_sets
from harness.cards import load_dataset_card, load_model_card, model_names
from harness.commands.hunt import hunting
from harness.data.generators import generate
from harness.data.images import read_image, read_mask
from harness.hunt.evaluator import ImageEncoder
from harness.hunt.hunt import Hunt, HuntConfig, families, replay
from harness.hunt.space import Kind
from harness.model.loading import load_model
from harness.prompts.edits import are_apart
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS, apply_edits, variants_of
from harness.records import Variant

SECONDS = 10
SCENES = 6


def shipped(kind):
    """Small models whose weights are here: for deaf breaks, those that use no word."""
    cards = [load_model_card(name) for name in model_names() if name.startswith("phantom-")]
    return [
        resolved.card.name
        for resolved in cards
        if not resolved.card.control
        and (resolved.path.parent / f"{resolved.card.name}.safetensors").is_file()
        and ("phantom_crowd" in resolved.card.trained_on) == (kind == "preserved")
    ]


def predicted(model, sample, texts):
    """Masks ``(N, H, W)`` for many texts at once, by sigmoid and threshold."""
    pixels = model.adapter.preprocess(read_image(sample.image))[None]
    parts = []
    with torch.inference_mode():
        features = model.adapter.encode_images(pixels)
        for start in range(0, len(texts), 32):
            some = texts[start : start + 32]
            seen = type(features)(*(leaf.repeat_interleave(len(some), 0) for leaf in features))
            logits = model.adapter.decode(seen, model.adapter.encode_texts(some))
            parts.append(logits.double().sigmoid().numpy() > model.card.threshold)
    return np.concatenate(parts)


def overlap(one, other):
    total = one.sum() + other.sum()
    return 1.0 if total == 0 else 2 * (one & other).sum() / total


def pool(space, prompt):
    """Every variant of every rule, by asking those that draw for more than they have."""
    for rule in space.rules:
        for attribute in prompt.values if rule.per_attribute else [None]:
            made = variants_of(
                rule,
                prompt,
                attribute=attribute,
                context=space.context,
                rng=np.random.default_rng(1),
                repeats=100_000,
            )
            yield from (v for v in made if isinstance(v, Variant))


def smallest(hunt, model, sample, prompt, kind):
    """(edits, characters) and texts of the smallest breaks; single variants if preserved."""
    space = hunt.space(sample, prompt, kind)
    variants = list(pool(space, prompt))
    sizes = {}
    for n in range(1, 2 if kind is Kind.PRESERVED else 4):
        for chosen in combinations(variants, n):
            edits = [edit for variant in chosen for edit in variant.edits]
            if n > 1 and not are_apart(edits):
                continue
            text = apply_edits(prompt.text, edits)
            if kind is Kind.PRESERVED or text in space.targets:
                sizes[text] = min(sizes.get(text, len(edits)), len(edits))
    texts = sorted(sizes)
    own, *masks = predicted(model, sample, [prompt.text, *texts])
    truth = torch.from_numpy(read_mask(sample.mask))[None, None].float()
    truth = torch.nn.functional.interpolate(truth, own.shape, mode="nearest-exact")[0, 0].numpy()
    before = overlap(own, truth > 0)
    broken = []
    for text, mask in zip(texts, masks, strict=True):
        fell = overlap(mask, truth > 0) < 0.8 * before
        deaf = mask.any() and overlap(mask, own) > 0.95
        if fell if kind is Kind.PRESERVED else deaf:
            broken.append(((sizes[text], edit_distance(prompt.text, text)), text))
    least = min((size for size, _ in broken), default=None)
    return least, {text for size, text in broken if size == least}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    generate(load_dataset_card("phantom_crowd"), root, sizes={"test": SCENES})
    return root


@pytest.mark.parametrize(
    ("kind", "name", "n"),
    [(Kind.DEAF, name, 3) for name in shipped(Kind.DEAF)]
    + [(Kind.PRESERVED, name, 1) for name in shipped(Kind.PRESERVED)[:1]]
    + [
        pytest.param(Kind.PRESERVED, name, 3, marks=pytest.mark.slow)
        for name in shipped(Kind.PRESERVED)
    ],
)
def test_breaks_are_minimal_fast_and_confirmed(scenes, kind, name, n):
    model = load_model(name, device="cpu")
    suite = hunting(["phantom_crowd"])
    (planned,) = read_sets(suite, scenes, limit=2)
    rules = {kind: families(kind, PERTURBATIONS)}
    encoder = ImageEncoder(model, suite.metric)
    hunt = Hunt(planned, encoder, load_lexicon("curated"), HuntConfig([kind], rules, 1000, 0, 0.1))
    wanted = hunt.prompts()[:n]
    outcomes, started = [], time.process_time()
    for outcome, _ in zip(hunt.results(), wanted, strict=False):
        outcomes.append(outcome)
    seconds = (time.process_time() - started) / len(outcomes)

    for outcome in outcomes:
        least, texts = smallest(hunt, model, outcome.sample, outcome.prompt, kind)
        case = outcome.smallest
        if least is None:
            assert case is None or case.search.minimality != "proven"
            continue
        assert (case.size.edits, case.size.characters) == least
        assert case.variant in texts
        assert replay(case, planned, encoder, where="here").same_scores
    assert any(outcome.smallest for outcome in outcomes)
    assert seconds < SECONDS
