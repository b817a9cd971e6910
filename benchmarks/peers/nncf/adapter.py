"""NNCF's post-training quantization of ONNX models, with its fast or its full bias correction."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nncf
import onnx
from adapting import Clock, adapted, samples


def main(source: str, calibration: str, target: str, variant: str) -> None:
    batches = samples(calibration)
    model = onnx.load(source)
    with Clock() as clock:
        quantized = nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=len(batches),
            fast_bias_correction=variant != "full bias correction",
        )
        onnx.save(quantized, target)
    adapted(clock, "nncf", "onnx", "onnxruntime")


if __name__ == "__main__":
    main(*sys.argv[1:])
