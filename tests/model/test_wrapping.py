"""Functions as models: how they are called, what they may return, what they are called by."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import harness
from harness.cards import load_model_card
from harness.errors import CardError, ModelError
from harness.model.callables import CERTAIN, FunctionAdapter, Settings
from harness.models import load_model, wrap

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
ROOT = Path(__file__).parents[2]


def adapter(function, **settings):
    return FunctionAdapter(function, Settings(**settings), where="mine")


def logits(function, *, texts=("a",), picture=PICTURE, **settings):
    made = adapter(function, **settings)
    pixels = made.preprocess(picture)[None].expand(len(texts), -1, -1, -1)
    return made.predict(pixels, list(texts)).numpy()


MASK = np.zeros((6, 8), bool)
MASK[1:4, 2:5] = True
SHARE = np.where(MASK, 0.8, 0.1)
LOGITS = np.where(MASK, 2.5, -3.0)
CERTAINTIES = np.where(MASK, CERTAIN, -CERTAIN)

RETURNS = {
    "bool": (MASK, CERTAINTIES),
    "0 and 1": (MASK.astype(np.uint8), CERTAINTIES),
    "0 and 255": (MASK.astype(np.uint8) * 255, CERTAINTIES),
    "decimal 0 and 1": (MASK.astype(np.float32), CERTAINTIES),
    "int64": (MASK.astype(np.int64), CERTAINTIES),
    "PIL": (Image.fromarray(MASK), CERTAINTIES),
    "PIL grey": (Image.fromarray(MASK.astype(np.uint8) * 255), CERTAINTIES),
    "lists": (MASK.astype(int).tolist(), CERTAINTIES),
    "tensor": (torch.from_numpy(MASK), CERTAINTIES),
    "probabilities": (SHARE, np.log(SHARE / (1 - SHARE))),
    "half": (torch.from_numpy(LOGITS).half(), LOGITS),
    "bfloat": (torch.from_numpy(LOGITS).bfloat16(), LOGITS),
    "logits": (LOGITS, LOGITS),
    "gradients": (torch.tensor(LOGITS, requires_grad=True), LOGITS),
    "axes of one": (LOGITS[None, :, :, None], LOGITS),
    "instances": ([MASK & (np.arange(8) < 3), MASK], CERTAINTIES),
    "nothing": ([], np.full((6, 8), -CERTAIN)),
    "image-segmentation": (
        [{"score": 0.9, "label": "polyp", "mask": Image.fromarray(MASK.astype(np.uint8) * 255)}],
        CERTAINTIES,
    ),
    "mask-generation": ({"masks": [MASK], "scores": torch.tensor([0.9])}, CERTAINTIES),
    "all ones": (np.ones((6, 8), np.uint8), np.full((6, 8), CERTAIN)),
    "empty": (np.zeros((6, 8)), np.full((6, 8), -CERTAIN)),
}


@pytest.mark.parametrize("name", RETURNS)
def test_what_a_function_returns_is_read(name):
    answer, expected = RETURNS[name]

    found = logits(lambda image, prompt: answer)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected, rtol=1e-2 if "float" in name else 2e-3)
    assert ((found[0] > 0) == (np.asarray(expected) > 0)).all()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "returned NoneType"),
        ("a mask", "returned str"),
        ({"score": 1}, "a mapping with the keys ['score']"),
        (np.ones((3, 6, 8)), "shape (3, 6, 8) for one picture"),
        (np.ones((6, 8, 3)), "shape (6, 8, 3) for one picture"),
        (MASK.T, "8 x 6 for a picture of 6 x 8 (height x width)"),
        (MASK.T, "It looks turned: transpose it"),
        (np.ones((8, 8), bool), "Whether it was stretched, padded or cut is not known"),
        (SHARE * 255, "neither a mask"),
        (np.arange(48).reshape(6, 8).astype(np.uint8), "say which it is: `output='logits'`"),
        ([MASK, MASK[:3]], "Masks of one picture have one size"),
        (Image.fromarray(PICTURE), "Return a bool array"),
    ],
)
def test_what_could_mean_two_things_is_refused(answer, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        logits(lambda image, prompt: answer)


def test_a_function_returns_one_kind_of_numbers():
    answers = iter([SHARE, LOGITS])

    with pytest.raises(ModelError, match="Probabilities lie in"):
        logits(lambda image, prompt: next(answers), texts=("a", "b"))


def test_logits_that_happen_to_lie_between_0_and_1_stay_logits():
    answers = iter([LOGITS, SHARE])

    found = logits(lambda image, prompt: next(answers), texts=("a", "b"))

    np.testing.assert_allclose(found[1], SHARE, rtol=1e-6)


@pytest.mark.parametrize(
    ("output", "answer", "expected"),
    [("logits", SHARE, SHARE), ("mask", MASK * 7, CERTAINTIES), ("logits", SHARE + 3, SHARE + 3)],
)
def test_output_says_what_numbers_are(output, answer, expected):
    found = logits(lambda image, prompt: answer, output=output)

    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_numbers_that_are_not_finite_reach_the_engine():
    assert np.isnan(logits(lambda image, prompt: np.full((6, 8), np.nan))).all()


def test_another_size_of_the_same_shape_is_scaled_with_a_note():
    made = adapter(lambda image, prompt: MASK[::2, ::2])
    found = made.predict(made.preprocess(PICTURE)[None], ["a"])

    assert found.shape == (1, 6, 8)
    assert set(found.unique().tolist()) == {-CERTAIN, CERTAIN}
    assert "another size than the picture's (3 x 4 for 6 x 8)" in made.notes[0].text


@pytest.mark.parametrize(
    ("given", "kind", "shape"),
    [("array", np.ndarray, (6, 8, 3)), ("pil", Image.Image, None), ("tensor", torch.Tensor, None)],
)
def test_pictures_come_as_asked_for_and_belong_to_the_function(given, kind, shape):
    seen = []

    def draws(image, prompt):
        seen.append(np.asarray(image).copy())
        assert isinstance(image, kind)
        if shape:
            assert image.shape == shape
            image[:] = 0
        return MASK

    logits(draws, texts=("a", "b"), input=given)

    scale = 255 if given == "tensor" else 1
    for image in seen:
        whole = image.transpose(1, 2, 0) * scale if given == "tensor" else image
        np.testing.assert_allclose(whole, PICTURE, atol=1e-4)


def test_lists_by_the_names_of_the_parameters_or_as_said():
    def lists(images, prompts):
        assert isinstance(images, list)
        return np.stack([MASK if "a" in prompt else ~MASK for prompt in prompts])

    found = logits(lists, texts=("a", "b"))
    np.testing.assert_array_equal(found, [CERTAINTIES, -CERTAINTIES])

    def mine(x, y):
        return lists(x, y)

    np.testing.assert_array_equal(logits(mine, texts=("a", "b"), batched=True), found)
    with pytest.raises(ModelError, match="returned 1 masks for 2 pictures"):
        logits(lambda images, prompts: [MASK], texts=("a", "b"))
    with pytest.raises(ModelError, match=re.escape("Say `batched=True` or `batched=False`")):
        adapter(lambda image, prompts: MASK)


@pytest.mark.parametrize("function", [lambda image: 1, lambda a, b, c: 1, 3])
def test_what_cannot_be_called_with_a_pair_is_refused(function):
    with pytest.raises(ModelError, match="is needed"):
        adapter(function)


def test_an_error_of_the_function_names_prompt_and_picture():
    def breaks(image, prompt):
        raise KeyError("weights")

    message = "mine: KeyError: 'weights' (for the prompt 'a' on a picture of 6 x 8)"
    with pytest.raises(ModelError, match=re.escape(message)):
        logits(breaks)


def mean_above(level):
    return lambda image, prompt: image.mean(axis=-1) > level


def test_the_id_covers_text_and_values():
    net, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

    def closed(module):
        return wrap(lambda image, prompt: (module, MASK)[1], name="m").load().model_id

    assert closed(net) == closed(net)
    assert closed(net) != closed(other)
    levels = [str(wrap(mean_above(level), name="m")) for level in (10, 10, 20)]
    assert levels[0] == levels[1] != levels[2]
    versions = {str(wrap(mean_above(1), name="m", version=v)) for v in ("", "2024", "2025")}
    assert len(versions) == 3
    assert str(wrap(mean_above(1), name="m", threshold=0.4)) not in versions


def test_a_card_names_a_function(tmp_path):
    (tmp_path / "helper.py").write_text("LEVEL = 100\n")
    (tmp_path / "mine.py").write_text(
        "from .helper import LEVEL\n\n"
        "def segment(image, prompt):\n    return image.mean(axis=-1) > LEVEL\n"
    )
    card = tmp_path / "card.yaml"
    card.write_text("name: bright\nadapter: mine.py:segment\nkind: callable\n")

    model = load_model(card)

    assert model.card.threshold == 0.5
    assert model.card.title == "bright"
    pixels = model.adapter.preprocess(PICTURE)[None]
    found = model.adapter.decode(
        model.adapter.encode_images(pixels), model.adapter.encode_texts(["a"])
    )
    np.testing.assert_array_equal(found[0].numpy() > 0, PICTURE.mean(axis=-1) > 100)
    assert load_model(card).model_id == model.model_id
    (tmp_path / "helper.py").write_text("LEVEL = 101\n")
    assert load_model(card).model_id != model.model_id


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("weights: {path: a}", CardError, "a function brings its own weights"),
        ("settings: {input: jpeg}", CardError, "settings.input"),
        ("adapter: mine.py:sgment", ModelError, "Did you mean 'segment'?"),
    ],
)
def test_cards_of_functions_that_cannot_be(tmp_path, line, error, message):
    (tmp_path / "mine.py").write_text("def segment(image, prompt):\n    return image[..., 0] > 9\n")
    key = line.partition(":")[0]
    lines = {"name": "name: a", "adapter": "adapter: mine.py:segment", "kind": "kind: callable"}
    (tmp_path / "card.yaml").write_text("\n".join((lines | {key: line}).values()))

    with pytest.raises(error, match=re.escape(message)):
        load_model(tmp_path / "card.yaml")


def test_a_checkpoint_for_a_function_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("def segment(image, prompt):\n    return image[..., 0] > 9\n")
    card = tmp_path / "card.yaml"
    card.write_text("name: a\nadapter: mine.py:segment\nkind: callable\n")

    with pytest.raises(ModelError, match="A function brings its own weights"):
        load_model(card, checkpoint=tmp_path / "a.pt")


def test_keys_of_functions_leave_other_ids_alone():
    """Ids of the leaderboard's models are older than the keys `kind` and `aspect`."""
    model = load_model("template", random_weights=True)
    card = load_model_card("template")
    plain = card.card.model_copy(update={"aspect": None})
    again = load_model(card.model_copy(update={"card": plain}), random_weights=True)

    assert again.model_id == model.model_id


