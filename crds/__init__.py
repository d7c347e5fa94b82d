"""The API: types, what hooks and agent share of it, and the manifests made from it."""
