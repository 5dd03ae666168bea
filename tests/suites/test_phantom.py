"""The phantom scenes: frozen, apart from each other, and decided by what they claim."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cards import load_dataset_card
from harness.data.generators import generate, generator_module, load_generator
from harness.data.images import read_image, read_mask
from harness.data.layout import load_samples
from harness.errors import DataError
from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon

CARD = load_dataset_card("phantom_crowd")
arrangement, draws, fields, frozen, lesions, lessons_, looks, scenes_, skin, vocabulary = (
    generator_module(CARD, name)
    for name in (
        *("arrangement", "draws", "fields", "frozen", "lesions", "lessons", "looks", "scenes"),
        *("skin", "vocabulary"),
    )
)
DATASETS, SPLITS = arrangement.DATASETS, arrangement.SPLITS
COLORS, COUNTS, DECIDING = vocabulary.COLORS, vocabulary.COUNTS, vocabulary.DECIDING
LOCATIONS, RUNGS = vocabulary.LOCATIONS, vocabulary.RUNGS
SHAPES, SIZES = vocabulary.SHAPES, vocabulary.SIZES
describe, lessons, make_scene = vocabulary.describe, lessons_.lessons, scenes_.make_scene
Stream, balanced, sequence = draws.Stream, draws.balanced, draws.sequence
digest, meant, RADII = frozen.digest, lessons_.meant, lesions.RADII
PREFIX_SCENES = frozen.PREFIX_SCENES
TEST_SCENES = generator_module(CARD, "generator").TEST_SCENES

GRAMMARS = {dataset: load_grammar(dataset) for dataset in DATASETS}
SIZES_SMALL = {"phantom_solo": 6, "phantom_crowd": 6, "phantom_pairs": 10}


@pytest.fixture(scope="module")
def scenes():
    """The released test sets and the beginnings of the other streams, by set and split."""
    found = {}
    for dataset in DATASETS:
        sizes = {"train": PREFIX_SCENES, "val": PREFIX_SCENES, "test": TEST_SCENES[dataset]}
        for split, count in sizes.items():
            found[dataset, split] = [make_scene(dataset, split, i) for i in range(count)]
    return found


def of(scenes, dataset):
    return chain.from_iterable(several for (name, _), several in scenes.items() if name == dataset)


def everything(scenes):
    return chain.from_iterable(scenes.values())


def dice(predicted, target):
    return 2 * int((predicted & target).sum()) / int(predicted.sum() + target.sum())


def prompt(scene, group, rung):
    grammar = GRAMMARS[scene.address.dataset]
    return grammar.render(rung, {name: group[name] for name in scene.named_at(rung)})


# Frozen: the same pixels on every machine.


def test_the_generator_is_the_frozen_one():
    assert frozen.current() == frozen.frozen(), (
        "the generator draws other scenes than those the shipped models were trained and "
        "measured on: undo the change, or train and measure again and call frozen.freeze()"
    )


def test_a_grey_step_in_one_color_is_noticed(monkeypatch):
    before = digest("phantom_solo", "test", 12)
    monkeypatch.setitem(skin.COLORS, "red", (185.0, 56.0, 56.0))

    assert digest("phantom_solo", "test", 12) != before


def test_pixels_do_not_depend_on_the_processor():
    """numpy without its vector units and a BLAS for old processors give the same digest."""
    script = (
        "from harness.cards import load_dataset_card as load\n"
        "from harness.data.generators import generator_module\n"
        "digest = generator_module(load('phantom_crowd'), 'frozen').digest\n"
        "print(*(digest(d, 'train', 6) for d in ('phantom_solo', 'phantom_crowd')))"
    )
    off = "AVX2 FMA3 AVX512F AVX512_SKX X86_V3 X86_V4"  # each numpy knows some of these names
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": off},
        capture_output=True,
        text=True,
        check=True,
    )
    here = [digest(d, "train", 6) for d in ("phantom_solo", "phantom_crowd")]
    assert run.stdout.split() == here


def test_a_scene_is_a_pure_function_of_its_address():
    first, again = make_scene("phantom_crowd", "val", 7), make_scene("phantom_crowd", "val", 7)
    other = make_scene("phantom_crowd", "val", 7, seed=1)

    assert np.array_equal(first.pixels, again.pixels)
    assert first.groups == again.groups
    assert not np.array_equal(first.pixels, other.pixels)


# Streams that cannot meet.


def test_no_two_streams_share_a_seed():
    purposes = (arrangement.PLACES, arrangement.LOOKS, arrangement.PROMPTS)
    addresses = [arrangement.Address(d, s, i) for d in DATASETS for s in SPLITS for i in range(150)]
    keys = [a.key(purpose) for a in addresses for purpose in purposes]
    states = {tuple(sequence(0, key).generate_state(4)) for key in keys}

    assert len(states) == len(keys)


def test_no_two_scenes_share_a_mask_or_a_background(scenes):
    all_scenes = list(everything(scenes))
    corners = Counter(s.pixels[28:40, 28:40].tobytes() for s in all_scenes)
    masks = Counter(mask.tobytes() for s in all_scenes for mask in s.masks)

    assert max(corners.values()) == 1
    assert max(masks.values()) == 1


def test_backgrounds_of_train_and_test_are_unrelated():
    """The trial's sets shared coarse backgrounds: correlation of .58 against .36 for others."""
    coarse = {
        split: [
            make_scene("phantom_solo", split, i).pixels.reshape(8, 12, 8, 12, 3).mean(axis=(1, 3))
            for i in range(45)
        ]
        for split in ("train", "test")
    }
    same_index = [_correlation(*pair) for pair in zip(*coarse.values(), strict=True)]
    shifted = [
        _correlation(a, b)
        for a, b in zip(coarse["train"], coarse["test"][1:] + coarse["test"][:1], strict=True)
    ]

    assert abs(np.mean(same_index) - np.mean(shifted)) < 0.15
    assert max(same_index) < 0.97


