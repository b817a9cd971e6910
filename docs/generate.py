"""Everything in the documentation that is made from code or from measurements.

    python docs/generate.py               rewrite the tables between the markers, and the reference pages
    python docs/generate.py --check       say what is out of date and leave with 1
    python docs/generate.py --translated  also take note that README.zh-CN.md translates README.md as it is now

Tables of measurements stand in ``README.md``, ``README.zh-CN.md`` and ``docs/benchmarks.md`` between
``<!-- generated: NAME -->`` and ``<!-- end -->``, and come from ``benchmarks/results/*.json``. Reference pages
(``docs/generated/``) come from the registries, the error catalogue and the command line; they are not kept in the
repository.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

import code_pages  # noqa: E402

import results  # noqa: E402

MARKED = re.compile(r"(<!-- generated: (?P<name>[a-z0-9-]+) -->\n)(.*?)(<!-- end -->)", re.S)
STAMP = re.compile(r"\A<!-- source-sha256: ([0-9a-f]{64}) -->\n")
WITH_TABLES = (
    "README.md",
    "README.zh-CN.md",
    "docs/benchmarks.md",
    "docs/runtimes.md",
    "docs/methods.md",
)


def with_tables(text: str, language: str) -> str:
    """A page with every marked table made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}{results.table(match['name'], language)}\n{match[4]}"

    return MARKED.sub(fill, text)


def sha256_of(page: str) -> str:
    """The sha256 of a page of the repository."""
    return hashlib.sha256((ROOT / page).read_bytes()).hexdigest()


def stale_pages() -> Iterator[tuple[Path, str]]:
    """Pages whose tables are out of date, with the text they should have."""
    for name in WITH_TABLES:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        wanted = with_tables(text, "zh" if ".zh-" in name else "en")
        if wanted != text:
            yield path, wanted


def translation_is_current() -> bool:
    """Whether README.zh-CN.md says that it translates README.md as it is."""
    stamp = STAMP.match((ROOT / "README.zh-CN.md").read_text(encoding="utf-8"))
    return stamp is not None and stamp[1] == sha256_of("README.md")


def stamp_translation() -> None:
    """Write the sha256 of README.md into the first line of README.zh-CN.md."""
    path = ROOT / "README.zh-CN.md"
    body = STAMP.sub("", path.read_text(encoding="utf-8"))
    path.write_text(f"<!-- source-sha256: {sha256_of('README.md')} -->\n{body}", encoding="utf-8")


def write_reference(folder: Path) -> None:
    """Write the reference pages that come from code; files that would not change stay as they are."""
    folder.mkdir(exist_ok=True)
    made = code_pages.pages()
    for path in folder.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Write, or with ``--check`` only say, what is out of date."""
    stale = list(stale_pages())
    if "--check" in arguments:
        for path, _ in stale:
            print(f"{path.name}: the tables are out of date")  # noqa: T201
        if not translation_is_current():
            print("README.zh-CN.md does not translate README.md as it is now")  # noqa: T201
        return int(bool(stale) or not translation_is_current())
    # New numbers in a table need no new translation: only what was current before stays current.
    current = translation_is_current()
    for path, text in stale:
        path.write_text(text, encoding="utf-8")
    if current or "--translated" in arguments:
        stamp_translation()
    write_reference(HERE / "generated")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
