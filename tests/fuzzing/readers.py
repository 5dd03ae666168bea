"""Every reader of a user's or a run's file: a valid file of each, and what reads it.

A new reader gets its line in `READERS`; `tests/test_fuzz_readers.py` does the rest.
"""

import contextlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import polars as pl
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent


class Reader(NamedTuple):
    """One reader.

    Attributes:
        path: Where its file lies.
        seeds: Contents of valid files.
        read: Reads the file at `path`; nothing but `HarnessError` may come out.
        form: ``json``, ``yaml`` or ``bytes``: how contents are spoilt.
        allowed: Further exceptions that belong to the reader's contract.
    """

    path: Path
    seeds: list[bytes]
    read: Callable[[], object]
    form: str = "bytes"
    allowed: tuple[type[BaseException], ...] = ()


class _Trials:
    """In place of `harness.data.trial`: one process for many files, started anew when it dies."""

    PROGRAM = """
import io, json, sys
import polars as pl
while line := sys.stdin.buffer.readline():
    said = json.loads(line)
    held = [io.BytesIO(sys.stdin.buffer.read(size)) for size in said["sizes"]]
    try:
        for content in held:
            pl.scan_parquet(content).select(pl.len()).collect()
            if said["columns"] != []:
                pl.read_parquet(content, columns=said["columns"])
        answer = b"1"
    except BaseException:
        answer = b"0"
    sys.stdout.buffer.write(answer)
    sys.stdout.flush()
"""

    def __init__(self):
        self._process = None

    def __call__(self, files, *, columns=None, **_):
        if self._process is None or self._process.poll() is not None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            quiet = {"stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen([sys.executable, "-c", self.PROGRAM], **pipes, **quiet)
        said = json.dumps({"sizes": list(map(len, files)), "columns": columns}).encode()
        self._process.stdin.write(said + b"\n" + b"".join(files))
        self._process.stdin.flush()
        return self._process.stdout.read(1) == b"1"  # nothing, where the file ended it


_survives = _Trials()


def _suite(folder, run):
    from harness.suite.schema import load_suite

    path = folder / "mine.yaml"
    names = ("antonym_swap", "medclipseg", "meaning_removed", "phantom_v1")
    seeds = [(ROOT / "suites" / f"{name}.yaml").read_bytes() for name in names]
    guard = b"""\
name: guard
title: What every new checkpoint must keep
datasets:
  - {name: phantom_pairs, split: size}
probes:
  - {name: antonym, perturbation: antonym, attributes: [size, color], repeats: 2}
  - {name: reorder, perturbation: reorder_attributes, expect: []}
statistics: {draws: 1000, seed: 1, margins: {preserved: 3.0}}
metric: {resolution: native, empty: nan, columns: [iou]}
gate: {min_dice: 0.7, max_drop: 10, must_listen: [size, color], non_inferiority: {margin: 10}}
"""
    return Reader(path, [*seeds, guard], lambda: load_suite(path), "yaml")


def _dataset_card(folder, run):
    from harness.cards import load_dataset_card
    from harness.errors import PromptError
    from harness.prompts.grammar import load_grammar

    path = folder / "mine.yaml"
    names = ("kvasir_polyp", "camus", "phantom_pairs", "busi")
    seeds = [(ROOT / "suites/datasets" / f"{name}.yaml").read_bytes() for name in names]

    def read():
        card = load_dataset_card(path)
        grammar = load_grammar(card)
        with contextlib.suppress(PromptError):  # of another card's grammar
            grammar.parse("one small pink round polyp", prompt_type=card.prompt_type)

    return Reader(path, seeds, read, "yaml")


def _model_card(folder, run):
    from harness.cards import load_model_card

    path = folder / "card.yaml"
    seeds = [path.read_bytes() for path in sorted((ROOT / "models").glob("*/*.yaml"))]
    own = "extends: clipseg\nname: mine\ncheckpoint: {path: a.ckpt}\nsettings: {a: 1}\n"
    return Reader(path, [*seeds, own.encode()], lambda: load_model_card(path), "yaml")


def _annotations(folder, run):
    from harness.cards import load_dataset_card
    from harness.data import load_samples
    from harness.data.checks.overlap import annotation_files
    from harness.data.checks.rows import read_split

    shutil.copytree(run.parent / "data", folder / "data")
    path = folder / "data/kvasir_polyp/anns/test.json"
    rows = json.loads(path.read_bytes())[:2]
    card = load_dataset_card("kvasir_polyp")

    def read():
        try:
            load_samples(card, folder / "data", "test", pictures=False)
        finally:
            read_split(card, folder / "data", "test")
            annotation_files("kvasir_polyp", folder / "data/kvasir_polyp")

    return Reader(path, [json.dumps(rows).encode()], read, "json")


def _table(kind):
    def prepared(folder, run):
        from harness.data import table_files
        from harness.data.tables import TableEntry, read_tables

        table_files.survives = _survives
        names = ("image", "prompt", "perturbation")
        rows = [(f"{n}.png", f"one small polyp {n}", "paraphrase") for n in range(5)]
        path = folder / f"t{kind}"
        _write_table(path, names, rows)
        entry = TableEntry(dataset="busi", file=path.name)
        return Reader(path, [path.read_bytes()], lambda: read_tables(entry, folder, where="a"))

    return prepared


def _write_table(path, names, rows):
    frame = pl.DataFrame(rows, schema=names, orient="row")
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        import openpyxl

        book = openpyxl.Workbook()
        for row in (names, *rows):
            book.active.append(row)
        book.save(path)


def _strangers(name, file, form="bytes"):
    """A file of a set that `data init` reads; pictures and masks are decoded as well."""

    def prepared(folder, run):
        from harness.data.formats import Choices, embedded, recognise
        from harness.data.formats.entries import Made
        from harness.data.formats.files import list_files

        place = ROOT / "tests/data/formats/sets.py"
        spec = importlib.util.spec_from_file_location("fuzzed_sets", place)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        embedded.survives = _survives
        module.SETS[name](folder, 4)
        path = folder / file

        def read():
            found = recognise(list_files(folder), Choices())
            for entry in found.entries:
                for one in (entry.image, entry.mask):
                    if isinstance(one, Made):
                        one.content()

        return Reader(path, [path.read_bytes()], read, form)

    return prepared


def _pictures(color):
    held = []
    rng = np.random.default_rng(0)
    for mode, kinds in color.items():
        shape = (9, 7, 3) if mode == "RGB" else (9, 7)
        pixels = rng.integers(0, 255, shape).astype(np.uint8)
        picture = Image.fromarray(pixels).convert(mode)
        for kind in kinds:
            buffer = io.BytesIO()
            picture.save(buffer, kind)
            held.append(buffer.getvalue())
    return held


def _picture(folder, run):
    from harness.data.images import content_id, read_image

    path = folder / "a.png"
    kinds = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "TGA", "DDS", "PCX")
    seeds = _pictures({"RGB": kinds, "L": ("PNG", "TIFF", "PPM"), "P": ("PNG", "GIF", "BMP")})
    return Reader(path, seeds, lambda: content_id(read_image(path)))


