"""A model's id covers every own file behind its adapter, and nothing that chance loaded."""

import importlib
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from harness.errors import ModelError
from harness.model.loading import load_model

ROOT = Path(__file__).resolve().parents[2]
ADAPTER = """
{imports}
import torch
from harness.model.contract import TokenCounts

class Plain:
    def __init__(self, settings, *, weights):
        self.input_size, self.module = (8, 8), torch.nn.Conv2d(3, 1, 1)
        {build}
    def preprocess(self, image): ...
    def count_tokens(self, texts):
        return TokenCounts((0,) * len(texts), (False,) * len(texts))
    def predict(self, pixels, texts):
        {late}
        return self.module(pixels)
"""
BELOW = (
    "import sys; from pathlib import Path; sys.path.insert(0, str(Path(__file__).parent / 'lib'))"
)
ONCE = (
    "import sys; from pathlib import Path; place = str(Path(__file__).parent / 'lib')\n"
    "if place not in sys.path: sys.path.append(place)\n"
)
BY_PATH = """
import importlib.util
from pathlib import Path
def by_path(name):
    spec = importlib.util.spec_from_file_location("part", Path(__file__).parent / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
"""


@pytest.fixture(autouse=True)
def interpreter():
    """The interpreter as it was: adapters add to the path and to the modules."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        # Libraries stay: others hold parts of them, which are not those of a second import.
        file = getattr(sys.modules[name], "__file__", None) or ""
        if not file.startswith((sys.prefix, sys.base_prefix, str(ROOT / "harness"))):
            del sys.modules[name]


def write_model(folder, imports="", build="pass", late="pass", **files):
    folder.mkdir(parents=True, exist_ok=True)
    text = ADAPTER.format(imports=textwrap.dedent(imports), build=build, late=late)
    (folder / "adapter.py").write_text(text)
    card = "name: plain\ntitle: A box\nadapter: adapter.py:Plain\nthreshold: 0.5\n"
    (folder / "card.yaml").write_text(card)
    for name, content in files.items():
        write(folder, name.replace("__", "/"), content)
    return folder


def write(folder, name, content):
    path = folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def name(folder):
    return load_model(folder, random_weights=True, device="cpu").model_id


WAYS = {
    "a namespace package below": {"imports": "from .net.layers import width"},
    "an absolute import from a folder on the path": {"imports": f"{BELOW}\nimport net.layers"},
    "the same, added once": {"imports": f"{ONCE}\nfrom net import layers"},
    "inside the constructor": {"build": "from .net import layers"},
    "inside a method": {"late": "from .net import layers"},
    "by a computed name": {
        "imports": "import importlib",
        "build": "self.part = importlib.import_module('.net.' + 'layers', __package__).width",
    },
    "by a computed name that nothing keeps": {
        "imports": "import importlib",
        "build": "importlib.import_module('.net.' + 'layers', __package__)",
    },
    "by path": {"imports": BY_PATH + "part = by_path('net/layers.py')"},
    "by path in the constructor": {
        "imports": BY_PATH,
        "build": "self.part = by_path('net/layers.py').width",
    },
    "through another module": {
        "imports": "from .middle import width",
        "middle": "from .net.layers import *\n",
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_importing_is_followed(tmp_path, way):
    on_the_path = WAYS[way].get("imports", "").startswith((BELOW, ONCE))
    here = "lib__net__layers" if on_the_path else "net__layers"
    model = write_model(tmp_path / "m", **WAYS[way], **{here: "def width(): return 4\n"})
    first, again = name(model), name(model)
    write(model, here.replace("__", "/"), "def width(): return 5\n")
    changed = name(model)
    write(model, here.replace("__", "/"), "def width(): return 4\n")

    assert first == again
    assert changed != first
    assert name(model) == first


def test_what_is_not_imported_does_not_matter(tmp_path):
    model = write_model(tmp_path / "m", unused="x = 1\n")
    first = name(model)
    write(model, "unused", "x = 2\n")
    write(model, "net/other", "x = 2\n")

    assert name(model) == first


def test_where_a_model_lies_does_not_matter(tmp_path):
    parts = {"imports": f"{BELOW}\nimport net.layers\nfrom .near import x"}
    files = {"lib__net__layers": "x = 1\n", "near": "x = 1\n"}
    here = write_model(tmp_path / "here", **parts, **files)
    there = write_model(tmp_path / "far" / "away", **parts, **files)

    assert name(here) == name(there)


def test_two_models_with_modules_of_one_name_stay_apart(tmp_path):
    """Public repositories all have a `network` on their path."""
    for way in (BELOW, ONCE):
        models = [
            write_model(
                tmp_path / f"{kind}{len(way)}",
                imports=f"{way}\nimport network",
                build="self.width = network.WIDTH",
                lib__network=f"WIDTH = {kind}\n",
            )
            for kind in (1, 2)
        ]
        first = [name(model) for model in models]
        widths = [load_model(m, random_weights=True, device="cpu").raw.width for m in models]

        assert widths == [1, 2]
        assert [name(model) for model in reversed(models)] == first[::-1]
        assert len(set(first)) == 2


def test_order_does_not_matter(tmp_path, monkeypatch):
    """A helper that the first model, or the user's own program, has imported already."""
    write(tmp_path / "shared", "helper_of_all", "from inner_of_all import x\n")
    write(tmp_path / "shared", "inner_of_all", "x = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "shared")
    a = write_model(tmp_path / "a", imports="from helper_of_all import x")
    b = write_model(tmp_path / "b", build="import helper_of_all")
    forwards = [name(a), name(b)]
    for module in ("helper_of_all", "inner_of_all"):
        del sys.modules[module]
    backwards = [name(b), name(a)]
    for module in ("helper_of_all", "inner_of_all"):
        del sys.modules[module]
    importlib.import_module("helper_of_all")

    assert forwards == backwards[::-1] == [name(a), name(b)]
    write(tmp_path / "shared", "inner_of_all", "x = 2\n")
    assert {name(a), name(b)}.isdisjoint(forwards)


def distribution(site, version, *, requires=""):
    """A package as pip would install it."""
    folder = site / "site-packages"
    for old in folder.glob("*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    (folder / "strange_layers").mkdir(parents=True, exist_ok=True)
    (folder / "strange_layers" / "__init__.py").write_text("x = 1\n")
    info = folder / f"strange_layers-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: strange-layers\nVersion: {version}\n{requires}"
    )
    (info / "RECORD").write_text("strange_layers/__init__.py,,\n")
    return folder


def test_the_version_of_a_library_matters_and_its_files_do_not(tmp_path, monkeypatch):
    site = distribution(tmp_path, "1.0")
    monkeypatch.syspath_prepend(site)
    model = write_model(tmp_path / "m", imports="import strange_layers")
    first = name(model)
    (site / "strange_layers" / "__init__.py").write_text("x = 2\n")
    assert name(model) == first
    distribution(tmp_path, "1.1")
    importlib.invalidate_caches()

    assert name(model) != first


def test_an_installed_adapter_is_followed_too(tmp_path, monkeypatch):
    """As an editable install puts it on the path."""
    source = write_model(tmp_path / "src" / "strange_pkg", imports="from .deep.net import x")
    write(source, "__init__", "")
    write(source, "deep/net", "x = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "src")
    card = (source / "card.yaml").read_text().replace("adapter.py:", "strange_pkg.adapter:")
    (tmp_path / "card.yaml").write_text(card)
    first = name(tmp_path)
    write(source, "deep/net", "x = 2\n")

    assert name(tmp_path) != first


@pytest.mark.parametrize(
    ("imports", "build", "text"),
    [
        (
            "raise RuntimeError('no licence')",
            "pass",
            "imported (RuntimeError: no licence, adapter.py",
        ),
        ("import sys; sys.exit(0)", "pass", r"cannot be imported (SystemExit: 0, adapter.py:"),
        ("1 / 0", "pass", "the module cannot be imported (ZeroDivisionError: division by zero, ad"),
        (
            "",
            "raise OSError('no disk')",
            "the adapter 'Plain' cannot be built (OSError: no disk, ad",
        ),
        (
            "import sys",
            "sys.exit()",
            "'Plain' cannot be built (SystemExit: no message, adapter.py:",
        ),
    ],
)
def test_an_adapter_that_raises_is_told(tmp_path, imports, build, text):
    model = write_model(tmp_path / "m", imports=imports, build=build)
    with pytest.raises(ModelError) as caught:
        name(model)
    assert text in str(caught.value)
    assert str(caught.value).startswith(str(model / "card.yaml"))


SETTINGS = {
    "float32 matmul precision": "torch.set_float32_matmul_precision('medium')",
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "default device": "torch.set_default_device('meta')",
    "deterministic algorithms": "torch.use_deterministic_algorithms(True)",
    "threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "autocast of the CPU": "torch.set_autocast_enabled('cpu', True)",
    "gradients": "torch.set_grad_enabled(False)",
    "cudnn": "torch.backends.cudnn.benchmark = True",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_an_adapter_sets_is_undone_and_said(tmp_path, setting):
    model = load_model(
        write_model(tmp_path / "m", imports=f"import torch\n{SETTINGS[setting]}"),
        random_weights=True,
        device="cpu",
    )

    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert not torch.backends.cudnn.benchmark
    assert [setting in note.text for note in model.notes] == [True]


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """As a command asks, with a memory of its own."""
    monkeypatch.setenv("VLSM_TRUST_ADAPTERS", "ask")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_a_strangers_adapter_runs_once_it_is_trusted(tmp_path, asked, monkeypatch):
    marker = tmp_path / "ran"
    model = write_model(tmp_path / "m", imports=f"open({str(marker)!r}, 'w').close()")
    text = "is a program that would run with your rights, and its files .SHA-256 [0-9a-f]{12}. were"
    with pytest.raises(ModelError, match=text):
        name(model)
    assert not marker.exists()

    monkeypatch.setenv("VLSM_TRUST_ADAPTERS", "remember")
    first = name(model)
    monkeypatch.setenv("VLSM_TRUST_ADAPTERS", "ask")
    assert name(model) == first
    write(model, "below/other", "x = 1\n")
    with pytest.raises(
        ModelError, match=r"Read it, then give --trust-adapter once; in CI set VLSM"
    ):
        name(model)
    monkeypatch.setenv("VLSM_TRUST_ADAPTERS", "1")
    assert name(model) == first


def test_shipped_cards_need_no_trust(asked):
    assert name("phantom-image-only-crowd").startswith("phantom-image-only-crowd-random0@")


def test_commands_ask_and_remember(tmp_path, asked, monkeypatch, call):
    monkeypatch.delenv("VLSM_TRUST_ADAPTERS")
    model = write_model(tmp_path / "m", build="raise OSError('ran')")
    command = ("check", "--model", model, "--random-weights", "--quiet")
    code, _, err = call(*command)
    assert (code, "--trust-adapter once" in err) == (2, True)
    for arguments in ((*command, "--trust-adapter"), command):
        monkeypatch.delenv("VLSM_TRUST_ADAPTERS")
        code, _, err = call(*arguments)
        assert (code, "cannot be built (OSError: ran" in err) == (2, True)


def test_a_run_that_never_began_leaves_nothing(tmp_path, call):
    """The checkpoint is looked at first: the data are not even there."""
    out = tmp_path / "out"
    torch.save({"a": torch.ones(1)}, tmp_path / "a.ckpt")
    model = f"phantom-image-only-crowd={tmp_path / 'a.ckpt'}"
    code, _, err = call("run", "empty_prompt", "--model", model, "--out", out, "--data-root", "no")

    assert (code, "a.ckpt: the checkpoint does not fit the model" in err) == (2, True)
    assert not out.exists()
