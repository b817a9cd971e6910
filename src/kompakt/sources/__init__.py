"""Models and their example inputs from what is typed on a command line."""

from __future__ import annotations

from kompakt.sources.examples import input_names, with_example
from kompakt.sources.open import Source, open_source

__all__ = ["Source", "input_names", "open_source", "with_example"]