def _mask(folder, run):
    from harness.data.images import read_mask

    path = folder / "a.png"
    seeds = _pictures({"L": ("PNG", "JPEG", "BMP", "TIFF"), "1": ("PNG", "TIFF"), "P": ("PNG",)})

    return Reader(path, seeds, lambda: read_mask(path))


def _weights(suffix, reader="read_tensors"):
    def prepared(folder, run):
        import torch
        from safetensors.torch import save

        from harness.weights import loading

        state = {"net.a.weight": torch.arange(6.0).reshape(2, 3), "net.b": torch.ones(2).half()}
        if suffix == ".safetensors":
            seeds = [save(state)]
        else:
            seeds = []
            for content in ({"state_dict": state, "epoch": 3, "x": [(1, {"a": None})]}, state):
                buffer = io.BytesIO()
                is_zip = suffix == ".ckpt"
                torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
                seeds.append(buffer.getvalue())
        path = folder / f"a{suffix}"
        return Reader(path, seeds, lambda: getattr(loading, reader)(path))

    return prepared


def _lora(name, form="bytes"):
    def prepared(folder, run):
        import torch
        from safetensors.torch import save

        from harness.cards import Lora
        from harness.weights.lora import lora_file, merge

        keys = {f"base_model.model.0.lora_{n}.weight": s for n, s in (("A", (1, 3)), ("B", (2, 1)))}
        config = {"peft_type": "LORA", "lora_alpha": 2, "alpha_pattern": {"0": 3}, "r": 1}
        contents = {
            "adapter_model.safetensors": save({key: torch.ones(s) for key, s in keys.items()}),
            "adapter_config.json": json.dumps(config).encode(),
        }
        for file, content in contents.items():
            (folder / file).write_bytes(content)

        def read():
            base = torch.nn.Sequential(torch.nn.Linear(3, 2))
            merge(base, lora_file(folder), Lora(path="x"), None)

        return Reader(folder / name, [contents[name]], read, form)

    return prepared


