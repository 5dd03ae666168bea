"""Writes the JSON Schemas that editors complete suites and cards from.

``python -m harness.suite.json_schemas`` renews them; a test fails when they are stale.
"""

import json
from pathlib import Path

from pydantic import BaseModel

from harness.cards import DatasetCard, ModelCard
from harness.files import shipped
from harness.files.writing import write_text
from harness.suite.schema import Suite


def schemas() -> dict[Path, str]:
    """The file and content of each schema."""
    folder = shipped("suites") / "schemas"
    kinds: dict[str, type[BaseModel]] = {
        "suite": Suite,
        "dataset": DatasetCard,
        "model": ModelCard,
    }
    return {folder / f"{name}.json": _text(kind) for name, kind in kinds.items()}


def _text(kind: type[BaseModel]) -> str:
    schema = kind.model_json_schema()
    if kind is ModelCard:
        # `extends` is resolved before the schema is applied; what it brings need not be repeated.
        schema["properties"]["extends"] = {"type": "string", "title": "Extends"}
        schema["required"] = ["name"]
    return json.dumps(schema, indent=1) + "\n"


def main() -> None:
    """Write every schema."""
    for path, text in schemas().items():
        write_text(path, text)


if __name__ == "__main__":
    main()
