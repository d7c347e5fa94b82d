"""The figures' names."""

from __future__ import annotations

# The two that the floor has too.
SPECS = "every LocalModelNode has its models"
COUNTED = "every copy is counted"
JOIN = "a node joins"
CACHE = "one more cache is on every node"
WRITES_TO_SPECS = "API writes until every node has its models"
WRITES_TO_COUNTED = "API writes until every copy is counted"
WRITES = "of them: "
AGENTS = "API writes of the agents"
CONFLICTS = "of them refused, because the spec was newer"
QUIET = "API writes while nothing happens"
QUIET_WRITES = "while nothing happens: "
CALLS = "hook calls: "
BYTES = "sent to hooks: "
LARGEST = "largest request: "
SLOWEST = "slowest call: "
FAILED = "hook calls that failed or came too late"
ERRORS = "errors in Metacontroller's log"
CPU = "CPU: "
PEAK = "peak memory: "
