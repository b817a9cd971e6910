"""Real ONNX files: imported, written back, quantized. A face detector, a COCO detector, voice detectors."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

import kompakt
from benchmarks.detection import ap50, boxes_in, detector_input, truth
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt.network.onnx import import_onnx
from kompakt.targets.onnxruntime import load, operators, write

TITLE = "ONNX files: detectors and voice activity"
Arrays = dict[str, NDArray[Any]]
FILES = ("ultraface_rfb320", "nanodet_m", "silero_vad", "silero_vad_16k_op15")
FRAME, CONTEXT, RATE = 512, 64, 16000
CALIBRATORS = ("mse", "minmax", "percentile", "entropy")
VOICE = 0.5
"""Probability from which a frame counts as speech."""


def run(setup: Setup) -> Outcome:
    """Round trips of four files, then INT8 of each."""
    rows: list[Row] = []
    details: dict[str, Any] = {"title": TITLE}
    for name in FILES:
        rows += _round_trip(setup, name)
    rows += [_faces(setup), _objects(setup, details)]
    rows += [_voice(setup, "silero_vad_16k_op15", None), _voice(setup, "silero_vad", {"sr": RATE})]
    return Outcome(rows=rows, details=details)


def _round_trip(setup: Setup, name: str) -> list[Row]:
    path = setup.assets / f"{name}.onnx"
    feeds = _real_inputs(setup, name)
    network = import_onnx(path, feeds)
    before = onnx.load(path)
    after = onnx.load_model_from_string(write(network).files["model.onnx"])
    kept, all_names = len(_names(before) & _names(after)), len(_names(before))
    theirs = _as_it_stands(path.read_bytes(), feeds)
    ours = network.call_flat([torch.from_numpy(feeds[s.name]) for s in network.input_specs])
    error = max(
        float(np.linalg.norm(o.detach().numpy() - t) / max(np.linalg.norm(t), 1e-9))
        for o, t in zip(ours, theirs, strict=True)
    )
    back = _as_it_stands(after.SerializeToString(), feeds)
    equal = all(np.array_equal(a, b) for a, b in zip(back, theirs, strict=True))
    opaque = "; ".join(network.notes) or "no opaque node"
    return [
        Row(
            what=f"{path.stem}: imported network against ONNX Runtime, relative error",
            figure=error,
            at_most=1e-4,
            note=opaque,
        ),
        Row(
            what=f"{path.stem}: names kept when written back untouched",
            figure=100.0 * kept / all_names,
            unit="%",
            at_least=100.0,
            note=f"{all_names} nodes, values and initializers; outputs "
            f"{'equal to the bit' if equal else 'DIFFER'}",
        ),
    ]


def _names(model: onnx.ModelProto) -> set[tuple[str, str]]:
    graph = model.graph
    found = {("node", n.name) for n in graph.node if n.name}
    found |= {("value", o) for n in graph.node for o in n.output}
    return found | {("initializer", i.name) for i in graph.initializer}


def _as_it_stands(model: bytes, feeds: Arrays) -> list[NDArray[Any]]:
    """The outputs of a file in ONNX Runtime without its optimizations, which depend on how a file is written."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def _real_inputs(setup: Setup, name: str) -> Arrays:
    """A photo, or a frame of speech."""
    if name == "nanodet_m":
        return {"input.1": detector_input(Image.open(_photos(setup)[0]))}
    if name == "ultraface_rfb320":
        return _face_input(_photos(setup)[0])
    session = load(setup.assets / f"{name}.onnx")
    sound = _sound(setup.assets / "silero_test.wav")[: 100 * FRAME]
    return max(_frames(session, sound), key=lambda frame: frame[1])[0]


def _compressed(
    setup: Setup,
    name: str,
    data: list[Arrays],
    fixed: dict[str, float] | None = None,
    calibrator: str = "mse",
) -> tuple[Path, Path, dict[str, int]]:
    """The float file, the INT8 file, and the operators the INT8 file is executed with."""
    source = setup.assets / f"{name}.onnx"
    network = import_onnx(source, fixed=fixed)
    placed = kompakt.place(network, "w8a8")
    kompakt.calibrate(placed, data, calibrator)
    path = setup.scratch / f"{name}_{calibrator}.onnx"
    kompakt.write(placed, path)
    float_path = setup.scratch / f"{name}_float.onnx"
    float_path.write_bytes(write(network).files["model.onnx"])
    return float_path, path, operators(path, {})


