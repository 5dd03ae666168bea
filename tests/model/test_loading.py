"""A card becomes a model: found, built, filled, named by its content."""

import re
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from harness.cards import load_model_card, model_names
from harness.errors import CardError, CheckpointError, HarnessError, ModelError
from harness.model.contract import (
    EmbedsText,
    PartlyTrainable,
    PredictOnly,
    Predicts,
    Staged,
    Tokenizes,
    standardise,
)
from harness.model.loading import load_model
from harness.weights.loading import file_sha256

ADAPTER = '''
"""An adapter of a stranger."""
import torch
from harness.cards import Strict
from harness.model.contract import TokenCounts, read_settings, standardise
from harness.weights.loading import load_into
from .layers import width

class Settings(Strict):
    side: int = 8
    depth: int = 1

class Black:
    def __init__(self, settings, *, weights):
        self.settings = read_settings(Settings, settings)
        self.input_size = (self.settings.side, 2 * self.settings.side)
        self.module = torch.nn.Conv2d(3, width(), 1)
        if weights is not None:
            load_into(self.module, weights)
    def preprocess(self, image):
        return standardise(image, self.input_size, mean=(0, 0, 0), std=(1, 1, 1))
    def count_tokens(self, texts):
        return TokenCounts(tuple(len(t.split()) for t in texts), (False,) * len(texts))
    def predict(self, pixels, texts):
        lengths = torch.tensor([float(len(t)) for t in texts])
        return self.module(pixels).sum(1) + lengths[:, None, None]

class Half:
    def __init__(self, settings, *, weights):
        self.input_size, self.module = (8, 8), torch.nn.Identity()
    def preprocess(self, image): ...
    def encode_images(self, pixels): ...
'''
LAYERS = "def width():\n    return 4\n"


@pytest.fixture
def folder(tmp_path):
    """A stranger's model: card, adapter and a neighbour of it."""
    (tmp_path / "adapter.py").write_text(textwrap.dedent(ADAPTER))
    (tmp_path / "layers.py").write_text(LAYERS)
    write_card(tmp_path)
    return tmp_path


def write_card(folder, **keys):
    lines = {"name": "black", "title": "A black box", "adapter": "adapter.py:Black"}
    lines |= {"threshold": 0.5} | keys
    (folder / "card.yaml").write_text("".join(f"{k}: {v}\n" for k, v in lines.items()))


def refused(error, text, *args, **keys):
    with pytest.raises(error, match=re.escape(text)):
        load_model(*args, **keys)


@pytest.mark.parametrize("name", sorted(model_names()))
def test_every_built_in_card_is_whole(name):
    card = load_model_card(name)

    assert card.card.name == name
    assert (card.adapter_folder / card.card.adapter.partition(":")[0]).is_file()
    assert 0 < card.card.threshold < 1


def test_a_level_1_model_looks_staged(folder):
    model = load_model(folder, random_weights=True)
    pixels = torch.rand(3, 3, 8, 16)
    texts = ["one", "three", "one"]

    images = model.adapter.encode_images(pixels)
    words = model.adapter.encode_texts(texts)
    later = model.adapter.encode_texts(["eleven", "three"])

    assert isinstance(model.raw, Predicts)
    assert not isinstance(model.raw, Staged)
    assert isinstance(model.adapter, PredictOnly)
    assert isinstance(model.adapter, Staged)
    assert model.adapter.input_size == (8, 16)
    assert model.adapter.count_tokens(["a b"]) == model.raw.count_tokens(["a b"])
    assert model.adapter.preprocess(np.zeros((5, 7, 3), np.uint8)).shape == (3, 8, 16)
    expected = model.raw.predict(pixels, texts)
    assert torch.equal(model.adapter.decode(images, words), expected)
    # Rows may be selected in any order, and mixed with those of later texts.
    rows = torch.tensor([2, 0])
    chosen = type(later)(torch.cat([later[0][1:], words[0][:1]]))
    mixed = model.adapter.decode(type(images)(images[0][rows]), chosen)
    assert torch.equal(mixed, model.raw.predict(pixels[rows], ["three", "one"]))


def test_capabilities_are_seen_once_at_load(folder):
    raw = load_model(folder, random_weights=True).raw

    assert not isinstance(raw, Tokenizes | EmbedsText | PartlyTrainable)


def test_an_adapter_beside_a_card_has_a_private_name(folder):
    model = load_model(folder, random_weights=True)

    assert re.fullmatch(r"_vlsm_adapter_[0-9a-f]{12}\.adapter", type(model.raw).__module__)
    assert "models" not in sys.modules
    assert "adapter" not in sys.modules


