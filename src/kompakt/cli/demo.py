"""``kompakt demo``: train, compress and prove a small network; nothing to download."""

from __future__ import annotations

from pathlib import Path

from kompakt.cli import options
from kompakt.cli.ending import finish

DATA = "builtin:digits"
SOURCE = "kompakt.demo:trained_model"


def demo(
    output: options.Output = Path("kompakt-demo"),
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Train, compress and prove a small network."""
    from kompakt.cli.work import working

    with working([], quiet=quiet) as console:
        from kompakt.demo import run_demo

        console.print(
            "understood: a small CNN · 1,797 handwritten digits (scikit-learn) · metric top1 · "
            "target onnxruntime · 1 thread",
            soft_wrap=True,
        )
        result = run_demo(output, seed)
    folder = str(output)
    commands = [
        ["kompakt", "verify", folder, "--here"],
        ["kompakt", "inspect", SOURCE, "--scheme", "w8a8"],
        ["kompakt", "measure", folder, "--data", f"{DATA}?split=test", "--metric", "top1"],
    ]
    finish(result.record.to_json(), commands, as_json=as_json)
