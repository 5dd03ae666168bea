"""The plugin in processes of its own: inert unless asked, one inference under xdist."""

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "harness.pytest_plugin"


def python(program):
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return found.stdout.strip()


def test_loading_the_plugin_imports_nothing_heavy():
    heavy = {"torch", "polars", "numpy", "pydantic", "typer", "yaml", "rich"}
    program = f"import sys, {NAME}; print(sorted({heavy!r} & set(sys.modules)))"
    assert python(program) == "[]"


def test_the_entry_point_is_named_like_its_module():
    """Then `-p harness.pytest_plugin` beside a live entry point registers one plugin, not two."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {NAME: NAME}
    live = [e for e in entry_points(group="pytest11") if e.value == NAME]
    assert [e.name for e in live] in ([], [NAME])  # none in a checkout that is not installed


@pytest.fixture
def distribution(place, monkeypatch):
    """An installation of the entry point, as pip writes it, in front of any other."""
    site = place.path / "site"
    info = site / "vlsm_harness-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vlsm-harness\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[pytest11]\n{NAME} = {NAME}\n")
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    return place


@pytest.mark.parametrize("twice", [[], ["-p", NAME]])
def test_a_plain_session_with_the_plugin_installed_is_as_it_was(distribution, twice):
    """No test more, no warning, nothing imported; named twice it is loaded once."""
    distribution.makepyfile(
        """
        import sys
        def test_it(request):
            assert "torch" not in sys.modules and "polars" not in sys.modules
            plugins = [n for n, p in request.config.pluginmanager.list_name_plugin() if p]
            assert plugins.count("harness.pytest_plugin") == 1
        """
    )
    found = distribution.runpytest_subprocess(*twice)
    found.assert_outcomes(passed=1)
    assert "vlsm: " not in found.stdout.str()


def test_two_workers_run_the_model_once(place):
    """Each load of the model writes its process: one did, and both tested."""
    adapter = (place.path / "adapter.py").read_text(encoding="utf-8")
    log = place.path / "loads.txt"
    adapter += (
        "\n_init = Spotter.__init__\n"
        "def _logged(self, *a, **k):\n"
        "    import os\n"
        f"    with open({str(log)!r}, 'a') as loads:\n"
        "        print(os.getpid(), file=loads)\n"
        "    _init(self, *a, **k)\n"
        "Spotter.__init__ = _logged\n"
    )
    (place.path / "adapter.py").write_text(adapter, encoding="utf-8")
    found = place.runpytest_subprocess(
        "-p", NAME, "-n", "2", "--dist", "each", "-v", "my.suite.yaml",
        "--vlsm-model", "card.yaml", "--vlsm-random-weights",
    )  # fmt: skip
    found.assert_outcomes(passed=10, failed=2)
    assert len(log.read_text().splitlines()) == 1
    workers = {w for w in ("gw0", "gw1") if f"[{w}]" in found.stdout.str()}
    assert workers == {"gw0", "gw1"}
    assert len(list(place.path.rglob("run.json"))) == 1
