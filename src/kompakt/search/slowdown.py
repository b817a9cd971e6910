"""Which layers a compressed file computes slower than the float file, in the same runtime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from kompakt.measuring.data import Batch
from kompakt.network.network import Network
from kompakt.quantize.layers import Treated
from kompakt.search.workbench import Build, Workbench
from kompakt.targets.target import Spent

NAMED = 3
"""How many layers a sentence names."""


@dataclass(frozen=True, kw_only=True)
class Slower:
    """A layer that takes longer than in float.

    Attributes:
        site: The layer.
        operator: What the runtime executes it with.
        milliseconds: How long that takes.
        float_milliseconds: How long it takes in float.
    """

    site: str
    operator: str
    milliseconds: float
    float_milliseconds: float

    @property
    def loss(self) -> float:
        """Milliseconds lost."""
        return self.milliseconds - self.float_milliseconds


def slower_layers(bench: Workbench, build: Build, example: Batch) -> list[Slower]:
    """Treated layers that are slower than in float, the costliest first; empty where the runtime tells no times.

    Args:
        bench: Has the float file.
        build: The compressed file.
        example: What to run both on.
    """
    if bench.target.profile is None:
        return []
    inputs, baseline = example.arrays(), bench.float_build()
    with bench.clock.stage("profile"):
        ours = bench.target.profile(build.path, build.written.options, inputs, bench.threads)
        theirs = bench.target.profile(
            baseline.path, baseline.written.options, inputs, bench.threads
        )
    owners = _owners(build.placed)
    before, after = _by_layer(theirs, owners), _by_layer(ours, owners)
    treated = {name for name, module in build.placed.named_modules() if isinstance(module, Treated)}
    found = [
        Slower(
            site=site,
            operator=max(after[site], key=lambda s: s.milliseconds).operator,
            milliseconds=sum(s.milliseconds for s in after[site]),
            float_milliseconds=sum(s.milliseconds for s in before[site]),
        )
        for site in sorted(treated & before.keys() & after.keys())
    ]
    return sorted((row for row in found if row.loss > 0), key=lambda row: -row.loss)


def sentence(rows: Sequence[Slower]) -> str:
    """The costliest of them in words."""
    told = "; ".join(
        f"{row.site} ({row.operator}) {row.milliseconds:.3g} ms against {row.float_milliseconds:.3g} ms in float"
        for row in rows[:NAMED]
    )
    more = f", and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f"slower than in float: {told}{more}" if rows else ""


def _owners(placed: Network) -> dict[str, str]:
    """The layer that every name in a file belongs to: its own, and those of the activation and codes behind it."""
    owners: dict[str, str] = {}
    for node in placed.graph.nodes:
        if node.op != "call_module" or not isinstance(
            placed.get_submodule(str(node.target)), Treated
        ):
            continue
        layer = str(node.target)
        owners[layer] = layer
        current: fx.Node = node
        while len(current.users) == 1:
            current = next(iter(current.users))
            inputs = [n for n in current.all_input_nodes if n.op != "get_attr"]
            if len(inputs) != 1 or (
                current.op == "call_module"
                and isinstance(placed.get_submodule(str(current.target)), Treated)
            ):
                break
            owners.setdefault(str(current.meta.get("site", current.name)), layer)
    return owners


def _by_layer(spent: Sequence[Spent], owners: dict[str, str]) -> dict[str, list[Spent]]:
    found: dict[str, list[Spent]] = {}
    for row in spent:
        name = plain_name(row.name)
        if name in owners:
            found.setdefault(owners[name], []).append(row)
    return found


def plain_name(name: str) -> str:
    """A site from the name a runtime's optimizer made of it: ``stem.conv/Conv_token_1`` is ``stem.conv``."""
    return re.sub(r"(_token_\d+|_nchwc|_nhwc|/\w+)+$", "", name)
