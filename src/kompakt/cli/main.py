"""``kompakt``: the table of commands. Nothing heavy is imported here, so ``--help`` is instant."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kompakt import __version__
from kompakt.cli import (
    compress,
    demo,
    deploy,
    diagnose,
    explain,
    help,
    inspect,
    lint,
    measure,
    report,
    sweep,
    verify,
)
from kompakt.cli import (
    sys as system,
)
from kompakt.cli.failure import exit_code_of, say_interrupted

EPILOG = (
    "Exit codes: 0 done, 1 error, 2 usage, 3 budget or parity not met, 130 interrupted. "
    "Every error has a code: see `kompakt help K012`. Nothing is ever sent anywhere."
)


class Commands(TyperGroup):
    """The group of all commands; turns every exception into a message and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order they were added, which is the order to read them in."""
        return list(self.commands)

    def main(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        """Run the command line ``args`` and leave with the right exit code."""
        arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
        options |= {"standalone_mode": False, "obj": arguments}
        try:
            code = super().main(arguments, *rest, **options)
        except Exception as error:  # noqa: BLE001  (the last line of defence)
            code = exit_code_of(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command; Ctrl-C leaves with 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say_interrupted(shlex.join(["kompakt", *ctx.obj]))
            raise typer.Exit(130) from None


app = typer.Typer(
    name="kompakt",
    cls=Commands,
    help="Makes trained deep-learning models compact, and proves what came out.",
    epilog=EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kompakt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("compress", epilog=compress.DATA_FORMS)(compress.compress)
app.command("sweep", epilog=sweep.METHODS_FORM)(sweep.sweep)
app.command("measure")(measure.measure)
app.command("inspect")(inspect.inspect)
app.command("diagnose", epilog=compress.DATA_FORMS)(diagnose.diagnose)
app.command("explain")(explain.explain)
app.command("verify")(verify.verify)
app.command("lint")(lint.lint)
app.command("deploy")(deploy.deploy)
app.command("report")(report.report)
app.command("sys")(system.sys)
app.command("help")(help.help)


def run() -> None:
    """Entry point of the ``kompakt`` script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app()
