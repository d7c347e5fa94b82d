"""The demo: what localmodel does, on a cluster of its own, checked step by step."""

from deploy.local.demo.story import main

__all__ = ["main"]
