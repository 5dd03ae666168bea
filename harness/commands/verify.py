"""``verify``: recompute a submission from its counts, and tell all that is wrong with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from harness.auditing.choices import model_arguments
from harness.auditing.samples import choose_root, read_sets, sets_of
from harness.commands.options import AsJson, DataType, Device, Quiet
from harness.commands.output import say, say_json
from harness.commands.progress import Terminal
from harness.commands.tracks import TrackRoot, reference_of
from harness.errors import UsageError
from harness.files.writing import refuse_unwritable
from harness.leaderboard.flags import Flag, make_flag, record_flag
from harness.leaderboard.log import Log
from harness.leaderboard.spot_check import SpotCheck, draw_sample, rerun
from harness.leaderboard.tracks import Reference
from harness.leaderboard.verification import Verification, open_submission
from harness.leaderboard.verification import verify as check


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
        Path | None,
        typer.Option(
            "--record",
            help="Write the outcome into this file of flags, and a line into the log beside it.",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Verify a submission: exit 0 accepted, 1 refused (every reason is told), 2 cannot be tried."""
    share = _share(spot_check)
    refuse_unwritable(record)
    opened = open_submission(submission)
    verification, checked = Verification(opened, opened.reasons), None
    if opened.track is not None:
        reference = reference_of(opened.track, data_root, quiet=quiet)
        verification = check(opened, reference)
        if model is not None and verification.accepted is not None:
            options = _RerunOptions(model, share, seed, data_root, device, dtype, quiet)
            checked = _spot_check(verification, reference, options)
    flag = make_flag(verification, checked)
    if record is not None:
        # Where the folder of the submission lies on the board.
        folder = submission.resolve()
        key = f"{folder.parent.name}/{folder.name}"
        Log.of_board(record.parent).add("checked", key, flag.sha256, flag.state)
        record_flag(record, key, flag)
    _print(verification, checked, flag, as_json=as_json, quiet=quiet)
    if flag.state in ("refused", "disputed"):
        raise typer.Exit(1)


@dataclass(frozen=True)
class _RerunOptions:
    """How a spot check is rerun."""

    model: str
    share: float
    seed: int | None
    data_root: Path | None
    device: str
    dtype: str
    quiet: bool


def _share(text: str) -> float:
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


def _spot_check(
    verification: Verification, reference: Reference, options: _RerunOptions
) -> SpotCheck:
    from harness.model.loading import load_model

    assert verification.accepted is not None  # others are not rerun

    ((name, checkpoint),) = model_arguments([options.model], None)
    model = load_model(name, checkpoint=checkpoint, device=options.device, dtype=options.dtype)
    root = choose_root(options.data_root, sets_of(reference.suite), listener=Terminal())
    read_sets(
        reference.suite, root, pictures=False, listener=Terminal(quiet=options.quiet)
    )  # paints generated sets
    digest, cases = verification.opened.digest, reference.plan.cases
    sample = draw_sample(cases, digest, share=options.share, seed=options.seed)
    n_cases = sample.cases.height
    with Terminal(quiet=options.quiet).progress(
        f"rerunning {model.model_id}", n_cases, unit="cases"
    ) as go:
        return rerun(verification.accepted, reference, sample, model, root=root, advance=go)


def _print(
    verification: Verification,
    checked: SpotCheck | None,
    flag: Flag,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    reasons = [*verification.reasons, *(checked.reasons if checked else ())]
    if as_json:
        content: dict[str, object] = {
            "state": flag.state,
            "sha256": flag.sha256,
            "reasons": reasons,
        }
        if checked is not None:
            content["spot_check"] = checked.as_dict()
        say_json(content)
        return
    for sentence in reasons:
        say(f"refused: {sentence}", err=True)
    if not quiet:
        say(f"{verification.opened.folder}: {flag.state} (sha256 {flag.sha256[:12]})")
        if checked is not None:
            say(checked.sentence())
