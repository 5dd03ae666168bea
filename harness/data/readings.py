"""How the data of a set were read: what a run keeps of it, and says.

Conventions: a run's ``readings`` hold the rules of each dataset's card, its ``masks`` how many
masks of each set were read as what, and how many of them are empty, its ``spans`` what the
lexicon found in prompts of free text.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.prompts.freetext.counting import span_lines
from harness.records import Reading, Readings, Sample


def readings_of(manifest: Mapping[str, Any]) -> Readings:
    """How each dataset's files are read, as a run's ``readings`` keep it."""
    found = {}
    for name, kept in manifest.get("readings", {}).items():
        intensity = kept["intensity"]
        if isinstance(intensity, list):
            intensity = tuple(intensity)
        values = tuple(kept["values"])
        found[name] = Reading(**{**kept, "values": values, "intensity": intensity})
    return found


def kept_readings(readings: Readings) -> dict[str, dict[str, Any]]:
    """The same as `readings_of` reads it."""
    return {name: asdict(reading) for name, reading in readings.items()}


def rules_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The rule for the masks of each dataset, as signatures spell it.

    Runs from before cards had one do not say it: they read every mask at more than half.
    """
    return {name: reading.rule for name, reading in readings_of(manifest).items()}


def mask_counts(samples: Sequence[Sample]) -> dict[str, Any]:
    """How many masks were read as what, the most frequent first, and how many are empty."""
    masks = {sample.sample_id: sample for sample in samples if sample.encoding is not None}
    encodings = Counter(str(sample.encoding) for sample in masks.values())
    return {
        "rule": samples[0].reading.rule if samples else "auto",
        "encodings": dict(sorted(encodings.items(), key=lambda item: (-item[1], item[0]))),
        "n_masks": len(masks),
        "n_empty": sum(bool(sample.is_empty) for sample in masks.values()),
    }


def data_lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """A sentence on the masks of each set, and one on the spans of each set of free text."""
    yield from mask_lines(manifest.get("masks", []))
    yield from span_lines(manifest.get("spans", []))


def mask_lines(masks: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each set that says how its masks were read.

    Example:
        >>> counts = {"rule": "auto", "encodings": {"8-bit grey 0/1": 3}, "n_masks": 3}
        >>> next(mask_lines([{"dataset": "mine", "split": "test", **counts, "n_empty": 0}]))
        'mine/test: masks read by what each file holds: 8-bit grey 0/1 (3); 0 of 3 are empty.'
    """
    for one in masks:
        if one["rule"] == "auto":
            rule = "by what each file holds"
        else:
            rule = f"by the card's rule {one['rule']}"
        listed = ", ".join(f"{name} ({count})" for name, count in one["encodings"].items())
        yield (
            f"{one['dataset']}/{one['split']}: masks read {rule}: {listed}; "
            f"{one['n_empty']} of {one['n_masks']} are empty."
        )
