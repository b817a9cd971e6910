"""Options that several commands share, each with its one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="package.module:function, a Hugging Face directory, or a .pt2 file.",
        show_default=False,
    ),
]
TrustSource = Annotated[
    bool,
    typer.Option("--trust-source", help="Load a .pt2 file, which can run code hidden in it."),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="top1, spearman, … or package.module:function; see `kompakt explain`.",
        show_default="agreement",
    ),
]
Scheme = Annotated[
    str | None,
    typer.Option("--scheme", metavar="NAME|FILE", help="A preset such as w8a8, or a scheme file."),
]
Target = Annotated[
    str, typer.Option("--target", metavar="NAME", help="The runtime, or auto: the fastest.")
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target-option",
        metavar="NAME=yes|no",
        help="A setting of the runtime's files: integer_io, channels_last, c_array (litert, tflite-micro).",
    ),
]
CArray = Annotated[
    bool,
    typer.Option("--c-array", help="Write C source and header for firmware beside the model."),
]
Isa = Annotated[
    str,
    typer.Option("--isa", metavar="NAME", help="Instruction set: auto, vnni, avx2, arm or any."),
]
KeepFloat = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-float",
        metavar="PATTERN",
        help="Layers to leave alone: a glob, kind:linear or type:Conv2d. Repeatable.",
    ),
]
Dynamic = Annotated[
    list[str] | None,
    typer.Option(
        "--dynamic",
        metavar="INPUT:DIM=NAME",
        help="A dimension that varies, for instance input_ids:1=sequence; or `none`. Repeatable.",
    ),
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of the runtime.")]
BatchSize = Annotated[int, typer.Option("--batch", min=1, help="Batch size of the latency.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Confidence = Annotated[
    float, typer.Option("--confidence", help="Confidence of every interval and verdict.")
]
Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="Where the artifact is written.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No narration on stderr.")]
Calibration = Annotated[
    str | None,
    typer.Option(metavar="DATA", help="Typical inputs, for ranges. DATA is told below."),
]
Validation = Annotated[
    str | None, typer.Option(metavar="DATA", help="Data to judge candidates with.")
]
Test = Annotated[
    str | None, typer.Option(metavar="DATA", help="Data for the final figures, not used to choose.")
]
ExampleData = Annotated[
    str | None,
    typer.Option("--data", metavar="DATA", help="Data whose first batch gives example inputs."),
]
InspectData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Data: its first batch gives example inputs, 16 tell which layers saturate without VNNI.",
    ),
]
Subject = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An artifact, an .onnx file, or a SOURCE as for compress.",
        show_default=False,
    ),
]
TestData = Annotated[str, typer.Option("--data", metavar="DATA", help="What to measure on.")]
MeasuredMetric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="top1, spearman, … or package.module:function.",
        show_default="the artifact's own",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Compare with this model, sample by sample."),
]
MaxDrop = Annotated[
    str | None,
    typer.Option(metavar="X", help="Largest loss of the metric: 0.01 or 1% is one point."),
]
MaxSize = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Largest size: 10MB, 500kB, 1MiB.")
]
MinSpeedup = Annotated[
    float | None, typer.Option(metavar="X", help="Least speed-up over float: 2 is twice.")
]
MaxLatency = Annotated[
    str | None, typer.Option(metavar="TIME", help="Largest latency: 5ms, 200us.")
]
Level = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=2,
        help="0 float, 1 without data, 2 with calibration data.",
        show_default="the highest the data allows",
    ),
]
Journal = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Keep finished trials: the same command after a kill goes on."
    ),
]
Method = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="With --scheme: a method that improves it; repeatable, in order."
    ),
]
Calibrator = Annotated[
    str | None, typer.Option(metavar="NAME", help="minmax, mse, percentile, entropy, …")
]
