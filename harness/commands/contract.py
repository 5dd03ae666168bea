"""Tries the contract of models and shows what was found, for ``check --model``."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.commands.output import terminal

if TYPE_CHECKING:
    from harness.model.checks import CheckResult
    from harness.model.loading import LoadedModel

_STYLES = {"holds": "green", "finding": "yellow", "fails": "bold red", "not applicable": "dim"}


class Trial(NamedTuple):
    """On what, and how, models are tried; None stands for what the contract makes up."""

    pictures: Sequence[Path] | None
    prompts: Sequence[str] | None
    device: str
    dtype: str
    backend: str
    random_weights: bool


class Report(NamedTuple):
    """What was found of one model."""

    facts: dict[str, Any]
    results: "list[CheckResult]"

    def content(self) -> dict[str, Any]:
        """For ``--json``."""
        return self.facts | {"checks": [result._asdict() for result in self.results]}


def try_model(name_and_file: tuple[str, Path | None], trial: Trial, *, quiet: bool) -> Report:
    """Load a model and run every check of the contract, with a progress bar."""
    from harness.commands.progress import Terminal
    from harness.data.images import read_image
    from harness.model.checks import CHECKS, check_model
    from harness.model.loading import load_model

    name, file = name_and_file
    pictures = None if not trial.pictures else [read_image(path) for path in trial.pictures]
    model = load_model(
        name,
        checkpoint=file,
        device=trial.device,
        dtype=trial.dtype,
        backend=trial.backend,
        random_weights=trial.random_weights,
    )
    with Terminal(quiet=quiet).progress(f"check {name}", len(CHECKS), unit="checks") as advance:
        results = check_model(
            model, pictures=pictures, prompts=trial.prompts or None, tick=lambda: advance(1)
        )
    return Report(_facts(model), results)


def _facts(model: "LoadedModel") -> dict[str, Any]:
    from harness.model.contract import EmbedsText, PartlyTrainable, Predicts, Staged, Tokenizes

    offers = {
        "predict": Predicts,
        "stages": Staged,
        "tokenize": Tokenizes,
        "text_embedding": EmbedsText,
        "decoder_modules": PartlyTrainable,
    }
    return {
        "model_id": model.model_id,
        "card": str(model.resolved.path),
        "control": model.card.control,
        "offers": [name for name, kind in offers.items() if isinstance(model.raw, kind)],
        "input_size": list(model.adapter.input_size),
        "parameters": sum(p.numel() for p in model.adapter.module.parameters()),
        "device": str(model.device),
        "precision": model.precision,
        "backend": model.backend,
        "random_weights": model.random_weights,
    }


def show(reports: Sequence[Report], *, quiet: bool) -> None:
    """Print a table a model; when quiet only what does not hold."""
    from rich.table import Table
    from rich.text import Text

    console = terminal(110)
    for report in reports:
        counts = Counter(result.outcome.value for result in report.results)
        table = Table(box=None, padding=(0, 2, 0, 0))
        for title in ("check", "outcome", "what was found"):
            table.add_column(title, no_wrap=title != "what was found")
        for name, outcome, sentence in report.results:
            if not quiet or outcome.value in ("finding", "fails"):
                table.add_row(Text(name), Text(outcome, _STYLES[outcome]), Text(sentence))
        console.print(Text(_headline(report.facts), style="bold"), soft_wrap=True)
        if table.rows:
            console.print(table)
        total = ", ".join(f"{counts[name]} {_plural(name, counts[name])}" for name in _STYLES)
        console.print(Text(f"{report.facts['model_id']}: {total}."), "", soft_wrap=True, sep="\n")


def _plural(outcome: str, n: int) -> str:
    plurals = {"holds": "hold", "finding": "findings", "fails": "fail"}
    return outcome if n == 1 else plurals.get(outcome, outcome)


def _headline(facts: dict[str, Any]) -> str:
    height, width = facts["input_size"]
    return (
        f"{facts['model_id']}: offers {', '.join(facts['offers'])}; "
        f"{facts['parameters'] / 1e6:.3g} M parameters; pixels {height} x {width}; "
        f"{facts['device']}, {facts['precision']}"
        + ("; random numbers instead of weights" if facts["random_weights"] else "")
        + ("; a control" if facts["control"] else "")
    )


def exit_code(reports: Sequence[Report], *, strict: bool) -> int:
    """2 when a check fails, or, if strict, when there is a finding; else 0."""
    outcomes = {result.outcome.value for report in reports for result in report.results}
    return 2 if "fails" in outcomes or (strict and "finding" in outcomes) else 0
