"""A network as a plain GraphModule of ATen calls with PyTorch's own quantize/dequantize operators.

Runtimes that start from ``torch.export`` (ExecuTorch, Inductor, Core ML) recognise integer layers by one pattern:
``dequantize → layer → quantize`` in the operators of the library ``quantized_decomposed``, with weights stored as
integer codes. This file writes a placed and frozen network in that pattern. Scales, zero points and codes are the
network's own: no tool of the runtime chooses any.

The pattern only counts where a ``dequantize`` *directly* feeds the layer. Behind a padding or a reshape that follows
one, a second, identical pair is therefore written: it changes no number, and without it ExecuTorch lowers a linear
layer behind ``flatten`` to wrong results without a warning, and Inductor leaves the layer in float. For the same reason
every reader of dequantized numbers has a ``dequantize`` of its own.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers quantized_decomposed
from torch import Tensor, fx, nn
from torch.fx import Node

from kompakt.errors import TargetError
from kompakt.network import tree
from kompakt.network.kinds import kind_of
from kompakt.network.network import Network, holds_tensor
from kompakt.network.operators import arguments, operator_name, value
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import PerChannel, PerGroup
from kompakt.quantize.kinds import padding_mode
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import is_quantizer_call, quantizer_of
from kompakt.quantize.quantizer import Quantizer
from kompakt.quantize.redundant import redundant_activations

ATEN: Any = torch.ops.aten
PAIR: Any = torch.ops.quantized_decomposed
MOVERS = frozenset({"pad", "reshape", "transpose", "slice", "expand", "max_pool", "identity"})
"""What can stand between a pair and the layer that reads its codes."""

_CONVOLUTIONS = {1: "conv1d", 2: "conv2d", 3: "conv3d"}


def decomposed(
    network: Network, *, pairs_behind_padding: bool = True, one_grid_for_cat: bool = False
) -> fx.GraphModule:
    """Write a placed and frozen (or untouched float) network as plain ATen calls.

    Args:
        network: Its quantizers, if any, have ranges and its treated layers are frozen; it is not changed.
        pairs_behind_padding: Whether a padding between a pair and a convolution gets a pair of its own; the runtime
            may rather recognise the padding as a part of the convolution.
        one_grid_for_cat: Whether tensors that are concatenated are first rounded to the grid of the result; as each
            number then is rounded to that grid anyway, this changes none.

    Returns:
        A GraphModule with one parameter for each of the network's inputs, by name, that returns a tuple of its output
        tensors. Parameters of float layers are shared with the network.

    Raises:
        TargetError: K401 when a layer has no form here.
        SchemeError: K343 when a quantizer has no range.
    """
    with torch.no_grad():
        return _Rewriter(network, pairs_behind_padding, one_grid_for_cat).result()


class _Rewriter:
    """Writes one network's graph again, node by node."""

    def __init__(
        self, network: Network, pairs_behind_padding: bool, one_grid_for_cat: bool
    ) -> None:
        self.network, self.graph, self.root = network, fx.Graph(), nn.Module()
        self.pairs_behind_padding = pairs_behind_padding
        self.one_grid_for_cat = one_grid_for_cat
        self.made: dict[Node, Any] = {}
        self.stored: dict[str, str] = {}
        self.biased: set[Any] = set()

    def result(self) -> fx.GraphModule:
        """The whole graph."""
        redundant = redundant_activations(self.network)
        specs = iter(self.network.input_specs)
        for node in self.network.graph.nodes:
            if node.op == "placeholder":
                self.made[node] = self.graph.placeholder(next(specs).name)
            elif node.op == "output":
                leaves = tree.flatten(node.args[0])[0]
                self.graph.output(tuple(self.made[leaf] for leaf in leaves if holds_tensor(leaf)))
            elif node in redundant:
                self.made[node] = self.made[node.args[0]]
            else:
                self.made[node] = self._call(node)
        module = fx.GraphModule(self.root, self.graph, class_name="DecomposedNetwork").eval()
        module.graph.eliminate_dead_code()
        _one_dequantize_for_each_reader(module.graph)
        module.recompile()
        return module

    def _call(self, node: Node) -> Any:
        if is_quantizer_call(self.network, node):
            return self._pair(self.made[node.args[0]], quantizer_of(self.network, node))  # type: ignore[index]
        if node.op == "get_attr":
            return self._existing(node)
        if node.op == "call_module":
            layer = self.network.get_submodule(str(node.target))
            if isinstance(layer, Treated) and layer.stage != "off":
                return self._treated(node, layer)
            self._adopt(str(node.target), layer)
        if operator_name(node) == "kompakt.global_average_pool":
            axes = list(range(2, value(node).dim()))
            return self.call(ATEN.mean.dim, self.made[node.args[0]], axes, True)  # type: ignore[index]
        if self.one_grid_for_cat and kind_of(node) == "cat":
            return self._concatenated(node)
        return self.graph.node_copy(node, lambda n: self.made[n])

    def _concatenated(self, node: Node) -> Node:
        """A concatenation whose inputs are on the grid of its result."""
        quantizers = [quantizer_of(self.network, u) for u in node.users if self._is_pair(u)]
        if len(quantizers) != 1 or len(node.users) != 1:
            return self.graph.node_copy(node, lambda n: self.made[n])
        again = {
            part: self.made[part]
            if self._is_pair(part) and quantizer_of(self.network, part) is quantizers[0]
            else self._pair(self.made[part], quantizers[0])
            for part in node.all_input_nodes
        }
        return self.graph.node_copy(node, lambda n: again[n])

    def _is_pair(self, node: Node) -> bool:
        return is_quantizer_call(self.network, node)

    # Building blocks

    def call(self, function: Any, *args: Any) -> Node:
        """One operator call."""
        return self.graph.call_function(function, args)

    def keep(self, name: str, tensor: Tensor) -> Node:
        """A tensor as a buffer, stored once for each name however often its layer is called."""
        if name not in self.stored:
            base = "".join(c if c.isalnum() else "_" for c in name)
            taken, count = base, 1
            while hasattr(self.root, taken):
                count += 1
                taken = f"{base}_{count}"
            self.root.register_buffer(taken, tensor.detach().clone().contiguous())
            self.stored[name] = taken
        return self.graph.get_attr(self.stored[name])

    def _existing(self, node: Node) -> Node:
        found: Any = self.network
        for part in str(node.target).split("."):
            found = getattr(found, part)
        return self.keep(str(node.target), found)

    def _adopt(self, path: str, layer: nn.Module) -> None:
        """Give the new root the layer under its own path."""
        owner, _, name = path.rpartition(".")
        parent = self.root
        for part in owner.split(".") if owner else ():
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        if name not in parent._modules:
            parent.add_module(name, layer)

    def _pair(self, x: Any, quantizer: Quantizer) -> Any:
        """Quantize and dequantize with one scale for the tensor."""
        if quantizer.stage == "off":
            return x
        scale, zero_point = quantizer.parameters_()
        fmt = quantizer.format
        grid = (float(scale), int(zero_point), int(fmt.qmin), int(fmt.qmax), fmt.torch_dtype)
        codes = self.call(PAIR.quantize_per_tensor.default, x, *grid)
        codes.meta["quantizer"] = quantizer
        return self.call(PAIR.dequantize_per_tensor.default, codes, *grid)

    # Layers with treated weights

    def _treated(self, node: Node, layer: Treated) -> Any:
        x = self.made[node.args[0]]  # type: ignore[index]
        if layer.treatment.mode == "dynamic":
            return self._dynamic(node, layer, x)
        amounts = None
        if layer.treatment.mode == "static":
            x, amounts = self._static_input(node, layer)
        weight, bias = self._weight(node, layer), self._bias(node, layer)
        if isinstance(layer, nn.Linear):
            return self.call(ATEN.linear.default, x, weight, bias)
        if isinstance(layer, nn.Embedding):
            return self.call(ATEN.embedding.default, weight, x)
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return self._convolution(layer, x, weight, bias, amounts)
        return self._transposed(node, layer, x, weight, bias)

    def _static_input(self, node: Node, layer: Treated) -> tuple[Any, list[int] | None]:
        """What a static layer reads: a dequantized tensor, and the padding before it that the layer takes over."""
        source = node.args[0]
        assert isinstance(source, Node)
        if is_quantizer_call(self.network, source):
            return self.made[source], None
        amounts = _even_padding(source, layer)
        if amounts is not None and is_quantizer_call(self.network, source.args[0]):
            return self.made[source.args[0]], amounts  # type: ignore[index]
        if not self.pairs_behind_padding and _is_zero_padding(source, layer):
            return self.made[source], None
        origin = source
        while kind_of(origin) in MOVERS and isinstance(origin.args[0], Node):
            origin = origin.args[0]
        if not is_quantizer_call(self.network, origin):
            return self.made[source], None
        return self._pair(self.made[source], quantizer_of(self.network, origin)), None

    def _convolution(
        self, layer: Any, x: Any, weight: Any, bias: Any, amounts: list[int] | None
    ) -> Node:
        """A convolution; padding modes that repeat values are written before it, with a pair of their own."""
        spatial = len(layer.kernel_size)
        widths = list(layer._reversed_padding_repeated_twice)
        padding = [int(n) for n in widths[0::2][::-1]]
        mode = layer.padding_mode
        if mode != "zeros" or widths[0::2] != widths[1::2]:
            fill = "constant" if mode == "zeros" else mode
            before, padding = x, [0] * spatial
            x = self.call(ATEN.pad.default, x, widths, fill)
            x = self._again(before, x)
        if amounts is not None:
            padding = amounts
        convolve = getattr(ATEN, _CONVOLUTIONS[spatial]).default
        settings = (list(layer.stride), padding, list(layer.dilation), layer.groups)
        return self.call(convolve, x, weight, bias, *settings)

    def _again(self, before: Node, x: Node) -> Any:
        """A second pair behind ``x``, with the grid of the pair that made ``before``."""
        codes = before.args[0] if before.target is PAIR.dequantize_per_tensor.default else None
        quantizer = codes.meta.get("quantizer") if isinstance(codes, Node) else None
        return x if quantizer is None else self._pair(x, quantizer)

    def _transposed(self, node: Node, layer: Any, x: Any, weight: Any, bias: Any) -> Node:
        if len(node.args) > 1 or node.kwargs:
            raise _no_form(node, "it is called with an output size")
        packet = getattr(ATEN, f"conv_transpose{len(layer.kernel_size)}d")
        overload = packet.default if len(layer.kernel_size) == 1 else packet.input
        extra = list(layer.output_padding)
        settings = (list(layer.stride), list(layer.padding), extra, layer.groups)
        return self.call(overload, x, weight, bias, *settings, list(layer.dilation))

    def _dynamic(self, node: Node, layer: Treated, x: Any) -> Node:
        """A linear layer whose input is quantized with the range it has right now."""
        grid = (0, 255, torch.uint8)
        least = 2.0**-24
        chosen = self.call(PAIR.choose_qparams.tensor, x, *grid[:2], least, torch.uint8)
        found = [self.call(operator.getitem, chosen, place) for place in (0, 1)]
        codes = self.call(PAIR.quantize_per_tensor.tensor, x, *found, *grid)
        decoded = self.call(PAIR.dequantize_per_tensor.tensor, codes, *found, *grid)
        weight, bias = self._weight(node, layer), self._bias(node, layer)
        return self.call(ATEN.linear.default, decoded, weight, bias)

    def _bias(self, node: Node, layer: Treated) -> Node | None:
        bias = layer.treated_bias()
        if bias is None:
            return None
        # Runtimes round a bias to the grid of the input: calls on different grids must not share one.
        name = "bias" if node.target not in self.biased else f"{node.name}.bias"
        self.biased.add(node.target)
        return self.keep(f"{node.target}.{name}", bias)

    def _weight(self, node: Node, layer: Treated) -> Node:
        """The decoded weight, from the codes that are stored."""
        if layer.weight_codes is None:
            raise _no_form(node, "it is not frozen")
        name, codes = f"{node.target}.weight_codes", layer.weight_codes
        if layer.treatment.mode == "dynamic":
            codes = codes.t()
        if layer.stored_float:
            return self.call(ATEN.to.dtype, self.keep(name, codes), torch.float32)
        scale, zero = layer.weight_scale, layer.weight_zero_point
        assert scale is not None
        assert zero is not None
        granularity = layer.treatment.granularity
        if isinstance(granularity, PerGroup):
            return self._grouped(node, layer, granularity.size)
        fmt = get_format(str(layer.treatment.weight))
        limits = (int(fmt.qmin), int(fmt.qmax), fmt.torch_dtype)
        if not isinstance(granularity, PerChannel):
            grid = (float(scale), int(zero), *limits)
            return self.call(PAIR.dequantize_per_tensor.default, self.keep(name, codes), *grid)
        kept = self.keep(name, codes)
        steps = self.keep(f"{node.target}.weight_scale", scale)
        zeros = self.keep(f"{node.target}.weight_zero_point", zero.to(torch.int64))
        axis = granularity.axis
        return self.call(PAIR.dequantize_per_channel.default, kept, steps, zeros, axis, *limits)

    def _grouped(self, node: Node, layer: Treated, size: int) -> Node:
        """One scale for each group of input features: plain arithmetic on constants."""
        codes, scale = layer.weight_codes, layer.weight_scale
        assert codes is not None
        assert scale is not None
        features = codes.shape[0]
        steps = scale.repeat_interleave(size, 0)[:features]
        kept = self.keep(f"{node.target}.weight_codes", codes)
        decoded = self.call(ATEN.to.dtype, kept, torch.float32)
        if layer.has_zero_point:
            assert layer.weight_zero_point is not None
            zeros = layer.weight_zero_point.float().repeat_interleave(size, 0)[:features]
            zero = self.keep(f"{node.target}.weight_zero_point", zeros)
            decoded = self.call(ATEN.sub.Tensor, decoded, zero)
        step = self.keep(f"{node.target}.weight_scale", steps)
        return self.call(ATEN.t.default, self.call(ATEN.mul.Tensor, decoded, step))


