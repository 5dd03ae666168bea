"""Tells, once, whoever waits for a long run on a CPU how it would be faster.

Conventions: the time that remains is estimated from the shards that are done, by the wall clock.
"""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.auditing.listener import Listener

LONG_S = 900.0
"""Seconds that must remain before anything is said."""

WORTH_A_WORD = 1.2
"""Times float32's speed from which on bfloat16 is named."""


@dataclass
class FasterWay:
    """Counts the cases that are done, and names the faster way when many remain."""

    entry: dict[str, Any]
    left: int
    listener: Listener
    advance: Callable[[int], None]
    _since: float = field(default_factory=time.monotonic)
    _done: int = 0
    _said: bool = False

    def __call__(self, n_cases: int) -> None:
        """A shard is done."""
        self.advance(n_cases)
        self._done, self.left = self._done + n_cases, self.left - n_cases
        remaining_s = (time.monotonic() - self._since) / self._done * self.left
        if self._said or remaining_s < LONG_S or not self._is_plain():
            return
        self._said = True
        self.listener.note(
            f"note: about {remaining_s / 60:.0f} minutes remain. {' '.join(faster_ways())} A model "
            "that computes otherwise is another one to a run, and begins anew."
        )

    def _is_plain(self) -> bool:
        """Torch in float32 on a CPU; a function computes as it does."""
        how = {"device": "cpu", "precision": "float32", "backend": "torch"}
        is_so = all(self.entry.get(key) == value for key, value in how.items())
        return is_so and self.entry.get("card", {}).get("kind") != "callable"


def faster_ways() -> list[str]:
    """Sentences on what computes faster on this CPU."""
    from harness.model.precision import bfloat16_gain

    there = importlib.util.find_spec("openvino") is not None
    how = "is installed" if there else "comes with `pip install 'vlsm-harness[openvino]'`"
    same = "the same masks, but for single pixels at the threshold, mostly in less time"
    ways = [f"--backend openvino ({how}) computes {same}."]
    if (gain := bfloat16_gain()) > WORTH_A_WORD:
        ways.append(
            f"--dtype bfloat16 multiplies matrices {gain:.1f} times as fast here and moves Dice by "
            "about 0.0015 a case (reports/precision.md)."
        )
    return ways
