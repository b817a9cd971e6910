"""What a node costs: multiply-accumulate operations (MACs) for one sample.

Dynamic dimensions other than the batch have the size of the example inputs. Only products with
weights or between activations are counted; element-wise operators, normalisation and lookups count
as zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn

from kompakt.network.kinds import kind_of, layer_of
from kompakt.network.network import Network
from kompakt.network.operators import fixed_size, operator_name, value

_PRODUCTS = frozenset(("aten.baddbmm", "aten.addmm", "aten.addbmm"))


class SizeReader:
    """Reads symbolic sizes of one network as names or as the numbers of its example.

    Args:
        network: Its placeholders and input specs say which symbol is which dimension.
    """

    def __init__(self, network: Network) -> None:
        self.names: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        placeholders = network.graph.find_nodes(op="placeholder")
        triples = zip(placeholders, network.input_specs, network.example_inputs(), strict=True)
        for node, spec, example in triples:
            for size, name, number in zip(
                value(node).shape, spec.shape, example.shape, strict=True
            ):
                if fixed_size(size) is None:
                    self.names.setdefault(str(size), str(name))
                    self.numbers.setdefault(str(size), number)
        self.batch = max(
            (n for s, n in self.numbers.items() if self.names[s] == "batch"), default=1
        )

    def number(self, size: Any) -> int:
        """The size in the example."""
        fixed = fixed_size(size)
        if fixed is not None:
            return fixed
        symbols = getattr(size.node.expr, "free_symbols", ())
        known = {symbol: self.numbers.get(str(symbol), 1) for symbol in symbols}
        return int(size.node.expr.subs(known))

    def numbers_of(self, thing: Any) -> tuple[int, ...]:
        """Shape of a node's (first) tensor in the example."""
        tensor = first_tensor(value(thing))
        return () if tensor is None else tuple(self.number(size) for size in tensor.shape)

    def named(self, thing: Any) -> tuple[int | str, ...]:
        """Shape of a node's (first) tensor with dynamic dimensions by name."""
        tensor = first_tensor(value(thing))
        if tensor is None:
            return ()
        return tuple(self._name(size) for size in tensor.shape)

    def _name(self, size: Any) -> int | str:
        fixed = fixed_size(size)
        if fixed is not None:
            return fixed
        return self.names.get(str(size)) or _renamed(str(size), self.names)


def macs_of(node: fx.Node, sizes: SizeReader) -> int:
    """MACs of one node for one sample.

    Args:
        node: Any node of the network ``sizes`` was made for.
        sizes: Reads its symbolic shapes.
    """
    kind = kind_of(node)
    count = _COUNTS.get("matmul" if operator_name(node) in _PRODUCTS else kind)
    return count(node, sizes) // sizes.batch if count is not None else 0


def first_tensor(produced: Any) -> Tensor | None:
    """The first tensor of what a node yields, however nested."""
    if isinstance(produced, Tensor):
        return produced
    if isinstance(produced, (tuple, list)):
        return next((t for t in map(first_tensor, produced) if t is not None), None)
    return None


def _weight_of(node: fx.Node) -> Tensor | None:
    layer = layer_of(node)
    if layer is not None:
        weight = getattr(layer, "weight", None)
        return weight if isinstance(weight, Tensor) else None
    found = value(node.args[1]) if len(node.args) > 1 else None
    return found if isinstance(found, Tensor) else None


def _convolution(node: fx.Node, sizes: SizeReader) -> int:
    """Every output element is a sum over one filter."""
    weight = _weight_of(node)
    each = math.prod(weight.shape[1:]) if weight is not None else 0
    return math.prod(sizes.numbers_of(node)) * each


def _transposed_convolution(node: fx.Node, sizes: SizeReader) -> int:
    """Every input element is spread over one filter."""
    weight = _weight_of(node)
    each = math.prod(weight.shape[1:]) if weight is not None else 0
    return math.prod(sizes.numbers_of(node.args[0])) * each


def _matrix_product(node: fx.Node, sizes: SizeReader) -> int:
    skip = 1 if operator_name(node) in _PRODUCTS else 0
    return math.prod(sizes.numbers_of(node)) * sizes.numbers_of(node.args[skip])[-1]


def _attention(node: fx.Node, sizes: SizeReader) -> int:
    """Scores between every query and key, then the weighted sum of values."""
    query, key, values = (sizes.numbers_of(argument) for argument in node.args[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + values[-1])


def _recurrent(node: fx.Node, sizes: SizeReader) -> int:
    """Every weight matrix is applied once for each sample and time step."""
    layer = layer_of(node)
    if layer is None:
        return 0
    matrices = sum(w.numel() for w in layer.parameters() if w.ndim == 2)
    return math.prod(sizes.numbers_of(node.args[0])[:-1]) * matrices


_COUNTS = {
    "conv": _convolution,
    "conv_transpose": _transposed_convolution,
    "linear": _matrix_product,
    "matmul": _matrix_product,
    "attention": _attention,
    "rnn": _recurrent,
}


def _renamed(formula: str, names: Mapping[str, str]) -> str:
    for symbol, name in names.items():
        formula = formula.replace(symbol, name)
    return formula


def storage_of(layer: nn.Module) -> tuple[int, int]:
    """Number of parameters of a layer, and their bytes."""
    parameters = list(layer.parameters())
    return (
        sum(p.numel() for p in parameters),
        sum(p.numel() * p.element_size() for p in parameters),
    )
