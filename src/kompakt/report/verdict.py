"""The first thing on the page: what came of it, the bad news before the good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kompakt.report.draft import Draft
from kompakt.report.parity import compares_outputs_only
from kompakt.report.wording import milliseconds, pair, percent, real, size, two_decimals, whole

CLEARLY_FASTER = 1.02
"""A speed whose whole interval lies above this is called faster."""

Standing = Literal["good", "bad", "open", "none"]


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One sentence of the headline."""

    text: str
    bad: bool = False


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One line of the summary: a subject, how it stands, and that in a word."""

    subject: str
    standing: Standing
    text: str


def speed_standing(draft: Draft) -> Literal["faster", "slower", "same", "noisy", "unmeasured"]:
    """Whether the compressed file is faster, judged by the whole interval."""
    speedup = real(draft.record.get("speedup"))
    if speedup is None:
        return "unmeasured"
    low, high = pair(draft.record.get("speedup_interval")) or (speedup, speedup)
    if draft.part("latency").get("noisy"):
        return "noisy"
    if high < 1:
        return "slower"
    return "faster" if low > CLEARLY_FASTER else "same"


def headline(draft: Draft) -> list[Clause]:
    """The verdict in two or three sentences. "Not faster" always comes first."""
    speed = list(_speed_clauses(draft))
    rest = [*_parity_clauses(draft), *accuracy_clauses(draft)]
    bad = [clause for clause in speed if clause.bad] + [c for c in rest if c.bad]
    good = [clause for clause in speed if not clause.bad] + [c for c in rest if not c.bad]
    return bad + good


def _speed_clauses(draft: Draft) -> Iterator[Clause]:
    say, record = draft.say, draft.record
    standing, speedup = speed_standing(draft), draft.words.ratio(record.get("speedup"))
    size_ratio = real(record.get("size_ratio"))
    share = percent(1 / size_ratio) if size_ratio else ""
    smaller = bool(size_ratio and size_ratio > 1)
    end = say("headline.end")
    if standing == "faster":
        key = "headline.faster_smaller" if smaller else "headline.faster"
        yield Clause(text=say(key, ratio=speedup, share=share) + end)
    elif standing == "unmeasured":
        yield Clause(text=say("headline.speed_unmeasured"))
    else:
        yield Clause(text=say(f"headline.{standing}", ratio=speedup), bad=True)
    if smaller and standing != "faster":
        yield Clause(text=say("headline.smaller", share=share) + end)
    elif size_ratio and not smaller:
        yield Clause(text=say("headline.bigger", share=share), bad=True)


def _parity_clauses(draft: Draft) -> Iterator[Clause]:
    if draft.part("parity").get("verdict") == "failed":
        yield Clause(text=draft.say("headline.parity"), bad=True)


def accuracy_clauses(draft: Draft) -> Iterator[Clause]:
    """What is known about accuracy."""
    verdict, drop = draft.record.get("verdict"), draft.record.get("drop")
    margin = draft.part("metric").get("margin")
    if real(drop) is None or verdict in (None, "unmeasured"):
        yield Clause(text=draft.say("headline.unmeasured"))
        return
    known = verdict in ("proven", "observed", "violated", "undecided") and real(margin) is not None
    key = f"headline.{verdict}" if known else "headline.drop"
    words = draft.words
    text = draft.say(
        key, metric=draft.metric_name(), drop=words.told_drop(drop), margin=words.drop(margin)
    )
    yield Clause(text=text, bad=verdict == "violated")


def lede(draft: Draft) -> str:
    """The verdict once more, with its figures and intervals."""
    return draft.say("space").join(_lede_sentences(draft))


def _lede_sentences(draft: Draft) -> Iterator[str]:
    say, words, record = draft.say, draft.words, draft.record
    baseline, candidate = draft.part("baseline"), draft.part("candidate")
    if real(record.get("drop")) is not None:
        text = say(
            "lede.accuracy",
            n=whole(draft.part("metric").get("n")),
            metric=draft.metric_name(),
            candidate=words.metric(candidate.get("metric")),
            baseline=words.metric(baseline.get("metric")),
            change=words.change(record.get("drop")),
        )
        yield text + _change_interval(draft)
    needed = real(draft.part("metric").get("samples_needed"))
    if needed is not None and record.get("verdict") in ("observed", "undecided"):
        yield say("lede.needed", n=whole(needed))
    if real(record.get("agreement")) is not None:
        yield say("lede.agreement", agreement=two_decimals(record.get("agreement")))
    if real(record.get("speedup")) is not None:
        latency = draft.part("latency")
        text = say(
            "lede.speed",
            candidate=milliseconds(candidate.get("latency_ms")),
            baseline=milliseconds(baseline.get("latency_ms")),
            setting=draft.setting(latency.get("threads"), latency.get("batch")),
            ratio=draft.words.ratio(record.get("speedup")),
        )
        yield text + _interval(draft, record.get("speedup_interval"), draft.words.ratio)
    if real(candidate.get("size_bytes")) is not None:
        yield say(
            "lede.size",
            candidate=size(candidate.get("size_bytes")),
            baseline=size(baseline.get("size_bytes")),
        )


def _change_interval(draft: Draft) -> str:
    words, ends = draft.words, pair(draft.record.get("drop_interval"))
    if ends is None:
        return draft.say("headline.end")
    low, high = reversed(ends) if words.higher_is_better else ends
    return _interval(draft, (low, high), words.change_number)


def _interval(draft: Draft, value: object, show: object) -> str:
    ends = pair(value)
    end = draft.say("headline.end")
    if ends is None or not callable(show):
        return end
    low, high = show(ends[0]), show(ends[1])
    return draft.say("lede.interval", confidence=draft.words.level(), low=low, high=high) + end


def marks(draft: Draft) -> list[Mark]:
    """Accuracy, speed, parity and budget at a glance, each in a word."""
    say = draft.say
    verdict = str(draft.record.get("verdict") or "unmeasured")
    standing: dict[str, Standing] = {"proven": "good", "violated": "bad", "unmeasured": "none"}
    accuracy = Mark(
        subject=say("mark.accuracy"),
        standing=standing.get(verdict, "open"),
        text=draft.term("verdict", verdict),
    )
    return [accuracy, speed_mark(draft), _parity_mark(draft), _budget_mark(draft)]


def speed_mark(draft: Draft) -> Mark:
    """Speed at a glance."""
    found = speed_standing(draft)
    standing: dict[str, Standing] = {"faster": "good", "noisy": "open", "unmeasured": "none"}
    return Mark(
        subject=draft.say("mark.speed"),
        standing=standing.get(found, "bad"),
        text=draft.say(f"speed.{found}"),
    )


def _parity_mark(draft: Draft) -> Mark:
    verdict = draft.part("parity").get("verdict")
    text = draft.say("not_measured") if verdict is None else draft.term("parity", verdict)
    if verdict not in (None, "failed") and compares_outputs_only(draft.part("parity")):
        outputs_only = draft.say("parity.outputs_only.short")
        return Mark(subject=draft.say("mark.parity"), standing="none", text=outputs_only)
    standing: dict[object, Standing] = {
        "exact": "good",
        "within tolerance": "good",
        "failed": "bad",
    }
    return Mark(subject=draft.say("mark.parity"), standing=standing.get(verdict, "none"), text=text)


def _budget_mark(draft: Draft) -> Mark:
    met = draft.record.get("budget_met")
    key = "budget.none" if met is None else "budget.met" if met else "budget.not_met"
    standing: Standing = "none" if met is None else "good" if met else "bad"
    return Mark(subject=draft.say("mark.budget"), standing=standing, text=draft.say(key))