def _one_dequantize_for_each_reader(graph: fx.Graph) -> None:
    """Give every reader of dequantized numbers a ``dequantize`` of its own.

    A runtime that fuses one reader with its ``dequantize`` would otherwise hand the codes to the other, a float
    operator, as if they were numbers: XNNPACK's lowering does so without a warning.
    """
    for node in list(graph.nodes):
        if node.target is not PAIR.dequantize_per_tensor.default:
            continue
        for reader in list(node.users)[1:]:
            with graph.inserting_after(node):
                twin = graph.call_function(node.target, node.args)
            reader.replace_input_with(node, twin)


def _even_padding(source: Node, layer: Any) -> list[int] | None:
    """The padding a convolution can take over from a zero padding before it, first dimension first; else None."""
    if not _is_zero_padding(source, layer) or layer.padding_mode != "zeros":
        return None
    amounts = list(arguments(source)["pad"])
    whole = amounts + [0] * (2 * len(layer.kernel_size) - len(amounts))
    if whole[0::2] != whole[1::2]:
        return None
    own = list(layer._reversed_padding_repeated_twice)
    if own[0::2] != own[1::2]:
        return None
    return [int(a) + int(b) for a, b in zip(whole[0::2][::-1], own[0::2][::-1], strict=True)]


def _is_zero_padding(source: Node, layer: Any) -> bool:
    """Whether ``source`` pads only the spatial dimensions of a convolution's input, with zeros."""
    if kind_of(source) != "pad" or not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return False
    found = arguments(source)
    amounts = list(found.get("pad", ()))
    zero = padding_mode(source) == "constant" and not found.get("value")
    return zero and 0 < len(amounts) <= 2 * len(layer.kernel_size) and min(amounts) >= 0


def _no_form(node: Node, why: str) -> TargetError:
    return TargetError(
        "K401",
        f"writing {node.target}",
        why=why,
        help="keep it in float, or choose another target",
    )


__all__ = ["decomposed"]
