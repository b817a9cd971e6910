"""Running a network node by node on several batches at once, keeping only the values still needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.fx import Node

from kompakt.network.network import Network
from kompakt.quantize.method import Batches


def in_order(network: Network, batches: Batches) -> Iterator[tuple[Node, list[Any]]]:
    """Every node of a network with its value on each batch, in graph order, without gradients.

    Args:
        network: It must not be edited meanwhile.
        batches: In each batch one tensor for each input.

    Yields:
        The node, and its values: one for each batch.
    """
    runs = [_Run(network, batch) for batch in batches]
    for node in network.graph.nodes:
        if node.op == "output":
            return
        with torch.no_grad():
            values = [run.step(node) for run in runs]
        yield node, values
        for run in runs:
            run.forget(node)


class _Run:
    def __init__(self, network: Network, batch: Any) -> None:
        self.interpreter = fx.Interpreter(network)
        self.interpreter.args_iter = iter(batch)
        self.readers = {node: len(node.users) for node in network.graph.nodes}

    def step(self, node: Node) -> Any:
        value = self.interpreter.env[node] = self.interpreter.run_node(node)
        return value

    def forget(self, node: Node) -> None:
        """Drop the values this was the last node to read, and its own if nothing reads it."""
        for source in node.all_input_nodes:
            self.readers[source] -= 1
            if self.readers[source] == 0:
                self.interpreter.env.pop(source, None)
        if not node.users:
            self.interpreter.env.pop(node, None)


__all__ = ["in_order"]
