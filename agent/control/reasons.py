"""The reasons that the agent gives beside failures and evictions, in the status and in Events.

The reason of a failure is its FailureKind, that of an eviction its EvictionReason.
"""

# Of an entry of LocalModelNode.status.models, and of its condition Ready.
CAPACITY_FULL = "CapacityFull"
KUBELET_THRESHOLD = "KubeletThreshold"
PODS_UNKNOWN = "PodsUnknown"
AWAITING_PLACE = "AwaitingPlace"
AWAITING_TURN = "AwaitingTurn"
AWAITING_CLUSTER_CACHE = "AwaitingLocalModelCache"
AWAITING_OLDER_CACHE = "AwaitingOlderCache"
CHECKING_ACCESS = "CheckingAccess"
ADOPTING = "Adopting"
REFERENCED = "Referenced"
HASHING = "Hashing"
MAKING_VIEW = "MakingView"
CORRUPT = "Corrupt"
# Of an entry whose copy is here, and stays although its eviction was requested.
EVICTION_REQUESTED = "EvictionRequested"
# Of an entry whose copy came from peers alone, as its origin could not be asked.
ORIGIN_NOT_ASKED = "OriginNotAsked"

# No room can be made for the model: waiting does not help. The reason that comes first is that of
# Ready where models of the node have both.
NO_ROOM = (CAPACITY_FULL, KUBELET_THRESHOLD)

# Of Ready alone, and of the condition ForeignDirectories.
NOTHING_WANTED = "NothingWanted"
DOWNLOADING = "Downloading"
PENDING = "Pending"
FAILED = "Failed"
ALL_CACHED = "AllCached"
FOUND = "Found"

# Of the condition DiskShared.
DEFAULT_THRESHOLDS = "DefaultThresholds"
GIVEN_THRESHOLDS = "GivenThresholds"
READ_THRESHOLDS = "ReadThresholds"

# Of Events, beside CAPACITY_FULL, KUBELET_THRESHOLD, REFERENCED and DOWNLOADING. An Event that the
# disk fails has the kind of the failure.
DOWNLOADED = "Downloaded"
DOWNLOAD_FAILED = "DownloadFailed"
ADOPTED = "Adopted"
EVICTED = "Evicted"
DAMAGED = "Damaged"
INVALID_REQUEST = "InvalidRequest"
REMOVED = "Removed"
DISK_RECOVERED = "DiskRecovered"

# Of Events about a pod that waits for a model.
WAITING_FOR_MODEL = "WaitingForModel"
MODEL_CACHED = "ModelCached"