def test_a_model_without_weights_needs_no_random_ones(tmp_path):
    (tmp_path / "adapter.py").write_text(
        "import torch\nfrom harness.models import TokenCounts, standardise\n\n"
        "class Rule:\n"
        "    input_size = (8, 8)\n"
        "    def __init__(self, settings, *, weights):\n"
        "        bare = settings['bare']\n"
        "        self.module = torch.nn.Module() if bare else torch.nn.Linear(1, 1)\n"
        "    def preprocess(self, image):\n"
        "        return standardise(image, (8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)\n"
        "    def count_tokens(self, texts):\n"
        "        return TokenCounts((1,) * len(texts), (False,) * len(texts))\n"
        "    def predict(self, pixels, texts):\n"
        "        return pixels.mean(1)\n"
    )
    card = tmp_path / "card.yaml"
    text = (
        "name: rule\ntitle: Rule\nadapter: adapter.py:Rule\nthreshold: 0.5\nsettings: {bare: %s}\n"
    )
    card.write_text(text % "true")
    assert load_model(card).model_id.startswith("rule@")

    card.write_text(text % "false")
    with pytest.raises(ModelError, match="names neither 'weights' nor 'checkpoint'"):
        load_model(card)


def test_a_function_is_audited_at_the_pictures_own_sizes(photo_root, tmp_path):
    sizes = set()

    def bright(image, prompt):
        sizes.add(image.shape[:2])
        return image.mean(axis=-1) > (100 if prompt else 255)

    run = harness.audit(
        model=wrap(bright, name="bright"),
        suite="empty_prompt",
        datasets=["kvasir_polyp"],
        data_root=photo_root,
        out=tmp_path / "run",
    )

    assert {(40, 48), (48, 40)} <= sizes
    assert set(run.scores["status"]) == {"done"}
    assert set(run.scores.select("height", "width").iter_rows()) == {(40, 48), (48, 40)}
    entry = run.manifest["models"][0]
    assert entry["repeat_noise"]["pixels_percent"] == 0
    assert run.scores.filter(n_pred=0).height > 0  # the empty prompt
    cases = run.plan.join(run.scores, on="case_id")
    for row in cases.iter_rows(named=True):
        image = np.asarray(Image.open(photo_root / row["image"]).convert("RGB"))
        expected = (image.mean(axis=-1) > (100 if row["prompt"] else 255)).sum()
        assert row["n_pred"] == expected


