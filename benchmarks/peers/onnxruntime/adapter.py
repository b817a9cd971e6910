"""ONNX Runtime's own tool: static Q/DQ, weights per channel; unsigned activations, or the settings for TensorRT."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from adapting import Clock, adapted, samples
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

FOR_TENSORRT = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
METHODS = {
    "tensorrt": CalibrationMethod.MinMax,
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


class _Reader(CalibrationDataReader):
    def __init__(self, batches: Iterator[dict[str, object]]) -> None:
        self.batches = batches

    def get_next(self) -> dict[str, object] | None:
        return next(self.batches, None)


def main(source: str, calibration: str, target: str, variant: str) -> None:
    batches = samples(calibration)
    with Clock() as clock:
        quantize_static(
            source,
            target,
            _Reader(iter(batches)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8 if variant == "tensorrt" else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[variant],
            extra_options=FOR_TENSORRT if variant == "tensorrt" else {},
        )
    adapted(clock, "onnxruntime", "onnx")


if __name__ == "__main__":
    main(*sys.argv[1:])
