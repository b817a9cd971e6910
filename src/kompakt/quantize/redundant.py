"""Activations that a quantizer behind them makes redundant.

Codes cannot leave [qmin, qmax]. Where the zero point is qmin, a ReLU before the quantizer changes no code; where the
largest code stands for at most 6 (to within rounding), neither does a ReLU6, nor any other upper limit that lies at
most half a step below the largest code's number. Leaving them out of the written file lets the runtime fuse the layer
before them.
"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from kompakt.network.kinds import clamp_limits, kind_of
from kompakt.network.network import Network
from kompakt.quantize.place import quantizer_of

CEILING = 6.0


def redundant_activations(placed: Network) -> set[Node]:
    """The calls of activations that change no code: every reader of them is a quantizer that clips just as they do.

    Args:
        placed: A placed network whose quantizers have ranges.
    """
    return {
        node
        for node in placed.graph.nodes
        if node.op == "call_function"
        and kind_of(node) in ("relu", "relu6", "clamp")
        and node.users
        and all(_makes_redundant(placed, node, user) for user in node.users)
    }


def drop_redundant_activations_(flat: GraphModule, placed: Network) -> GraphModule:
    """Remove every activation that its quantizer makes redundant, in place.

    Args:
        flat: ``placed.flat()``: a graph with the same calls.
        placed: The placed network, for its quantizers.

    Returns:
        The same graph module, recompiled.
    """
    names = {node.name for node in redundant_activations(placed)}
    for node in list(flat.graph.nodes):
        if node.name in names:
            node.replace_all_uses_with(node.args[0])
            flat.graph.erase_node(node)
    flat.recompile()
    return flat


def _makes_redundant(placed: Network, node: Node, user: Node) -> bool:
    if user.op != "call_module" or "quantizes" not in user.meta:
        return False
    quantizer = quantizer_of(placed, user)
    scale, zero_point = quantizer.parameters_()
    if kind_of(node) == "clamp":
        return _only_from_above(node, quantizer.represented_range()[1], float(scale.max()))
    if int(zero_point) != int(quantizer.format.qmin):
        return False
    _, high = quantizer.represented_range()
    # Half a step above 6 still rounds to the largest code, so nothing below it is lost.
    return kind_of(node) == "relu" or high <= CEILING * (1 + 1e-6)


def _only_from_above(node: Node, high: float, step: float) -> bool:
    """Whether a clamp has no lower limit, and an upper one that rounds to the largest code."""
    low, limit = clamp_limits(node)
    return low is None and limit is not None and high - limit < 0.499 * step
