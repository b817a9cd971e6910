"""The documentation builds without a warning and without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
OFFLINE = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    source = tmp_path / "docs"
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("_build", "generated"))
    for name in ("benchmarks", "README.md", "README.zh-CN.md"):
        (tmp_path / name).symlink_to(DOCS.parent / name)
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-q",
            "-b",
            "html",
            str(source),
            str(tmp_path / "site"),
        ],
        env=os.environ | OFFLINE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    site = tmp_path / "site"
    assert (site / "llms.txt").is_file()
    listed = (site / "llms.txt").read_text(encoding="utf-8")
    for line in listed.splitlines():
        if line.startswith("- ["):
            page = line.partition("](")[2].partition(")")[0]
            assert (site / page).is_file(), page
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "https://" not in _loaded(index)


def _loaded(html: str) -> str:
    """What a browser would fetch for a page."""
    import re

    return " ".join(re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"([^\"]+)\"", html))
