"""A network written node by node: the fast way to ONNX, for networks whose every operator has a form here.

Layers, quantizers and ATen calls each have one function in a table (``onnx_layer_forms``, ``onnx_operator_forms``)
that writes the ONNX operators for one call. Nothing is traced, so it takes milliseconds, and nodes keep the names of
the user's layers. What the tables do not know goes through ``torch.onnx`` (see ``onnx_export``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from kompakt.network.network import Network
from kompakt.network.operators import fixed_size, value

OPSET = 21

DTYPES: dict[torch.dtype, ir.DataType] = {
    torch.float32: ir.DataType.FLOAT,
    torch.float64: ir.DataType.DOUBLE,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
    torch.int64: ir.DataType.INT64,
    torch.int32: ir.DataType.INT32,
    torch.int16: ir.DataType.INT16,
    torch.int8: ir.DataType.INT8,
    torch.uint8: ir.DataType.UINT8,
    torch.uint16: ir.DataType.UINT16,
    torch.bool: ir.DataType.BOOL,
    torch.float8_e4m3fn: ir.DataType.FLOAT8E4M3FN,
}

Form = Callable[["Emitter", fx.Node, dict[str, Any]], "Emitted"]
Emitted = Any
"""What a call becomes: one value, or a list of values for calls that return several."""


class NoForm(Exception):
    """This call has no form in the tables; the message says which and why."""


class Emitter:
    """An ONNX graph that grows node by node.

    Args:
        network: The network that is written; its graph is only read.
        opset: Version of the standard operators to write.
    """

    def __init__(self, network: Network, opset: int = OPSET) -> None:
        self.network, self.opset = network, opset
        self.values: dict[fx.Node, Emitted] = {}
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self._tensors: dict[tuple[int, bool], tuple[Tensor, ir.Value]] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._sizes: dict[tuple[int, int], ir.Value] = {}
        self._names: set[str] = {spec.name for spec in network.output_specs}
        self._call: fx.Node | None = None
        self._symbols = _symbol_names(network)

    # What forms are written with

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> Any:
        """Append an operator; returns its value, or a list of values when ``outputs`` is not 1."""
        made = [ir.Value(name=self.fresh(self._stem())) for _ in range(outputs)]
        given = {k: v for k, v in attributes.items() if v is not None}
        node = ir.node(op_type, inputs, attributes=given, outputs=made, domain=domain)
        node.name = self.fresh(f"{self._stem()}/{op_type}")
        self.nodes.append(node)
        return made[0] if outputs == 1 else made

    def tensor(self, name: str, tensor: Tensor, *, transposed: bool = False) -> ir.Value:
        """A parameter or buffer as an initializer under its own name; tied ones are stored once.

        Args:
            name: Its name.
            tensor: Its content.
            transposed: Whether the file holds it transposed.
        """
        known = self._tensors.get((id(tensor), transposed))
        if known is None:
            content = _numpy(tensor.t() if transposed else tensor)
            made = self._initializer(self.fresh(name), content, DTYPES[tensor.dtype])
            known = self._tensors[id(tensor), transposed] = (tensor, made)
        return known[1]

    def constant(self, numbers: Any, dtype: torch.dtype = torch.int64) -> ir.Value:
        """A small constant; equal ones are stored once."""
        array = np.asarray(numbers, dtype=DTYPES[dtype].numpy())
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = self.fresh("constant")
            self._constants[key] = self._initializer(name, array, DTYPES[dtype])
        return self._constants[key]

    def fresh(self, stem: str) -> str:
        """``stem``, or with a number behind it when that is taken."""
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def get(self, argument: Any, dtype: torch.dtype | None = None) -> Any:
        """The value of a node or of a number; a list for a list.

        Args:
            argument: A node, a number, or a list of them.
            dtype: Element type wanted; values of another type are cast.
        """
        if isinstance(argument, list | tuple):
            return [self.get(item, dtype) for item in argument]
        if not isinstance(argument, fx.Node):
            return self.constant(argument, dtype or _dtype_of_number(argument))
        found = self.values[argument]
        had = dtype_of(argument)
        if had is None and isinstance(found, ir.Value):
            found, had = self.op("Squeeze", found, self.constant([0])), torch.int64  # a size
        if dtype is not None and had is not None and had != dtype:
            return self.cast(found, dtype)
        return found

    def cast(self, given: ir.Value, dtype: torch.dtype) -> ir.Value:
        """The value in another element type."""
        return self.op("Cast", given, to=DTYPES[dtype].value)  # type: ignore[no-any-return]

    def sizes(self, wanted: Sequence[Any]) -> ir.Value:
        """Sizes (numbers and symbolic sizes) as one int64 vector."""
        fixed = [size if isinstance(size, int) else fixed_size(value(size)) for size in wanted]
        if all(size is not None for size in fixed):
            return self.constant(fixed)
        parts = [
            self.constant([known]) if known is not None else self.values[given]
            for given, known in zip(wanted, fixed, strict=True)
        ]
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=0)

    def size(self, node: fx.Node, axis: int) -> ir.Value:
        """The size of one dimension as an int64 vector of one."""
        shape = value(node).shape
        axis %= len(shape)
        known = fixed_size(shape[axis])
        if known is not None:
            return self.constant([known])
        source = self.values[node]
        key = (id(source), axis)
        if key not in self._sizes:
            self._sizes[key] = self.op("Shape", source, start=axis, end=axis + 1)
        return self._sizes[key]

    def shape_of(self, node: fx.Node, source: fx.Node) -> ir.Value:
        """The shape ``node`` results in when ``source`` is reshaped: constant, with at most one -1.

        Raises:
            NoForm: When more than one dimension is dynamic and it is not plain which ones.
        """
        target = [fixed_size(size) for size in value(node).shape]
        if target.count(None) <= 1:
            return self.constant([-1 if size is None else size for size in target])
        before = {str(size): axis for axis, size in enumerate(value(source).shape)}
        parts: list[ir.Value | None] = []
        for size, known in zip(value(node).shape, target, strict=True):
            if known is None and str(size) not in before:
                parts.append(None)
            elif known is None:
                parts.append(self.size(source, before[str(size)]))
            else:
                parts.append(self.constant([known]))
        if parts.count(None) > 1:
            raise NoForm(f"{node.name}: a reshape with several dynamic sizes")
        return self.op(  # type: ignore[no-any-return]
            "Concat", *(self.constant([-1]) if p is None else p for p in parts), axis=0
        )

    # The walk

    def emit(self, node: fx.Node, form: Form, arguments: dict[str, Any]) -> None:
        """Write one call."""
        self._call = node
        result = form(self, node, arguments)
        self.values[node] = result
        tensor = value(node)
        if isinstance(result, ir.Value) and isinstance(tensor, Tensor):
            self._describe(result, tensor)
        elif isinstance(result, list) and isinstance(tensor, list | tuple):
            for part, fake in zip(result, tensor, strict=False):
                if isinstance(part, ir.Value) and isinstance(fake, Tensor):
                    self._describe(part, fake)

    def model(self, outputs: Sequence[ir.Value]) -> ir.Model:
        """The finished model."""
        inputs = [
            self.values[node] for node in self.network.graph.nodes if node.op == "placeholder"
        ]
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self.nodes,
            initializers=list(self.initializers.values()),
            opset_imports={"": self.opset},
            name="main_graph",
        )
        return ir.Model(graph, ir_version=10)

    def input(self, node: fx.Node, name: str) -> None:
        """Declare a graph input."""
        made = ir.Value(name=name)
        self._names.add(name)
        self._describe(made, value(node))
        self.values[node] = made

    def _describe(self, made: ir.Value, fake: Tensor) -> None:
        if made.type is None:
            made.type = ir.TensorType(DTYPES[fake.dtype])
        if made.shape is None:
            made.shape = ir.Shape([self._dimension(size) for size in fake.shape])

    def _dimension(self, size: Any) -> int | str | None:
        known = fixed_size(size)
        return known if known is not None else self._symbols.get(str(size), str(size))

    def _initializer(self, name: str, array: NDArray[Any], dtype: ir.DataType) -> ir.Value:
        # numpy makes 0-d arrays 1-d when asked for contiguous ones.
        whole = np.ascontiguousarray(array).reshape(array.shape)
        content = ir.Tensor(whole, dtype=dtype, name=name)
        made = ir.Value(
            name=name, shape=ir.Shape(array.shape), type=ir.TensorType(dtype), const_value=content
        )
        self.initializers[name] = made
        return made

    def _stem(self) -> str:
        assert self._call is not None
        return str(self._call.meta.get("site", self._call.name))


def dtype_of(node: fx.Node) -> torch.dtype | None:
    """The element type of a node's tensor, or None for sizes."""
    fake = value(node)
    return fake.dtype if isinstance(fake, Tensor) else None


def _dtype_of_number(number: Any) -> torch.dtype:
    if isinstance(number, bool):
        return torch.bool
    return torch.int64 if isinstance(number, int) else torch.float32


def _numpy(tensor: Tensor) -> NDArray[Any]:
    detached = tensor.detach()
    if detached.dtype == torch.bfloat16:
        return detached.view(torch.int16).numpy().view(ir.DataType.BFLOAT16.numpy())
    if detached.dtype == torch.float8_e4m3fn:
        return detached.view(torch.uint8).numpy().view(ir.DataType.FLOAT8E4M3FN.numpy())
    return detached.numpy()


def _symbol_names(network: Network) -> dict[str, str]:
    """The network's own names for the symbols of its dynamic dimensions."""
    names: dict[str, str] = {}
    inputs = [node for node in network.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(inputs, network.input_specs, strict=True):
        for size, named in zip(value(node).shape, spec.shape, strict=True):
            if isinstance(named, str):
                names[str(size)] = named
    return names
