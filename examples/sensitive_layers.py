"""Which layer costs most? Quantize one layer at a time and see how far the outputs move.

    python examples/sensitive_layers.py

Nothing is written: placed networks simulate what a file would compute.
"""

from __future__ import annotations

import torch

import kompakt
from kompakt.demo import trained_model
from kompakt.measuring.data import open_data


def main() -> None:
    """Print every layer with the relative output error that its quantization alone makes."""
    model, example = trained_model()
    network = kompakt.capture(model, example)
    calibration = open_data("builtin:digits", ["image"], "calibration")
    images = next(iter(calibration)).inputs["image"]
    with torch.no_grad():
        expected = model(images)

    rows = kompakt.inspect(network, scheme="w8a8")
    layers = [row["name"] for row in rows if row["role"] == "weight" and row["format"]]
    errors = {}
    for layer in layers:
        others = [name for name in layers if name != layer]
        placed = kompakt.place(network, kompakt.w8a8(keep_float=others))
        kompakt.calibrate(placed, calibration, "mse")
        with torch.no_grad():
            errors[layer] = float((placed(images) - expected).norm() / expected.norm())
    for layer, error in sorted(errors.items(), key=lambda item: -item[1]):
        print(f"{layer:16} {error:.4f}")


if __name__ == "__main__":
    main()
