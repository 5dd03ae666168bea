"""Makes a submission out of one model of a run.

Conventions: everything that the run or the model's card knows is filled in; what only authors
know and did not say is written as a placeholder, which `verification` refuses. The counts are
copied, in the order of the plan; no folder of the machine is named.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from harness.cards import load_model_card, model_names
from harness.data.readings import rules_of
from harness.errors import SubmissionError, choose
from harness.files.writing import json_bytes, replace_together, smallest_parquet, writing
from harness.leaderboard.claims import recompute, select_claims
from harness.leaderboard.submission import (
    FORMAT,
    LIMITS,
    SCORES,
    TEXTS,
    TO_GIVE,
    WITH_THE_HARNESS,
    RunFacts,
    distinct_pairs,
    still_to_give,
)
from harness.leaderboard.tracks import SAMPLE, TRUTH_SCHEMA, Reference, truth_sha256
from harness.metrics import combined_rule, signature
from harness.runs.store import DONE, RunStore
from harness.stats.pairs import ModelFacts
from harness.suite.schema import Metric


@dataclass(frozen=True)
class AuthorFacts:
    """What the authors state; None where they did not."""

    authors: Sequence[str] = ()
    title: str | None = None
    paper: str | None = None
    code: str | None = None
    weights: str | None = None
    licence: str | None = None
    trained_on: Sequence[str] = ()
    notes: str | None = None


def model_entry(store: RunStore, model: str | None) -> dict[str, Any]:
    """The manifest's entry of the model of a run; the only one where none is named."""
    entries = {entry["model_id"]: entry for entry in store.manifest.get("models", [])}
    if model is None and len(entries) == 1:
        return dict(next(iter(entries.values())))
    by_name = {entry["name"]: entry for entry in entries.values()} | entries
    alike = [e for e in entries.values() if model in (None, e["name"])]
    if model is None or (model not in entries and len(alike) > 1):
        is_told_apart = len({e["name"] for e in alike}) == len(alike)
        names = ", ".join(repr(e["name" if is_told_apart else "model_id"]) for e in alike)
        raise SubmissionError(
            f"{store.folder}: a run of {len(alike)} models ({names}). A submission is of one, of "
            "a recipe one of its seeds. Name it: --model NAME."
        )
    where = str(store.folder)
    return dict(by_name[choose(model, by_name, kind="model", where=where, error=SubmissionError)])


