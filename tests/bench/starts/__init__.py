"""A benchmark of the starts of pods that mount models."""
