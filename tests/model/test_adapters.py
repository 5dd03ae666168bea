"""Files that a card names besides its weights: parts from elsewhere, and the vocabulary."""

import hashlib
import json
import re

import pytest
import torch
from safetensors.torch import save_file

from harness.cards import load_model_card
from harness.errors import CardError, CheckpointError, ModelError, UsageError
from harness.model.contract import Noted
from harness.model.loading import load_model
from harness.training.finetune import finetune
from harness.weights.loading import file_sha256, load_into

ADAPTER = """
import torch
from harness.weights.loading import load_into
from harness.model.contract import Note, TokenCounts

class Plain:
    def __init__(self, settings, *, weights):
        self.input_size, self.module = (8, 8), torch.nn.ModuleDict(
            {"body": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 1)}
        )
        if weights is not None:
            load_into(self.module, weights)
    def preprocess(self, image): ...
    def count_tokens(self, texts):
        return TokenCounts((0,) * len(texts), (False,) * len(texts))
    def predict(self, pixels, texts): ...

class Parted(Plain):
    def __init__(self, settings, *, weights, further_weights=None, tokenizer=None):
        super().__init__(settings, weights=None)
        self.given = (weights, further_weights, tokenizer)
        if weights is not None:
            load_into(self.module["body"], weights)
            load_into(self.module["head"], further_weights["head"], part="head")
        makeshift = tokenizer is None and settings.get("published", True)
        self.notes = (Note("a stand-in reads the words.", untrained_only=True),) * makeshift
"""
HUB = "tokenizer: {hub: someone/words}\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "adapter.py").write_text(ADAPTER)
    return tmp_path


def write_card(folder, extra="", *, adapter="Parted", name="card"):
    path = folder / f"{name}.yaml"
    head = f"name: parted\ntitle: A model in parts\nadapter: adapter.py:{adapter}\n"
    path.write_text(f"{head}threshold: 0.5\n{extra}")
    return path


def save_parts(folder):
    """Towers in one folder, a whole model whose head is wanted in another, a vocabulary."""
    body = {"weight": torch.full((2, 2), 3.0), "bias": torch.ones(2)}
    head = {"weight": torch.full((1, 2), 5.0), "bias": torch.zeros(1)}
    for name in ("towers", "whole"):
        (folder / name).mkdir(exist_ok=True)
    save_file(body, folder / "towers" / "open_clip_model.safetensors")
    whole = {f"net.head.{key}": value for key, value in head.items()}
    torch.save(whole | {"net.clip.weight": torch.ones(9)}, folder / "whole" / "pytorch_model.bin")
    (folder / "vocab.txt").write_text("[PAD]\nword\n")
    return body, head


def refused(error, text, *args, **keys):
    with pytest.raises(error, match=re.escape(text)):
        load_model(*args, **keys)


def no_hub(*_, **__):
    raise ConnectionError("no route")


LOCAL = "weights: {path: towers}\nfurther_weights: {head: {path: whole}}\n"


def test_parts_come_from_files_of_their_own(folder):
    body, head = save_parts(folder)
    model = load_model(write_card(folder, LOCAL + "tokenizer: {path: vocab.txt}\n"))

    assert torch.equal(model.adapter.module["body"].weight, body["weight"])
    assert torch.equal(model.adapter.module["head"].weight, head["weight"])
    assert model.raw.given[2] == folder / "vocab.txt"
    assert isinstance(model.raw, Noted)
    assert model.notes == ()


def test_each_file_enters_the_models_name(folder):
    save_parts(folder)
    card = write_card(folder, LOCAL + "tokenizer: {path: vocab.txt}\n")
    names = [load_model(card).model_id]
    (folder / "vocab.txt").write_text("[PAD]\nother\n")
    names.append(load_model(card).model_id)
    other = {"head.weight": torch.ones(1, 2), "head.bias": torch.ones(1)}
    torch.save(other, folder / "whole" / "pytorch_model.bin")
    names.append(load_model(card).model_id)
    (folder / "moved.txt").write_text("[PAD]\nother\n")
    moved = load_model(write_card(folder, LOCAL + "tokenizer: {path: moved.txt}\n")).model_id

    assert len(set(names)) == 3
    assert moved == names[-1]


