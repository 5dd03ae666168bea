"""The board as a person meets it, in headless Chromium: files on disk, no network."""

import json
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOARD = ROOT / "reports" / "leaderboard"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package chromium to test the pages")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def axe():
    """The script of axe-core, which ``.ci/run`` puts into ``build/axe``."""
    for place in (ROOT / "build" / "axe", ROOT, Path(os.environ.get("AXE_HOME", ROOT))):
        script = place / "node_modules" / "axe-core" / "axe.min.js"
        if script.is_file():
            return script.read_text(encoding="utf-8")
    pytest.skip("no axe-core in build/axe: `npm install --prefix build/axe axe-core` brings it")
    return None


@pytest.fixture
def visit(browser):
    """Open a page of the board; whatever the console says or leaves the folder fails the test."""
    problems, contexts = [], []

    def watched(request):
        if not request.url.startswith((BOARD.as_uri(), "data:")):
            problems.append(request.url)

    def go(name, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", watched)
        page.goto((BOARD / name).as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert problems == []


def names(page):
    return page.locator("table.data").first.locator("tbody tr:not([hidden]) th a").all_inner_texts()


def test_rows_sort_and_filter(visit):
    page = visit("phantom-v1.html")
    first = names(page)
    assert len(first) >= 8
    head = page.locator("table.data").first.locator("thead")
    head.get_by_role("button", name="random word").click()
    assert head.locator("th[aria-sort=ascending]").inner_text().startswith("random")
    by_word = names(page)
    assert by_word != first
    assert sorted(by_word) == sorted(first)
    head.get_by_role("button", name="random word").click()
    assert names(page) != by_word
    page.get_by_label("Filter the rows of: Models of phantom-v1").fill("listening brittle cris")
    assert names(page) == ["phantom-cris-crowd"]
    assert page.get_by_role("status").first.inner_text() == f"1 of {len(first)} rows"


def test_a_row_leads_to_its_model_and_back(visit):
    page = visit("index.html")
    page.get_by_role("main").get_by_role("link", name="phantom-v1").click()
    page.get_by_role("link", name="phantom-clipseg-crowd").first.click()
    assert page.get_by_role("heading", level=1).inner_text() == "phantom-clipseg-crowd"
    assert "listens to color, location, number and size" in page.get_by_role("main").inner_text()
    page.get_by_role("link", name="vlsm-harness leaderboard").click()
    assert page.url.endswith("index.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_switches(visit, scheme):
    page = visit("phantom-v1.html", scheme=scheme)

    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    before = paper()
    page.locator("button.theme").click()
    assert paper() != before
    kept = page.evaluate("document.documentElement.dataset.theme")
    page.reload()
    page.wait_for_function(f"document.documentElement.dataset.theme === {kept!r}")
    assert paper() != before


@pytest.mark.parametrize(
    "name",
    ["index.html", "phantom-v1.html", "medvlsm-v1.html", "submit.html",
     "phantom-v1/phantom-cris-crowd.html"],
)  # fmt: skip
def test_a_telephone_shows_every_page(visit, name):
    page = visit(name, width=400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator("h1").is_visible()


@pytest.mark.parametrize("width", [1280, 1920])
def test_a_usual_window_shows_every_column(visit, width):
    page = visit("phantom-v1.html", width=width)
    tables = page.evaluate(
        "[...document.querySelectorAll('.board')].map(e => [e.scrollWidth, e.clientWidth])"
    )
    assert len(tables) == 2
    assert all(needed <= there for needed, there in tables)


def test_everything_is_reached_by_the_keyboard(visit):
    page = visit("phantom-v1.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    seen = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.innerText || document.activeElement.type"))
    for wanted in ("phantom-v1", "How to submit", "Dark", "search", "phantom-cris-crowd"):
        assert any(wanted in text for text in seen), wanted


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["phantom-v1.html", "phantom-v1/phantom-cris-crowd.html"])
def test_accessibility_holds_to_wcag_aa(visit, axe, name, scheme):
    page = visit(name, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.evaluate(axe)
    found = page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})"
    )
    told = [(v["id"], [n["html"][:160] for n in v["nodes"][:3]]) for v in found["violations"]]
    assert told == [], json.dumps(told, indent=1)
