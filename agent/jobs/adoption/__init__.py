"""Folders that somebody else filled, such as KServe, and that become ours as they are."""
