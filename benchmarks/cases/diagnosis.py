"""How often ``kompakt.diagnose`` names the fault that was planted in a good model, and what it says of good ones."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch

from benchmarks.datasets import cifar_lossless, imagenet, kws
from benchmarks.faults import diagnosis_of, faults_for, hit, judged
from benchmarks.grounds import Case, Ground, Stage
from benchmarks.models import MODELS
from benchmarks.outcome import Outcome, Row
from benchmarks.planting import Planter
from benchmarks.setup import Setup

TITLE = "Planted faults: the right layer and the right cause come first"
VARIATIONS = 3


def run(setup: Setup) -> Outcome:
    """Every fault in every model, several times."""
    rows, details = [], {"title": TITLE, "cases": []}
    total = found = 0
    for ground in grounds(setup):
        clean = diagnosis_of(ground, Planter(ground, 0).case(codes=[]))
        details[f"clean {ground.name}"] = clean.sentences
        clean_error = clean.output_error or 0.0
        hits, cases = _planted(ground, 1 if setup.quick else VARIATIONS, clean_error)
        details["cases"] += cases
        total, found = total + len(cases), found + hits
        rows.append(
            Row(
                what=f"{ground.name}: planted faults named first, of {len(cases)}",
                figure=float(hits),
                at_least=float(len(cases)),
                note=f"{len(faults_for(ground))} kinds of faults; unchanged: {clean.summary}",
            )
        )
        rows.append(
            Row(
                what=f"{ground.name}: faults named in the unchanged model",
                figure=float(len(clean.faults)),
                at_most=0.0,
                note="; ".join(f.sentence for f in clean.faults),
            )
        )
    kinds = len({case["fault"] for case in details["cases"]})
    note = f"{kinds} kinds of faults; layer, magnitude and seed vary"
    rows.insert(
        0,
        Row(
            what=f"planted faults named first, of {total}",
            figure=float(found),
            at_least=float(total),
            note=note,
        ),
    )
    return Outcome(rows=rows, details=details)


def _planted(ground: Ground, variations: int, clean: float) -> tuple[int, list[dict[str, Any]]]:
    hits, cases = 0, []
    for fault in faults_for(ground):
        for seed in range(variations):
            began = time.process_time()
            case, found = judged(ground, fault, seed, clean)
            right = hit(found, case)
            hits += right
            cases.append(_row(ground, fault, seed, case, right) | {
                "said": found.causes[0].sentence if found.causes else found.summary,
                "output_error": found.output_error,
                "cpu_s": round(time.process_time() - began, 1),
            })  # fmt: skip
    return hits, cases


def _row(ground: Ground, fault: str, seed: int, case: Case, right: bool) -> dict[str, Any]:
    return {"model": ground.name, "fault": fault, "seed": seed, "planted": case.what, "hit": right}


def grounds(setup: Setup) -> list[Ground]:
    """Three trained networks with their data."""
    return [_kws(setup), _resnet20(setup), _mobilenet(setup)]


def _kws(setup: Setup) -> Ground:
    x = kws(setup.assets, "all").inputs()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    paths = ["stem", *(f"blocks.{i}" for i in range(8))]
    stages = [
        _stage(a, f"{b}.conv", depthwise=i % 2 == 1) for i, (a, b) in enumerate(pairwise(paths))
    ]
    return Ground(
        name="KWS DS-CNN",
        model=MODELS["kws_dscnn"].load(setup.assets),
        example=MODELS["kws_dscnn"].example(),
        calibration=[x[order[i : i + 32]] for i in range(0, 128, 32)],
        data=[x[order[i : i + 32]] for i in range(128, 192, 32)],
        stages=stages,
        # In 7 bits, which the other layers have then, this network loses more than by saturation.
        without=("saturation",),
    )


def _stage(path: str, following: str, *, depthwise: bool = False) -> Stage:
    edge = f"{path}.activation"
    return Stage(
        layer=f"{path}.conv",
        norm=f"{path}.norm",
        edge=edge,
        following=following,
        depthwise=depthwise,
    )


def _resnet20(setup: Setup) -> Ground:
    x = cifar_lossless(setup.assets, "train").inputs()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    blocks = [f"layer{a}.{b}" for a in (1, 2, 3) for b in range(3)]
    stages = [
        Stage(layer=f"{b}.conv1", norm=f"{b}.bn1", edge=f"{b}.relu", following=f"{b}.conv2")
        for b in blocks
    ]
    return Ground(
        name="ResNet-20",
        model=MODELS["resnet20"].load(setup.assets),
        example=MODELS["resnet20"].example(),
        calibration=[x[order[i : i + 32]] for i in range(0, 128, 32)],
        data=[x[order[i : i + 32]] for i in range(128, 192, 32)],
        stages=stages,
        samples=8,
    )


def _mobilenet(setup: Setup) -> Ground:
    """At 128 × 128: ReLU6 leaves no room for larger values, so those faults are left out."""
    images = imagenet(setup.assets, "validation")
    x = torch.nn.functional.interpolate(images.inputs()[::4], (128, 128), mode="area")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    stages = []
    for i in range(12):
        block = f"blocks.{i}"
        stages.append(_stage(f"{block}.depthwise", f"{block}.pointwise.conv", depthwise=True))
        stages.append(_stage(f"{block}.pointwise", f"blocks.{i + 1}.depthwise.conv"))
    return Ground(
        name="MobileNetV1-0.75",
        model=MODELS["mobilenet_v1_075"].load(setup.assets),
        example=torch.zeros(2, 3, 128, 128),
        calibration=[x[order[i : i + 12]] for i in range(0, 36, 12)],
        data=[x[order[i : i + 12]] for i in range(36, 60, 12)],
        stages=stages,
        samples=8,
        without=("outlier_channel", "saturation"),
    )
