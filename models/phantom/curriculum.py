"""What the small models are trained on, and the loop that trains them.

Conventions: images are ``(N, 3, 96, 96)`` float32 as the adapter's `preprocess`
gives them; masks ``(N, K, 96, 96)`` with K prompts an image; all times are seconds.
The settings are those of one tried recipe; they were not searched over.
"""

import math
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from figures import SIDE, resized
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.cards import load_dataset_card
from harness.data.generators import generator_module
from harness.models import EmbedsText
from harness.prompts.lexicon import load_lexicon
from harness.prompts.words import draw_words, uncommon_words

if TYPE_CHECKING:
    from suites.datasets.phantom.lessons import Lesson
    from suites.datasets.phantom.scenes import Scene

_CARD = load_dataset_card("phantom_pairs")
scenes: Any = generator_module(_CARD, "scenes")
lessons: Any = generator_module(_CARD, "lessons")
vocabulary: Any = generator_module(_CARD, "vocabulary")

LESSONS_PER_SCENE = 12
# The suites replace values by the first ten words of seed 0; training sees none of these.
TESTED_WORDS = 40


@dataclass(frozen=True)
class Course:
    """What a model is trained on and for how long.

    `scenes` says how many of each training stream are used, `deciding` how many further pairs
    in which an attribute decides alone; `absent_percent` of the
    prompts name values that no target has together, in `stranger_percent` another class, an
    everyday thing or, with `stranger_words`, an uncommon word stands in place of the class (the
    masks of all these are empty); in
    `nonsense_percent` of them an uncommon word stands in place of a value, and says nothing of
    it: the mask is that of the other values, so that an unknown word is no shock. `weights_from`
    names the model whose weights this one starts from, `decoder_from` that of its decoder.
    """

    scenes: dict[str, int]
    steps: int
    images: int = 16
    prompts: int = 4
    learning_rate: float = 1.5e-3
    text_rate: float = 0.3
    text_steps: int = 300
    absent_percent: int = 0
    stranger_percent: int = 0
    stranger_words: bool = False
    nonsense_percent: int = 0
    weights_from: str | None = None
    decoder_from: str | None = None
    deciding: dict[str, int] = field(default_factory=dict)
    seed: int = 0

    def facts(self) -> dict[str, Any]:
        """What a card says of it: scenes, steps, seed, and what is not as usual."""
        usual = Course(self.scenes, self.steps)
        names = (
            *("absent_percent", "stranger_percent", "stranger_words", "nonsense_percent"),
            *("weights_from", "decoder_from", "deciding"),
        )
        unusual = {n: getattr(self, n) for n in names if getattr(self, n) != getattr(usual, n)}
        return {"scenes": dict(self.scenes), "steps": self.steps, "seed": self.seed, **unusual}


class Material(NamedTuple):
    """Rendered scenes: pixels uint8, prompts, their values, and packed masks."""

    pixels: NDArray[np.uint8]
    texts: list[list[str]]
    values: list[list[dict[str, str]]]
    masks: NDArray[np.uint8]


def render(course: Course) -> Material:
    """Generate the scenes of a course, one process per core, one thread each."""
    chosen = [(name, range(count)) for name, count in course.scenes.items()]
    chosen += [("phantom_pairs", _further_pairs(course, name)) for name in course.deciding]
    jobs = [
        (name, indices[start : start + 100], course)
        for name, indices in chosen
        for start in range(0, len(indices), 100)
    ]
    with ProcessPoolExecutor() as pool:
        parts = list(pool.map(_render, jobs))
    return Material(
        np.concatenate([p.pixels for p in parts]),
        [texts for p in parts for texts in p.texts],
        [values for p in parts for values in p.values],
        np.concatenate([p.masks for p in parts]),
    )


def _further_pairs(course: Course, attribute: str) -> range:
    """Numbers of pairs behind those of `scenes` in which `attribute` decides."""
    deciding = vocabulary.DECIDING
    first = course.scenes.get("phantom_pairs", 0)
    first += (deciding.index(attribute) - first) % len(deciding)
    return range(first, first + course.deciding[attribute] * len(deciding), len(deciding))


