"""What is on the node's disk: models, their notes, and what is on its way there."""
