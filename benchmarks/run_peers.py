"""Other tools beside kompakt: the same float file, the same samples, timed in turn in one process.

    KOMPAKT_ASSETS=… python -m benchmarks.run_peers [--models mobilenet,resnet20] [--tools …] [--quick]

Each tool gets an environment of its own below ``.bench/``, made from
``benchmarks/peers/TOOL/requirements.txt``. Writes ``benchmarks/results/peers-MODEL.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.setup import UNSET, Setup, assets_folder, cache_folder, one_thread

if TYPE_CHECKING:
    from benchmarks.outcome import Row

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent / ".bench"
TOOLS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("minmax", "percentile"),
    "nncf": ("fast bias correction", "full bias correction"),
    "neural_compressor": ("QDQ",),
}
"""Tool (a folder of ``peers``) to the variants that are run."""
MODELS = ("mobilenet", "resnet20")
LIMIT_S = 600


def environment_of(tool: str) -> Path:
    """The Python of a tool's environment, which is made at the first use."""
    folder, requirements = ENVIRONMENTS / tool, HERE / "peers" / tool / "requirements.txt"
    python, ready = folder / "bin" / "python", folder / "requirements.txt"
    wanted = requirements.read_text(encoding="utf-8")
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        print(f"making {folder} …", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        subprocess.run([*pip, "-r", str(requirements)], check=True, timeout=LIMIT_S)
        ready.write_text(wanted, encoding="utf-8")
    return python


def run_tool(tool: str, variant: str, source: Path, samples: Path, target: Path) -> dict[str, Any]:
    """Let a tool quantize a file.

    Returns:
        ``cpu_s``, ``wall_s`` and ``versions``, or ``failed`` with the last line it wrote.
    """
    adapter = HERE / "peers" / tool / "adapter.py"
    command = [str(environment_of(tool)), str(adapter), str(source), str(samples), str(target)]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        ran = subprocess.run(
            [*command, variant],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            env=clean,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no result within {LIMIT_S} s"}
    if ran.returncode or not target.exists():
        lines = [line for line in ran.stderr.splitlines() if line.strip()]
        return {"failed": lines[-1][:300] if lines else f"exit code {ran.returncode}"}
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def compete(model: str, tools: Iterable[str], setup: Setup) -> tuple[list[Row], dict[str, Any]]:
    """Let every tool quantize one model, then judge and time all files together."""
    import numpy as np

    from benchmarks.cases import cifar, mobilenet
    from benchmarks.jobs import float_file
    from benchmarks.outcome import Row
    from benchmarks.race import race
    from kompakt.targets import get_target

    if model == "mobilenet":
        data, network = mobilenet.splits(setup), "mobilenet_v1_075"
        ours = mobilenet.by_ladder(setup)
        judged = [*data["validation"], *data["test"]]
    else:
        data, network = cifar.splits(setup), model
        ours = cifar.by_ladder(model, setup)
        judged = list(data["test"])
    source = float_file(setup, network)
    target = get_target("onnxruntime")
    name = target.load(source).input_names[0]
    samples = setup.scratch / f"{model}-calibration.npz"
    np.savez(samples, **{name: np.concatenate([x.numpy() for x, _ in data["calibration"]])})
    main = ours.path / str(ours.record.target["main"])
    files, runs = {"float": source, "kompakt": main}, {}
    for tool in tools:
        for variant in TOOLS[tool]:
            label = f"{tool}, {variant}"
            print(f"{model}: {label} …", file=sys.stderr, flush=True)
            path = setup.scratch / f"{model}-{tool}-{variant.replace(' ', '-')}.onnx"
            runs[label] = run_tool(tool, variant, source, samples, path)
            if "failed" not in runs[label]:
                files[label] = path
    loaded = {label: target.load(path) for label, path in files.items()}
    answers = {label: _answers(run, name, judged) for label, run in loaded.items()}
    one = {name: judged[0][0][:1].numpy()}
    times = race(
        {label: (lambda run=run: run(one)) for label, run in loaded.items()},
        np.random.default_rng(setup.seed),
    )
    wanted = np.concatenate([labels.numpy() for _, labels in judged])
    rows = []
    for label in files:
        if label == "float":
            continue
        agree = float((answers[label] == answers["float"]).mean())
        top1 = float((answers[label] == wanted).mean())
        cost = f", {runs[label]['cpu_s']:.1f} CPU-s" if label in runs else ""
        rows += [
            Row(what=f"{label}: agreement with float", figure=100 * agree, unit="%",
                note=f"{wanted.size:,} images, top-1 {100 * top1:.2f} %{cost}"),
            Row(what=f"{label}: speed against float in ONNX Runtime", figure=times[label].speed,
                unit="×", interval=times[label].interval,
                note=f"{times[label].median_ms:.3g} ms, one thread, batch 1; "
                f"{_bytes(files[label]) / 1e6:.2f} MB"),
        ]  # fmt: skip
    failed = {label: run["failed"] for label, run in runs.items() if "failed" in run}
    rows += [Row(what=label, figure="failed", note=why) for label, why in failed.items()]
    details = {
        "title": f"{model} beside other tools",
        "float_top1": float((answers["float"] == wanted).mean()),
        "runs": runs,
        "times": {label: asdict(t) for label, t in times.items()},
        "bytes": {label: _bytes(path) for label, path in files.items()},
        "ours": {"scheme": ours.record.scheme_name, "trials": list(ours.record.trials)},
    }
    return rows, details


def _bytes(path: Path) -> int:
    """Size of a model file and of the weights some tools put beside it."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def _answers(run: Any, name: str, batches: Sequence[Any]) -> Any:
    """The class each image is put into."""
    import numpy as np

    return np.concatenate(
        [next(iter(run({name: x.numpy()}).values())).argmax(-1) for x, _ in batches]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the peers that were asked for."""
    options = _parse(arguments)
    assets = assets_folder(os.environ)
    if assets is None:
        print(UNSET, file=sys.stderr)
        return 0
    one_thread()
    import torch
    from rich.console import Console

    from benchmarks.outcome import Outcome, document, save, table

    torch.set_num_threads(1)
    typed = arguments if arguments is not None else sys.argv[1:]
    command = shlex.join(["python", "-m", "benchmarks.run_peers", *typed])
    with tempfile.TemporaryDirectory(prefix="kompakt-bench-") as scratch:
        setup = Setup(
            assets=assets,
            cache=cache_folder(os.environ),
            scratch=Path(scratch),
            quick=options.quick,
        )
        for model in options.models:
            began = time.perf_counter()
            rows, details = compete(model, options.tools, setup)
            outcome = Outcome(rows=rows, details=details)
            result = document(f"peers-{model}", outcome, command=command, seed=setup.seed)
            path = save(result, options.out)
            Console(width=None if sys.stdout.isatty() else 160).print(table(result))
            print(f"{model}: {time.perf_counter() - began:.0f} s, {path}", file=sys.stderr)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run_peers", description="run the peers")
    parser.add_argument("--models", type=_some_of(MODELS), default=list(MODELS))
    parser.add_argument("--tools", type=_some_of(TOOLS), default=list(TOOLS))
    parser.add_argument("--quick", action="store_true", help="few images to judge on")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    results = HERE / "results"
    options.out = options.out or (results / "quick" if options.quick else results)
    return options


def _some_of(known: Iterable[str] | Mapping[str, Any]) -> Any:
    def names(text: str) -> list[str]:
        wanted = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in wanted if name not in known]
        if unknown or not wanted:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: known are {', '.join(known)}")
        return wanted

    return names


if __name__ == "__main__":
    raise SystemExit(main())
