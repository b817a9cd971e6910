"""Intel's onnx-neural-compressor: static quantization with its defaults for a CPU."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from adapting import Clock, adapted, samples
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import QuantFormat, QuantType, config, quantize


class _Reader(data_reader.CalibrationDataReader):
    def __init__(self, batches: list[dict[str, object]]) -> None:
        self.batches = batches
        self.rewind()

    def get_next(self) -> dict[str, object] | None:
        return next(self.left, None)

    def rewind(self) -> None:
        self.left = iter(self.batches)


def main(source: str, calibration: str, target: str, variant: str) -> None:
    batches = samples(calibration)
    with Clock() as clock:
        settings = config.StaticQuantConfig(
            calibration_data_reader=_Reader(batches),
            quant_format=QuantFormat.QOperator if variant == "operators" else QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        quantize(source, target, settings)
    adapted(clock, "onnx-neural-compressor", "onnx", "onnxruntime")


if __name__ == "__main__":
    main(*sys.argv[1:])
