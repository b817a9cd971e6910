"""Run the snippets of one page in order, as a reader would type them.

    python docs/run_page.py docs/start.md [FOLDER]

FOLDER (by default a new temporary one) is where the snippets run. What is run:

* ```` ```python ```` blocks, all in one namespace; a block that starts with ``>>>`` is checked like a doctest;
* ```` ```console ```` blocks: each line after ``$ `` is a command, the lines below it are its expected output, where
  ``...`` stands for anything. A command must succeed unless ``$ echo $?`` and another number follow it.

A comment on the line before a block says what is different about it:

* ``<!-- file: NAME -->`` writes the block to a file of that name instead of running it (any language);
* ``<!-- varies -->`` runs the commands without comparing the output: it depends on the machine.

``<!-- slow -->`` at the top of a page keeps it out of the default test run.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.M | re.S
)
SHELL_SIGNS = re.compile(r"[|<>&;$*]")
CHECKER = doctest.OutputChecker()
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block of a page.

    Attributes:
        language: What stands behind the opening fence.
        text: Its lines.
        line: Number of its first line in the page, from 1.
        note: The comment on the line before it, or an empty string.
    """

    language: str
    text: str
    line: int
    note: str = ""

    @property
    def file(self) -> str | None:
        """The name of the file it is written to, if it is one."""
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else None


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a console block and the output the page promises."""

    text: str
    expected: str
    line: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(
            language=match["language"],
            text=match["text"],
            line=page.count("\n", 0, match.start("text")) + 1,
            note=match["note"] or "",
        )
        for match in FENCE.finditer(page)
    ]


def commands(block: Block) -> list[Command]:
    """The commands of a console block; a line that ends in a backslash goes on in the next."""
    found: list[list[str]] = []
    numbers: list[int] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            found.append([line[2:]])
            numbers.append(number)
        elif not found:
            raise SystemExit(f"line {number}: output before the first command")
        elif found[-1][-1].endswith("\\") and len(found[-1]) == 1:
            found[-1] = [found[-1][0][:-1].rstrip() + " " + line.strip()]
        else:
            found[-1].append(line)
    return [
        Command(text=lines[0], expected="\n".join(lines[1:]).strip(), line=number)
        for lines, number in zip(found, numbers, strict=True)
    ]


class Page:
    """A page being run.

    Args:
        path: The page.
        folder: Where its snippets run; becomes the working folder.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self.namespace = sys.modules["__main__"].__dict__
        self.last_exit = 0

    def run(self) -> int:
        """Run all blocks; returns how many there were."""
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        page_blocks = blocks(self.path.read_text(encoding="utf-8"))
        for block in page_blocks:
            if block.file is not None:
                (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / block.file).write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                self._python(block)
            elif block.language == "console":
                self._console(block)
        return len(page_blocks)

    def _python(self, block: Block) -> None:
        if block.text.startswith(">>>"):
            name, where = self.path.name, block.line - 1
            test = doctest.DocTestParser().get_doctest(block.text, {}, name, name, where)
            test.globs = self.namespace
            runner = doctest.DocTestRunner(optionflags=FLAGS)
            if runner.run(test, clear_globs=False).failed:
                raise SystemExit(1)
            return
        # The blank lines make tracebacks point at the line of the page.
        code = compile("\n" * (block.line - 1) + block.text, str(self.path), "exec")
        exec(code, self.namespace)

    def _console(self, block: Block) -> None:
        todo = commands(block)
        for command, after in zip(todo, [*todo[1:], None], strict=True):
            if command.text == "echo $?":
                self._compare(command, str(self.last_exit))
                continue
            self.last_exit, output = run_command(command.text)
            asked = after is not None and after.text == "echo $?"
            if self.last_exit and not asked:
                self._fail(command, f"it left with {self.last_exit}:\n{output}")
            if block.note != "varies" and command.expected:
                self._compare(command, output)

    def _compare(self, command: Command, output: str) -> None:
        if not CHECKER.check_output(command.expected + "\n", output.strip() + "\n", FLAGS):
            self._fail(command, f"the page promises\n{command.expected}\nit printed\n{output}")

    def _fail(self, command: Command, why: str) -> None:
        raise SystemExit(f"{self.path}:{command.line}: $ {command.text}\n{why}")


def run_command(text: str) -> tuple[int, str]:
    """Run a command line; returns its exit code and what it printed (also errors, if it failed)."""
    words = shlex.split(text)
    if words[0] == "kompakt" and not SHELL_SIGNS.search(text):
        return _kompakt(words[1:])
    scripts = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-c", text],
        env=os.environ | {"PATH": scripts + os.pathsep + os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + (done.stderr if done.returncode else "")


def _kompakt(arguments: list[str]) -> tuple[int, str]:
    """The command line in this process: importing torch for each command would take most of the time."""
    from kompakt.cli.main import app

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app(arguments)
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    return code, out.getvalue() + (err.getvalue() if code else "")


@contextlib.contextmanager
def _folder(arguments: list[str]) -> Iterator[Path]:
    if arguments:
        yield Path(arguments[0]).resolve()
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def main() -> None:
    """Run the page that the command line names."""
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    path = Path(sys.argv[1]).resolve()
    with _folder(sys.argv[2:]) as folder:
        home = Path.cwd()
        try:
            number = Page(path, folder).run()
        finally:
            os.chdir(home)
    print(f"{path.name}: {number} blocks")  # noqa: T201


if __name__ == "__main__":
    main()
