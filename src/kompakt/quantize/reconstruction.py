"""Reconstruction: rounding, scales and biases of all layers are learned so that every block's output is kept.

What it does
    Rounding each weight to the nearest code ignores that the errors of many weights could cancel. Here the float and
    the simulated network see the same samples, and the weights' codes, their scales, the biases and the activations'
    scales are learned by gradient descent until the simulated network gives, behind every block (see
    ``quantize.blocks``) and at its outputs, what the float network gives there. No labels are needed. Activation
    quantizers are left out at random while it learns (QDrop), which keeps the solution from fitting their noise.
When to use
    Weights in 4 bits or fewer, static or not; at 8 bits there is little to win. After ``adaround`` or alone.
Cost
    As training does: about four float passes for each of some 20 epochs over the samples, in mini-batches whose
    values take at most half a gigabyte. Costs no speed afterwards: only numbers change.
Formula
    Minimise Σ ‖ŷ_b − y_b‖² / ‖y_b‖² / B over blocks b, plus the same for each output. Forward, a weight is
    clip(round(v)) · s with v in units of the first scale; backward, rounding passes gradients on (straight through) and
    s gets those of learned step sizes. Adam with a cosine schedule.
Limits
    Behind operators without a gradient (those that only ONNX Runtime can run) layers learn from their own blocks only.
    Embeddings, layers stored in a shorter float and weights that two layers share stay as they are. If the samples'
    error is no smaller in the end, everything stays as it was.
Reference
    Li et al., BRECQ, arXiv:2102.05426; Wei et al., QDrop, arXiv:2203.05740 (both block by block); Esser et al., Learned
    Step Size Quantization, arXiv:1902.08153; Hubara et al., AdaQuant, arXiv:2006.10518. Ours learns all blocks at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.fx import Node

from kompakt.network.network import Network
from kompakt.network.onnx.opaque import OpaqueNode
from kompakt.progress import note, track
from kompakt.quantize.blocks import find_blocks, is_real
from kompakt.quantize.layers import Treated
from kompakt.quantize.learned import LearnedRange, LearnedWeights
from kompakt.quantize.method import Batches
from kompakt.quantize.quantizer import Quantizer, stage

EPOCHS = 20
LARGEST_BATCH = 32
MEMORY = 512 * 2**20
"""Bytes that the values of one mini-batch may take, about."""
WEIGHT_RATE = 0.02
"""Learning rate of weights, in codes."""
BIAS_RATE = 1e-3
"""Learning rate of biases, as a share of the root mean square of the layer's output."""
SCALE_RATE = 1e-3
"""Learning rate of the logarithm of scales."""
DROPPED = 0.5
"""How likely an activation quantizer is left out in a step."""
JUDGED = 8
"""Mini-batches on which the error before and after is compared."""
_TASK = "reconstructing"


def reconstruct_(placed: Network, reference: Network, batches: Batches) -> int:
    """Learn rounding, scales and biases of every treated layer, in place.

    Args:
        placed: A placed network whose quantizers have ranges; not yet frozen.
        reference: The float network it was placed from.
        batches: A few hundred samples.

    Returns:
        How many layers were changed.
    """
    size = _batch_size(reference)
    pools = _pools(batches)
    if not pools:
        return 0
    student = _Student(placed, reference, next(_minibatches(pools, size, None)))
    if not student.layers:
        return 0
    judged = list(islice(_minibatches(pools, size, None), JUDGED))
    teacher = _Teacher(reference)
    with stage(placed, "off"):
        before = _error(student, teacher, judged)
        student.start_from_least_error()
        _learn(student, teacher, pools, size)
        after = _error(student, teacher, judged)
    if not after < before:
        note(f"the error stayed above {before:.3g}: nothing was changed", _TASK)
        return 0
    note(
        f"relative error of the blocks' outputs {math.sqrt(before):.3g} → {math.sqrt(after):.3g}",
        _TASK,
    )
    student.keep_()
    return len(student.layers)


