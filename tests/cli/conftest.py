"""A command line to call in this process, and a compress that returns at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kompakt.cli.main import app
from kompakt.measuring.record import Figures, Record

Invoke = Callable[..., Result]

MODELS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, image):
        return self.layer(image.flatten(1))

def net():
    print("building")
    return Net(), torch.zeros(2, 1, 8, 8)

def net_alone():
    return Net()

def broken():
    raise RuntimeError("no [/] weights\\x1b[31m")

def number():
    return 7
"""


@pytest.fixture
def invoke() -> Invoke:
    runner = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"})

    def call(*arguments: str) -> Result:
        return runner.invoke(app, list(arguments))

    return call


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a module ``my_models``."""
    (tmp_path / "my_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_models", None)


def make_record(**changes: Any) -> Record:
    record = Record(
        kompakt="0.1.0",
        model={"name": "net", "parameters": 650, "inputs": [], "outputs": []},
        target={"name": "onnxruntime", "version": "1.31.1", "isa": "x86-vnni"},
        scheme={"name": "w8a8"},
        scheme_name="w8a8",
        level=2,
        calibrator="mse",
        seed=0,
        confidence=0.95,
        baseline=Figures(
            runtime="onnxruntime",
            metric=0.975,
            latency_ms=1.25,
            size_bytes=2_830_000,
            peak_memory_bytes=9_000_000,
        ),
        source=Figures(runtime="torch", metric=0.975),
        candidate=Figures(
            runtime="onnxruntime",
            metric=0.97,
            latency_ms=0.5,
            size_bytes=710_000,
            peak_memory_bytes=3_000_000,
        ),
        verdict="proven",
        verdict_text="The drop is proven to stay below 0.02.",
        metric={"name": "top1", "n": 600, "margin": 0.02},
        drop=0.005,
        drop_interval=(-0.002, 0.012),
        speedup=2.5,
        speedup_interval=(2.4, 2.6),
        size_ratio=3.99,
        memory_ratio=3.0,
        latency={"threads": 1, "batch": 1},
        parity={
            "verdict": "exact",
            "codes": 12_000,
            "differing_codes": 0,
            "quantizers": 5,
            "first_difference": None,
        },
        budget={"max_drop": 0.02},
        budget_met=True,
        artifact="out",
    )
    return replace(record, **changes)


@dataclass
class Compressor:
    """Stands in for ``kompakt.compression.compress`` and remembers how it was called."""

    record: Record = field(default_factory=make_record)
    error: BaseException | None = None
    model: Any = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, model: Any, **settings: Any) -> Any:
        from types import SimpleNamespace

        self.model, self.settings = model, settings
        print("a library prints")  # noqa: T201
        if self.error is not None:
            raise self.error
        return SimpleNamespace(record=self.record, artifact=None, path=Path("out"))


@pytest.fixture
def compressor(monkeypatch: pytest.MonkeyPatch) -> Compressor:
    compressor = Compressor()
    module = ModuleType("kompakt.compression")
    module.compress = compressor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kompakt.compression", module)
    return compressor
