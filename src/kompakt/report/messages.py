"""The report's fixed sentences in the reader's language."""

from __future__ import annotations

from typing import Protocol

from kompakt.errors import UsageError
from kompakt.report.bilingual import BILINGUAL
from kompakt.report.chinese import CHINESE
from kompakt.report.diagnosis_words import DIAGNOSIS_WORDS
from kompakt.report.english import ENGLISH
from kompakt.report.sweep_words import SWEEP_WORDS
from kompakt.report.vocabulary import WORDS

BOTH = WORDS | BILINGUAL | DIAGNOSIS_WORDS | SWEEP_WORDS

LANGUAGES: dict[str, dict[str, str]] = {
    "en": ENGLISH | {key: english for key, (english, _) in BOTH.items()},
    "zh-CN": CHINESE | {key: chinese for key, (_, chinese) in BOTH.items()},
}


class Say(Protocol):
    """Looks up a sentence by its key and fills in its ``{placeholders}``."""

    def __call__(self, key: str, /, **values: object) -> str:
        """The sentence ``key``."""
        ...


def sentences(lang: str) -> Say:
    """The sentences of one language.

    Args:
        lang: ``"en"`` or ``"zh-CN"``.

    Returns:
        A function ``say(key, **values)``. A key that does not exist is a :class:`KeyError`: a bug.

    Raises:
        UsageError: K001, for a language the report is not written in.
    """
    if lang not in LANGUAGES:
        raise UsageError(
            "K001",
            f"a report in the language {lang!r}",
            why="the report has not been translated into it",
            help=f"use one of {', '.join(LANGUAGES)}",
        )
    catalogue = LANGUAGES[lang]

    def say(key: str, /, **values: object) -> str:
        return catalogue[key].format(**values)

    return say