def test_an_adapter_may_be_an_installed_class(folder, monkeypatch):
    package = folder / "stranger_pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "wrap.py").write_text(textwrap.dedent(ADAPTER))
    (package / "layers.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(folder)
    write_card(folder, adapter="stranger_pkg.wrap:Black")

    model = load_model(folder / "card.yaml", random_weights=True)

    assert type(model.raw).__module__ == "stranger_pkg.wrap"


def test_the_id_names_everything_that_decides_the_numbers(folder):
    def name(**keys):
        return load_model(folder, random_weights=True, **keys).model_id

    ids = [name(), name(seed=1), name(dtype="bfloat16")]
    write_card(folder, threshold=0.4)
    ids.append(name())
    write_card(folder, settings="{depth: 2}")
    ids.append(name())
    write_card(folder)
    (folder / "layers.py").write_text(LAYERS + "# edited\n")
    ids.append(name())
    (folder / "layers.py").write_text(LAYERS)

    assert len(set(ids)) == len(ids)
    assert ids[0] == name()
    assert re.fullmatch(r"black-random0@[0-9a-f]{12}", ids[0])
    assert ids[1].startswith("black-random1@")


def test_a_checkpoint_is_known_by_its_content_not_its_place(folder):
    state = load_model(folder, random_weights=True).adapter.module.state_dict()
    save_file(state, folder / "a.safetensors")
    (folder / "moved").mkdir()
    save_file(state, folder / "moved" / "b.safetensors")
    save_file({k: v + 1 for k, v in state.items()}, folder / "c.safetensors")

    first = load_model(folder, checkpoint=folder / "a.safetensors")
    write_card(folder, checkpoint="{path: moved/b.safetensors}")
    moved = load_model(folder)
    other = load_model(folder, checkpoint=str(folder / "c.safetensors"))

    assert first.model_id == moved.model_id != other.model_id
    assert re.fullmatch(r"black@[0-9a-f]{12}", first.model_id)
    assert first.weights_sha256 == file_sha256(folder / "a.safetensors")
    assert torch.equal(other.adapter.module.weight, state["weight"] + 1)


def test_weights_enter_through_the_adapter(folder):
    state = load_model(folder, random_weights=True, seed=5).adapter.module.state_dict()
    (folder / "hubby").mkdir()
    save_file(state, folder / "hubby" / "model.safetensors")
    write_card(folder, weights="{path: hubby}")

    model = load_model(folder)

    assert torch.equal(model.adapter.module.weight, state["weight"])
    assert model.weights_sha256 == file_sha256(folder / "hubby" / "model.safetensors")
    assert not model.random_weights


def test_a_hub_is_asked_for_safe_files_only(folder, monkeypatch):
    state = load_model(folder, random_weights=True).adapter.module.state_dict()
    (folder / "snapshot").mkdir()
    save_file(state, folder / "snapshot" / "model.safetensors")
    asked = []

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.append((repository, revision))
        assert not any(p.endswith((".bin", ".pt", ".py", "*")) for p in allow_patterns)
        return str(folder / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    write_card(folder, weights="{hub: someone/black, revision: v1}")

    assert torch.equal(load_model(folder).adapter.module.weight, state["weight"])
    assert asked == [("someone/black", "v1")]


def test_a_hub_out_of_reach_says_what_to_do(folder, monkeypatch):
    def snapshot_download(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    write_card(folder, weights="{hub: someone/black}")

    text = (
        "weights.hub: 'someone/black' cannot be had (ConnectionError: no route). The repository "
        "must be reachable or in the hub's cache. Download its file of weights "
        "('model.safetensors' or as the repository calls it) and its '.json' files elsewhere into "
        f"a folder FOLDER, and write a card with `extends: {folder / 'card.yaml'}` and `weights: "
        "{path: FOLDER}`; or give a finetuned file with --checkpoint, which needs no pretrained "
        "weights."
    )
    refused(ModelError, text, folder)


def test_a_finetuned_file_needs_no_hub(folder, monkeypatch):
    state = load_model(folder, random_weights=True).adapter.module.state_dict()
    save_file(state, folder / "a.safetensors")
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    write_card(folder, weights="{hub: someone/black}")

    assert load_model(folder, checkpoint=folder / "a.safetensors").weights_sha256


def test_random_numbers_depend_on_the_seed_alone(folder):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = load_model(folder, random_weights=True, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again = load_model(folder, random_weights=True, seed=3)

    assert torch.equal(first.adapter.module.weight, again.adapter.module.weight)
    assert first.model_id == again.model_id
    assert first.random_weights
    assert first.weights_sha256 is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_precision_is_that_of_the_computation_only(folder, dtype):
    model = load_model(folder, random_weights=True, dtype=dtype)
    with model.autocast():
        logits = model.adapter.module(torch.rand(1, 3, 4, 4))

    assert str(logits.dtype) == f"torch.{dtype}"
    assert model.adapter.module.weight.dtype == torch.float32
    assert model.precision == dtype
    assert not model.adapter.module.training


def test_what_is_wrong_with_a_card_or_its_files_is_said(folder):
    card = folder / "card.yaml"
    refused(ModelError, f"{card}: the card names neither 'weights' nor 'checkpoint'", folder)
    refused(ModelError, "unknown dtype 'float8'", folder, dtype="float8")
    refused(ModelError, "device: unknown device 'gpu'", folder, device="gpu", random_weights=True)
    refused(CheckpointError, "absent.ckpt: no such file", folder, checkpoint="absent.ckpt")

    write_card(folder, settings="{sid: 8}")
    text = f"{card}: settings.sid: unknown key. Did you mean 'side'? Known keys: 'depth', 'side'"
    refused(CardError, text, folder, random_weights=True)

    write_card(folder, adapter="other.py:Black")
    text = f"{card}: adapter: there is no file {str(folder / 'other.py')!r}. 'adapter.py:Class'"
    refused(ModelError, text, folder, random_weights=True)

    write_card(folder, adapter="adapter.py:Blck")
    text = "has no class 'Blck'. Did you mean 'Black'? The part after ':' names"
    refused(ModelError, text, folder, random_weights=True)

    write_card(folder, adapter="adapter.py:Half")
    text = "the adapter 'Half' lacks 'count_tokens', 'predict'. An adapter has 'input_size'"
    refused(ModelError, text, folder, random_weights=True)

    write_card(folder, adapter="no_such_package.thing:Class")
    text = "adapter: the module cannot be imported (ModuleNotFoundError: No module named 'no_such"
    refused(ModelError, text, folder, random_weights=True)


def test_an_adapter_that_cannot_be_imported_says_why(folder):
    (folder / "adapter.py").write_text("import a_library_nobody_has\n")
    refused(ModelError, "No module named 'a_library_nobody_has'", folder, random_weights=True)
    (folder / "adapter.py").write_text("def broken(:\n")
    refused(ModelError, "cannot be imported (SyntaxError", folder, random_weights=True)


def test_an_interrupted_import_is_tried_again(folder):
    """A name left half loaded in the interpreter must not stand for the repaired file."""
    good = (folder / "layers.py").read_text()
    (folder / "layers.py").write_text("raise ImportError('not yet')\n")
    refused(ModelError, "not yet", folder, random_weights=True)
    (folder / "layers.py").write_text(good)

    assert load_model(folder, random_weights=True).card.name == "black"


def test_hashes_on_the_card_are_checked(folder):
    state = load_model(folder, random_weights=True).adapter.module.state_dict()
    save_file(state, folder / "a.safetensors")
    good = file_sha256(folder / "a.safetensors")
    write_card(folder, checkpoint=f"{{path: a.safetensors, sha256: {good}}}")
    assert load_model(folder).weights_sha256 == good

    bad = "0" * 64
    for key in ("checkpoint", "weights"):
        write_card(folder, **{key: f"{{path: a.safetensors, sha256: '{bad}'}}"})
        text = f"a.safetensors: its SHA-256 is {good}, the card says {bad}. They"
        refused(CheckpointError, text, folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_device_is_said(folder):
    text = "device: 'cuda' was asked for, and torch sees no CUDA device. Give --device cpu"
    refused(ModelError, text, folder, random_weights=True, device="cuda")
    assert load_model(folder, random_weights=True).device == torch.device("cpu")


def test_a_misfit_checkpoint_names_keys(folder):
    torch.save({"net.weight": torch.ones(4, 3, 1, 1)}, folder / "a.ckpt")
    with pytest.raises(
        HarnessError, match=r"a.ckpt: the checkpoint does not fit the model: 1 miss"
    ):
        load_model(folder, checkpoint=folder / "a.ckpt")


@given(
    height=st.integers(1, 60), width=st.integers(1, 60), size=st.tuples(*[st.integers(1, 40)] * 2)
)
def test_standardise_is_what_torchvision_does(height, width, size):
    from torchvision.transforms import v2

    image = np.random.default_rng(height * 61 + width).integers(
        0, 256, (height, width, 3), np.uint8
    )
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pipeline = v2.Compose(
        [
            v2.Resize(size, v2.InterpolationMode.BILINEAR, antialias=True),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
    expected = pipeline(Image.fromarray(image))

    for given_image in (image, Image.fromarray(image)):
        ours = standardise(given_image, size, mean=mean, std=std)
        assert ours.shape == (3, *size)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
