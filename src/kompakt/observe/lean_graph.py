"""Edits of the calibration copy of a graph that change its speed and nothing else."""

from __future__ import annotations

import torch
from torch import fx

from kompakt.network.kinds import kind_of

_FRESH = frozenset({"conv", "conv_transpose", "linear", "matmul", "batch_norm", "add", "mul"})


def views_to_reshapes_(graph: fx.Graph) -> None:
    """Replace ``view`` by ``reshape``, which also takes tensors in channels-last layout."""
    aten = torch.ops.aten
    for node in graph.nodes:
        if node.op == "call_function" and node.target in (
            aten.view.default,
            aten._unsafe_view.default,
        ):
            node.target = aten.reshape.default
        elif node.op == "call_method" and node.target == "view":
            sizes = node.args[1:]
            if not any(isinstance(size, torch.dtype) for size in sizes):
                node.target = "reshape"


def clamp_in_place_(graph: fx.Graph) -> None:
    """Let ReLU-like operators overwrite the fresh result of a layer that nothing else reads.

    Writing to memory that is already there saves about a tenth of a convolutional network's time.

    Args:
        graph: Graph of a GraphModule without in-place operators of its own on the tensors
            concerned.
    """
    aten = torch.ops.aten
    twins = {
        aten.relu.default: aten.relu_.default,
        aten.hardtanh.default: aten.hardtanh_.default,
        aten.clamp.default: aten.clamp_.default,
        aten.clamp_min.default: aten.clamp_min_.default,
    }
    for node in graph.nodes:
        if node.op != "call_function" or node.target not in twins:
            continue
        source = node.args[0]
        if isinstance(source, fx.Node) and len(source.users) == 1 and kind_of(source) in _FRESH:
            node.target = twins[node.target]