def pack(
    store: RunStore,
    entry: Mapping[str, Any],
    reference: Reference,
    given: AuthorFacts,
    *,
    out: Path,
    registration: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write the folder `out` of a submission; returns a sentence for all that is still to be given.

    `store` is a complete run of the track, `entry` of `model_entry`. An earlier submission there is
    replaced, anything else is refused. `registration` is a record of `harness.plan.registration`.
    """
    _refuse_other_runs(store, entry, reference)
    scores = _scores(store, entry["model_id"], reference)
    texts = _texts(store, entry["model_id"], reference)
    model = ModelFacts(
        model_id=entry["model_id"],
        name=entry["name"],
        trained_on=tuple(given.trained_on or entry["trained_on"]),
        control=entry["control"],
        threshold=entry["threshold"],
    )
    content = _content(entry, reference, given)
    tables = {
        "scores.parquet": scores,
        "texts.parquet": texts,
        "truth.parquet": reference.truth,
        "summary.parquet": select_claims(recompute(scores, texts, reference, model)),
    }
    _write(out, content, _facts(store.manifest, entry, registration), tables)
    return [_how_to_give(out, place, content) for place in still_to_give(content)]


def _refuse_other_runs(store: RunStore, entry: Mapping[str, Any], reference: Reference) -> None:
    track, manifest = reference.track, store.manifest
    again = f"Run it: `vlsm-harness run {track.suite} --model CARD`"
    problems = (
        (
            manifest.get("plan_sha256") != reference.plan.sha256,
            f"the run has the plan {manifest.get('plan_sha256')}",
            f"The track {track.name!r} has {reference.plan.sha256}: all its data, its seed, no "
            "--limit",
        ),
        (
            manifest.get("metric") != reference.suite.metric.model_dump(mode="json"),
            f"the run scores with {manifest.get('metric')}",
            f"The track scores at native resolution, {reference.suite.metric.model_dump()}",
        ),
        (
            bool(entry.get("imported")),
            "the predictions were imported",
            "A row is verified by running its model",
        ),
        (
            entry.get("backend", "torch") != "torch",
            f"the model was computed by {entry.get('backend')}",
            "A row is verified with --backend torch",
        ),
        (
            "two_speed" in entry,
            f"the model was computed in two speeds, {entry.get('precision')}",
            "A row is verified in one precision",
        ),
        (entry["random_weights"], "the weights are random", "A row is of a model that was trained"),
    )
    for is_wrong, found, right in problems:
        if is_wrong:
            raise SubmissionError(f"{store.folder}: {found}. {right}. {again}.")


def _scores(store: RunStore, model_id: str, reference: Reference) -> pl.DataFrame:
    """Counts of every case in the order of the plan; refuses a run with gaps or another truth."""
    mine = store.scores_scan().filter(pl.col("model_id") == model_id).collect()
    done = mine.filter(pl.col("status") == DONE)
    n_cases = reference.plan.cases.height
    if done.height != n_cases:
        raise SubmissionError(
            f"{store.folder}: {done.height} of {n_cases} cases of {model_id} are done, "
            f"{mine.height - done.height} failed. A submission holds complete runs alone. Continue "
            "the run with the command that began it."
        )
    ordered = reference.plan.cases.join(done, on="case_id", how="left", maintain_order="left")
    seen = ordered.filter(pl.col("probe") == "original").unique(SAMPLE)
    now = truth_sha256(seen.select(TRUTH_SCHEMA.names()).cast(TRUTH_SCHEMA))
    if now != truth_sha256(reference.truth.join(seen, on=list(SAMPLE), how="semi")):
        raise SubmissionError(
            f"{store.folder}: the masks of the run are not those of the track "
            f"{reference.track.name!r}. Both have one truth. Take the track's data, and run again."
        )
    return ordered.select(SCORES.names()).cast(SCORES)


def _texts(store: RunStore, model_id: str, reference: Reference) -> pl.DataFrame:
    texts, key = store.texts(), ["text", "original_text"]
    pairs = distinct_pairs(reference.plan.cases)
    mine = texts.filter(pl.col("model_id") == model_id) if texts.width else None
    if mine is None or pairs.join(mine, on=key, how="anti").height:
        raise SubmissionError(
            f"{store.folder}/texts: no table for {model_id}. It says which edits reach the model. "
            "Write it: issue the command of the run again."
        )
    both = pairs.join(mine, on=key, how="left", maintain_order="left")
    blank = [pl.lit(None).alias(c) for c in TEXTS if c not in both.columns]
    return both.with_columns(blank).select(TEXTS.names()).cast(TEXTS)


def _facts(
    manifest: Mapping[str, Any],
    entry: Mapping[str, Any],
    registration: Mapping[str, Any] | None,
) -> RunFacts:
    environment, metric = manifest["environment"], Metric(**manifest["metric"])
    of_environment = ("harness", "git_commit", "python", "platform", "at", "libraries")
    of_entry = ("device", "precision", "batch_size", "halved_to", "shard_size")
    return RunFacts.model_validate(
        {
            **{key: entry[key] for key in ("model_id", "threshold", "weights_sha256")},
            **{key: manifest[key] for key in ("plan_sha256", "data_sha256")},
            "signature": signature(metric, entry["threshold"], combined_rule(rules_of(manifest))),
            **{key: environment[key] for key in of_environment},
            **{key: entry[key] for key in of_entry if key in entry},
            # The names of the machines are nobody's business.
            "hardware": {key: entry["hardware"][key] for key in ("device_name", "threads")},
            "notes": [str(note)[:2000] for note in entry.get("notes", [])],
            "training_overlap": [_shared(one) for one in entry.get("training_overlap", ())] or None,
            "registration": registration,
        }
    )


def _shared(overlap: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of it: numbers, and no picture's or patient's name."""
    kept = ("audited", "trained", "n_audited", "n_trained", "n_copies")
    return {key: overlap[key] for key in kept} | {"n_patients": len(overlap["patients"])}


def _content(entry: Mapping[str, Any], reference: Reference, given: AuthorFacts) -> dict[str, Any]:
    """The content of ``submission.yaml``: what authors gave, else the card, else a placeholder."""
    card, weights = entry["card"], entry["weights_sha256"]
    address = WITH_THE_HARNESS if _ships(entry["name"], weights) else None
    ask = f"{TO_GIVE}: {{}}".format
    return {
        "format": FORMAT,
        "track": reference.track.name,
        "name": entry["name"],
        "title": given.title or card.get("title") or ask("one line that says what it is"),
        "authors": list(given.authors) or [ask("a name a line")],
        "paper": given.paper or card.get("paper"),
        "code": given.code or address or ask("address of the model's code, https://..."),
        "weights": {
            "address": given.weights or address or ask("address of the file, https://..."),
            "sha256": weights,
        },
        "licence": given.licence or card.get("licence") or ask("of the weights"),
        "trained_on": list(given.trained_on or entry["trained_on"]) or [ask("a data set a line")],
        "prompt_type": card.get("prompt_type"),
        "control": bool(entry["control"]),
        "notes": given.notes or "",
    }


def _ships(name: str, weights_sha256: str | None) -> bool:
    """Whether these are the weights of a card of that name that ships with the harness."""
    if name not in model_names():
        return False
    card = load_model_card(name).card
    return card.checkpoint is not None and card.checkpoint.sha256 == weights_sha256


def _how_to_give(out: Path, place: str, content: Mapping[str, Any]) -> str:
    """How to replace the placeholder at ``authors[0]``, ``weights.address`` ..."""
    key = re.split(r"[.[]", place)[0]
    value = content[key]
    text = value["address"] if isinstance(value, dict) else value
    text = text[0] if isinstance(text, list) else text
    option = {"authors": "author", "trained_on": "trained-on"}.get(key, key)
    return (
        f"{out / 'submission.yaml'}: {key}: {text!r}. Only its authors know it. Write it in this "
        f"line, or give --{option} to `submit`."
    )


_HEAD = """\
# A submission to the leaderboard of vlsm-harness; `vlsm-harness verify FOLDER` checks it.
# Everything here is said by its authors. `trained_on` above all: nobody can check it.
"""


def _write(
    out: Path, content: Mapping[str, Any], facts: RunFacts, tables: Mapping[str, pl.DataFrame]
) -> None:
    """Write all files into the folder, all or nothing."""
    if out.exists() and not (out.is_dir() and {p.name for p in out.iterdir()} <= set(LIMITS)):
        raise SubmissionError(
            f"{out}: something else is there. A submission takes a folder of its own. Choose "
            "another --out."
        )
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=1000)
    files = {name: smallest_parquet(table) for name, table in tables.items()}
    files["submission.yaml"] = (_HEAD + text).encode()
    files["run.json"] = json_bytes(facts.model_dump(mode="json"))
    replace_together({out / name: content for name, content in files.items()})
    with writing(out):
        for name in set(LIMITS) - files.keys():
            (out / name).unlink(missing_ok=True)
