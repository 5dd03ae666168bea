"""Tracks: which suite, plan and truth the rows of one board share.

A track is data, ``suites/tracks/<name>.yaml``. Of generated data plan and truth are pinned and ship
beside it, ``suites/tracks/<name>/*.parquet``, so that a submission is verified without a picture.
Where pictures belong to others the annotation files are pinned, and whoever verifies makes plan and
truth from a copy of the data. A truth has a row a sample, with the pixels of its mask at its own
size; its SHA-256 is over its rows, not over a file.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import polars as pl
from pydantic import Field

from harness.cards import Sha256, Strict, load_dataset_card
from harness.data import cluster_kind
from harness.data.images import read_mask
from harness.data.layout import annotation_file
from harness.data.trial import survives
from harness.errors import SubmissionError, choose
from harness.files import read_yaml, shipped, validate
from harness.files.canonical import canonical, read_object
from harness.files.writing import parquet_bytes, replace_together, smallest_parquet
from harness.plan.build import NOT_APPLICABLE_SCHEMA, PLAN_SCHEMA, Plan, PlannedSet
from harness.records import Sample
from harness.suite.schema import Suite, load_suite

SAMPLE = ("dataset", "split", "sample_id")
SIZE = {"height": pl.Int32, "width": pl.Int32}
TRUTH_SCHEMA = pl.Schema({**dict.fromkeys(SAMPLE, pl.String), "n_gt": pl.Int64, **SIZE})


class TrackSet(Strict):
    """One dataset of a track, and what is pinned of it."""

    name: str
    split: str = "test"
    annotations_sha256: Sha256 | None = Field(
        default=None, description="Of the annotation file; None where the plan is pinned."
    )
    truth_sha256: Sha256 | None = Field(
        default=None, description="Of its truth; None where no copy of the pictures was measured."
    )
    known: list[str] = Field(default=[], description="What is known to be wrong with it.")


class Track(Strict):
    """What the rows of one board share; hashes are None where the data belong to others.

    `decided_by` are the datasets whose language verdicts make a row's class, `takes` is how long
    a run takes, measured.
    """

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: str
    about: str
    suite: str
    decided_by: list[str]
    plan_sha256: Sha256 | None = None
    truth_sha256: Sha256 | None = None
    takes: str | None = None
    datasets: list[TrackSet]

    @property
    def is_pinned(self) -> bool:
        """Whether plan and truth ship with the harness."""
        return self.plan_sha256 is not None and self.truth_sha256 is not None


@dataclass(frozen=True)
class Reference:
    """A track with all that a submission is checked against; `truth` has `TRUTH_SCHEMA`."""

    track: Track
    suite: Suite
    plan: Plan
    truth: pl.DataFrame
    cluster_kinds: Mapping[str, str]


def track_names() -> list[str]:
    """Names of the tracks that ship with the harness."""
    return sorted(path.stem for path in (shipped("suites") / "tracks").glob("*.yaml"))


def load_track(name: str) -> Track:
    """The track of a name."""
    choose(name, track_names(), kind="track", where="tracks", error=SubmissionError)
    path = _folder(name).with_suffix(".yaml")
    return validate(read_yaml(path, error=SubmissionError), Track, error=SubmissionError)


def _folder(name: str) -> Path:
    return shipped("suites") / "tracks" / name


def suite_of(track: Track) -> Suite:
    """The suite of a track; it scores at native resolution, as a published truth does."""
    suite = load_suite(track.suite)
    if suite.metric.resolution != "native":
        raise SubmissionError(
            f"track {track.name!r}: its suite {track.suite!r} scores at the resolution "
            f"{suite.metric.resolution!r}. Tracks score at 'native'. Set metric.resolution there."
        )
    return suite


def _tables(folder: Path) -> list[pl.DataFrame]:
    """Plan, what does not apply, and truth; a damaged file can end the process that decodes it."""
    schemas = {"plan": PLAN_SCHEMA, "not_applicable": NOT_APPLICABLE_SCHEMA, "truth": TRUTH_SCHEMA}
    contents = tuple((folder / f"{name}.parquet").read_bytes() for name in schemas)
    if not _survive(contents):
        raise SubmissionError(
            f"{folder}: the plan or truth cannot be decoded. A pinned track ships with both. "
            "Restore the folder."
        )
    frames = (pl.read_parquet(io.BytesIO(content)) for content in contents)
    return [frame.cast(schema) for frame, schema in zip(frames, schemas.values(), strict=True)]


@lru_cache(maxsize=4)
def _survive(contents: tuple[bytes, ...]) -> bool:
    """Asked once a track: it takes a process."""
    return survives(contents, most_bytes=1 << 30)


def pinned_reference(track: Track) -> Reference:
    """Plan and truth as they ship; refused where they are not what the track's file says."""
    folder = _folder(track.name)
    try:
        cases, left_out, truth = _tables(folder)
        repair = "Restore the file."
        sources = read_object(
            folder / "sources.json", error=SubmissionError, missing=repair, repair=repair
        )
    except FileNotFoundError as problem:
        raise SubmissionError(
            f"{problem.filename or folder}: no such file. A pinned track ships with its plan and "
            f"truth. Write them: `vlsm-harness leaderboard pin {track.name}`."
        ) from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as problem:
        raise SubmissionError(
            f"{folder}: the plan or truth cannot be read ({str(problem)[:160]}). A pinned track "
            "ships with both. Restore the folder."
        ) from None
    plan = Plan(parquet_bytes(cases), left_out, sources)
    for what, now, pinned in (
        ("plan", plan.sha256, track.plan_sha256),
        ("truth", truth_sha256(truth), track.truth_sha256),
    ):
        if now != pinned:
            raise SubmissionError(
                f"{folder}: the {what} has the hash {now}, the track's file says {pinned}. Both "
                "must agree. Restore the folder, or make a new track under a new name."
            )
    return Reference(track, suite_of(track), plan, truth, _kinds(track))


