"""NVIDIA's Model Optimizer: post-training quantization of ONNX models for TensorRT, calibrated on the processor."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from adapting import Clock, adapted
from modelopt.onnx.quantization import quantize


def main(source: str, calibration: str, target: str, variant: str) -> None:
    with np.load(calibration) as file:
        data = dict(file)
    with Clock() as clock:
        quantize(
            source,
            quantize_mode=variant,
            calibration_data=data,
            calibration_eps=["cpu"],
            output_path=target,
        )
    adapted(clock, "nvidia-modelopt", "onnx")


if __name__ == "__main__":
    main(*sys.argv[1:])
