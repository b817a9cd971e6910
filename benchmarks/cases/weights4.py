"""4-bit weights in groups of 32: a sentence encoder by its cosine to float, a language model by its perplexity."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import kompakt
from benchmarks import models, sts
from benchmarks.cases import minilm
from benchmarks.datasets import sts_spearman, tinystories
from benchmarks.outcome import Outcome, Row
from benchmarks.setup import Setup
from kompakt.measuring.data import prepare
from kompakt.schemes import FLOAT, Scheme, w4
from kompakt.search.candidates import Candidate
from kompakt.search.workbench import Build, Workbench
from kompakt.targets import get_target

TITLE = "4-bit weights in groups of 32"
COSINE, INCREASE = 0.980, 5.5
STORIES = {"calibration": slice(51), "validation": slice(51, 91), "test": slice(91, None)}
STORY_TOKENS = 512
TRIED = (
    ("round to nearest, symmetric", True, ()),
    ("round to nearest", False, ()),
    ("weight_ranges", False, ("weight_ranges",)),
    ("gptq, symmetric", True, ("gptq",)),
    ("gptq", False, ("gptq",)),
    ("awq + gptq", False, ("awq", "gptq")),
)
"""What is tried: its name, whether weights are symmetric, and methods."""
ENCODERS = (
    {"tool": "ORT RTN, symmetric", "figure": 0.9665},
    {"tool": "ORT RTN", "figure": 0.9720},
    {"tool": "ORT HQQ", "figure": 0.9759},
    {"tool": "NNCF RTN", "figure": 0.9701},
)
LANGUAGE_MODELS = ({"tool": "ORT RTN", "figure": 9.0}, {"tool": "ORT HQQ", "figure": 8.3})

Inputs = Sequence[Mapping[str, NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What one way of rounding gave.

    Attributes:
        name: Of the way.
        chosen_by: The figure on validation data; larger is better.
        test: The figure on test data.
        cpu_s: CPU seconds to build and write it.
        size_mb: Of the file.
        note: What else was seen.
    """

    name: str
    chosen_by: float
    test: float
    cpu_s: float
    size_mb: float
    note: str = ""


def run(setup: Setup) -> Outcome:
    """Every way is judged on validation data; the best one's figure on test data has to reach the aim."""
    encoder, language = list(encoders(setup)), list(language_models(setup))
    best, least = (max(found, key=lambda t: t.chosen_by) for found in (encoder, language))
    rows = [
        *(
            Row(
                what=f"MiniLM, {t.name}: mean cosine to the float embedding",
                figure=t.test,
                at_least=COSINE if t is best else None,
                others=ENCODERS if t is best else (),
                note=_note(t, chosen=t is best),
            )
            for t in encoder
        ),
        *(
            Row(
                what=f"stories260K, {t.name}: increase of perplexity",
                figure=t.test,
                unit="%",
                at_most=INCREASE if t is least else None,
                others=LANGUAGE_MODELS if t is least else (),
                note=_note(t, chosen=t is least),
            )
            for t in language
        ),
    ]
    return Outcome(rows=rows, details={"title": TITLE})


def _note(tried: Tried, *, chosen: bool) -> str:
    parts = [
        "chosen on validation data" if chosen else "",
        f"{tried.cpu_s:.1f} CPU-s to build, {tried.size_mb:.2f} MB",
        tried.note,
    ]
    return "; ".join(part for part in parts if part)


