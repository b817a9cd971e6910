"""``kompakt compress``: a trained model in, a proven artifact out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from kompakt.cli import options
from kompakt.cli.ending import finish
from kompakt.cli.quantities import (
    check_number,
    parse_dynamic,
    parse_latency,
    parse_size,
    parse_switches,
)

if TYPE_CHECKING:
    from kompakt.measuring.data import Dataset
    from kompakt.measuring.record import Record
    from kompakt.search.budget import Budget
    from kompakt.sources import Source

DATA_FORMS = (
    "DATA is file.npz (arrays named like the inputs, and labels), a folder of images in one "
    "subfolder for each class, package.module:function, or builtin:digits; to calibrate also "
    "generated, for inputs made from the model's batch norms."
)


@dataclass(frozen=True, kw_only=True)
class _Data:
    """The data strings of a run."""

    calibration: str | None
    validation: str | None
    test: str | None

    def given(self) -> dict[str, str]:
        """Split to data string, calibration first, where one was given."""
        return {split: spec for split, spec in vars(self).items() if spec is not None}


def compress(
    context: typer.Context,
    source: options.Source,
    output: options.Output,
    calibration: options.Calibration = None,
    validation: options.Validation = None,
    test: options.Test = None,
    metric: options.Metric = None,
    max_drop: options.MaxDrop = None,
    max_size: options.MaxSize = None,
    min_speedup: options.MinSpeedup = None,
    max_latency: options.MaxLatency = None,
    confidence: options.Confidence = 0.95,
    target: options.Target = "onnxruntime",
    target_option: options.TargetOption = None,
    c_array: options.CArray = False,
    isa: options.Isa = "auto",
    level: options.Level = None,
    scheme: options.Scheme = None,
    calibrator: options.Calibrator = None,
    method: options.Method = None,
    keep_float: options.KeepFloat = None,
    dynamic: options.Dynamic = None,
    journal: options.Journal = None,
    threads: options.Threads = 1,
    batch: options.BatchSize = 1,
    seed: options.Seed = 0,
    trust_source: options.TrustSource = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Compress a model, and prove what came out."""
    data = _Data(calibration=calibration, validation=validation, test=test)
    settings: dict[str, Any] = {
        "budget": _budget(max_drop, max_size, min_speedup, max_latency, confidence),
        "dynamic": parse_dynamic("--dynamic", dynamic),
        "metric": metric or "agreement",
        "target": target,
        "target_options": parse_switches("--target-option", target_option)
        | ({"c_array": True} if c_array else {}),
        "isa": isa,
        "level": level,
        "scheme": scheme,
        "calibrator": calibrator,
        "methods": tuple(method or ()),
        "keep_float": tuple(keep_float or ()),
        "threads": threads,
        "batch": batch,
        "seed": seed,
        "journal": journal,
        "out": output,
        "commands": [shlex.join(["kompakt", *context.obj])],
    }
    record = _run(source, data, settings, trust=trust_source, quiet=quiet)
    found = record.to_json()
    finish(found, _next(found, source, data), as_json=as_json)


def _budget(
    max_drop: str | None,
    max_size: str | None,
    min_speedup: float | None,
    max_latency: str | None,
    confidence: float,
) -> Budget:
    check_number("--min-speedup", min_speedup, above=0, why="it must be positive and finite")
    check_number("--confidence", confidence, above=0.5, below=1, why="it lies between 0.5 and 1")
    size = parse_size("--max-size", max_size)
    latency_ms = parse_latency("--max-latency", max_latency)
    from kompakt.measuring.margin import read_drop
    from kompakt.search.budget import Budget

    return Budget(
        max_drop=read_drop(max_drop, "--max-drop", "K004"),
        max_size=size,
        min_speedup=min_speedup,
        max_latency_ms=latency_ms,
        confidence=confidence,
    )


def _run(source: str, data: _Data, settings: dict[str, Any], *, trust: bool, quiet: bool) -> Record:
    from kompakt.cli.names import check_names
    from kompakt.cli.work import working
    from kompakt.measuring.data import open_data
    from kompakt.sources import input_names, open_source, with_example

    check_names(settings)
    specs = data.given()
    with working([source, *specs.values(), settings["metric"]], quiet=quiet) as console:
        from kompakt.compression import compress as compress_model

        found = with_example(open_source(source, trust=trust), specs)
        names = input_names(found.model, found.example_inputs)
        opened = {split: open_data(spec, names, split) for split, spec in specs.items()}
        arguments: dict[str, Any] = {**settings, **opened}
        console.print(_understood(found, opened, settings), soft_wrap=True)
        if arguments["dynamic"] is None:
            arguments["dynamic"] = found.dynamic
        result = compress_model(
            found.model,
            example_inputs=found.example_inputs,
            name=found.name,
            **arguments,
        )
    return result.record


def _understood(source: Source, data: Mapping[str, Dataset], settings: Mapping[str, Any]) -> str:
    """One line: model, data, target, instruction set, threads."""
    from kompakt.escaping import rich_markup
    from kompakt.measuring.environment import environment

    isa = settings["isa"]
    parameters = sum(p.numel() for p in source.model.parameters())
    parts = [
        f"model {source.name} ({parameters:,} parameters, {source.kind})",
        *(f"{split} {dataset.describe()}" for split, dataset in data.items()),
        f"metric {settings['metric']}",
        f"target {settings['target']}",
        f"isa {isa} ({environment()['isa']})" if isa == "auto" else f"isa {isa}",
        f"{settings['threads']} thread{'s' if settings['threads'] > 1 else ''}",
    ]
    return "[bold]understood:[/] " + rich_markup(" · ".join(parts), 1000)


def _next(record: Mapping[str, Any], source: str, data: _Data) -> list[list[str]]:
    folder = str(record.get("artifact") or "")
    if not folder:
        return []
    return [
        ["kompakt", "verify", folder, "--here"],
        _measure_again(record, folder, source, data) or ["kompakt", "inspect", source],
        ["python", "-c", f"import kompakt; model = kompakt.load({json.dumps(folder)})"],
    ]


def _measure_again(
    record: Mapping[str, Any], folder: str, source: str, data: _Data
) -> list[str] | None:
    given = [
        (spec, split)
        for split, spec in reversed(data.given().items())
        if spec.partition("?")[0] != "generated"
    ]
    if not given:
        return None
    metric = str((record.get("metric") or {}).get("name") or "agreement")
    reference = ["--against", source]
    found = with_split(*given[0])
    return ["kompakt", "measure", folder, "--data", found, "--metric", metric, *reference]


def with_split(spec: str, split: str) -> str:
    """A data string that names its split, where it has one to name."""
    from kompakt.measuring.imported import looks_imported

    has_splits = spec.startswith("builtin:") or looks_imported(spec)
    return f"{spec}?split={split}" if has_splits else spec
