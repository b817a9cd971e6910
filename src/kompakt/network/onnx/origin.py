"""Where a node of an imported network came from, so that it can go home under its own names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import fx

if TYPE_CHECKING:
    from kompakt.network.network import Network
    from kompakt.network.onnx.source import OnnxSource


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The ONNX node a call was made from.

    Attributes:
        outputs: The names of its outputs; ``""`` for one that is left out.
        arguments: Names of the values it reads that are arguments of the call, in the order of the call's
            ``all_input_nodes`` occurrences.
        parameters: Initializer name to (attribute of the layer, whether it is stored transposed).
        op_type: Its operator.
    """

    outputs: tuple[str, ...]
    arguments: tuple[str, ...]
    op_type: str
    parameters: Mapping[str, tuple[str, bool]] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, object]) -> Origin:
        return self


def origin_of(node: fx.Node) -> Origin | None:
    """The origin of a call, or None when it was not imported."""
    found = node.meta.get("onnx")
    return found if isinstance(found, Origin) else None


def source_of(network: Network) -> OnnxSource | None:
    """The file a network was imported from, or None."""
    return network.meta.get("onnx")
