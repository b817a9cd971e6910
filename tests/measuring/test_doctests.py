"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["statistics", "metrics", "data.source"])
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"kompakt.measuring.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
