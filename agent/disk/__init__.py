"""The files on the node's disk: published models, their notes, and unfinished downloads."""
