"""Writes a plan for programs that know nothing of the harness: pictures, and a table to loop over.

Conventions: ``cases.csv`` is UTF-8 with a header and one row a case: ``case_id``, ``image`` (below
the folder), ``prompt``, ``answer`` (the name of the mask to write), ``height`` and ``width`` in
pixels. Pictures are PNGs of 8-bit RGB, as a model of the harness is given them, so that other
decoders see the same pixels. ``plan.parquet`` scores what lies in ``answers/``.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.auditing.listener import SILENT, Listener

if TYPE_CHECKING:
    import polars as pl

    from harness.plan.build import Plan
    from harness.records import Readings
    from harness.suite.schema import Suite

CASES, ANSWERS = "cases.csv", "answers"


def export_plan(
    folder: Path,
    plan: "Plan",
    suite: "Suite",
    *,
    root: Path,
    limit: int | None = None,
    listener: Listener = SILENT,
) -> int:
    """Write a plan's pictures, its table, and the plan itself; returns the number of cases.

    Raises:
        RunError: The folder holds something else, or the disk refuses.
        DataError: A picture cannot be read.
    """
    import polars as pl

    from harness.cards import load_dataset_card
    from harness.errors import RunError
    from harness.files.writing import make_folder, write_bytes
    from harness.plan.files import write_plan

    if folder.is_dir() and any(folder.iterdir()) and not (folder / CASES).is_file():
        raise RunError(
            f"{folder}: the folder holds other files and no {CASES}. A new or empty folder, or an "
            "earlier export, is needed. Choose another --export."
        )
    cards = [load_dataset_card(entry.name) for entry in suite.datasets]
    readings = {card.name: card.reading for card in cards}
    cases = plan.cases
    sizes = _write_pictures(folder, cases, root, readings, listener)
    make_folder(folder / ANSWERS)
    shown = cases.join(sizes, on="image", how="left", maintain_order="left").select(
        pl.col("case_id").cast(pl.String),  # as a number other programs would round it
        image="picture",
        prompt="prompt",
        answer=pl.format("{}.png", "case_id"),
        height="height",
        width="width",
    )
    write_bytes(folder / CASES, shown.write_csv(quote_style="non_numeric").encode())
    write_plan(folder / "plan.parquet", plan, suite, data_root=root, limit=limit)
    return shown.height


def _write_pictures(
    folder: Path,
    cases: "pl.DataFrame",
    root: Path,
    readings: "Readings",
    listener: Listener,
) -> "pl.DataFrame":
    """Each picture of a plan once; returns ``image``, ``picture`` (its file), height and width."""
    import polars as pl
    from PIL import Image

    from harness.data.images import with_image
    from harness.files.writing import write_picture

    rows: list[tuple[str, str, int, int]] = []
    images: Iterable[tuple[str, str]] = (
        cases.select("image", "dataset").unique("image", maintain_order=True).rows()
    )
    n_images = cases["image"].n_unique()
    with listener.progress("pictures", n_images, unit="pictures") as advance:
        for image, dataset in images:
            # Two pictures may differ in their ending alone.
            name = image if image.lower().endswith(".png") else f"{image}.png"
            target = folder / "pictures" / name
            picture = with_image(root / image, readings[dataset], Image.fromarray)
            write_picture(target, picture, compress_level=1)
            rows.append((image, f"pictures/{name}", picture.height, picture.width))
            advance(1)
    schema = {"image": pl.String, "picture": pl.String, "height": pl.Int32, "width": pl.Int32}
    return pl.DataFrame(rows, schema=schema, orient="row")
