"""The agent: makes one node's disk match its LocalModelNode."""
