"""Where ONNX Runtime spends its time in one file, operator by operator."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kompakt.targets.target import Spent

RUNS = 20
_KERNEL = "_kernel_time"


def profile(
    path: Path,
    options: Mapping[str, str],
    inputs: Mapping[str, NDArray[Any]],
    threads: int = 1,
) -> list[Spent]:
    """The median time of every operator the runtime executes, in the order it executes them.

    Args:
        path: The model file.
        options: Session settings.
        inputs: What to run it on.
        threads: Threads used inside one operator.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.log_severity_level = 4
    settings.enable_profiling = True
    for key, value in options.items():
        settings.add_session_config_entry(key, value)
    with tempfile.TemporaryDirectory(prefix="kompakt-") as folder:
        settings.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
        wanted = {i.name for i in session.get_inputs()}
        fed = {name: array for name, array in inputs.items() if name in wanted}
        for _ in range(RUNS):
            session.run(None, fed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _medians(events)


def _medians(events: list[dict[str, Any]]) -> list[Spent]:
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            key = name.removesuffix(_KERNEL), str(event["args"].get("op_name", ""))
            times.setdefault(key, []).append(float(event["dur"]) / 1000)
    # The first run of each operator finds out about shapes and memory.
    return [
        Spent(name=name, operator=op_type, milliseconds=float(np.median(found[1:] or found)))
        for (name, op_type), found in times.items()
    ]
