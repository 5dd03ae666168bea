"""``leaderboard``: the static site, and the pins of a track."""

from pathlib import Path
from typing import Annotated

import typer

from harness.auditing.samples import choose_root, sets_of
from harness.commands.options import DataRoot, Quiet
from harness.commands.output import say
from harness.commands.progress import Terminal
from harness.commands.tracks import TrackRoot, planned, reference_of
from harness.files.writing import refuse_unwritable
from harness.leaderboard.board import build_boards
from harness.leaderboard.log import Log
from harness.leaderboard.site import write_site
from harness.leaderboard.tracks import load_track, measure_truth, suite_of
from harness.leaderboard.tracks import pin as write

app = typer.Typer(
    help="Build the leaderboard's static site, or pin a track.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("build")
def build(
    folder: Annotated[
        Path, typer.Argument(help="Where submissions and flags lie, and the pages go.")
    ] = Path("reports/leaderboard"),
    data_root: TrackRoot = None,
    quiet: Quiet = False,
) -> None:
    """Verify every submission anew, write the pages, log what changed; a refused one stops it."""
    refuse_unwritable(folder, is_folder=True)
    Log.of_board(folder)  # before minutes of work: what was changed there stops it
    with Terminal(quiet=quiet).counting("verifying submissions") as tick:
        found = build_boards(folder, lambda t: reference_of(t, data_root, quiet=quiet), tick=tick)
    paths = write_site(folder, found)
    if not quiet:
        count = sum(len(board.rows) for board in found)
        say(f"{count} rows on {len(found)} tracks, {len(paths)} pages: {paths[0]}")


@app.command("pin")
def pin(
    track: Annotated[str, typer.Argument(help="A track's name.")],
    data_root: DataRoot = None,
    quiet: Quiet = False,
) -> None:
    """Write plan and truth of a track of generated data, and print their hashes."""
    found = load_track(track)
    root = choose_root(data_root, sets_of(suite_of(found)), listener=Terminal())
    plan, sets = planned(found, root, quiet=quiet)
    pins = write(found, plan, measure_truth(s for part in sets for s in part.samples))
    say(f"plan_sha256: {pins.plan_sha256}\ntruth_sha256: {pins.truth_sha256}")