def test_hashes_on_the_card_are_compared(folder):
    save_parts(folder)
    wrong = "0" * 64
    right = file_sha256(folder / "vocab.txt")
    text = f"vocab.txt: its SHA-256 is {right}, the card says {wrong}. They must be equal."
    vocabulary = f"tokenizer: {{path: vocab.txt, sha256: '{wrong}'}}\n"
    refused(CheckpointError, text, write_card(folder, LOCAL + vocabulary))
    head = f"further_weights: {{head: {{path: whole, sha256: '{wrong}'}}}}\n"
    card = write_card(folder, "weights: {path: towers}\n" + head)
    refused(CheckpointError, f"the card says {wrong}", card)


def test_a_vocabulary_is_looked_for_beside_the_weights_before_the_hub(folder, monkeypatch):
    save_parts(folder)
    monkeypatch.setattr("huggingface_hub.snapshot_download", no_hub)
    state = load_model(write_card(folder), random_weights=True).adapter.module.state_dict()
    (folder / "finetuned").mkdir()
    save_file(state, folder / "finetuned" / "a.safetensors")
    card = write_card(folder, LOCAL + HUB)
    advice = (
        f"{card}: tokenizer.hub: 'someone/words' cannot be had (ConnectionError: no route). The "
        "repository must be reachable or in the hub's cache. Download its 'vocab.txt' or "
        "'tokenizer.json' elsewhere and put it beside the file of weights; or write a card with "
        f"`extends: {card}` and `tokenizer: {{path: FILE}}`."
    )
    refused(ModelError, advice, card)
    refused(ModelError, advice, card, checkpoint=folder / "finetuned" / "a.safetensors")

    (folder / "finetuned" / "tokenizer.json").write_text("{}")
    (folder / "towers" / "vocab.txt").write_text("[PAD]\n")
    finetuned = load_model(card, checkpoint=folder / "finetuned" / "a.safetensors")
    assert finetuned.raw.given == (None, {}, folder / "finetuned" / "tokenizer.json")
    assert load_model(card).raw.given[2] == folder / "towers" / "vocab.txt"


def test_random_weights_ask_no_hub(folder, monkeypatch):
    save_parts(folder)
    monkeypatch.setattr("huggingface_hub.snapshot_download", no_hub)
    hub = "weights: {hub: someone/black}\nfurther_weights: {head: {hub: someone/head}}\n"

    model = load_model(write_card(folder, hub + HUB), random_weights=True)
    local = write_card(folder, hub + "tokenizer: {path: vocab.txt}\n")

    assert model.raw.given == (None, None, None)
    assert [note.text for note in model.notes] == ["a stand-in reads the words."]
    assert load_model(local, random_weights=True).raw.given[2] == folder / "vocab.txt"


def test_a_makeshift_is_refused_with_real_weights(folder, write_photos):
    save_parts(folder)
    card = write_card(folder, LOCAL)
    refused(ModelError, f"{card}: a stand-in reads the words.", card)
    card = write_card(folder, name="scratch")
    for split in ("train", "val"):
        write_photos(folder / "data", "kvasir_polyp", split=split, n=2)
    with pytest.raises(UsageError, match=r"^finetune: .*scratch.yaml: a stand-in reads the words"):
        finetune(card, ["kvasir_polyp"], out=folder / "out", data_root=folder / "data")


