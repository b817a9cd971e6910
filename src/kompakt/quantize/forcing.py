"""Teacher forcing of dynamic layers: the referee goes on with the outputs the runtime gave.

The scale of a dynamic layer depends on every number of its input, so one last-bit difference moves codes in all layers
behind it. Where each layer is given the runtime's own input, a difference is the layer's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from kompakt.network.network import Network
from kompakt.quantize.integer import IntegerInterpreter
from kompakt.quantize.layers import Treated
from kompakt.quantize.pending import Codes, Pending
from kompakt.quantize.quantizer import stage

OnCodes = Callable[[str, Tensor], Tensor | None]
OnDynamic = Callable[[str, int, Tensor], Tensor | None]


def run_forced(
    placed: Network, *inputs: Tensor, on_codes: OnCodes | None, on_dynamic: OnDynamic
) -> list[Any]:
    """Run a placed, frozen network on codes, with other values where a callback gives some.

    Args:
        placed: The network.
        *inputs: Its inputs, in graph order.
        on_codes: As of :class:`~kompakt.quantize.integer.IntegerInterpreter`.
        on_dynamic: Called with (path of a dynamic layer, which call of it, its float input); may return the float
            output to go on with.

    Returns:
        The network's outputs, as floats.
    """
    interpreter = _Forced(placed, on_codes, on_dynamic)
    with torch.no_grad(), stage(placed, "simulate"):
        result = interpreter.run(*inputs, enable_io_processing=False)
    return [_floats(leaf) for leaf in torch.utils._pytree.tree_leaves(result)]


def dynamic_output(placed: Network, path: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a frozen dynamic layer makes of an input, and how large the numbers are that it adds up.

    Args:
        placed: The network.
        path: The layer.
        x: float32, shape (..., I).

    Returns:
        The output and, of the same shape (..., O), |product| + |bias|: what a rounding error is to be compared with.
    """
    layer = placed.get_submodule(path)
    assert isinstance(layer, Treated)
    given = layer.weight_codes, layer.weight_scale
    with torch.no_grad():
        product: Tensor = torch.ops.kompakt.dynamic_linear(x, *given, None)
        if layer.bias is None:
            return product, product.abs()
        return product + layer.bias, product.abs() + layer.bias.abs()


class _Forced(IntegerInterpreter):
    def __init__(self, placed: Network, on_codes: OnCodes | None, on_dynamic: OnDynamic) -> None:
        super().__init__(placed, on_codes)
        self.on_dynamic, self.calls = on_dynamic, Counter[str]()

    def run_node(self, n: Node) -> Any:
        layer = self.network.get_submodule(str(n.target)) if n.op == "call_module" else None
        if not isinstance(layer, Treated) or layer.treatment.mode != "dynamic":
            return super().run_node(n)
        path = str(n.target)
        call, self.calls[path] = self.calls[path], self.calls[path] + 1
        other = self.on_dynamic(path, call, _floats(self.value(n.args[0])))
        return super().run_node(n) if other is None else other


def _floats(value: Any) -> Any:
    return value.decode() if isinstance(value, Codes | Pending) else value
