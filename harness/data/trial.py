"""Decodes tables of strangers in a process that may die: a small file may unfold to a large one.

What a file says of itself can be a lie, and decoders trust it: a page may claim gigabytes, a
dictionary may repeat one long text a million times. So the first decoding happens where failing
harms nobody, with little memory. This file is run by its path, so that the child imports the
library of tables and nothing of the harness.

Conventions: standard input holds a JSON object (``sizes`` of the files, ``columns`` or null,
``most_bytes``, ``form``), a line feed, then the files one after the other. Exit 0 when all could
be decoded within the memory and their cells take at most so many bytes; anything else when not.
"""

import io
import json
import subprocess
import sys
from collections.abc import Sequence

MEMORY_BYTES = 6 << 30
"""Of address space, of which the library reserves much more than it uses."""

SECONDS = 120


def survives(
    files: Sequence[bytes],
    *,
    most_bytes: int,
    columns: Sequence[str] | None = None,
    form: str = "parquet",
) -> bool:
    """Whether Parquet files can be decoded in bounded memory and time.

    `most_bytes` bounds what the cells of a file may take, every repeated text counted. An empty
    list of columns asks for a file's account of itself alone, its columns and its length, which a
    damaged one cannot give either. `form` is ``parquet``, ``arrow`` for streams of Arrow's record
    batches, or ``ipc`` for files.
    """
    said = {"sizes": list(map(len, files)), "columns": columns, "most_bytes": most_bytes}
    said["form"] = form
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__],
            input=json.dumps(said).encode() + b"\n" + b"".join(files),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> None:
    """Decode everything on standard input."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, OSError, ValueError):
        pass  # no such limit on this system; the time is limited still
    import polars as pl

    said = json.loads(sys.stdin.buffer.readline())
    for size in said["sizes"]:
        content = io.BytesIO(sys.stdin.buffer.read(size))
        if said["columns"] == []:
            pl.read_parquet_schema(content)
            pl.scan_parquet(content).select(pl.len()).collect()
            continue
        readers = {"parquet": pl.read_parquet, "arrow": pl.read_ipc_stream, "ipc": pl.read_ipc}
        table = readers[said.get("form", "parquet")](content, columns=said["columns"])
        texts = [s.str.len_bytes().sum() for s in table.iter_columns() if s.dtype == pl.String]
        if max(table.estimated_size(), sum(texts)) > said["most_bytes"]:
            sys.exit(1)


if __name__ == "__main__":
    main()