def _pickle(folder, run):
    import collections
    import pickle

    from harness.files.pickles import DAMAGE, read_pickle

    path = folder / "a.pkl"
    content = {"a": [1, 2.5, None, (True, b"x" * 300)], "b": {"c": {1, 2}, "d": frozenset("xy")}}
    content["e"] = collections.OrderedDict(f=2**70, g="é" * 300)
    seeds = [pickle.dumps(content, protocol=n) for n in range(6)]

    def read():
        with io.BytesIO(path.read_bytes()) as stream:
            read_pickle(stream, builders={}, persistent=lambda pid: pid)

    return Reader(path, seeds, read, allowed=DAMAGE)


def _index(folder, run):
    from harness.weights.files import weight_files

    path = folder / "model.safetensors.index.json"
    names = [f"model-{n}.safetensors" for n in (1, 2)]
    for name in names:
        (folder / name).write_bytes(b"")
    content = {"metadata": {"total_size": 8}, "weight_map": {"a": names[0], "b": names[1]}}
    return Reader(path, [json.dumps(content).encode()], lambda: weight_files(path), "json")


def _configuration(folder, run):
    from transformers import CLIPSegForImageSegmentation

    from harness.weights.pretrained import _read_configuration

    path = folder / "config.json"
    kind = CLIPSegForImageSegmentation.config_class
    seed = json.dumps(kind().to_dict()).encode()
    read = partial(_read_configuration, kind, folder, name="CLIPSeg")
    return Reader(path, [seed], read, "json")


def _vocabulary(folder, run):
    place = ROOT / "harness/model/wordpiece.py"
    spec = importlib.util.spec_from_file_location("fuzzed_wordpiece", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = folder / "vocab.txt"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "##a", "##b", "polyp"]
    seed = "\n".join(words).encode()
    return Reader(path, [seed], lambda: module.read_vocabulary(path, size=len(words)))


def _bundle(folder, run):
    import zipfile

    from harness.weights.packages import read_member

    held = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("config.json", b'{"hidden_size": 384}' * 9)
            archive.writestr("model.safetensors", b"x" * 300)
        held.append(buffer.getvalue())
    path = folder / "model.zip"
    path.write_bytes(held[0])
    return Reader(path, held, lambda: read_member(path, "config.json"))


def _training_record(folder, run):
    from harness.training.finetune import _begin
    from harness.training.recipe import Recipe

    path = folder / "training.json"
    identity = {"model": "a@b", "train": "c", "prompt_types": {"a": "p6"}, "recipe.seed": 42}
    seed = json.dumps(identity).encode()
    read = lambda: _begin(folder, identity=identity, recipe=Recipe())  # noqa: E731
    return Reader(path, [seed], read, "json")


def _training_figures(folder, run):
    from harness.training.finetune import _begin
    from harness.training.recipe import Recipe

    path = folder / "figures.json"
    seed = json.dumps({"epochs": 3, "recipe": {"max_epochs": 200, "max_minutes": None}}).encode()
    read = lambda: _begin(folder, identity={"model": "a"}, recipe=Recipe())  # noqa: E731
    return Reader(path, [seed], read, "json")


def _training_state(folder, run):
    import torch

    from harness.training.trainee import best_weights

    module = torch.nn.Linear(2, 2)
    state = {f"net.{key}": value for key, value in module.state_dict().items()}
    content = {"state_dict": state, "epoch": 3, "harness": {"val_dice": 0.5, "schedule": {}}}
    path = folder / "best.ckpt"
    torch.save(content, path)
    return Reader(path, [path.read_bytes()], lambda: best_weights(module, path))


