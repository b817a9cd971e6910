"""What every section of the report is written with: the record, the words, the running numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kompakt.report.messages import Say, sentences
from kompakt.report.tables import Numbering
from kompakt.report.wording import Wording, whole


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A report being written.

    Attributes:
        record: The record, its texts already made plain (:func:`kompakt.report.reading.visible`).
        say: The fixed sentences.
        words: Numbers in words.
        numbering: Running numbers of figures and tables, in reading order.
    """

    record: Mapping[str, Any]
    say: Say
    words: Wording
    numbering: Numbering = field(default_factory=Numbering)

    @classmethod
    def of(cls, record: Mapping[str, Any], lang: str) -> Draft:
        """Start a report about a record."""
        say = sentences(lang)
        return cls(record=record, say=say, words=Wording.of(record, say))

    def part(self, key: str) -> Mapping[str, Any]:
        """A mapping of the record; empty where the record has ``null`` or nothing."""
        value = self.record.get(key)
        return value if isinstance(value, Mapping) else {}

    def items(self, key: str) -> Sequence[Any]:
        """A list of the record; empty where the record has ``null`` or nothing."""
        value = self.record.get(key)
        return value if isinstance(value, list | tuple) else ()

    def term(self, group: str, value: object) -> str:
        """A word of the record (``"dropped early"``) in the reader's language, or as it is."""
        if value is None or value == "":
            return self.say("none")
        try:
            return self.say(f"{group}.{value}")
        except KeyError:
            return str(value)

    def metric_name(self) -> str:
        """The metric's name as it stands in a sentence."""
        return self.term("metric", self.part("metric").get("name"))

    def setting(self, threads: object, batch: object) -> str:
        """Threads and batch size in words."""
        key = "setting.one" if threads == 1 else "setting"
        return self.say(key, threads=whole(threads), batch=whole(batch))

    def runtime(self) -> str:
        """The runtime with its version: ``ONNX Runtime 1.31.1``."""
        target = self.part("target")
        name = self.term("runtime", target.get("name"))
        return f"{name} {target.get('version') or ''}".strip()
