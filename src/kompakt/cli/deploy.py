"""``kompakt deploy``: an artifact as what a server reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kompakt.cli import options
from kompakt.errors import UsageError

SERVERS = ("triton",)


def deploy(
    server: Annotated[str, typer.Argument(metavar="SERVER", help="triton.", show_default=False)],
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="The artifact.", show_default=False)
    ],
    repository: Annotated[
        Path, typer.Option("--repository", metavar="DIR", help="The model repository.")
    ],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What clients ask for.", show_default="the model's")
    ] = "",
    max_batch: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Largest batch made of waiting requests.",
            show_default="32, or 0 for a fixed batch",
        ),
    ] = None,
    instances: Annotated[
        int, typer.Option(min=1, help="How many run side by side, on each device.")
    ] = 1,
    device: Annotated[
        str, typer.Option(metavar="KIND", help="cpu, gpu or auto.", show_default="the backend's")
    ] = "",
    queue_delay: Annotated[
        int, typer.Option(metavar="US", min=0, help="Microseconds a request waits for others.")
    ] = 100,
    version: Annotated[int, typer.Option(min=1, help="The version's number.")] = 1,
    warmup: Annotated[
        bool, typer.Option(help="Run a request of zeros before the model is ready.")
    ] = True,
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An engine built of this artifact.")
    ] = None,
    pre: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An .onnx or .py file that makes the model's inputs."),
    ] = None,
    post: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An .onnx or .py file that takes its outputs."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write an artifact into a server's model repository."""
    from kompakt.cli.console import print_json, print_text
    from kompakt.cli.work import working

    if server not in SERVERS:
        raise UsageError(
            "K003",
            f"the server {server!r}",
            why="there is none of that name",
            help=f"use one of {', '.join(SERVERS)}",
        )
    from kompakt.deploy import TritonOptions, deploy_triton

    with working([]):
        done = deploy_triton(
            artifact,
            repository,
            TritonOptions(
                name=name,
                max_batch=max_batch,
                instances=instances,
                device=device,
                queue_delay_us=queue_delay,
                version=version,
                warmup=warmup,
                plan=plan,
                before=pre,
                behind=post,
            ),
        )
    if as_json:
        print_json(
            {
                "repository": str(done.repository),
                "models": list(done.models),
                "command": done.command,
                "schema": done.schema,
                "notes": list(done.notes),
            }
        )
        return
    from kompakt.escaping import plain

    lines = [f"wrote {', '.join(done.models)} to {plain(str(done.repository), 400)}"]
    lines += [f"every config.pbtxt was read back with the schema of {done.schema}"]
    lines += [f"note: {plain(note, 400)}" for note in done.notes]
    print_text("\n".join([*lines, "serve it with:", f"  {done.command}"]))
