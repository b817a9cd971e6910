"""The reference pages made from code: errors, commands, what `kompakt explain` explains, the Python API."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any


def pages() -> dict[str, str]:
    """File name to text."""
    return {
        "errors.md": "\n".join(_errors()),
        "cli.md": "\n".join(_commands()),
        "api.md": "\n".join(_api()),
        **{f"{kind}s.md": "\n".join(_articles(kind)) for kind in _kinds()},
    }


def _errors() -> Iterator[str]:
    from kompakt.error_catalogue import CATALOGUE

    yield "# Error codes\n"
    yield "Every deliberate error has a code. `kompakt help K205` prints the same text offline.\n"
    for code, entry in CATALOGUE.items():
        yield f"## {code}: {_prose(entry.title)}\n"
        yield f"{_prose(entry.explanation)}\n"
        yield f"**What to do:** {_prose(entry.remedy)}\n"


def _prose(text: str) -> str:
    """Plain text as Markdown: placeholders in angle brackets and wildcards are not markup."""
    parts = text.split("`")
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"([<*_\[\]])", r"\\\1", parts[index])
    return "`".join(parts)


def _commands() -> Iterator[str]:
    import typer

    from kompakt.cli.main import app

    group: Any = typer.main.get_command(app)
    yield "# Command line\n"
    yield f"{inspect.cleandoc(group.help or '')}\n"
    yield f"{_prose(group.epilog or '')}\n"
    yield "Results go to standard output, narration to standard error. Without a terminal, with `NO_COLOR`"
    yield "or with `TERM=dumb` nothing is coloured and no progress bar is drawn.\n"
    for name in group.list_commands(None):
        yield from _command(f"kompakt {name}", group.commands[name])


def _command(title: str, command: Any) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{_prose(inspect.cleandoc(command.help or ''))}\n"
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join(p.make_metavar(_context(command)) for p in arguments)
    yield f"```text\n{title} [OPTIONS] {usage}".rstrip() + "\n```\n"
    if command.epilog:
        yield f"{_prose(command.epilog)}\n"
    yield "| option | default | |"
    yield "|---|---|---|"
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            yield _parameter(parameter, command)
    yield ""


def _context(command: Any) -> Any:
    return command.context_class(command)


def _parameter(parameter: Any, command: Any) -> str:
    context = _context(command)
    if parameter.param_type_name == "argument":
        name = f"`{parameter.make_metavar(context)}`"
    else:
        name = ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts])
        if not parameter.is_flag:
            name += f" `{parameter.make_metavar(context)}`"
    help_text = _prose(getattr(parameter, "help", None) or "").replace("|", "\\|")
    return f"| {name.replace('|', chr(92) + '|')} | {_default(parameter)} | {help_text} |"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return shown
    value = parameter.default
    return "" if value in (None, False, ()) or callable(value) else f"`{value}`"


def _kinds() -> list[str]:
    from kompakt.cli.encyclopedia import articles

    return list(articles())


def _articles(kind: str) -> Iterator[str]:
    from kompakt.cli.encyclopedia import articles

    yield f"# {kind.capitalize()}s\n"
    yield f"`kompakt explain NAME` prints the same text.\n"
    for name, article in articles()[kind].items():
        yield f"## {name}\n"
        yield f"```text\n{article().strip()}\n```\n"


SUMMARY = re.compile(r"\A(.+?)(?:\n\n|\Z)", re.S)


def _api() -> Iterator[str]:
    kompakt: Any = importlib.import_module("kompakt")
    names = sorted(kompakt.__all__, key=str.lower)
    yield "# Python API\n"
    yield "Everything that can be imported from `kompakt` itself. Other modules are importable, too; their names may"
    yield "change between minor versions.\n"
    for name in names:
        thing = getattr(kompakt, name)
        yield f"## {name}\n"
        if inspect.ismodule(thing) or not callable(thing):
            yield f"`kompakt.{name}` = `{thing!r}`\n" if isinstance(thing, str | int | float) else ""
            continue
        directive = "autoclass" if inspect.isclass(thing) else "autofunction"
        path = f"{thing.__module__}.{thing.__qualname__}"
        yield f"```{{eval-rst}}\n.. {directive}:: {path}"
        if directive == "autoclass":
            yield "   :members:\n   :show-inheritance:"
        yield "```\n"
