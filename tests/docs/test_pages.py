"""The documentation says what is there: links, tables, translation, the promises of SECURITY.md."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.M | re.S)
FENCED = re.compile(r"^```([a-z]+)\n(.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def written_pages() -> list[Path]:
    top = list(ROOT.glob("*.md"))
    below = [p for p in DOCS.rglob("*.md") if not {"_build", "generated"} & set(p.parts)]
    return sorted(top + below)


@pytest.mark.parametrize("page", written_pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if "://" in link or link.startswith("#"):
            continue
        path = (page.parent / link.partition("#")[0]).resolve()
        if "generated" in path.parts:
            continue  # made by the build, which fails on a wrong link
        assert path.exists(), link


def test_every_page_is_in_llms_txt_and_the_reverse() -> None:
    text = (DOCS / "llms.txt").read_text(encoding="utf-8")
    listed = set(re.findall(r"\]\(([^)]+)\)", text))
    there = {
        path.relative_to(DOCS).with_suffix(".html").as_posix()
        for path in written_pages()
        if path.is_relative_to(DOCS) and path.name != "index.md"
    }
    generated = {link for link in listed if link.startswith("generated/")}
    assert listed - generated == there


def test_generated_pages_in_llms_txt_are_generated(generate: ModuleType, tmp_path: Path) -> None:
    generate.write_reference(tmp_path)
    text = (DOCS / "llms.txt").read_text(encoding="utf-8")
    listed = set(re.findall(r"\(generated/([a-z]+)\.html\)", text))
    assert listed == {path.stem for path in tmp_path.glob("*.md")}
    errors = (tmp_path / "errors.md").read_text(encoding="utf-8")
    from kompakt.error_catalogue import CATALOGUE

    assert all(f"## {code}: " in errors for code in CATALOGUE)
    commands = (tmp_path / "cli.md").read_text(encoding="utf-8")
    assert "## kompakt compress\n" in commands
    assert "`--max-drop`" in commands


def test_tables_are_up_to_date(generate: ModuleType) -> None:
    stale = [path.name for path, _ in generate.stale_pages()]
    assert not stale, "run: python docs/generate.py"


def test_the_translation_is_of_the_readme_as_it_is(generate: ModuleType) -> None:
    assert generate.translation_is_current(), (
        "README.md changed: translate, then run python docs/generate.py --translated"
    )


def test_the_translation_has_the_same_code() -> None:
    english = FENCED.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    chinese = FENCED.findall((ROOT / "README.zh-CN.md").read_text(encoding="utf-8"))
    assert [(lang, _without_comments(code)) for lang, code in chinese] == [
        (lang, _without_comments(code)) for lang, code in english
    ]


def _without_comments(code: str) -> str:
    return re.sub(r" *# .*", "", code)


def test_the_translation_has_the_same_sections_and_links() -> None:
    english, chinese = (
        CODE.sub("", (ROOT / name).read_text(encoding="utf-8"))
        for name in ("README.md", "README.zh-CN.md")
    )
    assert len(re.findall(r"^## ", english, re.M)) == len(re.findall(r"^## ", chinese, re.M))
    ours = set(LINK.findall(english)) - {"README.zh-CN.md"}
    theirs = set(LINK.findall(chinese)) - {"README.md"}
    assert ours == theirs


def test_the_pictures_are_small() -> None:
    pictures = list((DOCS / "images").glob("*"))
    assert pictures
    for path in pictures:
        assert path.stat().st_size <= 300_000, path.name


def test_the_architecture_fits_on_two_pages() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    assert len(text.split()) <= 1000


def test_the_changelog_is_in_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[Unreleased\]$", text, re.M)
    headings = set(re.findall(r"^### (.+)$", text, re.M))
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Numerics"}
    assert "Numerics" in headings <= known


def test_log_entries_are_dated_newest_first() -> None:
    text = (DOCS / "log.md").read_text(encoding="utf-8")
    dates = re.findall(r"^## (\d{4}-\d\d-\d\d): .+$", text, re.M)
    assert len(dates) == len(re.findall(r"^## ", text, re.M))
    assert dates == sorted(dates, reverse=True)


def test_every_promise_of_security_names_a_test_that_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promised = text.split("## What is promised")[1].split("\n## ")[0]
    rows = [line for line in promised.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 8
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            source = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^(    )?def {test}\(", source, re.M), f"{file}::{test}"


def test_the_record_page_describes_the_record() -> None:
    from dataclasses import fields

    from kompakt.measuring.record import Figures, Record

    page = (DOCS / "reference" / "record.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    assert _keys(sections["Top level"]) == {field.name for field in fields(Record)}
    assert _keys(sections["Figures"]) == {field.name for field in fields(Figures)}


def _keys(table: str) -> set[str]:
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
