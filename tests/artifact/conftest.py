"""The small artifact that all tests here write."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from kompakt.artifact import Artifact

CHILD = Path(__file__).with_name("child.py")


@pytest.fixture(scope="session")
def child() -> ModuleType:
    """The program of the crash tests, as a module."""
    spec = importlib.util.spec_from_file_location("artifact_child", CHILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def artifact(child: ModuleType, tmp_path: Path) -> Artifact:
    written: Artifact = child.write(tmp_path / "out")
    return written
