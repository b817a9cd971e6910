"""Run the benchmarks and print what they found beside what was aimed at and what others reach.

    KOMPAKT_ASSETS=… python -m benchmarks.run [--only mobilenet,minilm] [--quick] [--out DIR]

Writes one file a benchmark, ``benchmarks/results/NAME.json``. ``--quick`` uses little data: it shows
that everything works, and writes to ``benchmarks/results/quick``. Without ``KOMPAKT_ASSETS``
nothing is run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.setup import UNSET, Setup, assets_folder, cache_folder, one_thread

if TYPE_CHECKING:
    from benchmarks.outcome import Outcome

BENCHMARKS: dict[str, tuple[str, dict[str, float]]] = {
    "mobilenet": ("mobilenet", {}),
    "resnet20": ("cifar", {"agree": 98.4, "speed": 2.0}),
    "resnet56": ("cifar", {"agree": 98.2, "speed": 2.3}),
    "minilm": ("minilm", {}),
    "kws": ("keywords", {}),
    "calibration": ("calibration", {}),
    "parity": ("parity", {}),
    "capture": ("capturing", {}),
    "onnx": ("onnx_files", {}),
    "support": ("support", {}),
    "auto": ("auto", {}),
    "other_cpus": ("other_cpus", {}),
    "openvino": ("openvino", {}),
    "transformers": ("transformers", {}),
    "litert": ("litert", {}),
    "other_runtimes": ("other_runtimes", {}),
    "tensorrt": ("tensorrt_lint", {}),
    "diagnosis": ("diagnosis", {}),
    "methods": ("methods", {}),
    "w4a8": ("w4a8", {}),
    "weights4": ("weights4", {}),
    "sweep": ("sweep", {}),
    "cnn_methods": ("cnn_methods", {}),
    "few_samples": ("few_samples", {}),
    "sensitivity": ("sensitivity", {}),
    "mixed": ("mixed", {}),
}
"""Name to the module in ``cases`` and, where it makes several benchmarks, what this one aims at."""


def function_of(name: str) -> Callable[[Setup], Outcome]:
    """The function behind a benchmark's name."""
    module, aims = BENCHMARKS[name]
    case = import_module(f"benchmarks.cases.{module}")
    found: Callable[[Setup], Outcome] = case.benchmark(name, **aims) if aims else case.run
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 when a benchmark broke (a missed target is no breakage)."""
    options = _parse(arguments)
    assets = assets_folder(os.environ)
    if assets is None:
        print(UNSET, file=sys.stderr)
        return 0
    one_thread()
    import torch

    torch.set_num_threads(1)
    typed = arguments if arguments is not None else sys.argv[1:]
    command = shlex.join(["python", "-m", "benchmarks.run", *typed])
    with tempfile.TemporaryDirectory(prefix="kompakt-bench-") as scratch:
        setup = Setup(
            assets=assets,
            cache=cache_folder(os.environ),
            scratch=options.keep or Path(scratch),
            quick=options.quick,
            seed=options.seed,
        )
        setup.scratch.mkdir(parents=True, exist_ok=True)
        broken = [name for name in options.only if not _run(name, setup, options.out, command)]
    if broken:
        print(f"broke: {', '.join(broken)}", file=sys.stderr)
    return int(bool(broken))


def _run(name: str, setup: Setup, out: Path, command: str) -> bool:
    from rich.console import Console

    from benchmarks.outcome import document, save, table

    print(f"{name} …", file=sys.stderr, flush=True)
    began = time.perf_counter()
    try:
        outcome = function_of(name)(setup)
    except Exception:  # noqa: BLE001 (the other benchmarks still run)
        traceback.print_exc()
        return False
    result = document(name, outcome, command=command, seed=setup.seed)
    path = save(result, out)
    Console(width=None if sys.stdout.isatty() else 160).print(table(result))
    print(f"{name}: {time.perf_counter() - began:.0f} s, {path}", file=sys.stderr, flush=True)
    return True


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description="run the benchmarks")
    parser.add_argument(
        "--only", type=_names, default=list(BENCHMARKS), help="names, separated by commas"
    )
    parser.add_argument("--quick", action="store_true", help="little data, no proof")
    parser.add_argument("--out", type=Path, help="where the results go")
    parser.add_argument("--keep", type=Path, help="keep the artifacts in this folder")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    results = Path(__file__).parent / "results"
    if options.quick and options.out and options.out.resolve() == results.resolve():
        parser.error("quick results are not published: they do not go into benchmarks/results")
    options.out = options.out or (results / "quick" if options.quick else results)
    return options


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown or not names:
        there_are = ", ".join(BENCHMARKS)
        raise argparse.ArgumentTypeError(
            f"no benchmark {', '.join(unknown)}; there are {there_are}"
        )
    return names


if __name__ == "__main__":
    raise SystemExit(main())
