"""The reference of flags and settings (docs/flags.md), from the programs' own parsers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterable, Iterator, Mapping

_INTRODUCTION = """\
<!-- Made from the programs by `make generate`. Do not edit. -->
# Flags and settings

What each program takes, as its own `--help` says it. [agent.md](agent.md) describes what the agent
does with it, and [tuning.md](tuning.md) which values suit which cluster.

"""


@dataclass(frozen=True)
class Command:
    """A program, or a command of one. variables: the prefix of its flags' variables."""

    name: str
    parser: argparse.ArgumentParser
    variables: str = ""


def page(
    commands: Iterable[Command],
    settings: Mapping[str, str],
    plugin: click.Group,
) -> str:
    """The page as Markdown. settings: the meaning of each of the hooks' variables."""
    parts = [_INTRODUCTION]
    for command in commands:
        parts += _command(command)
    parts.append("## The hooks\n\nThe hooks take environment variables.\n\n")
    parts += _table(("variable", "meaning"), [(f"`{n}`", text) for n, text in settings.items()])
    parts += _click(plugin)
    return "".join(parts).rstrip() + "\n"


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    # argparse has no public list of them.
    return parser._actions  # noqa: SLF001


def _command(command: Command) -> Iterator[str]:
    parser = command.parser
    yield f"## `{command.name}`\n\n{parser.description}\n\n"
    rows = []
    for action in _actions(parser):
        if action.dest in {"help", "version"}:
            continue
        cells = [_flag(action), (action.help or "") % {**vars(action), "prog": parser.prog}]
        if command.variables:
            cells.insert(1, _variable(command.variables, action))
        rows.append(tuple(cells))
    head = ("flag", "variable", "meaning") if command.variables else ("flag", "meaning")
    yield from _table(head, rows)
    if parser.epilog:
        yield f"{parser.epilog}\n\n"


def _flag(action: argparse.Action) -> str:
    value = action.metavar or "|".join(map(str, action.choices or ()))
    if not action.option_strings:
        return f"`{value}`"
    takes = f" {value}" if value and action.nargs != 0 else ""
    return f"`{', '.join(action.option_strings)}{takes}`"


def _variable(prefix: str, action: argparse.Action) -> str:
    (flag, *_) = action.option_strings
    return f"`{prefix}{flag.removeprefix('--').replace('-', '_').upper()}`"


def _click(plugin: click.Group) -> Iterator[str]:
    context = click.Context(plugin, info_name=plugin.name)
    yield f"## `kubectl {plugin.name}`\n\n{_flat(plugin.help or '')} Flags of all commands:\n\n"
    yield from _options(plugin, set())
    shared = {one.name for one in plugin.params}
    for name in plugin.list_commands(context):
        command = plugin.get_command(context, name)
        if command is None:
            continue
        usage = command.collect_usage_pieces(click.Context(command))[1:]
        yield f"### `{' '.join((name, *usage))}`\n\n{_flat(command.help or '')}\n\n"
        yield from _options(command, shared)


def _options(command: click.Command, without: Collection[str | None]) -> Iterator[str]:
    rows = [
        (f"`{', '.join(one.opts)}`", _flat(one.help or ""))
        for one in command.params
        if isinstance(one, click.Option) and one.name not in without
    ]
    yield from _table(("flag", "meaning"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    found = list(rows)
    if found:
        for cells in (head, ("---",) * len(head), *found):
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
        yield "\n"


def _flat(text: str) -> str:
    return " ".join(text.split())