def test_noise_between_equal_calls_is_measured_and_told(photo_root, tmp_path):
    from harness.auditing.listener import Listener

    class Notes(Listener):
        heard: tuple[str, ...] = ()

        def note(self, text):
            self.heard += (text,)

    rng, notes = np.random.default_rng(0), Notes()
    run = harness.audit(
        model=wrap(lambda image, prompt: rng.random(image.shape[:2]) > 0.5, name="dice"),
        suite="empty_prompt",
        datasets=["kvasir_polyp"],
        data_root=photo_root,
        out=tmp_path / "run",
        progress=notes,
    )

    assert run.manifest["models"][0]["repeat_noise"]["pixels_percent"] == pytest.approx(50, abs=5)
    assert any("equal calls give other masks" in text for text in notes.heard)


def test_the_readmes_function_runs(photo_root, tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    program = readme.partition("<!-- wrap -->\n```python\n")[2].partition("```")[0]
    lines = program.strip().splitlines()
    assert 0 < len(lines) <= 8
    monkeypatch.chdir(tmp_path)
    assert photo_root == tmp_path / "data"
    (tmp_path / "mine.py").write_text(program)

    import runpy

    runpy.run_path(str(tmp_path / "mine.py"))

    assert list(tmp_path.rglob("report.html"))
