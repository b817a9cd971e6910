"""Memory does not grow with the number of samples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import sys
from pathlib import Path
import torch
from torch import fx, nn
from kompakt.observe import calibrate

torch.set_num_threads(1)
torch.manual_seed(0)
layers = [nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU()]
graph = fx.symbolic_trace(nn.Sequential(*layers).eval())
taps = {node.name: node.name for node in graph.graph.nodes if node.op != "output"}
batches = (torch.randn(8, 3, 48, 48) for _ in range(int(sys.argv[1]) // 8))
Path("/proc/self/clear_refs").write_text("5")
calibrate(graph, taps, batches)
status = Path("/proc/self/status").read_text().splitlines()
print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


def peak_bytes(samples: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(samples)],
        capture_output=True,
        text=True,
        check=True,
        # Tensors go back to the system when freed, so that the peak is not the allocator's history.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    return int(done.stdout) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_ten_times_the_samples_need_the_same_memory() -> None:
    assert peak_bytes(2000) - peak_bytes(200) < 5e6
