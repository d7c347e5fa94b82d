"""Adoption: folders that other programs filled, such as KServe's agent, become copies."""
