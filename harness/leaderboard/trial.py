"""Decodes Parquet files of strangers in a process that may die: ``python -m`` this module.

Conventions: standard input holds a JSON list of sizes, a line feed, then the files one after the
other. Exit 0 when all could be decoded within the memory and stayed small; anything else when not.
"""

import io
import json
import sys

MEMORY_BYTES = 6 << 30
"""Of address space, of which the library reserves much more than it uses."""

MOST_BYTES = 1 << 30
"""Of one decoded table: ten million cases have 0.8 GB of counts."""


def main() -> None:
    """Decode everything on standard input."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, OSError, ValueError):
        pass  # no such limit on this system; the time is limited still
    import polars as pl

    for size in json.loads(sys.stdin.buffer.readline()):
        table = pl.read_parquet(io.BytesIO(sys.stdin.buffer.read(size)))
        if table.estimated_size() > MOST_BYTES:
            sys.exit(1)


if __name__ == "__main__":
    main()
