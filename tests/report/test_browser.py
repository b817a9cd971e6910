"""The page in a real browser: no requests, no sideways scrolling, dark, light, and on paper."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kompakt.report import LANGUAGES, write_report

pytestmark = pytest.mark.browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (390, 1280)
OUTSIDE = """() => [...document.querySelectorAll('main *')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.right > innerWidth + 1 && box.width > 0
        && !e.closest('.scroll, pre, svg') && getComputedStyle(e).position !== 'absolute';
}).map(e => e.tagName + ' ' + e.className + ' ' + e.textContent.slice(0, 40))"""
TEXT_HEIGHTS = """() => [...document.querySelectorAll('svg text')]
    .map(e => e.getBoundingClientRect().height).filter(h => h > 0)"""
FOLDED = """() => [...document.querySelectorAll('details')].map(
    e => getComputedStyle(e, '::details-content').contentVisibility)"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(CHROMIUMS)} is installed")
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=LANGUAGES)
def report(request: Any, make_record: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(make_record(), path, lang=request.param)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_loads_only_itself_and_never_scrolls_sideways(
    chromium: Any, report: Path, width: int, scheme: str
) -> None:
    context = chromium.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report.as_uri())
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for details in page.locator("details").all():
        details.evaluate("e => { e.open = true }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []
    assert min(page.evaluate(TEXT_HEIGHTS)) >= 9
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 27)"}[scheme]
    context.close()


def test_on_a_phone_every_cell_of_the_first_table_is_seen(chromium: Any, report: Path) -> None:
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    page.goto(report.as_uri())
    cells = page.locator("#comparison-table td:not(.empty)")
    assert cells.count() > 20
    ends = cells.evaluate_all(
        "all => all.map(e => e.getBoundingClientRect()).map(b => [b.left, b.right])"
    )
    assert all(0 <= left < right <= 390 for left, right in ends)
    assert page.locator("#comparison-table thead").is_hidden()
    page.close()


def test_a_screen_reader_finds_the_parts(chromium: Any, report: Path) -> None:
    page = chromium.new_page()
    page.goto(report.as_uri())
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("heading", level=2).count() == 9
    assert page.get_by_role("main").count() == page.get_by_role("navigation").count() == 1
    pictures = page.get_by_role("img").all()
    assert len(pictures) == 25
    assert all(
        picture.evaluate("e => e.querySelector('title').textContent") for picture in pictures
    )
    page.close()


def test_print_shows_everything_also_what_is_folded(
    chromium: Any, report: Path, tmp_path: Path, record: dict[str, Any]
) -> None:
    page = chromium.new_page()
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(report.as_uri())
    assert set(page.evaluate(FOLDED)) == {"visible"}
    paper = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper')")
    assert paper == "#ffffff", "paper is white, also for readers who prefer dark screens"
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed: checked by computed visibility only")
    titles = page.locator("h2").all_text_contents()
    pdf = tmp_path / "report.pdf"
    page.pdf(path=pdf, prefer_css_page_size=True)
    page.close()
    text = subprocess.run(
        ["pdftotext", "-layout", pdf, "-"], capture_output=True, check=True, text=True
    ).stdout
    dense = "".join(text.split())
    for title in titles:
        assert "".join(title.split()) in dense, title
    for site in record["sites"]:
        assert site["name"] in dense
    counts = [int(count) for shown in record["distributions"] for count in shown["counts"]]
    assert sum(f"{count:,}" in text for count in counts) == len(counts)
    assert '"activation":"auto8"' in dense


def test_hostile_names_stay_inside_the_page(
    chromium: Any, make_record: Any, tmp_path: Path
) -> None:
    record = make_record()
    for site in record["sites"]:
        site["name"] = "encoder" * 2000 + "<img src=x onerror=alert(1)>"
    for shown in record["distributions"]:
        shown["site"] = record["sites"][0]["name"]
    record["model"]["name"] = "m" * 10_000
    record["diagnosis"] = ["d" * 10_000]
    path = tmp_path / "report.html"
    write_report(record, path)
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(OUTSIDE) == []
    page.close()
