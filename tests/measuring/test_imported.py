"""A function that is not found: the help names what can be typed instead."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kompakt.errors import CaptureError, KompaktError, MetricError
from kompakt.measuring.imported import import_function

MODULE = """
from math import sqrt

LIMIT = 3

def trained():
    pass

def batches():
    pass

def _secret():
    pass

class Metrics:
    @staticmethod
    def recall(outputs, labels):
        pass
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_functions.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("own_functions", "own_broken"):
        sys.modules.pop(name, None)


def help_for(spec: str, code: str = "K011", kind: type[KompaktError] = CaptureError) -> str:
    with pytest.raises(kind, match=code) as caught:
        import_function(spec, code, kind, "the model")
    return caught.value.help


def test_a_module_that_cannot_be_imported_is_named() -> None:
    assert "python -c 'import own_broken'" in help_for("own_broken:model")
    assert "python -c 'import not_there.at_all'" in help_for("not_there.at_all:model")
    assert "package.module" not in help_for("own_broken:score", "K221", MetricError)


def test_functions_that_exist_are_listed_the_nearest_first() -> None:
    told = help_for("own_functions:traned")
    assert told.startswith("did you mean own_functions:trained? ")
    assert "trained, batches, Metrics" in told
    for hidden in ("sqrt", "_secret", "LIMIT"):
        assert hidden not in told
    assert "batches" in help_for("own_functions:LIMIT")
    assert "recall" in help_for("own_functions:Metrics.precision")


def test_a_module_without_functions_says_so(tmp_path: Path) -> None:
    (tmp_path / "own_functions.py").write_text("LIMIT = 3")
    assert "no function of its own" in help_for("own_functions:trained")
