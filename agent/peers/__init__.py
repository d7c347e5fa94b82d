"""What the agents of a group exchange: pieces of model files, so that an origin sends them once."""
