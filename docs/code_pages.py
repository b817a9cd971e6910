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
    usage = " ".join(_metavar(p) for p in command.params if p.param_type_name == "argument")
    yield f"```text\n{title} [OPTIONS] {usage}".rstrip() + "\n```\n"
    if command.epilog:
        yield f"{_prose(command.epilog)}\n"
    yield "| option | default | |"
    yield "|---|---|---|"
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            yield _parameter(parameter)
    yield ""


def _metavar(parameter: Any) -> str:
    """What stands for the value of a parameter."""
    return str(parameter.metavar or parameter.name.upper())


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = f"`{_metavar(parameter)}`"
    else:
        name = ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts])
        name += "" if parameter.is_flag else f" `{_metavar(parameter)}`"
    text = _prose(getattr(parameter, "help", None) or "")
    return f"| {_cell(name)} | {_cell(_default(parameter))} | {_cell(text)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    value = parameter.default
    is_nothing = value is None or value is False or value == () or callable(value)
    return "" if is_nothing or not parameter.show_default else f"`{value}`"


def _kinds() -> list[str]:
    from kompakt.cli.encyclopedia import articles

    return [kind for kind, entries in articles().items() if entries]


def _articles(kind: str) -> Iterator[str]:
    from kompakt.cli.encyclopedia import articles

    yield f"# {kind.capitalize()}s\n"
    yield "`kompakt explain NAME` prints the same text.\n"
    for name, article in articles()[kind].items():
        yield f"## {name}\n"
        text = article().strip()
        if set(text.splitlines()) >= HEADINGS:
            # Indented paragraphs under headings: as reStructuredText, definitions of terms.
            yield f"```{{eval-rst}}\n{text}\n```\n"
        else:
            yield f"```text\n{text}\n```\n"


HEADINGS = {"What it does", "When to use", "Cost", "Formula", "Limits", "Reference"}


GROUPS = {
    "The call": ("compression", "search"),
    "Its steps": ("network", "steps"),
    "Schemes": ("schemes",),
    "What comes out": ("artifact", "measuring"),
    "Errors": ("errors",),
}
"""Headings of the API page, and the parts of the package whose public names they hold."""


def _api() -> Iterator[str]:
    kompakt: Any = importlib.import_module("kompakt")
    yield "# Python API\n"
    yield "Everything that can be imported from `kompakt` itself. Other modules are importable, too; their names may"
    yield "change between minor versions.\n"
    names = [name for name in kompakt.__all__ if not name.startswith("__")]
    part = {name: getattr(kompakt, name).__module__.split(".")[1] for name in names}
    known = {module for modules in GROUPS.values() for module in modules}
    for title, modules in {**GROUPS, "Also": tuple(set(part.values()) - known)}.items():
        group = [name for name in names if part[name] in modules]
        if group:
            yield f"## {title}\n"
        for name in sorted(group, key=str.lower):
            yield from _documented(name, getattr(kompakt, name))


def _documented(name: str, thing: Any) -> Iterator[str]:
    path = f"{thing.__module__}.{thing.__qualname__}"
    yield f"### {name}\n"
    if inspect.isclass(thing):
        yield f"```{{eval-rst}}\n.. autoclass:: {path}\n   :members:\n```\n"
    else:
        yield f"```{{eval-rst}}\n.. autofunction:: {path}\n```\n"
