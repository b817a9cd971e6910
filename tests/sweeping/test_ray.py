"""Ray: the same rows as without it, and a worker that is killed loses nothing."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from kompakt.errors import MetricError, UsageError
from kompakt.sweeping.ray_crew import RayCrew

from .test_sweep import swept, timeless

pytest.importorskip("ray", reason="ray is not installed")
pytestmark = pytest.mark.slow


def test_every_plan_gets_its_row_and_a_killed_actor_loses_nothing(job: tuple[str, Path]) -> None:
    plans = ["a", "dies once", "b", "dies always", "c", "d", "e"]
    with closing(RayCrew(job[0], str(job[1]), 2, "local")) as crew:
        rows = {}
        for number, row in crew.run(list(enumerate(plans))):
            rows[number] = row
            if len(rows) == 2:
                for pid in crew.pids[:1]:
                    os.kill(pid, signal.SIGKILL)
    assert sorted(rows) == list(range(len(plans)))
    assert rows[1]["run"]["attempts"] >= 2
    assert len(rows[3]["died"]) == 3
    assert [rows[n]["plan"] for n in (0, 1, 2, 4, 5, 6)] == ["a", "dies once", "b", "c", "d", "e"]


def test_what_no_trial_would_be_spared_is_raised(job: tuple[str, Path]) -> None:
    with closing(RayCrew(job[0], str(job[1]), 1, "local")) as crew, pytest.raises(MetricError):
        list(crew.run([(0, "wrong data")]))


def test_no_cluster_at_an_address_is_told() -> None:
    with pytest.raises(UsageError) as refused:
        RayCrew("m:f", None, 1, "127.0.0.1:1")
    assert refused.value.code == "K634"


def test_no_statistics_of_use_are_sent(job: tuple[str, Path]) -> None:
    with closing(RayCrew(job[0], str(job[1]), 1, "local")):
        usage = pytest.importorskip("ray._common.usage.usage_lib")
        assert not usage.usage_stats_enabled()


def test_ray_finds_what_one_process_finds(tmp_path: Path) -> None:
    alone = swept(tmp_path / "alone")
    assert timeless(swept(tmp_path / "ray", jobs=2, ray="local")) == timeless(alone)
