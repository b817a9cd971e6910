"""Keeps recurrent layers whole.

``torch.export`` unrolls ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` over time and thereby fixes the
sequence length. So while a model is exported, each of them is one ``kompakt::rnn`` call; in the
Network that call is the real layer again, and any length works. An exporter that needs the graph
once more uses :func:`whole_rnns` around it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from kompakt.network import ops
from kompakt.network.operators import arguments, operator_name

_STOCK = (nn.LSTM.forward, nn.GRU.forward, nn.RNN.forward)
_REGISTERED = ops.rnn


@contextmanager
def whole_rnns(model: nn.Module) -> Iterator[None]:
    """While this context lasts, every recurrent layer of ``model`` is a single ``kompakt::rnn``
    call.
    """
    patched: list[nn.RNNBase] = []
    for path, module in nn.Module.named_modules(model):
        if is_whole_rnn(module):
            module.__dict__["forward"] = _leaf(module, path)
            patched.append(module)
    try:
        yield
    finally:
        for module in patched:
            del module.__dict__["forward"]


def is_whole_rnn(module: nn.Module) -> bool:
    """Whether ``module`` is a recurrent layer with PyTorch's own ``forward``."""
    return isinstance(module, nn.RNNBase) and type(module).forward in _STOCK


def restore_rnns(graph: fx.Graph) -> set[str]:
    """Replace every ``kompakt::rnn`` call in ``graph`` by a call of the layer it names; returns
    those names.
    """
    names = set()
    for node in list(graph.nodes):
        if operator_name(node) == "kompakt.rnn":
            names.add(_restore(graph, node))
    return names


def _leaf(module: nn.RNNBase, path: str) -> Any:
    """A ``forward`` for ``module`` that is one operator."""

    def forward(input: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        if not isinstance(input, Tensor):
            raise TypeError(
                f"{type(module).__name__} '{path}' gets a {type(input).__name__}; only padded "
                "tensors can be captured"
            )
        states = [] if hx is None else [hx] if isinstance(hx, Tensor) else list(hx)
        weights = [weight for group in module.all_weights for weight in group]
        results = torch.ops.kompakt.rnn(
            input,
            states,
            weights,
            path,
            module.mode,
            module.hidden_size,
            module.num_layers,
            2 if module.bidirectional else 1,
            module.batch_first,
            module.proj_size,
        )
        return results[0], tuple(results[1:]) if module.mode == "LSTM" else results[1]

    return forward


def _restore(graph: fx.Graph, node: fx.Node) -> str:
    found = arguments(node)
    name, states = str(found["path"]), list(found["states"])
    is_lstm = found["mode"] == "LSTM"
    hidden = () if not states else ((states[0], states[1]),) if is_lstm else (states[0],)
    results = list(node.meta["val"])
    with graph.inserting_before(node):
        call = graph.call_module(name, (found["x"], *hidden))
        call.meta.update(node.meta)
        call.meta["val"] = (results[0], tuple(results[1:]) if is_lstm else results[1])
        for user in list(node.users):
            position = int(user.args[1])  # type: ignore[arg-type]
            user.replace_all_uses_with(_result(graph, call, position, is_lstm))
            graph.erase_node(user)
    graph.erase_node(node)
    return name


def _result(graph: fx.Graph, call: fx.Node, position: int, is_lstm: bool) -> fx.Node:
    """The node that picks one result out of what the layer returns: ``(output, (h, c))`` or
    ``(output, h)``.
    """
    value = call.meta["val"]
    if position == 0 or not is_lstm:
        return _item(graph, call, position, value[position])
    states = _item(graph, call, 1, value[1])
    return _item(graph, states, position - 1, value[1][position - 1])


def _item(graph: fx.Graph, source: fx.Node, position: int, value: Any) -> fx.Node:
    item = graph.call_function(operator.getitem, (source, position))
    item.meta.update({k: v for k, v in source.meta.items() if k != "site"})
    item.meta["val"] = value
    return item
