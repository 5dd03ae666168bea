"""The driver of a cluster: whatever dies, every case is scored once, as on one machine.

Most tests drive the real driver and the real worker with a pretended Ray, which runs calls
in this process and lets workers die when told to. The last ones start Ray itself.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.engine.cluster import ClusterOptions, parse_cluster_options
from harness.engine.executors import Local, ModelSource
from harness.engine.ray_executor import MAX_FAILURES, RayExecutor, connect
from harness.engine.shard_worker import Job
from harness.engine.shards import distinct_texts
from harness.errors import HarnessError, RunError, UsageError
from harness.model.loading import LoadedModel
from harness.runs.kept_masks import mask_paths, read_saved_masks
from harness.runs.store import DONE, RunStore

ROOT = Path(__file__).resolve().parents[2]


class ActorError(Exception):
    """A worker died."""


class TaskError(Exception):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Other(Exception):
    """Stands for the exceptions that do not happen here."""


class PretendedRay:
    """Ray's few calls that the driver uses; `fate` says, call by call, whether a worker dies."""

    exceptions = SimpleNamespace(
        RayTaskError=TaskError, RayActorError=ActorError, ObjectLostError=Other,
        WorkerCrashedError=Other, OutOfMemoryError=Other, NodeDiedError=Other,
    )  # fmt: skip

    def __init__(self, fate=(), resources=None):
        self.fate = iter(fate)
        self.resources = {"CPU": 3.0} if resources is None else resources
        self.options = []
        self.actors = []

    def cluster_resources(self):
        return self.resources

    def remote(self, kind):
        def options(**given):
            self.options.append(given)
            return SimpleNamespace(remote=lambda *arguments: self.actor(kind(*arguments)))

        return SimpleNamespace(options=options)

    def actor(self, hand):
        self.actors.append(hand)
        hand.is_dead = False

        class Actor:
            def __getattr__(_, name):
                method = getattr(hand, name)
                return SimpleNamespace(remote=lambda *a, **k: (hand, lambda: method(*a, **k)))

        return Actor()

    def wait(self, refs, *, num_returns, timeout):
        return refs[-1:], refs[:-1]  # the one that was asked last answers first

    def get(self, ref):
        hand, call = ref
        hand.is_dead = hand.is_dead or next(self.fate, False)
        if hand.is_dead:
            raise ActorError("The actor died unexpectedly.\nmore")
        try:
            return call()
        except (RuntimeError, HarnessError) as problem:
            raise TaskError(problem) from None


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("harness.engine.shards.PAIRS_PER_SHARD", 70)


@pytest.fixture
def driven(tmp_path, photo_root, planned, toy_card, small_shards, backend):
    """A plan of several shards, and jobs of a toy model."""
    suite, _, plan = planned("paper")
    texts = distinct_texts(plan.cases)

    def job(root=photo_root, **toy):
        how = {"device": "cpu", "random_weights": True, "backend": backend}
        source = ModelSource(str(toy_card(**toy)), **how)
        return Job(source, root, suite.metric, texts)

    def store(name):
        made = RunStore(tmp_path / name)
        made.open(plan, suite)
        return made

    return SimpleNamespace(job=job, store=store, plan=plan, metric=suite.metric, root=photo_root)


def check_equal(found, driven):
    expected = driven.store("local")
    if not expected.settled_shards("x") and not list(expected.folder.glob("scores/part-*")):
        model = driven.job().source.load()
        Local(model, driven.root, driven.metric).execute(expected, batch_size=16)
    scores = found.scores()
    assert scores["status"].unique().to_list() == [DONE]
    assert scores.equals(expected.scores())
    assert scores.height == driven.plan.cases.height > 400
    assert sum(found.settled_shards(scores["model_id"][0]).values()) == scores.height


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_cluster_counts_what_one_process_counts(driven):
    ray = PretendedRay()
    executor = RayExecutor(ray, ClusterOptions(), driven.job())
    store, told = driven.store("cluster"), []
    executor.execute(store, batch_size=16, advance=told.append)
    check_equal(store, driven)
    assert sum(told) == driven.plan.cases.height
    assert len(ray.actors) == 3
    assert sum(executor.machines().values()) == len(executor.identities) <= 3


@pytest.mark.parametrize("fate", [[], [False] * 4 + [True]])
def test_a_cluster_keeps_the_masks_that_one_process_keeps(driven, fate):
    """Whoever saw a case, and in whatever order: what is saved depends on the cases alone."""
    alone, many = driven.store("alone"), driven.store("many")
    model = driven.job().source.load()
    Local(model, driven.root, driven.metric, kept_masks=2).execute(alone, batch_size=16)
    job = driven.job()._replace(kept_masks=2)
    RayExecutor(PretendedRay(fate), ClusterOptions(), job).execute(many, batch_size=16)
    saved = [read_saved_masks(store.folder, model.model_id) for store in (alone, many)]
    assert len(saved[0]) > 10
    assert saved[0] == saved[1]
    for kept in saved[0]:
        own, other = (mask_paths(s.folder, model.model_id, kept) for s in (alone, many))
        assert [p.read_bytes() for p in own] == [p.read_bytes() for p in other]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fate=st.lists(st.booleans(), max_size=30))
