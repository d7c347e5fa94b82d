"""What the agent sees and tells of the cluster: its LocalModelNode, pods, Events."""
