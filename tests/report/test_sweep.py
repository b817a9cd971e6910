"""The page about a sweep: complete, escaped, and honest about what is not finished."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kompakt.report import LANGUAGES
from kompakt.report.plots.frontier import Spot, frontier
from kompakt.report.sweep import render_sweep
from kompakt.report.sweep_words import SWEEP_WORDS

from .sweeps import document, row

HOSTILE = '<script>alert("x")</script>{{ 7*7 }}'


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_trial_is_on_the_page(lang: str) -> None:
    page = render_sweep(document(), lang=lang)
    for found in document()["rows"]:
        assert found["name"] in page
    assert "there is no kernel" in page
    assert "http" not in page.replace("http-equiv", "").split('id="record"')[0]


def test_the_headline_counts() -> None:
    page = render_sweep(document())
    assert "4 of 7 ways to compress a model are on the front." in page
    assert "by the figures: 1; the intervals overlap" in page
    assert "Dominated: 1." in page
    assert "dominated by 2" in page
    assert "not finished" not in page


def test_ends_of_the_front_are_offered_but_not_the_float_file() -> None:
    page = render_sweep(document())
    panels = re.findall(r'<div class="panel">\s*<h3>(.*?)</div>', page, re.S)
    ends = [panel.split("<")[0].strip() for panel in panels]
    assert ends == ["the most accurate", "the fastest", "the smallest"]
    assert "w8a8 (mse) + bias_correction" in panels[0]
    assert "2.40×" in panels[1]
    assert "600" in panels[2]


def test_a_sweep_in_its_course_says_so() -> None:
    assert "7 of 12 trials are made" in render_sweep(document(planned=12))


def test_nothing_measured_yet_gives_a_page_all_the_same() -> None:
    page = render_sweep(document(rows=[], front=[], planned=4))
    assert "No way to compress" in page


def test_without_a_metric_the_output_error_takes_its_place() -> None:
    rows = [{**found, "drop": None, "drop_interval": None} for found in document()["rows"]]
    page = render_sweep(document(rows=rows))
    assert "relative error of the outputs" in page


def test_names_from_models_are_escaped() -> None:
    rows = [row(0, HOSTILE, 0.0, 1.0, 100), row(1, "b", 0.1, 2.0, 50, why=HOSTILE)]
    page = render_sweep(document(rows=rows, model={"name": HOSTILE}, commands=[HOSTILE]))
    assert "<script>alert" not in page
    assert "49" not in re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.S)


def test_commands_to_certify_name_what_a_command_line_can_name() -> None:
    page = render_sweep(document())
    assert "--scheme w8a8 --calibrator mse --method bias_correction" in page
    own = render_sweep(document(space={"targets": ["onnxruntime"], "typed": {}}))
    assert "--scheme w8a8" not in own


def test_every_sentence_has_both_languages_with_the_same_placeholders() -> None:
    for key, (english, chinese) in SWEEP_WORDS.items():
        assert english, key
        assert chinese, key
        names = [set(re.findall(r"{(\w+)}", text)) for text in (english, chinese)]
        assert names[0] == names[1], key


def test_far_off_dominated_trials_are_named_instead_of_drawn() -> None:
    spots = [Spot(x=0, y=1, mark="1"), Spot(x=1, y=2, mark="2")]
    far = Spot(x=90, y=0.1, mark="3", standing="dominated")
    drawn = frontier([*spots, far], x_label="x", y_label="y", ident="i", title="t", desc="d")
    assert [spot.mark for spot in drawn.off] == ["3"]
    assert "Left out, far to the right: 6." in render_sweep(document())


@pytest.mark.browser
@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("width", [390, 1280])
def test_it_never_scrolls_sideways(tmp_path: Path, width: int, lang: str) -> None:
    import shutil

    path = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    (tmp_path / "sweep.html").write_text(render_sweep(document(), lang=lang))
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": width, "height": 800})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto((tmp_path / "sweep.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert complaints == []
        browser.close()
