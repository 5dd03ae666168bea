"""Every family, in a small random configuration: counts, interruption, `bench`, contract, `run`."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

from harness.cards import load_model_card, model_names
from harness.engine.bench import bench
from harness.engine.bench_plan import invent
from harness.engine.local import execute
from harness.model.checks import Outcome, check_model
from harness.model.contract import Staged
from harness.model.loading import load_model
from harness.model.sampling import Sampled
from harness.runs.store import RunStore
from tests.engine.plain_loop import COUNTS, plain_scores
from tests.models.test_boxes_of_detectors import CARDS as DETECTORS
from tests.models.test_clipseg import TINY as CLIPSEG
from tests.models.test_florence2 import SMALL as FLORENCE
from tests.models.test_grounded_sam import SEGMENTER
from tests.models.test_grounded_sam import SMALL as GROUNDED
from tests.models.test_sam3 import TINY as SAM3
from tests.models.test_sam3_finetuned import LITE
from tests.models.test_tunevlseg import TINY_CRIS

CRIS = load_model_card("phantom-cris-solo").card.settings
# The words of the published vocabulary, where its package is installed.
LITE_TOWERS = {"input_size": 64, "width": 16, "text": {"hidden_size": 32, "intermediate_size": 64}}
LITE_TOWERS["text"] |= {"num_hidden_layers": 1, "num_attention_heads": 4}
CLIP_TEXT = {"kind": "clip", "context_length": 12, "vocabulary_size": 512}
ZOO = {
    "clipseg": CLIPSEG,
    "clipseg-zero-shot": CLIPSEG,
    "clipseg-hub": CLIPSEG,
    "cris": CRIS,
    "cris-zero-shot": CRIS,
    "tunevlseg-cris": CRIS,
    "sam3": {"config": SAM3, "score_threshold": 0.1},
    "sam3-medical": {"config": SAM3},
    "sam3-lora": {"config": SAM3},
    "sam3-lite-text": {"config": LITE, "score_threshold": 0.01},
    "grounded-sam": GROUNDED,
    **{name: settings | {"segmenter": SEGMENTER} for name, settings in DETECTORS.items()},
    "florence2": FLORENCE,
    "lite-film": LITE_TOWERS,
    "lite-cross": LITE_TOWERS | {"fusion": "cross"},
    "lite-image-only": {"input_size": 64, "width": 16},
    "unet": {"input_size": 64},
    "unetplusplus": {"input_size": 64},
    "deeplabv3plus": {"input_size": 64},
    "image-only": {"input_size": 64},
}
# Others are small as they ship, or the same with another name of the same small configuration.
SHIPPED_SMALL = [n for n in sorted(model_names()) if n.endswith("-small")]
AS_SMALL = {
    "vlsm-adapter": "vlsm-adapter-small",
    "tunevlseg": "tunevlseg-small",
    "medclipseg": "medclipseg-small",
    "biomedclipseg": "biomedclipseg-small",
    "biomedclipseg-d": "biomedclipseg-small",
}
# What a family's checkpoints may hold besides: the card, and what is changed in it.
EXTRA = {"depth": 2, "extra_layer": True}
VARIANTS = {
    **{
        f"tunevlseg {method}": ("tunevlseg-small", {"method": method, **EXTRA})
        for method in ("cocoop", "vpt", "maple", "shared-separate", "shared-attention", "none")
    },
    "tunevlseg-cris cocoop": ("tunevlseg-cris", TINY_CRIS | {"method": "cocoop", **EXTRA}),
    "vlsm-adapter V": ("vlsm-adapter-small", {"parts": "V"}),
    "vlsm-adapter shallow": ("vlsm-adapter-small", {"kind": "shallow", "parts": "V"}),
    "medclipseg biomedclip": ("medclipseg-small", {"kind": "biomedclip"}),
    "medclipseg clip": ("medclipseg-small", CLIP_TEXT),
    "sam3 best": ("sam3-medical", {"config": SAM3, "output": "best"}),
    "sam3 semantic": ("sam3", {"config": SAM3, "output": "semantic"}),
}
EVERY = {
    **{name: (name, settings) for name, settings in ZOO.items()},
    **{name: (name, {}) for name in SHIPPED_SMALL},
    **VARIANTS,
}
# Random numbers may give logits of any range, and paint everything or nothing.
BY_CHANCE = {"scale", "threshold", "prompt"}


def write_card(folder, name):
    base, settings = EVERY[name]
    plain = name.replace(" ", "-")
    path = folder / f"{plain}.yaml"
    card = {"extends": base, "name": f"{plain}-tiny", "settings": settings}
    if base.startswith("medclipseg"):
        card["samples"] = 3
    path.write_text(yaml.safe_dump(card))
    return path


# Of each family one is quick to try; what it may hold besides is tried where there is time.
LATER = {*VARIANTS, "clipseg-zero-shot", "clipseg-hub", "cris-zero-shot", "sam3-lora"}
LATER |= {"image-only-small", "unet", "unetplusplus", "deeplabv3plus", "lite-cross"}
PARAMS = [pytest.param(n, marks=pytest.mark.slow) if n in LATER else n for n in EVERY]


@pytest.fixture(scope="module", params=PARAMS)
def model(request, tmp_path_factory, golden):
    """Numbers that follow the names of the weights: masks then differ with the prompt."""
    card = write_card(tmp_path_factory.mktemp("card"), request.param)
    loaded = load_model(card, random_weights=True, device="cpu")
    golden.fill(loaded.raw.module, prefix="")
    return loaded


def test_the_zoo_is_whole():
    shipped = {name for name in model_names() if not name.startswith("phantom-")}
    assert shipped - {"template"} == {*ZOO, *SHIPPED_SMALL, *AS_SMALL}


README = Path(__file__).resolve().parents[2] / "models" / "README.md"
ROWS = [
    (re.findall("`([^`]+)`", cells[0]), *cells[-4:-1])
    for line in README.read_text(encoding="utf-8").splitlines()
    if line.startswith("| `") and len(cells := line.strip("| ").split(" | ")) >= 7
]


def test_the_tables_of_the_readme_name_every_model():
    named = {name for names, *_ in ROWS for name in names}
    assert named == {*ZOO, *AS_SMALL}


def test_the_tables_of_the_readme_say_what_the_cards_do(model):
    """Size, thresholds, and whether each image and text is encoded once; whatever the weights."""
    rows = [row for row in ROWS if model.resolved.path.stem.removesuffix("-tiny") in row[0]]
    staged = isinstance(model.raw, Staged)
    for names, size, threshold, stages in rows:
        for card in (load_model_card(name).card for name in names):
            said = [
                card.settings[k] for k in ("score_threshold", "box_threshold") if k in card.settings
            ]
            said += [] if said or "none" in threshold else [card.threshold]
            assert all(str(number) in threshold for number in said), (card.name, threshold)
            side = card.settings.get("input_size")
            assert side is None or str(side) in size, (card.name, size)
        assert (stages == "no") == (not staged), names


@pytest.mark.parametrize(
    ("asked", "limit"),
    [("empty_prompt", 4), pytest.param("antonym_swap", 2, marks=pytest.mark.slow)],
)
def test_the_engine_counts_what_the_plain_loop_counts_and_continues(
    model, asked, limit, tmp_path, planned, photo_root, monkeypatch
):
    monkeypatch.setattr("harness.engine.shards.IMAGES_PER_SHARD", 1)
    suite, _, plan = planned(asked, limit=limit)
    found = {}
    for name, size in (("whole", 16), ("continued", 3)):
        store = RunStore(tmp_path / name)
        store.open(plan, suite)
        options = {"root": photo_root, "metric": suite.metric, "batch_size": size}
        if name == "continued":
            with pytest.raises(KeyboardInterrupt):
                execute(store, model, advance=_interrupt, **options)
            assert 0 < store.scores().height < plan.cases.height
        execute(store, model, **options)
        found[name] = store.scores()
        if isinstance(model.adapter, Sampled):
            assert store.table("repeats", model.model_id).height == plan.cases.height
    plain = plain_scores(plan.cases, model, root=photo_root, metric=suite.metric)

    for scores in found.values():
        joined = plain.join(scores, on="case_id", suffix="_engine")
        assert joined.height == plan.cases.height >= 8
        for count in COUNTS:
            gap = (joined[count] - joined[f"{count}_engine"]).abs().fill_null(0)
            assert (gap <= joined["n_near"]).all(), count
    # Not all the same, so that equal counts say something.
    n_masks = plain["n_pred"].n_unique()
    assert n_masks == limit if model.card.control else n_masks > 1


def _interrupt(_):
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_openvino_computes_what_it_can_of_every_family(name, tmp_path, planned, photo_root):
    """Equal counts, but for pixels at the threshold; what is left to torch is named."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra 'openvino' is not installed")
    card, (suite, _, plan) = write_card(tmp_path, name), planned("empty_prompt", limit=2)
    theirs, mine = (
        load_model(card, random_weights=True, device="cpu", backend=b)
        for b in ("torch", "openvino")
    )
    store = RunStore(tmp_path / "run")
    store.open(plan, suite)
    execute(store, mine, root=photo_root, metric=suite.metric, batch_size=3)
    plain = plain_scores(plan.cases, theirs, root=photo_root, metric=suite.metric)
    joined = plain.join(store.scores(), on="case_id", suffix="_engine")
    for count in COUNTS:
        gap = (joined[count] - joined[f"{count}_engine"]).abs().fill_null(0)
        assert (gap <= joined["n_near"]).all(), count
    left = [stage for stage, how in mine.stages.items() if how != "openvino"]
    told = " ".join(note.text for note in mine.notes)
    assert all(stage in told or "predict" in told for stage in left)
    sys.stdout.write(f"\n{name}: {mine.stages}\n")


