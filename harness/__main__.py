"""``python -m harness`` is the command ``vlsm-harness``."""

from harness.cli import main

main()