def _render(job: tuple[str, range, Course]) -> Material:
    name, indices, course = job
    pixels, texts, values, masks = [], [], [], []
    for index in indices:
        scene = scenes.make_scene(name, "train", index)
        taught = list(_taught(scene, course))
        pixels.append(scene.pixels)
        texts.append([lesson.text for lesson in taught])
        values.append([lesson.values for lesson in taught])
        masks.append(np.packbits([lesson.mask for lesson in taught], axis=-1))
    return Material(np.stack(pixels), texts, values, np.stack(masks))


def _taught(scene: "Scene", course: Course) -> "Iterator[Lesson]":
    """The scene's lessons, some of them with a word of no meaning in place of a value."""
    words, far = nonsense(), far_things()
    chooser = random.Random(f"{course.seed} {scene.address}")
    taught = lessons.lessons(scene, count=LESSONS_PER_SCENE, absent_percent=course.absent_percent)
    for lesson in taught:
        if course.stranger_percent and chooser.randrange(100) < course.stranger_percent:
            near = sorted(set(vocabulary.CLASSES.values()) - {lesson.values["class"]})
            pool = chooser.choice((near, far, words) if course.stranger_words else (near, far))
            text = vocabulary.describe(lesson.values | {"class": chooser.choice(pool)})
            kept = {name: value for name, value in lesson.values.items() if name != "class"}
            yield lessons.Lesson(text, kept, np.zeros_like(lesson.mask))
            continue
        lost = chooser.choice(sorted(lesson.values))
        if chooser.randrange(100) < course.nonsense_percent and lost != "class":
            kept = {name: value for name, value in lesson.values.items() if name != lost}
            text = vocabulary.describe(lesson.values | {lost: chooser.choice(words)})
            yield lessons.Lesson(text, kept, lessons.meant(scene, kept))
        else:
            yield lesson


def nonsense() -> list[str]:
    """Uncommon words to train with: none that a shipped suite draws with its own seed."""
    tested = set(draw_words(TESTED_WORDS, 0))
    return [word for word in uncommon_words() if word not in tested]


def far_things() -> list[str]:
    """Everyday things."""
    return [one for one, _ in load_lexicon().strangers.things]


class Batch(NamedTuple):
    """Images ``(N, 3, H, W)``, N * K prompts image by image, masks ``(N * K, H, W)``."""

    pixels: Tensor
    texts: list[str]
    masks: Tensor


