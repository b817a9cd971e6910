"""Reading ATen calls: their arguments by name, and what they do to memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

# PyTorch has no public name for the types of what `torch.ops` holds; this is the only import.
from torch._ops import HigherOrderOperator, OpOverload

Overload = OpOverload


def is_operator(node: fx.Node) -> bool:
    """Whether ``node`` calls an operator that has a schema (ATen, or any registered library)."""
    return node.op == "call_function" and isinstance(node.target, OpOverload)


def is_region(node: fx.Node) -> bool:
    """Whether ``node`` runs a subgraph under rules of its own (no_grad, autocast, control flow)."""
    return isinstance(node.target, HigherOrderOperator)


def operator_name(node: fx.Node) -> str:
    """``"aten.add"`` for any overload of ``aten::add``; empty for anything that is not an
    operator.
    """
    if not isinstance(node.target, OpOverload):
        return ""
    return str(node.target.overloadpacket)


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an operator call by schema name, defaults included."""
    assert isinstance(node.target, OpOverload)
    found: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if position < len(node.args):
            found[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            found[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            found[argument.name] = argument.default_value
    return found


def written_arguments(target: Any) -> list[str]:
    """Names of the arguments that an operator changes in place."""
    if not isinstance(target, OpOverload):
        return []
    return [
        argument.name
        for argument in target._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def returns_view(target: Any) -> bool:
    """Whether the schema says that the result shares memory with an argument."""
    if not isinstance(target, OpOverload):
        return False
    return any(
        result.alias_info is not None and not result.alias_info.is_write
        for result in target._schema.returns
    )


def value(node: Any) -> Any:
    """The fake value of a node, or the thing itself when it is not a node."""
    return node.meta.get("val") if isinstance(node, fx.Node) else node


def fixed_size(size: Any) -> int | None:
    """A size as an integer; None when it is a symbol that may change.

    A symbol that the model's code pinned to one number is still a ``torch.SymInt``, but prints as
    that number.
    """
    if isinstance(size, int):
        return size
    text = str(size)
    return int(text) if text.isdigit() else None


def shape(node: fx.Node) -> tuple[Any, ...]:
    """Shape of a node that yields one tensor; dynamic sizes are ``torch.SymInt``."""
    tensor = value(node)
    return tuple(tensor.shape) if isinstance(tensor, Tensor) else ()


def fake_result(target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What ``target`` would return for nodes or values, as fake tensors; nothing is computed."""
    values = fx.node.map_aggregate((args, kwargs), value)
    mode = next(
        (v.fake_mode for v in _leaves(values) if isinstance(v, Tensor) and hasattr(v, "fake_mode")),
        None,
    )
    if mode is None:
        return None
    with torch.no_grad(), mode:
        return target(*values[0], **values[1])


def remove_dead_nodes(graph: fx.Graph) -> None:
    """Erase nodes that nothing reads; inputs and operators that change memory stay."""
    for node in reversed(list(graph.nodes)):
        keeps = node.op in ("placeholder", "output") or written_arguments(node.target)
        if not node.users and not keeps:
            graph.erase_node(node)


def _leaves(values: Any) -> list[Any]:
    found: list[Any] = []
    fx.node.map_aggregate(values, found.append)
    return found
