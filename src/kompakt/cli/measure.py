"""``kompakt measure``: the figures of an artifact or a model, alone or against another."""

from __future__ import annotations

from kompakt.cli import options


def measure(
    model: options.Source,
    data: options.ExampleData = None,
    metric: options.Metric = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure an artifact or a model."""
    raise NotImplementedError
