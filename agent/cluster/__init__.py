"""The agent's access to the API server: its LocalModelNode, the node's pods, Events."""
