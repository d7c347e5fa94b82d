"""The references of docs/ that are made from the code: flags, settings and metrics."""
