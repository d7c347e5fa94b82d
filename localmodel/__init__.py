"""Keeps model files on the disks of the nodes that will serve them.

The folders of this package are links to those at the top of the repository, so that what is
installed has one name to import, and the repository keeps its layout.
"""