def test_a_hub_that_is_out_of_reach_names_every_file(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", no_hub)
    card = write_card(folder, "weights: {hub: a/b}\nfurther_weights: {head: {hub: c/d}}\n")
    text = (
        f"write a card with `extends: {card}` and `weights: {{path: FOLDER}}`, "
        "`further_weights: {head: {path: FOLDER}}`; or give a finetuned file"
    )
    refused(ModelError, text, card)


def test_pickles_are_fetched_only_where_there_is_nothing_better(folder, monkeypatch):
    save_parts(folder)
    asked = []

    def snapshot_download(repository, *, revision, allow_patterns):
        pickles = any(pattern.endswith(".bin") for pattern in allow_patterns)
        asked.append((repository, pickles))
        if repository == "someone/whole" and not pickles:
            (folder / "empty").mkdir(exist_ok=True)
            return str(folder / "empty")
        return str(folder / repository.partition("/")[2])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    hub = "weights: {hub: someone/towers}\nfurther_weights: {head: {hub: someone/whole}}\n"
    load_model(write_card(folder, hub + "settings: {published: false}\n"))

    assert asked == [("someone/towers", False), ("someone/whole", False), ("someone/whole", True)]


def test_an_adapter_that_takes_no_such_files_says_so(folder):
    save_parts(folder)
    card = write_card(folder, "tokenizer: {path: vocab.txt}\n", adapter="Plain")
    text = (
        f"{card}: the adapter 'Plain' cannot be built from this card (got an unexpected keyword "
        "argument 'tokenizer'). Its constructor takes the settings and weights, tokenizer. Correct "
        "the adapter, or take the key off the card."
    )
    refused(ModelError, text, card, random_weights=True)


def test_a_folder_without_a_vocabulary_says_so(folder):
    save_parts(folder)
    text = (
        f"{folder / 'towers'}: there is no vocabulary. A file, or a folder with one of "
        "'vocab.txt', 'tokenizer.json', is needed. Correct 'tokenizer' on the card."
    )
    refused(ModelError, text, write_card(folder, LOCAL + "tokenizer: {path: towers}\n"))


def test_an_inherited_vocabulary_lies_where_its_own_card_says(folder):
    """A card elsewhere that extends it (as finetuning writes one) finds the same file."""
    save_parts(folder)
    base = write_card(folder, LOCAL + "tokenizer: {path: vocab.txt}\n")
    (folder / "finetuned").mkdir()
    derived = folder / "finetuned" / "card.yaml"
    derived.write_text(f"extends: ../{base.name}\nname: derived\n")
    again = folder / "again.yaml"
    again.write_text("extends: finetuned/card.yaml\nname: again\n")

    for path in (derived, again):
        card = load_model_card(path).card
        assert card.tokenizer.path == str(folder / "vocab.txt")
        assert card.weights is None
        assert card.further_weights == {}


def test_a_part_that_is_not_there_says_so(tmp_path):
    save_file({"net.neck.weight": torch.ones(1, 2)}, tmp_path / "a.safetensors")
    text = (
        f"{tmp_path / 'a.safetensors'}: no tensor lies under 'head'; the file has 1 keys, first "
        "'net.neck.weight'. A model with that part is needed. Give another file."
    )
    with pytest.raises(CheckpointError, match=re.escape(text)):
        load_into(torch.nn.Linear(2, 1), tmp_path / "a.safetensors", part="head")


def test_one_file_of_a_repository_with_several_may_be_named(folder, monkeypatch):
    body, _ = save_parts(folder)
    torch.save({"head.weight": torch.ones(1)}, folder / "towers" / "another.pth")
    asked = []

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.append(allow_patterns)
        return str(folder / "towers")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    local = "weights: {path: towers, file: open_clip_model.safetensors}\n"
    remote = local.replace("path: towers", "hub: someone/towers")
    head = "further_weights: {head: {path: whole}}\nsettings: {published: false}\n"
    for places in (local, remote):
        model = load_model(write_card(folder, places + head))
        assert model.raw.given[0] == folder / "towers" / "open_clip_model.safetensors"
        assert torch.equal(model.adapter.module["body"].weight, body["weight"])
    assert asked == [["open_clip_model.safetensors", "*.json", "*.txt", "*.model"]]

    text = "weights.file: found '../vocab.txt'. a file's name stays inside the repository or folder"
    refused(CardError, text, write_card(folder, "weights: {path: towers, file: ../vocab.txt}\n"))
    text = f"{folder / 'towers' / 'no.bin'}: no such file or folder. A file of weights"
    refused(CheckpointError, text, write_card(folder, "weights: {path: towers, file: no.bin}\n"))


def test_a_model_in_shards_is_loaded_and_named(folder):
    """The hash on the card is that of the shards, in the order of their names."""
    first, second = (
        {"body.weight": torch.ones(2, 2)},
        {
            "body.bias": torch.ones(2),
            "head.weight": torch.ones(1, 2),
            "head.bias": torch.zeros(1),
        },
    )
    (folder / "shards").mkdir()
    names = {"model-00001-of-00002.safetensors": first, "model-00002-of-00002.safetensors": second}
    for name, state in names.items():
        save_file(state, folder / "shards" / name)
    index = {"weight_map": {key: name for name, state in names.items() for key in state}}
    (folder / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    lines = "".join(f"{file_sha256(folder / 'shards' / name)}  {name}\n" for name in sorted(names))
    digest = hashlib.sha256(lines.encode()).hexdigest()

    card = write_card(folder, f"weights: {{path: shards, sha256: {digest}}}\n", adapter="Plain")
    model = load_model(card)

    assert model.weights_sha256 == digest
    assert torch.equal(model.adapter.module["head"].weight, torch.ones(1, 2))
    card = write_card(folder, f"weights: {{path: shards, sha256: '{'0' * 64}'}}\n", adapter="Plain")
    refused(CheckpointError, f"{folder / 'shards'}: its SHA-256 is {digest}, the card says 0", card)