def _baseline(folder, run):
    from harness.gate.baseline import read_file

    path = folder / "baseline.json"
    return Reader(
        path, [(run.parent / "baseline.json").read_bytes()], lambda: read_file(path), "json"
    )


def _registration(folder, run):
    from harness.plan.registration import read_registration, register
    from harness.runs.store import RunStore

    path, store = folder / "registration.json", RunStore(run)
    planned = SimpleNamespace(
        sha256=store.manifest["plan_sha256"], n_cases=store.plan_cases().height
    )
    register(path, planned, store.suite(), limit=None)
    return Reader(path, [path.read_bytes()], lambda: read_registration(path), "json")


def _of_run(name, read, form="bytes"):
    """A file of a run directory; `read` is given the copy of the directory."""

    def prepared(folder, run):
        copy = folder / "run"
        shutil.copytree(run, copy)
        path = next(iter(sorted(copy.glob(name))))
        return Reader(path, [path.read_bytes()], lambda: read(copy), form)

    return prepared


def _manifest(run):
    from harness.gate.audited import read_run
    from harness.report.loaded import load_run

    loaded = load_run(run)
    assert loaded.names is not None
    assert loaded.private_sets is not None
    read_run(run)


def _plan(run):
    from harness.commands.plan_diff import read_plan
    from harness.runs.store import RunStore

    read_plan(run)
    RunStore(run).plan_cases()


def _scores(run):
    from harness.runs.store import RunStore

    store = RunStore(run)
    try:
        for model in store.manifest["models"]:
            store.settled_shards(model["model_id"])
        store.scores()
        store.scores_scan().collect()
    finally:
        shutil.rmtree(run / "damaged", ignore_errors=True)


def _store(name):
    def read(run):
        from harness.runs.store import RunStore

        getattr(RunStore(run), name)()

    return read


def _assessment(run):
    from harness.stats.assessment import Assessment

    Assessment.read(run)


def _album(run):
    from harness.report.loaded import load_run

    loaded = load_run(run)
    for model in loaded.models:
        loaded.kept(model["model_id"])


def _gallery(run):
    from harness.report.gallery import gallery
    from harness.report.loaded import load_run

    gallery(load_run(run), images="thumbnails")


def _break(folder, run):
    from harness.hunt.breaks import Break, read_break

    path = folder / "break.json"
    content = {
        "form": "vlsm-harness break 1", "kind": "brittle", "dataset": "busi", "split": "test",
        "sample_id": "a.png", "image_id": "x", "prompts": "released", "prompt_type": "p6",
        "prompt_index": 0, "original_prompt": "small polyp", "variant": "tiny polyp",
        "edits": [{"start": 0, "end": 5, "old": "small", "new": "tiny", "attribute": "size"}],
        "made_by": ["synonym"], "named_sample_id": None, "size": {"edits": 1, "characters": 4},
        "limits": {"relative_change_percent": 10.0, "agreement": 0.9},
        "figures": {"dice_original": 0.9, "dice": 0.5, "relative_change_percent": -44.0,
                    "agreement": 0.5, "edit_survives": True},
        "model_id": "m@0123456789ab", "signature": "dice", "search": {
            "minimality": "exhausted", "tried": 1, "calls": 1, "budget": 9, "families": ["other"],
            "seed": 0, "hypothesis": "6", "lexicon": "curated", "lexicon_sha256": "a"},
    }  # fmt: skip
    fields = Break.model_fields
    assert set(content) <= set(fields)
    return Reader(path, [json.dumps(content).encode()], lambda: read_break(path), "json")


