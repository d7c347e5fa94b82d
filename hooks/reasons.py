"""Condition types and the reasons that go with them."""

from __future__ import annotations

# Condition types.
READY = "Ready"
ADMITTED = "Admitted"
SIZE_AS_DECLARED = "SizeAsDeclared"
CLAIMS_BOUND = "ClaimsBound"
OVER_LIMIT = "OverLimit"
REMOVED = "ModelsRemoved"

# Ready, of a cache.
MODEL_CACHED = "ModelCached"
PARTLY_EVICTED = "PartlyEvicted"
EVICTED = "Evicted"
DOWNLOADING = "Downloading"
DOWNLOAD_PENDING = "DownloadPending"
DOWNLOAD_FAILED = "DownloadFailed"
NODES_NOT_READY = "NodesNotReady"
NO_NODE_GROUP = "NoNodeGroup"
NODE_GROUP_NOT_FOUND = "NodeGroupNotFound"
NODE_GROUP_DELETING = "NodeGroupDeleting"
NODE_GROUP_UNREADABLE = "NodeGroupUnreadable"
DELETING = "Deleting"

# Ready and Admitted, of a cache with pvcRef.
IMPORTED_BY_KSERVE = "ImportedByKServe"

# Ready, of a group and of a cache; Admitted.
NO_NODES = "NoNodes"
INVALID_SPEC = "InvalidSpec"

# Ready, of a group.
FINDING_NODES = "FindingNodes"
NODES_FOUND = "NodesFound"
NO_NODE_AFFINITY = "NoNodeAffinity"
LOCAL_PATH_MISMATCH = "LocalPathMismatch"

# Ready, of a group, and Admitted.
PLAN_PENDING = "PlanPending"

# Admitted.
PLACED = "Placed"
DUPLICATE_SOURCE_MODEL_URI = "DuplicateSourceModelUri"
CLAIM_NAME_TAKEN = "ClaimNameTaken"
STORAGE_LIMIT_EXCEEDED = "StorageLimitExceeded"
MODEL_TOO_LARGE = "ModelTooLarge"
GROUP_TOO_LARGE = "GroupTooLarge"

# OverLimit.
ADMITTED_EXCEED_LIMIT = "AdmittedExceedLimit"
PINNED_EXCEED_LIMIT = "PinnedExceedLimit"

# ModelsRemoved, of a group that is being deleted.
NODES_LIST_MODELS = "NodesListModels"
AGENTS_REMOVE_MODELS = "AgentsRemoveModels"
MODELS_REMOVED = "Removed"

# SizeAsDeclared.
WITHIN_MODEL_SIZE = "WithinModelSize"
LARGER_THAN_DECLARED = "LargerThanDeclared"
SIZE_UNKNOWN = "SizeUnknown"

# ClaimsBound.
ALL_BOUND = "AllBound"
NO_CLAIMS = "NoClaims"
VOLUMES_NOT_MANAGED = "VolumesNotManaged"
NO_NAMESPACES = "NoNamespaces"
CLAIM_PENDING = "ClaimPending"
CLAIM_REFUSED = "ClaimRefused"
AWAITING_ACCESS = "AwaitingAccess"
VOLUME_OUTDATED = "VolumeOutdated"
