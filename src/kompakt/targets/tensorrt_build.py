"""What turns the written ONNX file into an engine on the machine with the GPU: a ``trtexec`` line and a script."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from kompakt.network.interface import TensorSpec

MODEL_FILE = "model.onnx"
BUILD_FILE = "build_engine.py"
ENGINE_FILE = "model.plan"
BATCHES = {"min": 1, "opt": 8, "max": 32}
"""What a dynamic dimension is in the optimization profile; the build script takes others."""


def shapes(specs: Sequence[TensorSpec], size: int) -> dict[str, list[int]]:
    """The shape of every input that has a dynamic dimension, with this size for each of those."""
    return {
        spec.name: [d if isinstance(d, int) else size for d in spec.shape]
        for spec in specs
        if not all(isinstance(d, int) for d in spec.shape)
    }


def trtexec_line(specs: Sequence[TensorSpec]) -> str:
    """The ``trtexec`` command that builds a strongly typed engine.

    Args:
        specs: The inputs; dynamic dimensions get the range of :data:`BATCHES`.
    """
    parts = ["trtexec", f"--onnx={MODEL_FILE}", f"--saveEngine={ENGINE_FILE}", "--stronglyTyped"]
    for which, size in BATCHES.items():
        ranges = shapes(specs, size)
        if ranges:
            text = ",".join(f"{name}:{'x'.join(map(str, s))}" for name, s in ranges.items())
            parts.append(f"--{which}Shapes={text}")
    return shlex.join(parts)


def build_script(specs: Sequence[TensorSpec], line: str) -> str:
    """A small Python program that builds the engine with the ``tensorrt`` package alone.

    Args:
        specs: The inputs.
        line: The ``trtexec`` command that does the same, for the docstring.
    """
    profile = {
        name: [shapes(specs, size)[name] for size in BATCHES.values()] for name in shapes(specs, 1)
    }
    # A name from a model must not end the docstring.
    shown = line.encode("unicode_escape").decode("ascii").replace('"', "'")
    return _SCRIPT.replace("@LINE@", shown).replace(
        "@PROFILE@", json.dumps(profile, ensure_ascii=True)
    )


_SCRIPT = '''"""Build a TensorRT engine from model.onnx, beside this file. Needs the tensorrt package and a GPU.

    python build_engine.py [ENGINE]

The same with TensorRT's own command (leave --stronglyTyped out where it is not known: it is the only way from 11 on):

    @LINE@

Q/DQ pairs say what runs in low precision (explicit quantization, strongly typed): no calibrator and no precision flag.
"""

import sys
from pathlib import Path

import tensorrt as trt

HERE = Path(__file__).resolve().parent
PROFILE = @PROFILE@
"""Input to its smallest, usual and largest shape; change it to the batches you send."""


def main():
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(HERE / "model.onnx")):
        for number in range(parser.num_errors):
            print(parser.get_error(number), file=sys.stderr)
        return 1
    config = builder.create_builder_config()
    if PROFILE:
        profile = builder.create_optimization_profile()
        for name, (smallest, usual, largest) in PROFILE.items():
            profile.set_shape(name, tuple(smallest), tuple(usual), tuple(largest))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        print("TensorRT built no engine; its messages above say why", file=sys.stderr)
        return 1
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "model.plan"
    target.write_bytes(bytes(engine))
    print(f"{target}: {target.stat().st_size:,} bytes; it fits this GPU and this version of TensorRT only")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
'''

__all__ = ["BUILD_FILE", "build_script", "trtexec_line"]
