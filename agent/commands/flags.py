"""The command line: all commands and their flags, which environment variables can set too."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from agent.commands import flag_types
from agent.commands.exit_codes import USAGE
from agent.structs.credentials import DEFAULT_NAMESPACE, Unlisted
from agent.structs.options import MAX_CONNECTIONS
from crds.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# The same as in agent.commands.logs, whose import is too slow for a --help.
LOG_FORMATS = ("auto", "console", "json")
# Without Kubernetes the person who starts the command chooses all URIs, so file:// may read any
# directory.
ANYWHERE = Path("/")

VARIABLES = "LOCALMODEL_"


class _Parser(argparse.ArgumentParser):
    """Reports an error of usage in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line. Exits with USAGE for an invalid command line."""
    program, commands = parsers()
    options = program.parse_args(arguments)
    if options.command == "run":
        _check_run(commands["run"], options)
    return options


def parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the program, and those of its commands by name."""
    parser = _Parser(prog="localmodel-agent", description="Keeps models on this node's disk.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="make the disk match the node's LocalModelNode, or a file",
        description="Makes the disk match the node's LocalModelNode until SIGTERM; with --models, "
        "makes the disk match that file, without Kubernetes.",
        epilog="Each flag can also be set by an environment variable, such as "
        "LOCALMODEL_NODE_NAME for --node-name; several directories are separated by a colon, "
        "several networks or claims by a comma.",
    )
    pull = commands.add_parser(
        "pull",
        help="download one model into a directory, without Kubernetes",
        description="Downloads a model into a directory, which appears when the model is complete "
        "and verified. After an interruption the same command resumes the download.",
        epilog="Exit codes: 0 done, 1 unexpected, 2 cannot start, 3 not found, 4 denied, 5 "
        "unreachable or throttled, 6 corrupt or changed, 7 no space, 8 unsupported, 9 TLS, 130 "
        "interrupted.",
    )
    _add_run(run)
    _add_pull(pull)
    return parser, {"run": run, "pull": pull}


