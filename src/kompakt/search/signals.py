"""What every possible rounding does to a network's outputs, from one pass with gradients.

A *signal* is g·Δ, one number for each sample and probe: Δ is what rounding changes at one place (the weights of a
layer, or a tensor as one of its readers sees it) in one format, g the gradient there of a probe of the outputs (see
:mod:`kompakt.search.divergence`). Signals of places that are rounded together add up, signs included, so that the
predicted loss of any plan is the mean square of a sum of signals: errors that cancel are seen to cancel.

One forward pass and one backward pass for each probe serve all formats of activations. The change of a layer's weights
is seen as the change of its output, so every format of weights computes the layers once more, and no backward pass has
to find a gradient of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from kompakt.measuring.data import Batch
from kompakt.network.network import Network
from kompakt.numerics.affine import dequantize, dynamic_qparams, quantize
from kompakt.numerics.formats import get_format
from kompakt.numerics.granularity import PerTensor
from kompakt.progress import track
from kompakt.quantize.layers import Treated
from kompakt.quantize.place import is_quantizer_call, quantizer_of
from kompakt.quantize.quantizer import Quantizer
from kompakt.schemes import Treatment
from kompakt.search.divergence import Loss, directions

Floats = NDArray[np.float64]
DYNAMIC = "dynamic"
"""The format of edges whose range is found while the network runs."""
HELD_VALUES = 1 << 25
"""About so many float values are held at once."""
MOST_ROWS = 64


def weight_key(treatment: Treatment) -> str:
    """What decides how a layer's weights are rounded, as text."""
    symmetric = "" if treatment.symmetric_weight else ", with zero point"
    return f"{treatment.weight}, {treatment.granularity}{symmetric}"


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Signals of all places and formats.

    Attributes:
        weights: For each layer and :func:`weight_key`, shape (probes · samples,).
        edges: For each node, node that reads it, and format of its codes, the same shape.
        loss: The loss they foretell.
        samples: How many samples went through.
        probes: Backward passes for each of them.
        formats: How many formats of weights were looked at.
        blind: Layers that no gradient reaches: what comes behind them is no operator of PyTorch.
    """

    weights: dict[tuple[str, str], Floats]
    edges: dict[tuple[str, str, str], Floats]
    loss: Loss
    samples: int
    probes: int
    formats: int
    blind: frozenset[str] = frozenset()

    def predicted(self, total: Floats | float) -> float:
        """The loss, in the mean over the samples, of roundings whose signals add up to ``total``."""
        return 0.5 * self.probes * float(np.mean(np.square(total)))


def collect_signals(
    network: Network,
    forms: Sequence[Network],
    batches: Sequence[Batch],
    *,
    loss: Loss,
    probes: int = 2,
    seed: int = 0,
) -> Signals:
    """Run the float network forwards and backwards over some samples.

    Args:
        network: The float network; it is not changed.
        forms: The same network, placed in several ways, with ranges: they hold the roundings looked at.
        batches: Samples.
        loss: What to foretell.
        probes: Backward passes for each sample.
        seed: Of the probes.
    """
    places = _places(network, forms)
    generator = torch.Generator().manual_seed(seed)
    notes, samples, rows = _Notes(), 0, 1
    with _without_parameters(network):
        for batch in track(batches, "finding sensitive layers"):
            whole = list(batch.inputs.values())
            at, step = 0, rows if can_be_cut(network) else batch.size
            while at < batch.size:
                piece = [cut(t, at, step, batch.size) for t in whole]
                count = min(step, batch.size - at)
                run = _Watched(network, places)
                outputs = [z for z in run.outputs(piece) if z.requires_grad]
                vectors = directions(outputs, loss, probes, generator) if outputs else []
                run.note(notes, outputs, vectors, count, probes)
                at, samples = at + count, samples + count
                rows = max(1, min(MOST_ROWS, HELD_VALUES * count // max(run.held, 1)))
                step = rows if can_be_cut(network) else batch.size
    return Signals(
        weights={k: np.concatenate(v) for k, v in notes.weights.items()},
        edges={k: np.concatenate(v) for k, v in notes.edges.items()},
        loss=loss,
        samples=samples,
        probes=probes,
        formats=max((len(keys) for keys in places.weights.values()), default=0),
        blind=frozenset(notes.blind),
    )


@dataclass
class _Places:
    """Where rounding happens: weight differences by layer and key, quantizers by node and format."""

    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    quantizers: dict[str, dict[str, Quantizer | None]] = field(default_factory=dict)


@dataclass
class _Notes:
    """Signals as they come in, piece by piece."""

    weights: dict[tuple[str, str], list[Floats]] = field(default_factory=dict)
    edges: dict[tuple[str, str, str], list[Floats]] = field(default_factory=dict)
    blind: set[str] = field(default_factory=set)


def _places(network: Network, forms: Sequence[Network]) -> _Places:
    places = _Places()
    for form in forms:
        for path, layer in form.named_modules():
            if not isinstance(layer, Treated):
                continue
            keys = places.weights.setdefault(path, {})
            if weight_key(layer.treatment) not in keys:
                exact = network.get_submodule(path).weight
                assert isinstance(exact, Tensor)
                keys[weight_key(layer.treatment)] = layer.treated_weight().detach() - exact.detach()
        for node in form.graph.nodes:
            if is_quantizer_call(form, node):
                quantizer, name = quantizer_of(form, node), str(node.meta["quantizes"])
                places.quantizers.setdefault(name, {}).setdefault(quantizer.format.name, quantizer)
            elif _is_dynamic(form, node):
                places.quantizers.setdefault(node.args[0].name, {})[DYNAMIC] = None
    return places


def _is_dynamic(form: Network, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    layer = form.get_submodule(str(node.target))
    return isinstance(layer, Treated) and layer.treatment.mode == "dynamic"


def can_be_cut(network: Network) -> bool:
    """Whether the network takes batches of any size."""
    specs = network.input_specs
    return bool(specs and specs[0].shape) and isinstance(specs[0].shape[0], str)


def cut(tensor: Tensor, at: int, rows: int, size: int) -> Tensor:
    """Some rows of a tensor that has one for each of ``size`` samples; other tensors as they are."""
    return tensor[at : at + rows] if tensor.dim() and tensor.shape[0] == size else tensor


@contextmanager
def _without_parameters(network: Network) -> Iterator[None]:
    """Gradients, but none of parameters, for a while."""
    wanted = [p for p in nn.Module.parameters(network) if p.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


class _Watched(fx.Interpreter):
    """Runs the float network and keeps hold of every tensor that may be rounded, for each of its readers."""

    def __init__(self, network: Network, places: _Places) -> None:
        super().__init__(network)
        self.network, self.places = network, places
        self.edges: dict[tuple[str, str], Tensor] = {}
        self.values: dict[str, Tensor] = {}
        self.changes: list[tuple[str, Tensor, dict[str, Tensor]]] = []
        self.held = 0

    def outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The network's outputs, with their graph."""
        given = [t.detach() for t in inputs]
        return self.network.flatten_outputs(self.run(*given, enable_io_processing=False))

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        floats = isinstance(result, Tensor) and result.is_floating_point()
        if floats and not result.requires_grad:
            # Behind inputs and what PyTorch cannot differentiate, gradients begin anew.
            result = result.detach().requires_grad_()
        if n.op == "call_module" and str(n.target) in self.places.weights:
            self._change(n, result)
        return result

    def map_nodes_to_values(self, args: Any, n: fx.Node) -> Any:
        return fx.node.map_arg(args, lambda source: self._seen_by(source, n))

    def _seen_by(self, source: fx.Node, reader: fx.Node) -> Any:
        value, key = self.env[source], (source.name, reader.name)
        if source.name not in self.places.quantizers or not isinstance(value, Tensor):
            return value
        if key not in self.edges:
            self.edges[key] = value.view_as(value)
            self.values[source.name] = value.detach()
            self.held += value.numel() * len(self.places.quantizers[source.name])
        return self.edges[key]

    def _change(self, n: fx.Node, result: Tensor) -> None:
        """What other weights would change at a layer's output."""
        source = n.args[0]
        assert isinstance(source, fx.Node)
        layer, x = self.network.get_submodule(str(n.target)), self.env[source].detach()
        changes = {}
        with torch.no_grad():
            bias = getattr(layer, "bias", None)
            none = {} if bias is None else {"bias": torch.zeros_like(bias)}
            for key, delta in self.places.weights[str(n.target)].items():
                changes[key] = torch.func.functional_call(layer, {"weight": delta, **none}, (x,))
        self.changes.append((str(n.target), result, changes))
        self.held += result.numel() * (1 + len(changes))

    def note(
        self,
        notes: _Notes,
        outputs: Sequence[Tensor],
        vectors: Sequence[Sequence[Tensor]],
        rows: int,
        probes: int,
    ) -> None:
        """Add the signals of this piece of data."""
        tensors = [*self.edges.values(), *(y for _, y, _ in self.changes)]
        deltas = {node: self._deltas(node) for node in self.values}
        for turn in range(probes):
            found: Sequence[Tensor | None] = [None] * len(tensors)
            if turn < len(vectors):
                keep = turn + 1 < len(vectors)
                found = torch.autograd.grad(
                    outputs, tensors, vectors[turn], retain_graph=keep, allow_unused=True
                )
            for (node, reader), gradient in zip(self.edges, found, strict=False):
                for name, delta in deltas[node].items():
                    row = _by_sample(gradient, delta, rows)
                    notes.edges.setdefault((node, reader, name), []).append(row)
            self._note_weights(notes, found[len(self.edges) :], rows)

    def _note_weights(self, notes: _Notes, found: Sequence[Tensor | None], rows: int) -> None:
        total: dict[tuple[str, str], Floats] = {}
        for (path, _, changes), gradient in zip(self.changes, found, strict=True):
            if gradient is None:
                notes.blind.add(path)
            for key, change in changes.items():
                # A layer that is called more than once changes the outputs more than once.
                row = _by_sample(gradient, change, rows)
                total[path, key] = total.get((path, key), np.zeros(rows)) + row
        for place, row in total.items():
            notes.weights.setdefault(place, []).append(row)

    def _deltas(self, node: str) -> Mapping[str, Tensor]:
        """What rounding a tensor to each format changes."""
        x = self.values[node]
        with torch.no_grad():
            return {
                name: (_dynamic(x) if quantizer is None else quantizer(x)) - x
                for name, quantizer in self.places.quantizers[node].items()
            }


def _by_sample(gradient: Tensor | None, delta: Tensor, rows: int) -> Floats:
    """g·Δ of each sample, shape (rows,)."""
    if gradient is None:
        return np.zeros(rows)
    product = gradient.detach() * delta
    if product.numel() % rows == 0:
        return np.asarray(product.reshape(rows, -1).sum(1).double().numpy())
    return np.append(np.zeros(rows - 1), float(product.sum()))


def _dynamic(x: Tensor) -> Tensor:
    """A tensor rounded to the range of its own values, as dynamic kernels do."""
    scale, zero_point = dynamic_qparams(x)
    codes = quantize(x, scale, zero_point, get_format("uint8"), PerTensor())
    return dequantize(codes, scale, zero_point, PerTensor())
