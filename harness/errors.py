"""The exceptions a user of the harness can meet.

Conventions: every message reads *where: what was found. What would be right.
How to repair it.* and is one string. A class names who can repair it.
"""

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Base of every error the harness raises on purpose."""


class UsageError(HarnessError):
    """The command line asks for something that cannot be done."""


class SuiteError(HarnessError):
    """A suite file is wrong: the author of the file can repair it."""


class CardError(HarnessError):
    """A model or dataset card is wrong: the author of the file can repair it."""


class DataError(HarnessError):
    """Annotations, images or masks are wrong: the owner of the data can repair them."""


class EncodingError(DataError):
    """A picture or mask is whole, but what its values mean must be said on the card."""


class PromptError(HarnessError):
    """A prompt does not fit the grammar of its dataset."""


class LexiconError(HarnessError):
    """A source of words is missing or is not what the suite asks for."""


class ModelError(HarnessError):
    """A model cannot be built, or breaks its contract."""


class CheckpointError(HarnessError):
    """A file of weights is missing, hostile, or does not fit the model."""


class RunError(HarnessError):
    """A run directory holds something else than this command would write."""


class SubmissionError(HarnessError):
    """A submission to the leaderboard, or a track's own files, cannot be used."""


class NothingSelectedError(HarnessError):
    """The selection (datasets, split, limit, probes) leaves no case to evaluate."""


class MaskShapeError(HarnessError, ValueError):
    """Two masks that must have the same shape do not."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint ``" Did you mean 'x'?"``, or nothing when no known name is near.

    Example:
        >>> nearest("dise", ["dice", "iou"])
        " Did you mean 'dice'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def choose(
    name: str,
    known: Iterable[str],
    *,
    kind: str,
    where: str,
    error: type[HarnessError] = SuiteError,
) -> str:
    """Return `name` if it is one of `known`, else say what was meant.

    Raises:
        HarnessError: `name` is unknown; the class is `error`. The message gives
            the place (`where`), what was found, the nearest known name and the
            whole list.

    Example:
        >>> choose("dise", ["dice", "iou"], kind="metric", where="a.yaml: checks[2].metric")
        Traceback (most recent call last):
        ...
        harness.errors.SuiteError: a.yaml: checks[2].metric: unknown metric 'dise'. \
Did you mean 'dice'? Known metrics: 'dice', 'iou'.
    """
    known = sorted(known)
    if name in known:
        return name
    names = ", ".join(map(repr, known))
    plural = kind[:-1] + "ies" if kind.endswith("y") else f"{kind}s"
    raise error(f"{where}: unknown {kind} {name!r}.{nearest(name, known)} Known {plural}: {names}.")
