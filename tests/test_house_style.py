"""The house rules that a machine can check."""

import ast
import functools
import graphlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from harness.metrics import METRICS

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "harness").rglob("*.py"))
ADAPTERS = sorted((ROOT / "models").rglob("*.py"))
GENERATORS = sorted((ROOT / "suites").rglob("*.py"))
DATASETS = sorted((ROOT / "suites" / "datasets").glob("*.yaml"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

# A room may import what stands to its left, never what stands to its right.
LAYERS = ["_version", "errors", "records", "files", "metrics", "cards", "prompts", "data"]
LAYERS += ["weights", "model", "models", "suite", "plan", "runs", "engine", "training", "stats"]
LAYERS += ["gate", "hunt", "report", "auditing", "leaderboard", "trackers", "commands", "cli"]
LAYERS += ["__main__", "pytest_plugin"]
CHECKING = ("assert", "raises", "warns", "refused", "check_", "pytest.fail")

# Rooms that must work where torch is not installed, and start fast.
LIGHT = ["errors", "records", "files", "metrics", "cards", "prompts", "data", "suite", "plan"]
LIGHT += [
    "runs",
    "gate",
    "trackers",
    "stats",
    "report",
    "auditing",
    "leaderboard",
    "cli",
    "commands",
]
LIGHT += ["pytest_plugin"]
HEAVY = {"torch", "scipy", "statsmodels", "nltk", "altair", "transformers", "lightning"}
HEAVY |= {"mlflow", "tensorboard", "wandb", "nibabel", "pycocotools"}


def layer(module):
    """Rank of ``harness.<layer>...``; -1 for anything else."""
    head, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return LAYERS.index(name) if head == "harness" and name in LAYERS else -1


@functools.cache
def nodes(path):
    """Every node of a file's tree, parsed once for all rules; the tree itself comes first."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path):
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def own_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_to_lower_layers(path):
    own = own_name(path)
    upward = [m for m in imports(path) if -1 < layer(own) < layer(m)]
    assert not upward, f"{own} may not import {upward}"


def test_no_circle_of_imports():
    """Imports inside functions and for type checkers count too: readers follow those as well."""
    names = {own_name(path): path for path in SOURCES}
    graph = {
        own: {module if module in names else module.rpartition(".")[0] for module in imports(path)}
        & names.keys()
        for own, path in names.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_every_room_has_a_place_among_the_layers():
    rooms = {path.relative_to(ROOT / "harness").parts[0].removesuffix(".py") for path in SOURCES}
    assert rooms - {"__init__"} <= set(LAYERS)


@pytest.mark.parametrize(
    "path", SOURCES + ADAPTERS + GENERATORS, ids=lambda p: str(p.relative_to(ROOT))
)
def test_errors_are_raised_with_one_message(path):
    """``raise ValueError("a", "b")`` prints a tuple: a stray comma between two halves."""
    for node in nodes(path):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            assert len(node.exc.args) <= 1, f"{path.name}:{node.lineno}: two messages"


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_test_can_fail(path):
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            body = " ".join(ast.unparse(statement) for statement in node.body)
            assert any(word in body for word in CHECKING), f"{node.name} checks nothing"


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_keeps_the_contract(name):
    doc = inspect.getdoc(METRICS[name])
    for section in ("Args:", "Returns:", "Raises:", "References:", "Example:"):
        assert section in doc, f"metric {name!r} has no {section} section"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_engine_knows_no_model_by_name(path):
    """A model's quirks live in its folder; the harness meets models through cards alone."""
    names = {"clipseg", "cris", "biomedclipseg", "image-only", "image_only"}
    for node in nodes(path):
        if isinstance(node, ast.Compare):
            values = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
            assert not values & names, f"{path.name}:{node.lineno}: compares with a model's name"


# The verb's old spelling, which a user may still type.
OLD_VERB = {("cli.py", "phantom")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_engine_knows_no_dataset_by_name(path):
    """Datasets enter through their cards, those that are generated with a program beside it."""
    names = {card.stem for card in DATASETS} | {generator.parent.name for generator in GENERATORS}
    # Examples in docstrings may name one.
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    told = {id(n.body[0].value) for n in nodes(path) if isinstance(n, kinds) and _has_doc(n)}
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            found = {name for name in names if name in node.value}
            allowed = {name for file, name in OLD_VERB if file == path.name}
            assert not found - allowed, f"{path.name}:{node.lineno}: names the dataset {found}"


def _has_doc(node):
    return ast.get_docstring(node, clean=False) is not None


def test_a_generator_imports_the_ground_and_its_own_folder_alone():
    """What a stranger's generator may lean on too."""
    ground = LAYERS.index("data")
    for path in GENERATORS:
        upward = [m for m in imports(path) if layer(m) >= ground]
        assert not upward, f"{path.name} may not import {upward}"


def test_models_do_not_import_each_other():
    folders = {path.parent.name for path in ADAPTERS}
    for path in ADAPTERS:
        heads = {m.partition(".")[0] for m in imports(path)}
        assert not heads & ({"models"} | folders), f"{path} imports another model"


def test_functions_are_short():
    for path in SOURCES + ADAPTERS + GENERATORS:
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef):
                statements = node.body[1:] if ast.get_docstring(node) else node.body
                lines = statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0
                # Typer reads a command's options off its signature, which is not its body.
                assert lines <= 45, f"{path.name}:{node.lineno}: {node.name} has {lines} lines"


def test_light_rooms_import_nothing_heavy():
    """All in one process: what none of them imports, no one of them does; the first to is named."""
    modules = [own_name(p) for p in SOURCES]
    modules = [m for m in modules if m.count(".") and m.split(".")[1] in LIGHT]
    assert {m.split(".")[1] for m in modules} == set(LIGHT)
    program = (
        "import sys, importlib\n"
        f"for m in {modules!r}:\n"
        "    importlib.import_module(m)\n"
        f"    heavy = {HEAVY!r} & set(sys.modules)\n"
        "    if heavy:\n"
        "        sys.exit(f'{m} imports {sorted(heavy)}')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    assert (found.returncode, found.stderr) == (0, "")


WRITES = {"write_text", "write_bytes", "write_parquet", "write_csv", "mkdir", "makedirs", "touch"}
WRITES |= {"mkdtemp", "mkstemp", "TemporaryDirectory", "NamedTemporaryFile", "copyfile", "copytree"}


def writes_a_file(call):
    """Whether a call of `harness` puts something on a disk by itself."""
    if not isinstance(call.func, ast.Attribute | ast.Name):
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
    if name in ("open", "fdopen"):
        values = [*call.args, *(k.value for k in call.keywords if k.arg == "mode")]
        texts = [
            v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)
        ]
        return any(set(text) & set("wax+") and set(text) <= set("rwabxt+") for text in texts)
    if name == "save" and isinstance(call.func, ast.Attribute):
        return ast.unparse(call.args[0]) != "held"
    # A method that is called without a place gives the content back.
    return (
        isinstance(call.func, ast.Attribute)
        and name in WRITES
        and not (name == "write_csv" and not call.args)
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_one_room_alone_writes_files(path):
    """`harness.files.writing` says in words when a disk refuses, and never leaves half a file."""
    own = path.relative_to(ROOT).as_posix()
    if own == "harness/files/writing.py":
        return
    for node in nodes(path):
        if isinstance(node, ast.Call) and writes_a_file(node):
            text = ast.unparse(node)
            assert text in ALLOWED.get(own, ()), f"{own}:{node.lineno}: {text}"


# Locks hold no content; pytest makes its own folder.
ALLOWED = {
    "harness/runs/store.py": {"(self.folder / '.lock').open('w')"},
    "harness/pytest_plugin/session.py": {
        "(folder / '.lock').open('w')",
        "config.cache.mkdir('vlsm')",
    },
}
