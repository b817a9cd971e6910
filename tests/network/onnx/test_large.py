"""An ONNX file whose weights are larger than protobuf can hold."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

WIDTH, LAYERS = 8192, 9
"""Nine matrices of 256 MiB: 2.25 GiB."""
MOST_MEMORY = 6 << 30
"""Bytes the import and the writing may take at their peak."""


def large_file(folder: Path) -> Path:
    """A chain of products whose weights lie in one file that repeats one block of random numbers."""
    generator = np.random.default_rng(0)
    block = generator.standard_normal(WIDTH * WIDTH // 64, np.float32) / np.float32(WIDTH**0.5)
    size = WIDTH * WIDTH * 4
    with (folder / "large.bin").open("wb") as file:
        for _ in range(LAYERS * 64):
            file.write(block.tobytes())
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", [f"h{i}", f"w{i}"], [f"h{i + 1}"], f"layer{i}", transB=1)
            for i in range(LAYERS)
        ],
        "large",
        [helper.make_tensor_value_info("h0", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info(f"h{LAYERS}", TensorProto.FLOAT, ["batch", WIDTH])],
        [stored(f"w{i}", i * size, size) for i in range(LAYERS)],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "large.onnx")
    return folder / "large.onnx"


def stored(name: str, offset: int, length: int) -> onnx.TensorProto:
    """A matrix in the file of weights."""
    made = onnx.TensorProto(name=name, dims=[WIDTH, WIDTH], data_type=TensorProto.FLOAT)
    made.data_location = TensorProto.EXTERNAL
    entries: dict[str, Any] = {"location": "large.bin", "offset": offset, "length": length}
    for key, value in entries.items():
        made.external_data.add(key=key, value=str(value))
    return made


IMPORT = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    from kompakt.network.onnx import import_onnx
    network = import_onnx(Path(sys.argv[1]))
    for i, (_, weight) in enumerate(network.named_parameters()):
        assert weight.shape == (8192, 8192), weight.shape
    print(i + 1, *network.interface.notes)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_weights_of_more_than_2_gib_are_imported(tmp_path: Path) -> None:
    path = large_file(tmp_path)
    assert (tmp_path / "large.bin").stat().st_size > 1 << 31
    child = [sys.executable, "-c", textwrap.dedent(IMPORT), str(path)]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    layers, peak = done.stdout.splitlines()
    assert layers == str(LAYERS)
    assert int(peak) < MOST_MEMORY
