"""A backend computes what torch computes, and whatever it cannot compute is said."""

import importlib.util
import json
import os
import re
import shutil
import stat
import sys

import pytest
import torch
from torch import Tensor

from harness.errors import HarnessError, ModelError
from harness.model import backends, exports
from harness.model.backends import STAGES
from harness.model.exports import Stage, check_precision, compiled, import_openvino, own_cache
from harness.model.loading import load_model

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra 'openvino' is not installed"
)
with_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch compiles for a CPU with g++, which is not here"
)

TEXTS = ["one small pink round polyp, located in top left of the image", "", "a polyp " * 60, "b"]
ALL = dict.fromkeys(STAGES, "openvino")

ADAPTER = """
from typing import Any, NamedTuple
import torch
from harness.models import TokenCounts, standardise

class Maps(NamedTuple):
    maps: torch.Tensor

class Words(NamedTuple):
    vector: torch.Tensor

class Own:
    def __init__(self, settings: Any, *, weights: Any) -> None:
        self.input_size = (16, 24)
        self.trouble = settings.get("trouble")
        self.module = torch.nn.Linear(3, 4)
        self.table = torch.linspace(-1, 1, 4 * 99).reshape(99, 4)

    def preprocess(self, image):
        return standardise(image, self.input_size, mean=(0.5,) * 3, std=(0.25,) * 3)

    def count_tokens(self, texts):
        lengths = tuple(min(len(t) + 1, 9) for t in texts)
        return TokenCounts(lengths, tuple(len(t) > 8 for t in texts))

    def tokenize(self, texts):
        ids = torch.tensor([self._ids(t[:9]) for t in texts])
        return ids, (ids > 0).long()

    def _ids(self, text):
        return [ord(c) % 97 + 1 for c in text] + [0] * (9 - len(text))

    def encode_images(self, pixels):
        if self.trouble == "brightness":  # a number read off the pixels
            pixels = pixels * float(pixels.mean())
        if self.trouble == "raises":
            assert not torch.jit.is_tracing(), "no tracing\\nplease"
        return Maps(self.module(pixels.permute(0, 2, 3, 1)))

    def encode_texts(self, texts):
        return self.encode_tokens(*self.tokenize(texts))

    def encode_tokens(self, ids, mask):
        needed = int(mask.sum(1).max()) if len(ids) else 0
        words = self.table[ids[:, :needed]] * mask[:, :needed, None]
        if self.trouble == "rows":
            words = words[torch.arange(len(ids))]
        return Words(words.sum(1))

    def decode(self, image_features, text_features):
        return torch.einsum("nhwc,nc->nhw", image_features.maps, text_features.vector)
"""


