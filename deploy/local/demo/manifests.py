"""The manifests that the user of the demo applies."""

from __future__ import annotations

from crds.base import API_VERSION
from deploy.local.real.images import BUSYBOX
from deploy.local.real.pods import MOUNT_PATH, STAY

TEAM = "team-a"
# The claim of the first cache in the team's namespace.
CLAIM = "minilm-gpu"
# What the container of `server` prints after the digests of its files.
READ = "all files are read"

NODE_GROUP = f"""\
apiVersion: {API_VERSION}
kind: LocalModelNodeGroup
metadata:
  name: gpu
spec:
  nodeSelector:
    pool: gpu
  storageLimit: 10Gi
  storageSpec:
    resources:
      requests:
        storage: 10Gi
"""

NAMESPACE = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {TEAM}
  labels:
    models: minilm
"""


def cache(uri: str) -> str:
    """The cache of a model, with a claim in the team's namespace."""
    return f"""\
apiVersion: {API_VERSION}
kind: LocalModelCache
metadata:
  name: minilm
spec:
  sourceModelUri: {uri}
  modelSize: 100Mi
  nodeGroup: gpu
  namespaceSelector:
    matchLabels:
      models: minilm
"""


SMALL_GROUP = f"""\
apiVersion: {API_VERSION}
kind: LocalModelNodeGroup
metadata:
  name: small
spec:
  nodeSelector:
    disk: small
  storageLimit: 20Mi
  eviction:
    policy: LRU
    highPercent: 100
    lowPercent: 100
"""


def small_cache(name: str, uri: str) -> str:
    """The cache of a model of 6 MiB; the small group has room for three."""
    return f"""\
---
apiVersion: {API_VERSION}
kind: LocalModelCache
metadata:
  name: {name}
spec:
  sourceModelUri: {uri}
  modelSize: 6Mi
  nodeGroup: small
  namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {TEAM}
"""


def pod(name: str, node: str, cache: str) -> str:
    """A pod on a node that mounts the claim of a small cache."""
    return f"""\
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {TEAM}
spec:
  nodeName: {node}
  automountServiceAccountToken: false
  containers:
    - name: server
      image: server
      volumeMounts:
        - name: model
          mountPath: /mnt/models
  volumes:
    - name: model
      persistentVolumeClaim:
        claimName: {cache}-small
"""


def server(name: str, node: str) -> str:
    """A pod on a real node that prints the SHA-256 of each file of its model, and stays.

    It says which model it needs by a label alone.
    """
    return f"""\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {TEAM}
  labels:
    localmodel.serving.kserve.io/model: minilm
spec:
  nodeSelector:
    kubernetes.io/hostname: {node}
  automountServiceAccountToken: false
  containers:
    - name: main
      image: {BUSYBOX}
      imagePullPolicy: Never
      command: [/bin/sh, -c]
      args:
        - |
          echo started
          cd {MOUNT_PATH} && find . -type f -exec sha256sum {{}} + && echo {READ}
          {STAY}
"""
