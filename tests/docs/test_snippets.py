"""Every snippet of the README and of the documentation runs, in order, one process a page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "docs" / "run_page.py"
RUN = re.compile(r"^```(python|console)$", re.M)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
ONLY_SET_UP = (
    "pip install ",
    ". .venv/bin/activate",
    "make ",
    "git clone ",
    "cd ",
    "export ",
    "python docs/",
    "python -m ",
)
KNOWN_LANGUAGES = {"python", "console", "sh", "text", "toml", "json", "yaml", "html", "diff"}


def pages() -> list[Path]:
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(p for p in found if not {"_build", "generated"} & set(p.parts))


def runnable() -> list[object]:
    """The pages with something to run; those that call themselves slow are marked."""
    found: list[object] = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if RUN.search(text):
            name = page.relative_to(ROOT).as_posix()
            marks = [pytest.mark.slow] if "<!-- slow -->" in text else []
            found.append(pytest.param(page, id=name, marks=marks))
    return found


@pytest.mark.parametrize("page", runnable())
def test_the_snippets_of_a_page_run(page: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(RUNNER), str(page), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert run.returncode == 0, f"{run.stdout[-2000:]}\n{run.stderr[-4000:]}"


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_what_is_not_run_is_set_up_only(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in SHELL.findall(text):
        for line in block.splitlines():
            assert line.startswith(ONLY_SET_UP), f"{line!r}: use a console block, which is run"
    opening = [fence for fence in re.findall(r"^```(.*)$", text, re.M)[::2] if fence[:1] != "{"]
    assert set(opening) <= KNOWN_LANGUAGES, f"a block without a language: {opening}"


def test_the_runner_notices_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    cases = {
        "```python\n1 / 0\n```\n": 'page.md", line 2',
        "```python\n>>> 1 + 1\n3\n```\n": "Expected:",
        "```console\n$ false\n```\n": "it left with 1",
        "```console\n$ echo five\nfour\n```\n": "the page promises",
        "```console\n$ false\n$ echo $?\n2\n```\n": "the page promises",
        "```console\n$ kompakt help K999\n```\n": "it left with 2",
    }
    for text, message in cases.items():
        page.write_text(text, encoding="utf-8")
        run = subprocess.run(
            [sys.executable, str(RUNNER), str(page), str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode != 0, text
        assert message in run.stdout + run.stderr, (text, run.stdout, run.stderr)


def test_the_runner_accepts_what_is_right(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- file: seven.py -->\n```python\nprint(7)\n```\n"
        "```console\n$ python seven.py\n7\n$ false\n$ echo $?\n1\n$ echo one two\none ...\n```\n"
        "```python\nx = 3\n```\n```python\n>>> x\n3\n```\n"
        "<!-- varies -->\n```console\n$ echo five\nfour\n```\n",
        encoding="utf-8",
    )
    run = subprocess.run(
        [sys.executable, str(RUNNER), str(page), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "page.md: 5 blocks" in run.stdout
