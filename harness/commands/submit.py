"""``submit``: a folder for the leaderboard, made from a complete run of a track."""

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.commands.options import Quiet
from harness.commands.output import say
from harness.commands.tracks import TrackRoot, reference_of
from harness.errors import UsageError
from harness.files.writing import refuse_unwritable
from harness.leaderboard.archive import write_archive
from harness.leaderboard.pack import AuthorFacts, model_entry, pack
from harness.leaderboard.tracks import Reference, Track, load_track, track_names
from harness.plan.registration import SEAL, differences, read_registration, record, sentence
from harness.runs.store import RunStore


def submit(
    run: Annotated[Path, typer.Argument(help="A complete run of a track's suite.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Which model, where the run has several.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="[default: submissions/TRACK/MODEL]")
    ] = None,
    author: Annotated[
        list[str] | None, typer.Option("--author", help="A name; repeat for several.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="[default: the card's]")] = None,
    paper: Annotated[str | None, typer.Option("--paper", help="Address. [default: the card's]")] = (
        None
    ),
    code: Annotated[str | None, typer.Option("--code", help="Address of the model's code.")] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="Address of the file.")] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Of the weights. [default: the card's]")
    ] = None,
    trained_on: Annotated[
        list[str] | None,
        typer.Option("--trained-on", help="A data set; repeat. [default: the card's]"),
    ] = None,
    notes: Annotated[str | None, typer.Option("--notes", help="What readers should know.")] = None,
    registration: Annotated[
        Path | None,
        typer.Option(
            "--registration",
            help="What `plan --register` wrote: say whether it was run so. [default: the run's]",
        ),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option("--archive", help="Write a ZIP, too, for an archive that gives a DOI."),
    ] = None,
    data_root: TrackRoot = None,
    quiet: Quiet = False,
) -> None:
    """Make a submission to the leaderboard; what is still missing is named and exits with 3."""
    store = RunStore(run)
    track = _track_of(store)
    entry = model_entry(store, model)
    given = AuthorFacts(
        authors=author or (),
        title=title,
        paper=paper,
        code=code,
        weights=weights,
        licence=licence,
        trained_on=trained_on or (),
        notes=notes,
    )
    folder = out or Path("submissions") / track.name / entry["name"]
    refuse_unwritable(folder, is_folder=True)
    refuse_unwritable(archive)
    reference = reference_of(track, data_root, quiet=quiet)
    held = _registered(store, registration, reference)
    missing = pack(store, entry, reference, given, out=folder, registration=held)
    if not quiet:
        say(f"{folder}: a submission to {track.name}.")
        say(sentence(held) if held else "It was not registered before it was run.")
    for text in missing:
        say(f"still to give: {text}", err=True)
    if missing:
        raise typer.Exit(3)
    if archive is not None:
        write_archive(folder, archive)
    if not quiet:
        say(f"Check it: vlsm-harness verify {folder}")
        if archive is not None:
            say(f"{archive}: for an archive that gives a DOI; its licence is yours to choose.")


def _registered(store: RunStore, path: Path | None, reference: Reference) -> dict[str, Any] | None:
    """The run's record of its registration, or one of a file that the run did not name."""
    known: dict[str, Any] | None = store.manifest.get("registration")
    if path is None:
        return known
    held = read_registration(path)
    if known is not None and known[SEAL] == held.seal:
        return known
    limit = store.manifest.get("limit")
    differs = differences(held, reference.plan, store.suite(), limit=limit)
    other = f"another, of the seal {known[SEAL][:12]}" if known else "none"
    differs.append(f"time: the run named {other} when it began")
    if store.manifest["environment"]["at"] < held.registered:
        differs.append("time: it was registered after the run began")
    return record(held, differs)


def _track_of(store: RunStore) -> Track:
    """The track whose suite a run ran."""
    if not store.manifest:
        raise UsageError(
            f"{store.folder}: no run.json here. A run directory is needed. Give the folder that "
            "`vlsm-harness run` printed."
        )
    tracks = {track.suite: track for track in map(load_track, track_names())}
    name = store.suite().name
    if name not in tracks:
        known = ", ".join(repr(suite) for suite in sorted(tracks))
        raise UsageError(
            f"{store.folder}: a run of the suite {name!r}. The leaderboard's tracks are of the "
            f"suites {known}. Run one of them: `vlsm-harness run SUITE --model CARD`."
        )
    return tracks[name]
