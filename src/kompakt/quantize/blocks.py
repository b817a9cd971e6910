"""Blocks of a network: stretches of layers between two points where a single tensor carries everything.

At such a point nothing that depends on a weight is still needed but one tensor: the output of a residual block, of a
layer in a chain, of an encoder's block. They are read off the graph's wiring alone. Values that no weight has touched
(inputs, masks, positions) may cross a point: they are the same in every version of the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from kompakt.network.network import Network

MATRIX = 2
"""Weights have at least two dimensions; norms and biases have one."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A stretch of a network.

    Attributes:
        layers: The calls of its layers with weights, in graph order; at least one.
        output: The only value behind it that depends on these or earlier layers; activations that follow the last layer
            belong to the block.
    """

    layers: tuple[Node, ...]
    output: Node


def find_blocks(network: Network) -> list[Block]:
    """The blocks of a network, in graph order.

    What comes after the last point with a single tensor (several heads, for instance) is in no block.

    Args:
        network: A network of any kind; it is only read.
    """
    points = _single_points(network)
    blocks: list[Block] = []
    layers: list[Node] = []
    output: Node | None = None
    for node in network.graph.nodes:
        weighted = _has_weights(network, node)
        if weighted and output is not None:
            blocks.append(Block(layers=tuple(layers), output=output))
            layers, output = [], None
        if weighted:
            layers.append(node)
        if layers and node in points:
            output = node
    if layers and output is not None:
        blocks.append(Block(layers=tuple(layers), output=output))
    return blocks


def _single_points(network: Network) -> set[Node]:
    """Nodes with which everything that depends on a weight goes on."""
    last_reader = {node: max(node.users, default=node) for node in network.graph.nodes}
    touched: set[Node] = set()
    live: set[Node] = set()
    points = set()
    for node in network.graph.nodes:
        if node.op == "output":
            break
        live = {value for value in live if last_reader[value] > node}
        if _has_weights(network, node) or any(source in touched for source in node.all_input_nodes):
            touched.add(node)
            if last_reader[node] > node:
                live.add(node)
        if live == {node} and is_real(node):
            points.add(node)
    return points


def is_real(node: Node) -> bool:
    """Whether a node makes one tensor of floating-point numbers."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype in (torch.float32, torch.float64)


def _has_weights(network: Network, node: Node) -> bool:
    if node.op != "call_module":
        return False
    module = network.get_submodule(str(node.target))
    return any(parameter.dim() >= MATRIX for parameter in module.parameters())


__all__ = ["Block", "find_blocks", "is_real"]
