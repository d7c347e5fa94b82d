"""The Kubernetes client of our tools: the takeover, the local cluster, and the tests.

`kinds.py` names the kinds, `client.py` reads and changes objects of a kind, `raw_client.py` makes
the HTTP calls, `errors.py` has the errors of a call.
"""
