"""``verify``: recompute a submission from its counts, and tell all that is wrong with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.options import AsJson, DataType, Device, Quiet
from harness.commands.output import say, say_json
from harness.commands.submit import TrackRoot

if TYPE_CHECKING:
    from harness.leaderboard.flags import Flag
    from harness.leaderboard.spot_check import SpotCheck
    from harness.leaderboard.tracks import Reference
    from harness.leaderboard.verification import Verification


def verify(
    submission: Annotated[Path, typer.Argument(help="The folder of a submission.")],
    model: Annotated[
        str | None,
        typer.Option("--model", help="CARD or CARD=CHECKPOINT, to rerun a part of the cases."),
    ] = None,
    spot_check: Annotated[
        str, typer.Option("--spot-check", help="Share of the cases that --model reruns.")
    ] = "2%",
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Of the sample, to repeat a check. [default: drawn]"),
    ] = None,
    data_root: TrackRoot = None,
    device: Device = "auto",
    dtype: DataType = "auto",
    record: Annotated[
        Path | None, typer.Option("--record", help="Write the outcome into this file of flags.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Verify a submission: exit 0 accepted, 1 refused (every reason is told), 2 cannot be tried."""
    from harness.commands.tracks import reference_of
    from harness.leaderboard.flags import flag_of, record_flag
    from harness.leaderboard.verification import Verification, open_submission
    from harness.leaderboard.verification import verify as hold

    share = _share(spot_check)
    opened = open_submission(submission)
    if opened.track is None:
        found = Verification(opened, opened.reasons)
        checked = None
    else:
        reference = reference_of(opened.track, data_root, quiet=quiet)
        found = hold(opened, reference)
        checked = None
        if model is not None and found.is_accepted:
            rerun = _Rerun(model, share, seed, data_root, device, dtype, quiet)
            checked = _spot_check(found, reference, rerun)
    flag = flag_of(found, checked)
    if record is not None:
        record_flag(record, _key(found), flag)
    _print(found, checked, flag, as_json=as_json, quiet=quiet)
    if flag.state in ("refused", "disputed"):
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Rerun:
    """How the part of a spot check is rerun."""

    model: str
    share: float
    seed: int | None
    data_root: Path | None
    device: str
    dtype: str
    quiet: bool


def _key(found: "Verification") -> str:
    """By which a flag is kept: where the folder of the submission lies on the board."""
    folder = found.opened.folder.resolve()
    return f"{folder.parent.name}/{folder.name}"


def _share(text: str) -> float:
    from harness.errors import UsageError

    number = text.removesuffix("%")
    try:
        share = float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = float("nan")
    if not 0 < share <= 1:
        raise UsageError(
            f"--spot-check: found {text!r}. A share between 0 and 100% is needed, such as 2%. "
            "Correct the option."
        )
    return share


def _spot_check(found: "Verification", reference: "Reference", how: _Rerun) -> "SpotCheck":
    from harness.commands.options import model_arguments, read_sets
    from harness.commands.progress import progress
    from harness.leaderboard.spot_check import draw, rerun
    from harness.models import load_model

    ((name, checkpoint),) = model_arguments([how.model], None)
    model = load_model(name, checkpoint=checkpoint, device=how.device, dtype=how.dtype)
    root = how.data_root or Path("data")
    read_sets(reference.suite, root, pictures=False, quiet=how.quiet)  # paints generated sets
    sample = draw(reference.plan.cases, found.opened.digest, share=how.share, seed=how.seed)
    n_cases = sample.cases.height
    with progress(f"rerunning {model.model_id}", n_cases, unit="cases", quiet=how.quiet) as go:
        return rerun(found, reference, sample, model, root=root, advance=go)


def _print(
    found: "Verification",
    checked: "SpotCheck | None",
    flag: "Flag",
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    reasons = [*found.reasons, *(checked.reasons if checked else ())]
    if as_json:
        content: dict[str, object] = {
            "state": flag.state,
            "sha256": flag.sha256,
            "reasons": reasons,
        }
        if checked is not None:
            content["spot_check"] = checked.record()
        say_json(content)
        return
    for sentence in reasons:
        say(f"refused: {sentence}", err=True)
    if not quiet:
        say(f"{found.opened.folder}: {flag.state} (sha256 {flag.sha256[:12]})")
        if checked is not None:
            say(checked.sentence())
