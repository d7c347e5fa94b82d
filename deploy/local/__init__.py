"""A Kubernetes cluster on loopback with localmodel on it, for the demo, the tests and users."""