@pytest.mark.slow
def test_bench_times_it(model, tmp_path):
    pictures = invent(tmp_path, 1, model.adapter.input_size)
    found = bench(model, pictures, root=tmp_path, n_prompts=2, batch_size=2, blocks=1)

    assert found.n_cases == 2
    assert min(found.engine_s, found.plain_s, found.decode_s, found.peak_memory_mib) > 0
    assert (found.pair_s > 0) == getattr(model.raw, "text_depends_on_image", False)


@pytest.mark.slow
def test_it_keeps_the_contract(model):
    found = check_model(model)
    assert [r for r in found if r.outcome is Outcome.FAILS] == []
    # Vocabularies that lie on a hub alone have a stand-in here, and the model says so.
    by_design = {"notes"} if model.notes else set()
    by_design |= {"determinism"} if isinstance(model.adapter, Sampled) else set()
    findings = {r.name: r.sentence for r in found if r.outcome is Outcome.FINDING}
    assert findings.keys() <= BY_CHANCE | by_design, findings


@pytest.mark.slow
def test_run_paper_completes_for_each(tmp_path, call, capsys):
    cards = {name: write_card(tmp_path, name) for name in EVERY}
    models = [part for card in cards.values() for part in ("--model", str(card))]
    places = ["--data-root", tmp_path / "data", "--out", tmp_path / "run"]
    code, out, err = call(
        *("run", "paper", "--random-weights", "--datasets", "phantom_crowd", "--limit", "1"),
        *map(str, places),
        *models,
    )
    assert code == 0, err
    assert all(card.stem in out for card in cards.values())
