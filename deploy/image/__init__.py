"""The images of the hooks and of the agent: what they contain, and how they are built."""