def encoders(setup: Setup) -> Iterator[Tried]:
    """MiniLM: 128 training sentences to calibrate on, other ones to choose on, STS-B dev to report."""
    bench = _bench(setup, "minilm", minilm.splits(setup)["calibration"], minilm.DYNAMIC)
    chosen_on = sts.pairs(setup.assets, "train", slice(1000, 1100), length=minilm.LENGTH)
    reported = sts.pairs(setup.assets, "dev", setup.some(1500, 100), length=minilm.LENGTH)
    parts = [_sentences(part) for part in (chosen_on, reported)]
    exact = [_embeddings(bench.float_build(), part) for part in parts]
    baseline = sts_spearman({"": exact[1]}, reported.labels)
    for name, build, seconds in _builds(bench, lambda symmetric: w4(symmetric=symmetric)):
        found = [_embeddings(build, part) for part in parts]
        cosine = [
            float((a.astype(np.float64) * b).sum(1).mean())
            for a, b in zip(found, exact, strict=True)
        ]
        spearman = sts_spearman({"": found[1]}, reported.labels)
        yield Tried(
            name=name,
            chosen_by=cosine[0],
            test=cosine[1],
            cpu_s=seconds,
            size_mb=build.path.stat().st_size / 1e6,
            note=f"{len(reported):,} sentences of STS-B dev; Spearman {spearman:.4f}, "
            f"float {baseline:.4f}",
        )
        build.path.unlink()


def language_models(setup: Setup) -> Iterator[Tried]:
    """The story model, its embedding and output layer in float as other tools leave them."""
    stories = tinystories(setup.assets, context=STORY_TOKENS)
    parts = {name: stories[rows] for name, rows in STORIES.items()}
    if setup.quick:
        parts["test"] = parts["test"][:10]
    calibration = [{"input_ids": torch.from_numpy(story)[None]} for story in parts["calibration"]]
    bench = _bench(setup, "stories260k", calibration, {"input_ids": {0: "batch", 1: "time"}})
    judged = [parts["validation"], parts["test"]]
    exact = [_perplexity(bench.float_build(), part) for part in judged]
    for name, build, seconds in _builds(bench, _blocks_only):
        found = [_perplexity(build, part) for part in judged]
        grown = [100 * (a / b - 1) for a, b in zip(found, exact, strict=True)]
        yield Tried(
            name=name,
            chosen_by=-grown[0],
            test=grown[1],
            cpu_s=seconds,
            size_mb=build.path.stat().st_size / 1e6,
            note=f"{sum(map(len, judged[1])):,} tokens of {len(judged[1])} stories; perplexity {found[1]:.4f}, "
            f"float {exact[1]:.4f}",
        )
        build.path.unlink()


def _blocks_only(symmetric: bool) -> Scheme:
    return replace(w4(symmetric=symmetric, keep_float=("emb.linear",)), embedding=FLOAT)


def _bench(setup: Setup, name: str, calibration: Any, dynamic: Any) -> Workbench:
    entry = models.MODELS[name]
    network = kompakt.capture(entry.load(setup.assets), entry.example(), dynamic=dynamic)
    data = list(prepare(calibration, network.input_specs, role="calibration"))
    folder = setup.scratch / f"weights4-{name}"
    folder.mkdir()
    return Workbench(network, get_target("onnxruntime"), "x86-vnni", folder, data, data, 1)


def _builds(
    bench: Workbench, scheme: Callable[[bool], Scheme]
) -> Iterator[tuple[str, Build, float]]:
    for name, symmetric, methods in TRIED:
        candidate = Candidate(name=name, level=2, scheme=scheme(symmetric), methods=methods)
        began = time.process_time()
        build = bench.build(candidate)
        yield name, build, time.process_time() - began


def _sentences(data: Any) -> Inputs:
    """Batches of 20 sentences, without the padding that none of them needs."""
    batches = []
    for start in range(0, len(data), 20):
        mask = data.attention_mask[start : start + 20]
        ids, longest = data.input_ids[start : start + 20], int(mask.sum(1).max())
        batches.append({"input_ids": ids[:, :longest], "attention_mask": mask[:, :longest]})
    return batches


def _embeddings(build: Build, batches: Inputs) -> NDArray[np.float32]:
    return np.concatenate([next(iter(build.runnable(inputs).values())) for inputs in batches])


def _perplexity(build: Build, stories: Sequence[NDArray[np.int64]]) -> float:
    """Of all tokens but the first of each story."""
    total, count = 0.0, 0
    for story in stories:
        outputs = build.runnable({"input_ids": story[None]})
        logits = next(iter(outputs.values()))[0, :-1].astype(np.float64)
        shifted = logits - logits.max(1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        total -= float(logs[np.arange(len(logs)), story[1:]].sum())
        count += len(logs)
    return float(np.exp(total / count))