@pytest.fixture
def own(tmp_path):
    """A user's own adapter, beside its card; returns a function that loads it."""

    def load(backend="openvino", **settings):
        (tmp_path / "adapter.py").write_text(ADAPTER)
        card = tmp_path / "card.yaml"
        settings = json.dumps(settings)
        head = "name: own\ntitle: Own\nadapter: adapter.py:Own\nthreshold: 0.5\n"
        card.write_text(f"{head}settings: {settings}\n")
        return load_model(card, device="cpu", random_weights=True, backend=backend)

    return load


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of one's own; the trial in another process, which takes longest, is left out."""
    monkeypatch.setattr(exports, "fate_of", lambda *_: "")
    monkeypatch.setenv("VLSM_HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


def logits(model, texts=TEXTS) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(len(texts), 3, *model.adapter.input_size, generator=generator)
    with torch.inference_mode(), model.autocast():
        adapter = model.adapter
        return adapter.decode(adapter.encode_images(pixels), adapter.encode_texts(texts)).float()


def refused(call, text):
    with pytest.raises(HarnessError, match="^" + re.escape(text)):
        call()


def entries(cache):
    return sorted(path for path in cache.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize(
    "name", ["clipseg-small", pytest.param("biomedclipseg-small", marks=pytest.mark.slow)]
)
def test_every_stage_of_a_staged_model_is_computed(name):
    theirs = load_model(name, device="cpu", random_weights=True)
    mine = load_model(name, device="auto", random_weights=True, backend="openvino")
    assert (mine.stages, mine.notes, mine.backend) == (ALL, theirs.notes, "openvino")
    assert (theirs.stages, theirs.backend) == ({}, "torch")
    assert mine.model_id != theirs.model_id
    right = logits(theirs)
    assert (logits(mine) - right).abs().max() <= 1e-5 * right.abs().max()
    # Rows, alone or among others, and of any length.
    for one in range(len(TEXTS)):
        alone = logits(mine, TEXTS[: one + 1])[one]
        assert (alone - right[one]).abs().max() <= 1e-5 * right.abs().max()


@pytest.mark.parametrize("trouble", [None, "rows"])
def test_an_adapter_of_ones_own_is_computed_too(own, trouble):
    """Also where tracing fixes the number of its rows: they are computed one by one."""
    mine, theirs = own(trouble=trouble), own("torch", trouble=trouble)
    assert mine.stages == ALL
    assert torch.allclose(logits(mine), logits(theirs), atol=1e-5)


@pytest.mark.parametrize(
    ("trouble", "stage", "why"),
    [
        ("brightness", "encode_images", "it differs from torch by "),
        ("raises", "encode_images", "it cannot be compiled (AssertionError: no tracing)"),
    ],
)
def test_a_stage_that_cannot_be_exported_stays_with_torch_and_is_named(own, trouble, stage, why):
    mine, theirs = own(trouble=trouble), own("torch", trouble=trouble)
    assert mine.stages[stage].startswith(f"torch: {why}")
    assert [s for s in STAGES if mine.stages[s] == "openvino"] == [s for s in STAGES if s != stage]
    (note,) = [n.text for n in mine.notes if n.text.startswith("--backend")]
    assert note.startswith(f"--backend openvino: torch computes {stage} ({why}")
    assert torch.allclose(logits(mine), logits(theirs), atol=1e-5)


def test_models_without_stages_stay_with_torch_and_say_so(toy_card):
    box = load_model(toy_card("box"), device="cpu", random_weights=True, backend="openvino")
    assert box.notes[-1].text == (
        "--backend openvino: torch computes predict (it is one function, without stages)."
    )
    toy = load_model(toy_card(), device="cpu", random_weights=True, backend="openvino")
    assert toy.stages == ALL | {"encode_texts": "torch: it has no 'tokenize' and 'encode_tokens'"}


def test_a_model_that_samples_draws_with_torch():
    model = load_model("medclipseg-small", device="cpu", random_weights=True, backend="openvino")
    assert model.stages == ALL | {"decode": "torch: it says or draws more than logits"}
    theirs = load_model("medclipseg-small", device="cpu", random_weights=True)
    assert torch.allclose(logits(model), logits(theirs), atol=1e-4)


def test_an_export_is_read_back(own, cache, monkeypatch):
    first = logits(own())
    assert len(entries(cache)) == 3
    monkeypatch.setattr(exports, "_export", lambda _: pytest.fail("exported again"))
    assert torch.equal(logits(own()), first)


def an_export(name):
    layer = torch.nn.Linear(2, 2)
    return Stage(name, layer, torch.nn.Identity(), (torch.ones(2, 2),))


def test_an_export_that_goes_while_it_is_read_is_made_anew(cache, monkeypatch):
    """Two processes that begin together: one may remove what the other has just looked at."""
    stage, kept = an_export("s"), {"model_id": "m@1", "precision": "float32"}
    (first,) = compiled(stage, **kept)(torch.ones(3, 2))
    (place,) = entries(cache)
    (place / "stage.xml").unlink()
    monkeypatch.setattr(exports, "_is_intact", lambda place: True)
    (again,) = compiled(stage, **kept)(torch.ones(3, 2))
    assert torch.equal(again, first)


def test_what_another_process_kept_first_stays(cache):
    stage, kept = an_export("s"), {"model_id": "m@1", "precision": "float32"}
    compiled(stage, **kept)
    (place,) = entries(cache)
    before = place.stat().st_ino
    exports._tried(exports._export(stage), stage, "float32", [], place=place)
    assert [entry.stat().st_ino for entry in entries(cache)] == [before]


def spoil(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def poison(path):
    """Another's weights, with the hashes of what was there."""
    content = path.read_bytes()
    path.write_bytes(b"\x00" * len(content))
    place = path.parent
    (place / "sums.json").write_text(json.dumps(exports._sums(place)))
    path.chmod(0o666)


def link(path):
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("damage", [spoil, poison, link, lambda p: p.unlink()])
@pytest.mark.parametrize("name", ["stage.bin", "stage.xml", "sums.json"])
def test_what_the_user_did_not_write_is_not_read(cache, damage, name):
    stage = Stage("s", torch.nn.Linear(2, 2), torch.nn.Identity(), (torch.ones(2, 2),))
    kept = {"model_id": "m@1", "precision": "float32"}
    (first,) = compiled(stage, **kept)(torch.ones(3, 2))
    (place,) = entries(cache)
    before = (place / "stage.bin").read_bytes()
    damage(place / name)
    (again,) = compiled(stage, **kept)(torch.ones(3, 2))
    assert torch.equal(again, first)
    (place,) = (e for e in entries(cache) if e.is_dir())
    assert (place / "stage.bin").read_bytes() == before
    assert not (place / name).is_symlink()
    assert (place / name).stat().st_mode & 0o077 == 0


def test_a_folder_that_others_can_write_is_not_used(own, cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert own().stages == ALL
    assert entries(cache) == []


def test_a_folder_that_cannot_be_made_is_done_without(own, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VLSM_HARNESS_CACHE", str(tmp_path / "file"))
    assert own().stages == ALL
    monkeypatch.delenv("VLSM_HARNESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert own_cache("openvino") == tmp_path / "vlsm-harness" / "openvino"


def test_what_was_used_longest_ago_is_forgotten(own, cache, monkeypatch):
    monkeypatch.setattr(exports, "KEPT_BYTES", 1)
    assert own().stages == ALL
    assert len(entries(cache)) == 1


def test_another_model_or_version_has_exports_of_its_own(cache, monkeypatch):
    stage = Stage("s", torch.sin, torch.nn.Identity(), (torch.ones(2, 2),))
    compiled(stage, model_id="m@1", precision="float32")
    compiled(stage, model_id="m@2", precision="float32")
    compiled(stage._replace(example=(torch.ones(2, 3),)), model_id="m@1", precision="float32")
    known = exports.versions("torch", "openvino")
    assert set(known) == {"harness", "torch", "openvino"}
    monkeypatch.setattr(exports, "versions", lambda *_: known | {"torch": "9"})
    compiled(stage, model_id="m@1", precision="float32")
    assert len(entries(cache)) == 4


def test_what_cannot_be_is_said(own, monkeypatch):
    refused(
        lambda: own("openvin"),
        "--backend: unknown backend 'openvin'. Did you mean 'openvino'? Known backends: "
        "'inductor', 'openvino', 'torch'.",
    )
    refused(
        lambda: load_model("clipseg-small", device="cuda", random_weights=True, backend="openvino"),
        "--backend openvino: found --device cuda. It computes on the CPU here. Give --device cpu, "
        "or use --backend torch.",
    )
    monkeypatch.setitem(sys.modules, "openvino", None)
    refused(
        own,
        "--backend openvino: OpenVINO is not installed. The extra 'openvino' brings it. Install it "
        "with `pip install 'vlsm-harness[openvino]'`, or use --backend torch.",
    )


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_precision_without_arithmetic_is_refused(monkeypatch, precision):
    """OpenVINO itself would compute in float32 and say nothing."""

    class Core:
        def get_property(self, *_):
            return ["FP32", "INT8"]

    monkeypatch.setattr(exports, "_core", Core)
    with pytest.raises(
        ModelError,
        match=f"^model 'm@1': {precision} was asked for with --backend openvino, whose arithmetic "
        "on this CPU is FP32, INT8. float32 is needed here. Give --dtype float32, or use",
    ):
        check_precision(precision, where="model 'm@1'")
    check_precision("float32", where="m")


def test_bfloat16_is_computed_where_the_cpu_has_it():
    if "BF16" not in exports._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    models = [
        load_model("clipseg-small", dtype=d, random_weights=True, backend="openvino", device="cpu")
        for d in ("float32", "bfloat16")
    ]
    assert [m.stages for m in models] == [ALL, ALL]
    exact, short = map(logits, models)
    assert 0 < (short - exact).abs().max() < 0.2 * exact.std()


def test_nothing_is_reported_over_the_network():
    import_openvino()
    assert sys.modules["openvino_telemetry"] is None


def test_too_little_memory_is_what_the_engine_halves_batches_for(cache, monkeypatch):
    stage = Stage("s", torch.sin, torch.nn.Identity(), (torch.ones(2, 2),))
    made = compiled(stage, model_id="m@1", precision="float32")

    class Request:
        def infer(self, *_, **__):
            raise MemoryError("std::bad_alloc")

    made._request = Request()
    with pytest.raises(torch.OutOfMemoryError, match=r"^OpenVINO: std::bad_alloc"):
        made(torch.ones(2, 2))


@pytest.mark.slow
@with_compiler
def test_inductor_computes_what_torch_computes(own, monkeypatch, tmp_path):
    """With any number of rows; what is generated lies where nobody else can write."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("VLSM_HARNESS_CACHE", str(tmp_path / "cache"))
    mine, theirs = own("inductor"), own("torch")
    assert mine.stages == dict.fromkeys(STAGES, "inductor")
    assert (mine.backend, mine.notes) == ("inductor", theirs.notes)
    assert mine.model_id != theirs.model_id
    right = logits(theirs)
    for rows in (1, 3, len(TEXTS)):
        assert torch.allclose(logits(mine, TEXTS[:rows]), right[:rows], atol=1e-5)
    generated = tmp_path / "cache" / "inductor"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(generated)
    assert stat.S_IMODE(generated.stat().st_mode) == 0o700
    assert list(generated.rglob("*.cpp"))


@pytest.mark.slow
@with_compiler
@pytest.mark.parametrize("name", ["clipseg-small", "biomedclipseg-small"])
def test_no_batch_changes_what_inductor_makes_of_another(name):
    """One kernel serves all numbers of rows, and the order in which they come decides nothing."""
    first, second = (
        load_model(name, device="cpu", random_weights=True, backend="inductor") for _ in range(2)
    )
    assert first.model_id == second.model_id
    assert first.stages == dict.fromkeys(STAGES, "inductor")
    few, all_ = TEXTS[:2], TEXTS
    found = [logits(first, few), logits(first, all_)]
    other = [logits(second, all_), logits(second, few)]
    assert torch.equal(found[0], other[1])
    assert torch.equal(found[1], other[0])
    right = logits(load_model(name, device="cpu", random_weights=True))
    assert (found[1] - right).abs().max() <= 1e-4 * right.abs().max()


def test_a_cache_that_others_can_write_is_not_used_by_inductor(own, monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("VLSM_HARNESS_CACHE", str(tmp_path))
    (tmp_path / "inductor").mkdir()
    (tmp_path / "inductor").chmod(0o777)
    why = f"it cannot be compiled (ModelError: {tmp_path / 'inductor'} is not this user's own)"
    assert own("inductor").stages == dict.fromkeys(STAGES, f"torch: {why}")
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


@with_compiler
@torch._dynamo.config.patch(recompile_limit=1)
def test_each_model_is_compiled_however_many_there_are():
    """Of models that share a function torch would compile eight, and say nothing of the ninth."""
    seen = torch._dynamo.utils.counters["stats"]
    before, given = seen["unique_graphs"], torch.ones(2, 2)
    for name in ("sin", "cos", "tan"):
        stage = an_export("s")._replace(call=lambda x, name=name: getattr(torch, name)(x))
        (found,) = backends._by_inductor(stage, torch.device("cpu"))(given)
        assert torch.allclose(found, getattr(torch, name)(given))
    assert seen["unique_graphs"] == before + 3


def test_on_cuda_graphs_are_replayed_and_their_memory_is_not_handed_out(monkeypatch):
    """No device is here: torch's compiler is replaced by one that answers in the same memory."""
    asked, memory = [], torch.zeros(2)

    def compile_(call, **how):
        asked.append(how)
        return lambda given: memory.copy_(given)

    monkeypatch.setattr(torch, "compile", compile_)
    made = backends._by_inductor(an_export("s"), torch.device("cuda"))
    (first,), (second,) = made(torch.ones(2)), made(torch.full((2,), 2.0))
    assert asked == [{"dynamic": True, "mode": "reduce-overhead"}]
    assert (first.tolist(), second.tolist()) == ([1, 1], [2, 2])


def test_without_a_compiler_torch_computes_as_it_is_written_and_says_so(own, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no C++ compiler\nhere")

    monkeypatch.setattr(torch, "compile", fail)
    mine, theirs = own("inductor"), own("torch")
    why = "it cannot be compiled (RuntimeError: no C++ compiler)"
    assert mine.stages == dict.fromkeys(STAGES, f"torch: {why}")
    assert mine.notes[-1].text == (
        f"--backend inductor: torch computes {'; '.join(f'{s} ({why})' for s in STAGES)}."
    )
    assert torch.equal(logits(mine), logits(theirs))
