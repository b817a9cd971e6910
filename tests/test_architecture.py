"""The rules of the house, read from the source: floors, sizes, registries, names, error codes, words."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "kompakt"

FLOORS = (
    ("errors", "error_catalogue", "escaping", "progress", "numerics", "guard", "network"),
    ("schemes", "observe"),
    ("quantize",),
    ("targets",),
    ("measuring",),
    ("artifact", "report"),
    ("deploy",),
    ("search",),
    ("options",),
    ("recording",),
    ("certification",),
    ("compression", "diagnosing", "steps"),
    ("sweeping",),
    ("sources", "demo", "cli"),
)
"""What stands on which floor, lowest first. A file imports from its own folder and from floors below."""

BESIDE = {
    ("errors", "error_catalogue"),
    ("escaping", "errors"),
    ("progress", "errors"),
    ("numerics", "errors"),
    ("guard", "errors"),
    ("guard", "escaping"),
    ("network", "errors"),
    ("network", "guard"),
    ("network", "escaping"),
    ("network", "progress"),
    ("network", "numerics"),
    ("observe", "schemes"),
    ("cli", "demo"),
    ("cli", "sources"),
}
"""Imports on one floor that are allowed all the same: (who, what)."""

RUNTIMES = {"onnxruntime", "openvino", "transformers", "tokenizers", "matplotlib", "tensorflow"}
MAY_USE_A_RUNTIME = ("targets/", "sources/huggingface.py", "network/onnx/", "guard/")

LONG_FILES = {
    "src/kompakt/error_catalogue.py": "one table: an entry for each error code",
    "tests/quantize/test_decide.py": "one small network for every placement rule",
    "tests/targets/test_onnx_rewrites.py": "every rewrite with what it does and what it leaves",
    "tests/numerics/test_reference_integer.py": "all integer kernels, tested on the same grids",
}
"""Files over 400 lines, each with the reason why it is not split."""

LONG_FUNCTIONS: dict[str, str] = {}
"""Functions with bodies over 60 lines, each with the reason."""

HEADINGS = ("What it does", "When to use", "Cost", "Formula", "Limits", "Reference")

MOST_PUBLIC_NAMES = 32


def source_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def python_files() -> list[Path]:
    folders = ("src", "tests", "docs", "examples", "benchmarks")
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if "_build" not in path.parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def top(path: Path) -> str:
    """The folder, or the single file, of the house that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(nodes: Iterator[ast.AST]) -> Iterator[tuple[str, int]]:
    """Dotted names that are imported, with their line."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            if node.module == "kompakt":
                yield from ((f"kompakt.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield str(node.module), node.lineno


def when_imported(module: ast.Module) -> Iterator[ast.AST]:
    """The statements that run when a file is imported: not those inside functions."""
    waiting: list[ast.AST] = [module]
    while waiting:
        node = waiting.pop()
        yield node
        if _is_type_checking(node):
            continue
        waiting.extend(
            child
            for child in ast.iter_child_nodes(node)
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        )


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def floor_of(name: str) -> int:
    for number, names in enumerate(FLOORS):
        if name in names:
            return number
    raise AssertionError(f"{name} stands on no floor: add it to FLOORS and to ARCHITECTURE.md")


def test_no_import_goes_up() -> None:
    wrong = []
    for path in source_files():
        here = top(path)
        if here == "__init__":
            continue
        for name, line in imports(ast.walk(tree(path))):
            parts = name.split(".")
            if parts[0] != "kompakt" or len(parts) == 1 or parts[1] in (here, "__version__"):
                continue
            there = parts[1]
            below = floor_of(there) < floor_of(here)
            if not below and (here, there) not in BESIDE:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports kompakt.{there}")
    assert not wrong, "\n".join(wrong)


def test_every_floor_is_in_use_and_in_the_architecture_page() -> None:
    there = {top(path) for path in source_files()} - {"__init__"}
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    missing = [n for n in sorted(there) if f"{n}.py" not in page and f"{n}/" not in page]
    assert not missing, f"ARCHITECTURE.md does not name {missing}"
    for name in there:
        floor_of(name)


def test_runtimes_are_imported_inside_functions_of_targets_only() -> None:
    wrong = []
    for path in source_files():
        place = path.relative_to(SOURCE).as_posix()
        for name, line in imports(when_imported(tree(path))):
            if name.split(".")[0] in RUNTIMES:
                wrong.append(f"{place}:{line} imports {name} when it is imported itself")
        if not place.startswith(MAY_USE_A_RUNTIME):
            for name, line in imports(ast.walk(tree(path))):
                if name.split(".")[0] in RUNTIMES:
                    wrong.append(f"{place}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_importing_kompakt_loads_neither_a_runtime_nor_the_compiler() -> None:
    heavy = [*sorted(RUNTIMES), "torch._inductor", "torch._dynamo", "onnxscript", "sklearn"]
    code = f"import sys, kompakt; print([m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_public_names_are_few_and_exist() -> None:
    kompakt = importlib.import_module("kompakt")
    for path in source_files():  # a module of the same name must not take a public name's place
        folder = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if folder in kompakt.__all__:
            importlib.import_module(f"kompakt.{folder}")
    names = list(kompakt.__all__)
    assert len(names) == len(set(names)) <= MOST_PUBLIC_NAMES
    for name in names:
        assert not inspect.ismodule(getattr(kompakt, name)), name
        assert name in dir(kompakt)


def test_files_are_short() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files()
    }
    long = {name for name, lines in lengths.items() if lines > 400}
    assert long <= set(LONG_FILES), "list each file over 400 lines in LONG_FILES, with a reason"


def test_functions_are_short() -> None:
    long = set()
    for path in source_files():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - _first_statement(node) + 1
                if lines > 60:
                    long.add(f"{path.relative_to(ROOT).as_posix()}::{node.name}")
    assert long <= set(LONG_FUNCTIONS), "list each function over 60 lines, with a reason"


def _first_statement(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The line where the body starts, behind the docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[0].lineno if body else function.lineno


def test_only_the_command_line_reads_the_environment() -> None:
    wrong = []
    for path in source_files():
        if top(path) == "cli":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv"):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not [w for w in wrong if not w.startswith(PASSES_ENVIRONMENT_ON)], wrong


PASSES_ENVIRONMENT_ON = ("src/kompakt/measuring/", "src/kompakt/sweeping/")
"""Where a fresh process is started: it is given this process's environment, with one thread set."""


