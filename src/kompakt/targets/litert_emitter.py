"""A TFLite graph that grows operator by operator.

Tensors of a TFLite graph keep channels last, those of a network channels first. Every value therefore carries the
*order* its dimensions are stored in, and only a reader that needs another order causes a ``TRANSPOSE``; where such a
transposition moves nothing but dimensions of size 1 it is a ``RESHAPE``. Values hold floats, or codes on the grid of
a quantizer: a quantizer is not an operator here but the type of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from kompakt.network.network import Network
from kompakt.network.operators import fixed_size, value
from kompakt.quantize.place import is_quantizer_call, quantizer_of
from kompakt.quantize.quantizer import Quantizer
from kompakt.targets.litert_schema import TYPES, Quantization, TensorType

Order = tuple[int, ...]
Form = Callable[["Emitter", fx.Node, dict[str, Any]], Any]


class NoForm(Exception):
    """This call has no form in the tables; the message says which and why."""


@dataclass(frozen=True)
class Grid:
    """The codes of a tensor: one scale and zero point, and the type they are stored in."""

    scale: float
    zero_point: int
    dtype: str

    @staticmethod
    def of(quantizer: Quantizer) -> Grid:
        """The grid of a quantizer."""
        scale, zero_point = quantizer.parameters_()
        return Grid(float(scale), int(zero_point), quantizer.format.storage)


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        tensor: Its index.
        order: Stored dimension k is dimension ``order[k]`` of the network's tensor.
        grid: Where it holds codes.
        dtype: Element type.
    """

    tensor: int
    order: Order
    grid: Grid | None
    dtype: str


@dataclass
class TensorRow:
    """One row of the table of tensors."""

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...] | None
    dtype: str
    quantization: Quantization | None = None
    content: NDArray[Any] | None = None


@dataclass(frozen=True)
class OperatorRow:
    """One operator: its name in the schema, tensors, and settings."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: str
    settings: dict[str, Any]


def plain(rank: int) -> Order:
    """The order of a network's own tensor."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """Batch, spatial dimensions, channels."""
    return (0, *range(2, rank), 1) if rank > 2 else plain(rank)


