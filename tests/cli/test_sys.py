from __future__ import annotations

import json

from .conftest import Invoke


def test_the_machine_is_described(invoke: Invoke) -> None:
    result = invoke("sys")
    assert result.exit_code == 0, result.output
    for word in ("CPU", "VNNI", "threads", "governor", "load", "onnxruntime", "no telemetry"):
        assert word in result.stdout, word
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_the_same_as_json(invoke: Invoke) -> None:
    found = json.loads(invoke("sys", "--json").stdout)
    assert isinstance(found["vnni"], bool)
    assert found["versions"]["torch"]
    assert found["threads"] >= 1