def test_whatever_dies_every_case_is_scored_once(driven, fate):
    """A driver that gives up says so; the next one continues from what is stored."""
    store = driven.store(f"cluster{hash(tuple(fate))}")
    try:
        RayExecutor(PretendedRay(fate), ClusterOptions(), driven.job()).execute(
            store, batch_size=16
        )
    except RunError:
        assert fate.count(True) >= MAX_FAILURES
        RayExecutor(PretendedRay(), ClusterOptions(), driven.job()).execute(store, batch_size=16)
    check_equal(store, driven)


def test_a_shard_that_kills_every_worker_is_named(driven):
    ray = PretendedRay([False, False, False] + [True, False] * 2 * MAX_FAILURES)
    with pytest.raises(RunError) as caught:
        RayExecutor(ray, ClusterOptions(workers=1), driven.job()).execute(
            driven.store("cluster"), batch_size=16
        )
    assert re.search(
        rf"cluster: {MAX_FAILURES} workers died while they evaluated kvasir_polyp/images/\S+ and "
        r"its neighbours \(The actor died unexpectedly\.\)\. A worker needs memory for the model "
        "and one batch. Give a smaller --batch-size",
        str(caught.value),
    )


def test_workers_that_die_at_once_are_not_replaced_for_ever(driven):
    with pytest.raises(
        RunError, match=f"ray: {MAX_FAILURES} workers died one after another before"
    ):
        RayExecutor(PretendedRay([True] * 99), ClusterOptions(), driven.job()).execute(
            driven.store("cluster"), batch_size=16
        )


def test_a_question_is_asked_again_when_its_worker_dies(driven):
    executor = RayExecutor(PretendedRay([False, True]), ClusterOptions(workers=1), driven.job())
    assert executor.ask(name_of).startswith("toy-random0@")
    assert executor.ask(count, 3, advance=lambda _: None) == 3


def name_of(model: LoadedModel) -> str:
    return model.model_id


def count(_model, n, *, advance):
    advance(n)
    return n


def test_what_the_model_says_is_said_by_the_driver(driven):
    with pytest.raises(RuntimeError, match="^a fault of the model$"):
        RayExecutor(
            PretendedRay(), ClusterOptions(), driven.job(fault="a fault of the model")
        ).execute(driven.store("cluster"), batch_size=16)
    missing = Job(ModelSource("nowhere.yaml"), driven.root, driven.metric, [])
    with pytest.raises(Exception, match="nowhere.yaml"):
        RayExecutor(PretendedRay(), ClusterOptions(), missing).ask(name_of)


def test_out_of_memory_halves_the_batch_and_is_told(driven):
    told = []
    store = driven.store("cluster")
    RayExecutor(PretendedRay(), ClusterOptions(workers=2), driven.job(memory=5)).execute(
        store, batch_size=16, halved=told.append
    )
    assert told == [4]
    assert store.scores()["status"].unique().to_list() == [DONE]


def test_a_machine_without_the_data_is_named(driven, tmp_path):
    with pytest.raises(RunError) as caught:
        RayExecutor(PretendedRay(), ClusterOptions(), driven.job(root=tmp_path / "elsewhere")).ask(
            name_of
        )
    assert f"--data-root: {tmp_path / 'elsewhere'} does not exist on " in str(caught.value)
    assert "Mount the folder there, or give a path that all machines share." in str(caught.value)


def test_workers_must_hold_the_same_model(driven, toy_card, monkeypatch):
    executor = RayExecutor(PretendedRay(), ClusterOptions(workers=2), driven.job())
    executor.ask(name_of)
    first = executor.identities[0]
    with pytest.raises(RunError) as caught:
        executor._admit(first._replace(host="b", model_id="toy@2", device="cuda"))
    assert f"b holds toy@2 on cuda, {first.host} {first.model_id} on cpu." in str(caught.value)


@pytest.mark.parametrize(
    ("options", "resources", "gpus", "workers"),
    [
        (ClusterOptions(), {"CPU": 4.0}, 0.0, 4),
        (ClusterOptions(workers=2), {"CPU": 4.0}, 0.0, 2),
        (ClusterOptions(), {"CPU": 64.0, "GPU": 8.0}, 1.0, 8),
        (ClusterOptions(gpus_per_worker=0.25), {"CPU": 64.0, "GPU": 8.0}, 0.25, 32),
        (ClusterOptions(gpus_per_worker=0.0), {"CPU": 6.0, "GPU": 8.0}, 0.0, 6),
        (ClusterOptions(), {}, 0.0, 1),
    ],
)
def test_workers_fill_the_cluster(driven, options, resources, gpus, workers):
    job = driven.job()
    anywhere = job._replace(source=ModelSource(job.source.name, random_weights=True))
    ray = PretendedRay(resources=resources)
    RayExecutor(ray, options, anywhere).ask(name_of)
    assert ray.options[0]["num_gpus"] == gpus
    assert len(ray.actors) == workers