def _submission(name, form="bytes"):
    def prepared(folder, run):
        from harness.leaderboard import reading
        from harness.leaderboard.reading import read_tables
        from harness.leaderboard.submission import TABLES
        from harness.leaderboard.verification import open_submission

        reading.survives = _survives
        copy = folder / "submission"
        track = ROOT / "reports/leaderboard/submissions/phantom-v1/phantom-image-only-crowd"
        shutil.copytree(track, copy)
        path = copy / name

        def read():
            opened = open_submission(copy)
            reasons = list(opened.reasons)
            own = {name: opened.files[name]} if name in TABLES and name in opened.files else {}
            read_tables(own, dict.fromkeys(TABLES, 20_000), reasons)
            assert all(len(text) < 3000 and text.isprintable() for text in reasons), reasons

        seed = path.read_bytes()
        if path.suffix == ".parquet":
            path.write_bytes(_small(seed))
        return Reader(path, [path.read_bytes()], read, form)

    return prepared


def _small(content):
    buffer = io.BytesIO()
    pl.read_parquet(io.BytesIO(content)).head(50).write_parquet(buffer)
    return buffer.getvalue()


def _flags(folder, run):
    from harness.leaderboard.flags import read_flags, today

    path = folder / "flags.yaml"
    flag = {"sha256": "a" * 64, "state": "verified", "on": "2026-01-01", "harness": "0.1.0"}
    flag["note"] = "none"
    seed = yaml.safe_dump({"flags": {"a/b": flag, "a/c": flag}}).encode()

    def read():
        for one in read_flags(path).values():
            one.lapsed(today())

    return Reader(path, [seed], read, "yaml")


def _log(name):
    def prepared(folder, run):
        from harness.leaderboard.log import BUILT, LOG, Log

        log = Log.read(folder)
        log.follow({"a/b": "a" * 64, "a/c": "b" * 64})
        log.add("checked", "a/b", "a" * 64, "verified")
        (folder / BUILT).write_text(json.dumps({"on": "2026-01-01", "log": log.head}))
        path = folder / {"log": LOG, "built": BUILT}[name]
        form = "json" if name == "built" else "bytes"
        return Reader(path, [path.read_bytes()], lambda: Log.of_board(folder), form)

    return prepared


def _track(name, form="bytes"):
    def prepared(folder, run):
        from harness.leaderboard import tracks

        shutil.copytree(ROOT / "suites/tracks", folder / "tracks")
        tracks.shipped = lambda kind: folder
        tracks.survives = _survives
        path = folder / "tracks" / name

        def read():
            tracks.pinned_reference(tracks.load_track("phantom-v1"))

        return Reader(path, [path.read_bytes()], read, form)

    return prepared


def _session(folder, run):
    from harness.pytest_plugin.session import _done

    path = folder / "done.json"
    seed = json.dumps({"session": "a", "folder": "b", "models": ["c"]}).encode()
    return Reader(path, [seed], lambda: _done(folder, "a"), "json")


def _generated(folder, run):
    from harness.cards import load_dataset_card
    from harness.data.generators import _RECORD, _is_current

    card, path = load_dataset_card("phantom_solo"), folder / _RECORD
    (folder / "anns").mkdir()
    (folder / "anns/test.json").write_text("[]")
    seed = json.dumps({"seed": 0, "annotations": {"test": "a" * 64}}).encode()
    return Reader(
        path, [seed], lambda: _is_current(card, folder.parent, folder, {"seed": 0}), "json"
    )


def _answers(name, content):
    """A folder of masks made elsewhere, of which one file is read."""

    def build(folder, run):
        from harness.data.answers import opened

        path = folder / name
        Image.new("1", (5, 4), 1).save(folder / "2.png")

        def read():
            with opened(folder) as answers:
                answers.sha256()
                for key in answers.found:
                    answers.mask(key)

        return Reader(path, [content()], read, "json" if name.endswith(".jsonl") else "bytes")

    return build


def _lines():
    segmentation = {"size": [4, 5], "counts": "43325"}
    return json.dumps({"case_id": "1", "repeat": 1, "segmentation": segmentation}).encode()


def _arrays():
    held = io.BytesIO()
    np.savez_compressed(held, **{"1": np.eye(4, dtype=np.uint8), "3-1": np.eye(4, dtype=bool)})
    return held.getvalue()


def _plan_file(folder, run):
    from harness.plan.files import ORIGIN, read_origin

    origin = {"suite": _suite_content(run), "data_root": "data", "plan_sha256": "a" * 64}
    origin |= {"limit": None, "folder": None}
    held = io.BytesIO()
    frame = pl.read_parquet(run / "plan.parquet")
    frame.write_parquet(held, metadata={ORIGIN: json.dumps(origin)})
    path = folder / "plan.parquet"
    return Reader(path, [held.getvalue()], lambda: read_origin(path))


