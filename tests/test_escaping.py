"""Hostile names stay inert text in every sink."""

from __future__ import annotations

import time
import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from kompakt.escaping import html, plain, rich_markup, shorten

HOSTILE = [
    "layer[/]",
    "[bold]x[/bold] [link=http://example.org]y[/link]",
    "[unclosed",
    "trailing\\",
    "trailing\\\\\\",
    "\\[b]",
    ":heart: and :smile:",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b]8;;http://example.org\x1b\\link \x9b2J",
    "nul\x00bell\x07back\x08",
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</script><!-- ]]> -->",
    "a|b|c",
    "`code` *em* _em_ ~~gone~~ [a](http://example.org) ![i](x)",
    "line\nbreak\r\n| another | row |",
    "abc\u202edcba\u202c\u2066x\u2069",
    "zero\u200bwidth\ufeff",
    "\ud800 lone surrogate, \ufffe noncharacter",
    "&amp; &#x3c;",
    "   ",
    "",
    "名前.层.0",
    "x" * 1_000_000,
    "\x1b[31m" * 200_000,
    "[" * 5000,
]
# Text in which the dangerous characters are common rather than one in a million.
names = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=60),
    st.text(alphabet="\\[]/:ab#@ <>&|`*_~\x00\x1b\u202e\n\"'", max_size=40),
)


class Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(names, st.integers(3, 300))
def test_plain_is_printable_and_bounded(name: str, limit: int) -> None:
    shown = plain(name, limit)
    assert len(shown) <= limit
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp") for c in shown)
    shown.encode("utf-8")
    assert plain(shown, limit) == shown


@given(st.text(alphabet="abcdefgh._0123456789", max_size=160))
def test_plain_keeps_ordinary_names(name: str) -> None:
    assert plain(name) == name


def test_plain_keeps_both_ends_and_shows_what_it_removed() -> None:
    assert plain("encoder." + "x" * 500 + ".weight", 21) == "encoder.xx…xxx.weight"
    assert plain("conv\x00") != plain("conv")
    assert plain("\x1b[31mred\x1b[0m") == "�red�"
    assert shorten("abcdef", 5) == "ab…ef"


def test_a_megabyte_is_cheap() -> None:
    start = time.perf_counter()
    assert len(plain("\x1b[31m" * 200_000)) <= 160
    assert time.perf_counter() - start < 0.1


@given(names)
def test_html_is_one_text_node(name: str) -> None:
    parser = Collector()
    parser.feed(f"<p title='{html(name)}'>{html(name)}</p>")
    parser.close()
    assert parser.tags == ["p"]
    assert parser.text == plain(name)


@given(
    names,
    st.sampled_from(["", "[bold]", "a[", "x:"]),
    st.sampled_from(["", "]", "heart:", " z"]),
)
def test_rich_markup_is_literal_in_any_surroundings(name: str, before: str, after: str) -> None:
    text = Text.from_markup(before + rich_markup(name) + after)
    assert text.plain == before.removeprefix("[bold]") + plain(name) + after


@pytest.mark.parametrize("name", HOSTILE[:-3])
def test_rich_prints_hostile_names(name: str) -> None:
    console = Console(width=4000, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115
    console.print(f"[bold]{rich_markup(name)}[/bold]")
    assert console.export_text().rstrip("\n").rstrip() == plain(name).rstrip()