def test_a_cluster_without_room_is_not_waited_for_for_ever(driven, monkeypatch):
    monkeypatch.setattr("harness.engine.ray_executor.MAX_WAIT_S", 0.0)
    ray = PretendedRay()
    ray.wait = lambda refs, **_: ([], refs)
    with pytest.raises(RunError, match=r"no worker started within 0 s\. A worker takes one CPU"):
        RayExecutor(ray, ClusterOptions(), driven.job()).ask(name_of)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("rya", None, None, None), "--executor: found 'rya'. 'local' (this process) or 'ray'"),
        (("local", "a:1", None, None), "--address: given with --executor local. It is for a"),
        (("local", None, None, 0.5), "--gpus-per-worker: given with --executor local."),
    ],
)
def test_options_that_do_not_fit_say_so(given, message):
    with pytest.raises(UsageError, match="^" + re.escape(message)):
        parse_cluster_options(*given)


def test_options_of_a_cluster_are_kept():
    assert parse_cluster_options("local", None, 2, None) is None
    assert parse_cluster_options("ray", "a:1", 2, 0.5) == ClusterOptions("a:1", 2, 0.5)


def test_without_ray_the_extra_is_named(driven, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(
            UsageError, match=r"Ray is not installed\. .*`pip install 'vlsm-harness\[ray"
        ),
        connect(ClusterOptions(), driven.job()),
    ):
        pass


def test_an_address_that_does_not_answer_is_named(driven, monkeypatch):
    def refuse(**_):
        raise ConnectionError("ray cluster at a:1 not found\nmore")

    pretended = SimpleNamespace(init=refuse, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", pretended)
    options = ClusterOptions("a:1")
    with (
        pytest.raises(UsageError) as caught,
        connect(options, driven.job()),
    ):
        pass
    assert (
        "--address: 'a:1' does not answer as a Ray cluster (ray cluster at a:1 not found)"
        in str(caught.value)
    )


def test_a_source_can_be_loaded_from_another_folder(toy_card, monkeypatch, tmp_path):
    card = toy_card()
    monkeypatch.chdir(card.parent)
    anywhere = ModelSource(card.name, Path("weights.pt"), random_weights=True).anywhere()
    assert anywhere.name == str(card)
    assert anywhere.checkpoint == tmp_path / "weights.pt"
    assert ModelSource("clipseg").anywhere().name == "clipseg"


def nodes(tmp_path, photo_root, card, *events, backend):
    """Starts two nodes, runs the command there, does what `events` say; see `two_nodes.py`."""
    home = tmp_path / "home"  # Ray writes a token there
    home.mkdir()
    environment = os.environ | {
        "HOME": str(home), "VLSM_DATA_ROOT": str(photo_root), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    found = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("two_nodes.py")), str(tmp_path / "cluster"),
         str(card), backend, *events],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    return json.loads(found.stdout.splitlines()[-1])


@pytest.fixture
def real(tmp_path, photo_root, toy_card, call, small_shards, backend):
    """The command on two real nodes, and the same in this process."""

    def run(*events, delay_s):
        card = toy_card(delay_s=delay_s)
        told = nodes(tmp_path, photo_root, card, *events, backend=backend)
        code, _, err = call(
            "run", "paper", "--datasets", "kvasir_polyp", "--model", card, "--random-weights",
            "--device", "cpu", "--batch-size", "16", "-q", "--out", tmp_path / "local",
            "--backend", backend,
        )  # fmt: skip
        assert code == 0, err
        cluster, local = RunStore(tmp_path / "cluster"), RunStore(tmp_path / "local")
        assert cluster.manifest["status"] == "complete"
        assert cluster.scores().equals(local.scores())
        assert (cluster.folder / "summary.json").read_bytes() == (
            local.folder / "summary.json"
        ).read_bytes()
        return told, cluster

    return run


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_two_nodes_count_what_one_process_counts(real):
    told, cluster = real(delay_s=0.0)
    assert told["codes"] == [0]
    assert len(list((cluster.folder / "scores").iterdir())) > 4


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(real):
    """It is replaced; on a slow machine the other one may be done before that."""
    told, cluster = real("kill", delay_s=0.3)
    assert told == {"codes": [0], "events": ["kill"]}
    workers = cluster.manifest["models"][0]["hardware"]["workers"]
    assert sum(workers.values()) in (2, 3)


@pytest.mark.slow
def test_a_node_that_goes_away_is_done_without(real):
    told, _ = real("remove", delay_s=0.3)
    assert told == {"codes": [0], "events": ["remove"]}


@pytest.mark.slow
def test_a_driver_that_is_killed_or_interrupted_continues(real):
    told, _ = real("kill_driver", "interrupt_driver", delay_s=0.3)
    assert told == {"codes": [-9, 130, 0], "events": ["kill_driver", "interrupt_driver"]}
