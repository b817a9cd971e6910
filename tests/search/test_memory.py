"""A ladder that was killed goes on: no trial is made twice, and the outcome is the same."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kompakt.measuring.accuracy import PairedEvaluation
from kompakt.measuring.data import Batch, prepare
from kompakt.measuring.metrics import get_metric
from kompakt.search.budget import Budget
from kompakt.search.candidates import static, without_data
from kompakt.search.journal import Journal
from kompakt.search.ladder import Ladder
from kompakt.search.memory import Memory, _read, _writable, fingerprint_of
from kompakt.search.trial import Trial
from kompakt.search.workbench import Workbench

from ..nets import batches_for
from .benches import workbench

CANDIDATES = (static("mse"), *without_data()[1:])


def ladder(folder: Path, journal: Journal | None) -> Ladder:
    folder.mkdir(parents=True)
    bench = workbench("plain", folder)
    data = prepare(batches_for("plain", 6), bench.network.input_specs)
    judge = PairedEvaluation(bench.float_build().runnable, data, get_metric("agreement"))
    return Ladder(
        bench=bench, budget=Budget(), judge=judge, example=bench.samples[0],
        rng=np.random.default_rng(0), time_it=False, fixed=CANDIDATES,
        memory=None if journal is None else Memory(journal, bench),
    )  # fmt: skip


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    real = Workbench.build
    monkeypatch.setattr(
        Workbench, "build", lambda self, c: (names.append(c.name), real(self, c))[1]
    )
    return names


def told(trial: Trial) -> dict[str, Any]:
    return {key: value for key, value in trial.to_json().items() if key != "seconds"}


def test_a_second_climb_builds_only_the_winner(tmp_path: Path, built: list[str]) -> None:
    with Journal.open(tmp_path / "j", "job") as journal:
        first = ladder(tmp_path / "a", journal)
        best = first.climb()
        assert best is not None
        assert best.build is not None
        assert len(built) == len(CANDIDATES)
        built.clear()
        second = ladder(tmp_path / "b", journal)
        again = second.climb()
    assert again is not None
    assert again.build is not None
    assert list(map(told, second.trials)) == list(map(told, first.trials))
    assert again.comparison == best.comparison
    assert built == [best.candidate.name]
    assert again.build.written.files == best.build.written.files
    assert again.build.placed.input_specs == best.build.placed.input_specs


def test_a_climb_that_was_cut_off_goes_on(tmp_path: Path, built: list[str]) -> None:
    with Journal.open(tmp_path / "j", "job") as journal:
        cut = ladder(tmp_path / "a", journal)
        cut.fixed = CANDIDATES[:2]
        cut.climb()
        built.clear()
        rest = ladder(tmp_path / "b", journal)
        chosen = rest.climb()
    whole = ladder(tmp_path / "c", None)
    expected = whole.climb()
    assert chosen is not None
    assert expected is not None
    assert chosen.candidate == expected.candidate
    assert list(map(told, rest.trials)) == list(map(told, whole.trials))
    assert built[0] == CANDIDATES[2].name


def test_other_candidates_and_other_jobs_are_not_recalled(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j", "job") as journal:
        made = ladder(tmp_path / "a", journal)
        made.climb()
        assert made.memory is not None
        assert made.memory.recall(CANDIDATES[0]) is not None
        assert made.memory.recall(static("minmax")) is None
        assert made.memory.recall(static("mse", ("head",))) is None
        assert made.memory.recall(replace(CANDIDATES[0], methods=("bias_correction",))) is None
    with Journal.open(tmp_path / "j", "another") as journal:
        assert Memory(journal, made.bench).recall(CANDIDATES[0]) is None


def test_a_trial_that_failed_is_recalled_without_a_file(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j", "job") as journal:
        (tmp_path / "a").mkdir()
        memory = Memory(journal, workbench("plain", tmp_path / "a"))
        memory.keep(Trial(candidate=CANDIDATES[0], outcome="failed", why="no kernel"))
        found = memory.recall(CANDIDATES[0])
    assert found == Trial(candidate=CANDIDATES[0], outcome="failed", why="no kernel")


def test_numbers_that_are_not_finite_come_back() -> None:
    assert _read(_writable(-math.inf)) == -math.inf
    assert _read(_writable((1.0, math.inf))) == (1.0, math.inf)


def test_the_fingerprint_sees_inputs_labels_groups_and_order() -> None:
    x, y = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 2])
    groups = np.array(["a", "a", "b"])
    same = fingerprint_of([Batch({"x": x}, y, 3, groups)])
    assert same == fingerprint_of([Batch({"x": x.clone()}, y.clone(), 3, groups.copy())])
    others = [
        [Batch({"x": x + 1}, y, 3, groups)],
        [Batch({"x": x}, y + 1, 3, groups)],
        [Batch({"x": x}, y, 3, np.array(["a", "b", "b"]))],
        [Batch({"x": x.flip(0)}, y, 3, groups)],
        [Batch({"x": x}, None, 3, groups)],
    ]
    assert len({same, *map(fingerprint_of, others)}) == 6
    assert fingerprint_of(None) is None


def test_compress_makes_no_finished_trial_again(tmp_path: Path, built: list[str]) -> None:
    from ..digits import REPRODUCED, calibration, squeeze, timeless, validation

    settings = {
        "calibration": calibration(), "validation": validation(), "metric": "top1", "level": 1,
        "journal": tmp_path / "trials.jsonl",
    }  # fmt: skip
    first = squeeze(tmp_path / "a", **settings)
    tried = len(built)
    built.clear()
    second = squeeze(tmp_path / "b", **settings)
    chosen = [t["name"] for t in first.record.to_json()["trials"] if t["outcome"] == "chosen"]
    assert tried >= 2
    assert built == chosen
    assert timeless(second.record) == timeless(first.record)
    for name in REPRODUCED[:2]:
        assert (second.path / name).read_bytes() == (first.path / name).read_bytes()
    built.clear()
    squeeze(tmp_path / "c", **settings | {"seed": 1})
    assert len(built) == tried