def _learn(student: _Student, teacher: _Teacher, pools: Sequence[list[Tensor]], size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    steps = EPOCHS * sum(-(-len(pool[0]) // size) for pool in pools)
    optimizer = torch.optim.Adam(student.parameters(), betas=(0.9, 0.99))
    rates = [group["lr"] for group in optimizer.param_groups]
    drawn = (b for _ in range(EPOCHS) for b in _minibatches(pools, size, generator))
    for step, batch in enumerate(track(drawn, _TASK, steps)):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = _loss(student, teacher, batch, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _loss(
    student: _Student, teacher: _Teacher, batch: list[Tensor], generator: torch.Generator | None
) -> Tensor:
    """Mean relative squared error behind the blocks, plus that of the outputs."""
    with torch.no_grad():
        exact = teacher.outputs(batch)
    student.generator = generator
    ours = student.outputs(batch, exact.keys())
    errors = {name: _relative(ours[name], exact[name]) for name in exact}
    inner = [error for name, error in errors.items() if name in teacher.blocks]
    outer = [error for name, error in errors.items() if name in teacher.results]
    total = torch.zeros(())
    for group in (inner, outer):
        total = total + (torch.stack(group).mean() if group else 0.0)
    return total


def _relative(ours: Tensor, exact: Tensor) -> Tensor:
    return (ours - exact).square().mean() / exact.square().mean().clamp(min=1e-12)


def _error(student: _Student, teacher: _Teacher, batches: Sequence[list[Tensor]]) -> float:
    with torch.no_grad():
        losses = [float(_loss(student, teacher, batch, None)) for batch in batches]
    return sum(losses) / len(losses)


class _Teacher(fx.Interpreter):
    """The float network, giving the values behind its blocks and its outputs by their nodes' names."""

    def __init__(self, reference: Network) -> None:
        super().__init__(reference)
        self.blocks = {block.output.name for block in find_blocks(reference)}
        returned = reference.graph.output_node().all_input_nodes
        self.results = {node.name for node in returned if is_real(node)}
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run a node and remember its value if it is one of those looked at."""
        value: Any = super().run_node(n) if n.op != "output" else None
        if n.name in self.blocks or n.name in self.results:
            self.found[n.name] = value
        return value

    def outputs(self, batch: list[Tensor]) -> dict[str, Tensor]:
        """These values for one batch."""
        self.found = {}
        self.run(*batch, enable_io_processing=False)
        return self.found


class _Student(fx.Interpreter):
    """The placed network with weights, biases and scales that learn."""

    def __init__(self, placed: Network, reference: Network, batch: list[Tensor]) -> None:
        super().__init__(placed)
        self.generator: torch.Generator | None = None
        self.wanted: set[str] = set()
        self.found: dict[str, Tensor] = {}
        sizes = _output_sizes(reference, batch)
        self.layers = {
            layer: LearnedWeights(layer, sizes.get(name, 1.0)) for name, layer in _learners(placed)
        }
        self.quantizers = {
            module: LearnedRange(module)
            for module in nn.Module.modules(placed)
            if isinstance(module, Quantizer) and module.calibrated and not module.fixed
        }

    def start_from_least_error(self) -> None:
        for weights in self.layers.values():
            weights.start()

    def parameters(self) -> list[dict[str, Any]]:
        layers, quantizers = self.layers.values(), self.quantizers.values()
        scales = [w.stretch for w in layers] + [q.stretch for q in quantizers]
        biases = [w.shift for w in layers if w.shift is not None]
        return [
            {"params": [w.codes for w in layers], "lr": WEIGHT_RATE},
            {"params": scales, "lr": SCALE_RATE},
            {"params": biases, "lr": BIAS_RATE},
        ]

    def outputs(self, batch: list[Tensor], wanted: Any) -> dict[str, Tensor]:
        """The values of these nodes for one batch."""
        self.wanted, self.found = set(wanted), {}
        self.run(*batch, enable_io_processing=False)
        return self.found

    def run_node(self, n: Node) -> Any:
        """Run a node and remember its value if it is wanted."""
        value: Any = super().run_node(n) if n.op != "output" else None
        if n.name in self.wanted:
            self.found[n.name] = value
        return value

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a layer with what it has learned, a quantizer unless it is dropped."""
        module = self.fetch_attr(target)
        if module in self.layers:
            return functional_call(module, self.layers[module].tensors(), args, kwargs)
        if isinstance(module, Quantizer):
            dropped = self.generator is not None and (
                float(torch.rand((), generator=self.generator)) < DROPPED
            )
            learned = self.quantizers.get(module)
            return args[0] if dropped or learned is None else learned.rounded(args[0])
        if isinstance(module, OpaqueNode):
            args = fx.node.map_aggregate(args, lambda a: a.detach() if isinstance(a, Tensor) else a)
        return super().call_module(target, args, kwargs)

    def keep_(self) -> None:
        for weights in self.layers.values():
            weights.keep_()
        for learned in self.quantizers.values():
            learned.keep_()


def _learners(placed: Network) -> list[tuple[str, Treated]]:
    """Layers whose weights can be learned, with the name of (one of) their nodes."""
    owners = Counter(
        id(parameter)
        for m in nn.Module.modules(placed)
        for parameter in m.parameters(recurse=False)
    )
    found: dict[Treated, str] = {}
    for node in placed.graph.nodes:
        layer = placed.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(layer, Treated) or isinstance(layer, nn.Embedding):
            continue
        if layer.on_integers and owners[id(layer.weight)] == 1:
            found.setdefault(layer, node.name)
    return [(name, layer) for layer, name in found.items()]


def _output_sizes(reference: Network, batch: list[Tensor]) -> dict[str, float]:
    """Root mean square of every module's output on a batch."""
    sizes: dict[str, float] = {}

    class Sizes(fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n) if n.op != "output" else None
            if n.op == "call_module" and isinstance(value, Tensor) and value.is_floating_point():
                sizes[n.name] = float(value.square().mean().sqrt()) or 1.0
            return value

    with torch.no_grad():
        Sizes(reference).run(*batch, enable_io_processing=False)
    return sizes


def _batch_size(network: Network) -> int:
    """Samples whose values, kept for the gradients, fit in the memory allowed."""
    values = (
        n.meta.get("val") for n in network.graph.nodes if n.op not in ("placeholder", "get_attr")
    )
    numbers = sum(_per_sample(value) for value in values if isinstance(value, Tensor))
    # Quantizers and gradients keep about as much again.
    return max(2, min(LARGEST_BATCH, MEMORY // max(1, 2 * 4 * numbers)))


def _per_sample(value: Tensor) -> int:
    return math.prod(size if isinstance(size, int) else 1 for size in value.shape[1:])


def _pools(batches: Batches) -> list[list[Tensor]]:
    """Samples of one shape together: one tensor for each input."""
    pools: dict[Any, list[Sequence[Tensor]]] = {}
    for batch in batches:
        if batch and len(batch[0]):
            pools.setdefault(tuple(tuple(t.shape[1:]) for t in batch), []).append(batch)
    return [[torch.cat(parts) for parts in zip(*pool, strict=True)] for pool in pools.values()]


def _minibatches(
    pools: Sequence[list[Tensor]], size: int, generator: torch.Generator | None
) -> Iterator[list[Tensor]]:
    """Every sample once, in random order; in the order given without a generator."""
    for pool in pools:
        count = len(pool[0])
        order = torch.arange(count)
        if generator is not None:
            order = torch.randperm(count, generator=generator)
        for start in range(0, count, size):
            rows = order[start : start + size]
            yield [tensor[rows] for tensor in pool]


__all__ = ["reconstruct_"]
