"""Tables of perturbed prompts: three kinds of file, one reading; hostile cells are refused."""

import re
import zipfile

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.data import table_files
from harness.data.tables import Columns, Row, TableEntry, read_tables
from harness.data.trial import survives
from harness.errors import DataError

openpyxl = pytest.importorskip("openpyxl", reason="needs the extra 'tables'")

HEADER = ("image", "prompt", "perturbation")
ROWS = [
    ("a.png", "no polyp at all", "contradictory"),
    ("a.png", "  a polyp\n", "short"),
    ("b.png", 'one, with a comma; and "quotes"', "short"),
]


def write_csv(path, rows, header=HEADER):
    pl.DataFrame(rows, schema=list(header), orient="row").write_csv(path)


def write_parquet(path, rows, header=HEADER):
    pl.DataFrame(rows, schema=list(header), orient="row").write_parquet(path)


def write_xlsx(path, rows, header=HEADER):
    book = openpyxl.Workbook()
    for line in [header, *rows]:
        book.active.append(line)
    book.save(path)
    book.close()


WRITERS = {".csv": write_csv, ".tsv": write_csv, ".parquet": write_parquet, ".xlsx": write_xlsx}


def read(folder, file, **settings):
    entry = TableEntry.model_validate({"dataset": "kvasir_polyp", "file": file} | settings)
    (table,) = read_tables(entry, folder, where="suite 'mine'")
    return table


def refused(folder, file, message, **settings):
    with pytest.raises(DataError, match=re.escape(message)):
        read(folder, file, **settings)


def test_every_kind_of_file_has_a_writer_here():
    assert WRITERS.keys() == table_files.READERS.keys()


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    WRITERS[kind](tmp_path / f"t{kind}", ROWS)

    table = read(tmp_path, f"t{kind}")

    where = f"{tmp_path / 't'}{kind}: row"
    assert table.rows == (
        Row(f"{where} 2", "a.png", None, "contradictory", "no polyp at all"),
        Row(f"{where} 3", "a.png", None, "short", "a polyp"),
        Row(f"{where} 4", "b.png", None, "short", 'one, with a comma; and "quotes"'),
    )
    assert table.file == f"t{kind}"
    assert len(table.sha256) == 64


