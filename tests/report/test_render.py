"""The page as a document: complete, self-contained, accessible, small, and valid with gaps."""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kompakt.errors import OutputError, UsageError
from kompakt.measuring.record import Record
from kompakt.measuring.verdict import CLEARLY
from kompakt.report import LANGUAGES, render, write_report
from kompakt.report.messages import sentences
from kompakt.report.verdict import CLEARLY_FASTER

SECTIONS = (
    "comparison", "why", "costliest", "sites", "parity", "trials", "latency", "method", "limits",
)  # fmt: skip
UNMEASURED = (
    "metric", "drop", "drop_interval", "drop_upper", "agreement", "speedup", "speedup_interval",
    "memory_ratio", "latency", "parity", "budget_met", "calibrator",
)  # fmt: skip


def unmeasured(record: dict[str, Any]) -> dict[str, Any]:
    """A run that neither had data nor measured speed."""
    empty: dict[str, Any] = {
        key: [] for key in ("trials", "distributions", "diagnosis", "commands")
    }
    figures = {
        key: record[key] | dict.fromkeys(set(record[key]) - {"runtime", "size_bytes"})
        for key in ("source", "baseline", "candidate")
    }
    sites = [site | {"sqnr_db": None} for site in record["sites"]]
    gaps = dict.fromkeys(UNMEASURED)
    return record | gaps | empty | figures | {"sites": sites, "budget": {}, "verdict": "unmeasured"}


def test_the_example_has_every_field_of_a_record(record: dict[str, Any]) -> None:
    assert set(record) == set(Record.__dataclass_fields__)


@pytest.mark.parametrize(("sites", "most"), [(100, 300_000), (2000, 2_000_000)])
def test_size_stays_in_its_budget(make_record: Any, sites: int, most: int) -> None:
    assert len(render(make_record(sites)).encode()) <= most


def test_size_does_not_follow_hostile_texts(record: dict[str, Any]) -> None:
    for site in record["sites"]:
        site["name"] = "x" * 1_000_000
    assert len(render(record).encode()) <= 500_000


@pytest.mark.parametrize("lang", LANGUAGES)
def test_nothing_is_loaded_and_nothing_runs(record: dict[str, Any], parse: Any, lang: str) -> None:
    page = parse(render(record, lang=lang))
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            target = attributes.get(name)
            assert target is None or target == "data:," or target.startswith("#"), (tag, target)
    assert page.named("script") == [{"type": "application/json", "id": "record"}]
    assert not re.search(r"url\((?!#)|@import|https?:", page.text("style"))
    assert not {"iframe", "object", "embed", "form", "base", "img"} & {t for t, _ in page.elements}


