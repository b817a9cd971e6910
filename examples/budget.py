"""Compress a network within a budget and act on the verdict.

    python examples/budget.py [FOLDER]

Trains a small network on handwritten digits (seconds), asks for at most two points of top-1 and half the size, and says
what came out. Exit code 1 means that the budget is not met.
"""

from __future__ import annotations

import sys
from pathlib import Path

import kompakt
from kompakt.demo import trained_model
from kompakt.measuring.data import Dataset, open_data


def digits(part: str) -> Dataset:
    """One part of scikit-learn's digits, as batches of (images, labels)."""
    return open_data("builtin:digits", ["image"], part)


def main(folder: Path) -> int:
    """Compress, print the verdict, and return 0 when the budget is met."""
    model, example = trained_model()
    float_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    result = kompakt.compress(
        model,
        example_inputs=example,
        calibration=digits("calibration"),
        validation=digits("validation"),
        test=digits("test"),
        metric="top1",
        budget=kompakt.Budget(max_drop=0.02, max_size=float_bytes // 2),
        out=folder / "compact",
    )
    record = result.record
    print(record.verdict_text)
    for trial in record.trials:
        print(f"  tried {trial['name']}: {trial['outcome']} {trial['why'] or ''}")
    print(f"drop {record.drop:+.4f} in {record.drop_interval}, {record.size_ratio:.1f}x smaller")
    return 0 if record.budget_met else 1


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path()))