class Pins(NamedTuple):
    """The hashes that a track's file must name, put there by hand.

    A track whose plan changes is another track, to which no old row belongs.
    """

    plan_sha256: str
    truth_sha256: str


def pin(track: Track, plan: Plan, truth: pl.DataFrame, *, folder: Path | None = None) -> Pins:
    """Write what `pinned_reference` reads: beside the track's file, or into `folder`."""
    folder = folder or _folder(track.name)
    tables = {"plan": plan.cases, "not_applicable": plan.not_applicable, "truth": truth}
    files = {folder / f"{name}.parquet": smallest_parquet(tables[name]) for name in tables}
    text = json.dumps(dict(plan.sources), indent=1, sort_keys=True, ensure_ascii=False)
    replace_together({**files, folder / "sources.json": f"{text}\n".encode()})
    return Pins(plan.sha256, truth_sha256(truth))


def measured_reference(
    track: Track, plan: Plan, sets: Iterable[PlannedSet], *, root: Path
) -> Reference:
    """A track's plan and truth from its data below `root`; refuses others than are pinned."""
    sets = list(sets)
    truth = measure_truth(sample for planned in sets for sample in planned.samples)
    pinned = {(one.name, one.split): one for one in track.datasets}
    for planned in sets:
        one = pinned[planned.card.name, planned.entry.split]
        path = annotation_file(planned.card, root, planned.entry.split)
        rows = truth.filter(pl.col("dataset") == one.name, pl.col("split") == one.split)
        now = hashlib.sha256(path.read_bytes()).hexdigest()
        _same(f"{path}: the file", now, one.annotations_sha256, track)
        _same(f"{root / one.name}: the truth", truth_sha256(rows), one.truth_sha256, track)
    _same(f"{root}: the plan", plan.sha256, track.plan_sha256, track)
    _same(f"{root}: the truth", truth_sha256(truth), track.truth_sha256, track)
    return Reference(track, suite_of(track), plan, truth, _kinds(track))


def _same(what: str, now: str, pinned: str | None, track: Track) -> None:
    if pinned is not None and now != pinned:
        raise SubmissionError(
            f"{what} has the hash {now}. The track {track.name!r} is of {pinned}. Take the files "
            "that the track's page names, under another --data-root."
        )


def _kinds(track: Track) -> dict[str, str]:
    return {one.name: cluster_kind(load_dataset_card(one.name)) for one in track.datasets}


def measure_truth(samples: Iterable[Sample]) -> pl.DataFrame:
    """The pixels of every sample's mask, read from its file; rows have `TRUTH_SCHEMA`."""
    rows = []
    for sample in samples:
        mask = read_mask(sample.mask, sample.reading)
        key = (sample.dataset, sample.split, sample.sample_id)
        rows.append((*key, int(mask.sum()), *mask.shape))
    return pl.DataFrame(rows, schema=TRUTH_SCHEMA, orient="row")


def truth_sha256(truth: pl.DataFrame) -> str:
    """Hash of a truth's rows, whatever their order.

    Example:
        >>> row = ("a", "test", "1.png", 10, 4, 5)
        >>> truth_sha256(pl.DataFrame([row], schema=TRUTH_SCHEMA, orient="row"))[:8]
        '6a7256a2'
    """
    rows = truth.select(TRUTH_SCHEMA.names()).sort(*SAMPLE).rows()
    return hashlib.sha256(canonical(rows)).hexdigest()