def test_the_policy_allows_exactly_this_style(record: dict[str, Any], parse: Any) -> None:
    page = parse(render(record))
    digest = hashlib.sha256("".join(page.texts["style"]).encode()).digest()
    policy = next(
        m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{base64.b64encode(digest).decode()}'" in policy


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("full", [True, False])
def test_all_sections_stand_there(record: Any, parse: Any, lang: str, full: bool) -> None:
    page = parse(render(record if full else unmeasured(record), lang=lang))
    assert [a.get("id") for a in page.named("h2")] == list(SECTIONS)
    targets = [a["href"].removeprefix("#") for a in page.named("a") if a.get("href")]
    assert targets == list(SECTIONS)
    assert page.named("html") == [{"lang": lang}]
    assert len(page.named("main")) == len(page.named("h1")) == 1


@pytest.mark.parametrize("full", [True, False])
def test_headings_do_not_skip_a_level(record: Any, parse: Any, full: bool) -> None:
    page = parse(render(record if full else unmeasured(record)))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_names_in_the_page_are_unique_and_exist(record: dict[str, Any], parse: Any) -> None:
    page = parse(render(record))
    idents = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(idents) == len(set(idents))
    labels = [a["aria-labelledby"] for _, a in page.elements if a.get("aria-labelledby")]
    assert {ident for label in labels for ident in str(label).split()} <= set(idents)


def test_every_picture_says_what_it_shows_and_every_figure_has_a_table(
    record: dict[str, Any], parse: Any
) -> None:
    html = render(record)
    page = parse(html)
    drawn = [a for a in page.named("svg") if a.get("aria-hidden") != "true"]
    assert len(drawn) == 4 + 2 + 2 + 1 + 2 + 12 + 1 + 1
    assert all(a["role"] == "img" and a.get("aria-labelledby") for a in drawn)
    assert len(page.texts["desc"]) == len(drawn)
    assert all(text.strip() for text in page.texts["desc"])
    for figure in re.findall(r"<figure.*?</figure>", html, re.DOTALL):
        points_to_one = re.search(r"Table \d+|“Every site”|Speed relative", figure)
        assert "<table" in figure or points_to_one, figure[:200]


def test_tables_have_heads_for_columns_and_rows(record: dict[str, Any], parse: Any) -> None:
    page = parse(render(record))
    assert all(a.get("scope") in ("col", "row") for a in page.named("th"))
    assert len(page.named("table")) == len(page.named("caption"))


def test_every_site_is_listed_with_its_figures_or_its_reason(
    record: dict[str, Any], parse: Any
) -> None:
    html = render(record)
    table = re.search(r'<table id="sites-table">.*?</table>', html, re.DOTALL)
    assert table is not None
    rows = re.findall(r"<tr>(.*?)</tr>", table[0])[1:]
    assert len(rows) == len(record["sites"])
    for row, site in zip(rows, record["sites"], strict=True):
        assert f"<code>{site['name']}</code>" in row
        assert (site["format"] or site["why_float"]) in row
        assert (">per channel<" in row) == (site["granularity"] == "PerChannel(axis=0)")


def test_the_record_can_be_read_back(record: dict[str, Any], parse: Any) -> None:
    page = parse(render(record))
    assert json.loads(page.texts["script"][0]) == record


@pytest.mark.parametrize("key", Record.__dataclass_fields__)
def test_any_field_may_be_null_or_missing(record: dict[str, Any], parse: Any, key: str) -> None:
    parse(render(record | {key: None}))
    parse(render({name: value for name, value in record.items() if name != key}))


def test_fields_inside_may_be_null_nan_or_infinite(record: dict[str, Any], parse: Any) -> None:
    for value in (None, float("nan"), float("inf")):
        parse(render(_replaced(record, value)))


def _replaced(node: Any, value: object) -> Any:
    if isinstance(node, dict):
        return {key: _replaced(child, value) for key, child in node.items()}
    if isinstance(node, list):
        return [_replaced(child, value) for child in node]
    return value if isinstance(node, float) else copy.copy(node)


def test_an_empty_record_is_a_page_too(parse: Any) -> None:
    page = parse(render({}))
    assert "Accuracy was not measured." in page.text("h1")


def test_what_was_not_measured_is_said_with_the_reason(record: Any, parse: Any) -> None:
    text = parse(render(unmeasured(record))).text()
    for sentence in (
        "No metric was asked for, or no validation data were given.",
        "Speed was not measured in this run.",
        "Peak memory was not measured in this run.",
        "Parity was not checked in this run.",
        "No distributions were recorded in this run.",
        "a smaller file is not always a faster one",
    ):
        assert sentence in text


def test_only_so_many_sites_are_drawn_and_the_rest_is_counted(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kompakt.report.sites.ROW_LIMIT", 40)
    html = render(record)
    assert "The first 40 of 100 sites" in html
    assert "60 more sites are in the record of the artifact" in html


def test_an_unknown_language_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="K001"):
        render(record, lang="tlh")


def test_both_languages_have_the_same_sentences_and_placeholders() -> None:
    english, chinese = LANGUAGES["en"], LANGUAGES["zh-CN"]
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        names = set(re.findall(r"{(\w+)}", text))
        assert names == set(re.findall(r"{(\w+)}", chinese[key])), key


def test_the_chinese_page_has_no_english_sentence_of_its_own(record: Any, parse: Any) -> None:
    text = parse(render(record, lang="zh-CN")).text("main")
    say = sentences("en")
    for key in ("comparison.title", "parity.title", "limits.latency", "costliest.intro"):
        assert say(key) not in text
    assert "速度为浮点模型的 2.31 倍" in text


def test_the_same_record_gives_the_same_bytes(make_record: Any) -> None:
    assert render(make_record()) == render(make_record())


def test_the_threshold_for_faster_is_that_of_the_verdict() -> None:
    assert CLEARLY_FASTER == CLEARLY


def test_writing_replaces_the_file_whole(record: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    write_report(record, target)
    assert target.read_text(encoding="utf-8") == render(record)
    assert list(tmp_path.iterdir()) == [target]


def test_a_report_that_cannot_be_written_leaves_nothing(
    record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match="K520"):
        write_report(record, tmp_path / "missing" / "report.html")
    target = tmp_path / "report.html"
    target.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="K520"):
        write_report(record, target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_sites_in_float_between_integer_layers_are_named(record: dict[str, Any], lang: str) -> None:
    said = sentences(lang)("parity.unfused", number="2", sites="@").split("@")[0]
    assert said not in render(record, lang=lang)
    record["parity"]["unfused"] = ["features.3.dw", "classifier"]
    page = render(record, lang=lang)
    assert said in page
    assert re.search("features.3.dw(, |、)classifier", page)
