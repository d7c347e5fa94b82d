"""The commands of localmodel-agent: their flags, what they start, and what they print."""
