"""MobileNetV1 and keyword spotting as TFLite files: LiteRT on this machine, and what a microcontroller needs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import kompakt
from benchmarks import models
from benchmarks.datasets import Labelled, imagenet, kws
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt.network.network import Network
from kompakt.network.rewrites import inference_form
from kompakt.observe import calibrate
from kompakt.quantize.bias_correction import correct_biases_
from kompakt.quantize.freeze import freeze_
from kompakt.quantize.integer import run_in_integers
from kompakt.quantize.place import place, plan_of
from kompakt.quantize.ranges import set_ranges_
from kompakt.schemes import w8a8
from kompakt.targets import litert, onnxruntime, tflite_micro
from kompakt.targets.target import Runnable, Target, Written

TITLE = "LiteRT and TensorFlow Lite for Microcontrollers"
BATCH = 20
MLPERF_FILE = "kws_mlperf_tiny_int8.tflite"
PAIRS = 300


def _network(setup: Setup, name: str) -> Network:
    entry = models.MODELS[name]
    return inference_form(kompakt.capture(entry.load(setup.assets), entry.example()))


def _placed(network: Network, target: Target, data: Labelled, observer: str) -> Network:
    key = network.input_specs[0].name
    placed = place(network, w8a8(), target.rules("any"))
    batches = ({key: x} for x, _ in data.batches(BATCH))
    set_ranges_(placed, calibrate(network, plan_of(placed).taps, batches), observer)
    correct_biases_(placed, network, [[data.take(slice(64)).inputs()]])
    return freeze_(placed)


def _top1(run: Runnable, data: Labelled) -> float:
    right = 0
    for x, labels in data.batches(BATCH):
        (found,) = run({run.input_names[0]: x.numpy()}).values()
        right += int((found.argmax(1) == labels.numpy()).sum())
    return 100 * right / len(data)


def _differing(setup: Setup, placed: Network, written: Written, target: Target, x: Any) -> int:
    """Codes in which the file differs from the integer referee, running freely."""
    assert target.probe is not None
    probe = target.probe(written.save(setup.scratch), written.options, list(written.codes.values()))
    found = probe({placed.input_specs[0].name: x.numpy()})
    counts = []

    def compare(site: str, codes: Any) -> None:
        counts.append(int(np.count_nonzero(found[written.codes[site]] != codes.numpy())))

    run_in_integers(placed, x, on_codes=compare)
    return sum(counts)


def _interleaved(calls: Mapping[str, Callable[[], Any]], pairs: int) -> dict[str, list[float]]:
    """Milliseconds of each call, all of them in every round in a new order."""
    generator, times = random.Random(0), {name: [] for name in calls}
    for round_ in range(pairs + 5):
        for name in generator.sample(list(calls), len(calls)):
            start = time.perf_counter()
            calls[name]()
            if round_ >= 5:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def _mobilenet(setup: Setup) -> tuple[list[Row], dict[str, Any]]:
    network = _network(setup, "mobilenet_v1_075")
    calibration = imagenet(setup.assets, "calibration").take(setup.some(200, 20))
    test = imagenet(setup.assets, "test").take(setup.some(500, 20))
    placed = _placed(network, litert.LITERT, calibration, "entropy")
    written = litert.write(placed)
    compact = litert.write(placed, integer_io=True, channels_last=True)
    files = {
        "ort": onnxruntime.load(onnxruntime.write(network).files["model.onnx"]),
        "litert": litert.load(written.files["model.tflite"], written.options),
        "codes": litert.load(compact.files["model.tflite"]),
    }
    float_top1, top1 = _top1(files["ort"], test), _top1(files["litert"], test)
    image = test.take(slice(1)).inputs().numpy()
    name = network.input_specs[0].name
    codes = np.zeros((1, 224, 224, 3), np.int8)
    times = _interleaved(
        {
            "ort": lambda: files["ort"]({name: image}),
            "litert": lambda: files["litert"]({name: image}),
            "codes": lambda: files["codes"]({name: codes}),
        },
        20 if setup.quick else PAIRS,
    )
    floats = {k for k in _types(compact) if k.startswith("float")}
    names = litert.operator_names(compact.files["model.tflite"])
    differing = _differing(setup, placed, written, litert.LITERT, test.take(slice(8)).inputs())
    least = {key: min(values) for key, values in times.items()}
    rows = [
        Row(
            what="MobileNetV1: drop of top-1",
            figure=float_top1 - top1,
            unit="points",
            at_most=0.5,
            others=[{"tool": "ai-edge-quantizer", "figure": 15.5}],
            note=f"{len(test)} test photos; float {float_top1:.1f} %",
        ),
        Row(
            what="MobileNetV1: speed against float in ONNX Runtime",
            figure=least["ort"] / least["codes"],
            unit="×",
            at_least=3.0,
            note="one thread, batch 1, interleaved, least of each: "
            f"{least['ort']:.3g} ms → {least['codes']:.3g} ms (floats in and out, channels first: "
            f"{least['litert']:.3g} ms)",
        ),
        Row(
            what="MobileNetV1: float tensors in the file with int8 inputs and outputs",
            figure=len(floats),
            at_most=0,
            note="operators: " + ", ".join(names),
        ),
        Row(
            what="MobileNetV1: TRANSPOSE operators in the file with float inputs and outputs",
            figure=_transposes(written),
            at_most=2,
        ),
        Row(
            what="MobileNetV1: codes in which LiteRT differs from the integer referee",
            figure=differing,
            at_most=0,
            note=f"{len(written.codes)} quantizers, 8 photos, free running",
        ),
    ]
    return rows, {"milliseconds": {k: sorted(v)[: len(v) // 2 + 1][-1] for k, v in times.items()}}


def _types(written: Written) -> set[str]:
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAsModel(written.files[written.main], 0).Subgraphs(0)
    names = {
        number: name.lower()
        for name, number in vars(schema.TensorType).items()
        if isinstance(number, int)
    }
    return {names[graph.Tensors(i).Type()] for i in range(graph.TensorsLength())}


def _transposes(written: Written) -> int:
    return int(written.notes[0].split(", ")[1].split()[0])


def _keywords(setup: Setup) -> list[Row]:
    network = _network(setup, "kws_dscnn")
    calibration = kws(setup.assets, "calibration")
    test = kws(setup.assets, "evaluation").take(setup.some(800, 40))
    placed = _placed(network, tflite_micro.TFLITE_MICRO, calibration, "mse")
    written = tflite_micro.write(placed)
    content = written.files["model.tflite"]
    theirs = (setup.assets / MLPERF_FILE).read_bytes()
    arena, limit = tflite_micro.arena_bytes(content), tflite_micro.arena_bytes(theirs)
    top1 = _top1(tflite_micro.load(content, written.options), test)
    differing = _differing(
        setup, placed, written, tflite_micro.TFLITE_MICRO, test.take(slice(64)).inputs()
    )
    return [
        Row(
            what="Keywords: top-1 on a microcontroller's interpreter",
            figure=top1,
            unit="%",
            at_least=90.5,
            others=[{"tool": "ai-edge-quantizer", "figure": 89.75}],
            note=f"{len(test)} clips that were not used to calibrate",
        ),
        Row(
            what="Keywords: size of the file",
            figure=len(content) / 1000,
            unit="kB",
            at_most=53.9,
            others=[{"tool": "MLPerf Tiny", "figure": len(theirs) / 1000}],
        ),
        Row(
            what="Keywords: arena",
            figure=float(arena or 0),
            unit="bytes",
            at_most=float(limit or 0),
            others=[{"tool": "MLPerf Tiny", "figure": limit}],
            note="the smallest that runs, found by bisection; " + written.notes[-1],
        ),
        Row(
            what="Keywords: codes in which the interpreter differs from the integer referee",
            figure=differing,
            at_most=0,
            note=f"{len(written.codes)} quantizers, 64 clips, free running",
        ),
    ]


def run(setup: Setup) -> Outcome:
    """Calibrate on calibration data, report on test data."""
    rows, details = _mobilenet(setup)
    return Outcome(rows=[*rows, *_keywords(setup)], details=details)
