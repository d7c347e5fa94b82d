"""The command that puts localmodel in the place of KServe's local model cache, and back.

`there.py` and `back.py` decide from what is seen; `observe.py` looks, `perform.py` acts.
"""
