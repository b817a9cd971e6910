"""Data named by a string on the command line.

    photos/?size=224&mean=0.5&std=0.5&batch=20    images, one subfolder for each class
    speech.npz?batch=50                           arrays named like the inputs, and ``labels``
    mypackage.data:batches                        a function that returns an iterable of batches
    builtin:digits                                handwritten digits, nothing to download
    generated?samples=16                          made from the network's batch norms, to calibrate only

Every kind but functions takes ``batch`` and ``shuffle`` (a seed; ``no`` keeps the stored order);
the digits and functions take ``split`` to name another one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from kompakt.errors import DataError
from kompakt.measuring.data.dataset import Dataset
from kompakt.measuring.data.digits import digits
from kompakt.measuring.data.function import FunctionDataset
from kompakt.measuring.data.generated import GENERATED, Generated
from kompakt.measuring.data.images import ImageFolder, ImageOptions
from kompakt.measuring.data.npz import open_npz
from kompakt.measuring.imported import looks_imported


def open_data(spec: str, input_names: Sequence[str] = (), split: str = "validation") -> Dataset:
    """Open the data a string names.

    Args:
        spec: See the module.
        input_names: The model's inputs, in order.
        split: What the data is for; only the digits and functions have splits of their own.

    Raises:
        DataError: K200 when there is no such data, K201 for unusable options, and what each kind
            raises.

    >>> open_data("builtin:digits", ["image"], "test").count()
    400
    """
    if not spec.strip():
        raise DataError("K200", "data without a name")
    path = Path(spec)
    name, _, query = (spec, "", "") if path.exists() else spec.partition("?")
    options = _Options(spec, query)
    path = Path(name)
    if name == "builtin:digits":
        chosen = options.take("split", str, split)
        common = options.common()
        options.finish()
        return digits(chosen, _only_input(spec, input_names), **common)
    if name.startswith("builtin:"):
        raise DataError("K200", f"data {spec!r}", why="the only built-in data is builtin:digits")
    if name == GENERATED and not path.exists():
        return _generated(options)
    if path.is_dir():
        folder_options = _image_options(options)
        common = options.common()
        options.finish()
        return ImageFolder(path, _only_input(spec, input_names), folder_options, **common)
    if path.is_file() and path.suffix == ".npz":
        common = options.common()
        options.finish()
        return open_npz(path, input_names, **common)
    if looks_imported(name) and not path.exists():
        chosen = options.take("split", str, split)
        options.finish()
        return FunctionDataset(name, chosen)
    raise DataError("K200", f"data {spec!r}", why=_why_not(path))


def _generated(options: _Options) -> Generated:
    given = {key: options.take(key, _positive, None) for key in ("samples", "steps")}
    given["seed"] = options.take("seed", _seed, None)
    options.finish()
    return Generated(**{key: value for key, value in given.items() if value is not None})


def _why_not(path: Path) -> str:
    if path.is_file():
        return f"files are read as .npz, and this one ends in {path.suffix!r}"
    if path.suffix == ".npz" or "/" in str(path):
        return "there is no such file or folder"
    return "it is no file, no folder, and does not read package.module:function"


def _only_input(spec: str, input_names: Sequence[str]) -> str:
    if len(input_names) > 1:
        raise DataError(
            "K209", f"data {spec!r}",
            why=f"it has one input, the model has {len(input_names)}: {', '.join(input_names)}",
            help="use an .npz file or a function",
        )  # fmt: skip
    return input_names[0] if input_names else "x"


def _image_options(options: _Options) -> ImageOptions:
    return ImageOptions(
        size=options.take("size", _size, None),
        resize=options.take("resize", int, None),
        mean=options.take("mean", _floats, (0.0,)),
        std=options.take("std", _floats, (1.0,)),
        layout=options.take("layout", _one_of("nchw", "nhwc"), "nchw"),
        channels=options.take("channels", _one_of("rgb", "bgr", "gray"), "rgb"),
    )


class _Options:
    """The part after ``?``; whatever nobody takes is an error."""

    def __init__(self, spec: str, query: str) -> None:
        self.spec, self.known = spec, list[str]()
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError as error:
            raise DataError("K201", f"options {query!r}", why="they read key=value&…") from error
        self.values = dict(pairs)
        if len(self.values) < len(pairs):
            raise DataError("K201", f"options {query!r}", why="one is given twice")

    def take(self, key: str, read: Callable[[str], Any], default: Any) -> Any:
        self.known.append(key)
        if key not in self.values:
            return default
        text = self.values.pop(key)
        try:
            return read(text)
        except ValueError as error:
            why = str(error) or "it cannot be read"
            raise DataError("K201", f"{key}={text} in {self.spec!r}", why=why) from error

    def common(self) -> dict[str, Any]:
        """``batch`` and ``shuffle``, as far as given."""
        found = {"batch": self.take("batch", _positive, None)}
        if "shuffle" in self.values:
            found["shuffle"] = self.take("shuffle", _seed, None)
        self.known.append("shuffle")
        return {key: value for key, value in found.items() if value is not None or key == "shuffle"}

    def finish(self) -> None:
        for key in self.values:
            near = difflib.get_close_matches(key, self.known, n=1)
            raise DataError(
                "K201", f"option {key!r} in {self.spec!r}",
                why="it is unknown" + (f"; did you mean {near[0]}?" if near else ""),
                help=f"known options are {', '.join(sorted(set(self.known)))}",
            )  # fmt: skip


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65536:
        raise ValueError("it is not within 1 … 65536")
    return value


def _seed(text: str) -> int | None:
    if text in ("no", "false", "off"):
        return None
    value = int(text)
    if value < 0:
        raise ValueError("a seed is not negative")
    return value


def _size(text: str) -> tuple[int, int]:
    parts = [int(part) for part in text.split("x")]
    if len(parts) not in (1, 2):
        raise ValueError("write 224, or 224x320 for height and width")
    return parts[0], parts[-1]


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"it is one of {', '.join(allowed)}")
        return text

    return read
