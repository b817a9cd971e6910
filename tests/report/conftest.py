"""An example record and a parsed page, for all tests of the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from . import example
from .page import Page

Record = dict[str, Any]


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    """``make_record(sites=100, seed=0)``: numbers like those of a MobileNet in ONNX Runtime."""
    return example.make_record


@pytest.fixture
def record() -> Record:
    return example.make_record()


@pytest.fixture(scope="session")
def parse() -> type[Page]:
    """``parse(html)``: a report as elements and text."""
    return Page
