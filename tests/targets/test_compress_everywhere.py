"""The one call for every runtime: an artifact that verifies, replays and loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import kompakt
from kompakt.errors import TargetError
from kompakt.targets import TARGETS

from ..nets import inputs, network
from .test_contract_everywhere import COMPILED, NOT_RUN, QUICK


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in COMPILED)]
)
def test_it_makes_a_whole_artifact(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    if target.version() is None:
        pytest.skip(f"{name} is not installed")
    data = [inputs("plain", seed=seed, samples=8) for seed in range(2)]
    out = tmp_path / "small"

    def run() -> kompakt.Result:
        return kompakt.compress(
            network("plain"), calibration=data, validation=data, metric="cosine",
            scheme="w8a8", target=name, isa="x86-vnni", out=out,
        )  # fmt: skip

    if name in NOT_RUN:
        with pytest.raises(TargetError, match="K403"):
            run()
        assert not out.exists()
        return
    record = run().record
    assert record.parity is not None
    assert record.parity["verdict"] in ("exact", "within tolerance")
    assert record.target["name"] == name
    assert record.candidate.size_bytes
    measured = record.candidate.latency_ms is not None
    assert measured == (target.stand_in is None), "nothing is timed in a stand-in"
    assert (record.candidate.peak_memory_bytes is not None) == measured
    assert record.candidate.runtime == (target.stand_in or name)
    assert kompakt.verify(out).ok
    assert kompakt.replay(out).agrees
    x = inputs("plain", seed=5, samples=1)
    with torch.no_grad():
        exact = network("plain")(x).numpy()
    (got,) = kompakt.load(out)({"x": x.numpy()}).values()
    assert abs(got - exact).max() < 0.4 * abs(exact).max()
    assert json.loads((out / "manifest.json").read_text())["target"]["name"] == name
