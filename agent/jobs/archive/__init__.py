"""Unpacks models that are one archive."""
