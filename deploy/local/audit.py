"""The audit log of a local cluster's API server: the requests of the product's own users."""

from __future__ import annotations

import json

from deploy.local.users import AGENT, HOOKS, METACONTROLLER

# At most this much is kept, in this many files beside the one that is written.
MEGABYTES = 50
BACKUPS = 1


def policy() -> str:
    """The audit policy (as JSON, which is YAML too): who did what, without bodies."""
    users = [account.name for account in (AGENT, HOOKS, METACONTROLLER)]
    rules = [{"level": "Metadata", "users": users}, {"level": "None"}]
    head = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy"}
    return json.dumps(head | {"omitStages": ["RequestReceived"], "rules": rules}, indent=1)
