"""What ``measure`` measures: an artifact, a model file of the target, or any SOURCE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kompakt.network.network import Network


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something that can be measured.

    Attributes:
        model: An artifact's directory, a model file, or a captured network.
        name: What was typed.
        input_names: Names of its inputs, in order.
        metric: The metric it was made under; ``None`` when it does not say.
    """

    model: Path | Network
    name: str
    input_names: tuple[str, ...]
    metric: str | None = None


def open_subject(text: str, data: str, target: str, *, trust: bool) -> Subject:
    """Open what was typed.

    Args:
        text: An artifact's directory, a file of the target, or a SOURCE.
        data: Data whose first batch gives example inputs where a SOURCE brings none.
        target: The runtime of files.
        trust: Whether a ``.pt2`` file may be loaded.

    Raises:
        KompaktError: It cannot be opened.
    """
    path = Path(text)
    if path.is_dir() and not (path / "config.json").is_file():
        return _open_artifact(path)
    if path.suffix.lower() == ".onnx" and path.is_file():
        return _open_file(path, target)
    return _capture(text, data, trust=trust)


def _open_artifact(path: Path) -> Subject:
    from kompakt.artifact import open_artifact

    record = open_artifact(path).record
    metric = (record.get("metric") or {}).get("name")
    names = tuple(str(spec["name"]) for spec in record["model"]["inputs"])
    return Subject(model=path, name=str(path), input_names=names, metric=metric)


def _open_file(path: Path, target: str) -> Subject:
    from kompakt.network.onnx.untrusted import checked_file
    from kompakt.targets import get_target

    with checked_file(path) as copy:
        names = get_target(target).load(copy, {}, 1).input_names
    return Subject(model=path, name=str(path), input_names=tuple(names))


def _capture(text: str, data: str, *, trust: bool) -> Subject:
    from kompakt.network.capture import capture
    from kompakt.sources import open_source, with_example

    source = with_example(open_source(text, trust=trust), {"test": data})
    network = capture(source.model, source.example_inputs, dynamic=source.dynamic)
    names = tuple(spec.name for spec in network.input_specs)
    return Subject(model=network, name=text, input_names=names)
