"""The summary of a run as Markdown: readable as plain text at 100 columns and as a page.

Conventions: every name and reason is escaped; the text holds no times, so equal runs
give equal files.
"""

from collections.abc import Iterable, Iterator

import polars as pl

from harness.report.escape import code, escaped
from harness.report.sheet import WIDTH, bullets, markdown_lines, table_lines
from harness.report.table import curve_sheets, sections
from harness.stats.assay import assay_lines
from harness.stats.assessment import Assessment
from harness.stats.language import LanguageVerdict

_READING = (
    "Relative change: 100 (mean Dice after the change - mean Dice before) / mean Dice before, over "
    "the same samples, against each sample's own mask. Points: 100 times the difference of Dice.",
    "Brackets: 95 % limits of a studentised bootstrap that resamples clusters (and words, where "
    "10 or more were drawn). They are not adjusted for the number of rows.",
    "Holds?: what the probe's first expectation asks, and if it holds, corrected for the number "
    "of tests of its kind on the model and dataset. Where a suite states none, prompts for what is "
    "not there are to be refused; of all others it is asked whether Dice stays unmoved, within "
    "the margin of the signature. After a change that does not keep the meaning that is no grade "
    "but an answer: yes says that the words do not matter here, no that they do, open that the "
    "data cannot tell. All verdicts, with reasons: verdicts.json.",
    "Agree: Dice between the masks before and after the change; needs no ground truth. A model can "
    "keep its Dice while moving its mask.",
)
_CAVEATS = {
    "random_word": "Random words: two things mix. The word is one the model hardly ever saw "
    "(out-of-vocabulary shock), so a large change need not mean that the attribute was used; "
    "and the rest of the prompt often still says enough (redundancy), so no change need not "
    "mean that it was not.",
    "empty": "Empty prompt: a model that was trained with prompts is given none. The paper's P0 "
    'column, "trained and tested with empty text", is a different measurement: do not compare.',
}
_AWAY = (
    "Away from the training data: the change also measures how hard the other set is. Read it "
    "beside the control, which never sees a prompt."
)


def markdown(
    found: Assessment,
    *,
    title: str = "Audit of prompts",
    masks: Iterable[str] = (),
    curve: pl.DataFrame | None = None,
) -> str:
    """The text of ``summary.md``.

    Args:
        found: What is said of a run.
        title: Of the suite; any text.
        masks: Sentences on how true masks and free text were read; any text.
        curve: Of `harness.auditing.curve.threshold_curve`, if there is one.
    """
    summary = found.summary
    lines = [f"# {escaped(title)}", "", *_facts(summary)]
    lines += [f"- {code(found.signature)}"] if found.verdicts else []
    lines += bullets(map(escaped, masks))
    if spoken := [v for v in found.language if v.is_asked]:
        lines += ["", "## Use of language", ""]
        for verdict in spoken:
            lines += _of_language(verdict)
    for section in sections(summary, found.verdicts):
        lines += ["", *markdown_lines(section)]
    if curve is not None and curve.height:
        names = dict(summary.select("model_id", "model").unique().iter_rows())
        for sheet in curve_sheets(curve, names):
            lines += ["", *markdown_lines(sheet)]
    lines += ["", "## How to read this", ""]
    lines += bullets(_caveats(summary))
    return "\n".join(lines) + "\n"


def _facts(summary: pl.DataFrame) -> Iterator[str]:
    """Models and datasets, and what fixes the meaning of the numbers."""
    models = summary.select("model", "model_id").unique().sort("model", "model_id")
    rows = [(escaped(name), code(model_id, in_table=True)) for name, model_id in models.iter_rows()]
    yield from table_lines(("model", "id"), rows, n_text=2)
    yield ""
    columns = ("dataset", "split", "prompts", "prompt_type", "cluster_kind")
    datasets = summary.select(columns).unique().sort(columns).iter_rows()
    yield from table_lines(
        ("dataset", "split", "prompts", "type", "clusters"),
        [tuple(map(escaped, row)) for row in datasets],
        n_text=5,
    )
    yield ""
    signed = summary.select("signature", "model").unique().sort("signature", "model")
    for (signature,), models in signed.group_by("signature", maintain_order=True):
        yield f"- {code(str(signature))} {escaped(', '.join(models['model']))}"


def _of_language(verdict: LanguageVerdict) -> Iterator[str]:
    """A verdict with what blocks and confounds it below it."""
    yield from bullets([escaped(verdict.reason)])
    for text in (*verdict.blocking, *verdict.confounds):
        yield from (f"  {line}" for line in bullets([escaped(text)], WIDTH - 2))


def _caveats(summary: pl.DataFrame) -> Iterator[str]:
    yield from _READING
    perturbations = set(summary["perturbation"])
    yield from (text for name, text in _CAVEATS.items() if name in perturbations)
    if "out_of_distribution" in set(summary["probe"]):
        yield _AWAY
    yield from assay_lines()
