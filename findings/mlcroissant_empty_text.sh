#!/usr/bin/env bash
# mlcroissant reads an empty string, and the texts "NA", "None" and "null", of a CSV column that its
# description calls sc:Text as None: the empty prompt of a table of prompts cannot be told from a
# prompt that is missing, and a text is lost. (Tables go through pandas with its default of such words.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check uv
env/bin/uv pip install --quiet --python env/bin/python mlcroissant==1.1.1 pandas==3.1.1
env/bin/python - <<'PYTHON'
import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path

import mlcroissant as mlc

logging.disable(logging.WARNING)
texts = ["polyp", "", "NA", "None", "null", "none at all"]
content = 'prompt\n' + "".join(f'"{text}"\n' for text in texts)
Path("prompts.csv").write_text(content, encoding="utf-8")
field = mlc.Field(
    id="rows/prompt",
    name="prompt",
    data_types=[mlc.DataType.TEXT],
    source=mlc.Source(file_object="prompts.csv", extract=mlc.Extract(column="prompt")),
)
table = mlc.FileObject(
    id="prompts.csv",
    name="prompts.csv",
    content_url="prompts.csv",
    encoding_formats=["text/csv"],
    sha256=hashlib.sha256(content.encode()).hexdigest(),
)
described = mlc.Metadata(
    name="prompts",
    description="Texts of a table.",
    license=["CC0-1.0"],
    url="https://example.org",
    cite_as="none",
    version="1.0.0",
    date_published="2026-01-01",
    distribution=[table],
    record_sets=[mlc.RecordSet(id="rows", name="rows", fields=[field])],
)
Path("croissant.json").write_text(json.dumps(described.to_json(), default=str), encoding="utf-8")
found = [row["rows/prompt"] for row in mlc.Dataset(jsonld="croissant.json").records("rows")]
print(f"mlcroissant {version('mlcroissant')}: written {texts}, read {found}")
wanted = [b"polyp", None, None, None, None, b"none at all"]
raise SystemExit(0 if found == wanted else "the behaviour changed")
PYTHON
