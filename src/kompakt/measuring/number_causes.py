"""Numbers no format can hold: NaN and infinity in weights and on edges, and denormal weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from kompakt.measuring.cause import FLOAT, Cause
from kompakt.network.network import Network

TINY = torch.finfo(torch.float32).tiny
"""The smallest normal number of float32."""


def nonfinite_weights(network: Network) -> list[Cause]:
    """Layers whose parameters or buffers hold NaN or infinity, in network order."""
    found = []
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point() or bool(tensor.isfinite().all()):
            continue
        layer, _, what = name.rpartition(".")
        nans, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
        counts = " and ".join(
            text
            for count, text in ((nans, f"{nans} NaN"), (infinite, f"{infinite} infinite values"))
            if count
        )
        found.append(
            Cause(
                code="nonfinite_weights",
                site=layer or what,
                role="weight",
                sentence=f"the {what} of `{layer or what}` holds {counts} among {tensor.numel():,}",
                remedies=(),
                facts={"nan": nans, "infinite": infinite, "tensor": name},
            )
        )
    return found


def denormal_weights(network: Network) -> list[Cause]:
    """Layers with channels whose every weight that is not 0 lies below the smallest normal number."""
    found = []
    for name, layer in nn.Module.named_modules(network):
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() < 2:
            continue
        largest = weight.detach().abs().reshape(weight.shape[0], -1).amax(1)
        tiny = ((largest > 0) & (largest < TINY)).nonzero().flatten().tolist()
        if tiny:
            text = (
                f"the weights of {len(tiny)} of {weight.shape[0]} channels of `{name}` (the first: {tiny[0]}) are "
                f"denormal, below {TINY:.2g}: no scale serves them beside the others"
            )
            facts = {"channels": len(tiny), "channel": tiny[0]}
            found.append(
                Cause(
                    code="denormal_weights",
                    site=name,
                    role="weight",
                    sentence=text,
                    remedies=(FLOAT,),
                    facts=facts,
                )
            )
    return found


def first_nonfinite_edge(network: Network, batches: Sequence[Sequence[Tensor]]) -> Cause | None:
    """The first edge that holds NaN or infinity on some data."""
    for number, inputs in enumerate(batches):
        lane = fx.Interpreter(network)
        lane.args_iter = iter(inputs)
        with torch.no_grad():
            for node in network.graph.nodes:
                if node.op == "output":
                    break
                value = lane.env[node] = lane.run_node(node)
                if not isinstance(value, Tensor) or not value.is_floating_point():
                    continue
                wrong = int((~value.isfinite()).sum())
                if wrong:
                    site = str(node.meta.get("site", node.name))
                    text = (
                        f"`{site}` is the first to hold NaN or infinity: {wrong:,} of {value.numel():,} values in "
                        f"batch {number}"
                    )
                    return Cause(
                        code="nonfinite_values",
                        site=site,
                        role="activation",
                        sentence=text,
                        remedies=(),
                        facts={"values": wrong},
                    )
    return None


__all__ = ["denormal_weights", "first_nonfinite_edge", "nonfinite_weights"]