def methods_and_observers() -> list[tuple[str, object]]:
    from kompakt.observe import OBSERVERS

    quantize = importlib.import_module("kompakt.quantize")
    methods = getattr(quantize, "METHODS", {})
    return [*OBSERVERS.items(), *methods.items()]


@pytest.mark.parametrize(("name", "entry"), methods_and_observers(), ids=lambda v: str(v)[:20])
def test_a_method_explains_itself_under_fixed_headings(name: str, entry: object) -> None:
    entry = getattr(entry, "run", entry)
    kind = entry if inspect.isfunction(entry) else type(entry)
    text = inspect.getdoc(importlib.import_module(kind.__module__)) or ""
    found = [line for line in text.splitlines() if line in HEADINGS]
    assert found == list(HEADINGS), f"the docstring of {kind.__module__} lacks a heading"


def codes_in_source() -> dict[str, str]:
    """Each error code that a string of the source is equal to, and where."""
    found = {}
    for path in source_files():
        if path.name == "error_catalogue.py":
            continue
        for node in ast.walk(tree(path)):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and re.fullmatch(r"K\d{3}", value):
                found[value] = path.relative_to(ROOT).as_posix()
    return found


def test_every_error_code_is_in_the_catalogue() -> None:
    from kompakt.error_catalogue import CATALOGUE

    unknown = {code: place for code, place in codes_in_source().items() if code not in CATALOGUE}
    assert not unknown


def test_every_catalogue_entry_is_used_and_complete() -> None:
    from kompakt.error_catalogue import CATALOGUE

    assert sorted(set(CATALOGUE) - set(codes_in_source())) == []
    for code, entry in CATALOGUE.items():
        assert entry.title, code
        assert entry.explanation.endswith("."), code
        assert entry.remedy, code


def project_texts() -> Iterator[tuple[str, str]]:
    """Every text file that belongs to the project: name, content."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path.suffix not in BINARY:
            yield name, path.read_text(encoding="utf-8", errors="replace")


BINARY = (".png", ".npz", ".onnx", ".safetensors", ".gz", ".ico")

FORBIDDEN = (
    r"/" + r"home/[a-z]",
    r"/" + r"Users/[A-Za-z]",
    r"/" + r"root/",
    r"(?<![\w.])/" + r"work/",
    r"/tmp/" + r"w/",
    r"(?i)\b" + r"cla" + r"ude\b",
    r"(?i)\b" + r"anth" + r"ropic\b",
    r"(?i)co-authored" + r"-by",
    r"(?i)\bsub" + r"agent",
    r"(?m)(?<![\w/`\"'#.])TO" + r"DO\b",
    r"\bFIX" + r"ME\b",
    r"https?://(?!" + r"[^\s/]*(github|arxiv|w3|doi|onnxruntime|keepachangelog|semver|apache|"
    r"pytorch|schema|example|localhost|127|kompakt|json|sphinx|nvidia|creativecommons)|[^\w.])",
)


def test_no_machine_path_and_no_unwanted_word_is_in_the_project() -> None:
    wrong = []
    for name, text in project_texts():
        if name == "LICENSE":
            continue
        for pattern in FORBIDDEN:
            for hit in re.finditer(pattern, text):
                line = text.count("\n", 0, hit.start()) + 1
                wrong.append(f"{name}:{line}: {hit.group()[:60]}")
    assert not wrong, "\n".join(wrong[:40])
