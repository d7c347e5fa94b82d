"""The plugin of kubectl: `kubectl localmodel`.

`main.py` is the command line, `snapshot.py` reads the objects of a cluster, `follow.py` keeps a
snapshot up to date. `cells.py`, `why.py` and `usage.py` decide, and do no I/O. Each command is a
module of its own, which `main.py` imports only when the command runs.
"""
