"""The Kubernetes client of the takeover, the plugin, the local cluster and the tests.

`kinds.py` names the kinds, `meta.py` reads the metadata of an object, `client.py` reads and changes
objects, `raw_client.py` makes the HTTP calls, `errors.py` has the errors of a call.
"""
