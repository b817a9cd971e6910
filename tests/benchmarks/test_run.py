"""The benchmark runner: what it says without assets, and the form its results have."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
KEYS = {"name", "date", "command", "commit", "seed", "environment", "rows", "details"}
ROW_KEYS = {"what", "figure", "unit", "target", "met", "others", "interval", "note"}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("script", ["run", "run_peers"])
def test_without_assets_it_says_so_and_imports_nothing_heavy(script: str) -> None:
    code = (
        f"import sys; from benchmarks.{script} import main; code = main([]);"
        "print('torch' in sys.modules); raise SystemExit(code)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": "", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "KOMPAKT_ASSETS is not set" in ran.stderr
    assert ran.stdout.strip() == "False"


def test_an_unknown_benchmark_is_a_usage_error(
    module: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        module("run").main(["--only", "mobilnet"])
    assert stopped.value.code == 2
    assert "mobilnet" in capsys.readouterr().err


def test_every_benchmark_has_a_function(module: Callable[[str], ModuleType]) -> None:
    run = module("run")
    assert all(callable(run.function_of(name)) for name in run.BENCHMARKS)


def test_a_result_has_the_form_the_documentation_reads(
    module: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    outcome = module("outcome")
    rows = [
        outcome.Row(what="agreement", figure=95.0, unit="%", at_least=91.0, interval=(93, 96)),
        outcome.Row(what="speed", figure=1.9, unit="×", at_least=2.3, others="mobilenet.speed"),
        outcome.Row(what="says so", figure="yes", target="it says so", met=True),
        outcome.Row(what="size", figure=np.float64(2.7), unit="MB"),
    ]
    made = outcome.document(
        "example", outcome.Outcome(rows=rows, details={"a": 1}), command="python", seed=3
    )
    stored = json.loads(outcome.save(made, tmp_path).read_text(encoding="utf-8"))
    assert set(stored) == KEYS
    assert all(set(row) == ROW_KEYS for row in stored["rows"])
    assert [row["met"] for row in stored["rows"]] == [True, False, True, None]
    assert [row["target"] for row in stored["rows"]] == ["≥ 91 %", "≥ 2.3×", "it says so", None]
    assert stored["rows"][1]["others"][0]["tool"] == "ORT quantize_static"
    assert stored["environment"]["versions"]["torch"]
    assert outcome.table(stored).row_count == 4


@pytest.mark.parametrize("kept", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=str)
def test_kept_results_have_that_form(kept: Path) -> None:
    stored: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    assert set(stored) == KEYS
    assert all(set(row) == ROW_KEYS for row in stored["rows"])
    assert stored["name"] == kept.stem


def test_every_published_figure_has_a_tool_and_a_number(
    module: Callable[[str], ModuleType],
) -> None:
    data = json.loads((ROOT / "benchmarks" / "published.json").read_text(encoding="utf-8"))
    assert data["source"]
    for name in data["figures"]:
        entries = module("outcome").published(name)
        assert entries
        assert all(entry["tool"] and float(entry["figure"]) > -1 for entry in entries)


def test_a_race_compares_with_the_first(module: Callable[[str], ModuleType]) -> None:
    work = np.ones(200_000)
    times = module("race").race(
        {"slow": lambda: [work.sum() for _ in range(8)], "fast": lambda: work.sum()},
        np.random.default_rng(0),
        rounds=20,
    )
    assert times["slow"].speed == 1.0
    low, high = times["fast"].interval
    assert low <= times["fast"].speed <= high
    assert times["fast"].speed > 2


def test_a_pair_of_sentences_is_one_sample(module: Callable[[str], ModuleType]) -> None:
    sts, datasets = module("sts"), module("datasets")
    data = datasets.SentencePairs(
        input_ids=np.arange(24).reshape(6, 4),
        attention_mask=np.ones((6, 4), np.int64),
        labels=np.repeat([1.0, 2.0, 3.0], 2),
    )
    batches = list(sts.PairBatches(data=data, size=2))
    assert [len(labels) for _, labels in batches] == [2, 1]
    assert [len(inputs["input_ids"]) for inputs, _ in batches] == [4, 2]
    same = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    assert sts.pair_scores({"out": same}, None).tolist() == [1.0, 0.0]


def test_all_peers_have_an_adapter_and_requirements(module: Callable[[str], ModuleType]) -> None:
    for tool in module("run_peers").TOOLS:
        folder = ROOT / "benchmarks" / "peers" / tool
        assert (folder / "adapter.py").is_file()
        assert (folder / "requirements.txt").read_text(encoding="utf-8").strip()


def test_quick_results_are_not_published(
    module: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        module("run").main(["--quick", "--out", str(ROOT / "benchmarks" / "results")])
    assert stopped.value.code == 2
    assert "not published" in capsys.readouterr().err


def test_a_page_with_a_quick_result_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    pages = importlib.import_module("results")
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    for options, published in (("--only parity", True), ("--only parity --quick", False)):
        result = {"name": "parity", "command": f"python -m benchmarks.run {options}", "rows": []}
        (tmp_path / "parity.json").write_text(json.dumps(result))
        if published:
            assert list(pages.results()) == [result]
        else:
            with pytest.raises(ValueError, match="--quick"):
                list(pages.results())
