"""Runs the command on a Ray cluster of two nodes of this machine, and breaks something.

``python two_nodes.py OUT CARD BACKEND [EVENT ...]`` with EVENT ``kill`` (SIGKILL to a worker),
``remove`` (the second node goes away), ``kill_driver`` and ``interrupt_driver`` (the
command, which is then issued again). The last line of output is JSON.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
PROGRAM = """
import harness.engine.shards as shards; shards.PAIRS_PER_SHARD = 70
from harness.cli import main; main()
"""


def parts(out):
    return set((out / "scores").glob("part-*"))


def wait_for_more_parts(out, n, process):
    before, deadline = parts(out), time.monotonic() + 120
    while len(parts(out) - before) < n:
        assert process.poll() is None, "the command ended before anything was broken"
        assert time.monotonic() < deadline, "no part appeared"
        time.sleep(0.05)


def busy_workers(raylets):
    """Processes of this cluster that evaluate a shard."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            title = (place / "cmdline").read_bytes()
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent in raylets and title.startswith(b"ray::ShardWorker.evaluate"):
            yield int(place.name)


def raylets_of(cluster):
    return {
        process.process.pid
        for node in cluster.list_all_nodes()
        for process in node.all_processes["raylet"]
    }


def break_something(event, cluster, second, process):
    if event == "kill":
        os.kill(next(iter(busy_workers(raylets_of(cluster)))), signal.SIGKILL)
    elif event == "remove":
        cluster.remove_node(second, allow_graceful=False)
    else:
        process.send_signal(signal.SIGKILL if event == "kill_driver" else signal.SIGINT)


def main(out, card, backend, events):
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        second = cluster.add_node(num_cpus=1)
        command = [
            sys.executable, "-c", PROGRAM, "run", "paper", "--datasets", "kvasir_polyp",
            "--model", card, "--random-weights", "--device", "cpu", "--batch-size", "16", "-q",
            "--backend", backend, "--out", str(out),
            "--executor", "ray", "--address", cluster.address,
        ]  # fmt: skip
        codes, waiting = [], list(events)
        while not codes or (codes[-1] != 0 and len(codes) <= len(events)):
            process = subprocess.Popen(command, stdout=sys.stderr)
            if waiting:
                wait_for_more_parts(out, 2 if len(codes) == 0 else 1, process)
                break_something(waiting.pop(0), cluster, second, process)
            codes.append(process.wait(timeout=200))
    finally:
        cluster.shutdown()
    sys.stdout.write(json.dumps({"codes": codes, "events": list(events)}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
