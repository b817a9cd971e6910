"""The cheapest plan whose predicted loss stays under a limit, as an integer program solved by HiGHS.

    minimise   Σ cost[l,c]·x[l,c] + Σ conversion[a,b]·y[a,b]
    such that  Σ_c x[l,c] = 1                        one choice for each layer
               q[e] ≥ x[l,c]                         a tensor is rounded if any neighbour computes on its codes
               y[a,b] ≥ ±(s[a] − s[b])               neighbours of different kinds convert; s[l] = Σ x[l, on codes]
               Σ loss[l,c]·x[l,c] + Σ loss[e]·q[e] ≤ limit

x is binary; q and y are then 0 or 1 by themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from kompakt.search.costs import Costs
from kompakt.search.sensitivity import Terms

SECONDS = 10.0
"""HiGHS gives its best plan so far after this long."""

Plan = dict[str, str]


class _Rows:
    """Rows of a sparse system, each with its bounds."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, float]] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def add(self, coefficients: Mapping[int, float], low: float, high: float) -> None:
        row = len(self.low)
        self.entries += [(row, column, value) for column, value in coefficients.items()]
        self.low.append(low)
        self.high.append(high)

    def constraint(self, columns: int) -> LinearConstraint:
        rows, where, values = zip(*self.entries, strict=True)
        matrix = coo_array((values, (rows, where)), shape=(len(self.low), columns))
        return LinearConstraint(matrix.tocsr(), np.array(self.low), np.array(self.high))


def cheapest(
    layers: Mapping[str, Collection[str]],
    costs: Costs,
    terms: Terms,
    limit: float,
    on_codes: frozenset[str],
) -> Plan | None:
    """The cheapest plan within a limit on the predicted loss.

    Args:
        layers: For each layer its choices, without ``float``, which it always has.
        costs: What each costs.
        terms: What each loses.
        limit: The largest predicted loss; infinity for the cheapest plan of all.
        on_codes: The choices whose layers read and write codes.

    Returns:
        A choice for each layer; None where HiGHS finds none in time.
    """
    x: dict[tuple[str, str], int] = {}
    for layer, names in layers.items():
        for name in ("float", *(n for n in names if (layer, n) in costs.layers)):
            x[layer, name] = len(x)
    edges = {edge: len(x) + i for i, edge in enumerate(terms.edges)}
    pairs = {pair: len(x) + len(edges) + i for i, pair in enumerate(costs.boundaries)}
    columns = len(x) + len(edges) + len(pairs)
    rows = _Rows()
    for layer in layers:
        rows.add({column: 1.0 for (other, _), column in x.items() if other == layer}, 1.0, 1.0)
    for edge, switches in terms.switched_by.items():
        for pair in switches & x.keys():
            rows.add({edges[edge]: 1.0, x[pair]: -1.0}, 0.0, np.inf)
    for (a, b), column in pairs.items():
        difference = _difference(x, a, b, on_codes)
        rows.add({column: 1.0, **difference}, 0.0, np.inf)
        rows.add({column: 1.0, **{c: -v for c, v in difference.items()}}, 0.0, np.inf)
    scale = 1.0 / max(limit, 1e-300)
    loss = {x[pair]: value * scale for pair, value in terms.layers.items() if pair in x}
    loss |= {edges[edge]: value * scale for edge, value in terms.edges.items()}
    if loss and np.isfinite(limit):
        rows.add(loss, -np.inf, 1.0)
    objective = np.zeros(columns)
    for pair, column in x.items():
        objective[column] = costs.layers[pair]
    for pair, column in pairs.items():
        objective[column] = costs.conversion * costs.boundaries[pair]
    integral = np.zeros(columns)
    integral[: len(x)] = 1
    solved = milp(
        objective / max(float(np.abs(objective).max()), 1e-300),
        integrality=integral,
        bounds=Bounds(0, 1),
        constraints=rows.constraint(columns),
        options={"time_limit": SECONDS, "mip_rel_gap": 1e-3},
    )
    if solved.x is None:
        return None
    return {layer: name for (layer, name), column in x.items() if solved.x[column] > 0.5}


def _difference(
    x: Mapping[tuple[str, str], int], a: str, b: str, on_codes: frozenset[str]
) -> dict[int, float]:
    """s[a] − s[b] as coefficients."""
    found = {column: 1.0 for (layer, name), column in x.items() if layer == a and name in on_codes}
    minus = {column: -1.0 for (layer, name), column in x.items() if layer == b and name in on_codes}
    return {**found, **minus}
