"""What all commands have in common: the options of kubectl, the client, errors."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.kube.client import KubeClient
    from deploy.kubectl.snapshot import Snapshot

FAILED = 1
# click's own for a wrong command line.
USAGE = 2

_DEFAULT = "default"
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

# The modules of the client take half a second to import, so that functions here import them.


class ConfigFailure(click.ClickException):
    """The kubeconfig cannot be used."""

    exit_code = USAGE


@dataclass(frozen=True)
class Session:
    """The options that every command has. output: table or json."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str = ""
    output: str = "table"

    @property
    def as_json(self) -> bool:
        """Whether the output is for programs."""
        return self.output == "json"

    def client(self) -> KubeClient:
        """A client for the cluster that the options name; this makes no call yet."""
        from agent.cluster.connection import ConfigError  # noqa: PLC0415
        from deploy.kube.client import KubeClient  # noqa: PLC0415

        try:
            return KubeClient.connect(self._kubeconfig(), self.context)
        except ConfigError as error:
            raise ConfigFailure(str(error)) from None

    def snapshot(self, client: KubeClient | None = None) -> Snapshot:
        """All objects of localmodel's kinds, as they are now."""
        from deploy.kubectl.snapshot import read  # noqa: PLC0415

        return read(client or self.client(), self.namespace)

    def usual_namespace(self) -> str:
        """The namespace that kubectl would use: that of -n, of the context, or `default`."""
        from kubernetes.config import kube_config  # noqa: PLC0415

        path = self._kubeconfig()
        if self.namespace or path is None:
            pods = _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.exists() else ""
            return self.namespace or pods or _DEFAULT
        untyped: Any = kube_config
        config = untyped.KubeConfigMerger(str(path)).config
        context = untyped.KubeConfigLoader(config, active_context=self.context).current_context
        return str((context.get("context") or {}).get("namespace") or _DEFAULT)

    def _kubeconfig(self) -> Path | None:
        """The kubeconfig that kubectl would read; None in a pod that has none."""
        named = self.kubeconfig or os.environ.get("KUBECONFIG")
        usual = Path.home() / ".kube/config"
        if named:
            return Path(named).expanduser()
        return None if "KUBERNETES_SERVICE_HOST" in os.environ and not usual.exists() else usual


class SharedOption(click.Option):
    """An option of the group and of every command: kubectl's users write options anywhere."""

    def __init__(self, field: str, *names: str, **settings: Any) -> None:
        def keep(context: click.Context, _option: click.Parameter, value: str | None) -> None:
            session = context.ensure_object(Session)
            if value is not None:
                context.obj = replace(session, **{field: value})

        super().__init__([*names, field], expose_value=False, callback=keep, **settings)


def shared_options() -> list[click.Parameter]:
    """The options of kubectl that every command has."""
    return [
        SharedOption("context", "--context", metavar="NAME", help="Context of the kubeconfig."),
        SharedOption(
            "kubeconfig",
            "--kubeconfig",
            type=click.Path(),
            metavar="FILE",
            help="Path of the kubeconfig.",
        ),
        SharedOption(
            "namespace",
            "-n",
            "--namespace",
            metavar="NAME",
            help="Namespace of LocalModelNamespaceCaches.",
        ),
        SharedOption(
            "output",
            "-o",
            "--output",
            type=click.Choice(["table", "json"]),
            help="Form of the output; table by default.",
        ),
    ]


class Command(click.Command):
    """A command with the shared options: `@click.command(cls=Command)`."""

    def __init__(
        self, name: str | None, params: Sequence[click.Parameter] = (), **settings: Any
    ) -> None:
        super().__init__(name, params=[*params, *shared_options()], **settings)


pass_session = click.make_pass_decorator(Session, ensure=True)
