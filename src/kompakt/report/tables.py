"""Tables and figures as data, before the template turns them into markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

Kind = Literal["text", "number", "name", "long"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column; ``kind`` decides alignment and typeface."""

    label: str
    kind: Kind = "text"


@dataclass(frozen=True, kw_only=True)
class Wide:
    """A cell that spans several columns."""

    text: str
    span: int


Cell = str | Wide


@dataclass(frozen=True, kw_only=True)
class Table:
    """A captioned table; the first column heads its row.

    Attributes:
        ident: Unique in the page.
        label: ``Table 3``; empty for the numbers behind a figure.
        caption: One sentence.
        columns: Heads of the columns.
        rows: Cells, one per column unless one of them is :class:`Wide`.
        highlight: Index of a row to set off, for instance the trial that was chosen.
        stacked: Whether narrow screens show each row as a block, each cell under its column's head.
    """

    ident: str
    label: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    highlight: int | None = None
    stacked: bool = False


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One or more pictures with a caption and the table of the numbers they show.

    Attributes:
        ident: Unique in the page.
        label: ``Figure 2``.
        caption: What to see.
        pictures: Inline SVG.
        table: The same numbers; ``None`` where the caption points to another table with them.
        layout: How the pictures stand: side by side (``pair``), one (``single``), wide (``wide``).
        key: What the marks in the picture stand for, as (mark, name, remark).
    """

    ident: str
    label: str
    caption: str
    pictures: Sequence[Markup]
    table: Table | None
    layout: Literal["pair", "single", "wide"] = "single"
    key: Sequence[tuple[str, str, str]] = ()


@dataclass(kw_only=True)
class Numbering:
    """Hands out the running numbers of figures and tables."""

    figures: int = 0
    tables: int = 0

    def figure(self) -> int:
        """The next figure's number."""
        self.figures += 1
        return self.figures

    def table(self) -> int:
        """The next table's number."""
        self.tables += 1
        return self.tables