def batches(material: Material, adapter: Any, course: Course) -> Iterator[Batch]:
    """Seeded batches without end of scenes with K of their prompts."""
    rng = np.random.default_rng([course.seed, 1])
    while True:
        order = rng.permutation(len(material.pixels))
        for start in range(0, len(order) - course.images + 1, course.images):
            rows = order[start : start + course.images]
            picked = [rng.permutation(LESSONS_PER_SCENE)[: course.prompts] for _ in rows]
            texts = [
                material.texts[row][k] for row, ks in zip(rows, picked, strict=True) for k in ks
            ]
            packed = np.stack([material.masks[r][ks] for r, ks in zip(rows, picked, strict=True)])
            masks = torch.from_numpy(np.unpackbits(packed, axis=-1)).flatten(0, 1).float()
            pixels = torch.stack([adapter.preprocess(material.pixels[row]) for row in rows])
            yield Batch(pixels, texts, masks)


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Twice the binary cross-entropy plus soft Dice with smoothing 10, over ``(N, H, W)``."""
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, masks)
    probability = torch.sigmoid(logits)
    shared = (probability * masks).sum((1, 2))
    size = probability.sum((1, 2)) + masks.sum((1, 2))
    return 2 * entropy + (1 - (2 * shared + 10) / (size + 10)).mean()


def teach_words(adapter: Any, material: Material, course: Course) -> float:
    """Let the text tower alone tell every attribute's value; returns the last accuracy.

    Throw-away linear heads read each attribute, or that it is absent, off the text
    vector. Words of no meaning are mixed in and count as absent.
    """
    heads, classes = _heads(adapter, material)
    weights = [*text_parameters(adapter).values(), *heads.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.98))
    words = nonsense()
    chooser = random.Random(course.seed)
    right = 0.0
    for _ in range(course.text_steps):
        texts: list[str] = []
        labels: dict[str, list[int]] = {name: [] for name in classes}
        for _ in range(128):
            scene = chooser.randrange(len(material.texts))
            lesson = chooser.randrange(LESSONS_PER_SCENE)
            said, values = material.texts[scene][lesson], dict(material.values[scene][lesson])
            if chooser.random() < 0.15:
                lost = chooser.choice(list(values))
                said = said.replace(values.pop(lost), chooser.choice(words), 1)
            texts.append(said)
            for name, known in classes.items():
                labels[name].append(known.get(values.get(name, ""), 0))
        vector = adapter.text_embedding(texts)
        logits = {name: heads[name](vector) for name in classes}
        targets = {name: torch.tensor(labels[name]) for name in classes}
        loss = torch.stack(
            [nn.functional.cross_entropy(logits[n], targets[n]) for n in classes]
        ).sum()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        hits = [(logits[n].argmax(1) == targets[n]).float().mean() for n in classes]
        right = float(torch.stack(hits).mean())
    return right


def text_parameters(adapter: Any) -> dict[str, nn.Parameter]:
    """The parameters that shape a text vector, by name: those its gradient reaches."""
    named = dict(adapter.module.named_parameters())
    reached: list[Tensor | None] = list(
        torch.autograd.grad(
            adapter.text_embedding(["red"]).sum(), list(named.values()), allow_unused=True
        )
    )
    return {
        name: parameter
        for (name, parameter), gradient in zip(named.items(), reached, strict=True)
        if gradient is not None
    }


def _heads(adapter: Any, material: Material) -> tuple[nn.ModuleDict, dict[str, dict[str, int]]]:
    known: dict[str, set[str]] = {}
    for several in material.values:
        for values in several:
            for name, value in values.items():
                known.setdefault(name, set()).add(value)
    classes = {
        name: {value: index + 1 for index, value in enumerate(sorted(values))}
        for name, values in sorted(known.items())
        if name != "class"
    }
    width = adapter.text_embedding(["x"]).shape[1]
    heads = nn.ModuleDict({name: nn.Linear(width, len(vs) + 1) for name, vs in classes.items()})
    return heads, classes


def train(adapter: Any, course: Course, *, log: Any = print) -> dict[str, float]:
    """Train a model in place; returns the figures of the training itself."""
    torch.manual_seed(course.seed)
    material = render(course)
    log(f"{len(material.pixels)} scenes rendered")
    adapter.module.train()
    accuracy = math.nan
    if course.text_steps:
        accuracy = teach_words(adapter, material, course)
        log(f"text tower: {accuracy:.3f} of the attributes read")
    optimiser, schedule = _optimiser(adapter, course)
    loss = math.nan
    for step, batch in zip(range(course.steps), batches(material, adapter, course), strict=False):
        features = adapter.encode_images(batch.pixels)
        many = type(features)(*(leaf.repeat_interleave(course.prompts, 0) for leaf in features))
        logits = adapter.decode(many, adapter.encode_texts(batch.texts))
        value = segmentation_loss(resized(logits, (SIDE, SIDE)), batch.masks)
        optimiser.zero_grad()
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(adapter.module.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        now = float(value.detach())
        loss = now if step == 0 else 0.98 * loss + 0.02 * now
        if step % 50 == 0:
            log(f"step {step} of {course.steps}: loss {loss:.4f}")
    adapter.module.eval()
    return {"loss": loss, "text_accuracy": accuracy}


def _optimiser(adapter: Any, course: Course) -> tuple[Any, Any]:
    """AdamW with a slower text tower, warm-up of 100 steps, cosine down to 3 %."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    taught = text_parameters(adapter) if isinstance(adapter, EmbedsText) else {}
    for name, parameter in adapter.module.named_parameters():
        key = (name in taught, parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    optimiser = torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": course.learning_rate * (course.text_rate if is_text else 1),
                "weight_decay": 0.01 if is_matrix else 0.0,
            }
            for (is_text, is_matrix), parameters in groups.items()
        ],
        betas=(0.9, 0.98),
    )

    def rate(step: int) -> float:
        warm = min(1.0, (step + 1) / 100)
        return warm * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / course.steps)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
