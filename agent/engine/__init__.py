"""The download engine: fetches ranges of many files over many connections at once."""