@pytest.mark.parametrize("kind", WRITERS)
def test_columns_are_found_by_the_names_the_suite_gives(tmp_path, kind):
    rows = [("said", "x.png", 1.5, "x_mask.png")]
    WRITERS[kind](tmp_path / f"t{kind}", rows, header=("Description", "Image", "n", "Ground Truth"))
    columns = {"image": "Image", "prompt": "Description", "mask": "Ground Truth"}

    entry = TableEntry(
        dataset="kvasir_polyp", files={"given": f"t{kind}"}, columns=Columns(**columns)
    )
    ((row,),) = [t.rows for t in read_tables(entry, tmp_path, where="suite 'mine'")]

    assert (row.image, row.prompt, row.mask, row.perturbation) == (
        "x.png",
        "said",
        "x_mask.png",
        "given",
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_a_missing_column_is_answered_with_the_nearest(tmp_path, kind):
    WRITERS[kind](tmp_path / f"t{kind}", [("a", "b")], header=("image", "promt"))
    refused(
        tmp_path,
        f"t{kind}",
        f"t{kind}: no column 'prompt'. Did you mean 'promt'? Columns: 'image', 'promt'. Name the "
        "table's columns in the suite: columns: {image: ..., prompt: ..., perturbation: ...}.",
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_an_empty_cell_is_refused_with_its_place(tmp_path, kind):
    WRITERS[kind](tmp_path / f"t{kind}", [*ROWS, ("c.png", None, "short")])
    refused(
        tmp_path,
        f"t{kind}",
        f"t{kind}: row 5, column 'prompt': found an empty cell. A text is needed; the empty prompt "
        "is the perturbation 'empty'. Fill the cell or remove the row.",
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_a_huge_cell_is_refused_with_its_place(tmp_path, kind):
    WRITERS[kind](tmp_path / f"t{kind}", [("c.png", "polyp " * 400, "short")])
    refused(
        tmp_path,
        f"t{kind}",
        "row 2, column 'prompt': found 2399 characters that begin "
        "'polyp polyp polyp polyp polyp polyp poly'. At most 2000 are read. Shorten the text.",
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_without_rows_is_refused(tmp_path, kind):
    WRITERS[kind](tmp_path / f"t{kind}", ROWS[:0])
    refused(tmp_path, f"t{kind}", "the table has no row. At least one is needed. Add rows.")


@pytest.mark.parametrize("kind", WRITERS)
def test_too_many_rows_are_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(table_files, "MAX_ROWS", 2)
    WRITERS[kind](tmp_path / f"t{kind}", ROWS)
    refused(tmp_path, f"t{kind}", "more than 2 rows. At most so many are read. Split the table.")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_broken_file_is_refused(tmp_path, kind):
    WRITERS[kind](tmp_path / f"t{kind}", ROWS)
    path = tmp_path / f"t{kind}"
    path.write_bytes(b"\xff\xfe\x00" + path.read_bytes()[:-20])
    refused(tmp_path, f"t{kind}", f"t{kind}: ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A good file of each kind, as bytes; tried decodings are tested elsewhere and take time."""
    folder = tmp_path_factory.mktemp("whole")
    for kind, writer in WRITERS.items():
        writer(folder / f"t{kind}", ROWS)
    return folder, {kind: (folder / f"t{kind}").read_bytes() for kind in WRITERS}


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(WRITERS)),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 10**6),
)
def test_spoilt_bytes_are_read_or_refused(whole, kind, changes, kept):
    """Whatever a stranger sends, nothing but a `DataError` comes out."""
    folder, contents = whole
    content = bytearray(contents[kind])
    for place, value in changes:
        content[place % len(content)] = value
    if kept % 3 == 0:
        del content[kept % len(content) :]
    (folder / f"spoilt{kind}").write_bytes(content)
    table_files.survives = lambda *_, **__: True
    try:
        rows = read(folder, f"spoilt{kind}").rows
    except DataError:
        return
    finally:
        table_files.survives = survives
    assert all(row.image and row.prompt and row.perturbation for row in rows)


def test_blank_lines_of_a_sheet_are_no_rows(tmp_path):
    write_xlsx(tmp_path / "t.xlsx", [ROWS[0], (None, None, None), ROWS[1], (None, None, None)])
    assert [row.where[-5:] for row in read(tmp_path, "t.xlsx").rows] == ["row 2", "row 4"]


def test_a_formula_is_refused_and_not_computed(tmp_path):
    write_xlsx(tmp_path / "t.xlsx", [("a.png", '=HYPERLINK("x", "polyp")', "short")])
    refused(
        tmp_path,
        "t.xlsx",
        "t.xlsx: row 2, column 'prompt': found a formula, '=HYPERLINK(\"x\", \"polyp\")'. Formulas "
        "are not computed; a text is needed. Paste the values instead.",
    )


def test_a_text_that_looks_like_a_formula_stays_a_text(tmp_path):
    """In CSV and Parquet nothing is ever a formula."""
    write_csv(tmp_path / "t.csv", [("a.png", "=1+1", "short")])
    assert read(tmp_path, "t.csv").rows[0].prompt == "=1+1"


def test_numbers_name_images_and_are_no_prompts(tmp_path):
    write_xlsx(tmp_path / "t.xlsx", [(14, "polyp", "short")])
    assert read(tmp_path, "t.xlsx").rows[0].image == "14"
    write_xlsx(tmp_path / "t.xlsx", [(14, 3.5, "short")])
    refused(tmp_path, "t.xlsx", "row 2, column 'prompt': found 3.5. A text is needed")
    write_parquet(tmp_path / "t.parquet", [("a.png", 7, "short")])
    refused(tmp_path, "t.parquet", "row 2, column 'prompt': found 7. A text is needed")


def test_a_workbook_that_would_unpack_to_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "MAX_BYTES", 1000)
    path = tmp_path / "t.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b" " * 5000)
    refused(
        tmp_path,
        "t.xlsx",
        "t.xlsx: the workbook unpacks to 5,000 bytes. At most 1,000 are read. "
        "Export the sheet as CSV.",
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_workbook_that_declares_entities_is_refused(tmp_path, encoding):
    write_xlsx(tmp_path / "good.xlsx", ROWS)
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "ha">]><a>&b;</a>'
    with (
        zipfile.ZipFile(tmp_path / "good.xlsx") as good,
        zipfile.ZipFile(tmp_path / "t.xlsx", "w") as bad,
    ):
        for name in good.namelist():
            is_sheet = name.endswith("sheet1.xml")
            bad.writestr(name, bomb.encode(encoding) if is_sheet else good.read(name))
    refused(
        tmp_path,
        "t.xlsx",
        "'xl/worksheets/sheet1.xml' declares a document type. Workbooks have none. "
        "Save the workbook again, or export the sheet as CSV.",
    )


def test_a_large_file_is_not_even_read(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.data.tables.MAX_BYTES", 10)
    write_csv(tmp_path / "t.csv", ROWS)
    refused(tmp_path, "t.csv", "At most 10 are read. Split the file.")


def test_without_openpyxl_it_says_what_to_install(tmp_path, monkeypatch):
    write_xlsx(tmp_path / "t.xlsx", ROWS)
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    refused(
        tmp_path,
        "t.xlsx",
        "a workbook, and openpyxl is not installed. It is needed to read XLSX. Install it "
        "(pip install 'vlsm-harness[tables]'), or export the sheet as CSV.",
    )


def test_a_table_of_another_kind_is_refused(tmp_path):
    (tmp_path / "t.ods").write_bytes(b"")
    refused(
        tmp_path,
        "t.ods",
        "t.ods: found a file that ends in '.ods'. Tables are read from .csv, .parquet, .tsv, "
        ".xlsx. Export the table as one of them.",
    )


def test_a_missing_table_says_where_paths_begin(tmp_path):
    refused(tmp_path, "t.csv", "t.csv: no such table. The suite takes variants from it.")


@pytest.mark.parametrize("file", ["../t.csv", "/etc/passwd"])
def test_a_path_that_leaves_its_folder_is_refused(tmp_path, file):
    (tmp_path / "inner").mkdir()
    write_csv(tmp_path / "t.csv", ROWS)
    refused(tmp_path / "inner", file, f"suite 'mine': the path {file!r} leaves the folder")


def test_a_link_that_leaves_its_folder_is_refused(tmp_path):
    (tmp_path / "inner").mkdir()
    write_csv(tmp_path / "t.csv", ROWS)
    (tmp_path / "inner" / "t.csv").symlink_to(tmp_path / "t.csv")
    refused(tmp_path / "inner", "t.csv", "the path 't.csv' leaves the folder")


@pytest.mark.parametrize("forms", [{}, {"file": "a.csv", "files": {"x": "b.csv"}}])
def test_an_entry_has_one_form(forms):
    with pytest.raises(ValidationError, match="give either 'file' or 'files'"):
        TableEntry.model_validate({"dataset": "busi"} | forms)


def test_a_hostile_parquet_column_is_refused(tmp_path):
    """Lists and bytes are no texts."""
    pl.DataFrame({"image": ["a"], "prompt": [["x", "y"]], "perturbation": ["p"]}).write_parquet(
        tmp_path / "t.parquet"
    )
    refused(tmp_path, "t.parquet", "t.parquet: the column 'prompt' is List(String). Texts are")


def test_a_csv_whose_short_rows_would_be_filled_up_is_refused(tmp_path):
    header = "image,prompt,perturbation" + "".join(f",c{n}" for n in range(1000))
    (tmp_path / "t.csv").write_text(header + "\na\nb\n")
    refused(
        tmp_path,
        "t.csv",
        "t.csv: 1 rows or more of 1,003 columns. At most 1,000 columns and 50,000,000 cells are "
        "read. Remove the columns that are not needed.",
    )


def test_columns_that_nobody_asked_for_are_not_decoded(tmp_path):
    (tmp_path / "t.csv").write_text("other,image,prompt,perturbation,last\n1,a.png,b,c,2\n")
    (row,) = read(tmp_path, "t.csv").rows
    assert (row.image, row.prompt) == ("a.png", "b")


def test_a_csv_with_a_byte_order_mark_is_read(tmp_path):
    write_csv(tmp_path / "t.csv", ROWS)
    plain = read(tmp_path, "t.csv").rows
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "t.csv").read_bytes())
    assert read(tmp_path, "t.csv").rows == plain


