"""AI Edge Quantizer: static integer quantization of a float TFLite file by its own recipe."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from adapting import Clock, adapted, samples
from ai_edge_quantizer import quantizer, recipe

SIGNATURE = "serving_default"


def main(source: str, calibration: str, target: str, variant: str) -> None:
    batches = samples(calibration)
    with Clock() as clock:
        tool = quantizer.Quantizer(source)
        tool.load_quantization_recipe(getattr(recipe, variant)())
        found = tool.calibrate({SIGNATURE: batches}) if tool.need_calibration else None
        tool.quantize(found).export_model(target, overwrite=True)
    adapted(clock, "ai-edge-quantizer", "ai-edge-litert")


if __name__ == "__main__":
    main(*sys.argv[1:])
