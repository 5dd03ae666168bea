"""Whether a page that was kept is what this harness would write.

Conventions: hashes are SHA-256 in hexadecimal over texts, never over figures, whose last digits
differ between machines. A page carries them as ``<meta name="vlsm-...">``.
"""

import hashlib
import re
from pathlib import Path

from harness.files.canonical import canonical
from harness.suite.schema import Suite

_ROOMS = ("report", "stats")
_META = re.compile(r'<meta name="vlsm-([a-z]+)" content="([0-9a-f]*)">')


def made_from(suite: Suite, plan_sha256: str) -> dict[str, str]:
    """What a page depends on: `code` that computes and draws, `suite`, `plan`."""
    said = canonical(suite.model_dump(mode="json", exclude_defaults=True))
    return {
        "code": code_sha256(),
        "suite": hashlib.sha256(said).hexdigest(),
        "plan": plan_sha256,
    }


def code_sha256() -> str:
    """Hash of the rooms that make a page, templates and all, whatever their line ends."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((package / room).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
                digest.update(canonical([path.relative_to(package).as_posix(), text]))
    return digest.hexdigest()


def read_made_from(page: Path) -> dict[str, str]:
    """The hashes that a page carries."""
    with page.open(encoding="utf-8") as lines:
        head = "".join(line for _, line in zip(range(40), lines, strict=False))
    return dict(_META.findall(head))