class Emitter:
    """Grows the graph.

    Args:
        network: The network that is written; its graph is only read.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.values: dict[fx.Node, Any] = {}
        self.tensors: list[TensorRow] = []
        self.operators: list[OperatorRow] = []
        self.codes: dict[str, int] = {}
        self.fused: dict[fx.Node, fx.Node] = {}
        self.decoded: dict[Any, int] = {}
        self.orders: dict[int, Order] = {}
        self.reserved: set[str] = set()
        self._names: set[str] = set()
        self._constants: dict[tuple[Any, ...], int] = {}
        self._moved: dict[tuple[int, Order], Value] = {}
        self._floats: dict[int, Value] = {}
        self.stem = ""

    # Tensors

    def fresh(self, stem: str) -> str:
        """``stem``, or with a number behind it when that is taken."""
        name, count = stem, 1
        while name in self._names or name in self.reserved:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def row(self, row: TensorRow) -> int:
        """Append a tensor; returns its index."""
        self.tensors.append(row)
        return len(self.tensors) - 1

    def constant(
        self, numbers: Any, dtype: str, quantization: Quantization | None = None, name: str = ""
    ) -> int:
        """A constant tensor; equal ones are stored once."""
        array = np.ascontiguousarray(np.asarray(numbers, dtype=TYPES[dtype].numpy))
        array = array.reshape(np.shape(numbers))
        key = (dtype, array.shape, array.tobytes(), quantization)
        if key not in self._constants:
            name = self.fresh(name or "constant")
            self._constants[key] = self.row(
                TensorRow(name, array.shape, None, dtype, quantization, array)
            )
        return self._constants[key]

    def stored(self, name: str, tensor: Tensor) -> Value:
        """A float or integer tensor of the network as a constant."""
        array, dtype = _numpy(tensor)
        return Value(self.constant(array, dtype, name=name), plain(array.ndim), None, dtype)

    def new(
        self,
        shape: Sequence[Any],
        order: Order,
        *,
        grid: Grid | None = None,
        dtype: str = "float32",
        name: str = "",
    ) -> Value:
        """A tensor that an operator makes.

        Args:
            shape: Sizes in the network's order; dynamic ones are symbols.
            order: The order it is stored in.
            grid: Where it holds codes.
            dtype: Element type of a tensor without codes.
            name: Its name, or the name of the call that is written.
        """
        known = [fixed_size(shape[d]) for d in order]
        sizes = tuple(_for_one_sample(shape[d]) for d in order)
        signature = tuple(-1 if size is None else size for size in known)
        quantization = None if grid is None else Quantization((grid.scale,), (grid.zero_point,))
        kind = dtype if grid is None else grid.dtype
        row = TensorRow(
            self.fresh(name or self.stem),
            sizes,
            signature if None in known else None,
            kind,
            quantization,
        )
        return Value(self.row(row), order, grid, kind)

    def stored_shape(self, sizes: Sequence[int | None], like: Value, name: str) -> Value:
        """A tensor of these stored sizes (None when dynamic), of the type and order of another."""
        shape: list[Any] = [None] * len(sizes)
        for place, dimension in enumerate(like.order):
            shape[dimension] = sizes[place]
        return self.new(shape, like.order, grid=like.grid, dtype=like.dtype, name=name)

    def op(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: str = "",
        **settings: Any,
    ) -> None:
        """Append an operator."""
        self.operators.append(OperatorRow(name, tuple(inputs), tuple(outputs), options, settings))

    # What calls read

    def get(self, node: fx.Node, order: Order | None = None) -> Value:
        """The value of a node, in the order wanted (any when None)."""
        found = self.values[node]
        if not isinstance(found, Value):
            raise NoForm(f"{node.name} is no single tensor")
        return found if order is None else self.ordered(found, value(node).shape, order)

    def plain(self, node: fx.Node) -> Value:
        """The value of a node in the network's own order."""
        return self.get(node, plain(value(node).dim()))

    def flat(self, node: fx.Node) -> Value:
        """The value of a node with its elements in the network's order, whatever its dimensions of size 1."""
        found, shape = self.get(node), value(node).shape
        long = [d for d in found.order if fixed_size(shape[d]) != 1]
        return found if long == sorted(long) else self.plain(node)

    def ordered(self, found: Value, shape: Sequence[Any], order: Order) -> Value:
        """A value in another order; ``shape`` is the network's."""
        if found.order == order:
            return found
        key = (found.tensor, order)
        if key in self._moved:
            return self._moved[key]
        row = self.tensors[found.tensor]
        permutation = [found.order.index(d) for d in order]
        if row.content is not None:
            content = row.content.transpose(permutation)
            made = self.constant(content, row.dtype, row.quantization, row.name)
            result = Value(made, order, found.grid, found.dtype)
        else:
            result = self.new(shape, order, grid=found.grid, dtype=found.dtype)
            self._move(found, result, permutation, [fixed_size(shape[d]) for d in order])
        self._moved[key] = result
        return result

    def _move(
        self, given: Value, made: Value, permutation: list[int], sizes: list[int | None]
    ) -> None:
        long = [p for p, size in zip(permutation, sizes, strict=True) if size != 1]
        if long == sorted(long) and sizes.count(None) <= 1:
            self.reshape(given, made, sizes)
        else:
            inputs = (given.tensor, self.constant(permutation, "int32"))
            self.op("TRANSPOSE", inputs, (made.tensor,), "TransposeOptions")

    def reshape(self, given: Value, made: Value, sizes: Sequence[int | None]) -> None:
        """Append a ``RESHAPE`` to stored sizes, of which one may be dynamic."""
        wanted = [-1 if size is None else size for size in sizes]
        if wanted.count(-1) > 1:
            raise NoForm("a reshape with several dynamic sizes")
        inputs = (given.tensor, self.constant(wanted, "int32"))
        self.op("RESHAPE", inputs, (made.tensor,), "ReshapeOptions", newShape=wanted)

    def as_float(self, found: Value) -> Value:
        """The value itself, or what its codes stand for."""
        if found.grid is None:
            return found
        if found.tensor not in self._floats:
            row = self.tensors[found.tensor]
            twin = TensorRow(self.fresh(f"{row.name}_float"), row.shape, row.signature, "float32")
            made = Value(self.row(twin), found.order, None, "float32")
            self.op("DEQUANTIZE", (found.tensor,), (made.tensor,), "DequantizeOptions")
            self._floats[found.tensor] = made
        return self._floats[found.tensor]

    def quantized(self, found: Value, grid: Grid, name: str = "") -> Value:
        """The value as codes of a grid."""
        if found.grid == grid:
            return found
        row = self.tensors[found.tensor]
        quantization = Quantization((grid.scale,), (grid.zero_point,))
        twin = TensorRow(
            self.fresh(name or self.stem), row.shape, row.signature, grid.dtype, quantization
        )
        made = Value(self.row(twin), found.order, grid, grid.dtype)
        self.op("QUANTIZE", (found.tensor,), (made.tensor,), "QuantizeOptions")
        return made

    # What is behind a call

    def grid_behind(self, node: fx.Node) -> Grid | None:
        """The grid that every reader of a node's output wants, or None when some want floats."""
        if not node.users or not all(is_quantizer_call(self.network, u) for u in node.users):
            return None
        quantizers = {quantizer_of(self.network, user) for user in node.users}
        first = next(iter(quantizers))
        return Grid.of(first) if len(quantizers) == 1 and first.stage != "off" else None

    def result(
        self, node: fx.Node, order: Order, grid: Grid | None = None, dtype: str | None = None
    ) -> Value:
        """The tensor that holds the output of a call."""
        fake = value(node)
        kind = dtype or _DTYPES[fake.dtype]
        name = str(node.meta.get("site", node.name))
        return self.new(fake.shape, order, grid=grid, dtype=kind, name=name)


_DTYPES: dict[torch.dtype, str] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.int16: "int16",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.bool: "bool",
}


def _for_one_sample(size: Any) -> int:
    """A size where every dynamic dimension is 1, for interpreters that know no dynamic ones."""
    known = fixed_size(size)
    if known is not None:
        return known
    if size is None:
        return 1
    formula = size.node.expr
    return int(formula.subs(dict.fromkeys(formula.free_symbols, 1)))


def dtype_name(dtype: torch.dtype) -> str:
    """The name of an element type here.

    Raises:
        NoForm: TFLite has none such.
    """
    if dtype not in _DTYPES:
        raise NoForm(f"{dtype} has no type in TFLite")
    return _DTYPES[dtype]


def _numpy(tensor: Tensor) -> tuple[NDArray[Any], str]:
    detached = tensor.detach()
    return detached.numpy(), dtype_name(detached.dtype)


__all__ = ["Emitter", "Form", "Grid", "NoForm", "TensorType", "Value", "channels_last", "plain"]