def _suite_content(run):
    return yaml.safe_load((run / "suite.lock.yaml").read_text(encoding="utf-8"))


READERS: dict[str, Callable[[Path, Path], Reader]] = {
    "suite": _suite,
    "dataset card": _dataset_card,
    "model card": _model_card,
    "annotations": _annotations,
    "csv table": _table(".csv"),
    "parquet table": _table(".parquet"),
    "xlsx table": _table(".xlsx"),
    "stranger's csv": _strangers("semicolons", "pairs.csv"),
    "stranger's json": _strangers("json", "pairs.json", "json"),
    "coco": _strangers("coco", "annotations/instances_val2017.json", "json"),
    "refcoco": _strangers("refcoco", "refs(unc).p"),
    "grefcoco": _strangers("grefcoco", "grefs(unc).json", "json"),
    "parquet shard": _strangers("hf-parquet", "data/test-00000-of-00001.parquet"),
    "arrow shard": _strangers("hf-disk", "test/data-00000-of-00001.arrow"),
    "arrow state": _strangers("hf-disk", "test/state.json", "json"),
    "volume": _strangers("nifti", "labelsTs/case_000.nii.gz"),
    "volumes' labels": _strangers("nifti", "dataset.json", "json"),
    "picture": _picture,
    "mask": _mask,
    "safetensors": _weights(".safetensors"),
    "torch checkpoint": _weights(".ckpt"),
    "shapes of a checkpoint": _weights(".ckpt", "read_shapes"),
    "old torch checkpoint": _weights(".pt"),
    "low-rank additions": _lora("adapter_model.safetensors"),
    "their configuration": _lora("adapter_config.json", "json"),
    "pickle": _pickle,
    "shard index": _index,
    "configuration": _configuration,
    "vocabulary": _vocabulary,
    "bundle": _bundle,
    "training record": _training_record,
    "training figures": _training_figures,
    "training state": _training_state,
    "baseline": _baseline,
    "registration": _registration,
    "run.json": _of_run("run.json", _manifest, "json"),
    "suite.lock.yaml": _of_run("suite.lock.yaml", _store("suite"), "yaml"),
    "plan.parquet": _of_run("plan.parquet", _plan),
    "not_applicable.parquet": _of_run("not_applicable.parquet", _store("not_applicable")),
    "score part": _of_run("scores/*.parquet", _scores),
    "texts": _of_run("texts/*.parquet", _store("texts")),
    "verdicts.json": _of_run("verdicts.json", _assessment, "json"),
    "summary.parquet": _of_run("summary.parquet", _assessment),
    "album": _of_run("masks/*.parquet", _album),
    "album mask": _of_run("masks/*/*.png", _gallery),
    "break": _break,
    "submission.yaml": _submission("submission.yaml", "yaml"),
    "submission run.json": _submission("run.json", "json"),
    "submission scores": _submission("scores.parquet"),
    "flags": _flags,
    "board's log": _log("log"),
    "board's record": _log("built"),
    "track": _track("phantom-v1.yaml", "yaml"),
    "track sources": _track("phantom-v1/sources.json", "json"),
    "track truth": _track("phantom-v1/truth.parquet"),
    "pytest session": _session,
    "generated set": _generated,
    "answers in lines": _answers("a.jsonl", _lines),
    "answers in arrays": _answers("a.npz", _arrays),
    "table of answers": _answers("answers.csv", lambda: b"case_id,file,repeat\n1,2.png,0\n"),
    "file of a plan": _plan_file,
}


def planted(folder, run):
    """Fails in each way once; it reads every fourth file."""
    import os
    import time

    count = iter(range(int(folder.parent.name.rpartition("-")[2]), 100))
    ways = [lambda: int("planted"), os.abort, lambda: time.sleep(1000), lambda: None]

    def read():
        try:
            ways[next(count) % 4]()
        except ValueError:
            raise ValueError("planted") from None

    return Reader(folder / "a", [b"x"], read)