def _photos(setup: Setup) -> list[Path]:
    """Every second calibration photo: 100."""
    photos = sorted((setup.assets / "imagenet" / "calibration").glob("*/*.jpg"))[::2]
    return photos[setup.some(100, 10)]


def _face_input(path: Path) -> Arrays:
    pixels = np.asarray(Image.open(path).convert("RGB").resize((320, 240)), np.float32)
    return {"input": np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1)[None])}


def _faces(setup: Setup) -> Row:
    data = [_face_input(path) for path in _photos(setup)]
    _, _, counts = _compressed(setup, "ultraface_rfb320", data)
    return Row(
        what="ultraface_rfb320: convolutions executed by integer kernels, of 52",
        figure=float(counts.get("QLinearConv", 0)),
        at_least=50.0,
        note=f"float convolutions left: {counts.get('Conv', 0) + counts.get('FusedConv', 0)}",
    )


def _objects(setup: Setup, details: dict[str, Any]) -> Row:
    data = [{"input.1": detector_input(Image.open(path))} for path in _photos(setup)]
    float_path, path, counts = _compressed(setup, "nanodet_m", data)
    folder = setup.assets / "coco20"
    wanted = truth(folder)
    scores = {}
    for label, file in (("float", float_path), ("int8", path)):
        session = load(file)
        found = {}
        for name in wanted:
            image = Image.open(folder / "images" / name)
            outputs = session({"input.1": detector_input(image)})
            found[name] = boxes_in(list(outputs.values()), *image.size)
        scores[label] = ap50(found, wanted)
    details["nanodet_operators"] = counts
    return Row(
        what="nanodet_m: AP50 of the INT8 file on 20 COCO images",
        figure=scores["int8"],
        at_least=0.47,
        note=f"float {scores['float']:.3f}; calibrated on photos that are not from COCO; "
        f"{counts.get('QLinearConv', 0)} of 73 convolutions in integers",
    )


def _voice(setup: Setup, name: str, fixed: dict[str, float] | None) -> Row:
    sound = _sound(setup.assets / "silero_test.wav")
    part = len(sound) // 5
    source = setup.assets / f"{name}.onnx"
    calibration = [f for f, _ in _frames(load(source), sound[:part])]
    known = [{k: v for k, v in f.items() if k not in (fixed or {})} for f in calibration]
    tried = {}
    for calibrator in CALIBRATORS:
        made = _compressed(setup, name, known, fixed, calibrator)
        tried[_same_decisions(made[0], made[1], sound[:part], fixed), calibrator] = made
    (chosen_on, calibrator), (float_path, path, counts) = max(tried.items())
    integer = {k: v for k, v in counts.items() if k.startswith("QLinear")}
    return Row(
        what=f"{name}: frames with the same speech decision in INT8",
        figure=100 * _same_decisions(float_path, path, sound[part:], fixed),
        unit="%",
        at_least=99.0,
        note=f"{len(sound[part:]) // FRAME} frames not calibrated on, state carried along; calibrator "
        f"{calibrator}, the best of {len(CALIBRATORS)} on the calibration part "
        f"({100 * chosen_on:.2f} %); {integer}",
    )


def _same_decisions(
    float_path: Path, path: Path, sound: NDArray[np.float32], fixed: dict[str, float] | None
) -> float:
    """Share of frames that both files take for speech, or both do not."""
    speech = [
        [p >= VOICE for _, p in _frames(_without(load(file), fixed), sound)]
        for file in (float_path, path)
    ]
    return float(np.mean([a == b for a, b in zip(*speech, strict=True)]))


def _without(session: Callable[[Arrays], Arrays], fixed: dict[str, float] | None) -> Any:
    return lambda feeds: session({k: v for k, v in feeds.items() if k not in (fixed or {})})


def _sound(path: Path) -> NDArray[np.float32]:
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return samples.astype(np.float32) / 32768


def _frames(session: Any, sound: NDArray[np.float32]) -> Iterator[tuple[Arrays, float]]:
    """What a voice detector is fed frame by frame, and the probability of speech it answers."""
    state = np.zeros((2, 1, 128), np.float32)
    before = np.zeros(CONTEXT, np.float32)
    for start in range(0, len(sound) - FRAME + 1, FRAME):
        frame = sound[start : start + FRAME]
        feeds = {
            "input": np.concatenate([before, frame])[None],
            "state": state,
            "sr": np.array(RATE, np.int64),
        }
        answer = list(session(feeds).values())
        yield feeds, float(answer[0].reshape(-1)[0])
        state, before = answer[1], frame[-CONTEXT:]
