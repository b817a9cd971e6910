"""Captures many architectures and says for each what holds: bit-equality, shapes, modes, seconds.

    python -m benchmarks.capture [--json FILE] [--only NAME ...] [--assets DIR]

Prints a table; ``python -m benchmarks.run --only capture`` keeps it. Every figure is measured: the network
is compared with the model at the shapes it was captured with, at another batch and, where the
length may change, at another length; in train mode with the same seed; and after capturing the
network once more.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.architecture import Architecture
from benchmarks.architectures import ARCHITECTURES
from kompakt.errors import KompaktError
from kompakt.measuring.environment import environment
from kompakt.network.capture import capture
from kompakt.network.export import unfused_attention
from kompakt.network.layers import layers
from kompakt.network.network import Network

SEED = 0


def measure(architecture: Architecture) -> dict[str, Any]:
    """One row: what was captured, how long it took and what it is equal to."""
    torch.manual_seed(SEED)
    model = architecture.model()
    length = architecture.lengths[0] if architecture.lengths else 0
    example = architecture.inputs(2, length)
    fixed_length = False
    began = time.process_time()
    try:
        network = capture(model, example, dynamic=architecture.dynamic)
    except KompaktError as error:
        if error.code != "K106":
            raise
        fixed_length = True
        began = time.process_time()
        network = capture(model, example)
    seconds = time.process_time() - began
    lengths = architecture.lengths[:1] if fixed_length else architecture.lengths
    shapes = [(2, length), *((3, other) for other in lengths or (0,))]
    # Before anything runs in train mode, which changes the statistics of batch norms.
    again = recaptured(model, network, architecture, example, fixed_length)
    return {
        "cpu_seconds": round(seconds, 2),
        "layers": len(layers(network)),
        "nodes": len(network.graph.nodes),
        "fixed_length": fixed_length,
        "equal": {
            f"batch {batch}" + (f", length {size}" if size else ""): equal(
                model, network, architecture.inputs(batch, size)
            )
            for batch, size in shapes
        },
        "equal_in_train_mode": equal(model, network, example, train=True),
        "captures_again": again,
        "renamed": len(network.interface.renamed),
        "dropped": list(network.interface.dropped),
        "notes": list(network.notes),
    }


def recaptured(
    model: nn.Module,
    network: Network,
    architecture: Architecture,
    example: Mapping[str, Tensor],
    fixed_length: bool,
) -> bool:
    """Whether capturing the network gives a network that is still equal to the model."""
    again = capture(network, example, dynamic=None if fixed_length else architecture.dynamic)
    return equal(model, again, example)


def equal(
    model: nn.Module, network: Network, inputs: Mapping[str, Tensor], *, train: bool = False
) -> bool:
    """Whether both return the same bits, with the same seed and without the fused layer."""
    outputs = []
    with unfused_attention(), torch.no_grad():
        for module in (model, network):
            nn.Module.train(module, train)
            torch.manual_seed(SEED)
            outputs.append(network.flatten_outputs(module(**inputs)))
            nn.Module.eval(module)
    return all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


class RealModel(Architecture):
    """A model whose weights were learnt and stay as they are."""

    def model(self) -> nn.Module:
        """The model in eval mode."""
        return self.build().eval()


def real_models(assets: Path) -> dict[str, Architecture]:
    """The benchmark models with trained weights, at their own input shapes."""
    from benchmarks.models import MODELS, load_minilm

    def as_architecture(name: str, eager: bool = False) -> Architecture:
        entry = MODELS[name]
        example = entry.example()
        model = load_minilm(assets, attention="eager") if eager else entry.load(assets)
        if isinstance(example, Mapping):
            tensors, dynamic = dict(example), {key: {1: "sequence"} for key in example}
        else:
            (first, *_) = _parameter_names(model)
            tensors, dynamic = {first: example}, {}
        if all(tensor.dtype == torch.long for tensor in tensors.values()):
            dynamic = {key: {1: "sequence"} for key in tensors}
        size = next(iter(tensors.values())).shape[1] if dynamic else 0
        return RealModel(
            build=lambda: model,
            inputs=lambda batch, length: {
                key: _resized(tensor, batch, length) for key, tensor in tensors.items()
            },
            lengths=(size, size // 2) if dynamic else (),
            dynamic=dynamic,
        )

    eager = {"minilm (eager attention)": as_architecture("minilm", eager=True)}
    return {name: as_architecture(name) for name in MODELS} | eager


def _parameter_names(model: nn.Module) -> list[str]:
    import inspect

    return list(inspect.signature(model.forward).parameters)


def _resized(tensor: Tensor, batch: int, length: int) -> Tensor:
    repeated = torch.cat([tensor] * (1 + batch // tensor.shape[0]))[:batch]
    return repeated[:, :length] if length else repeated


def run(architectures: Mapping[str, Architecture], report: Callable[[str], None]) -> list[Any]:
    """A row for each architecture; a failure is a row too."""
    rows = []
    for name, architecture in architectures.items():
        row: dict[str, Any] = {"name": name, "failed": None}
        try:
            row.update(measure(architecture))
        except Exception as error:  # noqa: BLE001 (the table lists what fails and why)
            text = re.sub(r"\S*/site-packages/", "", str(error))
            row["failed"] = f"{type(error).__name__}: {text[:600]}"
        rows.append(row)
        report(line(row))
        gc.collect()
    return rows


def line(row: Mapping[str, Any]) -> str:
    """One row of the printed table."""
    if row["failed"]:
        return f"{row['name']:32} FAILED  {row['failed'].splitlines()[0]}"
    shapes = "bit-equal" if all(row["equal"].values()) else f"DIFFERS {row['equal']}"
    train = "train equal" if row["equal_in_train_mode"] else "train differs"
    again = "again" if row["captures_again"] else "NOT AGAIN"
    note = f"  [{row['notes'][0][:60]}]" if row["notes"] else ""
    return f"{row['name']:32} {row['cpu_seconds']:5.2f} s  {shapes}, {train}, {again}{note}"


def main() -> None:
    """Run everything, or what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--assets", type=Path, default=os.environ.get("KOMPAKT_ASSETS"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = dict(ARCHITECTURES)
    if options.assets:
        chosen = {**real_models(Path(options.assets)), **chosen}
    if options.only:
        chosen = {name: chosen[name] for name in options.only}
    rows = run(chosen, print)
    result = {"benchmark": "capture", "seed": SEED, "environment": environment(), "rows": rows}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(not row['failed'] for row in rows)} of {len(rows)} captured")


if __name__ == "__main__":
    main()
