"""Whether a program beside a stranger's card (an adapter, a generator) may run.

A command asks, and runs the program once somebody said so. In Python whoever loads the card has
said so.
"""

import hashlib
import os
from itertools import islice
from pathlib import Path

from harness.errors import HarnessError
from harness.files import shipped
from harness.files.writing import append_text, make_folder

TRUST_VARIABLE = "VLSM_TRUST_ADAPTERS"
"""``ask``, ``remember``, or ``1``, which is what holds where it is not set."""
_MOST_FILES = 1_000


def check_trust(file: Path, *, where: str, error: type[HarnessError]) -> None:
    """Refuse to run a program that neither ships with the harness nor was ever trusted.

    With ``--trust-adapter`` the hash of the Python files in and below its folder is remembered:
    the same files are trusted without a word from then on. The environment variable
    VLSM_TRUST_ADAPTERS=1, for CI, remembers nothing.

    Raises:
        HarnessError: Of the kind `error`: nobody has said that the program may run.
    """
    program = file.resolve()
    said = os.environ.get(TRUST_VARIABLE, "1")
    if said == "1" or any(program.is_relative_to(shipped(at).resolve()) for at in _SHIPPED):
        return
    digest, known = _folder_sha256(file), _trusted_file()
    if known.is_file() and digest in known.read_text(encoding="utf-8").split():
        return
    if said != "remember":
        raise error(
            f"{where}: {file} is a program that would run with your rights, and its files (SHA-256 "
            f"{digest[:12]}) were never trusted here. Read it, then give --trust-adapter once; in "
            f"CI set {TRUST_VARIABLE}=1."
        )
    make_folder(known.parent)
    append_text(known, f"{digest}\n")


_SHIPPED = ("models", "suites")


def _trusted_file() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "vlsm-harness" / "trusted-adapters"


def _folder_sha256(file: Path) -> str:
    """Hash of a program and of the Python files beside and below it."""
    below = (path for path in sorted(file.parent.rglob("*.py")) if path.is_file())
    lines = []
    for path in dict.fromkeys([file, *islice(below, _MOST_FILES)]):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{os.path.relpath(path, file.parent)}:{content}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
