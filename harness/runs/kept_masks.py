"""Masks worth looking at, kept while a run goes on: the worst and the steadiest cases.

Of every group (data set, split, prompts, prompt type, probe, attribute) the `k` cases that lost
most Dice and the `k` whose mask moved least are saved, at most one a sample. Which they are depends
on the cases alone, not on their order, on interruptions or on who evaluated them.

Conventions: a case is better kept the higher its `score`, then the lower its id. Masks are bool
``(H, W)`` at the metric's resolution, stored as 1-bit PNG in ``masks/<model_id>/``: the variant's
and the original's under their case ids in hexadecimal, the truth's with ``-truth``; what is kept
of what stands in ``masks/<model_id>.parquet``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from harness.errors import DataError, RunError
from harness.files.writing import Ledger, parquet_bytes, writing
from harness.runs.store import RunStore

WORST, STEADY = "worst", "steady"
DEFAULT_KEPT = 2
GROUP = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")
Group = tuple[str | None, ...]

SAVED_SCHEMA = pl.Schema(
    {
        "kind": pl.String,
        **dict.fromkeys(GROUP, pl.String),
        "sample_id": pl.String,
        "case_id": pl.UInt64,
        "original_case_id": pl.UInt64,
        "score": pl.Float64,
        "dice": pl.Float64,
        "dice_original": pl.Float64,
        "agreement": pl.Float64,
    }
)


class Bits(NamedTuple):
    """A mask, eight pixels a byte, rows padded to whole bytes."""

    height: int
    width: int
    data: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> "Bits":
        """Pack a mask ``(H, W)``."""
        height, width = mask.shape
        return cls(height, width, np.packbits(mask, axis=1).tobytes())

    def png(self) -> bytes:
        """The mask as a 1-bit PNG."""
        held = BytesIO()
        picture = Image.frombytes("1", (self.width, self.height), self.data)
        picture.save(held, format="PNG", compress_level=1)
        return held.getvalue()


class Masks(NamedTuple):
    """The three masks of a case."""

    variant: Bits
    original: Bits
    truth: Bits


@dataclass(frozen=True)
class Kept:
    """One saved case; `masks` is None where they are on disk."""

    kind: str
    group: Group
    sample_id: str
    case_id: int
    original_case_id: int
    score: float
    dice: float
    dice_original: float
    agreement: float
    masks: Masks | None = field(default=None, compare=False, repr=False)

    @property
    def rank(self) -> tuple[float, int]:
        """Lower is better kept."""
        return -self.score, self.case_id


class Selection:
    """The best `k` samples of each (group, kind) among what was offered."""

    def __init__(self, k: int) -> None:
        self.k = k
        self._kept: dict[tuple[Group, str], dict[str, Kept]] = {}

    def bar(self, group: Group, kind: str) -> tuple[float, int]:
        """The rank that a case must beat; a free slot ranks below everything."""
        own = self._kept.get((group, kind), {})
        if len(own) < self.k:
            return np.inf, 0
        return max(kept.rank for kept in own.values())

    def offer(self, kept: Kept) -> bool:
        """Keep a case if it is among the best, and say whether it is."""
        own = self._kept.setdefault((kept.group, kept.kind), {})
        before = own.get(kept.sample_id)
        if before is not None and before.rank < kept.rank:
            return False
        if before is None and kept.rank >= self.bar(kept.group, kept.kind):
            return False
        own[kept.sample_id] = kept
        if len(own) > self.k:
            del own[max(own, key=lambda sample: own[sample].rank)]
        return True

    def forget_masks(self) -> None:
        """Let go of pictures that are on disk."""
        for own in self._kept.values():
            own.update({sample: replace(kept, masks=None) for sample, kept in own.items()})

    def all(self) -> list[Kept]:
        """What is kept: groups in order, the best of each first."""
        found = [kept for own in self._kept.values() for kept in own.values()]
        return sorted(found, key=lambda x: (tuple(name or "" for name in x.group), x.kind, *x.rank))


class SavedMasks:
    """The selection of one model of a run, on disk."""

    def __init__(self, run: Path, model_id: str, *, k: int = DEFAULT_KEPT) -> None:
        self._ledger = Ledger(run)
        self._folder = run / "masks" / model_id
        self._index = index_of(model_id)
        self.selection = Selection(k)
        for kept in read_saved_masks(run, model_id):
            self.selection.offer(kept)
        kept_before = self.selection.all()
        self._written = {name for one in kept_before for name in names_of(one)}

    def add(self, kept: Iterable[Kept]) -> None:
        """Take what a shard offers and write what is new: pictures first, then the index."""
        if not any([self.selection.offer(one) for one in kept]):
            return
        whole = self.selection.all()
        wanted = {name for one in whole for name in names_of(one)}
        self._save(whole)
        self.write_index()
        with writing(self._folder):
            for name in self._written - wanted:
                (self._folder / name).unlink(missing_ok=True)
        self._written &= wanted
        self.selection.forget_masks()

    def write_index(self) -> None:
        """Write which cases are kept, and that masks are saved from here on."""
        rows = [_row(one) for one in self.selection.all()]
        frame = pl.DataFrame(rows, schema=SAVED_SCHEMA, orient="row")
        self._ledger.write({self._index: parquet_bytes(frame)})

    def _save(self, whole: Iterable[Kept]) -> None:
        new = {
            name: mask.png()
            for one in whole
            if one.masks is not None
            for name, mask in zip(names_of(one), one.masks, strict=True)
            if name not in self._written
        }
        place = f"masks/{self._folder.name}"
        # One that is cut short by a crash is no loss: its hash tells.
        self._ledger.write({f"{place}/{n}": png for n, png in new.items()}, durable=False)
        self._written |= set(new)


def open_saved_masks(store: RunStore, model_id: str, *, k: int) -> SavedMasks | None:
    """The saved masks of a model in a run; None where it keeps no masks.

    One that is not there from the first case on would call cases the worst that are not.
    """
    if not k:
        return None
    is_new = not (store.folder / index_of(model_id)).is_file()
    if is_new and store.part_names(model_id):
        return None
    saved = SavedMasks(store.folder, model_id, k=k)
    if is_new:
        saved.write_index()
    return saved


def index_of(model_id: str) -> str:
    """The index of a model's saved masks, below the run."""
    return f"masks/{model_id}.parquet"


