"""Whether what a runtime's lowering made still computes what went into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kompakt.errors import TargetError
from kompakt.targets.target import Runnable


def refuse_garbage(
    runnable: Runnable, module: Callable[..., Any], examples: Sequence[Tensor], limit: float = 0.5
) -> None:
    """Run a written file on the example inputs: a lowering can go wrong without a warning.

    Args:
        runnable: The file, loaded.
        module: What was lowered.
        examples: Its example inputs.
        limit: Relative error of an output that is no rounding any more.

    Raises:
        TargetError: K402 when an output is further off than that.
    """
    fed = dict(zip(runnable.input_names, (e.numpy() for e in examples), strict=True))
    found = runnable(fed)
    with torch.no_grad():
        wanted = module(*examples)
    for (name, got), exact in zip(found.items(), wanted, strict=True):
        ours = torch.as_tensor(got).double()
        gap = float((ours - exact.double()).norm()) / max(float(exact.double().norm()), 1e-6)
        if ours.shape != exact.shape or not gap <= limit:
            raise TargetError(
                "K402",
                "the lowered model",
                where=name,
                why=f"on the example inputs it is off by {gap:.2g} of its norm: it was lowered to something else",
            )
