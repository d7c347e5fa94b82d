"""Webhooks of the controllers in `metacontroller/`: pure functions from observed to desired."""
