"""While one is timed nobody computes; a process that dies gives its turn back."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from pathlib import Path

from kompakt.sweeping.turns import Turns

HOLDER = """
import sys, time
from pathlib import Path
from kompakt.sweeping.turns import Turns
with getattr(Turns(Path(sys.argv[1])), sys.argv[2])():
    print("here", flush=True)
    time.sleep(60)
"""


def test_several_compute_at_once_and_one_is_timed_alone(tmp_path: Path) -> None:
    events: list[str] = []
    inside: list[str] = []
    worst = {"computing": 0, "timing": 0}
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        turns = Turns(tmp_path)
        barrier.wait()
        for _ in range(6):
            with turns.computing():
                inside.append("computing")
                assert "timing" not in inside
                worst["computing"] = max(worst["computing"], inside.count("computing"))
                time.sleep(0.004)
                inside.remove("computing")
            with turns.timing():
                inside.append("timing")
                worst["timing"] = max(worst["timing"], len(inside))
                time.sleep(0.001)
                inside.remove("timing")
        events.append(f"done {number}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(events) == 4
    assert worst["timing"] == 1
    assert worst["computing"] > 1


def test_one_that_waits_to_be_timed_is_not_overtaken(tmp_path: Path) -> None:
    order: list[str] = []
    began = threading.Event()

    def timed() -> None:
        began.set()
        with Turns(tmp_path).timing():
            order.append("timing")

    def computed() -> None:
        with Turns(tmp_path).computing():
            order.append("computing")

    with Turns(tmp_path).computing():
        first = threading.Thread(target=timed)
        first.start()
        began.wait()
        while not gate_is_held(tmp_path):
            time.sleep(0.005)
        second = threading.Thread(target=computed)
        second.start()
        time.sleep(0.1)
        assert order == []
    first.join(10)
    second.join(10)
    assert order == ["timing", "computing"]


def gate_is_held(folder: Path) -> bool:
    """Whether somebody waits to be timed, or is."""
    (gate,) = folder.glob("*-gate.lock")
    with gate.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_killed_process_gives_its_turn_back(tmp_path: Path) -> None:
    for how in ("computing", "timing"):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path), how], stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "here\n"
        holder.kill()
        holder.wait()
        with Turns(tmp_path).timing():
            pass
