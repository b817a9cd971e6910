"""What the figures do not say."""

from __future__ import annotations

from collections.abc import Iterator

from kompakt.report.draft import Draft
from kompakt.report.trials import tried
from kompakt.report.wording import real, whole


def sentences(draft: Draft) -> Iterator[str]:
    """The limits that apply to this record, most important first."""
    say, record = draft.say, draft.record
    isa = draft.part("target").get("isa")
    yield say("limits.file", runtime=draft.runtime(), isa=isa or say("limits.this_cpu"))
    if real(record.get("drop")) is None:
        yield say("limits.no_metric")
    else:
        yield say("limits.samples", n=whole(draft.part("metric").get("n")))
    if real(record.get("speedup")) is None:
        yield say("limits.no_latency")
    else:
        yield say("limits.latency")
    if any(real(site.get("sqnr_db")) is not None for site in draft.items("sites")):
        yield say("limits.sqnr")
    if tried(draft) > 1:
        yield say("limits.selection", count=tried(draft))
    if real(draft.part("candidate").get("peak_memory_bytes")) is not None:
        yield say("limits.memory")