def test_a_sheet_of_too_many_cells_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "MAX_CELLS", 7)
    write_xlsx(tmp_path / "t.xlsx", ROWS)
    refused(tmp_path, "t.xlsx", "columns. At most 1,000 columns and 7 cells are read.")


def test_a_workbook_of_many_parts_is_refused_before_its_directory_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "MAX_PARTS", 20)
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        for n in range(30):
            archive.writestr(f"{n}.xml", b"")
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
    refused(tmp_path, "t.xlsx", "the archive has 30 parts or more. A workbook has a few; at most")


def test_a_declaration_behind_a_long_comment_is_found(tmp_path):
    write_xlsx(tmp_path / "good.xlsx", ROWS)
    bomb = f'<?xml version="1.0"?><!--{"x" * 1_500_000}--><!DOCTYPE a [<!ENTITY b "ha">]><a>&b;</a>'
    with (
        zipfile.ZipFile(tmp_path / "good.xlsx") as good,
        zipfile.ZipFile(tmp_path / "t.xlsx", "w", zipfile.ZIP_DEFLATED) as bad,
    ):
        for name in good.namelist():
            is_sheet = name.endswith("sheet1.xml")
            bad.writestr(name, bomb if is_sheet else good.read(name))
    refused(tmp_path, "t.xlsx", "'xl/worksheets/sheet1.xml' declares a document type.")


def test_a_parquet_that_unfolds_too_far_is_refused(tmp_path, monkeypatch):
    rows = [("a.png", "x" * 200, "p")] * 3_000
    write_parquet(tmp_path / "t.parquet", rows)
    assert len(read(tmp_path, "t.parquet").rows) == 3_000
    monkeypatch.setattr(table_files, "MAX_BYTES", 100_000)
    assert (tmp_path / "t.parquet").stat().st_size < 100_000
    refused(
        tmp_path,
        "t.parquet",
        "t.parquet: decoding ends in an error, or the cells unfold to more than 100,000 bytes. At",
    )
