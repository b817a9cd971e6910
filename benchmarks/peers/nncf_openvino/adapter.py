"""NNCF's post-training quantization of OpenVINO IR; ``transformer`` for transformers, else its defaults."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nncf
import openvino
from adapting import Clock, adapted, samples


def main(source: str, calibration: str, target: str, variant: str) -> None:
    batches = samples(calibration)
    model = openvino.Core().read_model(source)
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if variant == "transformer" else {}
    with Clock() as clock:
        quantized = nncf.quantize(
            model,
            nncf.Dataset([list(batch.values()) for batch in batches]),
            subset_size=len(batches),
            **kind,
        )
        openvino.save_model(quantized, target)
    adapted(clock, "nncf", "openvino")


if __name__ == "__main__":
    main(*sys.argv[1:])