def _check_run(run: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    required = {"--node-name": options.node_name, "--root": options.root}
    if options.models is not None:
        del required["--node-name"]
    missing = [flag for flag, value in required.items() if value is None]
    if missing:
        run.error(f"the following arguments are required: {', '.join(missing)}")
    needing = {"--once": options.once, "--verify": options.verify, "--peer": options.peer}
    for flag, given in needing.items():
        if given and options.models is None:
            run.error(f"{flag} needs --models")
    bound, told = options.peer_bind_address, options.peer_address
    if options.models is None and bound is not None and not told and flag_types.is_any(bound[0]):
        run.error("--peer-bind-address on all addresses needs --peer-address")
    if options.models is not None and options.startup_taint_priority is not None:
        run.error("--models is for use without Kubernetes: leave out --startup-taint-priority")
    if options.models is not None and options.kubeconfig is not None:
        run.error("--models is for use without Kubernetes: give either that or --kubeconfig")


def _add_run(run: argparse.ArgumentParser) -> None:
    add = _Adder(run)
    add.value(
        "--node-name", flag_types.node_name, "NAME", "name of the node and of its LocalModelNode"
    )
    add.value("--root", Path, "DIR", "directory that holds models/, on the disk for the models")
    add.value(
        "--disk-size",
        flag_types.quantity,
        "QUANTITY",
        "treat the root as a disk of this size that holds nothing else, such as 20Gi; default: "
        "the size of the file system",
    )
    add.value(
        "--volumes",
        flag_types.volumes,
        "model|root",
        "what a claim's volume shows on this node: one model, by hard links below volumes/, or the "
        "whole root; the hooks need the same setting",
        "root",
    )
    add.value(
        "--kubelet-thresholds",
        flag_types.kubelet_thresholds,
        "NAME=VALUE,...|off",
        "what the kubelet keeps available of a disk that it shares with the root, such as "
        "imageGCHighThresholdPercent=85,nodefs.available=50Gi; default: as Kubernetes documents",
    )
    add.value(
        "--kubelet-configz",
        flag_types.https_url,
        "URL",
        "where the agent reads the kubelet's thresholds, such as https://10.0.0.7:10250/configz; "
        "until it can, --kubelet-thresholds count",
    )
    add.value(
        "--kubelet-file-systems",
        flag_types.kubelet_file_systems,
        "auto|nodefs,imagefs",
        "which of the kubelet's file systems the root is on",
        "auto",
    )
    add.value(
        "--kubeconfig",
        Path,
        "FILE",
        "how to reach the API server; default: as the pod's ServiceAccount",
    )
    add.value(
        "--credentials-namespace",
        flag_types.namespace,
        "NAME",
        "namespace of the secrets that caches name",
        DEFAULT_NAMESPACE,
    )
    add.value(
        "--unlisted-credentials",
        flag_types.unlisted,
        "allow|refuse",
        "whether namespace caches may use credentials that do not list the namespaces that may "
        "use them, and the agent's own credentials",
        Unlisted.REFUSE,
    )
    add.value(
        "--models", Path, "FILE", "YAML file of the models to keep, instead of a LocalModelNode"
    )
    add.switch("--once", "with --models: end when each model is published or has failed")
    add.switch(
        "--verify",
        "with --models: first verify the copies on the disk, and download damaged models again",
    )
    add.value(
        "--retries",
        flag_types.retries,
        "N",
        "with --once: retries after a failure that may pass by itself",
        "3",
    )
    add.value(
        "--grace-seconds",
        flag_types.seconds,
        "S",
        "how long a copy stays that no entry requests",
        "60",
    )
    add.value("--progress-seconds", flag_types.seconds, "S", "how often progress is reported", "15")
    add.value("--max-downloads", flag_types.count, "N", "models downloaded at the same time", "2")
    add.value(
        "--startup-taint-priority",
        flag_types.priority,
        "N",
        "remove the startup taint localmodel.serving.kserve.io/not-ready of the node once its "
        "models of priority N or higher are cached; default: leave it alone",
    )
    _add_limits(add)
    add.value(
        "--limits-file",
        Path,
        "FILE",
        "YAML file of limits, whose changes the agent follows; a value in the file overrides the "
        "flag",
    )
    add.value(
        "--scrub-bytes-per-second",
        flag_types.rate,
        "QUANTITY",
        "how fast published copies are scrubbed to find damage; 0: never",
        "20Mi",
    )
    add.value(
        "--scrub-interval-seconds",
        flag_types.seconds,
        "S",
        "the time between two scrubs of a copy",
        "86400",
    )
    add.value(
        "--access-recheck-seconds",
        flag_types.seconds,
        "S",
        "how often the agent asks sources whether namespaces may still use their copies",
        "3600",
    )
    add.values("--allow-file-dir", Path, "DIR", "directory that file:// may read", ":")
    add.values(
        "--allow-pvc",
        flag_types.claim,
        "CLAIM=DIR",
        "directory where a claim is mounted, for pvc://CLAIM/path",
        ",",
    )
    add.values(
        "--refuse-network",
        flag_types.network,
        "CIDR",
        "addresses that no source may have, beside the metadata services of clouds, which are "
        "always refused",
        ",",
    )
    add.values(
        "--allow-network",
        flag_types.network,
        "CIDR",
        "addresses from which namespace caches may download although they are loopback addresses, "
        "the node's or the API server's",
        ",",
    )
    add.values(
        "--node-address",
        flag_types.address,
        "ADDRESS",
        "address of the node, from which namespace caches may not download",
        ",",
    )
    add.value(
        "--http-bind-address",
        flag_types.bind_address,
        "HOST:PORT",
        "serve /metrics, /healthz and /readyz there, without authentication; without a host on "
        "all addresses, port 0: a free port, which the log names; default: no server",
    )
    _add_peers(add)
    run.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        default=_variable("--log-format") or "auto",
        help="auto: console on a terminal, json elsewhere (default)",
    )


