"""Hostile model files whose weights lie, or seem to lie, in other files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .onnx_corpus import NEEDED, Hostile, external, save

SECRET = bytes(range(NEEDED))
"""What lies outside of the model's folder."""


def _located(location: str, **entries: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "weights.bin").write_bytes(bytes(NEEDED))
        return save(external(location, **entries), folder)

    return write


def _with_secret(place: Callable[[Path, Path], str]) -> Callable[[Path], Path]:
    """A file outside of the folder, and something in the folder that leads to it."""

    def write(folder: Path) -> Path:
        outside = folder.parent / f"{folder.name}-outside"
        outside.mkdir()
        (outside / "secret.bin").write_bytes(SECRET)
        return save(external(place(folder, outside / "secret.bin")), folder)

    return write


def _symlink(folder: Path, secret: Path) -> str:
    (folder / "weights.bin").symlink_to(secret)
    return "weights.bin"


def _linked_folder(folder: Path, secret: Path) -> str:
    (folder / "sub").symlink_to(secret.parent)
    return "sub/secret.bin"


def _hard_link(folder: Path, secret: Path) -> str:
    os.link(secret, folder / "weights.bin")
    return "weights.bin"


def _memory_address(folder: Path, secret: Path) -> str:
    inside = folder / "*" / "_ORT_MEM_ADDR_"
    inside.mkdir(parents=True)
    (inside / "*").write_bytes(bytes(1 << 12))
    return "*/_ORT_MEM_ADDR_/*"


def _pipe(folder: Path, secret: Path) -> str:
    os.mkfifo(folder / "weights.bin")
    return "weights.bin"


def _directory(folder: Path, secret: Path) -> str:
    (folder / "weights.bin").mkdir()
    return "weights.bin"


def _attribute(folder: Path) -> Path:
    made = external("weights.bin", offset=0)
    made.graph.initializer[0].external_data.add(key="__class__", value="os.system")
    (folder / "weights.bin").write_bytes(bytes(NEEDED))
    return save(made, folder)


def _repeated(folder: Path) -> Path:
    made = external("weights.bin")
    made.graph.initializer[0].external_data.add(key="location", value="../secret.bin")
    (folder / "weights.bin").write_bytes(bytes(NEEDED))
    return save(made, folder)


def _both(folder: Path) -> Path:
    made = external("weights.bin")
    made.graph.initializer[0].raw_data = bytes(NEEDED)
    (folder / "weights.bin").write_bytes(bytes(NEEDED))
    return save(made, folder)


def corpus() -> Iterator[Hostile]:
    """All of them."""
    locations = {
        "an absolute path": "/etc/passwd",
        "a path upwards": "../secret.bin",
        "a path down and upwards": "a/../../secret.bin",
        "a path with backslashes": "..\\secret.bin",
        "a drive": "C:secret.bin",
        "an empty path": "",
        "a path with a zero byte": "weights.bin\x00.txt",
        "the folder itself": ".",
        "the model file itself": "model.onnx",
        "a file that is missing": "other.bin",
    }
    for name, location in locations.items():
        yield Hostile(f"weights at {name}", ("K143",), _located(location))
    numbers: dict[str, dict[str, object]] = {
        "a negative offset": {"offset": -8},
        "an offset that wraps around": {"offset": 2**64 - 8},
        "an offset behind the end": {"offset": 1000},
        "an offset that is no number": {"offset": "0x10"},
        "a length of terabytes": {"length": 2**42},
        "a length that is not the shape's": {"length": NEEDED - 4},
        "a length of zero": {"length": 0},
    }
    for name, entries in numbers.items():
        yield Hostile(f"weights with {name}", ("K143",), _located("weights.bin", **entries))
    leading: dict[str, Callable[[Path, Path], str]] = {
        "a symbolic link": _symlink,
        "a linked folder": _linked_folder,
        "a hard link": _hard_link,
        "a pipe": _pipe,
        "a directory": _directory,
        "an address in memory": _memory_address,
    }
    for name, place in leading.items():
        yield Hostile(f"weights behind {name}", ("K143",), _with_secret(place))
    yield Hostile("weights with an attribute of Python", ("K143",), _attribute)
    yield Hostile("weights at two places", ("K143",), _repeated)
    yield Hostile("weights inside and beside", ("K142",), _both)
