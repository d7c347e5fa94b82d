"""The demo of localmodel on a cluster of its own, with a check after each step."""

from deploy.local.demo.story import main

__all__ = ["main"]
