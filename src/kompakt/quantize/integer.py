"""Running a placed network in integers: the referee of end-to-end parity.

The float simulation drifts from any runtime over depth: one flipped code in 10⁵ becomes several per cent of codes
a dozen layers later. Here every integer kernel is computed exactly (integer sums, one float32 multiplier, half-even
rounding), as fused ONNX Runtime kernels do, so codes can be compared for equality.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from kompakt.network.kinds import kind_of
from kompakt.network.network import Network
from kompakt.network.operators import arguments
from kompakt.numerics.float_places import at_float_places, float_places
from kompakt.quantize.arithmetic import ARITHMETICS, Factors
from kompakt.quantize.kinds import placing_kind
from kompakt.quantize.layers import Treated
from kompakt.quantize.pending import (
    Addition,
    Codes,
    Leaky,
    Pending,
    Product,
    Rectified,
    Sums,
    requantized,
)
from kompakt.quantize.place import is_quantizer_call, quantizer_of
from kompakt.quantize.quantizer import Quantizer, stage

EXACT_IN_FLOAT32 = 2**24
"""Integers below this are exact in float32, whatever the order of summation."""


class IntegerInterpreter(fx.Interpreter):
    """Interprets a placed, frozen network on codes.

    Args:
        placed: The network.
        on_codes: Called with (site, codes int32) for every quantizer, in graph order; may return other codes to
            go on with (teacher forcing).
        on_input: Called with (node, codes) for every layer that reads codes, before it runs.
    """

    def __init__(
        self,
        placed: Network,
        on_codes: Callable[[str, Tensor], Tensor | None] | None = None,
        on_input: Callable[[Node, Codes], None] | None = None,
    ) -> None:
        super().__init__(placed)
        self.network, self.on_codes, self.on_input = placed, on_codes, on_input
        self.seen: set[str] = set()

    def run_node(self, n: Node) -> Any:
        """Run one node on codes where it computes on codes, on floats elsewhere."""
        if is_quantizer_call(self.network, n):
            return self._quantize(n)
        if self.on_input is not None and n.op == "call_module":
            given = self.value(n.args[0])
            if isinstance(given, Codes):
                self.on_input(n, given)
        kind = placing_kind(n)
        arguments = [self.env.get(a) for a in n.all_input_nodes]
        on_integers = any(isinstance(a, Codes | Pending) for a in arguments)
        handler = _HANDLERS.get(kind) if on_integers else None
        result = handler(self, n) if handler is not None else None
        return self._run_in_float(n) if result is None else result

    def value(self, node: object) -> Any:
        """What a node produced."""
        assert isinstance(node, Node)
        return self.env[node]

    def _quantize(self, n: Node) -> Codes | Tensor:
        quantizer, value = quantizer_of(self.network, n), self.value(n.args[0])
        if quantizer.format.kind == "float":
            return self._cast(n, quantizer, _decoded(value))
        if isinstance(value, Pending):
            codes = value.requantize(quantizer)
        elif isinstance(value, Codes):
            codes = value if value.quantizer is quantizer else requantized(value, quantizer)
        else:
            codes = Codes(quantizer.codes(value).to(torch.int32), quantizer)
        site = str(n.meta["site"])
        if self.on_codes is not None and site not in self.seen:
            self.seen.add(site)
            other = self.on_codes(site, codes.values)
            codes = codes if other is None else Codes(other, quantizer)
        return codes

    def _cast(self, n: Node, quantizer: Quantizer, value: Tensor) -> Tensor:
        """Small floats: kernels multiply and add the numbers they stand for, in float."""
        scale, _ = quantizer.parameters_()
        places, site = float_places(quantizer.codes(value)), str(n.meta["site"])
        if self.on_codes is not None and site not in self.seen:
            self.seen.add(site)
            other = self.on_codes(site, places)
            places = places if other is None else other
        return at_float_places(places, quantizer.format).float() * scale

    def _run_in_float(self, n: Node) -> Any:
        args, kwargs = fx.node.map_arg((n.args, n.kwargs), lambda a: _decoded(self.env[a]))
        return getattr(self, n.op)(n.target, args, kwargs)


def _decoded(value: Any) -> Any:
    return value.decode() if isinstance(value, Codes | Pending) else value


def _layer(self: IntegerInterpreter, n: Node) -> Pending | None:
    layer, x = self.network.get_submodule(str(n.target)), self.value(n.args[0])
    if not isinstance(layer, Treated) or layer.treatment.mode != "static":
        return None
    if not isinstance(x, Codes):
        return None
    assert layer.weight_scale is not None
    scale, _ = x.quantizer.parameters_()
    weight = centred_weight(layer)
    is_linear = isinstance(layer, nn.Linear)
    sums = _exact_linear(x, weight) if is_linear else _exact_conv(layer, x, weight)
    shape = [1] * sums.dim()
    shape[-1 if is_linear else 1] = -1
    per_channel = layer.weight_scale.expand(weight.shape[0]).reshape(shape)
    factors = Factors(scale, per_channel)
    found = layer.treated_bias()
    if found is None:
        return Sums(sums, factors)
    bias = found.detach().reshape(shape)
    if ARITHMETICS[x.quantizer.arithmetic].float_bias:
        return Sums(sums, factors, bias)
    if layer.bias_codes is not None:
        return Sums(sums + layer.bias_codes.reshape(shape), factors)
    if is_linear and x.values.dim() != 2:
        return Sums(sums, factors, bias)
    # A layer called with several input scales has one float bias, which is rounded for each call.
    return Sums(sums + torch.round(bias / factors.scale).to(torch.int32), factors)


def centred_weight(layer: Treated) -> Tensor:
    """Weight codes minus their zero points: float32 (exact), shape of the weight."""
    assert layer.weight_codes is not None
    assert layer.weight_zero_point is not None
    codes, zero = layer.weight_codes.to(torch.float32), layer.weight_zero_point.to(torch.float32)
    return codes - (zero.reshape([-1, *[1] * (codes.dim() - 1)]) if zero.dim() else zero)


def _largest_product(x: Codes, weight: Tensor) -> float:
    """The largest magnitude one code times one weight can have."""
    fmt = x.quantizer.format
    return max(1.0, (fmt.qmax - fmt.qmin) * float(weight.abs().max()))


def _accumulator(x: Codes) -> torch.dtype:
    """Kernels sum products of 8-bit codes in 32 bits; wider codes need more."""
    return torch.int32 if x.quantizer.format.bits <= 8 else torch.int64


def _exact_linear(x: Codes, weight_OI: Tensor) -> Tensor:
    """The integer sums of a matrix product, computed in float32 where that is exact."""
    values = x.centred()
    if weight_OI.shape[1] * _largest_product(x, weight_OI) < EXACT_IN_FLOAT32:
        return torch.nn.functional.linear(values, weight_OI).to(_accumulator(x))
    return torch.nn.functional.linear(values.double(), weight_OI.double()).to(_accumulator(x))


def _exact_conv(layer: Treated, x: Codes, weight: Tensor) -> Tensor:
    """The integer sums of a convolution, computed in float32 where that is exact."""
    values, whole = x.centred(), _accumulator(x)
    limit = int(EXACT_IN_FLOAT32 / _largest_product(x, weight) / max(1, weight[0, 0].numel()))
    inputs = weight.shape[1]
    convolve = layer._conv_forward
    if inputs <= limit:
        return convolve(values, weight, None).to(whole)  # type: ignore[operator, no-any-return]
    if getattr(layer, "groups", 1) != 1 or limit < 1:
        exact = convolve(values.double(), weight.double(), None)  # type: ignore[operator]
        return exact.to(whole)  # type: ignore[no-any-return]
    total: Tensor | None = None
    for start in range(0, inputs, limit):
        piece = convolve(  # type: ignore[operator]
            values[:, start : start + limit], weight[:, start : start + limit], None
        ).to(whole)
        total = piece if total is None else total.add_(piece)
    assert total is not None
    return total


def _average(self: IntegerInterpreter, n: Node) -> Pending | None:
    x = self.value(n.args[0])
    if not isinstance(x, Codes):
        return None
    dims = tuple(range(2, x.values.dim()))
    count = x.values[0, 0].numel()
    scale, _ = x.quantizer.parameters_()
    sums = x.centred().double().sum(dims, keepdim=True).to(torch.int32)
    return Sums(sums, Factors(scale, count=count))


def _window_average(self: IntegerInterpreter, n: Node) -> Codes | None:
    """An average over windows in the codes' own scale, halves away from 0; in float where the runtime does so."""
    x, given = self.value(n.args[0]), arguments(n)
    padded = isinstance(given.get("padding"), list | tuple) and any(given["padding"])
    if (
        not isinstance(x, Codes)
        or padded
        or given.get("divisor_override")
        or given.get("ceil_mode")
    ):
        return None
    if not ARITHMETICS[x.quantizer.arithmetic].averages_codes:
        return None
    kernel = given.get("kernel_size")
    if not isinstance(kernel, list | tuple):
        return None
    spatial = x.values.dim() - 2
    count = math.prod(kernel) ** (spatial if len(kernel) == 1 else 1)
    args = (x.values.double(), *n.args[1:])
    sums = torch.round(getattr(self, n.op)(n.target, args, n.kwargs) * count).to(torch.int64)
    nudged = sums + torch.where(sums > 0, count // 2, -(count // 2))
    means = torch.div(nudged, count, rounding_mode="trunc")
    return Codes(means.to(torch.int32), x.quantizer)


def _add(self: IntegerInterpreter, n: Node) -> Pending | None:
    a, b = self.value(n.args[0]), self.value(n.args[1])
    return Addition(a, b) if isinstance(a, Codes) and isinstance(b, Codes) else None


def _multiply(self: IntegerInterpreter, n: Node) -> Pending | None:
    a, b = self.value(n.args[0]), self.value(n.args[1])
    return Product(a, b) if isinstance(a, Codes) and isinstance(b, Codes) else None


def _leaky(self: IntegerInterpreter, n: Node) -> Pending | None:
    x = self.value(n.args[0])
    return Leaky(x, arguments(n)["negative_slope"]) if isinstance(x, Codes) else None


def _rectify(self: IntegerInterpreter, n: Node) -> Pending | None:
    x = self.value(n.args[0])
    ceiling = 6.0 if kind_of(n) == "relu6" else None
    return Rectified(x, ceiling) if isinstance(x, Pending) else None


def _move(self: IntegerInterpreter, n: Node) -> Any:
    """An operator that moves codes without computing: it runs on the codes themselves."""
    x = self.value(n.args[0])
    if not isinstance(x, Codes):
        return None
    # Centred codes make zero padding mean the value 0; float32 because pooling knows no integers.
    env = {a: self.env[a] for a in n.all_input_nodes}
    env[n.all_input_nodes[0]] = x.centred()
    args, kwargs = fx.node.map_arg((n.args, n.kwargs), lambda a: env[a])
    moved = getattr(self, n.op)(n.target, args, kwargs)
    _, zero_point = x.quantizer.parameters_()

    def back(t: Tensor) -> Codes:
        return Codes(t.to(torch.int32) + int(zero_point), x.quantizer)

    return [back(t) for t in moved] if isinstance(moved, tuple | list) else back(moved)


def _concatenate(self: IntegerInterpreter, n: Node) -> Codes | None:
    parts = [self.value(a) for a in n.args[0]]  # type: ignore[union-attr]
    if not all(isinstance(p, Codes) and p.quantizer is parts[0].quantizer for p in parts):
        return None
    dim = n.args[1] if len(n.args) > 1 else n.kwargs.get("dim", 0)
    return Codes(torch.cat([p.values for p in parts], int(dim)), parts[0].quantizer)  # type: ignore[arg-type]


def _item(self: IntegerInterpreter, n: Node) -> Any:
    return operator.getitem(self.value(n.args[0]), n.args[1])


_HANDLERS: dict[str, Callable[[IntegerInterpreter, Node], Any]] = {
    "conv": _layer,
    "linear": _layer,
    "global_average_pool": _average,
    "avg_pool": _window_average,
    "add": _add,
    "mul": _multiply,
    "leaky_relu": _leaky,
    "relu": _rectify,
    "relu6": _rectify,
    "pad": _move,
    "reshape": _move,
    "transpose": _move,
    "slice": _move,
    "split": _move,
    "expand": _move,
    "upsample_nearest": _move,
    "max_pool": _move,
    "identity": _move,
    "cat": _concatenate,
    "getitem": _item,
}


def run_in_integers(
    placed: Network,
    *inputs: Tensor,
    on_codes: Callable[[str, Tensor], Tensor | None] | None = None,
    on_input: Callable[[Node, Codes], None] | None = None,
) -> Any:
    """Run a placed, frozen network on codes.

    Args:
        placed: The network.
        *inputs: Its inputs, in graph order.
        on_codes: See :class:`IntegerInterpreter`.
        on_input: The same.

    Returns:
        The network's outputs, flattened in graph order, as floats.
    """
    interpreter = IntegerInterpreter(placed, on_codes, on_input)
    with torch.no_grad(), stage(placed, "simulate"):
        result = interpreter.run(*inputs, enable_io_processing=False)
    return torch.utils._pytree.tree_map(_decoded, result)