def _correlation(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


# What stands in a scene.


def test_masks_are_disjoint_large_enough_and_inside_what_is_visible(scenes):
    for scene in everything(scenes):
        assert scene.masks.sum(axis=0).max() == 1
        assert scene.masks.sum(axis=(1, 2)).min() >= 60
        for y, x in np.argwhere(scene.masks.any(axis=0)):
            assert looks.CLEARANCE[scene.modality](x + 0.5, y + 0.5) > 0


def test_ultrasound_is_grey_and_the_others_are_not(scenes):
    for scene in everything(scenes):
        gray = (scene.pixels == scene.pixels[..., :1]).all()
        assert gray == (scene.modality == "ultrasound")


def test_sizes_are_far_apart(scenes):
    areas = {size: [] for size in SIZES}
    for scene in everything(scenes):
        for group, mask in zip(scene.values, scene.masks, strict=True):
            if group["number"] == "one":
                areas[group["size"]].append(int(mask.sum()))

    assert max(areas["small"]) * 1.4 < min(areas["medium"])
    assert max(areas["medium"]) * 1.4 < min(areas["large"])
    assert [low * 1.5 < high for low, high in zip(*_edges(), strict=True)] == [True, True]


def _edges():
    return [RADII[s][1] ** 2 for s in SIZES[:2]], [RADII[s][0] ** 2 for s in SIZES[1:]]


def test_the_word_of_a_place_is_where_the_mask_is(scenes):
    for scene in everything(scenes):
        for group, mask in zip(scene.values, scene.masks, strict=True):
            row, column = (int(np.argwhere(mask)[:, axis].mean() // 32) for axis in (0, 1))
            assert LOCATIONS[3 * row + column] == group["location"]


def test_a_group_has_as_many_lesions_as_its_number_says(scenes):
    for scene in everything(scenes):
        for group, mask in zip(scene.groups, scene.masks, strict=True):
            assert len(group.lesions) == COUNTS[group.traits.number] == _components(mask)


def _components(mask):
    """Four-connected components, by flooding."""
    left, count = set(map(tuple, np.argwhere(mask))), 0
    while left:
        count, front = count + 1, [left.pop()]
        while front:
            y, x = front.pop()
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            front.extend(near)
    return count


def test_shapes_differ_in_how_they_fill_their_box(scenes):
    """Elongation tells ovals, the share of the smallest enclosing circle tells squares."""
    seen = {shape: [] for shape in SHAPES}
    for scene in everything(scenes):
        for group, mask in zip(scene.values, scene.masks, strict=True):
            if group["number"] == "one":
                points = np.argwhere(mask) - np.argwhere(mask).mean(axis=0)
                small, large = np.sqrt(np.linalg.eigvalsh(points.T @ points))
                roundness = mask.sum() / (np.pi * ((points**2).sum(axis=1).max()))
                seen[group["shape"]].append((large / small, roundness))
    long = {shape: np.array(values)[:, 0] for shape, values in seen.items()}
    full = {shape: np.array(values)[:, 1] for shape, values in seen.items()}

    assert long["oval"].min() > 1.6 > 1.4 > max(long["circle"].max(), long["square"].max())
    assert np.median(full["square"]) < 0.72 < 0.82 < np.median(full["circle"])
    assert np.mean(full["square"] < 0.8) > 0.97
    assert np.mean(full["circle"] > 0.8) > 0.9


def test_solo_shows_one_lesion_and_crowds_two_to_four_groups(scenes):
    assert {len(s.groups) for s in of(scenes, "phantom_solo")} == {1}
    assert {len(s.groups) for s in of(scenes, "phantom_crowd")} == {2, 3, 4}
    assert {len(s.groups) for s in of(scenes, "phantom_pairs")} == {2}


def test_a_full_prompt_names_exactly_one_group(scenes):
    for scene in everything(scenes):
        texts = [prompt(scene, group, "p6") for group in scene.values]
        assert len(set(texts)) == len(texts)


def test_every_crowd_holds_two_groups_that_differ_in_one_attribute_and_their_place(scenes):
    seen = Counter()
    for scene in of(scenes, "phantom_crowd"):
        differences = [
            frozenset(k for k in a if a[k] != b[k] and k != "location")
            for a, b in combinations(scene.values, 2)
        ]
        assert min(map(len, differences)) <= 1
        seen.update(min(differences, key=len) or {"location"})
    assert set(seen) == set(DECIDING)
    assert seen["location"] > sum(seen.values()) / 5


def test_attributes_are_balanced(scenes):
    """Leading groups follow permuted blocks: exact within a modality up to a block's rest."""
    solo = scenes["phantom_solo", "test"]
    assert set(Counter(s.modality for s in solo).values()) == {40}
    for modality, colors in COLORS.items():
        own = [s.values[0] for s in solo if s.modality == modality]
        for name, values in {"size": SIZES, "shape": SHAPES, "color": colors}.items():
            counts = Counter(group[name] for group in own)
            assert set(counts) == set(values)
            assert max(counts.values()) - min(counts.values()) <= 1
    pairs = Counter(s.decides for s in scenes["phantom_pairs", "test"])
    assert pairs == dict.fromkeys(DECIDING, 40)


@given(st.integers(1, 9), st.integers(0, 50))
def test_balanced_series_hold_every_item_once_a_block(size, block):
    series = [
        balanced(3, (9, size), block * size + i, items=list(range(size))) for i in range(size)
    ]

    assert sorted(series) == list(range(size))


# Language decides, and nothing but language.


def test_pairs_differ_in_the_deciding_attribute_alone(scenes):
    for scene in of(scenes, "phantom_pairs"):
        first, second = scene.values
        assert {k for k in first if first[k] != second[k]} - {"location"} == (
            {scene.decides} - {"location"}
        )
        assert (scene.decides == "location") == ("location" in scene.named_at("p6"))


def test_the_antonym_of_a_pairs_prompt_is_byte_for_byte_the_others(scenes):
    lexicon, grammar = load_lexicon("curated"), GRAMMARS["phantom_pairs"]
    for scene in of(scenes, "phantom_pairs"):
        texts = [prompt(scene, group, "p6") for group in scene.values]
        for text, other in (texts, texts[::-1]):
            span = grammar.parse(text, prompt_type="p6").span(scene.decides)
            opposite = lexicon.opposite(scene.decides, span.value)
            assert text[: span.start] + str(opposite) + text[span.end :] == other


def test_opposites_are_those_of_the_lexicon():
    lexicon = load_lexicon("curated")
    pairs = [(name, pair) for name, several in vocabulary.OPPOSITES.items() for pair in several]
    pairs += [("color", pair) for pair in vocabulary.COLOR_OPPOSITES.values()]
    for name, (one, other) in pairs:
        assert (lexicon.opposite(name, one), lexicon.opposite(name, other)) == (other, one)
    for cell in LOCATIONS:
        assert lexicon.opposite("location", cell) == vocabulary.opposite_cell(cell)


@given(st.data())
def test_no_mask_that_ignores_the_prompt_exceeds_two_thirds_on_a_pair(data):
    """Any mask at all: random pixels of both targets and of the ground."""
    scene = make_scene("phantom_pairs", "val", data.draw(st.integers(0, 39)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shares = [data.draw(st.floats(0, 1)) for _ in range(3)]
    shares[2] /= 50
    first, second = scene.masks
    where = np.select([first, second], shares[:2], default=shares[2])
    mask = rng.random(where.shape) < where
    mask |= np.roll(first, 1, axis=0) & (shares[0] > 0.8)

    assert (dice(mask, first) + dice(mask, second)) / 2 <= 2 / 3


def test_unions_of_targets_stay_below_the_bounds(scenes):
    """Every union of a scene's masks: at most 2/(n + 1) for n targets; sets below theirs."""
    best = {"phantom_pairs": [], "phantom_crowd": []}
    for dataset, found in best.items():
        for scene in scenes[dataset, "test"]:
            n = len(scene.masks)
            chosen = chain.from_iterable(combinations(range(n), k) for k in range(1, n + 1))
            unions = [scene.masks[list(several)].any(axis=0) for several in chosen]
            means = [np.mean([dice(union, mask) for mask in scene.masks]) for union in unions]
            assert max(means) <= 2 / (n + 1) + 1e-12
            found.extend([max(means)] * n)

    assert 0.60 < np.mean(best["phantom_pairs"]) < 0.67
    assert np.mean(best["phantom_crowd"]) < 0.52


# Prompts.


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_word_of_the_vocabulary_stands_on_the_card(dataset):
    rules = load_dataset_card(dataset).grammar.attributes
    colors = {color for several in COLORS.values() for color in several}

    assert set(rules["color"].values) == colors
    assert set(rules["size"].values) == set(SIZES)
    assert set(rules["shape"].values) == set(SHAPES)
    assert set(rules["number"].values) == set(COUNTS)
    assert set(rules["location"].values) == set(LOCATIONS)


def test_prompts_have_the_form_of_the_paper():
    scene = make_scene("phantom_solo", "test", 0)
    texts = [prompt(scene, scene.values[0], rung) for rung in RUNGS]

    assert texts == [
        "",
        "polyp",
        "circle polyp",
        "pink circle polyp",
        "small pink circle polyp",
        "one small pink circle polyp",
        "one small pink circle polyp, located in bottom left of the image",
    ]
    assert [describe({n: scene.values[0][n] for n in names}) for names in RUNGS.values()] == texts


def test_lessons_mean_everything_that_fits(scenes):
    """Set semantics against a slow definition, and every attribute alone occurs."""
    named = Counter()
    for scene in of(scenes, "phantom_crowd"):
        for text, values, mask in lessons(scene, count=6):
            fits = [g for g, v in enumerate(scene.values) if values.items() <= v.items()]
            union = np.zeros((96, 96), bool)
            for group in fits:
                union |= scene.masks[group]
            assert fits
            assert np.array_equal(mask, union)
            assert text == describe(values)
            named[frozenset(values) - {"class"}] += 1
    assert all(named[frozenset({name})] for name in DECIDING)
    assert named[frozenset(DECIDING)]


def test_lessons_repeat_and_can_name_what_is_absent():
    scene = make_scene("phantom_crowd", "train", 3)
    few, many = ([(x.text, x.mask.tobytes()) for x in lessons(scene, count=n)] for n in (4, 40))
    absent = list(lessons(scene, count=200, absent_percent=50))

    assert many[:4] == few
    assert 10 < sum(not lesson.mask.any() for lesson in absent) < 120
    assert all(np.array_equal(x.mask, meant(scene, x.values)) for x in absent)
    assert meant(scene, {}).sum() == scene.masks.sum()


# Files.


@pytest.mark.parametrize("dataset", DATASETS)
def test_written_sets_are_read_like_any_other(tmp_path, dataset):
    count = SIZES_SMALL[dataset]
    folder = generate(load_dataset_card(dataset), tmp_path, sizes={"test": count, "train": 3})
    samples = load_samples(load_dataset_card(dataset), tmp_path, "test")
    rows = json.loads((folder / "anns" / "test.json").read_text())
    generated = [make_scene(dataset, "test", i) for i in range(count)]
    targets = [(s, v, m) for s in generated for v, m in zip(s.values, s.masks, strict=True)]

    assert len({sample.image_id for sample in samples}) == count
    for sample, row, (scene, values, mask) in zip(samples, rows, targets, strict=True):
        assert np.array_equal(read_image(sample.image), scene.pixels)
        assert np.array_equal(read_mask(sample.mask), mask)
        assert row["attributes"] == values
        assert row.get("decides") == scene.decides
        x0, y0, x1, y1 = row["bbox"]
        assert mask[y0 : y1 + 1, x0 : x1 + 1].sum() == mask.sum()
        assert sample.prompts["p6"][0].values.items() <= values.items()


def test_pairs_are_named_after_what_decides(tmp_path):
    card = load_dataset_card("phantom_pairs")
    generate(card, tmp_path, sizes={"test": 10})
    samples = load_samples(card, tmp_path, "test")

    assert [s.sample_id for s in samples[:4]] == [
        *("size/0000-a.png", "size/0000-b.png"),
        *("color/0000-a.png", "color/0000-b.png"),
    ]
    assert samples[-1].sample_id == "number/0001-b.png"


# Messages, and the small parts.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: make_scene("phantom_sole", "test", 0),
            "phantom: unknown data set 'phantom_sole'. Did you mean 'phantom_solo'? Known data "
            "sets: 'phantom_crowd', 'phantom_pairs', 'phantom_solo'.",
        ),
        (
            lambda: make_scene("phantom_solo", "tests", 0),
            "phantom: phantom_solo: unknown split 'tests'. Did you mean 'test'? Known splits: "
            "'test', 'train', 'val'.",
        ),
        (
            lambda: make_scene("phantom_solo", "test", -1),
            "phantom: phantom_solo/test: scene -1 of seed 0. Both are counted from 0. Give "
            "numbers that are not negative.",
        ),
        (
            lambda: load_generator(CARD.model_copy(update={"name": "phantom_mine"})),
            "phantom: unknown data set 'phantom_mine'. Did you mean 'phantom_pairs'? Known data "
            "sets: 'phantom_crowd', 'phantom_pairs', 'phantom_solo'.",
        ),
    ],
)
def test_mistakes_are_explained(call, message):
    with pytest.raises(DataError, match=re.escape(message) + "$"):
        call()


@given(st.integers(0, 2**32), st.integers(1, 1000))
def test_streams_draw_within_their_bounds(seed, bound):
    stream = Stream(seed, (1, 2))

    assert all(0 <= stream.below(bound) < bound for _ in range(8))
    assert sorted(stream.shuffled(range(9))) == list(range(9))
    assert stream.octets(3, 5).shape == (3, 5)


def test_streams_are_the_raw_words_of_pcg64():
    """The values of numpy's documented bit generator, which no release may change."""
    words = np.random.PCG64(sequence(5, (1, 2))).random_raw(3)
    stream = Stream(5, (1, 2))

    assert [stream.below(1000) for _ in range(3)] == [int(w) * 1000 >> 64 for w in words]


@pytest.mark.parametrize("spacing", [3, 4, 8, 16, 48])
def test_noise_is_smooth_bounded_and_exact(spacing):
    field = fields.smooth(Stream(1, (spacing,)), spacing)

    assert np.abs(field).max() <= 1
    assert np.abs(np.diff(field, axis=0)).max() < 3 / spacing
    # Multiples of one 36 spacing**6-th of a grey step: nothing was rounded on the way.
    whole = (field + 1) * 127.5 * 36 * float(spacing) ** 6
    assert np.abs(whole - np.rint(whole)).max() <= 1e-9 * whole.max()


def test_directions_lie_on_the_circle_in_order():
    points = np.array([fields.direction(turn) for turn in range(64)])
    angles = np.unwrap(np.arctan2(points[:, 1], points[:, 0]))

    assert np.abs((points**2).sum(axis=1) - 1).max() < 1e-15
    assert (np.diff(angles) > 0.05).all()
    assert fields.direction(16) == (0.0, 1.0)
