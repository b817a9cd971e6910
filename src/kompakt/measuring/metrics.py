"""The metrics there are, and how to find one by name.

Metrics look at the model's first output unless they are the user's own. What each expects is told
where it is defined: classification.py, ranking.py, dense.py, custom.py.
"""

from __future__ import annotations

import difflib

from kompakt.errors import MetricError
from kompakt.measuring.classification import AGREEMENT, F1, TOP1, TOP5
from kompakt.measuring.custom import custom_metric, transformed_metric
from kompakt.measuring.dense import COSINE, MIOU, PERPLEXITY, PSNR
from kompakt.measuring.metric import Metric
from kompakt.measuring.ranking import AP, PEARSON, SPEARMAN

METRICS: dict[str, Metric] = {
    "top1": TOP1,
    "top5": TOP5,
    "f1": F1,
    "miou": MIOU,
    "psnr": PSNR,
    "ap": AP,
    "spearman": SPEARMAN,
    "pearson": PEARSON,
    "perplexity": PERPLEXITY,
    "cosine": COSINE,
    "agreement": AGREEMENT,
}

ALIASES = {
    "accuracy": "top1",
    "acc": "top1",
    "acc1": "top1",
    "acc5": "top5",
    "f1_score": "f1",
    "f1-score": "f1",
    "iou": "miou",
    "jaccard": "miou",
    "map": "ap",
    "average_precision": "ap",
    "ppl": "perplexity",
    "cosine_similarity": "cosine",
    "pearsonr": "pearson",
    "spearmanr": "spearman",
}
"""What else people call a metric: only a hint, because one name may mean several things."""


def get_metric(spec: str | Metric) -> Metric:
    """Find a metric.

    Args:
        spec: A built-in name, ``package.module:function``, ``name@package.module:function``, or a
            :class:`Metric`.

    Raises:
        MetricError: K220 for an unknown name, K221 when it cannot be imported.

    >>> get_metric("top1").kind
    'binary'
    """
    if isinstance(spec, Metric):
        return spec
    if spec in METRICS:
        return METRICS[spec]
    name, at, function = spec.partition("@")
    if at and name in METRICS:
        return transformed_metric(spec, function, METRICS[name])
    if ":" in spec and not at:
        return custom_metric(spec)
    alias = ALIASES.get(name.lower())
    near = [alias] if alias else difflib.get_close_matches(name, METRICS, n=1)
    raise MetricError(
        "K220",
        f"metric {spec!r}",
        why="there is none of that name" + (f"; did you mean {near[0]}?" if near else ""),
        help=f"use one of {', '.join(METRICS)}, or package.module:function",
    )
