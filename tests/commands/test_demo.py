"""The demo runs everything that ships, and says what it found in words."""

import json

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.commands.demo import set_older_aside, shipped_models
from harness.runs.store import RunStore

SOME = ("phantom-clipseg-solo", "phantom-cris-refusing", "phantom-image-only-crowd")


@pytest.fixture(
    scope="module", params=["some", pytest.param("all", marks=pytest.mark.slow)], ids=str
)
def demo(request, tmp_path_factory):
    """The exit, the folder, and the models: all that ship where time allows."""
    out = tmp_path_factory.mktemp("demo") / "run"
    models = [m for m in shipped_models() if request.param == "all" or m in SOME]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("harness.commands.demo.shipped_models", lambda: models)
        result = CliRunner().invoke(app, ["demo", "--limit", "2", "--out", str(out)])
    return result, out, models


def test_the_demo_ends_with_a_table_a_line_a_model_and_the_files(demo):
    result, out, models = demo
    assert result.exit_code == 0, result.output
    assert len(models) >= 3
    for model in models:
        assert any(line.startswith(f"{model} ") for line in result.output.splitlines())
    # Two scenes a set allow no verdict, whatever the figures look like.
    told = [x for x in result.output.splitlines() if ": cannot tell (" in x]
    assert [line.split(":")[0] for line in told] == sorted(models)
    assert all(len(line) < 100 for line in told)
    assert "phantom_crowd" in result.output
    for name in ("summary.md", "summary.json"):
        assert name in result.output
        assert (out / name).is_file()


def test_the_demo_is_an_ordinary_run(demo):
    _, out, models = demo
    manifest = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert manifest["status"] == "complete"
    controls = [m["control"] for m in manifest["models"]]
    assert controls == [False] * (len(models) - 1) + [True]


def test_the_control_does_not_move_at_all(demo):
    _, out, _ = demo
    rows = json.loads((out / "summary.json").read_text(encoding="utf-8"))["rows"]
    mine = [r for r in rows if r["model"] == "phantom-image-only-crowd" and r["n_cases"]]
    moved = [r for r in mine if r["agreement"] not in (None, 1.0)]
    assert len(mine) > 15
    assert moved == []


def test_a_folder_of_earlier_code_shows_each_model_once(tmp_path):
    """What is not of today's models is named and moved, and other models stay."""
    store = RunStore(tmp_path / "run")
    ids = ["a@old", "a@new", "b@1", "mine@1"]
    models = [{"name": key.partition("@")[0], "model_id": key} for key in ids]
    (store.folder / "scores").mkdir(parents=True)
    for key in ids:
        (store.folder / "scores" / f"part-{key}-000000-0.parquet").write_bytes(b"")
    store.update(models=models, evaluated=["a@new", "b@1"])
    place = store.folder / "replaced" / "a@old"
    assert list(set_older_aside(store)) == [
        "a@old is of earlier code or weights and is left out, since a@new is there; its scores "
        f"were moved to {place}."
    ]
    assert [m["model_id"] for m in store.manifest["models"]] == ["a@new", "b@1", "mine@1"]
    assert [path.name for path in place.iterdir()] == ["part-a@old-000000-0.parquet"]
    assert store.part_names("a@old") == []
    assert len(store.part_names("a@new")) == 1
    assert list(set_older_aside(store)) == []


def test_generate_has_its_former_name():
    assert CliRunner().invoke(app, ["phantom", "--help"]).exit_code == 0


def test_generate_writes_sets_and_sheets(tmp_path):
    arguments = ["generate", "--data-root", str(tmp_path), "--sheets", str(tmp_path / "sheets")]
    result = CliRunner().invoke(app, [*arguments, "--train", "3", "-q"])
    assert result.exit_code == 0, result.output
    for name in ("phantom_solo", "phantom_crowd", "phantom_pairs"):
        assert (tmp_path / name / "anns" / "train.json").is_file()
        assert (tmp_path / "sheets" / f"{name}.png").stat().st_size > 10_000
    assert (tmp_path / "phantom_pairs" / "anns" / "size.json").is_file()
