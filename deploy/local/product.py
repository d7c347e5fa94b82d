"""The processes of localmodel and Metacontroller on a local cluster, with their arguments."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from deploy.local.errors import LocalError
from deploy.local.layout import CHECKOUT, VENV
from deploy.local.ports import LOOPBACK
from deploy.local.process import Process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.local.layout import Layout
    from deploy.local.ports import Ports

HOOKS = "hooks"
META = "metacontroller"
PYTHON = str(VENV / "bin" / "python")

# The size of a node's disk: independent of the free space of the machine, which may be small.
DISK = "20Gi"
PEER_BIND_ADDRESS = "LOCALMODEL_PEER_BIND_ADDRESS"
# Addresses of all origins and of the API server, to which tenants' models may lead the agents.
LOOPBACKS = ("127.0.0.0/8", "::1/128")

MetacontrollerChoice = Literal["auto", "standin", "real"]
RealAgents = Literal["pods", "processes"]


@dataclass(frozen=True)
class AgentOptions:
    """The options of all agents of a cluster. run: False means that no agents run.

    in_pods: whether those of real nodes run as pods of the DaemonSet. pods_env: the environment of
    these beside `env`.
    """

    grace_seconds: float
    progress_seconds: float
    args: tuple[str, ...]
    env: dict[str, str]
    disk: str = DISK
    run: bool = True
    in_pods: bool = False
    pods_env: dict[str, str] = field(default_factory=dict)

    @property
    def exchanges_nothing(self) -> bool:
        """Whether the environment keeps agents from exchanging models, as in the overlay kserve."""
        return self.env.get(PEER_BIND_ADDRESS) == ""

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of each agent, whichever way it runs."""
        return (
            "--disk-size",
            self.disk,
            "--grace-seconds",
            f"{self.grace_seconds:g}",
            "--progress-seconds",
            f"{self.progress_seconds:g}",
            # The kubelets of the local cluster leave the disk to the machine.
            *("--kubelet-thresholds", "off"),
            *(part for network in LOOPBACKS for part in ("--allow-network", network)),
            *self.args,
        )


def hooks_url(ports: Ports) -> str:
    """URL of the hooks."""
    return f"http://{LOOPBACK}:{ports.hooks}"


def hooks(ports: Ports, environment: dict[str, str]) -> Process:
    """The hooks under gunicorn, configured as in the image, with an overlay's environment."""
    argv = (
        str(VENV / "bin" / "gunicorn"),
        "--config",
        "python:hooks.gunicorn_conf",
        "--bind",
        f"{LOOPBACK}:{ports.hooks}",
        "hooks.app:create_app()",
    )
    return Process(argv, cwd=str(CHECKOUT), env=environment, order=2)


def choose_metacontroller(choice: MetacontrollerChoice, environ: Mapping[str, str]) -> str | None:
    """Path of the Metacontroller to run; None for the stand-in."""
    if choice == "standin":
        return None
    named = environ.get("METACONTROLLER", "")
    found = shutil.which(named or META, path=environ.get("PATH"))
    if found is None and named:
        raise LocalError(
            f"METACONTROLLER names {named}, which is not a program",
            todo="set it to a program, or unset it to use the stand-in",
        )
    if found is None and choice == "real":
        raise LocalError(
            "there is no metacontroller program",
            todo="put one on PATH, or name it in the variable METACONTROLLER",
        )
    return found


def metacontroller(layout: Layout, ports: Ports, program: str | None) -> Process:
    """Metacontroller with the flags of metacontroller/install, or the stand-in."""
    kubeconfig = layout.user_kubeconfig(META)
    if program is None:
        argv: tuple[str, ...] = (
            PYTHON,
            "-m",
            "deploy.local.standin",
            "--kubeconfig",
            str(kubeconfig),
        )
    else:
        argv = (
            program,
            f"--kubeconfig={kubeconfig}",
            "--apply-strategy=server-side-apply",
            "--client-go-qps=1000",
            "--client-go-burst=2000",
            "--workers=10",
            "--discovery-interval=5s",
            "--metrics-address=0",
            f"--health-probe-bind-address={LOOPBACK}:{ports.metacontroller}",
        )
    return Process(argv, cwd=str(CHECKOUT), order=3)


def agent_name(node: str) -> str:
    """Name of a node's agent process."""
    return f"agent-{node}"


def agent(layout: Layout, node: str, options: AgentOptions, port: int) -> Process:
    """The agent of one node, with its metrics and probes on this port.

    Its peers learn from the API server which port it serves them on.
    """
    argv = (
        PYTHON,
        "-m",
        "agent.main",
        "run",
        "--node-name",
        node,
        "--root",
        str(layout.disk(node)),
        "--kubeconfig",
        str(layout.user_kubeconfig(agent_name(node))),
        "--http-bind-address",
        f"{LOOPBACK}:{port}",
        *(() if options.exchanges_nothing else ("--peer-bind-address", f"{LOOPBACK}:0")),
        *options.flags,
    )
    return Process(argv, cwd=str(CHECKOUT), env=options.env, order=4)
