"""Pictures and patients that a model was trained on and is audited with.

A model's card names the data sets that it was trained on. Where their annotation files lie under
the data root, the pictures of their training splits (``train...`` and ``val...``) are compared with
the audited ones by content, whatever their names: official splits of one set hold different
pictures, and are told of only where they do not. It is no verdict: what is found stands beside the
figures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.auditing.listener import SILENT, Listener

if TYPE_CHECKING:
    from harness.cards import DatasetCard
    from harness.data.copies import Prints
    from harness.plan.build import PlannedSet
    from harness.records import Sample
    from harness.runs.store import RunStore

TRAINING = ("train", "val")
MOST_KEPT = 20


@dataclass(frozen=True)
class Pair:
    """Two near copies: paths below the data root, and how many of 64 bits differ."""

    audited: str
    trained: str
    distance: int


@dataclass(frozen=True)
class Overlap:
    """What one audited set shares with the training splits of one data set.

    Attributes:
        audited: ``dataset/split``.
        trained: Splits that were compared, likewise.
        n_audited: Distinct pictures that are audited.
        n_trained: Those of the training splits.
        n_copies: Audited pictures with a near copy among them.
        pairs: The first ones, the nearest copy of each.
        n_unread: Pictures of either side that could not be read, and were not compared.
        patients: Patients, videos or other clusters that stand in both; of one data set alone,
            since names of another mean others.
    """

    audited: str
    trained: tuple[str, ...]
    n_audited: int
    n_trained: int
    n_copies: int
    pairs: tuple[Pair, ...]
    n_unread: int = 0
    patients: tuple[str, ...] = ()

    def sentences(self) -> Iterator[str]:
        """What must be known of the figures; nothing where nothing is shared."""
        trained = ", ".join(self.trained)
        if self.n_copies:
            first = self.pairs[0]
            alike = "is a near copy" if self.n_copies == 1 else "are near copies"
            yield (
                f"{self.n_copies} of {self.n_audited} audited pictures of {self.audited} {alike} "
                f"of pictures in {trained}, which the model was trained on "
                f"({first.audited} and {first.trained}, for one): there the figures tell nothing "
                "of unseen pictures."
            )
        if self.patients:
            names = ", ".join(map(repr, self.patients[:5]))
            more = f" and {len(self.patients) - 5} more" if len(self.patients) > 5 else ""
            yield (
                f"{len(self.patients)} clusters (patients, videos) of {self.audited} stand in "
                f"{trained}, too, which the model was trained on: {names}{more}."
            )


def training_overlap(
    trained_on: Sequence[str],
    sets: "Sequence[PlannedSet]",
    root: Path,
    *,
    listener: Listener = SILENT,
) -> list[Overlap]:
    """Compare audited pictures with those of the training splits that are at hand.

    Args:
        trained_on: Names on a model's card; those of unknown sets are passed over.
        sets: What is audited.
        root: The data root.
        listener: Hears of the progress.

    Returns:
        One for each audited set and training set at hand; none where no training split is.
    """
    taught = {card.name: (card, found) for card, found in _training_sets(trained_on, root)}
    if not taught:
        return []
    with listener.counting("comparing with pictures of training") as tick:
        known = {
            name: _prints([s for own in found.values() for s in own], tick)
            for name, (_, found) in taught.items()
        }
        found = []
        for planned in sets:
            own = _prints(planned.samples, tick)
            for name, (card, samples) in taught.items():
                found.append(_overlap(planned, own, card, samples, known[name], root))
    return found


def _training_sets(
    trained_on: Sequence[str], root: Path
) -> "Iterator[tuple[DatasetCard, dict[str, list[Sample]]]]":
    from harness.cards import dataset_names, load_dataset_card
    from harness.data import has_pictures, load_samples
    from harness.data.layout import annotation_file
    from harness.errors import DataError

    for name in dict.fromkeys(trained_on):
        if name not in dataset_names():
            continue
        card, found = load_dataset_card(name), {}
        for split in (s for s in card.splits if s.startswith(TRAINING)):
            try:
                if annotation_file(card, root, split).is_file() and has_pictures(card, root, split):
                    found[split] = load_samples(card, root, split, pictures=False)
            except DataError:
                continue  # the set is not there, or not as its card says: `check` tells why
        if found:
            yield card, found


def _prints(samples: "Sequence[Sample]", tick: Any) -> "Prints":
    from harness.data.copies import fingerprints

    return fingerprints({s.image: s.reading for s in samples}, tick=tick)


def _overlap(
    planned: "PlannedSet",
    own: "Prints",
    card: "DatasetCard",
    samples: "dict[str, list[Sample]]",
    known: "Prints",
    root: Path,
) -> Overlap:
    from harness.data.copies import Copy, copies

    nearest: dict[int, Copy] = {}
    for copy in copies(own, known):
        before = nearest.setdefault(copy.first, copy)
        if copy.correlation > before.correlation:
            nearest[copy.first] = copy
    pairs = [
        Pair(_below(own.paths[c.first], root), _below(known.paths[c.second], root), c.distance)
        for _, c in sorted(nearest.items())
    ]
    return Overlap(
        audited=f"{planned.card.name}/{planned.entry.split}",
        trained=tuple(f"{card.name}/{split}" for split in samples),
        n_audited=len(own.paths) + len(own.unread),
        n_trained=len(known.paths) + len(known.unread),
        n_copies=len(pairs),
        pairs=tuple(pairs[:MOST_KEPT]),
        n_unread=len(own.unread) + len(known.unread),
        patients=tuple(_patients(planned, card, [s for own in samples.values() for s in own])),
    )


def _patients(planned: "PlannedSet", card: "DatasetCard", trained: "list[Sample]") -> list[str]:
    """Names of clusters in both; what pictures alone group has no names that last."""
    from harness.data.clusters import assign_clusters

    rule = card.clusters
    if planned.card.name != card.name or rule.rule == "image":
        return []
    if rule.rule not in ("patient", "annotated") and not rule.ranges:
        return []
    return sorted({s.cluster_id for s in planned.samples} & set(assign_clusters(card, trained)))


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def note_overlaps(
    store: "RunStore",
    model_ids: Sequence[str],
    sets: "Sequence[PlannedSet]",
    root: Path,
    listener: Listener,
) -> None:
    """Put into the record of a run what its models share with their training, and say so."""
    entries = {entry["model_id"]: dict(entry) for entry in store.manifest["models"]}
    known: dict[tuple[str, ...], list[Overlap]] = {}
    for entry in (entries[model_id] for model_id in dict.fromkeys(model_ids)):
        if entry["trained_on"] and "training_overlap" not in entry:
            key = tuple(entry["trained_on"])
            if key not in known:
                known[key] = training_overlap(key, sets, root, listener=listener)
            found = known[key]
            entry["training_overlap"] = [asdict(one) for one in found]
            entry["overlap_notes"] = [text for one in found for text in one.sentences()]
        for text in entry.get("overlap_notes", ()):
            listener.note(f"note: {entry['model_id']}: {text}")
        entry["notes"] = list(dict.fromkeys([*entry["notes"], *entry.get("overlap_notes", ())]))
        store.add_model(entry)
