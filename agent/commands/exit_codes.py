"""The exit codes of `localmodel-agent`: docs/agent.md lists them."""

from __future__ import annotations

from localmodel.agent.structs.failures import FailureKind

OK = 0
UNEXPECTED = 1
# The command line is wrong, or it cannot start.
USAGE = 2
NOT_FOUND = 3
DENIED = 4
UNREACHABLE = 5
CORRUPT = 6
NO_SPACE = 7
UNSUPPORTED = 8
TLS = 9
# As shells have them: 128 and the signal.
INTERRUPTED = 130
TERMINATED = 143

# What may pass by itself, so that another try before the end makes sense.
TRANSIENT = frozenset({FailureKind.UNREACHABLE, FailureKind.THROTTLED, FailureKind.CHANGED})

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
    FailureKind.UNSUPPORTED: UNSUPPORTED,
    # The directory that was named cannot be used.
    FailureKind.FOREIGN_DIRECTORY: USAGE,
    FailureKind.INTERNAL: UNEXPECTED,
}


def exit_code(kind: FailureKind) -> int:
    """The exit code for a failure that ends the command."""
    return _BY_KIND[kind]
