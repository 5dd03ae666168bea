"""The command line in this process."""

import sys

import pytest

from harness.cli import main


@pytest.fixture
def call(monkeypatch, capsys, photo_root):
    """Run the command in this process; returns exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vlsm-harness", *map(str, arguments)])
        monkeypatch.setenv("VLSM_DATA_ROOT", str(photo_root))
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