def names_of(kept: Kept) -> tuple[str, str, str]:
    """File names of the masks of a case: variant, original, truth."""
    original = f"{kept.original_case_id:016x}"
    return f"{kept.case_id:016x}.png", f"{original}.png", f"{original}-truth.png"


def _row(kept: Kept) -> tuple[object, ...]:
    return (
        kept.kind,
        *kept.group,
        *(getattr(kept, name) for name in SAVED_SCHEMA.names()[1 + len(GROUP) :]),
    )


def read_saved_masks(run: Path, model_id: str) -> Sequence[Kept]:
    """What a run kept of a model; nothing where it kept none.

    Raises:
        RunError: The index is not what the run wrote.
    """
    name = index_of(model_id)
    if not (run / name).is_file():
        return []
    # A process that is killed between the index's line and its name leaves the one before.
    if problem := Ledger(run).problem(name, or_before=True):
        raise RunError(
            f"{run / name}: {problem}. A file is read only as the run wrote it. Issue the command "
            "of the run again: it sets the file aside, and the report shows no masks of this "
            "model; --fresh evaluates and keeps them anew."
        )
    n = 1 + len(GROUP)
    rows = pl.read_parquet(run / name).select(SAVED_SCHEMA.names()).cast(SAVED_SCHEMA).iter_rows()
    return [Kept(row[0], tuple(row[1:n]), *row[n:]) for row in rows]


def mask_paths(run: Path, model_id: str, kept: Kept) -> tuple[Path, Path, Path]:
    """Files of the masks of a case: variant, original, truth.

    Raises:
        DataError: One is not what the run wrote.
    """
    ledger = Ledger(run)
    for name in names_of(kept):
        if problem := ledger.problem(f"masks/{model_id}/{name}"):
            raise DataError(
                f"{run / 'masks' / model_id / name}: {problem}. A mask is shown only as the run "
                "wrote it. Start again with --fresh to evaluate and keep it anew."
            )
    variant, original, truth = (run / "masks" / model_id / name for name in names_of(kept))
    return variant, original, truth
