"""The report as a file: what it holds, what it leaves out, and its other forms."""

import re
import shutil
import subprocess
import sys
from html import escape
from html.parser import HTMLParser

import polars as pl
import pytest
from typer.testing import CliRunner

import harness
from harness import load_run
from harness.cli import app
from harness.errors import UsageError
from harness.files.writing import parquet_bytes
from harness.report.gallery import chosen, gallery
from harness.report.page import (
    became,
    brief,
    code_sha256,
    csv_uri,
    made_from,
    read_made_from,
    rendered,
    shown,
    was,
)
from harness.report.sheet import Sheet, csv_text, latex, text_cells
from harness.runs.kept_masks import STEADY, WORST
from harness.runs.store import RunStore


@pytest.fixture(scope="module")
def run(small_run):
    return load_run(small_run)


@pytest.fixture(scope="module")
def text(written):
    return written.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Sections, ids, open tags and addresses of a page."""

    void = {"meta", "link", "br", "img", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.addresses = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.addresses += [given[k] for k in ("href", "src") if k in given]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


SECTIONS = ("verdicts", "map", "attributes", "ladder", "away", "agreement", "words", "groups",
            "gallery", "tables", "left-out", "made")  # fmt: skip


def test_the_page_is_whole_and_needs_nothing_else(text):
    page = Outline(text)
    assert page.open == []
    assert set(SECTIONS) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    outside = [a for a in page.addresses if not a.startswith(("data:", "#"))]
    assert outside == []
    anchors = {a[1:] for a in page.addresses if a.startswith("#")}
    assert anchors <= set(page.ids)


def test_each_model_has_its_sentence_and_its_picture_first(text, run):
    start = text[text.index('id="verdicts"') : text.index('id="map"')]
    for verdict in run.assessment.language:
        if verdict.named_targets:
            assert str(shown(verdict.reason)).replace("'", "&#39;") in start
    assert start.count('class="shot') >= 3


def test_figures_carry_signature_settings_versions_and_hashes(text, run):
    for value in (
        run.manifest["plan_sha256"],
        run.assessment.signature,
        run.summary["signature"][0],
        "200 draws over clusters, seed 0",
        run.manifest["models"][0]["weights_sha256"],
        run.manifest["environment"]["libraries"]["torch"],
    ):
        assert escape(value) in text


def test_what_does_not_apply_stands_with_its_reason(text, run):
    reasons = run.store.not_applicable()["reason"].to_list()
    assert reasons
    assert all(r.replace("'", "&#39;") in text for r in reasons)


def test_equal_runs_give_equal_pages(run, written, tmp_path):
    again = run.write_report(tmp_path / "again.html")
    assert again.read_bytes() == written.read_bytes()
    assert list(tmp_path.iterdir()) == [again]


def test_the_gallery_shows_the_worst_then_the_steadiest(run):
    model = run.models[0]["model_id"]
    shown_cases = gallery(run, images="thumbnails").cases[model]
    by_probe = {}
    for case in shown_cases:
        by_probe.setdefault(case.title, []).append(case.kept)
    assert "antonym size" in by_probe
    for kept in by_probe.values():
        kinds = [k.kind for k in kept]
        assert kinds == sorted(kinds, key=[WORST, STEADY].index)
        drops = [k.dice_original - k.dice for k in kept if k.kind == WORST]
        assert drops == sorted(drops, reverse=True)
    assert all(case.masks for case in shown_cases)
    texts = dict(run.plan.select("case_id", "prompt").iter_rows())
    assert all(case.prompt == texts[case.kept.case_id] for case in shown_cases)


def test_a_case_that_lost_nothing_is_no_worst_case(run):
    kept = run.kept(run.models[-1]["model_id"])
    assert any(k.kind == WORST and k.score == 0 for k in kept)
    assert all(k.score > 0 for k in chosen(kept) if k.kind == WORST)


@pytest.fixture
def copied(small_run, tmp_path):
    """The run in a place of its own, and a function that changes its manifest."""
    folder = shutil.copytree(small_run, tmp_path / "run")

    def change(**entries):
        RunStore(folder).update(**entries)
        return load_run(folder)

    return change


def test_pictures_of_private_sets_are_left_out_unless_asked_for(copied):
    private = copied(private_sets=["phantom_pairs"])
    found = gallery(private, images=None)
    (why,) = found.why_none
    assert why == (
        "phantom_pairs is marked private on its card: its pictures are left out. "
        "`--images thumbnails` shows them."
    )
    for case in found.cases[private.models[0]["model_id"]]:
        assert bool(case.masks) == (case.kept.group[0] != "phantom_pairs")
    asked = gallery(private, images="thumbnails")
    assert all(case.masks for cases in asked.cases.values() for case in cases)
    none = gallery(private, images="none")
    assert not any(case.masks for cases in none.cases.values() for case in cases)
    assert none.images == {}


def test_a_run_that_does_not_say_what_is_private_shows_nothing(copied):
    run = copied(private_sets=None)
    assert gallery(run, images=None).images == {}


def test_images_that_are_gone_leave_a_sentence(copied, tmp_path):
    run = copied(data_root=str(tmp_path / "gone"))
    assert "which is not here" in gallery(run, images=None).why_none[0]


def test_one_image_that_is_gone_leaves_the_others(copied, small_run, tmp_path):
    root = shutil.copytree(small_run.parent / "data", tmp_path / "data")
    run = copied(data_root=str(root))
    cases = gallery(run, images=None).cases[run.models[0]["model_id"]]
    lost = run.plan.filter(case_id=cases[0].kept.case_id)["image"][0]
    (root / lost).unlink()
    again = gallery(run, images=None).cases[run.models[0]["model_id"]]
    assert "the image is missing" in again[0].missing
    assert any(case.masks for case in again)


def test_an_image_outside_the_data_root_is_never_read(copied, tmp_path):
    run = copied()
    plan = run.plan.with_columns(image=pl.lit("../../secret.png"))
    run.store.begin(plan)
    again = load_run(run.folder)
    cases = gallery(again, images=None).cases[again.models[0]["model_id"]]
    assert all("leaves the folder" in case.missing and not case.masks for case in cases)


def test_full_pictures_go_to_a_folder_beside_the_page(run, tmp_path):
    page = run.write_report(tmp_path / "r.html", images="full").read_text(encoding="utf-8")
    links = set(re.findall(r'href="(r_files/[^"]+)"', page))
    assert links
    assert {f"r_files/{p.name}" for p in (tmp_path / "r_files").iterdir()} == links


def test_a_run_of_one_probe_still_gives_a_page(small_run, tmp_path, resummarised):
    """No meaning preserved, no ladder, no words, no masks, nothing away from training."""
    import yaml

    folder = shutil.copytree(small_run, tmp_path / "run", ignore=shutil.ignore_patterns("masks"))
    store = RunStore(folder)
    store.begin(store.plan_cases().filter(pl.col("probe").is_in(["original", "antonym"])))
    planned = store.plan_cases()["case_id"]
    suite = yaml.safe_load((folder / "suite.lock.yaml").read_text(encoding="utf-8"))
    suite |= {"out_of_distribution": False}
    store.ledger.write({"suite.lock.yaml": yaml.safe_dump(suite).encode()})
    manifest = store.manifest
    kept_scores = pl.read_parquet(next((folder / "scores").glob("*.parquet")))
    assert kept_scores.height
    for path in (folder / "scores").glob("*.parquet"):
        part = pl.read_parquet(path)
        part = part.filter(pl.col("case_id").is_in(planned.implode()))
        store.ledger.write({f"scores/{path.name}": parquet_bytes(part)})
    assert manifest["status"] == "complete"
    page = load_run(resummarised(folder)).write_report(tmp_path / "r.html").read_text("utf-8")
    for sentence in (
        "listening map: it needs both an edit that changes the meaning and one that keeps it",
        "prompt ladder: there is one prompt length alone",
        "word by word: no probe uses random words",
        "This run kept no masks",
        "the suite does not ask for it",
    ):
        assert sentence in page
    # What there is nothing of has neither a heading nor a place in the navigation.
    assert not {"map", "ladder", "words", "away"} & set(Outline(page).ids)
    assert 'href="#map"' not in page
    assert "<h2>Listening map" not in page
    assert "<svg" in page


def test_texts_are_cut_and_what_is_invisible_is_shown():
    assert shown("a\u202eb\x00") == "a\\u202eb\\x00"
    assert shown("x" * 10_000).endswith("… (10,000 characters)")
    assert shown("👩\u200d⚕️") == "👩\u200d⚕️"


def test_word_diffs_are_marked_and_escaped():
    assert was("one small polyp", "one <b>large</b> polyp") == "one <del>small</del> polyp"
    assert became("one small polyp", "one <b> polyp") == "one <ins>&lt;b&gt;</ins> polyp"
    assert "(no words)" in became("polyp", "")


def test_a_missing_name_in_a_template_is_an_error():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="'title' is undefined"):
        rendered("base.html.j2")


def test_files_hold_more_digits_than_a_page():
    data = pl.DataFrame({"dice": [0.123456789012]})
    assert csv_text(data) == "dice\n0.123456789\n"
    assert brief(data) == "dice\n0.1235\n"


def test_csv_links_hold_the_data():
    from urllib.parse import unquote

    text = csv_text(pl.DataFrame({"name": ['a,"b"', "é #1 %"], "v": [1.5, None]}))
    assert unquote(csv_uri(text).partition(",")[2]) == text


def test_latex_is_escaped_and_executes_nothing():
    rows = (text_cells(("50 % & \\input{x}", "-1")),)
    sheet = Sheet("t", "A_title\n\\bad", ("a_b", "v"), rows, 1, pl.DataFrame())
    lines = latex(sheet).splitlines()
    assert lines[0].startswith("% A_title \\bad;")
    assert lines[1] == r"\begin{tabular}{lr}"
    assert r"50 \% \& \textbackslash{}input\{x\} & -1 \\" in lines


def test_the_command_writes_every_form(small_run, tmp_path):
    out = {
        "-o": "r.html", "--figures": "figures", "--markdown": "r.md", "--csv": "csv",
        "--latex": "latex",
    }  # fmt: skip
    arguments = [x for key, name in out.items() for x in (key, str(tmp_path / name))]
    result = CliRunner().invoke(app, ["report", str(small_run), *arguments])
    assert result.exit_code == 0, result.output
    for name in (
        "r.html", "figures/attributes.pdf", "figures/listening-map.svg", "r.md",
        "csv/probes.csv", "latex/originals.tex",
    ):  # fmt: skip
        assert (tmp_path / name).stat().st_size > 100
        assert str(tmp_path / name) in result.output.replace("\n", "")
    assert pl.read_csv(tmp_path / "csv" / "probes.csv").height == load_run(small_run).summary.height


def test_wrong_arguments_say_what_would_be_right(tmp_path, small_run):
    with pytest.raises(UsageError, match=re.escape(
        f"{tmp_path}: no run.json here. A run directory is needed. Give the folder that "
        "`vlsm-harness run` printed."
    )):  # fmt: skip
        load_run(tmp_path)
    result = CliRunner().invoke(app, ["report", str(small_run), "--images", "thumbs"])
    assert isinstance(result.exception, UsageError)
    assert "unknown choice 'thumbs'. Did you mean 'thumbnails'?" in str(result.exception)


def test_a_report_is_made_without_torch(small_run, tmp_path):
    program = (
        "import sys\nimport harness\nassert 'polars' not in sys.modules\n"
        f"harness.load_run({str(small_run)!r}).write_report(__import__('pathlib').Path("
        f"{str(tmp_path / 'r.html')!r}))\n"
        "print(sorted({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_notebook_shows_verdicts_and_map(run):
    """The worked example of the README."""
    found = harness.load_run(run.folder)
    antonyms = found.summary.filter(pl.col("probe") == "antonym", pl.col("n_cases") > 0)
    lowest = antonyms.sort("relative_change_percent").row(0, named=True)
    assert lowest["model"] == "phantom-clipseg-crowd"
    assert lowest["relative_change_percent"] < -20
    assert found.scores.height == 2 * found.plan.height
    assert {"language", "steadiness", "reason"} <= set(found.language.columns)
    assert {"probe", "verdict", "p_adjusted"} <= set(found.verdicts.columns)
    shown_in_notebook = found._repr_html_()
    assert "phantom-clipseg-crowd" in shown_in_notebook
    assert "<svg" in shown_in_notebook
    assert "<script" not in shown_in_notebook
    chart = found.figures()["attributes"].chart()
    assert chart.to_dict()["$schema"].startswith("https://vega.github.io/schema/vega-lite")


def test_hashes_of_a_page_follow_what_it_was_made_from(run, written):
    found = read_made_from(written)
    assert found == made_from(run.suite, run.manifest["plan_sha256"])
    assert found["code"] == code_sha256()
    other = run.suite.model_copy(update={"seed": 1})
    assert made_from(other, "")["suite"] != found["suite"]
