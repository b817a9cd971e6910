"""From a record to a page."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from kompakt.errors import OutputError
from kompakt.report import (
    certainty,
    changes,
    comparison,
    costliest,
    diagnosis,
    latency,
    limits,
    method,
    parity,
    recipe,
    sites,
    trials,
    verdict,
)
from kompakt.report.draft import Draft
from kompakt.report.reading import embedded, visible


def render(record: Mapping[str, Any], *, lang: str = "en") -> str:
    """Write the report about one record.

    Args:
        record: The record of a run. Fields that are ``null`` or missing are shown as not measured.
        lang: Language of the fixed sentences, ``"en"`` or ``"zh-CN"``. Texts that come from the
            record (findings, reasons, warnings) stay as they are.

    Returns:
        A complete HTML document without any external reference and without scripts.

    Raises:
        UsageError: K001, for a language the report is not written in.
    """
    draft = Draft.of(visible(record), lang)
    style = style_sheet()
    data, shortened = embedded(record)
    page: str = template("report.html.j2").render(
        say=draft.say,
        lang=lang,
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        data=data,
        shortened=shortened,
        **_sections(draft),
    )
    return page


def write_report(
    record: Mapping[str, Any], path: str | os.PathLike[str], *, lang: str = "en"
) -> None:
    """Write the report to a file, whole or not at all.

    Args:
        record: The record of a run.
        path: The HTML file; replaced if it exists.
        lang: See :func:`render`.

    Raises:
        OutputError: K520, when the file cannot be written.
        UsageError: K001, for a language the report is not written in.
    """
    page = render(record, lang=lang).encode()
    target = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=".report-", delete=False
        ) as file:
            temporary = file.name
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError("K520", f"the report {target}", why=str(error)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _sections(draft: Draft) -> dict[str, Any]:
    """All sections in reading order, because figures and tables are numbered as they come."""
    record, say = draft.record, draft.say
    name = str(draft.part("model").get("name") or "")
    panel_label = say("figure", number=draft.numbering.figure())
    return {
        "version": str(record.get("kompakt") or ""),
        "model": name,
        "runtime": draft.runtime(),
        "scheme_name": str(record.get("scheme_name") or ""),
        "headline": verdict.headline(draft),
        "lede": verdict.lede(draft),
        "marks": verdict.marks(draft),
        "chosen": recipe.chosen(draft),
        "split": changes.split(draft),
        "warnings": [str(text) for text in draft.items("warnings")],
        "budget_reasons": [str(text) for text in draft.items("budget_reasons")],
        "budget_met": record.get("budget_met"),
        "panel_label": panel_label,
        "panels": comparison.panels(draft),
        "comparison": comparison.table(draft),
        "certainty": certainty.figure(draft),
        "budget": certainty.budget_table(draft),
        "changes": changes.section(draft),
        "diagnosis": diagnosis.section(draft),
        "costliest": costliest.section(draft),
        "sites": sites.section(draft),
        "parity": parity.section(draft),
        "trials": trials.section(draft),
        "latency": latency.section(draft),
        "method": method.section(draft),
        "limits": list(limits.sentences(draft)),
    }


def prose(text: str) -> Markup:
    """A sentence of the record, escaped; what stands between backticks is set as code."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # a backtick without a partner is just a backtick
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


@cache
def template(name: str) -> Any:
    """A page's template; all of them escape what they print."""
    environment = Environment(
        loader=PackageLoader("kompakt.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    return environment.get_template(name)


@cache
def style_sheet() -> str:
    """The style sheet of all pages."""
    return files("kompakt.report").joinpath("templates/style.css").read_text(encoding="utf-8")
