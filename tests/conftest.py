"""Shared by all tests: one thread, no spinning OpenMP, and the folder of real models."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real models and data; skips, saying so, where it is not set."""
    folder = os.environ.get("KOMPAKT_ASSETS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("KOMPAKT_ASSETS is not set: no real models here (see docs: benchmarks)")
    return Path(folder)
