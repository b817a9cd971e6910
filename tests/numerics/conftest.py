"""One ONNX operator on the real runtime, and data that lies on grids."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "kompakt",
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("kompakt")

RunKernel = Callable[..., list[np.ndarray]]


def _run_kernel(
    operator: str,
    inputs: Sequence[np.ndarray | None],
    outputs: Sequence[str],
    *,
    domain: str = "",
    constant: Sequence[int] = (),
    **attributes: Any,
) -> list[np.ndarray]:
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    names = ["" if value is None else f"in{k}" for k, value in enumerate(inputs)]
    given = {k: v for k, v in enumerate(inputs) if v is not None}

    def info(name: str, dtype: np.dtype, shape: Sequence[int] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)

    graph = helper.make_graph(
        [
            helper.make_node(
                operator,
                names,
                [f"out{k}" for k in range(len(outputs))],
                domain=domain,
                **attributes,
            )
        ],
        "one operator",
        [info(names[k], v.dtype, v.shape) for k, v in given.items() if k not in constant],
        [info(f"out{k}", np.dtype(d), None) for k, d in enumerate(outputs)],
        [numpy_helper.from_array(v, names[k]) for k, v in given.items() if k in constant],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {names[k]: v for k, v in given.items() if k not in constant}
    return session.run(None, feed)


@pytest.fixture(scope="session")
def run_kernel() -> RunKernel:
    """``run_kernel(operator, inputs, output_dtypes, domain=, constant=indices, **attributes)``."""
    pytest.importorskip("onnxruntime")
    return _run_kernel


@pytest.fixture(scope="session")
def x86() -> None:
    """Skips where the processor is not x86: some kernels contract float32 operations there."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("reproduces x86 kernels")
