"""Decodes Parquet files of strangers in a process that may die: ``python -m`` this module.

Conventions: standard input holds a JSON list of sizes, a line feed, then the files one after the
other. Exit 0 when all could be decoded within the memory; anything else when not.
"""

import io
import json
import sys

MEMORY_BYTES = 6 << 30
"""Of address space, of which the library reserves much more than it uses."""


def main() -> None:
    """Decode everything on standard input."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, OSError, ValueError):
        pass  # no such limit on this system; the time is limited still
    import polars as pl

    for size in json.loads(sys.stdin.buffer.readline()):
        pl.read_parquet(io.BytesIO(sys.stdin.buffer.read(size)))


if __name__ == "__main__":
    main()
