"""Reading one ONNX node: its inputs, attributes and what is known about its values."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from torch import fx

from kompakt.network.onnx.facts import Array, Facts, Shape


@dataclass(frozen=True)
class Call:
    """A call to make: what, and with which arguments."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class NodeReader:
    """One ONNX node and what is known about its values.

    Attributes:
        node: The node.
        facts: About the graph.
        values: The fx node of every value met so far, by name.
    """

    node: ir.Node
    facts: Facts
    values: dict[str, Any]

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return self.facts.opset

    def x(self, place: int = 0) -> fx.Node | None:
        """The fx node of an input, or None when it is left out or not known as one."""
        value = self.given(place)
        return None if value is None else self.values.get(str(value.name))

    def given(self, place: int) -> ir.Value | None:
        """An input."""
        return self.node.inputs[place] if place < len(self.node.inputs) else None

    def constant(self, place: int) -> Array | None:
        """The content of an input that is known now."""
        return self.facts.constant(self.given(place))

    def shape(self, place: int = 0) -> Shape | None:
        """The shape of an input."""
        value = self.given(place)
        return None if value is None else self.facts.shape(value)

    def result(self, place: int = 0) -> Shape | None:
        """The shape of an output."""
        return self.facts.shape(self.node.outputs[place])

    def rank(self, place: int = 0) -> int | None:
        """The rank of an input."""
        shape = self.shape(place)
        return None if shape is None else len(shape)

    def integer(self, name: str, default: int) -> int:
        """An attribute."""
        return int(self.node.attributes.get_int(name, default))

    def number(self, name: str, default: float) -> float:
        """An attribute."""
        return float(self.node.attributes.get_float(name, default))

    def word(self, name: str, default: str) -> str:
        """An attribute."""
        return str(self.node.attributes.get_string(name, default))

    def integers(self, name: str) -> list[int] | None:
        """An attribute, or None where it is not given."""
        found = self.node.attributes.get(name)
        return None if found is None else [int(n) for n in found.as_ints()]

    def listed(self, name: str, place: int) -> list[int] | None:
        """Integers from an attribute (older opsets) or a constant input; None where neither is given or known."""
        found = self.integers(name)
        if found is not None:
            return found
        content = self.constant(place)
        return None if content is None else [int(n) for n in content.reshape(-1)]


def window(n: NodeReader, spatial: int) -> tuple[list[int], list[int], list[int]] | None:
    """Strides, pads (starts, then ends) and dilations of a convolution or pool; None when they depend on sizes."""
    strides = n.integers("strides") or [1] * spatial
    dilations = n.integers("dilations") or [1] * spatial
    pads = n.integers("pads") or [0] * (2 * spatial)
    auto = n.word("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        shape, kernel = n.shape(), n.integers("kernel_shape")
        if shape is None or kernel is None or not all(isinstance(s, int) for s in shape[2:]):
            return None
        starts, ends = [], []
        for size, k, s, d in zip(shape[2:], kernel, strides, dilations, strict=True):
            assert isinstance(size, int)
            whole = max(0, ((size + s - 1) // s - 1) * s + (k - 1) * d + 1 - size)
            less, more = whole // 2, whole - whole // 2
            starts.append(less if auto == "SAME_UPPER" else more)
            ends.append(more if auto == "SAME_UPPER" else less)
        pads = starts + ends
    return strides, pads, dilations


def item(call: fx.Node, place: int) -> Call:
    """One of the values a call returned."""
    return Call(operator.getitem, (call, place), {})


def sequence_of(values: Sequence[Any]) -> list[fx.Node]:
    """The fx nodes among arguments, nested lists included, in order and with repetitions."""
    found: list[fx.Node] = []
    fx.node.map_arg(list(values), found.append)
    return found
