"""The call that says where accuracy went: ``kompakt.diagnose``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kompakt.errors import UsageError
from kompakt.measuring.environment import resolved_isa
from kompakt.network.capture import capture
from kompakt.network.network import Network
from kompakt.schemes import FLOAT, Scheme, get_scheme
from kompakt.search.diagnosing import Diagnosis
from kompakt.search.examination import Known, examine
from kompakt.search.file_diagnosis import diagnose_file, remembered

SAMPLES = 32
"""Rows of data that errors are measured on; as many again are kept to calibrate with."""


def diagnose(
    model: nn.Module | Network | str | Path,
    data: Iterable[Any],
    *,
    calibration: Iterable[Any] | None = None,
    source: nn.Module | Network | None = None,
    example_inputs: Any = None,
    scheme: str | Scheme = "w8a8",
    calibrator: str | Mapping[str, str] = "mse",
    methods: Sequence[str] = (),
    keep_float: Sequence[str] = (),
    target: str = "onnxruntime",
    isa: str = "auto",
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    samples: int = SAMPLES,
) -> Diagnosis:
    """Say where accuracy goes, why, and what helps, each remedy tried and measured in simulation.

    The float and the quantized network run side by side on some of the data. Nothing is written.

    Args:
        model: A trained model, a captured network, or an artifact's directory.
        data: Batches of typical inputs, for instance validation data; labels are ignored.
        calibration: Data for the ranges. Without it half of ``data`` is used, and whether calibration data is at
            fault is not judged.
        source: With an artifact: the float model it was made from. Its scheme and calibration are the artifact's own.
            Without it only what the file itself shows can be compared with its calibration.
        example_inputs: Needed for an ``nn.Module``.
        scheme: A preset's name, a scheme file, or a scheme.
        calibrator: An observer's name, or one for each site.
        methods: Names of methods, in order.
        keep_float: Selectors of layers left in float.
        target: The runtime.
        isa: Instruction set. For x86 without VNNI sums saturate in the simulation as they do there.
        dynamic: Further dynamic dimensions.
        samples: Rows of data to measure on.

    Returns:
        The diagnosis; ``print`` it, or read ``faults``, ``causes``, ``sites``.

    Raises:
        UsageError: K625 for fewer than 2 samples.
        DataError: K626 when the data has fewer than 2 rows; others when it does not fit the model.
        SchemeError: The scheme fits nothing.
        ArtifactError: The directory is no artifact.
    """
    if samples < 2:
        raise UsageError("K625", f"a diagnosis on {samples} samples", why="it takes 2 or more")
    if isinstance(model, str | Path) and source is None:
        return diagnose_file(Path(model), data, samples)
    if isinstance(model, str | Path):
        assert source is not None
        known = remembered(Path(model))
        network = _captured(source, example_inputs, dynamic)
    else:
        wanted = get_scheme(scheme) if isinstance(scheme, str) else scheme
        for select in keep_float:
            wanted = wanted.with_override(select, FLOAT)
        known = Known(
            scheme=wanted,
            calibrator=calibrator,
            methods=tuple(methods),
            target=target,
            isa=resolved_isa(isa),
        )
        network = _captured(model, example_inputs, dynamic)
    return examine(network, known, data, calibration, samples)


def _captured(model: nn.Module | Network, example: Any, dynamic: Any) -> Network:
    return model if isinstance(model, Network) else capture(model, example, dynamic=dynamic)


__all__ = ["diagnose"]
