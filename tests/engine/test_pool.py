"""Several processes evaluate what one does, and say what became of one that died."""

import os
import signal

import pytest
import torch
from torch import nn

from harness.auditing.evaluating import Conditions
from harness.auditing.running import run_models
from harness.engine import pool
from harness.engine.pool import PAIRS_PER_SHARD, SMALL, WORTH_IT, usable_cores, usual_workers
from harness.errors import ModelError, RunError
from harness.model.wrapping import wrap
from harness.runs.store import RunStore


@pytest.fixture
def audited(planned, photo_root, toy_card, tmp_path, monkeypatch, backend):
    """A function: run the paper's suite on a few pictures, in shards of a picture or two."""
    suite, _, _ = planned("paper", limit=4)
    monkeypatch.setattr("harness.engine.shards.PAIRS_PER_SHARD", 60)

    toy = [(str(toy_card()), None)]

    def run(name, workers, models=None):
        how = Conditions(
            device="cpu", backend=backend, workers=workers, thresholds=True, random_weights=True
        )
        return run_models(
            suite, models or toy, root=photo_root, out=tmp_path / name, limit=4, conditions=how
        )

    return run


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_two_processes_write_the_parts_that_one_does(audited):
    one, two = audited("one", 1), audited("two", 2)
    (model_id,) = one.manifest["evaluated"]
    settled = one.settled_shards(model_id)
    assert settled == two.settled_shards(model_id)
    assert len(settled) >= 2
    assert one.scores().sort("case_id").equals(two.scores().sort("case_id"))
    assert one.curves().collect().sort("case_id").equals(two.curves().collect().sort("case_id"))
    hardware = [run.manifest["models"][0]["hardware"]["workers"] for run in (one, two)]
    assert [list(found.values()) for found in hardware] == [[1], [2]]
    kept = [sorted(p.name for p in run.folder.rglob("*.png")) for run in (one, two)]
    assert kept[0] == kept[1] != []


def test_a_process_that_dies_is_told_and_the_run_goes_on_later(audited, monkeypatch):
    whole = audited("whole", 1)
    real = pool._answers

    def dying(*given):
        for shard, done in real(*given):
            for pid in list(pool._processes(2)._processes):
                os.kill(pid, signal.SIGKILL)
            yield shard, done

    monkeypatch.setattr(pool, "_answers", dying)
    with pytest.raises(
        RunError, match=r"^--workers: one of the processes died, .*--workers 1; the"
    ):
        audited("cut", 2)
    monkeypatch.setattr(pool, "_answers", real)
    again = audited("cut", 2)
    assert again.scores().sort("case_id").equals(whole.scores().sort("case_id"))


def test_an_interruption_ends_the_processes(audited, monkeypatch):
    held = []

    def interrupted(*given, **extra):
        held.extend(pool._processes(2)._processes.values())
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "write_part", interrupted)
        with pytest.raises(KeyboardInterrupt):
            audited("cut", 2)
    for process in held:
        process.join(20)
    assert [process.is_alive() for process in held] == [False, False]
    assert audited("cut", 2).scores().height > 10


def test_a_function_of_this_process_has_none(audited):
    black = wrap(lambda image, prompt: image[..., 0] > 90, name="black")
    with pytest.raises(ModelError, match="^black: a function of this process"):
        audited("function", 2, [(black, None)])
    assert audited("auto", None, [(black, None)]).manifest["models"]


class Model:
    def __init__(self, parameters, device="cpu"):
        self.device = torch.device(device)
        self.adapter = type("A", (), {"module": nn.Linear(parameters - 1, 1)})()


def test_small_models_take_the_cores_where_it_is_worth_it():
    cores = usable_cores()
    assert usual_workers(Model(1000), 100 * PAIRS_PER_SHARD) == min(cores, 100)
    assert usual_workers(Model(SMALL + 1), 100 * PAIRS_PER_SHARD) == 1
    assert usual_workers(Model(1000), WORTH_IT - 1) == 1
    assert usual_workers(Model(1000, "meta"), 100 * PAIRS_PER_SHARD) == 1
    nothing = Model(1000)
    nothing.adapter = object()
    assert usual_workers(nothing, 100 * PAIRS_PER_SHARD) == 1


def test_processes_that_are_done_with_a_model_begin_the_next(audited, toy_card, monkeypatch):
    """One that is given twice is evaluated once; the scores are those of one process."""
    first = toy_card(limit=12)
    second = toy_card(limit=11).rename(first.with_name("second.yaml"))
    toy_card(limit=12)
    models = [(str(path), None) for path in (first, second, second)]
    waiting, begin = [], pool.Pool.begin

    def beginning(one, store, batch_size):
        settled = [len(store.settled_shards(m["model_id"])) for m in store.manifest["models"]]
        waiting.append((one.model.model_id, *settled))
        return begin(one, store, batch_size)

    monkeypatch.setattr(pool.Pool, "begin", beginning)
    one, two = audited("one", 1, models), audited("two", 2, models)
    ids = two.manifest["evaluated"]
    assert ids == one.manifest["evaluated"]
    assert ids[0] != ids[1] == ids[2]
    n_shards = len(one.settled_shards(ids[0]))
    early = [seen for model_id, *seen in waiting if model_id == ids[1] and seen[0] < n_shards]
    assert early, "the second model has begun before the last score of the first was there"
    assert [model["model_id"] for model in two.manifest["models"]] == ids[:2]
    assert two.scores().equals(one.scores())
    assert two.texts().equals(one.texts())


def test_an_error_elsewhere_ends_the_processes_too(audited, monkeypatch):
    """Shards are under way while this process counts tokens."""
    held = []

    def failing(*given, **extra):
        held.extend(pool._processes(2)._processes.values())
        raise RunError("texts: a disk that is full")

    with monkeypatch.context() as patched:
        patched.setattr("harness.auditing.record.write_texts", failing)
        with pytest.raises(RunError, match="^texts: a disk"):
            audited("cut", 2)
    for process in held:
        process.join(20)
    assert [process.is_alive() for process in held] == [False] * len(held) != []
