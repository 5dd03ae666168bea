"""Gives one reader spoilt files, in a process of its own that may die.

Usage: ``python -m tests.fuzzing.worker READERS RUN FOLDER START STOP N_INPUTS SEED``; readers are
separated by commas. The number of the input that is being read stands in ``FOLDER/at``; what came
out besides `HarnessError` is printed, one JSON object a line.
"""

import json
import os
import random
import resource
import struct
import sys
import traceback
import warnings
from pathlib import Path

from harness.errors import HarnessError
from tests.fuzzing.mutations import mutated
from tests.fuzzing.readers import READERS, planted

MEMORY_BYTES = 8 << 30
"""Of address space, of which torch and polars reserve much more than they use."""


def main(names, run, folder, start, stop, n_inputs, seed):
    """Read inputs `start` to `stop`; `n_inputs` of each reader follow each other."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    place, n_read, name = Path(folder), 0, None
    marker = os.open(place / "at", os.O_WRONLY | os.O_CREAT)
    for at in range(int(start), int(stop)):
        position, number = divmod(at, int(n_inputs))
        if name != names.split(",")[position]:
            name = names.split(",")[position]
            own = place / str(position)
            own.mkdir()
            reader = {**READERS, "planted": planted}[name](own, Path(run))
        content = mutated(random.Random(f"{seed}-{name}-{number}"), reader.seeds, reader.form)
        reader.path.write_bytes(content)
        os.pwrite(marker, struct.pack("<q", at), 0)
        failure = _failure(reader)
        n_read += failure == ""
        if failure:
            _say(at=at, failure=failure)
    _say(done=int(stop), read=n_read)


def _failure(reader):
    """What came out that should not; an empty text where the file was read."""
    try:
        reader.read()
    except HarnessError as problem:
        return _bad_message(str(problem))
    except BaseException as problem:  # noqa: BLE001
        if isinstance(problem, reader.allowed):
            return None
        places = traceback.extract_tb(problem.__traceback__)
        own = [f"{Path(p.filename).name}:{p.lineno}" for p in places if "/harness/" in p.filename]
        return f"{type(problem).__name__}: {problem}"[:300] + f" at {own[-1] if own else '?'}"
    return ""


def _say(**content):
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def _bad_message(text):
    """Messages are short, and can be printed and written."""
    if len(text) > 20_000:
        return f"a message of {len(text)} characters: {text[:200]}"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"a message that nothing can print: {text[:200]!r}"
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
