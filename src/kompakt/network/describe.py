"""Describes how a captured network is called: names, shapes, ranges, structures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from kompakt.network import tree
from kompakt.network.examples import Example, narrowed
from kompakt.network.interface import Interface, TensorSpec
from kompakt.network.operators import fixed_size
from kompakt.network.program import Traced
from kompakt.network.root import Tree

_UNBOUNDED = 1 << 31


def describe(
    model: nn.Module, program: ExportedProgram, example: Example, traced: Traced, built: Tree
) -> Interface:
    """The interface of the network that is being made from ``traced``.

    Args:
        model: The module that was exported.
        program: Its exported program.
        example: The inputs it was exported with.
        traced: The flat graph.
        built: The module tree, for renamed and dropped tensors.
    """
    symbols = _symbols(traced.graph, example)
    output_structure = program.call_spec.out_spec
    assert output_structure is not None
    return Interface(
        signature=example.signature,
        input_structure=example.structure,
        constants={i: v for i, v in enumerate(example.leaves) if not isinstance(v, Tensor)},
        leaf_names=example.names,
        input_specs=_input_specs(traced.graph, symbols),
        output_structure=output_structure,
        output_specs=_output_specs(traced.graph, output_structure, symbols),
        ranges=_ranges(program, symbols),
        example=tuple(t.detach() for t in narrowed(example).tensors),
        original_class=_class_name(model),
        notes=tuple(dict.fromkeys(traced.notes)),
        renamed=built.renamed,
        dropped=built.dropped,
    )


def _symbols(graph: fx.Graph, example: Example) -> dict[str, str]:
    """PyTorch's symbol for a size → the name of that dimension."""
    symbols: dict[str, str] = {}
    placeholders = {str(node.target): node for node in graph.find_nodes(op="placeholder")}
    for name, axes in zip(example.tensor_names, example.tensor_axes, strict=True):
        tensor = placeholders[name].meta["val"]
        for axis, dimension in axes.items():
            symbols.setdefault(str(tensor.shape[axis]), dimension)
    return symbols


def _sizes(tensor: Tensor, symbols: Mapping[str, str]) -> tuple[int | str, ...]:
    sizes = [(size, fixed_size(size)) for size in tensor.shape]
    return tuple(_formula(size, symbols) if fixed is None else fixed for size, fixed in sizes)


def _formula(size: Any, symbols: Mapping[str, str]) -> str:
    return re.sub(r"\w+", lambda word: symbols.get(word.group(), word.group()), str(size))


def _input_specs(graph: fx.Graph, symbols: Mapping[str, str]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(str(n.target), _sizes(n.meta["val"], symbols), n.meta["val"].dtype)
        for n in graph.find_nodes(op="placeholder")
    )


def _output_specs(
    graph: fx.Graph, structure: tree.TreeSpec, symbols: Mapping[str, str]
) -> tuple[TensorSpec, ...]:
    leaves = list(graph.output_node().args[0])  # type: ignore[arg-type]
    names = tree.leaf_names(tree.unflatten(leaves, structure), "output")
    specs = []
    for name, leaf in zip(names, leaves, strict=True):
        value = leaf.meta.get("val") if isinstance(leaf, fx.Node) else leaf
        if isinstance(value, Tensor):
            specs.append(TensorSpec(name, _sizes(value, symbols), value.dtype))
    return tuple(specs)


def _ranges(
    program: ExportedProgram, symbols: Mapping[str, str]
) -> dict[str, tuple[int, int | None]]:
    """Limits of every dynamic dimension. PyTorch never exports sizes below 2, but a graph accepts 1
    as well.
    """
    ranges: dict[str, tuple[int, int | None]] = {}
    for symbol, limits in program.range_constraints.items():
        name = symbols.get(str(symbol))
        if name is not None:
            low, high = _integer(limits.lower), _integer(limits.upper)
            ranges[name] = (1 if low is None or low <= 2 else low, high)
    return ranges


def _integer(limit: Any) -> int | None:
    try:
        number = int(limit)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None
    return number if abs(number) < _UNBOUNDED else None


def _class_name(model: nn.Module) -> str:
    if hasattr(model, "interface") and isinstance(model.interface, Interface):
        return model.interface.original_class
    return f"{type(model).__module__}.{type(model).__qualname__}"
