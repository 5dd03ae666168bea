"""The report as a person meets it: in a browser, offline, in both themes, by keyboard.

Skipped where there is no Chromium or Playwright; the check of accessibility needs axe-core,
which `.ci/run` puts into ``build/axe``.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the page is not tried in a browser")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


class Visit:
    """An open page, and everything it complained of or asked for."""

    def __init__(self, browser, path, **options):
        self.page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}} | options)
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda problem: self.complaints.append(str(problem)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def outside(self):
        """Requests that left the file."""
        return [url for url in self.requests[1:] if not url.startswith("data:")]


@pytest.fixture
def visit(browser):
    """A function that opens a page; all are closed in the end."""
    opened = []

    def go(path, **options):
        opened.append(Visit(browser, path, **options))
        return opened[-1]

    yield go
    for one in opened:
        one.page.close()


@pytest.fixture(scope="module")
def axe():
    places = [ROOT / "build" / "axe", ROOT, Path(os.environ.get("AXE_HOME", ROOT))]
    for place in places:
        script = place / "node_modules" / "axe-core" / "axe.min.js"
        if script.is_file():
            return script.read_text(encoding="utf-8")
    pytest.skip("no axe-core in build/axe: `npm install --prefix build/axe axe-core` brings it")
    return None


def test_the_page_is_quiet_and_asks_for_nothing(visit, written):
    seen = visit(written)
    seen.page.wait_for_selector("table.data th button", state="attached")
    assert seen.complaints == []
    assert seen.outside() == []
    assert seen.page.locator("svg").count() > 5
    assert seen.page.locator(".shot div").count() > 5


def column(page, table, place):
    cells = page.locator(f"{table} tbody tr:not([hidden]) > :nth-child({place})")
    return cells.all_inner_texts()


def test_tables_sort_by_value_both_ways_and_undefined_last(visit, written):
    page = visit(written).page
    table = "#tables table[data-title='Every probe']"
    header = page.locator(f"{table} th", has_text="agreement")
    place = page.locator(f"{table} th").all_inner_texts().index(header.inner_text()) + 1
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    rising = [float(x) for x in column(page, table, place) if x != "-"]
    assert len(rising) > 5
    assert rising == sorted(rising)
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    falling = column(page, table, place)
    numbers = [float(x) for x in falling if x != "-"]
    assert numbers == sorted(numbers, reverse=True)
    assert all(x == "-" for x in falling[len(numbers) :])


def test_tables_filter_by_every_word(visit, written):
    page = visit(written).page
    field = page.get_by_label("Filter the rows of: Every probe")
    field.fill("clipseg antonym")
    rows = page.locator("#tables table[data-title='Every probe'] tbody tr:not([hidden])")
    texts = rows.all_inner_texts()
    assert texts
    assert all("clipseg" in text and "antonym" in text for text in texts)
    field.fill("no such thing")
    assert rows.count() == 0


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(visit, written, system):
    page = visit(written, color_scheme=system).page
    background = "getComputedStyle(document.body).backgroundColor"
    dark, light = "rgb(16, 21, 28)", "rgb(255, 255, 255)"
    own, other = (light, dark) if system == "light" else (dark, light)
    assert page.evaluate(background) == own
    page.locator("button.theme").click()
    assert page.evaluate(background) == other
    drawn = "getComputedStyle(document.querySelector('svg text')).fill"
    assert page.evaluate(drawn) != page.evaluate(background)
    page.emulate_media(media="print")
    assert page.evaluate(background) == light


@pytest.mark.parametrize("width", [1280, 1920])
def test_pictures_of_a_theme_are_the_same_however_it_was_chosen(visit, written, width):
    """Pixels of one machine: fonts differ between them, so that no picture is kept.

    On a narrow page the edges of letters that stay while a table scrolls are drawn anew otherwise.
    """
    taken = {}
    for system in ("light", "dark"):
        window = {"width": width, "height": 900}
        page = visit(written, color_scheme=system, viewport=window).page
        taken[system] = page.screenshot()
        page.locator("button.theme").click()
        page.mouse.move(0, 890)
        page.evaluate("document.activeElement.blur()")
        taken[system, "other"] = page.screenshot()
        page.emulate_media(media="print")
        taken[system, "print"] = page.screenshot()
    assert taken["light", "other"] == taken["dark"] != taken["light"] == taken["dark", "other"]
    assert taken["light", "print"] == taken["dark", "print"] not in (taken["light"], taken["dark"])


def test_a_case_opens_large_and_closes_by_keyboard(visit, written):
    page = visit(written).page
    page.locator("button.enlarge").first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog#viewer")
    assert dialog.is_visible()
    assert dialog.locator(".shot").count() == 3
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_a_narrow_window_never_scrolls_sideways(visit, written):
    page = visit(written, viewport={"width": 400, "height": 800}).page
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    fonts = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().width /"
        " s.viewBox.baseVal.width)"
    )
    # Charts are shown at the size in which they were drawn, so that their words can be read.
    assert min(fonts) > 0.95


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_page_fits_its_window_and_the_first_table_a_usual_one(visit, written, width):
    page = visit(written, viewport={"width": width, "height": 900}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tables = page.evaluate(
        "[...document.querySelectorAll('.first')].map(e => [e.scrollWidth, e.clientWidth])"
    )
    assert len(tables) == 2
    if width >= 1280:
        assert all(needed <= there for needed, there in tables)
    # Nothing of a cell lies outside of it.
    clipped = page.evaluate(
        "[...document.querySelectorAll('.first :is(th, td)')].filter("
        "e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
    )
    assert clipped == []


def test_paper_cuts_no_table(visit, written):
    """What scrolls on a screen is set smaller on a sheet of A4."""
    page = visit(written, viewport={"width": 718, "height": 1050}).page
    page.emulate_media(media="print")
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718


def test_every_flip_is_a_bar_and_a_text(visit, written):
    """The mark stands at the margin; a bar is drawn in two colours of the theme, on paper too."""
    page = visit(written).page
    cells = page.locator(".first td:has(.flip)")
    assert cells.count() >= 6
    assert all(re.match(r"(to|from|open|always)", text) for text in cells.all_inner_texts())
    for media in ("screen", "print"):
        page.emulate_media(media=media)
        look = page.evaluate(
            "(e => [getComputedStyle(e).backgroundImage, e.getBoundingClientRect().width,"
            " getComputedStyle(e).printColorAdjust])(document.querySelector('.flip'))"
        )
        assert look[0].count("linear-gradient") == 2
        assert look[1] > 40
        assert look[2] == "exact"


def test_labels_of_the_map_hide_neither_each_other_nor_leave_it(visit, written):
    page = visit(written).page
    boxes = page.evaluate(
        "[...document.querySelectorAll('#map svg')].map(svg => [...svg.querySelectorAll('text')]"
        ".filter(t => t.getAttribute('font-weight') === 'bold' && /^[0-9, ]+$/.test(t.textContent))"
        ".map(t => t.getBoundingClientRect()).map(r => [r.left, r.top, r.right, r.bottom]))"
    )
    assert sum(map(len, boxes)) >= 2
    for own in boxes:
        for k, one in enumerate(own):
            for other in own[:k]:
                assert not (
                    one[0] < other[2] and other[0] < one[2]
                    and one[1] < other[3] and other[1] < one[3]
                )  # fmt: skip


def test_everything_is_reached_by_keyboard(visit, written):
    page = visit(written).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "(e => e.dataset.k ??= e.tagName + '|' + (e.className || e.textContent).slice(0, 40) +"
            " Math.random())(document.activeElement)"
        )
        if found in reached:
            break
        reached.add(found)
    kinds = {name.split("|")[0] for name in reached}
    assert {"A", "BUTTON", "SUMMARY", "INPUT", "DIV"} <= kinds


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility_holds_to_wcag_aa(visit, written, axe, scheme):
    page = visit(written, color_scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.evaluate(axe)
    found = page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})"
    )
    told = [
        {"id": v["id"], "nodes": [n["html"][:160] for n in v["nodes"][:3]]}
        for v in found["violations"]
    ]
    assert told == [], json.dumps(told, indent=1)


HOSTILE = {
    "script": "<script>alert('x')</script>",
    "attribute": "\"><img src=x onerror=alert(1)>",
    "template": "{{ 7 * 7 }} {% raw %} ${7*7}",
    "direction": "\u202egnp.exe\u202c \u200fright to left",
    "emoji": "👩‍⚕️ polyp 🩺",
    "long": "long " * 2000,
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile(small_run, tmp_path_factory, resummarised):
    """The small run with hostile names, prompts, paths and title."""
    import polars as pl
    import yaml

    from harness import load_run
    from harness.files.writing import parquet_bytes
    from harness.runs.store import RunStore

    place = tmp_path_factory.mktemp("hostile")
    run = shutil.copytree(small_run, place / "run")
    store = RunStore(run)
    manifest = store.manifest
    manifest["models"][0]["name"] = HOSTILE["script"]
    manifest["models"][0]["card"]["title"] = HOSTILE["attribute"]
    manifest["models"][1]["name"] = HOSTILE["long"]
    manifest["environment"]["platform"] = HOSTILE["attribute"]
    store.update(**manifest)
    suite = yaml.safe_load((run / "suite.lock.yaml").read_text(encoding="utf-8"))
    suite["title"] = HOSTILE["script"] + HOSTILE["direction"]
    store.ledger.write({"suite.lock.yaml": yaml.safe_dump(suite).encode()})
    texts = list(HOSTILE.values())
    plan = pl.read_parquet(run / "plan.parquet").with_row_index("n")
    chosen = pl.col("n").mod(len(texts)).replace_strict(dict(enumerate(texts)))
    plan = plan.with_columns(
        prompt=pl.when(pl.col("probe") == "original").then("prompt").otherwise(chosen),
        original_prompt=pl.when(pl.col("n") % 2 == 0).then("original_prompt").otherwise(chosen),
        word=pl.when(pl.col("word").is_not_null()).then(pl.lit(HOSTILE["attribute"])),
    )
    store.begin(plan.drop("n"))
    skipped = store.not_applicable().with_columns(reason=pl.lit(HOSTILE["script"]))
    store.ledger.write({"not_applicable.parquet": parquet_bytes(skipped)})
    return load_run(resummarised(run)).write_report(place / "report.html")


def test_hostile_strings_are_shown_as_text(visit, hostile):
    seen = visit(hostile)
    assert seen.complaints == []
    assert seen.outside() == []
    assert seen.page.locator("script").count() == 1
    assert seen.page.locator("img[src=x]").count() == 0
    text = seen.page.inner_text("body")
    assert "<script>alert('x')</script>" in text
    assert "{{ 7 * 7 }}" in seen.page.inner_text("#gallery")
    assert "👩‍⚕️ polyp 🩺" in seen.page.inner_text("#gallery")
    assert "\\u202egnp.exe" in text
    assert not set("\u202e\u200f") & set(text)
    assert "characters)" in text
    seen.page.set_viewport_size({"width": 400, "height": 800})
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
