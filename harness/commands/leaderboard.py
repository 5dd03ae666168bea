"""``leaderboard``: the static site, and the pins of a track."""

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.options import DataRoot, Quiet

app = typer.Typer(
    help="Build the leaderboard's static site, or pin a track.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("pin")
def pin(
    track: Annotated[str, typer.Argument(help="A track's name.")],
    data_root: DataRoot = Path("data"),
    quiet: Quiet = False,
) -> None:
    """Write plan and truth of a track of generated data, and print their hashes."""
    from harness.commands.tracks import planned
    from harness.leaderboard.pinning import pin as write
    from harness.leaderboard.tracks import load_track, truth_of

    found = load_track(track)
    plan, sets = planned(found, data_root, quiet=quiet)
    pins = write(found, plan, truth_of(s for part in sets for s in part.samples))
    typer.echo(f"plan_sha256: {pins.plan_sha256}\ntruth_sha256: {pins.truth_sha256}")
