"""The download engine: ranges of many files, by as many connections as they are good for."""
