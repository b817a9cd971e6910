"""kompakt sends nothing anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WATCHED = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        address = arguments[-1] if event == "socket.connect" else arguments
        if not isinstance(address, (str, bytes)):  # a path: a socket of this machine
            print("CONNECTION", event, arguments, flush=True)

sys.addaudithook(watch)
"""

COMPRESS = """
import torch
import kompakt

result = kompakt.compress(
    torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)),
    example_inputs=torch.zeros(2, 8),
    calibration=[torch.rand(4, 8) for _ in range(3)],
    scheme="w8a8",
    measure_latency=False,
    measure_memory=False,
    out="compact",
)
kompakt.load("compact")
print("done", result.record.verdict)
"""

CONNECT = """
import socket

try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError:
    pass
"""


def _printed(code: str, folder: Path) -> str:
    run = subprocess.run(
        [sys.executable, "-c", WATCHED + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    return run.stdout


def test_compressing_opens_no_connection(tmp_path: Path) -> None:
    printed = _printed(COMPRESS, tmp_path)
    assert "done" in printed
    assert "CONNECTION" not in printed


def test_a_connection_would_be_noticed(tmp_path: Path) -> None:
    assert "CONNECTION" in _printed(CONNECT, tmp_path)
