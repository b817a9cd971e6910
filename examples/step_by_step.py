"""The steps behind `kompakt.compress`, one by one: capture, place, calibrate, write, measure.

    python examples/step_by_step.py [FOLDER]

Use them when you want to change something in between, for instance the range of one quantizer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import kompakt
from kompakt.demo import trained_model
from kompakt.measuring.data import open_data


def main(folder: Path) -> None:
    """Write the network in float and in INT8, and compare the two files."""
    model, example = trained_model()

    network = kompakt.capture(model, example)
    print("inputs", *network.input_specs)

    placed = kompakt.place(network, kompakt.w8a8(keep_float=["classifier"]))
    calibration = kompakt.calibrate(
        placed, open_data("builtin:digits", ["image"], "calibration"), "mse"
    )
    for site, statistics in calibration.statistics.items():
        print(f"  {site:24} saw {statistics.low:8.3f} … {statistics.high:8.3f}")

    kompakt.write(network, folder / "float.onnx")
    kompakt.write(placed, folder / "int8.onnx")
    found = kompakt.measure(
        folder / "int8.onnx",
        open_data("builtin:digits", ["image"], "test"),
        "top1",
        against=folder / "float.onnx",
        max_drop=0.02,
    )
    print(f"{found['value']:.1%} instead of {found['baseline']:.1%}: {found['verdict']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
