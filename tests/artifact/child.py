"""Writes one small artifact; run as a program by the crash tests, and imported by the others.

    python child.py OUT VARIANT [--no-exchange]

Prints the error code and ends with its exit code when it cannot. The two opens of paths that do not
exist mark begin and end of the interesting part in a system-call trace.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import numpy as np

from kompakt.artifact import Artifact, GoldenBuilder, GoldenPack, swap, write_artifact
from kompakt.errors import KompaktError

MANIFEST = {
    "source_sha256": "ab" * 32,
    "scheme": {"name": "w8a8", "bits": [8, 8]},
    "target": {"name": "onnxruntime", "isa": "x86-vnni"},
    "versions": {"torch": "2.13.0", "numpy": "2.0.0"},
    "seed": 7,
}


def golden() -> GoldenPack:
    rng = np.random.default_rng(0)
    builder = GoldenBuilder()
    builder.add(
        {"x": rng.integers(0, 256, (4, 3, 8, 8)).astype(np.float32) / 127.5 - 1},
        {"y": rng.standard_normal((4, 10)).astype(np.float32)},
        {
            "conv": rng.integers(0, 256, (4, 16)).astype(np.uint8),
            "fc": np.arange(40).reshape(4, 10),
        },
        samples=4,
    )
    return builder.pack()


def external_weights(path: Path) -> None:
    path.write_bytes(b"graph")
    path.with_suffix(".data").write_bytes(bytes(range(256)) * 8)


def write(out: str | os.PathLike[str], variant: str = "new", **changes: object) -> Artifact:
    rng = np.random.default_rng(len(variant) + ord(variant[0]))
    arguments: dict[str, object] = {
        "files": {
            "model.onnx": rng.bytes(3000),
            "weights/large.bin": external_weights,
        },
        "manifest": MANIFEST,
        "record": {
            "variant": variant,
            "drop": 0.1 + 0.2,
            "sites": [{"name": "a[/]\x1b", "low": -1}],
        },
        "report": lambda record: f"<html><title>{record['variant']}</title></html>",
        "calibration": {
            "layer1.0/histogram": rng.integers(0, 9, 64),
            "scalars": rng.random((5, 4)),
        },
        "golden": golden(),
        **changes,
    }
    return write_artifact(out, **arguments)  # type: ignore[arg-type]


def _marked(name: str) -> None:
    with contextlib.suppress(OSError):
        os.close(os.open(f"/kompakt-test-{name}", os.O_RDONLY))


def main() -> int:
    out, variant, *options = sys.argv[1:]
    if "--no-exchange" in options:
        swap._exchange = lambda first, second: False  # type: ignore[assignment]
    _marked("begin")
    try:
        write(out, variant)
    except KompaktError as error:
        # not write(): that is the call the tests make fail
        os.writev(1, [f"{error.code}\n".encode()])
        return error.exit_code
    finally:
        _marked("end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
