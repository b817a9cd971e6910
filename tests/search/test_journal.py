"""The journal: nothing finished is lost, nothing damaged is believed, whatever kills the writer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kompakt.errors import OutputError
from kompakt.progress import Event, listening
from kompakt.search.journal import Journal, digest

JOB = {"model": "ab" * 32, "data": "cd" * 32, "seed": 0}
TRIAL = {"scheme": "w8a8", "methods": ["bias_correction"], "target": "onnxruntime"}
ROW = {"drop": 0.1 + 0.2, "drop_interval": [-0.01, 0.02], "size_bytes": 12345, "why": "naïve"}

WRITER = """
import sys
from kompakt.search.journal import Journal
with Journal.open(sys.argv[1], "job") as journal:
    number = len(journal)
    while True:
        journal.append({"trial": number}, {"number": number, "filler": "x" * 5000})
        number += 1
"""


def written(path: Path, count: int = 3) -> list[dict[str, Any]]:
    rows = [{**ROW, "number": number} for number in range(count)]
    with Journal.open(path, JOB) as journal:
        for row in rows:
            journal.append({**TRIAL, "number": row["number"]}, row)
    return rows


def reopened(path: Path, count: int = 3) -> tuple[list[Any], list[str], int]:
    said: list[Event] = []
    with listening(said.append), Journal.open(path, JOB) as journal:
        rows = [journal.find({**TRIAL, "number": number}) for number in range(count)]
        return rows, [event.message for event in said], journal.damaged


def test_a_row_is_found_again_bit_for_bit(tmp_path: Path) -> None:
    rows = written(tmp_path / "journal.jsonl")
    assert reopened(tmp_path / "journal.jsonl") == (rows, [], 0)


def test_each_line_is_json_with_a_checksum(tmp_path: Path) -> None:
    written(tmp_path / "journal.jsonl")
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    for line in lines:
        content = json.loads(line)
        assert content.pop("sum") == digest(content)[:16]
        assert content["form"] == 1
    assert len(lines) == 3


def test_the_last_row_of_a_key_counts(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j", JOB) as journal:
        journal.append(TRIAL, {"attempt": 1})
        journal.append(TRIAL, {"attempt": 2})
        assert journal.find(TRIAL) == {"attempt": 2}
    with Journal.open(tmp_path / "j", JOB) as journal:
        assert journal.find(TRIAL) == {"attempt": 2}
        assert len(journal) == 1


@pytest.mark.parametrize("change", [{"model": "ff" * 32}, {"data": "ee" * 32}, {"seed": 1}])
def test_another_job_finds_nothing_and_loses_nothing(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    rows = written(tmp_path / "j")
    with Journal.open(tmp_path / "j", {**JOB, **change}) as journal:
        assert journal.find({**TRIAL, "number": 0}) is None
        assert journal.others == 3
        journal.append({**TRIAL, "number": 0}, {"drop": 9})
    assert reopened(tmp_path / "j")[0] == rows


@pytest.mark.parametrize("change", [{"scheme": "w4"}, {"methods": []}, {"target": "openvino"}])
def test_another_trial_is_not_found(tmp_path: Path, change: dict[str, Any]) -> None:
    with Journal.open(tmp_path / "j", JOB) as journal:
        journal.append(TRIAL, ROW)
        assert journal.find({**TRIAL, **change}) is None


def test_a_line_cut_anywhere_is_left_out_and_told(tmp_path: Path) -> None:
    path = tmp_path / "j"
    rows = written(path)
    whole = path.read_bytes()
    begins = whole[:-1].rfind(b"\n") + 1
    for end in range(begins + 1, len(whole), 29):
        path.write_bytes(whole[:end])
        found, said, damaged = reopened(path)
        assert (found, damaged) == ([*rows[:2], None], 0)
        assert len(said) == 1
        assert "torn" in said[0]
        assert path.read_bytes() == whole[:begins]


def test_after_a_torn_line_the_next_row_stands_on_its_own(tmp_path: Path) -> None:
    path = tmp_path / "j"
    rows = written(path)
    path.write_bytes(path.read_bytes()[:-7])
    with Journal.open(path, JOB) as journal:
        journal.append({**TRIAL, "number": 2}, rows[2])
    assert reopened(path) == (rows, [], 0)


def test_a_changed_line_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "j"
    rows = written(path)
    path.write_text(path.read_text().replace('"number": 1', '"number": 7', 1))
    found, said, damaged = reopened(path)
    assert found == [rows[0], None, rows[2]]
    assert damaged == 1
    assert "1 damaged" in said[0]


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\nand no newline")
    with pytest.raises(OutputError) as refused:
        Journal.open(path, JOB)
    assert refused.value.code == "K630"
    assert path.read_text() == "my notes\nand no newline"


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j", JOB):
        with pytest.raises(OutputError) as refused:
            Journal.open(tmp_path / "j", JOB)
        assert refused.value.code == "K631"
    Journal.open(tmp_path / "j", JOB).close()


def test_a_row_is_on_the_disk_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    from kompakt.search import journal as module

    real_write, real_sync = module.os.write, module.os.fsync
    monkeypatch.setattr(module.os, "write", lambda *a: (events.append("write"), real_write(*a))[1])
    monkeypatch.setattr(module.os, "fsync", lambda *a: (events.append("sync"), real_sync(*a))[1])
    with Journal.open(tmp_path / "j", JOB) as journal:
        events.clear()
        journal.append(TRIAL, ROW)
    assert events == ["write", "sync"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kompakt.search import journal as module

    rows = written(tmp_path / "j")
    with Journal.open(tmp_path / "j", JOB) as journal:
        real = module.os.write
        monkeypatch.setattr(module.os, "write", lambda fd, data: real(fd, data[:20]))
        with pytest.raises(OutputError) as refused:
            journal.append({**TRIAL, "number": 3}, ROW)
        assert refused.value.code == "K501"
        assert journal.find({**TRIAL, "number": 3}) is None
    monkeypatch.undo()
    assert reopened(tmp_path / "j") == (rows, [], 0)


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j", JOB) as journal:
        journal.append(TRIAL, {"drop": float("nan"), "interval": (1.0, float("inf"))})
        assert journal.find(TRIAL) == {"drop": None, "interval": [1.0, None]}


def test_a_writer_killed_at_any_moment_leaves_every_row_but_perhaps_its_last(
    tmp_path: Path,
) -> None:
    path = tmp_path / "j"
    known = 0
    for pause in (0.0, 0.003, 0.011):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        while not path.exists() or path.stat().st_size < (known + 2) * 5000:
            time.sleep(0.002)
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        with Journal.open(path, "job") as journal:
            count = len(journal)
            assert journal.damaged == 0
            assert [journal.find({"trial": n})["number"] for n in range(count)] == list(
                range(count)
            )
        assert count > known
        known = count
