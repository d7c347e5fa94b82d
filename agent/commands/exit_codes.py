"""The exit codes of `localmodel-agent`, which docs/agent.md lists."""

from __future__ import annotations

from agent.structs.failures import FailureKind

OK = 0
UNEXPECTED = 1
# The command line is wrong, or the command cannot start.
USAGE = 2
NOT_FOUND = 3
DENIED = 4
UNREACHABLE = 5
CORRUPT = 6
NO_SPACE = 7
UNSUPPORTED = 8
TLS = 9
# 128 plus the number of the signal, as shells report it.
INTERRUPTED = 130
TERMINATED = 143

_BY_KIND = {
    FailureKind.NOT_FOUND: NOT_FOUND,
    FailureKind.DENIED: DENIED,
    FailureKind.THROTTLED: UNREACHABLE,
    FailureKind.UNREACHABLE: UNREACHABLE,
    FailureKind.TLS: TLS,
    FailureKind.CORRUPT: CORRUPT,
    FailureKind.CHANGED: CORRUPT,
    FailureKind.OTHER_VERSION: CORRUPT,
    FailureKind.NO_SPACE: NO_SPACE,
    FailureKind.READ_ONLY: UNEXPECTED,
    FailureKind.UNAVAILABLE: UNEXPECTED,
    FailureKind.OTHER_DISK: UNEXPECTED,
    FailureKind.NO_LINKS: UNEXPECTED,
    FailureKind.UNSUPPORTED: UNSUPPORTED,
    # The directory on the command line cannot be used.
    FailureKind.FOREIGN_DIRECTORY: USAGE,
    FailureKind.INTERNAL: UNEXPECTED,
}


def exit_code(kind: FailureKind) -> int:
    """The exit code for a failure that ends the command."""
    return _BY_KIND[kind]
