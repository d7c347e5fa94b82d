"""The command `kubectl localmodel`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from crds.version import __version__
from deploy.kube.errors import ApiError
from deploy.kubectl.printable import printable
from deploy.kubectl.session import shared_options

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "kubectl localmodel"
# Name of the command: its module, which has a click command named `command`, and what it does.
# A module is imported only when its command runs.
COMMANDS = {
    "status": ("status", "Show groups, models and nodes."),
    "why": ("explain", "Say why a model is, or is not, on the nodes."),
    "du": ("du", "Show the disk use of nodes and models."),
    "plan": ("plan_command", "Say what would happen if a file were applied."),
    "evict": ("evict", "Request the eviction of a copy."),
    "verify": ("verify", "Request the verification of copies."),
    "pin": ("pin", "Keep a model from being evicted."),
    "unpin": ("unpin", "Let a model be evicted again."),
    "ui": ("ui.command", "Show nodes and models in a browser, live."),
}


class Plugin(click.Group):
    """Imports its commands lazily, and prints errors of the API server as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"{__package__}.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing their modules."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ApiError as error:
            raise click.ClickException(printable(str(error))) from None
        except click.UsageError:
            raise
        except click.ClickException as error:
            # Such as the words of a webhook.
            click.echo(f"Error: {printable(error.format_message())}", err=True)
            ctx.exit(error.exit_code)


plugin = Plugin(
    "localmodel",
    params=shared_options(),
    help="Shows and changes which models are on the disks of the nodes.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
plugin = click.version_option(__version__, message="kubectl-localmodel %(version)s")(plugin)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command, and end the process with its exit code."""
    plugin.main(arguments, prog_name=NAME)


if __name__ == "__main__":
    main(sys.argv[1:])