def _add_pull(pull: argparse.ArgumentParser) -> None:
    add = _Adder(pull)
    pull.add_argument("uri", type=flag_types.uri, metavar="URI", help="where the model is")
    pull.add_argument("directory", type=Path, metavar="DIR", help="directory for the model's files")
    what = pull.add_mutually_exclusive_group()
    what.add_argument(
        "--verify",
        action="store_true",
        help="download nothing: compare DIR with the source, and report the differences",
    )
    what.add_argument(
        "--force",
        action="store_true",
        help="download the model although an earlier pull of it exists, and replace that pull",
    )
    pull.add_argument(
        "--hash",
        type=flag_types.model_hash,
        metavar="HASH",
        help="required hash, as sha256:...; a model with another hash is not published",
    )
    add.value(
        "--retries",
        flag_types.retries,
        "N",
        "retries after a failure that may pass by itself",
        "3",
    )
    _add_limits(add)
    _add_peer(add)
    pull.add_argument(
        "--quiet", action="store_true", help="no progress, only the result and errors"
    )


def _add_peers(add: _Adder) -> None:
    add.value(
        "--peer-bind-address",
        flag_types.bind_address,
        "HOST:PORT",
        "exchange pieces of models with other agents, and serve them there; in a cluster by TLS, "
        "to the peers that the LocalModelNode names. With --models by plain HTTP: whoever reaches "
        "the port and knows the URI of a model can read it, so bind it to a private network; "
        "default: no exchange",
    )
    add.value(
        "--peer-address",
        flag_types.address,
        "ADDRESS",
        "where other agents reach this one, and how they name it, without a port; default: the "
        "host of --peer-bind-address",
    )
    _add_peer(add)
    add.value(
        "--peer-upload-bytes-per-second",
        flag_types.rate,
        "QUANTITY",
        "limit for what all other agents get together, such as 500Mi; 0: no limit",
        "0",
    )
    add.value(
        "--peer-upload-connections",
        flag_types.count,
        "N",
        "how many transfers other agents get at the same time",
        "16",
    )


def _add_peer(add: _Adder) -> None:
    add.values(
        "--peer",
        flag_types.peer,
        "HOST:PORT",
        "without Kubernetes: another agent to fetch pieces of models from by plain HTTP, as its "
        "--peer-bind-address",
        ",",
    )


def _add_limits(add: _Adder) -> None:
    add.value(
        "--bytes-per-second",
        flag_types.quantity,
        "QUANTITY",
        "limit for all downloads together, such as 500Mi; default: no limit",
    )
    add.value(
        "--connections-per-origin",
        flag_types.connections,
        "N",
        "limit for connections to one origin",
        str(MAX_CONNECTIONS),
    )


class _Adder:
    """Adds flags whose defaults come from environment variables."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser

    def value(
        self,
        flag: str,
        kind: Callable[[str], Any],
        metavar: str,
        text: str,
        default: str | None = None,
    ) -> None:
        """Add a flag with one value, which is None without a default."""
        self._parser.add_argument(
            flag,
            type=kind,
            metavar=metavar,
            # argparse parses a default that is text like a value of the command line.
            default=_variable(flag) or default,
            help=f"{text} (default: {default})" if default else text,
        )

    def values(
        self, flag: str, kind: Callable[[str], Any], metavar: str, text: str, separator: str
    ) -> None:
        """Add a repeatable flag."""
        named = [part for part in _variable(flag).split(separator) if part]
        self._parser.add_argument(
            flag,
            type=kind,
            metavar=metavar,
            action="append",
            default=[self._read(flag, kind, part) for part in named],
            help=f"{text}; repeatable (default: none)",
        )

    def switch(self, flag: str, text: str) -> None:
        """Add a flag without a value."""
        named = _variable(flag)
        self._parser.add_argument(
            flag,
            action="store_true",
            default=bool(named) and self._read(flag, flag_types.switch, named),
            help=text,
        )

    def _read(self, flag: str, kind: Callable[[str], Any], text: str) -> Any:
        try:
            return kind(text)
        except argparse.ArgumentTypeError as error:
            self._parser.error(f"{_name(flag)}: {error}")


def _variable(flag: str) -> str:
    return os.environ.get(_name(flag), "")


def _name(flag: str) -> str:
    return VARIABLES + flag.removeprefix("--").replace("-", "_").upper()
