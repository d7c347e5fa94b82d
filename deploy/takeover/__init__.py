"""The command `localmodel-takeover`: from KServe's local model cache to localmodel, and back.

`observe.py` reads the cluster, `to_localmodel.py` and `to_kserve.py` decide the steps, `perform.py`
does a step.
"""
