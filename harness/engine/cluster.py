"""How many workers of which kind a Ray cluster is asked for.

Conventions: the address is ``HOST:PORT`` of a head node or ``auto``; None starts a
cluster on this machine. A share of a GPU is a number above 0; two workers with 0.5 each
share one device.
"""

from dataclasses import dataclass

from harness.errors import UsageError


@dataclass(frozen=True)
class ClusterOptions:
    """Where to run; None stands for as many workers as there is room, with a GPU each."""

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None


def parse_cluster_options(
    executor: str, address: str | None, workers: int | None, gpus_per_worker: float | None
) -> ClusterOptions | None:
    """What the command line says; None is this process. Options of the other one are refused."""
    options = {"--address": address, "--gpus-per-worker": gpus_per_worker}
    given = [name for name, value in options.items() if value is not None]
    if executor not in ("local", "ray"):
        raise UsageError(
            f"--executor: found {executor!r}. 'local' (this process) or 'ray' (a cluster) is "
            "needed. Correct the option."
        )
    if executor == "ray":
        return ClusterOptions(address, workers, gpus_per_worker)
    if given:
        raise UsageError(
            f"{given[0]}: given with --executor local. It is for a cluster. Add --executor ray, "
            "or leave it out."
        )
    return None
