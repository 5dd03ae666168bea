"""Damages a small finished run, bit by bit, and tells what ``run``, ``score`` and ``report`` say.

``python flips.py FOLDER FIRST COUNT`` does it as a program, one JSON line a damage, so that a crash
in native code ends that program alone. Nothing is evaluated that need not be, and charts are left
out: they are drawn from the frames that the rest of the page is made of.
"""

import contextlib
import io
import json
import random
import shutil
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest import mock

SUITE = """
name: small
title: A small audit
datasets: [{name: kvasir_polyp, attributes: [size]}]
probes:
  - {name: empty, perturbation: empty}
  - {name: antonym, perturbation: antonym, attributes: all}
  - {name: random_word, perturbation: random_word, attributes: all}
words: 2
statistics: {draws: 100, minimum_clusters: 3}
"""
FIGURES = ("summary.json", "verdicts.json")
STRETCHES = 11  # of so many damages one is an overwritten stretch, the others single bits


def call(*arguments):
    """The command in this process: exit code and what it says to the user."""
    from harness.cli import main

    said, code = io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["vlsm-harness", *map(str, arguments)]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
    return code, said.getvalue()


@contextlib.contextmanager
def quick():
    """Without charts, in small shards, and with a clock that stands still."""
    import typer

    from harness import cli
    from harness.auditing import record
    from harness.report import page

    # What is read of the program itself, and not of the run, is read once.
    sources = page.code_sha256()
    names = ("map", "attributes", "ladder", "away", "agreement", "words", "refusal", "thresholds")
    still = record.environment()
    with (
        mock.patch.object(cli, "app", typer.main.get_command(cli.app)),
        mock.patch.object(page, "code_sha256", return_value=sources),
        mock.patch("harness.report.headline._panel", return_value=None),
        mock.patch("harness.report.html._figures", return_value=dict.fromkeys(names).items()),
        mock.patch("harness.report.html.ChartRenderer", contextlib.nullcontext),
        mock.patch("harness.auditing.record.environment", return_value=still),
        mock.patch("harness.engine.shards.PAIRS_PER_SHARD", 20),
    ):
        yield


@dataclass
class Damage:
    """What was done to a file and what came of it."""

    number: int
    file: str
    how: str
    outcome: str = ""
    wrong: list[str] = field(default_factory=list)

    @property
    def kind(self):
        path = Path(self.file)
        return f"{path.parts[0]}/*{path.suffix}" if len(path.parts) > 1 else self.file


class Flipper:
    """A finished run and what is said of it undamaged."""

    def __init__(self, folder, root, card):
        self.folder = folder
        self.run = folder / "run"
        self.command = [
            "run", folder / "small.yaml", "--data-root", root, "--model", card,
            "--random-weights", "--device", "cpu", "--out", self.run, "--quiet",
        ]  # fmt: skip
        (folder / "small.yaml").write_text(SUITE, encoding="utf-8")
        for verb in (self.command, self.verb("score"), self.verb("report")):
            code, said = call(*verb)
            assert code == 0, said
        self.whole = folder / "whole"
        shutil.copytree(self.run, self.whole)
        self.figures = self.content()
        self.page = (self.run / "report.html").read_bytes()
        (self.whole / "report.html").unlink()
        every = sorted(p for p in self.whole.rglob("*") if p.is_file() and p.stat().st_size)
        self.files = [p.relative_to(self.whole).as_posix() for p in every]

    def verb(self, name):
        return [name, self.run, "--quiet"]

    def content(self):
        return [(self.run / name).read_bytes() for name in FIGURES]

    def damage(self, number):
        """Damage one file; the same number, the same damage."""
        rng = random.Random(number)
        # Every file as often, and of those the small ones bit by bit as densely as the large.
        name = self.files[number % len(self.files)]
        path = self.run / name
        content = bytearray(path.read_bytes())
        if number % STRETCHES == 0:
            start, length = rng.randrange(len(content)), rng.randint(1, 64)
            new = rng.randbytes(len(content[start : start + length]))
            content[start : start + length] = new
            how = f"bytes {start} to {start + len(new)}"
        else:
            bit = rng.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
            how = f"bit {bit}"
        path.write_bytes(bytes(content))
        return Damage(number, name, how)

    def try_one(self, number):
        """Damage a run and issue the three verbs, the run's own first or last."""
        shutil.rmtree(self.run)
        shutil.copytree(self.whole, self.run)
        found = self.damage(number)
        verbs = [self.command, self.verb("score"), self.verb("report")]
        verbs = verbs if number % 2 else [verbs[2], verbs[1], *verbs]
        said = [self.said(verb, found) for verb in verbs]
        found.outcome = next((x for x in ("refused", "repaired", "told") if x in said), "harmless")
        if said[-3:].count("refused") and said[-3] != "refused":
            found.wrong.append(f"refused after it was run again: {said}")
        return found

    def said(self, verb, found):
        """``harmless``, ``repaired``, ``refused``, or ``told`` on the page; else it is wrong."""
        code, text = call(*verb)
        if code == 2 and "Traceback" not in text:
            if "error: " not in text or not self.names(found, text):
                found.wrong.append(f"{verb[0]}: refused without a name: {text}")
            return "refused"
        if code or "Traceback" in text:
            found.wrong.append(f"{verb[0]}: exit {code}: {text}")
            return "wrong"
        if verb[0] != "report":
            if self.content() != self.figures:
                found.wrong.append(f"{verb[0]}: other figures, exit 0: {text}")
            return "repaired" if "note: " in text else "harmless"
        page = (self.run / "report.html").read_bytes()
        if page == self.page:
            return "harmless"
        if not any(words in page for words in (b"written.sha256", b"kept no masks")):
            found.wrong.append("report: another page, exit 0")
        return "told"

    def names(self, found, text):
        # A damaged list of hashes makes other files look damaged, which then are named.
        return found.file in text or found.file == "written.sha256"


def table(damages):
    """Counts by kind of file and outcome, as text."""
    counts = Counter((d.kind, d.outcome) for d in damages)
    return "\n".join(f"{kind:24} {what:10} {n:5}" for (kind, what), n in sorted(counts.items()))


def tell(content):
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def main(folder, root, card, first, count):
    with quick():
        flipper = Flipper(Path(folder), root, card)
        for number in range(int(first), int(first) + int(count)):
            tell({"number": number})
            tell(asdict(flipper.try_one(number)))


if __name__ == "__main__":
    main(*sys.argv[1:])
