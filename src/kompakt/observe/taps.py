"""A copy of a network's graph that answers statistics instead of outputs.

The copy shares the network's modules and parameters. Behind every observed node stands an
:class:`EdgeTap`; the taps' summaries are the outputs, and what no tap needs is not computed. The
code ``torch.fx`` generates drops each activation after its last use, so nothing is kept but the
summaries.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from kompakt.errors import DataError, SchemeError
from kompakt.network.kinds import kind_of
from kompakt.observe.edge_summary import BlockSampler, EdgeSummary, summarize
from kompakt.observe.lean_graph import clamp_in_place_, views_to_reshapes_

_AT_LEAST_ZERO = frozenset({"relu", "relu6", "sigmoid", "hardsigmoid", "softmax"})
_KEEPS_SIGN = frozenset(
    {
        *("max_pool", "avg_pool", "global_average_pool", "mean", "slice", "expand"),
        *("reshape", "transpose", "dropout", "identity"),
    }
)
_FEATURES_SECOND = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d)


@dataclass
class TapContext:
    """What all taps of a network share: where the current batch's sample blocks lie."""

    sampler: BlockSampler | None = None


class EdgeTap(nn.Module):
    """Summarizes the tensors that pass an edge.

    Args:
        site: Name of the edge.
        context: Shared with the other taps.
        batch_dim: Dimension that runs over samples, or ``None``.
        channel_dim: Dimension that runs over channels.
        never_negative: Whether the network guarantees that values are not negative.
    """

    def __init__(
        self,
        site: str,
        context: TapContext,
        *,
        batch_dim: int | None,
        channel_dim: int,
        never_negative: bool,
    ) -> None:
        super().__init__()
        self.site, self.context, self.batch_dim = site, context, batch_dim
        self.channel_dim, self.never_negative = channel_dim, never_negative

    def forward(self, x: Tensor) -> EdgeSummary | None:
        """The summary of ``x``; ``None`` when it is empty."""
        sampler = self.context.sampler
        if not isinstance(x, Tensor) or not x.is_floating_point() or sampler is None:
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise DataError(
                "K334",
                f"observing {self.site}",
                where=self.site,
                why=f"it is {kind}; only tensors of floating-point numbers have a range",
            )
        return summarize(
            x,
            sampler,
            batch_dim=self.batch_dim,
            channel_dim=self.channel_dim,
            never_negative=self.never_negative,
        )


def observing(
    network: fx.GraphModule,
    taps: Mapping[str, str],
    context: TapContext,
    *,
    batch_symbol: str | None = None,
    layout_free: bool = False,
) -> fx.GraphModule:
    """A module that runs ``network`` and answers one summary for each tap.

    Args:
        network: Not changed; its modules and parameters are shared.
        taps: For each site the name of the node whose output is observed.
        context: Handed to the taps.
        batch_symbol: The symbol that stands for the batch size in the nodes' shapes; without it
            samples are assumed to lie along dimension 0.
        layout_free: Replace ``view`` by ``reshape``, so that the graph also runs on tensors in
            channels-last layout.

    Returns:
        A module that takes one tensor for each placeholder in order and returns a tuple in the
        order of ``taps``.

    Raises:
        SchemeError: K334 when a tap names no node of the graph.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(network.graph, copies)
    originals = {node.name: node for node in network.graph.nodes}
    modules: dict[str, Any] = {
        node.target: _attribute(network, node.target)
        for node in graph.nodes
        if node.op in ("call_module", "get_attr")
    }
    if layout_free:
        views_to_reshapes_(graph)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    calls: dict[str, fx.Node] = {}
    for number, (site, name) in enumerate(taps.items()):
        if name not in originals:
            _refuse_unknown(site, name, originals)
        node = originals[name]
        tap = EdgeTap(
            site,
            context,
            batch_dim=_batch_dim(node, batch_symbol),
            channel_dim=_channel_dim(network, node),
            never_negative=is_never_negative(node),
        )
        target = _free_name(f"tap_{number}", modules)
        modules[target] = tap
        after = inputs[-1] if node.op == "placeholder" else copies[node]
        with graph.inserting_after(after):
            calls[site] = graph.call_module(target, (copies[node],))
    graph.output(tuple(calls[site] for site in taps))
    runner = fx.GraphModule(modules, graph, class_name="Observing")
    runner.graph.eliminate_dead_code()
    clamp_in_place_(runner.graph)
    runner.recompile()
    return runner


def is_never_negative(node: fx.Node) -> bool:
    """Whether the operators that lead to ``node`` guarantee values of at least 0."""
    while True:
        kind = kind_of(node)
        if kind in _AT_LEAST_ZERO:
            return True
        passes = kind in _KEEPS_SIGN or (kind == "pad" and not _pads_with_negative(node))
        sources = node.all_input_nodes
        if not passes or not sources:
            return False
        node = sources[0]


def _pads_with_negative(node: fx.Node) -> bool:
    values = (*node.args[2:], *node.kwargs.values())
    return any(isinstance(value, (int, float)) and value < 0 for value in values)


def _refuse_unknown(site: str, name: str, known: Mapping[str, fx.Node]) -> None:
    near = difflib.get_close_matches(name, known, n=3)
    raise SchemeError(
        "K334",
        f"observing {site} at the node {name!r}",
        where=site,
        why="the network has no node of that name",
        help=f"did you mean {' or '.join(near)}?" if near else "take the taps from this network",
    )


def _attribute(root: nn.Module, path: Any) -> Any:
    value: Any = root
    for part in str(path).split("."):
        value = getattr(value, part)
    return value


def _free_name(wanted: str, taken: Mapping[str, Any]) -> str:
    roots = {str(path).split(".")[0] for path in taken}
    while wanted in roots:
        wanted += "_"
    return wanted


def _batch_dim(node: fx.Node, symbol: str | None) -> int | None:
    """The dimension whose size is a multiple of the batch size."""
    value = node.meta.get("val")
    if symbol is None or not isinstance(value, Tensor):
        return 0
    for dim, size in enumerate(value.shape):
        if isinstance(size, torch.SymInt) and symbol in map(str, size.node.expr.free_symbols):
            return dim
    return None


def _channel_dim(network: fx.GraphModule, node: fx.Node) -> int:
    """Dimension 1 for what convolutions read and write, else the last."""
    value = node.meta.get("val")
    rank = value.dim() if isinstance(value, Tensor) else None
    around = [_module_of(network, n) for n in (node, *node.all_input_nodes, *node.users)]
    if any(isinstance(module, _FEATURES_SECOND) for module in around):
        return 1
    if any(isinstance(_module_of(network, user), nn.Linear) for user in node.users):
        return -1
    return -1 if rank is not None and rank <= 3 else 1


def _module_of(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    if node.op != "call_module":
        return None
    module = _attribute(network, node.target)
    return module if isinstance(module, nn.Module) else None
